"""The HTTP connection manager of routes: an edge, unlike the node's own (http_listener)."""

from __future__ import annotations

from typing import Any

from envoy.config.core.v3 import base_pb2, protocol_pb2
from envoy.config.route.v3 import route_components_pb2 as routes
from envoy.config.route.v3 import route_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.http.set_metadata.v3 import set_metadata_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2 as hcm,
)
from google.protobuf.message import Message
from google.protobuf.wrappers_pb2 import BoolValue

from gateway_translator.ir import RouteTable, VirtualHost
from xds_server.gateway.actions import answer, route
from xds_server.gateway.clusters import of_family
from xds_server.gateway.filters import http_filters
from xds_server.gateway.names import BALANCED, ads, named, virtual_host_name
from xds_server.resources import duration, packed

_REQUEST_HEADERS_SECONDS = 60  # a client that sends its headers byte by byte holds nothing longer
_UPGRADES = ("websocket",)
_SERVER = "sidegate"


def connection_manager(table: str, quic: bool = False, family: int = 0) -> Any:
    """``quic``: the connections are HTTP/3's. ``family``: of the clients of a Service (4, 6), whose
    own addresses backends see; 0: a Gateway's."""
    manager = hcm.HttpConnectionManager(
        stat_prefix=named(table),
        rds=hcm.Rds(route_config_name=named(table), config_source=ads()),
        http_filters=[
            *http_filters(),
            hcm.HttpFilter(
                name="envoy.filters.http.router",
                typed_config=packed(router_pb2.Router(suppress_envoy_headers=True)),
            ),
        ],
        http2_protocol_options=protocol_pb2.Http2ProtocolOptions(allow_connect=True),
        upgrade_configs=[
            hcm.HttpConnectionManager.UpgradeConfig(upgrade_type=name) for name in _UPGRADES
        ],
        # The client's address is the connection's, and goes on in x-forwarded-for.
        use_remote_address=BoolValue(value=True),
        skip_xff_append=bool(family),
        normalize_path=BoolValue(value=True),
        # A backend's own name stays; what answers without one is an origin server to clients.
        server_name=_SERVER,
        server_header_transformation=hcm.HttpConnectionManager.APPEND_IF_ABSENT,
        generate_request_id=BoolValue(value=False),
        preserve_external_request_id=True,
        # Timeouts are the routes' matter.
        stream_idle_timeout=duration(0),
        request_headers_timeout=duration(_REQUEST_HEADERS_SECONDS),
    )
    if family:
        manager.http_filters.insert(0, _balanced_in(family))
    if quic:
        manager.codec_type = hcm.HttpConnectionManager.HTTP3
        manager.http3_protocol_options.SetInParent()
    return manager


def _balanced_in(family: int) -> Any:
    said = set_metadata_pb2.Config(
        metadata=[
            set_metadata_pb2.Metadata(
                metadata_namespace=BALANCED, value=of_family(family).filter_metadata[BALANCED]
            )
        ]
    )
    return hcm.HttpFilter(name="envoy.filters.http.set_metadata", typed_config=packed(said))


def route_configuration(table: RouteTable) -> Message:
    """Its virtual hosts come one by one (VHDS): a changed route sends one of them."""
    config: Message = route_pb2.RouteConfiguration(
        name=named(table.name),
        vhds=route_pb2.Vhds(config_source=ads()),
        ignore_port_in_host_matching=True,
        # Envoy adds it where the client's address is taken from the connection.
        request_headers_to_remove=["x-envoy-external-address"],
    )
    return config


def virtual_host(table: str, host: VirtualHost) -> Message:
    result: Any = routes.VirtualHost(
        name=virtual_host_name(table, host.hostname), domains=[host.hostname]
    )
    result.routes.extend(route(each) for each in host.routes)
    if host.otherwise != 404:  # which is Envoy's own answer
        result.routes.append(answer(host.otherwise))
    message: Message = result
    return message


def alternative_service(port: int) -> Any:
    """The header that tells clients of HTTP/3 (RFC 7838)."""
    return base_pb2.HeaderValueOption(
        header=base_pb2.HeaderValue(key="alt-svc", value=f'h3=":{port}"; ma=86400'),
        append_action=base_pb2.HeaderValueOption.ADD_IF_ABSENT,
    )
