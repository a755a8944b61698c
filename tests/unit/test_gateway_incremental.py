"""A change at a time comes to the same as all at once, and costs only what it concerns."""

from __future__ import annotations

import random
from typing import Any

import pytest

from gateway_translator.dump import dump_snapshot
from gateway_translator.gateways import Addresses
from gateway_translator.ir import ObjectRef
from gateway_translator.resources.meta import Key
from gateway_translator.translator import Output, Translator
from tests.unit.gateway_manifests import (
    GATEWAY_API,
    Manifest,
    backend,
    endpoints,
    gateway,
    gateway_class,
    listener,
    route,
    service,
)

GRANT = {
    "apiVersion": GATEWAY_API,
    "kind": "ReferenceGrant",
    "metadata": {"name": "all", "namespace": "store"},
    "spec": {
        "from": [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "namespace": "shop"}],
        "to": [{"group": "", "kind": "Service"}],
    },
}


def key_of(manifest: Manifest) -> Key:
    metadata = manifest["metadata"]
    cluster_scoped = manifest["kind"] in {"GatewayClass", "Namespace"}
    return manifest["kind"], "" if cluster_scoped else metadata["namespace"], metadata["name"]


def pool() -> list[Manifest]:
    """Objects that depend on one another in every way there is."""
    stock = service("stock")
    stock["metadata"]["namespace"] = "store"
    mesh = [{"group": "", "kind": "Service", "name": "orders"}]
    listener_set = {
        "apiVersion": GATEWAY_API,
        "kind": "ListenerSet",
        "metadata": {"name": "more", "namespace": "shop"},
        "spec": {"parentRef": {"name": "web"}, "listeners": [listener("extra", 8081)]},
    }
    policy = {
        "apiVersion": GATEWAY_API,
        "kind": "BackendTLSPolicy",
        "metadata": {"name": "orders", "namespace": "shop"},
        "spec": {
            "targetRefs": [{"group": "", "kind": "Service", "name": "orders"}],
            "validation": {"hostname": "orders.internal", "wellKnownCACertificates": "System"},
        },
    }
    ingress = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"name": "old", "namespace": "shop"},
        "spec": {
            "ingressClassName": "ours",
            "defaultBackend": {"service": {"name": "orders", "port": {"number": 80}}},
        },
    }
    ingress_class = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "IngressClass",
        "metadata": {"name": "ours", "namespace": ""},
        "spec": {"controller": "sidegate.io/ingress-controller"},
    }
    everyone = {"namespaces": {"from": "All"}}
    return [
        gateway_class(),
        gateway(listener("http"), listener("tcp", 5432, "TCP"), allowedListeners=everyone),
        listener_set,
        service("orders"),
        stock,
        GRANT,
        policy,
        ingress,
        ingress_class,
        endpoints("orders-a", "orders", "10.0.0.1"),
        endpoints("orders-b", "orders", "10.0.0.2", ready=False),
        route("a", {"backendRefs": [backend("orders")]}, hostnames=["a.example.com"]),
        route("b", {"backendRefs": [backend("stock", namespace="store")]}, age=1),
        route("g", {"backendRefs": [backend("orders")]}, kind="GRPCRoute", age=2),
        route(
            "set",
            {"backendRefs": [backend("orders")]},
            parentRefs=[{"kind": "ListenerSet", "name": "more"}],
        ),
        route("mesh", {"backendRefs": [backend("orders")]}, parentRefs=mesh),
        route("tcp", {"backendRefs": [backend("orders")]}, kind="TCPRoute"),
    ]


def altered(manifest: Manifest, draw: random.Random) -> Manifest:
    """The same object a generation later, with something else in it where that is simple."""
    changed: Manifest = {**manifest, "metadata": {**manifest["metadata"]}}
    changed["metadata"]["generation"] = draw.randrange(2, 100)
    if manifest["kind"] == "HTTPRoute":
        hostnames = draw.choice([["a.example.com"], ["b.example.com"], []])
        changed["spec"] = {**manifest["spec"], "hostnames": hostnames}
    elif manifest["kind"] == "Gateway":
        hostname = draw.choice(["a.example.com", "*.example.com"])
        listeners = [listener("http", hostname=hostname), listener("other", draw.choice([80, 81]))]
        changed["spec"] = {**manifest["spec"], "listeners": listeners}
    return changed


def fresh(objects: dict[Key, Manifest]) -> Translator:
    translator = Translator()
    translator.set_addresses("shop", "web", Addresses(("192.0.2.1",)))
    translator.apply(objects.values())
    return translator


def overlay(into: dict[str, dict[Any, Any]], output: Output) -> None:
    """Applies a delta as a reader of it would."""
    for name, found in into.items():
        for key, value in getattr(output.delta, name).items():
            if value is None:
                found.pop(key, None)
            else:
                found[key] = value


@pytest.mark.parametrize("seed", range(15))
def test_any_order_of_changes_comes_to_the_same(seed: int) -> None:
    draw = random.Random(seed)
    translator = Translator()
    translator.set_addresses("shop", "web", Addresses(("192.0.2.1",)))
    objects: dict[Key, Manifest] = {}
    names = list(translator.snapshot().__dataclass_fields__)
    followed: dict[str, dict[Any, Any]] = {name: {} for name in names}
    for _ in range(60):
        manifest = draw.choice(pool())
        key = key_of(manifest)
        if key in objects and draw.random() < 0.4:
            del objects[key]
            overlay(followed, translator.apply((), [key]))
        else:
            manifest = draw.choice([manifest, altered(manifest, draw)])
            objects[key] = manifest
            overlay(followed, translator.apply([manifest]))
        snapshot, again = translator.snapshot(), fresh(objects)
        assert dump_snapshot(snapshot) == dump_snapshot(again.snapshot())
        assert dict(translator.statuses()) == dict(again.statuses())
        for name in names:
            assert followed[name] == dict(getattr(snapshot, name)), name


def many_routes(count: int) -> Translator:
    translator = Translator()
    translator.set_addresses("shop", "web", Addresses(("192.0.2.1",)))
    routes = [
        route(f"r{n}", {"backendRefs": [backend("orders")]}, hostnames=[f"h{n}.example.com"])
        for n in range(count)
    ]
    translator.apply([gateway_class(), gateway(listener("http")), service("orders"), *routes])
    return translator


def test_one_route_changes_one_virtual_host() -> None:
    translator = many_routes(50)
    kept = translator.snapshot().virtual_hosts["shop/web/80", "h8.example.com"]
    changed = route("r7", {"backendRefs": [backend("orders")]}, {"backendRefs": []})
    changed["spec"]["hostnames"] = ["h7.example.com"]
    output = translator.apply([changed])
    assert set(output.delta.virtual_hosts) == {("shop/web/80", "h7.example.com")}
    assert not output.delta.listeners
    assert not output.delta.clusters
    assert set(output.statuses) <= {ObjectRef("HTTPRoute", "shop", "r7")}
    assert translator.snapshot().virtual_hosts["shop/web/80", "h8.example.com"] is kept


def test_an_endpoint_changes_its_own_slice_alone() -> None:
    translator = many_routes(1)
    translator.apply(
        [endpoints("orders-a", "orders", "10.0.0.1"), endpoints("orders-b", "orders", "10.0.0.2")]
    )
    before = translator.snapshot().endpoints["shop/orders/80/http"]
    output = translator.apply([endpoints("orders-b", "orders", "10.0.0.3")])
    assert set(output.delta.endpoints) == {"shop/orders/80/http"}
    assert not output.delta.virtual_hosts
    after = translator.snapshot().endpoints["shop/orders/80/http"]
    assert after.groups[0] is before.groups[0]
    assert [each.address for each in after.endpoints()] == ["10.0.0.1", "10.0.0.3"]


def test_what_comes_again_unchanged_says_nothing() -> None:
    translator = many_routes(3)
    output = translator.apply([gateway(listener("http")), service("orders")])
    assert not output.statuses
    assert not any(getattr(output.delta, name) for name in output.delta.__dataclass_fields__)


def test_a_revoked_grant_takes_the_backend_away() -> None:
    translator = many_routes(0)
    stock = service("stock")
    stock["metadata"]["namespace"] = "store"
    far = route("far", {"backendRefs": [backend("stock", namespace="store")]})
    translator.apply([stock, far, GRANT])
    place = ("shop/web/80", "*")
    assert translator.snapshot().virtual_hosts[place].routes[0].action.backends.valid
    output = translator.apply((), [key_of(GRANT)])
    action = output.delta.virtual_hosts[place].routes[0].action  # type: ignore[union-attr]
    assert (action.backends.valid, action.backends.invalid_weight) == ((), 1)
    status = output.statuses[ObjectRef("HTTPRoute", "shop", "far")]
    assert status is not None
    assert status["parents"][0]["conditions"][1]["reason"] == "RefNotPermitted"


def test_foreign_classes_are_left_alone() -> None:
    translator = Translator()
    foreign = gateway_class(controller="example.com/other")
    output = translator.apply([foreign, gateway(listener("http")), route("a", {"backendRefs": []})])
    assert not output.statuses
    assert not translator.snapshot().listeners


def test_what_the_proxy_refuses_is_taken_out_and_says_so() -> None:
    translator = many_routes(2)
    both = {"matches": [{"path": {"value": "/b"}}], "backendRefs": [backend("orders")]}
    changed = route("r0", {"backendRefs": [backend("orders")]}, both)
    changed["spec"]["hostnames"] = ["h0.example.com"]
    translator.apply([changed])
    place = ("shop/web/80", "h0.example.com")
    whole = translator.snapshot().virtual_hosts[place]
    output = translator.set_refused({whole.routes[0].origin: "no such thing"})
    assert set(output.delta.virtual_hosts) == {place}
    assert translator.snapshot().virtual_hosts[place].routes == whole.routes[1:]
    status = output.statuses[ObjectRef("HTTPRoute", "shop", "r0")]
    assert status is not None
    accepted, _, partially = status["parents"][0]["conditions"]
    assert accepted["status"] == "True"
    assert partially["message"] == "Dropped Rule 1: the proxy refuses it: no such thing"
    assert translator.set_refused({}).delta.virtual_hosts == {place: whole}


def test_a_listener_that_the_proxy_refuses_takes_no_other_with_it() -> None:
    translator = many_routes(1)
    translator.apply([gateway(listener("http"), listener("other", 81))])
    refused = ObjectRef("Gateway", "shop", "web", "other")
    output = translator.set_refused({refused: "address in use"})
    assert output.delta.listeners == {"shop/web/81/tcp": None}
    status = output.statuses[ObjectRef("Gateway", "shop", "web")]
    assert status is not None
    http, other = (each["conditions"][0] for each in status["listeners"])
    assert (http["status"], other["status"]) == ("True", "False")
    assert "address in use" in other["message"]
