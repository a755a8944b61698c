"""Every object that the node knows, by key, and what changes among them."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from kube_store.resource import Resource, ResourceKey


class ChangeType(enum.StrEnum):
    """The event types of a Kubernetes watch."""

    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"


@dataclass(frozen=True, slots=True)
class Change:
    """``resource`` is the new object, or the last one where it was deleted."""

    type: ChangeType
    resource: Resource


Subscriber = Callable[[list[Change]], None]


class Store:
    """Subscribers are called in the order they came, after the change is in, once per batch."""

    def __init__(self) -> None:
        self._kinds: dict[str, dict[ResourceKey, Resource]] = {}
        self._subscribers: list[Subscriber] = []

    def apply(
        self, upserts: Iterable[Resource], deletes: Iterable[ResourceKey] = ()
    ) -> list[Change]:
        """One batch; objects that are as they were make no change."""
        found = [self._remove(key) for key in deletes] + [self._put(item) for item in upserts]
        changes = [change for change in found if change is not None]
        if changes:
            for subscriber in tuple(self._subscribers):
                subscriber(changes)
        return changes

    def upsert(self, resource: Resource) -> Change | None:
        """None if the object was equal already."""
        return next(iter(self.apply([resource])), None)

    def delete(self, key: ResourceKey) -> Change | None:
        """None if there was no such object."""
        return next(iter(self.apply((), [key])), None)

    def get(self, key: ResourceKey) -> Resource | None:
        return self._kinds.get(key.kind, {}).get(key)

    def list(
        self, kind: str | None = None, namespace: str | None = None, name: str | None = None
    ) -> list[Resource]:
        """Sorted by kind, namespace and name; None selects every value."""
        kinds = self._kinds if kind is None else [kind]
        return sorted(
            (
                resource
                for each in kinds
                for key, resource in self._kinds.get(each, {}).items()
                if namespace in {None, key.namespace} and name in {None, key.name}
            ),
            key=lambda resource: resource.key,
        )

    def subscribe(self, callback: Subscriber) -> Callable[[], None]:
        """Returns what ends the subscription. Objects that are here already are not announced."""
        self._subscribers.append(callback)
        return lambda: self._subscribers.remove(callback)

    def _put(self, resource: Resource) -> Change | None:
        objects = self._kinds.setdefault(resource.key.kind, {})
        before = objects.get(resource.key)
        objects[resource.key] = resource
        if before == resource:
            return None
        return Change(ChangeType.MODIFIED if before else ChangeType.ADDED, resource)

    def _remove(self, key: ResourceKey) -> Change | None:
        before = self._kinds.get(key.kind, {}).pop(key, None)
        return Change(ChangeType.DELETED, before) if before else None
