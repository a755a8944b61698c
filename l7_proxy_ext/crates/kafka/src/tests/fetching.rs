//! Fetch: its sessions, what is in flight, and what goes on without some topics.

use super::{Topics, broker, client, produce, request, response};
use crate::codec::{Reader, Value, Writer};
use crate::deny::error;
use crate::request::{api, field};
use crate::sample;
use crate::schema::{Schemas, Type};
use crate::session::{BY_ID_VERSION, OUR_CORRELATION, Session};

/// Fetch v11 of partition 0 of these topics.
fn fetch(topics: &[&str], correlation: i64, session: i64, epoch: i64) -> Vec<u8> {
    request(api::FETCH, 11, correlation, |w| {
        w.number(4, -1);
        w.number(4, 500);
        w.number(4, 1);
        w.number(4, 1 << 20);
        w.number(1, 0);
        w.number(4, session);
        w.number(4, epoch);
        w.count(false, topics.len());
        for topic in topics {
            w.text(false, Some(topic));
            w.count(false, 1);
            w.number(4, 0);
            w.number(4, -1);
            w.number(8, 0);
            w.number(8, -1);
            w.number(4, 1 << 20);
        }
        w.count(false, 0);
        w.text(false, Some(""));
    })
}

/// What is said of each topic of a response to Fetch v11: (name, error code), after the codes of
/// the whole and the session id.
fn fetched(bytes: &[u8]) -> (i64, i64, Vec<(String, i64)>) {
    let shape = &Schemas::get().response(api::FETCH, 11).expect("known").body;
    let body = Reader::new(&bytes[8..]).value(shape).expect("well formed");
    let number = |shape, value, name| match field(shape, value, name) {
        Some(Value::Number(number)) => *number,
        other => panic!("{name}: {other:?}"),
    };
    let Some(Type::Array { element, .. }) = shape.field("responses") else { panic!("no topics") };
    let Some(Type::Array { element: partition, .. }) = element.field("partitions") else {
        panic!("no partitions")
    };
    let topics = field(shape, &body, "responses").expect("topics").items().iter().map(|topic| {
        let Some(Value::Text(Some(name))) = field(element, topic, "topic") else {
            panic!("unnamed")
        };
        let first = &field(element, topic, "partitions").expect("partitions").items()[0];
        (name.clone(), number(partition, first, "error_code"))
    });
    (number(shape, &body, "error_code"), number(shape, &body, "session_id"), topics.collect())
}

/// A connection whose Fetch session 42 has these topics; the response named `topic-0`.
fn fetching(judge: &Topics, topics: &[&str]) -> Session {
    let mut session = Session::default();
    let asked = fetch(topics, 1, 0, 0);
    assert_eq!(client(&mut session, judge, &asked).to_broker, asked);
    let answer = sample::response(api::FETCH, 11, 1, 1).expect("known");
    assert_eq!(broker(&mut session, judge, &answer).to_client, answer);
    session
}

#[test]
fn a_fetch_in_flight_is_judged_again_when_policy_changed() {
    let judge = Topics::new(&["orders", "topic-0"]);
    let mut session = Session::default();
    client(&mut session, &judge, &fetch(&["orders", "topic-0"], 5, 0, 0));
    judge.change(&["orders"]);
    let answer = sample::response(api::FETCH, 11, 5, 1).expect("known");
    let mut seen = Vec::new();
    for byte in answer {
        seen.extend(broker(&mut session, &judge, &[byte]).to_client);
    }
    // The session that the broker began is not told; `orders` has no news.
    let topics = vec![("orders".into(), 0), ("topic-0".into(), 29)];
    assert_eq!(fetched(&seen), (0, 0, topics));
    assert_eq!(judge.codes.borrow().last(), Some(&29));
}

#[test]
fn an_incremental_fetch_is_judged_by_its_whole_session() {
    let judge = Topics::new(&["orders"]);
    let mut session = fetching(&judge, &["orders"]);
    let next = fetch(&[], 2, 42, 1);
    assert_eq!(client(&mut session, &judge, &next).to_broker, next);
    let answer = sample::response(api::FETCH, 11, 2, 0).expect("known");
    assert_eq!(broker(&mut session, &judge, &answer).to_client, answer);
    judge.change(&[]);
    let out = client(&mut session, &judge, &fetch(&[], 3, 42, 2));
    assert!(out.to_broker.is_empty());
    assert_eq!(fetched(&out.to_client), (70, 0, vec![]));
    assert_eq!(judge.codes.borrow().last(), Some(&error::FETCH_SESSION_ID_NOT_FOUND));
}

#[test]
fn an_incremental_fetch_in_flight_tells_the_client_to_begin_anew() {
    let judge = Topics::new(&["orders", "audit"]);
    let mut session = fetching(&judge, &["orders", "audit"]);
    client(&mut session, &judge, &fetch(&[], 2, 42, 1));
    judge.change(&["orders"]);
    let answer = sample::response(api::FETCH, 11, 2, 1).expect("known");
    let out = broker(&mut session, &judge, &answer);
    assert_eq!(fetched(&out.to_client), (70, 0, vec![]));
    // What a client does then: a full request, of which what is allowed goes on.
    let out = client(&mut session, &judge, &fetch(&["orders", "audit"], 3, 0, 0));
    assert_eq!(out.to_broker, fetch(&["orders"], 3, 0, -1));
}

#[test]
fn a_fetch_session_that_did_not_begin_here_has_to_begin_anew() {
    let judge = Topics::new(&["orders"]);
    let mut session = Session::default();
    let out = client(&mut session, &judge, &fetch(&["orders"], 1, 42, 1));
    assert_eq!(fetched(&out.to_client), (70, 0, vec![]));
    let mut session = fetching(&judge, &["orders"]);
    let out = client(&mut session, &judge, &fetch(&[], 2, 43, 1));
    assert_eq!(fetched(&out.to_client), (70, 0, vec![]), "another session than our own");
}

#[test]
fn a_forgotten_topic_is_not_in_the_session_any_more() {
    let judge = Topics::new(&["orders", "audit"]);
    let mut session = fetching(&judge, &["orders", "audit"]);
    let forget = |partitions: &[i64], correlation| {
        let mut body = fetch(&[], correlation, 42, 1);
        body.truncate(body.len() - 6); // no forgotten topics, no rack
        let mut writer = Writer(body.split_off(4));
        writer.count(false, 1);
        writer.text(false, Some("audit"));
        writer.count(false, partitions.len());
        partitions.iter().for_each(|&partition| writer.number(4, partition));
        writer.text(false, Some(""));
        writer.into_frame()
    };
    let other = forget(&[7], 2);
    assert_eq!(client(&mut session, &judge, &other).to_broker, other);
    judge.change(&["orders"]);
    let out = client(&mut session, &judge, &fetch(&[], 3, 42, 2));
    assert!(out.to_broker.is_empty(), "partition 0 of it is in the session still");
    judge.change(&["orders", "audit"]);
    let mut session = fetching(&judge, &["orders", "audit"]);
    client(&mut session, &judge, &forget(&[0], 2));
    judge.change(&["orders"]);
    let next = fetch(&[], 3, 42, 2);
    assert_eq!(client(&mut session, &judge, &next).to_broker, next);
}

#[test]
fn a_fetch_goes_on_without_the_topics_that_are_denied() {
    let judge = Topics::new(&["orders", "topic-0"]);
    for size in [1, 3, 1000] {
        let mut session = Session::default();
        let asked = fetch(&["audit", "orders", "secret", "topic-0"], 5, 0, 0);
        let out = client(&mut session, &judge, &asked);
        assert_eq!(out.to_broker, fetch(&["orders", "topic-0"], 5, 0, -1));
        client(&mut session, &judge, &produce("orders", 6, 1));
        let answer = sample::response(api::FETCH, 11, 5, 1).expect("known");
        let next = response(6, b"next");
        let mut seen = Vec::new();
        for chunk in [answer, next.clone()].concat().chunks(size) {
            seen.extend(broker(&mut session, &judge, chunk).to_client);
        }
        assert!(seen.ends_with(&next));
        let length = u32::from_be_bytes(seen[..4].try_into().expect("four")) as usize;
        let topics = ["audit", "secret", "topic-0"]
            .map(|name| (name.to_owned(), if name == "topic-0" { 0 } else { 29 }));
        assert_eq!(fetched(&seen[..4 + length]).2, topics);
    }
}

#[test]
fn a_share_session_is_judged_as_a_whole_too() {
    let judge = Topics::new(&["topic-0"]);
    let mut session = Session::default();
    // Epoch 0 begins a session with the sample's topic.
    client(&mut session, &judge, &sample::request(api::SHARE_FETCH, 1, 1, 1).expect("known"));
    let named = sample::response(3, BY_ID_VERSION, OUR_CORRELATION, 1).expect("known");
    assert!(!broker(&mut session, &judge, &named).to_broker.is_empty());
    let answer = sample::response(api::SHARE_FETCH, 1, 1, 1).expect("known");
    assert_eq!(broker(&mut session, &judge, &answer).to_client, answer);
    let next = |epoch: u8| {
        let mut frame = sample::request(api::SHARE_FETCH, 1, 2, 0).expect("known");
        let at = frame.windows(11).position(|w| w == b"member_id-0").expect("named") + 11;
        frame[at + 3] = epoch;
        frame
    };
    assert_eq!(client(&mut session, &judge, &next(1)).to_broker, next(1));
    judge.change(&[]);
    let answer = sample::response(api::SHARE_FETCH, 1, 2, 1).expect("known");
    broker(&mut session, &judge, &answer);
    assert_eq!(judge.codes.borrow().last(), Some(&122), "held back");
    assert!(client(&mut session, &judge, &next(2)).to_broker.is_empty());
    assert_eq!(judge.codes.borrow().last(), Some(&122));
}
