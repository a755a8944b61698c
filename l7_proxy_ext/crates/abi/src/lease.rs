//! The lease by which a sidecar enforces: a mapped page of the kernel's, written while it lives
//! (docs/adr/0013). Its descriptor comes over a Unix socket.

use crate::page::Page;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// `struct lease` of the datapath.
#[repr(C)]
struct Entry {
    time: AtomicU64,
    revision: AtomicU32,
    sides: AtomicU32,
}

const INGRESS: u32 = 1;
const EGRESS: u32 = 2;

pub struct Lease(Page<Entry>);

impl Lease {
    /// Takes the descriptor that waits in a socket.
    ///
    /// # Errors
    /// WouldBlock when nothing is there yet; InvalidData when no descriptor came with it.
    pub fn receive(socket: BorrowedFd) -> io::Result<Self> {
        let map = receive_fd(socket)?;
        // SAFETY: the agent gives out leases, which are laid out so and may be written.
        unsafe { Page::map(&map, libc::PROT_READ | libc::PROT_WRITE) }.map(Self)
    }

    /// This process enforces `revision` now, on these sides.
    pub fn hold(&self, revision: u64, ingress: bool, egress: bool) {
        let lease = self.0.get();
        let sides = (u32::from(ingress) * INGRESS) | (u32::from(egress) * EGRESS);
        lease.revision.store(u32::try_from(revision).unwrap_or(u32::MAX), Ordering::Relaxed);
        lease.sides.store(sides, Ordering::Relaxed);
        lease.time.store(monotonic_nanos(), Ordering::Release);
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
