//! The API's own answer to a request that policy denies.

use crate::codec::Writer;
use crate::request::{Request, Topic, TopicRef, api, is_partition, is_topic_array, is_topic_name};
use crate::schema::{Schemas, Type};

pub mod error {
    pub const TOPIC_AUTHORIZATION_FAILED: i16 = 29;
    pub const GROUP_AUTHORIZATION_FAILED: i16 = 30;
    pub const CLUSTER_AUTHORIZATION_FAILED: i16 = 31;
    pub const TRANSACTIONAL_ID_AUTHORIZATION_FAILED: i16 = 53;
    pub const FETCH_SESSION_ID_NOT_FOUND: i16 = 70;
}

/// The authorization error that fits a request.
pub fn error_code(request: &Request) -> i16 {
    match request.api_key {
        _ if request.topic_api && !request.topics.is_empty() => error::TOPIC_AUTHORIZATION_FAILED,
        9..=16 | 42 | 68 | 69 | 76 | 77 => error::GROUP_AUTHORIZATION_FAILED,
        22 | 25 | 26 => error::TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
        api::PRODUCE..=api::METADATA => error::TOPIC_AUTHORIZATION_FAILED,
        _ => error::CLUSTER_AUTHORIZATION_FAILED,
    }
}

/// The response frame, None where the API has none that we know.
pub fn response(request: &Request, code: i16) -> Option<Vec<u8>> {
    let message = Schemas::get().response(request.api_key, request.api_version)?;
    let mut writer = Writer::default();
    writer.number(4, request.correlation_id.into());
    if message.header_version >= 1 {
        writer.varint(0);
    }
    // Where topics carry the error, the response as a whole has none: a client would take it for
    // a fault of the session.
    let whole = request.topics.is_empty()
        || !carries_topics(&message.body, "")
        || code == error::FETCH_SESSION_ID_NOT_FOUND;
    let answer = Answer { request, code, whole };
    answer.write(&mut writer, &message.body, "", None, None);
    Some(writer.into_frame())
}

struct Answer<'a> {
    request: &'a Request,
    code: i16,
    whole: bool,
}

impl Answer<'_> {
    fn write(
        &self,
        to: &mut Writer,
        shape: &Type,
        inside: &str,
        topic: Option<&Topic>,
        partition: Option<i32>,
    ) {
        match shape {
            Type::Struct(fields) => {
                for (name, shape) in fields {
                    self.field(to, name, shape, inside, topic, partition);
                }
            }
            Type::Optional(_) => to.number(1, -1),
            other => self.field(to, "", other, inside, topic, partition),
        }
    }

    fn field(
        &self,
        to: &mut Writer,
        name: &str,
        shape: &Type,
        inside: &str,
        topic: Option<&Topic>,
        partition: Option<i32>,
    ) {
        match shape {
            Type::Fixed(bytes) => to.number(*bytes, self.number(name, *bytes, topic, partition)),
            Type::Uuid => match topic.map(|t| &t.topic) {
                Some(TopicRef::Id(id)) if name == "topic_id" => to.0.extend_from_slice(id),
                _ => to.0.extend_from_slice(&[0; 16]),
            },
            Type::Text { compact } => {
                let text = match topic.map(|t| &t.topic) {
                    Some(TopicRef::Name(text)) if is_topic_name(name, inside) => text,
                    _ if name == "group_id" => &self.request.group,
                    _ if name == "key" => {
                        self.request.coordinator_keys.first().map_or("", String::as_str)
                    }
                    _ => "",
                };
                to.text(*compact, Some(text));
            }
            Type::Bytes { compact } => to.no_bytes(*compact),
            Type::Varint | Type::Tagged => to.varint(0),
            Type::Optional(_) => to.number(1, -1),
            Type::Struct(_) => self.write(to, shape, name, topic, partition),
            Type::Array { compact, element } => {
                self.array(to, name, *compact, element, topic);
            }
        }
    }

    fn array(
        &self,
        to: &mut Writer,
        name: &str,
        compact: bool,
        element: &Type,
        topic: Option<&Topic>,
    ) {
        if self.code == error::FETCH_SESSION_ID_NOT_FOUND {
            to.count(compact, 0);
        } else if topic.is_none() && is_topic_array(element, name) {
            to.count(compact, self.request.topics.len());
            for topic in &self.request.topics {
                self.write(to, element, name, Some(topic), None);
            }
        } else if let (Some(topic), true) = (topic, has_partition(element)) {
            to.count(compact, topic.partitions.len());
            for &partition in &topic.partitions {
                self.write(to, element, name, Some(topic), Some(partition));
            }
        } else if (name == "groups" && self.request.api_key == api::OFFSET_FETCH)
            || (name == "coordinators" && !self.request.coordinator_keys.is_empty())
        {
            to.count(compact, 1);
            self.write(to, element, name, None, None);
        } else {
            to.count(compact, 0);
        }
    }

    fn number(&self, name: &str, bytes: usize, topic: Option<&Topic>, at: Option<i32>) -> i64 {
        match name {
            _ if name.ends_with("error_code") && (self.whole || topic.is_some()) => {
                self.code.into()
            }
            _ if name.ends_with("error_code") => 0,
            _ if is_partition(name) => at.unwrap_or(0).into(),
            "topic_authorized_operations" | "cluster_authorized_operations" => i32::MIN.into(),
            "preferred_read_replica"
            | "producer_epoch"
            | "leader_id"
            | "leader_epoch"
            | "generation_id"
            | "node_id" => -1,
            _ if bytes == 8 => -1,
            _ => 0,
        }
    }
}

/// Whether a response has a place for an error of each topic.
fn carries_topics(shape: &Type, name: &str) -> bool {
    match shape {
        Type::Array { element, .. } => {
            is_topic_array(element, name) || carries_topics(element, name)
        }
        Type::Struct(fields) => fields.iter().any(|(name, shape)| carries_topics(shape, name)),
        _ => false,
    }
}

fn has_partition(element: &Type) -> bool {
    match element {
        Type::Struct(fields) => fields.iter().any(|(name, _)| is_partition(name)),
        _ => false,
    }
}
