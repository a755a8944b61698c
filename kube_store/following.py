"""One kind of the API server's objects: list, then watch, and never less than is known.

Source: Kubernetes API concepts, "Efficient detection of changes", "Watch bookmarks", "410 Gone".
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import structlog

from kube_store.back_off import BackOff
from kube_store.kube_client import CONNECTION_ERRORS, KubeClient, KubeError, WatchEvent
from kube_store.resource import Resource, ResourceKey, SourceError
from kube_store.watched import Corrupt, Watched, version_of

log = structlog.get_logger(__name__)

OnBatch = Callable[[list[Resource], list[ResourceKey]], object]

_PAGE = "500"
_CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
_ANSWER_SECONDS = 30.0
_MISSING_SECONDS = 10.0
_WATCH_SECONDS = (240, 480)
_SILENCE_SECONDS = 150.0  # a bookmark comes every minute, also where nothing changes
_STEADY_SECONDS = 1.0  # a watch that ends sooner has failed, whatever its status was


class Unsteady(RuntimeError):
    """An answer that is not to be believed, or not to be asked for again at once."""


class Following:
    """``error`` is what is wrong now; ``received`` counts bytes of JSON; ``settled`` is set once
    the kind was listed whole, or is optional and not installed."""

    def __init__(self, client: KubeClient, watched: Watched, on_batch: OnBatch) -> None:
        self.watched = watched
        self.error: SourceError | None = None
        self.received = 0
        self.settled = asyncio.Event()
        self._client, self._on_batch = client, on_batch
        self._known: dict[ResourceKey, int] = {}  # resourceVersions
        self._newest = 0  # of every list, event and bookmark: nothing older is believed
        self._listed = False  # a watch can begin at _newest
        self._since = ""
        self._absent = False  # the kind was not installed when it was asked for last
        self._back_off = BackOff()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                if not self._listed:
                    await self._list()
                await self._watch()
            except KubeError as error:
                await asyncio.sleep(await self._refused(error))
            except (*CONNECTION_ERRORS, Corrupt, Unsteady) as error:
                self._failed(str(error) or "no answer in time")
                await asyncio.sleep(self._back_off.next())

    async def _list(self) -> None:
        watched = self.watched
        query = watched.selectors | {"limit": _PAGE}
        found: dict[ResourceKey, tuple[Resource, int]] = {}
        while True:
            answer, size = await self._client.request(
                "GET",
                watched.path,
                query,
                accept=watched.accept(listed=True),
                seconds=_ANSWER_SECONDS,
            )
            self.received += size
            version = version_of(answer)
            for manifest in answer.get("items") or []:
                of_item = version_of(manifest)
                resource = watched.resource(manifest)
                if resource:
                    found[resource.key] = resource, of_item
            if not (token := answer["metadata"].get("continue")):
                break
            query["continue"] = token
        if version < self._newest:
            raise Unsteady(
                f"the list of {watched.plural} is of version {version}, {self._newest} was seen"
                " before (if etcd was restored from a backup, restart this process)"
            )
        changed = [r for key, (r, of_item) in found.items() if self._known.get(key) != of_item]
        gone = [key for key in self._known if key not in found]
        self._known = {key: of_item for key, (_, of_item) in found.items()}
        self._newest, self._listed, self._absent = version, True, False
        self._batch(changed, gone)
        self.settled.set()

    async def _watch(self) -> None:
        """Until the server ends it, which it does every few minutes."""
        watched, loop = self.watched, asyncio.get_running_loop()
        query = watched.selectors | {
            "watch": "1", "allowWatchBookmarks": "true", "resourceVersion": str(self._newest),
            "timeoutSeconds": str(random.randint(*_WATCH_SECONDS)),  # noqa: S311
        }  # fmt: skip
        opened = self._client.watch(
            watched.path, query, watched.accept(listed=False), _SILENCE_SECONDS
        )
        async with opened as stream:
            began = loop.time()
            steady = loop.call_later(_STEADY_SECONDS, self._well)
            try:
                async for events, size in stream:
                    self.received += size
                    self._take(events)
            finally:
                steady.cancel()
        if loop.time() - began < _STEADY_SECONDS:
            raise Unsteady("the API server ended the watch at once")

    def _take(self, events: list[WatchEvent]) -> None:
        """The last word on each object, in one batch; what comes before a fault is taken."""
        upserts: dict[ResourceKey, Resource] = {}
        deletes: dict[ResourceKey, None] = {}
        try:
            for event in events:
                self._take_one(event, upserts, deletes)
        finally:
            self._batch(list(upserts.values()), list(deletes))

    def _take_one(
        self,
        event: WatchEvent,
        upserts: dict[ResourceKey, Resource],
        deletes: dict[ResourceKey, None],
    ) -> None:
        """Raises KubeError for an ERROR event, Corrupt."""
        if event.type == "ERROR":
            raise KubeError(_code(event.object), str(event.object.get("message", "")))
        version = version_of(event.object)
        if version <= self._newest:  # of a server that lags behind the one before
            return
        self._newest = version
        if event.type == "BOOKMARK":
            return
        resource = self.watched.resource(event.object)
        if resource is None:
            return
        key = resource.key
        if event.type == "DELETED":
            self._known.pop(key, None)
            upserts.pop(key, None)
            deletes[key] = None
        else:
            self._known[key] = version
            deletes.pop(key, None)
            upserts[key] = resource

    def _batch(self, upserts: list[Resource], deletes: list[ResourceKey]) -> None:
        if upserts or deletes:
            self._on_batch(upserts, deletes)

    async def _refused(self, error: KubeError) -> float:
        """Seconds to wait."""
        watched, group = self.watched, self.watched.group or "core"
        wait = self._back_off.next(error.retry_after)
        if error.status == 410:  # what we know is too old: list anew, at once the first time
            self._listed = False
            if self._back_off.attempts == 1:
                return 0.0
        if error.status == 404 and watched.optional and await self._is_not_installed():
            # Its objects went with it, or there were none.
            self._batch([], list(self._known))
            self._known.clear()
            self._listed = False
            self.settled.set()
            known_as = watched.group_version
            self._is_absent(f"the API server does not know {watched.plural} of {known_as}")
            return _MISSING_SECONDS
        remedy = ""
        if error.status == 401:
            remedy = "check the token or the client certificate of our kubeconfig"
        elif error.status == 403:
            remedy = f"grant list and watch on {watched.plural} of {group} to our service account"
        self._failed(f"{error.status}: {error}", remedy)
        return wait

    async def _is_not_installed(self) -> bool:
        """Whether there is no CRD, or none of this version: a server that starts answers 404 for a
        while too, without a reason."""
        try:
            crd, _ = await self._client.request("GET", f"{_CRDS}/{self.watched.crd}")
        except KubeError as error:
            return error.status == 404 and error.reason == "NotFound"
        except CONNECTION_ERRORS:
            return False
        served = {each["name"] for each in crd["spec"]["versions"] if each["served"]}
        return self.watched.version not in served

    def _is_absent(self, message: str) -> None:
        if self.watched.remedy:
            self._failed(message, self.watched.remedy)
        elif not self._absent:
            log.info("not installed, done without", resource=self.watched.plural, said=message)
            self.error = None
        self._absent = True

    def _failed(self, message: str, remedy: str = "") -> None:
        plural = self.watched.plural
        if self.error is None:
            self._since = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            log.warning("the API server cannot be followed", resource=plural, error=message)
        message = f"{message} (since {self._since})"
        self.error = SourceError("kube-apiserver", 0, plural, "", message, remedy)

    def _well(self) -> None:
        if self.error:
            log.info("the API server is followed again", resource=self.watched.plural)
        self.error = None
        self._back_off.reset()


def _code(status: dict[str, Any]) -> int:
    code = status.get("code")
    return code if isinstance(code, int) else 500
