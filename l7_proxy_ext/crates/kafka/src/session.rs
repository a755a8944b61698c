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
        rewrite::show_allowed(&message.body, &mut body, &denied, request.all_topics, allows);
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
