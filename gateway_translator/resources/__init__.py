"""The resources that the translator reads, typed: once per version of an object."""

from __future__ import annotations

from typing import Any

import msgspec

from gateway_translator.resources import core, gateway, ingress, policies, routes
from gateway_translator.resources.meta import Object, without_nulls

_GATEWAY = "gateway.networking.k8s.io"
KINDS: dict[str, tuple[str, type[Object]]] = {
    "GatewayClass": (_GATEWAY, gateway.GatewayClass),
    "XMesh": ("gateway.networking.x-k8s.io", gateway.XMesh),
    "Gateway": (_GATEWAY, gateway.Gateway),
    "ListenerSet": (_GATEWAY, gateway.ListenerSet),
    "HTTPRoute": (_GATEWAY, routes.HttpRoute),
    "GRPCRoute": (_GATEWAY, routes.GrpcRoute),
    "TLSRoute": (_GATEWAY, routes.StreamRoute),
    "TCPRoute": (_GATEWAY, routes.StreamRoute),
    "UDPRoute": (_GATEWAY, routes.StreamRoute),
    "ReferenceGrant": (_GATEWAY, policies.ReferenceGrant),
    "BackendTLSPolicy": (_GATEWAY, policies.BackendTlsPolicy),
    "Ingress": ("networking.k8s.io", ingress.Ingress),
    "IngressClass": ("networking.k8s.io", ingress.IngressClass),
    "Service": ("", core.Service),
    "EndpointSlice": ("discovery.k8s.io", core.EndpointSlice),
    "Secret": ("", core.Secret),
    "ConfigMap": ("", core.ConfigMap),
    "Namespace": ("", core.Namespace),
}
"""By kind: its API group and its type."""

CLUSTER_SCOPED = frozenset({"GatewayClass", "IngressClass", "Namespace", "XMesh"})


class InvalidResourceError(ValueError):
    """The manifest is not of its kind's shape; the message names the field."""


def parse(manifest: dict[str, Any]) -> Object | None:
    """None for a kind, or a group, that is not read here. Raises InvalidResourceError."""
    kind = manifest.get("kind", "")
    group, shape = KINDS.get(kind, ("", None))
    version = str(manifest.get("apiVersion", ""))
    if shape is None or version.rpartition("/")[0] != group:
        return None
    metadata = manifest.get("metadata")
    if kind not in CLUSTER_SCOPED and isinstance(metadata, dict) and not metadata.get("namespace"):
        manifest = {**manifest, "metadata": {**metadata, "namespace": "default"}}
    try:
        return msgspec.convert(manifest, shape)
    except msgspec.ValidationError:
        pass
    try:
        return msgspec.convert(without_nulls(manifest), shape)
    except msgspec.ValidationError as error:
        message = str(error).replace("`$.", "`")
        raise InvalidResourceError(f"{message}; correct the field") from None
