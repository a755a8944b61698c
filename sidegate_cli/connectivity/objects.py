"""The objects of the test: who talks, and the policies that say who may."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

HTTP, KAFKA = 8080, 9092
CONTAINER = "main"  # of clients and servers
MANAGED_BY = {"app.kubernetes.io/managed-by": "sidegate-connectivity"}


@dataclass(frozen=True, slots=True)
class Images:
    """``peer`` has ``http`` and ``kcat`` on its path."""

    peer: str = "sidegate/connectivity"
    kafka: str = "apache/kafka:4.1.0"


def namespace(name: str, labels: Mapping[str, str]) -> dict[str, Any]:
    """``labels`` besides the one by which it is known for the test's."""
    metadata = {"name": name, "labels": {**MANAGED_BY, **labels}}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}


def pods(images: Images, nodes: Sequence[str]) -> list[dict[str, Any]]:
    """Clients beside the server and on another node, where there is one."""
    here, there = nodes[0], nodes[-1]
    return [
        server("server", {"app": "server"}, here, images),
        client("near", {"app": "client"}, here, images),
        client("far", {"app": "client"}, there, images),
        client("other", {"app": "other"}, there, images),
        _kafka(images.kafka, here),
    ]


def services(families: str = "PreferDualStack") -> list[dict[str, Any]]:
    """``families`` is Service's ``ipFamilyPolicy``."""
    return [
        service("server", HTTP, "http", families=families),
        service("kafka", KAFKA, "tcp-kafka", families=families),
    ]


def server(name: str, labels: Mapping[str, str], node: str, images: Images) -> dict[str, Any]:
    return _pod(name, labels, node, images.peer, ["http", "serve", "--http", f":{HTTP}"], HTTP)


def client(name: str, labels: Mapping[str, str], node: str, images: Images) -> dict[str, Any]:
    return _pod(name, labels, node, images.peer, ["sleep", "infinity"])


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
    name: str, labels: Mapping[str, str], node: str, image: str, command: list[str], port: int = 0
) -> dict[str, Any]:
    container: dict[str, Any] = {"name": CONTAINER, "image": image, "command": command}
    if port:
        container["ports"] = [{"name": "http", "containerPort": port}]
        container["readinessProbe"] = {"tcpSocket": {"port": port}, "periodSeconds": 2}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": dict(labels)},
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


def service(name: str, port: int, called: str, *, app: str = "", families: str) -> dict[str, Any]:
    """Of the pods of ``app``, or of its name. ``called`` tells a mesh the protocol (Istio
    documentation, "Protocol Selection")."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": {"app": app or name}, "ports": [{"name": called, "port": port}],
                 "ipFamilyPolicy": families},
    }  # fmt: skip
