"""Acts as the kubelet of a single node: the pods that the agent knows run, those that go stop."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
from collections.abc import Mapping
from typing import Any

import httpx
import structlog

from sandbox import cni
from sandbox.node import Node
from sandbox.pod import BadPod
from sandbox.runner import PodKey, PodRunner, RunningPod

log = structlog.get_logger(__name__)


class Kubelet:
    """``api`` is a client of the agent's REST API."""

    def __init__(self, node: Node, api: httpx.AsyncClient) -> None:
        self._node, self._api = node, api
        self._manifests: dict[tuple[str, str, str], dict[str, Any]] = {}
        self._runner = PodRunner(node, self._changed)
        self._reports: set[asyncio.Task[None]] = set()
        self.failed: dict[PodKey, str] = {}

    @property
    def pods(self) -> Mapping[PodKey, RunningPod]:
        return self._runner.pods

    async def sync(self) -> None:
        """Start what is there now, in one pass."""
        for kind in ("ConfigMap", "Secret", "Pod"):
            answer = await self._api.get("/v1/resources", params={"kind": kind})
            for item in answer.json()["items"]:
                await self._handle("ADDED", item["manifest"])

    async def watch(self) -> None:
        """Follow the agent's pods for as long as it answers; begins anew when it is back."""
        while True:
            with contextlib.suppress(httpx.HTTPError):
                async with self._api.stream("GET", "/v1/watch", timeout=None) as lines:
                    async for line in lines.aiter_lines():
                        change = json.loads(line)
                        await self._handle(change["type"], change["object"])
            await asyncio.sleep(0.3)

    async def stop(self) -> None:
        await self._runner.stop_all()

    async def _handle(self, event: str, manifest: dict[str, Any]) -> None:
        kind, metadata = manifest.get("kind", ""), manifest.get("metadata", {})
        key = (metadata.get("namespace", "default"), metadata.get("name", ""))
        if kind in ("ConfigMap", "Secret"):
            self._manifests[(kind, *key)] = manifest
        if kind != "Pod":
            return
        if event == "DELETED":
            await self._remove(key)
        elif key not in self.pods:
            try:
                await self._runner.start(manifest, self._find, {"hosts": ""})
                self._write_hosts()
                self.failed.pop(key, None)
            except (BadPod, cni.CniError, OSError, subprocess.CalledProcessError) as error:
                self.failed[key] = str(error)
                log.error("pod not started", pod="/".join(key), error=str(error))
                await self._report(key, {"phase": "Pending", "message": str(error)})

    async def _remove(self, key: PodKey) -> None:
        await self._runner.stop(key)
        self._write_hosts()

    def _changed(self, pod: RunningPod) -> None:
        ips = [{"ip": address} for address in pod.addresses]
        status = {"phase": pod.phase, "podIPs": ips}
        report = asyncio.create_task(self._report((pod.spec.namespace, pod.spec.name), status))
        self._reports.add(report)
        report.add_done_callback(self._reports.discard)

    async def _report(self, key: PodKey, status: Mapping[str, Any]) -> None:
        with contextlib.suppress(httpx.HTTPError):
            await self._api.put("/v1/resources/pods/{}/{}/status".format(*key), json=status)

    def _find(self, kind: str, namespace: str, name: str) -> Mapping[str, Any] | None:
        return self._manifests.get((kind, namespace, name))

    def _write_hosts(self) -> None:
        """In place: the files are bind-mounted into every container."""
        lines = ["127.0.0.1 localhost", "::1 localhost"]
        for pod in self.pods.values():
            lines += [f"{address} {pod.spec.name}" for address in pod.addresses]
        for pod in self.pods.values():
            (pod.place.directory / "hosts").write_text("\n".join(lines) + "\n")
