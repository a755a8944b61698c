"""Listeners of Services that routes are attached to: on loopback, where the datapath redirects the
connections of clients to (docs/adr/0022)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from envoy.config.core.v3 import address_pb2
from envoy.config.listener.v3 import listener_components_pb2 as components
from google.protobuf.message import Message
from google.protobuf.wrappers_pb2 import UInt32Value

from gateway_translator.ir import Forward, HttpHandler, MeshFrontend, MeshView
from xds_server.gateway.listeners import tcp_proxy, tls_inspector
from xds_server.gateway.manager import connection_manager
from xds_server.gateway.names import named
from xds_server.gateway.ports import ProxyPorts
from xds_server.listeners import guard, redirected_listener
from xds_server.resources import module_filter, packed

_FAMILIES = {4: "0.0.0.0", 6: "::"}  # noqa: S104
"""With the block of all addresses of each."""


def views(frontend: MeshFrontend) -> Iterator[tuple[str, str, MeshView]]:
    """(name of its listener, namespace of the clients, view); "" is the producer's."""
    for client, view in frontend.views():
        yield named(frontend.listener_name(client)), client, view


def mesh_listeners(frontend: MeshFrontend, ports: ProxyPorts) -> dict[str, Message]:
    """By name, one of each view: HTTP routes are not in it, so that they change without it. None of
    a Service without an address."""
    if not frontend.addresses:
        return {}
    return {
        name: _listener(name, port, view)
        for name, _, view in views(frontend)
        if (port := ports.of(name))
    }


def _listener(name: str, port: int, view: MeshView) -> Message:
    chains = [
        chain
        for family, everything in _FAMILIES.items()
        for chain in (
            *(_passthrough(server, to, family, everything) for server, to in view.passthrough),
            _chain("plain", view.handler, family, everything),
        )
    ]
    if view.passthrough:
        return redirected_listener(name, port, chains, [tls_inspector()])
    return redirected_listener(
        name, port, chains, [guard()] if isinstance(view.handler, HttpHandler) else []
    )


def _passthrough(server_name: str, forward: Forward, family: int, everything: str) -> Any:
    chain = _chain(server_name, forward, family, everything)
    chain.filter_chain_match.server_names.append(server_name)
    chain.filter_chain_match.transport_protocol = "tls"
    return chain


def _chain(name: str, handler: HttpHandler | Forward, family: int, everything: str) -> Any:
    """Of each family one: a client's own address reaches backends of its family alone."""
    name = f"{name}/{family}"
    block = address_pb2.CidrRange(address_prefix=everything, prefix_len=UInt32Value(value=0))
    return components.FilterChain(
        name=name,
        filter_chain_match=components.FilterChainMatch(prefix_ranges=[block]),
        filters=_filters(name, handler, family),
    )


def _filters(name: str, handler: HttpHandler | Forward, family: int) -> list[Any]:
    """Clusters judge requests; bytes are judged here, for no cluster sees whose they are."""
    if isinstance(handler, HttpHandler):
        manager = packed(connection_manager(handler.table, family=family))
        return [
            components.Filter(
                name="envoy.filters.network.http_connection_manager", typed_config=manager
            )
        ]
    judge = module_filter("network", "sidegate_mesh")
    return [
        components.Filter(name="sidegate_mesh", typed_config=judge),
        tcp_proxy(name, handler, family),
    ]
