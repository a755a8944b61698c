"""Ports of loopback on which listeners of Services with routes are bound."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

PORTS = range(15_100, 19_100)
"""Below the ports that Linux gives to clients of itself (ip_local_port_range), and NodePorts."""


class ProxyPorts:
    """A port for each name, for as long as it has one: the kernel redirects by it.

    ``known`` are those that an earlier process gave: what it left in the kernel names them.
    ``revision`` rises whenever they are others.
    """

    def __init__(self, known: Mapping[str, int] | None = None) -> None:
        self._given = {name: port for name, port in (known or {}).items() if port in PORTS}
        self.revision = 0
        self._last = max(self._given.values(), default=PORTS.start - 1)

    def of(self, name: str) -> int:
        """0 where all are given away.

        The next after the last, not one that was given back a moment ago: that one's listener may
        not have gone yet.
        """
        if name not in self._given:
            free = next(self._free(), 0)
            if not free:
                return 0
            self._given[name] = self._last = free
            self.revision += 1
        return self._given[name]

    def give_back(self, name: str) -> None:
        """One that has none is no error."""
        if self._given.pop(name, None):
            self.revision += 1

    def export(self) -> dict[str, int]:
        return dict(self._given)

    def _free(self) -> Iterator[int]:
        taken = set(self._given.values())
        size = len(PORTS)
        first = self._last + 1 - PORTS.start
        return (
            PORTS[(first + step) % size]
            for step in range(size)
            if PORTS[(first + step) % size] not in taken
        )
