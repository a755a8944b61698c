//! The contract with the agent: `sidegate_api/policy/v1/policy.proto`.
#![forbid(unsafe_code)]
#![allow(missing_docs, clippy::all, reason = "generated")]

pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/sidegate.policy.v1.rs"));
}
