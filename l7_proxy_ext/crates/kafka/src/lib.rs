//! Kafka policy on one connection, apart from Envoy: see [`Session`].
#![forbid(unsafe_code)]

mod codec;
mod deny;
mod request;
mod rewrite;
mod schema;
mod session;

pub use codec::Malformed;
pub use deny::error;
pub use request::Request;
pub use session::{Actions, Judge, Question, Session};
