"""The controller of Gateways: what it writes of objects that come, go, or are written to."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import pytest

from cluster_operator.gateways import GatewayController
from gateway_translator.features import EXPERIMENTAL, SUPPORTED
from gateway_translator.translator import CONTROLLER
from kube_store.gateway_kinds import CRD_OF_ROUTES
from kube_store.kube_client import KubeClient
from kube_store.resource import Resource, ResourceKey
from kube_store.store import Store
from kube_store.tasks import cancelled

API = "gateway.networking.k8s.io/v1"
ROUTE = ResourceKey("HTTPRoute", "shop", "web")
LISTENER = {"name": "http", "port": 80, "protocol": "HTTP"}
FIXED = (
    {"kind": "GatewayClass", "metadata": {"name": "c"}, "spec": {"controllerName": CONTROLLER}},
    {
        "kind": "Gateway",
        "metadata": {"name": "web", "namespace": "shop", "uid": "g", "generation": 1},
        "spec": {"gatewayClassName": "c", "listeners": [LISTENER]},
    },
)


class ApiServer:
    """Takes statuses, and tells the store of it as a watch would."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.written = 0

    async def request(
        self, _: str, path: str, body: Any, content_type: str, accept: str
    ) -> tuple[Any, int]:
        assert content_type.endswith("merge-patch+json")
        kind = {"gatewayclasses": "GatewayClass", "gateways": "Gateway", "httproutes": "HTTPRoute"}
        plural, name = path.split("/")[-3:-1]
        namespace = "" if plural == "gatewayclasses" else "shop"
        found = self._store.get(ResourceKey(kind[plural], namespace, name))
        assert found
        self.written += 1
        self._store.upsert(Resource(found.key, {**found.manifest, **copy.deepcopy(body)}))
        return {}, 0

    async def find(self, _: str) -> None:
        return None

    async def apply(self, *_: Any) -> None:
        return None


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    made = Store()
    for each in FIXED:
        metadata = cast(dict[str, Any], each["metadata"])
        key = ResourceKey(str(each["kind"]), metadata.get("namespace", ""), metadata["name"])
        made.upsert(Resource(key, {"apiVersion": API, **each}))
    running = asyncio.create_task(GatewayController(cast(KubeClient, ApiServer(made)), made).run())
    yield made
    await cancelled(running)


def route(uid: str, path: str) -> Resource:
    match = {"path": {"type": "PathPrefix", "value": path}}
    metadata = {"name": "web", "namespace": "shop", "uid": uid, "generation": 1}
    spec = {"parentRefs": [{"name": "web"}], "rules": [{"matches": [match]}]}
    return Resource(
        ROUTE, {"apiVersion": API, "kind": "HTTPRoute", "metadata": metadata, "spec": spec}
    )


def accepted(store: Store) -> bool:
    found = store.get(ROUTE)
    parents = found.manifest.get("status", {}).get("parents", []) if found else []
    return any(c["type"] == "Accepted" for each in parents for c in each["conditions"])


async def until(what: Callable[[], bool]) -> None:
    for _ in range(500):
        if what():
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"{what} is not so")


async def test_a_route_that_comes_again_at_once_has_its_status_again(store: Store) -> None:
    store.upsert(route("one", "/a"))
    await until(lambda: accepted(store))
    store.delete(ROUTE)
    store.upsert(route("two", "/b"))
    assert not accepted(store)
    await until(lambda: accepted(store))


async def test_a_status_that_somebody_took_away_is_written_again(store: Store) -> None:
    store.upsert(route("one", "/a"))
    await until(lambda: accepted(store))
    store.upsert(route("one", "/a"))
    assert not accepted(store)
    await until(lambda: accepted(store))


def crd(channel: str) -> Resource:
    annotations = {"gateway.networking.k8s.io/channel": channel}
    metadata = {"name": CRD_OF_ROUTES.name, "annotations": annotations}
    return Resource(CRD_OF_ROUTES, {"kind": CRD_OF_ROUTES.kind, "metadata": metadata})


async def test_what_the_installed_channel_lacks_is_not_claimed(store: Store) -> None:
    def claimed() -> set[str]:
        found = store.get(ResourceKey("GatewayClass", "", "c"))
        status = found.manifest.get("status", {}) if found else {}
        return {each["name"] for each in status.get("supportedFeatures", ())}

    await until(lambda: claimed() == SUPPORTED)
    store.upsert(crd("standard"))
    await until(lambda: claimed() == SUPPORTED - EXPERIMENTAL)
    store.upsert(crd("experimental"))
    await until(lambda: claimed() == SUPPORTED)
