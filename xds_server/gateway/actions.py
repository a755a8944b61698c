"""What is done with a request that a route took."""

from __future__ import annotations

from typing import Any

from envoy.config.core.v3 import base_pb2
from envoy.config.route.v3 import route_components_pb2 as routes
from envoy.type.v3 import percent_pb2
from google.protobuf.wrappers_pb2 import BoolValue, UInt32Value

from gateway_translator.ir import (
    Backends,
    HttpAction,
    HttpRoute,
    Mirror,
    PathMatch,
    Redirect,
    Retry,
    Rewrite,
)
from xds_server.gateway.filters import turn_on
from xds_server.gateway.headers import change_request, change_response, host_of
from xds_server.gateway.matches import route_match
from xds_server.gateway.names import NOWHERE, named
from xds_server.gateway.paths import change_path
from xds_server.resources import duration

_MILLION = 1_000_000
_REDIRECTS = {301: 0, 302: 1, 303: 2, 307: 3, 308: 4}  # RedirectAction.RedirectResponseCode
# With a given status alone a failure to connect would be the client's (HTTPRouteRetry).
_RETRY_ON = "connect-failure,refused-stream,reset,retriable-status-codes"


def route(made: HttpRoute) -> Any:
    action = made.action
    result = routes.Route(name=made.name, match=route_match(made.match))
    if action.redirect:
        result.redirect.CopyFrom(_redirect(action.redirect, made.match.path))
    elif not action.backends.valid:
        # 503 is UNAVAILABLE in gRPC.
        result.direct_response.status = 503 if made.match.grpc else 500
    else:
        result.route.CopyFrom(_forward(made))
        change_request(result, action.request_headers)
    change_response(result, action.response_headers)
    turn_on(result, action)
    return result


def answer(status: int) -> Any:
    """Every request that comes so far."""
    return routes.Route(
        match=routes.RouteMatch(prefix="/"),
        direct_response=routes.DirectResponseAction(status=status),
    )


def _redirect(redirect: Redirect, path: PathMatch) -> Any:
    result = routes.RedirectAction(
        host_redirect=redirect.hostname,
        port_redirect=redirect.port,
        response_code=_REDIRECTS[redirect.status],
    )
    if redirect.scheme:
        result.scheme_redirect = redirect.scheme
    if redirect.path:
        change_path(result, redirect.path, path)
    return result


def _forward(made: HttpRoute) -> Any:
    action, timeouts = made.action, made.action.timeouts
    result = routes.RouteAction(
        timeout=duration(timeouts.request or 0),
        request_mirror_policies=[_mirror(each) for each in action.mirrors],
    )
    if action.retry or timeouts.backend:
        result.retry_policy.CopyFrom(_retry(action.retry, timeouts.backend or 0))
    _backends(action.backends, result, made.match.grpc)
    _rewrite(result, action, made.match.path)
    return result


def _backends(backends: Backends, result: Any, grpc: bool) -> None:
    if not grpc:
        result.cluster_not_found_response_code = result.INTERNAL_SERVER_ERROR
    only = backends.valid[0]
    if backends.total == only.weight and not (only.request_headers or only.response_headers):
        result.cluster = named(only.cluster)
        return
    for each in backends.valid:
        weighted = result.weighted_clusters.clusters.add(
            name=named(each.cluster), weight=UInt32Value(value=each.weight)
        )
        change_request(weighted, each.request_headers)
        change_response(weighted, each.response_headers)
        host = (each.rewrite and each.rewrite.hostname) or host_of(each.request_headers)
        if host:
            weighted.host_rewrite_literal = host
    if backends.invalid_weight:
        result.weighted_clusters.clusters.add(
            name=NOWHERE, weight=UInt32Value(value=backends.invalid_weight)
        )


def _rewrite(result: Any, action: HttpAction, path: PathMatch) -> None:
    rewrite = action.rewrite or Rewrite()
    valid = action.backends.valid
    if len(valid) == 1 and valid[0].rewrite:
        # Envoy knows no change of the path for one of several clusters.
        own = valid[0].rewrite
        rewrite = Rewrite(own.hostname or rewrite.hostname, own.path or rewrite.path)
    host = rewrite.hostname or host_of(action.request_headers)
    if host:
        result.host_rewrite_literal = host
    if rewrite.path:
        change_path(result, rewrite.path, path)


def _retry(retry: Retry | None, backend_seconds: float) -> Any:
    result = routes.RetryPolicy(num_retries=UInt32Value(value=0))
    if retry:
        result.retry_on = _RETRY_ON
        result.num_retries.value = retry.attempts
        result.retriable_status_codes.extend(retry.codes)
        if retry.backoff:
            result.retry_back_off.base_interval.CopyFrom(duration(retry.backoff))
    if backend_seconds:
        result.per_try_timeout.CopyFrom(duration(backend_seconds))
    return result


def _mirror(mirror: Mirror) -> Any:
    share = percent_pb2.FractionalPercent(
        numerator=mirror.numerator * _MILLION // mirror.denominator,
        denominator=percent_pb2.FractionalPercent.MILLION,
    )
    return routes.RouteAction.RequestMirrorPolicy(
        cluster=named(mirror.cluster),
        runtime_fraction=base_pb2.RuntimeFractionalPercent(default_value=share),
        disable_shadow_host_suffix_append=True,
        trace_sampled=BoolValue(value=False),
    )
