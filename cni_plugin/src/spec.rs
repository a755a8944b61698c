//! The CNI specification, version 1.1: configuration in, result or error out.

use std::collections::HashMap;
use std::env;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub const VERSIONS: [&str; 3] = ["0.4.0", "1.0.0", "1.1.0"];

/// Error codes of the specification, "Error", and from 100 on our own.
pub mod code {
    pub const INCOMPATIBLE_VERSION: u32 = 1;
    pub const UNKNOWN_CONTAINER: u32 = 3;
    pub const BAD_ENVIRONMENT: u32 = 4;
    pub const BAD_CONFIG: u32 = 7;
    pub const TRY_AGAIN: u32 = 11;
    pub const NO_ADDRESS: u32 = 100;
    pub const NETWORK: u32 = 101;
    pub const AGENT: u32 = 102;
    pub const CHECK_FAILED: u32 = 103;
}

#[derive(Debug)]
pub struct Error {
    pub code: u32,
    pub msg: String,
}

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub fn new(code: u32, msg: impl Into<String>) -> Self {
        Self { code, msg: msg.into() }
    }

    pub fn to_json(&self) -> Value {
        json!({"cniVersion": "1.1.0", "code": self.code, "msg": self.msg})
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Config {
    pub cni_version: String,
    pub agent_socket: String,
    pub ipam: Ipam,
    #[serde(default)]
    pub mtu: Option<u32>,
    #[serde(default)]
    pub prev_result: Option<Value>,
    #[serde(default, rename = "cni.dev/valid-attachments")]
    pub valid_attachments: Option<Vec<ValidAttachment>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ipam {
    pub data_dir: String,
    pub ranges: Vec<String>,
}

#[derive(Debug, Deserialize)]
pub struct ValidAttachment {
    #[serde(rename = "containerID")]
    pub container_id: String,
    pub ifname: String,
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
        let args = env::var("CNI_ARGS").unwrap_or_default();
        Ok(Self {
            container_id: need("CNI_CONTAINERID")?,
            netns: env::var("CNI_NETNS").unwrap_or_default(),
            ifname: need("CNI_IFNAME")?,
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

/// An address that was given to a pod, and the gateway of its range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    pub address: IpAddr,
    pub gateway: IpAddr,
}

impl Lease {
    pub fn bits(&self) -> u8 {
        if self.address.is_ipv4() { 32 } else { 128 }
    }
}

#[derive(Serialize)]
struct Interface<'a> {
    name: &'a str,
    mac: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    sandbox: &'a str,
}

/// The result of ADD.
pub fn result(call: &Call, host: (&str, &str), mac: &str, leases: &[Lease]) -> Value {
    let interfaces = [
        Interface { name: host.0, mac: host.1, sandbox: "" },
        Interface { name: &call.ifname, mac, sandbox: &call.netns },
    ];
    let ips: Vec<Value> = leases
        .iter()
        .map(|l| {
            json!({
                "address": format!("{}/{}", l.address, l.bits()),
                "gateway": l.gateway,
                "interface": 1,
            })
        })
        .collect();
    let routes: Vec<Value> = leases
        .iter()
        .map(|l| {
            let all = if l.address.is_ipv4() { "0.0.0.0/0" } else { "::/0" };
            json!({"dst": all, "gw": l.gateway})
        })
        .collect();
    json!({
        "cniVersion": "1.1.0",
        "interfaces": interfaces,
        "ips": ips,
        "routes": routes,
        "dns": {},
    })
}
