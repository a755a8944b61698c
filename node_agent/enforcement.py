"""Changes of objects and endpoints, one batch at a time, into module and kernel."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from ipaddress import ip_network
from pathlib import Path

import structlog

from datapath.codec import Endpoint, Prefix
from datapath.facade import Datapath
from kube_store.kept import Kept
from kube_store.store import Change, Store
from node_agent.controller import Controller, PolicySink, Realised
from node_agent.endpoints import BadEndpoint, EndpointRecord, EndpointTable
from node_agent.membership import Membership
from node_agent.policies import PolicyObjects
from node_agent.state import read_json, write_json
from policy_engine.identity import IdentitiesExhausted, Reserved
from policy_engine.parse import KINDS, RegexError
from policy_engine.repository import PolicyRepository

log = structlog.get_logger(__name__)


class Enforcement:
    """The write side of the agent. Reading its parts needs no lock: there is one thread."""

    def __init__(
        self,
        state_dir: Path,
        store: Store,
        datapath: Datapath,
        sink: PolicySink,
        regex_error: RegexError,
    ) -> None:
        self.repository = PolicyRepository()
        self.table = EndpointTable(state_dir / "endpoints")
        kept = Kept(state_dir / "invalid-policies.json")
        self.policies = PolicyObjects(self.repository, regex_error, kept)
        self.controller = Controller(self.repository, datapath, sink)
        self._membership = Membership(store, self.repository, self.table)
        self._datapath = datapath
        self._identities_file = state_dir / "identities.json"
        self._exported: dict[str, int] = {}
        self._pending: list[Change] = []
        self._addresses: dict[Prefix, tuple[int, int]] = {}
        self._hosts: dict[Prefix, tuple[int, int]] = {}
        self.last = Realised()
        store.subscribe(self._pending.extend)

    async def restore(self, host_addresses: Iterable[Prefix]) -> None:
        """Take over what an earlier agent left: endpoints whose interface still exists."""
        self._membership.restore(read_json(self._identities_file) or {})
        self.table.load()
        live = {endpoint.id: endpoint for endpoint in self._datapath.endpoints()}
        self._addresses = {
            prefix: (value.identity, value.endpoint_id)
            for prefix, value in self._datapath.ipcache().items()
            if prefix.prefixlen
        }
        self._hosts = dict.fromkeys(host_addresses, (int(Reserved.HOST), 0))
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
        hosts = dict.fromkeys(addresses, (int(Reserved.HOST), 0))
        if hosts != self._hosts:
            async with self.controller.lock:
                self._hosts = hosts
                await self._enforce(self._take_pending())

    async def settle(self) -> Realised:
        """Realise what the store has announced since the last time."""
        async with self.controller.lock:
            if self._pending:
                await self._enforce(self._take_pending())
            return self.last

    async def add_endpoint(self, record: EndpointRecord) -> EndpointRecord:
        """Attach and enforce before the pod can talk. Raises BadEndpoint, BpfError."""
        async with self.controller.lock:
            affected = self._take_pending()
            try:
                record, more = self._membership.put(record)
            except IdentitiesExhausted as error:
                raise BadEndpoint(f"identity: {error}") from None
            self._datapath.attach_endpoint(_endpoint(record))
            await self._enforce(affected | more | {record.id})
        log.info("endpoint added", endpoint=record.id, pod=record.pod, identity=record.identity)
        return record

    async def remove_endpoint(self, record: EndpointRecord) -> None:
        async with self.controller.lock:
            affected = self._take_pending() | self._membership.remove(record)
            self.controller.forget(record.id)
            await self._enforce(affected - {record.id})
            self._datapath.detach_endpoint(_endpoint(record))
        log.info("endpoint removed", endpoint=record.id, pod=record.pod)

    def _take_pending(self) -> set[int]:
        changes, self._pending[:] = list(self._pending), []
        affected: set[int] = set()
        for change in changes:
            key = change.resource.key
            if key.kind in KINDS:
                affected |= self.policies.take(change)
            elif key.kind == "Pod":
                affected |= self._membership.refresh(key.namespace, key.name)
            elif key.kind == "Namespace":
                affected |= self._membership.refresh(key.name)
        return affected

    async def _enforce(self, affected: set[int]) -> None:
        """Identities leave the ipcache before policies forget them, and enter it after policies
        know them."""
        wanted = self._hosts | {
            prefix: (identity, 0) for prefix, identity in self.repository.cidr_identities().items()
        }
        wanted |= self._membership.addresses()
        for prefix in self._addresses.keys() - wanted.keys():
            self._datapath.delete_ipcache(prefix)
        for record in self.table:
            known = self._addresses.get(next(iter(_prefixes(record))), (0, 0))
            if known[0] not in (0, record.identity):
                self._datapath.attach_endpoint(_endpoint(record))
        self.last = await self.controller.realise(affected)
        for prefix, (identity, endpoint_id) in wanted.items():
            if self._addresses.get(prefix) != (identity, endpoint_id):
                self._datapath.upsert_ipcache(prefix, identity, endpoint_id)
        self._addresses = wanted
        exported = self._membership.export()
        if exported != self._exported:
            write_json(self._identities_file, exported)
            self._exported = exported


def _endpoint(record: EndpointRecord) -> Endpoint:
    by_version = {address.version: address for address in record.addresses}
    return Endpoint(
        record.id,
        record.identity,
        record.host_ifindex,
        by_version.get(4),  # type: ignore[arg-type]
        by_version.get(6),  # type: ignore[arg-type]
    )


def _prefixes(record: EndpointRecord) -> Iterable[Prefix]:
    return (ip_network(address) for address in record.addresses)


def _interface_is_there(record: EndpointRecord) -> bool:
    try:
        return socket.if_nametoindex(record.host_ifname) == record.host_ifindex
    except OSError:
        return False
