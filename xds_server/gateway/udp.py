"""Datagrams to backends."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from typing import Any

from envoy.config.core.v3 import base_pb2
from envoy.config.listener.v3 import listener_components_pb2 as components
from envoy.extensions.filters.udp.udp_proxy.v3 import route_pb2, udp_proxy_pb2
from envoy.extensions.matching.common_inputs.network.v3 import network_inputs_pb2
from envoy.extensions.matching.input_matchers.runtime_fraction.v3 import runtime_fraction_pb2
from envoy.type.v3 import percent_pb2
from xds.core.v3 import extension_pb2
from xds.type.matcher.v3 import matcher_pb2

from gateway_translator.ir import Backends, Forward, Listener
from xds_server.gateway.names import NOWHERE, named
from xds_server.resources import packed

_MILLION = 1_000_000
_LIST = matcher_pb2.Matcher.MatcherList


def udp_filter(made: Listener) -> Any:
    """A session (addresses and ports of both ends) keeps the cluster that it began with."""
    handler = made.chains[0].handler
    assert isinstance(handler, Forward)
    proxy = udp_proxy_pb2.UdpProxyConfig(
        stat_prefix=named(made.name), matcher=_choice(handler.backends)
    )
    return components.ListenerFilter(
        name="envoy.filters.udp_listener.udp_proxy", typed_config=packed(proxy)
    )


def _choice(backends: Backends) -> Any:
    """Envoy knows no weighted clusters of datagrams: the client's port is hashed to one of a
    million parts, of which each cluster has its share; the last has what is left."""
    *others, last = _shares(backends)
    total = sum(weight for _, weight in others) + last[1]
    matcher = matcher_pb2.Matcher(on_no_match=_to(last[0]))
    upto = accumulate(weight for _, weight in others)
    for (cluster, _), weight in zip(others, upto, strict=True):
        below = _LIST.Predicate(single_predicate=_below(weight * _MILLION // total))
        matcher.matcher_list.matchers.add(predicate=below, on_match=_to(cluster))
    return matcher


def _shares(backends: Backends) -> Iterator[tuple[str, int]]:
    """At least one. What refers to nothing leads to a cluster that is never there: dropped."""
    for each in backends.valid:
        yield named(each.cluster), each.weight
    if backends.invalid_weight or not backends.valid:
        yield NOWHERE, backends.invalid_weight


def _to(cluster: str) -> Any:
    action = _extension("route", route_pb2.Route(cluster=cluster))
    return matcher_pb2.Matcher.OnMatch(action=action)


def _below(part: int) -> Any:
    """Of the hash, which is the same in all predicates: their seeds are."""
    fraction = percent_pb2.FractionalPercent(
        numerator=part, denominator=percent_pb2.FractionalPercent.MILLION
    )
    matcher = runtime_fraction_pb2.RuntimeFraction(
        runtime_fraction=base_pb2.RuntimeFractionalPercent(default_value=fraction)
    )
    return _LIST.Predicate.SinglePredicate(
        input=_extension("port", network_inputs_pb2.SourcePortInput()),
        custom_match=_extension("share", matcher),
    )


def _extension(name: str, config: Any) -> Any:
    return extension_pb2.TypedExtensionConfig(name=name, typed_config=packed(config))
