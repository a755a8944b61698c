"""Service, EndpointSlice, Secret, ConfigMap, Namespace: what of them matters here."""

from __future__ import annotations

from typing import Literal

import msgspec

from gateway_translator.resources.meta import Object, Struct
from gateway_translator.resources.values import Port


class ServicePort(Struct, frozen=True):
    port: Port
    name: str = ""
    protocol: Literal["TCP", "UDP", "SCTP"] = "TCP"
    app_protocol: str = ""
    node_port: int = 0


class ServiceSpec(Struct, frozen=True):
    type: str = "ClusterIP"
    cluster_ip: str = msgspec.field(name="clusterIP", default="")
    cluster_ips: tuple[str, ...] = msgspec.field(name="clusterIPs", default=())
    ports: tuple[ServicePort, ...] = ()

    @property
    def addresses(self) -> tuple[str, ...]:
        found = self.cluster_ips or (self.cluster_ip,)
        return tuple(each for each in found if each not in {"", "None"})


class Service(Object, frozen=True):
    spec: ServiceSpec

    def port(self, number: int) -> ServicePort | None:
        return next((each for each in self.spec.ports if each.port == number), None)


class EndpointConditions(Struct, frozen=True):
    """What is not said is ready, serving, not terminating."""

    ready: bool = True
    serving: bool | None = None
    terminating: bool = False


class SliceEndpoint(Struct, frozen=True):
    addresses: tuple[str, ...]
    conditions: EndpointConditions = EndpointConditions()
    node_name: str = ""
    zone: str = ""


class SlicePort(Struct, frozen=True):
    port: int = 0
    name: str = ""
    protocol: str = "TCP"


class EndpointSlice(Object, frozen=True):
    address_type: str = "IPv4"
    ports: tuple[SlicePort, ...] = ()
    endpoints: tuple[SliceEndpoint, ...] = ()

    @property
    def service(self) -> str:
        """Its name; empty: of none."""
        return self.metadata.labels.get("kubernetes.io/service-name", "")


class Secret(Object, frozen=True):
    """``data`` is base64, ``string_data`` (files only) is not."""

    type: str = "Opaque"
    data: dict[str, str] = msgspec.field(default_factory=dict)
    string_data: dict[str, str] = msgspec.field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Secret({self.namespace}/{self.name}, type={self.type})"


class ConfigMap(Object, frozen=True):
    data: dict[str, str] = msgspec.field(default_factory=dict)


class Namespace(Object, frozen=True):
    pass
