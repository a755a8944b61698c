"""How our filter looks in a proxy's configuration, and where it has to be. Pure.

The overlay puts it there (istioctl_patch); a unit test holds the two together.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

HTTP, NETWORK = "sidegate_http", "sidegate_kafka"
DIRECTORY = "/var/run/sidegate"
_LIBRARY = f"{DIRECTORY}/libsidegate.so"
CODEC = "envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec"
_TYPES = {
    HTTP: "envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilter",
    NETWORK: "envoy.extensions.filters.network.dynamic_modules.v3.DynamicModuleNetworkFilter",
}


def type_of(configured: Mapping[str, Any]) -> str:
    """The message of an extension's configuration, without the prefix of its URL."""
    return str(configured.get("typed_config", {}).get("@type", "")).rpartition("/")[2]


def is_ours(configured: Mapping[str, Any], name: str, side: str) -> bool:
    """Whether it is our filter as our overlay writes it: nothing of it is anybody's choice.
    ``side`` is "ingress", "egress" or "forward"."""
    if configured.get("disabled") or type_of(configured) != _TYPES[name]:
        return False
    config = configured["typed_config"]
    module = config.get("dynamic_module_config", {}).get("module", {})
    try:
        told = json.loads(config["filter_config"]["value"])
    except (KeyError, TypeError, ValueError):
        return False
    return (
        bool(config.get("filter_name") == name)
        and module.get("local", {}).get("filename") == _LIBRARY
        and told == {"direction": side, "directory": DIRECTORY}
    )


def judges_requests(upstream: Sequence[Mapping[str, Any]], side: str) -> bool:
    """Upstream HTTP filters: ours is the last before the codec, so nothing changes what it saw."""
    return (
        len(upstream) > 1 and type_of(upstream[-1]) == CODEC and is_ours(upstream[-2], HTTP, side)
    )


def judges_bytes(before: Sequence[Mapping[str, Any]], side: str) -> bool:
    """Network filters of a chain before ``tcp_proxy``: ours is the last of them."""
    return bool(before) and is_ours(before[-1], NETWORK, side)
