//! The agent's REST API, as far as the plugin needs it: HTTP/1.1 on a Unix socket.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use crate::error::{Error, Result, code};

const PATIENCE: Duration = Duration::from_secs(20);

pub struct Agent<'a> {
    pub socket: &'a str,
}

/// What the agent knows of a container's interface.
#[derive(Debug, Deserialize)]
pub struct Endpoint {
    pub container_id: String,
    pub container_ifname: String,
    pub host_ifname: String,
}

impl Agent<'_> {
    pub fn put_endpoint(&self, id: &str, body: &Value) -> Result<Value> {
        self.request("PUT", &format!("/v1/endpoints/{id}"), &body.to_string())
    }

    pub fn delete_endpoint(&self, id: &str) -> Result<Value> {
        self.request("DELETE", &format!("/v1/endpoints/{id}"), "")
    }

    pub fn health(&self) -> Result<Value> {
        self.request("GET", "/v1/healthz", "")
    }

    /// All of this node.
    pub fn endpoints(&self) -> Result<Vec<Endpoint>> {
        let mut answer = self.request("GET", "/v1/endpoints", "")?;
        serde_json::from_value(answer["items"].take())
            .map_err(|e| Error::new(code::AGENT, format!("the agent's endpoints: {e}")))
    }

    pub fn endpoint(&self, container_id: &str) -> Result<Option<Endpoint>> {
        Ok(self.endpoints()?.into_iter().find(|e| e.container_id == container_id))
    }

    /// Of this node, as the cluster gave them.
    pub fn pod_cidrs(&self) -> Result<Vec<String>> {
        let config = self.request("GET", "/v1/config", "")?;
        let all = config["pod_cidrs"].as_array().into_iter().flatten();
        let cidrs: Vec<String> = all.filter_map(|c| c.as_str().map(str::to_owned)).collect();
        if cidrs.is_empty() {
            let why = "the agent knows no pod CIDR of this node; set ipam.ranges, or wait for it";
            return Err(Error::new(code::TRY_AGAIN, why));
        }
        Ok(cidrs)
    }

    fn request(&self, method: &str, path: &str, body: &str) -> Result<Value> {
        let answer = self.exchange(method, path, body).map_err(|e| {
            Error::new(
                code::TRY_AGAIN,
                format!("the agent at {} does not answer: {e}", self.socket),
            )
        })?;
        let (head, text) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let status = head.split(' ').nth(1).unwrap_or("");
        let value: Value = serde_json::from_str(text).unwrap_or(Value::Null);
        if status.starts_with('2') {
            return Ok(value);
        }
        let why = value["error"].as_str().unwrap_or(text);
        let code = if status == "503" { code::TRY_AGAIN } else { code::AGENT }; // it still starts
        Err(Error::new(code, format!("the agent refused {method} {path}: {why}")))
    }

    /// HTTP/1.0, so that the answer ends with the connection and is never chunked.
    fn exchange(&self, method: &str, path: &str, body: &str) -> std::io::Result<String> {
        let mut stream = UnixStream::connect(self.socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        write!(
            stream,
            "{method} {path} HTTP/1.0\r\nHost: agent\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }
}
