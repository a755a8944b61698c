"""Gateways of the cluster: their addresses from pools, Services that name these, all statuses."""

from __future__ import annotations

import asyncio
from collections.abc import Set

import structlog

from cluster_operator.gateway_services import GatewayServices
from cluster_operator.gateway_status import GatewayStatuses
from gateway_translator.features import EXPERIMENTAL
from gateway_translator.ir import ObjectRef
from gateway_translator.pools import Allocator
from gateway_translator.statuses import Status
from gateway_translator.translator import CONTROLLER, Output
from kube_store.gateway_addresses import Assigner
from kube_store.gateway_kinds import CRD_OF_ROUTES, STATUS_KINDS, channel
from kube_store.gateways import GatewayObjects
from kube_store.kube_client import KubeClient
from kube_store.shared import REPORT
from kube_store.status import StatusWriter
from kube_store.store import Change, ChangeType, Store

log = structlog.get_logger(__name__)

_WRITERS = 32
_TOGETHER_SECONDS = 0.05  # of many routes that come at once a Gateway says once how many it has


class GatewayController:
    """Runs once the store has heard everything: who had an address keeps it.

    What the Envoy of any node refuses is refused: no node would serve what another does not.
    What an object has is compared with what is to be said of it whenever it changed: of one that
    came again at once under its name the translator has no news.
    """

    def __init__(self, client: KubeClient, store: Store) -> None:
        self._store = store
        self._writer = StatusWriter(client, _WRITERS, remember=False)
        self._statuses = GatewayStatuses(store, self._writer, CONTROLLER)
        self._services = GatewayServices(client, store)
        self._known: dict[ObjectRef, str] = {}
        self._heard: set[ObjectRef] = set()

    async def run(self) -> None:
        """Until cancelled."""
        news = asyncio.Event()
        self._store.subscribe(self._take)
        objects = GatewayObjects(self._store, Assigner(self._store, Allocator()), news.set)
        self._store.subscribe(lambda changes: news.set() if _concerns_us(changes) else None)
        news.set()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._writer.run())
            group.create_task(self._services.run())
            while True:
                await news.wait()
                news.clear()
                heard, self._heard = self._heard, set()
                for output in objects.settle():
                    heard -= self._say(output)
                if (refused := self._refused()) != self._known:
                    self._known = refused
                    heard -= self._say(objects.translator.set_refused(refused))
                said = objects.translator.statuses()
                for ref in heard:
                    self._put(ref, said.get(ref))
                await asyncio.sleep(_TOGETHER_SECONDS)

    def _refused(self) -> dict[ObjectRef, str]:
        """By the reports of all nodes; of several words those of the first by name."""
        found: dict[ObjectRef, str] = {}
        for report in sorted(self._store.list(REPORT), key=lambda each: each.key.name):
            for said in (report.manifest.get("gateways") or {}).values():
                ref = ObjectRef(said["kind"], said["namespace"], said["name"], said["section"])
                found.setdefault(ref, said["message"])
        return found

    def _take(self, changes: list[Change]) -> None:
        self._heard |= {
            ObjectRef(key.kind, key.namespace, key.name)
            for change in changes
            if (key := change.resource.key).kind in STATUS_KINDS
            and change.type is not ChangeType.DELETED
        }
        if any(change.resource.key == CRD_OF_ROUTES for change in changes):
            classes = self._store.list("GatewayClass")
            self._heard |= {ObjectRef(c.key.kind, "", c.key.name) for c in classes}

    def _say(self, output: Output) -> Set[ObjectRef]:
        """The objects whose statuses are others now."""
        for ref, problem in output.problems.items():
            log.error("object of a Gateway not understood", object=str(ref), error=problem)
        for ref, status in output.statuses.items():
            self._put(ref, status)
        return output.statuses.keys()

    def _put(self, ref: ObjectRef, status: Status | None) -> None:
        if ref.kind == "GatewayClass" and status and channel(self._store) == "standard":
            claimed = [f for f in status["supportedFeatures"] if f["name"] not in EXPERIMENTAL]
            status = status | {"supportedFeatures": claimed}
        self._statuses.put((ref.kind, ref.namespace, ref.name), status)
        if ref.kind == "Gateway":
            addresses = [each["value"] for each in status["addresses"]] if status else None
            self._services.put((ref.namespace, ref.name), addresses)


def _concerns_us(changes: list[Change]) -> bool:
    """Besides what the translator follows by itself."""
    return any(change.resource.key.kind in (REPORT, CRD_OF_ROUTES.kind) for change in changes)
