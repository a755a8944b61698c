"""The resources that Envoy should have, each with a version made from its content."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message

from xds_server.resources import (
    CLUSTER_TYPE,
    ENDPOINT_TYPE,
    LISTENER_TYPE,
    ROUTE_TYPE,
    SECRET_TYPE,
    VIRTUAL_HOST_TYPE,
    packed,
)

# What is referred to comes before what refers to it (xDS protocol, "eventual consistency").
_ORDER = (
    SECRET_TYPE, CLUSTER_TYPE, ENDPOINT_TYPE, LISTENER_TYPE, ROUTE_TYPE, VIRTUAL_HOST_TYPE,
)  # fmt: skip
_VERSION_BYTES = 8


@dataclass(frozen=True, slots=True)
class Resource:
    """``version`` is a digest of ``body``: equal content, equal version, across restarts too."""

    version: str
    body: AnyMessage


class ResourceCache:
    """Resources by type URL and name; tells its watchers of each change.

    What a change costs is what changed: ``revision`` counts changes, and a journal has the
    revision of each name's last one.
    """

    def __init__(self) -> None:
        self._types: dict[str, dict[str, Resource]] = {}
        self._journals: dict[str, dict[str, int]] = {}  # in the order of revisions
        self._sums: dict[str, int] = {}
        self._watchers: set[Callable[[], None]] = set()
        self.revision = 0

    def set_resources(self, type_url: str, messages: Mapping[str, Message]) -> None:
        """Make these the only resources of the type.

        Raises ValueError if one is of another type.
        """
        gone = dict.fromkeys(self.of_type(type_url).keys() - messages.keys())
        self.update({type_url: {**gone, **messages}})

    def update(self, changes: Mapping[str, Mapping[str, Message | None]]) -> None:
        """By type URL and name: new content, None for what is gone; the rest stays.

        Raises ValueError, and changes nothing, if one is of another type.
        """
        made = {
            type_url: {name: _resource(type_url, name, m) for name, m in sorted(messages.items())}
            for type_url, messages in changes.items()
        }
        before = self.revision
        for type_url, resources in made.items():
            for name, resource in resources.items():
                self._set(type_url, name, resource)
        if self.revision != before:
            for watcher in tuple(self._watchers):
                watcher()

    def of_type(self, type_url: str) -> Mapping[str, Resource]:
        return self._types.get(type_url, {})

    def type_urls(self) -> list[str]:
        """Every type ever set, in the order in which changes are to be sent."""
        return sorted(self._types, key=_rank)

    def changed_since(self, type_url: str, revision: int) -> Iterator[str]:
        """Names that came, changed or went after it, the latest first."""
        for name, changed in reversed(self._journals.get(type_url, {}).items()):
            if changed <= revision:
                return
            yield name

    def type_version(self, type_url: str) -> str:
        """One version for all resources of a type, for the state-of-the-world variant."""
        return f"{self._sums.get(type_url, 0):0{2 * _VERSION_BYTES}x}"

    def watch(self, watcher: Callable[[], None]) -> None:
        self._watchers.add(watcher)

    def unwatch(self, watcher: Callable[[], None]) -> None:
        self._watchers.discard(watcher)

    def _set(self, type_url: str, name: str, resource: Resource | None) -> None:
        resources = self._types.setdefault(type_url, {})
        before = resources.get(name)
        if resource == before:
            return
        # A sum does not depend on the order, so one change costs one change.
        total = self._sums.get(type_url, 0) - _digest(name, before) + _digest(name, resource)
        self._sums[type_url] = total % (1 << 8 * _VERSION_BYTES)
        if resource is None:
            del resources[name]
        else:
            resources[name] = resource
        self.revision += 1
        journal = self._journals.setdefault(type_url, {})
        journal.pop(name, None)
        journal[name] = self.revision


def _resource(type_url: str, name: str, message: Message | None) -> Resource | None:
    if message is None:
        return None
    body = packed(message)
    if body.type_url != type_url:
        raise ValueError(f"xDS resource {name!r}: is {body.type_url}, not {type_url}")
    return Resource(hashlib.blake2b(body.value, digest_size=8).hexdigest(), body)


def _digest(name: str, resource: Resource | None) -> int:
    if resource is None:
        return 0
    content = f"{name}\0{resource.version}".encode()
    return int.from_bytes(hashlib.blake2b(content, digest_size=_VERSION_BYTES).digest())


def _rank(type_url: str) -> tuple[int, str]:
    return (_ORDER.index(type_url) if type_url in _ORDER else len(_ORDER), type_url)
