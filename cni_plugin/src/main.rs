//! `sidegate-cni`: ADD, DEL, CHECK, GC, STATUS and VERSION of CNI 1.1, in primary mode.
//!
//! The order in ADD is what matters: the pod has an interface, the agent attaches its programs and
//! enforces, and only then does the node's end go up.

mod agent;
mod ipam;
mod netlink;
mod network;
mod spec;

use std::env;
use std::io::{Read, stdin};
use std::net::IpAddr;
use std::path::Path;
use std::process::ExitCode;

use serde_json::{Value, json};

use agent::Agent;
use ipam::Ipam;
use netlink::Namespace;
use network::Pair;
use spec::{Call, Config, Error, Lease, Result, code};

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

fn ipam(config: &Config) -> Result<Ipam> {
    Ipam::open(Path::new(&config.ipam.data_dir))
}

async fn add(config: &Config, call: &Call) -> Result<Value> {
    if config.prev_result.is_some() {
        return Err(Error::new(
            code::BAD_CONFIG,
            "prevResult: chaining behind another plugin is not supported; make sidegate-cni the first",
        ));
    }
    let node = Namespace::own()?;
    let pod = Namespace::at(call.netns()?, &node)?;
    match attach(config, call, &node, &pod).await {
        Ok(result) => Ok(result),
        Err(error) => {
            // The first error is what the runtime must read; it calls DEL for whatever is left.
            let _ = remove(config, &node, &call.container_id, &call.ifname).await;
            Err(error)
        }
    }
}

async fn attach(config: &Config, call: &Call, node: &Namespace, pod: &Namespace) -> Result<Value> {
    let ranges = match &config.ipam.ranges {
        Some(ranges) => ranges.clone(),
        None => agent(config).pod_cidrs()?,
    };
    let leases = ipam(config)?.lease(&owner(&call.container_id, &call.ifname), &ranges)?;
    let pair = Pair::of(&call.container_id, &call.ifname, &leases);
    let index = network::create(node, pod, &pair, &call.ifname, config.mtu, &leases).await?;
    register(config, call, &pair, index, &leases)?;
    network::open(node, &pair, index, &leases).await?;
    Ok(spec::result(&config.cni_version, call, &pair, &leases))
}

fn register(config: &Config, call: &Call, pair: &Pair, index: u32, leases: &[Lease]) -> Result<()> {
    let address = |v4: bool| leases.iter().find(|l| l.address.is_ipv4() == v4).map(|l| l.address);
    let body = json!({
        "container_id": call.container_id,
        "netns": call.netns,
        "pod_namespace": call.arg("K8S_POD_NAMESPACE"),
        "pod_name": call.arg("K8S_POD_NAME"),
        "pod_uid": call.arg("K8S_POD_UID"),
        "host_ifname": pair.host,
        "host_ifindex": index,
        "container_ifname": call.ifname,
        "mac": spec::mac(pair.mac),
        "host_mac": spec::mac(pair.host_mac),
        "ipv4": address(true),
        "ipv6": address(false),
    });
    agent(config).put_endpoint(&call.container_id, &body).map(|_| ())
}

/// Succeeds for what is not there, and without the agent: it forgets endpoints whose interface is
/// gone when it starts. The address is free only once nothing of the pod can send with it.
async fn remove(config: &Config, node: &Namespace, container: &str, ifname: &str) -> Result<Value> {
    let _ = agent(config).delete_endpoint(container);
    node.delete(&network::host_ifname(container, ifname)).await?;
    ipam(config)?.release(&owner(container, ifname))?;
    Ok(Value::Null)
}

async fn check(config: &Config, call: &Call) -> Result<Value> {
    let node = Namespace::own()?;
    let pod = Namespace::at(call.netns()?, &node)?;
    let held = ipam(config)?.held(&owner(&call.container_id, &call.ifname))?;
    let expected: Vec<IpAddr> = if held.is_empty() {
        let why = format!("container {}: it holds no address", call.container_id);
        return Err(Error::new(code::UNKNOWN_CONTAINER, why));
    } else {
        held.into_iter().chain(config.previous_addresses()).collect()
    };
    let host = network::host_ifname(&call.container_id, &call.ifname);
    network::check(&node, &pod, &host, &call.ifname, &expected).await?;
    let known = agent(config).endpoints()?;
    let id = call.container_id.as_str();
    if known["items"].as_array().is_some_and(|all| all.iter().any(|e| e["container_id"] == id)) {
        return Ok(Value::Null);
    }
    Err(Error::new(code::UNKNOWN_CONTAINER, format!("container {id}: the agent has no endpoint")))
}

/// Everything of containers that the runtime no longer knows goes.
async fn gc(config: &Config) -> Result<Value> {
    let valid = config.valid_attachments.as_ref().ok_or_else(|| {
        Error::new(code::BAD_CONFIG, "cni.dev/valid-attachments is required for GC")
    })?;
    let valid: Vec<String> = valid.iter().map(|a| owner(&a.container_id, &a.ifname)).collect();
    let node = Namespace::own()?;
    let owners = ipam(config)?.owners()?;
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
