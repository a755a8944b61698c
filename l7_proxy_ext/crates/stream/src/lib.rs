//! The module's side of the policy stream: policies in force, verdicts out, one thread for both.
#![forbid(unsafe_code)]

mod peers;
mod policies;
mod soon;
mod subscriber;
mod verdicts;

pub use peers::{Address, Peer, Peers};
pub use policies::Policies;
pub use soon::Soon;
pub use subscriber::{Agent, Lease, Log, Sidecar, Sides, Subscriber};
pub use verdicts::{MERGE_WINDOW, MergeKey, Verdicts};
