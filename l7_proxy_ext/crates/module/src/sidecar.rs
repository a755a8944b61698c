//! The module in a pod's own proxy: configured by each filter, and who shows which certificate.

use crate::facts::{Facts, KEY};
use serde::Deserialize;
use sidegate_abi::http::Exchange;
use sidegate_abi::lease as abi;
use sidegate_stream::{Address, Lease, Peer};
use std::io;
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

/// Which of the pod's traffic a filter sees.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Hash)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// To the pod; the peer is the client.
    Ingress,
    /// From the pod; the peer is the chosen backend.
    Egress,
}

impl Side {
    /// The other end's address.
    pub fn peer(self, [source, destination]: &[Address; 2]) -> Address {
        match self {
            Self::Ingress => *source,
            Self::Egress => *destination,
        }
    }

    /// Both ends of an exchange. None where Envoy does not know the other one.
    ///
    /// Who comes in is who connected: Istio lets Envoy take the address that a request itself
    /// claims in `X-Forwarded-For` for its source.
    pub fn facts(self, envoy: &Exchange) -> Option<Facts> {
        match self {
            Self::Ingress => {
                let connected = envoy.filter_state(KEY).and_then(Facts::from_bytes)?;
                Some(Facts::between(connected.source(), envoy.destination()?))
            }
            Self::Egress => Some(Facts::between(envoy.source()?, envoy.upstream()?)),
        }
    }

    /// The URI in the peer's certificate; empty without one.
    pub fn peer_uri(self, envoy: &Exchange) -> &[u8] {
        match self {
            Self::Ingress => envoy.client_uri(),
            Self::Egress => envoy.upstream_uri(),
        }
    }
}

/// The two ways by which something comes to the pod.
#[derive(Clone, Copy)]
pub enum Kind {
    Http,
    Network,
}

/// Configurations of filters for what comes in that Envoy has in use, by [`Kind`].
static INGRESS: [AtomicUsize; 2] = [AtomicUsize::new(0), AtomicUsize::new(0)];

/// Counts a filter's configuration for as long as it lives.
pub struct Configured(Option<&'static AtomicUsize>);

impl Configured {
    pub fn new(side: Side, kind: Kind) -> Self {
        let count = (side == Side::Ingress).then(|| &INGRESS[kind as usize]);
        if let Some(count) = count {
            count.fetch_add(1, Ordering::Relaxed);
        }
        Self(count)
    }
}

impl Drop for Configured {
    fn drop(&mut self) {
        if let Some(count) = self.0 {
            count.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Whether what comes to the pod is judged at all: the filters may be taken from us at any time.
pub fn enforces() -> bool {
    INGRESS.iter().all(|count| count.load(Ordering::Relaxed) > 0)
}

/// Takes the lease that the agent has put into a socket.
pub fn receive_lease(socket: BorrowedFd) -> io::Result<Box<dyn Lease>> {
    struct Mapped(abi::Lease);
    impl Lease for Mapped {
        fn hold(&self, revision: u64) {
            self.0.hold(revision);
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
