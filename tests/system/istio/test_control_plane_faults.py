"""Who makes policy and configuration is away, each alone and all together: what was acknowledged
holds on, nobody new gets in, and afterwards all is as before."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from sandbox import processes
from sandbox.cluster import kubectl
from sandbox.mesh_probes import ask
from tests.system.cluster_rig import eventually
from tests.system.istio.mesh import MESH, NODES, away, enforces, istiod, node_of, pids, within

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(240)]

READ = ("http://reviews:8080/reviews/1",)
DELETE = ("--method", "DELETE", "http://reviews:8080/reviews/1")
RATING = ("--timeout=1s", "http://ratings:8080/ratings/1")
AWAY = 3.0  # seconds: leases last for one


def agents() -> list[int]:
    return [pid for node in NODES
            for pid in pids(node.name, "sidegate-system_sidegate-agent", "agent")]  # fmt: skip


def api_server() -> list[int]:
    found = [pid for pid in processes.inside(MESH.netns)
             if Path(f"/proc/{pid}/comm").read_text() == "kube-apiserver\n"]  # fmt: skip
    assert len(found) == 1
    return found


@pytest.mark.usefixtures("mesh")
@pytest.mark.parametrize("which", ["istiod", "agents", "API server", "all"])
def test_what_was_acknowledged_holds_on(which: str) -> None:
    node = node_of("productpage")
    eventually("200", lambda: within(node, "productpage", READ), 20)
    parts = {"istiod": istiod(), "agents": agents(), "API server": api_server()}
    chosen = parts.get(which) or [pid for each in parts.values() for pid in each]
    with away(*chosen):
        end = time.monotonic() + AWAY
        while time.monotonic() < end:
            assert within(node, "productpage", READ) == "200"
            assert within(node, "productpage", DELETE) == "403"
    eventually(True, lambda: enforces("default/reviews"), 30)
    assert within(node, "productpage", READ) == "200"
    assert within(node, "productpage", DELETE) == "403"


@pytest.mark.usefixtures("mesh")
def test_without_agents_no_pod_gets_a_network() -> None:
    """Not even one that the policy would let in."""
    try:
        with away(*agents()):
            kubectl(MESH, "apply", "-f", "-", text=_LATE)
            time.sleep(AWAY)
            phase = kubectl(MESH, "get", "pod", "late", "-o", "jsonpath={.status.phase}")
            assert phase == "Pending"
            assert ask(MESH, "late", READ) == "none"
        kubectl(MESH, "wait", "--for=condition=Ready", "pod/late", "--timeout=60s")
        eventually("200", lambda: ask(MESH, "late", READ), 20)
        assert ask(MESH, "late", DELETE) == "403"
    finally:
        kubectl(MESH, "delete", "pod", "late", "--ignore-not-found")


@pytest.mark.usefixtures("mesh")
def test_without_istiod_a_new_proxy_stays_closed() -> None:
    """It has no configuration, so nothing in it judges, and it holds no lease."""
    eventually("200", lambda: ask(MESH, "reviews", RATING), 20)
    with away(*istiod()):
        (proxy,) = pids(node_of("ratings"), "default_ratings", "istio-proxy")
        os.killpg(proxy, signal.SIGKILL)
        end = time.monotonic() + AWAY
        while time.monotonic() < end:
            assert ask(MESH, "reviews", RATING) in ("none", "503")
    eventually("200", lambda: ask(MESH, "reviews", RATING), 40)
    assert ask(MESH, "reviews", ("--method", "DELETE", *RATING)) == "403"


_LATE = """
apiVersion: v1
kind: Pod
metadata: {name: late, labels: {app: productpage}}
spec:
  serviceAccountName: productpage
  containers: [{name: app, image: sidegate.test/client}]
"""
