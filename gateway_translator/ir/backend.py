"""Where requests go: clusters, their endpoints, and weighted choices among them."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from gateway_translator.ir.filters import UNCHANGED, HeaderChanges, Rewrite
from gateway_translator.ir.names import ObjectRef, check, check_port


class Protocol(enum.StrEnum):
    """What a backend speaks. HTTP and HTTP2 with ``Cluster.tls`` are those over TLS.

    HTTP2: prior knowledge (appProtocol ``kubernetes.io/h2c``, every backend of a GRPCRoute).
    WEBSOCKET: HTTP/1.1 whose upgrades pass (they do on HTTP too). TCP and UDP: bytes.
    """

    HTTP = "http"
    HTTP2 = "http2"
    WEBSOCKET = "websocket"
    TCP = "tcp"
    UDP = "udp"


@dataclass(frozen=True, slots=True)
class UpstreamTls:
    """Source: BackendTLSPolicy; ``client_certificate``: Gateway ``spec.tls.backend``.

    ``trust``: name of a TrustBundle, empty for the system's. ``sni`` is validation.hostname; the
    certificate must carry it, or, where ``names`` or ``uris`` are given, one of those alone
    (``names`` may begin with ``*.``). ``client_certificate``: name of a Certificate, empty: none.
    """

    sni: str
    trust: str = ""
    names: tuple[str, ...] = ()
    uris: tuple[str, ...] = ()
    client_certificate: str = ""


@dataclass(frozen=True, slots=True)
class Cluster:
    """``endpoints``: name of its EndpointSet, which is its own (a second cluster that
    asked for the set of another would wait for Envoy's timeout).

    ``origin``: the Service. ``port``: the Service's. ``transparent``: connections keep the client's
    address, so a client gets endpoints of its address family.
    """

    name: str
    origin: ObjectRef
    port: int
    endpoints: str
    protocol: Protocol = Protocol.HTTP
    tls: UpstreamTls | None = None
    transparent: bool = False

    def __post_init__(self) -> None:
        check_port(self.port, f"cluster {self.name}")


@dataclass(frozen=True, slots=True, order=True)
class Endpoint:
    """``address``: an IP address. ``node`` and ``zone`` are empty where unknown."""

    address: str
    port: int
    node: str = ""
    zone: str = ""


@dataclass(frozen=True, slots=True)
class EndpointGroup:
    """What one EndpointSlice says; ``name``: namespace/name of it. Ready endpoints, sorted."""

    name: str
    endpoints: tuple[Endpoint, ...]


@dataclass(frozen=True, slots=True)
class EndpointSet:
    """Of one Service port. Empty: requests are answered 503.

    Where no endpoint is ready, those that still serve while they terminate. ``transparent``: its
    cluster is.
    """

    name: str
    groups: tuple[EndpointGroup, ...] = ()
    transparent: bool = False

    def endpoints(self) -> tuple[Endpoint, ...]:
        """Each once: slices may overlap while they are rebalanced."""
        return tuple(dict.fromkeys(e for group in self.groups for e in group.endpoints))


@dataclass(frozen=True, slots=True)
class WeightedBackend:
    """``weight`` > 0. The changes are those of this backendRef alone, after the rule's own."""

    cluster: str
    weight: int = 1
    request_headers: HeaderChanges = UNCHANGED
    response_headers: HeaderChanges = UNCHANGED
    rewrite: Rewrite | None = None

    def __post_init__(self) -> None:
        check(self.weight > 0, f"backend {self.cluster}: weight {self.weight}")


@dataclass(frozen=True, slots=True)
class Backends:
    """A choice in proportion to weights. References of weight 0 are not here.

    ``invalid_weight``: the share that refers to nothing that may be served: HTTP is answered 500,
    gRPC UNAVAILABLE, a TCP or TLS connection is closed, a datagram dropped. Neither valid nor
    invalid (no backendRefs, or all of weight 0): likewise, always.
    """

    valid: tuple[WeightedBackend, ...] = ()
    invalid_weight: int = 0

    @property
    def total(self) -> int:
        return self.invalid_weight + sum(each.weight for each in self.valid)


NOWHERE = Backends()
