//! The lease by which a sidecar enforces: a mapped page of the kernel's, written while it lives
//! (docs/adr/0013). Its descriptor comes over a Unix socket.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

const PAGE: usize = 4096;

/// `struct lease` of the datapath.
#[repr(C)]
struct Page {
    time: AtomicU64,
    revision: AtomicU64,
}

pub struct Lease(NonNull<Page>);

// SAFETY: written through atomics; the mapping lives as long as the value.
unsafe impl Send for Lease {}
unsafe impl Sync for Lease {}

impl Lease {
    /// Takes the descriptor that waits in a socket.
    ///
    /// # Errors
    /// WouldBlock when nothing is there yet; InvalidData when no descriptor came with it.
    pub fn receive(socket: BorrowedFd) -> io::Result<Self> {
        Self::map(&receive_fd(socket)?)
    }

    fn map(map: &OwnedFd) -> io::Result<Self> {
        // SAFETY: a new mapping of our own; the map it refers to outlives its descriptor.
        let page = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                PAGE,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                map.as_raw_fd(),
                0,
            )
        };
        if page == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        NonNull::new(page.cast()).map(Self).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// This process enforces `revision` now.
    pub fn hold(&self, revision: u64) {
        // SAFETY: mapped until dropped, and page-aligned.
        let page = unsafe { self.0.as_ref() };
        page.revision.store(revision, Ordering::Relaxed);
        page.time.store(monotonic_nanos(), Ordering::Release);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // SAFETY: mapped by `map` with this size.
        unsafe { libc::munmap(self.0.as_ptr().cast(), PAGE) };
    }
}

/// The clock of `bpf_ktime_get_ns`.
fn monotonic_nanos() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: filled in by the kernel; this clock always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}

fn receive_fd(socket: BorrowedFd) -> io::Result<OwnedFd> {
    let mut byte = [0_u8; 1];
    let mut control = [0_u64; 8]; // aligned as cmsghdr is
    let mut part = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: byte.len() };
    // SAFETY: all zeroes is a message without parts.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control) as _;
    // SAFETY: the message refers to buffers that live until the call has returned.
    let read = unsafe { libc::recvmsg(socket.as_raw_fd(), &mut message, libc::MSG_CMSG_CLOEXEC) };
    if read < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has filled the control buffer in; the header it points to is whole.
    unsafe {
        let header = libc::CMSG_FIRSTHDR(&message);
        let wanted = libc::CMSG_LEN(size_of::<i32>() as u32) as usize;
        if header.is_null()
            || (*header).cmsg_level != libc::SOL_SOCKET
            || (*header).cmsg_type != libc::SCM_RIGHTS
            || ((*header).cmsg_len as usize) < wanted
        {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(OwnedFd::from_raw_fd(std::ptr::read_unaligned(libc::CMSG_DATA(header).cast::<i32>())))
    }
}
