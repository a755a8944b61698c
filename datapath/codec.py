"""Bytes of keys and values, as ``bpf/structs.h`` lays them out."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from datapath.consts import DropReason, Verdict
from policy_engine.model import Action, Direction, PolicyKey

Address = IPv4Address | IPv6Address
Prefix = IPv4Network | IPv6Network

_MAPPED = bytes(10) + b"\xff\xff"
_EVENT = struct.Struct("<Q16s16sII2s2sHBBBBBB4x")
_TUPLE = struct.Struct("<16s16s2s2sBBxx")


def address_bytes(address: Address) -> bytes:
    """16 bytes; an IPv4 address is v4-mapped."""
    return _MAPPED + address.packed if address.version == 4 else address.packed


def address_of(raw: bytes) -> Address:
    return ip_address(raw[12:]) if raw[:12] == _MAPPED else ip_address(raw)


def ipcache_key(prefix: Prefix) -> bytes:
    length = prefix.prefixlen + (96 if prefix.version == 4 else 0)
    return struct.pack("<I", length) + address_bytes(prefix.network_address)


def prefix_of(key: bytes) -> Prefix:
    (length,) = struct.unpack_from("<I", key)
    raw = key[4:20]
    if length >= 96 and raw[:12] == _MAPPED:
        return IPv4Network((raw[12:], length - 96))
    return IPv6Network((raw, length))


@dataclass(frozen=True, slots=True)
class IpcacheValue:
    identity: int
    endpoint_id: int = 0

    def pack(self) -> bytes:
        return struct.pack("<IHH", self.identity, self.endpoint_id, 0)

    @classmethod
    def unpack(cls, raw: bytes) -> IpcacheValue:
        return cls(*struct.unpack("<IHH", raw)[:2])


_BRIDGED = 1  # ENDPOINT_BRIDGED


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An interface as the programs know it; an address is None where there is none.

    ``bridged``: it is the port of a bridge.
    """

    id: int
    identity: int
    ifindex: int
    ipv4: IPv4Address | None = None
    ipv6: IPv6Address | None = None
    bridged: bool = False

    def pack(self) -> bytes:
        v4 = self.ipv4.packed if self.ipv4 else bytes(4)
        v6 = self.ipv6.packed if self.ipv6 else bytes(16)
        return struct.pack("<IHH4s4x16s", self.identity, self.id, self.bridged, v4, v6)

    @classmethod
    def unpack(cls, ifindex: int, raw: bytes) -> Endpoint:
        identity, number, flags, v4, v6 = struct.unpack("<IHH4s4x16s", raw)
        return cls(
            number,
            identity,
            ifindex,
            IPv4Address(v4) if any(v4) else None,
            IPv6Address(v6) if any(v6) else None,
            bool(flags & _BRIDGED),
        )


def policy_key(endpoint_id: int, key: PolicyKey) -> bytes:
    return struct.pack(
        "<HBBI2sBx",
        endpoint_id,
        key.direction,
        key.protocol,
        key.identity,
        key.port.to_bytes(2, "big"),
        key.port_bits,
    )


def policy_key_fields(raw: bytes) -> tuple[int, Direction, int, int, int, int]:
    """(endpoint id, direction, protocol, identity, port, leading bits of it that count)"""
    endpoint_id, direction, protocol, identity, port, bits = struct.unpack("<HBBI2sBx", raw)
    return endpoint_id, Direction(direction), protocol, identity, int.from_bytes(port, "big"), bits


def policy_value(action: Action, proxy_port: int) -> bytes:
    return struct.pack("<BxH", action, proxy_port)


def policy_value_fields(raw: bytes) -> tuple[Action, int]:
    action, port = struct.unpack("<BxH", raw)
    return Action(action), port


@dataclass(frozen=True, slots=True)
class Event:
    """One verdict of the kernel. ``ktime`` is CLOCK_MONOTONIC, in nanoseconds."""

    ktime: int
    saddr: str
    daddr: str
    source_identity: int
    destination_identity: int
    sport: int
    dport: int
    endpoint_id: int
    protocol: int
    direction: Direction
    verdict: Verdict
    reason: DropReason
    tcp_flags: int
    family: int

    @classmethod
    def unpack(cls, raw: bytes) -> Event:
        (
            ktime,
            saddr,
            daddr,
            source,
            destination,
            sport,
            dport,
            endpoint_id,
            protocol,
            direction,
            verdict,
            reason,
            flags,
            family,
        ) = _EVENT.unpack(raw)
        return cls(
            ktime,
            str(address_of(saddr)),
            str(address_of(daddr)),
            source,
            destination,
            int.from_bytes(sport, "big"),
            int.from_bytes(dport, "big"),
            endpoint_id,
            protocol,
            Direction(direction),
            Verdict(verdict),
            DropReason(reason),
            flags,
            family,
        )


def tuple_fields(raw: bytes) -> tuple[str, str, int, int, int, Direction]:
    """(source, destination, source port, destination port, protocol, direction)"""
    saddr, daddr, sport, dport, protocol, direction = _TUPLE.unpack(raw)
    return (
        str(address_of(saddr)),
        str(address_of(daddr)),
        int.from_bytes(sport, "big"),
        int.from_bytes(dport, "big"),
        protocol,
        Direction(direction),
    )
