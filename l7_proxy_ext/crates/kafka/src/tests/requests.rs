//! What passes, what is denied, and what is asked of the broker.

use super::{Topics, broker, client, frame_of, produce, request, response};
use crate::codec::{Reader, Writer};
use crate::request::{Request, TopicRef, api};
use crate::sample;
use crate::schema::Schemas;
use crate::session::{BY_ID_VERSION, OUR_CORRELATION, Session};

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
fn topics_are_described_without_those_that_are_denied() {
    let judge = Topics::new(&["topic-1"]);
    let mut session = Session::default();
    let shows = |bytes: &[u8], text: &[u8]| bytes.windows(text.len()).any(|w| w == text);
    let asked = sample::request(75, 0, 1, 2).expect("known");
    let sent = client(&mut session, &judge, &asked).to_broker;
    assert!(!shows(&sent, b"\x08topic-0\x00\x08"), "is not in the list");
    let answer = sample::response(75, 0, 1, 0).expect("known");
    let seen = broker(&mut session, &judge, &answer).to_client;
    assert!(shows(&seen, b"\x00\x1d\x08topic-0"));
    // None named are all; the sample's cursor, too, is at a topic that is denied.
    let mut all = sample::request(75, 0, 2, 0).expect("known").split_off(4);
    all.truncate(all.len() - b"\x01\x08topic-0....\x00\x00".len());
    let mut writer = Writer(all);
    writer.number(1, -1);
    writer.varint(0);
    let all = writer.into_frame();
    assert_eq!(client(&mut session, &judge, &all).to_broker, all);
    let answer = sample::response(75, 0, 2, 2).expect("known");
    let seen = broker(&mut session, &judge, &answer).to_client;
    assert!(shows(&seen, b"topic-1") && !shows(&seen, b"topic-0"));
}

#[test]
fn what_is_not_kafka_ends_the_connection() {
    let judge = Topics::new(&[]);
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc], &[0; 12]] {
        assert!(client(&mut Session::default(), &judge, bytes).not_protocol, "{bytes:?}");
    }
}
