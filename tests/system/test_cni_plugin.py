"""The CNI plugin in primary mode."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.system.cni_rig import NODE, Agent, Rig, reach, show
from tests.system.netns import ip

pytestmark = pytest.mark.system


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    with contextlib.closing(made):
        yield made


@pytest.fixture
def agent(rig: Rig) -> Iterator[Agent]:
    with Agent(rig.socket) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


def test_pods_reach_each_other_once_the_agent_knows_them(rig: Rig, agent: Agent) -> None:
    a, b = rig.pod("a"), rig.pod("b")
    status, result = rig.call("ADD", "a", a)
    assert status == 0, result
    assert [i["address"] for i in result["ips"]] == ["10.77.0.2/32", "fd00:77::2/128"]
    assert rig.call("ADD", "b", b)[0] == 0
    assert agent.up_at_put == [False, False]
    put = agent.endpoints["a"]
    (host,) = show(NODE, "link", "show", put["host_ifname"])
    assert (host["ifindex"], host["address"]) == (put["host_ifindex"], put["host_mac"])
    assert (put["pod_namespace"], put["pod_name"], put["pod_uid"]) == ("shop", "a", "u-1")
    assert (put["ipv4"], put["ipv6"]) == ("10.77.0.2", "fd00:77::2")
    (eth0,) = show(a, "link", "show", "eth0")
    assert eth0["address"] == put["mac"]
    for netns, device in ((a, "eth0"), (NODE, put["host_ifname"])):
        states = [
            n["state"] for n in show(netns, "neigh", "show", "dev", device, "nud", "permanent")
        ]
        assert states == [["PERMANENT"]] * 2
    for target, address in (
        (NODE, "10.77.0.1"), (NODE, "fd00:77::1"), (b, "10.77.0.3"), (b, "fd00:77::3"),
        (a, "127.0.0.1"),
    ):  # fmt: skip
        assert reach(a, target, address), address


def test_check_finds_what_is_missing(rig: Rig, agent: Agent) -> None:
    netns = rig.pod("a")
    _, result = rig.call("ADD", "a", netns)
    assert rig.call("CHECK", "a", netns, prevResult=result) == (0, None)
    endpoint = agent.endpoints.pop("a")
    assert rig.call("CHECK", "a", netns, prevResult=result)[1]["code"] == 3
    agent.endpoints["a"] = endpoint
    ip("addr", "del", "fd00:77::2/128", "dev", "eth0", netns=netns)
    status, error = rig.call("CHECK", "a", netns, prevResult=result)
    assert status == 1
    assert "fd00:77::2" in error["msg"]
    assert rig.call("CHECK", "unknown", netns)[1]["code"] == 3


def test_del_leaves_nothing_and_never_fails_for_what_is_gone(rig: Rig, agent: Agent) -> None:
    netns = rig.pod("a")
    assert rig.call("ADD", "a", netns)[0] == 0
    for _ in range(2):
        assert rig.call("DEL", "a", netns) == (0, None)
    assert rig.call("DEL", "unknown") == (0, None)
    assert (rig.leftovers(), agent.endpoints) == ([], {})


def test_add_again_answers_the_same(rig: Rig, agent: Agent) -> None:
    netns = rig.pod("a")
    first = rig.call("ADD", "a", netns)
    held = rig.leftovers()
    assert first[0] == 0
    (host,) = show(NODE, "link", "show", agent.endpoints["a"]["host_ifname"])
    assert rig.call("ADD", "a", netns) == first
    assert rig.leftovers() == held
    (after,) = show(NODE, "link", "show", agent.endpoints["a"]["host_ifname"])
    assert after["ifindex"] == host["ifindex"], "its connections would have ended"
    assert reach(netns, NODE, "10.77.0.1")


@pytest.mark.parametrize("lost", ["the agent's endpoint", "the pod's address", "the pair"])
def test_add_again_mends_what_is_missing(rig: Rig, agent: Agent, lost: str) -> None:
    netns = rig.pod("a")
    first = rig.call("ADD", "a", netns)
    put = agent.endpoints["a"]
    if lost == "the agent's endpoint":
        del agent.endpoints["a"]
    elif lost == "the pod's address":
        ip("addr", "del", "fd00:77::2/128", "dev", "eth0", netns=netns)
    else:
        ip("link", "del", put["host_ifname"], netns=NODE)
    assert rig.call("ADD", "a", netns) == first
    assert agent.endpoints["a"]["ipv4"] == put["ipv4"]
    assert reach(netns, NODE, "fd00:77::1")


def test_without_the_agent(rig: Rig) -> None:
    netns = rig.pod("a")
    status, error = rig.call("ADD", "a", netns)
    assert (status, error["code"]) == (1, 11)
    assert str(rig.socket) in error["msg"]
    assert rig.leftovers() == []
    assert [link["ifname"] for link in show(netns, "link")] == ["lo"]
    assert rig.call("DEL", "a", netns) == (0, None)
    assert rig.call("STATUS")[1]["code"] == 50


def test_a_refusal_of_the_agent_is_rolled_back(rig: Rig, agent: Agent) -> None:
    agent.refusal = "pod shop/a: no such pod"
    status, error = rig.call("ADD", "a", rig.pod("a"))
    assert (status, error["code"]) == (1, 102)
    assert agent.refusal in error["msg"]
    assert rig.leftovers() == []


def test_an_agent_that_starts_is_tried_again(rig: Rig, agent: Agent) -> None:
    agent.refusal, agent.refusal_status = "it has not heard from the API server", 503
    status, error = rig.call("ADD", "a", rig.pod("a"))
    assert (status, error["code"]) == (1, 11)
    assert rig.leftovers() == []


def test_ranges_of_the_agent(rig: Rig, agent: Agent) -> None:
    netns, config = rig.pod("a"), {"ipam": {"dataDir": str(rig.ipam)}}
    status, error = rig.call("ADD", "a", netns, **config)
    assert (status, error["code"]) == (1, 11)
    assert "pod CIDR" in error["msg"]
    assert rig.leftovers() == []
    agent.pod_cidrs = ["10.78.0.0/29"]
    status, result = rig.call("ADD", "a", netns, **config)
    assert (status, [i["address"] for i in result["ips"]]) == (0, ["10.78.0.2/32"])


def test_exhausted_addresses(rig: Rig, agent: Agent) -> None:
    rig.ranges = ["fd00:77::/64", "10.77.0.0/30"]
    assert rig.call("ADD", "a", rig.pod("a"))[0] == 0
    before = rig.leftovers()
    status, error = rig.call("ADD", "b", rig.pod("b"))
    assert (status, error["code"]) == (1, 100)
    assert "10.77.0.0/30" in error["msg"]
    assert rig.leftovers() == before
    assert set(agent.endpoints) == {"a"}


def test_gc_keeps_what_is_valid(rig: Rig, agent: Agent) -> None:
    for name in ("a", "b"):
        assert rig.call("ADD", name, rig.pod(name))[0] == 0
    assert rig.call("GC")[1]["code"] == 7
    assert len(rig.leftovers()) == 6
    agent.endpoints["c"] = {**agent.endpoints["b"], "container_id": "c"}  # nobody else knows it
    keep: dict[str, Any] = {"cni.dev/valid-attachments": [{"containerID": "a", "ifname": "eth0"}]}
    assert rig.call("GC", **keep) == (0, None)
    assert set(agent.endpoints) == {"a"}
    assert len(rig.leftovers()) == 3


CHAINED: dict[str, Any] = {"ipam": None}


def previous(*addresses: str, ifname: str = "eth0") -> dict[str, Any]:
    """The result of a plugin before ours."""
    interfaces = [{"name": "cni0"}, {"name": ifname, "sandbox": "/run/netns/x"}]
    ips = [{"address": address, "interface": 1} for address in addresses]
    return {"cniVersion": "1.1.0", "interfaces": interfaces, "ips": ips}


def test_chained_it_registers_what_is_there(rig: Rig, agent: Agent) -> None:
    netns = rig.pod("a")
    ip("link", "add", "made", "type", "veth", "peer", "name", "eth0", "netns", netns, netns=NODE)
    ip("addr", "add", "10.88.0.7/24", "dev", "eth0", netns=netns)
    result = previous("10.88.0.7/24")
    assert rig.call("ADD", "a", netns, prevResult=result, **CHAINED) == (0, result)
    put = agent.endpoints["a"]
    (made,) = show(NODE, "link", "show", "made")
    assert (put["host_ifname"], put["host_ifindex"]) == ("made", made["ifindex"])
    assert (put["ipv4"], put["ipv6"]) == ("10.88.0.7", None)
    assert rig.call("CHECK", "a", netns, prevResult=result, **CHAINED) == (0, None)
    ip("link", "set", "made", "up", netns=NODE)
    assert rig.call("DEL", "a", netns, prevResult=result, **CHAINED) == (0, None)
    assert agent.endpoints == {}
    (made,) = show(NODE, "link", "show", "made")
    assert "UP" not in made["flags"], "nothing judges it any more"
    assert rig.call("DEL", "a", **CHAINED) == (0, None)


@pytest.mark.parametrize(
    ("link", "result", "words"),
    [
        ("macvlan", previous("10.88.0.7/24"), "eth0 is a macvlan without an end on the node"),
        ("veth", previous(), "eth0 has 0 IPv4 and 0 IPv6 addresses"),
        ("veth", previous("10.88.0.7/24", "10.88.0.8/24"), "eth0 has 2 IPv4"),
        ("veth", previous("10.88.0.9/24"), "eth0 lacks 10.88.0.9"),
        ("veth", previous("10.88.0.7/24", ifname="net1"), "eth0 has 0 IPv4"),
        ("veth", None, "ipam: required, unless"),
    ],
)
def test_chained_it_refuses_what_it_cannot_enforce(
    rig: Rig, agent: Agent, link: str, result: dict[str, Any] | None, words: str
) -> None:
    netns = rig.pod("a")
    if link == "veth":
        ip("link", "add", "m0", "type", "veth", "peer", "name", "eth0", "netns", netns, netns=NODE)
    else:
        ip("link", "add", "m0", "type", "veth", "peer", "name", "m1", netns=NODE)
        ip("link", "add", "link", "m0", "name", "eth0", "netns", netns, "type", link, netns=NODE)
    ip("addr", "add", "10.88.0.7/24", "dev", "eth0", netns=netns)
    status, error = rig.call("ADD", "a", netns, prevResult=result, **CHAINED)
    assert (status, error["code"]) in [(1, 7), (1, 103)]
    assert words in error["msg"]
    assert agent.endpoints == {}


@pytest.mark.parametrize(
    ("command", "container", "config", "code", "words"),
    [
        ("ADD", "a", {"prevResult": {"cniVersion": "1.1.0"}}, 7, "prevResult"),
        ("ADD", "a", {"cniVersion": "0.1.0"}, 1, "0.1.0"),
        ("ADD", "a", {"ipam": {"ranges": []}}, 7, "dataDir"),
        ("ADD", "a", {}, 4, "CNI_NETNS"),
        ("DEL", "../a", {}, 4, "CNI_CONTAINERID"),
        ("MAKE", "a", {}, 4, "MAKE"),
    ],
)
def test_bad_input_is_named(
    rig: Rig, command: str, container: str, config: dict[str, Any], code: int, words: str
) -> None:
    status, error = rig.call(command, container, **config)
    assert (status, error["code"]) == (1, code)
    assert words in error["msg"]


def test_version_and_status(rig: Rig, agent: Agent) -> None:
    assert rig.call("VERSION")[1]["supportedVersions"] == [
        "0.3.1", "0.4.0", "1.0.0", "1.1.0"
    ]  # fmt: skip
    assert rig.call("STATUS") == (0, None)
    assert rig.call("ADD", "a", rig.pod("a"), cniVersion="1.0.0")[1]["cniVersion"] == "1.0.0"
