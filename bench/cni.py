"""A pod's start: CNI ADD with a real agent, against the kernel's own work for the same."""

from __future__ import annotations

import subprocess
import tempfile
import time
from pathlib import Path

from bench.figures import Figure, figure
from bench.rig import Rig, rig
from sandbox import cni
from sandbox.node import Node
from sandbox.segment import ip

_ROUNDS = 30
# What ADD makes: the pair, both ends' addresses, neighbours and routes.
_NODE_SIDE = """
link add bench0 type veth peer name eth0 address 02:01:00:00:00:01 netns {pod}
link set bench0 address 02:02:00:00:00:01 up
neigh add 10.244.0.250 lladdr 02:01:00:00:00:01 dev bench0
neigh add fd00:10:244::250 lladdr 02:01:00:00:00:01 dev bench0
route add 10.244.0.250/32 dev bench0
route add fd00:10:244::250/128 dev bench0
"""
_POD_SIDE = """
link set lo up
link set eth0 up
addr add 10.244.0.250/32 dev eth0
addr add fd00:10:244::250/128 dev eth0 nodad
neigh add 10.244.0.1 lladdr 02:02:00:00:00:01 dev eth0
neigh add fd00:10:244::1 lladdr 02:02:00:00:00:01 dev eth0
route add 10.244.0.1/32 dev eth0
route add fd00:10:244::1/128 dev eth0
route add default via 10.244.0.1 dev eth0 onlink
route add default via fd00:10:244::1 dev eth0 onlink
"""


def add() -> list[Figure]:
    """Milliseconds; each round has a new network namespace."""
    with tempfile.TemporaryDirectory() as directory, rig(Path(directory)) as node:
        pairs = []
        for number in range(_ROUNDS + 1):
            if number % 2:
                kernel, plugin = _kernel(node.node), _plugin(node, number)
            else:
                plugin, kernel = _plugin(node, number), _kernel(node.node)
            pairs.append((plugin, kernel))
    beyond = sorted(plugin - kernel for plugin, kernel in pairs[1:])
    return [
        figure("CNI ADD beyond the kernel's own work", beyond, "ms",
               against="the same links, addresses and routes by ip -batch", bar="<= 50"),
        figure("CNI ADD in all", [plugin for plugin, _ in pairs[1:]], "ms"),
    ]  # fmt: skip


def _plugin(node: Rig, number: int) -> float:
    """One ADD; its DEL is not counted."""
    netns = f"{node.node.netns}-pod-bench"
    attachment = cni.Attachment(f"bench-{number}", netns, "default", "bench", f"uid-{number}")
    ip("netns", "add", netns)
    try:
        begin = time.perf_counter()
        cni.call(node.node, "ADD", attachment)
        took = time.perf_counter() - begin
        cni.call(node.node, "DEL", attachment)
    finally:
        ip("netns", "del", netns)
    return took * 1000


def _kernel(node: Node) -> float:
    netns = f"{node.netns}-pod-bench"
    ip("netns", "add", netns)
    try:
        begin = time.perf_counter()
        for where, commands in ((node.netns, _NODE_SIDE.format(pod=netns)), (netns, _POD_SIDE)):
            subprocess.run(["ip", "-n", where, "-batch", "-"], input=commands, text=True,
                           check=True, capture_output=True)  # fmt: skip
        took = time.perf_counter() - begin
        ip("link", "del", "bench0", netns=node.netns)
    finally:
        ip("netns", "del", netns)
    return took * 1000
