"""Numbers for label sets: reserved ones, pods' (256..65535), and CIDRs' (from 1 << 24).

A label set keeps its number as long as it is in use, and across restarts through
:meth:`IdentityAllocator.export`. Source of the reserved numbers: Cilium documentation, "Identity".
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

from policy_engine.labels import Labels, format_labels

Prefix = IPv4Network | IPv6Network

FIRST_POD_IDENTITY = 256
LAST_POD_IDENTITY = 65535
FIRST_CIDR_IDENTITY = 1 << 24


class Reserved(enum.IntEnum):
    HOST = 1
    WORLD = 2
    UNMANAGED = 3
    HEALTH = 4
    INIT = 5
    REMOTE_NODE = 6
    KUBE_APISERVER = 7
    INGRESS = 8

    @property
    def label(self) -> str:
        return "reserved:" + self.name.lower().replace("_", "-")


RESERVED_LABELS: Mapping[int, Labels] = {r.value: {r.label: ""} for r in Reserved}


class IdentitiesExhausted(RuntimeError):
    """No number is left in the range."""


@dataclass(slots=True)
class _Use:
    number: int
    references: int


class IdentityAllocator:
    """Numbers by key, reference counted; a released number is the last to be used again."""

    def __init__(self, first: int, last: int) -> None:
        self._first, self._last = first, last
        self._used: dict[tuple[str, ...], _Use] = {}
        self._remembered: dict[tuple[str, ...], int] = {}
        self._taken: set[int] = set()
        self._next = first

    def acquire(self, labels: Labels) -> int:
        """The number of a label set; raises IdentitiesExhausted."""
        key = format_labels(labels)
        use = self._used.get(key)
        if use is None:
            use = self._used[key] = _Use(self._remembered.pop(key, 0) or self._free_number(), 0)
            self._taken.add(use.number)
        use.references += 1
        return use.number

    def release(self, labels: Labels) -> int | None:
        """The number, if that was its last use; it stays remembered for the same labels."""
        key = format_labels(labels)
        use = self._used[key]
        use.references -= 1
        if use.references:
            return None
        del self._used[key]
        self._remembered[key] = use.number
        return use.number

    def export(self) -> dict[str, int]:
        """Label sets (joined by ``;``) and their numbers, to be kept across restarts."""
        numbers = {key: use.number for key, use in self._used.items()} | self._remembered
        return {";".join(key): number for key, number in numbers.items()}

    def restore(self, exported: Mapping[str, int]) -> None:
        """Remember what an earlier run exported; anything out of range is left out."""
        for text, number in exported.items():
            if self._first <= number <= self._last and number not in self._taken:
                self._remembered[tuple(text.split(";"))] = number
                self._taken.add(number)
                self._next = max(self._next, number + 1)

    def _free_number(self) -> int:
        if self._next <= self._last:
            self._next += 1
            return self._next - 1
        for key, number in list(self._remembered.items()):  # oldest first
            del self._remembered[key]
            return number
        raise IdentitiesExhausted(f"identities {self._first}..{self._last} are all in use")


def cidr_labels(prefix: Prefix) -> Labels:
    """A CIDR identity carries its prefix and is part of the world."""
    return {f"cidr:{prefix}": "", Reserved.WORLD.label: ""}
