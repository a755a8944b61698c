//! Values by schema: decoded from requests, encoded into responses.

use crate::schema::Type;

/// Nothing of a request is copied that no rule asks for.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Number(i64),
    Uuid([u8; 16]),
    /// None is null.
    Text(Option<String>),
    /// Only how long it was: no rule looks into records.
    Opaque,
    /// None is null.
    Array(Option<Vec<Value>>),
    Struct(Vec<Value>),
}

impl Value {
    pub fn items(&self) -> &[Value] {
        match self {
            Self::Array(Some(items)) => items,
            _ => &[],
        }
    }
}

/// Bytes end early, or a length is impossible.
#[derive(Debug, PartialEq, Eq)]
pub struct Malformed;

pub type Result<T> = std::result::Result<T, Malformed>;

/// So many values at most are made of one frame. A value takes more memory than the byte that may
/// be all there is of it.
const MAX_VALUES: usize = 1 << 23;

/// A cursor over the bytes of one frame.
pub struct Reader<'a> {
    rest: &'a [u8],
    values_left: usize,
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, values_left: MAX_VALUES }
    }

    /// How many bytes are left.
    pub fn left(&self) -> usize {
        self.rest.len()
    }

    pub fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        if count > self.rest.len() {
            return Err(Malformed);
        }
        let (taken, rest) = self.rest.split_at(count);
        self.rest = rest;
        Ok(taken)
    }

    pub fn number(&mut self, bytes: usize) -> Result<i64> {
        let taken = self.take(bytes)?;
        let first = i64::from(taken[0].cast_signed());
        Ok(taken[1..].iter().fold(first, |sum, &byte| (sum << 8) | i64::from(byte)))
    }

    pub fn varint(&mut self) -> Result<u64> {
        let mut value = 0u64;
        for shift in (0..63).step_by(7) {
            let byte = self.take(1)?[0];
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Malformed)
    }

    /// Of a text, bytes or an array, whose own length takes `bytes`; None is null.
    pub fn length(&mut self, compact: bool, bytes: usize) -> Result<Option<usize>> {
        let length = if compact {
            i64::try_from(self.varint()?).map_err(|_| Malformed)? - 1
        } else {
            self.number(bytes)?
        };
        match length {
            -1 => Ok(None),
            length => usize::try_from(length).map(Some).map_err(|_| Malformed),
        }
    }

    pub fn text(&mut self, compact: bool) -> Result<Option<String>> {
        let Some(length) = self.length(compact, 2)? else { return Ok(None) };
        let bytes = self.take(length)?.to_vec();
        String::from_utf8(bytes).map(Some).map_err(|_| Malformed)
    }

    pub fn tagged(&mut self) -> Result<()> {
        for _ in 0..self.varint()? {
            self.varint()?;
            let length = usize::try_from(self.varint()?).map_err(|_| Malformed)?;
            self.take(length)?;
        }
        Ok(())
    }

    /// The number of elements of an array; None is null.
    pub fn count(&mut self, compact: bool) -> Result<Option<usize>> {
        let count = self.length(compact, 4)?;
        // An element has a byte at least.
        if count.is_some_and(|count| count > self.rest.len()) {
            return Err(Malformed);
        }
        Ok(count)
    }

    pub fn value(&mut self, shape: &Type) -> Result<Value> {
        self.values_left = self.values_left.checked_sub(1).ok_or(Malformed)?;
        Ok(match shape {
            Type::Fixed(bytes) => Value::Number(self.number(*bytes)?),
            Type::Uuid => Value::Uuid(self.take(16)?.try_into().map_err(|_| Malformed)?),
            Type::Text { compact, .. } => Value::Text(self.text(*compact)?),
            Type::Bytes { compact } => {
                if let Some(length) = self.length(*compact, 4)? {
                    self.take(length)?;
                }
                Value::Opaque
            }
            Type::Varint => Value::Number(self.varint()?.cast_signed()),
            Type::Tagged => {
                self.tagged()?;
                Value::Opaque
            }
            Type::Array { compact, element } => {
                let Some(count) = self.count(*compact)? else {
                    return Ok(Value::Array(None));
                };
                let items: Result<Vec<_>> = (0..count).map(|_| self.value(element)).collect();
                Value::Array(Some(items?))
            }
            Type::Struct(fields) => {
                let values: Result<Vec<_>> = fields.iter().map(|(_, t)| self.value(t)).collect();
                Value::Struct(values?)
            }
            Type::Optional(inner) => match self.number(1)? {
                -1 => Value::Opaque,
                _ => self.value(inner)?,
            },
        })
    }
}

/// Appends to a frame.
#[derive(Default)]
pub struct Writer(pub Vec<u8>);

impl Writer {
    pub fn number(&mut self, bytes: usize, value: i64) {
        self.0.extend_from_slice(&value.to_be_bytes()[8 - bytes..]);
    }

    pub fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(u8::try_from(value & 0x7f).unwrap_or(0) | 0x80);
            value >>= 7;
        }
        self.0.push(u8::try_from(value).unwrap_or(0));
    }

    fn length(&mut self, compact: bool, bytes: usize, length: Option<usize>) {
        if compact {
            self.varint(length.map_or(0, |l| l as u64 + 1));
        } else {
            self.number(bytes, length.map_or(-1, |l| i64::try_from(l).unwrap_or(0)));
        }
    }

    pub fn text(&mut self, compact: bool, text: Option<&str>) {
        self.length(compact, 2, text.map(str::len));
        self.0.extend_from_slice(text.unwrap_or("").as_bytes());
    }

    pub fn count(&mut self, compact: bool, count: usize) {
        self.length(compact, 4, Some(count));
    }

    pub fn no_bytes(&mut self, compact: bool) {
        self.length(compact, 4, Some(0));
    }

    /// The frame with its length before it.
    pub fn into_frame(self) -> Vec<u8> {
        let length = u32::try_from(self.0.len()).unwrap_or(0);
        [&length.to_be_bytes()[..], &self.0].concat()
    }
}
