//! What a connection does, request by request.

use super::*;
use crate::codec::Value;
use crate::request::field;
use crate::sample;
use crate::schema::Type;
use std::cell::{Cell, RefCell};

/// Allows these topics, and every request without one.
struct Topics {
    allowed: RefCell<Vec<&'static str>>,
    generation: Cell<u64>,
    codes: RefCell<Vec<i16>>,
}

impl Topics {
    fn new(allowed: &[&'static str]) -> Self {
        Self {
            allowed: RefCell::new(allowed.to_vec()),
            generation: Cell::new(1),
            codes: RefCell::default(),
        }
    }

    fn change(&self, allowed: &[&'static str]) {
        *self.allowed.borrow_mut() = allowed.to_vec();
        self.generation.set(self.generation.get() + 1);
    }
}

impl Judge for Topics {
    fn generation(&self) -> u64 {
        self.generation.get()
    }

    fn allows(&self, question: &Question) -> bool {
        question.topic.is_none_or(|topic| self.allowed.borrow().contains(&topic))
    }

    fn record(&self, _: &Request, _: &[String], error_code: i16) {
        self.codes.borrow_mut().push(error_code);
    }
}

fn frame_of(write: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut writer = Writer::default();
    write(&mut writer);
    writer.into_frame()
}

fn request(key: u16, version: u16, correlation: i64, body: impl FnOnce(&mut Writer)) -> Vec<u8> {
    frame_of(|w| {
        w.number(2, key.into());
        w.number(2, version.into());
        w.number(4, correlation);
        w.text(false, Some("test"));
        body(w);
    })
}

/// Produce v7 (not flexible) of one empty batch to partition 3.
fn produce(topic: &str, correlation: i64, acks: i64) -> Vec<u8> {
    request(api::PRODUCE, 7, correlation, |w| {
        w.text(false, None);
        w.number(2, acks);
        w.number(4, 1000);
        w.count(false, 1);
        w.text(false, Some(topic));
        w.count(false, 1);
        w.number(4, 3);
        w.no_bytes(false);
    })
}

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

fn response(correlation: i64, body: &[u8]) -> Vec<u8> {
    frame_of(|w| {
        w.number(4, correlation);
        w.0.extend_from_slice(body);
    })
}

fn client(session: &mut Session, judge: &Topics, bytes: &[u8]) -> Actions {
    let mut out = Actions::default();
    session.on_client(bytes, judge, &mut out);
    out
}

fn broker(session: &mut Session, judge: &Topics, bytes: &[u8]) -> Actions {
    let mut out = Actions::default();
    session.on_broker(bytes, judge, &mut out);
    out
}

#[test]
fn what_is_allowed_passes_byte_for_byte_whatever_the_chunks() {
    let judge = Topics::new(&["orders"]);
    let asked = produce("orders", 1, 1);
    let answered = response(1, b"anything");
    for size in 1..asked.len() {
        let mut session = Session::default();
        let (mut up, mut down) = (Vec::new(), Vec::new());
        for chunk in asked.chunks(size) {
            up.extend(client(&mut session, &judge, chunk).to_broker);
        }
        for chunk in answered.chunks(size) {
            down.extend(broker(&mut session, &judge, chunk).to_client);
        }
        assert_eq!((up, down), (asked.clone(), answered.clone()), "chunks of {size}");
    }
}

#[test]
fn a_denial_names_topic_and_partition_and_the_connection_goes_on() {
    let judge = Topics::new(&["orders"]);
    let mut session = Session::default();
    let out = client(&mut session, &judge, &produce("audit", 9, 1));
    assert!(out.to_broker.is_empty());
    let mut reader = Reader::new(&out.to_client[4..]);
    assert_eq!(reader.number(4), Ok(9));
    let shape = &Schemas::get().response(api::PRODUCE, 7).expect("known").body;
    let body = reader.value(shape).expect("well formed");
    assert_eq!(reader.left(), 0);
    let said = format!("{body:?}");
    assert!(said.contains("Text(Some(\"audit\"))"), "{said}");
    assert!(said.contains("Number(3), Number(29)"), "{said}");
    let asked = produce("orders", 10, 1);
    assert_eq!(client(&mut session, &judge, &asked).to_broker, asked);
    assert_eq!(*judge.codes.borrow(), [29, 0]);
}

#[test]
fn a_denial_waits_for_the_answers_before_it() {
    let judge = Topics::new(&["orders"]);
    let mut session = Session::default();
    client(&mut session, &judge, &produce("orders", 1, 1));
    assert!(client(&mut session, &judge, &produce("audit", 2, 1)).to_client.is_empty());
    let first = response(1, b"answer");
    let out = broker(&mut session, &judge, &first);
    assert!(out.to_client.starts_with(&first));
    assert_eq!(out.to_client[first.len() + 4..][..4], [0, 0, 0, 2]);
}

#[test]
fn without_acknowledgement_there_is_no_answer() {
    let judge = Topics::new(&["orders"]);
    let mut session = Session::default();
    let out = client(&mut session, &judge, &produce("audit", 1, 0));
    assert!(out.to_broker.is_empty() && out.to_client.is_empty());
    client(&mut session, &judge, &produce("orders", 2, 0));
    client(&mut session, &judge, &produce("orders", 3, 1));
    let answer = response(3, b"answer");
    assert_eq!(broker(&mut session, &judge, &answer).to_client, answer);
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
fn a_produce_goes_on_without_the_topics_that_are_denied() {
    let judge = Topics::new(&["topic-1"]);
    for (key, version) in sample::versions() {
        if key != api::PRODUCE || version >= 13 {
            continue;
        }
        let mut session = Session::default();
        let asked = sample::request(key, version, 9, 2).expect("known");
        let sent = client(&mut session, &judge, &asked).to_broker;
        let left = Request::parse(&sent[4..]).expect("well formed");
        assert_eq!(left.topics, [TopicRef::Name("topic-1".into())], "version {version}");
        let answer = sample::response(key, version, 9, 1).expect("known");
        let seen = broker(&mut session, &judge, &answer).to_client;
        let message = Schemas::get().response(key, version).expect("known");
        let mut reader = Reader::new(&seen[8..]);
        if message.header_version >= 1 {
            reader.tagged().expect("header");
        }
        let body = reader.value(&message.body).expect("well formed");
        assert_eq!(reader.left(), 0);
        let said = format!("{body:?}");
        // The denied topic's partitions, then what the broker said (of the sample's only topic).
        assert!(said.contains("Number(3), Number(29)"), "{said}");
        assert!(said.contains("Number(4), Number(29)"), "{said}");
        assert!(said.contains("Number(3), Number(0)"), "{said}");
        assert_eq!(*judge.codes.borrow().last().expect("recorded"), 29);
    }
}

#[test]
fn an_unknown_topic_id_is_asked_for_before_the_request_goes_on() {
    let judge = Topics::new(&["orders"]);
    let mut session = Session::default();
    let id = [5; 16];
    let asked = request(api::PRODUCE, 13, 8, |w| {
        w.varint(0);
        w.text(true, None);
        w.number(2, 1);
        w.number(4, 1000);
        w.count(true, 1);
        w.0.extend_from_slice(&id);
        w.count(true, 0);
        w.varint(0);
        w.varint(0);
    });
    let question = client(&mut session, &judge, &asked).to_broker;
    assert_ne!(question, asked);
    assert!(question.windows(16).any(|w| w == id));
    let answer = frame_of(|w| {
        w.number(4, OUR_CORRELATION.into());
        w.varint(0);
        w.number(4, 0); // throttle
        w.count(true, 0); // brokers
        w.text(true, None); // cluster
        w.number(4, 0); // controller
        w.count(true, 1);
        w.number(2, 0);
        w.text(true, Some("orders"));
        w.0.extend_from_slice(&id);
        w.number(1, 0);
        w.count(true, 0);
        w.number(4, 0);
        w.varint(0);
        w.varint(0);
    });
    let out = broker(&mut session, &judge, &answer);
    assert!(out.to_client.is_empty(), "our answer is not the client's");
    assert_eq!(out.to_broker, asked);
}

#[test]
fn an_id_that_the_broker_has_not_is_an_unknown_one_and_asked_for_again() {
    let judge = Topics::new(&["topic-0"]);
    for (key, version) in [(0, 13), (1, 13), (8, 10), (20, 6), (78, 1), (79, 1)] {
        let mut session = Session::default();
        let asked = sample::request(key, version, 3, 1).expect("known");
        for _ in 0..2 {
            let question = client(&mut session, &judge, &asked).to_broker;
            assert_eq!(question[4..6], [0, 3], "Metadata");
            let none = sample::response(3, BY_ID_VERSION, OUR_CORRELATION, 0).expect("known");
            let out = broker(&mut session, &judge, &none);
            assert!(out.to_broker.is_empty(), "API {key}");
            assert_eq!(judge.codes.borrow().last(), Some(&100), "API {key}");
            assert!(out.to_client.windows(2).any(|w| w == [0, 100]), "API {key}");
            assert!(!out.to_client.windows(2).any(|w| w == [0, 29]), "API {key}");
        }
        client(&mut session, &judge, &asked);
        let named = sample::response(3, BY_ID_VERSION, OUR_CORRELATION, 1).expect("known");
        assert_eq!(broker(&mut session, &judge, &named).to_broker, asked, "API {key}");
    }
}

#[test]
fn metadata_of_denied_topics_shows_no_others() {
    let judge = Topics::new(&["orders"]);
    let mut session = Session::default();
    let asked = request(api::METADATA, 0, 4, |w| {
        w.count(false, 1);
        w.text(false, Some("audit"));
    });
    assert!(!client(&mut session, &judge, &asked).to_broker.windows(5).any(|w| w == b"audit"));
    let answer = frame_of(|w| {
        w.number(4, 4);
        w.count(false, 0); // brokers
        w.count(false, 2);
        for topic in ["orders", "secret"] {
            w.number(2, 0);
            w.text(false, Some(topic));
            w.count(false, 0);
        }
    });
    let seen = broker(&mut session, &judge, &answer).to_client;
    assert!(!seen.windows(6).any(|w| w == b"secret"));
    assert!(seen.windows(5).any(|w| w == b"audit"));
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

#[test]
fn topics_are_described_without_those_that_are_denied() {
    let judge = Topics::new(&["topic-1"]);
    let mut session = Session::default();
    let asked = sample::request(75, 0, 1, 2).expect("known");
    let sent = client(&mut session, &judge, &asked).to_broker;
    assert_eq!(Request::parse(&sent[4..]).expect("read").topics.len(), 1);
    let answer = sample::response(75, 0, 1, 0).expect("known");
    let seen = broker(&mut session, &judge, &answer).to_client;
    assert!(seen.windows(7).any(|w| w == b"topic-0") && seen.windows(2).any(|w| w == [0, 29]));
    // None named are all.
    let all = sample::request(75, 0, 2, 0).expect("known");
    assert!(client(&mut session, &judge, &all).to_broker.is_empty());
}

#[test]
fn what_is_not_kafka_ends_the_connection() {
    let judge = Topics::new(&[]);
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc], &[0; 12]] {
        assert!(client(&mut Session::default(), &judge, bytes).not_protocol, "{bytes:?}");
    }
}

/// Denies all there is, also what names no topic.
struct Nothing;

impl Judge for Nothing {
    fn generation(&self) -> u64 {
        1
    }

    fn allows(&self, _: &Question) -> bool {
        false
    }

    fn record(&self, _: &Request, _: &[String], _: i16) {}
}

/// What the denial of a sample says, in order: texts and error codes. `Err` if its own schema does
/// not read it.
fn said(key: u16, version: u16, elements: usize) -> Result<String, Malformed> {
    fn look(name: &str, shape: &Type, value: &Value, to: &mut Vec<String>) {
        match (shape, value) {
            (_, Value::Text(Some(text))) if !text.is_empty() => to.push(text.clone()),
            (_, Value::Number(code)) if name.ends_with("error_code") => to.push(code.to_string()),
            (Type::Array { element, .. }, Value::Array(Some(items))) => {
                items.iter().for_each(|item| look(name, element, item, to));
            }
            (Type::Struct(fields), Value::Struct(values)) => {
                for ((name, shape), value) in fields.iter().zip(values) {
                    look(name, shape, value, to);
                }
            }
            _ => {}
        }
    }
    let mut session = Session::default();
    let mut out = Actions::default();
    session.on_client(
        &sample::request(key, version, 1, elements).expect("known"),
        &Nothing,
        &mut out,
    );
    if session.waiting {
        let none = sample::response(api::METADATA, BY_ID_VERSION, OUR_CORRELATION, 0);
        out.to_broker.clear();
        session.on_broker(&none.expect("known"), &Nothing, &mut out);
    }
    assert!(out.to_broker.is_empty(), "API {key} version {version}");
    let message = Schemas::get().response(key, version).expect("known");
    let mut reader = Reader::new(&out.to_client[8..]);
    if message.header_version >= 1 {
        reader.tagged()?;
    }
    let body = reader.value(&message.body)?;
    let mut all = Vec::new();
    look("", &message.body, &body, &mut all);
    if reader.left() == 0 { Ok(all.join(" ")) } else { Err(Malformed) }
}

#[test]
fn every_api_and_version_has_a_denial_that_its_own_schema_reads() {
    for (key, version) in sample::versions() {
        for elements in [0, 2] {
            if key != api::METADATA || elements == 0 && version > 0 {
                assert!(said(key, version, elements).is_ok(), "API {key} version {version}");
            }
        }
    }
}

/// Every entry that is asked about gets one of its own, with the error that fits what it is.
#[test]
fn each_entry_is_answered_for_itself() {
    for (key, entries) in [
        (9, r#"group-0 topic-0 29 29 topic-1 29 29 0 group-1 topic-0 29 29 topic-1 29 29 0"#),
        (10, "coordinator_keys-0 30 coordinator_keys-1 30"),
        (15, "30 group-0 30 group-1"),
        (
            24,
            "0 transactional_id-0 topic-0 29 29 topic-1 29 29 transactional_id-1 topic-0 29 29 topic-1 29 29",
        ),
        (30, "29 31"),
        (32, "29 topic-0 31 topic-1"),
        (42, "group-0 30 group-1 30"),
        (43, "0 topic-0 29 29 topic-1 29 29"),
        (44, "29 topic-0 31 topic-1"),
        (65, "53 transactional_ids-0 53 transactional_ids-1"),
    ] {
        let version = sample::versions().into_iter().filter(|v| v.0 == key).map(|v| v.1).max();
        let version = version.expect("known").min(if key == 9 { 9 } else { u16::MAX });
        assert_eq!(said(key, version, 2).as_deref(), Ok(entries), "API {key} version {version}");
    }
}
