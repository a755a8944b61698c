"""Removes what nodes left: identities that nobody has, and all of nodes that are gone."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import structlog

from kube_store.kube_client import CONNECTION_ERRORS, KubeClient, KubeError, resource_path
from kube_store.resource import Resource
from kube_store.store import Store

log = structlog.get_logger(__name__)

OWN = "policy.sidegate.io/v2"


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
        for plural, name in self._of_gone_nodes():
            await self._delete(plural, name, None)
        used = self._used()
        unused = {
            identity.key.name: _version(identity)
            for identity in self._store.list("SidegateIdentity")
            if identity.key.name not in used
        }
        for name, version in unused.items():
            if self._unused.get(name) == version:
                await self._delete("sidegateidentities", name, version)
        self._unused = unused

    def _used(self) -> set[str]:
        return {
            str(endpoint["identity"])
            for resource in self._store.list("SidegateEndpointSlice")
            for endpoint in resource.manifest.get("endpoints") or []
        }

    def _of_gone_nodes(self) -> Iterator[tuple[str, str]]:
        nodes = {resource.key.name for resource in self._store.list("Node")}
        for kind, plural in (("SidegateEndpointSlice", "sidegateendpointslices"),
                             ("SidegatePolicyReport", "sidegatepolicyreports")):  # fmt: skip
            for resource in self._store.list(kind):
                if resource.manifest.get("node") not in nodes:
                    yield plural, resource.key.name

    async def _delete(self, plural: str, name: str, version: str | None) -> None:
        body = {"preconditions": {"resourceVersion": version}} if version else None
        try:
            await self._client.request("DELETE", resource_path(OWN, plural, name=name), body=body)
            log.info("removed what nobody uses", resource=plural, name=name)
        except KubeError as error:
            if error.status not in (404, 409):  # gone, or in use again
                log.warning("not removed", resource=plural, name=name, error=str(error))
        except CONNECTION_ERRORS as error:
            log.warning("not removed", resource=plural, name=name, error=str(error))


def _version(resource: Resource) -> str:
    return str(resource.manifest["metadata"].get("resourceVersion", ""))
