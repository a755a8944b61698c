"""The addresses of Gateways and Ingresses are those of one node, which holds the Lease.

Every node's Envoy listens on them always (IP_FREEBIND), so that the next holder serves at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading

import structlog
from pyroute2 import NetlinkError

from datapath import announce
from datapath.codec import Address
from kube_store.election import QUICK, Election
from kube_store.kube_client import KubeClient
from kube_store.tasks import cancelled
from node_agent.config import AgentConfig
from node_agent.gateways import Gateways

log = structlog.get_logger(__name__)

LEASE = "sidegate-gateway-addresses"
_AGAIN_SECONDS = 30.0  # neighbours that missed it are told again
_RETRY_SECONDS = 1.0
_ENVOY_SECONDS = 10.0  # an Envoy that lives has found a new agent by then
_SUCCESSION_SECONDS = 1.0  # until another that asks every QUICK.retry has told the neighbours

Addresses = frozenset[Address]


class AddressHolder:
    """Who has no Envoy gives the Lease up: another has one.

    Addresses that are on this node go when it is known that another holds the Lease, or with the
    agent. While the API server cannot be asked they stay, silently: no other can have them then,
    or it has told the neighbours. An agent that is killed leaves them to its Envoy, which serves
    on, and to the next agent of the node.
    """

    def __init__(self, config: AgentConfig, client: KubeClient, gateways: Gateways) -> None:
        self._devices, self._gateways = config.devices, gateways
        self._election = Election(client, config.namespace, LEASE, config.node, QUICK)
        self._may_have = True  # of an agent before us
        # A thread works on after its task was cancelled: what it takes is given up after that.
        self._changing = threading.Lock()

    async def run(self) -> None:
        """Until cancelled."""
        try:
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_ENVOY_SECONDS):
                        await self._until(served=True)
                if self._gateways.are_served:
                    await self._take_part()
                await self._release()
        finally:
            if self._may_have:
                await asyncio.sleep(_SUCCESSION_SECONDS)
                await self._release()

    async def _take_part(self) -> None:
        """As long as the node has an Envoy."""
        taking = asyncio.create_task(self._election.run(self._hold, self._release))
        gone = asyncio.create_task(self._until(served=False))
        try:
            await asyncio.wait((taking, gone), return_when=asyncio.FIRST_COMPLETED)
            if taking.done():
                taking.result()
        finally:
            await asyncio.gather(cancelled(taking), cancelled(gone), return_exceptions=True)

    async def _until(self, served: bool) -> None:
        while self._gateways.are_served is not served:
            self._gateways.followers_changed.clear()
            await self._gateways.followers_changed.wait()

    async def _hold(self) -> None:
        held: Addresses = frozenset()
        self._may_have = True
        while True:
            self._gateways.readdressed.clear()
            wanted = self._gateways.addresses
            try:
                await asyncio.to_thread(self._realise, held, wanted)
                held, pause = wanted, _AGAIN_SECONDS
            except (NetlinkError, OSError) as error:
                log.error("addresses of Gateways cannot be held", error=str(error))
                pause = _RETRY_SECONDS
            try:
                await asyncio.wait_for(self._gateways.readdressed.wait(), pause)
            except TimeoutError:
                held = frozenset()

    async def _release(self) -> None:
        if not self._may_have:
            return
        try:
            await asyncio.to_thread(self._realise, frozenset(), frozenset())
            self._may_have = False
        except (NetlinkError, OSError) as error:
            log.error("addresses of Gateways cannot be given up", error=str(error))

    def _realise(self, held: Addresses, wanted: Addresses) -> None:
        with self._changing:
            announce.release_others(wanted)
            announce.hold(wanted - held, self._devices)
