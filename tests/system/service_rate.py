"""Connections/s to a ClusterIP against a direct pod address: ``python -m tests.system.service_rate``.

Short turns of each kind alternate, so that a busy machine slows all alike.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import socket
import statistics
import struct
import tempfile
import time
from collections.abc import Callable
from ipaddress import IPv4Address
from pathlib import Path

from datapath.service_model import Backend, Frontend, ServicePort
from policy_engine.model import Protocol
from tests.system.netns import inside
from tests.system.service_rig import CLUSTER_IPS, PORT, TARGET_PORT, ServiceRig, frontend, joined

ROUNDS, TURN = 60, 250
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: no TIME_WAIT, else the ports are used up


def _accept(server: socket.socket) -> None:
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            server.accept()[0].close()


def _turn(address: tuple[str, int]) -> float:
    begin = time.perf_counter()
    for _ in range(TURN):
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            client.connect(address)
    return TURN / (time.perf_counter() - begin)


def _table(count: int, backend: Backend) -> dict[Frontend, ServicePort]:
    """``count`` Services of ten backends each; the one that is measured has the real one."""
    others = tuple(Backend(IPv4Address("10.9.1.0") + i, TARGET_PORT) for i in range(10))
    table = {
        Frontend(IPv4Address("10.97.0.0") + i, PORT, Protocol.TCP): ServicePort(others)
        for i in range(count - 1)
    }
    return table | {frontend(): ServicePort((backend,))}


def measure(rig: ServiceRig, count: int) -> dict[str, float]:
    """Median rates by kind. ``outside`` is direct too, but beyond the reach of our programs."""
    rig.services.replace(_table(count, Backend(rig.b.ipv4, TARGET_PORT)))
    direct, service = (str(rig.b.ipv4), TARGET_PORT), (CLUSTER_IPS[4], PORT)
    rates: dict[str, list[float]] = {"direct": [], "service": [], "outside": []}
    pairs = []
    with inside(rig.a.netns):
        for i in range(ROUNDS):
            with joined(rig.pod_cgroup):
                order = ["direct", "service"] if i % 2 else ["service", "direct"]
                turn = {kind: _turn(direct if kind == "direct" else service) for kind in order}
            turn["outside"] = _turn(direct)
            for kind, rate in turn.items():
                rates[kind].append(rate)
            pairs.append(turn)
    return {kind: statistics.median(values) for kind, values in rates.items()} | {
        "service / direct": statistics.median(p["service"] / p["direct"] for p in pairs),
        "service / outside": statistics.median(p["service"] / p["outside"] for p in pairs),
    }


def _timed(call: Callable[[], None]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        rig = ServiceRig(Path(directory) / "bpf")
        server = None
        try:
            with inside(rig.b.netns):
                listener = socket.create_server((str(rig.b.ipv4), TARGET_PORT), backlog=1024)
            server = multiprocessing.Process(target=_accept, args=(listener,), daemon=True)
            server.start()
            for count in (10, 5000):
                backend = Backend(rig.b.ipv4, TARGET_PORT)
                table = _table(count, backend)
                seconds = _timed(lambda table=table: rig.services.replace(table))  # type: ignore[misc]
                print(f"{count} services: written in {seconds:.2f} s")
                for name, value in measure(rig, count).items():
                    print(f"  {name:18} {value:10.3f}")
        finally:
            if server:
                server.kill()
            rig.close()


if __name__ == "__main__":
    main()
