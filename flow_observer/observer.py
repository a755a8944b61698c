"""Keeps the newest verdicts of both layers and hands them out as flows.

Records are kept as they came and decoded when somebody reads them: at 15,000 verdicts a second
nobody could be told every one, and most are never asked for. A follower is a place in the ring, so
it costs no memory, and one that is too slow loses the oldest and is told how many.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator

from prometheus_client import CollectorRegistry

from flow_observer.decode import (
    DIRECTIONS,
    PROTOCOLS,
    REASONS,
    VERDICTS,
    Decoder,
    KernelEvent,
    PodOf,
    Resolve,
    kernel_verdict,
)
from flow_observer.filter import FlowFilter
from flow_observer.flow import Flow, Lost
from flow_observer.metrics import FlowMetrics, Kind
from sidegate_api.policy.v1 import policy_pb2 as pb

_CHUNK = 256  # flows that a follower decodes before others get their turn


class Observer:
    """For one event loop: nothing here is safe to call from another thread.

    ``capacity`` is how many flows are kept; see :class:`Decoder` for the two functions.
    """

    def __init__(
        self,
        capacity: int,
        resolve: Resolve,
        pod_of: PodOf,
        registry: CollectorRegistry | None = None,
    ) -> None:
        if capacity < 1:
            raise ValueError("capacity: at least one flow must be kept")
        self._ring: list[pb.VerdictRecord | KernelEvent | None] = [None] * capacity
        self._next = 0  # sequence number of the flow to come
        self._decoder = Decoder(resolve, pod_of)
        self._metrics = FlowMetrics(registry or CollectorRegistry())
        self._arrived = asyncio.Event()

    def add_verdicts(self, batch: pb.VerdictBatch) -> None:
        """What the module judged, as it came over the verdict stream."""
        kinds: Counter[Kind] = Counter()
        for record in batch.records:
            self._put(record)
            kind = (
                "L7",
                VERDICTS.get(record.verdict, "denied"),
                DIRECTIONS.get(record.direction, "unknown"),
                REASONS.get(record.reason, "unspecified"),
                record.WhichOneof("l7") or "",
            )
            kinds[kind] += record.count or 1
        self._metrics.lost("module", batch.lost)
        self._added(kinds)

    def add_events(self, events: Iterable[KernelEvent], lost: int = 0) -> None:
        """What the kernel judged; ``lost`` events did not fit into its ring since the last call."""
        kinds: Counter[Kind] = Counter()
        for event in events:
            self._put(event)
            protocol = PROTOCOLS.get(event.protocol, "other").lower()
            kinds["L3/L4", kernel_verdict(event), event.direction, event.reason, protocol] += 1
        self._metrics.lost("kernel", lost)
        self._added(kinds)

    def last(self, number: int, wanted: FlowFilter | None = None) -> list[Flow]:
        """The newest ``number`` flows that match, oldest first."""
        found: list[Flow] = []
        wanted = wanted or FlowFilter()
        for sequence in range(self._next - 1, self._oldest() - 1, -1):
            if len(found) >= number:
                break
            flow = self._flow(sequence)
            if wanted.matches(flow):
                found.append(flow)
        return found[::-1]

    async def follow(
        self, wanted: FlowFilter | None = None, last: int = 0
    ) -> AsyncIterator[Flow | Lost]:
        """``last`` flows of before, then each one as it comes, without end."""
        wanted = wanted or FlowFilter()
        place = self._next
        for flow in self.last(last, wanted):
            yield flow
        while True:
            if place == self._next:
                self._arrived.clear()
                await self._arrived.wait()
            if place < self._oldest():
                yield Lost(self._oldest() - place)
                place = self._oldest()
            end = min(self._next, place + _CHUNK)
            # Decoded before the first is yielded: the ring may turn while the reader takes them.
            for flow in list(self._matching(place, end, wanted)):
                yield flow
            place = end
            await asyncio.sleep(0)

    def _matching(self, begin: int, end: int, wanted: FlowFilter) -> Iterator[Flow]:
        return filter(wanted.matches, map(self._flow, range(begin, end)))

    def _oldest(self) -> int:
        return max(0, self._next - len(self._ring))

    def _put(self, item: pb.VerdictRecord | KernelEvent) -> None:
        self._ring[self._next % len(self._ring)] = item
        self._next += 1

    def _added(self, kinds: Counter[Kind]) -> None:
        if kinds:
            self._metrics.count(kinds)
            self._arrived.set()

    def _flow(self, sequence: int) -> Flow:
        item = self._ring[sequence % len(self._ring)]
        assert item is not None
        if isinstance(item, pb.VerdictRecord):
            return self._decoder.verdict(item)
        return self._decoder.event(item)
