"""A Gateway under load while its routes, certificates and endpoints change."""

from __future__ import annotations

import base64
import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import trustme

from tests.system.sandbox_rig import Sandbox

RATE = 20
"""Changes a second."""
_GATEWAY_API = "gateway.networking.k8s.io/v1"
_HTTP, _HTTPS = 80, 443
_HOST = "churn.test"
_READY_SECONDS = 30.0

Manifest = dict[str, Any]


@dataclass(frozen=True)
class Churned:
    """``clients`` by their kind, as tests/peers/gateway_load.py says them. ``changes``: so many
    were made."""

    clients: dict[str, Manifest]
    changes: int
    seconds: float

    @property
    def ok(self) -> int:
        return sum(each["ok"] for each in self.clients.values())

    @property
    def failures(self) -> dict[str, dict[str, int]]:
        """By kind of client and by what was seen; empty if there were none."""
        return {kind: seen["failures"] for kind, seen in self.clients.items() if seen["failures"]}

    @property
    def failed(self) -> int:
        return sum(sum(kinds.values()) for kinds in self.failures.values())


def churn(sandbox: Sandbox, seconds: float) -> Churned:
    """By clients beyond the node. It needs ``shop-v1`` and ``shop-v2`` of examples/gateway."""
    ca = trustme.CA()
    pods = [sandbox.address(f"shop-v{n}", 4) for n in (1, 2)]
    sandbox.apply(*_objects(ca, pods))
    _await_ready(sandbox)
    with tempfile.NamedTemporaryFile(suffix=".pem") as trusted:
        ca.cert_pem.write_to_path(trusted.name)
        command = ["ip", "netns", "exec", sandbox.node.router_netns]
        command += [sys.executable, "-m", "tests.peers.gateway_load", str(seconds)]
        command += [sandbox.node.addresses[0], str(_HTTP), str(_HTTPS)]
        clients = subprocess.Popen([*command, trusted.name], stdout=subprocess.PIPE, text=True)
        begin, kinds = time.monotonic(), _changes(ca, pods)
        with ThreadPoolExecutor(len(kinds)) as makers:
            made = makers.map(lambda kind: _make(sandbox, kind, RATE / len(kinds), clients), kinds)
        took = time.monotonic() - begin
        said = json.loads(clients.communicate()[0])
    return Churned(said, sum(made), took)


def _make(
    sandbox: Sandbox, changes: Iterable[Manifest], rate: float, clients: subprocess.Popen[str]
) -> int:
    """So many a second as long as the clients ask; how many they were. One after another: each is
    answered when it is in force, so several kinds are made beside each other."""
    begin = time.monotonic()
    for made, changed in enumerate(changes):
        time.sleep(max(0.0, begin + made / rate - time.monotonic()))
        if clients.poll() is not None:
            return made
        sandbox.apply(changed)
    raise AssertionError("there is always another form")


def _changes(ca: trustme.CA, pods: list[str]) -> list[Iterator[Manifest]]:
    """By kind: each is another form of what is asked for, or of what is beside it."""
    told = itertools.cycle([pods, pods[:1], pods[1:]])  # all of them serve, whichever are told
    return [
        map(_route, itertools.count()),
        (_slice("both", some) for some in told),
        (_secret(ca) for _ in itertools.count()),
        map(_beside, itertools.count()),
    ]


def _await_ready(sandbox: Sandbox) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    url = [f"https://{_HOST}:{_HTTPS}/", f"http://{_HOST}:{_HTTP}/"]
    command = ["curl", "-sk", "-m", "2", "-o", "/dev/null", "-w", "%{http_code} "]
    command += ["--resolve", f"{_HOST}:{_HTTPS}:127.0.0.1"]
    command += ["--resolve", f"{_HOST}:{_HTTP}:127.0.0.1", *url]
    while True:
        done = subprocess.run(
            sandbox.node.inside([*command, "-o", "/dev/null"]),
            check=False, capture_output=True, text=True,
        )  # fmt: skip
        if done.stdout.split() == ["200", "200"]:
            return
        if time.monotonic() > deadline:
            raise AssertionError(f"the Gateway does not serve: {done.stdout} {done.stderr}")
        time.sleep(0.1)


def _objects(ca: trustme.CA, pods: list[str]) -> list[Manifest]:
    listeners = [
        {"name": "http", "port": _HTTP, "protocol": "HTTP"},
        {
            "name": "https",
            "port": _HTTPS,
            "protocol": "HTTPS",
            "tls": {"certificateRefs": [{"name": "churn"}]},
        },
    ]
    return [
        _object(_GATEWAY_API, "GatewayClass", "churn", {"controllerName": _CONTROLLER}),
        _secret(ca),
        *(_object("v1", "Service", name, {"ports": [{"port": 80}]}) for name in ("both", "first")),
        _slice("both", pods),
        _slice("first", pods[:1]),
        _object(
            _GATEWAY_API, "Gateway", "churn", {"gatewayClassName": "churn", "listeners": listeners}
        ),
        _route(0),
    ]


_CONTROLLER = "sidegate.io/gateway-controller"


def _route(turn: int) -> Manifest:
    """Weights, filters, timeouts and backends are others each time."""
    backends = [{"name": "both", "port": 80, "weight": 1 + turn % 5}]
    if turn % 2:
        backends.append({"name": "first", "port": 80, "weight": 3})
    headers = {"set": [{"name": "x-turn", "value": str(turn)}]}
    return _http_route(
        "churn",
        [_HOST],
        {
            "filters": [{"type": "ResponseHeaderModifier", "responseHeaderModifier": headers}],
            "timeouts": {"request": f"{30 + turn % 7}s"},
            "backendRefs": backends,
        },
    )


def _beside(turn: int) -> Manifest:
    """A route of another hostname, and one that comes before what is asked for."""
    if turn % 2:
        rule = {"backendRefs": [{"name": "first", "port": 80}]}
        return _http_route("beside", [f"beside{turn % 10}.test"], rule)
    match = {"path": {"type": "PathPrefix", "value": f"/other{turn % 10}"}}
    return _http_route(
        "before", [_HOST], {"matches": [match], "backendRefs": [{"name": "first", "port": 80}]}
    )


def _http_route(name: str, hostnames: list[str], rule: Manifest) -> Manifest:
    spec = {"parentRefs": [{"name": "churn"}], "hostnames": hostnames, "rules": [rule]}
    return _object(_GATEWAY_API, "HTTPRoute", name, spec)


def _slice(service: str, addresses: list[str]) -> Manifest:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{service}-1",
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": "IPv4",
        "ports": [{"port": 8080, "protocol": "TCP"}],
        "endpoints": [{"addresses": [a], "conditions": {"ready": True}} for a in addresses],
    }


def _secret(ca: trustme.CA) -> Manifest:
    """A certificate that nobody has seen before."""
    leaf = ca.issue_cert(_HOST)
    chain = b"".join(pem.bytes() for pem in leaf.cert_chain_pems)
    parts = {"tls.crt": chain, "tls.key": leaf.private_key_pem.bytes()}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "churn", "namespace": "default"},
        "type": "kubernetes.io/tls",
        "data": {name: base64.b64encode(part).decode() for name, part in parts.items()},
    }


def _object(version: str, kind: str, name: str, spec: Manifest) -> Manifest:
    metadata = {"name": name, **({} if kind == "GatewayClass" else {"namespace": "default"})}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec}
