"""``sidegate connectivity test`` without a cluster: what it deploys, tries and leaves behind."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from policy_engine.kinds import CRD_KINDS
from policy_engine.parse import parse_policy
from sidegate_cli.connectivity import mesh, objects, runner
from sidegate_cli.connectivity.cases import stages
from sidegate_cli.connectivity.cluster import NotReady, Ran
from sidegate_cli.main import main

IMAGES = objects.Images("peer", "kafka")
NODES = ["a", "b"]
PLAIN = stages({"server": ["10.0.0.1", "fd00::1"]}, "test")
Manifest = dict[str, Any]


def test_every_case_runs_in_a_pod_that_is_there() -> None:
    pods = objects.pods(IMAGES, NODES)
    for tried, there in ((PLAIN, pods), (mesh.stages(), pods + mesh.pods(IMAGES, NODES))):
        names = {pod["metadata"]["name"] for pod in there}
        assert {case.pod for stage in tried for case in stage.cases} <= names


def test_every_policy_is_one_that_is_enforced() -> None:
    policies = [each for stage in (*PLAIN, *mesh.stages()) for each in stage.policies]
    ours = [each for each in policies if each["kind"] in CRD_KINDS]
    assert len(ours) > 6
    for each in ours:
        errors = parse_policy({**each, "metadata": {**each["metadata"], "namespace": "t"}},
                              lambda _: None)[1]  # fmt: skip
        assert not errors, (each, errors)


class Fake:
    """Stands for :class:`TestCluster`: pods are ready at once and answer all alike."""

    there: dict[str, Manifest]
    labels_there: dict[str, str] | None
    answer: Ran
    asked: asyncio.Event | None = None  # set by the first case, which then hangs

    def __init__(self, _client: Any, namespace: str) -> None:
        self.namespace = namespace

    async def labels(self, _home: Manifest) -> dict[str, str] | None:
        return self.labels_there

    async def apply(self, manifest: Manifest) -> None:
        self.there[f"{manifest['kind']}/{manifest['metadata']['name']}"] = manifest

    async def delete(self, manifest: Manifest) -> None:
        gone = f"{manifest['kind']}/{manifest['metadata']['name']}"
        if manifest["kind"] == "Namespace":
            self.there.clear()
        self.there.pop(gone, None)

    async def gone(self, _manifest: Manifest, _seconds: float) -> bool:
        return True

    async def items(self, kind: str) -> list[Any]:
        if kind == "ServiceAccount":
            return [{}]
        return [each for each in self.there.values() if each["kind"] == kind]

    async def pods_ready(self, names: list[str], _seconds: float) -> dict[str, list[str]]:
        return {name: ["10.0.0.1"] for name in names}

    async def run(self, _pod: str, _command: list[str], _container: str) -> Ran:
        if self.asked:
            self.asked.set()
            await asyncio.Event().wait()
        return self.answer


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> type[Fake]:
    class Client:
        async def request(self, *_: Any) -> tuple[Any, int]:
            ready = {"conditions": [{"type": "Ready", "status": "True"}]}
            return {"items": [{"metadata": {"name": "a"}, "status": ready}]}, 0

        async def close(self) -> None: ...

    async def connect(_: Any) -> Client:
        return Client()

    class Cluster(Fake):
        there: dict[str, Manifest] = {}  # noqa: RUF012 - one for each test
        labels_there = None
        answer = Ran(0, '{"status": 200}')

    monkeypatch.setattr(runner, "connect", connect)
    monkeypatch.setattr(runner, "TestCluster", Cluster)
    monkeypatch.setattr(runner, "_CASE_SECONDS", 0.0)
    return Cluster


@pytest.mark.usefixtures("cluster")
def test_what_came_out_otherwise_is_told_and_fails(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["connectivity", "test", "-o", "json"])
    said = capsys.readouterr()
    rows = json.loads(said.out)
    wrong = [row for row in rows if not row["ok"]]
    assert {row["seen"] for row in rows} == {"200"}
    assert {row["expected"] for row in wrong} >= {"403", "denied", "no answer"}
    assert f"{len(rows) - len(wrong)} of {len(rows)} cases as expected" in said.err
    assert ended.value.code == 1


@pytest.mark.parametrize("istio", [True, False])
async def test_nothing_is_left_when_it_is_stopped(cluster: type[Fake], istio: bool) -> None:
    asked = cluster.asked = asyncio.Event()
    options = runner.Options("test", IMAGES, istio=istio)
    if istio:
        cluster.items = _injected  # type: ignore[method-assign]
    task = asyncio.create_task(runner.run(None, options, lambda _: None, lambda _: None))
    await asyncio.wait_for(asked.wait(), 10)
    assert ("Pod/plain" in cluster.there) == istio
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not cluster.there


async def _injected(self: Fake, kind: str) -> list[Any]:
    volume = {"csi": {"driver": "csi.sidegate.io"}}
    return [{"metadata": {"name": kind}, "spec": {"volumes": [volume]}}]


@pytest.mark.usefixtures("cluster")
async def test_pods_without_our_module_are_no_test_of_it() -> None:
    options = runner.Options("test", IMAGES, istio=True)
    with pytest.raises(NotReady, match="pods server, near, far, other, kafka: no sidecar"):
        await runner.run(None, options, lambda _: None, lambda _: None)


async def test_a_namespace_of_somebody_else_stays(cluster: type[Fake]) -> None:
    cluster.labels_there = {"team": "shop"}
    cluster.there["Namespace/shop"] = objects.namespace("shop", {})
    options = runner.Options("shop", IMAGES)
    with pytest.raises(NotReady, match="namespace shop is there"):
        await runner.run(None, options, lambda _: None, lambda _: None)
    assert "Namespace/shop" in cluster.there
