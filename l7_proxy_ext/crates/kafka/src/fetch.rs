//! The Fetch session of a connection (KIP-227): incremental requests name only what changed.

use std::collections::{HashMap, HashSet};

use crate::codec::Value;
use crate::request::{Request, TopicRef, api, field, topics_of};
use crate::schema::Type;
use crate::splice::Head;

/// With more it is given up, and the client has to begin anew.
const MAX_PARTITIONS: usize = 1 << 20;

/// Whether a request goes on with a session that is there.
pub fn is_incremental(request: &Request) -> bool {
    request.api_key == api::FETCH && request.number("session_epoch").is_some_and(|epoch| epoch > 0)
}

#[derive(Debug)]
pub struct FetchSession {
    id: i64,
    partitions: HashMap<TopicRef, HashSet<i64>>,
}

impl FetchSession {
    /// The session that the broker began on a full request; None if it began none.
    pub fn begun(head: &Head, request: &Request) -> Option<Self> {
        if head.error_code != 0 || head.session_id == 0 {
            return None;
        }
        Self { id: head.session_id, partitions: HashMap::new() }.changed(request)
    }

    /// After an incremental request; None if it has grown too large to follow.
    pub fn changed(mut self, request: &Request) -> Option<Self> {
        for (topic, numbers) in partitions(request, "topics") {
            self.partitions.entry(topic).or_default().extend(numbers);
        }
        for (topic, numbers) in partitions(request, "forgotten_topics_data") {
            if let Some(left) = self.partitions.get_mut(&topic) {
                left.retain(|number| !numbers.contains(number));
                if left.is_empty() {
                    self.partitions.remove(&topic);
                }
            }
        }
        let count: usize = self.partitions.values().map(HashSet::len).sum();
        (count <= MAX_PARTITIONS).then_some(self)
    }

    /// Whether a request goes on with this very session: those of other connections, and earlier
    /// ones of this, hold topics that we do not know of.
    pub fn is_of(&self, request: &Request) -> bool {
        request.number("session_id") == Some(self.id)
    }

    pub fn topics(&self) -> impl Iterator<Item = &TopicRef> {
        self.partitions.keys()
    }
}

/// The topics of an array of a Fetch, each with its partitions.
fn partitions(request: &Request, array: &str) -> Vec<(TopicRef, HashSet<i64>)> {
    let Some((Type::Array { element, .. }, value)) = request.field(array) else {
        return Vec::new();
    };
    let Some(Type::Array { element: partition, .. }) = element.field("partitions") else {
        return Vec::new();
    };
    let number = |value: &Value| match field(partition, value, "partition").unwrap_or(value) {
        Value::Number(number) => Some(*number),
        _ => None,
    };
    let of = |item: &Value| {
        let numbers = field(element, item, "partitions").map_or(&[][..], Value::items);
        let topic = topics_of(element, item, array).pop()?;
        Some((topic, numbers.iter().filter_map(number).collect()))
    };
    value.items().iter().filter_map(of).collect()
}
