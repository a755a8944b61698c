//! One connection between a client and a broker, without I/O: bytes in, [`Actions`] out.
//!
//! Requests are read whole and judged before they go on. Responses stream through, except those
//! that teach us topic ids, those that lack topics which we took out of the request, and those
//! that policy has changed under.

use std::collections::HashSet;

use crate::codec::{Malformed, Reader, Writer};
use crate::deny::{self, Codes, Denial, error};
use crate::fetch::{FetchSession, is_incremental, not_found};
use crate::request::{Request, TopicRef, api};
use crate::rewrite;
use crate::ruling::{Judge, Known, Question, Ruling};
use crate::schema::Schemas;
use crate::splice::{self, Head};
use crate::turns::{Expected, Turn, Turns};
use crate::versions;

/// A frame that is longer is not Kafka: a TLS record or text read as a length.
pub(crate) const MAX_FRAME: usize = 100 << 20;
/// What a connection may make us keep: requests behind one that waits, answers behind others.
const MAX_HELD: usize = 2 * MAX_FRAME;
/// What comes before the entries of a response fits easily.
const MAX_HEAD: usize = 4096;
const OUR_CLIENT: &str = "sidegate";
pub(crate) const OUR_CORRELATION: i32 = 0x5347_0000;
/// Of Metadata, for asking by topic id.
pub(crate) const BY_ID_VERSION: u16 = 12;

#[derive(Debug, Default)]
pub struct Actions {
    pub to_broker: Vec<u8>,
    pub to_client: Vec<u8>,
    /// The bytes are not Kafka, or nobody knows the API: end the connection.
    pub not_protocol: bool,
}

/// What the response that is passing through is.
#[derive(Default)]
enum Passing {
    #[default]
    Nothing,
    Through(usize),
    Swallow(usize),
}

#[derive(Default)]
pub struct Session {
    from_client: Vec<u8>,
    from_broker: Vec<u8>,
    turns: Turns,
    passing: Passing,
    known: Known,
    /// Of the request that waits for the broker to name them.
    asked_for: HashSet<[u8; 16]>,
    waiting: bool,
    broken: bool,
}

impl Session {
    pub fn on_client(&mut self, bytes: &[u8], judge: &dyn Judge, out: &mut Actions) {
        if self.broken || self.from_client.len() + bytes.len() > MAX_HELD {
            return self.fail(out);
        }
        self.from_client.extend_from_slice(bytes);
        self.requests(judge, out);
    }

    pub fn on_broker(&mut self, bytes: &[u8], judge: &dyn Judge, out: &mut Actions) {
        if self.broken {
            return self.fail(out);
        }
        self.from_broker.extend_from_slice(bytes);
        if self.responses(judge, out).is_err() {
            return self.fail(out);
        }
        self.requests(judge, out);
    }

    fn fail(&mut self, out: &mut Actions) {
        *self = Self { broken: true, ..Self::default() };
        out.not_protocol = true;
    }

    fn requests(&mut self, judge: &dyn Judge, out: &mut Actions) {
        while !self.waiting && !self.broken {
            let judged = match frame(&self.from_client) {
                Ok(None) => return,
                Ok(Some(end)) if self.refused(end, out) => Ok(()),
                Ok(Some(end)) => Request::parse(&self.from_client[4..end]).and_then(|request| {
                    if self.ask_for_ids(&request, out) {
                        return Ok(());
                    }
                    let whole: Vec<u8> = self.from_client.drain(..end).collect();
                    self.asked_for.clear();
                    self.request(request, &whole, judge, out)
                }),
                Err(Malformed) => Err(Malformed),
            };
            if judged.is_err() || self.turns.held() > MAX_HELD {
                self.fail(out);
            }
        }
    }

    /// Answer for the broker what asks which versions there are in a version that there is not.
    fn refused(&mut self, end: usize, out: &mut Actions) -> bool {
        let Some((correlation_id, answer)) = versions::refusal(&self.from_client[4..end]) else {
            return false;
        };
        self.from_client.drain(..end);
        self.turns.push(correlation_id, answer.len(), Expected::Answer(answer));
        self.flush_answers(out);
        true
    }

    /// Ask the broker for the names of ids that we have not met; the request waits.
    fn ask_for_ids(&mut self, request: &Request, out: &mut Actions) -> bool {
        let new = |id| !self.known.names.contains_key(id) && !self.asked_for.contains(id);
        let ids: Vec<[u8; 16]> = request
            .topics
            .iter()
            .filter_map(|topic| match topic {
                TopicRef::Id(id) if new(id) => Some(*id),
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
        self.asked_for.extend(ids);
        self.turns.push(OUR_CORRELATION, 0, Expected::Ours);
        self.waiting = true;
        true
    }

    fn request(
        &mut self,
        request: Request,
        whole: &[u8],
        judge: &dyn Judge,
        out: &mut Actions,
    ) -> Result<(), Malformed> {
        let topics = self.known.topics_of(&request);
        match self.known.rule(&request, judge) {
            Ruling::Allowed => {
                judge.record(&request, &topics, error::NONE);
                out.to_broker.extend_from_slice(whole);
                self.sent(request, whole.len(), Codes::new(), judge.generation());
            }
            Ruling::Partly(denied) => {
                let rest = splice::without_topics(whole, &request, &denied)?;
                let denial = Denial::whole(denied);
                judge.record(&request, &topics, denial.code(&request));
                out.to_broker.extend(rest);
                self.sent(request, whole.len(), denial.topics, judge.generation());
            }
            Ruling::Denied(denial) => {
                judge.record(&request, &topics, denial.code(&request));
                if request.api_key == api::PRODUCE && request.number("acks") == Some(0) {
                    return Ok(()); // nobody waits for an answer
                }
                let answer = deny::response(&request, &denial).ok_or(Malformed)?;
                self.turns.push(request.correlation_id, answer.len(), Expected::Answer(answer));
                self.flush_answers(out);
            }
        }
        Ok(())
    }

    /// What to do with the response to a request that is on its way, of so many bytes.
    fn sent(&mut self, request: Request, size: usize, denied: Codes, generation: u64) {
        if is_incremental(&request) {
            self.known.fetch =
                self.known.fetch.take().and_then(|session| session.changed(&request));
        }
        let correlation_id = request.correlation_id;
        let request = Box::new(request);
        match request.api_key {
            api::PRODUCE if request.number("acks") == Some(0) => {}
            api::METADATA | api::DESCRIBE_TOPIC_PARTITIONS => {
                self.turns.push(correlation_id, size, Expected::Metadata { request, denied });
            }
            api::API_VERSIONS => {
                self.turns.push(correlation_id, 0, Expected::Versions(request.api_version));
            }
            api::PRODUCE if denied.is_empty() => self.turns.push(correlation_id, 0, Expected::Pass),
            api::PRODUCE | api::FETCH | api::SHARE_FETCH => {
                let expected = Expected::Topics { request, denied, generation };
                self.turns.push(correlation_id, size, expected);
            }
            _ => self.turns.push(correlation_id, 0, Expected::Pass),
        }
    }

    fn flush_answers(&mut self, out: &mut Actions) {
        if !matches!(self.passing, Passing::Nothing) {
            return;
        }
        while let Some(Turn { expected: Expected::Answer(answer), .. }) = self.turns.front() {
            out.to_client.extend_from_slice(answer);
            self.turns.pop();
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
        if self.from_broker.len() < 8 {
            return Ok(false);
        }
        let mut reader = Reader::new(&self.from_broker);
        let length = usize::try_from(reader.number(4)?).map_err(|_| Malformed)?;
        let turn = self.turns.front().ok_or(Malformed)?;
        if length < 4 || reader.number(4)? != turn.correlation_id.into() {
            return Err(Malformed);
        }
        let whole = self.from_broker.len() >= 4 + length;
        match &turn.expected {
            Expected::Pass => {
                self.turns.pop();
                self.passing = Passing::Through(4 + length);
            }
            Expected::Topics { request, .. } => {
                let end = self.from_broker.len().min(4 + length);
                match Head::read(&self.from_broker[4..end], request) {
                    Ok(head) => self.topics(&head, length, judge, out)?,
                    Err(Malformed) if !whole && end < MAX_HEAD => return Ok(false),
                    Err(Malformed) => return Err(Malformed),
                }
            }
            Expected::Metadata { .. } | Expected::Ours | Expected::Versions(_) => {
                if !whole && length <= MAX_FRAME {
                    return Ok(false);
                }
                if !whole {
                    return Err(Malformed);
                }
                let versions = match turn.expected {
                    Expected::Versions(version) => Some(version),
                    _ => None,
                };
                let frame: Vec<u8> = self.from_broker.drain(..4 + length).collect();
                if let Some(version) = versions {
                    self.turns.pop();
                    out.to_client.extend(versions::offer(&frame, version)?);
                } else {
                    self.metadata(&frame, judge, out)?;
                }
            }
            Expected::Answer(_) => return Err(Malformed), // was flushed
        }
        Ok(true)
    }

    /// A response of so many bytes to an API that is answered by topic begins.
    fn topics(
        &mut self,
        head: &Head,
        length: usize,
        judge: &dyn Judge,
        out: &mut Actions,
    ) -> Result<(), Malformed> {
        let Some(Turn { expected: Expected::Topics { request, denied, generation }, .. }) =
            self.turns.pop()
        else {
            return Err(Malformed);
        };
        let fetch = not_found(&request).is_some();
        if let (true, Some(denial)) = (
            fetch && generation != judge.generation(),
            self.known.denied_since(&request, &denied, judge),
        ) {
            judge.record(&request, &self.known.topics_of(&request), denial.code(&request));
            let answer = deny::response(&request, &denial).ok_or(Malformed)?;
            self.turns.answer_first(request.correlation_id, answer);
            self.passing = Passing::Swallow(4 + length);
            self.known.fetch = None;
            return Ok(());
        }
        if fetch && !is_incremental(&request) {
            self.known.fetch = FetchSession::begun(head, &request);
        }
        if denied.is_empty() {
            self.passing = Passing::Through(4 + length);
            return Ok(());
        }
        let entries = deny::entries(&request, splice::ANSWERS, &denied);
        out.to_client.extend(head.with_entries(&self.from_broker[4..], length, entries)?);
        self.from_broker.drain(..4 + head.len());
        self.passing = Passing::Through(length - head.len());
        Ok(())
    }

    /// A whole response to Metadata, the client's or ours, or to its like.
    fn metadata(
        &mut self,
        frame: &[u8],
        judge: &dyn Judge,
        out: &mut Actions,
    ) -> Result<(), Malformed> {
        let (key, version, asked) = match self.turns.pop().map(|turn| turn.expected) {
            Some(Expected::Metadata { request, denied }) => {
                (request.api_key, request.api_version, Some((request, denied)))
            }
            _ => (api::METADATA, BY_ID_VERSION, None),
        };
        let message = Schemas::get().response(key, version).ok_or(Malformed)?;
        let mut reader = Reader::new(&frame[4..]);
        let correlation = reader.number(4)?;
        if message.header_version >= 1 {
            reader.tagged()?;
        }
        let mut body = reader.value(&message.body)?;
        if reader.left() > 0 {
            return Err(Malformed);
        }
        self.known.names.extend(rewrite::ids_of(&message.body, &body));
        let Some((request, denied)) = asked else {
            self.waiting = false;
            return Ok(());
        };
        if denied.is_empty() && !request.all_topics {
            out.to_client.extend_from_slice(frame);
            return Ok(());
        }
        let allows = |name: &str| judge.allows(&Question::of(&request, Some(name)));
        // In version 0 a list that lost its last topic asks for all of them.
        let all = request.all_topics || (key == api::METADATA && version == 0);
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
    let length = usize::try_from(Reader::new(bytes).number(4)?).map_err(|_| Malformed)?;
    if !(8..=MAX_FRAME).contains(&length) {
        return Err(Malformed);
    }
    Ok((bytes.len() >= 4 + length).then_some(4 + length))
}
