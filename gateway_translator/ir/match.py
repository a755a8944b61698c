"""Which requests a route takes. Source: HTTPRouteMatch, GRPCRouteMatch."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from gateway_translator.ir.names import check


class PathKind(enum.StrEnum):
    """``PREFIX`` is by path element: ``/a`` takes ``/a`` and ``/a/b``, not ``/ab``.

    ``REGEX`` is RE2 and must match the whole path (without the query).
    ``STRING_PREFIX`` is by character, for Ingress paths of type ImplementationSpecific.
    """

    EXACT = "exact"
    PREFIX = "prefix"
    REGEX = "regex"
    STRING_PREFIX = "string-prefix"


@dataclass(frozen=True, slots=True)
class PathMatch:
    """``value`` of a PREFIX has no trailing slash but for ``/`` itself, which takes every path."""

    kind: PathKind = PathKind.PREFIX
    value: str = "/"

    def __post_init__(self) -> None:
        if self.kind is PathKind.PREFIX:
            check(
                self.value == "/" or (self.value[:1] == "/" and self.value[-1:] != "/"),
                f"{self.value!r} is no prefix of a path",
            )


ANY_PATH = PathMatch()


@dataclass(frozen=True, slots=True)
class ValueMatch:
    """Of a header (``name`` in lower case) or query parameter (as it is written).

    ``regex``: RE2, the whole value. Else equality.
    """

    name: str
    value: str
    regex: bool = False


@dataclass(frozen=True, slots=True)
class HttpMatch:
    """All of it must hold. ``method`` empty: any.

    A gRPC method is the exact path ``/service/method``, a service alone the prefix ``/service``, a
    method alone or regular expressions a REGEX path; ``grpc`` routes besides take only requests
    whose content-type is application/grpc.
    """

    path: PathMatch = ANY_PATH
    method: str = ""
    headers: tuple[ValueMatch, ...] = ()
    query: tuple[ValueMatch, ...] = ()
    grpc: bool = False
