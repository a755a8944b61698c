//! Who an address is: the node's pinned `ipcache` map (layout: docs/architecture.md).

use sidegate_abi::bpf::{Counter, Map};
use std::io;
use std::path::Path;

/// What the map says of an address.
#[derive(Clone, Copy, Debug, Default)]
pub struct Owner {
    pub identity: u32,
    /// 0 unless it is an endpoint of this node.
    pub endpoint_id: u32,
}

pub struct IpCache {
    map: Map<[u8; 20], [u8; 8]>,
    epoch: Counter,
}

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

    /// The owner of an address (v4 mapped into v6) now, by a system call. None is a fault, for
    /// both families have a default entry.
    pub fn owner(&self, address: [u8; 16]) -> Option<Owner> {
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
