//! What is known of a connection, kept in its filter state by the listener filter.

use sidegate_abi::listener::Listener;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// The key in Envoy's filter state.
pub const KEY: &str = "sidegate.connection";
const LEN: usize = 36;

/// Both ends of a connection, as the client sees them.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    pub source: SocketAddr,
    pub destination: SocketAddr,
}

impl Facts {
    /// None unless both ends are IP addresses. `original_dst` has to run before.
    pub fn of(envoy: &Listener) -> Option<Self> {
        Some(Self { source: envoy.remote()?, destination: envoy.local()? })
    }

    /// Two times a v6 (or v4-mapped) address and a port in network byte order.
    pub fn to_bytes(self) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        for (end, bytes) in [self.source, self.destination].iter().zip(bytes.chunks_mut(LEN / 2)) {
            bytes[..16].copy_from_slice(&mapped(end.ip()));
            bytes[16..].copy_from_slice(&end.port().to_be_bytes());
        }
        bytes
    }

    /// None if these are not the bytes of [`Self::to_bytes`].
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; LEN] = bytes.try_into().ok()?;
        let end = |bytes: &[u8]| {
            let ip = Ipv6Addr::from(<[u8; 16]>::try_from(&bytes[..16]).ok()?).to_canonical();
            Some(SocketAddr::new(ip, u16::from_be_bytes([bytes[16], bytes[17]])))
        };
        let (source, destination) = bytes.split_at(LEN / 2);
        Some(Self { source: end(source)?, destination: end(destination)? })
    }
}

/// An address as the `ipcache` map has it.
pub fn mapped(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}
