"""Random routes, and which one takes a request: the IR against a plain reading of the API.

The reference looks at every rule of every route for each request and knows no tables.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway_translator import choice
from gateway_translator.ir import HttpHandler, Snapshot
from gateway_translator.offline import translate
from tests.unit.gateway_manifests import Manifest, backend, gateway, listener, route, service

LISTENERS = ("", "*.example.com", "foo.example.com")
HOSTS = ("foo.example.com", "bar.example.com", "a.b.example.com", "example.com", "other.org")
PATHS = ("/", "/a", "/ab", "/a/b", "/a/b/c", "/b")
Found = tuple[str, int] | int
"""(route, number of its rule), or a status."""


@dataclass(frozen=True)
class Request:
    host: str
    path: str
    method: str
    header: str
    query: str


def match_specs() -> st.SearchStrategy[Manifest]:
    path = st.fixed_dictionaries(
        {
            "type": st.sampled_from(["Exact", "PathPrefix"]),
            "value": st.sampled_from([*PATHS, "/a/"]),
        }
    )
    pair = st.sampled_from([[], [{"name": "X-Version", "value": "1"}]])
    query = st.sampled_from([[], [{"name": "q", "value": "1"}]])
    full = {"path": path, "headers": pair, "queryParams": query}
    return st.one_of(
        st.fixed_dictionaries(full),
        st.fixed_dictionaries({**full, "method": st.sampled_from(["GET", "POST"])}),
    )


@st.composite
def route_sets(draw: st.DrawFn) -> list[Manifest]:
    found = []
    for number in range(draw(st.integers(1, 5))):
        rules = [
            {
                "matches": draw(st.lists(match_specs(), min_size=1, max_size=2)),
                "backendRefs": [backend("orders")],
            }
            for _ in range(draw(st.integers(1, 2)))
        ]
        section = draw(st.sampled_from(["", *range(len(LISTENERS))]))
        parent = {"name": "web"} if section == "" else {"name": "web", "sectionName": f"l{section}"}
        hostnames = draw(
            st.lists(st.sampled_from([*HOSTS, "*.example.com", "*.com"]), max_size=2, unique=True)
        )
        found.append(
            route(
                f"r{number}",
                *rules,
                age=draw(st.integers(0, 2)),
                parentRefs=[parent],
                hostnames=hostnames,
            )
        )
    return found


requests = st.builds(
    Request,
    st.sampled_from(HOSTS),
    st.sampled_from(PATHS),
    st.sampled_from(["GET", "POST"]),
    st.sampled_from(["", "1", "2"]),
    st.sampled_from(["", "1", "2"]),
)


def covers(pattern: str, name: str) -> bool:
    return not pattern or pattern == name or (pattern[0] == "*" and name.endswith(pattern[1:]))


def weight(pattern: str) -> tuple[bool, int]:
    return (not pattern.startswith("*") and bool(pattern), len(pattern))


def meets(one: str, other: str) -> str | None:
    """The hostname at which a listener's and a route's meet."""
    if covers(one, other.replace("*", "x", 1)) and weight(other) >= weight(one):
        return other
    return one if covers(other, one.replace("*", "x", 1)) else None


def holds(spec: Manifest, request: Request) -> bool:
    value = spec["path"]["value"]
    if spec["path"]["type"] == "Exact":
        path = request.path == value
    else:
        path = [p for p in value.split("/") if p] == [p for p in request.path.split("/") if p][
            : len([p for p in value.split("/") if p])
        ]
    return (
        path
        and spec.get("method", request.method) == request.method
        and all(each["value"] == request.header for each in spec["headers"])
        and all(each["value"] == request.query for each in spec["queryParams"])
    )


def reference(routes: list[Manifest], request: Request) -> Found:
    """By the API's own words: listener, hostname, then the best match of all rules there."""
    at = max((each for each in LISTENERS if covers(each, request.host)), key=weight)
    here: list[tuple[Any, ...]] = []
    for item in routes:
        section = item["spec"]["parentRefs"][0].get("sectionName", f"l{LISTENERS.index(at)}")
        if section != f"l{LISTENERS.index(at)}":
            continue
        for hostname in item["spec"]["hostnames"] or [""]:
            common = meets(at, hostname)
            if common is not None and covers(common, request.host):
                here.append((weight(common), item))
    if not here:
        return 404
    best = max(each[0] for each in here)
    candidates = []
    for its_weight, item in here:
        for number, rule in enumerate(item["spec"]["rules"]):
            for index, spec in enumerate(rule["matches"]):
                if its_weight == best and holds(spec, request):
                    value = spec["path"]["value"]
                    order = (
                        spec["path"]["type"] != "Exact",
                        -len(value.rstrip("/") or "/"),
                        "method" not in spec,
                        -len(spec["headers"]),
                        -len(spec["queryParams"]),
                        item["metadata"]["creationTimestamp"],
                        item["metadata"]["name"],
                        number,
                        index,
                    )
                    candidates.append((order, (item["metadata"]["name"], number)))
    return min(candidates)[1] if candidates else 404


def by_ir(snapshot: Snapshot, request: Request) -> Found:
    """As `sidegate gateway trace` has it."""
    asked = choice.Request(
        request.host,
        request.path,
        f"q={request.query}" if request.query else "",
        request.method,
        {"x-version": request.header} if request.header else {},
    )
    chain = choice.chain_of(snapshot.listeners["shop/web/80/tcp"], asked)
    assert chain
    assert isinstance(chain.handler, HttpHandler)
    host = choice.host_of(snapshot, chain.handler.table, request.host)
    if host is None:
        return 404
    taken = choice.route_of(host, asked)
    return (taken.origin.name, int(taken.origin.section)) if taken else host.otherwise


@settings(max_examples=300, deadline=None)
@given(route_sets(), st.lists(requests, min_size=5, max_size=10))
def test_the_ir_routes_as_the_api_says(routes: list[Manifest], asked: list[Request]) -> None:
    listeners = [listener(f"l{n}", hostname=name) for n, name in enumerate(LISTENERS)]
    snapshot = translate([gateway(*listeners), service("orders"), *routes]).snapshot
    for request in asked:
        assert by_ir(snapshot, request) == reference(routes, request), request
