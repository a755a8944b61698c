"""ClusterIP Services of the cluster, from the store into the kernel of this node."""

from __future__ import annotations

import asyncio
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

import structlog

from datapath.libbpf import BpfError
from datapath.packet_services import PacketServices
from datapath.service_manifests import InvalidServiceError
from datapath.service_model import Frontend, ServiceModel
from datapath.services import Services
from kube_store.resource import ResourceKey, SourceError
from kube_store.store import Change, ChangeType

log = structlog.get_logger(__name__)

_KINDS = ("Service", "EndpointSlice")


class NodeServices:
    """A change writes the frontends that it concerns."""

    def __init__(self, node: str, bpf_dir: Path, cgroup: Path) -> None:
        self._model = ServiceModel(node)
        self._bpf_dir, self._cgroup = bpf_dir, cgroup
        self._kernel: Services | None = None
        self._bypass: frozenset[int] = frozenset()
        self._by_packet: PacketServices | None = None
        self._changed: set[Frontend] = set()
        self._news = asyncio.Event()
        self._invalid: dict[ResourceKey, str] = {}
        self._failure = ""

    def take(self, change: Change) -> None:
        """A change of the store; kinds that are no Services are no error."""
        key = change.resource.key
        if key.kind not in _KINDS:
            return
        self._invalid.pop(key, None)
        try:
            if change.type is ChangeType.DELETED:
                self._changed |= self._model.delete(change.resource.manifest)
            else:
                self._changed |= self._model.upsert(change.resource.manifest)
        except InvalidServiceError as error:
            self._invalid[key] = str(error)
            log.error("service not understood, left as it was", object=str(key), error=str(error))
        self._news.set()

    def set_bypass(self, cookies: AbstractSet[int]) -> None:
        """Network namespaces whose sockets see the Service's address: see
        :class:`datapath.packet_services.PacketServices`."""
        self._bypass = frozenset(cookies)
        if self._kernel:
            self._kernel.set_bypass(self._bypass)

    def attach(self, ifindex: int) -> None:
        """Translate by packet at the host's end of a pod's interface. Raises BpfError."""
        if self._by_packet is None:
            self._by_packet = PacketServices(self._bpf_dir)
        self._by_packet.attach(ifindex)

    async def run(self) -> None:
        """What is known when it begins is the whole table; then changes, until cancelled.

        Raises BpfError or OSError where the programs cannot be attached.
        """
        self._changed.clear()
        self._kernel = await asyncio.to_thread(Services, self._bpf_dir, self._cgroup)
        self._kernel.set_bypass(self._bypass)
        await asyncio.to_thread(self._kernel.replace, dict(self._model.table))
        log.info("services are translated", frontends=len(self._model.table))
        while True:
            await self._news.wait()
            self._news.clear()
            changed, self._changed = self._changed, set()
            if changed:
                table = {frontend: self._model.table.get(frontend) for frontend in changed}
                try:
                    await asyncio.to_thread(self._kernel.sync, table)
                    self._failure = ""
                except BpfError as error:
                    self._failure = f"{error}; remove Services, or raise the size of the maps"

    def errors(self) -> list[SourceError]:
        found = [
            SourceError("kube-apiserver", 0, str(key), "", why, "")
            for key, why in self._invalid.items()
        ]
        if self._failure:
            found.append(SourceError("datapath", 0, "services", "", self._failure, ""))
        return found

    def rows(self) -> list[dict[str, Any]]:
        """What the kernel has, a row for each frontend."""
        return self._kernel.dump() if self._kernel else []
