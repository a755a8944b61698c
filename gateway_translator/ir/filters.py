"""What is done to a request or its answer. Source: HTTPRouteFilter, GRPCRouteFilter."""

from __future__ import annotations

from dataclasses import dataclass

from gateway_translator.ir.names import check


@dataclass(frozen=True, slots=True)
class HeaderChanges:
    """In this order: remove, set (overwrites), add (appends). Names in lower case."""

    set: tuple[tuple[str, str], ...] = ()
    add: tuple[tuple[str, str], ...] = ()
    remove: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.set or self.add or self.remove)


UNCHANGED = HeaderChanges()


@dataclass(frozen=True, slots=True)
class PathChange:
    """Exactly one: the whole path, or in place of the prefix that matched (by path element).

    The query stays. ``prefix`` may be ``""`` or ``/``: the matched prefix is removed.
    Source: HTTPPathModifier.
    """

    full: str | None = None
    prefix: str | None = None

    def __post_init__(self) -> None:
        check((self.full is None) != (self.prefix is None), "PathChange: one of full and prefix")


@dataclass(frozen=True, slots=True)
class Redirect:
    """Empty ``scheme`` or ``hostname``: as in the request.

    ``port`` is resolved: 0 means that the Location carries none (it is the scheme's own), else it
    is written. ``status`` is one of 301, 302, 303, 307, 308.
    """

    scheme: str = ""
    hostname: str = ""
    port: int = 0
    path: PathChange | None = None
    status: int = 302


@dataclass(frozen=True, slots=True)
class Rewrite:
    """Empty ``hostname``: the Host header stays. Source: HTTPURLRewriteFilter."""

    hostname: str = ""
    path: PathChange | None = None


@dataclass(frozen=True, slots=True)
class Mirror:
    """``numerator`` of ``denominator`` requests are sent to ``cluster`` too, answers ignored."""

    cluster: str
    numerator: int = 100
    denominator: int = 100

    def __post_init__(self) -> None:
        check(
            0 <= self.numerator <= self.denominator and self.denominator > 0,
            f"mirror: {self.numerator}/{self.denominator} is no fraction",
        )


@dataclass(frozen=True, slots=True)
class Cors:
    """Lists may hold ``*`` alone (any); origins also ``scheme://*.suffix`` and ``scheme://*``.

    With ``credentials`` a ``*`` answers what was asked for, never a literal ``*``.
    ``max_age`` is in seconds. Source: HTTPCORSFilter.
    """

    origins: tuple[str, ...]
    methods: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    expose: tuple[str, ...] = ()
    credentials: bool = False
    max_age: int = 5


@dataclass(frozen=True, slots=True)
class ExternalAuth:
    """Asks ``cluster`` first; no answer or an error denies (403). Source: HTTPExternalAuthFilter.

    ``grpc``: Envoy's ext_authz protocol; else HTTP, to ``path`` before the request's own.
    ``request_headers``: sent besides those that always are; ``response_headers``: of its answer,
    put on the request (empty: every one). ``max_body``: bytes of the body sent along, 0 none.
    """

    cluster: str
    grpc: bool
    path: str = ""
    request_headers: tuple[str, ...] = ()
    response_headers: tuple[str, ...] = ()
    max_body: int = 0
