//! What policy and denial need of a request.

use crate::codec::{Malformed, Reader, Result, Value};
use crate::schema::{Message, Schemas, Type};

pub mod api {
    pub const PRODUCE: u16 = 0;
    pub const FETCH: u16 = 1;
    pub const METADATA: u16 = 3;
    pub const API_VERSIONS: u16 = 18;
    pub const CONSUMER_GROUP_HEARTBEAT: u16 = 68;
    pub const DESCRIBE_TOPIC_PARTITIONS: u16 = 75;
    pub const SHARE_FETCH: u16 = 78;
}

/// `DescribeConfigs` and its like say of what kind a resource is; this is a topic.
pub const RESOURCE_TOPIC: i64 = 2;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TopicRef {
    Name(String),
    Id([u8; 16]),
}

#[derive(Debug, Clone)]
pub struct Request {
    pub api_key: u16,
    pub api_version: u16,
    pub correlation_id: i32,
    pub client_id: String,
    pub topics: Vec<TopicRef>,
    /// Of Metadata and the like: it asks for all topics there are.
    pub all_topics: bool,
    /// None of an `ApiVersions` newer than we know.
    pub body: Option<Value>,
}

impl Request {
    /// From a frame without its length. Malformed also for an API or version that nobody knows,
    /// other than of `ApiVersions`, which is how clients find out.
    pub fn parse(frame: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(frame);
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
            body: None,
        };
        let Some(message) = made.message() else {
            return if api_key == api::API_VERSIONS { Ok(made) } else { Err(Malformed) };
        };
        if message.header_version >= 2 {
            reader.tagged()?;
        }
        let body = reader.value(&message.body)?;
        if reader.left() > 0 {
            return Err(Malformed);
        }
        made.visit(&message.body, &body, "");
        let topics = field(&message.body, &body, "topics");
        let none = topics.is_some_and(|t| t.items().is_empty());
        made.all_topics = match api_key {
            api::METADATA if api_version > 0 => matches!(topics, Some(Value::Array(None))),
            api::METADATA | api::DESCRIBE_TOPIC_PARTITIONS => none,
            _ => false,
        };
        made.body = Some(body);
        Ok(made)
    }

    pub fn message(&self) -> Option<&'static Message> {
        Schemas::get().request(self.api_key, self.api_version)
    }

    /// A field of the body itself, with its shape.
    pub fn field(&self, name: &str) -> Option<(&'static Type, &Value)> {
        let shape = &self.message()?.body;
        Some((shape.field(name)?, field(shape, self.body.as_ref()?, name)?))
    }

    pub fn number(&self, name: &str) -> Option<i64> {
        match self.field(name)?.1 {
            Value::Number(number) => Some(*number),
            _ => None,
        }
    }

    /// `inside` is the name of the array that the value is an element of.
    fn visit(&mut self, shape: &Type, value: &Value, inside: &str) {
        match (shape, value) {
            // Forgotten topics of a Fetch are not asked for.
            (Type::Struct(fields), Value::Struct(values)) if inside != "forgotten_topics_data" => {
                self.topics.extend(topics_of(shape, value, inside));
                for ((name, shape), value) in fields.iter().zip(values) {
                    self.visit_field(name, shape, value);
                }
            }
            (Type::Optional(inner), value) => self.visit(inner, value, inside),
            _ => {}
        }
    }

    fn visit_field(&mut self, name: &str, shape: &Type, value: &Value) {
        let named = |text: &String| TopicRef::Name(text.clone());
        match (shape, value) {
            (Type::Array { element, .. }, Value::Array(Some(items))) => {
                for item in items {
                    match (name, item) {
                        (
                            "topic_names"
                            | "subscribed_topic_names"
                            | "source_topics"
                            | "source_topic_regex"
                            | "repartition_sink_topics",
                            Value::Text(Some(text)),
                        ) => self.topics.push(named(text)),
                        _ => self.visit(element, item, name),
                    }
                }
            }
            // Topics by pattern: allowed only to whom all topics are.
            (_, Value::Text(Some(text))) if name.ends_with("_topic_regex") && !text.is_empty() => {
                self.topics.push(named(text));
            }
            _ => self.visit(shape, value, name),
        }
    }
}

/// The topic that a struct is about; both where it has a name and an id, since whichever the
/// broker goes by is judged.
pub fn topics_of(shape: &Type, value: &Value, inside: &str) -> Vec<TopicRef> {
    let (Type::Struct(fields), Value::Struct(values)) = (shape, value) else { return Vec::new() };
    let resource = field(shape, value, "resource_type") == Some(&Value::Number(RESOURCE_TOPIC));
    let of = |((name, _), value): (&(Box<str>, Type), &Value)| match value {
        Value::Text(Some(text))
            if is_topic_name(name, inside) || (resource && &**name == "resource_name") =>
        {
            Some(TopicRef::Name(text.clone()))
        }
        Value::Uuid(id) if &**name == "topic_id" && *id != [0; 16] => Some(TopicRef::Id(*id)),
        _ => None,
    };
    fields.iter().zip(values).filter_map(of).collect()
}

/// The value of a field of a struct.
pub fn field<'a>(shape: &Type, value: &'a Value, wanted: &str) -> Option<&'a Value> {
    let (Type::Struct(fields), Value::Struct(values)) = (shape, value) else { return None };
    let index = fields.iter().position(|(name, _)| &**name == wanted)?;
    values.get(index)
}

fn is_topic_name(name: &str, inside: &str) -> bool {
    matches!(name, "topic" | "topic_name") || (name == "name" && inside.contains("topic"))
}
