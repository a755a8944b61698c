"""How things of the IR are called in Envoy, apart from what else the node's Envoy has."""

from __future__ import annotations

from typing import Any

from envoy.config.core.v3 import config_source_pb2
from envoy.type.matcher.v3 import regex_pb2, string_pb2

from xds_server.resources import duration

PREFIX = "gateway/"
# Envoy balances by metadata of this name.
BALANCED, FAMILY = "envoy.lb", "family"
# A cluster that is never there: what is sent to it is answered as what refers to nothing.
NOWHERE = f"{PREFIX}nowhere"


def named(name: str) -> str:
    return PREFIX + name


def virtual_host_name(table: str, hostname: str) -> str:
    """Envoy reads the route configuration before the last slash; hostnames have none."""
    return f"{named(table)}/{hostname}"


def ads(wait_seconds: float | None = None) -> Any:
    """From the stream that everything comes by; waits for the first answer, 15 s unless given."""
    source = config_source_pb2.ConfigSource(
        ads=config_source_pb2.AggregatedConfigSource(),
        resource_api_version=config_source_pb2.ApiVersion.Value("V3"),
    )
    if wait_seconds is not None:
        source.initial_fetch_timeout.CopyFrom(duration(wait_seconds))
    return source


def regex(pattern: str) -> Any:
    """Of RE2, against the whole value."""
    return regex_pb2.RegexMatcher(regex=pattern)


def string(value: str, is_regex: bool = False) -> Any:
    if is_regex:
        return string_pb2.StringMatcher(safe_regex=regex(value))
    return string_pb2.StringMatcher(exact=value)
