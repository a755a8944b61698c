"""What of the IR takes a request, as a proxy decides it.

The most specific chain by server name, the most specific virtual host by Host, then the first route
that matches.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from posixpath import normpath
from typing import TypeVar
from urllib.parse import parse_qsl

from gateway_translator.hostnames import covers, specificity
from gateway_translator.ir import (
    FilterChain,
    Forward,
    HttpMatch,
    HttpRoute,
    Listener,
    PathKind,
    PathMatch,
    Snapshot,
    ValueMatch,
    VirtualHost,
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Request:
    """``path`` without the query, as the client sends it. Header names are in lower case.

    ``tls``: it comes over TLS, whose server name is ``host``. ``host`` is without a port.
    """

    host: str
    path: str = "/"
    query: str = ""
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)
    tls: bool = False

    @property
    def normal_path(self) -> str:
        """Without dot segments (RFC 3986, 6.2.2.3), as a Gateway reads it."""
        if "/." not in self.path:
            return self.path
        normal = normpath(self.path).replace("//", "/", 1)
        ends = self.path.endswith(("/", "/.", "/.."))
        return normal + "/" if ends and normal != "/" else normal


def chain_of(listener: Listener, request: Request) -> FilterChain | None:
    """By the server name where there is TLS; None: the connection is closed."""
    if not request.tls:
        return next((c for c in listener.chains if not (c.tls or c.passthrough)), None)
    speaking = [
        c for c in listener.chains if c.tls or c.passthrough or isinstance(c.handler, Forward)
    ]
    named = [(name, c) for c in speaking for name in c.server_names or ("",)]
    return _most_specific(named, request.host)


def host_of(snapshot: Snapshot, table: str, host: str) -> VirtualHost | None:
    """None: no virtual host of the table takes the Host, 404."""
    found = ((name, each) for (of, name), each in snapshot.virtual_hosts.items() if of == table)
    return _most_specific(found, host)


def route_of(host: VirtualHost, request: Request) -> HttpRoute | None:
    """None: what the virtual host says otherwise."""
    return next((each for each in host.routes if not mismatch(each.match, request)), None)


def mismatch(match: HttpMatch, request: Request) -> str:
    """Why a route does not take a request; "" if it does."""
    if (path := request.normal_path) and not _path(match.path, path):
        return f"path {path} is not {describe_path(match.path)}"
    if match.method not in ("", request.method):
        return f"method {request.method} is not {match.method}"
    if match.grpc and not request.headers.get("content-type", "").startswith("application/grpc"):
        return "it is not gRPC (content-type)"
    headers = {":authority": request.host, **request.headers}
    query = dict(reversed(parse_qsl(request.query, keep_blank_values=True)))
    return _values("header", match.headers, headers) or _values("query", match.query, query)


def describe_path(match: PathMatch) -> str:
    kinds = {
        PathKind.EXACT: "exactly {}",
        PathKind.PREFIX: "{} or below",
        PathKind.STRING_PREFIX: "{}...",
        PathKind.REGEX: "~ {}",
    }
    return kinds[match.kind].format(match.value)


def _most_specific(named: Iterable[tuple[str, T]], host: str) -> T | None:
    covering = [(specificity(name), each) for name, each in named if covers(name, host.lower())]
    return max(covering, key=lambda each: each[0])[1] if covering else None


def _path(match: PathMatch, path: str) -> bool:
    match match.kind:
        case PathKind.EXACT:
            return path == match.value
        case PathKind.REGEX:
            return _fits(match.value, path)
        case PathKind.STRING_PREFIX:
            return path.startswith(match.value)
        case PathKind.PREFIX:
            return match.value in ("/", path) or path.startswith(match.value + "/")


def _values(what: str, wanted: Iterable[ValueMatch], given: Mapping[str, str]) -> str:
    for each in wanted:
        value = given.get(each.name)
        if value is None:
            return f"{what} {each.name} is not there"
        if not (_fits(each.value, value) if each.regex else value == each.value):
            return f"{what} {each.name} is {value!r}, not {'~ ' * each.regex}{each.value!r}"
    return ""


def _fits(expression: str, value: str) -> bool:
    """Python's reading of RE2, which are one for what routes are written with."""
    return re.fullmatch(expression, value) is not None
