//! `l7_proxy_ext._rules`: the module's own evaluation for `sidegate policy check` and `trace`.
#![forbid(unsafe_code)]

use prost::Message;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use sidegate_policy::{Decision, Endpoint, HttpRequest, KafkaRequest, Peer};
use sidegate_proto::v1;
use std::borrow::Cow;

type Answer = (i32, i32, String);

fn compile(policy: &[u8]) -> PyResult<Endpoint> {
    let policy = v1::EndpointPolicy::decode(policy)
        .map_err(|error| PyValueError::new_err(format!("endpoint_policy: {error}")))?;
    Endpoint::compile(&policy)
        .map_err(|error| PyValueError::new_err(format!("{}: {}", error.rule, error.message)))
}

fn direction(direction: i32) -> PyResult<v1::Direction> {
    v1::Direction::try_from(direction)
        .map_err(|_| PyValueError::new_err(format!("direction {direction}: not 0 or 1")))
}

fn answer(endpoint: &Endpoint, direction: v1::Direction, decision: &Decision) -> Answer {
    let rule = endpoint.rule(direction, decision).unwrap_or_default().to_owned();
    (decision.verdict.into(), decision.reason.into(), rule)
}

/// Identity, and whether it shows the certificate of the workload that has its address.
fn peer((identity, authenticated): (u32, bool)) -> Peer {
    Peer { identity, authenticated }
}

struct Request {
    method: String,
    path: String,
    host: String,
    headers: Vec<(String, String)>,
}

impl HttpRequest for Request {
    fn method(&self) -> &[u8] {
        self.method.as_bytes()
    }

    fn path(&self) -> &[u8] {
        self.path.as_bytes()
    }

    fn host(&self) -> &[u8] {
        self.host.as_bytes()
    }

    fn header(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        let values = self.headers.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name));
        let values: Vec<&str> = values.map(|(_, value)| value.as_str()).collect();
        (!values.is_empty()).then(|| Cow::Owned(values.join(",").into_bytes()))
    }
}

#[pymodule]
mod _rules {
    use super::*;

    /// What is wrong with a pattern, or None.
    #[pyfunction]
    fn regex_error(pattern: &str) -> Option<String> {
        sidegate_policy::regex_error(pattern)
    }

    /// Of a connection whose bytes nobody reads.
    #[pyfunction]
    fn evaluate_tcp(
        endpoint_policy: &[u8],
        direction: i32,
        peer: (u32, bool),
        port: u16,
    ) -> PyResult<Answer> {
        let endpoint = compile(endpoint_policy)?;
        let direction = super::direction(direction)?;
        let decision = endpoint.l4(direction, super::peer(peer), port);
        Ok(answer(&endpoint, direction, &decision))
    }

    #[pyfunction]
    #[allow(clippy::too_many_arguments, reason = "a request, spelled out for Python")]
    fn evaluate_http(
        endpoint_policy: &[u8],
        direction: i32,
        peer: (u32, bool),
        port: u16,
        method: String,
        path: String,
        host: String,
        headers: Vec<(String, String)>,
    ) -> PyResult<Answer> {
        let request = Request { method, path, host, headers };
        let endpoint = compile(endpoint_policy)?;
        let direction = super::direction(direction)?;
        let decision = endpoint.http(direction, super::peer(peer), port, &request);
        Ok(answer(&endpoint, direction, &decision))
    }

    /// Topics are judged one by one, as the module does; the first that is not allowed answers.
    #[pyfunction]
    #[allow(clippy::too_many_arguments, reason = "a request, spelled out for Python")]
    fn evaluate_kafka(
        endpoint_policy: &[u8],
        direction: i32,
        peer: (u32, bool),
        port: u16,
        api_key: u16,
        api_version: u16,
        client_id: &str,
        topics: Vec<String>,
    ) -> PyResult<Answer> {
        let endpoint = compile(endpoint_policy)?;
        let direction = super::direction(direction)?;
        let judge = |topic| {
            let request = KafkaRequest { api_key, api_version, client_id, topic };
            endpoint.kafka(direction, super::peer(peer), port, &request)
        };
        if topics.is_empty() {
            return Ok(answer(&endpoint, direction, &judge(None)));
        }
        let decisions: Vec<Decision> =
            topics.iter().map(|topic| judge(Some(topic.as_str()))).collect();
        let refused =
            decisions.iter().position(|decision| decision.verdict != v1::Verdict::Allowed);
        Ok(answer(&endpoint, direction, &decisions[refused.unwrap_or(0)]))
    }
}
