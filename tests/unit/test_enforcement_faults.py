"""What one endpoint's trouble with the kernel does to the others: nothing."""

from __future__ import annotations

import errno
from dataclasses import replace

import pytest

from datapath.codec import Endpoint
from datapath.libbpf import BpfError
from node_agent.endpoints import EndpointRecord
from policy_engine.model import EndpointPolicy
from tests.unit.test_policy_report import POLICY, Agent, NoKernel, agent, pod

__all__ = ["agent"]  # a fixture


class FullKernel(NoKernel):
    """``full`` are endpoints for which its map of policies has no room; ``gone`` are interfaces
    that do not exist. ``written`` are the endpoints whose policies it has."""

    def __init__(self) -> None:
        self.full: set[int] = set()
        self.gone: set[int] = set()
        self.written: set[int] = set()

    def attach_endpoint(self, endpoint: Endpoint) -> None:
        if endpoint.ifindex in self.gone:
            raise BpfError(errno.ENODEV, f"attach to {endpoint.ifindex}")

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


async def add(agent: Agent, number: int) -> None:
    await agent.put(pod(f"p{number}"))
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
