//! The fetch session of a connection (KIP-227, KIP-932): incremental requests name only what
//! changed.

use std::collections::{HashMap, HashSet};

use crate::codec::Value;
use crate::deny::error;
use crate::request::{Request, TopicRef, api, field, topics_of};
use crate::schema::Type;
use crate::splice::Head;

/// With more it is given up, and the client has to begin anew.
const MAX_PARTITIONS: usize = 1 << 20;

/// Of an API with sessions: what a broker answers that does not have the one it is asked about.
pub fn not_found(request: &Request) -> Option<i16> {
    match request.api_key {
        api::FETCH => Some(error::FETCH_SESSION_ID_NOT_FOUND),
        api::SHARE_FETCH => Some(error::SHARE_SESSION_NOT_FOUND),
        _ => None,
    }
}

/// Whether a request goes on with a session that is there.
pub fn is_incremental(request: &Request) -> bool {
    let epoch = request.number("session_epoch").or_else(|| request.number("share_session_epoch"));
    not_found(request).is_some() && epoch.is_some_and(|epoch| epoch > 0)
}

/// What a session goes by: its id, or (of share groups) whose it is.
#[derive(Debug, PartialEq)]
struct Key {
    id: Option<i64>,
    member: [Option<Value>; 2],
}

impl Key {
    fn of(request: &Request) -> Self {
        let value = |name| request.field(name).map(|(_, value)| value.clone());
        Self { id: request.number("session_id"), member: ["group_id", "member_id"].map(value) }
    }
}

#[derive(Debug)]
pub struct FetchSession {
    key: Key,
    partitions: HashMap<TopicRef, HashSet<i64>>,
}

impl FetchSession {
    /// The session that the broker began on a full request; None if it began none.
    pub fn begun(head: &Head, request: &Request) -> Option<Self> {
        let mut key = Key::of(request);
        key.id = key.id.map(|_| head.session_id);
        if head.error_code != 0 || key.id == Some(0) {
            return None;
        }
        // A broker does not look at what a full request says to forget.
        Self { key, partitions: HashMap::new() }.with_topics_of(request)
    }

    /// After an incremental request; None if it has grown too large to follow.
    pub fn changed(self, request: &Request) -> Option<Self> {
        let mut session = self.with_topics_of(request)?;
        for (topic, numbers) in partitions(request, "forgotten_topics_data") {
            if let Some(left) = session.partitions.get_mut(&topic) {
                left.retain(|number| !numbers.contains(number));
                if left.is_empty() {
                    session.partitions.remove(&topic);
                }
            }
        }
        Some(session)
    }

    fn with_topics_of(mut self, request: &Request) -> Option<Self> {
        for (topic, numbers) in partitions(request, "topics") {
            self.partitions.entry(topic).or_default().extend(numbers);
        }
        let count: usize = self.partitions.values().map(|numbers| numbers.len().max(1)).sum();
        (count <= MAX_PARTITIONS).then_some(self)
    }

    /// Whether a request goes on with this very session: those of other connections, and earlier
    /// ones of this, hold topics that we do not know of.
    pub fn is_of(&self, request: &Request) -> bool {
        Key::of(request) == self.key
    }

    pub fn topics(&self) -> impl Iterator<Item = &TopicRef> {
        self.partitions.keys()
    }
}

/// The topics of an array of a request, each with its partitions.
fn partitions(request: &Request, array: &str) -> Vec<(TopicRef, HashSet<i64>)> {
    let Some((Type::Array { element, .. }, value)) = request.field(array) else {
        return Vec::new();
    };
    let Some(Type::Array { element: partition, .. }) = element.field("partitions") else {
        return Vec::new();
    };
    let number = |value: &Value| {
        let named = |name| field(partition, value, name);
        match named("partition").or_else(|| named("partition_index")).unwrap_or(value) {
            Value::Number(number) => Some(*number),
            _ => None,
        }
    };
    let of = |item: &Value| {
        let numbers = field(element, item, "partitions").map_or(&[][..], Value::items);
        let topic = topics_of(element, item, array).pop()?;
        Some((topic, numbers.iter().filter_map(number).collect()))
    };
    value.items().iter().filter_map(of).collect()
}
