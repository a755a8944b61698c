//! What is known of a connection, kept in its filter state by the listener filter.

use sidegate_abi::listener::Listener;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// The key in Envoy's filter state.
pub const KEY: &str = "sidegate.connection";

/// Both ends of a connection, as the client sees them: two times an address (v4 mapped into v6,
/// as in the `ipcache` map) and a port, in network byte order. Kept as bytes, for that is how each
/// request finds them.
#[derive(Clone, Copy)]
pub struct Facts([u8; LEN]);

const END: usize = 18;
const LEN: usize = 2 * END;

impl Facts {
    /// None unless both ends are IP addresses. `original_dst` has to run before.
    pub fn of(envoy: &Listener) -> Option<Self> {
        Some(Self::between(envoy.remote()?, envoy.local()?))
    }

    pub fn between(client: SocketAddr, server: SocketAddr) -> Self {
        let mut bytes = [0; LEN];
        for (end, bytes) in [client, server].iter().zip(bytes.chunks_mut(END)) {
            bytes[..16].copy_from_slice(&mapped(end.ip()));
            bytes[16..].copy_from_slice(&end.port().to_be_bytes());
        }
        Self(bytes)
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// None if these are not the bytes of [`Self::bytes`].
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// Source and destination.
    pub fn addresses(&self) -> [[u8; 16]; 2] {
        [0, END].map(|at| std::array::from_fn(|index| self.0[at + index]))
    }

    pub fn destination_port(&self) -> u16 {
        self.port(END)
    }

    pub fn source(&self) -> SocketAddr {
        self.end(0)
    }

    pub fn destination(&self) -> SocketAddr {
        self.end(END)
    }

    fn port(&self, at: usize) -> u16 {
        u16::from_be_bytes([self.0[at + 16], self.0[at + 17]])
    }

    fn end(&self, at: usize) -> SocketAddr {
        let ip = Ipv6Addr::from(self.addresses()[at / END]).to_canonical();
        SocketAddr::new(ip, self.port(at))
    }
}

fn mapped(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}
