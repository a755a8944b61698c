//! Network filter `sidegate_guard`, before the HTTP connection manager: connections whose first
//! bytes cannot be HTTP are closed and logged, which the connection manager would not tell us of.

use crate::engine::{Engine, Judgement};
use crate::facts::{Facts, KEY};
use sidegate_abi::network::{Connection, Flow, NetworkFilter};
use sidegate_policy::Decision;
use sidegate_proto::v1::Reason;

pub struct Guard {
    engine: &'static Engine,
    seen: bool,
}

impl Guard {
    pub fn new(engine: &'static Engine) -> Self {
        Self { engine, seen: false }
    }
}

impl NetworkFilter for Guard {
    fn on_read(&mut self, envoy: &Connection, _end_stream: bool) -> Flow {
        if self.seen {
            return Flow::Continue;
        }
        let mut http = true;
        envoy.read_buffer(|chunk| {
            if !std::mem::replace(&mut self.seen, true) {
                http = may_be_http(chunk);
            }
        });
        if http {
            return Flow::Continue;
        }
        log_not_protocol(self.engine, envoy);
        envoy.close(false);
        Flow::Stop
    }
}

/// Logs that the bytes of a connection are not what its policy expects.
pub fn log_not_protocol(engine: &Engine, envoy: &Connection) {
    let Some(facts) = envoy.filter_state(KEY).and_then(Facts::from_bytes) else {
        return;
    };
    let not_protocol = Decision::denied(Reason::NotProtocol);
    let judgement: Judgement = engine.judge(&facts, |_, _, _| not_protocol.clone());
    engine.verdicts().push(judgement.record(&facts));
}

/// Whether bytes may begin a request: empty lines, then a token and a space (RFC 9112, section 3).
/// The preface of HTTP/2 does too.
fn may_be_http(bytes: &[u8]) -> bool {
    let line = bytes.trim_ascii_start();
    let method = line.split(|&byte| byte == b' ').next().unwrap_or_default();
    method.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}
