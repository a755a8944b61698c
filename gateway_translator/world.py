"""The objects that are known now, and who has read what of them.

A unit of work (one route, one Gateway) reads objects through a :class:`Reader`, which remembers
what it asked for; when an answer may have changed, exactly those units are translated anew.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import TypeVar

from gateway_translator.ir import ObjectRef
from gateway_translator.resources.core import EndpointSlice, Service
from gateway_translator.resources.gateway import Gateway, ListenerSet
from gateway_translator.resources.ingress import IngressClass
from gateway_translator.resources.meta import Key, Object
from gateway_translator.resources.policies import BackendTlsPolicy, ReferenceGrant

Fact = tuple[str, str, str]
"""What may be read: the key of an object, or ("grants", namespace, "") and the like."""

T = TypeVar("T", bound=Object)


class World:
    """Objects by key, and by what they are looked up by."""

    def __init__(self) -> None:
        self.objects: dict[Key, Object] = {}
        self.refused: dict[ObjectRef, str] = {}
        self.groups: defaultdict[Fact, dict[Key, Object]] = defaultdict(dict)
        self._readers: defaultdict[Fact, set[Key]] = defaultdict(set)
        self._read: dict[Key, set[Fact]] = {}

    def put(self, key: Key, new: Object | None) -> set[Key]:
        """None: it is gone. The units that have read what changed by it."""
        old = self.objects.pop(key, None)
        facts = {key}
        if old is not None:
            for fact in _groups(old):
                self.groups[fact].pop(key, None)
                facts.add(fact)
        if new is not None:
            self.objects[key] = new
            for fact in _groups(new):
                self.groups[fact][key] = new
                facts.add(fact)
        return self.readers(facts)

    def readers(self, facts: Iterable[Fact]) -> set[Key]:
        found: set[Key] = set()
        for fact in facts:
            found |= self._readers.get(fact, _NOBODY)
        return found

    def reader(self, unit: Key) -> Reader:
        """Forgets what the unit has read before."""
        self.forget(unit)
        facts = self._read[unit] = set()
        return Reader(self, unit, facts)

    def forget(self, unit: Key) -> None:
        for fact in self._read.pop(unit, ()):
            readers = self._readers[fact]
            readers.discard(unit)
            if not readers:
                del self._readers[fact]

    def read_by(self, unit: Key, group: str) -> set[Key]:
        """The objects of such groups ("policies") that a unit has read."""
        facts = (fact for fact in self._read.get(unit, ()) if fact[0] == group)
        return {key for fact in facts for key in self.groups.get(fact, ())}

    def note(self, unit: Key, fact: Fact) -> None:
        self._readers[fact].add(unit)


_NOBODY: frozenset[Key] = frozenset()


class Reader:
    """Looks things up for one unit."""

    __slots__ = ("_facts", "_unit", "_world")

    def __init__(self, world: World, unit: Key, facts: set[Fact]) -> None:
        self._world, self._unit, self._facts = world, unit, facts

    def note(self, fact: Fact) -> None:
        """The unit depends on it from now on."""
        if fact not in self._facts:
            self._facts.add(fact)
            self._world.note(self._unit, fact)

    def get(self, key: Key, type_: type[T]) -> T | None:
        self.note(key)
        found = self._world.objects.get(key)
        return found if isinstance(found, type_) else None

    def group(self, fact: Fact, type_: type[T]) -> list[T]:
        """In order of precedence: the oldest first, then by namespace/name."""
        self.note(fact)
        members: Mapping[Key, Object] = self._world.groups.get(fact, {})
        found = [each for each in members.values() if isinstance(each, type_)]
        return sorted(found, key=lambda each: each.age)

    def granted(self, from_: tuple[str, str, str], to: tuple[str, str, str, str]) -> bool:
        """``from_``: group, kind, namespace; ``to``: group, kind, namespace, name."""
        group, kind, namespace, name = to
        if from_[2] == namespace:
            return True
        return any(
            any((f.group, f.kind, f.namespace) == from_ for f in grant.spec.from_)
            and any(
                (t.group, t.kind) == (group, kind) and t.name in {"", name} for t in grant.spec.to
            )
            for grant in self.group(("grants", namespace, ""), ReferenceGrant)
        )

    def refusal(self, key: Key, section: str = "") -> str:
        """Why the proxy refuses the object, or one section of it; empty: it does not."""
        self.note(key)
        refused = self._world.refused
        return refused.get(ObjectRef(*key, section), "") if refused else ""

    def service(self, namespace: str, name: str) -> Service | None:
        return self.get(("Service", namespace, name), Service)

    def labels_of_namespace(self, name: str) -> dict[str, str]:
        """Those of an unknown namespace are the one that every namespace has."""
        found = self.get(("Namespace", "", name), Object)
        implied = {"kubernetes.io/metadata.name": name}
        return implied if found is None else {**implied, **found.metadata.labels}


def _groups(item: Object) -> list[Fact]:
    match item:
        case ReferenceGrant():
            return [("grants", item.namespace, "")]
        case BackendTlsPolicy():
            return [
                ("policies", item.namespace, target.name)
                for target in item.spec.target_refs
                if (target.group, target.kind) == ("", "Service")
            ]
        case EndpointSlice() if item.service:
            return [("slices", item.namespace, item.service)]
        case ListenerSet():
            parent = item.spec.parent_ref
            return [("sets", parent.namespace or item.namespace, parent.name)]
        case IngressClass():
            return [("ingress classes", "", "")]
        case Gateway():
            return [("gateways", "", item.spec.gateway_class_name), ("gateways", "", "")]
        case _:
            return []
