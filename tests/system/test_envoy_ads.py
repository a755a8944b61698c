"""A real Envoy takes what the xDS server serves, in both variants of ADS."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from envoy.config.listener.v3 import listener_pb2

from policy_engine.model import DirectionPolicy, EndpointPolicy, HttpRule, Parser, PortRule
from tests.system.envoy_rig import NODE, eventually, node
from tests.system.module_rig import free_port
from xds_server.listeners import http_listener, node_resources
from xds_server.resources import CLUSTER_TYPE, LISTENER_TYPE

pytestmark = pytest.mark.system

VARIANTS = pytest.mark.parametrize("delta", [True, False], ids=["delta", "sotw"])


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path: Unix sockets live in it."""
    with tempfile.TemporaryDirectory(prefix="sgx") as path:
        yield Path(path)


def policy(endpoint_id: int, revision: int, path: str = "/") -> EndpointPolicy:
    rule = PortRule("cnp/test/rule", None, parser=Parser.HTTP, http=(HttpRule(path=path),))
    return EndpointPolicy(
        endpoint_id, 1002, DirectionPolicy(True, rules=(rule,)), DirectionPolicy(), {}, revision
    )


@VARIANTS
async def test_envoy_takes_every_resource(folder: Path, delta: bool) -> None:
    async with node(folder, delta=delta) as rig:
        for type_url, resources in node_resources({Parser.HTTP: free_port("127.0.0.1")}).items():
            rig.server.set_resources(type_url, resources)
        await rig.server.start()
        await rig.supervisor.start()

        await eventually(lambda: all(r["acknowledged"] for r in rig.server.status()["resources"]))

        status = rig.server.status()
        assert [(r["type"], r["name"], r["errors"]) for r in status["resources"]] == [
            ("Cluster", "sidegate-http", {}),
            ("Listener", "sidegate-http", {}),
        ]
        assert {(c["kind"], c["node"]) for c in status["clients"]} == {
            ("envoy", NODE),
            ("module", NODE),
        }
        assert status["counters"].get("xds_nacks", 0) == 0
        assert await rig.admin.ready()
        assert (await rig.admin.stats("listener_manager"))[
            "listener_manager.total_listeners_active"
        ]
        assert "sidegate_http" in str(await rig.admin.config_dump())


@VARIANTS
async def test_a_refused_resource_is_shown_and_the_others_hold(folder: Path, delta: bool) -> None:
    port = free_port("127.0.0.1")
    async with node(folder, delta=delta) as rig:
        resources = node_resources({Parser.HTTP: port})
        broken = http_listener(free_port("127.0.0.1"))
        assert isinstance(broken, listener_pb2.Listener)
        broken.name = "broken"
        broken.listener_filters[1].typed_config.value = b"\x12\x07unknown"
        rig.server.set_resources(CLUSTER_TYPE, resources[CLUSTER_TYPE])
        rig.server.set_resources(LISTENER_TYPE, resources[LISTENER_TYPE] | {"broken": broken})
        await rig.server.start()
        await rig.supervisor.start()

        await eventually(lambda: rig.resource("broken")["errors"])
        await eventually(lambda: rig.resource("sidegate-http")["acknowledged"])
        assert rig.resource("sidegate-http")["errors"] == {}
        assert not rig.resource("broken")["acknowledged"]

        rig.server.set_resources(LISTENER_TYPE, resources[LISTENER_TYPE])
        assert [r["name"] for r in rig.server.status()["resources"]] == ["sidegate-http"] * 2
        await eventually(lambda: rig.resource("sidegate-http")["acknowledged"])


async def test_policies_are_acknowledged_by_the_module_and_leave_xds_alone(folder: Path) -> None:
    async with node(folder) as rig:
        for type_url, resources in node_resources({Parser.HTTP: free_port("127.0.0.1")}).items():
            rig.server.set_resources(type_url, resources)
        await rig.server.start()
        rig.server.publish_policy(policy(7, 1))
        assert await rig.server.policy_acknowledged(7, 1, timeout=0), "no module is connected"
        await rig.supervisor.start()
        await eventually(lambda: rig.resource("sidegate-http")["acknowledged"])
        before = rig.server.status()
        assert before["policies"] == [
            {"endpoint_id": 7, "revision": 1, "acked": True, "errors": []}
        ]

        rig.server.publish_policy(policy(7, 2, "/v1/.*"))
        rig.server.publish_policy(policy(8, 3))
        assert await rig.server.policy_acknowledged(7, 2, timeout=2)
        assert await rig.server.policy_acknowledged(8, 3, timeout=2)

        rig.server.publish_policy(policy(8, 4, "("))
        assert not await rig.server.policy_acknowledged(8, 4, timeout=0.3)
        after = rig.server.status()
        assert [(p["endpoint_id"], p["acked"]) for p in after["policies"]] == [
            (7, True),
            (8, False),
        ]
        assert after["policies"][1]["errors"][0]["rule"] == "cnp/test/rule"

        rig.server.remove_policy(8)
        assert after["resources"] == before["resources"]
        assert after["counters"]["xds_responses"] == before["counters"]["xds_responses"]


async def test_envoy_and_module_find_a_restarted_agent(folder: Path) -> None:
    async with node(folder) as rig:
        resources = node_resources({Parser.HTTP: free_port("127.0.0.1")})
        for type_url, named in resources.items():
            rig.server.set_resources(type_url, named)
        await rig.server.start()
        await rig.supervisor.start()
        await eventually(lambda: rig.resource("sidegate-http")["acknowledged"])
        await rig.server.stop()

        rig.server = type(rig)(folder, rig.ipcache).server
        for type_url, named in resources.items():
            rig.server.set_resources(type_url, named)
        await rig.server.start()
        await eventually(lambda: rig.resource("sidegate-http")["acknowledged"])
        await eventually(lambda: len(rig.server.status()["clients"]) == 2)
        assert rig.supervisor.status()["restarts"] == 0
