//! Network filters: the bytes of a connection, both ways.

use crate::address::address;
use crate::ffi::{self, EnvoyBuffer, EnvoyPtr};
use crate::guard::fail_closed;
use crate::waker::Waker;
use std::net::SocketAddr;

/// Whether the next filter sees the buffer.
pub enum Flow {
    Continue,
    Stop,
}

/// A filter of one connection.
pub trait NetworkFilter: Send {
    fn on_new_connection(&mut self, _envoy: &Connection) -> Flow {
        Flow::Continue
    }
    /// A [`Waker`] of this connection was called: `Continue` lets it go on that was stopped.
    fn on_scheduled(&mut self, _envoy: &Connection) -> Flow {
        Flow::Continue
    }
    /// The client sent something: [`Connection::read_buffer`].
    fn on_read(&mut self, envoy: &Connection, end_stream: bool) -> Flow;
    /// Something is about to be written to the client: [`Connection::write_buffer`].
    fn on_write(&mut self, _envoy: &Connection, _end_stream: bool) -> Flow {
        Flow::Continue
    }
}

/// The connection, as Envoy shows it during a hook.
pub struct Connection(EnvoyPtr);

type Size = unsafe extern "C" fn(EnvoyPtr) -> usize;
type Chunks = unsafe extern "C" fn(EnvoyPtr, *mut EnvoyBuffer) -> bool;

impl Connection {
    /// What a listener filter kept under `key`.
    pub fn filter_state(&self, key: &str) -> Option<&[u8]> {
        let mut value = EnvoyBuffer::EMPTY;
        // SAFETY: the bytes are Envoy's until the hook returns, which outlives `self`.
        unsafe {
            ffi::envoy_dynamic_module_callback_network_get_filter_state_bytes(
                self.0,
                key.into(),
                &mut value,
            )
            .then(|| value.bytes())
        }
    }

    /// Who connected.
    pub fn remote(&self) -> Option<SocketAddr> {
        let get = ffi::envoy_dynamic_module_callback_network_filter_get_remote_address;
        // SAFETY: the pointer is Envoy's for this hook.
        unsafe { address(self.0, get) }
    }

    /// Where the client connected to.
    pub fn local(&self) -> Option<SocketAddr> {
        let get = ffi::envoy_dynamic_module_callback_network_filter_get_local_address;
        // SAFETY: the pointer is Envoy's for this hook.
        unsafe { address(self.0, get) }
    }

    /// The chosen backend; None before `tcp_proxy` has reached it.
    pub fn upstream(&self) -> Option<SocketAddr> {
        let get = ffi::envoy_dynamic_module_callback_network_filter_get_upstream_host_address;
        // SAFETY: the pointer is Envoy's for this hook.
        unsafe { address(self.0, get) }
    }

    /// The URI of the backend's certificate; empty without one.
    pub fn upstream_uri(&self) -> &[u8] {
        let mut value = EnvoyBuffer::EMPTY;
        // SAFETY: the bytes are Envoy's until the hook returns, which outlives `self`.
        unsafe {
            ffi::envoy_dynamic_module_callback_network_filter_get_attribute_string(
                self.0,
                ffi::ATTRIBUTE_UPSTREAM_URI_SAN_PEER,
                &mut value,
            );
            value.bytes()
        }
    }

    /// The first URI of the client's certificate; empty without one.
    pub fn client_uri(&self) -> &[u8] {
        // SAFETY: the vector has room for as many as Envoy says there are; the bytes are Envoy's
        // until the hook returns, which outlives `self`.
        unsafe {
            let size =
                ffi::envoy_dynamic_module_callback_network_filter_get_ssl_uri_sans_size(self.0);
            let mut uris = vec![EnvoyBuffer::EMPTY; size];
            if size == 0
                || !ffi::envoy_dynamic_module_callback_network_filter_get_ssl_uri_sans(
                    self.0,
                    uris.as_mut_ptr(),
                )
            {
                return &[];
            }
            uris[0].bytes()
        }
    }

    /// What calls [`NetworkFilter::on_scheduled`] on this connection's worker, from any thread.
    pub fn waker(&self) -> Waker {
        // SAFETY: the pointer is Envoy's for this hook, and all three are of network filters.
        unsafe {
            Waker::new(
                ffi::envoy_dynamic_module_callback_network_filter_scheduler_new(self.0),
                ffi::envoy_dynamic_module_callback_network_filter_scheduler_commit,
                ffi::envoy_dynamic_module_callback_network_filter_scheduler_delete,
            )
        }
    }

    /// Calls `each` with the chunks of what the client sent and has not been drained.
    pub fn read_buffer(&self, each: impl FnMut(&[u8])) {
        self.chunks(
            ffi::envoy_dynamic_module_callback_network_filter_get_read_buffer_chunks_size,
            ffi::envoy_dynamic_module_callback_network_filter_get_read_buffer_chunks,
            each,
        );
    }

    /// Calls `each` with the chunks of what is about to be written to the client.
    pub fn write_buffer(&self, each: impl FnMut(&[u8])) {
        self.chunks(
            ffi::envoy_dynamic_module_callback_network_filter_get_write_buffer_chunks_size,
            ffi::envoy_dynamic_module_callback_network_filter_get_write_buffer_chunks,
            each,
        );
    }

    fn chunks(&self, size: Size, get: Chunks, each: impl FnMut(&[u8])) {
        // SAFETY: the vector has room for as many chunks as Envoy says there are.
        let chunks = unsafe {
            let mut chunks = vec![EnvoyBuffer::EMPTY; size(self.0)];
            if chunks.is_empty() || !get(self.0, chunks.as_mut_ptr()) {
                return;
            }
            chunks
        };
        // SAFETY: Envoy's until the hook returns.
        chunks.into_iter().map(|chunk| unsafe { chunk.bytes() }).for_each(each);
    }

    /// Puts `data` in the place of what the client sent; the next filter sees it.
    pub fn replace_read_buffer(&self, data: &[u8]) {
        // SAFETY: draining more than there is drains all; Envoy copies `data`.
        unsafe {
            ffi::envoy_dynamic_module_callback_network_filter_drain_read_buffer(self.0, usize::MAX);
            if !data.is_empty() {
                ffi::envoy_dynamic_module_callback_network_filter_append_read_buffer(
                    self.0,
                    data.into(),
                );
            }
        }
    }

    /// Puts `data` in the place of what was about to be written to the client.
    pub fn replace_write_buffer(&self, data: &[u8]) {
        // SAFETY: draining more than there is drains all; Envoy copies `data`.
        unsafe {
            ffi::envoy_dynamic_module_callback_network_filter_drain_write_buffer(
                self.0,
                usize::MAX,
            );
            if !data.is_empty() {
                ffi::envoy_dynamic_module_callback_network_filter_append_write_buffer(
                    self.0,
                    data.into(),
                );
            }
        }
    }

    /// Writes to the client by way of the filters that come after this one on that way.
    pub fn inject_write(&self, data: &[u8], end_stream: bool) {
        // SAFETY: Envoy copies `data`; this filter's own hooks are not called for it.
        unsafe {
            ffi::envoy_dynamic_module_callback_network_filter_inject_write_data(
                self.0,
                data.into(),
                end_stream,
            );
        }
    }

    /// Gives `data` to the next read filter, as if the client had sent it.
    pub fn inject_read(&self, data: &[u8]) {
        // SAFETY: Envoy copies `data`.
        unsafe {
            ffi::envoy_dynamic_module_callback_network_filter_inject_read_data(
                self.0,
                data.into(),
                false,
            );
        }
    }

    /// Closes the connection; `flush`: after what was written has been sent.
    pub fn close(&self, flush: bool) {
        let how = if flush { ffi::CLOSE_FLUSH_WRITE } else { ffi::CLOSE_NO_FLUSH };
        // SAFETY: the pointer is Envoy's for this hook.
        unsafe { ffi::envoy_dynamic_module_callback_network_filter_close(self.0, how) }
    }
}

pub type Filter = Box<dyn NetworkFilter>;

/// # Safety
/// Called by Envoy with pointers that are valid for this hook.
pub unsafe fn on_scheduled(envoy: EnvoyPtr, filter: *mut Filter) {
    const CONTINUE: u32 = 0;
    if unsafe { hook(envoy, filter, |filter, connection| filter.on_scheduled(connection)) }
        == CONTINUE
    {
        // SAFETY: the pointer is Envoy's for this hook.
        unsafe { ffi::envoy_dynamic_module_callback_network_filter_continue_reading(envoy) }
    }
}

/// # Safety
/// Called by Envoy with pointers that are valid for this hook.
pub unsafe fn hook(
    envoy: EnvoyPtr,
    filter: *mut Filter,
    run: impl FnOnce(&mut dyn NetworkFilter, &Connection) -> Flow,
) -> u32 {
    let envoy = Connection(envoy);
    let flow = fail_closed(
        || run(unsafe { (*filter).as_mut() }, &envoy),
        || {
            envoy.replace_read_buffer(b"");
            envoy.close(false);
            Flow::Stop
        },
    );
    match flow {
        Flow::Continue => 0,
        Flow::Stop => 1,
    }
}
