"""When the report of policies is made anew: with what is in force, and not with every change."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from datapath.codec import Endpoint, Prefix
from datapath.facade import Datapath
from kube_store.resource import Resource, identify
from kube_store.shared import REPORT, path_of
from kube_store.store import Store
from node_agent.ambient import is_ambient
from node_agent.endpoints import EndpointRecord
from node_agent.enforcement import Enforcement
from node_agent.identities import LocalIdentities
from node_agent.policy_report import PolicyReport
from policy_engine.model import EndpointPolicy
from policy_engine.repository import PolicyRepository
from tests.unit.test_cluster_membership import FakeServer
from tests.unit.test_store_both_sources import until

POLICY = {
    "apiVersion": "cilium.io/v2",
    "kind": "CiliumNetworkPolicy",
    "metadata": {"name": "p"},
    "spec": {"endpointSelector": {}, "ingress": []},
}


HTTP = {"ports": [{"port": "80", "protocol": "TCP"}], "rules": {"http": [{}]}}
L7_POLICY = POLICY | {"spec": {"endpointSelector": {}, "ingress": [{"toPorts": [HTTP]}]}}


def pod(name: str, **metadata: Any) -> dict[str, Any]:
    metadata |= {"name": name, "namespace": "default"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata}


class NoKernel(Datapath):
    def __init__(self) -> None:
        pass

    def attach_endpoint(self, endpoint: Endpoint) -> None:
        pass

    def detach_endpoint(self, endpoint: Endpoint) -> None:
        pass

    def sync_policy(self, endpoint_id: int, policy: EndpointPolicy) -> int:
        return 0

    def upsert_ipcache(self, prefix: Prefix, identity: int, endpoint_id: int = 0) -> None:
        pass

    def delete_ipcache(self, prefix: Prefix) -> None:
        pass


class Module:
    """Acknowledges while ``answers`` is set."""

    def __init__(self) -> None:
        self.answers = asyncio.Event()
        self.answers.set()

    def publish_policy(self, policy: EndpointPolicy) -> None:
        pass

    def remove_policy(self, endpoint_id: int) -> None:
        pass

    async def policy_acknowledged(
        self,
        endpoint_id: int,
        revision: int,
        timeout: float,  # noqa: ASYNC109
    ) -> bool:
        try:
            await asyncio.wait_for(self.answers.wait(), timeout)
        except TimeoutError:
            return False
        return True


class Agent:
    """What of an agent decides on a report, and the report as the API server has it."""

    def __init__(self, path: Path) -> None:
        self.store, self.module, self.server = Store(), Module(), FakeServer()
        repository = PolicyRepository()
        self.enforcement = Enforcement(
            path, self.store, NoKernel(), self.module, lambda _: None, repository,
            LocalIdentities(repository),
        )  # fmt: skip
        self.report = PolicyReport("n", self.server, self.store, self.enforcement)

    async def put(self, manifest: dict[str, Any]) -> None:
        key, _ = identify(manifest)
        assert key
        self.store.upsert(Resource(key, manifest))
        await self.enforcement.settle()

    async def add_endpoint(self) -> EndpointRecord:
        await self.put(pod("own"))
        record = EndpointRecord(1, "c1", "default", "own", "v", 1, "", ipv4="10.0.0.1")
        return await self.enforcement.add_endpoint(record, False)

    def said(self) -> dict[str, Any]:
        """Of the policy, "" where the report does not name it."""
        policies = self.server.objects.get(path_of(REPORT, "n"), {}).get("policies", {})
        return policies.get("cnp/default/p") or {}


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Agent:
    monkeypatch.setattr("node_agent.controller.ACKNOWLEDGE_SECONDS", 0.01)
    monkeypatch.setattr("node_agent.policy_report._PAUSE_SECONDS", 0.01)
    (tmp_path / "endpoints").mkdir()
    return Agent(tmp_path)


async def test_what_the_module_takes_late_is_reported_then(agent: Agent) -> None:
    writing = asyncio.create_task(agent.report.run())
    await agent.add_endpoint()
    agent.module.answers.clear()
    await agent.put(POLICY)
    await until(lambda: agent.said().get("enforced") is False)
    assert "has not acknowledged" in agent.said()["message"]
    agent.module.answers.set()
    await until(lambda: agent.said().get("enforced") is True)
    writing.cancel()


async def test_l7_rules_that_ambient_mode_hides_limit_their_policy(agent: Agent) -> None:
    writing = asyncio.create_task(agent.report.run())
    await agent.add_endpoint()
    await agent.put(L7_POLICY)
    await until(lambda: agent.said().get("limits") == "")
    redirected = {"ambient.istio.io/redirection": "enabled"}
    await agent.put(pod("own", annotations=redirected))
    await until(lambda: agent.said().get("limits", "").startswith("default/own: in Istio's"))
    await agent.put(POLICY)
    await until(lambda: agent.said().get("limits") == "")
    writing.cancel()


NS = {"metadata": {"labels": {"istio.io/dataplane-mode": "ambient"}}}


@pytest.mark.parametrize(
    ("metadata", "namespace", "ambient"),
    [
        ({}, {}, False),
        ({}, NS, True),
        ({"labels": {"istio.io/dataplane-mode": "none"}}, NS, False),
        ({"labels": {"istio.io/dataplane-mode": "ambient"}}, {}, True),
        ({"annotations": {"ambient.istio.io/redirection": "enabled"}}, {}, True),
        ({"annotations": {"ambient.istio.io/redirection": "disabled"}}, {}, False),
        ({"annotations": {"sidecar.istio.io/status": "{}"}}, NS, False),
    ],
)
def test_who_is_in_ambient_mode(
    metadata: dict[str, Any], namespace: dict[str, Any], ambient: bool
) -> None:
    assert is_ambient({"metadata": metadata}, namespace) is ambient
    assert not is_ambient({"metadata": metadata, "spec": {"hostNetwork": True}}, namespace)


async def test_only_what_may_be_said_otherwise_is_looked_at(agent: Agent) -> None:
    changed = agent.enforcement.controller.changed
    await agent.put(POLICY)
    assert changed.is_set(), "a policy, though it selects nobody here"
    changed.clear()
    record = await agent.add_endpoint()
    assert changed.is_set(), "an endpoint"
    changed.clear()
    await agent.put(pod("elsewhere"))
    await agent.enforcement.set_host_addresses(())
    assert not changed.is_set(), "a pod that is none of ours, an address"
    await agent.enforcement.remove_endpoint(record)
    assert changed.is_set(), "an endpoint that went"
