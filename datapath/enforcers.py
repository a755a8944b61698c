"""Ends whose own proxy enforces L7: their leases, and on which ports (docs/adr/0013)."""

from __future__ import annotations

from collections.abc import Mapping

from datapath import libbpf
from datapath.consts import Enforcer
from datapath.libbpf import Map
from policy_engine.model import Direction

LEASE_BYTES = 16  # time, revision, sides
Ports = Mapping[tuple[Direction, int], Enforcer]


class Enforcers:
    """``enforcers`` is by endpoint, direction and server port; port 0 is any other."""

    def __init__(self, leases: Map, enforcers: Map, proxy_cgroups: Map) -> None:
        self._leases, self._enforcers, self._cgroups = leases, enforcers, proxy_cgroups
        self._written: dict[int, dict[bytes, bytes]] = {}
        for key, value in enforcers.items():
            self._written.setdefault(int.from_bytes(key[:2], "little"), {})[key] = value

    def __contains__(self, endpoint_id: int) -> bool:
        """Whether it is said who enforces, perhaps by an earlier agent."""
        return bool(self._written.get(endpoint_id))

    def open_lease(self, endpoint_id: int) -> int:
        """A descriptor of its page, to be closed by the caller: the one that a proxy may have from
        an earlier agent, or a new one. Raises BpfError."""
        key = endpoint_id.to_bytes(4, "little")
        known = self._leases.get(key)
        if known is not None:
            return libbpf.map_by_id(int.from_bytes(known, "little"))
        fd = libbpf.create_array(LEASE_BYTES, 1, mappable=True)
        self._leases.set(key, fd.to_bytes(4, "little"))
        return fd

    def set(self, endpoint_id: int, ports: Ports) -> None:
        """These and no others; only what differs is written. Closing goes before opening."""
        wanted = {_key(endpoint_id, *at): bytes([each]) for at, each in ports.items()}
        known = self._written.get(endpoint_id, {})
        changed = {key: value for key, value in wanted.items() if known.get(key) != value}
        closing = Enforcer.UNPROVEN.to_bytes()
        for key, value in sorted(changed.items(), key=lambda each: each[1] != closing):
            self._enforcers.set(key, value)
        for key in known.keys() - wanted.keys():
            self._enforcers.delete(key)
        self._written[endpoint_id] = wanted

    def cgroup(self, endpoint_id: int) -> int:
        """As :meth:`set_cgroup` has it, perhaps of an earlier agent; 0: nowhere."""
        return int.from_bytes(self._cgroups.get(endpoint_id.to_bytes(4, "little")) or b"", "little")

    def set_cgroup(self, endpoint_id: int, cgroup: int) -> None:
        """Where the proxy's container runs (the number of the directory); 0: nowhere."""
        key = endpoint_id.to_bytes(4, "little")
        if cgroup:
            self._cgroups.set(key, cgroup.to_bytes(8, "little"))
        else:
            self._cgroups.delete(key)

    def forget(self, endpoint_id: int) -> None:
        self.set(endpoint_id, {})
        self._written.pop(endpoint_id)
        self.set_cgroup(endpoint_id, 0)
        self._leases.delete(endpoint_id.to_bytes(4, "little"))


def _key(endpoint_id: int, direction: Direction, port: int) -> bytes:
    head = endpoint_id.to_bytes(2, "little") + bytes([direction, 0])
    return head + port.to_bytes(2, "big") + bytes(2)
