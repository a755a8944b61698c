"""200 sidecars of one node: real agent, endpoints, volumes and sockets; only the proxies behind the
sockets are not Envoys, but speak the module's protocol."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import httpx

from bench.figures import Figure, figure
from bench.mesh.rig import resident
from bench.rig import pod, policy
from node_agent.csi_driver import NAME
from sandbox.node import Node
from sandbox.run import client, start_agent, wait_ready
from sidegate_api.csi.v1 import csi_pb2 as csi
from sidegate_api.csi.v1 import csi_pb2_grpc as csi_grpc
from sidegate_api.policy.v1 import policy_pb2 as pb
from sidegate_api.policy.v1 import policy_pb2_grpc as pb_grpc
from xds_server.policy_versions import PROTOCOL_VERSION

_SIDECARS = 200
_CHANGES = 100
_SETTLE_SECONDS = 2.0


def fan_out() -> list[Figure]:
    return asyncio.run(_fan_out())


async def _fan_out() -> list[Figure]:
    with tempfile.TemporaryDirectory() as directory:
        async with _agent(Path(directory)) as (node, api, agent):
            await _endpoints(node, api)
            await asyncio.sleep(_SETTLE_SECONDS)
            before = resident(agent)
            targets = await _volumes(Path(directory))
            async with _sidecars(targets) as acknowledged:
                await _settled(acknowledged)
                added = (resident(agent) - before) / _SIDECARS
                took = [await _change(api, acknowledged, number) for number in range(_CHANGES + 1)]
    took = took[1:]  # in the first all have to be found
    against = f"{_SIDECARS} sidecars on one node"
    return [
        figure("policy change to acknowledged by all sidecars", took, "ms", against=against),
        figure("policy change to acknowledged by all sidecars, p99", [sorted(took)[98]], "ms",
               against=against, bar="<= 300"),
        figure("agent's memory for each sidecar", [added], "MiB", bar="<= 0.5"),
    ]  # fmt: skip


@contextlib.asynccontextmanager
async def _agent(directory: Path) -> AsyncIterator[tuple[Node, httpx.AsyncClient, int]]:
    """One that enforces, with its process; nothing of it is left afterwards."""
    node = Node(f"streams{os.getpid()}")
    resources = directory / "resources"
    resources.mkdir()
    node.create()
    try:
        process = start_agent(node, resources, "--kubelet-dir", str(directory / "kubelet"))
        async with client(node) as api:
            await wait_ready(node, process, api)
            yield node, api, process.pid
        process.terminate()
        await asyncio.to_thread(process.wait, 10)
    finally:
        node.remove()


async def _endpoints(node: Node, api: httpx.AsyncClient) -> None:
    """Pods with the app that the policy selects, each on a link of its own."""
    names = [f"pod-{number}" for number in range(_SIDECARS)]
    indices = await asyncio.to_thread(_links, node)
    await _apply(api, *(_labelled(name) for name in names))
    for number, name in enumerate(names):
        registration = {
            "container_id": name, "pod_namespace": "default", "pod_name": name, "pod_uid": name,
            "host_ifname": f"sc{number}", "host_ifindex": indices[f"sc{number}"],
            "mac": f"02:00:00:00:00:{number:02x}", "ipv4": f"10.244.0.{number + 2}",
        }  # fmt: skip
        (await api.put(f"/v1/endpoints/{name}", json=registration)).raise_for_status()


def _links(node: Node) -> dict[str, int]:
    """Index by name."""
    where = ["ip", "-n", node.netns]
    links = "".join(f"link add sc{n} type veth peer name sp{n}\n" for n in range(_SIDECARS))
    subprocess.run([*where, "-batch", "-"], input=links, check=True, text=True, capture_output=True)
    shown = subprocess.check_output([*where, "-j", "link", "show"])
    return {link["ifname"]: link["ifindex"] for link in json.loads(shown)}


def _labelled(name: str) -> dict[str, Any]:
    manifest = pod(name, "http")
    manifest["metadata"] |= {"labels": {"app": "many"}, "uid": name}
    return manifest


async def _volumes(directory: Path) -> list[Path]:
    """Where the agent serves each pod's proxy."""
    driver = directory / "kubelet" / "plugins" / NAME / "csi.sock"
    targets = [directory / f"pod-{number}" for number in range(_SIDECARS)]
    async with grpc.aio.insecure_channel(f"unix:{driver}") as channel:
        for target in targets:
            about = {"uid": target.name, "namespace": "default", "name": target.name}
            context = {f"csi.storage.k8s.io/pod.{key}": value for key, value in about.items()}
            await csi_grpc.NodeStub(channel).NodePublishVolume(
                csi.NodePublishVolumeRequest(
                    volume_id=target.name, target_path=str(target), readonly=True,
                    volume_context=context,
                )
            )  # fmt: skip
    return targets


@contextlib.asynccontextmanager
async def _sidecars(targets: list[Path]) -> AsyncIterator[list[int]]:
    """What each has acknowledged so far: revisions, 0 for none."""
    acknowledged = [0] * len(targets)
    tasks = [
        asyncio.create_task(_sidecar(target / "agent.sock", acknowledged, number))
        for number, target in enumerate(targets)
    ]
    try:
        yield acknowledged
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _sidecar(socket: Path, acknowledged: list[int], number: int) -> None:
    nonces: asyncio.Queue[int] = asyncio.Queue()

    async def requests() -> AsyncIterator[pb.PolicyRequest]:
        hello = pb.Hello(
            node=f"pod-{number}", protocol_version=PROTOCOL_VERSION, kind=pb.MODULE_KIND_SIDECAR
        )
        yield pb.PolicyRequest(hello=hello)
        while True:
            yield pb.PolicyRequest(ack=pb.Ack(nonce=await nonces.get()))

    async with grpc.aio.insecure_channel(f"unix:{socket}") as channel:
        stub = pb_grpc.PolicyServiceStub(channel)
        async for response in stub.StreamPolicies(requests(), wait_for_ready=True):
            nonces.put_nowait(response.nonce)
            for each in response.upserts:
                acknowledged[number] = each.revision


async def _settled(acknowledged: list[int]) -> None:
    """All have a policy, and what served their coming has ended. Raises TimeoutError."""
    for _ in range(1200):
        if all(acknowledged):
            return await asyncio.sleep(_SETTLE_SECONDS)
        await asyncio.sleep(0.05)
    raise TimeoutError(f"{acknowledged.count(0)} of {_SIDECARS} sidecars got no policy")


async def _change(api: httpx.AsyncClient, acknowledged: list[int], number: int) -> float:
    """Milliseconds from asking the agent to the last acknowledgement that it has."""
    before = list(acknowledged)
    begin = time.monotonic()
    await _apply(api, policy("all", "many", "many", {"path": f"/{number}"}))
    took = (time.monotonic() - begin) * 1000
    if any(now <= then for now, then in zip(acknowledged, before, strict=True)):
        raise RuntimeError("a change was called done that some sidecar had not acknowledged")
    return took


async def _apply(api: httpx.AsyncClient, *objects: dict[str, Any]) -> None:
    answer = await api.post("/v1/apply", json={"objects": objects})
    answer.raise_for_status()
    if bad := [each for each in answer.json()["results"] if each["errors"]]:
        raise RuntimeError(str(bad))
