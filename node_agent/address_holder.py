"""The addresses of Gateways are one node's at a time: whoever holds the Lease has them.

Every node's Envoy listens on them always (IP_FREEBIND), so that the next holder serves at once.
"""

from __future__ import annotations

import asyncio
from ipaddress import IPv4Address, IPv6Address, ip_address

import structlog
from pyroute2 import NetlinkError

from datapath import announce
from kube_store.election import QUICK, Election
from kube_store.gateways import assigned
from kube_store.kube_client import KubeClient
from kube_store.store import Change, Store
from node_agent.config import AgentConfig

log = structlog.get_logger(__name__)

LEASE = "sidegate-gateway-addresses"
_AGAIN_SECONDS = 30.0  # neighbours that missed it are told again
_RETRY_SECONDS = 1.0

Addresses = frozenset[IPv4Address | IPv6Address]


class AddressHolder:
    """An agent that ends gives them up; one that is killed leaves them to its Envoy, which serves
    on, until the next agent of the node."""

    def __init__(self, config: AgentConfig, client: KubeClient, store: Store) -> None:
        self._devices, self._store = config.devices, store
        self._election = Election(client, config.namespace, LEASE, config.node, QUICK)
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Until cancelled."""
        await self._release()  # of an agent before us, which holds no Lease any more
        end = self._store.subscribe(self._take)
        try:
            await self._election.run(self._hold)
        finally:
            end()

    def _take(self, changes: list[Change]) -> None:
        if any(change.resource.key.kind == "Gateway" for change in changes):
            self._changed.set()

    async def _hold(self) -> None:
        held: Addresses = frozenset()
        try:
            while True:
                self._changed.clear()
                wanted = self._wanted()
                try:
                    await asyncio.to_thread(_realise, held, wanted, self._devices)
                    held, pause = wanted, _AGAIN_SECONDS
                except (NetlinkError, OSError) as error:
                    log.error("addresses of Gateways cannot be held", error=str(error))
                    pause = _RETRY_SECONDS
                try:
                    await asyncio.wait_for(self._changed.wait(), pause)
                except TimeoutError:
                    held = frozenset()
        finally:
            await self._release()

    async def _release(self) -> None:
        try:
            await asyncio.to_thread(announce.release_others, frozenset())
        except NetlinkError as error:
            log.error("addresses of Gateways cannot be given up", error=str(error))

    def _wanted(self) -> Addresses:
        return frozenset(
            ip_address(text)
            for resource in self._store.list("Gateway")
            for text in assigned(resource.manifest).assigned
        )


def _realise(held: Addresses, wanted: Addresses, devices: tuple[str, ...]) -> None:
    announce.release_others(wanted)
    for address in sorted(wanted - held, key=lambda each: (each.version, each)):
        announce.hold(address, devices)
