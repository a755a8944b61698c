"""A source of the API server's objects that runs, and what came of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from kube_store.kube import KubeSource, Watched
from kube_store.kube_client import KubeClient
from kube_store.resource import Resource, ResourceKey
from kube_store.store import Store
from kube_store.tasks import cancelled


class Following:
    """What it says is ``name=value``, and in batches ``-name`` of what is gone."""

    def __init__(
        self, client: KubeClient, value: Callable[[Resource], str], *watched: Watched
    ) -> None:
        self.store = Store()
        self.batches: list[list[str]] = []
        self.client = client
        self.source = KubeSource(client, watched, self._take)
        self._value = value
        self._running = asyncio.create_task(self.source.run())

    def names(self) -> list[str]:
        return [self._said(resource) for resource in self.store.list()]

    def errors(self) -> str:
        return "\n".join(map(str, self.source.errors()))

    async def synced(self) -> None:
        await asyncio.wait_for(self.source.synced.wait(), 30)

    async def close(self) -> None:
        await cancelled(self._running)
        await self.client.close()

    def _take(self, upserts: list[Resource], deletes: list[ResourceKey]) -> None:
        self.store.apply(upserts, deletes)
        said = [self._said(resource) for resource in upserts]
        self.batches.append(sorted(said + [f"-{key.name}" for key in deletes]))

    def _said(self, resource: Resource) -> str:
        return f"{resource.key.name}={self._value(resource)}"
