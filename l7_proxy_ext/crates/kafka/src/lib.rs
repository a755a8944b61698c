//! Kafka policy on one connection, apart from Envoy: see [`Session`].
#![forbid(unsafe_code)]

mod codec;
mod deny;
mod fetch;
mod mirror;
#[cfg(test)]
mod properties;
mod request;
mod rewrite;
#[cfg(any(test, feature = "samples"))]
pub mod sample;
mod schema;
mod session;
mod splice;

pub use codec::Malformed;
pub use deny::error;
pub use request::Request;
pub use session::{Actions, Judge, Question, Session};
