//! Behind another plugin, which made the pod's interface: what is ours is only the endpoint.

use std::net::IpAddr;

use crate::error::{Error, Result, code};
use crate::netlink::{Link, Namespace};
use crate::network;
use crate::spec::{Call, Config};

/// The pod's end of a pair that another plugin made, and the node's.
pub struct Found {
    pub inner: Link,
    pub outer: Link,
    pub addresses: Vec<IpAddr>,
}

/// What is there already. What cannot be enforced is refused: an interface whose packets pass no
/// hook of the node's (ipvlan, macvlan), or a second address of a family.
pub async fn find(
    config: &Config,
    call: &Call,
    node: &Namespace,
    pod: &Namespace,
) -> Result<Found> {
    let addresses = config.previous_addresses(&call.ifname);
    let count = |v4: bool| addresses.iter().filter(|a| a.is_ipv4() == v4).count();
    if addresses.is_empty() || count(true) > 1 || count(false) > 1 {
        let why = format!(
            "prevResult: {} has {} IPv4 and {} IPv6 addresses; one, or one of each, is expected",
            call.ifname,
            count(true),
            count(false)
        );
        return Err(Error::new(code::BAD_CONFIG, why));
    }
    network::check(pod, &call.ifname, &addresses).await?;
    let (inner, outer) = network::pair_of(node, pod, &call.ifname).await?;
    Ok(Found { inner, outer, addresses })
}
