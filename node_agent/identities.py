"""Where the numbers of label sets come from: this node alone, or the whole cluster by its API.

Both keep the repository told of the identities that policies can select.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import Any, Protocol

import structlog

from kube_store.kube_client import CONNECTION_ERRORS, KubeClient, KubeError
from kube_store.resource import Resource, ResourceKey
from kube_store.shared import GROUP_VERSION, IDENTITY, path_of
from kube_store.store import Change, ChangeType
from policy_engine.identity import (
    FIRST_POD_IDENTITY,
    LAST_POD_IDENTITY,
    IdentitiesExhausted,
    IdentityAllocator,
)
from policy_engine.labels import Labels, format_labels
from policy_engine.repository import PolicyRepository

log = structlog.get_logger(__name__)

_RETRY_SECONDS = 0.5
_ATTEMPTS = 64


class Identities(Protocol):
    """``acquire`` and ``release`` also return the endpoints that the change concerns."""

    def acquire(self, labels: Labels) -> tuple[int | None, set[int]]:
        """The number, or None where it is still to be had; raises IdentitiesExhausted."""
        ...

    def release(self, labels: Labels) -> set[int]: ...

    async def ensure(self, labels: Labels) -> None:
        """Until :meth:`acquire` of these labels has a number. Raises IdentitiesExhausted."""
        ...

    def take(self, change: Change) -> set[int]:
        """A change of the store; those that are not identities concern nobody."""
        ...

    def export(self) -> Mapping[str, int]: ...

    def restore(self, exported: Mapping[str, int]) -> None: ...


class LocalIdentities:
    """Of a node by itself."""

    def __init__(self, repository: PolicyRepository) -> None:
        self._repository = repository
        self._allocator = IdentityAllocator(FIRST_POD_IDENTITY, LAST_POD_IDENTITY)

    def acquire(self, labels: Labels) -> tuple[int | None, set[int]]:
        number = self._allocator.acquire(labels)
        return number, self._repository.upsert_identity(number, labels)

    def release(self, labels: Labels) -> set[int]:
        number = self._allocator.release(labels)
        return set() if number is None else self._repository.remove_identity(number)

    async def ensure(self, labels: Labels) -> None:
        """There is always one, or acquire raises."""

    def take(self, _: Change) -> set[int]:
        return set()

    def export(self) -> Mapping[str, int]:
        return self._allocator.export()

    def restore(self, exported: Mapping[str, int]) -> None:
        self._allocator.restore(exported)


class ClusterIdentities:
    """Shared through SidegateIdentity objects, whose names are the numbers.

    The numbers that a label set may get follow from its hash, so two nodes that ask at one moment
    ask for the same object: one creates it, the other adopts it.
    """

    def __init__(
        self,
        repository: PolicyRepository,
        client: KubeClient,
        arrived: Callable[[Resource], Any],
    ) -> None:
        """``arrived`` is given an object that was created or adopted, ahead of the watch."""
        self._repository, self._client, self._arrived = repository, client, arrived
        self._numbers: dict[tuple[str, ...], set[int]] = {}
        self._labels: dict[int, dict[str, str]] = {}
        self._used: dict[tuple[str, ...], int] = {}
        self._wanted: dict[tuple[str, ...], asyncio.Task[None]] = {}

    def acquire(self, labels: Labels) -> tuple[int | None, set[int]]:
        key = format_labels(labels)
        numbers = self._numbers.get(key)
        if not numbers:
            self._want(labels)
            return None, set()
        self._used[key] = self._used.get(key, 0) + 1
        return min(numbers), set()

    def release(self, labels: Labels) -> set[int]:
        """The object stays: the operator removes what no node uses."""
        key = format_labels(labels)
        self._used[key] -= 1
        if not self._used[key]:
            del self._used[key]
        return set()

    async def ensure(self, labels: Labels) -> None:
        if not self._numbers.get(format_labels(labels)):
            await asyncio.shield(self._want(labels))

    def take(self, change: Change) -> set[int]:
        if change.resource.key.kind != IDENTITY or not change.resource.key.name.isdecimal():
            return set()
        number = int(change.resource.key.name)
        labels = change.resource.manifest.get("security-labels") or {}
        before = self._labels.pop(number, None)
        if before is not None:
            self._numbers[format_labels(before)].discard(number)
        if change.type is ChangeType.DELETED:
            if before is not None and format_labels(before) in self._used:
                self._want(before)
            return self._repository.remove_identity(number)
        self._labels[number] = labels
        self._numbers.setdefault(format_labels(labels), set()).add(number)
        return self._repository.upsert_identity(number, labels)

    def export(self) -> Mapping[str, int]:
        return {}

    def restore(self, _: Mapping[str, int]) -> None:
        """The API server knows them."""

    def _want(self, labels: Labels) -> asyncio.Task[None]:
        key = format_labels(labels)
        task = self._wanted.get(key)
        if task is None or task.done():
            task = self._wanted[key] = asyncio.create_task(self._create(dict(labels)))
            task.add_done_callback(lambda done: self._settled(key, done))
        return task

    def _settled(self, key: tuple[str, ...], task: asyncio.Task[None]) -> None:
        self._wanted.pop(key, None)
        if not task.cancelled() and (error := task.exception()):
            log.error("no identity", labels=list(key), error=str(error))

    async def _create(self, labels: dict[str, str]) -> None:
        """Until the API server has one for these labels. Raises IdentitiesExhausted."""
        attempt = 0
        while attempt < _ATTEMPTS:
            number = candidate(labels, attempt)
            try:
                manifest = await self._create_or_read(number, labels)
            except (KubeError, *CONNECTION_ERRORS) as error:
                log.warning("an identity cannot be created yet", number=number, error=str(error))
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            if manifest.get("security-labels") == labels:
                self._arrived(Resource(ResourceKey(IDENTITY, "", str(number)), manifest))
                return
            attempt += 1
        raise IdentitiesExhausted(f"{_ATTEMPTS} numbers were tried, all have other labels")

    async def _create_or_read(self, number: int, labels: dict[str, str]) -> dict[str, Any]:
        body = {
            "apiVersion": GROUP_VERSION,
            "kind": IDENTITY,
            "metadata": {"name": str(number)},
            "security-labels": labels,
        }
        made: dict[str, Any]
        try:
            made, _ = await self._client.request("POST", path_of(IDENTITY), body=body)
        except KubeError as error:
            if error.status != 409:
                raise
            made, _ = await self._client.request("GET", path_of(IDENTITY, str(number)))
        return made


def candidate(labels: Labels, attempt: int) -> int:
    """The number to try for a label set, the ``attempt``-th time."""
    text = "\n".join([str(attempt), *format_labels(labels)])
    digest = int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")
    return FIRST_POD_IDENTITY + digest % (LAST_POD_IDENTITY - FIRST_POD_IDENTITY + 1)
