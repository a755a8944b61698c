//! The compiled policy of one endpoint, and what it says to a request.

use crate::http::{HttpRequest, HttpRules};
use crate::kafka::{KafkaRequest, KafkaRules};
use crate::path::normalize;
use crate::{Fault, PolicyError};
use foldhash::HashMap;
use sidegate_proto::v1;
use std::borrow::Cow;

/// What was decided, why, and the number of the rule that did: [`Endpoint::rule`] names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    pub verdict: v1::Verdict,
    pub reason: v1::Reason,
    /// None where no rule decided.
    pub rule: Option<usize>,
}

impl Decision {
    pub fn denied(reason: v1::Reason) -> Self {
        Self { verdict: v1::Verdict::Denied, reason, rule: None }
    }

    /// Policy has nothing to say.
    pub fn not_enforced() -> Self {
        Self { verdict: v1::Verdict::Allowed, reason: v1::Reason::NotEnforced, rule: None }
    }

    pub fn is_denied(&self) -> bool {
        self.verdict == v1::Verdict::Denied
    }
}

/// Who is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    pub identity: u32,
    /// It has shown the certificate of the workload that has its address.
    pub authenticated: bool,
}

/// The policy of one endpoint, compiled once for each revision.
#[derive(Debug)]
pub struct Endpoint {
    pub id: u32,
    pub identity: u32,
    pub revision: u64,
    ingress: Direction,
    egress: Direction,
}

impl Endpoint {
    /// # Errors
    /// Names the first rule that cannot be enforced as written. Such a policy is not used at all.
    pub fn compile(policy: &v1::EndpointPolicy) -> Result<Self, PolicyError> {
        let direction = |policy: &Option<v1::DirectionPolicy>| {
            policy.as_ref().map_or_else(|| Ok(Direction::default()), Direction::compile)
        };
        Ok(Self {
            id: policy.endpoint_id,
            identity: policy.identity,
            revision: policy.revision,
            ingress: direction(&policy.ingress)?,
            egress: direction(&policy.egress)?,
        })
    }

    /// Judges an HTTP request between this endpoint and `peer`, on server port `port`.
    ///
    /// Both the path as sent and the form that a lenient server may act on have to be allowed.
    pub fn http(
        &self,
        direction: v1::Direction,
        peer: Peer,
        port: u16,
        request: &impl HttpRequest,
    ) -> Decision {
        let policy = self.direction(direction);
        let judge = |path| policy.judge(peer, port, |rules| rules.http.find(request, path));
        let as_sent = judge(request.path());
        if as_sent.verdict != v1::Verdict::Allowed || as_sent.reason != v1::Reason::Rule {
            return as_sent;
        }
        match normalize(request.path()) {
            Cow::Borrowed(_) => as_sent,
            Cow::Owned(normal) => match judge(&normal) {
                normal if normal.verdict == v1::Verdict::Allowed => as_sent,
                otherwise => otherwise,
            },
        }
    }

    /// Judges a connection by what can be said of it without reading it: rules without L7.
    pub fn l4(&self, direction: v1::Direction, peer: Peer, port: u16) -> Decision {
        self.direction(direction).judge(peer, port, |_| None)
    }

    /// Judges one topic of a Kafka request, or a request that names none.
    pub fn kafka(
        &self,
        direction: v1::Direction,
        peer: Peer,
        port: u16,
        request: &KafkaRequest,
    ) -> Decision {
        self.direction(direction).judge(peer, port, |rules| rules.kafka.find(request))
    }

    /// Whether policy says anything of what passes in `direction`.
    pub fn enforces(&self, direction: v1::Direction) -> bool {
        self.direction(direction).enforced
    }

    /// The origin of the rule behind a decision of this very policy in `direction`.
    pub fn rule(&self, direction: v1::Direction, decision: &Decision) -> Option<&str> {
        decision.rule.map(|number| &*self.direction(direction).origins[number])
    }

    fn direction(&self, direction: v1::Direction) -> &Direction {
        match direction {
            v1::Direction::Ingress => &self.ingress,
            v1::Direction::Egress => &self.egress,
        }
    }
}

#[derive(Debug, Default)]
struct Direction {
    enforced: bool,
    audit: bool,
    default_allow: bool,
    origins: Vec<Box<str>>,
    groups: Vec<Group>,
    /// Groups of a single port, by port.
    ports: HashMap<u16, Vec<usize>>,
    /// Groups of several ports.
    ranges: Vec<usize>,
}

/// The rules that share ports and peers. Most policies have a few, however many rules they have.
#[derive(Debug)]
struct Group {
    first_port: u16,
    last_port: u16,
    /// Sorted; None is any.
    peers: Option<Box<[u32]>>,
    deny: Rules,
    allow: Rules,
    proof: Option<Proof>,
}

/// What the peers have to prove, by the rule with this number.
#[derive(Clone, Copy, Debug)]
struct Proof {
    origin: usize,
    possible: bool,
}

impl Proof {
    fn of(rule: &v1::PortRule, origin: usize) -> Result<Option<Self>, Fault> {
        use v1::Authentication::{AlwaysFail, None as Nothing, Required};
        let proof = |possible| Some(Self { origin, possible });
        match v1::Authentication::try_from(rule.authentication) {
            Ok(Nothing) => Ok(None),
            Ok(Required) => Ok(proof(true)),
            Ok(AlwaysFail) => Ok(proof(false)),
            Err(_) => Err(Fault(format!("authentication {}: unknown", rule.authentication))),
        }
    }
}

/// First port, last port, peers.
type GroupKey = (u16, u16, Option<Box<[u32]>>);

#[derive(Debug, Default)]
struct Rules {
    /// A rule without L7, which matches everything.
    whole: Option<usize>,
    http: HttpRules,
    kafka: KafkaRules,
}

impl Direction {
    fn compile(policy: &v1::DirectionPolicy) -> Result<Self, PolicyError> {
        let mut compiled = Self {
            enforced: policy.enforced,
            audit: policy.audit,
            default_allow: policy.default_allow,
            ..Self::default()
        };
        let mut numbers = HashMap::default();
        for rule in &policy.rules {
            compiled
                .add(rule, &mut numbers)
                .map_err(|Fault(message)| PolicyError { rule: rule.rule.clone(), message })?;
        }
        for (number, group) in compiled.groups.iter_mut().enumerate() {
            group.deny.http.index();
            group.allow.http.index();
            if group.first_port == group.last_port {
                compiled.ports.entry(group.first_port).or_default().push(number);
            } else {
                compiled.ranges.push(number);
            }
        }
        Ok(compiled)
    }

    fn add(
        &mut self,
        rule: &v1::PortRule,
        numbers: &mut HashMap<GroupKey, usize>,
    ) -> Result<(), Fault> {
        let (first_port, last_port) = ports(rule)?;
        let peers = (!rule.any_peer).then(|| {
            let mut peers = rule.peers.clone();
            peers.sort_unstable();
            peers.into_boxed_slice()
        });
        let key = (first_port, last_port, peers.clone());
        let number = *numbers.entry(key).or_insert_with(|| {
            let (deny, allow) = (Rules::default(), Rules::default());
            self.groups.push(Group { first_port, last_port, peers, deny, allow, proof: None });
            self.groups.len() - 1
        });
        let origin = self.origins.len();
        self.origins.push(rule.rule.as_str().into());
        let proof = Proof::of(rule, origin)?;
        let group = &mut self.groups[number];
        group.proof = proof.filter(|proof| !proof.possible).or(group.proof).or(proof);
        let rules = if rule.deny { &mut group.deny } else { &mut group.allow };
        match &rule.l7 {
            None => _ = rules.whole.get_or_insert(origin),
            Some(v1::port_rule::L7::Http(http)) => {
                http.rules.iter().try_for_each(|http| rules.http.add(http, origin))?;
            }
            Some(v1::port_rule::L7::Kafka(kafka)) => {
                kafka.rules.iter().for_each(|kafka| rules.kafka.add(kafka, origin));
            }
        }
        Ok(())
    }

    fn judge(&self, peer: Peer, port: u16, l7: impl Fn(&Rules) -> Option<usize>) -> Decision {
        use v1::{Reason, Verdict};
        if !self.enforced {
            return Decision::not_enforced();
        }
        let denied = if self.audit { Verdict::Audit } else { Verdict::Denied };
        let matching = |rules: &Rules| rules.whole.or_else(|| l7(rules));
        if let Some(origin) = self.groups(peer, port).find_map(|group| matching(&group.deny)) {
            return Decision { verdict: denied, reason: Reason::Rule, rule: Some(origin) };
        }
        let unproven = |proof: &Proof| !(proof.possible && peer.authenticated);
        let mut proofs = self.groups(peer, port).filter_map(|group| group.proof);
        if let Some(proof) = proofs.find(unproven) {
            let (reason, rule) = (Reason::Unauthenticated, Some(proof.origin));
            return Decision { verdict: denied, reason, rule };
        }
        match self.groups(peer, port).find_map(|group| matching(&group.allow)) {
            Some(origin) => {
                Decision { verdict: Verdict::Allowed, reason: Reason::Rule, rule: Some(origin) }
            }
            None if self.default_allow && self.groups(peer, port).next().is_none() => {
                Decision::not_enforced()
            }
            None => Decision { verdict: denied, reason: Reason::NoRule, rule: None },
        }
    }

    fn groups(&self, peer: Peer, port: u16) -> impl Iterator<Item = &Group> {
        let single = self.ports.get(&port).into_iter().flatten();
        single.chain(&self.ranges).map(|&number| &self.groups[number]).filter(move |group| {
            (group.first_port..=group.last_port).contains(&port)
                && group
                    .peers
                    .as_ref()
                    .is_none_or(|peers| peers.binary_search(&peer.identity).is_ok())
        })
    }
}

fn ports(rule: &v1::PortRule) -> Result<(u16, u16), Fault> {
    let port = |field, value: u32| {
        u16::try_from(value).map_err(|_| Fault(format!("{field} {value}: not in 0..65535")))
    };
    match (port("port", rule.port)?, port("end_port", rule.end_port)?) {
        (0, 0) => Ok((0, u16::MAX)),
        (first, 0) => Ok((first, first)),
        (first, last) if first <= last => Ok((first, last)),
        (first, last) => Err(Fault(format!("end_port {last}: below port {first}"))),
    }
}
