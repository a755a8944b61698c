"""HTTPRoute, GRPCRoute, TLSRoute, TCPRoute, UDPRoute. Source: gateway.networking.k8s.io/v1."""

from __future__ import annotations

from gateway_translator.resources.meta import Object, Struct
from gateway_translator.resources.refs import BackendReference, ParentReference
from gateway_translator.resources.values import (
    HeaderName,
    HeaderValue,
    Hostname,
    PathValue,
    Port,
)


class PathMatch(Struct, frozen=True):
    type: str = "PathPrefix"
    value: PathValue = "/"


class NamedMatch(Struct, frozen=True):
    """Of a header or query parameter."""

    name: HeaderName
    value: HeaderValue
    type: str = "Exact"


class HttpRouteMatch(Struct, frozen=True):
    path: PathMatch | None = None
    headers: tuple[NamedMatch, ...] = ()
    query_params: tuple[NamedMatch, ...] = ()
    method: str = ""


class Header(Struct, frozen=True):
    name: HeaderName
    value: HeaderValue


class HeaderFilter(Struct, frozen=True):
    set: tuple[Header, ...] = ()
    add: tuple[Header, ...] = ()
    remove: tuple[HeaderName, ...] = ()


class PathModifier(Struct, frozen=True):
    type: str
    replace_full_path: str | None = None
    replace_prefix_match: str | None = None


class RedirectFilter(Struct, frozen=True):
    scheme: str = ""
    hostname: Hostname = ""
    path: PathModifier | None = None
    port: Port = 0
    status_code: int = 302


class RewriteFilter(Struct, frozen=True):
    hostname: Hostname = ""
    path: PathModifier | None = None


class Fraction(Struct, frozen=True):
    numerator: int
    denominator: int = 100


class MirrorFilter(Struct, frozen=True):
    backend_ref: BackendReference
    percent: int | None = None
    fraction: Fraction | None = None


class CorsFilter(Struct, frozen=True):
    allow_origins: tuple[str, ...] = ()
    allow_credentials: bool = False
    allow_methods: tuple[str, ...] = ()
    allow_headers: tuple[str, ...] = ()
    expose_headers: tuple[str, ...] = ()
    max_age: int = 5


class GrpcAuth(Struct, frozen=True):
    allowed_headers: tuple[str, ...] = ()


class HttpAuth(Struct, frozen=True):
    path: str = ""
    allowed_headers: tuple[str, ...] = ()
    allowed_response_headers: tuple[str, ...] = ()


class ForwardBody(Struct, frozen=True):
    max_size: int = 0


class AuthFilter(Struct, frozen=True):
    protocol: str
    backend_ref: BackendReference
    grpc: GrpcAuth | None = None
    http: HttpAuth | None = None
    forward_body: ForwardBody | None = None


class Filter(Struct, frozen=True):
    """Of an HTTPRoute or GRPCRoute: the field that ``type`` names is given."""

    type: str
    request_header_modifier: HeaderFilter | None = None
    response_header_modifier: HeaderFilter | None = None
    request_mirror: MirrorFilter | None = None
    request_redirect: RedirectFilter | None = None
    url_rewrite: RewriteFilter | None = None
    cors: CorsFilter | None = None
    external_auth: AuthFilter | None = None


class FilteredBackend(BackendReference, frozen=True):
    filters: tuple[Filter, ...] = ()


class Timeouts(Struct, frozen=True):
    request: str = ""
    backend_request: str = ""


class Retry(Struct, frozen=True):
    codes: tuple[int, ...] = ()
    attempts: int = 1
    backoff: str = ""


class CookieConfig(Struct, frozen=True):
    lifetime_type: str = "Session"


class Session(Struct, frozen=True):
    session_name: str = ""
    absolute_timeout: str = ""
    type: str = "Cookie"
    cookie_config: CookieConfig | None = None


class HttpRouteRule(Struct, frozen=True):
    name: str = ""
    matches: tuple[HttpRouteMatch, ...] = ()
    filters: tuple[Filter, ...] = ()
    backend_refs: tuple[FilteredBackend, ...] = ()
    timeouts: Timeouts | None = None
    retry: Retry | None = None
    session_persistence: Session | None = None


class GrpcMethod(Struct, frozen=True):
    type: str = "Exact"
    service: str = ""
    method: str = ""


class GrpcRouteMatch(Struct, frozen=True):
    method: GrpcMethod | None = None
    headers: tuple[NamedMatch, ...] = ()


class GrpcRouteRule(Struct, frozen=True):
    name: str = ""
    matches: tuple[GrpcRouteMatch, ...] = ()
    filters: tuple[Filter, ...] = ()
    backend_refs: tuple[FilteredBackend, ...] = ()
    session_persistence: Session | None = None


class StreamRule(Struct, frozen=True):
    """Of a TLSRoute, TCPRoute or UDPRoute."""

    name: str = ""
    backend_refs: tuple[BackendReference, ...] = ()


class RouteSpec(Struct, frozen=True):
    parent_refs: tuple[ParentReference, ...] = ()
    hostnames: tuple[Hostname, ...] = ()
    use_default_gateways: str = ""

    def services(self, namespace: str) -> frozenset[tuple[str, str]]:
        """(namespace, name) of the parents that are; ``namespace``: the route's."""
        return frozenset(
            (ref.namespace or namespace, ref.name)
            for ref in self.parent_refs
            if (ref.group, ref.kind) == ("", "Service")
        )


class HttpRouteSpec(RouteSpec, frozen=True):
    rules: tuple[HttpRouteRule, ...] = (HttpRouteRule(matches=(HttpRouteMatch(path=PathMatch()),)),)


class GrpcRouteSpec(RouteSpec, frozen=True):
    rules: tuple[GrpcRouteRule, ...] = ()


class StreamRouteSpec(RouteSpec, frozen=True):
    rules: tuple[StreamRule, ...] = ()


class HttpRoute(Object, frozen=True):
    spec: HttpRouteSpec


class GrpcRoute(Object, frozen=True):
    spec: GrpcRouteSpec


class StreamRoute(Object, frozen=True):
    """A TLSRoute, TCPRoute or UDPRoute, by ``kind``."""

    spec: StreamRouteSpec


Route = HttpRoute | GrpcRoute | StreamRoute
