//! Envoy's dynamic module ABI, and the kernel's BPF maps, behind safe types.
//!
//! The only crate of the workspace with unsafe code of its own; `crates/library` expands
//! [`export!`] and holds nothing else.

mod address;
pub mod bpf;
mod export;
#[doc(hidden)]
pub mod ffi;
mod guard;
pub mod http;
pub mod lease;
pub mod listener;
#[doc(hidden)]
pub mod module;
pub mod network;
mod page;
mod waker;

pub use module::{Factory, Level, Module, Refusal, log};
pub use waker::Waker;
