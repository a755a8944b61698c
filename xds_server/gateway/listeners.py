"""Listeners of Gateways: addresses of their own, a filter chain for each server name."""

from __future__ import annotations

from typing import Any

from envoy.config.common.mutation_rules.v3 import mutation_rules_pb2
from envoy.config.listener.v3 import listener_components_pb2 as components
from envoy.config.listener.v3 import listener_pb2, quic_config_pb2
from envoy.extensions.filters.http.header_mutation.v3 import header_mutation_pb2
from envoy.extensions.filters.listener.tls_inspector.v3 import tls_inspector_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2 as hcm,
)
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2
from google.protobuf.message import Message
from google.protobuf.wrappers_pb2 import BoolValue

from gateway_translator.ir import Backends, FilterChain, Forward, HttpHandler, Listener, Transport
from xds_server.gateway import tls
from xds_server.gateway.clusters import address, of_family
from xds_server.gateway.manager import alternative_service, connection_manager
from xds_server.gateway.names import NOWHERE, named
from xds_server.gateway.udp import udp_filter
from xds_server.resources import duration, packed

_TLS_INSPECTOR = "envoy.filters.listener.tls_inspector"
_MANAGER = "envoy.filters.network.http_connection_manager"
HTTP3_SUFFIX = "/h3"
_ANY_ADDRESS = ("0.0.0.0", "::")  # noqa: S104


def listeners(made: Listener) -> dict[str, Message]:
    """By name: one, and one more where it serves HTTP/3 as well; none without an address or a port
    of the node."""
    if not made.addresses and not made.node_port:
        return {}
    if made.transport is Transport.UDP:
        result = _listener(made, udp=True)
        result.udp_listener_config.SetInParent()
        result.listener_filters.append(udp_filter(made))
        return {result.name: result}
    result = _listener(made)
    if made.reads_sni:
        result.listener_filters.append(tls_inspector())
    result.filter_chains.extend(_chain(chain, made) for chain in made.chains)
    return {result.name: result} | _http3(made)


def _http3(made: Listener) -> dict[str, Message]:
    chains = [c for c in made.chains if c.tls and isinstance(c.handler, HttpHandler)]
    if not (made.http3 and chains):
        return {}
    result = _listener(made, udp=True)
    result.name += HTTP3_SUFFIX
    result.udp_listener_config.quic_options.CopyFrom(quic_config_pb2.QuicProtocolOptions())
    result.filter_chains.extend(_quic_chain(chain) for chain in chains)
    return {result.name: result}


def _listener(made: Listener, udp: bool = False) -> Any:
    bound = [(each, made.port) for each in made.addresses]
    if made.node_port:
        bound += [(each, made.node_port) for each in _ANY_ADDRESS]
    first, *others = (address(each, port, udp) for each, port in bound)
    return listener_pb2.Listener(
        name=named(made.name),
        address=first,
        additional_addresses=[listener_pb2.AdditionalAddress(address=each) for each in others],
        # Another node may hold the address now, and this one the next moment.
        freebind=BoolValue(value=not set(made.addresses) & set(_ANY_ADDRESS)),
        stat_prefix=named(made.name),
    )


def _chain(chain: FilterChain, made: Listener) -> Any:
    result = components.FilterChain(name=chain.name)
    if chain.server_names:
        result.filter_chain_match.server_names.extend(chain.server_names)
    if chain.tls or chain.passthrough:
        result.filter_chain_match.transport_protocol = "tls"
    if chain.tls:
        result.transport_socket.CopyFrom(tls.downstream(chain.tls))
    if isinstance(chain.handler, HttpHandler):
        manager = connection_manager(chain.handler.table)
        if made.http3 and chain.tls:
            port = made.port if made.addresses else made.node_port
            manager.http_filters.insert(0, _told_of_http3(port))
        result.filters.append(_filter(_MANAGER, manager))
    else:
        result.filters.append(tcp_proxy(chain.name, chain.handler))
    return result


def _quic_chain(chain: FilterChain) -> Any:
    assert chain.tls
    assert isinstance(chain.handler, HttpHandler)
    return components.FilterChain(
        name=chain.name,
        filter_chain_match=components.FilterChainMatch(
            server_names=chain.server_names, transport_protocol="quic"
        ),
        transport_socket=tls.downstream(chain.tls, quic=True),
        filters=[_filter(_MANAGER, connection_manager(chain.handler.table, quic=True))],
    )


def _told_of_http3(port: int) -> Any:
    told = mutation_rules_pb2.HeaderMutation(append=alternative_service(port))
    config = header_mutation_pb2.HeaderMutation(
        mutations=header_mutation_pb2.Mutations(response_mutations=[told])
    )
    return hcm.HttpFilter(name="envoy.filters.http.header_mutation", typed_config=packed(config))


def tls_inspector() -> Any:
    """The listener filter that reads server names."""
    inspector = packed(tls_inspector_pb2.TlsInspector())
    return components.ListenerFilter(name=_TLS_INSPECTOR, typed_config=inspector)


def tcp_proxy(name: str, forward: Forward, family: int = 0) -> Any:
    """The network filter that carries bytes to backends. ``family``: as of a connection manager."""
    proxy = tcp_proxy_pb2.TcpProxy(stat_prefix=named(name), idle_timeout=duration(0))
    if family:
        proxy.metadata_match.CopyFrom(of_family(family))
    _choose(forward.backends, proxy)
    return _filter("envoy.filters.network.tcp_proxy", proxy)


def _choose(backends: Backends, proxy: Any) -> None:
    """What refers to nothing, or to nothing that may be served, is closed."""
    if not backends.valid:
        proxy.cluster = NOWHERE
    elif backends.total == backends.valid[0].weight:
        proxy.cluster = named(backends.valid[0].cluster)
    else:
        for each in backends.valid:
            proxy.weighted_clusters.clusters.add(name=named(each.cluster), weight=each.weight)
        if backends.invalid_weight:
            proxy.weighted_clusters.clusters.add(name=NOWHERE, weight=backends.invalid_weight)


def _filter(name: str, config: Message) -> Any:
    return components.Filter(name=name, typed_config=packed(config))
