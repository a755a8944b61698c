"""ClusterIP Services at the socket, on the real kernel."""

from __future__ import annotations

import errno
import itertools
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from ipaddress import ip_network
from pathlib import Path

import pytest

from datapath import namespaces
from datapath.codec import Endpoint
from datapath.consts import MARK_FROM_PROXY
from datapath.facade import Datapath, DatapathConfig
from datapath.libbpf import BpfError
from datapath.service_codec import l4_addr, slot_key
from datapath.service_model import Backend, ServicePort
from datapath.services import Services
from policy_engine.compile import entries_of
from policy_engine.model import EndpointPolicy, Protocol
from tests.system.datapath_rig import OPEN, allow
from tests.system.netns import inside
from tests.system.service_rig import (
    CLUSTER_IPS,
    PORT,
    TARGET_PORT,
    TIMEOUT_S,
    ServiceRig,
    ask,
    ask_once,
    exchange,
    frontend,
    joined,
)

pytestmark = pytest.mark.system

FAMILIES = [4, 6]
TCP, UDP = Protocol.TCP, Protocol.UDP
IPPROTO_MPTCP = 262  # linux/in.h; Python knows it from 3.12 on
NETWORK_ERRORS = {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ETIMEDOUT}


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[ServiceRig]:
    made = ServiceRig(tmp_path / "bpf")
    try:
        made.serve()
        yield made
    finally:
        made.close()


def unreachable(connect: socket.socket, address: str) -> bool:
    with connect, pytest.raises(OSError) as caught:  # noqa: PT011  the number is looked at
        connect.connect((address, PORT))
    return caught.value.errno in NETWORK_ERRORS or isinstance(caught.value, TimeoutError)


@pytest.mark.parametrize("protocol", [TCP, UDP])
@pytest.mark.parametrize("family", FAMILIES)
def test_connected_sockets(rig: ServiceRig, family: int, protocol: Protocol) -> None:
    rig.services.replace(rig.everything())
    answers = set()
    for _ in range(30):
        with rig.connect(family, protocol) as client:
            answers.add(ask(client))
            assert client.getpeername()[:2] == (CLUSTER_IPS[family], PORT)
            if protocol is UDP:
                client.send(b"x")
                assert client.recvfrom(10)[1][:2] == (CLUSTER_IPS[family], PORT)
    assert answers == {"b", "c"}


@pytest.mark.parametrize("family", FAMILIES)
def test_unconnected_datagrams(rig: ServiceRig, family: int) -> None:
    """A socket stays with its backend, as it does with kube-proxy; sockets spread."""
    rig.services.replace(rig.everything())
    answers = []
    for _ in range(12):
        with rig.client(family, UDP) as client:
            of_this = {exchange(client, family) for _ in range(5)}
        assert {source for _, source in of_this} == {(CLUSTER_IPS[family], PORT)}
        assert len(of_this) == 1
        answers.append(of_this.pop()[0])
    assert set(answers) == {"b", "c"}


@pytest.mark.parametrize("protocol", [TCP, UDP])
def test_v4_mapped_addresses(rig: ServiceRig, protocol: Protocol) -> None:
    rig.services.replace(rig.everything())
    mapped = f"::ffff:{CLUSTER_IPS[4]}"
    with rig.client(6, protocol) as client:
        client.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        client.connect((mapped, PORT))
        assert ask(client) in "bc"
        assert client.getpeername()[:2] == (mapped, PORT)
    if protocol is UDP:
        with rig.client(6, protocol) as client:
            client.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            client.sendto(b"x", (mapped, PORT))
            assert client.recvfrom(10)[1][:2] == (mapped, PORT)


def test_mptcp(rig: ServiceRig) -> None:
    """Translated as TCP; what it says of its peer is the backend's address."""
    rig.services.replace(rig.everything())
    with inside(rig.a.netns), joined(rig.pod_cgroup):
        client = socket.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_MPTCP)
    with client:
        client.settimeout(TIMEOUT_S)
        client.connect((CLUSTER_IPS[4], PORT))
        assert ask(client) in "bc"


def test_a_process_of_the_host_network(rig: ServiceRig) -> None:
    rig.services.replace(rig.everything())
    with rig.client(netns=rig.node.name, cgroup=rig.cgroup) as client:
        client.connect((CLUSTER_IPS[4], PORT))
        assert ask(client) in "bc"


def test_the_backend_sees_the_client_itself(rig: ServiceRig) -> None:
    with inside(rig.b.netns):
        server = socket.create_server((str(rig.b.ipv4), TARGET_PORT + 1))
    backend = Backend(rig.b.ipv4, TARGET_PORT + 1)
    rig.services.replace({frontend(): ServicePort((backend,))})
    with server, rig.connect(), server.accept()[0] as seen:
        assert seen.getpeername()[0] == str(rig.a.ipv4)
        assert seen.getsockname() == (str(rig.b.ipv4), TARGET_PORT + 1)


def test_what_is_left_alone(rig: ServiceRig) -> None:
    """Sockets outside the cgroup, Envoy's, and those of a pod with a sidecar."""
    rig.services.replace(rig.everything())
    with inside(rig.a.netns):
        outside = rig.outsider()
    assert unreachable(outside, CLUSTER_IPS[4])

    envoy = rig.client()
    envoy.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, MARK_FROM_PROXY | 0x1000)
    assert unreachable(envoy, CLUSTER_IPS[4])

    cookie = namespaces.cookie_of(Path("/run/netns") / rig.a.netns)
    rig.services.set_bypass({cookie})
    assert unreachable(rig.client(), CLUSTER_IPS[4])
    rig.services.set_bypass(set())
    assert ask_once(rig) in "bc"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_backend_that_goes(rig: ServiceRig, family: int) -> None:
    """Its connections live, nothing new comes to it."""
    rig.services.replace(rig.service(rig.b, family=family))
    with rig.connect(family) as old:
        assert ask(old) == "b"
        rig.services.sync(rig.service(rig.b, rig.c, family=family))
        assert {ask_once(rig, family) for _ in range(20)} == {"b", "c"}
        rig.services.sync(rig.service(rig.c, family=family))
        assert {ask_once(rig, family) for _ in range(20)} == {"c"}
        assert ask(old) == "b"
        assert old.getpeername()[:2] == (CLUSTER_IPS[family], PORT)


@pytest.mark.parametrize("family", FAMILIES)
def test_datagram_flows_to_a_backend_that_goes(rig: ServiceRig, family: int) -> None:
    """Draining, it keeps them; gone, an unconnected socket gets another, a connected one ends."""
    rig.services.replace(rig.service(rig.b, family=family, protocol=UDP))
    with (
        rig.connect(family, UDP) as connected,
        rig.client(family, UDP) as unconnected,
        rig.client(family, UDP) as direct,
    ):
        direct.connect((rig.b.address(family), TARGET_PORT))
        assert ask(connected) == exchange(unconnected, family)[0] == ask(direct) == "b"

        rig.services.sync(rig.service(rig.c, family=family, protocol=UDP, draining=(rig.b,)))
        assert ask(connected) == exchange(unconnected, family)[0] == "b"
        with rig.connect(family, UDP) as new, rig.client(family, UDP) as other:
            assert ask(new) == exchange(other, family)[0] == "c"

            rig.services.sync(rig.service(rig.c, family=family, protocol=UDP))
            assert exchange(unconnected, family)[0] == "c"
            assert ask(new) == "c"
        with pytest.raises(ConnectionAbortedError):
            connected.recv(10)
        connected.connect((CLUSTER_IPS[family], PORT))
        assert ask(connected) == "c"
        assert ask(direct) == "b"


@pytest.mark.parametrize("family", FAMILIES)
def test_without_backends(rig: ServiceRig, family: int) -> None:
    for protocol in (TCP, UDP):
        rig.services.replace(rig.service(family=family, protocol=protocol))
        with rig.client(family, protocol) as client, pytest.raises(ConnectionRefusedError):
            client.connect((CLUSTER_IPS[family], PORT))
    with rig.client(family, UDP) as client, pytest.raises(ConnectionRefusedError):
        exchange(client, family)
    assert rig.services.counters() == {"no_backend": 3, "missing_backend": 0}


def test_client_ip_affinity(rig: ServiceRig) -> None:
    rig.services.replace(rig.service(rig.b, rig.c, affinity_seconds=3600))
    (first,) = {ask_once(rig) for _ in range(15)}
    kept, other = (rig.b, rig.c) if first == "b" else (rig.c, rig.b)
    rig.services.sync(rig.service(other, draining=(kept,), affinity_seconds=3600))
    assert {ask_once(rig) for _ in range(10)} == {"c" if first == "b" else "b"}
    rig.services.sync(rig.service(rig.b, rig.c))
    assert {ask_once(rig) for _ in range(20)} == {"b", "c"}


def test_dump_is_what_the_kernel_has(rig: ServiceRig) -> None:
    rig.services.replace(
        rig.service(rig.b, rig.c, affinity_seconds=60)
        | rig.service(rig.b, family=6, protocol=UDP, draining=(rig.c,))
    )
    assert rig.services.dump() == [
        {
            "frontend": "10.96.0.10:80",
            "protocol": "TCP",
            "backends": [f"{rig.b.ipv4}:8080", f"{rig.c.ipv4}:8080"],
            "draining": [],
            "affinity_seconds": 60,
        },
        {
            "frontend": "[fd00:96::a]:80",
            "protocol": "UDP",
            "backends": [f"[{rig.b.ipv6}]:8080"],
            "draining": [f"[{rig.c.ipv6}]:8080"],
            "affinity_seconds": None,
        },
    ]


def test_no_half_written_service_is_ever_seen(rig: ServiceRig) -> None:
    """Every connection gets a backend while they change all the time, a hundred slots at once."""
    sets = [
        {frontend(): ServicePort(rig.service(pod)[frontend()].backends * 100)}
        for pod in (rig.b, rig.c)
    ]
    rig.services.replace(sets[0])
    stop = threading.Event()
    changes = 0

    def change() -> None:
        nonlocal changes
        while not stop.is_set():
            changes += 1
            rig.services.sync(sets[changes % 2])

    clients = rig.clients(800)
    changer = threading.Thread(target=change)
    changer.start()
    answers = []
    try:
        for client in clients:
            with client:
                client.connect((CLUSTER_IPS[4], PORT))
                answers.append(ask(client))
    finally:
        stop.set()
        changer.join()
    assert set(answers) == {"b", "c"}
    assert changes > 50
    assert rig.services.counters()["missing_backend"] == 0


def test_two_nodes_on_one_machine(rig: ServiceRig, tmp_path: Path) -> None:
    other = ServiceRig(tmp_path / "bpf2")
    try:
        other.serve()
        rig.services.replace(rig.service(rig.b))
        other.services.replace(other.service(other.c))
        assert {ask_once(rig) for _ in range(5)} == {"b"}
        assert {ask_once(other) for _ in range(5)} == {"c"}
    finally:
        other.close()


def test_policy_sees_the_backend(rig: ServiceRig) -> None:
    """With the packet programs of the same directory, which have a policy for pod b."""
    with inside(rig.node.name):
        datapath = Datapath(DatapathConfig(rig.bpf_dir))
    try:
        for number, pod in ((1, rig.a), (2, rig.b)):
            with inside(rig.node.name):
                datapath.attach_endpoint(
                    Endpoint(number, 300 + number, pod.ifindex, pod.ipv4, pod.ipv6)
                )
            datapath.upsert_ipcache(ip_network(pod.ipv4), 300 + number, number)
            datapath.sync_policy(number, EndpointPolicy(number, 300 + number, OPEN, OPEN, {}))
        rig.services.replace(rig.service(rig.b))
        assert ask_once(rig) == "b"
        for policy, reached in ((allow(999, port=TARGET_PORT), False), (allow(301), True)):
            entries = entries_of(policy, OPEN)
            datapath.sync_policy(2, EndpointPolicy(2, 302, policy, OPEN, entries))
            with rig.client() as client:
                client.settimeout(0.5)
                assert (client.connect_ex((CLUSTER_IPS[4], PORT)) == 0) == reached
    finally:
        for interface in (rig.a.ifindex, rig.b.ifindex):
            datapath._programs.detach(interface)


AGENT = """
import ipaddress, sys, time
from pathlib import Path
from datapath.service_model import Backend, Frontend, ServicePort
from datapath.service_model import Backend, ServicePort
from datapath.services import Services
from policy_engine.compile import entries_of
from policy_engine.model import EndpointPolicy, Protocol
from tests.system.datapath_rig import OPEN, allow
services = Services(Path(sys.argv[1]), Path(sys.argv[2]))
at = Frontend(ipaddress.ip_address(sys.argv[3]), 80, Protocol.TCP)
services.replace({at: ServicePort((Backend(ipaddress.ip_address(sys.argv[4]), 8080),))})
print("ready", flush=True)
time.sleep(60)
"""


def test_an_agent_that_is_killed_and_its_successor(rig: ServiceRig) -> None:
    rig.services.close()
    agent = subprocess.Popen(
        [sys.executable, "-c", AGENT, str(rig.bpf_dir), str(rig.cgroup), CLUSTER_IPS[4],
         str(rig.b.ipv4)],
        stdout=subprocess.PIPE,
    )  # fmt: skip
    assert agent.stdout
    assert agent.stdout.readline() == b"ready\n"
    with rig.connect() as connection:
        os.kill(agent.pid, signal.SIGKILL)
        agent.communicate()
        assert ask(connection) == "b"
        assert ask_once(rig) == "b"

        links = sorted(path.name for path in (rig.bpf_dir / "cgroup_links").iterdir())
        stop, failures = threading.Event(), []

        def keep_connecting() -> None:
            while not stop.is_set():
                try:
                    assert ask_once(rig) == "b"
                except OSError as error:
                    failures.append(error)

        clients = threading.Thread(target=keep_connecting)
        clients.start()
        try:
            for _ in range(5):
                rig.services = Services(rig.bpf_dir, rig.cgroup)
                rig.services.replace(rig.service(rig.b))
                rig.services.close()
        finally:
            stop.set()
            clients.join()
        assert failures == []
        assert links == sorted(p.name for p in (rig.bpf_dir / "cgroup_links").iterdir())
        assert ask(connection) == "b"
        assert connection.getpeername() == (CLUSTER_IPS[4], PORT)
    rig.services = Services(rig.bpf_dir, rig.cgroup)


def test_a_successor_ends_what_a_killed_agent_left_half_done(rig: ServiceRig) -> None:
    """Slots that no frontend names, frontends that are no more, flows to backends that went."""
    rig.services.replace(rig.everything())
    stray = slot_key(9999, 1, 0)
    maps = rig.services._programs.maps
    maps["service_backends"].set(stray, l4_addr(rig.b.ipv4, 1, TCP))
    with rig.connect(4, UDP) as flow:
        mine, other = (rig.b, rig.c) if ask(flow) == "b" else (rig.c, rig.b)
        rig.services.close()

        rig.services = Services(rig.bpf_dir, rig.cgroup)
        rig.services.replace(rig.service(mine, protocol=UDP))
        assert ask(flow) in "bc"
        assert rig.services._programs.maps["service_backends"].get(stray) is None
        assert len(rig.services.dump()) == 1
        rig.services.close()

        rig.services = Services(rig.bpf_dir, rig.cgroup)
        rig.services.replace(rig.service(other, protocol=UDP))
        with pytest.raises(ConnectionAbortedError):
            flow.recv(10)


class KilledError(BaseException):
    """Not an Exception, so that nothing tidies up after it."""


def fail_after(services: Services, writes: int, failure: BaseException) -> None:
    """The write after so many to any map raises."""
    left = itertools.count(writes, -1)

    def guarded(write: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: bytes) -> object:
            if next(left) == 0:
                raise failure
            return write(*arguments)

        return call

    for each in services._programs.maps.values():
        each.set = guarded(each.set)  # type: ignore[assignment,method-assign]
        each.delete = guarded(each.delete)  # type: ignore[assignment,method-assign]


def entries(services: Services) -> dict[str, int]:
    names = ("services", "service_backends", "service_members")
    return {name: len(list(services._programs.maps[name].items())) for name in names}


def test_an_agent_that_is_killed_at_any_write(rig: ServiceRig) -> None:
    """Each frontend has what it had or what it gets; the successor makes it whole, without rest."""
    before = rig.service(rig.b, rig.c, protocol=UDP) | rig.service(rig.b)
    after = rig.service(rig.c, protocol=UDP, draining=(rig.b,)) | rig.service(rig.c, family=6)
    rig.services.replace(before)
    for writes in itertools.count():
        fail_after(rig.services, writes, KilledError())
        try:
            rig.services.replace(after)
        except KilledError:
            ended = False
        else:
            ended = True
        rig.services.close()
        rig.services = Services(rig.bpf_dir, rig.cgroup)
        for at, now in rig.services._map.table().items():
            wanted = [t[at].backends for t in (before, after) if at in t]
            assert now.backends in wanted, writes
        rig.services.replace(after)
        assert rig.services._map.table() == after
        assert entries(rig.services) == {
            "services": 2, "service_backends": 2, "service_members": 2,
        }  # fmt: skip
        rig.services.replace(before)
        if ended:
            break
    assert writes > 8


def test_a_map_that_is_full(rig: ServiceRig) -> None:
    """What found no place keeps what it had, everything else is written, and it is said."""
    rig.services.replace(rig.service(rig.b))
    fail_after(rig.services, 1, BpfError(errno.ENOSPC, "map service_backends: full"))
    with pytest.raises(BpfError, match="full"):
        rig.services.sync(rig.service(rig.c) | rig.service(rig.c, family=6))
    assert ask_once(rig) == "b"
    assert ask_once(rig, 6) == "c"
    assert entries(rig.services)["service_backends"] == 2
    rig.services.sync(rig.service(rig.c))
    assert ask_once(rig) == "c"


def test_a_cgroup_that_is_made_anew(rig: ServiceRig, tmp_path: Path) -> None:
    """As after the sandbox node of this name was removed; the pins of the old one are dead."""
    rig.services.replace(rig.service(rig.b))
    rig.services.close()
    rig.pause.kill()
    rig.pause.wait()
    for path in (rig.pod_cgroup, rig.pod_cgroup.parent, rig.cgroup):
        path.rmdir()
    rig.pod_cgroup.mkdir(parents=True)
    rig.services = Services(rig.bpf_dir, rig.cgroup)
    rig.services.replace(rig.service(rig.b))
    assert ask_once(rig) == "b"
