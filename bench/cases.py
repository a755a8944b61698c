"""What is measured. Each case runs on a node of its own, through the whole house."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2,
)
from google.protobuf.json_format import MessageToDict
from prometheus_client import CollectorRegistry

from bench.figures import Figure, figure, interleaved
from bench.rig import Rig, hold, line, policy, rig
from datapath.codec import policy_value, policy_value_fields
from datapath.libbpf import Map, get_pinned
from flow_observer.observer import Observer
from l7_proxy_ext.bootstrap import bootstrap
from l7_proxy_ext.supervisor import envoy_binary
from node_agent.config import AgentConfig
from policy_engine.model import Action
from sidegate_api.policy.v1 import policy_pb2 as pb
from xds_server.http_listener import http_cluster
from xds_server.listeners import http_listener
from xds_server.resources import MODULE

_URL = "http://server:8080/v1/orders"
_ALLOW = {"method": "GET", "path": "/v1/orders.*"}
_WITH, _WITHOUT = 15011, 15012
_OURS = ("sidegate_peer", "sidegate_guard", "sidegate_http")


def throughput() -> list[Figure]:
    """The same redirect into the same Envoy, once with our filters and once without any."""
    with _node() as node:
        node.apply(policy("one", "server", "client", _ALLOW))
        with _envoy_with_both(node):
            ratios = _with_and_without(node)
        return [
            figure(
                "requests/s with the module, 1 rule",
                ratios,
                "ratio",
                against="the same Envoy and listener without the module",
                bar=">= 0.97",
            )
        ]


def _with_and_without(node: Rig) -> list[float]:
    # Short and many: what a shared machine takes away for seconds falls on both alike.
    def through(port: int) -> float:
        _redirect_to(node, port)
        return node.rate(_URL, 1)

    return interleaved(lambda: through(_WITH), lambda: through(_WITHOUT), rounds=45)


def change() -> list[Figure]:
    """From the call of apply to the first request of a live connection that sees it, 100 times."""
    opened = policy("one", "server", "client", _ALLOW)
    closed = policy("one", "server", "client", {"method": "PUT"})
    denied: list[float] = []
    allowed: list[float] = []
    with _node() as node:
        node.apply(opened)
        with hold(node, _URL) as holding:
            line(holding)
            for number in range(100):
                tightened = number % 2 == 0
                begin = time.monotonic_ns()
                node.apply(closed if tightened else opened)
                (denied if tightened else allowed).append((line(holding)["t"] - begin) / 1e6)
            holding.terminate()
    slowest = sorted(denied + allowed)[98]
    return [
        figure("apply to first denied request", denied, "ms"),
        figure("apply to first allowed request", allowed, "ms"),
        figure("the same, p99 of 100 changes", [slowest], "ms", bar="<= 100"),
    ]


def cost_of_a_change() -> list[Figure]:
    """Map writes and policy messages of one change, beside 10 and beside 1,000 other policies."""
    seen: dict[int, tuple[list[float], list[float]]] = {}
    with _node() as node:
        for others in (10, 1000):
            node.apply(*(policy(f"other-{n}", f"app-{n}", f"peer-{n}") for n in range(others)))
            writes, messages = [], []
            for number in range(8):
                rules = [{"path": f"/{number}"}]
                ports = policy("one", "server", "client", *rules)
                ports["spec"]["ingress"].append(
                    {"fromEndpoints": [{}], "toPorts": [{"ports": [_port(9000 + number)]}]}
                )
                before = node.status()["xds"]["counters"]["policy_messages"]
                node.apply(ports)
                after = node.status()
                if number:
                    writes.append(float(after["last_change"]["map_writes"]))
                    messages.append(float(after["xds"]["counters"]["policy_messages"] - before))
            seen[others] = (writes, messages)
            node.delete(policy("one", "server", "client"))
    few, many = seen[10], seen[1000]
    ratios = [[a / b for a, b in zip(many[index], few[index], strict=True)] for index in (0, 1)]
    return [
        figure("map writes per change, 1,000 other policies", many[0], "writes"),
        figure("policy messages per change, 1,000 other policies", many[1], "messages"),
        figure("map writes per change", ratios[0], "ratio",
               against="10 other policies", bar="== 1"),
        figure("policy messages per change", ratios[1], "ratio",
               against="10 other policies", bar="== 1"),
    ]  # fmt: skip


def datapath() -> list[Figure]:
    """An L4 policy on the path between two pods against the same pods without any policy."""
    with _node() as node:
        allow = policy("l4", "server", "client")

        def with_policy() -> float:
            node.apply(allow)
            return node.rate(_URL)

        def without() -> float:
            node.delete(allow)
            return node.rate(_URL)

        ratios = interleaved(with_policy, without)
        return [
            figure("requests/s with an L4 policy", ratios, "ratio", against="the same pods without")
        ]


def intake() -> list[Figure]:
    """What the agent pays for each verdict that the module reports."""
    record = pb.VerdictRecord(
        verdict=pb.VERDICT_ALLOWED,
        rule="cnp/default/orders#ingress[0].toPorts[0]",
        source_address=bytes(4),
        destination_address=bytes(4),
        http=pb.HttpRecord(method="GET", path="/v1/orders", host="orders", status=200),
        count=1,
    )
    wire = pb.VerdictBatch(records=[record] * 1000).SerializeToString()
    seen = Observer(16384, lambda _: (), lambda _: "", CollectorRegistry())

    def batch() -> float:
        begin = time.process_time_ns()
        seen.add_verdicts(pb.VerdictBatch.FromString(wire))
        return (time.process_time_ns() - begin) / 1000 / 1000

    batch()
    return [figure("agent's CPU time for one verdict", [batch() for _ in range(31)], "us")]


def _port(number: int) -> dict[str, str]:
    return {"port": str(number), "protocol": "TCP"}


@contextlib.contextmanager
def _node() -> Iterator[Rig]:
    with tempfile.TemporaryDirectory() as directory, rig(Path(directory)) as made:
        yield made


def _redirect_to(node: Rig, port: int) -> None:
    """Point the kernel's redirect entries at another listener."""
    entries = Map(get_pinned(node.node.run_dir / "bpf" / "policy"), "policy")
    for key, value in list(entries.items()):
        if policy_value_fields(value)[0] is Action.REDIRECT:
            entries.set(key, policy_value(Action.REDIRECT, port))


@contextlib.contextmanager
def _envoy_with_both(node: Rig) -> Iterator[None]:
    """One Envoy of the node with our listener twice, with our filters and without.

    One process, for two of them differ by more than a filter: by where their memory lies.
    """
    config = bootstrap(node.node.name, node.node.run_dir)
    for name in ("admin", "dynamic_resources"):
        del config[name]
    config["static_resources"]["listeners"] = [_listener(_WITH, True), _listener(_WITHOUT, False)]
    config["static_resources"]["clusters"].append(_plain(http_cluster()))
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(config, file)
        file.flush()
        command = [str(envoy_binary()), "-c", file.name, "--disable-hot-restart"]
        command += ["--concurrency", "2", "--log-level", "error"]
        env = os.environ | {"ENVOY_DYNAMIC_MODULES_SEARCH_PATH": str(AgentConfig().module.parent)}
        process = subprocess.Popen(node.node.inside(command), env=env)
        time.sleep(2.0)
        try:
            if process.poll() is not None:
                raise RuntimeError("the Envoy to measure did not start")
            yield
        finally:
            process.terminate()
            process.wait(10)


def _listener(port: int, ours: bool) -> dict[str, Any]:
    """Our listener as JSON; xds-protos does not know the modules' listener filters."""
    message: Any = http_listener(port)
    module = {f.name: n for n, f in enumerate(message.listener_filters) if f.name in _OURS}
    for number in sorted(module.values(), reverse=True):
        del message.listener_filters[number]
    if not ours:
        manager = http_connection_manager_pb2.HttpConnectionManager()
        packed = message.filter_chains[0].filters[-1].typed_config
        packed.Unpack(manager)
        for each in [f for f in manager.http_filters if f.name in _OURS]:
            manager.http_filters.remove(each)
        packed.Pack(manager)
    listener = _plain(message)
    listener["name"] = f"bench-{port}"
    for name, number in module.items() if ours else ():
        kind = "envoy.extensions.filters.listener.dynamic_modules.v3.DynamicModuleListenerFilter"
        config = {
            "@type": f"type.googleapis.com/{kind}",
            "dynamic_module_config": {"name": MODULE},
            "filter_name": name,
        }
        listener["listener_filters"].insert(number, {"name": name, "typed_config": config})
    return listener


def _plain(message: Any) -> dict[str, Any]:
    return MessageToDict(message, preserving_proto_field_name=True)
