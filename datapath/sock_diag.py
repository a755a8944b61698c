"""Connected datagram sockets of a network namespace, and how to end them.

The kernel runs no program when such a socket sends, so one whose backend went must be told: what
it receives next is ECONNABORTED, what it sends fails (EDESTADDRREQ) until it connects again.
Source: sock_diag(7), linux/inet_diag.h.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from datapath import namespaces
from datapath.codec import address_of
from datapath.service_model import Backend

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY, _SOCK_DESTROY = 20, 21
_NLM_F_REQUEST, _NLM_F_ACK, _NLM_F_DUMP = 1, 4, 0x300
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_ESTABLISHED = 1
_HEADER = struct.Struct("=IHHII")
_REQUEST = struct.Struct("=BBBxI48s")  # inet_diag_req_v2
_ANSWER = struct.Struct("=BBxx48s")  # the beginning of inet_diag_msg
_SOCKID = struct.Struct("=2s2s16s16sIQ")
_ANY = bytes(40) + b"\xff" * 8  # INET_DIAG_NOCOOKIE
_TIMEOUT_S = 1.0


@dataclass(frozen=True, slots=True)
class _Found:
    family: int
    sockid: bytes

    @property
    def cookie(self) -> int:
        cookie: int = _SOCKID.unpack(self.sockid)[5]
        return cookie

    @property
    def peer(self) -> Backend:
        _, port, _, address, _, _ = _SOCKID.unpack(self.sockid)
        raw = address[:4] if self.family == socket.AF_INET else address
        return Backend(
            ip_address(raw) if len(raw) == 4 else address_of(raw), int.from_bytes(port, "big")
        )


def end_datagrams(namespace: Path, is_stale: Callable[[int, Backend], bool]) -> int:
    """How many connected UDP sockets were ended; ``is_stale(cookie, peer)`` says which.

    Raises OSError.
    """
    ended = 0
    with namespaces.inside(namespace, _open) as channel:
        for family in (socket.AF_INET, socket.AF_INET6):
            for found in list(_dump(channel, family)):
                if is_stale(found.cookie, found.peer):
                    ended += _destroy(channel, found)
    return ended


def _open() -> socket.socket:
    channel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG)
    channel.settimeout(_TIMEOUT_S)
    channel.bind((0, 0))
    return channel


def _dump(channel: socket.socket, family: int) -> Iterator[_Found]:
    request = _REQUEST.pack(family, socket.IPPROTO_UDP, 0, 1 << _ESTABLISHED, _ANY)
    _send(channel, _SOCK_DIAG_BY_FAMILY, _NLM_F_DUMP, request)
    for kind, payload in _receive(channel):
        if kind == _NLMSG_DONE:
            return
        _raise_for(kind, payload)
        found_family, _, sockid = _ANSWER.unpack_from(payload)
        yield _Found(found_family, sockid)


def _destroy(channel: socket.socket, found: _Found) -> bool:
    """False if it went by itself."""
    request = _REQUEST.pack(found.family, socket.IPPROTO_UDP, 0, 1 << _ESTABLISHED, found.sockid)
    _send(channel, _SOCK_DESTROY, _NLM_F_ACK, request)
    try:
        _raise_for(*next(_receive(channel)))
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise
        return False
    return True


def _send(channel: socket.socket, kind: int, flags: int, payload: bytes) -> None:
    length = _HEADER.size + len(payload)
    channel.send(_HEADER.pack(length, kind, _NLM_F_REQUEST | flags, 1, 0) + payload)


def _receive(channel: socket.socket) -> Iterator[tuple[int, bytes]]:
    while True:
        data = channel.recv(1 << 16)
        while data:
            length, kind, _, _, _ = _HEADER.unpack_from(data)
            yield kind, data[_HEADER.size : length]
            data = data[(length + 3) & ~3 :]


def _raise_for(kind: int, payload: bytes) -> None:
    if kind == _NLMSG_ERROR:
        (number,) = struct.unpack_from("=i", payload)
        if number:
            raise OSError(-number, f"sock_diag: {os.strerror(-number)}")
