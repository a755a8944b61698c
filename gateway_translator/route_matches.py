"""Matches of HTTPRoutes and GRPCRoutes, and which is tried before which.

Source: HTTPRouteRule.matches and GRPCRouteRule.matches, "precedence".
"""

from __future__ import annotations

from collections.abc import Iterable

from gateway_translator.compiled import InvalidRuleError, Precedence
from gateway_translator.ir import HttpMatch, PathKind, PathMatch, ValueMatch
from gateway_translator.regexes import RegexError
from gateway_translator.resources import routes

_KINDS = {
    "Exact": PathKind.EXACT,
    "PathPrefix": PathKind.PREFIX,
    "RegularExpression": PathKind.REGEX,
}
_RANKS = {PathKind.EXACT: 0, PathKind.REGEX: 1, PathKind.PREFIX: 2, PathKind.STRING_PREFIX: 2}
_NAME = "[^/]+"


def http_match(spec: routes.HttpRouteMatch, regex: RegexError) -> HttpMatch:
    """Raises InvalidRuleError."""
    path = spec.path or routes.PathMatch()
    kind = _KINDS.get(path.type)
    if kind is None:
        raise InvalidRuleError(f"path type {path.type!r} is not known")
    value = path.value
    if kind is PathKind.REGEX:
        _check_regex(value, "path", regex)
    elif not value.startswith("/"):
        raise InvalidRuleError(f"path {value!r} does not begin with /")
    if kind is PathKind.PREFIX:
        value = value.rstrip("/") or "/"
    return HttpMatch(
        PathMatch(kind, value),
        spec.method,
        _values(spec.headers, "header", regex, lower=True),
        _values(spec.query_params, "query parameter", regex, lower=False),
    )


def http_precedence(match: HttpMatch) -> Precedence:
    """Exact paths, then expressions, then prefixes, each by length; method, headers, query."""
    return (
        _RANKS[match.path.kind],
        -len(match.path.value),
        0 if match.method else 1,
        -len(match.headers),
        -len(match.query),
    )


def grpc_match(spec: routes.GrpcRouteMatch, regex: RegexError) -> HttpMatch:
    """Raises InvalidRuleError."""
    headers = _values(spec.headers, "header", regex, lower=True)
    method = spec.method or routes.GrpcMethod()
    if not method.service and not method.method:
        return HttpMatch(headers=headers, grpc=True)
    if method.type == "Exact" and method.service:
        path = (
            PathMatch(PathKind.EXACT, f"/{method.service}/{method.method}")
            if method.method
            else PathMatch(PathKind.PREFIX, f"/{method.service}")
        )
    elif method.type == "Exact":
        path = PathMatch(PathKind.REGEX, f"/{_NAME}/{method.method}")
    elif method.type == "RegularExpression":
        for part in (method.service, method.method):
            _check_regex(part, "method", regex)
        service, name = (f"(?:{p})" if p else _NAME for p in (method.service, method.method))
        path = PathMatch(PathKind.REGEX, f"/{service}/{name}")
    else:
        raise InvalidRuleError(f"method type {method.type!r} is not known")
    return HttpMatch(path, headers=headers, grpc=True)


def grpc_precedence(spec: routes.GrpcRouteMatch) -> Precedence:
    """Characters of the service, then of the method, then headers."""
    method = spec.method or routes.GrpcMethod()
    return (0, -len(method.service), -len(method.method), -len(spec.headers), 0)


def _values(
    specs: Iterable[routes.NamedMatch], what: str, regex: RegexError, lower: bool
) -> tuple[ValueMatch, ...]:
    """Of several for one name only the first counts."""
    found: dict[str, ValueMatch] = {}
    for each in specs:
        name = each.name.lower() if lower else each.name
        if each.type == "RegularExpression":
            _check_regex(each.value, f"{what} {each.name}", regex)
        elif each.type != "Exact":
            raise InvalidRuleError(f"{what} {each.name}: match type {each.type!r} is not known")
        found.setdefault(name, ValueMatch(name, each.value, each.type != "Exact"))
    return tuple(found.values())


def _check_regex(expression: str, what: str, regex: RegexError) -> None:
    if problem := regex(expression):
        raise InvalidRuleError(f"{what}: {expression!r} is no regular expression: {problem}")
