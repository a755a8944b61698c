//! HTTP filter `sidegate_http`: judges each request by the policy in force when it comes.
//!
//! Works before the router and as an upstream filter. What passes is not changed.

use crate::engine::{Engine, Judgement};
use crate::facts::{Facts, KEY};
use crate::sidecar::Side;
use sidegate_abi::http::{Exchange, GRPC_PERMISSION_DENIED, HttpFilter, Next};
use sidegate_policy::HttpRequest;
use sidegate_proto::v1::{Direction, HttpRecord, Reason, Verdict, VerdictRecord, verdict_record};
use sidegate_stream::MergeKey;
use std::borrow::Cow;
use std::time::{Duration, Instant};

pub struct Http {
    engine: &'static Engine,
    side: Option<Side>,
    exchange: Option<Judged>,
    asked: bool,
}

/// A request that was let pass.
struct Judged {
    facts: Facts,
    judgement: Judgement,
    request: Request,
    since: Instant,
    generation: u64,
    logged: bool,
    upgraded: bool,
}

/// What a rule and a record need of a request, copied since later filters may change it.
struct Request {
    text: Box<[u8]>,
    method: usize,
    path: usize,
}

impl Http {
    /// `side` is None on the node.
    pub fn new(engine: &'static Engine, side: Option<Side>) -> Self {
        Self { engine, side, exchange: None, asked: false }
    }

    fn facts(&self, envoy: &Exchange) -> Option<Facts> {
        match self.side {
            None => envoy.filter_state(KEY).and_then(Facts::from_bytes),
            Some(side) => side.facts(envoy),
        }
    }

    /// Waits to know who the peer is, and which certificate it shows.
    fn admit(&mut self, envoy: &Exchange) -> Next {
        if self.side == Some(Side::Gateway) && envoy.filter_state(KEY).is_some() {
            self.side = Some(Side::Mesh); // clusters serve both; what was redirected is a pod's
        }
        let Some(facts) = self.facts(envoy) else {
            // Configured without `sidegate_peer`: there is nobody to name in a record.
            return deny(envoy, &Judgement::of_nobody(Reason::Internal, self.side));
        };
        let since = Instant::now();
        let generation = self.engine.generation();
        let request = Request::copy(envoy);
        let judgement = judge(self.engine, self.side, envoy, &facts, &request);
        if judgement.decision.reason == Reason::UnknownPeer && !self.asked {
            self.asked = true;
            self.engine.ask_peer(&facts, self.side, envoy.waker());
            return Next::Wait;
        }
        let leaves = self.side.is_some_and(Side::leaves);
        if leaves && depends_on_proof(&judgement) && !envoy.is_connected() {
            self.engine.call_back(envoy.waker());
            return Next::Wait;
        }
        let judged =
            Judged { facts, judgement, request, since, generation, logged: false, upgraded: false };
        if judged.judgement.decision.is_denied() {
            self.engine.verdicts().push(judged.record(envoy, FORBIDDEN));
            return deny(envoy, &judged.judgement);
        }
        self.exchange = Some(judged);
        Next::Continue
    }
}

impl HttpFilter for Http {
    fn on_request_headers(&mut self, envoy: &Exchange) -> Next {
        self.admit(envoy)
    }

    fn on_scheduled(&mut self, envoy: &Exchange) -> Next {
        self.admit(envoy)
    }

    fn on_response_headers(&mut self, envoy: &Exchange) {
        if let Some(judged) = &mut self.exchange {
            let status = envoy.status();
            judged.upgraded = status == SWITCHING || judged.request.method() == b"CONNECT";
            judged.log(self.engine, envoy, status);
        }
    }

    /// Ends an exchange that has been going on since before the policy that denies it.
    fn on_body(&mut self, envoy: &Exchange) -> Next {
        let generation = self.engine.generation();
        let Some(judged) = &mut self.exchange else {
            return Next::Continue;
        };
        if judged.generation == generation {
            return Next::Continue;
        }
        if !judged.upgraded && judged.since.elapsed() < ONE_ANSWER {
            return Next::Continue;
        }
        judged.generation = generation;
        let judgement = judge(self.engine, self.side, envoy, &judged.facts, &judged.request);
        if !judgement.decision.is_denied() {
            return Next::Continue;
        }
        judged.judgement = judgement;
        judged.logged = true;
        self.engine.verdicts().push(judged.record(envoy, 0));
        envoy.reset("sidegate_denied");
        Next::Stop
    }

    fn on_complete(&mut self, envoy: &Exchange) {
        if let Some(judged) = &mut self.exchange {
            judged.log(self.engine, envoy, 0);
        }
    }
}

/// Whether a certificate that is not known yet may make it another one.
fn depends_on_proof(Judgement { decision, .. }: &Judgement) -> bool {
    match decision.reason {
        Reason::NotEnforced => false,
        Reason::Unauthenticated => true,
        _ => !decision.is_denied(),
    }
}

fn judge(
    engine: &Engine,
    side: Option<Side>,
    envoy: &Exchange,
    facts: &Facts,
    request: &Request,
) -> Judgement {
    let request = Live { request, envoy };
    let port = facts.destination_port();
    let uri = side.map_or(&[][..], |side| side.peer_uri(envoy));
    engine.judge(facts, side, uri, |endpoint, direction, peer| {
        endpoint.http(direction, peer, port, &request)
    })
}

const SWITCHING: u32 = 101;
const FORBIDDEN: u32 = 403;

/// An exchange that is younger was one request and is being answered: it was allowed when it came,
/// and half an answer helps nobody. Older ones are streams, which must not outlive their policy.
const ONE_ANSWER: Duration = Duration::from_millis(100);

fn deny(envoy: &Exchange, judgement: &Judgement) -> Next {
    let reason = match judgement.decision.reason {
        Reason::Rule => "a rule denies it",
        Reason::NoRule => "no rule allows it",
        Reason::NoPolicy => "the endpoint has no policy yet",
        Reason::UnknownPeer => "nobody said who the peer is",
        Reason::PeerMismatch => "the peer's certificate is not that of its address",
        Reason::Unauthenticated => "it takes a certificate, and the peer shows none",
        Reason::UnknownEndpoint => "neither end is an endpoint of this node",
        _ => "internal fault",
    };
    let direction = match judgement.direction {
        Direction::Ingress => "ingress",
        Direction::Egress => "egress",
    };
    let body = format!("Denied by Sidegate policy ({direction}): {reason}.\n");
    envoy.respond(FORBIDDEN, GRPC_PERMISSION_DENIED, &body, "sidegate_denied");
    Next::Stop
}

impl Judged {
    /// Once for each exchange.
    fn log(&mut self, engine: &Engine, envoy: &Exchange, status: u32) {
        if std::mem::replace(&mut self.logged, true) {
            return;
        }
        if self.judgement.decision.verdict != Verdict::Allowed {
            engine.verdicts().push(self.record(envoy, status));
            return;
        }
        let judgement = &self.judgement;
        let key = MergeKey::new((
            (judgement.endpoint_id(), judgement.revision(), judgement.direction as i32),
            (judgement.ends.source_identity, judgement.ends.destination_identity),
            (self.facts.addresses(), self.facts.destination_port()),
            (judgement.decision.reason as i32, judgement.decision.rule),
            (&self.request.text, self.request.method, self.request.path, status),
        ));
        engine.verdicts().merge(key, self.latency_nanos(), || self.record(envoy, status));
    }

    fn record(&self, envoy: &Exchange, status: u32) -> VerdictRecord {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        VerdictRecord {
            latency_nanos: self.latency_nanos(),
            l7: Some(verdict_record::L7::Http(HttpRecord {
                method: text(self.request.method()),
                path: text(self.request.path()),
                host: text(self.request.host()),
                status,
                protocol: text(envoy.protocol()),
            })),
            ..self.judgement.record(&self.facts)
        }
    }

    fn latency_nanos(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

impl Request {
    fn copy(envoy: &Exchange) -> Self {
        let (method, path, host) = (envoy.method(), envoy.path(), envoy.host());
        let text = [method, path, host].concat().into_boxed_slice();
        Self { text, method: method.len(), path: method.len() + path.len() }
    }

    fn method(&self) -> &[u8] {
        &self.text[..self.method]
    }

    fn path(&self) -> &[u8] {
        &self.text[self.method..self.path]
    }

    fn host(&self) -> &[u8] {
        &self.text[self.path..]
    }
}

/// A request whose other headers are still with Envoy.
struct Live<'a> {
    request: &'a Request,
    envoy: &'a Exchange,
}

impl HttpRequest for Live<'_> {
    fn method(&self) -> &[u8] {
        self.request.method()
    }

    fn path(&self) -> &[u8] {
        self.request.path()
    }

    fn host(&self) -> &[u8] {
        self.request.host()
    }

    fn header(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        let (first, count) = self.envoy.request_header(name, 0)?;
        if count <= 1 {
            return Some(Cow::Borrowed(first));
        }
        let values = (0..count).filter_map(|index| self.envoy.request_header(name, index));
        let values: Vec<&[u8]> = values.map(|(value, _)| value).collect();
        Some(Cow::Owned(values.join(&b',')))
    }
}
