"""The API server as a source, and everything that can go wrong with one."""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from kube_store import following, kube_access
from kube_store.back_off import BackOff
from kube_store.kube import Watched
from kube_store.kube_access import Headers, nobody
from kube_store.resource import Resource, ResourceKey
from tests.unit.fake_api_server import (
    FakeApiServer,
    Fault,
    Manifest,
    cut,
    fake_api_server,
    slow,
    status,
    stream,
)
from tests.unit.following_source import Following
from tests.unit.test_store_both_sources import pod, until

PODS = "/api/v1/pods"
POLICIES = "/apis/cilium.io/v2/ciliumnetworkpolicies"
POLICY = Watched("CiliumNetworkPolicy", "cilium.io/v2", "ciliumnetworkpolicies", optional=True)


def versioned(manifest: Manifest, version: int) -> Manifest:
    metadata = manifest["metadata"] | {"resourceVersion": str(version)}
    return {**manifest, "metadata": metadata}


def event(kind: str, manifest: Any) -> bytes:
    return json.dumps({"type": kind, "object": manifest}).encode() + b"\n"


def error(code: int) -> bytes:
    return event("ERROR", {"kind": "Status", "code": code, "message": f"it is {code}"})


def listed(version: int, *manifests: Manifest) -> Fault:
    answer = {"metadata": {"resourceVersion": str(version)}, "items": list(manifests)}
    return stream(json.dumps(answer).encode())


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of the time that a real cluster is given."""
    monkeypatch.setattr(following, "BackOff", functools.partial(BackOff, 0.02, 3.0))
    monkeypatch.setattr(following, "_STEADY_SECONDS", 0.1)


def image(resource: Resource) -> str:
    return str(resource.manifest.get("image", ""))


class Rig(Following):
    """Of pods, or of what is given."""

    def __init__(self, server: FakeApiServer, *watched: Watched, headers: Headers = nobody) -> None:
        super().__init__(
            server.client(headers), image, *(watched or [Watched("Pod", "v1", "pods")])
        )
        self.server = server

    async def watching(self) -> None:
        await until(lambda: self.server.watching == 1)


@pytest.fixture
async def server(impatient: None) -> AsyncIterator[FakeApiServer]:
    async with fake_api_server() as made:
        made.change(PODS, pod("a"), pod("b"))
        yield made


@pytest.fixture
async def rig(server: FakeApiServer) -> AsyncIterator[Rig]:
    """It knows a and b, and watches."""
    made = Rig(server)
    await made.watching()
    yield made
    await made.close()


LIST_FAULTS: dict[str, tuple[Fault, str]] = {
    "500": (status(500), "500: it is 500"),
    "503 with a time": (status(503, retry_after="1"), "503: it is 503"),
    "429": (status(429, retry_after="1"), "429: it is 429"),
    "429 until a date": (status(429, retry_after="Wed, 21 Oct 2026 07:28:00 GMT"), "429"),
    "401": (status(401), "check the token or the client certificate"),
    "403": (status(403), "grant list and watch on pods of core to our service account"),
    "404": (status(404), "404: it is 404"),
    "cut": (cut(), "pods: "),
    "no JSON": (stream(b"<html>"), "pods: "),
    "half of it": (stream(b'{"metadata": {"resourceVersion": "9"}, "items": [{"me'), "pods: "),
    "cut in the middle": (stream(b'{"metadata": {"reso', whole=False), "pods: "),
    "no list": (stream(b"[]"), "without a resourceVersion"),
    "no version": (stream(b'{"metadata": {}, "items": []}'), "without a resourceVersion"),
    "no version inside": (listed(900, pod("a")), "without a resourceVersion"),
}


@pytest.mark.parametrize("name", LIST_FAULTS)
async def test_a_list_that_fails_is_said_and_asked_for_again(
    server: FakeApiServer, name: str
) -> None:
    fault, said = LIST_FAULTS[name]
    server.faults.extend([fault, fault])
    rig = Rig(server)
    try:
        await until(lambda: bool(rig.errors()))
        assert said in rig.errors()
        assert "(since 20" in rig.errors()
        assert not rig.source.synced.is_set()
        await rig.synced()
        assert rig.batches == [["a=1", "b=1"]]
        await until(lambda: not rig.errors())
    finally:
        await rig.close()


CHANGED = event("MODIFIED", versioned(pod("a", "2"), 104))
WATCH_FAULTS: dict[str, Fault] = {
    "410": status(410),
    "410 in the stream": stream(error(410)),
    "410 after an event": stream(CHANGED + error(410)),
    "500 in the stream": stream(error(500)),
    "an error that is none": stream(event("ERROR", {})),
    "500": status(500),
    "429": status(429, retry_after="1"),
    "403": status(403),
    "cut": cut(),
    "cut after an event": stream(CHANGED, whole=False),
    "cut in a line": stream(CHANGED[:30], whole=False),
    "ended in a line": stream(CHANGED[:30]),
    "ended at once": stream(b""),
    "no JSON after an event": stream(CHANGED + b"{]\n"),
    "no event after an event": stream(CHANGED + b'{"kind": "Status"}\n'),
    "unknown event": stream(event("RENAMED", versioned(pod("b"), 999))),
    "no version after an event": stream(CHANGED + event("ADDED", pod("b"))),
    "event of an object before": stream(event("ADDED", versioned(pod("a", "0"), 50))),
}


@pytest.mark.parametrize("name", WATCH_FAULTS)
async def test_a_watch_that_fails_loses_nothing_and_says_nothing_twice(rig: Rig, name: str) -> None:
    rig.server.version = 103  # so that the change is 104
    rig.server.faults.append(WATCH_FAULTS[name])
    rig.server.end_watches()
    await until(lambda: not rig.server.faults)
    rig.server.change(PODS, pod("a", "2"))
    rig.server.change(PODS, deleted=("b",))
    await until(lambda: rig.names() == ["a=2"])
    said = [word for batch in rig.batches for word in batch]
    assert sorted(said) == ["-b", "a=1", "a=2", "b=1"]
    await until(lambda: not rig.errors())


@pytest.mark.parametrize("fault", [status(410), stream(error(410)), stream(b""), stream(CHANGED)])
async def test_a_server_that_ends_every_watch_is_not_asked_without_a_pause(
    rig: Rig, fault: Fault
) -> None:
    async def watches_only(request: web.Request) -> web.StreamResponse | None:
        return await fault(request) if "watch" in request.query else None

    rig.server.always = watches_only
    rig.server.end_watches()
    before = len(rig.server.requests)
    await asyncio.sleep(1)
    assert 3 <= len(rig.server.requests) - before <= 30
    assert rig.errors()
    assert len(rig.store.list()) == 2


async def test_retry_after_is_kept_to(server: FakeApiServer) -> None:
    server.faults.append(status(429, retry_after="2"))
    began = asyncio.get_running_loop().time()
    rig = Rig(server)
    await rig.synced()
    assert 2 <= asyncio.get_running_loop().time() - began < 4
    await rig.close()


def test_back_off_is_bounded_after_any_number_of_attempts() -> None:
    back_off = BackOff(0.2, 30)
    waits = [back_off.next() for _ in range(3000)]
    assert waits[0] <= 0.4
    assert min(waits) >= 0.1
    assert 25 < max(waits) <= 30
    assert back_off.next(asked=45) == 45
    assert back_off.next(asked=float("inf")) == 60
    back_off.reset()
    assert back_off.next() <= 0.4


async def test_an_older_list_brings_nothing_back(rig: Rig) -> None:
    old = listed(rig.server.version, *(versioned(pod(name), 50) for name in "ab"))
    rig.server.change(PODS, pod("a", "2"), deleted=("b",))
    await until(lambda: rig.names() == ["a=2"])
    rig.server.faults.extend([status(410), old, old])
    rig.server.end_watches()
    await until(lambda: not rig.server.faults)
    await until(lambda: "104 was seen before" in rig.errors())
    assert rig.names() == ["a=2"]
    rig.server.change(PODS, pod("c"))
    await until(lambda: rig.names() == ["a=2", "c=1"])
    assert rig.batches == [["a=1", "b=1"], ["-b", "a=2"], ["c=1"]]


async def test_an_older_event_brings_nothing_back(rig: Rig) -> None:
    rig.server.change(PODS, pod("a", "2"), deleted=("b",))
    await until(lambda: rig.names() == ["a=2"])
    late = [("ADDED", "b", "1", 102), ("MODIFIED", "a", "1", 101), ("DELETED", "a", "1", 103)]
    for kind, name, image, version in late:
        rig.server.say(PODS, event(kind, versioned(pod(name, image), version)))
    rig.server.change(PODS, pod("c"))
    await until(lambda: "c=1" in rig.names())
    assert rig.names() == ["a=2", "c=1"]


async def test_a_bookmark_is_where_the_next_watch_begins(rig: Rig) -> None:
    bookmark = {"metadata": {"resourceVersion": "5000"}}
    rig.server.say(PODS, event("BOOKMARK", bookmark))
    rig.server.end_watches()
    rig.server.end_watches()
    await until(lambda: rig.server.count("watch") == 2)
    first, second = (query for what, query in rig.server.requests if what == "watch")
    assert (first["resourceVersion"], second["resourceVersion"]) == ("102", "5000")
    assert first["allowWatchBookmarks"] == "true"
    assert 240 <= int(first["timeoutSeconds"]) <= 480
    assert rig.server.count("list") == 1


async def test_lists_come_in_pages_with_the_selectors(server: FakeApiServer) -> None:
    server.page = 2
    server.change(PODS, *(pod(f"p{number}") for number in range(5)))
    watched = Watched("Pod", "v1", "pods", "spec.nodeName=n1", "app=x")
    rig = Rig(server, watched)
    await rig.watching()
    assert [len(batch) for batch in rig.batches] == [7]
    assert server.count("list") == 4
    for _, query in server.requests:
        assert query["fieldSelector"] == "spec.nodeName=n1"
        assert query["labelSelector"] == "app=x"
    assert {query["limit"] for what, query in server.requests if what == "list"} == {"500"}
    await rig.close()


async def test_a_list_whose_pages_expire_begins_anew(server: FakeApiServer) -> None:
    server.page = 1

    async def first_page(_: web.Request) -> None:
        return None

    server.faults.extend([first_page, status(410)])
    rig = Rig(server)
    await rig.synced()
    assert rig.batches == [["a=1", "b=1"]]
    await rig.close()


async def test_a_server_that_says_nothing_is_left(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "_SILENCE_SECONDS", 0.3)
    rig.server.end_watches()
    await until(lambda: rig.server.count("watch") >= 4)
    rig.server.change(PODS, pod("c"))
    await until(lambda: "c=1" in rig.names())
    assert rig.server.count("list") == 1


async def test_a_slow_server_is_waited_for(server: FakeApiServer) -> None:
    server.always = slow(0.5)
    rig = Rig(server)
    await rig.synced()
    assert rig.batches == [["a=1", "b=1"]]
    await until(lambda: server.watching == 1)
    assert rig.errors() == ""
    await rig.close()


async def test_revoked_rights_leave_what_is_known(rig: Rig) -> None:
    rig.server.always = status(403)
    rig.server.end_watches()
    await until(lambda: "grant list and watch on pods of core" in rig.errors())
    assert rig.names() == ["a=1", "b=1"]
    rig.server.always = None
    rig.server.change(PODS, pod("a", "2"))
    await until(lambda: rig.names() == ["a=2", "b=1"])
    await until(lambda: not rig.errors())


async def test_a_token_that_is_being_replaced_is_waited_for(
    server: FakeApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kube_access, "_TOKEN_SECONDS", 0)
    file = tmp_path / "token"
    file.write_text("t")
    rig = Rig(server, headers=kube_access.TokenFile(file))
    await rig.watching()
    file.write_text("")
    server.end_watches()
    await until(lambda: f"no credentials: {file} is empty" in rig.errors())
    file.write_text("u")
    server.change(PODS, pod("c"))
    await until(lambda: "c=1" in rig.names())
    await rig.close()


def policy(name: str) -> Manifest:
    return {"metadata": {"name": name, "namespace": "default"}}


async def test_a_kind_that_is_not_installed_is_said_and_found_when_it_comes(
    server: FakeApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "_MISSING_SECONDS", 0.2)
    server.missing.add(POLICIES)
    rig = Rig(server, POLICY, Watched("Pod", "v1", "pods"))
    await rig.synced()
    assert "does not know ciliumnetworkpolicies of cilium.io" in rig.errors()
    assert "the operator installs the CRDs" in rig.errors()
    assert rig.names() == ["a=1", "b=1"]
    server.missing.clear()
    server.change(POLICIES, policy("p"))
    await until(lambda: "p=" in rig.names())
    assert rig.store.list("CiliumNetworkPolicy")[0].manifest["apiVersion"] == "cilium.io/v2"
    await until(lambda: not rig.errors())
    await rig.close()


async def test_a_kind_that_nobody_needs_is_done_without_and_found_when_it_comes(
    server: FakeApiServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(following, "_MISSING_SECONDS", 0.05)
    server.missing.add(POLICIES)
    rig = Rig(server, replace(POLICY, remedy=""))
    await rig.synced()
    await until(lambda: server.count("list") > 10)
    assert rig.errors() == ""
    server.missing.clear()
    server.change(POLICIES, policy("p"))
    await until(lambda: rig.names() == ["p="])
    server.missing.add(POLICIES)
    server.end_watches()
    await until(lambda: rig.names() == [])
    assert capsys.readouterr().out.count("not installed, done without") == 2
    assert rig.errors() == ""
    await rig.close()


async def test_objects_go_with_their_kind_and_not_before(server: FakeApiServer) -> None:
    server.change(POLICIES, policy("p"))
    rig = Rig(server, POLICY)
    await rig.watching()
    server.missing.add(POLICIES)
    unknown = status(404)  # of a server that starts: it gives no reason

    async def starting(request: web.Request) -> web.StreamResponse | None:
        return await unknown(request)

    server.always = starting
    server.end_watches()
    await until(lambda: server.count("list") + server.count("watch") > 5)
    assert rig.names() == ["p="]
    server.always = None
    await until(lambda: rig.names() == [])
    await rig.close()


async def test_a_server_that_starts_is_not_one_without_the_kind(server: FakeApiServer) -> None:
    server.always = status(404)
    rig = Rig(server, POLICY)
    await until(lambda: server.count("list") > 3)
    assert not rig.source.synced.is_set()
    server.always = None
    await rig.synced()
    await rig.close()


async def test_what_nobody_reads_is_not_kept(server: FakeApiServer) -> None:
    applied = "kubectl.kubernetes.io/last-applied-configuration"
    noisy = pod("n")
    noisy["metadata"] |= {"managedFields": [{}], "annotations": {applied: "{}", "mine": "1"}}
    server.change(PODS, noisy)

    def trim(manifest: Manifest) -> Manifest:
        return {k: v for k, v in manifest.items() if k != "image"}

    rig = Rig(server, Watched("Pod", "v1", "pods", trim=trim))
    await rig.watching()
    server.change(PODS, noisy | {"image": "2"})
    await until(lambda: len(rig.batches) == 2)
    found = rig.store.get(ResourceKey("Pod", "default", "n"))
    assert found is not None
    assert found.manifest["metadata"]["annotations"] == {"mine": "1"}
    assert "managedFields" not in found.manifest["metadata"]
    assert (found.manifest["kind"], found.manifest["apiVersion"]) == ("Pod", "v1")
    assert "image" not in found.manifest
    assert rig.source.received["Pod"] > 300
    await rig.close()
