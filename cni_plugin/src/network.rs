//! The pod's interface and its surroundings: a routed veth pair, no bridge, no ARP.

use std::fs;
use std::net::IpAddr;

use crate::error::{Error, Result, code};
use crate::netlink::{End, Link, Mac, Namespace};
use crate::spec::Lease;

/// A pair of interfaces: the node's end and the pod's.
pub struct Pair {
    pub host: String,
    pub host_mac: Mac,
    pub mac: Mac,
}

impl Pair {
    /// MAC addresses (locally administered) follow from the first address that the pod was given.
    pub fn of(container_id: &str, ifname: &str, leases: &[Lease]) -> Self {
        let tail = match leases.first().map(|l| l.address) {
            Some(IpAddr::V4(v4)) => v4.octets(),
            Some(IpAddr::V6(v6)) => {
                u32::try_from(u128::from(v6) & 0xffff_ffff).unwrap_or(0).to_be_bytes()
            }
            None => [0; 4],
        };
        let mac = |kind: u8| [0x02, kind, tail[0], tail[1], tail[2], tail[3]];
        Self { host: host_ifname(container_id, ifname), host_mac: mac(0x02), mac: mac(0x01) }
    }
}

/// The name follows from the container, so DEL finds the interface without any state.
pub fn host_ifname(container_id: &str, ifname: &str) -> String {
    format!("sg{:012x}", fnv(&format!("{container_id}/{ifname}")) >> 16)
}

/// FNV-1a, 64 bits: for names, not for secrets.
fn fnv(text: &str) -> u64 {
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3))
}

/// Create the pair and give the pod its addresses; returns the index of the node's end, which
/// stays down: nothing passes yet.
pub async fn create(
    node: &Namespace,
    pod: &Namespace,
    pair: &Pair,
    ifname: &str,
    mtu: Option<u32>,
    leases: &[Lease],
) -> Result<u32> {
    for key in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
        enable(key)?;
    }
    let lo = node.existing("lo").await?.index;
    for lease in leases {
        node.add_address(lo, lease.gateway).await?;
    }
    node.delete(&pair.host).await?;
    let (here, there) =
        (End { name: &pair.host, mac: pair.host_mac }, End { name: ifname, mac: pair.mac });
    node.add_veth(&here, &there, pod, mtu).await?;
    let index = pod.existing(ifname).await?.index;
    pod.up(pod.existing("lo").await?.index).await?;
    pod.up(index).await?;
    for &Lease { address, gateway } in leases {
        pod.add_address(index, address).await?;
        pod.add_neighbour(index, gateway, pair.host_mac).await?;
        pod.add_host_route(index, gateway).await?;
        pod.add_default_route(index, gateway).await?;
    }
    Ok(node.existing(&pair.host).await?.index)
}

/// The node's end goes up: the agent has attached its programs.
pub async fn open(node: &Namespace, pair: &Pair, index: u32, leases: &[Lease]) -> Result<()> {
    node.up(index).await?;
    for lease in leases {
        node.add_neighbour(index, lease.address, pair.mac).await?;
        node.add_host_route(index, lease.address).await?;
    }
    Ok(())
}

/// Both ends of the pair that is the pod's interface; an error names what else it is.
pub async fn pair_of(node: &Namespace, pod: &Namespace, ifname: &str) -> Result<(Link, Link)> {
    let inner = pod.existing(ifname).await?;
    if let (Link::VETH, Some(index)) = (inner.kind.as_str(), inner.peer) {
        let outer = node.link_at(index).await?;
        if let Some(outer) = outer.filter(|o| o.kind == Link::VETH && o.peer == Some(inner.index)) {
            return Ok((inner, outer));
        }
    }
    let kind = if inner.kind.is_empty() { "device" } else { &inner.kind };
    let why = format!(
        "{ifname} is a {kind} without an end on the node: policy can be enforced on veth pairs \
         only (as plugins bridge and ptp make them)"
    );
    Err(Error::new(code::BAD_CONFIG, why))
}

/// The pod's end is there and has all of these addresses.
pub async fn check(pod: &Namespace, ifname: &str, addresses: &[IpAddr]) -> Result<()> {
    let present = pod.addresses(pod.existing(ifname).await?.index).await?;
    match addresses.iter().find(|a| !present.contains(a)) {
        None => Ok(()),
        Some(gone) => Err(Error::new(code::CHECK_FAILED, format!("{ifname} lacks {gone}"))),
    }
}

/// Written only where needed: a node's /proc/sys may be read-only and right.
fn enable(key: &str) -> Result<()> {
    let path = format!("/proc/sys/{key}");
    if fs::read_to_string(&path).is_ok_and(|v| v.trim() == "1") {
        return Ok(());
    }
    fs::write(&path, "1").map_err(|e| Error::new(code::NETWORK, format!("{path}: {e}")))
}
