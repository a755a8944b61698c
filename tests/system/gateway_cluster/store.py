"""A store of a pod on each node, behind a Gateway and behind Ingresses."""

from __future__ import annotations

from typing import Any

from sandbox.conformance import CLASS
from tests.system.gateway_cluster.edge import GATEWAY_API, NODES, Answer, Manifest, ask, manifest

ASKED = 24
"""Times; that one of two pods is never chosen is then a defect."""
BOTH = {(200, "store-0"), (200, "store-1")}


def _pod(name: str, node: str) -> Manifest:
    container = {"name": "main", "image": "sidegate.test/http"}
    spec = {"nodeName": node, "containers": [container], "terminationGracePeriodSeconds": 1}
    return manifest("v1", "Pod", name, metadata={"labels": {"app": "store"}}, spec=spec)


def route(name: str, gateway: str = "store", **match: Any) -> Manifest:
    rule = {"matches": [match], "backendRefs": [{"name": "store", "port": 80}]}
    spec = {"parentRefs": [{"name": gateway}], "rules": [rule]}
    return manifest(GATEWAY_API, "HTTPRoute", name, spec=spec)


OBJECTS = [
    *(_pod(f"store-{n}", node.name) for n, node in enumerate(NODES)),
    manifest(
        "v1", "Service", "store",
        spec={"selector": {"app": "store"}, "ports": [{"port": 80, "targetPort": 8080}]},
    ),
    manifest(
        GATEWAY_API, "Gateway", "store",
        spec={
            "gatewayClassName": CLASS,
            "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}],
        },
    ),
    route("store", path={"type": "PathPrefix", "value": "/"}),
    manifest(
        "networking.k8s.io/v1", "IngressClass", CLASS,
        metadata={"annotations": {"ingressclass.kubernetes.io/is-default-class": "true"}},
        spec={"controller": "sidegate.io/ingress-controller"},
    ),
    *(
        manifest(
            "networking.k8s.io/v1", "Ingress", name,
            metadata={"annotations": {"ingress.cilium.io/loadbalancer-mode": mode}},
            spec={
                "ingressClassName": CLASS,
                "defaultBackend": {"service": {"name": "store", "port": {"number": 80}}},
            },
        )
        for name, mode in (("own", "dedicated"), ("one", "shared"), ("two", "shared"))
    ),
]  # fmt: skip


def answers(address: str, path: str, port: int = 80) -> set[tuple[int, str]]:
    """Statuses with the pods that answered, of many requests."""
    asked = (ask(address, f"http://store.test:{port}{path}") for _ in range(ASKED))
    return {(each.status, pod_of(each)) for each in asked}


def pod_of(answer: Answer) -> str:
    return str(answer.told.get("pod", ""))
