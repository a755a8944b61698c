//! The denials of every API and version.

use crate::codec::{Malformed, Reader, Value};
use crate::request::{Request, api};
use crate::ruling::{Judge, Question};
use crate::sample;
use crate::schema::{Schemas, Type};
use crate::session::{Actions, BY_ID_VERSION, OUR_CORRELATION, Session};

/// Denies all there is, also what names no topic.
struct Nothing;

impl Judge for Nothing {
    fn generation(&self) -> u64 {
        1
    }

    fn allows(&self, _: &Question) -> bool {
        false
    }

    fn record(&self, _: &Request, _: &[String], _: i16) {}
}

/// What the denial of a sample says, in order: texts and error codes. `Err` if its own schema does
/// not read it.
fn said(key: u16, version: u16, elements: usize) -> Result<String, Malformed> {
    fn look(name: &str, shape: &Type, value: &Value, to: &mut Vec<String>) {
        match (shape, value) {
            (_, Value::Text(Some(text))) if !text.is_empty() => to.push(text.clone()),
            (_, Value::Number(code)) if name.ends_with("error_code") => to.push(code.to_string()),
            (Type::Array { element, .. }, Value::Array(Some(items))) => {
                items.iter().for_each(|item| look(name, element, item, to));
            }
            (Type::Struct(fields), Value::Struct(values)) => {
                for ((name, shape), value) in fields.iter().zip(values) {
                    look(name, shape, value, to);
                }
            }
            _ => {}
        }
    }
    let mut session = Session::default();
    let mut out = Actions::default();
    session.on_client(
        &sample::request(key, version, 1, elements).expect("known"),
        &Nothing,
        &mut out,
    );
    if !out.to_broker.is_empty() {
        let none = sample::response(api::METADATA, BY_ID_VERSION, OUR_CORRELATION, 0);
        out.to_broker.clear();
        session.on_broker(&none.expect("known"), &Nothing, &mut out);
    }
    assert!(out.to_broker.is_empty(), "API {key} version {version}");
    let message = Schemas::get().response(key, version).expect("known");
    let mut reader = Reader::new(&out.to_client[8..]);
    if message.header_version >= 1 {
        reader.tagged()?;
    }
    let body = reader.value(&message.body)?;
    let mut all = Vec::new();
    look("", &message.body, &body, &mut all);
    if reader.left() == 0 { Ok(all.join(" ")) } else { Err(Malformed) }
}

#[test]
fn every_api_and_version_has_a_denial_that_its_own_schema_reads() {
    for (key, version) in sample::versions() {
        for elements in [0, 2] {
            if key != api::METADATA || elements == 0 && version > 0 {
                assert!(said(key, version, elements).is_ok(), "API {key} version {version}");
            }
        }
    }
}

/// Every entry that is asked about gets one of its own, with the error that fits what it is.
#[test]
fn each_entry_is_answered_for_itself() {
    for (key, entries) in [
        (9, r#"group-0 topic-0 29 29 topic-1 29 29 0 group-1 topic-0 29 29 topic-1 29 29 0"#),
        (10, "coordinator_keys-0 30 coordinator_keys-1 30"),
        (15, "30 group-0 30 group-1"),
        (
            24,
            "0 transactional_id-0 topic-0 29 29 topic-1 29 29 transactional_id-1 topic-0 29 29 topic-1 29 29",
        ),
        (30, "29 31"),
        (32, "29 topic-0 31 topic-1"),
        (42, "group-0 30 group-1 30"),
        (43, "0 topic-0 29 29 topic-1 29 29"),
        (44, "29 topic-0 31 topic-1"),
        (65, "53 transactional_ids-0 53 transactional_ids-1"),
    ] {
        let version = sample::versions().into_iter().filter(|v| v.0 == key).map(|v| v.1).max();
        let version = version.expect("known").min(if key == 9 { 9 } else { u16::MAX });
        assert_eq!(said(key, version, 2).as_deref(), Ok(entries), "API {key} version {version}");
    }
}
