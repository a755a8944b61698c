"""GatewayClass, Gateway and ListenerSet, and XMesh. Source: gateway.networking.k8s.io/v1, and
gateway.networking.x-k8s.io/v1alpha1."""

from __future__ import annotations

import msgspec

from gateway_translator.resources.meta import LabelSelector, Object, Struct
from gateway_translator.resources.refs import GROUP, ObjectReference
from gateway_translator.resources.values import Hostname, Port


class GatewayClassSpec(Struct, frozen=True):
    controller_name: str
    parameters_ref: ObjectReference | None = None


class GatewayClass(Object, frozen=True):
    spec: GatewayClassSpec


class XMesh(Object, frozen=True):
    """What says which mesh serves routes of Services, as a GatewayClass does of Gateways."""

    spec: GatewayClassSpec


class Namespaces(Struct, frozen=True):
    """``from``: All, Same, Selector or None; its default depends on whose field it is."""

    from_: str = msgspec.field(name="from", default="")
    selector: LabelSelector | None = None


class RouteKind(Struct, frozen=True):
    kind: str
    group: str = GROUP


class AllowedRoutes(Struct, frozen=True):
    namespaces: Namespaces | None = None
    kinds: tuple[RouteKind, ...] = ()


class ListenerTls(Struct, frozen=True):
    mode: str = "Terminate"
    certificate_refs: tuple[ObjectReference, ...] = ()


class ListenerSpec(Struct, frozen=True):
    name: str
    port: Port
    protocol: str
    hostname: Hostname = ""
    tls: ListenerTls | None = None
    allowed_routes: AllowedRoutes | None = None


class Address(Struct, frozen=True):
    type: str = "IPAddress"
    value: str = ""


class Infrastructure(Struct, frozen=True):
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    annotations: dict[str, str] = msgspec.field(default_factory=dict)
    parameters_ref: ObjectReference | None = None


class AllowedListeners(Struct, frozen=True):
    namespaces: Namespaces | None = None


class FrontendValidation(Struct, frozen=True):
    ca_certificate_refs: tuple[ObjectReference, ...]
    mode: str = "AllowValidOnly"


class FrontendTls(Struct, frozen=True):
    validation: FrontendValidation | None = None


class PortTls(Struct, frozen=True):
    port: Port
    tls: FrontendTls


class Frontend(Struct, frozen=True):
    default: FrontendTls
    per_port: tuple[PortTls, ...] = ()

    def at(self, port: int) -> FrontendValidation | None:
        return next((p.tls for p in self.per_port if p.port == port), self.default).validation


class BackendClient(Struct, frozen=True):
    client_certificate_ref: ObjectReference | None = None


class GatewayTls(Struct, frozen=True):
    backend: BackendClient | None = None
    frontend: Frontend | None = None


class GatewaySpec(Struct, frozen=True):
    gateway_class_name: str
    listeners: tuple[ListenerSpec, ...] = ()
    addresses: tuple[Address, ...] = ()
    infrastructure: Infrastructure | None = None
    allowed_listeners: AllowedListeners | None = None
    tls: GatewayTls | None = None
    default_scope: str = ""


class Gateway(Object, frozen=True):
    spec: GatewaySpec


class ParentGateway(Struct, frozen=True):
    name: str
    group: str = GROUP
    kind: str = "Gateway"
    namespace: str = ""


class ListenerSetSpec(Struct, frozen=True):
    parent_ref: ParentGateway
    listeners: tuple[ListenerSpec, ...] = ()


class ListenerSet(Object, frozen=True):
    spec: ListenerSetSpec
