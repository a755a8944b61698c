"""How soon a policy that the API server has accepted holds in the sidecar, and for what."""

from __future__ import annotations

import contextlib
import http.client
import json
import queue
import statistics
import subprocess
import threading
import time
from typing import IO, Any

from bench.figures import Figure, figure, pairs
from bench.mesh.manifests import PAIRS, PATH, Pair, policies
from bench.mesh.rig import Mesh, eventually

_ISTIO = "AuthorizationPolicy"
_OTHERS = 500
_ROUNDS = 15
_TRIES = 10
_IDLE_SECONDS = 3.0
_PATIENCE = 10.0
_NOTHING = ("/v1/nothing",)


def latency(mesh: Mesh) -> list[Figure]:
    """Beside no other policies, and beside 500 of each kind."""
    others = [
        manifest
        for pair in PAIRS
        for n in range(_OTHERS)
        for manifest in policies(pair, [PATH], f"other-{n}", f"other-{n}")
    ]
    figures = _latency(mesh, "0 other policies")
    mesh.put(others)
    try:
        figures += _latency(mesh, f"{_OTHERS} other policies")
    finally:
        mesh.remove(others)
    return figures


def _latency(mesh: Mesh, beside: str) -> list[Figure]:
    with _Watch(mesh, "ours") as ours, _Watch(mesh, "plain") as istio:
        seen = pairs(ours.deny, istio.deny, _ROUNDS)
    our_times, istio_times = [list(values) for values in zip(*seen, strict=True)]
    typical = statistics.median(istio_times)
    name = f"policy accepted to denied in the sidecar, {beside}"
    return [
        figure(name, our_times, "ms"),
        figure(f"{name}, {_ISTIO}", istio_times, "ms"),
        figure(f"{name}, as a share", [each / typical for each in our_times], "ratio",
               against=f"an {_ISTIO}", bar="<= 0.25"),
    ]  # fmt: skip


def idle(mesh: Mesh) -> list[Figure]:
    """At both pairs: a request, a deny, silence, the first request on the same connection."""
    denied: dict[Pair, int] = dict.fromkeys(PAIRS, 0)
    for _ in range(_TRIES):
        for pair in PAIRS:
            mesh.enforce(pair, [PATH])
        with contextlib.ExitStack() as stack:
            kept = {pair: stack.enter_context(mesh.connection(pair)) for pair in PAIRS}
            for pair in PAIRS:
                # Istio's may be judged by the deny of the round before for some time.
                eventually(lambda: _ask(kept[pair]) == 200)  # noqa: B023
            for pair in PAIRS:
                mesh.put(policies(pair, _NOTHING))
            time.sleep(_IDLE_SECONDS)
            for pair in PAIRS:
                denied[pair] += _ask(kept[pair]) == 403
    for pair in PAIRS:
        mesh.release(pair, [PATH])
    return [
        Figure(
            name="first request on a kept idle connection 3 s after the deny: denied",
            value=denied["ours"],
            unit=f"of {_TRIES}",
            spread=(denied["ours"], denied["ours"]),
            rounds=_TRIES,
            against=f"an {_ISTIO}: {denied['plain']} of {_TRIES}",
            bar=f"== {_TRIES}",
            met=denied["ours"] == _TRIES,
        )
    ]


def _ask(kept: http.client.HTTPConnection) -> int:
    kept.request("GET", PATH)
    answer = kept.getresponse()
    answer.read()
    return answer.status


class _Watch:
    """Asks all the time over one connection, and sees the status change."""

    def __init__(self, mesh: Mesh, pair: Pair) -> None:
        self._mesh, self._pair = mesh, pair
        self._changes: queue.Queue[dict[str, Any]] = queue.Queue()
        self._process: subprocess.Popen[str]

    def __enter__(self) -> _Watch:
        self._mesh.enforce(self._pair, [PATH])
        self._process = self._mesh.hold(self._pair)
        threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True).start()
        self._until(200)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(10)
        self._mesh.release(self._pair, [PATH])

    def _read(self, lines: IO[str]) -> None:
        for line in lines:
            self._changes.put(json.loads(line))

    def _until(self, status: int) -> float:
        """When it was first seen, in ns. Raises queue.Empty."""
        while (change := self._changes.get(timeout=_PATIENCE))["status"] != status:
            pass
        return float(change["t"])

    def deny(self) -> float:
        """Milliseconds; allowed again when this returns."""
        accepted = self._mesh.put(policies(self._pair, _NOTHING))
        seen = self._until(403)
        self._mesh.put(policies(self._pair, [PATH]))
        self._until(200)
        return seen / 1e6 - accepted * 1e3
