"""Route tables: what each hostname's routes are, kept in order as routes come and go."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Mapping
from operator import itemgetter

from gateway_translator.compiled import Precedence
from gateway_translator.ir import HttpRoute, RouteTable, VirtualHost
from gateway_translator.resources.meta import Key
from gateway_translator.tracked import Tracked

Entries = tuple[tuple[Precedence, HttpRoute], ...]
Place = tuple[str, str]
"""(table, hostname)"""

_precedence = itemgetter(0)


class Tables:
    """A change of one route costs its own entries, and one pass over its virtual hosts."""

    def __init__(self) -> None:
        self.tables: Tracked[str, RouteTable] = Tracked()
        self.virtual_hosts: Tracked[Place, VirtualHost] = Tracked()
        self._declared: dict[str, Mapping[str, int]] = {}
        self._entries: dict[Place, list[tuple[Precedence, HttpRoute]]] = {}
        self._placed: dict[Key, dict[Place, Entries]] = {}
        self._dirty: set[Place] = set()

    def declare(self, table: RouteTable, hosts: Mapping[str, int]) -> None:
        """``hosts``: hostnames that are there without routes too, with what they answer then."""
        before = self._declared.get(table.name, {})
        self.tables.put(table.name, table)
        self._declared[table.name] = hosts
        self._dirty |= {(table.name, host) for host in before.keys() | hosts.keys()}

    def remove(self, table: str) -> None:
        self.tables.drop(table)
        self._dirty |= {(table, host) for host in self._declared.pop(table, {})}

    def place(self, route: Key, places: Mapping[Place, Entries]) -> None:
        """Where the route is from now on, in place of where it was."""
        before = self._placed.pop(route, {})
        for place, entries in before.items():
            if places.get(place) is not entries:
                self._take_out(place, entries)
        for place, entries in places.items():
            if before.get(place) is not entries:
                for entry in entries:
                    insort(self._entries.setdefault(place, []), entry, key=_precedence)
                self._dirty.add(place)
        if places:
            self._placed[route] = dict(places)

    def settle(self) -> None:
        """Builds the virtual hosts that changed."""
        for place in self._dirty:
            table, hostname = place
            entries = self._entries.get(place)
            declared = self._declared.get(table)
            if declared is None or (not entries and hostname not in declared):
                self.virtual_hosts.drop(place)
                continue
            routes = tuple([route for _, route in entries or ()])
            host = VirtualHost(hostname, routes, declared.get(hostname, 404))
            self.virtual_hosts.put(place, host)
        self._dirty.clear()

    def _take_out(self, place: Place, entries: Iterable[tuple[Precedence, HttpRoute]]) -> None:
        held = self._entries[place]
        for entry in entries:
            del held[bisect_left(held, entry[0], key=_precedence)]
        if not held:
            del self._entries[place]
        self._dirty.add(place)
