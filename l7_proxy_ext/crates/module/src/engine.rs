//! What all filters share: who is who, the policies in force, the log of verdicts.

use crate::ends::{Ends, Sight, ends};
use crate::facts::Facts;
use crate::ipcache::IpCache;
use crate::sidecar::{self, Side, certificate_fits};
use serde::Deserialize;
use sidegate_abi::{Level, Waker, log};
use sidegate_policy::{Decision, Endpoint, Peer};
use sidegate_proto::v1::{Direction, Reason, Verdict, VerdictRecord};
use sidegate_stream::{Agent, Peers, Policies, Sidecar, Soon, Subscriber, Verdicts};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

/// The bootstrap extension's configuration (JSON).
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    node: String,
    agent_socket: PathBuf,
    ipcache: PathBuf,
    ipcache_epoch: PathBuf,
}

pub struct Engine {
    sight: Sight,
    soon: Arc<Soon>,
    policies: Arc<Policies>,
    verdicts: Arc<Verdicts>,
    subscriber: Mutex<Option<Subscriber>>,
}

/// What was decided on a request, and at which end of the connection.
#[derive(Debug)]
pub struct Judgement {
    pub decision: Decision,
    pub direction: Direction,
    pub ends: Rc<Ends>,
}

impl Engine {
    /// Opens the maps and starts the subscriber.
    pub fn start(config: &[u8]) -> Result<Self, String> {
        let config: Config =
            serde_json::from_slice(config).map_err(|error| format!("configuration: {error}"))?;
        let ipcache = IpCache::open(&config.ipcache, &config.ipcache_epoch)?;
        let agent = Agent { node: config.node, socket: config.agent_socket, sidecar: None };
        Self::with(Sight::Node(ipcache), Arc::default(), agent)
    }

    /// In a sidecar, where no bootstrap extension can be: the first filter starts it.
    pub fn start_sidecar(directory: &Path) -> Result<Self, String> {
        let (peers, soon) = (Arc::<Peers>::default(), Arc::<Soon>::default());
        let sidecar = Sidecar {
            peers: Arc::clone(&peers),
            soon: Arc::clone(&soon),
            lease_socket: directory.join("lease.sock"),
            receive: sidecar::receive_lease,
            enforces: sidecar::enforces,
        };
        let node = std::env::var("HOSTNAME").unwrap_or_default();
        let agent = Agent { node, socket: directory.join("agent.sock"), sidecar: Some(sidecar) };
        Self::with(Sight::Sidecar(peers), soon, agent)
    }

    fn with(sight: Sight, soon: Arc<Soon>, agent: Agent) -> Result<Self, String> {
        let (policies, verdicts) = (Arc::default(), Arc::default());
        let subscriber =
            Subscriber::start(agent, Arc::clone(&policies), Arc::clone(&verdicts), log_line)
                .map_err(|error| format!("subscriber: {error}"))?;
        Ok(Self { sight, soon, policies, verdicts, subscriber: Mutex::new(Some(subscriber)) })
    }

    pub fn stop(&self) {
        let subscriber = self.subscriber.lock().ok().and_then(|mut held| held.take());
        if let Some(subscriber) = subscriber {
            subscriber.stop();
        }
    }

    pub fn verdicts(&self) -> &Verdicts {
        &self.verdicts
    }

    /// Moves whenever a verdict may have changed. Both parts only rise.
    pub fn generation(&self) -> u64 {
        self.policies.generation().wrapping_add(self.sight.generation())
    }

    /// In a sidecar, after a judgement for [`Reason::UnknownPeer`]: asks who the peer is and calls
    /// back when that is known, or cannot be known.
    pub fn ask_peer(&self, facts: &Facts, side: Option<Side>, waker: Waker) {
        if let (Sight::Sidecar(peers), Some(side)) = (&self.sight, side) {
            peers.ask(side.peer(&facts.addresses()), Box::new(|| waker.wake()));
        }
    }

    /// In a sidecar: calls back in a moment.
    pub fn call_back(&self, waker: Waker) {
        self.soon.call(Box::new(|| waker.wake()));
    }

    /// Judges at both ends: egress of the source, then ingress of the destination, each if it is
    /// an endpoint of this node, or of this pod; `decide` gets its policy, the direction and who is
    /// at the other end.
    ///
    /// `uri` is that of the peer's certificate; empty without one, and on the node, which sees none.
    pub fn judge(
        &self,
        facts: &Facts,
        side: Option<Side>,
        uri: &[u8],
        decide: impl Fn(&Endpoint, Direction, Peer) -> Decision,
    ) -> Judgement {
        let ends = ends(self.generation(), facts, side, &self.sight, &self.policies);
        let Some(ends) = ends else {
            let reason = match side {
                Some(Side::Ingress | Side::Egress | Side::Forward) => Reason::UnknownPeer,
                None | Some(Side::Gateway | Side::Mesh) => Reason::Internal,
            };
            return Judgement::of_nobody(reason, side);
        };
        if ends.are_one() {
            let decision = Decision::not_enforced();
            return Judgement { decision, direction: Direction::Egress, ends };
        }
        let lies = ends.peer.as_ref().is_some_and(|peer| !certificate_fits(uri, peer));
        let authenticated = ends.peer.is_some() && !uri.is_empty() && !lies;
        let at = |direction| {
            let end = ends.end(direction)?;
            Some(match &end.policy {
                Some(_) if lies => Decision::denied(Reason::PeerMismatch),
                Some(policy) => {
                    let identity = ends.peer(direction);
                    decide(policy, direction, Peer { identity, authenticated })
                }
                None => Decision::denied(Reason::NoPolicy),
            })
        };
        let egress = at(Direction::Egress);
        let (direction, decision) = match egress {
            Some(egress) if egress.is_denied() => (Direction::Egress, egress),
            _ => match (egress, at(Direction::Ingress)) {
                (Some(egress), Some(ingress)) if weight(&egress) > weight(&ingress) => {
                    (Direction::Egress, egress)
                }
                (_, Some(ingress)) => (Direction::Ingress, ingress),
                (Some(egress), None) => (Direction::Egress, egress),
                (None, None) if side == Some(Side::Gateway) => {
                    (Direction::Ingress, Decision::not_enforced())
                }
                (None, None) => (Direction::Ingress, Decision::denied(Reason::UnknownEndpoint)),
            },
        };
        Judgement { decision, direction, ends }
    }
}

/// Which of two ends that both let a request pass tells more: the one that denies, would deny, or
/// has a rule for it.
fn weight(decision: &Decision) -> u8 {
    match (decision.verdict, decision.reason) {
        (Verdict::Denied, _) => 3,
        (Verdict::Audit, _) => 2,
        (_, Reason::Rule) => 1,
        _ => 0,
    }
}

impl Judgement {
    pub fn of_nobody(reason: Reason, side: Option<Side>) -> Self {
        Self {
            decision: Decision::denied(reason),
            direction: side.map_or(Direction::Ingress, Side::direction),
            ends: Rc::default(),
        }
    }

    /// Of the endpoint that decided; 0 if there is none.
    pub fn endpoint_id(&self) -> u32 {
        self.ends.end(self.direction).map_or(0, |end| end.endpoint_id)
    }

    fn policy(&self) -> Option<&Endpoint> {
        self.ends.end(self.direction)?.policy.as_deref()
    }

    /// Of the policy that decided; 0 if there was none.
    pub fn revision(&self) -> u64 {
        self.policy().map_or(0, |policy| policy.revision)
    }

    /// A record of this judgement, now; the L7 part is the caller's.
    pub fn record(&self, facts: &Facts) -> VerdictRecord {
        let octets = |ip: IpAddr| match ip {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        let (source, destination) = (facts.source(), facts.destination());
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        let rule = self.policy().and_then(|policy| policy.rule(self.direction, &self.decision));
        VerdictRecord {
            time_unix_nanos: u64::try_from(now.as_nanos()).unwrap_or(u64::MAX),
            verdict: self.decision.verdict.into(),
            reason: self.decision.reason.into(),
            direction: self.direction.into(),
            endpoint_id: self.endpoint_id(),
            revision: self.revision(),
            rule: rule.unwrap_or_default().to_owned(),
            source_identity: self.ends.source_identity,
            destination_identity: self.ends.destination_identity,
            source_address: octets(source.ip()),
            destination_address: octets(destination.ip()),
            source_port: source.port().into(),
            destination_port: destination.port().into(),
            count: 1,
            ..VerdictRecord::default()
        }
    }
}

fn log_line(failure: bool, line: &str) {
    log(if failure { Level::Warn } else { Level::Info }, line);
}
