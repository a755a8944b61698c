//! The CNI specification, version 1.1: what comes in.

use std::collections::HashMap;
use std::env;
use std::net::IpAddr;

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::error::{Error, Result, code};

pub const VERSIONS: [&str; 4] = ["0.3.1", "0.4.0", "1.0.0", "1.1.0"];

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Config {
    pub cni_version: String,
    pub agent_socket: String,
    /// Absent: chained behind the plugin that made the interface and gave the addresses.
    pub ipam: Option<Ipam>,
    #[serde(default)]
    pub mtu: Option<u32>,
    #[serde(default)]
    pub prev_result: Option<Value>,
    #[serde(default, rename = "cni.dev/valid-attachments", deserialize_with = "null_is_empty")]
    pub valid_attachments: Option<Vec<ValidAttachment>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ipam {
    pub data_dir: String,
    /// Absent: the pod CIDRs that the agent knows of its node.
    pub ranges: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
pub struct ValidAttachment {
    #[serde(rename = "containerID")]
    pub container_id: String,
    pub ifname: String,
}

/// libcni writes a list without items as null; only a key that is not there is an error.
fn null_is_empty<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    from: D,
) -> std::result::Result<Option<Vec<T>>, D::Error> {
    Option::deserialize(from).map(|list| Some(list.unwrap_or_default()))
}

impl Config {
    pub fn parse(text: &str) -> Result<Self> {
        let config: Self = serde_json::from_str(text)
            .map_err(|e| Error::new(code::BAD_CONFIG, format!("network configuration: {e}")))?;
        if !VERSIONS.contains(&config.cni_version.as_str()) {
            return Err(Error::new(
                code::INCOMPATIBLE_VERSION,
                format!("cniVersion {}: known are {}", config.cni_version, VERSIONS.join(", ")),
            ));
        }
        Ok(config)
    }

    /// For ADD: the first of the list gives addresses, any other has the result of one before it.
    pub fn check_position(&self) -> Result<()> {
        let why = match (&self.ipam, &self.prev_result) {
            (Some(_), Some(_)) => {
                "prevResult: with ipam, sidegate-cni must be the first plugin; \
                 leave ipam out to chain it behind another"
            }
            (None, None) => "ipam: required, unless the plugin is chained behind another",
            _ => return Ok(()),
        };
        Err(Error::new(code::BAD_CONFIG, why))
    }

    /// Of the pod's interface, in the result of the plugin before us (ADD) or of ADD (CHECK).
    pub fn previous_addresses(&self, ifname: &str) -> Vec<IpAddr> {
        let Some(result) = &self.prev_result else { return Vec::new() };
        let is_pods = |ip: &&Value| match ip["interface"].as_u64() {
            Some(at) => {
                usize::try_from(at).is_ok_and(|at| result["interfaces"][at]["name"] == ifname)
            }
            None => true,
        };
        let ips = result["ips"].as_array().into_iter().flatten().filter(is_pods);
        ips.filter_map(|ip| ip["address"].as_str()?.split('/').next()?.parse().ok()).collect()
    }
}

/// What the runtime says in `CNI_*` variables.
#[derive(Debug)]
pub struct Call {
    pub container_id: String,
    pub netns: String,
    pub ifname: String,
    args: HashMap<String, String>,
}

impl Call {
    pub fn from_env() -> Result<Self> {
        let need = |name: &str| {
            env::var(name)
                .ok()
                .filter(|v| !v.is_empty())
                .ok_or_else(|| Error::new(code::BAD_ENVIRONMENT, format!("{name} is required")))
        };
        let (container_id, ifname) = (need("CNI_CONTAINERID")?, need("CNI_IFNAME")?);
        if !is_container_id(&container_id) {
            return Err(Error::new(
                code::BAD_ENVIRONMENT,
                format!("CNI_CONTAINERID {container_id:?}: letters, digits, '_', '.', '-' only"),
            ));
        }
        if !is_ifname(&ifname) {
            return Err(Error::new(
                code::BAD_ENVIRONMENT,
                format!("CNI_IFNAME {ifname:?}: not the name of an interface"),
            ));
        }
        let args = env::var("CNI_ARGS").unwrap_or_default();
        Ok(Self {
            container_id,
            netns: env::var("CNI_NETNS").unwrap_or_default(),
            ifname,
            args: args
                .split(';')
                .filter_map(|pair| pair.split_once('='))
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .collect(),
        })
    }

    pub fn arg(&self, name: &str) -> &str {
        self.args.get(name).map_or("", String::as_str)
    }

    pub fn netns(&self) -> Result<&str> {
        if self.netns.is_empty() {
            return Err(Error::new(code::BAD_ENVIRONMENT, "CNI_NETNS is required"));
        }
        Ok(&self.netns)
    }
}

/// CNI specification, "Parameters": it becomes part of a path and of a file.
fn is_container_id(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c))
}

/// What the kernel takes (`dev_valid_name`): at most 15 bytes, no '/', ':' or space.
fn is_ifname(text: &str) -> bool {
    text.len() < 16
        && text != "."
        && text != ".."
        && !text.contains(|c: char| c == '/' || c == ':' || c.is_whitespace())
}

/// An address that was given to a pod, and the gateway of its range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    pub address: IpAddr,
    pub gateway: IpAddr,
}
