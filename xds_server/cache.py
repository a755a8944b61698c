"""The resources that Envoy should have, each with a version made from its content."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message

from xds_server.resources import CLUSTER_TYPE, LISTENER_TYPE, packed

# What is referred to comes before what refers to it (xDS protocol, "eventual consistency").
_ORDER = (CLUSTER_TYPE, LISTENER_TYPE)


@dataclass(frozen=True, slots=True)
class Resource:
    """``version`` is a digest of ``body``: equal content, equal version, across restarts too."""

    version: str
    body: AnyMessage


class ResourceCache:
    """Resources by type URL and name; tells its watchers of each change."""

    def __init__(self) -> None:
        self._types: dict[str, dict[str, Resource]] = {}
        self._watchers: set[Callable[[], None]] = set()

    def set_resources(self, type_url: str, messages: Mapping[str, Message]) -> None:
        """Make these the only resources of the type.

        Raises ValueError if one is of another type.
        """
        resources = {}
        for name, message in sorted(messages.items()):
            body = packed(message)
            if body.type_url != type_url:
                raise ValueError(f"xDS resource {name!r}: is {body.type_url}, not {type_url}")
            digest = hashlib.blake2b(body.value, digest_size=8).hexdigest()
            resources[name] = Resource(digest, body)
        if resources != self._types.get(type_url, {}):
            self._types[type_url] = resources
            for watcher in tuple(self._watchers):
                watcher()

    def of_type(self, type_url: str) -> Mapping[str, Resource]:
        return self._types.get(type_url, {})

    def type_urls(self) -> list[str]:
        """Every type ever set, in the order in which changes are to be sent."""
        return sorted(self._types, key=_rank)

    def type_version(self, type_url: str) -> str:
        """One version for all resources of a type, for the state-of-the-world variant."""
        digest = hashlib.blake2b(digest_size=8)
        for name, resource in self.of_type(type_url).items():
            digest.update(f"{name}\0{resource.version}\0".encode())
        return digest.hexdigest()

    def watch(self, watcher: Callable[[], None]) -> None:
        self._watchers.add(watcher)

    def unwatch(self, watcher: Callable[[], None]) -> None:
        self._watchers.discard(watcher)


def _rank(type_url: str) -> tuple[int, str]:
    return (_ORDER.index(type_url) if type_url in _ORDER else len(_ORDER), type_url)
