"""Manifests of Gateway API in a line each, for tests."""

from __future__ import annotations

from typing import Any

from gateway_translator.translator import CONTROLLER

GATEWAY_API = "gateway.networking.k8s.io/v1"
Manifest = dict[str, Any]


def gateway_class(name: str = "sidegate", controller: str = CONTROLLER) -> Manifest:
    return {
        "apiVersion": GATEWAY_API,
        "kind": "GatewayClass",
        "metadata": {"name": name},
        "spec": {"controllerName": controller},
    }


def gateway(*listeners: Manifest, name: str = "web", **spec: Any) -> Manifest:
    return {
        "apiVersion": GATEWAY_API,
        "kind": "Gateway",
        "metadata": {"name": name, "namespace": "shop", "generation": 1},
        "spec": {"gatewayClassName": "sidegate", "listeners": list(listeners), **spec},
    }


def listener(name: str, port: int = 80, protocol: str = "HTTP", **more: Any) -> Manifest:
    return {"name": name, "port": port, "protocol": protocol, **more}


def route(
    name: str, *rules: Manifest, kind: str = "HTTPRoute", age: int = 0, **spec: Any
) -> Manifest:
    """``age`` counts seconds: the greater, the younger."""
    return {
        "apiVersion": GATEWAY_API,
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": "shop",
            "generation": 1,
            "creationTimestamp": f"2024-01-01T00:00:{age:02}Z",
        },
        "spec": {"parentRefs": [{"name": "web"}], **spec, "rules": list(rules)},
    }


def service(name: str, port: int = 80, protocol: str = "TCP") -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {"clusterIP": "10.96.0.1", "ports": [{"port": port, "protocol": protocol}]},
    }


def endpoints(name: str, of: str, *addresses: str, ready: bool = True) -> Manifest:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": name,
            "namespace": "shop",
            "labels": {"kubernetes.io/service-name": of},
        },
        "addressType": "IPv4",
        "ports": [{"port": 8080}],
        "endpoints": [{"addresses": [each], "conditions": {"ready": ready}} for each in addresses],
    }


def backend(name: str, **more: Any) -> Manifest:
    return {"name": name, "port": 80, **more}
