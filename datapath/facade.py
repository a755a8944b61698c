"""The datapath of one node, as the agent sees it."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from datapath import masquerade, routing
from datapath.codec import (
    Address,
    Endpoint,
    Event,
    IpcacheValue,
    Prefix,
    ipcache_key,
    policy_key_fields,
    policy_value_fields,
    prefix_of,
    tuple_fields,
)
from datapath.consts import COUNTER_SLOTS, IDENTITY_WORLD, DropReason, EndpointFlag, Verdict
from datapath.enforcers import Enforcers
from datapath.libbpf import BpfError
from datapath.mesh_map import MeshMap, ViewKey, ViewValue
from datapath.policy_map import PolicyMap
from datapath.programs import Programs
from datapath.ring import EventRing
from policy_engine.compile import ports_text
from policy_engine.model import Direction, EndpointPolicy, Parser, Protocol

_WORLD: tuple[Prefix, ...] = (ip_network("0.0.0.0/0"), ip_network("::/0"))


@dataclass(frozen=True, slots=True)
class DatapathConfig:
    """``bpf_dir`` gets a bpffs mount; ``devices`` are the uplinks by name. ``kubelet_cgroup`` is a
    cgroup v2 directory whose processes' probes pass; None: nobody's do."""

    bpf_dir: Path
    devices: tuple[str, ...] = ()
    proxy_ports: Mapping[Parser, int] = field(
        default_factory=lambda: {Parser.HTTP: 15001, Parser.KAFKA: 15002}
    )
    kubelet_cgroup: Path | None = None


class Datapath:
    """Everything here is pinned: closing it, or the death of the process, changes no verdict."""

    def __init__(self, config: DatapathConfig) -> None:
        """Set up or take over the node's datapath. Raises BpfError, NetlinkError or OSError."""
        self._programs = Programs(config.bpf_dir)
        self._maps = self._programs.maps
        self._policy = PolicyMap(
            self._maps["policy"], self._maps["endpoint_flags"], config.proxy_ports
        )
        self.enforcers = Enforcers(
            self._maps["leases"], self._maps["enforcers"], self._maps["proxy_cgroups"]
        )
        self.mesh = MeshMap(
            self._maps["mesh_views"], self._maps["mesh_spaces"], self._maps["mesh_host"]
        )
        self._ring = EventRing(self._maps["events"].fd, self._maps["events"].max_entries)
        # A lookup in the kernel's map is by longest prefix, so exact entries are kept here.
        self._ipcache = {prefix_of(k): v for k, v in self._maps["ipcache"].items()}
        hairpin = routing.set_up()
        # The number of a cgroup's directory is the id that the kernel gives for a packet.
        kubelet = config.kubelet_cgroup.stat().st_ino if config.kubelet_cgroup else 0
        proxy = next(iter(config.proxy_ports.values()), 0)
        self._maps["config"].set(bytes(4), struct.pack("<IIQ", hairpin, proxy, kubelet))
        for prefix in _WORLD:
            if prefix not in self._ipcache:
                self.upsert_ipcache(prefix, IDENTITY_WORLD)
        self._programs.attach("from_hairpin", hairpin, "ingress")
        for device in config.devices:
            ifindex = routing.ifindex_of(device)
            self._programs.attach("from_netdev", ifindex, "ingress")
            self._programs.attach("to_netdev", ifindex, "egress")

    # -- endpoints ----------------------------------------------------------------------------

    def attach_endpoint(self, endpoint: Endpoint) -> None:
        """A new endpoint is closed until its first policy; a known one keeps what it has."""
        key = endpoint.ifindex.to_bytes(4, "little")
        if self._maps["endpoint_flags"].get(endpoint.id.to_bytes(4, "little")) is None:
            self._policy.close(endpoint.id)
        self._maps["endpoints"].set(key, endpoint.pack())
        self._programs.attach("to_endpoint", endpoint.ifindex, "egress")
        self._programs.attach("from_endpoint", endpoint.ifindex, "ingress")

    def detach_endpoint(self, endpoint: Endpoint) -> None:
        self._programs.detach(endpoint.ifindex)
        self._maps["endpoints"].delete(endpoint.ifindex.to_bytes(4, "little"))
        self._policy.forget(endpoint.id)
        self.enforcers.forget(endpoint.id)

    def endpoints(self) -> list[Endpoint]:
        return [
            Endpoint.unpack(int.from_bytes(key, "little"), value)
            for key, value in self._maps["endpoints"].items()
        ]

    def close_endpoint(self, endpoint_id: int) -> None:
        """Nothing passes until the next :meth:`sync_policy`."""
        self._policy.close(endpoint_id)

    def sync_policy(self, endpoint_id: int, policy: EndpointPolicy) -> int:
        """See :meth:`PolicyMap.sync`."""
        return self._policy.sync(endpoint_id, policy)

    # -- identities ---------------------------------------------------------------------------

    def upsert_ipcache(self, prefix: Prefix, identity: int, endpoint_id: int = 0) -> None:
        """Raises BpfError where the map is full: the prefix is not in it then."""
        value = IpcacheValue(identity, endpoint_id).pack()
        key = ipcache_key(prefix)
        if self._ipcache.get(prefix) != value:
            try:
                self._maps["ipcache"].set(key, value)
            except BpfError:
                # A full trie refuses what it has as well (until Linux 6.13), which then would keep
                # the rights of whoever had the address before.
                if self._ipcache.pop(prefix, None) is None:
                    raise
                self._maps["ipcache"].delete(key)
                self._raise_epoch()
                self._maps["ipcache"].set(key, value)
            self._ipcache[prefix] = value
            self._raise_epoch()

    def delete_ipcache(self, prefix: Prefix) -> None:
        """A default entry goes back to the world; it is never absent."""
        if prefix in _WORLD:
            self.upsert_ipcache(prefix, IDENTITY_WORLD)
        elif self._ipcache.pop(prefix, None) is not None:
            self._maps["ipcache"].delete(ipcache_key(prefix))
            self._raise_epoch()

    def ipcache(self) -> dict[Prefix, IpcacheValue]:
        return {
            prefix_of(key): IpcacheValue.unpack(value)
            for key, value in self._maps["ipcache"].items()
        }

    def resolve(self, address: Address) -> IpcacheValue:
        """The longest match, as the kernel finds it."""
        raw = self._maps["ipcache"].get(ipcache_key(ip_network(address)))
        return IpcacheValue.unpack(raw) if raw else IpcacheValue(IDENTITY_WORLD)

    def _raise_epoch(self) -> None:
        epoch = self._maps["ipcache_epoch"]
        current = int.from_bytes(epoch.get(bytes(4)) or bytes(8), "little")
        epoch.set(bytes(4), (current + 1).to_bytes(8, "little"))

    # -- what it says -------------------------------------------------------------------------

    @property
    def events_fd(self) -> int:
        return self._ring.fd

    def read_events(self) -> Iterator[Event]:
        return self._ring.read()

    def counters(self) -> list[dict[str, Any]]:
        """Packets and bytes by direction and verdict or drop reason, zeros left out."""
        rows = []
        for direction in Direction:
            for slot in range(COUNTER_SLOTS):
                key = (direction * COUNTER_SLOTS + slot).to_bytes(4, "little")
                raw = self._maps["counters"].get(key) or b""
                pairs = list(struct.iter_unpack("<QQ", raw))
                packets, octets = (sum(pair[i] for pair in pairs) for i in (0, 1))
                if packets:
                    dropped = slot >= 16
                    verdict = Verdict.DROPPED if dropped else Verdict(slot)
                    rows.append(
                        {
                            "direction": direction.name.lower(),
                            "verdict": verdict.name.lower(),
                            "reason": DropReason(slot - 16).text if dropped else "",
                            "packets": packets,
                            "bytes": octets,
                        }
                    )
        return rows

    def events_lost(self) -> int:
        raw = self._maps["events_lost"].get(bytes(4)) or b""
        return sum(value for (value,) in struct.iter_unpack("<Q", raw))

    def map_list(self) -> list[dict[str, Any]]:
        countable = ("ipcache", "endpoints", "endpoint_flags", "policy", "conntrack", "mesh_views")
        return [
            {
                "name": name,
                "entries": sum(1 for _ in each.items()) if name in countable else None,
                "max_entries": each.max_entries,
            }
            for name, each in sorted(self._maps.items())
        ]

    def dump(self, name: str) -> list[dict[str, Any]] | None:
        """Decoded rows of a map; None for a name that is not known."""
        if name == "counters":
            return self.counters()
        row = _ROWS.get(name)
        if row is None:
            return None
        return [row(key, value) for key, value in self._maps[name].items()]

    def destroy(self) -> None:
        """Give the node back: links, maps, rules, routes, masquerade and the hairpin go."""
        self._ring.close()
        self._programs.unpin()
        masquerade.tear_down()
        routing.tear_down()


def _policy_row(key: bytes, value: bytes) -> dict[str, Any]:
    endpoint_id, direction, protocol, identity, port, bits = policy_key_fields(key)
    action, proxy_port = policy_value_fields(value)
    return {
        "endpoint": endpoint_id,
        "direction": direction.name.lower(),
        "identity": identity or "any",
        "protocol": Protocol(protocol).name,
        "port": ports_text(port, bits),
        "action": action.name.lower(),
        "proxy_port": proxy_port or None,
    }


def _conntrack_row(key: bytes, value: bytes) -> dict[str, Any]:
    source, destination, sport, dport, protocol, direction = tuple_fields(key)
    _, flags, peer = struct.unpack("<QII", value)
    known = ((1, "proxied"), (2, "proxy upstream"), (4, "closing"), (8, "kubelet"), (32, "mesh"))
    names = [name for bit, name in known if flags & bit]
    return {
        "direction": direction.name.lower(),
        "protocol": protocol,
        "source": f"{source}:{sport}",
        "destination": f"{destination}:{dport}",
        "flags": ", ".join(names),
        "peer_identity": peer,
    }


def _ipcache_row(key: bytes, value: bytes) -> dict[str, Any]:
    entry = IpcacheValue.unpack(value)
    return {
        "prefix": str(prefix_of(key)),
        "identity": entry.identity,
        "endpoint": entry.endpoint_id or None,
    }


def _endpoint_row(key: bytes, value: bytes) -> dict[str, Any]:
    endpoint = Endpoint.unpack(int.from_bytes(key, "little"), value)
    return {
        "ifindex": endpoint.ifindex,
        "endpoint": endpoint.id,
        "identity": endpoint.identity,
        "ipv4": str(endpoint.ipv4 or ""),
        "ipv6": str(endpoint.ipv6 or ""),
    }


def _view_row(key: bytes, value: bytes) -> dict[str, Any]:
    (frontend, space), (port, served) = ViewKey.unpack(key), ViewValue.unpack(value)
    return {
        "address": str(frontend.address),
        "port": frontend.port,
        "protocol": frontend.protocol.name,
        "space": space or "any",
        "proxy_port": port or None,
        "served": served,
    }


def _flags_row(key: bytes, value: bytes) -> dict[str, Any]:
    flags = EndpointFlag(int.from_bytes(value, "little") & 0xFF)
    return {
        "endpoint": int.from_bytes(key, "little"),
        "flags": ", ".join((f.name or "").lower() for f in EndpointFlag if f in flags),
    }


_ROWS = {
    "policy": _policy_row,
    "conntrack": _conntrack_row,
    "ipcache": _ipcache_row,
    "endpoints": _endpoint_row,
    "endpoint_flags": _flags_row,
    "mesh_views": _view_row,
}
