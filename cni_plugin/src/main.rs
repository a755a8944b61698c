//! `sidegate-cni`: ADD, DEL, CHECK, GC, STATUS and VERSION of CNI 1.1, in primary mode.
//!
//! The order in ADD is what matters: the pod has an interface, the agent attaches its programs and
//! enforces, and only then does the node's end go up.

mod agent;
mod ipam;
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
        .map_err(|e| Error::new(code::BAD_CONFIG, format!("standard input: {e}")))?;
    let config = Config::parse(&text)?;
    match command.as_str() {
        "ADD" => add(&config, &Call::from_env()?),
        "DEL" => {
            del(&config, &Call::from_env()?);
            Ok(Value::Null)
        }
        "CHECK" => check(&config, &Call::from_env()?),
        "GC" => gc(&config),
        "STATUS" => agent(&config).health().map(|_| Value::Null),
        other => Err(Error::new(code::BAD_ENVIRONMENT, format!("CNI_COMMAND {other:?}: unknown"))),
    }
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

fn add(config: &Config, call: &Call) -> Result<Value> {
    if config.prev_result.is_some() {
        return Err(Error::new(
            code::BAD_CONFIG,
            "prevResult: chaining behind another plugin is not supported; make sidegate-cni the first",
        ));
    }
    let netns = call.netns()?;
    let pair = Pair::of(&call.container_id, &call.ifname);
    let leases =
        ipam(config)?.lease(&owner(&call.container_id, &call.ifname), &config.ipam.ranges)?;
    let done = network::create(&pair, netns, &call.ifname, config.mtu, &leases)
        .and_then(|()| register(config, call, &pair, &leases))
        .and_then(|()| network::open(&pair, &leases));
    if let Err(error) = done {
        take_back(config, call, &pair);
        return Err(error);
    }
    Ok(spec::result(call, (&pair.host, &pair.host_mac), &pair.mac, &leases))
}

fn register(config: &Config, call: &Call, pair: &Pair, leases: &[Lease]) -> Result<()> {
    let address = |v4: bool| leases.iter().find(|l| l.address.is_ipv4() == v4).map(|l| l.address);
    let body = json!({
        "container_id": call.container_id,
        "netns": call.netns,
        "pod_namespace": call.arg("K8S_POD_NAMESPACE"),
        "pod_name": call.arg("K8S_POD_NAME"),
        "pod_uid": call.arg("K8S_POD_UID"),
        "host_ifname": pair.host,
        "host_ifindex": network::ifindex(&pair.host)?,
        "container_ifname": call.ifname,
        "mac": pair.mac,
        "host_mac": pair.host_mac,
        "ipv4": address(true),
        "ipv6": address(false),
    });
    agent(config).put_endpoint(&call.container_id, &body).map(|_| ())
}

fn take_back(config: &Config, call: &Call, pair: &Pair) {
    let _ = agent(config).delete_endpoint(&call.container_id);
    network::delete(pair);
    if let Ok(ipam) = ipam(config) {
        ipam.release(&owner(&call.container_id, &call.ifname));
    }
}

/// Succeeds for what is not there, and without the agent: it forgets endpoints whose interface is
/// gone when it starts.
fn del(config: &Config, call: &Call) {
    take_back(config, call, &Pair::of(&call.container_id, &call.ifname));
}

fn check(config: &Config, call: &Call) -> Result<Value> {
    let pair = Pair::of(&call.container_id, &call.ifname);
    network::ifindex(&pair.host)?;
    let known = agent(config).endpoints()?;
    let endpoint = known["items"]
        .as_array()
        .and_then(|items| items.iter().find(|e| e["container_id"] == call.container_id.as_str()))
        .ok_or_else(|| Error::new(code::UNKNOWN_CONTAINER, "the agent has no endpoint for it"))?;
    let addresses: Vec<IpAddr> =
        ["ipv4", "ipv6"].iter().filter_map(|name| endpoint[name].as_str()?.parse().ok()).collect();
    if network::has_addresses(call.netns()?, &call.ifname, &addresses) {
        return Ok(Value::Null);
    }
    Err(Error::new(
        code::CHECK_FAILED,
        format!("{} lacks an address that it was given: {addresses:?}", call.ifname),
    ))
}

/// Everything of containers that the runtime no longer knows goes.
fn gc(config: &Config) -> Result<Value> {
    let valid: Vec<String> = config
        .valid_attachments
        .iter()
        .flatten()
        .map(|a| owner(&a.container_id, &a.ifname))
        .collect();
    let owners = ipam(config)?.owners();
    for stale in owners.iter().filter(|o| !valid.contains(o)) {
        if let Some((container_id, ifname)) = stale.split_once(' ') {
            let _ = agent(config).delete_endpoint(container_id);
            network::delete(&Pair::of(container_id, ifname));
            ipam(config)?.release(stale);
        }
    }
    Ok(Value::Null)
}
