"""Connections/s to a ClusterIP against a direct address: ``python -m tests.system.service_rate``.

Turns shorter than a time slice alternate, and upper quartiles are compared: of either kind, turns
that nothing disturbed.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import socket
import statistics
import struct
import tempfile
import time
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

from datapath.service_model import Backend, Frontend, ServicePort
from policy_engine.model import Protocol
from tests.system.netns import inside
from tests.system.service_rig import CLUSTER_IPS, PORT, TARGET_PORT, ServiceRig, frontend, joined

ROUNDS, TURNS, CONNECTIONS = 10, 40, 20
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: no TIME_WAIT, else the ports are used up


def _accept(server: socket.socket) -> None:
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            server.accept()[0].close()


def _turn(address: tuple[str, int]) -> float:
    begin = time.perf_counter()
    for _ in range(CONNECTIONS):
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            client.connect(address)
    return CONNECTIONS / (time.perf_counter() - begin)


def _table(count: int, backend: Backend) -> dict[Frontend, ServicePort]:
    """``count`` Services of ten backends each; the one that is measured has the real one."""
    others = tuple(Backend(IPv4Address("10.9.1.0") + i, TARGET_PORT) for i in range(10))
    table = {
        Frontend(IPv4Address("10.97.0.0") + i, PORT, Protocol.TCP): ServicePort(others)
        for i in range(count - 1)
    }
    return table | {frontend(): ServicePort((backend,))}


def measure(rig: ServiceRig) -> dict[str, float]:
    """Rates by kind. ``outside`` is direct too, but beyond the reach of our programs."""
    direct, service = (str(rig.b.ipv4), TARGET_PORT), (CLUSTER_IPS[4], PORT)
    rates: dict[str, list[float]] = {"direct": [], "service": [], "outside": []}
    with inside(rig.a.netns):
        for _ in range(ROUNDS):
            with joined(rig.pod_cgroup):
                for _ in range(TURNS):
                    rates["direct"].append(_turn(direct))
                    rates["service"].append(_turn(service))
            rates["outside"] += [_turn(direct) for _ in range(TURNS)]
    upper = {kind: statistics.quantiles(values, n=4)[2] for kind, values in rates.items()}
    return upper | {
        f"service / {kind}": upper["service"] / upper[kind] for kind in ("direct", "outside")
    }


def ratios(counts: tuple[int, ...], rounds: int = 7) -> dict[int, list[float]]:
    """ClusterIP against direct by the number of Services, once a round."""
    made: dict[int, list[float]] = {}
    with serving() as rig:
        for count in counts:
            rig.services.replace(_table(count, Backend(rig.b.ipv4, TARGET_PORT)))
            made[count] = [measure(rig)["service / direct"] for _ in range(rounds)]
    return made


@contextlib.contextmanager
def serving() -> Iterator[ServiceRig]:
    """A rig whose pod b accepts connections."""
    with tempfile.TemporaryDirectory() as directory:
        rig = ServiceRig(Path(directory) / "bpf")
        server = None
        try:
            with inside(rig.b.netns):
                listener = socket.create_server((str(rig.b.ipv4), TARGET_PORT), backlog=1024)
            server = multiprocessing.Process(target=_accept, args=(listener,), daemon=True)
            server.start()
            yield rig
        finally:
            if server:
                server.kill()
            rig.close()


def main() -> None:
    with serving() as rig:
        for count in (10, 5000):
            begin = time.perf_counter()
            rig.services.replace(_table(count, Backend(rig.b.ipv4, TARGET_PORT)))
            print(f"{count} services: written in {time.perf_counter() - begin:.2f} s")
            for name, value in measure(rig).items():
                print(f"  {name:18} {value:10.3f}")


if __name__ == "__main__":
    main()
