"""The pod of fort.yaml, and what attacks it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from pathlib import Path

from sandbox.cluster import kubectl, kubectl_command
from sandbox.mesh_probes import ask
from tests.system.cluster_rig import eventually
from tests.system.istio.mesh import MESH, agent, node_of, pids

MANIFESTS = Path(__file__).with_name("fort.yaml")
_IMPOSTOR = Path(__file__).with_name("impostor.py")


def at(family: int, port: int = 8080, pod: str = "fort") -> str:
    said = kubectl(MESH, "get", "pod", pod, "-o", "jsonpath={.status.podIPs[*].ip}")
    (address,) = (each for each in map(ip_address, said.split()) if each.version == family)
    return f"http://[{address}]:{port}" if family == 6 else f"http://{address}:{port}"


def guest(url: str) -> str:
    return ask(MESH, "guest", ("--timeout=1s", url))


def enforced() -> None:
    eventually("200", lambda: guest(f"{at(4)}/open"), 40)
    assert guest(f"{at(4)}/closed") == "403"


def dropped() -> set[str]:
    """Why the kernel let something go that was for fort, or from it."""
    filters = ("--layer", "L3/L4", "--verdict", "denied", "--pod", "fort")
    said = agent("fort", "observe", "--last", "100", *filters, "-o", "json")
    return {json.loads(line)["reason"] for line in said.splitlines()}


def kill_proxy() -> None:
    found: list[int] = []

    def runs() -> bool:
        with suppress(KeyError):  # it begins anew just now
            found[:] = pids(node_of("fort"), "default_fort", "istio-proxy")
        return bool(found)

    eventually(True, runs)
    os.killpg(found[0], signal.SIGKILL)


@contextmanager
def impostor(*how: str) -> Iterator[Callable[[], None]]:
    """In the application's container; what is yielded waits until it has the proxy's port."""
    command = kubectl_command(
        MESH, "exec", "-i", "fort", "-c", "app", "--", sys.executable, str(_IMPOSTOR), *how
    )
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin
        assert process.stdout
        said = process.stdout

        def hear(what: bytes) -> None:
            assert said.readline() == what

        hear(b"begun\n")
        try:
            yield lambda: hear(b"taken\n")
        finally:
            process.stdin.close()
