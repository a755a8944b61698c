"""A thin binding: object files through libbpf.so.1, maps and links through bpf(2) itself.

libbpf 1.1 (Debian 12) has no TCX attach, hence the system call. Source: linux/bpf.h, libbpf.h.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Iterator
from functools import cache
from pathlib import Path

_SYS_BPF = {"x86_64": 321, "aarch64": 280}[platform.machine()]

_MAP_LOOKUP_ELEM, _MAP_UPDATE_ELEM, _MAP_DELETE_ELEM, _MAP_GET_NEXT_KEY = 1, 2, 3, 4
_OBJ_PIN, _OBJ_GET = 6, 7
_MAP_CREATE, _MAP_GET_FD_BY_ID = 0, 14
_OBJ_GET_INFO_BY_FD = 15
_MAP_LOOKUP_BATCH = 24
_LINK_CREATE, _LINK_UPDATE, _LINK_DETACH = 28, 29, 34
_HASH, _LRU_HASH = 1, 9  # their batches are told apart by bucket
_ARRAY, _F_MMAPABLE = 2, 1 << 10
_BATCH = 4096

TCX_INGRESS, TCX_EGRESS = 46, 47
TCX_FIRST, TCX_LAST = 8, 16  # BPF_F_BEFORE, BPF_F_AFTER, relative to none
CGROUP_HOOKS = {
    "connect4": 10,
    "connect6": 11,
    "sendmsg4": 14,
    "sendmsg6": 15,
    "recvmsg4": 19,
    "recvmsg6": 20,
    "getpeername4": 29,
    "getpeername6": 30,
}

_libc = ctypes.CDLL(None, use_errno=True)


class BpfError(OSError):
    """A bpf(2) call or libbpf failed; the message says which, on what."""


def _bpf(command: int, attributes: bytes, what: str) -> int:
    """The call, with the 128 bytes of ``union bpf_attr`` that every command here fits in."""
    return _call(command, ctypes.create_string_buffer(attributes, 128), what)


def _call(command: int, buffer: ctypes.Array[ctypes.c_char], what: str) -> int:
    result: int = _libc.syscall(_SYS_BPF, command, buffer, 128)
    if result < 0:
        number = ctypes.get_errno()
        raise BpfError(number, f"{what}: {os.strerror(number)}")
    return result


def _path_attributes(path: Path, fd: int = 0) -> tuple[bytes, ctypes.Array[ctypes.c_char]]:
    text = ctypes.create_string_buffer(str(path).encode())
    return struct.pack("<QII", ctypes.addressof(text), fd, 0), text


def pin(fd: int, path: Path) -> None:
    attributes, keep = _path_attributes(path, fd)
    _bpf(_OBJ_PIN, attributes, f"pin {path.name}")
    del keep


def get_pinned(path: Path) -> int:
    """A descriptor of a pinned map, program or link; raises BpfError (ENOENT where none is)."""
    attributes, keep = _path_attributes(path)
    fd = _bpf(_OBJ_GET, attributes, f"open {path.name}")
    del keep
    return fd


def create_array(value_bytes: int, entries: int, *, mappable: bool = False) -> int:
    """A new array map, as a descriptor. Raises BpfError."""
    flags = _F_MMAPABLE if mappable else 0
    return _bpf(
        _MAP_CREATE, struct.pack("<IIIII", _ARRAY, 4, value_bytes, entries, flags), "a new map"
    )


def map_by_id(number: int) -> int:
    """The map that the kernel gave this number, as a descriptor. Raises BpfError."""
    return _bpf(_MAP_GET_FD_BY_ID, struct.pack("<III", number, 0, 0), f"map {number}")


def create_link(program: int, target: int, hook: int, flags: int = 0) -> int:
    """``target`` is an interface's index for TCX, a directory's descriptor for a cgroup."""
    return _bpf(
        _LINK_CREATE, struct.pack("<IIII", program, target, hook, flags), f"attach to {target}"
    )


def update_link(link: int, program: int) -> None:
    """Replace the program of a link at once, without a moment in between."""
    _bpf(_LINK_UPDATE, struct.pack("<IIII", link, program, 0, 0), "replace a program")


def detach_link(link: int) -> None:
    """Its program runs no more when this returns; a link whose target is gone is no error."""
    _bpf(_LINK_DETACH, struct.pack("<I", link), "detach a program")


class Map:
    """A map by descriptor; keys and values are bytes."""

    def __init__(self, fd: int, name: str) -> None:
        self.fd, self.name = fd, name
        info = ctypes.create_string_buffer(256)
        _bpf(
            _OBJ_GET_INFO_BY_FD,
            struct.pack("<IIQ", fd, 256, ctypes.addressof(info)),
            f"map {name}",
        )
        kind, _, self.key_size, self.value_size, self.max_entries = struct.unpack_from(
            "<5I", info.raw
        )
        self.kind = kind
        per_cpu = kind in (5, 6, 10)  # PERCPU_HASH, PERCPU_ARRAY, LRU_PERCPU_HASH
        self._value_bytes = (
            (self.value_size + 7) // 8 * 8 * _possible_cpus() if per_cpu else self.value_size
        )
        self._key = ctypes.create_string_buffer(max(self.key_size, 1))
        self._value = ctypes.create_string_buffer(max(self._value_bytes, 1))
        self._attributes = struct.pack(
            "<IIQQQ", fd, 0, ctypes.addressof(self._key), ctypes.addressof(self._value), 0
        )
        self.writes = 0

    def get(self, key: bytes) -> bytes | None:
        """The value (for a per-CPU map all of them, each padded to 8 bytes); None if absent."""
        self._key.raw = key
        try:
            _bpf(_MAP_LOOKUP_ELEM, self._attributes, f"map {self.name}")
        except BpfError as error:
            if error.errno == errno.ENOENT:
                return None
            raise
        return self._value.raw

    def set(self, key: bytes, value: bytes) -> None:
        """Raises BpfError, E2BIG or ENOSPC where the map is full."""
        self._key.raw, self._value.raw = key, value
        _bpf(_MAP_UPDATE_ELEM, self._attributes, f"map {self.name}")
        self.writes += 1

    def delete(self, key: bytes) -> bool:
        """Whether there was such a key."""
        self._key.raw = key
        attributes = struct.pack("<IIQ", self.fd, 0, ctypes.addressof(self._key))
        try:
            _bpf(_MAP_DELETE_ELEM, attributes, f"map {self.name}")
        except BpfError as error:
            if error.errno == errno.ENOENT:
                return False
            raise
        self.writes += 1
        return True

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """All entries; one that goes meanwhile may be missed or end the walk early."""
        yield from self._batches() if self.kind in {_HASH, _LRU_HASH} else self._one_by_one()

    def _batches(self) -> Iterator[tuple[bytes, bytes]]:
        """Thousands of entries a call: an agent's start reads whole maps."""
        keys = ctypes.create_string_buffer(_BATCH * self.key_size)
        values = ctypes.create_string_buffer(_BATCH * self.value_size)
        place = ctypes.create_string_buffer(8)
        begins, ended = 0, False
        while not ended:
            buffer = ctypes.create_string_buffer(
                struct.pack(
                    "<QQQQIIQQ", begins, ctypes.addressof(place), ctypes.addressof(keys),
                    ctypes.addressof(values), _BATCH, self.fd, 0, 0,
                ),
                128,
            )  # fmt: skip
            try:
                _call(_MAP_LOOKUP_BATCH, buffer, f"map {self.name}")
            except BpfError as error:
                if error.errno != errno.ENOENT:
                    raise
                ended = True
            begins = ctypes.addressof(place)
            (count,) = struct.unpack_from("<I", buffer.raw, 32)
            raw_keys, raw_values = keys.raw, values.raw
            for i in range(count):
                yield (
                    raw_keys[i * self.key_size : (i + 1) * self.key_size],
                    raw_values[i * self.value_size : (i + 1) * self.value_size],
                )

    def _one_by_one(self) -> Iterator[tuple[bytes, bytes]]:
        following = ctypes.create_string_buffer(max(self.key_size, 1))
        previous: bytes | None = None
        for _ in range(2 * self.max_entries):
            key = ctypes.create_string_buffer(previous or b"", max(self.key_size, 1))
            address = ctypes.addressof(key) if previous is not None else 0
            attributes = struct.pack("<IIQQQ", self.fd, 0, address, ctypes.addressof(following), 0)
            try:
                _bpf(_MAP_GET_NEXT_KEY, attributes, f"map {self.name}")
            except BpfError as error:
                if error.errno == errno.ENOENT:
                    return
                raise
            previous = following.raw
            value = self.get(previous)
            if value is not None:
                yield previous, value


def _possible_cpus() -> int:
    last = Path("/sys/devices/system/cpu/possible").read_text().strip().rpartition("-")[2]
    return int(last) + 1


@cache
def _library() -> ctypes.CDLL:
    library = ctypes.CDLL("libbpf.so.1", use_errno=True)
    pointer, text, integer = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
    for name, result, arguments in (
        ("bpf_object__open_file", pointer, [text, pointer]),
        ("bpf_object__load", integer, [pointer]),
        ("bpf_object__close", None, [pointer]),
        ("bpf_object__next_map", pointer, [pointer, pointer]),
        ("bpf_object__next_program", pointer, [pointer, pointer]),
        ("bpf_map__name", text, [pointer]),
        ("bpf_map__fd", integer, [pointer]),
        ("bpf_map__reuse_fd", integer, [pointer, integer]),
        ("bpf_program__name", text, [pointer]),
        ("bpf_program__fd", integer, [pointer]),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def map_names(path: Path) -> list[str]:
    """Of an object file. Raises BpfError."""
    handle = _open_object(path)
    try:
        return [name for name, _ in _each(handle, "map")]
    finally:
        _library().bpf_object__close(handle)


def load_object(path: Path, pinned_maps: dict[str, int]) -> tuple[dict[str, int], dict[str, int]]:
    """Load an object file, taking over the maps given by name; (maps, programs) as new descriptors.

    Raises BpfError: the verifier's own words are on stderr then.
    """
    library = _library()
    handle = _open_object(path)
    try:
        for name, each in _each(handle, "map"):
            if name in pinned_maps and library.bpf_map__reuse_fd(each, pinned_maps[name]) < 0:
                raise BpfError(ctypes.get_errno(), f"map {name} has another layout than the pinned")
        if (result := library.bpf_object__load(handle)) < 0:
            raise BpfError(-result, f"the kernel refused {path.name}: {os.strerror(-result)}")
        maps = {n: os.dup(library.bpf_map__fd(each)) for n, each in _each(handle, "map")}
        programs = {
            n: os.dup(library.bpf_program__fd(each)) for n, each in _each(handle, "program")
        }
    finally:
        library.bpf_object__close(handle)
    return maps, programs


def _open_object(path: Path) -> int:
    handle: int | None = _library().bpf_object__open_file(str(path).encode(), None)
    if not handle:
        raise BpfError(ctypes.get_errno(), f"{path} is not a BPF object: run make")
    return handle


def _each(handle: int, kind: str) -> Iterator[tuple[str, int]]:
    library = _library()
    following = getattr(library, f"bpf_object__next_{kind}")
    name = getattr(library, f"bpf_{kind}__name")
    item = following(handle, None)
    while item:
        yield name(item).decode(), item
        item = following(handle, item)
