"""An API server with everybody's CRDs, and controllers that take turns there."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from collections.abc import AsyncIterator

from bench.gateway.asking import Client
from bench.gateway.controllers import Controller
from bench.gateway.manifests import BACKEND_PORT, backend, host, made, route
from bench.gateway.objects import Statuses, create, put, remove, remove_routes
from cluster_operator.crds import definitions
from kube_store.kube_client import KubeClient, connect, resource_path
from kube_store.tasks import cancelled
from sandbox.binaries import binary
from sandbox.cluster import kubectl, prepare
from sandbox.control_plane import Cluster, ControlPlane
from sandbox.images import http_peer
from sandbox.node import Node

_READY_SECONDS = 90.0
_SETTLE_SECONDS = 3.0


class Turn:
    """A controller that serves a Gateway with one route, number 0."""

    def __init__(
        self, controller: Controller, client: Client, statuses: Statuses, api: KubeClient
    ) -> None:
        self.controller, self.client, self.statuses, self.api = controller, client, statuses, api


class Site:
    def __init__(self, plane: ControlPlane, api: KubeClient) -> None:
        self._plane, self._api = plane, api

    @contextlib.asynccontextmanager
    async def turn(self, of: type[Controller]) -> AsyncIterator[Turn]:
        """Its processes begin anew, and nothing is left of it or of any route afterwards."""
        node = Node(f"{self._plane.cluster.name}-1", self._plane.cluster.name, 11)
        node.remove()
        node.create()
        controller = of(self._plane, node)
        objects = [*controller.objects, *backend(node.addresses[0])]
        client = Client(node.netns, controller.address, controller.port)
        serve = [str(http_peer()), "serve", "--http", f":{BACKEND_PORT}"]
        serving = subprocess.Popen(  # noqa: ASYNC220 - nothing else is to be done
            node.inside(serve), stdout=subprocess.DEVNULL
        )
        statuses = Statuses(self._api, controller.name)
        try:
            await put(self._api, made("v1", "Namespace", controller.namespace))
            for each in objects:
                await put(self._api, each)
            await create(self._api, route(0))
            controller.start()
            following = asyncio.create_task(statuses.run())
            try:
                try:
                    await asyncio.wait_for(client.until_served(host(0)), _READY_SECONDS)
                    await statuses.until({"r0"}, _READY_SECONDS)
                except TimeoutError:
                    raise RuntimeError(f"{of.title} does not serve\n{controller.said()}") from None
                await asyncio.sleep(_SETTLE_SECONDS)
                yield Turn(controller, client, statuses, self._api)
            finally:
                await cancelled(following)
        finally:
            client.close()
            controller.stop()
            await remove_routes(self._api)
            for each in reversed(objects):
                await remove(self._api, each)
            serving.terminate()
            serving.wait()
            node.remove()


@contextlib.asynccontextmanager
async def site(name: str) -> AsyncIterator[Site]:
    """Nothing of it is left afterwards."""
    prepare("istio", "gateway-conformance", "envoy-gateway")
    cluster = Cluster(name)
    plane = ControlPlane(cluster)
    try:
        await asyncio.to_thread(plane.start)
        api = await connect(cluster.kubeconfig)
        try:
            await _fill(plane, api)
            yield Site(plane, api)
        finally:
            await api.close()
    finally:
        plane.stop()


async def _fill(plane: ControlPlane, api: KubeClient) -> None:
    accounts = resource_path("v1", "serviceaccounts", "default")
    async with asyncio.timeout(_READY_SECONDS):
        while not (await api.request("GET", accounts))[0]["items"]:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    # They would use the machine that is measured.
    for part in ("kube-scheduler", "kube-controller-manager"):
        plane.stop_part(part)
    folders = (binary("gateway-conformance", "experimental"), binary("envoy-gateway", "generated"))
    for folder in folders:
        for file in sorted(folder.glob("gateway.*.yaml")):
            kubectl(plane.cluster, "apply", "--server-side", "-f", str(file))
    for each in definitions():
        await put(api, each)
