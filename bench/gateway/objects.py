"""Objects of the API server, written many at a time, and what controllers say of them there."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from bench.gateway.manifests import GATEWAY_API, Manifest
from kube_store.kube import KubeSource, Watched
from kube_store.kube_client import MERGE_PATCH, KubeClient, KubeError, resource_path
from kube_store.resource import Resource, ResourceKey, plural

_TOGETHER = 24
_TRIES, _PAUSE_SECONDS = 100, 0.1
_ROUTES = resource_path(GATEWAY_API, "httproutes", "default")
_NO_FINALIZERS = {"metadata": {"finalizers": None}}


async def put(api: KubeClient, manifest: Manifest) -> None:
    """With its status, if it has one. A kind whose CRD came just now is not known at once."""
    status = manifest.get("status")
    path = _path(manifest)
    for again in range(_TRIES):
        try:
            await api.apply(path, {n: v for n, v in manifest.items() if n != "status"}, "bench")
            break
        except KubeError as error:
            if error.status != 404 or again == _TRIES - 1:
                raise
            await asyncio.sleep(_PAUSE_SECONDS)
    if status:
        await api.request("PATCH", f"{path}/status", None, {"status": status}, MERGE_PATCH)


async def create(api: KubeClient, manifest: Manifest) -> None:
    """What was not there; in one request."""
    await api.request("POST", _path(manifest).rpartition("/")[0], body=manifest, seconds=60)


async def remove(api: KubeClient, manifest: Manifest) -> None:
    """At once, whoever wants to be asked before."""
    path = _path(manifest)
    with contextlib.suppress(KubeError):
        await api.request("PATCH", path, None, _NO_FINALIZERS, MERGE_PATCH)
        await api.request("DELETE", path, {"gracePeriodSeconds": "0"})


async def remove_routes(api: KubeClient) -> None:
    await api.request("DELETE", _ROUTES, seconds=120)


async def together(work: Iterable[Callable[[], Awaitable[Any]]]) -> None:
    """Each of them, so many at a time."""
    waiting = iter(work)

    async def one_by_one() -> None:
        for each in waiting:
            await each()

    await asyncio.gather(*(one_by_one() for _ in range(_TOGETHER)))


class Statuses:
    """``written``: names of HTTPRoutes whose newest form ``controller`` has said something of."""

    def __init__(self, api: KubeClient, controller: str) -> None:
        self.written: set[str] = set()
        self._controller = controller
        self._news = asyncio.Event()
        self._source = KubeSource(api, [Watched("HTTPRoute", GATEWAY_API, "httproutes")], self._on)

    async def run(self) -> None:
        """Until cancelled."""
        await self._source.run()

    def _on(self, upserts: list[Resource], _: list[ResourceKey]) -> None:
        for each in upserts:
            self.take(each.manifest)
        self._news.set()

    async def until(self, names: set[str], seconds: float) -> float:
        """The monotonic time at which all were seen. Raises TimeoutError."""
        async with asyncio.timeout(seconds):
            while not names <= self.written:
                self._news.clear()
                await self._news.wait()
        return time.monotonic()

    def take(self, route: Manifest) -> None:
        metadata = route["metadata"]
        own = [
            parent
            for parent in (route.get("status") or {}).get("parents") or ()
            if parent["controllerName"] == self._controller
        ]
        if any(
            condition["observedGeneration"] == metadata["generation"]
            for parent in own
            for condition in parent["conditions"]
        ):
            self.written.add(metadata["name"])


def _path(manifest: Manifest) -> str:
    metadata = manifest["metadata"]
    return resource_path(
        manifest["apiVersion"], plural(manifest["kind"]), metadata.get("namespace", ""),
        metadata["name"],
    )  # fmt: skip
