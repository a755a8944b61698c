//! The API's own answer to a request that policy denies.

use std::collections::HashMap;

use crate::codec::{Value, Writer};
use crate::mirror::{Asked, carries_error};
use crate::request::{RESOURCE_TOPIC, Request, TopicRef, api, topics_of};
use crate::schema::{Schemas, Type};

pub mod error {
    pub const NONE: i16 = 0;
    pub const TOPIC_AUTHORIZATION_FAILED: i16 = 29;
    pub const GROUP_AUTHORIZATION_FAILED: i16 = 30;
    pub const CLUSTER_AUTHORIZATION_FAILED: i16 = 31;
    pub const UNSUPPORTED_VERSION: i16 = 35;
    pub const TRANSACTIONAL_ID_AUTHORIZATION_FAILED: i16 = 53;
    pub const FETCH_SESSION_ID_NOT_FOUND: i16 = 70;
    pub const UNKNOWN_TOPIC_ID: i16 = 100;
    pub const SHARE_SESSION_NOT_FOUND: i16 = 122;
}

/// The topics that are denied, each with its error.
pub type Codes = HashMap<TopicRef, i16>;

/// What is said of what in the answer.
#[derive(Debug, Default)]
pub struct Denial {
    pub topics: Codes,
    /// Of topics that are not among them: [`error::NONE`] where they are merely not answered yet.
    pub other_topics: i16,
    /// Instead of all entries: of the fetch session.
    pub session: Option<i16>,
}

impl Denial {
    /// A request that is denied as a whole, since of these topics.
    pub fn whole(topics: Codes) -> Self {
        Self { topics, other_topics: error::TOPIC_AUTHORIZATION_FAILED, session: None }
    }

    /// The client is to begin a new fetch session.
    pub fn session(code: i16) -> Self {
        Self { session: Some(code), ..Self::default() }
    }

    /// The error that stands for all of it in the record.
    pub fn code(&self, request: &Request) -> i16 {
        let topics = self.topics.values().min_by_key(|&&code| code == error::UNKNOWN_TOPIC_ID);
        let whole = || match request.topics.is_empty() {
            true => without_topics(request),
            false => error::TOPIC_AUTHORIZATION_FAILED,
        };
        self.session.or(topics.copied()).unwrap_or_else(whole)
    }
}

/// The authorization error of an API, topics aside.
fn without_topics(request: &Request) -> i16 {
    match (request.api_key, request.number("key_type")) {
        (api::PRODUCE..=api::METADATA, _) => error::TOPIC_AUTHORIZATION_FAILED,
        (10, Some(1)) | (24 | 25 | 26 | 28 | 65, _) => error::TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
        (22, _) => match request.field("transactional_id") {
            // An idempotent producer's, which names none.
            Some((_, Value::Text(None))) => error::CLUSTER_AUTHORIZATION_FAILED,
            _ => error::TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
        },
        (8..=16 | 42 | 47 | 68 | 69 | 76..=79 | 88..=92, _) => error::GROUP_AUTHORIZATION_FAILED,
        _ => error::CLUSTER_AUTHORIZATION_FAILED,
    }
}

/// Of an element that names a resource, by the numbers of `ResourceType` and `ConfigResource.Type`,
/// which do not contradict each other.
fn of_resource(kind: i64) -> i16 {
    match kind {
        3 | 32 => error::GROUP_AUTHORIZATION_FAILED,
        5 => error::TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
        _ => error::CLUSTER_AUTHORIZATION_FAILED,
    }
}

/// The response frame, None where the API has none that we know.
pub fn response(request: &Request, denial: &Denial) -> Option<Vec<u8>> {
    let message = Schemas::get().response(request.api_key, request.api_version)?;
    let mut writer = Writer::default();
    writer.number(4, request.correlation_id.into());
    if message.header_version >= 1 {
        writer.varint(0);
    }
    let asked = body_of(request);
    Answer { denial, whole: denial.code(request) }.write(
        &mut writer,
        &message.body,
        Scope { asked, code: without_topics(request), top: true },
    );
    Some(writer.into_frame())
}

/// The entries of the topics that are denied alone, as `array` of the response has them: their
/// number and bytes.
pub fn entries(request: &Request, array: &str, topics: &Codes) -> (usize, Vec<u8>) {
    let shape = Schemas::get().response(request.api_key, request.api_version);
    let (Some(Type::Array { element, .. }), Some(asked)) =
        (shape.and_then(|message| message.body.field(array)), body_of(request))
    else {
        return (0, Vec::new());
    };
    let denial = Denial { topics: topics.clone(), ..Denial::default() };
    let answer = Answer { denial: &denial, whole: error::NONE };
    let mut writer = Writer::default();
    let mut count = 0;
    for topic in asked.answered_by(array, element) {
        if let code @ 1.. = answer.code(topic, error::NONE) {
            count += 1;
            answer.write(&mut writer, element, Scope { asked: Some(topic), code, top: false });
        }
    }
    (count, writer.0)
}

fn body_of(request: &Request) -> Option<Asked<'_>> {
    let shape = &request.message()?.body;
    Some(Asked { shape, value: request.body.as_ref()?, array: "" })
}

struct Answer<'a> {
    denial: &'a Denial,
    /// Where nothing is answered one by one.
    whole: i16,
}

/// A part of the response: what of the request it answers, and the error that it inherits.
#[derive(Clone, Copy)]
struct Scope<'a> {
    asked: Option<Asked<'a>>,
    code: i16,
    top: bool,
}

impl Answer<'_> {
    fn write(&self, to: &mut Writer, shape: &Type, scope: Scope) {
        let Type::Struct(fields) = shape else { return self.field(to, "", shape, scope, 0) };
        // Where elements carry the error, what is around them has none: a client would take it
        // for a fault of all of them.
        let elements = fields.iter().any(|(name, shape)| match shape {
            Type::Array { element, .. } => {
                carries_error(element) && !self.elements(scope, name, element).is_empty()
            }
            _ => false,
        });
        let code = match (elements, scope.top) {
            (true, _) => error::NONE,
            (false, true) => self.whole,
            (false, false) => scope.code,
        };
        for (name, shape) in fields {
            self.field(to, name, shape, scope, code);
        }
    }

    fn elements<'b>(&self, scope: Scope<'b>, name: &str, element: &Type) -> Vec<Asked<'b>> {
        match (self.denial.session, scope.asked) {
            (None, Some(asked)) => asked.answered_by(name, element),
            _ => Vec::new(),
        }
    }

    /// `code` is the error of the struct that the field is in.
    fn field(&self, to: &mut Writer, name: &str, shape: &Type, scope: Scope, code: i16) {
        let repeated = scope.asked.and_then(|asked| asked.repeated(name));
        match (shape, repeated) {
            (Type::Fixed(bytes), Some(Value::Number(number))) => to.number(*bytes, *number),
            (Type::Fixed(bytes), _) => to.number(*bytes, number(name, *bytes, code)),
            (Type::Uuid, Some(Value::Uuid(id))) => to.0.extend_from_slice(id),
            (Type::Uuid, _) => to.0.extend_from_slice(&[0; 16]),
            (Type::Text { compact, nullable }, repeated) => {
                let text = match repeated {
                    Some(Value::Text(text)) => text.as_deref(),
                    _ => None,
                };
                to.text(*compact, if *nullable { text } else { text.or(Some("")) });
            }
            (Type::Bytes { compact }, _) => to.no_bytes(*compact),
            (Type::Varint | Type::Tagged, _) => to.varint(0),
            (Type::Optional(_), _) => to.number(1, -1),
            (Type::Struct(_), _) => {
                self.write(to, shape, Scope { asked: None, code, top: false });
            }
            (Type::Array { compact, element }, _) => {
                let elements = self.elements(scope, name, element);
                to.count(*compact, elements.len());
                for asked in elements {
                    let code = self.code(asked, scope.code);
                    self.write(to, element, Scope { asked: Some(asked), code, top: false });
                }
            }
        }
    }

    /// The error of an element; one that names nothing of its own inherits it.
    fn code(&self, asked: Asked, inherited: i16) -> i16 {
        let topics = match asked.value {
            Value::Text(Some(name)) if asked.array == "topic_names" => {
                vec![TopicRef::Name(name.clone())]
            }
            _ => topics_of(asked.shape, asked.value, asked.array),
        };
        if !topics.is_empty() {
            let denied = topics.iter().find_map(|topic| self.denial.topics.get(topic));
            return denied.copied().unwrap_or(self.denial.other_topics);
        }
        match asked.repeated("resource_type") {
            Some(Value::Number(kind)) if *kind != RESOURCE_TOPIC && asked.is_struct() => {
                of_resource(*kind)
            }
            _ => inherited,
        }
    }
}

/// What a number says that repeats nothing.
fn number(name: &str, bytes: usize, code: i16) -> i64 {
    match name {
        _ if name.ends_with("error_code") => code.into(),
        _ if name.ends_with("authorized_operations") => i32::MIN.into(),
        "preferred_read_replica"
        | "producer_epoch"
        | "leader_id"
        | "leader_epoch"
        | "committed_leader_epoch"
        | "generation_id"
        | "node_id" => -1,
        _ if bytes == 8 => -1,
        _ => 0,
    }
}
