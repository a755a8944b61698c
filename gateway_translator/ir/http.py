"""HTTP (and gRPC) routing: tables of virtual hosts, routes in the order they are tried."""

from __future__ import annotations

from dataclasses import dataclass

from gateway_translator.ir.backend import NOWHERE, Backends
from gateway_translator.ir.filters import (
    UNCHANGED,
    Cors,
    ExternalAuth,
    HeaderChanges,
    Mirror,
    Redirect,
    Rewrite,
)
from gateway_translator.ir.match import HttpMatch
from gateway_translator.ir.names import ObjectRef, check


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds; 0 is no limit, None not given. Source: HTTPRouteTimeouts.

    ``request``: until the whole answer, retries included: 504. ``backend``: of each try: 504.
    """

    request: float | None = None
    backend: float | None = None


NO_TIMEOUTS = Timeouts()


@dataclass(frozen=True, slots=True)
class Retry:
    """Source: HTTPRouteRetry. ``attempts`` are those after the first; failures to connect count.

    ``backoff``: least seconds between two, None the proxy's own.
    """

    codes: tuple[int, ...] = ()
    attempts: int = 1
    backoff: float | None = None


@dataclass(frozen=True, slots=True)
class SessionPersistence:
    """Source: SessionPersistence. ``header``: carried in the header ``name``, else in a cookie.

    ``lifetime``: seconds that the session lasts at most, None for ever; ``permanent``: the cookie
    is given that lifetime, else it ends with the browser's session. ``path``: of the cookie.
    """

    name: str
    header: bool = False
    lifetime: float | None = None
    permanent: bool = False
    path: str = "/"


@dataclass(frozen=True, slots=True)
class HttpAction:
    """What a rule does. One object for all matches of the rule.

    Either ``redirect`` is given or ``backends`` decide. Order: cors, authorization, the rest.
    """

    backends: Backends = NOWHERE
    redirect: Redirect | None = None
    request_headers: HeaderChanges = UNCHANGED
    response_headers: HeaderChanges = UNCHANGED
    rewrite: Rewrite | None = None
    mirrors: tuple[Mirror, ...] = ()
    cors: Cors | None = None
    auth: ExternalAuth | None = None
    timeouts: Timeouts = NO_TIMEOUTS
    retry: Retry | None = None
    session: SessionPersistence | None = None

    def __post_init__(self) -> None:
        check(self.redirect is None or not self.backends.total, "a redirect has no backends")
        check(self.redirect is None or self.rewrite is None, "either redirect or rewrite")


@dataclass(frozen=True, slots=True)
class HttpRoute:
    """``name`` is unique in its table: ``kind/namespace/name/rule/match``. Rules by number."""

    name: str
    origin: ObjectRef
    match: HttpMatch
    action: HttpAction


@dataclass(frozen=True, slots=True)
class VirtualHost:
    """``hostname`` is exact, ``*.suffix`` (one or more labels in its place), or ``*``.

    The most specific hostname of the table takes a request, by the longest suffix; ports in the
    Host header do not count. ``routes`` are in the order they are tried, the first wins;
    ``otherwise`` answers what none takes: 404, or 421 where the Host is another chain's (the
    connection was made for a different listener; RFC 9110, 15.5.20). gRPC: UNIMPLEMENTED.
    """

    hostname: str
    routes: tuple[HttpRoute, ...] = ()
    otherwise: int = 404


@dataclass(frozen=True, slots=True)
class RouteTable:
    """Its virtual hosts are in :attr:`Snapshot.virtual_hosts`, by the table's name and hostname.

    No virtual host takes the Host: 404. ``port``: of the listener. ``tls``: it is HTTPS.
    """

    name: str
    port: int
    tls: bool = False
