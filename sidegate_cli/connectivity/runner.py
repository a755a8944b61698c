"""Runs the stages, tells of each case, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kube_store.kube_client import KubeClient, connect
from sidegate_cli.connectivity import objects
from sidegate_cli.connectivity.cases import Case, Stage, seen, stages
from sidegate_cli.connectivity.cluster import NotReady, TestCluster

_PODS_SECONDS = 120.0
_CASE_SECONDS = 12.0
_GONE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """``seconds`` until the case was as expected, or was given up."""

    stage: str
    case: str
    pod: str
    expected: str
    seen: str
    seconds: float

    @property
    def ok(self) -> bool:
        return self.seen == self.expected


Tell = Callable[[Outcome], None]


async def run(
    kubeconfig: Path | None, namespace: str, images: objects.Images, keep: bool, tell: Tell,
    say: Callable[[str], None],
) -> list[Outcome]:  # fmt: skip
    """Raises NotReady, KubeError, or what the connection does; the namespace goes even so."""
    client = await connect(kubeconfig)
    cluster = TestCluster(client, namespace)
    home = objects.namespace(namespace)
    try:
        say(f"pods of the test start in namespace {namespace}")
        addresses = await _deploy(cluster, images, await _nodes(client))
        outcomes = []
        for stage in stages(addresses, namespace):
            say(stage.name)
            outcomes += await _stage(cluster, stage, tell)
        return outcomes
    finally:
        if not keep:
            await cluster.delete(home)
            if not await cluster.gone(home, _GONE_SECONDS):
                say(f"namespace {namespace} is still being deleted")
        await client.close()


async def _nodes(client: KubeClient) -> list[str]:
    answer, _ = await client.request("GET", "/api/v1/nodes")
    ready = [
        item["metadata"]["name"] for item in answer["items"]
        if any(c["type"] == "Ready" and c["status"] == "True"
               for c in (item.get("status") or {}).get("conditions") or [])
        and not (item.get("spec") or {}).get("unschedulable")
    ]  # fmt: skip
    if not ready:
        raise NotReady("no node of the cluster is ready: is the agent installed?")
    return sorted(ready)


async def _deploy(
    cluster: TestCluster, images: objects.Images, nodes: list[str]
) -> dict[str, list[str]]:
    await cluster.apply(objects.namespace(cluster.namespace))
    for _ in range(50):  # the controller makes it; a pod before that is refused
        if await cluster.items("ServiceAccount"):
            break
        await asyncio.sleep(0.2)
    pods = objects.pods(images, nodes)
    for manifest in [*pods, *objects.services()]:
        await cluster.apply(manifest)
    return await cluster.pods_ready([pod["metadata"]["name"] for pod in pods], _PODS_SECONDS)


async def _stage(cluster: TestCluster, stage: Stage, tell: Tell) -> list[Outcome]:
    for manifest in stage.policies:
        await cluster.apply(manifest)
    outcomes = []
    for case in stage.cases:
        outcomes.append(await _case(cluster, stage, case))
        tell(outcomes[-1])
    for manifest in stage.policies:
        await cluster.delete(manifest)
    return outcomes


async def _case(cluster: TestCluster, stage: Stage, case: Case) -> Outcome:
    """Until it is as expected: policies and services take a moment to be everywhere."""
    begin = time.monotonic()
    while True:
        ran = await cluster.run(case.pod, case.command)
        result = seen(ran.code, ran.output)
        took = time.monotonic() - begin
        if result == case.expected or took > _CASE_SECONDS:
            return Outcome(stage.name, case.name, case.pod, case.expected, result, took)
        await asyncio.sleep(0.2)
