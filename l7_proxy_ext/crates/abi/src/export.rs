//! The symbols that Envoy looks up in the library.

/// Exports every hook of the listener, network, HTTP and bootstrap kinds for one [`Module`].
///
/// Envoy rejects a library that lacks any hook of a kind it uses, so those that Sidegate has no
/// use for are here too, as functions that take nothing and return 0: "continue" wherever they
/// return something. On the platforms that Envoy runs on the caller cleans up the arguments.
///
/// [`Module`]: crate::Module
#[macro_export]
macro_rules! export {
    ($module:expr) => {
        use $crate::ffi::{ABI_VERSION, EnvoyBuffer, EnvoyPtr, EventCallback, ModulePtr};
        use $crate::{http, listener, module, network};

        static MODULE: &dyn $crate::Module = &$module;

        $crate::hooks! {
            envoy_dynamic_module_on_program_init() -> *const std::ffi::c_char {
                ABI_VERSION.as_ptr()
            }

            envoy_dynamic_module_on_bootstrap_extension_config_new(
                envoy: EnvoyPtr, name: EnvoyBuffer, config: EnvoyBuffer) -> ModulePtr {
                module::bootstrap_new(MODULE, envoy, name, config)
            }
            envoy_dynamic_module_on_bootstrap_extension_config_destroy(config: ModulePtr) -> () {
                module::destroy::<()>(config)
            }
            envoy_dynamic_module_on_bootstrap_extension_new(
                config: ModulePtr, _envoy: EnvoyPtr) -> ModulePtr {
                config
            }
            envoy_dynamic_module_on_bootstrap_extension_shutdown(
                _envoy: EnvoyPtr, _extension: ModulePtr, done: EventCallback,
                context: *mut std::ffi::c_void) -> () {
                module::shutdown(MODULE, done, context)
            }

            envoy_dynamic_module_on_listener_filter_config_new(
                _envoy: EnvoyPtr, name: EnvoyBuffer, config: EnvoyBuffer) -> ModulePtr {
                module::config_new(name, config, |name, config| MODULE.listener(name, config))
            }
            envoy_dynamic_module_on_listener_filter_config_destroy(config: ModulePtr) -> () {
                module::destroy::<$crate::Factory<listener::Filter>>(config)
            }
            envoy_dynamic_module_on_listener_filter_new(
                config: ModulePtr, _envoy: EnvoyPtr) -> ModulePtr {
                module::filter_new::<listener::Filter>(config)
            }
            envoy_dynamic_module_on_listener_filter_on_accept(
                envoy: EnvoyPtr, filter: ModulePtr) -> u32 {
                listener::on_accept(envoy, filter.cast_mut().cast())
            }
            envoy_dynamic_module_on_listener_filter_on_data(
                envoy: EnvoyPtr, filter: ModulePtr, _length: usize) -> u32 {
                listener::on_data(envoy, filter.cast_mut().cast())
            }
            envoy_dynamic_module_on_listener_filter_get_max_read_bytes(
                _envoy: EnvoyPtr, filter: ModulePtr) -> usize {
                listener::peek_bytes(filter.cast_mut().cast())
            }
            envoy_dynamic_module_on_listener_filter_destroy(filter: ModulePtr) -> () {
                module::destroy::<listener::Filter>(filter)
            }

            envoy_dynamic_module_on_network_filter_config_new(
                _envoy: EnvoyPtr, name: EnvoyBuffer, config: EnvoyBuffer) -> ModulePtr {
                module::config_new(name, config, |name, config| MODULE.network(name, config))
            }
            envoy_dynamic_module_on_network_filter_config_destroy(config: ModulePtr) -> () {
                module::destroy::<$crate::Factory<network::Filter>>(config)
            }
            envoy_dynamic_module_on_network_filter_new(
                config: ModulePtr, _envoy: EnvoyPtr) -> ModulePtr {
                module::filter_new::<network::Filter>(config)
            }
            envoy_dynamic_module_on_network_filter_new_connection(
                envoy: EnvoyPtr, filter: ModulePtr) -> u32 {
                network::hook(envoy, filter.cast_mut().cast(), |filter, envoy| {
                    filter.on_new_connection(envoy)
                })
            }
            envoy_dynamic_module_on_network_filter_read(
                envoy: EnvoyPtr, filter: ModulePtr, _length: usize, end_stream: bool) -> u32 {
                network::hook(envoy, filter.cast_mut().cast(), |filter, envoy| {
                    filter.on_read(envoy, end_stream)
                })
            }
            envoy_dynamic_module_on_network_filter_write(
                envoy: EnvoyPtr, filter: ModulePtr, _length: usize, end_stream: bool) -> u32 {
                network::hook(envoy, filter.cast_mut().cast(), |filter, envoy| {
                    filter.on_write(envoy, end_stream)
                })
            }
            envoy_dynamic_module_on_network_filter_scheduled(
                envoy: EnvoyPtr, filter: ModulePtr, _event: u64) -> () {
                network::on_scheduled(envoy, filter.cast_mut().cast())
            }
            envoy_dynamic_module_on_network_filter_destroy(filter: ModulePtr) -> () {
                module::destroy::<network::Filter>(filter)
            }

            envoy_dynamic_module_on_http_filter_config_new(
                _envoy: EnvoyPtr, name: EnvoyBuffer, config: EnvoyBuffer) -> ModulePtr {
                module::config_new(name, config, |name, config| MODULE.http(name, config))
            }
            envoy_dynamic_module_on_http_filter_config_destroy(config: ModulePtr) -> () {
                module::destroy::<$crate::Factory<http::Filter>>(config)
            }
            envoy_dynamic_module_on_http_filter_new(
                config: ModulePtr, _envoy: EnvoyPtr) -> ModulePtr {
                module::filter_new::<http::Filter>(config)
            }
            envoy_dynamic_module_on_http_filter_request_headers(
                envoy: EnvoyPtr, filter: ModulePtr, _end_stream: bool) -> u32 {
                http::on_request_headers(envoy, filter.cast_mut().cast())
            }
            envoy_dynamic_module_on_http_filter_response_headers(
                envoy: EnvoyPtr, filter: ModulePtr, _end_stream: bool) -> u32 {
                http::hook(envoy, filter.cast_mut().cast(), |filter, envoy| {
                    filter.on_response_headers(envoy)
                });
                0
            }
            envoy_dynamic_module_on_http_filter_request_body(
                envoy: EnvoyPtr, filter: ModulePtr, _end_stream: bool) -> u32 {
                http::on_body(envoy, filter.cast_mut().cast())
            }
            envoy_dynamic_module_on_http_filter_response_body(
                envoy: EnvoyPtr, filter: ModulePtr, _end_stream: bool) -> u32 {
                http::on_body(envoy, filter.cast_mut().cast())
            }
            envoy_dynamic_module_on_http_filter_stream_complete(
                envoy: EnvoyPtr, filter: ModulePtr) -> () {
                http::hook(envoy, filter.cast_mut().cast(), |filter, envoy| {
                    filter.on_complete(envoy)
                })
            }
            envoy_dynamic_module_on_http_filter_scheduled(
                envoy: EnvoyPtr, filter: ModulePtr, _event: u64) -> () {
                http::on_scheduled(envoy, filter.cast_mut().cast())
            }
            envoy_dynamic_module_on_http_filter_destroy(filter: ModulePtr) -> () {
                module::destroy::<http::Filter>(filter)
            }
        }

        $crate::idle_hooks! {
            envoy_dynamic_module_on_bootstrap_extension_admin_request
            envoy_dynamic_module_on_bootstrap_extension_cluster_add_or_update
            envoy_dynamic_module_on_bootstrap_extension_cluster_removal
            envoy_dynamic_module_on_bootstrap_extension_config_scheduled
            envoy_dynamic_module_on_bootstrap_extension_destroy
            envoy_dynamic_module_on_bootstrap_extension_drain_started
            envoy_dynamic_module_on_bootstrap_extension_file_changed
            envoy_dynamic_module_on_bootstrap_extension_http_callout_done
            envoy_dynamic_module_on_bootstrap_extension_listener_add_or_update
            envoy_dynamic_module_on_bootstrap_extension_listener_removal
            envoy_dynamic_module_on_bootstrap_extension_server_initialized
            envoy_dynamic_module_on_bootstrap_extension_timer_fired
            envoy_dynamic_module_on_bootstrap_extension_worker_thread_initialized

            envoy_dynamic_module_on_listener_filter_config_scheduled
            envoy_dynamic_module_on_listener_filter_http_callout_done
            envoy_dynamic_module_on_listener_filter_on_close
            envoy_dynamic_module_on_listener_filter_scheduled

            envoy_dynamic_module_on_network_filter_above_write_buffer_high_watermark
            envoy_dynamic_module_on_network_filter_below_write_buffer_low_watermark
            envoy_dynamic_module_on_network_filter_config_scheduled
            envoy_dynamic_module_on_network_filter_event
            envoy_dynamic_module_on_network_filter_http_callout_done

            envoy_dynamic_module_on_http_filter_config_http_callout_done
            envoy_dynamic_module_on_http_filter_config_http_stream_complete
            envoy_dynamic_module_on_http_filter_config_http_stream_data
            envoy_dynamic_module_on_http_filter_config_http_stream_headers
            envoy_dynamic_module_on_http_filter_config_http_stream_reset
            envoy_dynamic_module_on_http_filter_config_http_stream_trailers
            envoy_dynamic_module_on_http_filter_config_scheduled
            envoy_dynamic_module_on_http_filter_downstream_above_write_buffer_high_watermark
            envoy_dynamic_module_on_http_filter_downstream_below_write_buffer_low_watermark
            envoy_dynamic_module_on_http_filter_http_callout_done
            envoy_dynamic_module_on_http_filter_http_stream_complete
            envoy_dynamic_module_on_http_filter_http_stream_data
            envoy_dynamic_module_on_http_filter_http_stream_headers
            envoy_dynamic_module_on_http_filter_http_stream_reset
            envoy_dynamic_module_on_http_filter_http_stream_trailers
            envoy_dynamic_module_on_http_filter_local_reply
            envoy_dynamic_module_on_http_filter_per_route_config_destroy
            envoy_dynamic_module_on_http_filter_per_route_config_new
            envoy_dynamic_module_on_http_filter_request_trailers
            envoy_dynamic_module_on_http_filter_response_trailers
        }
    };
}

/// Exported functions; each body is an unsafe block under the contract of Envoy's `abi.h`.
#[doc(hidden)]
#[macro_export]
macro_rules! hooks {
    ($($name:ident($($arg:ident: $type:ty),*) -> $ret:ty $body:block)*) => {
        $(
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn $name($($arg: $type),*) -> $ret {
                // SAFETY: Envoy calls it as its ABI says, with pointers of its own and ours.
                #[allow(unused_unsafe)]
                unsafe { $body }
            }
        )*
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! idle_hooks {
    ($($name:ident)*) => {
        $(
            #[unsafe(no_mangle)]
            pub extern "C" fn $name() -> usize {
                0
            }
        )*
    };
}
