"""Which address has which identity, by several authorities, and what of that the kernel lacks."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping

from datapath.codec import Prefix

Owner = tuple[int, int]  # identity, endpoint id (0: not of this node)


class Layer(enum.IntEnum):
    """Of several that know a prefix the highest is right."""

    CIDR = 0  # of a policy
    POD_CIDR = 1  # of nodes: whoever is there and not known
    NODE = 2
    PEER = 3  # pods of other nodes
    API_SERVER = 4
    HOST = 5
    INGRESS = 6  # the host's, by which only Gateways speak
    ENDPOINT = 7  # pods of this node


class AddressBook:
    """What a change costs depends on the change alone."""

    def __init__(self) -> None:
        self._layers: tuple[dict[Prefix, Owner], ...] = tuple({} for _ in Layer)
        self._written: dict[Prefix, Owner] = {}
        self._touched: set[Prefix] = set()

    def restore(self, written: Mapping[Prefix, Owner]) -> None:
        """What the kernel has from before; what no layer says goes with the next change."""
        self._written = dict(written)
        self._touched |= written.keys()

    def put(self, layer: Layer, prefix: Prefix, owner: Owner) -> None:
        if self._layers[layer].get(prefix) != owner:
            self._layers[layer][prefix] = owner
            self._touched.add(prefix)

    def drop(self, layer: Layer, prefix: Prefix) -> None:
        if self._layers[layer].pop(prefix, None) is not None:
            self._touched.add(prefix)

    def replace(self, layer: Layer, owners: Mapping[Prefix, Owner]) -> None:
        """The whole layer."""
        for prefix in self._layers[layer].keys() - owners.keys():
            self.drop(layer, prefix)
        for prefix, owner in owners.items():
            self.put(layer, prefix, owner)

    def owner(self, prefix: Prefix) -> Owner | None:
        for layer in reversed(self._layers):
            if prefix in layer:
                return layer[prefix]
        return None

    def shares(self, one: Layer, other: Layer) -> bool:
        """Whether both know an address; ``other`` is the one that has few."""
        return not self._layers[one].keys().isdisjoint(self._layers[other])

    def changes(self) -> tuple[list[Prefix], dict[Prefix, Owner]]:
        """What the kernel must forget and learn; it counts as done."""
        gone, new = [], {}
        for prefix in self._touched:
            owner = self.owner(prefix)
            if owner is None:
                if self._written.pop(prefix, None) is not None:
                    gone.append(prefix)
            elif self._written.get(prefix) != owner:
                new[prefix] = self._written[prefix] = owner
        self._touched = set()
        return gone, new


def hosts(addresses: Iterable[Prefix], identity: int) -> dict[Prefix, Owner]:
    """Owners that are no endpoints."""
    return dict.fromkeys(addresses, (identity, 0))
