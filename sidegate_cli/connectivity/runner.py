"""Runs the stages, tells of each case, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kube_store.kube_client import KubeClient, connect
from sidegate_cli.connectivity import mesh, objects
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


@dataclass(frozen=True, slots=True)
class Options:
    """``istio``: in a mesh, with and without sidecars. ``keep``: pods stay."""

    namespace: str
    images: objects.Images
    keep: bool = False
    istio: bool = False


Tell = Callable[[Outcome], None]
Say = Callable[[str], None]


async def run(kubeconfig: Path | None, options: Options, tell: Tell, say: Say) -> list[Outcome]:
    """Raises NotReady, KubeError, or what the connection does; the namespace goes even so, and if
    it is cancelled."""
    client = await connect(kubeconfig)
    cluster = TestCluster(client, options.namespace)
    home = objects.namespace(options.namespace, mesh.INJECTED if options.istio else {})
    try:
        await _is_free(cluster, home)
        say(f"pods of the test start in namespace {options.namespace}")
        try:
            return await _try_all(cluster, home, options, await _nodes(client), tell, say)
        finally:
            if not options.keep:
                await _clean_up(cluster, home, say)
    finally:
        await client.close()


async def _is_free(cluster: TestCluster, home: dict[str, Any]) -> None:
    """Everything in the namespace goes with it. Raises NotReady."""
    labels = await cluster.labels(home)
    if labels is not None and not objects.MANAGED_BY.items() <= labels.items():
        raise NotReady(
            f"namespace {cluster.namespace} is there, and is not this test's: say another one by "
            "--namespace, it is deleted afterwards"
        )


async def _clean_up(cluster: TestCluster, home: dict[str, Any], say: Say) -> None:
    await cluster.delete(home)
    if not await cluster.gone(home, _GONE_SECONDS):
        say(f"namespace {cluster.namespace} is still being deleted")


async def _try_all(
    cluster: TestCluster, home: dict[str, Any], options: Options, nodes: list[str],
    tell: Tell, say: Say,
) -> list[Outcome]:  # fmt: skip
    pods = objects.pods(options.images, nodes)
    services = mesh.services() if options.istio else objects.services()
    if options.istio:
        pods += mesh.pods(options.images, nodes)
    addresses = await _deploy(cluster, home, pods, services)
    if options.istio and (names := mesh.without_module(await cluster.items("Pod"))):
        raise NotReady(
            f"pods {', '.join(names)}: no sidecar with Sidegate's module was injected: "
            "sidegate-istioctl verify-install says what is missing"
        )
    outcomes = []
    for stage in mesh.stages() if options.istio else stages(addresses, cluster.namespace):
        say(stage.name)
        outcomes += await _stage(cluster, stage, tell)
    return outcomes


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
    cluster: TestCluster, home: dict[str, Any], pods: list[dict[str, Any]],
    services: list[dict[str, Any]],
) -> dict[str, list[str]]:  # fmt: skip
    await cluster.apply(home)
    for _ in range(50):  # the controller makes it; a pod before that is refused
        if await cluster.items("ServiceAccount"):
            break
        await asyncio.sleep(0.2)
    for manifest in [*pods, *services]:
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
        ran = await cluster.run(case.pod, case.command, objects.CONTAINER)
        result = seen(ran.code, ran.output)
        took = time.monotonic() - begin
        if result == case.expected or took > _CASE_SECONDS:
            return Outcome(stage.name, case.name, case.pod, case.expected, result, took)
        await asyncio.sleep(0.2)
