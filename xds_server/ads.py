"""ADS over gRPC: the streams of `xds_server.stream` put to work."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import structlog
from envoy.service.discovery.v3 import ads_pb2_grpc

from xds_server.cache import ResourceCache
from xds_server.policy_stream import PolicyHub
from xds_server.refusal_reason import reason
from xds_server.stream import DeltaStream, SotwStream

log = structlog.get_logger(__name__)

# How long Envoy waits for listeners while its module has no policies yet. Without them the module
# would deny what policy allows; past this time it does, which is what a broken module deserves.
HOLD_SECONDS = 3.0


@dataclass(slots=True, eq=False)
class Client:
    node: str
    stream: DeltaStream | SotwStream
    variant: str
    held: bool = True


class AdsService(ads_pb2_grpc.AggregatedDiscoveryServiceServicer):  # type: ignore[misc]
    def __init__(
        self,
        cache: ResourceCache,
        hub: PolicyHub,
        counters: Counter[str],
        hold_seconds: float = HOLD_SECONDS,
    ) -> None:
        self._cache = cache
        self._hub = hub
        self._counters = counters
        self._hold_seconds = hold_seconds
        self._clients: list[Client] = []
        self.on_answer: Callable[[], None] = lambda: None
        self.on_clients: Callable[[], None] = lambda: None

    async def DeltaAggregatedResources(
        self, requests: AsyncIterator[Any], _context: Any
    ) -> AsyncIterator[Any]:
        async with aclosing(self._serve(requests, DeltaStream(self._cache), "delta")) as responses:
            async for response in responses:
                yield response

    async def StreamAggregatedResources(
        self, requests: AsyncIterator[Any], _context: Any
    ) -> AsyncIterator[Any]:
        async with aclosing(self._serve(requests, SotwStream(self._cache), "sotw")) as responses:
            async for response in responses:
                yield response

    async def _serve(
        self, requests: AsyncIterator[Any], stream: DeltaStream | SotwStream, variant: str
    ) -> AsyncGenerator[Any, None]:
        first = await anext(requests, None)
        if first is None:
            return
        # None stands for a change of the cache.
        events: asyncio.Queue[Any] = asyncio.Queue()
        events.put_nowait(first)

        def changed() -> None:
            events.put_nowait(None)

        client = Client(first.node.id, stream, variant)
        self._clients.append(client)
        self.on_clients()
        self._cache.watch(changed)
        reader = asyncio.create_task(_forward(requests, events))
        try:
            if not await self._hub.ready(client.node, self._hold_seconds):
                log.warning("serving Envoy though its module has no policies", node=client.node)
            client.held = False
            while (event := await events.get()) is not _END:
                if event is None:
                    responses = stream.changed()
                else:
                    self._note(client, event)
                    responses = stream.receive(event)
                    self.on_answer()
                for response in responses:
                    self._counters["xds_responses"] += 1
                    self._counters["xds_bytes"] += response.ByteSize()
                    yield response
        finally:
            reader.cancel()
            self._cache.unwatch(changed)
            self._clients.remove(client)
            self.on_clients()

    def _note(self, client: Client, request: Any) -> None:
        if request.HasField("error_detail"):
            self._counters["xds_nacks"] += 1
            log.warning(
                "Envoy refused xDS resources",
                node=client.node,
                type=request.type_url,
                error=reason(request.error_detail.message),
            )

    def clients(self) -> list[dict[str, Any]]:
        return [
            {"node": c.node, "kind": "envoy", "variant": c.variant, "held": c.held}
            for c in self._clients
        ]

    def refused(self) -> dict[tuple[str, str], str]:
        """By type URL and name, resources whose present form a client refuses, and its words."""
        found = {}
        for client in self._clients:
            for type_url, subscription in client.stream.subscriptions.items():
                current = self._cache.of_type(type_url)
                for name, version in subscription.refused.items():
                    if name in current and current[name].version == version:
                        found[type_url, name] = subscription.errors[name]
        return found

    def accepted(self, type_url: str, name: str) -> bool:
        """Whether every client that wants a resource took its present form; so of one that is
        gone, never while nobody wants it."""
        current = self._cache.of_type(type_url).get(name)
        wanting = [
            client.stream.subscriptions[type_url]
            for client in self._clients
            if client.stream.wants(type_url, name)
        ]
        return current is None or (
            bool(wanting) and all(s.accepted.get(name) == current.version for s in wanting)
        )

    def resources(self) -> list[dict[str, Any]]:
        return [
            self._resource(type_url, name, resource.version)
            for type_url in self._cache.type_urls()
            for name, resource in self._cache.of_type(type_url).items()
        ]

    def _resource(self, type_url: str, name: str, version: str) -> dict[str, Any]:
        subscribed = [
            (client.node, subscription)
            for client in self._clients
            if (subscription := client.stream.subscriptions.get(type_url))
            and client.stream.wants(type_url, name)
        ]
        return {
            "type": type_url.rpartition(".")[2],
            "name": name,
            "version": version,
            "acknowledged": bool(subscribed)
            and all(s.accepted.get(name) == version for _, s in subscribed),
            "errors": {node: s.errors[name] for node, s in subscribed if name in s.errors},
        }


_END = object()


async def _forward(requests: AsyncIterator[Any], events: asyncio.Queue[Any]) -> None:
    try:
        async for request in requests:
            events.put_nowait(request)
    finally:
        events.put_nowait(_END)
