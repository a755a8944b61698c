"""Gateways of this node's Envoy: from objects to what Envoy is sent."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

import structlog

from gateway_translator.ir import ObjectRef
from gateway_translator.pools import Allocator
from kube_store.gateways import Assigner, GatewayObjects, assigned
from kube_store.store import Change, Store
from node_agent.endpoints import EndpointRecord
from node_agent.local_slices import KINDS as LOCAL_KINDS
from node_agent.local_slices import local_slices
from xds_server.gateway.render import Renderer
from xds_server.server import XdsServer

log = structlog.get_logger(__name__)


class Gateways:
    """``statuses`` and ``problems`` are by object, as the translator says them.

    ``table`` is given for a node by itself: nobody else makes slices of its pods, or gives
    addresses; ``shared`` are those that a Gateway has there without a pool.
    """

    def __init__(
        self,
        store: Store,
        xds: XdsServer,
        sources: Iterable[str] = (),
        table: Iterable[EndpointRecord] | None = None,
        shared: tuple[str, ...] = (),
    ) -> None:
        self._store, self._xds, self._table = store, xds, table
        self._renderer = Renderer(tuple(sources))
        self._news = asyncio.Event()
        self._slices: dict[tuple[str, str], Mapping[str, Any]] = {}
        self._pods_changed = table is not None
        self.problems: dict[ObjectRef, str] = {}
        addresses = assigned if table is None else Assigner(store, Allocator(shared))
        self.objects = GatewayObjects(store, addresses, self._news.set)
        if table is not None:
            store.subscribe(self._note_pods)

    def note_endpoint(self, _id: int, _record: EndpointRecord | None) -> None:
        """An endpoint of this node came, changed or went."""
        self._pods_changed = self._table is not None
        self._news.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._news.wait()
            self._news.clear()
            self.settle()

    def settle(self) -> None:
        """Envoy's resources follow from all objects that are known now."""
        if self._pods_changed and self._table is not None:
            self._pods_changed = False
            self._make_slices(self._table)
        for output in self.objects.settle():
            for ref, problem in output.problems.items():
                log.error("object of a Gateway not understood", object=str(ref), error=problem)
            self.problems |= output.problems
            self._xds.update_resources(self._renderer.render(output.delta))

    def _note_pods(self, changes: list[Change]) -> None:
        if any(change.resource.key.kind in LOCAL_KINDS for change in changes):
            self._pods_changed = True
            self._news.set()

    def _make_slices(self, table: Iterable[EndpointRecord]) -> None:
        now = local_slices(self._store, table)
        for name in self._slices.keys() - now.keys():
            self.objects.put(("EndpointSlice", *name), None)
        for name, manifest in now.items():
            if self._slices.get(name) != manifest:
                self.objects.put(("EndpointSlice", *name), manifest)
        self._slices = dict(now)
