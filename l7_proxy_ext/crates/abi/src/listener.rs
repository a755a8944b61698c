//! Listener filters: see a connection before it has a filter chain.

use crate::address::address;
use crate::ffi::{self, EnvoyBuffer, EnvoyPtr};
use crate::guard::fail_closed;
use std::net::SocketAddr;

/// What Envoy does next with the connection.
pub enum Accept {
    /// On to the next listener filter.
    Continue,
    /// Wait for the first bytes; [`ListenerFilter::on_data`] follows.
    Peek,
    /// Close it.
    Close,
}

/// A filter of one accepted connection.
pub trait ListenerFilter: Send {
    fn on_accept(&mut self, envoy: &Listener) -> Accept;
    /// `peeked` is what the client has sent so far; it stays in the socket.
    fn on_data(&mut self, _envoy: &Listener, _peeked: &[u8]) -> Accept {
        Accept::Continue
    }
    /// How many bytes [`Self::on_data`] wants to see at most; 0: none.
    fn peek_bytes(&self) -> usize {
        0
    }
}

/// The connection, as Envoy shows it during a hook.
pub struct Listener(EnvoyPtr);

impl Listener {
    /// The client's address. None unless it is an IP address.
    pub fn remote(&self) -> Option<SocketAddr> {
        let get = ffi::envoy_dynamic_module_callback_listener_filter_get_remote_address;
        // SAFETY: the pointer is Envoy's for this hook.
        unsafe { address(self.0, get) }
    }

    /// Where the client connected to: the original destination once `original_dst` has run.
    pub fn local(&self) -> Option<SocketAddr> {
        let get = ffi::envoy_dynamic_module_callback_listener_filter_get_local_address;
        // SAFETY: the pointer is Envoy's for this hook.
        unsafe { address(self.0, get) }
    }

    /// Keeps `value` with the connection, for its network and HTTP filters.
    #[must_use]
    pub fn set_filter_state(&self, key: &str, value: &[u8]) -> bool {
        // SAFETY: Envoy copies both.
        unsafe {
            ffi::envoy_dynamic_module_callback_listener_filter_set_filter_state(
                self.0,
                key.into(),
                value.into(),
            )
        }
    }

    fn peeked(&self) -> &[u8] {
        let mut chunk = EnvoyBuffer::EMPTY;
        // SAFETY: valid until the hook returns, which outlives `self`.
        unsafe {
            ffi::envoy_dynamic_module_callback_listener_filter_get_buffer_chunk(self.0, &mut chunk);
            chunk.bytes()
        }
    }

    fn answer(&self, accept: Accept) -> u32 {
        const CONTINUE: u32 = 0;
        const STOP: u32 = 1;
        match accept {
            Accept::Continue => CONTINUE,
            Accept::Peek => STOP,
            Accept::Close => {
                // SAFETY: the pointer is Envoy's for this hook.
                unsafe {
                    ffi::envoy_dynamic_module_callback_listener_filter_close_socket(
                        self.0,
                        "sidegate".into(),
                    );
                }
                STOP
            }
        }
    }
}

pub type Filter = Box<dyn ListenerFilter>;

/// # Safety
/// Called by Envoy with pointers that are valid for this hook.
pub unsafe fn on_accept(envoy: EnvoyPtr, filter: *mut Filter) -> u32 {
    let envoy = Listener(envoy);
    fail_closed(
        || envoy.answer(unsafe { (*filter).on_accept(&envoy) }),
        || envoy.answer(Accept::Close),
    )
}

/// # Safety
/// Called by Envoy with pointers that are valid for this hook.
pub unsafe fn on_data(envoy: EnvoyPtr, filter: *mut Filter) -> u32 {
    let envoy = Listener(envoy);
    fail_closed(
        || envoy.answer(unsafe { (*filter).on_data(&envoy, envoy.peeked()) }),
        || envoy.answer(Accept::Close),
    )
}

/// # Safety
/// Called by Envoy with a filter that is alive.
pub unsafe fn peek_bytes(filter: *mut Filter) -> usize {
    fail_closed(|| unsafe { (*filter).peek_bytes() }, || 0)
}
