"""Acts as the kubelet: the pods that the agent knows run here, those that go are stopped."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
import structlog

from sandbox import cni, container
from sandbox.node import Node
from sandbox.pod import BadPod, Container, PodSpec, parse_pod
from sandbox.segment import ip

log = structlog.get_logger(__name__)

_BACK_OFF = (0.2, 0.5, 1, 2, 5, 10)
_GRACE_SECONDS = 3.0


@dataclass(slots=True)
class RunningPod:
    spec: PodSpec
    attachment: cni.Attachment
    addresses: list[str]
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    pids: dict[str, int] = field(default_factory=dict)
    restarts: int = 0


class Kubelet:
    """``api`` is a client of the agent's REST API."""

    def __init__(self, node: Node, api: httpx.AsyncClient) -> None:
        self._node, self._api = node, api
        self._manifests: dict[tuple[str, str, str], dict[str, Any]] = {}
        self.pods: dict[tuple[str, str], RunningPod] = {}
        self.failed: dict[tuple[str, str], str] = {}

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
        for key in list(self.pods):
            await self._remove(*key)

    async def _handle(self, event: str, manifest: dict[str, Any]) -> None:
        kind, metadata = manifest.get("kind", ""), manifest.get("metadata", {})
        key = (metadata.get("namespace", "default"), metadata.get("name", ""))
        if kind in ("ConfigMap", "Secret"):
            self._manifests[(kind, *key)] = manifest
        if kind != "Pod":
            return
        if event == "DELETED":
            await self._remove(*key)
        elif key not in self.pods:
            try:
                await self._add(*key, manifest)
                self.failed.pop(key, None)
            except (BadPod, cni.CniError, OSError, subprocess.CalledProcessError) as error:
                self.failed[key] = str(error)
                log.error("pod not started", pod="/".join(key), error=str(error))
                await self._report(*key, {"phase": "Pending", "message": str(error)})

    async def _add(self, namespace: str, name: str, manifest: Mapping[str, Any]) -> None:
        netns = self._node.pod_netns(namespace, name)
        uid = manifest["metadata"].get("uid") or f"{namespace}-{name}"
        attachment = cni.Attachment(f"sg-{namespace}-{name}", netns, namespace, name, uid)
        parse_pod(manifest, [], self._find)  # before anything is made
        ip("netns", "add", netns)
        try:
            result = await asyncio.to_thread(cni.call, self._node, "ADD", attachment)
        except cni.CniError:
            ip("netns", "del", netns)
            raise
        addresses = cni.addresses(result)
        pod = RunningPod(parse_pod(manifest, addresses, self._find), attachment, addresses)
        self.pods[namespace, name] = pod
        self._write_hosts()
        for each in pod.spec.containers:
            process = container.start(self._node, netns, pod.spec, each)
            self._started(pod, each, process)
            pod.tasks.append(asyncio.create_task(self._supervise(pod, each, process)))
        ips = [{"ip": address} for address in addresses]
        await self._report(namespace, name, {"phase": "Running", "podIPs": ips})

    def _started(self, pod: RunningPod, each: Container, process: subprocess.Popen[bytes]) -> None:
        """``sidegate sandbox exec`` reads this file."""
        pod.pids[each.name] = process.pid
        path = self._node.sandbox_dir / "pods" / f"{pod.spec.namespace}_{pod.spec.name}"
        state = {"pids": pod.pids, "env": dict(each.env), "addresses": pod.addresses}
        (path / "state.json").write_text(json.dumps(state))

    async def _supervise(
        self, pod: RunningPod, each: Container, process: subprocess.Popen[bytes]
    ) -> None:
        for attempt in range(1_000_000):
            code = await asyncio.to_thread(process.wait)
            if pod.spec.restart == "Never" or (pod.spec.restart == "OnFailure" and code == 0):
                phase = "Succeeded" if code == 0 else "Failed"
                await self._report(pod.spec.namespace, pod.spec.name, {"phase": phase})
                return
            await asyncio.sleep(_BACK_OFF[min(attempt, len(_BACK_OFF) - 1)])
            pod.restarts += 1
            log.info("container restarted", pod=pod.spec.name, container=each.name, code=code)
            process = container.start(self._node, pod.attachment.netns, pod.spec, each)
            self._started(pod, each, process)

    async def _remove(self, namespace: str, name: str) -> None:
        pod = self.pods.pop((namespace, name), None)
        if pod is None:
            return
        for task in pod.tasks:
            task.cancel()
        await asyncio.to_thread(_end_sessions, list(pod.pids.values()))
        with contextlib.suppress(cni.CniError):
            await asyncio.to_thread(cni.call, self._node, "DEL", pod.attachment)
        ip("netns", "del", pod.attachment.netns)
        self._write_hosts()

    async def _report(self, namespace: str, name: str, status: Mapping[str, Any]) -> None:
        with contextlib.suppress(httpx.HTTPError):
            path = f"/v1/resources/pods/{namespace}/{name}/status"
            await self._api.put(path, json=status)

    def _find(self, kind: str, namespace: str, name: str) -> Mapping[str, Any] | None:
        return self._manifests.get((kind, namespace, name))

    def _write_hosts(self) -> None:
        """In place: the file is bind-mounted into every container."""
        lines = ["127.0.0.1 localhost", "::1 localhost"]
        for pod in self.pods.values():
            lines += [f"{address} {pod.spec.name}" for address in pod.addresses]
        (self._node.sandbox_dir / "hosts").write_text("\n".join(lines) + "\n")


def _end_sessions(pids: list[int]) -> None:
    """Each container is a session of its own: end it whole, kindly at first."""
    for number, patience in ((signal.SIGTERM, _GRACE_SECONDS), (signal.SIGKILL, 1.0)):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, number)
        for _ in range(int(patience / 0.02)):
            pids = [pid for pid in pids if _group_lives(pid)]
            if not pids:
                return
            time.sleep(0.02)


def _group_lives(pid: int) -> bool:
    try:
        os.killpg(pid, 0)
    except ProcessLookupError:
        return False
    return True
