"""The addresses of Gateways and Ingresses are those of one node, which holds the Lease.

Every node's Envoy listens on them always (IP_FREEBIND), so that the next holder serves at once.
"""

from __future__ import annotations

import asyncio

import structlog
from pyroute2 import NetlinkError

from datapath import announce
from datapath.codec import Address
from kube_store.election import QUICK, Election
from kube_store.kube_client import KubeClient
from node_agent.config import AgentConfig
from node_agent.gateways import Gateways

log = structlog.get_logger(__name__)

LEASE = "sidegate-gateway-addresses"
_AGAIN_SECONDS = 30.0  # neighbours that missed it are told again
_RETRY_SECONDS = 1.0

Addresses = frozenset[Address]


class AddressHolder:
    """An agent that ends gives them up; one that is killed leaves them to its Envoy, which serves
    on, until the next agent of the node."""

    def __init__(self, config: AgentConfig, client: KubeClient, gateways: Gateways) -> None:
        self._devices, self._gateways = config.devices, gateways
        self._election = Election(client, config.namespace, LEASE, config.node, QUICK)

    async def run(self) -> None:
        """Until cancelled."""
        await self._release()  # of an agent before us, which holds no Lease any more
        await self._election.run(self._hold)

    async def _hold(self) -> None:
        held: Addresses = frozenset()
        try:
            while True:
                self._gateways.readdressed.clear()
                wanted = self._gateways.addresses
                try:
                    await asyncio.to_thread(_realise, held, wanted, self._devices)
                    held, pause = wanted, _AGAIN_SECONDS
                except (NetlinkError, OSError) as error:
                    log.error("addresses of Gateways cannot be held", error=str(error))
                    pause = _RETRY_SECONDS
                try:
                    await asyncio.wait_for(self._gateways.readdressed.wait(), pause)
                except TimeoutError:
                    held = frozenset()
        finally:
            await self._release()

    async def _release(self) -> None:
        try:
            await asyncio.to_thread(announce.release_others, frozenset())
        except NetlinkError as error:
            log.error("addresses of Gateways cannot be given up", error=str(error))


def _realise(held: Addresses, wanted: Addresses, devices: tuple[str, ...]) -> None:
    announce.release_others(wanted)
    for address in sorted(wanted - held, key=lambda each: (each.version, each)):
        announce.hold(address, devices)
