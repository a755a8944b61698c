//! HTTP filters: one request and its response. The same filter serves downstream and upstream.

use crate::ffi::{self, EnvoyBuffer, EnvoyPtr, ModuleHeader};
use crate::guard::fail_closed;
use crate::waker::Waker;
use std::cell::Cell;
use std::net::SocketAddr;

/// gRPC's PERMISSION_DENIED.
pub const GRPC_PERMISSION_DENIED: &str = "7";
const GRPC_INTERNAL: &str = "13";

/// Whether the exchange goes on.
pub enum Next {
    Continue,
    /// Hold the request until [`HttpFilter::on_scheduled`]; of a request's headers only.
    Wait,
    /// A response has been sent, or the stream was reset.
    Stop,
}

/// A filter of one exchange; it lives and dies on one worker.
pub trait HttpFilter {
    fn on_request_headers(&mut self, envoy: &Exchange) -> Next;
    fn on_response_headers(&mut self, _envoy: &Exchange) {}
    /// A [`Waker`] of this exchange was called: `Continue` lets a request go that waits.
    fn on_scheduled(&mut self, _envoy: &Exchange) -> Next {
        Next::Continue
    }
    /// A piece of a body, of either direction, is about to pass.
    fn on_body(&mut self, _envoy: &Exchange) -> Next {
        Next::Continue
    }
    /// The exchange is over, however it ended.
    fn on_complete(&mut self, _envoy: &Exchange) {}
}

/// The exchange, as Envoy shows it during a hook.
pub struct Exchange {
    envoy: EnvoyPtr,
    answered: Cell<bool>,
}

impl Exchange {
    fn new(envoy: EnvoyPtr) -> Self {
        Self { envoy, answered: Cell::new(false) }
    }

    /// The `index`th value of a request header, and how many there are. `name` is lower case.
    pub fn request_header(&self, name: &str, index: usize) -> Option<(&[u8], usize)> {
        self.header(ffi::REQUEST_HEADER, name, index)
    }

    /// `:method`; empty without one. An attribute costs half of what a header by its name does.
    pub fn method(&self) -> &[u8] {
        self.attribute(ffi::ATTRIBUTE_REQUEST_METHOD)
    }

    /// `:path`, with the query.
    pub fn path(&self) -> &[u8] {
        self.attribute(ffi::ATTRIBUTE_REQUEST_PATH)
    }

    /// `:authority`.
    pub fn host(&self) -> &[u8] {
        self.attribute(ffi::ATTRIBUTE_REQUEST_HOST)
    }

    /// The status of the response, while its headers pass; 0 without one.
    pub fn status(&self) -> u32 {
        let mut code = 0;
        // SAFETY: Envoy writes a number, or nothing.
        let known = unsafe {
            ffi::envoy_dynamic_module_callback_http_filter_get_attribute_int(
                self.envoy,
                ffi::ATTRIBUTE_RESPONSE_CODE,
                &mut code,
            )
        };
        match u32::try_from(code) {
            Ok(code) if known && code > 0 => code,
            // Of an upstream filter: the router has not seen the response yet.
            _ => self.header(ffi::RESPONSE_HEADER, ":status", 0).map_or(0, |(digits, _)| {
                digits.iter().fold(0, |sum, byte| sum * 10 + u32::from(byte & 0xf))
            }),
        }
    }

    fn header(&self, map: u32, name: &str, index: usize) -> Option<(&[u8], usize)> {
        let (mut value, mut count) = (EnvoyBuffer::EMPTY, 0);
        // SAFETY: no header is ever set, so the bytes are Envoy's until the hook returns.
        unsafe {
            ffi::envoy_dynamic_module_callback_http_get_header(
                self.envoy,
                map,
                name.into(),
                &mut value,
                index,
                &mut count,
            )
            .then(|| (value.bytes(), count))
        }
    }

    /// What a listener filter kept with the connection.
    pub fn filter_state(&self, key: &str) -> Option<&[u8]> {
        let mut value = EnvoyBuffer::EMPTY;
        // SAFETY: the bytes are Envoy's until the hook returns, which outlives `self`.
        unsafe {
            ffi::envoy_dynamic_module_callback_http_get_filter_state_bytes(
                self.envoy,
                key.into(),
                &mut value,
            )
            .then(|| value.bytes())
        }
    }

    /// "HTTP/1.1", "HTTP/2".
    pub fn protocol(&self) -> &[u8] {
        self.attribute(ffi::ATTRIBUTE_REQUEST_PROTOCOL)
    }

    /// Who connected, as `original_dst` and the PROXY protocol have it.
    pub fn source(&self) -> Option<SocketAddr> {
        self.address(ffi::ATTRIBUTE_SOURCE_ADDRESS)
    }

    /// Where the client connected to.
    pub fn destination(&self) -> Option<SocketAddr> {
        self.address(ffi::ATTRIBUTE_DESTINATION_ADDRESS)
    }

    /// The chosen backend; of an upstream filter only.
    pub fn upstream(&self) -> Option<SocketAddr> {
        self.address(ffi::ATTRIBUTE_UPSTREAM_ADDRESS)
    }

    /// The URI of the client's certificate; empty without one.
    pub fn client_uri(&self) -> &[u8] {
        self.attribute(ffi::ATTRIBUTE_URI_SAN_PEER)
    }

    /// The URI of the backend's certificate; empty without one.
    pub fn upstream_uri(&self) -> &[u8] {
        self.attribute(ffi::ATTRIBUTE_UPSTREAM_URI_SAN_PEER)
    }

    /// Whether the chosen backend is connected: before, nobody knows its certificate.
    pub fn is_connected(&self) -> bool {
        !self.attribute(ffi::ATTRIBUTE_UPSTREAM_LOCAL_ADDRESS).is_empty()
    }

    fn address(&self, attribute: u32) -> Option<SocketAddr> {
        std::str::from_utf8(self.attribute(attribute)).ok()?.parse().ok()
    }

    fn attribute(&self, attribute: u32) -> &[u8] {
        let mut value = EnvoyBuffer::EMPTY;
        // SAFETY: as above.
        unsafe {
            ffi::envoy_dynamic_module_callback_http_filter_get_attribute_string(
                self.envoy, attribute, &mut value,
            );
            value.bytes()
        }
    }

    /// What calls [`HttpFilter::on_scheduled`] on this exchange's worker, from any thread.
    pub fn waker(&self) -> Waker {
        // SAFETY: the pointer is Envoy's for this hook, and all three are of HTTP filters.
        unsafe {
            Waker::new(
                ffi::envoy_dynamic_module_callback_http_filter_scheduler_new(self.envoy),
                ffi::envoy_dynamic_module_callback_http_filter_scheduler_commit,
                ffi::envoy_dynamic_module_callback_http_filter_scheduler_delete,
            )
        }
    }

    /// Ends the exchange with a response of ours; Envoy puts it into gRPC's form for gRPC, where
    /// `grpc_status` says how it ended (without one Envoy would say 0, which is success).
    pub fn respond(&self, status: u32, grpc_status: &str, body: &str, details: &str) {
        self.answered.set(true);
        let header = ModuleHeader { name: "grpc-status".into(), value: grpc_status.into() };
        let headers = if self.is_grpc() { &[header][..] } else { &[] };
        // SAFETY: Envoy copies headers, body and details.
        unsafe {
            ffi::envoy_dynamic_module_callback_http_send_response(
                self.envoy,
                status,
                headers.as_ptr(),
                headers.len(),
                body.into(),
                details.into(),
            );
        }
    }

    fn is_grpc(&self) -> bool {
        let content_type = self.request_header("content-type", 0);
        let rest = content_type.and_then(|(value, _)| value.strip_prefix(b"application/grpc"));
        rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
    }

    /// Ends the exchange without a response.
    pub fn reset(&self, details: &str) {
        self.answered.set(true);
        // SAFETY: Envoy copies the details.
        unsafe {
            ffi::envoy_dynamic_module_callback_http_filter_reset_stream(
                self.envoy,
                ffi::STREAM_LOCAL_RESET,
                details.into(),
            );
        }
    }
}

pub type Filter = Box<dyn HttpFilter>;

/// # Safety
/// Called by Envoy with pointers that are valid for this hook.
pub unsafe fn on_request_headers(envoy: EnvoyPtr, filter: *mut Filter) -> u32 {
    const CONTINUE: u32 = 0;
    const STOP: u32 = 1;
    const STOP_ALL_WATERMARK: u32 = 4;
    let envoy = Exchange::new(envoy);
    match judged(&envoy, || unsafe { (*filter).on_request_headers(&envoy) }) {
        Next::Continue => CONTINUE,
        Next::Stop => STOP,
        Next::Wait => STOP_ALL_WATERMARK,
    }
}

/// # Safety
/// Called by Envoy with pointers that are valid for this hook.
pub unsafe fn on_scheduled(envoy: EnvoyPtr, filter: *mut Filter) {
    let exchange = Exchange::new(envoy);
    if let Next::Continue = judged(&exchange, || unsafe { (*filter).on_scheduled(&exchange) }) {
        // SAFETY: the pointer is Envoy's for this hook.
        unsafe { ffi::envoy_dynamic_module_callback_http_filter_continue_decoding(envoy) }
    }
}

/// Runs a hook that judges a request; a fault denies it.
fn judged(envoy: &Exchange, hook: impl FnOnce() -> Next) -> Next {
    fail_closed(hook, || {
        if !envoy.answered.get() {
            envoy.respond(
                500,
                GRPC_INTERNAL,
                "Sidegate: internal fault, request denied\n",
                "sidegate_fault",
            );
        }
        Next::Stop
    })
}

/// # Safety
/// Called by Envoy with pointers that are valid for this hook.
pub unsafe fn on_body(envoy: EnvoyPtr, filter: *mut Filter) -> u32 {
    const CONTINUE: u32 = 0;
    const STOP_NO_BUFFER: u32 = 3;
    let envoy = Exchange::new(envoy);
    let next = fail_closed(
        || unsafe { (*filter).on_body(&envoy) },
        || {
            if !envoy.answered.get() {
                envoy.reset("sidegate_fault");
            }
            Next::Stop
        },
    );
    match next {
        Next::Continue => CONTINUE,
        Next::Stop | Next::Wait => STOP_NO_BUFFER,
    }
}

/// # Safety
/// Called by Envoy with pointers that are valid for this hook.
pub unsafe fn hook(
    envoy: EnvoyPtr,
    filter: *mut Filter,
    run: impl FnOnce(&mut dyn HttpFilter, &Exchange),
) {
    let envoy = Exchange::new(envoy);
    // The request was judged already: what a fault here can lose is a record of it.
    fail_closed(|| run(unsafe { (*filter).as_mut() }, &envoy), || ());
}
