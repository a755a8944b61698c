"""Gateways of the cluster: their addresses from pools, Services that name these, all statuses."""

from __future__ import annotations

import asyncio

import structlog

from cluster_operator.gateway_services import GatewayServices
from cluster_operator.gateway_status import GatewayStatuses
from gateway_translator.pools import Allocator
from gateway_translator.translator import CONTROLLER, Output
from kube_store.gateways import Assigner, GatewayObjects
from kube_store.kube_client import KubeClient
from kube_store.status import StatusWriter
from kube_store.store import Store

log = structlog.get_logger(__name__)

_WRITERS = 8


class GatewayController:
    """Runs once the store has heard everything: who had an address keeps it."""

    def __init__(self, client: KubeClient, store: Store) -> None:
        self._store = store
        self._writer = StatusWriter(client, _WRITERS)
        self._statuses = GatewayStatuses(store, self._writer, CONTROLLER)
        self._services = GatewayServices(client, store)

    async def run(self) -> None:
        """Until cancelled."""
        news = asyncio.Event()
        objects = GatewayObjects(self._store, Assigner(self._store, Allocator()), news.set)
        news.set()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._writer.run())
            group.create_task(self._services.run())
            while True:
                await news.wait()
                news.clear()
                for output in objects.settle():
                    self._say(output)

    def _say(self, output: Output) -> None:
        for ref, problem in output.problems.items():
            log.error("object of a Gateway not understood", object=str(ref), error=problem)
        for ref, status in output.statuses.items():
            self._statuses.put((ref.kind, ref.namespace, ref.name), status)
            if ref.kind == "Gateway":
                addresses = [each["value"] for each in status["addresses"]] if status else None
                self._services.put((ref.namespace, ref.name), addresses)
