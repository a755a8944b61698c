//! The module's side of the policy stream: policies in force, verdicts out, one thread for both.
#![forbid(unsafe_code)]

mod peers;
mod policies;
mod subscriber;
mod verdicts;

pub use peers::{Address, Peer, Peers};
pub use policies::Policies;
pub use subscriber::{Agent, Lease, Log, Sidecar, Subscriber};
pub use verdicts::{MERGE_WINDOW, MergeKey, Verdicts};
