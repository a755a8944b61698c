"""A cluster's node as a machine: it boots, runs its kubelet, and can lose its power."""

from __future__ import annotations

import asyncio
import subprocess

import structlog
from kubernetes.aio import client, config

from kube_store.tasks import cancelled
from sandbox.binaries import binary
from sandbox.cluster_kubelet import ClusterKubelet
from sandbox.control_plane import ControlPlane
from sandbox.node import Node
from sandbox.node_object import KUBELET_PORT

log = structlog.get_logger(__name__)

_POLL_SECONDS = 0.2


class Machine:
    """``node`` must not be there yet."""

    def __init__(self, plane: ControlPlane, node: Node) -> None:
        self._plane, self._node = plane, node
        self._api: client.ApiClient
        self._kubelet: ClusterKubelet
        self._running: asyncio.Task[None]
        self._watching: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Raises CalledProcessError, OSError."""
        await self._boot()
        self._watching = asyncio.create_task(self._reboot_when_asked())

    async def stop(self) -> None:
        """Its pods end as a kubelet ends them; the node stays, without any."""
        for task in (self._watching, self._running):
            if task:
                await cancelled(task)
        await self._api.close()  # type: ignore[no-untyped-call]

    async def _boot(self) -> None:
        plane, node = self._plane, self._node
        node.create()
        node.start_pause()
        plane.pki.issue(node.name, f"system:node:{node.name}", group="system:nodes")
        plane.pki.issue(f"{node.name}-serving", node.name, node.name, *node.addresses)
        path = plane.pki.kubeconfig(node.name, plane.outside)
        self._api = await config.new_client_from_config(str(path))  # type: ignore[no-untyped-call]
        self._serve_logs_and_exec()
        self._kubelet = ClusterKubelet(node, self._api, plane.server)
        self._running = asyncio.create_task(self._kubelet.run())
        self._running.add_done_callback(_ended)

    async def _reboot_when_asked(self) -> None:
        asked = self._node.reboot_file
        while True:
            await asyncio.sleep(_POLL_SECONDS)
            if asked.exists():
                log.info("the node loses its power", node=self._node.name)
                self._kubelet.abandon()
                await cancelled(self._running)
                await self._api.close()  # type: ignore[no-untyped-call]
                await asyncio.to_thread(self._node.power_off)
                await self._boot()
                asked.unlink()

    def _serve_logs_and_exec(self) -> None:
        """Ends with the node's namespace."""
        node, pki = self._node, self._plane.pki
        serving = f"{node.name}-serving"
        with (node.sandbox_dir / "streaming.log").open("ab") as logged:
            subprocess.Popen(
                node.inside([
                    str(binary("streaming", "streaming")), "--port", str(KUBELET_PORT),
                    "--cert", str(pki.certificate(serving)), "--key", str(pki.key(serving)),
                    "--client-ca", str(pki.ca), "--dir", str(node.sandbox_dir),
                ]),
                stdin=subprocess.DEVNULL, stdout=logged, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip


def _ended(kubelet: asyncio.Task[None]) -> None:
    if not kubelet.cancelled() and (error := kubelet.exception()):
        log.error("a kubelet has ended: nobody looks after its pods", exc_info=error)
