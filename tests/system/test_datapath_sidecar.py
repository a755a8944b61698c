"""Ends whose own proxy enforces: by lease, on its ports, from its cgroup. Real kernel."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from datapath.consts import DropReason, Enforcer
from policy_engine.model import (
    Authentication,
    Direction,
    DirectionPolicy,
    PortRule,
    Protocol,
)
from tests.system.datapath_rig import FAMILIES, OPEN, A, B, Rig, ask, connect, http, reach
from tests.system.lease_rig import (
    EGRESS,
    INGRESS,
    OLD_MODULE,
    Lease,
    cgroup,
    own_cgroup,
    reach_from,
)
from tests.system.stand_in import StandIn

IN, OUT = Direction.INGRESS, Direction.EGRESS


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path / "bpf")
    made.serve(made.b.netns)
    made.datapath.enforcers.set_cgroup(2, own_cgroup())
    yield made
    made.close()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_sidecar_that_proves_itself_gets_what_is_for_l7(rig: Rig, family: int) -> None:
    rig.proxy = StandIn(rig.node.name)
    rig.set(2, ingress=http(A))
    assert reach(rig.a.netns, rig.b, family).startswith("P"), "the node's until it is said"
    lease = Lease(rig, 2)
    rig.datapath.enforcers.set(2, {(IN, 0): Enforcer.SIDECAR})
    assert reach(rig.a.netns, rig.b, family) == "dropped", "no lease yet"
    assert DropReason.SIDECAR_LEASE in rig.reasons()
    lease.hold()
    assert reach(rig.a.netns, rig.b, family) == rig.a.address(family), "not redirected"
    rig.datapath.enforcers.set(2, {(IN, 0): Enforcer.UNPROVEN})
    assert reach(rig.a.netns, rig.b, family) == "dropped"
    rig.datapath.enforcers.set(2, {(IN, 0): Enforcer.SIDECAR, (IN, 8080): Enforcer.NODE})
    assert reach(rig.a.netns, rig.b, family).startswith("P"), "a port that it does not intercept"


@pytest.mark.parametrize("family", FAMILIES)
def test_what_takes_a_certificate_passes_a_sidecar_only(rig: Rig, family: int) -> None:
    """The kernel sees none, nor does the node's Envoy; another rule for the same peer is no way
    around."""
    asks = PortRule("a", None, authentication=Authentication.REQUIRED)
    rule = PortRule("t", frozenset({A}), Protocol.TCP, 8080)
    rig.set(2, ingress=DirectionPolicy(True, False, (asks, rule)))
    assert reach(rig.a.netns, rig.b, family) == "dropped"
    assert rig.reasons() == {DropReason.AUTHENTICATION}
    lease = Lease(rig, 2)
    rig.datapath.enforcers.set(2, {(IN, 0): Enforcer.SIDECAR})
    assert reach(rig.a.netns, rig.b, family) == "dropped", "no lease yet"
    assert DropReason.SIDECAR_LEASE in rig.reasons()
    lease.hold()
    assert reach(rig.a.netns, rig.b, family) == rig.a.address(family)
    rig.set(2, ingress=DirectionPolicy(True, True, (asks,)))
    rig.datapath.enforcers.set(2, {})
    assert reach(rig.a.netns, rig.b, family) == rig.a.address(family), "audit"


def test_an_established_connection_stops_with_the_lease_and_goes_on_with_it(rig: Rig) -> None:
    rig.set(2, ingress=http(A))
    lease = Lease(rig, 2)
    rig.datapath.enforcers.set(2, {(IN, 8080): Enforcer.SIDECAR})
    lease.hold()
    with connect(rig.a.netns, rig.b.address(4)) as connection:
        assert ask(connection) == rig.a.address(4)
        time.sleep(1.05)
        connection.settimeout(0.3)
        with pytest.raises(TimeoutError):
            ask(connection)
        lease.hold()
        connection.settimeout(3)
        assert connection.recv(100), "what was sent meanwhile comes again"


def test_a_lease_of_the_future_is_none(rig: Rig) -> None:
    rig.set(2, ingress=http(A))
    lease = Lease(rig, 2)
    rig.datapath.enforcers.set(2, {(IN, 0): Enforcer.SIDECAR})
    lease.hold(ago=-3600)
    assert reach(rig.a.netns, rig.b) == "dropped"


def test_a_peer_without_a_rule_is_dropped_by_the_kernel_all_the_same(rig: Rig) -> None:
    rig.set(2, ingress=http(999))
    Lease(rig, 2).hold()
    rig.datapath.enforcers.set(2, {(IN, 0): Enforcer.SIDECAR})
    assert reach(rig.a.netns, rig.b) == "dropped"
    assert rig.reasons() == {DropReason.POLICY_DENIED}


@pytest.mark.parametrize("family", FAMILIES)
def test_egress_leaves_from_the_proxys_cgroup_only(rig: Rig, family: int) -> None:
    rig.set(1, egress=http(B))
    lease = Lease(rig, 1)
    rig.datapath.enforcers.set(1, {(OUT, 0): Enforcer.SIDECAR})
    with cgroup("proxy") as proxy, cgroup("app") as app:
        rig.datapath.enforcers.set_cgroup(1, proxy.stat().st_ino)
        lease.hold()
        assert reach_from(app, rig, family) == "dropped"
        assert DropReason.NOT_SIDECAR in rig.reasons()
        lease.hold()
        assert reach_from(proxy, rig, family) == rig.a.address(family)


@pytest.mark.parametrize(
    ("sides", "comes", "leaves"),
    [(INGRESS, True, False), (EGRESS, False, True), (OLD_MODULE, True, False)],
)
def test_a_lease_is_for_the_sides_that_it_names(
    rig: Rig, sides: int, comes: bool, leaves: bool
) -> None:
    with cgroup("proxy") as proxy:
        rig.datapath.enforcers.set_cgroup(1, proxy.stat().st_ino)
        for endpoint, at in ((1, OUT), (2, IN)):
            rig.set(1, egress=http(B) if at is OUT else OPEN)
            rig.set(2, ingress=http(A) if at is IN else OPEN)
            rig.datapath.enforcers.set(endpoint, {(at, 0): Enforcer.SIDECAR})
            Lease(rig, endpoint).hold(sides=sides)
            passes = leaves if at is OUT else comes
            seen = reach_from(proxy, rig, 4)
            assert seen == (rig.a.address(4) if passes else "dropped"), (at, sides)
            rig.datapath.enforcers.set(endpoint, {})


def test_an_unprivileged_process_renews_the_lease_that_it_was_given(rig: Rig) -> None:
    """The proxy runs as uid 1337 without capabilities."""
    rig.set(2, ingress=http(A))
    rig.datapath.enforcers.set(2, {(IN, 0): Enforcer.SIDECAR})
    fd = rig.datapath.enforcers.open_lease(2)
    ours, theirs = socket.socketpair()
    child = subprocess.Popen(
        ["setpriv", "--reuid=1337", "--regid=1337", "--clear-groups", "--bounding-set=-all",
         sys.executable, "-c", _RENEW, str(theirs.fileno())],
        pass_fds=[theirs.fileno()],
    )  # fmt: skip
    socket.send_fds(ours, [b"x"], [fd])
    os.close(fd)
    assert ours.recv(1) == b"!"
    assert child.wait(5) == 0
    assert reach(rig.a.netns, rig.b) == rig.a.address(4)


def test_a_restarted_agent_hands_out_the_same_lease_and_knows_who_enforces(rig: Rig) -> None:
    rig.set(2, ingress=http(A))
    lease = Lease(rig, 2)
    rig.datapath.enforcers.set(2, {(IN, 0): Enforcer.SIDECAR})
    rig.datapath = rig.start()
    again = Lease(rig, 2)
    again.hold()
    assert reach(rig.a.netns, rig.b) == rig.a.address(4)
    again.hold(ago=5)
    lease.hold()
    assert reach(rig.a.netns, rig.b) == rig.a.address(4), "one page for both"
    rig.datapath.enforcers.set(2, {})
    assert reach(rig.a.netns, rig.b) == "dropped", "the node's again, and no Envoy runs"
    assert DropReason.PROXY_DOWN in rig.reasons()


_RENEW = """
import mmap, socket, struct, sys, time
with socket.socket(fileno=int(sys.argv[1])) as peer:
    _, (fd,), *_ = socket.recv_fds(peer, 1, 1)
    mmap.mmap(fd, 4096)[:16] = struct.pack("<QQ", time.monotonic_ns(), 1)
    peer.sendall(b"!")
"""
