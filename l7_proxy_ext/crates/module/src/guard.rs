//! Listener filter `sidegate_guard`, before the HTTP connection manager: connections whose first
//! bytes cannot be HTTP are closed and logged, which the connection manager would not tell us of.
//!
//! A listener filter costs once for each connection, a network filter on each read and write.

use crate::engine::Engine;
use crate::facts::Facts;
use crate::sidecar::Side;
use sidegate_abi::listener::{Accept, Listener, ListenerFilter};
use sidegate_policy::Decision;
use sidegate_proto::v1::Reason;

pub struct Guard {
    engine: &'static Engine,
}

/// Longer than any method that is registered, shorter than any request.
const FIRST_BYTES: usize = 32;

impl Guard {
    pub fn new(engine: &'static Engine) -> Self {
        Self { engine }
    }
}

impl ListenerFilter for Guard {
    fn on_accept(&mut self, _envoy: &Listener) -> Accept {
        Accept::Peek
    }

    fn on_data(&mut self, envoy: &Listener, peeked: &[u8]) -> Accept {
        if may_be_http(peeked) {
            return Accept::Continue;
        }
        if let Some(facts) = Facts::of(envoy) {
            log_not_protocol(self.engine, &facts, None);
        }
        Accept::Close
    }

    fn peek_bytes(&self) -> usize {
        FIRST_BYTES
    }
}

/// Logs that the bytes of a connection are not what its policy expects.
pub fn log_not_protocol(engine: &Engine, facts: &Facts, side: Option<Side>) {
    let judgement = engine.judge(facts, side, b"", |_, _, _| Decision::denied(Reason::NotProtocol));
    engine.verdicts().push(judgement.record(facts));
}

/// Whether bytes may begin a request: empty lines, then a token and a space (RFC 9112, section 3).
/// The preface of HTTP/2 does too.
fn may_be_http(bytes: &[u8]) -> bool {
    let line = bytes.trim_ascii_start();
    let method = line.split(|&byte| byte == b' ').next().unwrap_or_default();
    method.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}
