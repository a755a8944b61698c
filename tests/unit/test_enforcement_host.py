"""The node that the API server runs on is both the host and the API server."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path

from node_agent.address_book import Layer
from policy_engine.identity import Reserved
from policy_engine.model import Action, Direction
from tests.unit.test_policy_report import Agent

POLICY = {
    "apiVersion": "cilium.io/v2",
    "kind": "CiliumNetworkPolicy",
    "metadata": {"name": "p"},
    "spec": {"endpointSelector": {}, "egress": [{"toEntities": ["kube-apiserver"]}]},
}
OWN, OTHER = ip_network("192.0.2.11/32"), ip_network("192.0.2.12/32")


async def test_where_the_api_server_is_the_host_is_allowed_too(tmp_path: Path) -> None:
    (tmp_path / "endpoints").mkdir()
    agent = Agent(tmp_path)
    await agent.add_endpoint()
    await agent.put(POLICY)

    def allowed() -> set[int]:
        found = agent.enforcement.controller.policy_of(1)
        assert found
        return {key.identity for key, entry in found.entries.items()
                if key.direction is Direction.EGRESS and entry.action is Action.ALLOW}  # fmt: skip

    agent.enforcement.book.put(Layer.API_SERVER, OTHER, (Reserved.KUBE_APISERVER, 0))
    await agent.enforcement.set_host_addresses([OWN])
    assert allowed() == {Reserved.KUBE_APISERVER}
    agent.enforcement.book.put(Layer.API_SERVER, OWN, (Reserved.KUBE_APISERVER, 0))
    await agent.enforcement.set_host_addresses([OWN])
    assert allowed() == {Reserved.KUBE_APISERVER, Reserved.HOST}
    agent.enforcement.book.drop(Layer.API_SERVER, OWN)
    await agent.enforcement.set_host_addresses([OWN])
    assert allowed() == {Reserved.KUBE_APISERVER}
