//! Kafka rules of one group, indexed by topic.

use foldhash::HashMap;
use sidegate_proto::v1;

/// One topic of a request, or the request itself if its API names none.
#[derive(Clone, Copy, Debug)]
pub struct KafkaRequest<'a> {
    pub api_key: u16,
    pub api_version: u16,
    pub client_id: &'a str,
    /// None: this API names no topics, so the topic of a rule does not constrain it.
    pub topic: Option<&'a str>,
}

#[derive(Debug)]
struct Rule {
    origin: usize,
    api_keys: Box<[u32]>,
    api_version: Option<u32>,
    client_id: Box<str>,
}

impl Rule {
    fn matches(&self, request: &KafkaRequest) -> bool {
        (self.api_keys.is_empty() || self.api_keys.contains(&request.api_key.into()))
            && self.api_version.is_none_or(|version| version == request.api_version.into())
            && (self.client_id.is_empty() || *self.client_id == *request.client_id)
    }
}

/// Rules of which any may match. The rules of any topic are under "".
#[derive(Debug, Default)]
pub struct KafkaRules(HashMap<Box<str>, Vec<Rule>>);

impl KafkaRules {
    /// Adds a rule; `origin` is given back when it matches.
    pub fn add(&mut self, rule: &v1::KafkaRule, origin: usize) {
        self.0.entry(rule.topic.as_str().into()).or_default().push(Rule {
            origin,
            api_keys: rule.api_keys.as_slice().into(),
            api_version: rule.api_version,
            client_id: rule.client_id.as_str().into(),
        });
    }

    /// The origin of a rule that matches.
    pub fn find(&self, request: &KafkaRequest) -> Option<usize> {
        let in_topic =
            |topic| self.0.get(topic).into_iter().flatten().find(|rule| rule.matches(request));
        let found = match request.topic {
            Some(topic) => in_topic("").or_else(|| in_topic(topic)),
            None => self.0.values().flatten().find(|rule| rule.matches(request)),
        };
        found.map(|rule| rule.origin)
    }
}
