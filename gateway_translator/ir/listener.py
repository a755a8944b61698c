"""Where connections come in and which handler they get."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from gateway_translator.ir.backend import Backends
from gateway_translator.ir.names import ObjectRef, check, check_port
from gateway_translator.ir.tls import DownstreamTls


class Transport(enum.StrEnum):
    TCP = "tcp"
    UDP = "udp"


@dataclass(frozen=True, slots=True)
class HttpHandler:
    """``table``: name of a RouteTable."""

    table: str


@dataclass(frozen=True, slots=True)
class Forward:
    """Bytes, or datagrams, to backends. ``origin``: the TCPRoute, TLSRoute or UDPRoute."""

    backends: Backends
    origin: ObjectRef | None = None


@dataclass(frozen=True, slots=True)
class FilterChain:
    """``server_names``: the SNIs it takes (as hostnames of virtual hosts); empty: any, or none.

    ``tls`` is given where TLS ends here. ``passthrough``: TLS is not ended, its SNI is
    read all the same.
    ``origins``: the Gateway's or ListenerSet's listeners that it serves, as sections.
    """

    name: str
    handler: HttpHandler | Forward
    server_names: tuple[str, ...] = ()
    tls: DownstreamTls | None = None
    passthrough: bool = False
    origins: tuple[ObjectRef, ...] = ()

    def __post_init__(self) -> None:
        check(not (self.tls and self.passthrough), f"chain {self.name}: ends TLS or passes it")


@dataclass(frozen=True, slots=True)
class Listener:
    """One port of one Gateway, on every address of the Gateway.

    ``name``: ``namespace/gateway/port/transport``. ``addresses``: IP addresses; empty while none is
    assigned (nothing to bind then). ``http3``: HTTPS that may be served on the UDP port of that
    number too. ``node_port``: served on every address of the node besides, 0: not. ``chains``: the
    most specific server name takes a connection; none does: closed.
    """

    name: str
    gateway: ObjectRef
    addresses: tuple[str, ...]
    port: int
    transport: Transport
    chains: tuple[FilterChain, ...]
    http3: bool = False
    node_port: int = 0

    def __post_init__(self) -> None:
        check_port(self.port, f"listener {self.name}")
        check(bool(self.chains), f"listener {self.name} without a chain")

    @property
    def reads_sni(self) -> bool:
        return any(chain.tls or chain.passthrough for chain in self.chains)


@dataclass(frozen=True, slots=True)
class MeshView:
    """What clients see at a Service port. ``handler`` as for a chain."""

    handler: HttpHandler | Forward
    passthrough: tuple[tuple[str, Forward], ...] = ()
    """TLSRoutes: (server name, where to), before ``handler``."""


@dataclass(frozen=True, slots=True)
class MeshFrontend:
    """A Service port that routes are attached to (GAMMA); the Service is left untranslated.

    ``name``: ``namespace/service/port``, of TCP. ``addresses``: its cluster IPs.
    ``producer``: for every client, None where only consumers have routes (others then reach the
    Service as if there were none). ``consumers``: by the client's namespace, in place of it.
    """

    name: str
    service: ObjectRef
    addresses: tuple[str, ...]
    port: int
    producer: MeshView | None
    consumers: Mapping[str, MeshView] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_port(self.port, f"frontend {self.name}")

    def views(self) -> Iterator[tuple[str, MeshView]]:
        """With the namespace of the clients; "" for the producer's."""
        if self.producer:
            yield "", self.producer
        yield from self.consumers.items()

    def listeners(self) -> Iterator[Listener]:
        """The views, as if they were a Gateway's."""
        for client, view in self.views():
            yield Listener(
                name=self.listener_name(client),
                gateway=self.service,
                addresses=self.addresses,
                port=self.port,
                transport=Transport.TCP,
                chains=(
                    *(FilterChain(n, to, (n,), passthrough=True) for n, to in view.passthrough),
                    FilterChain("plain", view.handler),
                ),
            )

    def listener_name(self, client: str) -> str:
        return f"mesh/{self.name}" + (f"/for/{client}" if client else "")
