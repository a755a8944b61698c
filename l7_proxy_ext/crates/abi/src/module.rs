//! What a module is: factories for the filters, by name, and a bootstrap extension.

use crate::ffi::{self, EnvoyBuffer, EnvoyPtr, EventCallback, ModulePtr};
use crate::guard::fail_closed;
use crate::{http, listener, network};
use std::ffi::c_void;

/// Makes a filter for each connection or exchange, on Envoy's workers.
pub type Factory<F> = Box<dyn Fn() -> F + Send + Sync>;

/// Why a configuration is refused; Envoy logs it and rejects the listener or the bootstrap.
pub type Refusal = String;

/// The module. Each `name` is the `filter_name` of the configuration, `config` its content.
pub trait Module: Sync {
    /// Once, on the main thread, before any listener is made.
    fn bootstrap(&self, name: &str, config: &[u8]) -> Result<(), Refusal>;
    /// Envoy is about to exit; its workers have stopped.
    fn shutdown(&self);
    fn listener(&self, name: &str, config: &[u8]) -> Result<Factory<listener::Filter>, Refusal>;
    fn network(&self, name: &str, config: &[u8]) -> Result<Factory<network::Filter>, Refusal>;
    fn http(&self, name: &str, config: &[u8]) -> Result<Factory<http::Filter>, Refusal>;
}

/// Severity of a line in Envoy's log.
#[derive(Clone, Copy)]
pub enum Level {
    Info,
    Warn,
    Error,
}

/// Writes a line to Envoy's log (logger `dynamic_modules`). From any thread.
pub fn log(level: Level, line: &str) {
    let level = match level {
        Level::Info => ffi::LOG_INFO,
        Level::Warn => ffi::LOG_WARN,
        Level::Error => ffi::LOG_ERROR,
    };
    // SAFETY: Envoy copies the line.
    unsafe { ffi::envoy_dynamic_module_callback_log(level, line.into()) }
}

/// Runs a `config_new` hook: the boxed result as a pointer, null when refused.
///
/// # Safety
/// Called by Envoy with buffers that are valid for this hook.
pub unsafe fn config_new<T>(
    name: EnvoyBuffer,
    config: EnvoyBuffer,
    make: impl FnOnce(&str, &[u8]) -> Result<T, Refusal>,
) -> ModulePtr {
    let made = fail_closed(
        || {
            let (name, config) = unsafe { (name.bytes(), config.bytes()) };
            let name = std::str::from_utf8(name).map_err(|error| error.to_string())?;
            make(name, config).map_err(|refusal| format!("sidegate: filter {name:?}: {refusal}"))
        },
        || Err("sidegate: fault while reading its configuration".into()),
    );
    match made {
        Ok(made) => into_ptr(made),
        Err(refusal) => {
            log(Level::Error, &refusal);
            std::ptr::null()
        }
    }
}

/// Runs a `filter_new` hook; null closes the connection or stream.
///
/// # Safety
/// `factory` came from [`config_new`] and has not been destroyed.
pub unsafe fn filter_new<F>(factory: ModulePtr) -> ModulePtr {
    fail_closed(|| into_ptr(unsafe { (*factory.cast::<Factory<F>>())() }), std::ptr::null)
}

fn into_ptr<T>(value: T) -> ModulePtr {
    Box::into_raw(Box::new(value)).cast::<c_void>().cast_const()
}

/// Runs a `destroy` hook.
///
/// # Safety
/// `pointer` came from a hook that boxed a `T`, and Envoy destroys it once.
pub unsafe fn destroy<T>(pointer: ModulePtr) {
    fail_closed(|| drop(unsafe { Box::from_raw(pointer.cast_mut().cast::<T>()) }), || ());
}

/// Runs the bootstrap extension's `config_new`. Envoy takes traffic once it has returned: without
/// a policy every request is denied, so there is nothing to wait for.
///
/// # Safety
/// Called by Envoy with pointers that are valid for this hook.
pub unsafe fn bootstrap_new(
    module: &dyn Module,
    envoy: EnvoyPtr,
    name: EnvoyBuffer,
    config: EnvoyBuffer,
) -> ModulePtr {
    let made = unsafe { config_new(name, config, |name, config| module.bootstrap(name, config)) };
    if !made.is_null() {
        unsafe {
            ffi::envoy_dynamic_module_callback_bootstrap_extension_config_signal_init_complete(
                envoy,
            );
        }
    }
    made
}

/// Runs the `shutdown` hook; Envoy waits for `done`.
///
/// # Safety
/// `done` and `context` are Envoy's.
pub unsafe fn shutdown(module: &dyn Module, done: EventCallback, context: *mut c_void) {
    fail_closed(|| module.shutdown(), || ());
    unsafe { done(context) }
}
