//! Messages of any API and version, made from its schema, for tests.

use crate::codec::{Value, Writer};
use crate::rewrite::write;
use crate::schema::{Message, Schemas, Type};

/// Every API and version that is known, in order.
pub fn versions() -> Vec<(u16, u16)> {
    let mut all: Vec<(u16, u16)> = Schemas::get().versions().collect();
    all.sort_unstable();
    all
}

/// A request frame, with its length, whose arrays have so many elements: `topic-0` with partitions
/// 3 and 4, `group-0`, and so on; topic ids are `[1; 16]`, `[2; 16]`. None for one that is unknown.
pub fn request(key: u16, version: u16, correlation: i32, elements: usize) -> Option<Vec<u8>> {
    let message = Schemas::get().request(key, version)?;
    let mut writer = Writer::default();
    writer.number(2, key.into());
    writer.number(2, version.into());
    writer.number(4, correlation.into());
    writer.text(false, Some("sample"));
    Some(body(writer, message, elements, message.header_version >= 2))
}

/// The like response frame. Without errors, and with the session id 42 in Fetch.
pub fn response(key: u16, version: u16, correlation: i32, elements: usize) -> Option<Vec<u8>> {
    let message = Schemas::get().response(key, version)?;
    let mut writer = Writer::default();
    writer.number(4, correlation.into());
    Some(body(writer, message, elements, message.header_version >= 1))
}

fn body(mut writer: Writer, message: &Message, elements: usize, tagged: bool) -> Vec<u8> {
    if tagged {
        writer.varint(0);
    }
    write(&mut writer, &message.body, &value(&message.body, "", 0, elements));
    writer.into_frame()
}

/// `name` is of the field, or of the array that the value is the `index`th element of.
fn value(shape: &Type, name: &str, index: usize, elements: usize) -> Value {
    let nth = i64::try_from(index).unwrap_or(0);
    match shape {
        Type::Fixed(_) => Value::Number(match name {
            "partition" | "partition_index" | "index" | "partitions" | "partition_indexes" => {
                3 + nth
            }
            "resource_type" => 2 + 2 * nth, // a topic, then the cluster
            "session_id" => 42,
            "acks" => 1,
            _ => 0,
        }),
        Type::Uuid => Value::Uuid([u8::try_from(index + 1).unwrap_or(u8::MAX); 16]),
        Type::Text { .. } => Value::Text(Some(match name {
            "name" | "topic" | "topic_name" | "resource_name" | "topic_names" => {
                format!("topic-{index}")
            }
            "group_id" | "groups" | "group_ids" | "groups_names" => format!("group-{index}"),
            _ => format!("{name}-{index}"),
        })),
        Type::Array { element, .. } => {
            let items = (0..elements).map(|index| value(element, name, index, elements));
            Value::Array(Some(items.collect()))
        }
        Type::Struct(fields) => {
            let values = fields.iter().map(|(name, shape)| value(shape, name, index, elements));
            Value::Struct(values.collect())
        }
        Type::Optional(inner) => value(inner, name, index, elements),
        Type::Bytes { .. } | Type::Varint | Type::Tagged => Value::Opaque,
    }
}
