"""What the sandbox's kubelet says of its node to the API server."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sandbox.node import Node

API_SERVICE = "10.96.0.1"
DNS_SERVICE = "10.96.0.10"
KUBELET_PORT = 10250
_VERSION = "v1.36.1-sandbox"
_CAPACITY = {"cpu": "64", "memory": "256Gi", "pods": "500", "ephemeral-storage": "100Gi"}


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def manifest(node: Node) -> dict[str, Any]:
    labels = {
        "kubernetes.io/hostname": node.name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
    }
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": node.name, "labels": labels}}


def status(node: Node, ready: bool) -> dict[str, Any]:
    """A patch of the status subresource; ``ready`` says whether its network is configured."""
    condition = {
        "type": "Ready",
        "status": "True" if ready else "False",
        "reason": "KubeletReady" if ready else "NetworkPluginNotReady",
        "message": "" if ready else "no CNI configuration in /etc/cni/net.d",
        "lastHeartbeatTime": now(),
        "lastTransitionTime": now(),
    }
    addresses = [{"type": "InternalIP", "address": address} for address in node.addresses]
    return {
        "status": {
            "addresses": [*addresses, {"type": "Hostname", "address": node.name}],
            "capacity": _CAPACITY,
            "allocatable": _CAPACITY,
            "conditions": [condition],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": KUBELET_PORT}},
            "nodeInfo": {
                "architecture": "amd64", "operatingSystem": "linux", "kubeletVersion": _VERSION,
                "kubeProxyVersion": "", "osImage": "sandbox", "kernelVersion": "",
                "containerRuntimeVersion": "sandbox://1", "bootID": "", "machineID": node.name,
                "systemUUID": node.name,
            },
        }
    }  # fmt: skip


def lease(node: Node) -> dict[str, Any]:
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": node.name, "namespace": "kube-node-lease"},
        "spec": {
            "holderIdentity": node.name,
            "leaseDurationSeconds": 40,
            "renewTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        },
    }
