"""A pod that ambient mode redirects: L3/L4 and probes go on, and what is not enforced is said.

No ztunnel runs here: a server stands where it listens.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator

import pytest

from sandbox.cluster import kubectl
from sandbox.mesh_probes import ask
from tests.system.cluster_rig import eventually
from tests.system.istio.mesh import MESH, NODES, node_of, on_node

pytestmark = [
    pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.usefixtures("mesh"),
]  # fmt: skip


@pytest.fixture(scope="module")
def zt() -> Iterator[str]:
    """The address of a pod in ambient mode, whose kubelet probes it as istio-cni makes it."""
    with contextlib.ExitStack() as stack:
        stack.callback(kubectl, MESH, "delete", "--ignore-not-found", "-f", "-", text=_POD)
        for node in NODES:
            rule = ["POSTROUTING", *_PROBES_RULE]
            subprocess.run(node.inside(["iptables", "-t", "nat", "-I", *rule]), check=True)
            undo = node.inside(["iptables", "-t", "nat", "-D", *rule])
            stack.callback(subprocess.run, undo, check=True)
        kubectl(MESH, "apply", "-f", "-", text=_POD)
        kubectl(MESH, "wait", "--for=condition=Ready", "pod/zt", "--timeout=60s")
        yield kubectl(MESH, "get", "pod", "zt", "-o", "jsonpath={.status.podIP}")


def test_probes_pass_from_the_address_that_istio_cni_gives_them(zt: str) -> None:
    assert zt, "it is Ready, under a policy that lets no host in"
    node = next(each for each in NODES if each.name == node_of("zt"))
    table = node.inside(["iptables", "-t", "nat", "-nvxL", "POSTROUTING"])
    said = subprocess.run(table, check=True, capture_output=True, text=True).stdout
    (rule,) = (line.split() for line in said.splitlines() if "169.254.7.127" in line)
    assert int(rule[0]) > 0, "that is where they came from"


def test_hbone_is_judged_by_l4_rules(zt: str) -> None:
    eventually("200", lambda: ask(MESH, "legacy", ("--timeout=2s", f"http://{zt}:15008/")))
    assert ask(MESH, "mallory", ("--timeout=2s", f"http://{zt}:15008/")) != "200"


def test_ports_with_l7_rules_are_closed_to_what_comes_in_plain(zt: str) -> None:
    assert ask(MESH, "legacy", ("--timeout=2s", f"http://{zt}:8080/open")) != "200"
    assert ask(MESH, "legacy", ("--timeout=2s", f"http://{zt}:8080/closed")) == "403"


@pytest.mark.usefixtures("zt")
def test_what_is_not_enforced_is_said() -> None:
    eventually("True", lambda: limited("status"))
    assert limited("message").startswith("default/zt: in Istio's ambient mode")
    status = json.loads(on_node(node_of("zt"), "status", "-o", "json"))
    assert any("pod default/zt (cnp/default/zt)" in each for each in status["problems"])
    kubectl(MESH, "annotate", "pod", "zt", "ambient.istio.io/redirection=disabled", "--overwrite")
    eventually("", lambda: limited("status"))


def limited(field: str) -> str:
    path = f"{{.status.conditions[?(@.type=='Limited')].{field}}}"
    return kubectl(MESH, "get", "cnp", "zt", "-o", f"jsonpath={path}")


# As istio-cni has it, without its set of pods' addresses.
_PROBES_RULE = (
    "-m", "owner", "--socket-exists", "-p", "tcp", "--dport", "8080",
    "-j", "SNAT", "--to-source", "169.254.7.127",
)  # fmt: skip
_POD = """
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: zt}
spec:
  endpointSelector: {matchLabels: {app: zt}}
  ingress:
    - fromEndpoints: [{matchLabels: {app: productpage}}]
      toPorts:
        - ports: [{port: "15008", protocol: TCP}]
        - ports: [{port: "8080", protocol: TCP}]
          rules: {http: [{path: /open}]}
---
apiVersion: v1
kind: Pod
metadata:
  name: zt
  labels: {app: zt, sidecar.istio.io/inject: "false"}
  annotations: {ambient.istio.io/redirection: enabled}
spec:
  containers:
    - name: app
      image: sidegate.test/http
      readinessProbe: {httpGet: {port: 8080, path: /}, periodSeconds: 1}
    - {name: ztunnel, image: sidegate.test/http, args: [--http, ":15008"]}
"""
