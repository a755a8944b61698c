//! Listener filter `sidegate_peer`: keeps both ends of a connection for the other filters.
//!
//! `original_dst` has to run before it.

use crate::facts::{Facts, KEY};
use sidegate_abi::listener::{Accept, Listener, ListenerFilter};

pub struct Peer;

impl ListenerFilter for Peer {
    fn on_accept(&mut self, envoy: &Listener) -> Accept {
        match Facts::of(envoy) {
            Some(facts) if envoy.set_filter_state(KEY, facts.bytes()) => Accept::Continue,
            _ => Accept::Close,
        }
    }
}
