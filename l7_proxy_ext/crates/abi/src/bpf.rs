//! Pinned BPF maps: look up by `bpf(2)`, read an array through `mmap(2)`.

use crate::page::Page;
use std::ffi::CString;
use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

const BPF_MAP_LOOKUP_ELEM: libc::c_long = 1;
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_F_RDONLY: u32 = 1 << 3;

/// The members of `union bpf_attr` (linux/bpf.h) for `BPF_OBJ_GET`.
#[repr(C)]
struct ObjGet {
    path: u64,
    fd: u32,
    flags: u32,
}

/// The members of `union bpf_attr` (linux/bpf.h) for `BPF_MAP_*_ELEM`.
#[repr(C)]
struct MapElement {
    fd: u32,
    _pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

fn bpf<T>(command: libc::c_long, attr: &mut T) -> io::Result<libc::c_long> {
    let attr: *mut T = attr;
    // SAFETY: `attr` holds the members that the command reads, and its size is given.
    match unsafe { libc::syscall(libc::SYS_bpf, command, attr, size_of::<T>()) } {
        -1 => Err(io::Error::last_os_error()),
        result => Ok(result),
    }
}

fn object(path: &Path, flags: u32) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attr = ObjGet { path: path.as_ptr() as u64, fd: 0, flags };
    let fd = bpf(BPF_OBJ_GET, &mut attr)?;
    // SAFETY: the kernel has just given us the descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// A pinned map of keys `K` and values `V`, which are plain bytes to the kernel.
pub struct Map<K, V>(OwnedFd, std::marker::PhantomData<fn(K) -> V>);

/// Types without padding and for which every bit pattern is a value.
///
/// # Safety
/// The implementer checks that.
unsafe trait Plain: Copy {}
unsafe impl<const N: usize> Plain for [u8; N] {}

impl<const K: usize, const V: usize> Map<[u8; K], [u8; V]> {
    /// Opens it for reading. Needs CAP_BPF unless unprivileged BPF is on.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(object(path, BPF_F_RDONLY)?, std::marker::PhantomData))
    }

    /// The value under `key`; None if there is none. The sizes must be those of the map.
    pub fn lookup(&self, key: &[u8; K]) -> io::Result<Option<[u8; V]>> {
        lookup(&self.0, key)
    }
}

fn lookup<K: Plain, V: Plain>(map: &OwnedFd, key: &K) -> io::Result<Option<V>> {
    let mut value = MaybeUninit::<V>::zeroed();
    let mut attr = MapElement {
        fd: map.as_raw_fd() as u32,
        _pad: 0,
        key: std::ptr::from_ref(key) as u64,
        value: value.as_mut_ptr() as u64,
        flags: 0,
    };
    match bpf(BPF_MAP_LOOKUP_ELEM, &mut attr) {
        // SAFETY: zeroed, then written by the kernel; every bit pattern is a value.
        Ok(_) => Ok(Some(unsafe { value.assume_init() })),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The first element of a pinned array of u64 made with `BPF_F_MMAPABLE`, mapped for reading.
pub struct Counter(Page<AtomicU64>);

impl Counter {
    pub fn open(path: &Path) -> io::Result<Self> {
        // A descriptor opened with BPF_F_RDONLY cannot be mapped, not even for reading (EINVAL).
        let map = object(path, 0)?;
        // SAFETY: the map's value is a u64, and it is only read.
        unsafe { Page::map(&map, libc::PROT_READ) }.map(Self)
    }

    pub fn get(&self) -> u64 {
        self.0.get().load(Ordering::Acquire)
    }
}
