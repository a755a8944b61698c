//! Calling back a filter from another thread.

use crate::ffi::EnvoyPtr;

/// Has Envoy call a filter's `on_scheduled` on its own worker. It may outlive the filter: Envoy
/// forgets the call then.
pub struct Waker {
    scheduler: EnvoyPtr,
    commit: unsafe extern "C" fn(EnvoyPtr, u64),
    delete: unsafe extern "C" fn(EnvoyPtr),
}

// SAFETY: Envoy's schedulers are made to be committed from other threads.
unsafe impl Send for Waker {}

impl Waker {
    /// # Safety
    /// `scheduler` is new, and of the kind that `commit` and `delete` are for.
    pub(crate) unsafe fn new(
        scheduler: EnvoyPtr,
        commit: unsafe extern "C" fn(EnvoyPtr, u64),
        delete: unsafe extern "C" fn(EnvoyPtr),
    ) -> Self {
        Self { scheduler, commit, delete }
    }

    pub fn wake(self) {
        // SAFETY: alive until dropped.
        unsafe { (self.commit)(self.scheduler, 0) }
    }
}

impl Drop for Waker {
    fn drop(&mut self) {
        // SAFETY: made by `new`, deleted once.
        unsafe { (self.delete)(self.scheduler) }
    }
}
