"""What the IR becomes in Envoy's words, read by another implementation: envoy-data-plane."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from envoy_data_plane.envoy.config.cluster.v3 import Cluster
from envoy_data_plane.envoy.config.endpoint.v3 import ClusterLoadAssignment
from envoy_data_plane.envoy.config.listener.v3 import Listener
from envoy_data_plane.envoy.config.route.v3 import RouteConfiguration, VirtualHost
from envoy_data_plane.envoy.extensions.transport_sockets.tls.v3 import Secret
from envoy_data_plane.envoy.extensions.upstreams.http.v3 import HttpProtocolOptions

from gateway_translator.ir import Delta
from tests.gateway_catalogue import everything
from xds_server.gateway.ports import PORTS
from xds_server.gateway.render import Renderer
from xds_server.marks import UPSTREAM_MARK
from xds_server.resources import (
    CLUSTER_TYPE,
    ENDPOINT_TYPE,
    LISTENER_TYPE,
    ROUTE_TYPE,
    SECRET_TYPE,
    VIRTUAL_HOST_TYPE,
)

TCP_PROXY = "envoy.filters.network.tcp_proxy"
HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
KINDS = {
    CLUSTER_TYPE: Cluster,
    ENDPOINT_TYPE: ClusterLoadAssignment,
    LISTENER_TYPE: Listener,
    ROUTE_TYPE: RouteConfiguration,
    SECRET_TYPE: Secret,
    VIRTUAL_HOST_TYPE: VirtualHost,
}


@pytest.fixture(scope="module")
def decoded() -> dict[str, dict[str, Any]]:
    rendered = Renderer(("192.0.2.8", "2001:db8::8")).render(everything())
    return {
        type_url: {
            name: KINDS[type_url].parse(message.SerializeToString())
            for name, message in messages.items()
            if message
        }
        for type_url, messages in rendered.items()
    }


def test_each_is_called_as_it_is_asked_for(decoded: dict[str, dict[str, Any]]) -> None:
    assert decoded.keys() == KINDS.keys()
    for type_url, resources in decoded.items():
        for name, resource in resources.items():
            own = resource.cluster_name if type_url == ENDPOINT_TYPE else resource.name
            assert own == name


def test_requests_are_judged_in_their_cluster_and_bytes_by_the_kernel(
    decoded: dict[str, dict[str, Any]],
) -> None:
    """Only what our module judges may have the mark by which the kernel lets it pass."""
    for name, cluster in decoded[CLUSTER_TYPE].items():
        marks = [option.int_value for option in cluster.upstream_bind_config.socket_options]
        options = cluster.typed_extension_protocol_options.get(HTTP_OPTIONS)
        if name in ("gateway/tcp", "gateway/udp"):
            assert (options, marks) == (None, [])
        else:
            found = HttpProtocolOptions.parse(options.value)
            assert [each.name for each in found.http_filters] == [
                "sidegate_gateway",
                "envoy.filters.http.upstream_codec",
            ]
            assert marks == [UPSTREAM_MARK]


MESH = "gateway/mesh/n/all/"
HTTP, BYTES = ["envoy.filters.network.http_connection_manager"], ["sidegate_mesh", TCP_PROXY]


@pytest.mark.parametrize(
    ("name", "chains", "reads"),
    [
        (f"{MESH}80", {"plain": HTTP}, ["sidegate_guard"]),
        (
            f"{MESH}80/for/of-names",
            {"a.test": BYTES, "plain": HTTP},
            ["envoy.filters.listener.tls_inspector"],
        ),
        (f"{MESH}90", {"plain": BYTES}, []),
        (f"{MESH}91/for/consumer", {"plain": HTTP}, ["sidegate_guard"]),
    ],
)
def test_listeners_of_services_know_whose_a_connection_is(
    decoded: dict[str, dict[str, Any]], name: str, chains: dict[str, list[str]], reads: list[str]
) -> None:
    """Bytes are judged there, requests in their cluster; both by what `sidegate_peer` keeps."""
    listener = decoded[LISTENER_TYPE][name]
    found = {c.name: [f.name for f in c.filters] for c in listener.filter_chains}
    assert found == {f"{chain}/{family}": chains[chain] for chain in chains for family in (4, 6)}
    assert [each.name for each in listener.listener_filters] == [
        "envoy.filters.listener.original_dst",
        "sidegate_peer",
        "envoy.filters.listener.original_src",
        *reads,
    ]


def test_endpoints_of_a_service_are_told_apart_by_their_family(
    decoded: dict[str, dict[str, Any]],
) -> None:
    assert decoded[CLUSTER_TYPE]["gateway/mesh"].lb_subset_config is not None
    assert decoded[CLUSTER_TYPE]["gateway/http"].lb_subset_config is None
    (group,) = decoded[ENDPOINT_TYPE]["gateway/mesh"].endpoints
    assert {
        each.endpoint.address.socket_address.address: each.metadata.filter_metadata["envoy.lb"]
        .fields["family"]
        .string_value
        for each in group.lb_endpoints
    } == {"127.0.0.1": "4", "::1": "6"}


def test_each_view_of_a_service_has_a_port_of_its_own(decoded: dict[str, dict[str, Any]]) -> None:
    found = [
        listener.address.socket_address.port_value
        for name, listener in decoded[LISTENER_TYPE].items()
        if name.startswith(MESH)
    ]
    assert sorted(found) == list(PORTS[:4])


def test_a_port_of_the_node_is_one_on_all_of_its_addresses() -> None:
    made = next(iter(everything().listeners.values()))
    assert made
    for addresses in (made.addresses, ()):
        listener = replace(made, addresses=addresses, node_port=30080)
        (message,) = (
            Renderer().render(Delta(listeners={made.name: listener}))[LISTENER_TYPE].values()
        )
        assert message
        found = Listener.parse(message.SerializeToString())
        bound = [found.address, *(each.address for each in found.additional_addresses)]
        sockets = [(b.socket_address.address, b.socket_address.port_value) for b in bound]
        assert sockets == [
            *((address, made.port) for address in addresses),
            ("0.0.0.0", 30080),
            ("::", 30080),
        ]


def test_backends_see_the_addresses_of_the_ingress(decoded: dict[str, dict[str, Any]]) -> None:
    for cluster in decoded[CLUSTER_TYPE].values():
        bind = cluster.upstream_bind_config
        extra = [each.address.address for each in bind.extra_source_addresses]
        assert [bind.source_address.address, *extra] == ["192.0.2.8", "2001:db8::8"]


@pytest.mark.parametrize(
    ("route", "path", "rewritten"),
    [
        ("rewrite", "^/.*$", "/a\\\\1"),
        ("rewrite-prefix", None, "/p"),
        ("redirect", "^/.*$", "/to"),
        ("redirect-prefix", None, "/to"),
    ],
)
def test_paths(
    decoded: dict[str, dict[str, Any]], route: str, path: str | None, rewritten: str
) -> None:
    host = decoded[VIRTUAL_HOST_TYPE]["gateway/n/all/80/*"]
    found = next(each for each in host.routes if each.name == route)
    action = found.redirect or found.route
    if path is None:
        assert action.prefix_rewrite == rewritten
    else:
        assert action.regex_rewrite.pattern.regex == path
        assert action.regex_rewrite.substitution == rewritten


def test_what_is_gone_is_said_so() -> None:
    renderer, made = Renderer(), everything()
    first = renderer.render(made)
    gone = renderer.render(
        Delta(
            **{
                name: dict.fromkeys(getattr(made, name))
                for name in ("listeners", "tables", "virtual_hosts", "clusters", "endpoints",
                             "certificates", "trust", "mesh")
            }
        )
    )  # fmt: skip
    assert {t: dict.fromkeys(resources) for t, resources in first.items()} == gone


def test_a_listener_without_an_address_is_none() -> None:
    made = everything()
    (name, listener), *_ = made.listeners.items()
    assert listener
    renderer = Renderer()
    renderer.render(Delta(listeners={name: listener}))
    unbound = type(listener)(
        name, listener.gateway, (), listener.port, listener.transport, listener.chains
    )
    changes = renderer.render(Delta(listeners={name: unbound}))
    assert changes[LISTENER_TYPE] == {f"gateway/{name}": None}
