//! The module in a pod's own proxy: configured by each filter, and who shows which certificate.
//! Of the sides that a filter may be on, two are routes', on the node.

use crate::facts::{Facts, KEY};
use serde::Deserialize;
use sidegate_abi::http::Exchange;
use sidegate_abi::lease as abi;
use sidegate_abi::network::Connection;
use sidegate_proto::v1::Direction;
use sidegate_stream::{Address, Lease, Peer, Sides};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A filter's configuration (JSON); on the node it has none.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub direction: Side,
    /// Where the agent's sockets are.
    pub directory: PathBuf,
}

/// Whose traffic a filter sees: a pod's, in its own proxy, or that of routes.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Hash)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// To the pod; the peer is the client.
    Ingress,
    /// From the pod; the peer is the chosen backend.
    Egress,
    /// What a gateway of Istio's sends on: from its pod as well, whoever has sent it there.
    Forward,
    /// From a Gateway of this node to the chosen backend, whose policy counts.
    #[serde(skip)]
    Gateway,
    /// From a pod of this node, which has asked a Service with routes, to the chosen backend: both
    /// ends count.
    #[serde(skip)]
    Mesh,
}

impl Side {
    /// The other end's address.
    pub fn peer(self, [source, destination]: &[Address; 2]) -> Address {
        match self {
            Self::Ingress => *source,
            Self::Egress | Self::Forward | Self::Gateway | Self::Mesh => *destination,
        }
    }

    /// Whose policy counts.
    pub fn direction(self) -> Direction {
        match self {
            Self::Ingress | Self::Gateway => Direction::Ingress,
            Self::Egress | Self::Forward | Self::Mesh => Direction::Egress,
        }
    }

    /// Whether it leaves a pod by its own proxy, which sees the certificate of the other end.
    pub fn leaves(self) -> bool {
        matches!(self, Self::Egress | Self::Forward)
    }

    /// Whether the other end is chosen late.
    pub fn is_balanced(self) -> bool {
        self.leaves() || self == Self::Mesh
    }

    /// Both ends of an exchange. None where Envoy does not know the other one.
    ///
    /// Who comes in is who connected: Istio lets Envoy take the address that a request itself
    /// claims in `X-Forwarded-For` for its source. The own address of a gateway of Istio's is the
    /// one that its client connected to.
    pub fn facts(self, envoy: &Exchange) -> Option<Facts> {
        match self {
            Self::Ingress => {
                let connected = envoy.filter_state(KEY).and_then(Facts::from_bytes)?;
                Some(Facts::between(connected.source(), envoy.destination()?))
            }
            Self::Egress => Some(Facts::between(envoy.source()?, envoy.upstream()?)),
            Self::Forward => Some(Facts::between(envoy.destination()?, envoy.upstream()?)),
            Self::Gateway => {
                Some(Facts::between(envoy.source().unwrap_or(NOBODY), envoy.upstream()?))
            }
            Self::Mesh => {
                let connected = envoy.filter_state(KEY).and_then(Facts::from_bytes)?;
                Some(Facts::between(connected.source(), envoy.upstream()?))
            }
        }
    }

    /// Both ends of a connection that is not read as HTTP. None where Envoy does not know the
    /// other one: it has not chosen a backend yet.
    pub fn connection(self, envoy: &Connection) -> Option<Facts> {
        let (client, server) = match self {
            Self::Ingress => (envoy.remote(), envoy.local()),
            Self::Egress | Self::Gateway | Self::Mesh => (envoy.remote(), envoy.upstream()),
            Self::Forward => (envoy.local(), envoy.upstream()),
        };
        Some(Facts::between(client?, server?))
    }

    /// The URI in the peer's certificate; empty without one.
    pub fn peer_uri(self, envoy: &Exchange) -> &[u8] {
        match self {
            Self::Ingress => envoy.client_uri(),
            Self::Egress | Self::Forward => envoy.upstream_uri(),
            Self::Gateway | Self::Mesh => &[],
        }
    }

    /// The same of a connection.
    pub fn connection_uri(self, envoy: &Connection) -> &[u8] {
        match self {
            Self::Ingress => envoy.client_uri(),
            Self::Egress | Self::Forward => envoy.upstream_uri(),
            Self::Gateway | Self::Mesh => &[],
        }
    }
}

/// Who asks where Envoy itself does: mirrored requests, and those for authorization.
const NOBODY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// The two ways by which something comes to the pod, or leaves it.
#[derive(Clone, Copy)]
pub enum Kind {
    Http,
    Network,
}

/// Configurations of filters that Envoy has in use, by a pod's [`Side`] and [`Kind`].
static CONFIGURED: [[AtomicUsize; 2]; 3] = [const { [const { AtomicUsize::new(0) }; 2] }; 3];

/// Counts a filter's configuration for as long as it lives.
pub struct Configured(&'static AtomicUsize);

impl Configured {
    pub fn new(side: Side, kind: Kind) -> Self {
        let count = &CONFIGURED[side as usize][kind as usize];
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Configured {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What of the pod's traffic is judged at all: the filters may be taken from us at any time. A
/// sidecar has ways for both kinds on each side; a gateway has what its listeners ask for.
pub fn enforces() -> Sides {
    let kinds = |side: Side| {
        CONFIGURED[side as usize].iter().filter(|count| count.load(Ordering::Relaxed) > 0).count()
    };
    Sides {
        ingress: kinds(Side::Ingress) == 2,
        egress: kinds(Side::Egress) == 2 || kinds(Side::Forward) > 0,
    }
}

/// Takes the lease that the agent has put into a socket.
pub fn receive_lease(socket: BorrowedFd) -> io::Result<Box<dyn Lease>> {
    struct Mapped(abi::Lease);
    impl Lease for Mapped {
        fn hold(&self, revision: u64, sides: Sides) {
            self.0.hold(revision, sides.ingress, sides.egress);
        }
    }
    Ok(Box::new(Mapped(abi::Lease::receive(socket)?)))
}

/// Whether a certificate is that of the workload that has the peer's address. None is no proof of
/// anything, and no lie (docs/istio.md).
pub fn certificate_fits(uri: &[u8], peer: &Peer) -> bool {
    let named = uri.strip_prefix(b"spiffe://").and_then(|rest| {
        let domain = rest.iter().position(|&byte| byte == b'/')?;
        Some(&rest[domain + 1..])
    });
    uri.is_empty() || named == Some(peer.spiffe_path.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_names_the_workload_of_the_address() {
        let peer = |path: &str| Peer { identity: 7, spiffe_path: path.into() };
        for (uri, path, fits) in [
            ("", "ns/default/sa/orders", true),
            ("spiffe://cluster.local/ns/default/sa/orders", "ns/default/sa/orders", true),
            ("spiffe://other.domain/ns/default/sa/orders", "ns/default/sa/orders", true),
            ("spiffe://cluster.local/ns/default/sa/mallory", "ns/default/sa/orders", false),
            ("spiffe://cluster.local/ns/default/sa/orders", "", false),
            ("https://cluster.local/ns/default/sa/orders", "ns/default/sa/orders", false),
            ("spiffe://cluster.local", "", false),
        ] {
            assert_eq!(certificate_fits(uri.as_bytes(), &peer(path)), fits, "{uri} {path}");
        }
    }
}
