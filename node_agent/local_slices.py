"""EndpointSlices of a node by itself, as a cluster's controller manager makes them of Services."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from kube_store.store import Store
from node_agent.endpoints import EndpointRecord

KINDS = frozenset({"Service", "Pod"})

Manifest = dict[str, Any]
Name = tuple[str, str]  # namespace and name


def local_slices(store: Store, endpoints: Iterable[EndpointRecord]) -> dict[Name, Manifest]:
    """By name, of every Service with a selector: the pods of this node that it selects."""
    by_pod = {(each.pod_namespace, each.pod_name): each for each in endpoints}
    found = {}
    for resource in store.list("Service"):
        key, spec = resource.key, resource.manifest.get("spec") or {}
        selector = spec.get("selector")
        if not selector:
            continue
        pods = [
            (pod.manifest, by_pod[pod.key.namespace, pod.key.name])
            for pod in store.list("Pod", key.namespace)
            if (pod.key.namespace, pod.key.name) in by_pod
            and selector.items() <= (pod.manifest["metadata"].get("labels") or {}).items()
        ]
        for manifest in _slices(key.namespace, key.name, spec, pods):
            found[key.namespace, manifest["metadata"]["name"]] = manifest
    return found


def _slices(
    namespace: str,
    service: str,
    spec: Mapping[str, Any],
    pods: Sequence[tuple[Mapping[str, Any], EndpointRecord]],
) -> Iterator[Manifest]:
    """One for each family and each choice of ports: pods may call different ports by one name."""
    grouped: dict[tuple[str, tuple[tuple[str, str, int], ...]], list[str]] = {}
    for pod, record in pods:
        ports = tuple(_ports(spec, pod))
        for family, address in (("IPv4", record.ipv4), ("IPv6", record.ipv6)):
            if address and ports:
                grouped.setdefault((family, ports), []).append(address)
    for number, ((family, ports), addresses) in enumerate(sorted(grouped.items())):
        yield {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "namespace": namespace,
                "name": f"{service}-local-{number}",
                "labels": {"kubernetes.io/service-name": service},
            },
            "addressType": family,
            "ports": [
                {"name": name, "protocol": protocol, "port": port} for name, protocol, port in ports
            ],
            "endpoints": [
                {"addresses": [address], "conditions": {"ready": True}}
                for address in sorted(addresses)
            ],
        }


def _ports(spec: Mapping[str, Any], pod: Mapping[str, Any]) -> Iterator[tuple[str, str, int]]:
    named = {
        port["name"]: port["containerPort"]
        for container in (pod.get("spec") or {}).get("containers") or ()
        for port in container.get("ports") or ()
        if port.get("name")
    }
    for port in spec.get("ports") or ():
        target = port.get("targetPort") or port["port"]
        number = named.get(target) if isinstance(target, str) else target
        if number:
            yield port.get("name") or "", port.get("protocol") or "TCP", number
