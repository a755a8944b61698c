"""A node as a member of a cluster: objects from the API server, endpoints and identities to it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import structlog

from datapath import masquerade, routing
from datapath.codec import Address
from kube_store.kube import KubeSource
from kube_store.kube_client import KubeClient
from kube_store.resource import ResourceKey, SourceError
from kube_store.shared import NODE_LABEL, SLICE
from kube_store.store import Change, Store
from kube_store.tasks import cancelled
from node_agent.address_holder import AddressHolder
from node_agent.cluster import Cluster, watched
from node_agent.config import AgentConfig
from node_agent.endpoint_slices import EndpointSlices
from node_agent.endpoints import EndpointRecord
from node_agent.enforcement import Enforcement
from node_agent.gateways import Gateways
from node_agent.identities import ClusterIdentities
from node_agent.policy_report import PolicyReport
from node_agent.services import NodeServices
from policy_engine.repository import PolicyRepository

log = structlog.get_logger(__name__)

_SAY_SECONDS = 10.0


class Member:
    """The cluster's part of an agent. Its source stands where a directory of YAML does."""

    def __init__(
        self,
        config: AgentConfig,
        client: KubeClient,
        store: Store,
        repository: PolicyRepository,
    ) -> None:
        node = config.node
        self._node, self._client, self._store = node, client, store
        self._config = config
        self._repository = repository
        self.services = (
            NodeServices(node, config.bpf_dir, config.node_cgroup) if config.node_cgroup else None
        )
        self._source = KubeSource(client, watched(node, config.gateways), store.apply)
        self._slices = EndpointSlices(node, client)
        self._following: asyncio.Task[None]
        self.identities = ClusterIdentities(repository, client, store.upsert)
        self.cluster: Cluster
        self.addressed = asyncio.Event()  # the node has pod CIDRs

    def join(self, enforcement: Enforcement, gateways: Gateways | None) -> None:
        """Before :meth:`start`: what is heard of the cluster is enforced there, and addresses of
        Gateways, if the node serves any, are held."""
        self._enforcement, self._gateways = enforcement, gateways
        self.cluster = Cluster(self._node, enforcement.book)
        self._report = PolicyReport(self._node, self._client, self._store, enforcement, gateways)
        self._store.subscribe(self._take)
        enforcement.listeners.append(self._tell)

    async def start(self) -> None:
        """Until everything was heard once, however long that takes: without it nothing opens."""
        self._following = asyncio.create_task(self._source.run(), name="following")
        while not self._source.synced.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._heard(), _SAY_SECONDS)
                break
            for error in self._source.errors():
                log.warning("waiting for the API server", error=str(error))
        self._slices.adopt(self._own_slices())

    async def _heard(self) -> None:
        """Raises what ended the source."""
        synced = asyncio.ensure_future(self._source.synced.wait())
        try:
            await asyncio.wait((synced, self._following), return_when=asyncio.FIRST_COMPLETED)
            if self._following.done():
                self._following.result()
        finally:
            synced.cancel()

    async def watch(self) -> None:
        """Runs until cancelled. Raises what any of its parts raises."""
        jobs = [self._slices.run(), self._report.run(), self._keep_routes()]
        if self._gateways:
            jobs.append(AddressHolder(self._config, self._client, self._gateways).run())
        if self.services:
            jobs.append(self.services.run())
        else:
            log.warning("Services are not translated: --node-cgroup is not given")
        tasks = [self._following, *map(asyncio.create_task, jobs)]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
        finally:
            # Before the client goes: who holds a Lease gives it up.
            await asyncio.gather(*map(cancelled, tasks), return_exceptions=True)
            await self._client.close()

    async def announced(self) -> None:
        """Until the cluster has heard of this node's endpoints: what an earlier boot said of their
        addresses must not name a pod that gets one of them now."""
        await self._slices.written.wait()

    def announce_ingress(self, addresses: Iterable[Address]) -> None:
        """Other nodes know by these what entered by this node's Gateways."""
        self._slices.put_ingress(addresses)

    def errors(self) -> list[SourceError]:
        return self._source.errors() + (self.services.errors() if self.services else [])

    def _tell(self, endpoint_id: int, record: EndpointRecord | None) -> None:
        if record is None:
            self._slices.remove(endpoint_id)
        elif record.identity:
            self._slices.put(record, self._enforcement.named_ports(record))

    def received(self) -> int:
        """Bytes from the API server."""
        return sum(self._source.received.values())

    def apply(self, _: dict[str, Any]) -> str:
        """Raises ValueError: objects are the API server's here."""
        raise ValueError("this agent takes objects from the API server; use kubectl")

    def delete(self, _: ResourceKey) -> bool:
        raise ValueError("this agent takes objects from the API server; use kubectl")

    def _take(self, changes: list[Change]) -> None:
        for change in changes:
            try:
                self.cluster.take(change)
            except (ValueError, KeyError, TypeError) as error:  # one bad object ends nobody
                log.error(
                    "object not understood", object=str(change.resource.key), error=repr(error)
                )
            if self.services:
                self.services.take(change)
        if self.cluster.pod_cidrs:
            self.addressed.set()

    def _own_slices(self) -> Iterator[str]:
        for resource in self._store.list(SLICE):
            labels = resource.manifest["metadata"].get("labels") or {}
            if labels.get(NODE_LABEL) == self._node:
                yield resource.key.name

    async def _keep_routes(self) -> None:
        """Routes to other nodes' pods, and what is inside of the cluster for the masquerade."""
        while True:
            await self.cluster.rerouted.wait()
            self.cluster.rerouted.clear()
            wanted = self.cluster.routes, self.cluster.cluster_cidrs
            try:
                await asyncio.to_thread(self._set_routes, *wanted)
            except Exception as error:  # one wrong route must not end the agent
                log.error("routes to other nodes were not set", error=str(error))

    def _set_routes(self, routes: Mapping[Any, Any], cluster_cidrs: frozenset[Any]) -> None:
        if not self._config.cni_chained:
            routing.set_routes(routes)
        if self._config.masquerade:
            masquerade.set_up(cluster_cidrs, self._config.devices)
