//! Both ends of connections between two addresses, with the policies in force there.

use crate::facts::Facts;
use crate::ipcache::{IpCache, Owner};
use crate::sidecar::Side;
use foldhash::HashMap;
use sidegate_policy::Endpoint;
use sidegate_proto::v1::Direction;
use sidegate_stream::{Peer, Peers, Policies};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

/// One end, if it is an endpoint of this node.
#[derive(Debug)]
pub struct End {
    pub endpoint_id: u32,
    /// None: there is no policy for it yet.
    pub policy: Option<Arc<Endpoint>>,
}

#[derive(Debug, Default)]
pub struct Ends {
    pub source_identity: u32,
    pub destination_identity: u32,
    source: Option<End>,
    destination: Option<End>,
    /// Of a sidecar: who is at the other end. None as well where nothing is enforced and nobody
    /// has said yet.
    pub peer: Option<Arc<Peer>>,
}

/// Where it is known who an address is.
pub enum Sight {
    /// On the node, all of them.
    Node(IpCache),
    /// In a sidecar, those that it has met.
    Sidecar(Arc<Peers>),
}

impl Sight {
    /// Moves whenever an address has another owner.
    pub fn generation(&self) -> u64 {
        match self {
            Self::Node(ipcache) => ipcache.epoch(),
            Self::Sidecar(peers) => peers.generation(),
        }
    }
}

impl Ends {
    /// The end whose policy for `direction` counts: the source's egress, the destination's ingress.
    pub fn end(&self, direction: Direction) -> Option<&End> {
        match direction {
            Direction::Egress => self.source.as_ref(),
            Direction::Ingress => self.destination.as_ref(),
        }
    }

    /// Whether both are one pod: policy has nothing to say of what it sends itself.
    pub fn are_one(&self) -> bool {
        match (&self.source, &self.destination) {
            (Some(source), Some(destination)) => source.endpoint_id == destination.endpoint_id,
            _ => false,
        }
    }

    /// The identity at the other end.
    pub fn peer(&self, direction: Direction) -> u32 {
        match direction {
            Direction::Egress => self.destination_identity,
            Direction::Ingress => self.source_identity,
        }
    }
}

/// The reserved identity of what enters by a Gateway (docs/architecture.md).
const INGRESS: u32 = 8;

/// Pairs of addresses that a worker remembers; it forgets all of them when there are more.
const REMEMBERED: usize = 4096;

/// Source and destination, and which of them is ours in a sidecar.
type Pair = ([[u8; 16]; 2], Option<Side>);

/// What a worker knows: nothing in it is shared, so that workers do not wait for each other's
/// cache lines on every request. In a sidecar the same addresses may be met in both directions.
#[derive(Default)]
struct Memory {
    generation: u64,
    ends: HashMap<Pair, Rc<Ends>>,
}

thread_local!(static MEMORY: RefCell<Memory> = RefCell::default());

/// The ends of a connection in `generation`, which the caller has read before: so nothing is
/// remembered for longer than it held. None: it is not known who an address is.
pub fn ends(
    generation: u64,
    facts: &Facts,
    side: Option<Side>,
    sight: &Sight,
    policies: &Policies,
) -> Option<Rc<Ends>> {
    let [source, destination] = facts.addresses();
    let key = match side {
        // Its clients are for the log: policy knows all of them as one.
        Some(Side::Gateway) => ([[0; 16], destination], side),
        _ => ([source, destination], side),
    };
    MEMORY.with_borrow_mut(|memory| {
        if memory.generation != generation || memory.ends.len() >= REMEMBERED {
            memory.ends.clear();
            memory.generation = generation;
        }
        if let Some(ends) = memory.ends.get(&key) {
            return Some(Rc::clone(ends));
        }
        let ends = Rc::new(match (sight, side) {
            (Sight::Node(ipcache), None | Some(Side::Mesh)) => on_node(key.0, ipcache, policies)?,
            (Sight::Node(ipcache), Some(Side::Gateway)) => {
                from_gateway(destination, ipcache, policies)?
            }
            (Sight::Sidecar(peers), Some(side)) => in_sidecar(key.0, side, peers, policies)?,
            _ => return None,
        });
        memory.ends.insert(key, Rc::clone(&ends));
        Some(ends)
    })
}

fn on_node(addresses: [[u8; 16]; 2], ipcache: &IpCache, policies: &Policies) -> Option<Ends> {
    let [source, destination] = addresses.map(|address| ipcache.owner(address));
    let (source, destination) = (source?, destination?);
    Some(Ends {
        source_identity: source.identity,
        destination_identity: destination.identity,
        source: end(source, policies),
        destination: end(destination, policies),
        peer: None,
    })
}

/// A backend on another node is no end of ours: that node judges what comes to it.
fn from_gateway(backend: [u8; 16], ipcache: &IpCache, policies: &Policies) -> Option<Ends> {
    let destination = ipcache.owner(backend)?;
    Some(Ends {
        source_identity: INGRESS,
        destination_identity: destination.identity,
        source: None,
        destination: end(destination, policies),
        peer: None,
    })
}

fn end(owner: Owner, policies: &Policies) -> Option<End> {
    let endpoint_id = owner.endpoint_id;
    (endpoint_id != 0).then(|| End { endpoint_id, policy: policies.get(endpoint_id) })
}

/// Of the two ends the sidecar judges its own; the other's node, or sidecar, judges the other.
fn in_sidecar(
    addresses: [[u8; 16]; 2],
    side: Side,
    peers: &Peers,
    policies: &Policies,
) -> Option<Ends> {
    let policy = policies.only();
    let peer = match peers.get(&side.peer(&addresses)) {
        // What nothing is enforced on waits for nobody: who it was is for the log.
        None if policy.as_ref().is_some_and(|policy| !policy.enforces(side.direction())) => {
            peers.ask(side.peer(&addresses), Box::new(|| ()));
            None
        }
        known => Some(known?),
    };
    let peer_identity = peer.as_ref().map_or(0, |peer| peer.identity);
    let identity = policy.as_ref().map_or(0, |policy| policy.identity);
    let own = End { endpoint_id: policy.as_ref().map_or(0, |policy| policy.id), policy };
    Some(match side {
        Side::Ingress => Ends {
            source_identity: peer_identity,
            destination_identity: identity,
            source: None,
            destination: Some(own),
            peer,
        },
        Side::Egress | Side::Forward => Ends {
            source_identity: identity,
            destination_identity: peer_identity,
            source: Some(own),
            destination: None,
            peer,
        },
        Side::Gateway | Side::Mesh => return None,
    })
}
