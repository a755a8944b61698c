//! One connection between a client and a broker, without I/O: bytes in, [`Actions`] out.
//!
//! Requests are read whole and judged before they go on. Responses stream through, except those
//! that teach us topic ids, or that policy has changed under.

use std::collections::{HashMap, HashSet, VecDeque};

use crate::codec::{Malformed, Reader, Writer};
use crate::deny::{self, error};
use crate::request::{Request, Topic, TopicRef, api};
use crate::rewrite;
use crate::schema::Schemas;

/// A frame that is longer is not Kafka: a TLS record or text read as a length.
const MAX_FRAME: usize = 100 << 20;
const OUR_CLIENT: &str = "sidegate";
const OUR_CORRELATION: i32 = 0x5347_0000;
/// Of Metadata, for asking by topic id.
const BY_ID_VERSION: u16 = 12;

/// What policy says of one topic of a request, or of a request that names none.
pub struct Question<'a> {
    pub api_key: u16,
    pub api_version: u16,
    pub client_id: &'a str,
    pub topic: Option<&'a str>,
}

pub trait Judge {
    /// Rises whenever an answer may be another one than before.
    fn generation(&self) -> u64;
    /// Whether it passes (in audit mode everything does).
    fn allows(&self, question: &Question) -> bool;
    /// Called once for each request that was judged, with the error code that was answered.
    fn record(&self, request: &Request, topics: &[String], error_code: i16);
}

#[derive(Debug, Default)]
pub struct Actions {
    pub to_broker: Vec<u8>,
    pub to_client: Vec<u8>,
    /// The bytes are not Kafka, or nobody knows the API: end the connection.
    pub not_protocol: bool,
}

/// What becomes of the next response of the broker.
enum Expected {
    Pass,
    /// May be held back if policy changes meanwhile.
    Fetch {
        request: Box<Request>,
        generation: u64,
    },
    Metadata {
        request: Box<Request>,
        denied: Vec<Topic>,
    },
    /// Of our own question.
    Ours,
    /// Our answer, in its turn.
    Answer(Vec<u8>),
}

/// What the response that is passing through is.
enum Passing {
    Nothing,
    Through(usize),
    Swallow(usize),
}

pub struct Session {
    from_client: Vec<u8>,
    from_broker: Vec<u8>,
    expected: VecDeque<Expected>,
    passing: Passing,
    names: HashMap<[u8; 16], String>,
    unknown: HashSet<[u8; 16]>,
    waiting: bool,
    fetching: HashSet<[u8; 16]>,
    fetching_names: HashSet<String>,
    broken: bool,
}

impl Default for Session {
    fn default() -> Self {
        Self {
            from_client: Vec::new(),
            from_broker: Vec::new(),
            expected: VecDeque::new(),
            passing: Passing::Nothing,
            names: HashMap::new(),
            unknown: HashSet::new(),
            waiting: false,
            fetching: HashSet::new(),
            fetching_names: HashSet::new(),
            broken: false,
        }
    }
}

impl Session {
    pub fn on_client(&mut self, bytes: &[u8], judge: &dyn Judge, out: &mut Actions) {
        self.from_client.extend_from_slice(bytes);
        self.requests(judge, out);
    }

    pub fn on_broker(&mut self, bytes: &[u8], judge: &dyn Judge, out: &mut Actions) {
        self.from_broker.extend_from_slice(bytes);
        if self.responses(judge, out).is_err() {
            self.fail(out);
        }
        self.requests(judge, out);
    }

    fn fail(&mut self, out: &mut Actions) {
        self.broken = true;
        out.not_protocol = true;
    }

    fn requests(&mut self, judge: &dyn Judge, out: &mut Actions) {
        while !self.waiting && !self.broken {
            match frame(&self.from_client) {
                Ok(None) => return,
                Ok(Some(end)) => match Request::parse(&self.from_client[4..end]) {
                    Ok(request) if self.ask_for_ids(&request, out) => return,
                    Ok(request) => {
                        let whole: Vec<u8> = self.from_client.drain(..end).collect();
                        self.request(request, &whole, judge, out);
                    }
                    Err(Malformed) => return self.fail(out),
                },
                Err(Malformed) => return self.fail(out),
            }
        }
    }

    /// Ask the broker for the names of ids that we have not met; the request waits.
    fn ask_for_ids(&mut self, request: &Request, out: &mut Actions) -> bool {
        let ids: Vec<[u8; 16]> = request
            .topics
            .iter()
            .filter_map(|t| match &t.topic {
                TopicRef::Id(id) if !self.names.contains_key(id) && !self.unknown.contains(id) => {
                    Some(*id)
                }
                _ => None,
            })
            .collect();
        if ids.is_empty() {
            return false;
        }
        out.to_broker.extend(rewrite::metadata_by_id(
            &ids,
            BY_ID_VERSION,
            OUR_CORRELATION,
            OUR_CLIENT,
        ));
        self.unknown.extend(ids); // unless the answer says otherwise
        self.expected.push_back(Expected::Ours);
        self.waiting = true;
        true
    }

    fn request(&mut self, request: Request, whole: &[u8], judge: &dyn Judge, out: &mut Actions) {
        let topics = self.topics_of(&request);
        let denied = self.denied(&request, judge);
        let metadata = request.api_key == api::METADATA;
        if denied.is_empty() || (metadata && !request.topics.is_empty()) {
            let code = if denied.is_empty() { 0 } else { error::TOPIC_AUTHORIZATION_FAILED };
            judge.record(&request, &topics, code);
            if denied.is_empty() {
                out.to_broker.extend_from_slice(whole);
            } else {
                out.to_broker.extend(rewrite::without_topics(&request, &denied));
            }
            self.expect(request, denied, judge.generation());
            return;
        }
        // A session that began when its topics were allowed: the client must begin anew.
        let incremental = request.api_key == api::FETCH && request.number("session_epoch") > 0;
        let code = if incremental {
            error::FETCH_SESSION_ID_NOT_FOUND
        } else {
            deny::error_code(&request)
        };
        judge.record(&request, &topics, code);
        self.answer(&request, code, out);
    }

    fn answer(&mut self, request: &Request, code: i16, out: &mut Actions) {
        if request.api_key == api::PRODUCE && request.acks() == Some(0) {
            return; // nobody waits for an answer
        }
        match deny::response(request, code) {
            Some(answer) => {
                self.expected.push_back(Expected::Answer(answer));
                self.flush_answers(out);
            }
            None => self.fail(out),
        }
    }

    fn expect(&mut self, request: Request, denied: Vec<Topic>, generation: u64) {
        let request = Box::new(request);
        match request.api_key {
            api::PRODUCE if request.acks() == Some(0) => {}
            api::METADATA => self.expected.push_back(Expected::Metadata { request, denied }),
            api::FETCH => self.expected.push_back(Expected::Fetch { request, generation }),
            _ => self.expected.push_back(Expected::Pass),
        }
    }

    /// The topics that are not allowed; for a request without topics one that stands for it.
    fn denied(&mut self, request: &Request, judge: &dyn Judge) -> Vec<Topic> {
        if request.api_key == api::FETCH {
            self.track(request);
        }
        let ask = |topic: Option<&str>| {
            judge.allows(&Question {
                api_key: request.api_key,
                api_version: request.api_version,
                client_id: &request.client_id,
                topic,
            })
        };
        let itself = || Topic { topic: TopicRef::Name(String::new()), partitions: Vec::new() };
        let session = request.api_key == api::FETCH && request.number("session_epoch") > 0;
        if request.topics.is_empty() && !session {
            return if ask(None) { Vec::new() } else { vec![itself()] };
        }
        let mut denied: Vec<Topic> = request
            .topics
            .iter()
            .filter(|t| !self.name(&t.topic).is_some_and(|name| ask(Some(name))))
            .cloned()
            .collect();
        if session {
            let ids = self.fetching.iter().map(|id| self.names.get(id).map(String::as_str));
            let names = self.fetching_names.iter().map(|name| Some(name.as_str()));
            if ids.chain(names).any(|name| !name.is_some_and(|name| ask(Some(name)))) {
                denied.push(itself());
            }
        }
        denied
    }

    /// Incremental fetches name only what changed (KIP-227).
    fn track(&mut self, request: &Request) {
        if request.number("session_epoch") <= 0 {
            self.fetching.clear();
            self.fetching_names.clear();
        }
        for topic in &request.topics {
            match &topic.topic {
                TopicRef::Id(id) => self.fetching.insert(*id),
                TopicRef::Name(name) => self.fetching_names.insert(name.clone()),
            };
        }
    }

    fn name<'a>(&'a self, topic: &'a TopicRef) -> Option<&'a str> {
        match topic {
            TopicRef::Name(name) => Some(name),
            TopicRef::Id(id) => self.names.get(id).map(String::as_str),
        }
    }

    fn topics_of(&self, request: &Request) -> Vec<String> {
        request
            .topics
            .iter()
            .map(|t| self.name(&t.topic).unwrap_or("(unknown id)").to_owned())
            .collect()
    }

    fn flush_answers(&mut self, out: &mut Actions) {
        if !matches!(self.passing, Passing::Nothing) {
            return;
        }
        while let Some(Expected::Answer(answer)) = self.expected.front() {
            out.to_client.extend_from_slice(answer);
            self.expected.pop_front();
        }
    }

    fn responses(&mut self, judge: &dyn Judge, out: &mut Actions) -> Result<(), Malformed> {
        loop {
            match &mut self.passing {
                Passing::Nothing => {
                    self.flush_answers(out);
                    if !self.begin_response(judge, out)? {
                        return Ok(());
                    }
                }
                Passing::Through(left) | Passing::Swallow(left) => {
                    let count = (*left).min(self.from_broker.len());
                    *left -= count;
                    let done = *left == 0;
                    let bytes = self.from_broker.drain(..count);
                    if matches!(self.passing, Passing::Through(_)) {
                        out.to_client.extend(bytes);
                    } else {
                        drop(bytes);
                    }
                    if !done {
                        return Ok(());
                    }
                    self.passing = Passing::Nothing;
                }
            }
        }
    }

    /// Decide what becomes of the response at the front; false until there is enough of it.
    fn begin_response(&mut self, judge: &dyn Judge, out: &mut Actions) -> Result<bool, Malformed> {
        if self.from_broker.len() < 4 {
            return Ok(false);
        }
        let length =
            4 + Reader(&self.from_broker).number(4).map(usize::try_from)?.map_err(|_| Malformed)?;
        let Some(expected) = self.expected.front() else { return Err(Malformed) };
        let whole = self.from_broker.len() >= length;
        match expected {
            Expected::Fetch { request, generation } => {
                if *generation != judge.generation() {
                    let request = request.clone();
                    if self.denied_now(&request, judge) {
                        let code = deny::error_code(&request);
                        judge.record(&request, &self.topics_of(&request), code);
                        self.passing = Passing::Swallow(length);
                        self.expected.pop_front();
                        if let Some(answer) = deny::response(&request, code) {
                            self.expected.push_front(Expected::Answer(answer));
                        }
                        return Ok(true);
                    }
                }
            }
            Expected::Metadata { .. } | Expected::Ours => {
                if !whole {
                    return Ok(false);
                }
                let frame: Vec<u8> = self.from_broker.drain(..length).collect();
                let expected = self.expected.pop_front();
                self.metadata(expected, &frame, judge, out)?;
                return Ok(true);
            }
            Expected::Pass | Expected::Answer(_) => {}
        }
        self.expected.pop_front();
        self.passing = Passing::Through(length);
        Ok(true)
    }

    fn denied_now(&mut self, request: &Request, judge: &dyn Judge) -> bool {
        let (ids, names) = (self.fetching.clone(), self.fetching_names.clone());
        let denied = !self.denied(request, judge).is_empty();
        (self.fetching, self.fetching_names) = (ids, names);
        denied
    }

    fn metadata(
        &mut self,
        expected: Option<Expected>,
        frame: &[u8],
        judge: &dyn Judge,
        out: &mut Actions,
    ) -> Result<(), Malformed> {
        let (version, request, denied) = match expected {
            Some(Expected::Metadata { request, denied }) => {
                (request.api_version, Some(request), denied)
            }
            _ => (BY_ID_VERSION, None, Vec::new()),
        };
        let message = Schemas::get().response(api::METADATA, version).ok_or(Malformed)?;
        let mut reader = Reader(&frame[4..]);
        let correlation = reader.number(4)?;
        if message.header_version >= 1 {
            reader.tagged()?;
        }
        let mut body = reader.value(&message.body)?;
        for (id, name) in rewrite::ids_of(&message.body, &body) {
            self.unknown.remove(&id);
            self.names.insert(id, name);
        }
        let Some(request) = request else {
            self.waiting = false;
            return Ok(());
        };
        if denied.is_empty() && !request.all_topics {
            out.to_client.extend_from_slice(frame);
            return Ok(());
        }
        let allows = |name: &str| {
            judge.allows(&Question {
                api_key: api::METADATA,
                api_version: version,
                client_id: &request.client_id,
                topic: Some(name),
            })
        };
        // In version 0 a list that lost its last topic asks for all of them.
        let all = request.all_topics || version == 0;
        rewrite::show_allowed(&message.body, &mut body, &denied, all, allows);
        let mut writer = Writer::default();
        writer.number(4, correlation);
        if message.header_version >= 1 {
            writer.varint(0);
        }
        rewrite::write(&mut writer, &message.body, &body);
        out.to_client.extend(writer.into_frame());
        Ok(())
    }
}

/// The end of the first frame in `bytes`, None while it is not whole.
fn frame(bytes: &[u8]) -> Result<Option<usize>, Malformed> {
    if bytes.len() < 4 {
        return Ok(None);
    }
    let length = usize::try_from(Reader(bytes).number(4)?).map_err(|_| Malformed)?;
    if !(8..=MAX_FRAME).contains(&length) {
        return Err(Malformed);
    }
    Ok((bytes.len() >= 4 + length).then_some(4 + length))
}

#[cfg(test)]
mod tests {
    use super::*;
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

    fn request(
        key: u16,
        version: u16,
        correlation: i64,
        body: impl FnOnce(&mut Writer),
    ) -> Vec<u8> {
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
        let mut reader = Reader(&out.to_client[4..]);
        assert_eq!(reader.number(4), Ok(9));
        let shape = &Schemas::get().response(api::PRODUCE, 7).expect("known").body;
        let body = reader.value(shape).expect("well formed");
        assert!(reader.0.is_empty());
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
    fn a_fetch_in_flight_is_judged_again_when_policy_changed() {
        let judge = Topics::new(&["orders"]);
        let mut session = Session::default();
        client(&mut session, &judge, &fetch(&["orders"], 5, 0, 0));
        judge.change(&[]);
        let out = broker(&mut session, &judge, &response(5, &[7; 100]));
        assert!(!out.to_client.windows(4).any(|w| w == [7; 4]), "the records are held back");
        assert_eq!(out.to_client[4..8], [0, 0, 0, 5]);
        assert_eq!(judge.codes.borrow().last(), Some(&29));
    }

    #[test]
    fn an_incremental_fetch_is_judged_by_its_whole_session() {
        let judge = Topics::new(&["orders"]);
        let mut session = Session::default();
        client(&mut session, &judge, &fetch(&["orders"], 1, 0, 0));
        broker(&mut session, &judge, &response(1, b"answer"));
        let next = fetch(&[], 2, 42, 1);
        assert_eq!(client(&mut session, &judge, &next).to_broker, next);
        broker(&mut session, &judge, &response(2, b"answer"));
        judge.change(&[]);
        let out = client(&mut session, &judge, &fetch(&[], 3, 42, 2));
        assert!(out.to_broker.is_empty());
        assert_eq!(judge.codes.borrow().last(), Some(&error::FETCH_SESSION_ID_NOT_FOUND));
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
    fn what_is_not_kafka_ends_the_connection() {
        let judge = Topics::new(&[]);
        for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc], &[0; 12]]
        {
            assert!(client(&mut Session::default(), &judge, bytes).not_protocol, "{bytes:?}");
        }
    }

    #[test]
    fn every_api_and_version_has_a_denial_that_its_own_schema_reads() {
        for (key, version) in Schemas::get().versions() {
            let request = Request {
                api_key: key,
                api_version: version,
                correlation_id: 1,
                client_id: String::new(),
                topics: vec![Topic { topic: TopicRef::Name("t".into()), partitions: vec![0] }],
                all_topics: false,
                topic_api: true,
                group: "g".into(),
                coordinator_keys: vec!["k".into()],
                body: None,
            };
            let answer = deny::response(&request, 29).expect("known");
            let message = Schemas::get().response(key, version).expect("known");
            let mut reader = Reader(&answer[8..]);
            if message.header_version >= 1 {
                reader.tagged().expect("header");
            }
            let read = reader.value(&message.body);
            assert!(read.is_ok() && reader.0.is_empty(), "API {key} version {version}");
        }
    }
}
