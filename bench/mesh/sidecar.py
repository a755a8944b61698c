"""What the module adds to a sidecar that has nothing to do: memory, CPU."""

from __future__ import annotations

import time

from bench.figures import Figure, figure
from bench.mesh.manifests import PAIRS, Pair, backend, paths, server
from bench.mesh.rig import Mesh, cpu_nanos, resident

_EACH = 7
_RULES = 100
# Until the agent has not seen its configuration move for some time, and how long it is watched.
_CALM_SECONDS, _IDLE_SECONDS = 12, 10


def idle(mesh: Mesh) -> list[Figure]:
    """Fresh sidecars of both kinds that have served, ours with a policy of 100 rules."""
    names: dict[Pair, list[str]] = {
        pair: [f"{server(pair)}-{number}" for number in range(_EACH)] for pair in PAIRS
    }
    pods = [backend(pair, name) for pair in PAIRS for name in names[pair]]
    mesh.start(pods)
    try:
        mesh.enforce("ours", paths(_RULES))
        for pair in PAIRS:
            mesh.wrk(pair, 4)
        envoys = {pair: [mesh.envoy(name) for name in names[pair]] for pair in PAIRS}
        used = {pair: [resident(pid) for pid in envoys[pair]] for pair in PAIRS}
        time.sleep(_CALM_SECONDS)
        before = {pair: [cpu_nanos(pid) for pid in envoys[pair]] for pair in PAIRS}
        time.sleep(_IDLE_SECONDS)
        busy = {
            pair: [
                (cpu_nanos(pid) - then) / _IDLE_SECONDS / 1e6
                for pid, then in zip(envoys[pair], before[pair], strict=True)
            ]
            for pair in PAIRS
        }
    finally:
        mesh.release("ours", paths(_RULES))
        mesh.stop(pods)
    memory, cpu = (
        [one - other for one, other in zip(each["ours"], each["plain"], strict=True)]
        for each in (used, busy)
    )
    return [
        figure("memory of a sidecar's Envoy without Sidegate", used["plain"], "MiB"),
        figure(f"memory added to a sidecar, {_RULES} rules", memory, "MiB",
               against="sidecars without Sidegate", bar="<= 6"),
        figure("CPU of an idle sidecar's Envoy without Sidegate", busy["plain"], "ms/s"),
        figure("CPU added to an idle sidecar", cpu, "ms/s", against="sidecars without Sidegate"),
    ]  # fmt: skip
