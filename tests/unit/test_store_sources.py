"""The store, the directory and the applied objects: what changes, and what stays."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kube_store.applied import AppliedObjects
from kube_store.directory import DirectorySource
from kube_store.kept import Kept
from kube_store.resource import Resource, ResourceKey
from kube_store.store import Change, Store
from kube_store.tasks import cancelled


def pod(name: str, **more: Any) -> Resource:
    key = ResourceKey("Pod", "default", name)
    return Resource(key, {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, **more})


def yaml_pod(name: str, image: str = "1") -> str:
    return f"---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nimage: '{image}'\n"


def test_store_announces_each_change_once_and_equal_objects_never() -> None:
    store, seen = Store(), list[str]()

    def note(changes: list[Change]) -> None:
        seen.append(",".join(f"{c.type} {c.resource.key.name}" for c in changes))

    end = store.subscribe(note)
    store.upsert(pod("a"))
    assert store.upsert(Resource(pod("a").key, pod("a").manifest, "elsewhere")) is None
    store.upsert(pod("a", x=1))
    store.apply([pod("b"), pod("a", x=1)], [pod("c").key])
    assert store.delete(pod("c").key) is None
    store.delete(pod("a").key)
    end()
    store.delete(pod("b").key)
    assert seen == ["ADDED a", "MODIFIED a", "ADDED b", "DELETED a"]


def test_store_lists_by_each_part_of_the_key() -> None:
    store = Store()
    other = Resource(ResourceKey("Service", "shop", "a"), {})
    store.apply([pod("b"), other, pod("a")])
    assert [str(r.key) for r in store.list()] == [
        "Pod default/a",
        "Pod default/b",
        "Service shop/a",
    ]
    assert store.list(kind="Service") == [other]
    assert store.list(namespace="shop") == [other]
    assert [r.key.kind for r in store.list(name="a")] == ["Pod", "Service"]
    assert store.list(kind="Secret") == []


class Folder:
    """A directory and the batches that came of it: upserts, and deletes with a minus."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.batches: list[list[str]] = []
        self.restart()

    def restart(self) -> None:
        """Another process takes over."""
        kept = Kept(self.path.with_name(f"{self.path.name}-kept.json"))
        self.source = DirectorySource(self.path, self._note, kept)

    def _note(self, upserts: list[Resource], deletes: list[ResourceKey]) -> None:
        names = [f"{r.key.name}={r.manifest.get('image', '')}" for r in upserts]
        self.batches.append(names + [f"-{key.name}" for key in deletes])

    def step(self, **files: str | None) -> list[list[str]]:
        for name, text in files.items():
            path = self.path / f"{name}.yaml"
            path.unlink() if text is None else path.write_text(text)
        self.batches.clear()
        self.source.load()
        return self.batches

    def errors(self) -> list[str]:
        return [str(e).replace(f"{self.path}/", "") for e in self.source.errors()]


def test_directory_applies_only_what_changed(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    both = yaml_pod("a") + yaml_pod("b")
    assert folder.step(x=both, y=yaml_pod("c")) == [["a=1", "b=1", "c=1"]]
    assert folder.step(x=both) == []
    assert folder.step(x="# a comment\n" + both) == []
    assert folder.step(x=yaml_pod("a") + yaml_pod("b", "2")) == [["b=2"]]
    assert folder.step(x=yaml_pod("b", "2"), y=None) == [["-a", "-c"]]
    assert folder.errors() == []


BROKEN: list[tuple[str, list[list[str]], str]] = [
    (yaml_pod("a", "2") + "---\nkind: [\n", [["a=2"]], "x.yaml:8: "),
    (yaml_pod("a")[:-3], [], "x.yaml:5: "),
    ("", [], "x.yaml: the file is empty"),
    (yaml_pod("a") + yaml_pod("b").replace("kind: Pod\n", ""), [], "kind: a string is required"),
]


@pytest.mark.parametrize(("text", "batches", "error"), BROKEN)
def test_what_is_broken_takes_nothing_away(
    tmp_path: Path, text: str, batches: list[list[str]], error: str
) -> None:
    folder = Folder(tmp_path)
    folder.step(x=yaml_pod("a") + yaml_pod("b"), y=yaml_pod("c"))
    assert folder.step(x=text) == batches
    assert len(folder.errors()) == 1
    assert error in folder.errors()[0]
    folder.restart()
    image = "2" if batches else "1"
    assert [sorted(batch) for batch in folder.step()] == [[f"a={image}", "b=1", "c=1"]]
    assert error in folder.errors()[0]
    assert folder.step(y=yaml_pod("c", "2")) == [["c=2"]]
    folder.step(x=yaml_pod("a"))
    assert folder.errors() == []
    folder.restart()
    assert folder.step() == [["a=1", "c=2"]]


def test_what_was_kept_of_a_broken_file_goes_with_it(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "r")
    folder.path.mkdir()
    folder.step(x=yaml_pod("a"))
    folder.step(x="kind: [")
    (folder.path / "x.yaml").unlink()
    folder.restart()
    assert folder.step() == []
    assert folder.step(x="kind: [") == []


def test_of_two_objects_of_one_name_the_first_stays(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    assert folder.step(m=yaml_pod("a")) == [["a=1"]]
    assert folder.step(b=yaml_pod("a", "2")) == []
    (error,) = folder.errors()
    assert error.startswith("b.yaml:2: Pod default/a: metadata.name: ")
    assert "m.yaml:2 has an object of this name" in error
    assert folder.step(m=None) == [["a=2"]]
    assert folder.errors() == []


def test_a_directory_that_is_gone_leaves_its_objects(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "r")
    folder.source.load()
    assert "no such directory" in folder.errors()[0]
    folder.path.mkdir()
    assert folder.step(x=yaml_pod("a")) == [["a=1"]]
    folder.path.rename(tmp_path / "moved")
    folder.batches.clear()
    folder.source.load()
    assert folder.batches == []


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what is awaited is a file system's event
            await asyncio.sleep(0.02)


async def test_directory_is_watched(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    (tmp_path / "x.yaml").write_text(yaml_pod("a"))
    watching = asyncio.create_task(folder.source.watch())
    await _until(lambda: folder.batches == [["a=1"]])
    await asyncio.sleep(0.3)  # the watch is set up in a thread of its own
    (tmp_path / "x.yaml").write_text(yaml_pod("b"))
    await _until(lambda: folder.batches[1:] == [["b=1", "-a"]])
    await cancelled(watching)


def test_applied_objects_outlive_the_agent(tmp_path: Path) -> None:
    applied = AppliedObjects(tmp_path / "objects")
    assert applied.load().resources == []
    applied.put(pod("a").manifest)
    applied.put(pod("a", x=1).manifest)
    applied.put(pod("b").manifest)
    applied.bury(pod("b").key)
    applied.bury(pod("c").key)
    applied.put(pod("c").manifest)
    found = AppliedObjects(tmp_path / "objects").load()
    assert sorted(found.resources, key=lambda r: r.key) == [pod("a", x=1), pod("c")]
    assert found.tombstones == {pod("b").key}
    assert [applied.remove(pod(name).key) for name in "abd"] == [True, True, False]
    (tmp_path / "objects" / "cut.json").write_text('{"manifest": {"apiV')
    found = applied.load()
    assert [r.key.name for r in found.resources] == ["c"]
    assert found.errors[0].source.endswith("cut.json")
    with pytest.raises(ValueError, match="metadata"):
        applied.put({"apiVersion": "v1", "kind": "Pod"})
