"""The real Istio with both pairs of pods, requests through them, and what their sidecars use."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import re
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bench.mesh.manifests import OTHER, PAIRS, PATH, STRICT, Pair, client, pods, policies, server
from kube_store.kube_client import KubeClient, connect, resource_path
from sandbox import processes
from sandbox.cluster import await_rollout, install, kubectl, nodes_of, prepare
from sandbox.control_plane import Cluster
from sandbox.execute import command_in
from sandbox.images import http_peer
from sandbox.istio_quickstart import install_istio
from tests.system import cluster_rig
from tests.system.netns import inside

_RESULT = re.compile(
    r"50%\s+([\d.]+)(us|ms|s).*?(\d+) requests in .*?Requests/sec:\s+([\d.]+)", re.S
)
_MICROSECONDS = {"us": 1.0, "ms": 1e3, "s": 1e6}
_PORT = 8080
_TOGETHER = 8
_GROUPS = {
    "CiliumNetworkPolicy": ("cilium.io/v2", "ciliumnetworkpolicies"),
    "AuthorizationPolicy": ("security.istio.io/v1", "authorizationpolicies"),
}


@dataclass(frozen=True, slots=True)
class Load:
    """One run. ``p50`` and ``cpu`` (of client's and server's Envoy, for each request) are in us."""

    rate: float
    p50: float
    cpu: tuple[float, float]


def parse_wrk(text: str) -> tuple[int, float, float]:
    """Requests, requests/s and the median latency in us. Raises ValueError for a run in which not
    everything was answered with success."""
    found = _RESULT.search(text)
    if found is None or "Non-2xx" in text or "Socket errors" in text:
        raise ValueError(text)
    latency, unit, requests, rate = found.groups()
    return int(requests), float(rate), float(latency) * _MICROSECONDS[unit]


class Mesh:
    """Of one node."""

    def __init__(self, cluster: Cluster, runner: asyncio.Runner, api: KubeClient) -> None:
        self._cluster, self._runner, self._api = cluster, runner, api
        (self._node,) = nodes_of(cluster, 1)
        names = [server(pair) for pair in PAIRS]
        said = json.loads(kubectl(cluster, "get", "services", *names, "-o", "json"))
        found = {item["metadata"]["name"]: item["spec"]["clusterIP"] for item in said["items"]}
        self._addresses = {pair: found[server(pair)] for pair in PAIRS}

    # -- requests -----------------------------------------------------------------------------

    def load(self, pair: Pair, seconds: int = 1) -> Load:
        """Raises CalledProcessError, ValueError."""
        pids = [self.envoy(client(pair)), self.envoy(server(pair))]
        before = [cpu_nanos(pid) for pid in pids]
        requests, rate, p50 = parse_wrk(self.wrk(pair, seconds))
        used = [cpu_nanos(pid) - then for pid, then in zip(pids, before, strict=True)]
        return Load(rate, p50, (used[0] / requests / 1e3, used[1] / requests / 1e3))

    def wrk(self, pair: Pair, seconds: int) -> str:
        """What it says beside the client. Raises CalledProcessError."""
        command = ["wrk", "-t1", "-c16", f"-d{seconds}s", "--latency", self._url(pair)]
        return subprocess.check_output(command_in(self._node, client(pair), command), text=True)

    def ask(self, pair: Pair, path: str) -> int:
        """The status of one request; 0 without an answer."""
        with (
            self.connection(pair) as asking,
            contextlib.suppress(OSError, http.client.HTTPException),
        ):
            asking.request("GET", path)
            return asking.getresponse().status
        return 0

    @contextlib.contextmanager
    def connection(self, pair: Pair) -> Iterator[http.client.HTTPConnection]:
        """From the client's namespace."""
        made = http.client.HTTPConnection(self._addresses[pair], _PORT, timeout=10)
        made.auto_open = 0  # a connection that was closed is not opened again behind our back
        try:
            with inside(self._node.pod_netns("default", client(pair))):
                made.connect()
            yield made
        finally:
            made.close()

    def hold(self, pair: Pair) -> subprocess.Popen[str]:
        """The HTTP peer on one live connection, printing each change of the status."""
        command = [
            str(http_peer()),
            "hold",
            "-duration",
            "300s",
            "-interval",
            "1ms",
            self._url(pair),
        ]
        return subprocess.Popen(
            command_in(self._node, client(pair), command), stdout=subprocess.PIPE, text=True
        )

    def _url(self, pair: Pair) -> str:
        return f"http://{self._addresses[pair]}:{_PORT}{PATH}"

    # -- sidecars -----------------------------------------------------------------------------

    def envoy(self, pod: str) -> int:
        """The process of its sidecar's Envoy. Raises LookupError."""
        for pid in processes.inside(self._node.pod_netns("default", pod)):
            if Path(f"/proc/{pid}/comm").read_text().strip() == "envoy":
                return pid
        raise LookupError(f"{pod}: no Envoy runs in its sidecar")

    # -- objects ------------------------------------------------------------------------------

    def start(self, pods: Sequence[dict[str, Any]]) -> None:
        """Ready when this returns."""
        kubectl(self._cluster, "apply", "-f", "-", text=yaml.safe_dump_all(pods))
        kubectl(self._cluster, "wait", "--for=condition=Ready", "pods", "--all", "--timeout=120s")

    def stop(self, pods: Sequence[dict[str, Any]]) -> None:
        kubectl(self._cluster, "delete", "-f", "-", text=yaml.safe_dump_all(pods))

    def put(self, manifests: Iterable[dict[str, Any]]) -> float:
        """Create policies, or replace what they say; the monotonic time at which the API server had
        accepted all of them."""
        self._runner.run(_together(self._put, manifests))
        return time.monotonic()

    def remove(self, manifests: Iterable[dict[str, Any]]) -> None:
        """What is not there is no error."""
        self._runner.run(_together(self._remove, manifests))

    def enforce(self, pair: Pair, allowed: Sequence[str]) -> None:
        """The pair's policy is in force when this returns: GET of these paths, nothing else."""
        self.put(policies(pair, allowed))
        eventually(lambda: self.ask(pair, OTHER) == 403)
        eventually(lambda: self.ask(pair, allowed[-1]) == 200)

    def release(self, pair: Pair, allowed: Sequence[str]) -> None:
        """No policy any more, and that is in force."""
        self.remove(policies(pair, allowed))
        eventually(lambda: self.ask(pair, OTHER) == 200)

    async def _put(self, manifest: dict[str, Any]) -> None:
        await self._api.apply(_path(manifest), manifest, "bench")

    async def _remove(self, manifest: dict[str, Any]) -> None:
        await self._api.remove(_path(manifest))


async def _together(
    work: Callable[[dict[str, Any]], Awaitable[Any]], manifests: Iterable[dict[str, Any]]
) -> None:
    waiting = iter(manifests)

    async def one_by_one() -> None:
        for manifest in waiting:
            await work(manifest)

    await asyncio.gather(*(one_by_one() for _ in range(_TOGETHER)))


def _path(manifest: dict[str, Any]) -> str:
    group_version, plural = _GROUPS[manifest["kind"]]
    return resource_path(group_version, plural, "default", manifest["metadata"]["name"])


def cpu_nanos(pid: int) -> int:
    """Of all threads, as the scheduler counts it (proc(5), schedstat)."""
    used = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError):
            used += int((task / "schedstat").read_text().split()[0])
    return used


def resident(pid: int) -> float:
    """MiB of its memory that is in RAM (proc(5), VmRSS)."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.partition("VmRSS:")[2].split()[0]) / 1024


def eventually(holds: Callable[[], bool], seconds: float = 20) -> None:
    """Raises TimeoutError."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds} s")
        time.sleep(0.02)


@contextlib.contextmanager
def running() -> Iterator[Mesh]:
    """Nothing of it is left afterwards."""
    prepare("istio")
    cluster = Cluster(f"mbench{os.getpid()}")
    with cluster_rig.running(cluster, 1):
        install(cluster, "istio.enabled=true", "operator.replicas=1")
        await_rollout(cluster)
        install_istio(cluster)
        objects = [STRICT, *(each for pair in PAIRS for each in pods(pair))]
        kubectl(cluster, "apply", "-f", "-", text=yaml.safe_dump_all(objects))
        kubectl(cluster, "wait", "--for=condition=Ready", "pods", "--all", "--timeout=90s")
        with asyncio.Runner() as runner:
            api = runner.run(connect(cluster.kubeconfig))
            try:
                yield Mesh(cluster, runner, api)
            finally:
                runner.run(api.close())
