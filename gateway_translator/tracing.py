"""Which way a request takes through the IR, and why not another."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from gateway_translator.choice import Request, chain_of, host_of, mismatch, route_of
from gateway_translator.hostnames import ANY, covers
from gateway_translator.ir import (
    FilterChain,
    Forward,
    HttpHandler,
    HttpRoute,
    Listener,
    MeshFrontend,
    Snapshot,
    Transport,
    VirtualHost,
)
from gateway_translator.overview import (
    describe_action,
    describe_backends,
    describe_chain,
    describe_match,
)

Answer = dict[str, Any]
_PORTS = {"http": 80, "https": 443}


class BadUrlError(ValueError):
    """What is wrong with it, and what is expected."""


def trace(
    snapshot: Snapshot,
    url: str,
    method: str = "GET",
    headers: dict[str, str] | None = None,
    gateway: str = "",
) -> list[Answer]:
    """An answer of each listener of the URL's port, also of nodes, or of those of a Gateway
    (namespace/name); of a Service with routes that the URL names, what each of its clients sees.

    Where the URL's host is an address of a listener, ``host`` of the headers names the host.
    Raises BadUrlError.
    """
    given = {name.lower(): value for name, value in (headers or {}).items()}
    request, port, address = _request(url, method, given)
    answers = []
    for listener in sorted(snapshot.listeners.values(), key=lambda each: each.name):
        if listener.transport is not Transport.TCP or not _listens(listener, port, address):
            continue
        owner = f"{listener.gateway.namespace}/{listener.gateway.name}".lstrip("/")
        if gateway not in ("", owner):
            continue
        answers.append(_at(snapshot, listener, request))
    dialled = (urlsplit(url).hostname or "") if not gateway else ""
    for frontend in snapshot.mesh.values():
        if frontend.port == port and _is_dialled(frontend, dialled):
            answers += [_at(snapshot, view, request) for view in frontend.listeners()]
    return answers


def _request(url: str, method: str, headers: dict[str, str]) -> tuple[Request, int, str]:
    """With the port, and the address that the URL has for a host; "" for a name."""
    try:
        parts = urlsplit(url)
        port = parts.port or _PORTS[parts.scheme]
    except (ValueError, KeyError):
        raise BadUrlError(f"{url}: http://HOST[:PORT]/PATH or https://... is expected") from None
    named = headers.pop("host", "")
    host = (named.rpartition(":")[0] or named) if named else parts.hostname or ""
    if not host:
        raise BadUrlError(f"{url}: it names no host")
    request = Request(
        host.lower(),
        parts.path or "/",
        parts.query,
        method.upper(),
        headers,
        tls=parts.scheme == "https",
    )
    return request, port, (parts.hostname or "") if named else ""


def _is_dialled(frontend: MeshFrontend, host: str) -> bool:
    """By an address of the Service, or a name of it that every namespace has."""
    service = frontend.service
    name = f"{service.name}.{service.namespace}.svc.cluster.local"
    return host in frontend.addresses or ("." in host and f"{name}.".startswith(f"{host}."))


def _listens(listener: Listener, port: int, address: str) -> bool:
    """``address`` "": whichever it is. Of nodes it is not known which they have."""
    if port == listener.node_port:
        return True
    if port != listener.port or (listener.node_port and not listener.addresses):
        return False
    here = (each == address or ip_address(each).is_unspecified for each in listener.addresses)
    return not address or any(here)


def _at(snapshot: Snapshot, listener: Listener, request: Request) -> Answer:
    answer: Answer = {
        "gateway": str(listener.gateway),
        "listener": listener.name,
        "addresses": list(listener.addresses),
        "sections": [],
        "hostname": "",
        "rule": "",
        "match": "",
        "result": "",
        "why": [],
    }
    chain = chain_of(listener, request)
    if chain is None:
        answer |= {"result": "connection closed", "why": _no_chain(listener, request)}
        return answer
    answer["sections"] = [str(each) for each in chain.origins]
    if isinstance(chain.handler, Forward):
        answer |= _forwarded(chain, chain.handler, snapshot)
    else:
        answer |= _routed(chain.handler, snapshot, request)
    return answer


def _no_chain(listener: Listener, request: Request) -> list[str]:
    names = sorted({name for chain in listener.chains for name in chain.server_names})
    if not request.tls:
        return ["the listener speaks TLS only: use https://"]
    if not any(chain.tls or chain.passthrough for chain in listener.chains):
        return ["the listener speaks no TLS: use http://"]
    return [f"no server name covers {request.host}: there are {', '.join(names)}"]


def _forwarded(chain: FilterChain, forward: Forward, snapshot: Snapshot) -> Answer:
    return {
        "hostname": ",".join(chain.server_names) or ANY,
        "rule": str(forward.origin or ""),
        "match": describe_chain(chain),
        "result": describe_backends(forward.backends, snapshot),
        "endpoints": _endpoints(snapshot, [each.cluster for each in forward.backends.valid]),
    }


def _routed(handler: HttpHandler, snapshot: Snapshot, request: Request) -> Answer:
    host = host_of(snapshot, handler.table, request.host)
    if host is None:
        known = sorted(name for table, name in snapshot.virtual_hosts if table == handler.table)
        why = f"no hostname covers {request.host}: there are {', '.join(known) or 'none'}"
        return {"result": "404", "why": [why]}
    route = route_of(host, request)
    answer: Answer = {
        "hostname": host.hostname,
        "why": [*_broader(handler, snapshot, host, request), *_passed_over(host, route, request)],
    }
    if route is None:
        return answer | {"result": str(host.otherwise)}
    return answer | {
        "rule": str(route.origin),
        "match": describe_match(route.match),
        "result": describe_action(route.action, snapshot),
        "endpoints": _endpoints(snapshot, [b.cluster for b in route.action.backends.valid]),
    }


def _broader(
    handler: HttpHandler, snapshot: Snapshot, host: VirtualHost, request: Request
) -> list[str]:
    """Hostnames that cover the Host and are not asked, for they are less specific."""
    return [
        f"hostname {name}: {host.hostname} is more specific"
        for table, name in sorted(snapshot.virtual_hosts)
        if table == handler.table and name != host.hostname and covers(name, request.host)
    ]


def _passed_over(host: VirtualHost, taken: HttpRoute | None, request: Request) -> list[str]:
    """Routes that were tried in vain, and those that would match but come later."""
    found, passed = [], True
    for route in host.routes:
        if route is taken:
            passed = False
            continue
        why = mismatch(route.match, request)
        if passed:
            found.append(f"{route.origin}: {why}")
        elif not why:
            found.append(f"{route.origin}: it matches too, and comes later")
    return found


def _endpoints(snapshot: Snapshot, clusters: list[str]) -> list[str]:
    """As ``address:port``; of a cluster without any the answer is 503."""
    return [
        f"[{each.address}]:{each.port}" if ":" in each.address else f"{each.address}:{each.port}"
        for name in clusters
        for each in snapshot.endpoints[snapshot.clusters[name].endpoints].endpoints()
    ]
