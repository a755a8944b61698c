//! The shapes of Kafka's requests and responses, by API key and version: facts in
//! `schemas/schemas.txt`, printed from Kafka's own classes by `schemas/Dump.java`.

use std::collections::HashMap;
use std::sync::OnceLock;

#[derive(Debug)]
pub enum Type {
    /// So many bytes, of which the first is the highest.
    Fixed(usize),
    Uuid,
    Text {
        compact: bool,
        nullable: bool,
    },
    Bytes {
        compact: bool,
    },
    Varint,
    Array {
        compact: bool,
        element: Box<Type>,
    },
    Struct(Vec<(Box<str>, Type)>),
    /// A struct behind a byte that says whether it is there.
    Optional(Box<Type>),
    Tagged,
}

impl Type {
    /// A field of a struct.
    pub fn field(&self, wanted: &str) -> Option<&Self> {
        let Self::Struct(fields) = self else { return None };
        fields.iter().find_map(|(name, shape)| (&**name == wanted).then_some(shape))
    }
}

#[derive(Debug)]
pub struct Message {
    /// 1 or 2 for requests; 0 or 1 for responses (with tagged fields).
    pub header_version: u8,
    pub body: Type,
}

#[derive(Debug)]
pub struct Schemas {
    requests: HashMap<(u16, u16), Message>,
    responses: HashMap<(u16, u16), Message>,
}

impl Schemas {
    pub fn get() -> &'static Self {
        static ALL: OnceLock<Schemas> = OnceLock::new();
        ALL.get_or_init(|| Self::parse(include_str!("../schemas/schemas.txt")))
    }

    pub fn request(&self, key: u16, version: u16) -> Option<&Message> {
        self.requests.get(&(key, version))
    }

    pub fn response(&self, key: u16, version: u16) -> Option<&Message> {
        self.responses.get(&(key, version))
    }

    pub fn knows(&self, key: u16, version: u16) -> bool {
        self.requests.contains_key(&(key, version))
    }

    /// The newest version of an API that is known; None where none is.
    pub fn newest(&self, key: u16) -> Option<u16> {
        self.requests.keys().filter(|(known, _)| *known == key).map(|&(_, version)| version).max()
    }

    #[cfg(any(test, feature = "samples"))]
    pub fn versions(&self) -> impl Iterator<Item = (u16, u16)> + '_ {
        self.requests.keys().copied()
    }

    /// A line that cannot be read is left out, which makes its API one that is not known: denied.
    /// A test holds that there is none.
    fn parse(text: &str) -> Self {
        let mut all = Self { requests: HashMap::new(), responses: HashMap::new() };
        for line in text.lines() {
            let mut parts = line.splitn(4, ' ');
            let (Some(key), Some(version), Some(kind), Some(shape)) =
                (parts.next(), parts.next(), parts.next(), parts.next())
            else {
                continue;
            };
            let mut rest = shape;
            let (Ok(key), Ok(version), Some(body)) =
                (key.parse(), version.parse(), parse_type(&mut rest))
            else {
                continue;
            };
            let Ok(header_version) = kind[1..].parse() else { continue };
            let message = Message { header_version, body };
            if kind.starts_with('q') {
                all.requests.insert((key, version), message);
            } else {
                all.responses.insert((key, version), message);
            }
        }
        all
    }
}

fn parse_type(rest: &mut &str) -> Option<Type> {
    let first = rest.chars().next()?;
    *rest = &rest[1..];
    Some(match first {
        '1' => Type::Fixed(1),
        '2' => Type::Fixed(2),
        '4' => Type::Fixed(4),
        '8' => Type::Fixed(8),
        'u' => Type::Uuid,
        's' | 'n' => Type::Text { compact: false, nullable: first == 'n' },
        'S' | 'N' => Type::Text { compact: true, nullable: first == 'N' },
        'b' | 'd' => Type::Bytes { compact: false },
        'B' => Type::Bytes { compact: true },
        'v' => Type::Varint,
        'T' => Type::Tagged,
        'a' | 'A' => Type::Array { compact: first == 'A', element: Box::new(parse_type(rest)?) },
        '?' if rest.starts_with('{') => Type::Optional(Box::new(parse_type(rest)?)),
        '?' => parse_type(rest)?,
        '{' => {
            let mut fields = Vec::new();
            while !rest.starts_with('}') {
                let (name, after) = rest.split_once(':')?;
                *rest = after;
                fields.push((name.trim().into(), parse_type(rest)?));
            }
            *rest = &rest[1..];
            Type::Struct(fields)
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_read() {
        let lines = include_str!("../schemas/schemas.txt").lines().count();
        let all = Schemas::get();
        assert_eq!(all.requests.len() + all.responses.len(), lines);
        assert!(all.requests.keys().all(|key| all.responses.contains_key(key)));
    }
}
