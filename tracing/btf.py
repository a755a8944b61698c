"""Offsets of struct members in the running kernel, from its own type information (BTF).

BCC compiles against the headers that are installed, which need not be those of the kernel that
runs; a struct is read with the kernel's own offsets instead. Source: Documentation/bpf/btf.rst.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

VMLINUX = Path("/sys/kernel/btf/vmlinux")
_STRUCT, _UNION = 4, 5
# Bytes that follow each type's header, by kind: fixed, and for each of its members.
_TAIL = {
    1: (4, 0),
    3: (12, 0),
    _STRUCT: (0, 12),
    _UNION: (0, 12),
    6: (0, 8),
    13: (0, 8),
    14: (4, 0),
    15: (0, 12),
    17: (4, 0),
    19: (0, 12),
}


class Btf:
    """Only structs and unions are kept. Raises OSError, ValueError."""

    def __init__(self, path: Path = VMLINUX) -> None:
        self._data = path.read_bytes()
        magic, _, _, header, types, size, names, _ = struct.unpack_from("<HBBIIIII", self._data)
        if magic != 0xEB9F:
            raise ValueError(f"{path} is not BTF of this byte order")
        self._names = header + names
        self._at: dict[int, int] = {}
        self._by_name: dict[str, int] = {}
        at, number = header + types, 0
        while at < header + types + size:
            number += 1
            name, info = struct.unpack_from("<II", self._data, at)
            kind, count = info >> 24 & 0x1F, info & 0xFFFF
            if kind in (_STRUCT, _UNION):
                self._at[number] = at
                self._by_name.setdefault(self._name(name), number)
            fixed, each = _TAIL.get(kind, (0, 0))
            at += 12 + fixed + each * count

    def offset(self, type_name: str, member: str) -> int:
        """Bytes from the start of a struct to a member; raises KeyError if there is none."""
        found = next(self._find(self._by_name[type_name], member), None)
        if found is None:
            raise KeyError(f"struct {type_name} has no member {member}")
        return found

    def _find(self, number: int, member: str) -> Iterator[int]:
        """Members of anonymous structs and unions count as the outer one's."""
        at = self._at[number]
        info = struct.unpack_from("<I", self._data, at + 4)[0]
        for index in range(info & 0xFFFF):
            name, kind, bits = struct.unpack_from("<III", self._data, at + 12 + 12 * index)
            begin = (bits & 0xFFFFFF if info >> 31 else bits) // 8
            if name and self._name(name) == member:
                yield begin
            elif not self._name(name) and kind in self._at:
                yield from (begin + inner for inner in self._find(kind, member))

    def _name(self, offset: int) -> str:
        begin = self._names + offset
        return self._data[begin : self._data.index(b"\0", begin)].decode()
