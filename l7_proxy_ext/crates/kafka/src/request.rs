//! What policy and denial need of a request.

use crate::codec::{Malformed, Reader, Result, Value};
use crate::schema::{Schemas, Type};

pub mod api {
    pub const PRODUCE: u16 = 0;
    pub const FETCH: u16 = 1;
    pub const METADATA: u16 = 3;
    pub const OFFSET_FETCH: u16 = 9;
    pub const API_VERSIONS: u16 = 18;
}

/// `DescribeConfigs` and its like say of what kind a resource is; this is a topic.
const RESOURCE_TOPIC: i64 = 2;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TopicRef {
    Name(String),
    Id([u8; 16]),
}

/// A topic of a request, with the partitions that it names.
#[derive(Debug, Clone)]
pub struct Topic {
    pub topic: TopicRef,
    pub partitions: Vec<i32>,
}

#[derive(Debug, Clone)]
pub struct Request {
    pub api_key: u16,
    pub api_version: u16,
    pub correlation_id: i32,
    pub client_id: String,
    pub topics: Vec<Topic>,
    /// Metadata of all topics there are.
    pub all_topics: bool,
    /// Its API names topics, though this request may name none.
    pub topic_api: bool,
    pub group: String,
    pub coordinator_keys: Vec<String>,
    pub body: Option<Value>,
}

impl Request {
    /// From a frame without its length. Malformed also for an API or version that nobody knows,
    /// other than of `ApiVersions`, which is how clients find out.
    pub fn parse(frame: &[u8]) -> Result<Self> {
        let mut reader = Reader(frame);
        let number = |n: i64| u16::try_from(n).map_err(|_| Malformed);
        let api_key = number(reader.number(2)?)?;
        let api_version = number(reader.number(2)?)?;
        let correlation_id = i32::try_from(reader.number(4)?).map_err(|_| Malformed)?;
        let client_id = reader.text(false)?.unwrap_or_default();
        let mut made = Self {
            api_key,
            api_version,
            correlation_id,
            client_id,
            topics: Vec::new(),
            all_topics: false,
            topic_api: false,
            group: String::new(),
            coordinator_keys: Vec::new(),
            body: None,
        };
        let Some(message) = Schemas::get().request(api_key, api_version) else {
            return if api_key == api::API_VERSIONS { Ok(made) } else { Err(Malformed) };
        };
        if message.header_version >= 2 {
            reader.tagged()?;
        }
        let body = reader.value(&message.body)?;
        if !reader.0.is_empty() {
            return Err(Malformed);
        }
        made.visit(&message.body, &body, "", None);
        if api_key == api::METADATA {
            let topics = field(&message.body, &body, "topics");
            let none = topics.is_some_and(|t| t.items().is_empty());
            made.all_topics =
                matches!(topics, Some(Value::Array(None))) || (api_version == 0 && none);
        }
        made.body = Some(body);
        Ok(made)
    }

    pub fn acks(&self) -> Option<i64> {
        let shape = &Schemas::get().request(self.api_key, self.api_version)?.body;
        match field(shape, self.body.as_ref()?, "acks") {
            Some(Value::Number(acks)) => Some(*acks),
            _ => None,
        }
    }

    pub fn number(&self, name: &str) -> i64 {
        let shape = Schemas::get().request(self.api_key, self.api_version).map(|m| &m.body);
        match (shape, &self.body) {
            (Some(shape), Some(body)) => match field(shape, body, name) {
                Some(Value::Number(number)) => *number,
                _ => 0,
            },
            _ => 0,
        }
    }

    /// `inside` is the name of the array that the value is an element of; `topic` the topic's index.
    fn visit(&mut self, shape: &Type, value: &Value, inside: &str, topic: Option<usize>) {
        match (shape, value) {
            (Type::Struct(fields), Value::Struct(values)) => {
                let topic = self.topic_of(fields, values, inside).or(topic);
                for ((name, shape), value) in fields.iter().zip(values) {
                    self.field(name, shape, value, topic);
                }
            }
            (Type::Optional(inner), value) => self.visit(inner, value, inside, topic),
            _ => {}
        }
    }

    fn field(&mut self, name: &str, shape: &Type, value: &Value, topic: Option<usize>) {
        match (shape, value) {
            (Type::Array { element, .. }, Value::Array(items)) => {
                self.topic_api |= is_topic_array(element, name);
                for item in items.iter().flatten() {
                    match (name, item) {
                        (
                            "topic_names" | "subscribed_topic_names" | "source_topics",
                            Value::Text(Some(text)),
                        ) => {
                            let topic = TopicRef::Name(text.clone());
                            self.topics.push(Topic { topic, partitions: Vec::new() });
                        }
                        ("coordinator_keys", Value::Text(Some(text))) => {
                            self.coordinator_keys.push(text.clone());
                        }
                        ("partitions" | "partition_indexes", Value::Number(partition)) => {
                            self.partition(topic, *partition);
                        }
                        _ => self.visit(element, item, name, topic),
                    }
                }
            }
            (_, Value::Number(n)) if is_partition(name) => self.partition(topic, *n),
            // Topics by pattern: allowed only to whom all topics are.
            (_, Value::Text(Some(text))) if name.ends_with("_topic_regex") && !text.is_empty() => {
                let topic = TopicRef::Name(text.clone());
                self.topics.push(Topic { topic, partitions: Vec::new() });
            }
            (_, Value::Text(Some(text))) if name == "group_id" => self.group.clone_from(text),
            (_, Value::Text(Some(text))) if name == "key" => {
                self.coordinator_keys.push(text.clone());
            }
            _ => self.visit(shape, value, name, topic),
        }
    }

    /// The topic that a struct is about: forgotten ones of a Fetch are not asked for.
    fn topic_of(
        &mut self,
        fields: &[(Box<str>, Type)],
        values: &[Value],
        inside: &str,
    ) -> Option<usize> {
        let resource = fields.iter().zip(values).any(|((name, _), value)| {
            &**name == "resource_type" && *value == Value::Number(RESOURCE_TOPIC)
        });
        let mut found = None;
        let mut second = None; // a name beside an id: whichever the broker goes by is judged
        for ((name, _), value) in fields.iter().zip(values) {
            match value {
                Value::Text(Some(text))
                    if is_topic_name(name, inside) || (resource && &**name == "resource_name") =>
                {
                    second = found.replace(TopicRef::Name(text.clone()));
                }
                Value::Uuid(id) if &**name == "topic_id" && *id != [0; 16] => {
                    second = found.replace(TopicRef::Id(*id));
                }
                _ => {}
            }
        }
        if inside == "forgotten_topics_data" {
            return None;
        }
        let topic = found?;
        let nothing = Vec::new();
        self.topics.extend(second.map(|topic| Topic { topic, partitions: nothing }));
        self.topics.push(Topic { topic, partitions: Vec::new() });
        Some(self.topics.len() - 1)
    }

    fn partition(&mut self, topic: Option<usize>, number: i64) {
        if let (Some(topic), Ok(number)) = (topic, i32::try_from(number)) {
            self.topics[topic].partitions.push(number);
        }
    }
}

/// The value of a field of a struct.
pub fn field<'a>(shape: &Type, value: &'a Value, wanted: &str) -> Option<&'a Value> {
    let (Type::Struct(fields), Value::Struct(values)) = (shape, value) else { return None };
    let index = fields.iter().position(|(name, _)| &**name == wanted)?;
    values.get(index)
}

pub fn is_topic_name(name: &str, inside: &str) -> bool {
    matches!(name, "topic" | "topic_name")
        || (name == "name" && (inside.contains("topic") || inside == "responses"))
}

pub fn is_partition(name: &str) -> bool {
    matches!(name, "partition" | "partition_index" | "index")
}

/// An array whose elements are topics, by name or id.
pub fn is_topic_array(element: &Type, array: &str) -> bool {
    match element {
        Type::Struct(fields) => {
            fields.iter().any(|(name, _)| is_topic_name(name, array) || &**name == "topic_id")
        }
        _ => matches!(array, "topic_names" | "subscribed_topic_names"),
    }
}
