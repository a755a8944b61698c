"""``sidegate sandbox run|stop``: a node, its agent, its pods."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx

from sandbox import cni
from sandbox.kubelet import Kubelet
from sandbox.node import INGRESS_ADDRESSES, Node
from sandbox.segment import UPLINK

_AGENT_SECONDS = 30.0


class SandboxError(RuntimeError):
    """The sandbox did not come up; the message says why and where to look."""


def client(node: Node, timeout: float = 35.0) -> httpx.AsyncClient:
    """A client of the node's agent."""
    transport = httpx.AsyncHTTPTransport(uds=str(node.run_dir / "agent.sock"))
    return httpx.AsyncClient(transport=transport, base_url="http://agent", timeout=timeout)


def start_agent(node: Node, resources: Path, *options: str) -> subprocess.Popen[bytes]:
    """Detached, in the node's namespace; its log is ``agent.log`` in the run directory."""
    cli = Path(sys.executable).parent / "sidegate"
    command = [str(cli), "agent", "--resources", str(resources.resolve()), "--node", node.name]
    for address in INGRESS_ADDRESSES:
        command += ["--ingress-address", address]
    command += options
    node.run_dir.mkdir(parents=True, exist_ok=True)
    with (node.run_dir / "agent.log").open("ab") as log:
        return subprocess.Popen(
            node.inside([*command, "--device", UPLINK]),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


async def wait_ready(node: Node, agent: subprocess.Popen[bytes], api: httpx.AsyncClient) -> None:
    """Until the agent enforces: its API answers and Envoy is up. Raises SandboxError."""
    log = node.run_dir / "agent.log"
    deadline = asyncio.get_running_loop().time() + _AGENT_SECONDS
    problem = "it does not answer"
    while asyncio.get_running_loop().time() < deadline:
        if agent.poll() is not None:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
            raise SandboxError(f"the agent ended with code {agent.returncode}:\n{tail}")
        with contextlib.suppress(httpx.HTTPError):
            status = (await api.get("/v1/status")).json()
            if status.get("envoy", {}).get("ready"):
                return
            problem = f"Envoy is not ready: {status.get('envoy')}"
        await asyncio.sleep(0.05)
    raise SandboxError(f"the agent is not ready after {_AGENT_SECONDS:.0f} s: {problem}; see {log}")


@contextlib.asynccontextmanager
async def sandbox(
    directory: Path, node: Node, chained: str = ""
) -> AsyncIterator[tuple[Kubelet, httpx.AsyncClient]]:
    """A running node; everything of it is gone afterwards. ``chained`` is as :func:`cni.install`
    takes it. Raises SandboxError."""
    if not directory.is_dir():
        raise SandboxError(f"{directory} is no directory: give one with Kubernetes YAML")
    node.remove()
    node.create()
    cni.install(node, chained)
    try:
        agent = start_agent(node, directory)
        async with client(node) as api:
            await wait_ready(node, agent, api)
            kubelet = Kubelet(node, api)
            await kubelet.sync()
            watching = asyncio.create_task(kubelet.watch())
            try:
                yield kubelet, api
            finally:
                watching.cancel()
                await kubelet.stop()
                with contextlib.suppress(ProcessLookupError):
                    agent.send_signal(signal.SIGTERM)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    await asyncio.to_thread(agent.wait, 5)
    finally:
        node.remove()


def run(directory: Path, node_name: str, chained: str = "") -> int:
    """Until a signal, or ``sidegate sandbox stop`` from elsewhere."""
    node = Node(node_name)
    try:
        return asyncio.run(_until_signal(directory, node, chained))
    except SandboxError as error:
        print(f"sandbox: {error}", file=sys.stderr)
        return 1


async def _until_signal(directory: Path, node: Node, chained: str) -> int:
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with sandbox(directory, node, chained) as (kubelet, _):
        (node.sandbox_dir / "pid").write_text(str(os.getpid()))
        for (namespace, name), pod in kubelet.pods.items():
            print(f"{namespace}/{name}  {', '.join(pod.addresses)}")
        for (namespace, name), why in kubelet.failed.items():
            print(f"{namespace}/{name}  not started: {why}", file=sys.stderr)
        print("running; Ctrl-C stops it, `sidegate sandbox exec POD -- CMD` enters a pod")
        await stopped.wait()
    return 0


def stop(node_name: str) -> int:
    """End a running sandbox, or clean up what a killed one left."""
    node = Node(node_name)
    if not node.exists() and not node.run_dir.exists():
        print(f"sandbox: no node {node_name!r} is running", file=sys.stderr)
        return 1
    pid_file = node.sandbox_dir / "pid"
    with contextlib.suppress(FileNotFoundError, ProcessLookupError, ValueError):
        pid = int(pid_file.read_text())
        if b"sidegate" in Path(f"/proc/{pid}/cmdline").read_bytes() + b"":
            os.kill(pid, signal.SIGTERM)
            for _ in range(100):
                if not node.exists():
                    return 0
                asyncio.run(asyncio.sleep(0.1))
    node.remove()
    return 0
