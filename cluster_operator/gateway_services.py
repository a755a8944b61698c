"""Writes the objects that are made for Gateways, and takes back those of Gateways not ours."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from cluster_operator.gateway_objects import Manifest, belongs, service, slices
from kube_store.back_off import BackOff
from kube_store.kube_client import CONNECTION_ERRORS, KubeClient, KubeError, resource_path
from kube_store.resource import ResourceKey, plural
from kube_store.store import Store

log = structlog.get_logger(__name__)

_MANAGER = "sidegate-operator"
Name = tuple[str, str]
"""Namespace and name of a Gateway."""


class GatewayServices:
    """The last word on each Gateway is written; what fails is tried again with back-off."""

    def __init__(self, client: KubeClient, store: Store) -> None:
        self._client, self._store = client, store
        self._wanted: dict[Name, Sequence[str] | None] = {}
        self._written: dict[Name, list[Manifest]] = {}
        self._news = asyncio.Event()

    def put(self, gateway: Name, addresses: Sequence[str] | None) -> None:
        """None: it is no Gateway of ours, or not any more."""
        self._wanted[gateway] = addresses
        self._news.set()

    async def run(self) -> None:
        """Until cancelled."""
        back_off = BackOff()
        while True:
            await self._news.wait()
            self._news.clear()
            failed: dict[Name, Sequence[str] | None] = {}
            while self._wanted:
                gateway, addresses = self._wanted.popitem()
                try:
                    await self._settle(gateway, addresses)
                except (KubeError, *CONNECTION_ERRORS) as error:
                    log.warning("no Service for a Gateway yet", gateway=gateway, error=str(error))
                    failed[gateway] = addresses
            if failed:
                await asyncio.sleep(back_off.next())
                self._wanted = failed | self._wanted
                self._news.set()
            else:
                back_off.reset()

    async def _settle(self, name: Name, addresses: Sequence[str] | None) -> None:
        found = self._store.get(ResourceKey("Gateway", *name))
        if found is None:
            self._written.pop(name, None)
            return  # the garbage collector takes what it had
        gateway = found.manifest
        made = [service(gateway), *slices(gateway, addresses or ())]
        wanted = made if addresses is not None else []
        if self._written.get(name) == wanted:
            return
        held = await self._client.find(_path(made[0]))
        if held is not None and not belongs(held, gateway):
            log.error("a Service of another is in the place of a Gateway's", service=_path(made[0]))
        elif wanted:
            for manifest in made:
                await self._client.apply(_path(manifest), manifest, _MANAGER)
        elif held is not None:
            for manifest in made:
                await self._client.remove(_path(manifest))
        self._written[name] = wanted


def _path(manifest: Manifest) -> str:
    metadata = manifest["metadata"]
    return resource_path(
        manifest["apiVersion"], plural(manifest["kind"]), metadata["namespace"], metadata["name"]
    )
