"""Requests through two sidecars, and what each rule of a policy costs them."""

from __future__ import annotations

import statistics
from functools import partial

from bench.figures import Figure, figure, pairs
from bench.mesh.manifests import Pair, paths
from bench.mesh.rig import Mesh

_ROUNDS = 25
_AGAINST = "the same mesh without Sidegate"
_ISTIO = "an AuthorizationPolicy with the same rules"
# Rules, the bar, rounds: what is small needs more of them.
_SIZES = ((1, "<= 1", 9), (100, "<= 0.3", 7), (1000, "<= 0.05", 7))


def throughput(mesh: Mesh) -> list[Figure]:
    """Pairs of pods in one mesh: ours has the module and a policy, the other neither."""
    mesh.enforce("ours", paths(1))
    seen = pairs(lambda: mesh.load("ours"), lambda: mesh.load("plain"), _ROUNDS)
    mesh.release("ours", paths(1))
    figures = [
        ("requests/s", [a.rate / b.rate for a, b in seen], ">= 0.97"),
        ("p50", [a.p50 / b.p50 for a, b in seen], "<= 1.03"),
        ("CPU per request", [sum(a.cpu) / sum(b.cpu) for a, b in seen], "<= 1.05"),
    ]
    return [
        *(figure(f"{name} through two sidecars with our policy", ratios, "ratio",
                 against=_AGAINST, bar=bar) for name, ratios, bar in figures),
        figure("CPU per request of both sidecars without Sidegate",
               [sum(b.cpu) for _, b in seen], "us"),
    ]  # fmt: skip


def rules(mesh: Mesh) -> list[Figure]:
    """What a policy adds to the CPU time of the server's sidecar for each request: without it, with
    it and without it again, in the same Envoy."""
    figures = []
    for count, bar, rounds in _SIZES:
        seen = pairs(
            partial(_added, mesh, "ours", count), partial(_added, mesh, "plain", count), rounds
        )
        ours, istio = [list(values) for values in zip(*seen, strict=True)]
        name = f"CPU per request added by {count:,} rule{'s'[: count > 1]}"
        typical = statistics.median(istio)
        figures += [
            figure(name, ours, "us"),
            figure(f"{name}, AuthorizationPolicy", istio, "us"),
            figure(f"{name}, as a share", [each / typical for each in ours], "ratio",
                   against=_ISTIO, bar=bar),
        ]  # fmt: skip
    return figures


def _added(mesh: Mesh, pair: Pair, count: int) -> float:
    """us for each request."""
    before = mesh.load(pair).cpu[1]
    mesh.enforce(pair, paths(count))
    try:
        with_policy = mesh.load(pair).cpu[1]
    finally:
        mesh.release(pair, paths(count))
    # From both sides, so that a drift of the machine cancels out.
    return with_policy - (before + mesh.load(pair).cpu[1]) / 2
