"""Gateways of this node's Envoy: from objects to what Envoy is sent."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Mapping
from ipaddress import ip_address
from typing import Any

import structlog

from datapath.codec import Address
from gateway_translator import overview, tracing
from gateway_translator.ir import Delta, ObjectRef
from gateway_translator.pools import Allocator
from gateway_translator.translator import Output
from kube_store.gateway_addresses import Assigned, Assigner
from kube_store.gateways import GatewayObjects
from kube_store.store import Change, Store
from node_agent.endpoints import EndpointRecord
from node_agent.local_slices import KINDS as LOCAL_KINDS
from node_agent.local_slices import local_slices
from node_agent.mesh import PATIENCE_SECONDS, Mesh
from xds_server.gateway.origins import Resource
from xds_server.gateway.refusals import Refusals
from xds_server.gateway.render import Renderer
from xds_server.gateway.suspects import Suspects
from xds_server.server import XdsServer

log = structlog.get_logger(__name__)

TOGETHER_SECONDS = 0.02
"""What comes so soon after a change is settled together, in one answer to Envoy."""

RETRY_SECONDS = 60.0
"""What Envoy refused is offered again: what it depends on may have changed."""


class Gateways:
    """``problems`` are by object, as the translator says them.

    ``mesh``: who is redirected to routes of Services; None: nobody. ``addresses`` are those that
    listeners have; ``readdressed`` is set when they are others.
    ``on_refused`` is called when Envoy refuses other objects than before. ``table`` is given for a
    node by itself: nobody else makes slices of its pods, or gives addresses; ``shared`` are those
    that a Gateway has there without a pool.
    """

    def __init__(
        self,
        store: Store,
        xds: XdsServer,
        mesh: Mesh | None = None,
        table: Iterable[EndpointRecord] | None = None,
        shared: tuple[str, ...] = (),
    ) -> None:
        self._store, self._xds, self._mesh, self._table = store, xds, mesh, table
        self._renderer = Renderer(ports=mesh.ports if mesh else None)
        self._news = asyncio.Event()
        self._slices: dict[tuple[str, str], Mapping[str, Any]] = {}
        self._pods_changed = table is not None
        self._suspects = Suspects(xds.accepted)
        self._refusals = Refusals(self._suspected)
        self._retry_at = 0.0
        self._refused: dict[ObjectRef, str] = {}
        self.problems: dict[ObjectRef, str] = {}
        self.addresses: frozenset[Address] = frozenset()
        self.readdressed = asyncio.Event()
        self.followers_changed = asyncio.Event()
        self.on_refused: Callable[[], None] = lambda: None
        addresses = Assigned(store) if table is None else Assigner(store, Allocator(shared))
        self.objects = GatewayObjects(store, addresses, self._news.set)
        xds.on_answer(self._news.set)
        xds.on_followers(self.followers_changed.set)
        if table is not None:
            store.subscribe(self._note_pods)

    def leave_from(self, addresses: Iterable[str]) -> None:
        """Backends see these, one of a family, from now on; none: the node's own."""
        self._renderer.leave_from(tuple(addresses))
        known = self.objects.translator.snapshot().clusters
        self._xds.update_resources(self._renderer.render(Delta(clusters=known)))

    @property
    def are_served(self) -> bool:
        """Whether the node's Envoy lives; ``followers_changed`` is set when that may be another."""
        return self._xds.is_followed

    def note_endpoint(self, _id: int, _record: EndpointRecord | None) -> None:
        """An endpoint of this node came, changed or went."""
        self._pods_changed = self._table is not None
        self._news.set()

    def refused(self) -> Mapping[ObjectRef, str]:
        """What Envoy refuses, with its words: sections of Gateways and ListenerSets, rules."""
        return self._refused

    def status(self) -> list[dict[str, Any]]:
        """As :func:`overview.statuses`."""
        problems = self.problems | (self._mesh.problems if self._mesh else {})
        return overview.statuses(self.objects.translator.statuses(), problems)

    def routes(self) -> list[dict[str, Any]]:
        """As :func:`overview.routes`."""
        return overview.routes(self.objects.translator.snapshot())

    def trace(self, question: Any) -> list[dict[str, Any]]:
        """As :func:`tracing.trace`, by the names of its parameters. Raises BadUrlError."""
        asked = question if isinstance(question, dict) else {}
        return tracing.trace(
            self.objects.translator.snapshot(),
            str(asked.get("url", "")),
            str(asked.get("method", "GET")),
            {str(name): str(value) for name, value in asked.get("headers") or ()},
            str(asked.get("gateway", "")),
        )

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                waits = self._mesh is not None and self._mesh.waits
                patience = PATIENCE_SECONDS if waits else RETRY_SECONDS
                await asyncio.wait_for(self._news.wait(), patience)
            self._news.clear()
            self.settle()
            await asyncio.sleep(TOGETHER_SECONDS)

    def settle(self) -> None:
        """Envoy's resources follow from all objects that are known now, but for those that it
        refuses."""
        if self._pods_changed and self._table is not None:
            self._pods_changed = False
            self._make_slices(self._table)
        if self._refusals.forget(self.objects.pending()):
            self._take(self.objects.translator.set_refused(self._refusals.out()))
        for output in self.objects.settle():
            self._take(output)
        self._settle_refused()
        if self._mesh:
            if moved := self._mesh.move(self._xds.refused()):
                self._xds.update_resources(self._renderer.render(Delta(mesh=moved)))
            self._mesh.step()

    def _take(self, output: Output) -> None:
        for ref, problem in output.problems.items():
            log.error("object of a Gateway not understood", object=str(ref), error=problem)
        self.problems |= output.problems
        self._suspects.note(output.delta)
        if self._mesh:
            self._mesh.take(output.delta.mesh)
        self._xds.update_resources(self._renderer.render(output.delta))
        if output.delta.listeners:
            self._note_addresses()

    def _settle_refused(self) -> None:
        now = time.monotonic()
        if not self._refusals:
            self._retry_at = now + RETRY_SECONDS
        changed = self._refusals.step(self._xds.refused(), self._xds.accepted)
        if now >= self._retry_at:
            self._retry_at = now + RETRY_SECONDS
            changed |= self._refusals.retry()
        if changed:
            self._take(self.objects.translator.set_refused(self._refusals.out()))
        if (guilty := self._refusals.guilty()) != self._refused:
            for ref in guilty.keys() - self._refused.keys():
                log.error("Envoy refuses an object", object=str(ref), error=guilty[ref])
            self._refused = guilty
            self.on_refused()

    def _suspected(self, resource: Resource) -> tuple[ObjectRef, ...]:
        return self._suspects.of(resource, self.objects.translator.snapshot())

    def _note_addresses(self) -> None:
        listeners = self.objects.translator.snapshot().listeners.values()
        found = frozenset(ip_address(text) for each in listeners for text in each.addresses)
        if found != self.addresses:
            self.addresses = found
            self.readdressed.set()

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
