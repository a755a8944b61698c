//! Addresses, as Envoy's filters of connections give them: text and port.

use crate::ffi::{EnvoyBuffer, EnvoyPtr};
use std::net::{IpAddr, SocketAddr};

/// None unless it is an IP address.
///
/// # Safety
/// `filter` is Envoy's for the hook in progress, and of the kind that `get` is for.
pub(crate) unsafe fn address(
    filter: EnvoyPtr,
    get: unsafe extern "C" fn(EnvoyPtr, *mut EnvoyBuffer, *mut u32) -> bool,
) -> Option<SocketAddr> {
    let (mut address, mut port) = (EnvoyBuffer::EMPTY, 0);
    // SAFETY: the text is parsed before the hook returns.
    let text = unsafe { get(filter, &mut address, &mut port).then(|| address.bytes())? };
    let ip: IpAddr = std::str::from_utf8(text).ok()?.parse().ok()?;
    Some(SocketAddr::new(ip, port.try_into().ok()?))
}
