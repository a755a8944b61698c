//! Both ends of connections between two addresses, with the policies in force there.

use crate::facts::Facts;
use crate::ipcache::{IpCache, Owner};
use foldhash::HashMap;
use sidegate_policy::Endpoint;
use sidegate_proto::v1::Direction;
use sidegate_stream::Policies;
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
}

impl Ends {
    /// The end whose policy for `direction` counts: the source's egress, the destination's ingress.
    pub fn end(&self, direction: Direction) -> Option<&End> {
        match direction {
            Direction::Egress => self.source.as_ref(),
            Direction::Ingress => self.destination.as_ref(),
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

/// Pairs of addresses that a worker remembers; it forgets all of them when there are more.
const REMEMBERED: usize = 4096;

/// What a worker knows: nothing in it is shared, so that workers do not wait for each other's
/// cache lines on every request.
#[derive(Default)]
struct Memory {
    generation: u64,
    ends: HashMap<[[u8; 16]; 2], Rc<Ends>>,
}

thread_local!(static MEMORY: RefCell<Memory> = RefCell::default());

/// The ends of a connection in `generation`, which the caller has read before: so nothing is
/// remembered for longer than it held. None: the map does not know an address, which is a fault.
pub fn ends(
    generation: u64,
    facts: &Facts,
    ipcache: &IpCache,
    policies: &Policies,
) -> Option<Rc<Ends>> {
    let addresses = facts.addresses();
    MEMORY.with_borrow_mut(|memory| {
        if memory.generation != generation || memory.ends.len() >= REMEMBERED {
            memory.ends.clear();
            memory.generation = generation;
        }
        if let Some(ends) = memory.ends.get(&addresses) {
            return Some(Rc::clone(ends));
        }
        let [source, destination] = addresses.map(|address| ipcache.owner(address));
        let (source, destination) = (source?, destination?);
        let end = |owner: Owner| {
            let endpoint_id = owner.endpoint_id;
            (endpoint_id != 0).then(|| End { endpoint_id, policy: policies.get(endpoint_id) })
        };
        let ends = Rc::new(Ends {
            source_identity: source.identity,
            destination_identity: destination.identity,
            source: end(source),
            destination: end(destination),
        });
        memory.ends.insert(addresses, Rc::clone(&ends));
        Some(ends)
    })
}
