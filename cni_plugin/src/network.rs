//! Interfaces, addresses, routes and neighbours, by iproute2 in batches: one process per namespace.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::net::IpAddr;
use std::process::{Command, Stdio};

use crate::spec::{Error, Lease, Result, code};

/// A pair of interfaces: the pod's end and the node's.
pub struct Pair {
    pub host: String,
    pub host_mac: String,
    pub mac: String,
}

impl Pair {
    /// Names and MAC addresses that follow from the container, so that a second ADD finds the same.
    pub fn of(container_id: &str, ifname: &str) -> Self {
        let hash = fnv(&format!("{container_id}/{ifname}"));
        let bytes = hash.to_be_bytes();
        let mac = |first: u8| {
            format!(
                "{first:02x}:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}",
                bytes[0], bytes[1], bytes[2], bytes[3], bytes[4]
            )
        };
        Self { host: format!("sg{:012x}", hash >> 16), host_mac: mac(0x02), mac: mac(0x06) }
    }
}

/// FNV-1a, 64 bits: for names, not for secrets.
fn fnv(text: &str) -> u64 {
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3))
}

/// Create the pair and give the pod its addresses. The node's end stays down: nothing passes yet.
pub fn create(
    pair: &Pair,
    netns: &str,
    ifname: &str,
    mtu: Option<u32>,
    leases: &[Lease],
) -> Result<()> {
    for key in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
        set_sysctl(key)?;
    }
    let _ = run(None, &format!("link del {}", pair.host));
    let mtu = mtu.map_or(String::new(), |m| format!("mtu {m} "));
    let name = netns.rsplit('/').next().unwrap_or(netns);
    let mut node = format!(
        "link add {host} {mtu}address {hm} type veth peer name {ifname} {mtu}address {m} netns {name}\n",
        host = pair.host,
        hm = pair.host_mac,
        m = pair.mac,
    );
    for lease in leases {
        let _ = writeln!(node, "addr replace {}/{} dev lo", lease.gateway, lease.bits());
    }
    run(None, &node)?;
    let mut pod = format!("link set lo up\nlink set {ifname} up\n");
    for lease in leases {
        let nodad = if lease.address.is_ipv4() { "" } else { " nodad" };
        let (gateway, bits) = (lease.gateway, lease.bits());
        let _ = write!(
            pod,
            "addr replace {}/{bits} dev {ifname}{nodad}\n\
             neigh replace {gateway} lladdr {} dev {ifname} nud permanent\n\
             route replace {gateway}/{bits} dev {ifname}\n\
             route replace default via {gateway} dev {ifname} onlink\n",
            lease.address, pair.host_mac,
        );
    }
    run(Some(netns), &pod)
}

/// The node's end goes up: the agent has attached its programs.
pub fn open(pair: &Pair, leases: &[Lease]) -> Result<()> {
    let mut node = format!("link set {} up\n", pair.host);
    for Lease { address, .. } in leases {
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let _ = write!(
            node,
            "neigh replace {address} lladdr {} dev {host} nud permanent\n\
             route replace {address}/{bits} dev {host}\n",
            pair.mac,
            host = pair.host,
        );
    }
    run(None, &node)
}

/// What is gone already is no error.
pub fn delete(pair: &Pair) {
    let _ = run(None, &format!("link del {}", pair.host));
}

pub fn ifindex(name: &str) -> Result<u32> {
    fs::read_to_string(format!("/proc/net/dev_snmp6/{name}"))
        .ok()
        .and_then(|text| text.split_whitespace().nth(1)?.parse().ok())
        .or_else(|| from_link_list(name))
        .ok_or_else(|| Error::new(code::NETWORK, format!("interface {name}: there is none")))
}

fn from_link_list(name: &str) -> Option<u32> {
    let done = Command::new("ip").args(["-o", "link", "show", "dev", name]).output().ok()?;
    String::from_utf8_lossy(&done.stdout).split(':').next()?.trim().parse().ok()
}

/// Whether the pod's interface has these addresses still.
pub fn has_addresses(netns: &str, ifname: &str, addresses: &[IpAddr]) -> bool {
    let Ok(done) = Command::new("nsenter")
        .args([&format!("--net={netns}"), "ip", "-o", "addr", "show", "dev", ifname])
        .output()
    else {
        return false;
    };
    let text = String::from_utf8_lossy(&done.stdout);
    addresses.iter().all(|a| text.contains(&format!(" {a}/")))
}

fn set_sysctl(key: &str) -> Result<()> {
    let path = format!("/proc/sys/{key}");
    if fs::read_to_string(&path).is_ok_and(|v| v.trim() == "1") {
        return Ok(());
    }
    fs::write(&path, "1").map_err(|e| Error::new(code::NETWORK, format!("{path}: {e}")))
}

fn run(netns: Option<&str>, batch: &str) -> Result<()> {
    let fail = |why: String| Error::new(code::NETWORK, why);
    let mut command = if let Some(path) = netns {
        let mut c = Command::new("nsenter");
        c.args([&format!("--net={path}"), "ip", "-batch", "-"]);
        c
    } else {
        let mut c = Command::new("ip");
        c.args(["-batch", "-"]);
        c
    };
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| fail(format!("iproute2 is needed: {e}")))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(batch.as_bytes()).map_err(|e| fail(e.to_string()))?;
    }
    let done = child.wait_with_output().map_err(|e| fail(e.to_string()))?;
    if done.status.success() {
        return Ok(());
    }
    Err(fail(format!("ip: {}", String::from_utf8_lossy(&done.stderr).trim())))
}
