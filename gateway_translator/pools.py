"""Which addresses a Gateway or Ingress has: those asked for, those it had, or free ones of a pool.

Source: CiliumLoadBalancerIPPool (cilium.io/v2): ``blocks`` of ``cidr`` or ``start`` and ``stop``,
``serviceSelector`` read of the labels of a Gateway, Ingress or IngressClass, ``disabled``.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

import msgspec

from gateway_translator.resources.meta import Key, LabelSelector

Address = IPv4Address | IPv6Address
_MOST_TRIED = 65536  # of one block, or a full /64 would be walked through


class BadPoolError(ValueError):
    """The message names the field and the remedy."""


@dataclass(frozen=True, slots=True)
class Pool:
    blocks: tuple[tuple[Address, Address], ...]
    selector: LabelSelector
    disabled: bool = False

    def has(self, address: Address) -> bool:
        return any(
            first.version == address.version and int(first) <= int(address) <= int(last)
            for first, last in self.blocks
        )

    def addresses(self, version: int) -> Iterator[Address]:
        for first, last in self.blocks:
            if first.version == version:
                count = min(int(last) - int(first) + 1, _MOST_TRIED)
                yield from (first + n for n in range(count))


def parse_pool(manifest: Mapping[str, Any]) -> Pool:
    """Raises BadPoolError."""
    spec = manifest.get("spec") or {}
    blocks = tuple(_block(each, n) for n, each in enumerate(spec.get("blocks") or ()))
    try:
        selector = msgspec.convert(spec.get("serviceSelector") or {}, LabelSelector)
    except msgspec.ValidationError as error:
        raise BadPoolError(f"spec.serviceSelector: {error}") from None
    return Pool(blocks, selector, bool(spec.get("disabled")))


def _block(block: Mapping[str, Any], number: int) -> tuple[Address, Address]:
    try:
        if cidr := block.get("cidr"):
            network = ip_network(cidr)
            first, last = network[0], network[-1]
            if network.num_addresses > 2:  # the network's own and broadcast are nobody's
                first, last = first + 1, last - 1
            return first, last
        first = ip_address(block["start"])
        return first, ip_address(block.get("stop") or block["start"])
    except (KeyError, ValueError) as error:
        remedy = "give cidr, or start and stop"
        raise BadPoolError(f"spec.blocks[{number}]: {error}; {remedy}") from None


class Allocator:
    """An address has one owner: a Gateway, an Ingress, or an IngressClass whose Ingresses share it.
    ``shared`` ones everybody has whom no pool serves: those of a node by itself."""

    def __init__(self, shared: Sequence[str] = ()) -> None:
        self._shared = tuple(shared)
        self._pools: dict[str, Pool] = {}
        self._owners: dict[Address, Key] = {}

    def set_pool(self, name: str, pool: Pool | None) -> None:
        """None: it is gone; what was given of it stays given until it is assigned anew."""
        if pool is None:
            self._pools.pop(name, None)
        else:
            self._pools[name] = pool

    def release(self, owner: Key) -> None:
        self._owners = {a: each for a, each in self._owners.items() if each != owner}

    def assign(
        self, owner: Key, asked: Sequence[str], had: Iterable[str], labels: Mapping[str, str]
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """What it has now, and what it asked for that cannot be had.

        ``asked`` may have empty values, which mean any; ``had``: what it was told last time.
        """
        own = [str(address) for address, each in self._owners.items() if each == owner]
        self.release(owner)
        pools = [
            pool
            for _, pool in sorted(self._pools.items())
            if not pool.disabled and pool.selector.matches(_selected_by(owner, labels))
        ]
        wanted = [text for text in asked if text]
        usable = [text for text in wanted if self._is_usable(text, pools)]
        if wanted:
            found = [ip_address(text) for text in usable]
        elif pools:
            found = self._free(pools, [ip_address(text) for text in [*own, *had]])
        else:
            return self._shared, ()
        self._owners |= dict.fromkeys(found, owner)
        unusable = tuple(text for text in wanted if text not in usable)
        return tuple(map(str, found)), unusable

    def _is_usable(self, text: str, pools: Iterable[Pool]) -> bool:
        try:
            address = ip_address(text)
        except ValueError:
            return False
        if self._shared:  # a node by itself serves what it is told to
            return True
        return address not in self._owners and any(pool.has(address) for pool in pools)

    def _free(self, pools: Sequence[Pool], had: Sequence[Address]) -> list[Address]:
        """One of each family that the pools have, the one it had if it may."""
        found = []
        for version in (4, 6):
            kept = (a for a in had if a.version == version and any(p.has(a) for p in pools))
            fresh = itertools.chain.from_iterable(pool.addresses(version) for pool in pools)
            free = (a for a in itertools.chain(kept, fresh) if a not in self._owners)
            if (address := next(free, None)) is not None:
                found.append(address)
        return found


def _selected_by(owner: Key, labels: Mapping[str, str]) -> dict[str, str]:
    """As the Service has it that Cilium makes of a Gateway or Ingress."""
    kind, namespace, name = owner
    service = {
        "Gateway": f"cilium-gateway-{name}",
        "Ingress": f"cilium-ingress-{name}",
        "IngressClass": "cilium-ingress",
    }[kind]
    found = {**labels, "io.kubernetes.service.name": service}
    if namespace:
        found["io.kubernetes.service.namespace"] = namespace
    if kind == "Gateway":
        found["gateway.networking.k8s.io/gateway-name"] = name
    return found
