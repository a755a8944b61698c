"""Hostnames of listeners and routes: which one covers another, and where two meet.

``*.example.com`` is every name with one or more labels before ``.example.com``; "" is every name.
Source: Gateway API, Hostname.
"""

from __future__ import annotations

from collections.abc import Iterable

ANY = "*"


def covers(outer: str, inner: str) -> bool:
    """Whether every name that ``inner`` means is one that ``outer`` means."""
    if outer in {"", ANY}:
        return True
    if outer.startswith("*."):
        return inner.endswith(outer[1:]) and inner != outer[1:]
    return outer == inner


def meet(listener: str, route: str) -> str | None:
    """The more specific of the two if one covers the other, else None; ANY for all names."""
    if covers(listener, route or ANY):
        return route or ANY
    return listener if covers(route, listener) else None


def effective(listener: str, routes: Iterable[str]) -> tuple[str, ...]:
    """The hostnames that a route has at a listener; empty: it has none there. Each once."""
    found = (meet(listener.lower(), each.lower()) for each in tuple(routes) or ("",))
    return tuple(dict.fromkeys(each for each in found if each is not None))


def specificity(hostname: str) -> tuple[bool, int]:
    """Sorts the most specific last: exact names, then by the length of the suffix."""
    return (bool(hostname) and not hostname.startswith("*"), len(hostname))


def owner(hostname: str, listeners: Iterable[str]) -> str | None:
    """The most specific of the listeners' hostnames that covers one; None if none does."""
    covering = [each for each in listeners if covers(each, hostname)]
    return max(covering, key=specificity, default=None)
