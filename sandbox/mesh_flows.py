"""What the agents of a cluster's nodes say of the flows: ``sidegate observe --follow`` on each."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

from sandbox.cluster import SYSTEM, kubectl, kubectl_command
from sandbox.control_plane import Cluster

Flow = dict[str, Any]  # the JSON of flow_observer.flow.Flow
_PATIENCE = 2.0
_L7_LATER = 0.7  # seconds: the module tells in batches, after the kernel


class Flows:
    """All that was seen since it began; see :func:`following`."""

    def __init__(self) -> None:
        self._seen: list[Flow] = []
        self._begun = threading.Semaphore(0)

    def read(self, lines: Iterator[str]) -> None:
        """Until they end."""
        for line in lines:
            flow = json.loads(line)
            if "verdict" in flow:
                self._seen.append(flow)
                self._begun.release()

    def await_first(self) -> None:
        """Of one more reader: what comes later is not missed. It may have nothing to tell."""
        self._begun.acquire(timeout=_PATIENCE)

    def decided(
        self, ends: tuple[Collection[str], Collection[str]], verdict: str, since: int
    ) -> Flow | None:
        """The flow between addresses of both ends that settled what was asked at ``since``
        (nanoseconds since the epoch): of L7 if there is one, and the last. It may come late."""
        begin = time.monotonic()
        while True:
            found = [
                flow for flow in self._seen.copy()
                if flow["verdict"] == verdict and flow["direction"] == "ingress"
                and flow["time"] >= since
                and flow["source"]["ip"] in ends[0] and flow["destination"]["ip"] in ends[1]
            ]  # fmt: skip
            last = max(found, key=lambda flow: (flow["layer"] == "L7", flow["time"]), default=None)
            waited = time.monotonic() - begin
            if last and (last["layer"] == "L7" or verdict == "denied" or waited > _L7_LATER):
                return last
            if waited > _PATIENCE:
                return None
            time.sleep(0.05)


@contextmanager
def following(cluster: Cluster) -> Iterator[Flows]:
    """Raises CalledProcessError."""
    flows = Flows()
    which = ("-n", SYSTEM, "-l", "app.kubernetes.io/component=agent")
    agents = kubectl(cluster, "get", "pods", *which, "-o", "name").split()
    observe = ("sidegate", "observe", "--follow", "--last=1", "-o", "json")
    children = []
    try:
        for agent in agents:
            within = ("exec", "-n", SYSTEM, agent, "-c", "agent", "--", *observe)
            child = subprocess.Popen(
                kubectl_command(cluster, *within),
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                text=True,
            )  # fmt: skip
            children.append(child)
            assert child.stdout
            threading.Thread(target=flows.read, args=(child.stdout,), daemon=True).start()
            flows.await_first()
        yield flows
    finally:
        for child in children:
            child.terminate()
            child.wait()
