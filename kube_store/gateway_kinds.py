"""The kinds that Gateways are made of, and how they are followed of an API server."""

from __future__ import annotations

from typing import Any

from kube_store.resource import ResourceKey, plural
from kube_store.store import Store
from kube_store.watched import Trim, Watched

_GATEWAY_API = "gateway.networking.k8s.io"
_NETWORKING = "networking.k8s.io/v1"

# What the operator writes a status on (Gateway API 1.6: all but XMesh are v1).
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
    "XMesh": "gateway.networking.x-k8s.io/v1alpha1",
    "Ingress": _NETWORKING,
}
KINDS = {**STATUS_KINDS, "ReferenceGrant": f"{_GATEWAY_API}/v1beta1", "IngressClass": _NETWORKING}
# A release of the API, or who installs it, may leave others out: nobody has objects of them then.
_NEEDED = ("GatewayClass", "Gateway")
_REMEDY = "install the CRDs of the Gateway API, of the standard or the experimental channel"
# What they refer to, besides Services and EndpointSlices.
REFERRED_KINDS = frozenset({"Secret", "ConfigMap", "Namespace", "Service", "EndpointSlice"})
POOL, POOL_VERSION = "CiliumLoadBalancerIPPool", "cilium.io/v2"


def watched() -> list[Watched]:
    """What an agent follows for Gateways, besides what it follows anyway.

    Of Secrets only those of TLS: nobody else's are ours to read.
    """
    return [*_watched(_trimmed), *_REFERRED]


def watched_whole() -> list[Watched]:
    """What gives addresses and writes statuses: it sees them, and what pools there are."""
    return [
        *_watched(lambda manifest: manifest),
        *_REFERRED,
        Watched("Namespace", "v1", "namespaces", metadata_only=True),
        Watched("Service", "v1", "services"),
        Watched(POOL, POOL_VERSION, plural(POOL), optional=True),
        _CRD_OF_ROUTES,
    ]


CRD_OF_ROUTES = ResourceKey("CustomResourceDefinition", "", f"httproutes.{_GATEWAY_API}")
"""By which one knows of which channel what is installed is (:func:`channel`)."""

_CRD_OF_ROUTES = Watched(
    CRD_OF_ROUTES.kind, "apiextensions.k8s.io/v1", "customresourcedefinitions",
    field_selector=f"metadata.name={CRD_OF_ROUTES.name}", metadata_only=True,
)  # fmt: skip


def channel(store: Store) -> str:
    """ "standard", "experimental", or what its makers call it; empty where nobody says."""
    crd = store.get(CRD_OF_ROUTES)
    annotations = crd.manifest["metadata"].get("annotations") if crd else None
    return str((annotations or {}).get(f"{_GATEWAY_API}/channel", ""))


_REFERRED = (
    Watched("Secret", "v1", "secrets", field_selector="type=kubernetes.io/tls"),
    Watched("ConfigMap", "v1", "configmaps"),
)


def _watched(trim: Trim) -> list[Watched]:
    return [
        Watched(
            kind, version, plural(kind), optional=version != _NETWORKING, trim=trim, packed=True,
            remedy=_REMEDY if kind in _NEEDED else "",
        )
        for kind, version in KINDS.items()
    ]  # fmt: skip


def _trimmed(manifest: dict[str, Any]) -> dict[str, Any]:
    """Of statuses only what others decide by: the addresses of a Gateway or Ingress, which the
    operator has given it. Conditions that we write must not come back as changes."""
    metadata = dict(manifest["metadata"])
    metadata.pop("resourceVersion", None)
    kept = {**{n: v for n, v in manifest.items() if n != "status"}, "metadata": metadata}
    status = manifest.get("status") or {}
    said = {name: status[name] for name in ("addresses", "loadBalancer") if status.get(name)}
    return {**kept, "status": said} if said else kept
