"""`sidegate.policy.v1.PolicyService`: policies to the modules, verdicts from them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import structlog

from sidegate_api.policy.v1 import policy_pb2 as pb
from sidegate_api.policy.v1 import policy_pb2_grpc as pb_grpc
from xds_server.policy_stream import PolicyHub, PolicySession, Sidecar
from xds_server.policy_versions import refusal

log = structlog.get_logger(__name__)


class PolicyService(pb_grpc.PolicyServiceServicer):
    """Of the node's Envoy, or of one ``sidecar``: whoever speaks there is taken for that pod."""

    def __init__(
        self,
        hub: PolicyHub,
        on_verdicts: Callable[[pb.VerdictBatch], None],
        counters: Counter[str],
        sidecar: Sidecar | None = None,
    ) -> None:
        self._hub = hub
        self._sidecar = sidecar
        self._on_verdicts = on_verdicts
        self._counters = counters

    async def StreamPolicies(
        self, requests: AsyncIterator[pb.PolicyRequest], context: Any
    ) -> AsyncIterator[pb.PolicyResponse]:
        first = await anext(requests, None)
        if first is None or first.WhichOneof("message") != "hello":
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "PolicyRequest: begin with hello")
            return
        if why := refusal(first.hello):
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, why)
        awake = asyncio.Event()
        if (first.hello.kind == pb.MODULE_KIND_SIDECAR) != (self._sidecar is not None):
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, "Hello.kind: another socket's")
            return
        session = self._hub.connect(first.hello, awake.set, self._sidecar)
        log.info("module connected", node=first.hello.node, version=first.hello.module_version)
        acks = asyncio.create_task(self._take_acks(requests, session))
        acks.add_done_callback(lambda _: awake.set())
        try:
            while not acks.done():
                awake.clear()
                while response := session.response():
                    self._counters["policy_messages"] += 1
                    self._counters["policy_bytes"] += response.ByteSize()
                    yield response
                await awake.wait()
            if not acks.cancelled() and (error := acks.exception()):
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        finally:
            acks.cancel()
            self._hub.disconnect(session)
            log.info("module disconnected", node=first.hello.node)

    async def _take_acks(
        self, requests: AsyncIterator[pb.PolicyRequest], session: PolicySession
    ) -> None:
        async for request in requests:
            if request.WhichOneof("message") == "peers":
                self._hub.meet(session, request.peers.addresses)
                continue
            session.acknowledge(request.ack)
            for error in request.ack.errors:
                self._counters["policy_nacks"] += 1
                log.error(
                    "the module refused a policy: the endpoint's L7 traffic is denied",
                    endpoint=error.endpoint_id,
                    revision=error.revision,
                    rule=error.rule,
                    error=error.message,
                )
            self._hub.progress(session)

    async def StreamVerdicts(
        self, batches: AsyncIterator[pb.VerdictBatch], _context: Any
    ) -> pb.VerdictSummary:
        received = 0
        async for batch in batches:
            received += len(batch.records)
            self._counters["verdict_batches"] += 1
            self._counters["verdict_records"] += len(batch.records)
            self._counters["verdicts_lost"] += batch.lost
            if self._sidecar:  # it speaks of its own pod only
                own = self._sidecar.endpoint_id
                kept = [each for each in batch.records if each.endpoint_id in (0, own)]
                batch = pb.VerdictBatch(node=batch.node, records=kept, lost=batch.lost)  # noqa: PLW2901
            self._on_verdicts(batch)
        return pb.VerdictSummary(received=received)

    def clients(self) -> list[dict[str, Any]]:
        return [
            {
                "node": s.hello.node,
                "kind": "sidecar" if s.sidecar else "module",
                "version": s.hello.module_version,
            }
            for s in self._hub.sessions
        ]

    def policies(self) -> list[dict[str, Any]]:
        sessions = self._hub.sessions
        return [
            {
                "endpoint_id": endpoint_id,
                "revision": policy.revision,
                "acked": bool(sessions)
                and all(
                    s.acked.get(endpoint_id) == policy.revision
                    for s in self._hub.concerned(endpoint_id)
                ),
                "errors": [
                    {"node": s.hello.node, "rule": e.rule, "message": e.message}
                    for s in self._hub.concerned(endpoint_id)
                    if (e := s.errors.get(endpoint_id))
                ],
            }
            for endpoint_id, policy in sorted(self._hub.policies.items())
        ]
