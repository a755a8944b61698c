"""Which requests a route takes."""

from __future__ import annotations

import re
from typing import Any

from envoy.config.route.v3 import route_components_pb2 as routes

from gateway_translator.ir import HttpMatch, PathKind, PathMatch
from xds_server.gateway.names import regex, string


def route_match(match: HttpMatch) -> Any:
    result = routes.RouteMatch(
        headers=[
            routes.HeaderMatcher(name=each.name, string_match=string(each.value, each.regex))
            for each in match.headers
        ],
        query_parameters=[
            routes.QueryParameterMatcher(
                name=each.name, string_match=string(each.value, each.regex)
            )
            for each in match.query
        ],
    )
    if match.method:
        result.headers.append(
            routes.HeaderMatcher(name=":method", string_match=string(match.method))
        )
    if match.grpc:
        result.grpc.SetInParent()
    _path(match.path, result)
    return result


def _path(path: PathMatch, result: Any) -> None:
    match path.kind:
        case PathKind.EXACT:
            result.path = path.value
        case PathKind.REGEX:
            result.safe_regex.CopyFrom(regex(path.value))
        case PathKind.PREFIX if path.value == "/":
            result.prefix = "/"
        case PathKind.PREFIX if "?" in path.value or "#" in path.value:
            # Envoy refuses those in a prefix, though no path has them: nothing matches.
            result.safe_regex.CopyFrom(regex(re.escape(path.value) + "(/.*)?"))
        case PathKind.PREFIX:
            result.path_separated_prefix = path.value
        case PathKind.STRING_PREFIX:
            result.prefix = path.value
