"""The names of container ports: each pod's own, and by identity for whoever talks to them."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from typing import Any

from policy_engine.model import TRANSPORTS, Protocol
from policy_engine.repository import NamedPorts, PolicyRepository


def of_pod(manifest: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """``{name, port, protocol}`` of each container port that has a name."""
    for container in (manifest.get("spec") or {}).get("containers") or []:
        for port in container.get("ports") or []:
            if port.get("name"):
                yield {
                    "name": port["name"],
                    "port": port["containerPort"],
                    "protocol": port.get("protocol", "TCP"),
                }


def compiled(ports: Iterable[Mapping[str, Any]]) -> NamedPorts:
    """As policy knows them; a protocol that it does not know is left out."""
    made: dict[str, frozenset[tuple[int, Protocol]]] = {}
    for port in ports:
        protocol = TRANSPORTS.get(port.get("protocol", "TCP"))
        if protocol is not None:
            one = frozenset({(int(port["port"]), protocol)})
            made[port["name"]] = made.get(port["name"], frozenset()) | one
    return made


class NamedPortIndex:
    """The union of what every pod of an identity says, from several sources."""

    def __init__(self, repository: PolicyRepository) -> None:
        self._repository = repository
        self._said: dict[Hashable, dict[int, list[NamedPorts]]] = {}
        self._of_identity: dict[int, dict[Hashable, list[NamedPorts]]] = {}

    def put(self, source: Hashable, ports: Mapping[int, list[NamedPorts]]) -> set[int]:
        """What a source says now, by identity; the endpoints whose policy may be another."""
        before = self._said.pop(source, {})
        named = {identity: [p for p in said if p] for identity, said in ports.items()}
        after = {identity: said for identity, said in named.items() if said}
        if after:
            self._said[source] = after
        affected: set[int] = set()
        for identity in before.keys() | after.keys():
            if before.get(identity) == after.get(identity):
                continue
            sources = self._of_identity.setdefault(identity, {})
            sources.pop(source, None)
            if identity in after:
                sources[source] = after[identity]
            union: dict[str, frozenset[tuple[int, Protocol]]] = {}
            for said in sources.values():
                for each in said:
                    for name, numbers in each.items():
                        union[name] = union.get(name, frozenset()) | numbers
            if not sources:
                del self._of_identity[identity]
            affected |= self._repository.set_named_ports(identity, union)
        return affected
