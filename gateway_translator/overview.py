"""What Gateways and the mesh serve and what is wrong with them, as rows of plain data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from gateway_translator.choice import describe_path
from gateway_translator.ir import (
    Backends,
    FilterChain,
    Forward,
    HttpAction,
    HttpHandler,
    HttpMatch,
    ObjectRef,
    Redirect,
    Snapshot,
)
from gateway_translator.statuses import Status

Row = dict[str, Any]

# Conditions whose being true is what somebody should look at.
_BAD_IF_TRUE = frozenset(
    {
        "Conflicted",
        "PartiallyInvalid",
        "OverlappingTLSConfig",
        "InsecureFrontendValidationMode",
    }
)


def statuses(found: Mapping[ObjectRef, Status], problems: Mapping[ObjectRef, str]) -> list[Row]:
    """One row for each object that something is said of."""
    refs = found.keys() | {ref for ref, text in problems.items() if text}
    return [_status(ref, found.get(ref, {}), problems.get(ref, "")) for ref in sorted(refs)]


def routes(snapshot: Snapshot) -> list[Row]:
    """One row for each route, in the order in which they are tried within a hostname."""
    listeners = _listeners_of_tables(snapshot)
    rows: list[Row] = [
        {
            "listeners": listeners.get(table, []),
            "hostname": hostname,
            "match": describe_match(route.match),
            "rule": str(route.origin),
            "action": describe_action(route.action, snapshot),
        }
        for (table, hostname), host in sorted(snapshot.virtual_hosts.items())
        for route in host.routes
    ]
    for listener in snapshot.all_listeners():
        for chain in listener.chains:
            if isinstance(chain.handler, Forward):
                rows.append(
                    {
                        "listeners": [listener.name],
                        "hostname": ",".join(chain.server_names) or "*",
                        "match": describe_chain(chain),
                        "rule": str(chain.handler.origin or "none"),
                        "action": describe_backends(chain.handler.backends, snapshot),
                    }
                )
    return rows


def describe_match(match: HttpMatch) -> str:
    parts = [match.method, describe_path(match.path), "gRPC" if match.grpc else ""]
    for prefix, values in (("", match.headers), ("?", match.query)):
        parts += [f"{prefix}{v.name}{'~' if v.regex else '='}{v.value}" for v in values]
    return " ".join(filter(None, parts))


def describe_chain(chain: FilterChain) -> str:
    return "TLS passed through" if chain.passthrough else "TLS ended" if chain.tls else "bytes"


def describe_action(action: HttpAction, snapshot: Snapshot) -> str:
    """What an answer, or the way to one, is; what is done besides in brackets."""
    if action.redirect:
        main = _redirect(action.redirect)
    elif not action.backends.valid:
        main = "500"
    else:
        main = describe_backends(action.backends, snapshot)
    besides = [name for name in ("rewrite", "cors", "auth", "retry", "session", "mirrors")
               if getattr(action, name)]  # fmt: skip
    besides += ["headers"] if action.request_headers or action.response_headers else []
    return f"{main} ({', '.join(besides)})" if besides else main


def describe_backends(backends: Backends, snapshot: Snapshot) -> str:
    if not backends.total:
        return "nothing"
    shares = []
    for each in backends.valid:
        cluster = snapshot.clusters[each.cluster]
        where = f"{cluster.origin.namespace}/{cluster.origin.name}:{cluster.port}"
        shares.append((where, each.weight))
    if backends.invalid_weight:
        shares.append(("nothing", backends.invalid_weight))
    if len(shares) == 1:
        return shares[0][0]
    return ", ".join(f"{where} {weight / backends.total:.0%}" for where, weight in shares)


def _redirect(redirect: Redirect) -> str:
    host = redirect.hostname or "<host>"
    port = f":{redirect.port}" if redirect.port else ""
    path = redirect.path
    to = "<path>" if path is None else path.full if path.full is not None else f"{path.prefix}..."
    return f"{redirect.status} to {redirect.scheme or '<scheme>'}://{host}{port}{to}"


def _listeners_of_tables(snapshot: Snapshot) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for listener in snapshot.all_listeners():
        for chain in listener.chains:
            if isinstance(chain.handler, HttpHandler):
                names = found.setdefault(chain.handler.table, [])
                if listener.name not in names:
                    names.append(listener.name)
    return found


def _status(ref: ObjectRef, status: Status, problem: str) -> Row:
    balanced = (status.get("loadBalancer") or {}).get("ingress") or ()
    addresses = [each["value"] for each in status.get("addresses") or ()]
    listeners = status.get("listeners") or ()
    return {
        "kind": ref.kind,
        "namespace": ref.namespace,
        "name": ref.name,
        "addresses": addresses + [each["ip"] for each in balanced],
        "attached": {each["name"]: each["attachedRoutes"] for each in listeners},
        "problems": [*([problem] if problem else []), *_problems(status)],
    }


def _problems(status: Status) -> Iterator[str]:
    yield from _of(status.get("conditions") or ())
    for each in status.get("listeners") or ():
        yield from _of(each["conditions"], f"listener {each['name']}: ")
    for name, reference in (("parents", "parentRef"), ("ancestors", "ancestorRef")):
        for each in status.get(name) or ():
            yield from _of(each["conditions"], f"{each[reference].get('name', '')}: ")


def _of(conditions: Iterable[Mapping[str, Any]], where: str = "") -> Iterator[str]:
    for each in conditions:
        if (each["status"] == "True") == (each["type"] in _BAD_IF_TRUE):
            said = f"{each['reason']}: {each['message']}" if each.get("message") else each["reason"]
            yield f"{where}{each['type']}={each['status']} ({said})"
