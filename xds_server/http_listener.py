"""The HTTP connection manager and its cluster: judge a request, and otherwise stay out of its way.

Every setting that differs from Envoy's default is here because the default would change, limit or
time out an exchange that nobody asked us to touch.
"""

from __future__ import annotations

from typing import Any

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.common.mutation_rules.v3 import mutation_rules_pb2
from envoy.config.core.v3 import base_pb2, protocol_pb2
from envoy.config.route.v3 import route_components_pb2 as routes
from envoy.config.route.v3 import route_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2 as hcm,
)
from envoy.extensions.http.early_header_mutation.header_mutation.v3 import header_mutation_pb2
from envoy.extensions.http.header_formatters.preserve_case.v3 import preserve_case_pb2
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2
from envoy.type.matcher.v3 import string_pb2
from google.protobuf.wrappers_pb2 import BoolValue, UInt32Value

from xds_server.original_dst import original_dst_cluster
from xds_server.resources import duration, extension, module_filter, packed

HTTP_CLUSTER = "sidegate-http"

MAX_HEADERS_KB = 8192  # Envoy's own upper bound
MAX_HEADERS = 65_535
MAX_STREAMS = 2**31 - 1  # the most that HTTP/2 can express (RFC 9113, 6.5.2)
UPGRADES = ("websocket", "CONNECT", "spdy/3.1", "tcp")
# Upgrades that change the protocol below us: left out of the request, which a server may always
# do (RFC 9110, 7.8). Envoy would answer 403.
IGNORED_UPGRADES = ("h2c", "tls/")
_HAD_PROTO = "x-sidegate-had-forwarded-proto"


def connection_manager() -> Any:
    """The ``HttpConnectionManager`` with `sidegate_http` last before the router."""
    router = router_pb2.Router(suppress_envoy_headers=True)
    return hcm.HttpConnectionManager(
        stat_prefix="sidegate_http",
        route_config=_routes(),
        http_filters=[
            hcm.HttpFilter(
                name="sidegate_http", typed_config=module_filter("http", "sidegate_http")
            ),
            hcm.HttpFilter(name="envoy.filters.http.router", typed_config=packed(router)),
        ],
        common_http_protocol_options=protocol_pb2.HttpProtocolOptions(
            idle_timeout=duration(0), max_headers_count=UInt32Value(value=MAX_HEADERS)
        ),
        http_protocol_options=_http1(),
        http2_protocol_options=_http2(),
        early_header_mutation_extensions=[_remember_forwarded_proto()],
        upgrade_configs=[
            hcm.HttpConnectionManager.UpgradeConfig(upgrade_type=name) for name in UPGRADES
        ],
        max_request_headers_kb=UInt32Value(value=MAX_HEADERS_KB),
        stream_idle_timeout=duration(0),
        request_timeout=duration(0),
        request_headers_timeout=duration(0),
        server_header_transformation=hcm.HttpConnectionManager.PASS_THROUGH,
        forward_client_cert_details=hcm.HttpConnectionManager.ALWAYS_FORWARD_ONLY,
        generate_request_id=BoolValue(value=False),
        preserve_external_request_id=True,
        use_remote_address=BoolValue(value=False),
        skip_xff_append=True,
        proxy_100_continue=True,
        normalize_path=BoolValue(value=False),
        path_with_escaped_slashes_action=hcm.HttpConnectionManager.KEEP_UNCHANGED,
    )


def http_cluster() -> Any:
    """Where the client was going, in the protocol that it speaks."""
    options = http_protocol_options_pb2.HttpProtocolOptions(
        common_http_protocol_options=protocol_pb2.HttpProtocolOptions(
            idle_timeout=duration(0),
            max_headers_count=UInt32Value(value=MAX_HEADERS),
            max_response_headers_kb=UInt32Value(value=MAX_HEADERS_KB),
        ),
        use_downstream_protocol_config=(
            http_protocol_options_pb2.HttpProtocolOptions.UseDownstreamHttpConfig(
                http_protocol_options=_http1(), http2_protocol_options=_http2()
            )
        ),
    )
    cluster: cluster_pb2.Cluster = original_dst_cluster(HTTP_CLUSTER)
    cluster.typed_extension_protocol_options[
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    ].CopyFrom(packed(options))
    # Connections carry the client's address and, for some protocols, its credentials: one
    # client's requests never travel on another's connection.
    cluster.connection_pool_per_downstream_connection = True
    return cluster


def _http1() -> Any:
    preserve = preserve_case_pb2.PreserveCaseFormatterConfig(forward_reason_phrase=True)
    formatter = protocol_pb2.Http1ProtocolOptions.HeaderKeyFormat(
        stateful_formatter=extension("preserve_case", preserve)
    )
    return protocol_pb2.Http1ProtocolOptions(
        accept_http_10=True,
        # HTTP/1.0 knows no Host; Envoy speaks 1.1 upstream, which demands one.
        default_host_for_http_10="localhost",
        header_key_format=formatter,
        enable_trailers=True,
        ignore_http_11_upgrade=[
            string_pb2.StringMatcher(prefix=name, ignore_case=True) for name in IGNORED_UPGRADES
        ],
    )


def _http2() -> Any:
    return protocol_pb2.Http2ProtocolOptions(
        max_concurrent_streams=UInt32Value(value=MAX_STREAMS), allow_connect=True
    )


def _remember_forwarded_proto() -> Any:
    """Envoy adds `x-forwarded-proto` where a client sent none. This runs before it does, and marks
    the requests that came with one; the routes take it away from the others."""
    copy = base_pb2.HeaderValueOption(
        header=base_pb2.HeaderValue(key=_HAD_PROTO, value="%REQ(X-FORWARDED-PROTO)%"),
        append_action=base_pb2.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD,
    )
    return extension(
        "sidegate.remember_forwarded_proto",
        header_mutation_pb2.HeaderMutation(
            mutations=[
                mutation_rules_pb2.HeaderMutation(remove=_HAD_PROTO),
                mutation_rules_pb2.HeaderMutation(append=copy),
            ]
        ),
    )


def _routes() -> Any:
    had_proto = routes.HeaderMatcher(name=_HAD_PROTO, present_match=True)
    return route_pb2.RouteConfiguration(
        name="sidegate-http",
        virtual_hosts=[
            routes.VirtualHost(
                name="all",
                domains=["*"],
                routes=[
                    _route(tunnel, headers, removed)
                    for tunnel in (True, False)
                    for headers, removed in (
                        ([had_proto], [_HAD_PROTO]),
                        ([], ["x-forwarded-proto"]),
                    )
                ],
            )
        ],
    )


def _route(tunnel: bool, headers: list[Any], removed: list[str]) -> Any:
    """CONNECT has no path, so it needs a matcher of its own."""
    match = (
        routes.RouteMatch(connect_matcher=routes.RouteMatch.ConnectMatcher(), headers=headers)
        if tunnel
        else routes.RouteMatch(prefix="", headers=headers)
    )
    action = routes.RouteAction(cluster=HTTP_CLUSTER, timeout=duration(0))
    return routes.Route(match=match, route=action, request_headers_to_remove=removed)
