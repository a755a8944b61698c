"""``python -m cluster_operator``: once-per-cluster work, by whichever operator leads."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

import structlog
import uvloop
from prometheus_client import CollectorRegistry, Gauge, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from cluster_operator.crds import definitions
from cluster_operator.events import Events
from cluster_operator.garbage import GarbageCollector
from cluster_operator.gateways import GatewayController
from cluster_operator.install import install
from cluster_operator.policy_status import PolicyStatus
from kube_store import gateway_kinds, serving
from kube_store.election import Election
from kube_store.kube import KubeSource, Watched
from kube_store.kube_client import KubeClient, connect
from kube_store.logs import configure
from kube_store.resource import plural
from kube_store.shared import GROUP_VERSION, IDENTITY, REPORT, SLICE
from kube_store.store import Store
from kube_store.tasks import cancelled
from policy_engine.kinds import API_VERSIONS, CRD_KINDS

log = structlog.get_logger(__name__)


def watched(gateways: bool = False) -> list[Watched]:
    """Policies with their status, what agents write, and what Gateways are made of."""
    policies = [
        Watched(kind, API_VERSIONS[kind], plural(kind), optional=True) for kind in CRD_KINDS
    ]
    return [
        *policies,
        *(gateway_kinds.watched_whole() if gateways else ()),
        Watched(IDENTITY, GROUP_VERSION, plural(IDENTITY), metadata_only=True, optional=True),
        Watched(SLICE, GROUP_VERSION, plural(SLICE), optional=True),
        Watched(REPORT, GROUP_VERSION, plural(REPORT), optional=True),
        Watched("Node", "v1", "nodes", metadata_only=True),
    ]


class Operator:
    """``leads`` says whether this one works."""

    def __init__(
        self, client: KubeClient, namespace: str, name: str, gc_seconds: float, gateways: bool
    ) -> None:
        self._client, self._gc_seconds, self._gateways = client, gc_seconds, gateways
        self._events = Events(client, name)
        self.election = Election(client, namespace, "sidegate-operator", name)

    async def run(self) -> None:
        """Until cancelled."""
        await self.election.run(self._lead)

    async def _lead(self) -> None:
        store = Store()
        source = KubeSource(self._client, watched(self._gateways), store.apply)
        garbage = GarbageCollector(self._client, store, self._gc_seconds)
        status = PolicyStatus(self._client, store, self._events)
        async with asyncio.TaskGroup() as group:
            await install(self._client, self._events, definitions())
            group.create_task(source.run())
            await source.synced.wait()
            group.create_task(garbage.run())
            group.create_task(status.run())
            if self._gateways:
                group.create_task(GatewayController(self._client, store).run())


def _application(operator: Operator) -> Starlette:
    registry = CollectorRegistry()
    leads = Gauge("sidegate_operator_leads", "1 while this operator leads", registry=registry)
    leads.set_function(lambda: float(operator.election.leads))

    async def fine(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def metrics(_: Request) -> Response:
        return PlainTextResponse(generate_latest(registry), media_type="text/plain; version=0.0.4")

    return Starlette(
        routes=[Route("/healthz", fine), Route("/readyz", fine), Route("/metrics", metrics)]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0 after a signal, 1 when there is no API server to be found."""
    parser = argparse.ArgumentParser(prog="cluster_operator", description=__doc__)
    parser.add_argument("--kubeconfig", type=Path, help="none: as the pod that runs this")
    parser.add_argument("--namespace", default="sidegate-system", help="where the Lease is")
    parser.add_argument("--name", default=socket.gethostname(), help="who holds the Lease")
    parser.add_argument("--port", type=int, default=9441, help="of health and metrics")
    parser.add_argument("--gc-seconds", type=float, default=300, help="between two sweeps")
    parser.add_argument(
        "--gateways", action="store_true", help="addresses and statuses of Gateways"
    )
    parser.add_argument("--log-level", default="info")
    given = parser.parse_args(arguments)
    configure(given.log_level)
    gc.freeze()  # what was imported stays as long as we do
    try:
        uvloop.run(_until_signal(given))
    except OSError as error:
        print(f"cluster_operator: {error}", file=sys.stderr)
        return 1
    return 0


async def _until_signal(given: argparse.Namespace) -> None:
    with serving.listen(given.port) as listener:
        client = await connect(given.kubeconfig)
        operator = Operator(client, given.namespace, given.name, given.gc_seconds, given.gateways)
        health = asyncio.create_task(serving.serve(_application(operator), listener))
        work = asyncio.create_task(operator.run())
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, work.cancel)
        try:
            with contextlib.suppress(asyncio.CancelledError):
                await work
        finally:
            await cancelled(health)
            await client.close()
