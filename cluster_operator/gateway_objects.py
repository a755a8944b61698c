"""What is made in the cluster for a Gateway: a headless Service that names its addresses.

So Gateways are found by DNS like anything else, and there is something to carry the labels and
annotations of ``spec.infrastructure``. Sources: GEP-1762 (gateway-name), GEP-1867, KEP-0752.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import ip_address
from typing import Any

Manifest = dict[str, Any]

NAME_LABEL = "gateway.networking.k8s.io/gateway-name"

_FAMILIES = {4: "IPv4", 6: "IPv6"}  # addressType
_MANAGER = "sidegate.io"
_NAME_MAX = 63  # of a Service (RFC 1035) and of a label's value
_DIGEST = 8


def service_name(gateway: str) -> str:
    """A Gateway's name may have dots, begin with a digit, and be as long as a DNS name."""
    name = f"gateway-{gateway}"
    if len(name) <= _NAME_MAX and "." not in name:
        return name
    digest = hashlib.sha256(gateway.encode()).hexdigest()[:_DIGEST]
    return f"{name.replace('.', '-')[: _NAME_MAX - _DIGEST - 1]}-{digest}"


def service(gateway: Mapping[str, Any]) -> Manifest:
    infrastructure = gateway["spec"].get("infrastructure") or {}
    metadata = _metadata(gateway, service_name(gateway["metadata"]["name"]))
    metadata["labels"] = {**(infrastructure.get("labels") or {}), **metadata["labels"]}
    metadata["annotations"] = dict(infrastructure.get("annotations") or {})
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {"clusterIP": "None", "ports": _ports(gateway)},
    }


def slices(gateway: Mapping[str, Any], addresses: Sequence[str]) -> list[Manifest]:
    """One of each family, also where the Gateway has no address of it."""
    name = service_name(gateway["metadata"]["name"])
    found = []
    for version, kind in _FAMILIES.items():
        metadata = _metadata(gateway, f"{name}-{kind.lower()}")
        metadata["labels"] |= {
            "kubernetes.io/service-name": name,
            "endpointslice.kubernetes.io/managed-by": _MANAGER,
        }
        here = [each for each in addresses if ip_address(each).version == version]
        found.append(
            {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": metadata,
                "addressType": kind,
                "endpoints": [{"addresses": [a], "conditions": {"ready": True}} for a in here],
                "ports": _ports(gateway),
            }
        )
    return found


def belongs(manifest: Mapping[str, Any], gateway: Mapping[str, Any]) -> bool:
    """Whether it was made for the Gateway, or for one before it of the same name."""
    owners: Iterable[Mapping[str, Any]] = manifest["metadata"].get("ownerReferences") or ()
    name = gateway["metadata"]["name"]
    return any((each.get("kind"), each.get("name")) == ("Gateway", name) for each in owners)


def _metadata(gateway: Mapping[str, Any], name: str) -> Manifest:
    owner = gateway["metadata"]
    label = owner["name"] if len(owner["name"]) <= _NAME_MAX else service_name(owner["name"])
    return {
        "name": name,
        "namespace": owner["namespace"],
        "labels": {NAME_LABEL: label},
        # With the Gateway it goes (garbage collector).
        "ownerReferences": [
            {
                "apiVersion": "gateway.networking.k8s.io/v1",
                "kind": "Gateway",
                "name": owner["name"],
                "uid": owner["uid"],
                "controller": True,
            }
        ],
    }


def _ports(gateway: Mapping[str, Any]) -> list[Manifest]:
    """Of its own listeners; several may share one."""
    found = {
        ("UDP" if each["protocol"] == "UDP" else "TCP", each["port"])
        for each in gateway["spec"]["listeners"]
    }
    return [
        {"name": f"{protocol.lower()}-{port}", "protocol": protocol, "port": port}
        for protocol, port in sorted(found)
    ]
