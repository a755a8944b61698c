"""Pods at ports of a bridge: what a link that several share adds to routed pods."""

from __future__ import annotations

import json
import socket
import subprocess

import pytest
from scapy.all import ARP, IP, TCP, Ether, ICMPv6ND_NA, ICMPv6NDOptDstLLAddr, IPv6, Raw

from datapath.consts import DropReason
from tests.system.datapath_rig import CLOSED, FAMILIES, A, Rig, allow, ask, connect, http, reach
from tests.system.netns import inside, ip
from tests.system.stand_in import StandIn

pytestmark = [
    pytest.mark.system,
    pytest.mark.parametrize("rig", ["bridged"], indirect=True),
]
BROADCAST = "ff:ff:ff:ff:ff:ff"
GATEWAYS = {4: "10.9.0.1", 6: "fd00:9::1"}
OWN = "02:00:00:00:01:0a"


def send(netns: str, frame: Ether) -> None:
    with inside(netns):
        raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    with raw:
        raw.bind(("eth0", 0))
        raw.send(bytes(frame))


def neighbours(netns: str) -> dict[str, str]:
    said = subprocess.run(["ip", "-n", netns, "-j", "neigh"], check=True, capture_output=True)
    return {n["dst"]: n.get("lladdr", "") for n in json.loads(said.stdout)}


def dropped(rig: Rig, reason: DropReason) -> int:
    return sum(row["packets"] for row in rig.datapath.counters() if row["reason"] == reason.text)


@pytest.mark.parametrize("family", FAMILIES)
def test_no_pod_takes_the_address_of_another(rig: Rig, family: int) -> None:
    """The node's own view of who has an address, after a pod said that it is the one."""
    victim = rig.b.address(family)
    assert reach(rig.node.name, rig.b, family) == GATEWAYS[family]
    before = neighbours(rig.node.name)[victim]
    if family == 4:
        claim = ARP(op=2, hwsrc=OWN, psrc=victim, hwdst=BROADCAST, pdst=GATEWAYS[4])
    else:
        advert = ICMPv6ND_NA(tgt=victim, R=0, S=0, O=1) / ICMPv6NDOptDstLLAddr(lladdr=OWN)
        claim = IPv6(src=rig.a.address(6), dst="ff02::1", hlim=255) / advert
    for _ in range(3):
        send(rig.a.netns, Ether(src=OWN, dst=BROADCAST) / claim)
    assert neighbours(rig.node.name)[victim] == before
    assert dropped(rig, DropReason.INVALID_SOURCE) >= 3


def test_pods_of_one_address_family_find_each_other_under_default_deny(rig: Rig) -> None:
    """Neighbours are solicited at their own address too, once they are known and grow stale."""
    rig.set(1, ingress=CLOSED, egress=allow(301))
    rig.set(2, ingress=allow(A), egress=CLOSED)
    for _ in range(2):
        assert reach(rig.a.netns, rig.b, 6) == rig.a.address(6)
        for netns in (rig.a.netns, rig.b.netns):
            ip("neigh", "change", _other(rig, netns), "dev", "eth0", "nud", "probe", netns=netns)


def test_a_flooded_frame_is_judged_once(rig: Rig) -> None:
    """The bridge does not know the address: every port gets the frame, one pod is meant."""
    rig.set(1, ingress=http(A))
    outsider = rig.node.add_pod()
    listening = connect(rig.a.netns, rig.b.address(4))
    with listening:
        before = dropped(rig, DropReason.INVALID_DESTINATION)
        packet = IP(src=rig.a.address(4), dst=rig.b.address(4)) / TCP(sport=5, dport=9, flags="S")
        send(rig.a.netns, Ether(src=OWN, dst="02:00:00:00:99:99") / packet / Raw(b"x"))
        assert dropped(rig, DropReason.INVALID_DESTINATION) == before
        packet[IP].dst = outsider.address(4)
        send(rig.a.netns, Ether(src=OWN, dst="02:00:00:00:99:99") / packet / Raw(b"x"))
        assert dropped(rig, DropReason.INVALID_DESTINATION) == before + 1


@pytest.mark.parametrize("netfilter", ["0", "1"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_redirect_holds_with_and_without_netfilter_on_bridges(
    rig: Rig, netfilter: str, family: int
) -> None:
    for table in ("iptables", "ip6tables"):
        rig.node.sysctl(f"net/bridge/bridge-nf-call-{table}", netfilter)
    rig.set(2, ingress=http(A))
    assert reach(rig.a.netns, rig.b, family) == "dropped", "no proxy, no way past it"
    rig.proxy = StandIn(rig.node.name)
    with connect(rig.a.netns, rig.b.address(family)) as connection:
        for _ in range(3):
            assert ask(connection) == "P" + rig.a.address(family)


def _other(rig: Rig, netns: str) -> str:
    return rig.b.address(6) if netns == rig.a.netns else rig.a.address(6)
