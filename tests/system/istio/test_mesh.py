"""A real Istio (istioctl, istiod, pilot-agent, injection) with the module in a stock Envoy: policy
inside strict mTLS, and what becomes of it when something dies."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from sandbox.cluster import kubectl
from sandbox.control_plane import Cluster
from sandbox.mesh_probes import EXAMPLE, ask
from tests.system import cluster_rig
from tests.system.cluster_rig import eventually
from tests.system.istio.mesh import (
    MESH,
    NODES,
    agent,
    enforces,
    node_of,
    pids,
    sidecars,
    without_filter,
)

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(300)]

READ = ("http://reviews:8080/reviews/1",)
DELETE = ("--method", "DELETE", "http://reviews:8080/reviews/1")


def test_the_quickstart_is_as_expected_and_leaves_nothing() -> None:
    said = cluster_rig.quickstart(Cluster("istio"), "--istio", seconds=250)
    assert "23 of 23 as expected" in said
    identities = r"\d+ default/auditor +\d+ default/kafka +L7 no rule"
    assert re.search(f"auditor +produce audit .* denied +denied +{identities}", said), said


@pytest.mark.usefixtures("mesh")
def test_sidecars_say_how_they_enforce() -> None:
    rows = sidecars()
    assert {
        "default/productpage", "default/details", "default/reviews", "default/ratings",
        "default/kafka", "default/auditor", "default/mallory",
    } == rows.keys()  # fmt: skip
    assert all(row["connected"] and row["lease"] and row["acknowledged"] for row in rows.values())


@pytest.mark.usefixtures("mesh")
def test_one_question_is_answered_for_the_sidecars_of_all_nodes() -> None:
    asked = ("istio", "status", "--cluster", f"--kubeconfig={MESH.kubeconfig}", "-o", "json")
    done = subprocess.run([cluster_rig.CLI, *asked], check=True, capture_output=True, text=True)
    rows = json.loads(done.stdout)["items"]
    assert {row["pod"]: row["node"] for row in rows} == {
        pod: node_of(pod.partition("/")[2]) for pod in sidecars()
    }
    assert {row["node"] for row in rows} == {node.name for node in NODES}
    assert {row["certificate"] for row in rows} >= {"spiffe://*/ns/default/sa/reviews"}


@pytest.mark.usefixtures("mesh")
def test_a_change_of_policy_holds_in_the_sidecar() -> None:
    policies = (EXAMPLE / "03-http.yaml").read_text()
    assert ask(MESH, "productpage", READ) == "200"
    kubectl(MESH, "apply", "-f", "-", text=policies.replace("/reviews(/.*)?", "/other"))
    eventually("403", lambda: ask(MESH, "productpage", READ), 2)
    kubectl(MESH, "apply", "-f", "-", text=policies)
    eventually("200", lambda: ask(MESH, "productpage", READ), 2)


@pytest.mark.usefixtures("mesh")
def test_without_our_filter_the_port_is_closed() -> None:
    with without_filter("sidegate-inbound"):
        eventually("none", lambda: ask(MESH, "productpage", ("--timeout=1s", *READ)), 6)
        reasons = agent("reviews", "observe", "--last", "50")
        assert "sidecar lease" in reasons, reasons
    eventually("200", lambda: ask(MESH, "productpage", READ), 10)
    assert ask(MESH, "productpage", DELETE) == "403"


@pytest.mark.usefixtures("mesh")
def test_the_death_of_the_agents_changes_nothing() -> None:
    for node in NODES:
        for pid in pids(node.name, "sidegate-system_sidegate-agent", "agent"):
            os.kill(pid, signal.SIGKILL)
    for _ in range(5):
        assert ask(MESH, "productpage", READ) == "200"
        assert ask(MESH, "productpage", DELETE) == "403"
    eventually(True, lambda: enforces("default/reviews"), 30)
    assert ask(MESH, "productpage", READ) == "200"
    assert ask(MESH, "productpage", DELETE) == "403"


@pytest.mark.usefixtures("mesh")
def test_a_dead_sidecar_closes_its_ports_until_it_is_back() -> None:
    (pid,) = pids(node_of("reviews"), "default_reviews", "istio-proxy")
    os.killpg(pid, signal.SIGKILL)
    assert ask(MESH, "productpage", DELETE) != "200"
    eventually("200", lambda: ask(MESH, "productpage", READ), 30)
    assert ask(MESH, "productpage", DELETE) == "403"


@pytest.mark.usefixtures("mesh")
def test_a_port_that_the_mesh_takes_for_tcp_is_no_way_around(tmp_path: Path) -> None:
    """Envoy reads no HTTP there: rules without L7 let it pass, others close it."""
    manifests = tmp_path / "ledger.yaml"
    manifests.write_text(_LEDGER)
    kubectl(MESH, "apply", "-f", str(manifests))
    try:
        kubectl(MESH, "wait", "--for=condition=Ready", "pod/ledger", "--timeout=60s")
        ask_ledger = ("--timeout=2s", "http://ledger:9000/v1")
        for rules, answer in (
            ("", "200"),
            ('rules: {http: [{method: GET, path: "/v1"}]}', "none"),
            ("rules: {kafka: [{topic: orders}]}", "none"),
            ("", "200"),
        ):
            kubectl(MESH, "apply", "-f", "-", text=_LEDGER_POLICY.format(rules=rules))
            eventually(answer, lambda: ask(MESH, "productpage", ask_ledger), 10)
    finally:
        kubectl(MESH, "delete", "cnp/ledger", "--ignore-not-found")
        kubectl(MESH, "delete", "-f", str(manifests))


_LEDGER = """
apiVersion: v1
kind: Service
metadata: {name: ledger}
spec: {selector: {app: ledger}, ports: [{name: tcp, port: 9000, targetPort: 8080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: ledger, labels: {app: ledger}}
spec: {containers: [{name: app, image: sidegate.test/http}]}
"""
_LEDGER_POLICY = """
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {{name: ledger}}
spec:
  endpointSelector: {{matchLabels: {{app: ledger}}}}
  ingress:
    - fromEndpoints: [{{matchLabels: {{app: productpage}}}}]
      toPorts:
        - ports: [{{port: "8080", protocol: TCP}}]
          {rules}
"""
