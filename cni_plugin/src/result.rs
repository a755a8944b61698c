//! The result of ADD, in the form that the CNI specification gives it.

use serde_json::{Value, json};

use crate::netlink::{Mac, bits};
use crate::network::Pair;
use crate::spec::{Call, Lease};

pub fn mac(bytes: Mac) -> String {
    bytes.map(|b| format!("{b:02x}")).join(":")
}

pub fn of_add(version: &str, call: &Call, pair: &Pair, leases: &[Lease]) -> Value {
    let ip = |l: &Lease| {
        let mut ip = json!({
            "address": format!("{}/{}", l.address, bits(l.address)),
            "gateway": l.gateway,
            "interface": 1,
        });
        if version.starts_with("0.") {
            ip["version"] = json!(if l.address.is_ipv4() { "4" } else { "6" });
        }
        ip
    };
    let route = |l: &Lease| {
        let all = if l.address.is_ipv4() { "0.0.0.0/0" } else { "::/0" };
        json!({"dst": all, "gw": l.gateway})
    };
    json!({
        "cniVersion": version,
        "interfaces": [
            {"name": pair.host, "mac": mac(pair.host_mac)},
            {"name": call.ifname, "mac": mac(pair.mac), "sandbox": call.netns},
        ],
        "ips": leases.iter().map(ip).collect::<Vec<_>>(),
        "routes": leases.iter().map(route).collect::<Vec<_>>(),
        "dns": {},
    })
}
