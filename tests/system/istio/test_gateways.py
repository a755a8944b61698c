"""What a gateway of Istio's sends on is judged in it, inside mTLS (docs/adr/0021)."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox.cluster import kubectl
from sandbox.mesh_probes import ask
from tests.system.cluster_rig import eventually
from tests.system.istio.mesh import MESH, agent, enforces, sidecars, without_filter

pytestmark = [
    pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.usefixtures("gate"),
]  # fmt: skip

_PODS = Path(__file__).parent / "gateways.yaml"
_READ = 'rules: {http: [{method: GET, path: "/(mesh|plain)/allowed"}]}'
_POLICY = """
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {{name: gate}}
spec:
  endpointSelector: {{matchLabels: {{app: gate}}}}
  egress:
    - toEndpoints:
        - matchExpressions: [{{key: app, operator: In, values: [behind-gate, plain-behind-gate]}}]
      toPorts:
        - ports: [{{port: "8080", protocol: TCP}}]
          {rules}
    - toEndpoints:
        - matchLabels: {{"k8s:io.kubernetes.pod.namespace": istio-system}}
        - matchLabels: {{"k8s:io.kubernetes.pod.namespace": kube-system}}
    - toEntities: [host, remote-node, kube-apiserver]
"""


@pytest.fixture(scope="module")
def gate(mesh: None) -> Iterator[None]:
    kubectl(MESH, "apply", "-f", str(_PODS))
    try:
        pods = ("pod/gate", "pod/behind-gate", "pod/plain-behind-gate")
        kubectl(MESH, "wait", "--for=condition=Ready", *pods, "--timeout=60s")
        eventually("200", lambda: _ask("/plain/anything"), 30)
        _apply(_READ)
        eventually(True, lambda: enforces("default/gate"), 20)
        eventually("403", lambda: _ask("/plain/denied"), 20)
        yield
    finally:
        kubectl(MESH, "delete", "cnp/gate", "--ignore-not-found")
        kubectl(MESH, "delete", "-f", str(_PODS), "--ignore-not-found")


def test_each_backend_is_judged_by_method_and_path() -> None:
    for backend in ("mesh", "plain"):
        eventually("200", lambda backend=backend: _ask(f"/{backend}/allowed"), 20)
        assert _ask(f"/{backend}/denied") == "403"
        assert _ask("--method", "DELETE", f"/{backend}/allowed") == "403"
    assert _status()["proven"] == "egress"


def test_flows_name_the_gateway_and_the_backend() -> None:
    assert _ask("/mesh/allowed") == "200"
    assert _ask("/mesh/denied/seen") == "403"
    flows = {flow["http"]["path"]: flow for flow in _flows() if flow["http"]}
    for path, verdict in (("/mesh/allowed", "forwarded"), ("/mesh/denied/seen", "denied")):
        flow = flows[path]
        assert flow["verdict"] == verdict, flow
        assert flow["source"]["pod"] == "default/gate", flow
        assert flow["destination"]["pod"] == "default/behind-gate", flow
    assert "gate#egress[0]" in flows["/mesh/allowed"]["rule"]


def test_what_it_takes_for_tcp_is_no_way_around() -> None:
    try:
        for rules, answer in (("", "200"), (_READ, "none"), ("rules: {kafka: [{}]}", "none")):
            _apply(rules)
            eventually(answer, lambda: _ask("/plain/allowed", port=9000), 20)
    finally:
        _apply(_READ)
    eventually("403", lambda: _ask("/plain/denied"), 20)


def test_without_our_filter_it_sends_nothing_that_l7_rules_select() -> None:
    with without_filter("sidegate-gateway"):
        eventually("none", lambda: _ask("/plain/allowed"), 15)
        # A listener that waits for its routes is replaced a moment after one that has none.
        eventually(True, lambda: "sidegate_http is not" in str(_status()["lacking"]), 10)
        assert ask(MESH, "productpage", ("http://reviews:8080/reviews/1",)) == "200"
    eventually("200", lambda: _ask("/plain/allowed"), 20)
    assert _ask("/plain/denied") == "403"


def _ask(*arguments: str, port: int = 80) -> str:
    """The status of what somebody outside the mesh asks the gateway for: a path, behind flags."""
    *flags, path = arguments
    return ask(MESH, "legacy", ("--timeout=2s", *flags, f"http://gate:{port}{path}"))


def _status() -> dict[str, object]:
    return sidecars()["default/gate"]


def _apply(rules: str) -> None:
    kubectl(MESH, "apply", "-f", "-", text=_POLICY.format(rules=rules))


def _flows() -> list[dict[str, Any]]:
    filters = ("--direction", "egress", "--layer", "L7", "--pod", "gate")
    try:
        said = agent("gate", "observe", "--last", "200", *filters, "-o", "json")
    except subprocess.CalledProcessError:
        return []
    return [json.loads(line) for line in said.splitlines()]
