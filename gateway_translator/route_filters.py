"""Filters of HTTPRoutes and GRPCRoutes to what an action does."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gateway_translator.backends import BackendResolver, Use
from gateway_translator.compiled import InvalidRuleError, Variant
from gateway_translator.ir import (
    Cors,
    ExternalAuth,
    HeaderChanges,
    InvalidIRError,
    Mirror,
    PathChange,
    Redirect,
    Rewrite,
)
from gateway_translator.resources.routes import (
    AuthFilter,
    CorsFilter,
    Filter,
    HeaderFilter,
    MirrorFilter,
    PathModifier,
    RedirectFilter,
)

WELL_KNOWN_PORTS = {"http": 80, "https": 443}
_STATUSES = frozenset({301, 302, 303, 307, 308})
_ONCE = frozenset({"RequestRedirect", "URLRewrite", "CORS", "ExternalAuth"})


def actions(
    filters: Iterable[Filter], backends: BackendResolver, variant: Variant, use: Use
) -> dict[str, Any]:
    """Fields of an HttpAction. Raises InvalidRuleError."""
    found: dict[str, Any] = {}
    mirrors: list[Mirror] = []
    for each in filters:
        if each.type in _ONCE and each.type in found:
            raise InvalidRuleError(f"filter {each.type} is given twice", "IncompatibleFilters")
        match each:
            case Filter(type="RequestHeaderModifier", request_header_modifier=HeaderFilter() as it):
                found["request_headers"] = header_changes(it)
            case Filter(
                type="ResponseHeaderModifier", response_header_modifier=HeaderFilter() as it
            ):
                found["response_headers"] = header_changes(it)
            case Filter(type="RequestMirror", request_mirror=MirrorFilter() as mirror):
                mirrors += _mirror(mirror, backends, use)
            case Filter(type="RequestRedirect", request_redirect=RedirectFilter() as redirect):
                found["redirect"] = _redirect(redirect, variant)
            case Filter(type="URLRewrite") if each.url_rewrite is not None:
                found["rewrite"] = Rewrite(each.url_rewrite.hostname, _path(each.url_rewrite.path))
            case Filter(type="CORS", cors=CorsFilter() as cors):
                found["cors"] = _cors(cors)
            case Filter(type="ExternalAuth", external_auth=AuthFilter() as auth):
                found["auth"] = _auth(auth, backends)
            case _:
                raise InvalidRuleError(f"filter {each.type!r} is not known, or has no such field")
    if "redirect" in found and "rewrite" in found:
        text = "RequestRedirect and URLRewrite exclude each other"
        raise InvalidRuleError(text, "IncompatibleFilters")
    if mirrors:
        found["mirrors"] = tuple(mirrors)
    return found


def header_changes(spec: HeaderFilter) -> HeaderChanges:
    return HeaderChanges(
        tuple((each.name.lower(), each.value) for each in spec.set),
        tuple((each.name.lower(), each.value) for each in spec.add),
        tuple(name.lower() for name in spec.remove),
    )


def _mirror(spec: MirrorFilter, backends: BackendResolver, use: Use) -> list[Mirror]:
    """None where it refers to nothing: a mirror that fails never harms the request."""
    cluster = backends.cluster(spec.backend_ref, use)
    if cluster is None:
        return []
    try:
        if spec.fraction is not None:
            return [Mirror(cluster, spec.fraction.numerator, spec.fraction.denominator)]
        return [Mirror(cluster, 100 if spec.percent is None else spec.percent)]
    except InvalidIRError as error:
        raise InvalidRuleError(str(error)) from error


def _redirect(spec: RedirectFilter, variant: Variant) -> Redirect:
    """Its port is given, else the scheme's own, else the listener's."""
    if spec.status_code not in _STATUSES:
        raise InvalidRuleError(f"redirect: {spec.status_code} is none of {sorted(_STATUSES)}")
    if spec.scheme not in {"", "http", "https"}:
        raise InvalidRuleError(f"redirect: scheme {spec.scheme!r} is neither http nor https")
    scheme = spec.scheme or ("https" if variant.tls else "http")
    port = spec.port or (WELL_KNOWN_PORTS[scheme] if spec.scheme else variant.port)
    written = 0 if port == WELL_KNOWN_PORTS[scheme] else port
    return Redirect(spec.scheme, spec.hostname, written, _path(spec.path), spec.status_code)


def _path(spec: PathModifier | None) -> PathChange | None:
    match spec:
        case None:
            return None
        case PathModifier(type="ReplaceFullPath", replace_full_path=str(full)):
            return PathChange(full=full)
        case PathModifier(type="ReplacePrefixMatch", replace_prefix_match=str(prefix)):
            return PathChange(prefix=prefix)
        case _:
            raise InvalidRuleError(f"path modifier {spec.type!r} is not known, or has no value")


def _cors(spec: CorsFilter) -> Cors:
    return Cors(
        origins=spec.allow_origins,
        methods=spec.allow_methods,
        headers=tuple(each.lower() for each in spec.allow_headers),
        expose=tuple(each.lower() for each in spec.expose_headers),
        credentials=spec.allow_credentials,
        max_age=spec.max_age,
    )


def _auth(spec: AuthFilter, backends: BackendResolver) -> ExternalAuth:
    """A reference that does not resolve fails the rule: what nobody has judged does not pass."""
    grpc = spec.protocol == "GRPC"
    if not grpc and spec.protocol != "HTTP":
        raise InvalidRuleError(f"externalAuth: protocol {spec.protocol!r} is neither GRPC nor HTTP")
    cluster = backends.cluster(spec.backend_ref, "grpc" if grpc else "http")
    if cluster is None:
        raise InvalidRuleError("externalAuth: backendRef does not resolve")
    body = spec.forward_body.max_size if spec.forward_body else 0
    if grpc:
        allowed = spec.grpc.allowed_headers if spec.grpc else ()
        return ExternalAuth(cluster, True, request_headers=_lower(allowed), max_body=body)
    if spec.http is None:
        return ExternalAuth(cluster, False, max_body=body)
    return ExternalAuth(
        cluster,
        False,
        spec.http.path,
        _lower(spec.http.allowed_headers),
        _lower(spec.http.allowed_response_headers),
        body,
    )


def _lower(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(name.lower() for name in names)
