//! Errors, in the form that the CNI specification gives them.

use serde_json::{Value, json};

/// Error codes of the specification, "Error", and from 100 on our own.
pub mod code {
    pub const INCOMPATIBLE_VERSION: u32 = 1;
    pub const UNKNOWN_CONTAINER: u32 = 3;
    pub const BAD_ENVIRONMENT: u32 = 4;
    pub const IO: u32 = 5;
    pub const BAD_CONFIG: u32 = 7;
    pub const TRY_AGAIN: u32 = 11;
    /// STATUS: ADD would fail.
    pub const NOT_AVAILABLE: u32 = 50;
    pub const NO_ADDRESS: u32 = 100;
    pub const NETWORK: u32 = 101;
    pub const AGENT: u32 = 102;
    pub const CHECK_FAILED: u32 = 103;
}

#[derive(Debug)]
pub struct Error {
    pub code: u32,
    pub msg: String,
}

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub fn new(code: u32, msg: impl Into<String>) -> Self {
        Self { code, msg: msg.into() }
    }

    pub fn to_json(&self) -> Value {
        json!({"cniVersion": "1.1.0", "code": self.code, "msg": self.msg})
    }
}
