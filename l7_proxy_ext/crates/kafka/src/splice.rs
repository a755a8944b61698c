//! Frames with topics taken out or entries put in; all other bytes stay as they are.

use crate::codec::{Malformed, Reader, Result, Writer};
use crate::deny::Codes;
use crate::request::{Request, topics_of};
use crate::schema::{Schemas, Type};

/// The array of a response that answers topics one by one, of the APIs that are split.
pub const ANSWERS: &str = "responses";
/// A Fetch without a session, after KIP-227.
const FINAL_EPOCH: i64 = -1;

/// A request, with its length, without the topics that are denied. A Fetch becomes one without a
/// session: the broker's would lack topics that the client believes to be in it.
pub fn without_topics(whole: &[u8], request: &Request, denied: &Codes) -> Result<Vec<u8>> {
    let message = request.message().ok_or(Malformed)?;
    let Type::Struct(fields) = &message.body else { return Err(Malformed) };
    let frame = whole.get(4..).ok_or(Malformed)?;
    let mut reader = Reader::new(frame);
    reader.take(8)?;
    reader.text(false)?;
    if message.header_version >= 2 {
        reader.tagged()?;
    }
    let mut made = Writer(frame[..frame.len() - reader.left()].to_vec());
    for (name, shape) in fields {
        let start = frame.len() - reader.left();
        match (&**name, shape) {
            ("topics" | "topic_data", Type::Array { compact, element }) => {
                let mut kept = Vec::new();
                for _ in 0..reader.count(*compact)?.unwrap_or(0) {
                    let start = frame.len() - reader.left();
                    let topics = topics_of(element, &reader.value(element)?, name);
                    if !topics.iter().any(|topic| denied.contains_key(topic)) {
                        kept.push(&frame[start..frame.len() - reader.left()]);
                    }
                }
                made.count(*compact, kept.len());
                made.0.extend(kept.concat());
            }
            ("session_epoch", Type::Fixed(bytes)) => {
                reader.take(*bytes)?;
                made.number(*bytes, FINAL_EPOCH);
            }
            _ => {
                reader.value(shape)?;
                made.0.extend_from_slice(&frame[start..frame.len() - reader.left()]);
            }
        }
    }
    Ok(made.into_frame())
}

/// What a response says before its entries.
#[derive(Debug, Default)]
pub struct Head {
    pub error_code: i64,
    /// Of Fetch; 0 is none.
    pub session_id: i64,
    compact: bool,
    /// Of entries.
    count: usize,
    /// Where the count begins and ends in the frame.
    count_at: usize,
    end: usize,
}

impl Head {
    /// From the beginning of a frame without its length. Malformed also if there is not enough.
    pub fn read(frame: &[u8], request: &Request) -> Result<Self> {
        let schemas = Schemas::get();
        let message = schemas.response(request.api_key, request.api_version).ok_or(Malformed)?;
        let Type::Struct(fields) = &message.body else { return Err(Malformed) };
        let mut reader = Reader::new(frame);
        reader.take(4)?;
        if message.header_version >= 1 {
            reader.tagged()?;
        }
        let mut head = Self::default();
        for (name, shape) in fields {
            head.count_at = frame.len() - reader.left();
            match (&**name, shape) {
                (ANSWERS, Type::Array { compact, .. }) => {
                    head.compact = *compact;
                    head.count = reader.length(*compact, 4)?.unwrap_or(0);
                    head.end = frame.len() - reader.left();
                    return Ok(head);
                }
                ("error_code", Type::Fixed(bytes)) => head.error_code = reader.number(*bytes)?,
                ("session_id", Type::Fixed(bytes)) => head.session_id = reader.number(*bytes)?,
                _ => {
                    reader.value(shape)?;
                }
            }
        }
        Err(Malformed)
    }

    /// How much of the frame it takes.
    pub fn len(&self) -> usize {
        self.end
    }

    /// This head, with the length of the frame of so many bytes that it begins, and `count` more
    /// entries after it.
    pub fn with_entries(
        &self,
        frame: &[u8],
        length: usize,
        entries: (usize, Vec<u8>),
    ) -> Result<Vec<u8>> {
        let mut made = Writer(frame[..self.count_at].to_vec());
        made.count(self.compact, self.count.checked_add(entries.0).ok_or(Malformed)?);
        made.0.extend(entries.1);
        let rest = length.checked_sub(self.end).ok_or(Malformed)?;
        let length = i32::try_from(made.0.len() + rest).map_err(|_| Malformed)?;
        Ok([&length.to_be_bytes()[..], &made.0].concat())
    }
}
