//! Whatever the bytes and however they are cut: no panic, nothing passes that was not read and
//! judged, and what is kept has a bound.

use proptest::prelude::*;

use crate::request::{Request, TopicRef, api};
use crate::ruling::{Judge, Question};
use crate::sample;
use crate::schema::Schemas;
use crate::session::{Actions, MAX_FRAME, Session};

/// Allows `topic-0`, and every request without a topic.
struct First(u64);

impl Judge for First {
    fn generation(&self) -> u64 {
        self.0
    }

    fn allows(&self, question: &Question) -> bool {
        question.topic.is_none_or(|topic| topic == "topic-0")
    }

    fn record(&self, _: &Request, _: &[String], _: i16) {}
}

/// How a frame is spoilt.
#[derive(Debug, Clone)]
enum Fault {
    None,
    /// Ends early, at this place of 256.
    Cut(u8),
    /// One bit is another, at this place of 256.
    Flip(u8, u8),
    /// Something else comes in its stead.
    Noise(Vec<u8>),
}

impl Fault {
    fn spoil(&self, mut frame: Vec<u8>) -> Vec<u8> {
        let place = |at: u8| usize::from(at) * frame.len() / 256;
        match self {
            Self::None => {}
            Self::Cut(at) => frame.truncate(place(*at)),
            Self::Flip(at, bit) => {
                let place = place(*at);
                frame[place] ^= 1 << (bit % 8);
            }
            Self::Noise(bytes) => frame.clone_from(bytes),
        }
        frame
    }
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        4 => Just(Fault::None),
        1 => any::<u8>().prop_map(Fault::Cut),
        2 => (any::<u8>(), any::<u8>()).prop_map(|(at, bit)| Fault::Flip(at, bit)),
        1 => prop::collection::vec(any::<u8>(), 0..64).prop_map(Fault::Noise),
    ]
}

/// A request of an API and version, with so many elements in its arrays.
fn asked() -> impl Strategy<Value = (u16, u16, usize)> {
    (prop::sample::select(sample::versions()), 0..3usize)
        .prop_map(|((key, version), n)| (key, version, n))
}

/// The whole frames at the beginning of a stream, each without its length, and what is left.
fn frames(mut bytes: &[u8]) -> (Vec<&[u8]>, &[u8]) {
    let mut all = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk::<4>() {
        let length = u32::from_be_bytes(*length) as usize;
        if rest.len() < length {
            break;
        }
        all.push(&rest[..length]);
        bytes = &rest[length..];
    }
    (all, bytes)
}

/// A session that is fed in chunks, and what it let pass.
struct Fed {
    session: Session,
    out: Actions,
}

impl Fed {
    fn new() -> Self {
        Self { session: Session::default(), out: Actions::default() }
    }

    fn feed(&mut self, bytes: &[u8], chunk: usize, judge: &First, from_client: bool) {
        for chunk in bytes.chunks(chunk) {
            let ended = self.out.not_protocol;
            let passed = self.out.to_broker.len() + self.out.to_client.len();
            if from_client {
                self.session.on_client(chunk, judge, &mut self.out);
            } else {
                self.session.on_broker(chunk, judge, &mut self.out);
            }
            let now = self.out.to_broker.len() + self.out.to_client.len();
            assert!(!ended || passed == now, "a connection that is to end passes nothing");
        }
    }

    /// The requests that reached the broker, as (API, version, correlation id); each was read, and
    /// names nothing that is denied.
    fn sent(&self) -> Vec<(u16, u16, i32)> {
        let (whole, rest) = frames(&self.out.to_broker);
        assert!(rest.is_empty(), "requests go on whole");
        let read = whole.into_iter().map(|frame| {
            let request = Request::parse(frame).expect("was read before it passed");
            for topic in &request.topics {
                assert!(!matches!(topic, TopicRef::Name(name) if name != "topic-0"), "{request:?}");
            }
            (request.api_key, request.api_version, request.correlation_id)
        });
        read.collect()
    }
}

proptest! {
    #[test]
    fn any_bytes_either_way(
        steps in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..300)), 1..8),
        chunk in 1..64usize,
    ) {
        let mut fed = Fed::new();
        for (from_client, bytes) in &steps {
            fed.feed(bytes, chunk, &First(1), *from_client);
        }
        fed.sent();
        prop_assert!(fed.out.to_client.is_empty(), "nobody asked");
    }

    #[test]
    fn spoilt_requests_and_responses(
        steps in prop::collection::vec((asked(), fault(), fault(), 0..3usize), 1..8),
        chunk in 1..200usize,
    ) {
        let mut fed = Fed::new();
        let mut answered = 0;
        for (turn, ((key, version, elements), before, after, answer)) in (1..).zip(steps) {
            let judge = First(turn / 3); // policy changes now and then
            let correlation = i32::try_from(turn).expect("few");
            let frame = sample::request(key, version, correlation, elements).expect("known");
            fed.feed(&before.spoil(frame), chunk, &judge, true);
            let sent = fed.sent();
            while let Some(&(key, version, correlation)) = sent.get(answered) {
                answered += 1;
                if let Some(frame) = sample::response(key, version, correlation, answer) {
                    fed.feed(&after.spoil(frame), chunk, &judge, false);
                }
            }
        }
        fed.sent();
    }

    /// Each request is answered in its turn, by the broker or by us, whatever the broker's bytes;
    /// those that cannot be an answer end the connection.
    #[test]
    fn answers_in_turn(
        steps in prop::collection::vec((asked(), fault()), 1..8),
        chunk in 1..200usize,
    ) {
        let mut fed = Fed::new();
        let judge = First(1);
        let mut correlations = Vec::new();
        for (turn, ((key, version, elements), _)) in (1..).zip(&steps) {
            let frame = sample::request(*key, *version, turn, *elements).expect("known");
            fed.feed(&frame, chunk, &judge, true);
            correlations.push(turn);
        }
        prop_assert!(!fed.out.not_protocol);
        let mut answered = 0;
        while let Some(&(key, version, correlation)) = fed.sent().get(answered) {
            let frame = sample::response(key, version, correlation, 1).expect("known");
            fed.feed(&steps[answered % steps.len()].1.spoil(frame), chunk, &judge, false);
            answered += 1;
        }
        let (whole, rest) = frames(&fed.out.to_client);
        let spoilt = steps.iter().any(|(_, fault)| !matches!(fault, Fault::None));
        prop_assert!(whole.len() <= correlations.len());
        prop_assert!(spoilt || (whole.len() == correlations.len() && rest.is_empty()));
        for (frame, correlation) in whole.into_iter().zip(correlations) {
            prop_assert!(frame.starts_with(&correlation.to_be_bytes()));
        }
    }
}

#[test]
fn a_length_above_the_limit_is_refused_before_anything_is_kept() {
    for length in [MAX_FRAME + 1, i32::MAX as usize, u32::MAX as usize] {
        let length = u32::try_from(length).expect("four bytes").to_be_bytes();
        let mut fed = Fed::new();
        fed.feed(&length, 4, &First(1), true);
        assert!(fed.out.not_protocol);
        // Of a response that is to be read whole; what streams through may be longer.
        let mut fed = Fed::new();
        let asked = sample::request(api::METADATA, 12, 1, 0).expect("known");
        fed.feed(&asked, 100, &First(1), true);
        fed.feed(&[&length[..], &[0, 0, 0, 1]].concat(), 8, &First(1), false);
        assert!(fed.out.not_protocol && fed.out.to_client.is_empty());
    }
}

#[test]
fn a_small_frame_does_not_become_many_values() {
    let mut asked = sample::request(15, 5, 1, 0).expect("DescribeGroups");
    let body = asked.len() - 3; // no groups, no operations, no tagged fields
    let count = 9 << 20;
    asked.truncate(body);
    let mut writer = crate::codec::Writer(asked.split_off(4));
    writer.count(true, count);
    writer.0.resize(writer.0.len() + count, 1); // each is an empty name
    writer.0.extend([0, 0]);
    let mut fed = Fed::new();
    fed.feed(&writer.into_frame(), 1 << 20, &First(1), true);
    assert!(fed.out.not_protocol && fed.out.to_broker.is_empty());
}

#[test]
fn a_client_that_only_asks_is_not_served_for_ever() {
    // A request that is kept until its answer comes, of 32 MiB in its last text.
    let mut asked = sample::request(api::FETCH, 12, 1, 0).expect("known").split_off(4);
    let rack = Schemas::get().request(api::FETCH, 12).expect("known").body.field("rack_id");
    assert!(rack.is_some());
    asked.truncate(asked.len() - "rack_id-0".len() - 2);
    let mut writer = crate::codec::Writer(asked);
    writer.text(true, Some(&"r".repeat(32 << 20)));
    writer.varint(0);
    let asked = writer.into_frame();
    let mut fed = Fed::new();
    for turn in 1..=7 {
        assert!(!fed.out.not_protocol, "{turn}");
        fed.out.to_broker.clear();
        fed.feed(&asked, asked.len(), &First(1), true);
    }
    assert!(fed.out.not_protocol);
}
