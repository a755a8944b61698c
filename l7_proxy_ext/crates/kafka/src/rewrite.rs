//! Metadata and the like, the responses that we write anew: of all topics they show only the
//! allowed ones.

use crate::codec::{Value, Writer};
use crate::deny::Codes;
use crate::request::{TopicRef, api, field};
use crate::schema::Type;

/// A Metadata request of ours for topics by id.
pub fn metadata_by_id(ids: &[[u8; 16]], version: u16, correlation: i32, client: &str) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.number(2, api::METADATA.into());
    writer.number(2, version.into());
    writer.number(4, correlation.into());
    writer.text(false, Some(client));
    writer.varint(0);
    writer.count(true, ids.len());
    for id in ids {
        writer.0.extend_from_slice(id);
        writer.text(true, None);
        writer.varint(0);
    }
    writer.number(1, 0); // do not create topics
    writer.number(1, 0); // nor say what we may do with them
    writer.varint(0);
    writer.into_frame()
}

/// Topic ids and names of a Metadata response.
pub fn ids_of(shape: &Type, body: &Value) -> Vec<([u8; 16], String)> {
    let Some(element) = topics_element(shape) else { return Vec::new() };
    let topics = field(shape, body, "topics").map_or(&[][..], Value::items);
    topics
        .iter()
        .filter_map(|topic| {
            match (field(element, topic, "topic_id")?, field(element, topic, "name")?) {
                (Value::Uuid(id), Value::Text(Some(name))) if *id != [0; 16] => {
                    Some((*id, name.clone()))
                }
                _ => None,
            }
        })
        .collect()
}

/// Of all topics only the allowed ones; of those that were asked for, the denied with their error.
pub fn show_allowed(
    shape: &Type,
    body: &mut Value,
    denied: &Codes,
    all: bool,
    allows: impl Fn(&str) -> bool,
) {
    let (Some(element), Type::Struct(fields), Value::Struct(values)) =
        (topics_element(shape), shape, body)
    else {
        return;
    };
    let allowed = |shape: &Type, value: &Value, name: &str| match field(shape, value, name) {
        Some(Value::Text(Some(name))) => allows(name),
        _ => false,
    };
    for ((name, shape), value) in fields.iter().zip(values) {
        match (&**name, shape, value) {
            ("topics", _, Value::Array(Some(items))) => {
                items.retain(|item| !all || allowed(element, item, "name"));
                items.extend(
                    denied.iter().map(|(topic, &code)| default_topic(element, topic, code)),
                );
            }
            // Where the list goes on. It ends rather than tell of a topic that is denied.
            ("next_cursor", Type::Optional(inner), value)
                if !allowed(inner, value, "topic_name") =>
            {
                *value = Value::Opaque;
            }
            _ => {}
        }
    }
}

/// A topic of a Metadata response that says nothing but its error.
fn default_topic(element: &Type, topic: &TopicRef, code: i16) -> Value {
    let Type::Struct(fields) = element else { return Value::Opaque };
    let values = fields.iter().map(|(name, shape)| match (&**name, shape, topic) {
        ("name", _, TopicRef::Name(text)) => Value::Text(Some(text.clone())),
        ("topic_id", _, TopicRef::Id(id)) => Value::Uuid(*id),
        ("error_code", ..) => Value::Number(code.into()),
        ("topic_authorized_operations", ..) => Value::Number(i32::MIN.into()),
        (_, Type::Uuid, _) => Value::Uuid([0; 16]),
        (_, Type::Text { nullable, .. }, _) => Value::Text((!nullable).then(String::new)),
        (_, Type::Array { .. }, _) => Value::Array(Some(Vec::new())),
        (_, Type::Fixed(_), _) => Value::Number(0),
        _ => Value::Opaque,
    });
    Value::Struct(values.collect())
}

pub fn write(to: &mut Writer, shape: &Type, value: &Value) {
    match (shape, value) {
        (Type::Fixed(bytes), Value::Number(number)) => to.number(*bytes, *number),
        (Type::Uuid, Value::Uuid(id)) => to.0.extend_from_slice(id),
        (Type::Text { compact, .. }, Value::Text(text)) => to.text(*compact, text.as_deref()),
        (Type::Array { compact, element }, Value::Array(Some(items))) => {
            to.count(*compact, items.len());
            for item in items {
                write(to, element, item);
            }
        }
        (Type::Array { compact, .. }, _) => {
            if *compact {
                to.varint(0);
            } else {
                to.number(4, -1);
            }
        }
        (Type::Struct(fields), Value::Struct(values)) => {
            for ((_, shape), value) in fields.iter().zip(values) {
                write(to, shape, value);
            }
        }
        (Type::Bytes { compact }, _) => to.no_bytes(*compact),
        (Type::Optional(_), Value::Opaque) => to.number(1, -1),
        (Type::Optional(inner), value) => {
            to.number(1, 1);
            write(to, inner, value);
        }
        _ => to.varint(0),
    }
}

fn topics_element(shape: &Type) -> Option<&Type> {
    let Type::Struct(fields) = shape else { return None };
    fields.iter().find_map(|(name, shape)| match shape {
        Type::Array { element, .. } if &**name == "topics" => Some(&**element),
        _ => None,
    })
}
