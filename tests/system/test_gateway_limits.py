"""Values that no API server has checked, and more of everything than anybody writes: a real Envoy
takes it, or its object is named; what is right is served on."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway_translator.ir import ObjectRef
from tests.system.envoy_rig import eventually
from tests.system.module_rig import free_port
from tests.system.test_gateway_refusals import ADDRESS, Served, asked, moved, served, until
from tests.unit.gateway_manifests import (
    Manifest,
    backend,
    endpoints,
    gateway,
    gateway_class,
    listener,
    route,
    service,
)

__all__ = ["served"]  # a fixture
pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]

RULES, MATCHES = 64, 128


def crowded() -> Manifest:
    """64 times as many matches as an API server lets one route have."""
    rules = []
    for number in range(RULES):
        rule = moved("Exact", "", f"rule-{number}.test")
        rule["matches"] = [
            {"path": {"type": "Exact", "value": f"/{number}/{n}"},
             "headers": [{"name": "host", "value": "a.test"}]}
            for n in range(MATCHES)
        ]  # fmt: skip
        rules.append(rule)
    return route("crowded", *rules)


async def test_a_route_with_thousands_of_matches_is_served_by_each_of_them(served: Served) -> None:
    port = free_port(ADDRESS)
    served.say(gateway_class(), gateway(listener("http", port)), crowded())
    for rule in (0, RULES // 2, RULES - 1):
        for match in (0, MATCHES - 1):
            await until(port, f"/{rule}/{match}", f"http://rule-{rule}.test:{port}/{rule}/{match}")
    assert await asked(port, f"/{RULES}/0") == "404"
    assert served.gateways.refused() == {}
    # A change of one rule is a change of that host, and as soon there.
    served.say(route("one", moved("Exact", "/one", "one.test"), age=1))
    await until(port, "/one", f"http://one.test:{port}/one")


LONG = "x" * 100_000
MUCH = 2**40


def changed(kind: str, field: str, **fields: Any) -> Manifest:
    """A rule with that filter."""
    return {"filters": [{"type": kind, field: fields}]}


def matched(**fields: Any) -> Manifest:
    return {"matches": [fields]}


def weighted(*weights: int) -> Manifest:
    return {"backendRefs": [backend("orders", weight=weight) for weight in weights]}


def set_headers(*values: str) -> Manifest:
    headers = [{"name": f"x-{n}", "value": value} for n, value in enumerate(values)]
    return changed("ResponseHeaderModifier", "responseHeaderModifier", add=headers)


# What is said of it; nothing: it is served.
OVER: dict[str, tuple[Manifest, str]] = {
    "path": (matched(path={"type": "Exact", "value": f"/{LONG}"}), "length <= 1024"),
    "header": (matched(headers=[{"name": "x-a", "value": LONG}]), "length <= 4096"),
    "name of a header": (matched(headers=[{"name": LONG, "value": "1"}]), "length <= 256"),
    "parameter": (matched(queryParams=[{"name": LONG, "value": "1"}]), "length <= 256"),
    "time": ({"timeouts": {"request": "99999h"}}, ""),
    "impossible time": ({"timeouts": {"request": "9999999999h"}}, "is no duration"),
    "weights": (weighted(*[1_000_000] * 5000), "sum of weights"),
    "weight": (weighted(2**32 - 1), "<= 1000000"),
    "attempts": ({"retry": {"attempts": MUCH, "backoff": "99999h"}}, ""),
    "codes": ({"retry": {"codes": [99, 70_000]}}, ""),
    "cookie": ({"sessionPersistence": {"sessionName": LONG, "absoluteTimeout": "99999h"}}, ""),
    "value of a header": (set_headers(LONG), "length <= 4096"),
    "headers": (set_headers(*["1"] * 2000), "over the proxy's limits"),
    "port": (changed("RequestRedirect", "requestRedirect", port=70_000), "<= 65535"),
    "status": (changed("RequestRedirect", "requestRedirect", statusCode=999), "is none of"),
    "host": (changed("RequestRedirect", "requestRedirect", hostname=LONG), "length <= 253"),
    "new path": (
        changed(
            "URLRewrite", "urlRewrite",
            path={"type": "ReplaceFullPath", "replaceFullPath": f"/{LONG}"},
        ),
        "",
    ),
    "age": (changed("CORS", "cors", allowOrigins=["*"], maxAge=MUCH), ""),
}  # fmt: skip


def said(served: Served, name: str) -> str:
    """Of a route that is not as it was written; of one that is no route at all, why."""
    ref = ObjectRef("HTTPRoute", "shop", name)
    if ref in served.gateways.problems:
        return served.gateways.problems[ref]
    return str(served.conditions(name).get("PartiallyInvalid", {}).get("message", ""))


async def test_what_is_over_a_limit_is_served_or_named(served: Served) -> None:
    port = free_port(ADDRESS)
    expected = {f"over-{n}": words for n, (_, words) in enumerate(OVER.values())}
    served.say(
        gateway_class(),
        gateway(listener("http", port)),
        service("orders"),
        endpoints("orders-a", "orders", "127.0.0.1"),
        route("good", moved("PathPrefix", "/good", "good.test")),
        *(
            route(f"over-{n}", moved("PathPrefix", f"/over-{n}", "fine.test"), rule, age=n)
            for n, (rule, _) in enumerate(OVER.values())
        ),
    )
    await until(port, "/good", f"http://good.test:{port}/good")

    # What Envoy refuses is offered again now and then: nothing is said of it meanwhile.
    left = dict(expected)
    for _ in range(300):
        for name, words in list(left.items()):
            text = said(served, name)
            if words in text if words else not text:
                del left[name]
        if not left:
            break
        await asyncio.sleep(0.1)
    assert {name: said(served, name) for name in left} == {}
    refused = {f"over-{n}" for n, name in enumerate(OVER) if name in ("weights", "headers")}
    await eventually(lambda: {ref.name for ref in served.gateways.refused()} == refused)
    for name in expected:
        if ObjectRef("HTTPRoute", "shop", name) not in served.gateways.problems:
            await until(port, f"/{name}", f"http://fine.test:{port}/{name}")
