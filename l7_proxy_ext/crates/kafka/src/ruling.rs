//! What is to become of a request, by policy and by what is known on its connection.

use std::collections::HashMap;

use crate::deny::{Codes, Denial, error};
use crate::fetch::{FetchSession, is_incremental, not_found};
use crate::request::{Request, TopicRef, api};

/// What policy says of one topic of a request, or of a request that names none.
pub struct Question<'a> {
    pub api_key: u16,
    pub api_version: u16,
    pub client_id: &'a str,
    pub topic: Option<&'a str>,
}

impl<'a> Question<'a> {
    pub fn of(request: &'a Request, topic: Option<&'a str>) -> Self {
        Self {
            api_key: request.api_key,
            api_version: request.api_version,
            client_id: &request.client_id,
            topic,
        }
    }
}

pub trait Judge {
    /// Rises whenever an answer may be another one than before.
    fn generation(&self) -> u64;
    /// Whether it passes (in audit mode everything does).
    fn allows(&self, question: &Question) -> bool;
    /// Called once for each request that was judged, with the error code that was answered.
    fn record(&self, request: &Request, topics: &[String], error_code: i16);
}

pub enum Ruling {
    Allowed,
    /// Goes on without these topics.
    Partly(Codes),
    Denied(Denial),
}

/// What a connection has told us.
#[derive(Debug, Default)]
pub struct Known {
    pub names: HashMap<[u8; 16], String>,
    pub fetch: Option<FetchSession>,
}

impl Known {
    pub fn rule(&self, request: &Request, judge: &dyn Judge) -> Ruling {
        let new_session = not_found(request).filter(|_| is_incremental(request));
        let session = self.fetch.as_ref().filter(|session| session.is_of(request));
        if let (Some(code), None) = (new_session, session) {
            return Ruling::Denied(Denial::session(code));
        }
        let in_session = session.filter(|_| new_session.is_some());
        let in_session = in_session.into_iter().flat_map(FetchSession::topics);
        let topics: Vec<&TopicRef> = request.topics.iter().chain(in_session).collect();
        let denied: Codes = topics
            .iter()
            .filter_map(|topic| Some(((*topic).clone(), self.code(request, topic, judge)?)))
            .collect();
        let itself = || judge.allows(&Question::of(request, None));
        if denied.is_empty() && (!topics.is_empty() || itself()) {
            return Ruling::Allowed;
        }
        if let Some(code) = new_session {
            // It began when its topics were allowed. The next, full request is ruled by topic.
            return Ruling::Denied(Denial::session(code));
        }
        let some_left = topics.iter().any(|topic| !denied.contains_key(topic));
        match request.api_key {
            api::METADATA if !topics.is_empty() => Ruling::Partly(denied),
            api::PRODUCE | api::FETCH | api::DESCRIBE_TOPIC_PARTITIONS if some_left => {
                Ruling::Partly(denied)
            }
            _ => Ruling::Denied(Denial::whole(denied)),
        }
    }

    /// What to answer to a request of which more topics are denied than when it was sent.
    pub fn denied_since(
        &self,
        request: &Request,
        denied: &Codes,
        judge: &dyn Judge,
    ) -> Option<Denial> {
        let now = match self.rule(request, judge) {
            Ruling::Allowed => return None,
            Ruling::Partly(now) => now,
            Ruling::Denied(denial) if denial.session.is_some() => return Some(denial),
            Ruling::Denied(denial) if request.topics.is_empty() => return Some(denial),
            Ruling::Denied(denial) => denial.topics,
        };
        if now.keys().all(|topic| denied.contains_key(topic)) {
            return None;
        }
        // The others had no data yet: the client asks again.
        let topics = denied.clone().into_iter().chain(now).collect();
        Some(Denial { topics, other_topics: error::NONE, session: None })
    }

    /// The error of a topic, None if it is allowed.
    fn code(&self, request: &Request, topic: &TopicRef, judge: &dyn Judge) -> Option<i16> {
        let Some(name) = self.name(topic) else {
            // A heartbeat says what is owned, among it what was deleted since. Otherwise, what a
            // broker says of an id that it has not: the client asks for the topic's new one.
            return (request.api_key != api::CONSUMER_GROUP_HEARTBEAT)
                .then_some(error::UNKNOWN_TOPIC_ID);
        };
        let allowed = judge.allows(&Question::of(request, Some(name)));
        (!allowed).then_some(error::TOPIC_AUTHORIZATION_FAILED)
    }

    fn name<'a>(&'a self, topic: &'a TopicRef) -> Option<&'a str> {
        match topic {
            TopicRef::Name(name) => Some(name),
            TopicRef::Id(id) => self.names.get(id).map(String::as_str),
        }
    }

    /// The names of the topics of a request, for the record.
    pub fn topics_of(&self, request: &Request) -> Vec<String> {
        let name = |topic| self.name(topic).unwrap_or("(unknown id)").to_owned();
        request.topics.iter().map(name).collect()
    }
}
