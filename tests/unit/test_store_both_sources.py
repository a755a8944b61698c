"""What the directory and the API server have in common as sources: one suite for both."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Protocol

import pytest

from kube_store.directory import DirectorySource
from kube_store.kept import Kept
from kube_store.kube import KubeSource, Watched
from kube_store.resource import Resource, ResourceKey
from kube_store.store import Store
from kube_store.tasks import cancelled
from tests.unit.fake_api_server import FakeApiServer, fake_api_server, stream

Manifest = dict[str, Any]
Batch = set[str]
PATHS = {"Pod": "/api/v1/pods", "Namespace": "/api/v1/namespaces"}
WATCHED = [Watched("Pod", "v1", "pods"), Watched("Namespace", "v1", "namespaces")]


def pod(name: str, image: str = "1") -> Manifest:
    metadata = {"name": name, "namespace": "default"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "image": image}


def namespace(name: str) -> Manifest:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


class Source(Protocol):
    """``batches`` are those since the last call of any of the methods; then a store's state."""

    batches: list[Batch]
    store: Store

    async def step(self, *manifests: Manifest, deleted: tuple[str, ...] = ()) -> list[Batch]: ...

    async def go_away(self) -> None: ...

    async def come_back(
        self, *manifests: Manifest, deleted: tuple[str, ...] = ()
    ) -> list[Batch]: ...

    async def spoil(self) -> None:
        """What can be read of the pod named a is no object any more."""
        ...

    async def restart(self) -> list[Batch]: ...

    def errors(self) -> list[str]: ...


class Heard:
    """A store that is fed, and the batches, as ``name=image`` and ``-name``."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.store = Store()

    def take(self, upserts: list[Resource], deletes: list[ResourceKey]) -> None:
        self.store.apply(upserts, deletes)
        said = {f"{r.key.name}={r.manifest.get('image', '')}" for r in upserts}
        said |= {f"-{key.name}" for key in deletes}
        self.batches.append(said)


class Folder(Heard):
    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path, self._away = path / "resources", path / "away"
        self._path.mkdir()
        self._open()

    def _open(self) -> None:
        kept = Kept(self._path.with_name("kept.json"))
        self._source = DirectorySource(self._path, self.take, kept)

    def _load(self) -> list[Batch]:
        self.batches.clear()
        self._source.load()
        return self.batches

    async def step(self, *manifests: Manifest, deleted: tuple[str, ...] = ()) -> list[Batch]:
        for manifest in manifests:
            path = self._path / f"{manifest['metadata']['name']}.yaml"
            path.write_text(json.dumps(manifest))
        for name in deleted:
            (self._path / f"{name}.yaml").unlink()
        return self._load()

    async def go_away(self) -> None:
        self._path.rename(self._away)
        self._load()

    async def come_back(self, *manifests: Manifest, deleted: tuple[str, ...] = ()) -> list[Batch]:
        self._away.rename(self._path)
        return await self.step(*manifests, deleted=deleted)

    async def spoil(self) -> None:
        (self._path / "a.yaml").write_text(json.dumps(pod("a"))[:20])
        self._load()

    async def restart(self) -> list[Batch]:
        self._open()
        return self._load()

    def errors(self) -> list[str]:
        return list(map(str, self._source.errors()))


class Api(Heard):
    """A pod of its own tells when all that was done is heard; it is in no batch."""

    def __init__(self, server: FakeApiServer, compacts: bool) -> None:
        super().__init__()
        self._server, self._compacts = server, compacts
        server.page = 2
        self._steps = 0
        self._client = server.client()

    async def open(self) -> None:
        self._source = KubeSource(self._client, WATCHED, self.take)
        self._running = asyncio.create_task(self._source.run())
        await until(lambda: self._server.watching == len(WATCHED))

    async def close(self) -> None:
        await cancelled(self._running)
        await until(lambda: self._server.watching == 0)

    async def end(self) -> None:
        await self.close()
        await self._client.close()

    def take(self, upserts: list[Resource], deletes: list[ResourceKey]) -> None:
        super().take(upserts, deletes)
        self.batches[-1] -= {said for said in self.batches[-1] if said.startswith("step=")}
        if not self.batches[-1]:
            self.batches.pop()

    async def step(self, *manifests: Manifest, deleted: tuple[str, ...] = ()) -> list[Batch]:
        self.batches.clear()
        self._change(*manifests, deleted=deleted)
        await self._heard()
        return self.batches

    async def go_away(self) -> None:
        self.batches.clear()
        await self._server.stop()
        await until(lambda: len(self._source.errors()) == len(WATCHED))

    async def come_back(self, *manifests: Manifest, deleted: tuple[str, ...] = ()) -> list[Batch]:
        self._change(*manifests, deleted=deleted)
        if self._compacts:
            self._server.compact()
        await self._server.start()
        await self._heard()
        return self.batches

    async def spoil(self) -> None:
        self.batches.clear()
        self._server.always = stream(json.dumps(pod("a")).encode()[:20], whole=False)
        before = len(self._server.requests)
        self._server.end_watches()
        await until(lambda: len(self._server.requests) >= before + 4)
        await until(lambda: bool(self._source.errors()))
        self._server.always = None

    async def restart(self) -> list[Batch]:
        await self.close()
        self.batches.clear()
        await self.open()
        return self.batches

    def errors(self) -> list[str]:
        return list(map(str, self._source.errors()))

    def _change(self, *manifests: Manifest, deleted: tuple[str, ...] = ()) -> None:
        self._steps += 1
        for kind, path in PATHS.items():
            of_kind = [m for m in manifests if m["kind"] == kind]
            marker = [pod("step", str(self._steps))] if kind == "Pod" else []
            self._server.change(path, *of_kind, *marker, deleted=deleted if kind == "Pod" else ())

    async def _heard(self) -> None:
        key = ResourceKey("Pod", "default", "step")

        def is_heard() -> bool:
            found = self.store.get(key)
            return found is not None and found.manifest["image"] == str(self._steps)

        await until(is_heard)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - what is awaited is another's socket
            await asyncio.sleep(0.01)


@pytest.fixture(params=["directory", "api server", "api server that forgets"])
async def source(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Source]:
    if request.param == "directory":
        yield Folder(tmp_path)
        return
    async with fake_api_server() as server:
        api = Api(server, compacts="forgets" in request.param)
        await api.open()
        try:
            yield api
        finally:
            await api.end()


async def test_what_came_together_is_one_batch_and_what_did_not_change_none(
    source: Source,
) -> None:
    assert await source.step(pod("a"), pod("b"), pod("c")) == [{"a=1", "b=1", "c=1"}]
    assert await source.step() == []
    assert await source.step(pod("a")) == []
    changed = await source.step(pod("a", "2"), pod("d"), deleted=("b",))
    assert changed == [{"a=2", "d=1", "-b"}]
    assert await source.step(pod("b")) == [{"b=1"}]
    assert source.errors() == []


async def test_keys_of_namespaced_and_of_cluster_scoped_kinds(source: Source) -> None:
    assert await source.step(namespace("shop")) == [{"shop="}]
    await source.step(pod("a"))
    assert source.store.get(ResourceKey("Namespace", "", "shop")) is not None
    assert source.store.get(ResourceKey("Pod", "default", "a")) is not None


async def test_a_restarted_source_tells_everything_once(source: Source) -> None:
    pods = [pod(f"p{number}") for number in range(7)]
    await source.step(*pods)
    assert await source.restart() == [{f"p{number}=1" for number in range(7)}]
    assert await source.step(pod("p0", "2")) == [{"p0=2"}]


async def test_a_source_that_is_away_takes_nothing_away(source: Source) -> None:
    await source.step(pod("a"), pod("b"))
    await source.go_away()
    assert source.batches == []
    assert source.errors() != []
    assert source.store.get(ResourceKey("Pod", "default", "a")) is not None
    missed = await source.come_back(pod("b", "2"), pod("c"), deleted=("a",))
    assert missed == [{"b=2", "c=1", "-a"}]


async def test_what_cannot_be_read_takes_nothing_away(source: Source) -> None:
    await source.step(pod("a"), pod("b"))
    await source.spoil()
    assert source.batches == []
    assert source.errors() != []
    assert await source.step(pod("a", "2")) == [{"a=2"}]
    await until(lambda: source.errors() == [])
