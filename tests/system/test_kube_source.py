"""The API server as a source, and statuses written to it: a real kube-apiserver on a real etcd."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any

import httpx
import pytest

from kube_store import following, kube_client
from kube_store.back_off import BackOff
from kube_store.kube import Watched
from kube_store.kube_client import connect
from kube_store.resource import Resource, ResourceKey
from kube_store.status import StatusTarget, StatusWriter
from kube_store.store import Store
from sandbox.control_plane import Cluster, ControlPlane
from tests.unit.following_source import Following

pytestmark = [pytest.mark.system, pytest.mark.slow]

MAPS = "/api/v1/namespaces/default/configmaps"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
ROLES = "/apis/rbac.authorization.k8s.io/v1"
GROUP = "test.sidegate.io"
WIDGETS = f"/apis/{GROUP}/v1/namespaces/default/widgets"
MAP = Watched("ConfigMap", "v1", "configmaps", label_selector="test")
WIDGET = Watched("Widget", f"{GROUP}/v1", "widgets", optional=True)
CRD: dict[str, Any] = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": f"widgets.{GROUP}"},
    "spec": {
        "group": GROUP,
        "scope": "Namespaced",
        "names": {"kind": "Widget", "plural": "widgets"},
        "versions": [{
            "name": "v1", "served": True, "storage": True, "subresources": {"status": {}},
            "schema": {"openAPIV3Schema": {
                "type": "object", "x-kubernetes-preserve-unknown-fields": True,
            }},
        }],
    },
}  # fmt: skip


class Relay:
    """Between the source and the API server, to be cut. TLS passes through it."""

    def __init__(self, host: IPv4Address, port: int) -> None:
        self._to = str(host), port
        self._port = 0
        self._server: asyncio.Server | None = None
        self._ends: set[asyncio.StreamWriter] = set()

    async def open(self) -> str:
        """The URL; the same each time."""
        self._server = await asyncio.start_server(self._join, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]
        return f"https://127.0.0.1:{self._port}"

    async def cut(self) -> None:
        if self._server:
            self._server.close()
        for end in tuple(self._ends):
            end.transport.abort()

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._ends.add(writer)
        with contextlib.suppress(OSError):
            far_reader, far_writer = await asyncio.open_connection(*self._to)
            self._ends.add(far_writer)
            await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer))
        writer.close()

    @staticmethod
    async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()


def value(resource: Resource) -> str:
    return str((resource.manifest.get("data") or {}).get("v", ""))


def config_map(name: str, v: str = "1") -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": {"test": "x"}}, "data": {"v": v}}


async def until(condition: Callable[[], bool], seconds: float = 40) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what is awaited is another process
            await asyncio.sleep(0.02)


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    made = ControlPlane(Cluster("kubesource"))
    try:
        made.start()
        yield made
    finally:
        made.stop()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of the back-off that a real cluster is given."""
    monkeypatch.setattr(following, "BackOff", functools.partial(BackOff, 0.2, 3.0))


@pytest.fixture
def api(plane: ControlPlane) -> Iterator[httpx.Client]:
    with plane.client() as client:
        yield client
        client.request("DELETE", MAPS, params={"labelSelector": "test"})


@pytest.fixture
async def relay(plane: ControlPlane) -> AsyncIterator[Relay]:
    made = Relay(plane.cluster.link[2], 6443)
    plane.pki.kubeconfig("admin", await made.open())
    yield made
    await made.cut()
    plane.pki.kubeconfig("admin", plane.outside)


@pytest.fixture
async def made(relay: Relay, plane: ControlPlane) -> AsyncIterator[Following]:
    """Follows the config maps of the test, through the relay."""
    following_ = Following(await connect(plane.cluster.kubeconfig), value, MAP)
    await following_.synced()
    yield following_
    await following_.close()


def create(api: httpx.Client, path: str, *manifests: dict[str, Any]) -> None:
    for manifest in manifests:
        api.post(path, json=manifest).raise_for_status()


def delete(api: httpx.Client, path: str) -> None:
    api.delete(path).raise_for_status()


def change(api: httpx.Client, path: str, changes: Any) -> None:
    kind = {"Content-Type": "application/merge-patch+json"}
    api.patch(path, json=changes, headers=kind).raise_for_status()


def set_value(api: httpx.Client, name: str, v: str) -> None:
    change(api, f"{MAPS}/{name}", {"data": {"v": v}})


async def test_objects_come_change_and_go(api: httpx.Client, made: Following) -> None:
    create(api, MAPS, config_map("a"), config_map("b"), {"metadata": {"name": "unlabelled"}})
    await until(lambda: made.names() == ["a=1", "b=1"])
    set_value(api, "a", "2")
    await until(lambda: made.names() == ["a=2", "b=1"])
    delete(api, f"{MAPS}/b")
    await until(lambda: made.names() == ["a=2"])
    delete(api, f"{MAPS}/unlabelled")
    found = made.store.get(ResourceKey("ConfigMap", "default", "a"))
    assert found is not None
    assert "managedFields" not in found.manifest["metadata"]
    assert made.errors() == ""


async def test_a_long_list_comes_whole_and_as_one_batch(
    api: httpx.Client, plane: ControlPlane
) -> None:
    create(api, MAPS, *(config_map(f"m{number}") for number in range(620)))
    whole = Following(await connect(plane.cluster.kubeconfig), value, MAP)
    await whole.synced()
    assert [len(batch) for batch in whole.batches] == [620]
    assert whole.source.received["ConfigMap"] > 620 * 200
    await whole.close()


async def test_metadata_is_all_that_is_sent_where_it_is_enough(
    api: httpx.Client, plane: ControlPlane
) -> None:
    create(api, MAPS, config_map("before"))
    thin = Watched("ConfigMap", "v1", "configmaps", label_selector="test", metadata_only=True)
    made = Following(await connect(plane.cluster.kubeconfig), value, thin)
    await made.synced()
    create(api, MAPS, config_map("after"))
    await until(lambda: made.names() == ["after=", "before="])
    for resource in made.store.list():
        assert set(resource.manifest) <= {"apiVersion", "kind", "metadata"}
        assert resource.manifest["kind"] == "ConfigMap"
        assert resource.manifest["metadata"]["labels"] == {"test": "x"}
    await made.close()


async def test_what_happened_while_the_server_was_away(
    api: httpx.Client, plane: ControlPlane, relay: Relay, made: Following
) -> None:
    """It comes back restarted, so that its cache begins after what we heard last: 410."""
    create(api, MAPS, config_map("a"), config_map("b"), config_map("c"))
    await until(lambda: len(made.names()) == 3)
    said = len(made.batches)
    last = max(int(r.manifest["metadata"]["resourceVersion"]) for r in made.store.list())
    await relay.cut()
    await until(lambda: "configmaps" in made.errors())
    set_value(api, "a", "2")
    delete(api, f"{MAPS}/b")
    create(api, MAPS, config_map("d"))
    await asyncio.to_thread(restart, plane, "kube-apiserver")
    assert made.names() == ["a=1", "b=1", "c=1"]
    assert await asyncio.to_thread(refusal_of_watch, plane, last) == 410
    await relay.open()
    await until(lambda: made.names() == ["a=2", "c=1", "d=1"])
    assert made.batches[said:] == [["-b", "a=2", "d=1"]]
    await until(lambda: made.errors() == "")


async def test_an_etcd_that_is_away_takes_nothing_away(
    api: httpx.Client, plane: ControlPlane, made: Following, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(api, MAPS, config_map("a"))
    await until(lambda: made.names() == ["a=1"])
    plane.stop_part("etcd")
    monkeypatch.setattr(following, "_ANSWER_SECONDS", 3.0)
    late = Following(await connect(plane.cluster.kubeconfig), value, MAP)
    await until(lambda: "configmaps" in late.errors())
    assert not late.source.synced.is_set()
    assert made.names() == ["a=1"]
    plane.start_part("etcd")
    await asyncio.to_thread(plane.wait_ready)
    await late.synced()
    set_value(api, "a", "2")
    await until(lambda: made.names() == late.names() == ["a=2"])
    await late.close()


async def test_a_machine_that_is_gone_without_a_word_is_noticed(
    api: httpx.Client, plane: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = dict(zip(kube_client._KEEP_ALIVE, (1, 1, 2), strict=True))
    monkeypatch.setattr(kube_client, "_KEEP_ALIVE", quick)
    made = Following(await connect(plane.cluster.kubeconfig), value, MAP)
    create(api, MAPS, config_map("a"))
    await until(lambda: made.names() == ["a=1"])
    silence(plane, "add")
    try:
        await until(lambda: "configmaps" in made.errors(), 10)
        assert made.names() == ["a=1"]
    finally:
        silence(plane, "del")
    await until(lambda: answers(api))
    set_value(api, "a", "2")
    await until(lambda: made.names() == ["a=2"])
    await made.close()


async def test_rights_that_come_later(api: httpx.Client, plane: ControlPlane) -> None:
    plane.pki.issue("reader", "reader")
    made = Following(await connect(plane.pki.kubeconfig("reader", plane.outside)), value, MAP)
    await until(lambda: "grant list and watch on configmaps of core" in made.errors())
    rule = {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list", "watch"]}
    create(api, f"{ROLES}/clusterroles", {"metadata": {"name": "reader"}, "rules": [rule]})
    binding = {
        "metadata": {"name": "reader"},
        "roleRef": {"apiGroup": ROLES.split("/")[2], "kind": "ClusterRole", "name": "reader"},
        "subjects": [{"apiGroup": ROLES.split("/")[2], "kind": "User", "name": "reader"}],
    }
    create(api, f"{ROLES}/clusterrolebindings", binding)
    await made.synced()
    create(api, MAPS, config_map("a"))
    await until(lambda: made.names() == ["a=1"])
    await until(lambda: made.errors() == "")
    await made.close()


async def test_a_kind_that_comes_has_status_and_goes(
    api: httpx.Client, plane: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "_MISSING_SECONDS", 0.2)
    made = Following(await connect(plane.cluster.kubeconfig), value, WIDGET)
    await made.synced()
    assert f"does not know widgets of {GROUP}" in made.errors()
    create(api, CRDS, CRD)
    widget = {"apiVersion": f"{GROUP}/v1", "kind": "Widget", "metadata": {"name": "w"}}
    await until(lambda: api.post(WIDGETS, json=widget).status_code == 201)
    await until(lambda: made.names() == ["w="])
    writer = StatusWriter(made.client)
    writing = asyncio.create_task(writer.run())
    target = StatusTarget(f"{GROUP}/v1", "widgets", "default", "w")
    writer.put(target, {"phase": "Known"})
    key = ResourceKey("Widget", "default", "w")
    await until(lambda: status_of(made.store, key) == {"phase": "Known"})
    writing.cancel()
    delete(api, f"{CRDS}/widgets.{GROUP}")
    await until(lambda: made.names() == [])
    await until(lambda: f"does not know widgets of {GROUP}" in made.errors())
    await made.close()


async def test_a_kind_of_another_version_is_one_that_is_not_there(
    api: httpx.Client, plane: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of an older release of its CRDs: nobody waits for it, and it is found after an upgrade."""
    monkeypatch.setattr(following, "_MISSING_SECONDS", 0.2)
    create(api, CRDS, CRD)
    newer = replace(WIDGET, group_version=f"{GROUP}/v2")
    made = Following(await connect(plane.cluster.kubeconfig), value, MAP, newer)
    await made.synced()
    assert f"does not know widgets of {GROUP}/v2" in made.errors()
    (version,) = CRD["spec"]["versions"]
    both = [version | {"storage": False}, version | {"name": "v2"}]
    spec = CRD["spec"] | {"versions": both}
    change(api, f"{CRDS}/widgets.{GROUP}", {"spec": spec})
    widget = {"apiVersion": f"{GROUP}/v2", "kind": "Widget", "metadata": {"name": "w"}}
    at = WIDGETS.replace("/v1/", "/v2/")
    await until(lambda: api.post(at, json=widget).status_code == 201)
    await until(lambda: made.names() == ["w="])
    delete(api, f"{CRDS}/widgets.{GROUP}")
    await made.close()


def status_of(store: Store, key: ResourceKey) -> Any:
    found = store.get(key)
    return found.manifest.get("status") if found else None


def restart(plane: ControlPlane, part: str) -> None:
    plane.stop_part(part)
    plane.start_part(part)
    plane.wait_ready()


def silence(plane: ControlPlane, change: str) -> None:
    """``add``: nothing that the API server sends arrives; ``del``: it does again."""
    route = ["route", change, "blackhole", f"{plane.cluster.link[1]}/32"]
    subprocess.run(["ip", "-n", plane.cluster.netns, *route], check=True)


def answers(api: httpx.Client) -> bool:
    try:
        return api.get("/readyz").status_code == 200
    except httpx.HTTPError:
        return False


def refusal_of_watch(plane: ControlPlane, version: int) -> int:
    """The status with which the API server refuses a watch from there; 0 if it does not."""
    with plane.client() as api:
        query = {"watch": "1", "resourceVersion": str(version), "timeoutSeconds": "2"}
        answer = api.get("/api/v1/configmaps", params=query)
        if answer.status_code != 200:
            return answer.status_code
        first = answer.text.partition("\n")[0]
    return 410 if '"type":"ERROR"' in first and '"code":410' in first else 0
