"""What a Gateway with many routes is made of. Pure."""

from __future__ import annotations

from typing import Any

from kube_store.resource import CLUSTER_SCOPED

Manifest = dict[str, Any]

GATEWAY_API = "gateway.networking.k8s.io/v1"
GATEWAY = "bench"
SERVICE = "backend"
PORT = 80
BACKEND_PORT = 9080  # istiod has 8080


def host(number: int) -> str:
    """Each route has a hostname of its own."""
    return f"r{number}.bench.test"


def route(number: int, service: str = SERVICE) -> Manifest:
    rule = {
        "matches": [{"path": {"type": "PathPrefix", "value": "/"}}],
        "backendRefs": [{"name": service, "port": PORT}],
    }
    return made(
        GATEWAY_API,
        "HTTPRoute",
        f"r{number}",
        spec={
            "parentRefs": [{"name": GATEWAY}],
            "hostnames": [host(number)],
            "rules": [rule],
        },
    )


def gateway(controller: str, **spec: Any) -> list[Manifest]:
    """A class of that controller and a Gateway of it that takes HTTP on :data:`PORT`."""
    listener = {"name": "http", "port": PORT, "protocol": "HTTP"}
    return [
        made(GATEWAY_API, "GatewayClass", GATEWAY, spec={"controllerName": controller}),
        made(
            GATEWAY_API,
            "Gateway",
            GATEWAY,
            spec={"gatewayClassName": GATEWAY, "listeners": [listener], **spec},
        ),
    ]


def backend(address: str) -> list[Manifest]:
    """A Service whose one endpoint is where the backend listens."""
    return [
        made("v1", "Service", SERVICE, spec={"ports": [_port(PORT, BACKEND_PORT)]}),
        endpoints(SERVICE, [address]),
    ]


def backend_of_pods(app: str) -> Manifest:
    """A Service of a node's own pods, which listen on 8080."""
    ports = [_port(PORT, 8080)]
    return made("v1", "Service", SERVICE, spec={"selector": {"app": app}, "ports": ports})


def endpoints(service: str, addresses: list[str], number: int = 0) -> Manifest:
    return made(
        "discovery.k8s.io/v1",
        "EndpointSlice",
        f"{service}-{number}",
        {"kubernetes.io/service-name": service},
        addressType="IPv4",
        ports=[{"name": "http", "port": BACKEND_PORT, "protocol": "TCP"}],
        endpoints=[{"addresses": [a], "conditions": {"ready": True}} for a in addresses],
    )


def _port(port: int, target: int) -> Manifest:
    return {"name": "http", "port": port, "targetPort": target, "protocol": "TCP"}


def made(
    version: str, kind: str, name: str, labels: dict[str, str] | None = None, **fields: Any
) -> Manifest:
    """In the namespace ``default`` where the kind has namespaces."""
    metadata: Manifest = {"name": name, "labels": labels or {}}
    if kind not in CLUSTER_SCOPED:
        metadata["namespace"] = "default"
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **fields}
