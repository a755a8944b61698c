//! The module's side of the policy stream: policies in force, verdicts out, one thread for both.
#![forbid(unsafe_code)]

mod policies;
mod subscriber;
mod verdicts;

pub use policies::Policies;
pub use subscriber::{Agent, Log, Subscriber};
pub use verdicts::{MERGE_WINDOW, MergeKey, Verdicts};
