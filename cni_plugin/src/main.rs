//! `sidegate-cni`: ADD, DEL, CHECK, GC, STATUS and VERSION of CNI 1.1.
//!
//! With `ipam` it makes the pod's interface itself, and the order in ADD is what matters: the pod
//! has an interface, the agent attaches its programs and enforces, and only then does the node's
//! end go up. Without, it is chained behind the plugin that made the interface.

mod agent;
mod chained;
mod error;
mod ipam;
mod netlink;
mod network;
mod result;
mod spec;

use std::collections::BTreeSet;
use std::env;
use std::io::{Read, stdin};
use std::net::IpAddr;
use std::path::Path;
use std::process::ExitCode;

use serde_json::{Value, json};

use agent::Agent;
use error::{Error, Result, code};
use ipam::Ipam;
use netlink::Namespace;
use network::Pair;
use spec::{Call, Config};

fn main() -> ExitCode {
    match run() {
        Ok(result) => {
            if !result.is_null() {
                println!("{result}");
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("{}", error.to_json());
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<Value> {
    let command = env::var("CNI_COMMAND").unwrap_or_default();
    if command == "VERSION" {
        return Ok(json!({"cniVersion": "1.1.0", "supportedVersions": spec::VERSIONS}));
    }
    let mut text = String::new();
    stdin()
        .read_to_string(&mut text)
        .map_err(|e| Error::new(code::IO, format!("standard input: {e}")))?;
    let config = Config::parse(&text)?;
    // One thread: a socket belongs to the namespace that its thread is in when it is opened.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .map_err(|e| Error::new(code::NETWORK, e.to_string()))?;
    runtime.block_on(async {
        match command.as_str() {
            "ADD" => add(&config, &Call::from_env()?).await,
            "DEL" => {
                let call = Call::from_env()?;
                remove(&config, &Namespace::own()?, &call.container_id, &call.ifname).await
            }
            "CHECK" => check(&config, &Call::from_env()?).await,
            "GC" => gc(&config).await,
            "STATUS" => status(&config),
            other => {
                Err(Error::new(code::BAD_ENVIRONMENT, format!("CNI_COMMAND {other:?}: unknown")))
            }
        }
    })
}

fn agent(config: &Config) -> Agent<'_> {
    Agent { socket: &config.agent_socket }
}

fn owner(container_id: &str, ifname: &str) -> String {
    format!("{container_id} {ifname}")
}

/// None where the plugin is chained: the addresses are another's.
fn ipam(config: &Config) -> Result<Option<Ipam>> {
    config.ipam.as_ref().map(|ipam| Ipam::open(Path::new(&ipam.data_dir))).transpose()
}

async fn add(config: &Config, call: &Call) -> Result<Value> {
    config.check_position()?;
    let node = Namespace::own()?;
    let pod = Namespace::at(call.netns()?, &node)?;
    let Some(own) = &config.ipam else { return chain(config, call, &node, &pod).await };
    match attach(config, own, call, &node, &pod).await {
        Ok(result) => Ok(result),
        Err(error) => {
            // The first error is what the runtime must read; it calls DEL for whatever is left.
            let _ = remove(config, &node, &call.container_id, &call.ifname).await;
            Err(error)
        }
    }
}

async fn attach(
    config: &Config,
    own: &spec::Ipam,
    call: &Call,
    node: &Namespace,
    pod: &Namespace,
) -> Result<Value> {
    let ranges = match &own.ranges {
        Some(ranges) => ranges.clone(),
        None => agent(config).pod_cidrs()?,
    };
    let owner = owner(&call.container_id, &call.ifname);
    let leases = Ipam::open(Path::new(&own.data_dir))?.lease(&owner, &ranges)?;
    let pair = Pair::of(&call.container_id, &call.ifname, &leases);
    let addresses: Vec<IpAddr> = leases.iter().map(|l| l.address).collect();
    if !is_there(config, call, node, pod, &pair.host, &addresses).await? {
        let index = network::create(node, pod, &pair, &call.ifname, config.mtu, &leases).await?;
        register(config, call, &pair, index, &addresses)?;
        network::open(node, &pair, index, &leases).await?;
    }
    Ok(result::of_add(&config.cni_version, call, &pair, &leases))
}

/// An ADD that comes twice leaves alone what the first one made, and its connections.
async fn is_there(
    config: &Config,
    call: &Call,
    node: &Namespace,
    pod: &Namespace,
    host: &str,
    addresses: &[IpAddr],
) -> Result<bool> {
    let Some(outer) = node.link(host).await? else { return Ok(false) };
    Ok(outer.is_up
        && network::pair_of(node, pod, &call.ifname).await.is_ok_and(|(_, o)| o.name == host)
        && network::check(pod, &call.ifname, addresses).await.is_ok()
        && agent(config).endpoint(&call.container_id)?.is_some_and(|e| e.host_ifname == host))
}

/// The interface is up already: a runtime starts nothing in the pod before the chain is through.
async fn chain(config: &Config, call: &Call, node: &Namespace, pod: &Namespace) -> Result<Value> {
    let found = chained::find(config, call, node, pod).await?;
    let pair = Pair { host: found.outer.name, host_mac: found.outer.mac, mac: found.inner.mac };
    register(config, call, &pair, found.outer.index, &found.addresses)?;
    Ok(config.prev_result.clone().unwrap_or_default())
}

fn register(
    config: &Config,
    call: &Call,
    pair: &Pair,
    index: u32,
    addresses: &[IpAddr],
) -> Result<()> {
    let address = |v4: bool| addresses.iter().find(|a| a.is_ipv4() == v4);
    let body = json!({
        "container_id": call.container_id,
        "netns": call.netns,
        "pod_namespace": call.arg("K8S_POD_NAMESPACE"),
        "pod_name": call.arg("K8S_POD_NAME"),
        "pod_uid": call.arg("K8S_POD_UID"),
        "host_ifname": pair.host,
        "host_ifindex": index,
        "container_ifname": call.ifname,
        "mac": result::mac(pair.mac),
        "host_mac": result::mac(pair.host_mac),
        "ipv4": address(true),
        "ipv6": address(false),
    });
    agent(config).put_endpoint(&call.container_id, &body).map(|_| ())
}

/// Succeeds for what is not there, and without the agent: it forgets endpoints whose interface is
/// gone when it starts. The address is free only once nothing of the pod can send with it.
async fn remove(config: &Config, node: &Namespace, container: &str, ifname: &str) -> Result<Value> {
    let Some(ipam) = ipam(config)? else { return unchain(config, node, container).await };
    let _ = agent(config).delete_endpoint(container);
    node.delete(&network::host_ifname(container, ifname)).await?;
    ipam.release(&owner(container, ifname))?;
    Ok(Value::Null)
}

/// The interface is deleted by the plugin that made it, after us: until then it stays down, for
/// without an endpoint nothing judges what passes it.
async fn unchain(config: &Config, node: &Namespace, container: &str) -> Result<Value> {
    if let Ok(Some(endpoint)) = agent(config).endpoint(container) {
        node.down(&endpoint.host_ifname).await?;
        let _ = agent(config).delete_endpoint(container);
    }
    Ok(Value::Null)
}

async fn check(config: &Config, call: &Call) -> Result<Value> {
    let node = Namespace::own()?;
    let pod = Namespace::at(call.netns()?, &node)?;
    let mut addresses = config.previous_addresses(&call.ifname);
    if let Some(ipam) = ipam(config)? {
        let held = ipam.held(&owner(&call.container_id, &call.ifname))?;
        if held.is_empty() {
            let why = format!("container {}: it holds no address", call.container_id);
            return Err(Error::new(code::UNKNOWN_CONTAINER, why));
        }
        addresses.extend(held);
    }
    network::check(&pod, &call.ifname, &addresses).await?;
    let (_, outer) = network::pair_of(&node, &pod, &call.ifname).await?;
    let id = call.container_id.as_str();
    match agent(config).endpoint(id)? {
        Some(endpoint) if endpoint.host_ifname == outer.name => Ok(Value::Null),
        Some(endpoint) => Err(Error::new(
            code::CHECK_FAILED,
            format!(
                "{}'s end is {}, the agent has {}",
                call.ifname, outer.name, endpoint.host_ifname
            ),
        )),
        None => {
            let why = format!("container {id}: the agent has no endpoint");
            Err(Error::new(code::UNKNOWN_CONTAINER, why))
        }
    }
}

/// Everything of containers that the runtime no longer knows goes, whoever of us knows it.
async fn gc(config: &Config) -> Result<Value> {
    let valid = config.valid_attachments.as_ref().ok_or_else(|| {
        Error::new(code::BAD_CONFIG, "cni.dev/valid-attachments is required for GC")
    })?;
    let valid: Vec<String> = valid.iter().map(|a| owner(&a.container_id, &a.ifname)).collect();
    let node = Namespace::own()?;
    let known = agent(config).endpoints()?;
    let mut owners: BTreeSet<String> =
        known.iter().map(|e| owner(&e.container_id, &e.container_ifname)).collect();
    if let Some(ipam) = ipam(config)? {
        owners.extend(ipam.owners()?);
    }
    for stale in owners.iter().filter(|o| !valid.contains(o)) {
        if let Some((container, ifname)) = stale.split_once(' ') {
            remove(config, &node, container, ifname).await?;
        }
    }
    Ok(Value::Null)
}

fn status(config: &Config) -> Result<Value> {
    agent(config).health().map_err(|e| Error::new(code::NOT_AVAILABLE, e.msg))?;
    Ok(Value::Null)
}
