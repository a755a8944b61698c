"""The ways to be injected: native and classic sidecars, REDIRECT and TPROXY. The same policy holds
in each."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

import pytest

from sandbox.cluster import kubectl
from sandbox.mesh_probes import ask
from tests.system.cluster_rig import eventually
from tests.system.istio.mesh import MESH, sidecars

pytestmark = [
    pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.usefixtures("mesh"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("annotations", "init"),
    [
        ({}, ["istio-init", "istio-proxy"]),
        ({"sidecar.istio.io/nativeSidecar": "false"}, ["istio-init"]),
        ({"sidecar.istio.io/interceptionMode": "TPROXY"}, ["istio-init", "istio-proxy"]),
    ],
    ids=["native", "classic", "TPROXY"],
)
def test_a_pod_enforces_however_it_is_injected(
    annotations: dict[str, str], init: list[str]
) -> None:
    with pod(annotations):
        assert init_containers() == init
        policy_holds()


def policy_holds() -> None:
    """productpage may read it and do nothing else, mallory nothing."""
    url = "http://variant:8080/"
    eventually("200", lambda: ask(MESH, "productpage", ("--timeout=2s", url)), 30)
    assert ask(MESH, "productpage", ("--method", "DELETE", url)) == "403"
    assert ask(MESH, "mallory", (url,)) == "403"
    assert sidecars()["default/variant"]["lease"]


@contextlib.contextmanager
def pod(annotations: dict[str, str]) -> Iterator[None]:
    manifests = _VARIANT.format(annotations=json.dumps(annotations))
    kubectl(MESH, "apply", "-f", "-", text=manifests)
    try:
        kubectl(MESH, "wait", "--for=condition=Ready", "pod/variant",
                "--timeout=60s")  # fmt: skip
        yield
    finally:
        kubectl(MESH, "delete", "-f", "-", text=manifests)


def init_containers() -> list[str]:
    path = "{.spec.initContainers[*].name}"
    return kubectl(MESH, "get", "pod", "variant", "-o", f"jsonpath={path}").split()


_VARIANT = """
apiVersion: v1
kind: Service
metadata: {{name: variant}}
spec: {{selector: {{app: variant}}, ports: [{{name: http, port: 8080}}]}}
---
apiVersion: v1
kind: Pod
metadata: {{name: variant, labels: {{app: variant}}, annotations: {annotations}}}
spec: {{containers: [{{name: app, image: sidegate.test/http}}]}}
---
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {{name: variant}}
spec:
  endpointSelector: {{matchLabels: {{app: variant}}}}
  ingress:
    - fromEndpoints: [{{matchLabels: {{app: productpage}}}}]
      toPorts: [{{ports: [{{port: "8080", protocol: TCP}}], rules: {{http: [{{method: GET}}]}}}}]
    - fromEndpoints: [{{}}]
      toPorts: [{{ports: [{{port: "8080", protocol: TCP}}], rules: {{http: [{{path: /health}}]}}}}]
"""
