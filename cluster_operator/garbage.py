"""Removes what nodes left: identities that nobody has, and all of nodes that are gone."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import structlog

from kube_store.kube_client import CONNECTION_ERRORS, KubeClient, KubeError
from kube_store.resource import Resource
from kube_store.shared import IDENTITY, REPORT, SLICE, path_of
from kube_store.store import Store

log = structlog.get_logger(__name__)


class GarbageCollector:
    """An identity goes at the second sweep that finds it unused: its first pod may be starting."""

    def __init__(self, client: KubeClient, store: Store, seconds: float) -> None:
        self._client, self._store, self._seconds = client, store, seconds
        self._unused: dict[str, Any] = {}  # name -> the object's version when it was first seen so

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(self._seconds)
            await self.sweep()

    async def sweep(self) -> None:
        for kind, name in self._of_gone_nodes():
            await self._delete(kind, name, None)
        used = self._used()
        unused = {
            identity.key.name: _version(identity)
            for identity in self._store.list(IDENTITY)
            if identity.key.name not in used
        }
        for name, version in unused.items():
            if self._unused.get(name) == version:
                await self._delete(IDENTITY, name, version)
        self._unused = unused

    def _used(self) -> set[str]:
        return {
            str(endpoint["identity"])
            for resource in self._store.list(SLICE)
            for endpoint in resource.manifest.get("endpoints") or []
        }

    def _of_gone_nodes(self) -> Iterator[tuple[str, str]]:
        nodes = {resource.key.name for resource in self._store.list("Node")}
        for kind in (SLICE, REPORT):
            for resource in self._store.list(kind):
                if resource.manifest.get("node") not in nodes:
                    yield kind, resource.key.name

    async def _delete(self, kind: str, name: str, version: str | None) -> None:
        body = {"preconditions": {"resourceVersion": version}} if version else None
        try:
            await self._client.request("DELETE", path_of(kind, name), body=body)
            log.info("removed what nobody uses", kind=kind, name=name)
        except KubeError as error:
            if error.status not in (404, 409):  # gone, or in use again
                log.warning("not removed", kind=kind, name=name, error=str(error))
        except CONNECTION_ERRORS as error:
            log.warning("not removed", kind=kind, name=name, error=str(error))


def _version(resource: Resource) -> str:
    return str(resource.manifest["metadata"].get("resourceVersion", ""))
