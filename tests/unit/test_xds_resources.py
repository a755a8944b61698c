"""Every resource of a node, decoded by envoy-data-plane: another implementation of the messages."""

from __future__ import annotations

from typing import Any

import pytest
from envoy_data_plane.envoy.config.cluster.v3 import Cluster
from envoy_data_plane.envoy.config.listener.v3 import Listener
from envoy_data_plane.envoy.extensions.filters.http.dynamic_modules.v3 import DynamicModuleFilter
from envoy_data_plane.envoy.extensions.filters.listener.dynamic_modules.v3 import (
    DynamicModuleListenerFilter,
)
from envoy_data_plane.envoy.extensions.filters.listener.original_src.v3 import OriginalSrc
from envoy_data_plane.envoy.extensions.filters.network.dynamic_modules.v3 import (
    DynamicModuleNetworkFilter,
)
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import (
    HttpConnectionManager,
)

from policy_engine.model import Parser
from xds_server.listeners import node_resources
from xds_server.resources import CLUSTER_TYPE, LISTENER_TYPE

RESOURCES = node_resources({Parser.HTTP: 15001, Parser.KAFKA: 15002})


def decoded(kind: Any, type_url: str, name: str) -> Any:
    return kind.parse(RESOURCES[type_url][name].SerializeToString())


@pytest.mark.parametrize(
    ("name", "port", "guards", "filters"),
    [
        ("sidegate-http", 15001, ["sidegate_guard"], ["http_connection_manager"]),
        ("sidegate-kafka", 15002, [], ["sidegate_kafka", "tcp_proxy"]),
    ],
)
def test_listeners(name: str, port: int, guards: list[str], filters: list[str]) -> None:
    listener = decoded(Listener, LISTENER_TYPE, name)
    addresses = [listener.address, *(a.address for a in listener.additional_addresses)]
    assert [(a.socket_address.address, a.socket_address.port_value) for a in addresses] == [
        ("127.0.0.1", port),
        ("::1", port),
    ]
    assert listener.transparent
    (mark,) = listener.socket_options
    assert (mark.level, mark.name, mark.int_value, mark.state.name) == (
        1,
        36,
        0xA00,
        "STATE_PREBIND",
    )

    first, peer, last, *others = listener.listener_filters
    assert [each.name for each in others] == guards
    assert first.name == "envoy.filters.listener.original_dst"
    assert peer.typed_config.type_url.endswith("v3.DynamicModuleListenerFilter")
    module = DynamicModuleListenerFilter.parse(peer.typed_config.value)
    assert (module.filter_name, module.dynamic_module_config.name) == ("sidegate_peer", "sidegate")
    assert OriginalSrc.parse(last.typed_config.value).mark == 0x1A00

    (chain,) = listener.filter_chains
    assert [f.name.rpartition(".")[2] for f in chain.filters] == filters
    if filters[0].startswith("sidegate"):
        module = DynamicModuleNetworkFilter.parse(chain.filters[0].typed_config.value)
        assert (module.filter_name, module.dynamic_module_config.name) == (filters[0], "sidegate")


def test_the_module_is_last_before_the_router() -> None:
    listener = decoded(Listener, LISTENER_TYPE, "sidegate-http")
    manager = HttpConnectionManager.parse(listener.filter_chains[0].filters[0].typed_config.value)
    module, router = manager.http_filters
    assert DynamicModuleFilter.parse(module.typed_config.value).filter_name == "sidegate_http"
    assert router.name == "envoy.filters.http.router"


@pytest.mark.parametrize("name", ["sidegate-http", "sidegate-kafka"])
def test_clusters_go_where_the_client_went_without_limits(name: str) -> None:
    cluster = decoded(Cluster, CLUSTER_TYPE, name)
    assert (cluster.type.name, cluster.lb_policy.name) == ("ORIGINAL_DST", "CLUSTER_PROVIDED")
    limits = cluster.circuit_breakers.thresholds
    assert {t.max_connections for t in limits} == {t.max_requests for t in limits} == {2**32 - 1}
    assert cluster.connection_pool_per_downstream_connection == (name == "sidegate-http")


def test_a_parser_without_a_port_has_no_listener() -> None:
    made = node_resources({Parser.HTTP: 15001})
    assert {name for named in made.values() for name in named} == {"sidegate-http"}
