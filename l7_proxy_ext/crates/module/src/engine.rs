//! What all filters share: who is who, the policies in force, the log of verdicts.

use crate::facts::Facts;
use crate::ipcache::{IpCache, Owner};
use serde::Deserialize;
use sidegate_abi::{Level, log};
use sidegate_policy::{Decision, Endpoint};
use sidegate_proto::v1::{Direction, Reason, VerdictRecord};
use sidegate_stream::{Agent, Policies, Subscriber, Verdicts};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

/// The bootstrap extension's configuration (JSON).
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    node: String,
    agent_socket: PathBuf,
    /// A sidecar will have no maps and ask over the stream instead; that is not built yet.
    ipcache: PathBuf,
    ipcache_epoch: PathBuf,
}

pub struct Engine {
    ipcache: IpCache,
    policies: Arc<Policies>,
    verdicts: Arc<Verdicts>,
    subscriber: Mutex<Option<Subscriber>>,
}

/// What was decided on a request, and at which end of the connection.
#[derive(Debug)]
pub struct Judgement {
    pub decision: Decision,
    pub direction: Direction,
    pub endpoint_id: u32,
    pub revision: u64,
    pub source_identity: u32,
    pub destination_identity: u32,
}

impl Engine {
    /// Opens the maps and starts the subscriber.
    pub fn start(config: &[u8]) -> Result<Self, String> {
        let config: Config =
            serde_json::from_slice(config).map_err(|error| format!("configuration: {error}"))?;
        let ipcache = IpCache::open(&config.ipcache, &config.ipcache_epoch)?;
        let (policies, verdicts) = (Arc::default(), Arc::default());
        let agent = Agent { node: config.node, socket: config.agent_socket };
        let subscriber =
            Subscriber::start(agent, Arc::clone(&policies), Arc::clone(&verdicts), log_line)
                .map_err(|error| format!("subscriber: {error}"))?;
        Ok(Self { ipcache, policies, verdicts, subscriber: Mutex::new(Some(subscriber)) })
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
        self.policies.generation().wrapping_add(self.ipcache.epoch())
    }

    /// Judges at both ends: egress of the source, then ingress of the destination, each if it is
    /// an endpoint of this node; `decide` gets the endpoint, the direction and the peer's identity.
    pub fn judge(
        &self,
        facts: &Facts,
        decide: impl Fn(&Endpoint, Direction, u32) -> Decision,
    ) -> Judgement {
        let owners =
            (self.ipcache.owner(facts.source.ip()), self.ipcache.owner(facts.destination.ip()));
        let (Some(source), Some(destination)) = owners else {
            return Judgement::of_no_endpoint(Reason::Internal);
        };
        let at = |end: Owner, direction, peer: Owner| {
            let policy = self.policies.get(end.endpoint_id);
            let decision = match &policy {
                Some(policy) => decide(policy, direction, peer.identity),
                None => Decision::denied(Reason::NoPolicy),
            };
            Judgement {
                decision,
                direction,
                endpoint_id: end.endpoint_id,
                revision: policy.map_or(0, |policy| policy.revision),
                source_identity: source.identity,
                destination_identity: destination.identity,
            }
        };
        let egress = (source.endpoint_id != 0).then(|| at(source, Direction::Egress, destination));
        if egress.as_ref().is_some_and(|egress| egress.decision.is_denied()) {
            return egress.expect("is some");
        }
        let ingress =
            (destination.endpoint_id != 0).then(|| at(destination, Direction::Ingress, source));
        match (egress, ingress) {
            (Some(egress), Some(ingress)) => egress.or(ingress),
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => Judgement {
                source_identity: source.identity,
                destination_identity: destination.identity,
                ..Judgement::of_no_endpoint(Reason::UnknownEndpoint)
            },
        }
    }
}

impl Judgement {
    pub fn of_no_endpoint(reason: Reason) -> Self {
        Self {
            decision: Decision::denied(reason),
            direction: Direction::Ingress,
            endpoint_id: 0,
            revision: 0,
            source_identity: 0,
            destination_identity: 0,
        }
    }

    /// Which of two ends that both let a request pass tells more: the one that denies, would
    /// deny, or has a rule for it.
    fn or(self, ingress: Self) -> Self {
        use sidegate_proto::v1::Verdict;
        let weight =
            |judgement: &Self| match (judgement.decision.verdict, judgement.decision.reason) {
                (Verdict::Denied, _) => 3,
                (Verdict::Audit, _) => 2,
                (_, Reason::Rule) => 1,
                _ => 0,
            };
        if weight(&self) > weight(&ingress) { self } else { ingress }
    }

    /// A record of this judgement, now; the L7 part is the caller's.
    pub fn record(&self, facts: &Facts) -> VerdictRecord {
        let octets = |ip: IpAddr| match ip {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        VerdictRecord {
            time_unix_nanos: u64::try_from(now.as_nanos()).unwrap_or(u64::MAX),
            verdict: self.decision.verdict.into(),
            reason: self.decision.reason.into(),
            direction: self.direction.into(),
            endpoint_id: self.endpoint_id,
            revision: self.revision,
            rule: self.decision.rule.as_deref().unwrap_or_default().to_owned(),
            source_identity: self.source_identity,
            destination_identity: self.destination_identity,
            source_address: octets(facts.source.ip()),
            destination_address: octets(facts.destination.ip()),
            source_port: facts.source.port().into(),
            destination_port: facts.destination.port().into(),
            count: 1,
            ..VerdictRecord::default()
        }
    }
}

fn log_line(failure: bool, line: &str) {
    log(if failure { Level::Warn } else { Level::Info }, line);
}
