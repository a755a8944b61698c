"""An agent in a cluster of 500 nodes, 5,000 pods and 1,000 policies, all but its own node written
to a real API server as objects."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import statistics
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, ip_network
from pathlib import Path
from typing import Any

import httpx

from bench.figures import Figure, figure
from bench.rig import CLI, policy
from cluster_operator.crds import definitions
from datapath.codec import ipcache_key, policy_key
from datapath.libbpf import Map, get_pinned
from kube_store.kube_client import MERGE_PATCH, KubeClient, connect, resource_path
from kube_store.resource import plural
from kube_store.shared import GROUP_VERSION, IDENTITY, SLICE, path_of
from node_agent.identities import candidate
from policy_engine.labels import pod_labels
from policy_engine.model import Direction, PolicyKey, Protocol
from sandbox.cluster import prepare
from sandbox.control_plane import Cluster, ControlPlane
from sandbox.node import Node
from sandbox.segment import UPLINK, ip

_NODES, _PODS_EACH, _POLICIES, _APPS = 500, 10, 1000, 500
_TOGETHER = 24
_TICKS = os.sysconf("SC_CLK_TCK")


def scale() -> list[Figure]:
    prepare()
    return asyncio.run(_scale())


async def _scale() -> list[Figure]:
    cluster = Cluster("bench")
    plane = ControlPlane(cluster)
    node = Node("bench-1", "bench", 11)
    node.remove()
    try:
        await asyncio.to_thread(plane.start)
        client = await connect(cluster.kubeconfig)
        try:
            await _fill(client, plane, node)
            with contextlib.ExitStack() as stack:
                return await _measure(client, plane, node, stack)
        finally:
            await client.close()
    finally:
        node.remove()
        plane.stop()


async def _measure(
    client: KubeClient, plane: ControlPlane, node: Node, stack: contextlib.ExitStack
) -> list[Figure]:
    node.create()
    starts = []
    for _ in range(3):
        begin = time.monotonic()
        agent = _start(plane, node)
        stack.callback(_end, agent.process)
        await agent.until(lambda status: status["policies"] >= _POLICIES)
        starts.append(time.monotonic() - begin)
        status = await agent.status()
        resident = agent.resident()
        if len(starts) < 3:
            _end(agent.process)
    await _local_pod(client, agent, node)
    known = await _peers(client, node)
    enforced = await _policies(client, agent, node)
    cpu = await _changes(client, agent)
    return [
        figure("cold start to enforcing, 5,000 pods, 1,000 policies", starts, "s", bar="<= 10"),
        figure("the agent's memory then", [resident], "MB", bar="<= 250"),
        figure("bytes from the API server until then", [status["api_bytes"] / 1e6], "MB"),
        figure("pod of another node to its identity here, p99", [_p99(known)], "ms", bar="<= 250"),
        figure("policy accepted to enforced", enforced, "ms", bar="<= 50"),
        figure("the same, p99", [_p99(enforced)], "ms", bar="<= 200"),
        figure("agent's CPU at 100 pod changes/s", [cpu], "cores", bar="<= 0.25"),
    ]


@dataclass(frozen=True, slots=True)
class _Agent:
    process: subprocess.Popen[bytes]
    node: Node

    async def status(self) -> dict[str, Any]:
        transport = httpx.AsyncHTTPTransport(uds=str(self.node.run_dir / "agent.sock"))
        async with httpx.AsyncClient(transport=transport, base_url="http://a", timeout=30) as api:
            answer: dict[str, Any] = (await api.get("/v1/status")).json()
            return answer

    async def until(self, holds: Callable[[dict[str, Any]], bool]) -> None:
        for _ in range(1200):
            with contextlib.suppress(httpx.HTTPError, OSError):
                status = await self.status()
                if "error" not in status and holds(status):
                    return
            await asyncio.sleep(0.05)
        raise TimeoutError((self.node.sandbox_dir / "agent.log").read_text()[-3000:])

    def _program(self) -> int:
        """nsenter has become the agent."""
        return self.process.pid

    def resident(self) -> float:
        text = Path(f"/proc/{self._program()}/status").read_text()
        return int(text.partition("VmRSS:")[2].split()[0]) / 1024

    def ticks(self) -> int:
        fields = Path(f"/proc/{self._program()}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])


def _start(plane: ControlPlane, node: Node) -> _Agent:
    plane.pki.issue("bench-agent", "bench-agent", group="system:masters")
    host, port = plane.server
    config = plane.pki.kubeconfig("bench-agent", f"https://{host}:{port}")
    command = [str(CLI), "agent", "--cluster", "--kubeconfig", str(config), "--node", node.name]
    with (node.sandbox_dir / "agent.log").open("wb") as log:
        process = subprocess.Popen(
            node.inside([*command, "--device", UPLINK]), stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip
    return _Agent(process, node)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        process.wait(15)


def _app(number: int) -> dict[str, str]:
    return pod_labels("default", {"app": f"app-{number % _APPS}"}, {
        "kubernetes.io/metadata.name": "default"})  # fmt: skip


def _endpoint(number: int) -> dict[str, Any]:
    return {
        "namespace": "default", "name": f"pod-{number}", "ipv4": str(_address(number)), "ipv6": "",
        "identity": candidate(_app(number), 0), "named-ports": [],
    }  # fmt: skip


def _address(number: int) -> IPv4Address:
    node, place = divmod(number, _PODS_EACH)
    return IPv4Address("10.64.0.0") + node * 256 + place + 2


def _slice(node: int, more: Iterable[dict[str, Any]] = ()) -> dict[str, Any]:
    pods = [_endpoint(node * _PODS_EACH + n) for n in range(_PODS_EACH)]
    return {
        "apiVersion": GROUP_VERSION, "kind": SLICE, "metadata": {"name": f"node-{node}-0"},
        "node": f"node-{node}", "endpoints": [*pods, *more],
    }  # fmt: skip


async def _fill(client: KubeClient, plane: ControlPlane, own: Node) -> None:
    for _ in range(100):
        accounts, _ = await client.request("GET", resource_path("v1", "serviceaccounts", "default"))
        if accounts["items"]:
            break
        await asyncio.sleep(0.1)
    for name in ("kube-scheduler", "kube-controller-manager"):  # they would remove such nodes
        plane.stop_part(name)
    for crd in definitions():
        path = resource_path("apiextensions.k8s.io/v1", "customresourcedefinitions",
                             name=crd["metadata"]["name"])  # fmt: skip
        await client.apply(path, crd, "bench")
    await asyncio.sleep(3)

    def post(group_version: str, plural: str, namespace: str, body: dict[str, Any]) -> Any:
        return lambda: client.request("POST", resource_path(group_version, plural, namespace),
                                      body=body, seconds=60)  # fmt: skip

    nodes = [(own.name, "10.63.0.0/24"), *((f"node-{n}", f"10.64.{n}.0/24" if n < 256 else
              f"10.65.{n - 256}.0/24") for n in range(_NODES))]  # fmt: skip
    jobs: list[Callable[[], Awaitable[Any]]] = [
        post("v1", "nodes", "", {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
                                 "spec": {"podCIDRs": [cidr]}})
        for name, cidr in nodes
    ]  # fmt: skip
    jobs += [
        post(GROUP_VERSION, plural(IDENTITY), "", {
            "apiVersion": GROUP_VERSION, "kind": IDENTITY,
            "metadata": {"name": str(candidate(_app(n), 0))}, "security-labels": _app(n)})
        for n in {candidate(_app(n), 0): n for n in range(_APPS)}.values()
    ]  # fmt: skip
    jobs += [post(GROUP_VERSION, plural(SLICE), "", _slice(n)) for n in range(_NODES)]
    jobs += [
        post("v1", "pods", "default",
             _pod(f"pod-{n}", f"app-{n % _APPS}", f"node-{n // _PODS_EACH}"))
        for n in range(_NODES * _PODS_EACH)
    ]  # fmt: skip
    rule = {"method": "GET", "path": "/v1/.*"}
    jobs += [
        post("cilium.io/v2", "ciliumnetworkpolicies", "default",
             policy(f"policy-{n}", f"app-{n % _APPS}", f"app-{(n * 7 + 1) % _APPS}", rule))
        for n in range(_POLICIES)
    ]  # fmt: skip
    waiting = iter(jobs)

    async def work() -> None:
        for job in waiting:
            await job()

    await asyncio.gather(*(work() for _ in range(_TOGETHER)))


def _pod(name: str, app: str, node: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": app}},
        "spec": {"nodeName": node, "containers": [{"name": "c", "image": "none"}]},
    }  # fmt: skip


async def _local_pod(client: KubeClient, agent: _Agent, node: Node) -> None:
    """A pod of the agent's own node, as a CNI plugin would say it: policies 0 and 500 select it."""
    body = _pod("local", "app-0", node.name)
    await client.request("POST", resource_path("v1", "pods", "default"), body=body)
    ip("link", "add", "local0", "type", "veth", "peer", "name", "local1", netns=node.netns)
    show = ["ip", "-n", node.netns, "-o", "link", "show", "local0"]
    shown = await asyncio.to_thread(subprocess.check_output, show, text=True)
    registration = {
        "container_id": "local", "pod_namespace": "default", "pod_name": "local",
        "host_ifname": "local0", "host_ifindex": int(shown.partition(":")[0]),
        "mac": "02:00:00:00:00:01", "ipv4": "10.63.0.2",
    }  # fmt: skip
    transport = httpx.AsyncHTTPTransport(uds=str(node.run_dir / "agent.sock"))
    async with httpx.AsyncClient(transport=transport, base_url="http://a", timeout=30) as api:
        answer = await api.put("/v1/endpoints/local", json=registration)
        answer.raise_for_status()


async def _peers(client: KubeClient, node: Node) -> list[float]:
    """From the write of another node's agent to the address in this node's kernel."""
    ipcache = Map(get_pinned(node.run_dir / "bpf" / "ipcache"), "ipcache")
    took = []
    for number in range(100):
        address = f"10.66.{number}.9"
        pod = _endpoint(number) | {"ipv4": address, "name": f"late-{number}"}
        begin = time.monotonic()
        await _patch(client, number, [pod])
        key = ipcache_key(ip_network(address))
        wanted = candidate(_app(number), 0).to_bytes(4, "little")
        took.append(await _until(begin, ipcache, key, wanted))
    return took


async def _policies(client: KubeClient, agent: _Agent, node: Node) -> list[float]:
    """From the API server's answer to the entry in this node's kernel."""
    entries = Map(get_pinned(node.run_dir / "bpf" / "policy"), "policy")
    identity = candidate(_app(1), 0)
    path = resource_path("cilium.io/v2", "ciliumnetworkpolicies", "default", "policy-0")
    took = []
    for number in range(100):
        manifest = policy("policy-0", "app-0", "app-1", {"path": f"/{number}"})
        port = 9000 + number
        manifest["spec"]["ingress"][0]["toPorts"][0]["ports"][0]["port"] = str(port)
        await client.request("PATCH", path, None, {"spec": manifest["spec"]}, MERGE_PATCH)
        begin = time.monotonic()
        wanted = PolicyKey(Direction.INGRESS, identity, Protocol.TCP, port, 16)
        key = policy_key(1, wanted)
        took.append(await _until(begin, entries, key, b""))
    return took


async def _changes(client: KubeClient, agent: _Agent, seconds: int = 15) -> float:
    """Cores that the agent uses while 100 pods a second come or go elsewhere."""
    begin, before, number = time.monotonic(), agent.ticks(), 0
    running: set[asyncio.Task[None]] = set()
    while (now := time.monotonic()) < begin + seconds:
        while number < (now - begin) * 100:
            node = number % _NODES
            pod = _endpoint(node) | {"ipv4": f"10.67.{node % 250}.{number % 200 + 2}"}
            task = asyncio.create_task(_patch(client, node, [pod]))
            running.add(task)
            task.add_done_callback(running.discard)
            number += 1
        await asyncio.sleep(0.005)
    await asyncio.gather(*running)
    return (agent.ticks() - before) / _TICKS / (time.monotonic() - begin)


async def _patch(client: KubeClient, node: int, more: list[dict[str, Any]]) -> None:
    path = path_of(SLICE, f"node-{node}-0")
    body = {"endpoints": _slice(node, more)["endpoints"]}
    await client.request("PATCH", path, None, body, MERGE_PATCH)


async def _until(begin: float, kernel: Map, key: bytes, value: bytes) -> float:
    """Milliseconds until the map has a value that begins so. Raises TimeoutError."""
    while not (found := kernel.get(key)) or not found.startswith(value):
        if time.monotonic() > begin + 10:
            raise TimeoutError("not seen within 10 s")
        await asyncio.sleep(0.0005)
    return (time.monotonic() - begin) * 1000


def _p99(values: list[float]) -> float:
    return statistics.quantiles(values, n=100)[98]
