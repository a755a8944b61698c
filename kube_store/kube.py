"""The API server as a source of objects: list, then watch, and never less than is known.

Source: Kubernetes API concepts, "Efficient detection of changes", "Watch bookmarks", "410 Gone".
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog

from kube_store.kube_client import (
    CONNECTION_ERRORS,
    JSON,
    KubeClient,
    KubeError,
    resource_path,
)
from kube_store.resource import Resource, ResourceKey, SourceError, identify

log = structlog.get_logger(__name__)

OnBatch = Callable[[list[Resource], list[ResourceKey]], object]
Trim = Callable[[dict[str, Any]], dict[str, Any]]

_PAGE = "500"
_CRDS = "apiextensions.k8s.io/v1"
_BACK_OFF = (0.2, 30.0)
_MISSING_SECONDS = 10.0
_WATCH_SECONDS = (240, 480)
_SILENCE_SECONDS = 600.0
_METADATA = "application/json;as=PartialObjectMetadata{};g=meta.k8s.io;v=v1," + JSON
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


class Stale(RuntimeError):
    """The API server's cache is older than what it said before."""


@dataclass(frozen=True, slots=True)
class Watched:
    """What to follow. ``optional``: a CRD that may come later. ``trim`` keeps what is needed."""

    kind: str
    group_version: str
    plural: str
    field_selector: str = ""
    label_selector: str = ""
    metadata_only: bool = False
    optional: bool = False
    trim: Trim = lambda manifest: manifest

    @property
    def path(self) -> str:
        return resource_path(self.group_version, self.plural)


@dataclass(slots=True)
class _Followed:
    """One kind's state. ``versions`` are the resourceVersions of the objects that are known."""

    watched: Watched
    version: str = ""
    versions: dict[ResourceKey, int] = field(default_factory=dict)
    error: SourceError | None = None
    attempt: int = 0


class KubeSource:
    """``on_batch`` is given what is new or changed and the keys of what is gone.

    While the server cannot be reached what is known stays. ``synced`` is set once every kind was
    listed whole, or is optional and not there; ``received`` counts bytes by kind.
    """

    def __init__(self, client: KubeClient, watched: Sequence[Watched], on_batch: OnBatch) -> None:
        self._client, self._on_batch = client, on_batch
        self._followed = [_Followed(each) for each in watched]
        self._unsynced = {each.kind for each in watched}
        self.synced = asyncio.Event()
        self.received = dict.fromkeys(self._unsynced, 0)

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            for followed in self._followed:
                group.create_task(self._follow(followed))

    def errors(self) -> list[SourceError]:
        """What is wrong now, a line for each kind."""
        return [each.error for each in self._followed if each.error]

    async def _follow(self, followed: _Followed) -> None:
        while True:
            try:
                if not followed.version:
                    await self._list(followed)
                await self._watch(followed)
            except KubeError as error:
                absent = error.status == 404 and followed.watched.optional
                if absent and await self._is_not_installed(followed.watched):
                    self._is_synced(followed.watched)
                await asyncio.sleep(self._refused(followed, error))
            except (*CONNECTION_ERRORS, Stale) as error:
                self._failed(followed, str(error) or type(error).__name__, "")
                await asyncio.sleep(_back_off(followed))

    async def _list(self, followed: _Followed) -> None:
        watched, found = followed.watched, {}
        query = _selectors(watched) | {"limit": _PAGE}
        accept = _METADATA.format("List") if watched.metadata_only else JSON
        while True:
            answer, size = await self._client.request("GET", watched.path, query, accept=accept)
            self.received[watched.kind] += size
            for manifest in answer.get("items") or []:
                resource = _resource(watched, manifest)
                if resource:
                    found[resource.key] = resource, _version(manifest)
            metadata = answer["metadata"]
            if not metadata.get("continue"):
                break
            query["continue"] = metadata["continue"]
        newest = max(followed.versions.values(), default=0)
        if int(metadata["resourceVersion"]) < newest:
            raise Stale(
                f"{watched.plural}: the API server's list is older than what it said before"
            )
        gone = [key for key in followed.versions if key not in found]
        changed = [
            resource for key, (resource, version) in found.items()
            if followed.versions.get(key) != version
        ]  # fmt: skip
        followed.versions = {key: version for key, (_, version) in found.items()}
        followed.version = metadata["resourceVersion"]
        self._batch(changed, gone)
        self._well(followed)
        self._is_synced(watched)

    async def _watch(self, followed: _Followed) -> None:
        """Until the server ends it, which it does every few minutes."""
        watched = followed.watched
        query = _selectors(watched) | {
            "watch": "1", "allowWatchBookmarks": "true", "resourceVersion": followed.version,
            "timeoutSeconds": str(random.randint(*_WATCH_SECONDS)),  # noqa: S311
        }  # fmt: skip
        accept = _METADATA.format("") if watched.metadata_only else JSON
        stream = self._client.watch(watched.path, query, accept, _SILENCE_SECONDS)
        async for events, size in stream:
            self.received[watched.kind] += size
            self._take(followed, events)
            self._well(followed)

    def _take(self, followed: _Followed, events: list[Any]) -> None:
        """The last word on each object that the batch has, in one batch."""
        upserts: dict[ResourceKey, Resource] = {}
        deletes: dict[ResourceKey, None] = {}
        problem: KubeError | None = None
        for event in events:
            manifest = event["object"]
            if event["type"] == "ERROR":
                problem = KubeError(manifest.get("code", 500), manifest.get("message", ""))
                break
            followed.version = manifest["metadata"]["resourceVersion"]
            resource = (
                None if event["type"] == "BOOKMARK" else _resource(followed.watched, manifest)
            )
            if resource is None:
                continue
            key = resource.key
            if event["type"] == "DELETED":
                followed.versions.pop(key, None)
                upserts.pop(key, None)
                deletes[key] = None
            elif followed.versions.get(key, 0) < _version(manifest):
                followed.versions[key] = _version(manifest)
                deletes.pop(key, None)
                upserts[key] = resource
        self._batch(list(upserts.values()), list(deletes))
        if problem:
            raise problem

    def _batch(self, upserts: list[Resource], deletes: list[ResourceKey]) -> None:
        if upserts or deletes:
            self._on_batch(upserts, deletes)

    def _refused(self, followed: _Followed, error: KubeError) -> float:
        """Seconds to wait."""
        watched = followed.watched
        if error.status == 410:  # what we knew is too old: list anew, at once the first time
            followed.version = ""
            return _back_off(followed) if followed.attempt else _step(followed)
        if error.status == 404 and watched.optional:
            # What is known stays: a removed CRD takes its objects with it, one by one, before.
            remedy = "the operator installs the CRDs: is it running?"
            self._failed(followed, f"the API server does not know {watched.plural}", remedy)
            followed.version = ""
            return _MISSING_SECONDS if watched.kind not in self._unsynced else _back_off(followed)
        remedy = ""
        if error.status in (401, 403):
            group = watched.group_version.rpartition("/")[0] or "core"
            remedy = f"grant list and watch on {watched.plural} of {group} to our service account"
        self._failed(followed, str(error), remedy)
        return max(error.retry_after, _back_off(followed))

    async def _is_not_installed(self, watched: Watched) -> bool:
        """Whether the CRD itself is absent: a server that starts answers 404 for a while too."""
        group = watched.group_version.partition("/")[0]
        path = resource_path(_CRDS, "customresourcedefinitions", name=f"{watched.plural}.{group}")
        try:
            await self._client.request("GET", path)
        except KubeError as error:
            return error.status == 404
        except CONNECTION_ERRORS:
            return False
        return False

    def _failed(self, followed: _Followed, message: str, remedy: str) -> None:
        plural = followed.watched.plural
        if followed.error is None:
            log.warning("the API server cannot be followed", resource=plural, error=message)
        followed.error = SourceError("kube-apiserver", 0, plural, "", message, remedy)

    def _well(self, followed: _Followed) -> None:
        if followed.error:
            log.info("the API server is followed again", resource=followed.watched.plural)
        followed.error, followed.attempt = None, 0

    def _is_synced(self, watched: Watched) -> None:
        self._unsynced.discard(watched.kind)
        if not self._unsynced:
            self.synced.set()


def _selectors(watched: Watched) -> dict[str, str]:
    both = {"fieldSelector": watched.field_selector, "labelSelector": watched.label_selector}
    return {name: value for name, value in both.items() if value}


def _resource(watched: Watched, manifest: dict[str, Any]) -> Resource | None:
    """Kind and version are not in the items of a list; who wrote what is of no use to us."""
    metadata = manifest["metadata"]
    metadata.pop("managedFields", None)
    (metadata.get("annotations") or {}).pop(_LAST_APPLIED, None)
    manifest = {**manifest, "apiVersion": watched.group_version, "kind": watched.kind}
    key, errors = identify(manifest)
    if key is None:
        log.error("object left out", resource=watched.plural, error="; ".join(map(str, errors)))
        return None
    return Resource(key, watched.trim(manifest), "kube-apiserver")


def _version(manifest: dict[str, Any]) -> int:
    """Comparable since Kubernetes 1.35 says so of its own resources and CRDs (KEP-5504)."""
    return int(manifest["metadata"]["resourceVersion"])


def _step(followed: _Followed) -> float:
    followed.attempt += 1
    return 0.0


def _back_off(followed: _Followed) -> float:
    """Full jitter: a whole cluster of agents does not come back at one moment."""
    first, most = _BACK_OFF
    followed.attempt += 1
    return random.uniform(first / 2, min(most, first * 2.0**followed.attempt))  # noqa: S311
