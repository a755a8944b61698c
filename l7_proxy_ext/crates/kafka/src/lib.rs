//! Kafka policy on one connection, apart from Envoy: see [`Session`].
#![forbid(unsafe_code)]

mod codec;
mod deny;
mod fetch;
mod mirror;
mod request;
mod rewrite;
mod ruling;
#[cfg(any(test, feature = "samples"))]
pub mod sample;
mod schema;
mod session;
mod splice;
mod turns;
mod versions;

pub use codec::Malformed;
pub use deny::error;
pub use request::Request;
pub use ruling::{Judge, Question};
pub use session::{Actions, Session};

#[cfg(test)]
mod tests;
