"""Tells the cluster who this node's endpoints are: SidegateEndpointSlice objects of our own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

import structlog

from datapath.codec import Address
from kube_store.back_off import BackOff
from kube_store.kube_client import CONNECTION_ERRORS, KubeClient, KubeError
from kube_store.shared import GROUP_VERSION, NODE_LABEL, SLICE, path_of
from node_agent.endpoints import EndpointRecord
from policy_engine.identity import Reserved

log = structlog.get_logger(__name__)

PER_SLICE = 32
_INGRESS = 0  # no endpoint has this id
_RETRY_SECONDS = (0.2, 5.0)


class EndpointSlices:
    """A change writes the slice that it is in, and no other."""

    def __init__(self, node: str, client: KubeClient) -> None:
        self._node, self._client = node, client
        self._slots: dict[int, dict[int, Any]] = {}  # slice -> endpoint id -> what is said of it
        self._place: dict[int, int] = {}
        self._dirty: set[int] = set()
        self._changed = asyncio.Event()
        self.written = asyncio.Event()  # the cluster knows all that was said so far
        self.written.set()

    def adopt(self, names: Iterable[str]) -> None:
        """Slices of an earlier agent: each is written anew, or goes."""
        for name in names:
            number = name.removeprefix(f"{self._node}-")
            if number.isdecimal():
                self._slots.setdefault(int(number), {})
                self._touch(int(number))

    def put(self, record: EndpointRecord, ports: Iterable[Mapping[str, Any]] = ()) -> None:
        said = {
            "namespace": record.pod_namespace,
            "name": record.pod_name,
            "identity": record.identity,
            "ipv4": record.ipv4,
            "ipv6": record.ipv6,
            "named-ports": list(ports),
        }
        self._say(record.id, said)

    def put_ingress(self, addresses: Iterable[Address]) -> None:
        """What enters by this node's Gateways speaks from these; none: it is not told from the
        node."""
        families = {f"ipv{address.version}": str(address) for address in addresses}
        if families:
            said = {"namespace": "", "name": "", "identity": int(Reserved.INGRESS), **families}
            self._say(_INGRESS, said)
        else:
            self.remove(_INGRESS)

    def _say(self, endpoint_id: int, said: Mapping[str, Any]) -> None:
        number = self._place.get(endpoint_id)
        if number is None:
            number = next(
                (n for n, slots in sorted(self._slots.items()) if len(slots) < PER_SLICE),
                max(self._slots, default=-1) + 1,
            )
            self._place[endpoint_id] = number
        slots = self._slots.setdefault(number, {})
        if slots.get(endpoint_id) != said:
            slots[endpoint_id] = said
            self._touch(number)

    def remove(self, endpoint_id: int) -> None:
        number = self._place.pop(endpoint_id, None)
        if number is not None:
            self._slots[number].pop(endpoint_id, None)
            self._touch(number)

    async def run(self) -> None:
        """Writes what changed, until cancelled."""
        back_off = BackOff(*_RETRY_SECONDS)
        while True:
            await self._changed.wait()
            self._changed.clear()
            while self._dirty:
                number = min(self._dirty)
                self._dirty.discard(number)
                try:
                    await self._write(number)
                    back_off.reset()
                except (KubeError, *CONNECTION_ERRORS) as error:
                    self._dirty.add(number)
                    log.warning("endpoints cannot be published yet", error=str(error))
                    await asyncio.sleep(back_off.next(getattr(error, "retry_after", 0.0)))
            self.written.set()

    def _touch(self, number: int) -> None:
        self._dirty.add(number)
        self.written.clear()
        self._changed.set()

    async def _write(self, number: int) -> None:
        name = f"{self._node}-{number}"
        path = path_of(SLICE, name)
        slots = self._slots.get(number)
        if not slots:
            self._slots.pop(number, None)
            await self._client.remove(path)
            return
        body = {
            "apiVersion": GROUP_VERSION,
            "kind": SLICE,
            "metadata": {"name": name, "labels": {NODE_LABEL: self._node}},
            "node": self._node,
            "endpoints": list(slots.values()),
        }
        await self._client.apply(path, body, "sidegate-agent")
