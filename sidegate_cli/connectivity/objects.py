"""The objects of the test: who talks, and the policies that say who may."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

HTTP, KAFKA = 8080, 9092


@dataclass(frozen=True, slots=True)
class Images:
    """``peer`` has ``http`` and ``kcat`` on its path."""

    peer: str = "sidegate/connectivity"
    kafka: str = "apache/kafka:4.1.0"


def namespace(name: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


def pods(images: Images, nodes: Sequence[str]) -> list[dict[str, Any]]:
    """Clients beside the server and on another node, where there is one."""
    here, there = nodes[0], nodes[-1]
    serve = ["http", "serve", "--http", f":{HTTP}"]
    idle = ["sleep", "infinity"]
    return [
        _pod("server", {"app": "server"}, here, images.peer, serve, HTTP),
        _pod("near", {"app": "client"}, here, images.peer, idle),
        _pod("far", {"app": "client"}, there, images.peer, idle),
        _pod("other", {"app": "other"}, there, images.peer, idle),
        _kafka(images.kafka, here),
    ]


def services() -> list[dict[str, Any]]:
    return [_service("server", HTTP), _service("kafka", KAFKA)]


def policy(name: str, app: str, **spec: Any) -> dict[str, Any]:
    """A CiliumNetworkPolicy about the pods of ``app``."""
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": name},
        "spec": {"endpointSelector": {"matchLabels": {"app": app}}, **spec},
    }


def allow(app: str, port: int, rules: dict[str, Any] | None = None) -> dict[str, Any]:
    """An ingress rule: from the pods of ``app`` to the port, by the L7 rules."""
    ports: dict[str, Any] = {"ports": [{"port": str(port), "protocol": "TCP"}]}
    if rules:
        ports["rules"] = rules
    return {"fromEndpoints": [{"matchLabels": {"app": app}}], "toPorts": [ports]}


def network_policy(name: str, ingress: list[dict[str, Any]]) -> dict[str, Any]:
    """A Kubernetes NetworkPolicy about the server."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name},
        "spec": {"podSelector": {"matchLabels": {"app": "server"}}, "policyTypes": ["Ingress"],
                 "ingress": ingress},
    }  # fmt: skip


def _pod(
    name: str, labels: dict[str, str], node: str, image: str, command: list[str], port: int = 0
) -> dict[str, Any]:
    container: dict[str, Any] = {"name": "main", "image": image, "command": command}
    if port:
        container["ports"] = [{"name": "http", "containerPort": port}]
        container["readinessProbe"] = {"tcpSocket": {"port": port}, "periodSeconds": 2}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 1,
                 "nodeSelector": {"kubernetes.io/hostname": node}},
    }  # fmt: skip


def _kafka(image: str, node: str) -> dict[str, Any]:
    env = [
        {"name": "KAFKA_ADVERTISED_LISTENERS", "value": f"PLAINTEXT://kafka:{KAFKA}"},
        {"name": "SIDEGATE_KAFKA_TOPICS", "value": "orders,audit"},
    ]
    container = {
        "name": "broker", "image": image, "env": env, "ports": [{"containerPort": KAFKA}],
        "readinessProbe": {"tcpSocket": {"port": KAFKA}, "periodSeconds": 1},
    }  # fmt: skip
    pod = _pod("kafka", {"app": "kafka"}, node, image, [])
    pod["spec"]["containers"] = [container]
    return pod


def _service(name: str, port: int) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": [{"name": "main", "port": port}],
                 "ipFamilyPolicy": "PreferDualStack"},
    }  # fmt: skip
