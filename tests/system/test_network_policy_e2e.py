"""The cases of the Kubernetes NetworkPolicy end-to-end suite, on a cluster of two nodes.

Nine pods, each probing all the others over both families, so that every step sees that what it does
not concern is as it was. See the table for what is left out, and why.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import ip_network
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml

from sandbox.cluster import await_rollout, install, kubectl, nodes_of
from sandbox.control_plane import Cluster
from sandbox.execute import command_in
from sandbox.segment import UPLINK, ip
from tests.system import cluster_rig

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(180)]

HERE = Path(__file__).parent
PROBE = [sys.executable, str(HERE / "policy_probe.py")]
CASES = yaml.safe_load((HERE / "network_policy_e2e.yaml").read_text())
CLUSTER = Cluster("netpol")
NODES = nodes_of(CLUSTER, 2)
CRD = "ciliumnetworkpolicies.cilium.io"
OUTSIDE = {"one": ["192.0.2.50", "2001:db8::50"], "two": ["192.0.2.51", "2001:db8::51"]}
NAMESPACES, PORTS = ("x", "y", "z"), (80, 81)
PODS = [f"{namespace}/{name}" for namespace, name in product(NAMESPACES, "abc")]
NODE_OF = {pod: NODES[number % 2] for number, pod in enumerate(PODS)}
PROBE_SECONDS, SETTLE_SECONDS = 0.5, 20.0

Pair = tuple[str, str]


class Pods:
    """A prober in each of them."""

    def __init__(self) -> None:
        self._probers: dict[str, subprocess.Popen[str]] = {}
        self.addresses: dict[str, list[str]] = {}
        for pod, node in NODE_OF.items():
            path = node.sandbox_dir / "pods" / pod.replace("/", "_") / "state.json"
            self.addresses[pod] = json.loads(path.read_text())["addresses"]
            self._probers[pod] = subprocess.Popen(
                command_in(node, pod, [*PROBE, "probe"]),
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip

    def close(self) -> None:
        for prober in self._probers.values():
            prober.communicate(timeout=10)

    def reached(self, what: str, of: list[str] = PODS) -> dict[Pair, list[bool]]:
        """``what`` is protocol/port. For each pair: over each family."""
        targets = {pod: self.addresses[pod] for pod in PODS}
        return self.ask(what, targets, of)

    def ask(
        self, what: str, targets: dict[str, list[str]], of: list[str]
    ) -> dict[Pair, list[bool]]:
        protocol, _, port = what.partition("/")
        question = {"protocol": protocol, "port": int(port), "seconds": PROBE_SECONDS}
        for pod in of:
            others = {name: found for name, found in targets.items() if name != pod}
            to = self._probers[pod].stdin
            assert to
            to.write(json.dumps({**question, "targets": others}) + "\n")
            to.flush()
        made: dict[Pair, list[bool]] = {}
        for pod in of:
            answers = self._probers[pod].stdout
            assert answers
            line = json.loads(answers.readline())
            made |= {(pod, target): answer for target, answer in line.items()}
        return made


@pytest.fixture(scope="module")
def pods() -> Iterator[Pods]:
    with ExitStack() as stack:
        stack.enter_context(cluster_rig.running(CLUSTER, len(NODES)))
        install(CLUSTER)
        await_rollout(CLUSTER)
        kubectl(CLUSTER, "wait", "--for=create", f"crd/{CRD}", "--timeout=60s")
        stack.enter_context(outside())
        apply(*(namespace(name) for name in NAMESPACES))
        for name in NAMESPACES:
            kubectl(CLUSTER, "-n", name, "wait", "--for=create", "sa/default", "--timeout=30s")
        apply(*(pod(name) for name in PODS))
        ready = ("wait", "-A", "--for=condition=Ready", "pod", "-lpod", "--timeout=90s")
        kubectl(CLUSTER, *ready)
        made = Pods()
        stack.callback(made.close)
        yield made


@contextmanager
def outside() -> Iterator[None]:
    """A host beside the nodes that has all addresses of OUTSIDE and serves on them."""
    netns = f"sgt{os.getpid()}-outside"  # one that a killed run left is not in the way
    ip("netns", "add", netns)
    try:
        CLUSTER.segment.attach(netns, 50)
        for address, length in zip(OUTSIDE["two"], (24, 64), strict=True):
            nodad = ["nodad"] if ":" in address else []
            ip("addr", "add", f"{address}/{length}", "dev", UPLINK, *nodad, netns=netns)
        server = subprocess.Popen(["ip", "netns", "exec", netns, *PROBE, "serve", *map(str, PORTS)])
        try:
            yield
        finally:
            server.kill()
            server.wait()
    finally:
        ip("netns", "del", netns)


def namespace(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": name, "labels": {"ns": name}},
    }


def pod(name: str) -> dict[str, Any]:
    of, _, own = name.partition("/")
    ports = [
        {"name": f"serve-{port}-{protocol.lower()}", "containerPort": port, "protocol": protocol}
        for port, protocol in product(PORTS, ("TCP", "UDP", "SCTP"))
    ]
    command = [*PROBE, "serve", *map(str, PORTS)]
    container = {"name": "main", "image": "sidegate/probe", "command": command, "ports": ports}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": own, "namespace": of, "labels": {"pod": own}},
        "spec": {
            "nodeName": NODE_OF[name].name,
            "containers": [container],
            "terminationGracePeriodSeconds": 1,
        },
    }


def network_policy(name: str, spec: dict[str, Any]) -> dict[str, Any]:
    of, _, own = name.partition("/")
    metadata = {"name": own, "namespace": of}
    kind = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy"}
    return {**kind, "metadata": metadata, "spec": spec}


def apply(*objects: dict[str, Any]) -> None:
    """As JSON: to kubectl a YAML ``y`` is true."""
    kubectl(CLUSTER, "apply", "-f", "-", text="\n".join(map(json.dumps, objects)))


def change(step: dict[str, Any]) -> None:
    if wanted := step.get("apply"):
        apply(*(network_policy(name, spec) for name, spec in wanted.items()))
    for name in step.get("delete", []):
        of, _, own = name.partition("/")
        kubectl(CLUSTER, "-n", of, "delete", "networkpolicy", own)
    for name in step.get("label", []):
        label(name, "new=yes")


def label(name: str, text: str) -> None:
    of, _, own = name.partition("/")
    what = ("namespace", own) if of == "namespace" else ("-n", of, "pod", own)
    kubectl(CLUSTER, "label", *what, text)


def meant(pattern: str, pair: Pair) -> bool:
    """``x/a > y/*``; ``*`` is everybody."""
    sides = zip(pattern.split(" > "), pair, strict=True)
    return all(side in ("*", name) or side == f"{name[0]}/*" for side, name in sides)


def expected(step: dict[str, Any]) -> dict[Pair, list[bool]]:
    made = {}
    for pair in product(PODS, PODS):
        denied = any(meant(pattern, pair) for pattern in step.get("denied", []))
        again = any(meant(pattern, pair) for pattern in step.get("allowed", []))
        if pair[0] != pair[1]:
            made[pair] = [again or not denied] * 2
    return made


def settles(wanted: dict[Pair, list[bool]], ask: Any) -> None:
    """It comes to be so, and it stays."""
    deadline = time.monotonic() + SETTLE_SECONDS
    in_a_row = 0
    while in_a_row < 2 and time.monotonic() < deadline:
        seen = ask()
        in_a_row = in_a_row + 1 if seen == wanted else 0
    wrong = {f"{a} > {b}": seen[a, b] for a, b in wanted if seen[a, b] != wanted[a, b]}
    assert not wrong, "not as expected, by family"


@pytest.fixture
def without_policies() -> Iterator[None]:
    yield
    kubectl(CLUSTER, "delete", "networkpolicy", "-A", "--all")


@pytest.mark.usefixtures("without_policies")
@pytest.mark.parametrize("case", CASES, ids=[case["case"] for case in CASES])
def test_case(pods: Pods, case: dict[str, Any]) -> None:
    labelled = [name for step in case["steps"] for name in step.get("label", [])]
    try:
        for step in case["steps"]:
            change(step)
            for what in step["probe"]:
                settles(expected(step), lambda what=what: pods.reached(what))
    finally:
        for name in labelled:
            label(name, "new-")


def blocks(*names: str, excepts: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """Of each family: the hosts, or everything but ``excepts``."""
    made = []
    for family, everything in enumerate(("0.0.0.0/0", "::/0")):
        left_out = [str(ip_network(OUTSIDE[name][family])) for name in excepts]
        if excepts:
            made.append({"cidr": everything, "except": left_out})
        made += [{"cidr": str(ip_network(OUTSIDE[name][family]))} for name in names]
    return [{"ipBlock": block} for block in made]


def leaves(pods: Pods) -> dict[Pair, list[bool]]:
    return pods.ask("TCP/80", OUTSIDE | {"y/a": pods.addresses["y/a"]}, ["x/a"])


def seen_by_a(*reached: str) -> dict[Pair, list[bool]]:
    return {("x/a", name): [name in reached] * 2 for name in (*OUTSIDE, "y/a")}


def egress_to(*peers: dict[str, Any]) -> dict[str, Any]:
    own = {"podSelector": {"matchLabels": {"pod": "a"}}, "policyTypes": ["Egress"]}
    return own | {"egress": [{"to": list(peers)}]}


@pytest.mark.usefixtures("without_policies")
def test_an_ip_block_means_addresses_outside_the_cluster(pods: Pods) -> None:
    settles(seen_by_a("one", "two", "y/a"), lambda: leaves(pods))
    change({"apply": {"x/block": egress_to(*blocks("one"))}})
    settles(seen_by_a("one"), lambda: leaves(pods))
    change({"apply": {"x/block": egress_to(*blocks(excepts=("one",)))}})
    settles(seen_by_a("two"), lambda: leaves(pods))
    change({"apply": {"x/other": egress_to(*blocks("one"))}})
    settles(seen_by_a("one", "two"), lambda: leaves(pods))
    change({"delete": ["x/block", "x/other"]})
    settles(seen_by_a("one", "two", "y/a"), lambda: leaves(pods))


def service(of: str, name: str, **spec: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": of}
    ports = {"ports": [{"port": 80, "name": "http"}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": ports | spec}


def endpoint_slice(of: str, name: str, address: str) -> dict[str, Any]:
    kind = "IPv6" if ":" in address else "IPv4"
    labels = {"kubernetes.io/service-name": name}
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": f"{name}-{kind.lower()}", "namespace": of, "labels": labels},
        "addressType": kind,
        "ports": [{"port": 80, "name": "http"}],
        "endpoints": [{"addresses": [address]}],
    }


def test_to_services_follows_the_services(pods: Pods) -> None:
    backends = [endpoint_slice("y", "peers", address) for address in OUTSIDE["one"]]
    to = {"toServices": [{"k8sService": {"serviceName": "peers", "namespace": "y"}}]}
    policy = {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": "services", "namespace": "x"},
        "spec": {"endpointSelector": {"matchLabels": {"pod": "a"}}, "egress": [to]},
    }
    apply(policy)
    try:
        settles(seen_by_a(), lambda: leaves(pods))
        apply(service("y", "peers"), *backends)
        settles(seen_by_a("one"), lambda: leaves(pods))
        apply(service("y", "peers", selector={"pod": "a"}))
        settles(seen_by_a("y/a"), lambda: leaves(pods))
        kubectl(CLUSTER, "-n", "y", "delete", "service", "peers")
        settles(seen_by_a(), lambda: leaves(pods))
    finally:
        kubectl(CLUSTER, "-n", "x", "delete", "cnp", "services")
    settles(seen_by_a("one", "two", "y/a"), lambda: leaves(pods))
