"""What one endpoint's trouble with the kernel does to the others: nothing."""

from __future__ import annotations

import errno
from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import pytest

from datapath.codec import Endpoint, Prefix
from datapath.libbpf import BpfError
from node_agent.endpoints import EndpointRecord
from policy_engine.model import EndpointPolicy
from tests.unit.test_policy_report import POLICY, Agent, NoKernel, agent, pod

__all__ = ["agent"]  # a fixture


class FullKernel(NoKernel):
    """``full`` are endpoints for which its map of policies has no room; ``gone`` are interfaces
    that do not exist. ``written`` are the endpoints whose policies it has; ``places`` how many
    addresses its other map takes, and ``placed`` those that it has."""

    def __init__(self) -> None:
        self.places = 1000
        self.placed: dict[Prefix, int] = {}
        self.full: set[int] = set()
        self.gone: set[int] = set()
        self.written: set[int] = set()

    def attach_endpoint(self, endpoint: Endpoint) -> None:
        if endpoint.ifindex in self.gone:
            raise BpfError(errno.ENODEV, f"attach to {endpoint.ifindex}")

    def close_endpoint(self, endpoint_id: int) -> None:
        self.written.discard(endpoint_id)

    def upsert_ipcache(self, prefix: Prefix, identity: int, endpoint_id: int = 0) -> None:
        if prefix not in self.placed and len(self.placed) >= self.places:
            raise BpfError(errno.ENOSPC, "map ipcache")
        self.placed[prefix] = identity

    def delete_ipcache(self, prefix: Prefix) -> None:
        self.placed.pop(prefix, None)

    def sync_policy(self, endpoint_id: int, policy: EndpointPolicy) -> int:
        self.written.discard(endpoint_id)
        if endpoint_id in self.full:
            raise BpfError(errno.E2BIG, "map policy")
        self.written.add(endpoint_id)
        return 1


RECORD = EndpointRecord(1, "c1", "default", "p1", "v", 1, "", ipv4="10.0.0.1")


@pytest.fixture
def kernel(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> FullKernel:
    made = FullKernel()
    for part in (agent.enforcement, agent.enforcement.controller):
        monkeypatch.setattr(part, "_datapath", made)
    return made


async def add(agent: Agent, number: int, **labels: str) -> None:
    await agent.put(pod(f"p{number}", labels=labels))
    record = replace(RECORD, id=number, container_id=f"c{number}", pod_name=f"p{number}",
                     host_ifindex=number, ipv4=f"10.0.0.{number}")  # fmt: skip
    await agent.enforcement.add_endpoint(record, False)


async def test_a_policy_without_room_closes_its_endpoint_alone(
    agent: Agent, kernel: FullKernel
) -> None:
    for number in (1, 2, 3):
        await add(agent, number)
    kernel.full = {2}
    await agent.put(POLICY)
    assert kernel.written == {1, 3}
    assert agent.enforcement.controller.policy_of(2) is None
    assert agent.enforcement.controller.unwritten().keys() == {2}
    said = dict(agent.report._current())["cnp/default/p"]
    assert (said["enforced"], said["message"]) == (False, "no room for it in the kernel at [2]")


async def test_it_is_written_once_there_is_room(agent: Agent, kernel: FullKernel) -> None:
    for number in (1, 2):
        await add(agent, number)
    kernel.full = {2}
    await agent.put(POLICY)
    kernel.full = set()
    await add(agent, 3)  # any change
    assert kernel.written == {1, 2, 3}
    assert not agent.enforcement.controller.unwritten()
    assert dict(agent.report._current())["cnp/default/p"]["enforced"]


async def test_a_pod_whose_policy_has_no_room_is_not_started(
    agent: Agent, kernel: FullKernel
) -> None:
    kernel.full = {1}
    with pytest.raises(BpfError, match="map policy"):
        await add(agent, 1)


async def test_an_interface_that_went_before_its_pod_stops_nobody(
    agent: Agent, kernel: FullKernel
) -> None:
    """A pod's namespace ends with its last process, CNI DEL comes later; meanwhile its labels, and
    so its identity, may become others."""
    for number in (1, 2):
        await add(agent, number)
    kernel.gone = {1}
    await agent.put(pod("p1", labels={"app": "other"}))
    await agent.put(pod("p2", labels={"app": "other"}))
    identities = {record.pod_name: record.identity for record in agent.enforcement.table}
    assert identities["p1"] == identities["p2"]


def rule(name: str, pod_name: str, **spec: Any) -> dict[str, Any]:
    selector = {"endpointSelector": {"matchLabels": {"app": pod_name}}}
    return POLICY | {"metadata": {"name": name}, "spec": selector | spec}


async def test_who_denies_an_address_that_found_no_room_is_closed(
    agent: Agent, kernel: FullKernel
) -> None:
    """The kernel takes it for the world. Who allows it denies it then, and is let be."""
    for number in (1, 2, 3):
        await add(agent, number, app=f"p{number}")
    addresses = ["198.51.100.0/24", "203.0.113.0/24"]
    kernel.places = len(kernel.placed) + 1
    await agent.put(rule("denies", "p1", egressDeny=[{"toCIDR": addresses}],
                         egress=[{"toEntities": ["world"]}]))  # fmt: skip
    await agent.put(rule("allows", "p2", egress=[{"toCIDR": addresses}]))
    assert kernel.written == {2, 3}
    assert agent.enforcement.controller.unwritten().keys() == {1}
    await agent.put(pod("p3", labels={"app": "other"}))  # a change that makes no room
    assert kernel.written == {2, 3}
    kernel.places = 1000
    await agent.put(pod("p3", labels={"app": "p3"}))  # any change
    assert kernel.written == {1, 2, 3}
    assert {ip_network(each) for each in addresses} <= kernel.placed.keys()
