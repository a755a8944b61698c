//! Policy compiled from the agent's messages, and its evaluation. Pure: no I/O, no clock.
//!
//! Deny wins; otherwise any rule that matches allows; otherwise a direction that is enforced
//! denies. The module in Envoy and `sidegate policy trace` both call this code.
#![forbid(unsafe_code)]

mod endpoint;
mod http;
mod kafka;
mod path;
mod pattern;

pub use endpoint::{Decision, Endpoint, Peer};
pub use http::HttpRequest;
pub use kafka::KafkaRequest;
pub use path::normalize;

/// A rule that cannot be enforced as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyError {
    /// Its origin, as the agent gave it.
    pub rule: String,
    pub message: String,
}

/// What is wrong with a rule, before the rule is named.
struct Fault(String);

/// What is wrong with `source` as a pattern of a rule; None if nothing is.
pub fn regex_error(source: &str) -> Option<String> {
    pattern::Pattern::new(source).err()
}
