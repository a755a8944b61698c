//! Nothing unwinds into Envoy: a panic becomes the value that fails closed.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs `hook`; if it panics, `closed` decides what Envoy is told.
///
/// The panic's message goes to standard error through the panic hook, which Envoy's log shares.
pub fn fail_closed<R>(hook: impl FnOnce() -> R, closed: impl FnOnce() -> R) -> R {
    catch_unwind(AssertUnwindSafe(hook)).unwrap_or_else(|payload| {
        // Dropping a payload may panic in turn; it is a string and forgetting it costs nothing.
        std::mem::forget(payload);
        closed()
    })
}

#[cfg(test)]
mod tests {
    use super::fail_closed;

    #[test]
    fn a_value_passes_through() {
        assert_eq!(fail_closed(|| 1, || 2), 1);
    }

    #[test]
    fn a_panic_becomes_the_closed_value() {
        assert_eq!(fail_closed(|| panic!("fault on purpose"), || 2), 2);
    }

    #[test]
    fn a_payload_that_panics_when_dropped_is_harmless() {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("dropped");
            }
        }
        assert_eq!(fail_closed(|| std::panic::panic_any(Bomb), || 2), 2);
    }
}
