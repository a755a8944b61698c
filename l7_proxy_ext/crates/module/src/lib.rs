//! Sidegate's filters. `docs/architecture.md` says how they fit together.
#![forbid(unsafe_code)]

mod ends;
mod engine;
mod facts;
mod guard;
mod held;
mod http;
mod ipcache;
mod kafka;
mod peer;
mod sidecar;

use engine::Engine;
use sidecar::{Configured, Kind, Side};
use sidegate_abi::{Factory, Module, Refusal, http as http_abi, listener, network};
use std::sync::{Mutex, OnceLock};

/// The module: the bootstrap extension `sidegate`, listener filters `sidegate_peer` and
/// `sidegate_guard`, network filters `sidegate_kafka` and `sidegate_mesh`, HTTP filters `sidegate_http` and
/// `sidegate_gateway`.
pub struct Sidegate;

static ENGINE: OnceLock<Engine> = OnceLock::new();

fn engine() -> Result<&'static Engine, Refusal> {
    ENGINE.get().ok_or_else(|| "the bootstrap extension \"sidegate\" is missing".into())
}

/// The engine for a filter: that of the node, or of the sidecar, which the first filter starts.
fn engine_for(config: &[u8]) -> Result<(&'static Engine, Option<Side>), Refusal> {
    if config.is_empty() {
        return Ok((engine()?, None));
    }
    static STARTING: Mutex<()> = Mutex::new(());
    let config: sidecar::Config =
        serde_json::from_slice(config).map_err(|error| format!("configuration: {error}"))?;
    let _one_at_a_time = STARTING.lock();
    if ENGINE.get().is_none() {
        _ = ENGINE.set(Engine::start_sidecar(&config.directory)?);
    }
    Ok((engine()?, Some(config.direction)))
}

fn unknown<T>(kind: &str) -> Result<T, Refusal> {
    Err(format!("there is no {kind} of this name"))
}

impl Module for Sidegate {
    fn bootstrap(&self, name: &str, config: &[u8]) -> Result<(), Refusal> {
        if name != "sidegate" {
            return unknown("bootstrap extension");
        }
        ENGINE.set(Engine::start(config)?).map_err(|_| "is there already".into())
    }

    fn shutdown(&self) {
        if let Some(engine) = ENGINE.get() {
            engine.stop();
        }
    }

    fn listener(&self, name: &str, config: &[u8]) -> Result<Factory<listener::Filter>, Refusal> {
        let (engine, _) = engine_for(config)?;
        match name {
            "sidegate_peer" => Ok(Box::new(|| Box::new(peer::Peer))),
            "sidegate_guard" => Ok(Box::new(|| Box::new(guard::Guard::new(engine)))),
            _ => unknown("listener filter"),
        }
    }

    fn network(&self, name: &str, config: &[u8]) -> Result<Factory<network::Filter>, Refusal> {
        let (engine, side) = engine_for(config)?;
        match name {
            "sidegate_kafka" => {
                let configured = side.map(|side| Configured::new(side, Kind::Network));
                Ok(Box::new(move || {
                    let _lives_as_long = &configured;
                    Box::new(kafka::Kafka::new(engine, side))
                }))
            }
            "sidegate_mesh" if side.is_none() => {
                Ok(Box::new(|| Box::new(kafka::Kafka::new(engine, Some(Side::Mesh)))))
            }
            _ => unknown("network filter"),
        }
    }

    fn http(&self, name: &str, config: &[u8]) -> Result<Factory<http_abi::Filter>, Refusal> {
        let (engine, side) = engine_for(config)?;
        match name {
            "sidegate_gateway" if side.is_none() => {
                Ok(Box::new(|| Box::new(http::Http::new(engine, Some(Side::Gateway)))))
            }
            "sidegate_http" => {
                let configured = side.map(|side| Configured::new(side, Kind::Http));
                Ok(Box::new(move || {
                    let _lives_as_long = &configured;
                    Box::new(http::Http::new(engine, side))
                }))
            }
            _ => unknown("HTTP filter"),
        }
    }
}
