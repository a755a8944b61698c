"""What of a proxy's ``config_dump`` decides where its connections go. Pure.

Source: Envoy's ``envoy.admin.v3.ConfigDump`` (config_dump_shared.proto), as JSON.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Configuration:
    """``listeners`` are those that take connections and those that still have some; clusters and
    routes are by name."""

    listeners: list[Json] = field(default_factory=list)
    clusters: dict[str, Json] = field(default_factory=dict)
    routes: dict[str, Json] = field(default_factory=dict)


def read(dump: Json) -> Configuration:
    """Raises KeyError, TypeError, AttributeError: it is no such dump."""
    found = Configuration()
    for part in dump["configs"]:
        match part["@type"].rpartition(".")[2]:
            case "ListenersConfigDump":
                found.listeners.extend(_listeners(part))
            case "ClustersConfigDump":
                for kind in ("static_clusters", "dynamic_active_clusters"):
                    for each in part.get(kind, ()):
                        found.clusters[each["cluster"]["name"]] = each["cluster"]
            case "RoutesConfigDump":
                for kind in ("static_route_configs", "dynamic_route_configs"):
                    for each in part.get(kind, ()):
                        config = each["route_config"]
                        found.routes[config.get("name", "")] = config
    return found


def chains(listener: Json) -> Iterator[Json]:
    """Also the one for whatever matches no other."""
    yield from listener.get("filter_chains", ())
    if "default_filter_chain" in listener:
        yield listener["default_filter_chain"]


def is_inbound(listener: Json) -> bool:
    """Istio says it of all of its own but the two in the bootstrap, which serve what comes in."""
    return bool(listener.get("traffic_direction") != "OUTBOUND")


def _listeners(part: Json) -> Iterator[Json]:
    for each in part.get("static_listeners", ()):
        yield each["listener"]
    for each in part.get("dynamic_listeners", ()):
        for state in ("active_state", "draining_state"):
            if state in each:
                yield each[state]["listener"]
