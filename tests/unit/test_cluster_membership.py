"""Identities shared by hash, the layers of the address book, slices that cost what changed."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from kube_store.kube_client import KubeClient, KubeError
from kube_store.resource import Resource, ResourceKey
from kube_store.shared import IDENTITY
from kube_store.store import Change, ChangeType, Store
from node_agent.address_book import AddressBook, Layer
from node_agent.cluster import Cluster
from node_agent.endpoint_slices import PER_SLICE, EndpointSlices
from node_agent.endpoints import EndpointRecord
from node_agent.identities import ClusterIdentities, candidate
from policy_engine.labels import pod_labels
from policy_engine.repository import PolicyRepository

A, B = pod_labels("default", {"app": "a"}, {}), pod_labels("default", {"app": "b"}, {})
TEN, NINE = ip_network("10.0.0.1/32"), ip_network("10.0.0.0/24")


class FakeServer(KubeClient):
    """Objects by path; ``fails`` is how many requests are refused first."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Any]] = {}
        self.requests: list[tuple[str, str]] = []
        self.fails = 0

    async def request(
        self, method: str, path: str, query: Mapping[str, str] | None = None, body: Any = None,
        *_: Any, **__: Any,
    ) -> tuple[Any, int]:  # fmt: skip
        await asyncio.sleep(0)
        self.requests.append((method, path.rpartition("/")[2]))
        if self.fails:
            self.fails -= 1
            raise KubeError(500, "etcd is away")
        at = f"{path}/{body['metadata']['name']}" if method == "POST" else path
        if method == "POST" and at in self.objects:
            raise KubeError(409, "it is there")
        if method in ("GET", "DELETE") and at not in self.objects:
            raise KubeError(404, "there is none")
        if method == "DELETE":
            return self.objects.pop(at), 0
        if body is not None:
            self.objects[at] = body
        return self.objects[at], 0


def member(server: FakeServer) -> tuple[ClusterIdentities, PolicyRepository, Store]:
    """The identities of one agent, told of what it created as by its store."""
    repository, store = PolicyRepository(), Store()
    made = ClusterIdentities(repository, server, store.upsert)

    def take(changes: list[Change]) -> None:
        for change in changes:
            made.take(change)

    store.subscribe(take)
    return made, repository, store


async def test_two_agents_that_ask_at_one_moment_get_one_number() -> None:
    server = FakeServer()
    (one, first, _), (two, second, _) = member(server), member(server)
    await asyncio.gather(one.ensure(A), two.ensure(A))
    assert one.acquire(A)[0] == two.acquire(A)[0] == candidate(A, 0)
    assert len(server.objects) == 1
    assert first.identities()[candidate(A, 0)] == second.identities()[candidate(A, 0)] == A


async def test_a_number_that_others_have_is_left_to_them() -> None:
    server = FakeServer()
    path = "/apis/policy.sidegate.io/v2/sidegateidentities"
    server.objects[f"{path}/{candidate(A, 0)}"] = {"security-labels": B}
    identities, *_ = member(server)
    await identities.ensure(A)
    assert identities.acquire(A)[0] == candidate(A, 1) != candidate(A, 0)


async def test_it_is_asked_again_while_the_server_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node_agent.identities._RETRY_SECONDS", 0.001)
    server = FakeServer()
    server.fails = 5
    identities, *_ = member(server)
    assert identities.acquire(A)[0] is None
    await identities.ensure(A)
    assert identities.acquire(A)[0] == candidate(A, 0)


async def test_one_that_is_deleted_while_used_is_created_anew() -> None:
    server = FakeServer()
    identities, repository, store = member(server)
    await identities.ensure(A)
    number, _ = identities.acquire(A)
    server.objects.clear()
    store.delete(ResourceKey(IDENTITY, "", str(number)))
    await identities.ensure(A)
    assert len(server.objects) == 1
    assert repository.identities()[number or 0] == A


def test_the_highest_layer_that_knows_a_prefix_is_right() -> None:
    book = AddressBook()
    book.put(Layer.PEER, TEN, (300, 0))
    book.put(Layer.CIDR, TEN, (1 << 24, 0))
    assert book.changes() == ([], {TEN: (300, 0)})
    book.put(Layer.ENDPOINT, TEN, (301, 7))
    assert book.changes() == ([], {TEN: (301, 7)})
    book.drop(Layer.ENDPOINT, TEN)
    book.drop(Layer.PEER, TEN)
    assert book.changes() == ([], {TEN: (1 << 24, 0)})
    book.replace(Layer.CIDR, {})
    assert book.changes() == ([TEN], {})
    assert book.changes() == ([], {})


def test_what_the_kernel_has_from_before_goes_unless_somebody_says_it() -> None:
    book = AddressBook()
    book.restore({TEN: (300, 0), NINE: (3, 0)})
    book.put(Layer.PEER, TEN, (300, 0))
    assert book.changes() == ([NINE], {})


def test_a_slice_that_shrinks_takes_its_addresses_along() -> None:
    book = AddressBook()
    cluster = Cluster("here", book)

    def heard(*addresses: str, kind: ChangeType = ChangeType.MODIFIED, node: str = "there") -> None:
        endpoints = [{"namespace": "n", "name": f"p{a}", "identity": 300, "ipv4": a}
                     for a in addresses]  # fmt: skip
        manifest = {"metadata": {"name": "s"}, "node": node, "endpoints": endpoints}
        key = ResourceKey("SidegateEndpointSlice", "", f"{node}-0")
        cluster.take(Change(kind, Resource(key, manifest)))

    heard("10.0.0.1", "10.0.0.2")
    assert len(book.changes()[1]) == 2
    heard("10.0.0.1")
    assert book.changes() == ([ip_network("10.0.0.2")], {})
    found = cluster.pod_at("10.0.0.1")
    assert found
    assert found.pod == "n/p10.0.0.1"
    heard(kind=ChangeType.DELETED)
    assert book.changes() == ([TEN], {})
    assert cluster.pod_at("10.0.0.1") is None
    heard("10.0.0.9", node="here")  # our own come from the table of endpoints
    assert book.changes() == ([], {})


async def test_a_pod_writes_its_slice_and_no_other() -> None:
    server = FakeServer()
    slices = EndpointSlices("n", server)
    record = EndpointRecord(1, "c", "ns", "pod", "veth", 1, "", ipv4="10.0.0.1", identity=300)
    writing = asyncio.create_task(slices.run())
    for number in range(1, PER_SLICE + 2):
        slices.put(replace(record, id=number))
    await asyncio.sleep(0.05)
    sizes = [len(o["endpoints"]) for o in server.objects.values()]
    assert sizes == [PER_SLICE, 1]
    server.requests.clear()
    slices.put(replace(record, id=3, identity=301))
    slices.put(replace(record, id=5))
    await asyncio.sleep(0.05)
    assert server.requests == [("PATCH", "n-0")]
    slices.remove(PER_SLICE + 1)
    await asyncio.sleep(0.05)
    assert server.requests[1:] == [("DELETE", "n-1")]
    writing.cancel()


def test_routes_are_said_to_change_when_they_do() -> None:
    cluster = Cluster("here", AddressBook())

    def heard(
        name: str, cidrs: list[str], address: str, kind: ChangeType = ChangeType.MODIFIED
    ) -> bool:
        manifest = {
            "metadata": {"name": name},
            "spec": {"podCIDRs": cidrs},
            "status": {"addresses": [{"type": "InternalIP", "address": address}]},
        }
        cluster.rerouted.clear()
        cluster.take(Change(kind, Resource(ResourceKey("Node", "", name), manifest)))
        return cluster.rerouted.is_set()

    own, other = ip_network("10.0.0.0/24"), ip_network("10.0.1.0/24")
    assert heard("here", [str(own)], "192.0.2.1")
    assert heard("there", [str(other)], "192.0.2.2")
    assert cluster.routes == {other: ip_address("192.0.2.2")}
    assert cluster.cluster_cidrs == {own, other}
    assert not heard("there", [str(other)], "192.0.2.2")
    assert not heard("here", [str(own)], "192.0.2.9"), "no route leads to ourselves"
    assert not heard("bare", [], "192.0.2.3")
    assert heard("there", [str(other)], "192.0.2.4")
    assert cluster.routes == {other: ip_address("192.0.2.4")}
    assert heard("there", [str(other)], "2001:db8::4")
    assert cluster.routes == {}
    assert cluster.cluster_cidrs == {own, other}
    assert heard("there", [str(other)], "2001:db8::4", ChangeType.DELETED)
    assert cluster.cluster_cidrs == {own}
