"""The policy entries of endpoints in the kernel, moved by differences only."""

from __future__ import annotations

from collections.abc import Mapping

from datapath.codec import (
    policy_key,
    policy_key_fields,
    policy_value,
    policy_value_fields,
)
from datapath.consts import EGRESS_PORT_BITS, INGRESS_PORT_BITS, EndpointFlag
from datapath.libbpf import Map
from policy_engine.compile import PORT_BITS
from policy_engine.model import PRECEDENCE, Direction, EndpointPolicy, Parser

_FLAGS = {
    Direction.INGRESS: (
        EndpointFlag.INGRESS_ENFORCED,
        EndpointFlag.INGRESS_AUDIT,
        EndpointFlag.INGRESS_DEFAULT_ALLOW,
    ),
    Direction.EGRESS: (
        EndpointFlag.EGRESS_ENFORCED,
        EndpointFlag.EGRESS_AUDIT,
        EndpointFlag.EGRESS_DEFAULT_ALLOW,
    ),
}
_PORT_BITS = {Direction.INGRESS: INGRESS_PORT_BITS, Direction.EGRESS: EGRESS_PORT_BITS}
_BLOCKS = {d: 0xFFFE << shift for d, shift in _PORT_BITS.items()}
CLOSED = EndpointFlag.INGRESS_ENFORCED | EndpointFlag.EGRESS_ENFORCED


class PolicyMap:
    """Keeps a copy of each endpoint's entries, so that a change writes what changed only."""

    def __init__(self, policy: Map, flags: Map, proxy_ports: Mapping[Parser, int]) -> None:
        self._policy, self._flags, self._proxy_ports = policy, flags, proxy_ports
        self._entries: dict[int, dict[bytes, bytes]] = {}
        for key, value in policy.items():  # what an earlier agent wrote
            self._entries.setdefault(policy_key_fields(key)[0], {})[key] = value

    def close(self, endpoint_id: int) -> None:
        """Nothing passes until the next :meth:`sync`."""
        self._flags.set(_id(endpoint_id), _flags(CLOSED))
        self._remove(endpoint_id, self._entries.pop(endpoint_id, {}))

    def sync(self, endpoint_id: int, policy: EndpointPolicy) -> int:
        """The number of writes. At no moment is more allowed than before or after.

        Enforcement is switched on after its entries exist and off before they go; sizes of port
        blocks are looked for before entries of theirs come and until they have gone. Where the map
        is full the endpoint is closed and BpfError raised.
        """
        wanted = {
            policy_key(endpoint_id, key): policy_value(
                entry.action, self._proxy_ports[entry.parser] if entry.parser else 0
            )
            for key, entry in policy.entries.items()
        }
        known = self._entries.setdefault(endpoint_id, {})
        before = self._policy.writes + self._flags.writes
        flags = _flags_of(policy)
        known_flags = self._flags.get(_id(endpoint_id)) or _flags(CLOSED)
        try:
            self._switch(endpoint_id, _widened(known_flags, flags))
            for key, value in sorted(wanted.items(), key=lambda item: _rank(item[1])):
                if known.get(key) != value:
                    self._policy.set(key, value)
                    known[key] = value
        except OSError:
            self.close(endpoint_id)
            raise
        self._switch(endpoint_id, _widened(flags, known_flags))
        self._remove(endpoint_id, {key: known[key] for key in known.keys() - wanted.keys()})
        self._switch(endpoint_id, flags)
        return self._policy.writes + self._flags.writes - before

    def forget(self, endpoint_id: int) -> None:
        self._flags.delete(_id(endpoint_id))
        self._remove(endpoint_id, self._entries.pop(endpoint_id, {}))

    def _switch(self, endpoint_id: int, flags: bytes) -> None:
        if self._flags.get(_id(endpoint_id)) != flags:
            self._flags.set(_id(endpoint_id), flags)

    def _remove(self, endpoint_id: int, entries: Mapping[bytes, bytes]) -> None:
        known = self._entries.get(endpoint_id, {})
        for key in sorted(entries, key=lambda key: -_rank(entries[key])):  # DENY goes last
            self._policy.delete(key)
            known.pop(key, None)


def _rank(value: bytes) -> int:
    return PRECEDENCE.index(policy_value_fields(value)[0])


def _id(endpoint_id: int) -> bytes:
    return endpoint_id.to_bytes(4, "little")


def _flags(flags: EndpointFlag, blocks: int = 0) -> bytes:
    return (int(flags) | blocks).to_bytes(8, "little")


def _blocks_of(flags: bytes) -> int:
    """The bits that say which sizes of port blocks there are."""
    return int.from_bytes(flags, "little") & (
        _BLOCKS[Direction.INGRESS] | _BLOCKS[Direction.EGRESS]
    )


def _widened(flags: bytes, other: bytes) -> bytes:
    """These flags, looking for the other's port blocks too."""
    return (int.from_bytes(flags, "little") | _blocks_of(other)).to_bytes(8, "little")


def _flags_of(policy: EndpointPolicy) -> bytes:
    flags = EndpointFlag(0)
    for direction, (enforced, audit, default_allow) in _FLAGS.items():
        own = policy.direction(direction)
        flags |= enforced if own.enforced else EndpointFlag(0)
        flags |= audit if own.audit else EndpointFlag(0)
        flags |= default_allow if own.default_allow else EndpointFlag(0)
    blocks = 0
    for key in policy.entries:
        if 0 < key.port_bits < PORT_BITS:
            blocks |= 1 << (_PORT_BITS[key.direction] + key.port_bits)
    return _flags(flags, blocks)
