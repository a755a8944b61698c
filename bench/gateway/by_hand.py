"""Requests through a Gateway with many routes, against an Envoy configured by hand for the same."""

from __future__ import annotations

import contextlib
import json
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bench.figures import Figure, figure, pairs
from bench.gateway.manifests import PORT, SERVICE, backend_of_pods, gateway, host, route
from bench.mesh.rig import cpu_nanos, eventually, parse_wrk
from bench.rig import pod
from gateway_translator.translator import CONTROLLER
from l7_proxy_ext.supervisor import envoy_binary
from tests.system.sandbox_rig import Sandbox

_ROUTES = 1000
_ASKED = 500
_ROUNDS = 25
_BY_HAND = 8001
_TYPE = "type.googleapis.com"
_WORKERS = 2
_BATCH = 100


@dataclass(frozen=True, slots=True)
class Load:
    """Requests/s; the median latency, and CPU of Envoy for each request, in us."""

    rate: float
    p50: float
    cpu: float


def throughput() -> list[Figure]:
    """The same pod behind both, the same connections before them."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "pods.yaml").write_text(yaml.safe_dump(pod("server", "http")))
        sandbox = Sandbox(Path(folder), "benchgwt")
        try:
            objects = [*gateway(CONTROLLER), backend_of_pods("server")]
            objects += [route(number) for number in range(_ROUTES)]
            for first in range(0, len(objects), _BATCH):
                sandbox.apply(*objects[first : first + _BATCH])
            with _by_hand(sandbox, Path(folder)) as by_hand:
                for port in (PORT, _BY_HAND):
                    eventually(lambda: _answers(sandbox, port))  # noqa: B023
                ours = sandbox.envoy_pid()
                seen = pairs(
                    lambda: _load(sandbox, PORT, ours),
                    lambda: _load(sandbox, _BY_HAND, by_hand),
                    _ROUNDS,
                )
        finally:
            sandbox.close()
    against = "an Envoy configured by hand"
    return [
        figure(f"requests/s through a Gateway with {_ROUTES:,} routes",
               [a.rate / b.rate for a, b in seen], "ratio", against=against, bar=">= 0.98"),
        figure(f"p50 through a Gateway with {_ROUTES:,} routes",
               [a.p50 / b.p50 for a, b in seen], "ratio", against=against, bar="<= 1.03"),
        figure(f"Envoy's CPU per request through a Gateway with {_ROUTES:,} routes",
               [a.cpu / b.cpu for a, b in seen], "ratio", against=against),
    ]  # fmt: skip


def _load(sandbox: Sandbox, port: int, envoy: int) -> Load:
    before = cpu_nanos(envoy)
    command = ["wrk", "-t1", "-c16", "-d1s", "--latency", "-H", f"Host: {host(_ASKED)}"]
    done = subprocess.check_output(
        sandbox.node.inside([*command, f"http://127.0.0.1:{port}/"]), text=True
    )
    requests, rate, p50 = parse_wrk(done)
    return Load(rate, p50, (cpu_nanos(envoy) - before) / requests / 1e3)


def _answers(sandbox: Sandbox, port: int) -> bool:
    command = ["curl", "-s", "-m", "2", "-o", "/dev/null", "-w", "%{http_code}"]
    command += ["-H", f"Host: {host(_ASKED)}", f"http://127.0.0.1:{port}/"]
    done = subprocess.run(sandbox.node.inside(command), check=False, capture_output=True, text=True)
    return done.stdout == "200"


@contextlib.contextmanager
def _by_hand(sandbox: Sandbox, folder: Path) -> Iterator[int]:
    """Its process."""
    file = folder / "envoy.json"
    file.write_text(json.dumps(_configuration(sandbox.address("server", 4))))
    command = [str(envoy_binary()), "-c", str(file), "--disable-hot-restart"]
    command += ["--concurrency", str(_WORKERS), "--log-level", "error"]
    process = subprocess.Popen(sandbox.node.inside(command))
    try:
        yield process.pid
    finally:
        process.terminate()
        process.wait(10)


def _configuration(address: str) -> dict[str, Any]:
    """A listener, a virtual host for each route, the router, one cluster: no more."""
    hosts = [
        {
            "name": host(number),
            "domains": [host(number)],
            "routes": [
                {"match": {"prefix": "/"},
                 "route": {"cluster": SERVICE, "timeout": "0s"}}
            ],
        }
        for number in range(_ROUTES)
    ]  # fmt: skip
    router = {"@type": f"{_TYPE}/envoy.extensions.filters.http.router.v3.Router"}
    manager = {
        "@type": f"{_TYPE}/envoy.extensions.filters.network.http_connection_manager.v3"
        ".HttpConnectionManager",
        "stat_prefix": "by_hand",
        "use_remote_address": True,
        "route_config": {"name": "by_hand", "virtual_hosts": hosts},
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": router}],
    }
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    return {
        "static_resources": {
            "listeners": [
                {"address": _address("0.0.0.0", _BY_HAND),
                 "filter_chains": [{"filters": filters}]}
            ],
            "clusters": [
                {
                    "name": SERVICE,
                    "load_assignment": {
                        "cluster_name": SERVICE,
                        "endpoints": [
                            {"lb_endpoints": [{"endpoint": {"address": _address(address, 8080)}}]}
                        ],
                    },
                }
            ],
        }
    }  # fmt: skip


def _address(address: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": address, "port_value": port}}
