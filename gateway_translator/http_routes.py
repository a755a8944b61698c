"""An HTTPRoute or GRPCRoute to routes of a virtual host, by itself."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gateway_translator.backends import BackendResolver, Use
from gateway_translator.compiled import (
    CompiledRoute,
    InvalidRuleError,
    Precedence,
    Variant,
    resolved_refs,
    rule_conditions,
)
from gateway_translator.durations import seconds
from gateway_translator.ir import (
    Backends,
    HttpAction,
    HttpMatch,
    HttpRoute,
    InvalidIRError,
    ObjectRef,
    PathKind,
    Retry,
    SessionPersistence,
    Timeouts,
    WeightedBackend,
)
from gateway_translator.regexes import RegexError
from gateway_translator.resources import routes
from gateway_translator.route_filters import actions
from gateway_translator.route_matches import (
    grpc_match,
    grpc_precedence,
    http_match,
    http_precedence,
)
from gateway_translator.world import Reader

_BACKEND_FILTERS = frozenset({"RequestHeaderModifier", "ResponseHeaderModifier", "URLRewrite"})
_ANSWERS_500 = HttpAction()


def compile_http(
    route: routes.HttpRoute | routes.GrpcRoute, reader: Reader, variant: Variant, regex: RegexError
) -> CompiledRoute:
    """A rule that cannot be served answers 500, so that none of lower precedence takes its place.

    Only where its matches themselves are wrong it is left out.
    """
    backends = BackendResolver(
        route.key,
        reader,
        variant.client_certificate,
        mesh=route.spec.services(route.namespace) if variant.mesh else None,
    )
    use: Use = "grpc" if isinstance(route, routes.GrpcRoute) else "http"
    entries: list[tuple[Precedence, HttpRoute]] = []
    problems: list[tuple[int, InvalidRuleError]] = []
    rules: tuple[routes.HttpRouteRule | routes.GrpcRouteRule, ...] = route.spec.rules
    for number, rule in enumerate(rules):
        section = rule.name or str(number)
        try:
            if refusal := reader.refusal(route.key, section):
                raise InvalidRuleError(f"the proxy refuses it: {refusal}")  # noqa: TRY301
            matches = _matches(rule, regex)
        except InvalidRuleError as error:
            problems.append((number, error))
            continue
        try:
            action = _action(rule, backends, variant, use, [match for _, match in matches])
        except InvalidRuleError as error:
            problems.append((number, error))
            action = _ANSWERS_500
        origin = ObjectRef(*route.key, section)
        name = f"{use}/{route.namespace}/{route.name}/{number}"
        for index, (precedence, match) in enumerate(matches):
            key = (*precedence, *route.age, use, number, index)
            entries.append((key, HttpRoute(f"{name}/{index}", origin, match, action)))
    accepted, partially = rule_conditions(problems, len(rules))
    return CompiledRoute(
        route.key,
        route.age,
        route.spec.hostnames,
        tuple(entries),
        clusters=backends.clusters,
        bundles=backends.bundles,
        resolved=resolved_refs(backends.problems),
        accepted=accepted,
        partially=partially,
        uses_tls=backends.uses_tls,
        uses_port=_uses_port(route),
    )


def _matches(
    rule: routes.HttpRouteRule | routes.GrpcRouteRule, regex: RegexError
) -> list[tuple[Precedence, HttpMatch]]:
    if isinstance(rule, routes.GrpcRouteRule):
        return [
            (grpc_precedence(spec), grpc_match(spec, regex))
            for spec in rule.matches or (routes.GrpcRouteMatch(),)
        ]
    found = [http_match(spec, regex) for spec in rule.matches or (routes.HttpRouteMatch(),)]
    return [(http_precedence(match), match) for match in found]


def _action(
    rule: routes.HttpRouteRule | routes.GrpcRouteRule,
    backends: BackendResolver,
    variant: Variant,
    use: Use,
    matches: list[HttpMatch],
) -> HttpAction:
    fields = actions(rule.filters, backends, variant, use)
    _check_prefixes(fields, matches)
    if "redirect" not in fields:
        fields["backends"] = _weighted(rule.backend_refs, backends, variant, use)
    try:
        if isinstance(rule, routes.HttpRouteRule):
            fields.update(_http_only(rule))
        if rule.session_persistence is not None:
            fields["session"] = _session(rule.session_persistence, matches)
    except ValueError as error:
        raise InvalidRuleError(str(error)) from error
    try:
        return HttpAction(**fields)
    except InvalidIRError as error:
        raise InvalidRuleError(str(error)) from error


def _http_only(rule: routes.HttpRouteRule) -> dict[str, Any]:
    """Raises ValueError."""
    found: dict[str, Any] = {}
    if rule.timeouts is not None:
        request, backend = seconds(rule.timeouts.request), seconds(rule.timeouts.backend_request)
        if request and backend and backend > request:
            raise ValueError("timeouts: backendRequest is longer than request")
        found["timeouts"] = Timeouts(request, backend)
    if rule.retry is not None:
        found["retry"] = Retry(rule.retry.codes, rule.retry.attempts, seconds(rule.retry.backoff))
    return found


def _session(spec: routes.Session, matches: list[HttpMatch]) -> SessionPersistence:
    """A cookie is for the prefix if the rule has one prefix alone. Raises ValueError."""
    if spec.type not in {"Cookie", "Header"}:
        raise ValueError(f"sessionPersistence: type {spec.type!r} is neither Cookie nor Header")
    lifetime = seconds(spec.absolute_timeout)
    permanent = bool(spec.cookie_config) and spec.cookie_config.lifetime_type == "Permanent"  # type: ignore[union-attr]
    if permanent and lifetime is None:
        raise ValueError("sessionPersistence: a Permanent cookie needs absoluteTimeout")
    path = matches[0].path if len(matches) == 1 else None
    return SessionPersistence(
        spec.session_name or "sidegate-session",
        spec.type == "Header",
        lifetime,
        permanent,
        path.value if path and path.kind is PathKind.PREFIX else "/",
    )


def _weighted(
    refs: Iterable[routes.FilteredBackend], backends: BackendResolver, variant: Variant, use: Use
) -> Backends:
    valid: list[WeightedBackend] = []
    invalid = 0
    for ref in refs:
        cluster = backends.cluster(ref, use)
        if others := {each.type for each in ref.filters} - _BACKEND_FILTERS:
            raise InvalidRuleError(f"filters of one backend: {', '.join(sorted(others))}")
        if cluster is None:
            invalid += ref.weight
        elif ref.weight:
            changes = actions(ref.filters, backends, variant, use)
            valid.append(WeightedBackend(cluster, ref.weight, **changes))
    return Backends(tuple(valid), invalid)


def _check_prefixes(fields: dict[str, Any], matches: list[HttpMatch]) -> None:
    """A prefix can be replaced only where each match is one."""
    for name in ("redirect", "rewrite"):
        path = fields[name].path if name in fields else None
        if path is None or path.prefix is None:
            continue
        if any(match.path.kind is not PathKind.PREFIX for match in matches):
            raise InvalidRuleError(f"{name}: ReplacePrefixMatch needs matches of type PathPrefix")


def _uses_port(route: routes.HttpRoute | routes.GrpcRoute) -> bool:
    return any(
        each.request_redirect is not None and not each.request_redirect.scheme
        for rule in route.spec.rules
        for each in rule.filters
    )
