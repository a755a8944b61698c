"""The module as a filter of an Envoy, in the configuration that EnvoyFilters carry. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from istioctl_patch.names import (
    DIRECTORY,
    MANAGED_BY,
    METADATA,
    PRIORITY,
    ROOT_NAMESPACE,
    TYPE,
)

ROUTER = "envoy.filters.http.router"

# What a chain of upstream filters has to end with.
_CODEC = {
    "name": "envoy.filters.http.upstream_codec",
    "typed_config": {
        "@type": f"{TYPE}/envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec"
    },
}


def listener(direction: str) -> dict[str, Any]:
    """Keeps who connected with the connection. ``direction`` is "ingress" or "egress"."""
    return _filter("listener", "DynamicModuleListenerFilter", "sidegate_peer", direction)


def http(direction: str) -> dict[str, Any]:
    """``direction`` is "ingress", "egress" or "forward"."""
    return _filter("http", "DynamicModuleFilter", "sidegate_http", direction)


def network(direction: str) -> dict[str, Any]:
    """``direction`` is "ingress", "egress" or "forward"."""
    return _filter("network", "DynamicModuleNetworkFilter", "sidegate_kafka", direction)


def before_tcp_proxy(context: str, direction: str) -> dict[str, Any]:
    """A patch of chains that carry bytes unread; ``context`` is EnvoyFilter's."""
    proxy = {"filterChain": {"filter": {"name": "envoy.filters.network.tcp_proxy"}}}
    return {
        "applyTo": "NETWORK_FILTER",
        "match": {"context": context, "listener": proxy},
        "patch": {"operation": "INSERT_BEFORE", "value": network(direction)},
    }


def in_router(context: str, direction: str) -> dict[str, Any]:
    """A patch of the routers of a context.

    Not of clusters: a merge replaces all of a cluster's HTTP options, which say how the other end
    is spoken to (h2 upgrade, server name, idle timeout).
    """
    manager = {"name": "envoy.filters.network.http_connection_manager"}
    chain = {"filter": {**manager, "subFilter": {"name": ROUTER}}}
    return {
        "applyTo": "HTTP_FILTER",
        "match": {"context": context, "listener": {"filterChain": chain}},
        "patch": {"operation": "MERGE", "value": router(direction)},
    }


def router(direction: str) -> dict[str, Any]:
    """What is merged into a router: its upstream filters, which serve every cluster that has none
    of its own. The module is the last of them, so that nothing changes what it judged."""
    return {
        "name": ROUTER,
        "typed_config": {
            "@type": f"{TYPE}/envoy.extensions.filters.http.router.v3.Router",
            "upstream_http_filters": [http(direction), dict(_CODEC)],
        },
    }


def envoy_filter(name: str, patches: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """An EnvoyFilter of ours, for every proxy of the mesh that has the module and that its patches
    match: pods that were injected before Sidegate came, older proxies and plain gateways lack the
    library, and would refuse all of their configuration for it."""
    ours = [
        {**patch, "match": {**patch["match"], "proxy": {"metadata": {METADATA: "true"}}}}
        for patch in patches
    ]
    return {
        "apiVersion": "networking.istio.io/v1alpha3",
        "kind": "EnvoyFilter",
        "metadata": {"name": name, "namespace": ROOT_NAMESPACE, "labels": dict(MANAGED_BY)},
        "spec": {"priority": PRIORITY, "configPatches": ours},
    }


def _filter(kind: str, message: str, name: str, direction: str) -> dict[str, Any]:
    config = {"direction": direction, "directory": DIRECTORY}
    return {
        "name": name,
        "typed_config": {
            "@type": f"{TYPE}/envoy.extensions.filters.{kind}.dynamic_modules.v3.{message}",
            "dynamic_module_config": {
                "name": "sidegate",
                "do_not_close": True,  # it has a thread
                "module": {"local": {"filename": f"{DIRECTORY}/libsidegate.so"}},
            },
            "filter_name": name,
            "filter_config": {
                "@type": f"{TYPE}/google.protobuf.StringValue",
                "value": json.dumps(config),
            },
        },
    }
