"""The kinds that Gateways are made of, and how they are followed of an API server."""

from __future__ import annotations

from typing import Any

from kube_store.resource import plural
from kube_store.watched import Watched

_GATEWAY_API = "gateway.networking.k8s.io"
_NETWORKING = "networking.k8s.io/v1"

# What the operator writes a status on (Gateway API 1.6: all of them are v1).
STATUS_KINDS = {
    **dict.fromkeys(
        (
            "GatewayClass",
            "Gateway",
            "ListenerSet",
            "HTTPRoute",
            "GRPCRoute",
            "TLSRoute",
            "TCPRoute",
            "UDPRoute",
            "BackendTLSPolicy",
        ),
        f"{_GATEWAY_API}/v1",
    ),
    "Ingress": _NETWORKING,
}
KINDS = {**STATUS_KINDS, "ReferenceGrant": f"{_GATEWAY_API}/v1beta1", "IngressClass": _NETWORKING}
# What they refer to, besides Services and EndpointSlices.
REFERRED_KINDS = frozenset({"Secret", "ConfigMap", "Namespace", "Service", "EndpointSlice"})
POOL = "CiliumLoadBalancerIPPool"


def watched() -> list[Watched]:
    """Without Services, EndpointSlices and Namespaces, which an agent follows anyway.

    Of Secrets only those of TLS: nobody else's are ours to read.
    """
    return [
        *(
            Watched(kind, version, plural(kind), optional=version != _NETWORKING, trim=_trimmed)
            for kind, version in KINDS.items()
        ),
        Watched("Secret", "v1", "secrets", field_selector="type=kubernetes.io/tls"),
        Watched("ConfigMap", "v1", "configmaps"),
    ]


def _trimmed(manifest: dict[str, Any]) -> dict[str, Any]:
    """Of statuses only what others decide by: the addresses of a Gateway, which the operator has
    given it. Conditions that we write must not come back as changes."""
    metadata = dict(manifest["metadata"])
    metadata.pop("resourceVersion", None)
    kept = {**{n: v for n, v in manifest.items() if n != "status"}, "metadata": metadata}
    addresses = (manifest.get("status") or {}).get("addresses")
    return {**kept, "status": {"addresses": addresses}} if addresses else kept
