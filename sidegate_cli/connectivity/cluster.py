"""The few things that the test asks of a cluster: apply, wait, run a command in a pod, delete."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kube_store.kube_client import KubeClient, KubeError, resource_path
from kube_store.resource import plural


class NotReady(RuntimeError):
    """The pods of the test did not become ready; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Ran:
    """What a command in a pod came to."""

    code: int
    output: str


class TestCluster:
    """One namespace of a cluster. Methods raise KubeError or what the connection does."""

    __test__ = False  # to pytest

    def __init__(self, client: KubeClient, namespace: str) -> None:
        self._client, self.namespace = client, namespace

    async def apply(self, manifest: dict[str, Any]) -> None:
        await self._client.apply(self._path(manifest), manifest, "sidegate-connectivity")

    async def delete(self, manifest: dict[str, Any]) -> None:
        """What is not there is no error."""
        await self._client.remove(self._path(manifest))

    async def labels(self, manifest: dict[str, Any]) -> dict[str, str] | None:
        """The labels of what is there under its name; None where nothing is."""
        found = await self._client.find(self._path(manifest))
        return None if found is None else found["metadata"].get("labels") or {}

    async def gone(self, manifest: dict[str, Any], seconds: float) -> bool:
        """Whether it went within the time."""
        for _ in range(int(seconds * 5)):
            with contextlib.suppress(KubeError):
                if await self._client.find(self._path(manifest)) is None:
                    return True
            await asyncio.sleep(0.2)
        return False

    async def items(self, kind: str) -> list[Any]:
        """Of the core API."""
        path = resource_path("v1", plural(kind), self.namespace)
        answer, _ = await self._client.request("GET", path)
        items: list[Any] = answer["items"]
        return items

    async def pods_ready(self, names: Sequence[str], seconds: float) -> dict[str, list[str]]:
        """The addresses of each. Raises NotReady."""
        waiting: dict[str, str] = {}
        for _ in range(int(seconds * 4)):
            pods = {p["metadata"]["name"]: p for p in await self.items("Pod")}
            waiting = {n: _why(pods.get(n)) for n in names if _why(pods.get(n))}
            if not waiting:
                return {
                    name: [item["ip"] for item in pods[name]["status"]["podIPs"]] for name in names
                }
            await asyncio.sleep(0.25)
        raise NotReady("; ".join(f"pod {name}: {why}" for name, why in waiting.items()))

    async def run(self, pod: str, command: Sequence[str], container: str = "") -> Ran:
        """Through the API server, as ``kubectl exec`` does. ``container`` where there are more."""
        path = resource_path("v1", "pods", self.namespace, pod) + "/exec"
        query = [*(("command", part) for part in command), ("stdout", "true"), ("stderr", "true")]
        if container:
            query.append(("container", container))
        output, code = b"", 0
        async with self._client.socket(path, query) as socket:
            async for message in socket:
                channel, text = message.data[:1], message.data[1:]
                if channel == b"\x03":
                    code = _exit_code(text)
                elif channel in (b"\x01", b"\x02"):
                    output += text
        return Ran(code, output.decode(errors="replace"))

    def _path(self, manifest: dict[str, Any]) -> str:
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        namespace = "" if kind == "Namespace" else self.namespace
        return resource_path(manifest["apiVersion"], plural(kind), namespace, name)


def _exit_code(text: bytes) -> int:
    status = json.loads(text)
    if status.get("status") == "Success":
        return 0
    causes = (status.get("details") or {}).get("causes") or [{}]
    return int(causes[0].get("message") or 1) if causes[0].get("reason") == "ExitCode" else 1


def _why(pod: Any) -> str:
    """Why a pod is not ready; nothing where it is."""
    if pod is None:
        return "there is none"
    status = pod.get("status") or {}
    for condition in status.get("conditions") or []:
        if condition["type"] == "Ready" and condition["status"] == "True":
            return ""
    for container in status.get("containerStatuses") or []:
        waiting = (container.get("state") or {}).get("waiting") or {}
        if waiting.get("message"):
            return str(waiting["message"])
    return str(status.get("phase", "unknown"))
