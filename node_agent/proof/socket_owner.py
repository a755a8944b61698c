"""Whose socket is at the other end of a connection within one network namespace.

Source: sock_diag(7), linux/inet_diag.h.
"""

from __future__ import annotations

import socket
import struct

_SOCK_DIAG = 4  # NETLINK_SOCK_DIAG of linux/netlink.h
_SOCK_DIAG_BY_FAMILY = 20
_REQUEST, _ERROR = 1, 2  # NLM_F_REQUEST, NLMSG_ERROR
_INET_DIAG_CGROUP_ID = 21  # since Linux 5.8
_NO_COOKIE = 0xFFFFFFFF
_HEADER = struct.Struct("=IHHII")
_MESSAGE_BYTES = 72  # struct inet_diag_msg
_ALL_STATES = 0xFFFFFFFF


def cgroup_of_peer(connection: socket.socket) -> int:
    """The cgroup of the socket that an IPv4 connection to an address of our own namespace ends in:
    whoever made it, or the listener that it came from. Call it where the connection was made.
    Raises OSError."""
    (address, port), (peer_address, peer_port) = connection.getsockname(), connection.getpeername()
    ends = struct.pack(
        "!HH4s12x4s12x", peer_port, port, socket.inet_aton(peer_address), socket.inet_aton(address)
    )
    asked = struct.pack("=BBBxI", socket.AF_INET, socket.IPPROTO_TCP, 0, _ALL_STATES)
    asked += ends + struct.pack("=III", 0, _NO_COOKIE, _NO_COOKIE)
    head = _HEADER.pack(_HEADER.size + len(asked), _SOCK_DIAG_BY_FAMILY, _REQUEST, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, _SOCK_DIAG) as kernel:
        kernel.settimeout(1)
        kernel.sendto(head + asked, (0, 0))
        answer = kernel.recv(8192)
    if _HEADER.unpack_from(answer)[1] == _ERROR:
        number = -struct.unpack_from("=i", answer, _HEADER.size)[0]
        raise OSError(number, f"sock_diag: no socket at {peer_address}:{peer_port}")
    return _cgroup(answer[_HEADER.size + _MESSAGE_BYTES :])


def _cgroup(attributes: bytes) -> int:
    while len(attributes) >= 4:
        size, kind = struct.unpack_from("=HH", attributes)
        if size < 4:
            break
        if kind == _INET_DIAG_CGROUP_ID:
            return int(struct.unpack_from("=Q", attributes, 4)[0])
        attributes = attributes[(size + 3) & ~3 :]
    raise OSError("sock_diag: the kernel does not say a socket's cgroup")
