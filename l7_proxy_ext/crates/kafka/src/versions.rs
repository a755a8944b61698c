//! ApiVersions: a client is offered the APIs and versions that we can judge, so that a newer client
//! and a newer broker do not agree on one that would end the connection.

use crate::codec::{Malformed, Reader, Writer};
use crate::deny::error;
use crate::request::api;
use crate::schema::{Schemas, Type};

/// The answer to an ApiVersions request of a version that we do not know, with its correlation id:
/// in version 0, with the error and the versions of this API (KIP-511). None if it is none.
pub fn refusal(request: &[u8]) -> Option<(i32, Vec<u8>)> {
    let mut reader = Reader::new(request);
    let mut number = |bytes| reader.number(bytes).ok();
    let (key, version, correlation) = (number(2)?, number(2)?, number(4)?);
    let known = u16::try_from(version).is_ok_and(|v| Schemas::get().knows(api::API_VERSIONS, v));
    if key != api::API_VERSIONS.into() || known {
        return None;
    }
    let mut writer = Writer::default();
    writer.number(4, correlation);
    writer.number(2, error::UNSUPPORTED_VERSION.into());
    writer.count(false, 1);
    writer.number(2, key);
    writer.number(2, 0);
    writer.number(2, Schemas::get().newest(api::API_VERSIONS)?.into());
    Some((i32::try_from(correlation).ok()?, writer.into_frame()))
}

/// The response in `frame` to a request of `version`, with less in it; the rest stays as it is.
pub fn offer(frame: &[u8], version: u16) -> Result<Vec<u8>, Malformed> {
    let body = &Schemas::get().response(api::API_VERSIONS, version).ok_or(Malformed)?.body;
    let Some(Type::Array { compact, element }) = body.field("api_keys") else {
        return Err(Malformed);
    };
    let mut reader = Reader::new(&frame[4..]);
    let head = reader.take(6)?;
    if head[4..] != [0; 2] {
        return Ok(frame.to_vec()); // an error, in whatever version the broker knows
    }
    let count = reader.count(*compact)?.ok_or(Malformed)?;
    let mut entries = Vec::new();
    for _ in 0..count {
        let entry = &frame[frame.len() - reader.left()..];
        let (key, min, max) = (reader.number(2)?, reader.number(2)?, reader.number(2)?);
        let rest = entry.len() - reader.left();
        if let Type::Struct(fields) = &**element {
            for (_, shape) in &fields[3..] {
                reader.value(shape)?;
            }
        }
        let end = entry.len() - reader.left();
        let newest = u16::try_from(key).ok().and_then(|key| Schemas::get().newest(key));
        if let Some(newest) = newest.map(i64::from).filter(|newest| min <= *newest) {
            entries.push((key, min, max.min(newest), &entry[rest..end]));
        }
    }
    let mut writer = Writer::default();
    writer.0.extend_from_slice(head);
    writer.count(*compact, entries.len());
    for (key, min, max, rest) in entries {
        for number in [key, min, max] {
            writer.number(2, number);
        }
        writer.0.extend_from_slice(rest);
    }
    writer.0.extend_from_slice(&frame[frame.len() - reader.left()..]);
    Ok(writer.into_frame())
}
