"""Pods that a test of the mesh has for itself, to break them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from sandbox.cluster import kubectl
from tests.system.istio.mesh import MESH, applied

Object = dict[str, Any]


def pod(name: str, annotations: Mapping[str, str] | None = None, **spec: Any) -> Object:
    """``spec`` replaces what a server of HTTP has."""
    container = {"name": "app", "image": "sidegate.test/http"}
    metadata = {"name": name, "labels": {"app": name}, "annotations": dict(annotations or {})}
    return {
        "apiVersion": "v1", "kind": "Pod", "metadata": metadata,
        "spec": {"containers": [container], **spec},
    }  # fmt: skip


def service(name: str, **spec: Any) -> Object:
    ports = [{"name": "http", "port": 8080}]
    return {
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": ports, **spec},
    }  # fmt: skip


def policy(name: str, **rules: Any) -> Object:
    """Of the pods whose label ``app`` it is."""
    return {
        "apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy", "metadata": {"name": name},
        "spec": {"endpointSelector": {"matchLabels": {"app": name}}, **rules},
    }  # fmt: skip


def http(*rules: Mapping[str, str]) -> list[Object]:
    """``toPorts`` of what these pods serve."""
    ports = [{"port": "8080", "protocol": "TCP"}]
    return [{"ports": ports, "rules": {"http": list(rules)}}]


def peers(*names: str) -> list[Object]:
    return [{"matchLabels": {"app": name}} for name in names]


def text(*objects: Object) -> str:
    """For ``kubectl apply``."""
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})


@contextlib.contextmanager
def server(name: str, annotations: Mapping[str, str] | None = None) -> Iterator[None]:
    """With a sidecar: productpage may GET from it, nobody may do anything else."""
    rules = [{"fromEndpoints": peers("productpage"), "toPorts": http({"method": "GET"})}]
    made = (service(name), pod(name, annotations), policy(name, ingress=rules))
    with applied(text(*made)):
        kubectl(MESH, "wait", "--for=condition=Ready", f"pod/{name}", "--timeout=240s")
        yield
