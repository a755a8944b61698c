"""Egress of a pod with a sidecar is judged there, by the backend that was chosen."""

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
from tests.system.istio.mesh import MESH, agent, enforces, without_filter

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(300)]

_PODS = Path(__file__).parent / "egress.yaml"
_POLICY = """
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {{name: shopper}}
spec:
  endpointSelector: {{matchLabels: {{app: shopper}}}}
  egress:
    - toEndpoints:
        - matchExpressions: [{{key: app, operator: In, values: [reviews, plain]}}]
      toPorts:
        - ports: [{{port: "8080", protocol: TCP}}]
          {rules}
    - toEndpoints:
        - matchLabels: {{"k8s:io.kubernetes.pod.namespace": istio-system}}
        - matchLabels: {{"k8s:io.kubernetes.pod.namespace": kube-system}}
    - toEntities: [host, remote-node, kube-apiserver]
"""
_READ = 'rules: {http: [{method: GET, path: "/allowed(/.*)?"}]}'
_PLAIN = """
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: plain}
spec:
  endpointSelector: {matchLabels: {app: plain}}
  ingress:
    - fromEndpoints: [{matchLabels: {app: shopper}}]
      toPorts:
        - ports: [{port: "8080", protocol: TCP}]
          rules: {http: [{method: GET, path: "/allowed"}, {method: GET, path: "/other"}]}
"""


@pytest.fixture(scope="module")
def shopper(mesh: None) -> Iterator[None]:
    kubectl(MESH, "apply", "-f", str(_PODS))
    try:
        kubectl(MESH, "wait", "--for=condition=Ready", "pod/shopper", "pod/plain", "--timeout=60s")
        _apply(_POLICY.format(rules=_READ))
        eventually(True, lambda: enforces("default/shopper"), 20)
        eventually("403", lambda: _ask("http://reviews:8080/denied"), 20)
        yield
    finally:
        kubectl(MESH, "delete", "cnp/shopper", "cnp/plain", "--ignore-not-found")
        kubectl(MESH, "delete", "-f", str(_PODS), "--ignore-not-found")


@pytest.mark.usefixtures("shopper")
@pytest.mark.parametrize(
    "backend",
    ["reviews:8080", "reviews-headless:8080", "plain", "plain-headless:8080", "{plain}:8080"],
)
def test_every_way_to_a_backend_is_judged(backend: str) -> None:
    """In the mesh and outside, by Service, by the pods of one, and by an address that is unknown
    to the mesh (what it calls passthrough)."""
    at = f"http://{backend.format(plain=_address('plain'))}"
    eventually("200", lambda: _ask(f"{at}/allowed/1"), 20)
    assert _ask(f"{at}/denied") == "403"
    assert _ask("--method", "DELETE", f"{at}/allowed/1") == "403"
    assert _ask("--http2", f"{at}/denied") == "403"


@pytest.mark.usefixtures("shopper")
def test_flows_name_both_ends_and_the_rule() -> None:
    assert _ask("http://reviews:8080/allowed/seen") == "200"
    assert _ask("http://reviews:8080/denied/seen") == "403"
    seen = {
        flow["http"]["path"]: flow
        for flow in _flows("--direction", "egress", "--layer", "L7", "--pod", "shopper")
        if flow["http"]  # an address that was another pod's has flows of its
    }
    for path, verdict in (("/allowed/seen", "forwarded"), ("/denied/seen", "denied")):
        flow = seen[path]
        assert flow["verdict"] == verdict, flow
        assert flow["source"]["pod"] == "default/shopper", flow
        assert flow["destination"]["identity"] > 255, flow
    assert "shopper#egress[0]" in seen["/allowed/seen"]["rule"]


@pytest.mark.usefixtures("shopper")
def test_each_end_has_its_say_where_only_one_has_a_sidecar() -> None:
    _apply(_PLAIN)
    try:
        for path, answer in (("/allowed", "200"), ("/allowed/1", "403"), ("/other", "403")):
            eventually(answer, lambda path=path: _ask(f"http://plain{path}"), 20)
    finally:
        kubectl(MESH, "delete", "cnp/plain")
    eventually("200", lambda: _ask("http://plain/allowed/1"), 20)
    assert _ask("http://plain/other") == "403"


@pytest.mark.usefixtures("shopper")
def test_what_the_mesh_takes_for_tcp_is_no_way_around() -> None:
    """Nobody reads HTTP there: rules without L7 let it pass, others close it."""
    try:
        for rules, answer in (("", "200"), (_READ, "none"), ("rules: {kafka: [{}]}", "none")):
            _apply(_POLICY.format(rules=rules))
            eventually(answer, lambda: _ask("--timeout=2s", "http://reviews-tcp:9000/allowed"), 20)
    finally:
        _apply(_POLICY.format(rules=_READ))
    eventually("403", lambda: _ask("http://reviews:8080/denied"), 20)


@pytest.mark.usefixtures("shopper")
def test_who_goes_past_the_proxy_does_not_get_out() -> None:
    """As the proxy's user in another container: interception is by user, and a user is no proof."""
    at = _address("plain")
    assert _ask("--timeout=1s", f"http://{at}:8080/allowed", forged=True) == "none"
    dropped = _flows("--direction", "egress", "--layer", "L3/L4", "--pod", "shopper")
    assert "not sidecar" in {flow["reason"] for flow in dropped}


@pytest.mark.usefixtures("shopper")
def test_without_our_filter_only_that_side_is_closed() -> None:
    with without_filter("sidegate-outbound"):
        eventually("none", lambda: _ask("--timeout=1s", "http://plain/allowed"), 10)
        assert ask(MESH, "productpage", ("http://reviews:8080/reviews/1",)) == "200"
    eventually("200", lambda: _ask("http://plain/allowed"), 15)
    assert _ask("http://plain/denied") == "403"


def _ask(*arguments: str, forged: bool = False) -> str:
    """The status that the client's request ends with; "none" without an answer of a server's.
    ``forged``: as the proxy's user (the sandbox's exec is root's)."""
    user = ("setpriv", "--reuid=1337", "--regid=1337", "--clear-groups") if forged else ()
    client = (*user, "http", "get", *arguments)
    try:
        said = kubectl(MESH, "exec", "shopper", "-c", "app", "--", *client)
        status = json.loads(said.splitlines()[-1])["status"]
    except (subprocess.CalledProcessError, ValueError, LookupError):
        return "none"
    return str(status) if status else "none"


def _apply(policy: str) -> None:
    kubectl(MESH, "apply", "-f", "-", text=policy)


def _address(pod: str) -> str:
    return kubectl(MESH, "get", "pod", pod, "-o", "jsonpath={.status.podIP}")


def _flows(*filters: str) -> list[dict[str, Any]]:
    said = agent("shopper", "observe", "--last", "200", *filters, "-o", "json")
    return [json.loads(line) for line in said.splitlines()]
