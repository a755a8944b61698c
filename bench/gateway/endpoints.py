"""What one endpoint that changes costs, in a Service that has few or many of them."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

from bench.figures import Figure, figure
from bench.gateway.manifests import PORT, SERVICE, Manifest, endpoints, gateway, made, route
from bench.mesh.rig import cpu_nanos, eventually
from gateway_translator.translator import CONTROLLER
from tests.system.sandbox_rig import Sandbox

_SLICE = 100
"""Endpoints of an EndpointSlice, as Kubernetes makes them."""
_FEW, _MANY = _SLICE, 10 * _SLICE
_CHANGES = 20
_ROUNDS = 7
_SETTLE_SECONDS = 0.5
_APART_SECONDS = 0.08  # what comes sooner may be settled together
_FIRST = IPv4Address("198.18.0.1")


def changes() -> list[Figure]:
    """Both Services are there at once, each with a route; the agent is told of one slice."""
    seen: dict[int, tuple[list[float], list[float]]] = {_FEW: ([], []), _MANY: ([], [])}
    with tempfile.TemporaryDirectory() as folder:
        sandbox = Sandbox(Path(folder), "benchgwe")
        try:
            sandbox.apply(*gateway(CONTROLLER), *_services())
            agent = sandbox.agent_pid()
            time.sleep(_SETTLE_SECONDS)
            for _ in range(_ROUNDS):
                for count, (sent, cpu) in seen.items():
                    before = _counters(sandbox)
                    begin = cpu_nanos(agent)
                    for turn in range(_CHANGES):
                        sandbox.apply(_slice(count, 0, turn + 1))
                        time.sleep(_APART_SECONDS)
                    cpu.append((cpu_nanos(agent) - begin) / _CHANGES / 1e6)
                    eventually(lambda: _settled(sandbox))
                    after = _counters(sandbox)
                    if after["xds_responses"] - before["xds_responses"] != _CHANGES:
                        raise RuntimeError("changes were not sent one by one")
                    sent.append((after["xds_bytes"] - before["xds_bytes"]) / _CHANGES)
        finally:
            sandbox.close()
    found: list[Figure] = []
    for what, unit, index in (("bytes to Envoy", "bytes", 0), ("agent's CPU", "ms", 1)):
        few, many = seen[_FEW][index], seen[_MANY][index]
        name = f"{what} for an endpoint that changes, of {_MANY:,}"
        found += [
            figure(name, many, unit),
            figure(f"{name}, as a share", [each / statistics.median(few) for each in many],
                   "ratio", against=f"the same of {_FEW}", bar="<= 1.2"),
        ]  # fmt: skip
    return found


def _services() -> Iterator[Manifest]:
    for number, count in enumerate((_FEW, _MANY)):
        yield made("v1", "Service", f"{SERVICE}-{count}",
                   spec={"ports": [{"name": "http", "port": PORT}]})  # fmt: skip
        for slice_number in range(count // _SLICE):
            yield _slice(count, slice_number, 0)
        yield route(number, f"{SERVICE}-{count}")


def _slice(count: int, number: int, turn: int) -> Manifest:
    """Of its endpoints the first is another each turn."""
    addresses = [str(_FIRST + number * _SLICE + n) for n in range(_SLICE)]
    addresses[0] = str(_FIRST + 100_000 + turn)
    return endpoints(f"{SERVICE}-{count}", addresses, number)


def _counters(sandbox: Sandbox) -> dict[str, int]:
    found: dict[str, int] = sandbox.api.get("/v1/status").json()["xds"]["counters"]
    return found


def _settled(sandbox: Sandbox) -> bool:
    """Envoy has taken everything."""
    return all(each["acknowledged"] for each in _assignments(sandbox))


def _assignments(sandbox: Sandbox) -> list[Manifest]:
    found: list[Manifest] = sandbox.api.get("/v1/status").json()["xds"]["resources"]
    return [each for each in found if each["type"] == "ClusterLoadAssignment"]
