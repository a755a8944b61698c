"""Clusters and their endpoints."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Any

from envoy.config.cluster.v3 import circuit_breaker_pb2, cluster_pb2
from envoy.config.core.v3 import address_pb2, base_pb2, protocol_pb2
from envoy.config.endpoint.v3 import endpoint_components_pb2, endpoint_pb2
from envoy.extensions.filters.http.upstream_codec.v3 import upstream_codec_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2 as hcm,
)
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2
from google.protobuf.message import Message

from gateway_translator.ir import Cluster, EndpointSet, Protocol
from xds_server.gateway import tls
from xds_server.gateway.names import BALANCED, FAMILY, ads, named
from xds_server.marks import UPSTREAM_MARK, marked
from xds_server.original_dst import unlimited
from xds_server.resources import duration, module_filter, packed

_CONNECT_SECONDS = 10
_CACHED_AFTER_SECONDS = 1
"""A cluster that changed is not sent its endpoints again: it has what Envoy keeps after this."""
_ENDPOINTS_KEPT = 16_384
_BY_FAMILY = cluster_pb2.Cluster.LbSubsetConfig(
    # Requests of Envoy's own, mirrored ones for instance, are of no family.
    fallback_policy=cluster_pb2.Cluster.LbSubsetConfig.ANY_ENDPOINT,
    subset_selectors=[cluster_pb2.Cluster.LbSubsetConfig.LbSubsetSelector(keys=[FAMILY])],
)
_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def cluster(made: Cluster, sources: Sequence[str] = ()) -> Message:
    """``sources``: addresses, one of a family, that backends see; empty: the node's own.

    Policy of the backend is judged by our module in the cluster itself where it is HTTP, mirrored
    requests and those for authorization too, and its packets pass the kernel, marked as judged. The
    rest is the kernel's, by the source address.
    """
    result: Any = cluster_pb2.Cluster(
        name=named(made.name),
        type=cluster_pb2.Cluster.EDS,
        eds_cluster_config=cluster_pb2.Cluster.EdsClusterConfig(
            eds_config=ads(_CACHED_AFTER_SECONDS), service_name=named(made.endpoints)
        ),
        connect_timeout=duration(_CONNECT_SECONDS),
        lb_policy=cluster_pb2.Cluster.LEAST_REQUEST,
        circuit_breakers=circuit_breaker_pb2.CircuitBreakers(thresholds=unlimited()),
    )
    if made.transparent:
        result.lb_subset_config.CopyFrom(_BY_FAMILY)
    if made.tls:
        result.transport_socket.CopyFrom(tls.upstream(made.tls, made.protocol))
    if made.protocol not in (Protocol.TCP, Protocol.UDP):
        result.typed_extension_protocol_options[_OPTIONS].CopyFrom(_protocol(made.protocol))
        result.upstream_bind_config.socket_options.append(marked(UPSTREAM_MARK))
    if sources:
        first, *others = (address(each, 0).socket_address for each in sources)
        result.upstream_bind_config.source_address.CopyFrom(first)
        for each in others:
            result.upstream_bind_config.extra_source_addresses.add(address=each)
    message: Message = result
    return message


def endpoints(made: EndpointSet) -> Message:
    # Repeated fields that follow each other on the wire are one list.
    group = endpoint_components_pb2.LocalityLbEndpoints.FromString(
        b"".join(_endpoint(each.address, each.port, made.transparent) for each in made.endpoints())
    )
    assignment: Message = endpoint_pb2.ClusterLoadAssignment(
        cluster_name=named(made.name), endpoints=[group]
    )
    return assignment


@functools.lru_cache(maxsize=_ENDPOINTS_KEPT)
def _endpoint(text: str, port: int, transparent: bool) -> bytes:
    """A group with it alone: of a thousand endpoints of which one changes the others are ready."""
    endpoint = endpoint_components_pb2.Endpoint(address=address(text, port))
    metadata = of_family(ip_address(text).version) if transparent else None
    alone = endpoint_components_pb2.LbEndpoint(endpoint=endpoint, metadata=metadata)
    group = endpoint_components_pb2.LocalityLbEndpoints(lb_endpoints=[alone])
    return bytes(group.SerializeToString(deterministic=True))


def of_family(version: int) -> Any:
    """Metadata of endpoints, and of whoever is to get such ones alone. ``version``: of IP."""
    result = base_pb2.Metadata()
    result.filter_metadata[BALANCED].update({FAMILY: str(version)})
    return result


def address(text: str, port: int, udp: bool = False) -> Any:
    kind = address_pb2.SocketAddress.UDP if udp else address_pb2.SocketAddress.TCP
    return address_pb2.Address(
        socket_address=address_pb2.SocketAddress(protocol=kind, address=text, port_value=port)
    )


def _protocol(protocol: Protocol) -> Any:
    explicit = http_protocol_options_pb2.HttpProtocolOptions.ExplicitHttpConfig()
    if protocol is Protocol.HTTP2:
        explicit.http2_protocol_options.CopyFrom(protocol_pb2.Http2ProtocolOptions())
    else:
        explicit.http_protocol_options.CopyFrom(
            protocol_pb2.Http1ProtocolOptions(enable_trailers=True)
        )
    judge = hcm.HttpFilter(
        name="sidegate_gateway", typed_config=module_filter("http", "sidegate_gateway")
    )
    codec = hcm.HttpFilter(
        name="envoy.filters.http.upstream_codec",
        typed_config=packed(upstream_codec_pb2.UpstreamCodec()),
    )
    return packed(
        http_protocol_options_pb2.HttpProtocolOptions(
            explicit_http_config=explicit, http_filters=[judge, codec]
        )
    )
