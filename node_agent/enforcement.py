"""Changes of objects and endpoints, one batch at a time, into module and kernel."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterable, Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import structlog

from datapath.codec import Endpoint, Prefix
from datapath.facade import Datapath
from datapath.libbpf import BpfError
from kube_store.kept import Kept
from kube_store.store import Change, Store
from node_agent.address_book import AddressBook, Layer, hosts
from node_agent.ambient import Ambient
from node_agent.controller import Controller, PolicySink, Realised
from node_agent.endpoints import BadEndpoint, EndpointRecord, EndpointTable
from node_agent.identities import Identities
from node_agent.membership import Membership
from node_agent.policies import PolicyObjects
from node_agent.service_peers import KINDS as SERVICE_KINDS
from node_agent.service_peers import ServicePeers
from node_agent.state import read_json, write_json
from policy_engine.errors import RegexError
from policy_engine.identity import RESERVED_LABELS, IdentitiesExhausted, Reserved
from policy_engine.kinds import KINDS
from policy_engine.repository import PolicyRepository

log = structlog.get_logger(__name__)

POD_SECONDS = 5.0


class Enforcement:
    """The write side of the agent. Reading its parts needs no lock: there is one thread.

    ``listeners`` are told of each endpoint that is there now, and of each that is not (None);
    ``on_owners`` of addresses that have other owners now.
    """

    def __init__(
        self,
        state_dir: Path,
        store: Store,
        datapath: Datapath,
        sink: PolicySink,
        regex_error: RegexError,
        repository: PolicyRepository,
        identities: Identities,
    ) -> None:
        self.repository = repository
        self.table = EndpointTable(state_dir / "endpoints")
        kept = Kept(state_dir / "invalid-policies.json")
        self.policies = PolicyObjects(self.repository, regex_error, kept)
        self.controller = Controller(self.repository, datapath, sink)
        self.ambient = Ambient(store, self.controller.changed.set)
        self.book = AddressBook()
        self.listeners: list[Callable[[int, EndpointRecord | None], None]] = []
        self.on_owners: Callable[[Iterable[Prefix]], None] = lambda _: None
        self._identities = identities
        self._membership = Membership(store, self.repository, self.table, identities)
        self._services = ServicePeers(repository)
        self._datapath = datapath
        self._identities_file = state_dir / "identities.json"
        self._exported: Mapping[str, int] = {}
        self._pending: list[Change] = []
        self._cidrs: dict[Prefix, int] = {}
        self._announced: dict[int, EndpointRecord] = {}
        self._unplaced: dict[Prefix, tuple[int, int]] = {}  # addresses, as the book has them
        self._full = BpfError()
        self.last = Realised()
        store.subscribe(self._pending.extend)

    async def restore(self, host_addresses: Iterable[Prefix]) -> None:
        """Take over what an earlier agent left: endpoints whose interface still exists."""
        self._identities.restore(read_json(self._identities_file) or {})
        self.table.load()
        live = {endpoint.id: endpoint for endpoint in self._datapath.endpoints()}
        self.book.restore(
            {
                prefix: (value.identity, value.endpoint_id)
                for prefix, value in self._datapath.ipcache().items()
                if prefix.prefixlen
            }
        )
        self.book.replace(Layer.HOST, hosts(host_addresses, Reserved.HOST))
        async with self.controller.lock:
            affected = self._take_pending()
            for record in list(self.table):
                if _interface_is_there(record):
                    record, more = self._membership.put(record)  # noqa: PLW2901
                    affected |= more
                    self._datapath.attach_endpoint(_endpoint(record))
                    live.pop(record.id, None)
                else:
                    log.info("endpoint is gone, forgotten", endpoint=record.id, pod=record.pod)
                    affected |= self._membership.remove(record)
            for stale in live.values():
                self._datapath.detach_endpoint(stale)
            await self._enforce(affected | {record.id for record in self.table})

    async def set_host_addresses(self, addresses: Iterable[Prefix]) -> None:
        """The node's own addresses are these now."""
        async with self.controller.lock:
            self.book.replace(Layer.HOST, hosts(addresses, Reserved.HOST))
            await self._enforce(self._take_pending())

    async def set_ingress_addresses(self, addresses: Iterable[Prefix]) -> None:
        """What enters by this node's Gateways speaks from these now, and nobody else."""
        async with self.controller.lock:
            self.book.replace(Layer.INGRESS, hosts(addresses, Reserved.INGRESS))
            await self._enforce(self._take_pending())

    async def settle(self) -> Realised:
        """Realise what the store has announced since the last time."""
        async with self.controller.lock:
            if self._pending:
                await self._enforce(self._take_pending())
            return self.last

    async def add_endpoint(self, record: EndpointRecord, await_pod: bool) -> EndpointRecord:
        """Attach and enforce before the pod can talk. ``await_pod``: not before its object is
        known. Raises BadEndpoint, BpfError."""
        if await_pod:
            await self._pod_is_known(record)
        try:
            await self._identities.ensure(self._membership.labels(record)[0])
            async with self.controller.lock:
                affected = self._take_pending()
                record, more = self._membership.put(record)
                self._datapath.attach_endpoint(_endpoint(record))
                await self._enforce(affected | more | {record.id})
        except IdentitiesExhausted as error:
            raise BadEndpoint(f"identity: {error}") from None
        if full := self.controller.unwritten().get(record.id):
            raise full
        log.info("endpoint added", endpoint=record.id, pod=record.pod, identity=record.identity)
        return record

    async def remove_endpoint(self, record: EndpointRecord) -> None:
        async with self.controller.lock:
            affected = self._take_pending() | self._membership.remove(record)
            self.controller.forget(record.id)
            await self._enforce(affected - {record.id})
            self._datapath.detach_endpoint(_endpoint(record))
        log.info("endpoint removed", endpoint=record.id, pod=record.pod)

    def named_ports(self, record: EndpointRecord) -> list[dict[str, Any]]:
        """``{name, port, protocol}`` of its containers."""
        return self._membership.named_ports(record)

    async def _pod_is_known(self, record: EndpointRecord) -> None:
        """The runtime may be quicker than our watch. Raises BadEndpoint: no pod without policy."""
        deadline = asyncio.get_running_loop().time() + POD_SECONDS
        while not self._membership.has_pod(record):
            if asyncio.get_running_loop().time() > deadline:
                raise BadEndpoint(
                    f"pod_name: the API server has not shown us {record.pod} yet; try again"
                )
            await asyncio.sleep(0.01)

    def _take_pending(self) -> set[int]:
        changes, self._pending[:] = list(self._pending), []
        affected: set[int] = set()
        for change in changes:
            if change.resource.key.kind in KINDS:
                affected |= self.policies.take(change)
                self.controller.changed.set()
            elif change.resource.key.kind in SERVICE_KINDS:
                affected |= self._services.take(change)
            else:
                affected |= self._membership.take(change)
        return affected

    async def _enforce(self, affected: set[int]) -> None:
        """Identities leave the ipcache before policies forget them, and enter it after policies
        know them."""
        self._note_cidrs()
        self._note_endpoints()
        affected = affected | self._note_host()
        gone, new = self.book.changes()
        for prefix in gone:
            self._datapath.delete_ipcache(prefix)
            self._unplaced.pop(prefix, None)
        self._place_rest()
        self.last = await self.controller.realise(affected)
        self._place(new)
        if gone or new:
            self.on_owners([*gone, *new])
        exported = self._identities.export()
        if exported != self._exported:
            write_json(self._identities_file, exported)
            self._exported = exported

    def _place(self, addresses: Mapping[Prefix, tuple[int, int]]) -> None:
        """Identities of addresses, in the kernel; what finds no room is tried again with each
        change."""
        before = len(self._unplaced)
        for prefix, owner in addresses.items():
            self._unplaced[prefix] = owner
            self._has_place(prefix)
        if len(self._unplaced) > before:
            log.error("no room for addresses in the kernel", addresses=len(self._unplaced),
                      error=str(self._full))  # fmt: skip
        self._tell_unplaced()

    def _place_rest(self) -> None:
        """Before policies are written that rely on it: they know its identities already."""
        if self._unplaced:
            while self._unplaced and self._has_place(next(iter(self._unplaced))):
                pass
            self._tell_unplaced()

    def _has_place(self, prefix: Prefix) -> bool:
        try:
            self._datapath.upsert_ipcache(prefix, *self._unplaced[prefix])
        except BpfError as error:
            self._full = error
            return False
        del self._unplaced[prefix]
        return True

    def _tell_unplaced(self) -> None:
        identities = {identity for identity, _ in self._unplaced.values()}
        self.controller.set_unplaced(dict.fromkeys(identities, self._full))

    def _note_host(self) -> set[int]:
        """Where the API server runs on this very node, the host is it too: the endpoints whose
        policy asks for that."""
        labels = dict(RESERVED_LABELS[Reserved.HOST])
        if self.book.shares(Layer.API_SERVER, Layer.HOST):
            labels |= RESERVED_LABELS[Reserved.KUBE_APISERVER]
        return self.repository.upsert_identity(Reserved.HOST, labels)

    def _note_cidrs(self) -> None:
        wanted = self.repository.cidr_identities()
        if wanted != self._cidrs:
            self._cidrs = dict(wanted)
            self.book.replace(
                Layer.CIDR, {prefix: (number, 0) for prefix, number in wanted.items()}
            )

    def _note_endpoints(self) -> None:
        """The kernel's endpoint, the address book and the listeners, where a record is another."""
        for endpoint_id in self._announced.keys() - {record.id for record in self.table}:
            for prefix in _prefixes(self._announced.pop(endpoint_id)):
                self.book.drop(Layer.ENDPOINT, prefix)
            for tell in self.listeners:
                tell(endpoint_id, None)
        for record in self.table:
            before = self._announced.get(record.id)
            if before == record:
                continue
            moved = before and before.identity != record.identity
            if moved and _interface_is_there(record):  # it may go before CNI says so
                self._datapath.attach_endpoint(_endpoint(record))
            self._announced[record.id] = record
            for prefix in _prefixes(record):
                self.book.put(Layer.ENDPOINT, prefix, (record.identity, record.id))
            for tell in self.listeners:
                tell(record.id, record)


def _endpoint(record: EndpointRecord) -> Endpoint:
    by_version = {address.version: address for address in record.addresses}
    return Endpoint(
        record.id,
        record.identity,
        record.host_ifindex,
        by_version.get(4),  # type: ignore[arg-type]
        by_version.get(6),  # type: ignore[arg-type]
        record.bridged,
    )


def _prefixes(record: EndpointRecord) -> Iterable[Prefix]:
    return (ip_network(address) for address in record.addresses)


def _interface_is_there(record: EndpointRecord) -> bool:
    try:
        return socket.if_nametoindex(record.host_ifname) == record.host_ifindex
    except OSError:
        return False
