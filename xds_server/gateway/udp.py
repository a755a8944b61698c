"""Datagrams to backends."""

from __future__ import annotations

from typing import Any

from envoy.config.listener.v3 import listener_components_pb2 as components
from envoy.extensions.filters.udp.udp_proxy.v3 import route_pb2, udp_proxy_pb2
from xds.core.v3 import extension_pb2
from xds.type.matcher.v3 import matcher_pb2

from gateway_translator.ir import Forward, Listener
from xds_server.gateway.names import NOWHERE, named
from xds_server.resources import packed


def udp_filter(made: Listener) -> Any:
    """A session (addresses and ports of both ends) keeps the cluster that it began with."""
    handler = made.chains[0].handler
    assert isinstance(handler, Forward)
    valid = handler.backends.valid
    route = route_pb2.Route(cluster=named(valid[0].cluster) if valid else NOWHERE)
    action = extension_pb2.TypedExtensionConfig(name="route", typed_config=packed(route))
    matcher = matcher_pb2.Matcher(on_no_match=matcher_pb2.Matcher.OnMatch(action=action))
    proxy = udp_proxy_pb2.UdpProxyConfig(stat_prefix=named(made.name), matcher=matcher)
    return components.ListenerFilter(
        name="envoy.filters.udp_listener.udp_proxy", typed_config=packed(proxy)
    )
