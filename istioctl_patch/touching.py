"""Patches of an EnvoyFilter that take away, or pass, what ours put into a proxy. Pure.

One table, read in two ways: ``analyze`` evaluates it, and the API server does, as CEL
(``admission``). It names what is plain from one patch; of the rest the proxy's own configuration
tells (docs/adr/0015).
Source: Istio's reference of EnvoyFilter. istiod applies REMOVE and REPLACE of filters only where
the match names one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from istioctl_patch.conditions import Begins, Condition, OneOf, Path, Present
from istioctl_patch.module_filter import ROUTER
from istioctl_patch.names import HTTP_OPTIONS

_TO, _OPERATION = ("applyTo",), ("patch", "operation")
_FILTER: Path = ("match", "listener", "filterChain", "filter", "name")
_SUBFILTER: Path = (*_FILTER[:-1], "subFilter", "name")
_OPTIONS: Path = ("patch", "value", "typed_extension_protocol_options")
_PREFIX = "sidegate"
_TCP_PROXY = "envoy.filters.network.tcp_proxy"
_MANAGER = "envoy.filters.network.http_connection_manager"


@dataclass(frozen=True, slots=True)
class Touch:
    """``what`` a patch does for which all conditions hold, and what to do ``instead``."""

    what: str
    instead: str
    conditions: tuple[Condition, ...]

    def holds(self, patch: Mapping[str, Any]) -> bool:
        return all(each.holds(patch) for each in self.conditions)

    def cel(self) -> str:
        return " && ".join(each.cel() for each in self.conditions)


_TAKES_OUT = OneOf(_OPERATION, ("REMOVE", "REPLACE"))

TOUCHES = (
    Touch(
        "names a filter of Sidegate",
        "leave filters whose names begin with sidegate alone",
        (
            Begins(
                _PREFIX,
                (
                    _FILTER,
                    _SUBFILTER,
                    ("match", "listener", "listenerFilter"),
                    ("patch", "value", "name"),
                ),
                (("patch", "value", "typed_per_filter_config"),),
            ),
        ),
    ),
    Touch(
        "removes a listener or a filter chain that Sidegate patches",
        "give the Service or the Sidecar resource fewer ports",
        (OneOf(_TO, ("LISTENER", "FILTER_CHAIN")), OneOf(_OPERATION, ("REMOVE",))),
    ),
    Touch(
        "takes out the network filter that Sidegate's goes with",
        "MERGE into it",
        (OneOf(_TO, ("NETWORK_FILTER",)), _TAKES_OUT, OneOf(_FILTER, (_TCP_PROXY, _MANAGER))),
    ),
    Touch(
        "comes between Sidegate's network filter and tcp_proxy",
        "use operation INSERT_FIRST",
        (
            OneOf(_TO, ("NETWORK_FILTER",)),
            OneOf(_OPERATION, ("INSERT_BEFORE",)),
            OneOf(_FILTER, (_TCP_PROXY,)),
        ),
    ),
    Touch(
        "takes out the router, which has Sidegate's filter",
        "MERGE into it",
        (OneOf(_TO, ("HTTP_FILTER",)), _TAKES_OUT, OneOf(_SUBFILTER, (ROUTER,))),
    ),
    Touch(
        "writes upstream_http_filters, where Sidegate's filter is",
        "put the filter before the router",
        (
            OneOf(_TO, ("HTTP_FILTER",)),
            OneOf(_OPERATION, ("MERGE",)),
            Present(("patch", "value", "typed_config", "upstream_http_filters")),
        ),
    ),
    Touch(
        "gives a cluster http_filters, which pass Sidegate's",
        "put the filter before the router",
        (OneOf(_TO, ("CLUSTER",)), Present((*_OPTIONS, HTTP_OPTIONS, "http_filters"))),
    ),
)


def touched(patch: Mapping[str, Any]) -> Touch | None:
    """The first that holds of one of ``spec.configPatches``."""
    return next((each for each in TOUCHES if each.holds(patch)), None)
