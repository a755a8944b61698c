//! Who an address is: the node's pinned `ipcache` map (layout: docs/architecture.md).

use crate::facts::mapped;
use foldhash::HashMap;
use sidegate_abi::bpf::{Counter, Map};
use std::cell::RefCell;
use std::io;
use std::net::IpAddr;
use std::path::Path;

/// What the map says of an address.
#[derive(Clone, Copy, Debug)]
pub struct Owner {
    pub identity: u32,
    /// 0 unless it is an endpoint of this node.
    pub endpoint_id: u32,
}

pub struct IpCache {
    map: Map<[u8; 20], [u8; 8]>,
    epoch: Counter,
}

/// Addresses that a worker remembers; it forgets all of them when there are more.
const REMEMBERED: usize = 4096;

#[derive(Default)]
struct Memory {
    epoch: u64,
    owners: HashMap<[u8; 16], Owner>,
}

thread_local!(static MEMORY: RefCell<Memory> = RefCell::default());

impl IpCache {
    /// # Errors
    /// When a map is not pinned there, or may not be opened.
    pub fn open(map: &Path, epoch: &Path) -> Result<Self, String> {
        let named = |path: &Path, error: io::Error| format!("{}: {error}", path.display());
        Ok(Self {
            map: Map::open(map).map_err(|error| named(map, error))?,
            epoch: Counter::open(epoch).map_err(|error| named(epoch, error))?,
        })
    }

    /// Rises after each change of the map.
    pub fn epoch(&self) -> u64 {
        self.epoch.get()
    }

    /// The owner of an address now: the map is asked again only after it has changed. None is a
    /// fault, for both families have a default entry.
    pub fn owner(&self, ip: IpAddr) -> Option<Owner> {
        // Read before the map is, so that an owner is never remembered for longer than it was one.
        let epoch = self.epoch();
        let address = mapped(ip);
        MEMORY.with_borrow_mut(|memory| {
            if memory.epoch != epoch || memory.owners.len() >= REMEMBERED {
                memory.owners.clear();
                memory.epoch = epoch;
            }
            if let Some(owner) = memory.owners.get(&address) {
                return Some(*owner);
            }
            let owner = self.ask(address)?;
            memory.owners.insert(address, owner);
            Some(owner)
        })
    }

    fn ask(&self, address: [u8; 16]) -> Option<Owner> {
        let mut key = [0; 20];
        key[..4].copy_from_slice(&128_u32.to_ne_bytes());
        key[4..].copy_from_slice(&address);
        let [a, b, c, d, e, f, _, _] = self.map.lookup(&key).ok()??;
        Some(Owner {
            identity: u32::from_le_bytes([a, b, c, d]),
            endpoint_id: u16::from_le_bytes([e, f]).into(),
        })
    }
}
