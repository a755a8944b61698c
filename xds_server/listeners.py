"""The node Envoy's listeners and clusters.

They depend on the ports alone and never on policy: the module gets policy on a stream of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from envoy.config.core.v3 import address_pb2
from envoy.config.listener.v3 import listener_components_pb2 as components
from envoy.config.listener.v3 import listener_pb2
from envoy.extensions.filters.listener.original_dst.v3 import original_dst_pb2
from envoy.extensions.filters.listener.original_src.v3 import original_src_pb2
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2
from google.protobuf.message import Message
from google.protobuf.wrappers_pb2 import BoolValue

from policy_engine.model import Parser
from xds_server.http_listener import connection_manager, http_cluster
from xds_server.marks import ENVOY_MARK, UPSTREAM_MARK, marked
from xds_server.original_dst import original_dst_cluster
from xds_server.resources import (
    CLUSTER_TYPE,
    LISTENER_TYPE,
    duration,
    module_filter,
    packed,
)

KAFKA_CLUSTER = "sidegate-kafka"


def node_resources(ports: Mapping[Parser, int]) -> dict[str, dict[str, Message]]:
    """The resources of a node by type URL and name; a parser without a port gets no listener."""
    listeners: dict[str, Message] = {}
    clusters: dict[str, Message] = {}
    if Parser.HTTP in ports:
        listeners["sidegate-http"] = http_listener(ports[Parser.HTTP])
        clusters["sidegate-http"] = http_cluster()
    if Parser.KAFKA in ports:
        listeners["sidegate-kafka"] = kafka_listener(ports[Parser.KAFKA])
        clusters[KAFKA_CLUSTER] = original_dst_cluster(KAFKA_CLUSTER)
    return {LISTENER_TYPE: listeners, CLUSTER_TYPE: clusters}


def http_listener(port: int) -> Message:
    """`sidegate-http`: `sidegate_guard` closes what is not HTTP, `sidegate_http` judges."""
    manager = packed(connection_manager())
    filters = [_filter("envoy.filters.network.http_connection_manager", manager)]
    return redirected_listener(
        "sidegate-http", port, [components.FilterChain(filters=filters)], [guard()]
    )


def kafka_listener(port: int) -> Message:
    """`sidegate-kafka`: `sidegate_kafka` judges, the TCP proxy carries."""
    proxy = tcp_proxy_pb2.TcpProxy(
        stat_prefix="sidegate_kafka", cluster=KAFKA_CLUSTER, idle_timeout=duration(0)
    )
    filters = [
        _filter("sidegate_kafka", module_filter("network", "sidegate_kafka")),
        _filter("envoy.filters.network.tcp_proxy", packed(proxy)),
    ]
    return redirected_listener("sidegate-kafka", port, [components.FilterChain(filters=filters)])


def guard() -> Any:
    """The listener filter that closes what is not HTTP; last, for it waits for the first bytes."""
    return _listener_filter("sidegate_guard", module_filter("listener", "sidegate_guard"))


def redirected_listener(
    name: str, port: int, chains: Sequence[Any], more_listener_filters: Sequence[Any] = ()
) -> Message:
    """Transparent on both loopback addresses, where the datapath assigns connections to it."""
    listener_filters = [
        _listener_filter(
            "envoy.filters.listener.original_dst", packed(original_dst_pb2.OriginalDst())
        ),
        # After original_dst: it keeps both ends of the connection as they were.
        _listener_filter("sidegate_peer", module_filter("listener", "sidegate_peer")),
        _listener_filter(
            "envoy.filters.listener.original_src",
            packed(original_src_pb2.OriginalSrc(mark=UPSTREAM_MARK)),
        ),
        *more_listener_filters,
    ]
    listener: Message = listener_pb2.Listener(
        name=name,
        address=_address("127.0.0.1", port),
        additional_addresses=[listener_pb2.AdditionalAddress(address=_address("::1", port))],
        transparent=BoolValue(value=True),
        socket_options=[marked(ENVOY_MARK)],
        listener_filters=listener_filters,
        listener_filters_timeout=duration(0),  # a client may open a connection long before its use
        filter_chains=chains,
    )
    return listener


def _address(address: str, port: int) -> Any:
    return address_pb2.Address(
        socket_address=address_pb2.SocketAddress(address=address, port_value=port)
    )


def _filter(name: str, config: Message) -> Any:
    return components.Filter(name=name, typed_config=config)


def _listener_filter(name: str, config: Message) -> Any:
    return components.ListenerFilter(name=name, typed_config=config)
