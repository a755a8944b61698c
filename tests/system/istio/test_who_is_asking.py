"""Whom the module takes for the one who asks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sandbox.cluster import kubectl
from sandbox.mesh_probes import ask
from tests.system.cluster_rig import eventually
from tests.system.istio.mesh import MESH

pytestmark = [
    pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.usefixtures("mesh"),
]  # fmt: skip

REVIEWS = "http://reviews:8080"


def test_an_address_that_a_request_claims_is_nobody(permissive: str) -> None:
    """Without mTLS the address decides: the one that connected."""
    claim = ("--header", f"X-Forwarded-For: {permissive}")
    assert ask(MESH, "stranger", (f"{REVIEWS}/reviews/1",)) == "403"
    assert ask(MESH, "stranger", (*claim, f"{REVIEWS}/reviews/1")) == "403"
    assert ask(MESH, "legacy", (f"{REVIEWS}/reviews/1",)) == "200", "a pod outside the mesh"


@pytest.fixture
def permissive() -> Iterator[str]:
    """The address of productpage, while reviews can be asked in plain text by a stranger."""
    kubectl(MESH, "apply", "-f", "-", text=_PERMISSIVE)
    try:
        kubectl(MESH, "wait", "--for=condition=Ready", "pod/stranger", "--timeout=60s")
        eventually("403", lambda: ask(MESH, "stranger", (f"{REVIEWS}/reviews/1",)))
        yield kubectl(MESH, "get", "pod", "productpage", "-o", "jsonpath={.status.podIP}")
    finally:
        kubectl(MESH, "delete", "-f", "-", text=_PERMISSIVE)


def test_behind_an_ingress_gateway_it_is_the_gateway_that_asks() -> None:
    """It says in ``X-Forwarded-For`` for whom; policy is about the pod that connects."""
    kubectl(MESH, "apply", "-f", "-", text=_GATEWAY)
    try:
        kubectl(MESH, "wait", "--for=condition=Ready", "pod/ingress", "--timeout=60s")
        eventually("200", lambda: ask(MESH, "legacy", ("http://ingress/open",)), 30)
        assert ask(MESH, "legacy", ("http://ingress/other",)) == "403"
        assert ask(MESH, "productpage", ("http://backend:8080/open",)) == "403"
    finally:
        kubectl(MESH, "delete", "-f", "-", text=_GATEWAY)


_PERMISSIVE = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: reviews-permissive}
spec: {selector: {matchLabels: {app: reviews}}, mtls: {mode: PERMISSIVE}}
---
apiVersion: v1
kind: Pod
metadata: {name: stranger, labels: {app: stranger, sidecar.istio.io/inject: "false"}}
spec: {containers: [{name: app, image: sidegate.test/client}]}
"""
_GATEWAY = """
apiVersion: v1
kind: ServiceAccount
metadata: {name: ingress}
---
apiVersion: v1
kind: Service
metadata: {name: ingress}
spec: {selector: {istio: ingress}, ports: [{name: http, port: 80, targetPort: 8081}]}
---
apiVersion: v1
kind: Pod
metadata:
  name: ingress
  labels: {istio: ingress, app: ingress, sidecar.istio.io/inject: "true"}
  annotations: {inject.istio.io/templates: gateway}
spec:
  serviceAccountName: ingress
  containers: [{name: istio-proxy, image: auto}]
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: ingress}
spec:
  selector: {istio: ingress}
  servers: [{port: {number: 8081, name: http, protocol: HTTP}, hosts: ["*"]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: ingress}
spec:
  hosts: ["*"]
  gateways: [ingress]
  http: [{route: [{destination: {host: backend, port: {number: 8080}}}]}]
---
apiVersion: v1
kind: Service
metadata: {name: backend}
spec: {selector: {app: backend}, ports: [{name: http, port: 8080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: backend, labels: {app: backend}}
spec: {containers: [{name: app, image: sidegate.test/http}]}
---
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: backend}
spec:
  endpointSelector: {matchLabels: {app: backend}}
  ingress:
    - fromEndpoints: [{matchLabels: {app: ingress}}]
      toPorts: [{ports: [{port: "8080", protocol: TCP}], rules: {http: [{path: /open}]}}]
    - fromEndpoints: [{}]
      toPorts: [{ports: [{port: "8080", protocol: TCP}], rules: {http: [{path: /health}]}}]
"""
