"""Reads the ``events`` ring buffer by mmap. Layout: Documentation/bpf/ringbuf.rst of the kernel."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator

from datapath.codec import Event

_BUSY, _DISCARD = 1 << 31, 1 << 30
_PAGE = mmap.PAGESIZE


class EventRing:
    """``fd`` becomes readable when there are events; reading consumes them."""

    def __init__(self, fd: int, size: int) -> None:
        self.fd = fd
        self._mask = size - 1
        self._consumer = mmap.mmap(fd, _PAGE, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        self._data = mmap.mmap(fd, _PAGE + 2 * size, mmap.MAP_SHARED, mmap.PROT_READ, offset=_PAGE)

    def read(self, limit: int = 4096) -> Iterator[Event]:
        """At most ``limit`` events, so that a flood cannot hold the caller."""
        (position,) = struct.unpack_from("<Q", self._consumer)
        for _ in range(limit):
            (end,) = struct.unpack_from("<Q", self._data)
            if position >= end:
                return
            at = _PAGE + (position & self._mask)
            (header,) = struct.unpack_from("<I", self._data, at)
            if header & _BUSY:
                return
            length = header & ~(_BUSY | _DISCARD)
            event = None
            if not header & _DISCARD:
                event = Event.unpack(self._data[at + 8 : at + 8 + length])
            position += (length + 8 + 7) // 8 * 8
            struct.pack_into("<Q", self._consumer, 0, position)
            if event is not None:
                yield event

    def close(self) -> None:
        self._consumer.close()
        self._data.close()
