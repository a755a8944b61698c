"""What of a proxy's ``config_dump`` decides where its connections go. Pure.

Source: Envoy's ``envoy.admin.v3.ConfigDump`` (config_dump_shared.proto), as JSON.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

Json = Mapping[str, Any]

# What Istio's connections to the application come from, besides 127.0.0.6; istio-init puts it on
# the loopback interface.
_NOBODYS = "::6"


@dataclass(frozen=True, slots=True)
class Configuration:
    """``listeners`` are those that take connections and those that still have some; clusters and
    routes are by name; ``node`` is who Istio says that it is (``sidecar~ADDRESS~POD~DOMAIN``)."""

    node: list[str] = field(default_factory=list)
    listeners: list[Json] = field(default_factory=list)
    clusters: dict[str, Json] = field(default_factory=dict)
    routes: dict[str, Json] = field(default_factory=dict)


def read(dump: Json) -> Configuration:
    """Raises KeyError, TypeError, AttributeError: it is no such dump."""
    found = Configuration()
    for part in dump["configs"]:
        match part["@type"].rpartition(".")[2]:
            case "BootstrapConfigDump":
                found.node.extend(part["bootstrap"]["node"]["id"].split("~"))
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


def is_gateway(config: Configuration) -> bool:
    """One of Istio's: what it sends is its own, and nothing that comes to it is caught."""
    return config.node[:1] == ["router"]


def is_inbound(listener: Json) -> bool:
    """Istio says it of all of its own but the two in the bootstrap, which serve what comes in."""
    return bool(listener.get("traffic_direction") != "OUTBOUND")


def stays(config: Configuration, cluster: Json) -> bool:
    """Whether its connections end in the pod: each endpoint is there, or nobody else could answer
    the addresses that they are made from."""
    if cluster.get("type") == "STATIC":
        return all(
            "pipe" in each or _address(each) in config.node[1:2] or _is_loopback(_address(each))
            for each in _endpoints(cluster)
        )
    bind = cluster.get("upstream_bind_config", {})
    sources = [bind.get("source_address", {})]
    sources += [each["address"] for each in bind.get("extra_source_addresses", ())]
    return all(_is_loopback(each.get("address", "")) for each in sources)


def ports_of_endpoints(cluster: Json) -> Iterator[int]:
    """Of one that has them in its own configuration; 0 for what has none."""
    for address in _endpoints(cluster):
        yield address.get("socket_address", {}).get("port_value", 0)


def _endpoints(cluster: Json) -> Iterator[Json]:
    for group in cluster.get("load_assignment", {}).get("endpoints", ()):
        for each in group.get("lb_endpoints", ()):
            yield each["endpoint"]["address"]


def _address(address: Json) -> str:
    return str(address.get("socket_address", {}).get("address", ""))


def _is_loopback(text: str) -> bool:
    return text == _NOBODYS or (text != "" and ip_address(text).is_loopback)


def _listeners(part: Json) -> Iterator[Json]:
    for each in part.get("static_listeners", ()):
        yield each["listener"]
    for each in part.get("dynamic_listeners", ()):
        for state in ("active_state", "draining_state"):
            if state in each:
                yield each[state]["listener"]
