"""Bytes of keys and values of the service maps, as ``bpf/services.h`` lays them out."""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass

from datapath.codec import Address, address_bytes, address_of
from datapath.service_model import Backend, Frontend
from policy_engine.model import Protocol

_L4_ADDR = struct.Struct("<16s2sB5x")
_SERVICE = struct.Struct("<4I")
_SLOT = struct.Struct("<3I")


class MemberState(enum.IntEnum):
    READY = 1
    DRAINING = 2


class ServiceCounter(enum.IntEnum):
    NO_BACKEND = 0
    MISSING_BACKEND = 1


@dataclass(frozen=True, slots=True)
class ServiceValue:
    id: int
    revision: int
    count: int
    affinity_seconds: int = 0

    def pack(self) -> bytes:
        return _SERVICE.pack(self.id, self.revision, self.count, self.affinity_seconds)

    @classmethod
    def unpack(cls, raw: bytes) -> ServiceValue:
        return cls(*_SERVICE.unpack(raw))


def l4_addr(address: Address, port: int, protocol: Protocol) -> bytes:
    return _L4_ADDR.pack(address_bytes(address), port.to_bytes(2, "big"), protocol)


def frontend_of(raw: bytes) -> Frontend:
    address, port, protocol = _L4_ADDR.unpack(raw)
    return Frontend(address_of(address), int.from_bytes(port, "big"), Protocol(protocol))


def backend_of(raw: bytes) -> Backend:
    return Backend(*frontend_of(raw)[:2])


def slot_key(service_id: int, revision: int, slot: int) -> bytes:
    return _SLOT.pack(service_id, revision, slot)


def slot_fields(raw: bytes) -> tuple[int, int, int]:
    """(service id, revision, slot)"""
    service_id, revision, slot = _SLOT.unpack(raw)
    return service_id, revision, slot


def member_key(service_id: int, backend: bytes) -> bytes:
    return struct.pack("<I4x", service_id) + backend


def member_fields(raw: bytes) -> tuple[int, Backend]:
    """(service id, backend)"""
    return int.from_bytes(raw[:4], "little"), backend_of(raw[8:])


def flow_key(socket_cookie: int, backend: bytes) -> bytes:
    return socket_cookie.to_bytes(8, "little") + backend
