"""What the agents of all nodes say, put together."""

from __future__ import annotations

from typing import Any

import pytest

from sidegate_cli import agents
from sidegate_cli.connectivity.cluster import Ran
from sidegate_cli.failure import Failure

SAID = {
    "agent-b": Ran(0, '{"items": [{"pod": "default/b"}]}'),
    "agent-a": Ran(0, '{"items": []}'),
    "agent-c": Ran(3, "sidegate: no agent at /run/sidegate\n"),
}


class Pods:
    """Stands for :class:`TestCluster`: the pods of the agents, and one that is none."""

    listed: tuple[str, ...] = (*SAID, "operator")

    def __init__(self, _client: Any, _namespace: str) -> None:
        pass

    async def items(self, _kind: str) -> list[Any]:
        return [
            {
                "metadata": {
                    "name": name,
                    "labels": {"app.kubernetes.io/component": name.partition("-")[0]},
                },
                "spec": {"nodeName": f"node-{name[-1]}"},
            }
            for name in self.listed
        ]

    async def run(self, pod: str, command: list[str]) -> Ran:
        assert command == ["sidegate", "istio", "status", "-o", "json"]
        return SAID[pod]


@pytest.fixture
def pods(monkeypatch: pytest.MonkeyPatch) -> type[Pods]:
    class Client:
        async def close(self) -> None: ...

    async def connect(_: Any) -> Client:
        return Client()

    monkeypatch.setattr(agents, "connect", connect)
    monkeypatch.setattr(agents, "TestCluster", Pods)
    return Pods


@pytest.mark.usefixtures("pods")
def test_each_row_has_its_node_and_who_cannot_answer_says_why() -> None:
    assert agents.ask_all(None, "system", ("istio", "status")) == [
        {"node": "node-b", "pod": "default/b"},
        {"node": "node-c", "error": "agent-c: sidegate: no agent at /run/sidegate"},
    ]


def test_where_no_agent_runs_that_is_said(
    pods: type[Pods], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pods, "listed", ("operator",))
    with pytest.raises(Failure, match="no agent runs in system"):
        agents.ask_all(None, "system", ("istio", "status"))
