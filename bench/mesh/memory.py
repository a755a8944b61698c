"""What the module adds to the memory of a sidecar."""

from __future__ import annotations

from bench.figures import Figure, figure
from bench.mesh.manifests import PAIRS, Pair, backend, paths, server
from bench.mesh.rig import Mesh, resident

_EACH = 7
_RULES = 100


def sidecar(mesh: Mesh) -> list[Figure]:
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
        used = {pair: [resident(mesh.envoy(name)) for name in names[pair]] for pair in PAIRS}
    finally:
        mesh.release("ours", paths(_RULES))
        mesh.stop(pods)
    added = [ours - plain for ours, plain in zip(used["ours"], used["plain"], strict=True)]
    return [
        figure("memory of a sidecar's Envoy without Sidegate", used["plain"], "MiB"),
        figure(f"memory added to a sidecar, {_RULES} rules", added, "MiB",
               against="sidecars without Sidegate", bar="<= 6"),
    ]  # fmt: skip
