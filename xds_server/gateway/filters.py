"""Filters of HTTP that some routes need: each is off, and a route that needs one turns it on."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

from envoy.config.core.v3 import grpc_service_pb2, http_uri_pb2
from envoy.config.route.v3 import route_components_pb2 as routes
from envoy.extensions.filters.http.cors.v3 import cors_pb2
from envoy.extensions.filters.http.ext_authz.v3 import ext_authz_pb2
from envoy.extensions.filters.http.stateful_session.v3 import stateful_session_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2 as hcm,
)
from envoy.extensions.http.stateful_session.cookie.v3 import cookie_pb2
from envoy.extensions.http.stateful_session.header.v3 import header_pb2
from envoy.type.http.v3 import cookie_pb2 as http_cookie_pb2
from envoy.type.matcher.v3 import string_pb2
from google.protobuf.message import Message
from google.protobuf.wrappers_pb2 import BoolValue

from gateway_translator.ir import Cors, ExternalAuth, HttpAction, SessionPersistence
from xds_server.gateway.names import NOWHERE, named, regex, string
from xds_server.resources import duration, extension, packed

_CORS = "envoy.filters.http.cors"
_AUTH = "envoy.filters.http.ext_authz"
_SESSION = "envoy.filters.http.stateful_session"
_AUTH_SECONDS = 10
# ext_authz sends these of itself (HttpService.authorization_request).
_ANY = ".*"


def http_filters() -> list[Any]:
    """In the order in which a request meets them, without the router."""
    nobody = ext_authz_pb2.ExtAuthz(
        transport_api_version="V3", grpc_service=_grpc(NOWHERE), clear_route_cache=False
    )
    return [
        _off(_CORS, cors_pb2.Cors()),
        _off(_AUTH, nobody),
        _off(_SESSION, stateful_session_pb2.StatefulSession()),
    ]


def turn_on(route: Any, action: HttpAction) -> None:
    """What the action needs of them, on an Envoy route."""
    configs: dict[str, Message] = {}
    if action.cors:
        configs[_CORS] = _cors(action.cors)
    if action.auth:
        configs[_AUTH] = _auth(action.auth)
    if action.session:
        configs[_SESSION] = _session(action.session)
    for name, config in configs.items():
        on = routes.FilterConfig(config=packed(config))
        route.typed_per_filter_config[name].CopyFrom(packed(on))


def _off(name: str, config: Message) -> Any:
    return hcm.HttpFilter(name=name, typed_config=packed(config), disabled=True)


def _cors(cors: Cors) -> Message:
    policy: Message = cors_pb2.CorsPolicy(
        allow_origin_string_match=[_origin(each) for each in cors.origins],
        allow_methods=",".join(cors.methods),
        allow_headers=",".join(cors.headers),
        expose_headers=",".join(cors.expose),
        max_age=str(cors.max_age),
        allow_credentials=BoolValue(value=cors.credentials),
        forward_not_matching_preflights=BoolValue(value=False),
    )
    return policy


def _origin(origin: str) -> Any:
    if "*" not in origin:
        return string_pb2.StringMatcher(exact=origin)
    return string_pb2.StringMatcher(safe_regex=regex(re.escape(origin).replace(r"\*", _ANY)))


def _auth(auth: ExternalAuth) -> Message:
    settings = ext_authz_pb2.CheckSettings()
    if auth.max_body:
        settings.with_request_body.max_request_bytes = auth.max_body
        settings.with_request_body.allow_partial_message = True
    if auth.grpc:
        settings.grpc_service.CopyFrom(_grpc(named(auth.cluster)))
    else:
        settings.http_service.CopyFrom(_http_service(auth))
    config: Message = ext_authz_pb2.ExtAuthzPerRoute(check_settings=settings)
    return config


def _grpc(cluster: str) -> Any:
    return grpc_service_pb2.GrpcService(
        envoy_grpc=grpc_service_pb2.GrpcService.EnvoyGrpc(cluster_name=cluster),
        timeout=duration(_AUTH_SECONDS),
    )


def _http_service(auth: ExternalAuth) -> Any:
    service = ext_authz_pb2.HttpService(
        server_uri=http_uri_pb2.HttpUri(
            uri="http://authorization", cluster=named(auth.cluster), timeout=duration(_AUTH_SECONDS)
        ),
        path_prefix=auth.path,
    )
    asked = [string(name) for name in auth.request_headers]
    service.authorization_request.allowed_headers.patterns.extend(asked)
    put = [string(name) for name in auth.response_headers] or [
        string_pb2.StringMatcher(safe_regex=regex(_ANY))
    ]
    service.authorization_response.allowed_upstream_headers.patterns.extend(put)
    return service


def _session(session: SessionPersistence) -> Message:
    if session.header:
        state = extension(
            "envoy.http.stateful_session.header",
            header_pb2.HeaderBasedSessionState(name=session.name),
        )
    else:
        cookie = http_cookie_pb2.Cookie(name=session.name, path=session.path)
        if session.permanent and session.lifetime:
            cookie.ttl.FromTimedelta(timedelta(seconds=session.lifetime))
        state = extension(
            "envoy.http.stateful_session.cookie",
            cookie_pb2.CookieBasedSessionState(cookie=cookie),
        )
    config: Message = stateful_session_pb2.StatefulSessionPerRoute(
        stateful_session=stateful_session_pb2.StatefulSession(session_state=state)
    )
    return config
