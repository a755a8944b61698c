//! A page of the kernel's that is mapped into this process.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::NonNull;

const SIZE: usize = 4096;

/// The first element of an array map made with `BPF_F_MMAPABLE`, as a `T`. It outlives the map's
/// descriptor.
pub(crate) struct Page<T>(NonNull<T>);

// SAFETY: a page is reached by shared reference only, and lives as long as the value.
unsafe impl<T: Sync> Send for Page<T> {}
unsafe impl<T: Sync> Sync for Page<T> {}

impl<T> Page<T> {
    /// `protection` as of `mmap(2)`.
    ///
    /// # Safety
    /// The page holds a `T` of no more than its size, which others may change at any time: it has
    /// to be made of atomics; and it is stored to only where it may be written.
    pub(crate) unsafe fn map(map: &OwnedFd, protection: libc::c_int) -> io::Result<Self> {
        // SAFETY: a new mapping of our own.
        let page = unsafe {
            libc::mmap(std::ptr::null_mut(), SIZE, protection, libc::MAP_SHARED, map.as_raw_fd(), 0)
        };
        if page == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        NonNull::new(page.cast()).map(Self).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    pub(crate) fn get(&self) -> &T {
        // SAFETY: mapped until dropped, page-aligned, and a `T` by `map`'s contract.
        unsafe { self.0.as_ref() }
    }
}

impl<T> Drop for Page<T> {
    fn drop(&mut self) {
        // SAFETY: mapped by `map` with this size.
        unsafe { libc::munmap(self.0.as_ptr().cast(), SIZE) };
    }
}
