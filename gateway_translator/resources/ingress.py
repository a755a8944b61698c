"""Ingress and IngressClass. Source: networking.k8s.io/v1."""

from __future__ import annotations

from gateway_translator.resources.meta import Object, Struct
from gateway_translator.resources.refs import ObjectReference
from gateway_translator.resources.values import Hostname


class BackendPort(Struct, frozen=True):
    name: str = ""
    number: int = 0


class ServiceBackend(Struct, frozen=True):
    name: str
    port: BackendPort = BackendPort()


class IngressBackend(Struct, frozen=True):
    """A ``resource`` is no Service: refused by status."""

    service: ServiceBackend | None = None
    resource: ObjectReference | None = None


class IngressPath(Struct, frozen=True):
    backend: IngressBackend
    path: str = "/"
    path_type: str = "ImplementationSpecific"


class IngressHttp(Struct, frozen=True):
    paths: tuple[IngressPath, ...] = ()


class IngressRule(Struct, frozen=True):
    host: Hostname = ""
    http: IngressHttp | None = None


class IngressTls(Struct, frozen=True):
    hosts: tuple[Hostname, ...] = ()
    secret_name: str = ""


class IngressSpec(Struct, frozen=True):
    ingress_class_name: str = ""
    default_backend: IngressBackend | None = None
    rules: tuple[IngressRule, ...] = ()
    tls: tuple[IngressTls, ...] = ()


class Ingress(Object, frozen=True):
    spec: IngressSpec


class IngressClassSpec(Struct, frozen=True):
    controller: str = ""
    parameters: ObjectReference | None = None


class IngressClass(Object, frozen=True):
    spec: IngressClassSpec
