//! The part of Envoy's dynamic module ABI (v0.2.0, `abi.h`) that Sidegate uses.
//!
//! Only callbacks that Envoy 1.39 (v0.1.0) exports too. Names are Envoy's, so that a test can look
//! each of them up in the dynamic symbols of the Envoy binary.

use std::ffi::c_void;

/// What `envoy_dynamic_module_on_program_init` returns.
pub const ABI_VERSION: &std::ffi::CStr = c"v0.2.0";

/// Bytes that Envoy owns, valid until the hook in progress returns.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct EnvoyBuffer {
    pub ptr: *const u8,
    pub len: usize,
}

impl EnvoyBuffer {
    pub const EMPTY: Self = Self { ptr: std::ptr::null(), len: 0 };

    /// # Safety
    /// Envoy filled the buffer in, and the slice is not kept after the hook in progress.
    pub unsafe fn bytes<'a>(self) -> &'a [u8] {
        if self.ptr.is_null() || self.len == 0 {
            return &[];
        }
        unsafe { std::slice::from_raw_parts(self.ptr, self.len) }
    }
}

/// Bytes that the module owns; Envoy copies what it keeps.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ModuleBuffer {
    ptr: *const u8,
    len: usize,
}

impl From<&[u8]> for ModuleBuffer {
    fn from(bytes: &[u8]) -> Self {
        Self { ptr: bytes.as_ptr(), len: bytes.len() }
    }
}

impl From<&str> for ModuleBuffer {
    fn from(text: &str) -> Self {
        text.as_bytes().into()
    }
}

/// `envoy_dynamic_module_type_module_http_header`
#[repr(C)]
pub struct ModuleHeader {
    pub name: ModuleBuffer,
    pub value: ModuleBuffer,
}

pub type EnvoyPtr = *mut c_void;
pub type ModulePtr = *const c_void;

/// `envoy_dynamic_module_type_event_cb`
pub type EventCallback = unsafe extern "C" fn(*mut c_void);

pub const REQUEST_HEADER: u32 = 0;
pub const RESPONSE_HEADER: u32 = 2;
pub const ATTRIBUTE_REQUEST_PATH: u32 = 0;
pub const ATTRIBUTE_REQUEST_HOST: u32 = 2;
pub const ATTRIBUTE_REQUEST_METHOD: u32 = 4;
pub const ATTRIBUTE_REQUEST_PROTOCOL: u32 = 10;
pub const ATTRIBUTE_RESPONSE_CODE: u32 = 15;
pub const ATTRIBUTE_SOURCE_ADDRESS: u32 = 24;
pub const ATTRIBUTE_DESTINATION_ADDRESS: u32 = 26;
pub const ATTRIBUTE_URI_SAN_PEER: u32 = 37;
pub const ATTRIBUTE_UPSTREAM_ADDRESS: u32 = 41;
pub const ATTRIBUTE_UPSTREAM_URI_SAN_PEER: u32 = 49;
pub const ATTRIBUTE_UPSTREAM_LOCAL_ADDRESS: u32 = 51;
pub const LOG_INFO: u32 = 2;
pub const LOG_WARN: u32 = 3;
pub const LOG_ERROR: u32 = 4;
pub const STREAM_LOCAL_RESET: u32 = 0;
pub const CLOSE_FLUSH_WRITE: u32 = 0;
pub const CLOSE_NO_FLUSH: u32 = 1;

macro_rules! callbacks {
    ($(fn $name:ident($($arg:ident: $type:ty),*) $(-> $ret:ty)?;)*) => {
        unsafe extern "C" {
            $(pub fn $name($($arg: $type),*) $(-> $ret)?;)*
        }
        /// Every symbol that the Envoy binary has to export.
        pub const CALLBACKS: &[&str] = &[$(stringify!($name)),*];
    };
}

callbacks! {
    fn envoy_dynamic_module_callback_log(level: u32, message: ModuleBuffer);

    fn envoy_dynamic_module_callback_listener_filter_get_remote_address(
        filter: EnvoyPtr, address: *mut EnvoyBuffer, port: *mut u32) -> bool;
    fn envoy_dynamic_module_callback_listener_filter_get_local_address(
        filter: EnvoyPtr, address: *mut EnvoyBuffer, port: *mut u32) -> bool;
    fn envoy_dynamic_module_callback_listener_filter_set_filter_state(
        filter: EnvoyPtr, key: ModuleBuffer, value: ModuleBuffer) -> bool;
    fn envoy_dynamic_module_callback_listener_filter_get_buffer_chunk(
        filter: EnvoyPtr, chunk: *mut EnvoyBuffer) -> bool;
    fn envoy_dynamic_module_callback_listener_filter_close_socket(
        filter: EnvoyPtr, details: ModuleBuffer);

    fn envoy_dynamic_module_callback_network_get_filter_state_bytes(
        filter: EnvoyPtr, key: ModuleBuffer, value: *mut EnvoyBuffer) -> bool;
    fn envoy_dynamic_module_callback_network_filter_get_read_buffer_chunks_size(
        filter: EnvoyPtr) -> usize;
    fn envoy_dynamic_module_callback_network_filter_get_read_buffer_chunks(
        filter: EnvoyPtr, chunks: *mut EnvoyBuffer) -> bool;
    fn envoy_dynamic_module_callback_network_filter_drain_read_buffer(
        filter: EnvoyPtr, length: usize) -> bool;
    fn envoy_dynamic_module_callback_network_filter_append_read_buffer(
        filter: EnvoyPtr, data: ModuleBuffer) -> bool;
    fn envoy_dynamic_module_callback_network_filter_get_write_buffer_chunks_size(
        filter: EnvoyPtr) -> usize;
    fn envoy_dynamic_module_callback_network_filter_get_write_buffer_chunks(
        filter: EnvoyPtr, chunks: *mut EnvoyBuffer) -> bool;
    fn envoy_dynamic_module_callback_network_filter_drain_write_buffer(
        filter: EnvoyPtr, length: usize) -> bool;
    fn envoy_dynamic_module_callback_network_filter_append_write_buffer(
        filter: EnvoyPtr, data: ModuleBuffer) -> bool;
    fn envoy_dynamic_module_callback_network_filter_inject_read_data(
        filter: EnvoyPtr, data: ModuleBuffer, end_stream: bool);
    fn envoy_dynamic_module_callback_network_filter_inject_write_data(
        filter: EnvoyPtr, data: ModuleBuffer, end_stream: bool);
    fn envoy_dynamic_module_callback_network_filter_close(filter: EnvoyPtr, close_type: u32);

    fn envoy_dynamic_module_callback_network_filter_get_remote_address(
        filter: EnvoyPtr, address: *mut EnvoyBuffer, port: *mut u32) -> bool;
    fn envoy_dynamic_module_callback_network_filter_get_local_address(
        filter: EnvoyPtr, address: *mut EnvoyBuffer, port: *mut u32) -> bool;
    fn envoy_dynamic_module_callback_network_filter_get_upstream_host_address(
        filter: EnvoyPtr, address: *mut EnvoyBuffer, port: *mut u32) -> bool;
    fn envoy_dynamic_module_callback_network_filter_get_attribute_string(
        filter: EnvoyPtr, attribute: u32, value: *mut EnvoyBuffer) -> bool;
    fn envoy_dynamic_module_callback_network_filter_get_ssl_uri_sans_size(
        filter: EnvoyPtr) -> usize;
    fn envoy_dynamic_module_callback_network_filter_get_ssl_uri_sans(
        filter: EnvoyPtr, uris: *mut EnvoyBuffer) -> bool;
    fn envoy_dynamic_module_callback_network_filter_continue_reading(filter: EnvoyPtr);
    fn envoy_dynamic_module_callback_network_filter_scheduler_new(filter: EnvoyPtr) -> EnvoyPtr;
    fn envoy_dynamic_module_callback_network_filter_scheduler_commit(
        scheduler: EnvoyPtr, event: u64);
    fn envoy_dynamic_module_callback_network_filter_scheduler_delete(scheduler: EnvoyPtr);

    fn envoy_dynamic_module_callback_http_get_header(
        filter: EnvoyPtr, map: u32, key: ModuleBuffer, value: *mut EnvoyBuffer, index: usize,
        count: *mut usize) -> bool;
    fn envoy_dynamic_module_callback_http_send_response(
        filter: EnvoyPtr, status: u32, headers: *const ModuleHeader, headers_len: usize,
        body: ModuleBuffer, details: ModuleBuffer);
    fn envoy_dynamic_module_callback_http_get_filter_state_bytes(
        filter: EnvoyPtr, key: ModuleBuffer, value: *mut EnvoyBuffer) -> bool;
    fn envoy_dynamic_module_callback_http_filter_get_attribute_string(
        filter: EnvoyPtr, attribute: u32, value: *mut EnvoyBuffer) -> bool;
    fn envoy_dynamic_module_callback_http_filter_get_attribute_int(
        filter: EnvoyPtr, attribute: u32, value: *mut u64) -> bool;
    fn envoy_dynamic_module_callback_http_filter_reset_stream(
        filter: EnvoyPtr, reason: u32, details: ModuleBuffer);
    fn envoy_dynamic_module_callback_http_filter_scheduler_new(filter: EnvoyPtr) -> EnvoyPtr;
    fn envoy_dynamic_module_callback_http_filter_scheduler_commit(scheduler: EnvoyPtr, event: u64);
    fn envoy_dynamic_module_callback_http_filter_scheduler_delete(scheduler: EnvoyPtr);
    fn envoy_dynamic_module_callback_http_filter_continue_decoding(filter: EnvoyPtr);

    fn envoy_dynamic_module_callback_bootstrap_extension_config_signal_init_complete(
        config: EnvoyPtr);
}
