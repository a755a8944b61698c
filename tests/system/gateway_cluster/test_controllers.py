"""Other controllers beside ours, two operators of ours, and agents that start anew on their own."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest

from sandbox.cluster import SYSTEM, await_rollout, kubectl
from tests.system.cluster_rig import agent_of, api_server_away, eventually
from tests.system.gateway_cluster.edge import (
    CLUSTER,
    GATEWAY_API,
    NODES,
    Manifest,
    apply,
    ask,
    delete,
    gateway_addresses,
    manifest,
    status,
)
from tests.system.gateway_cluster.store import route

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(300)]

OURS, THEIRS = "sidegate.io/gateway-controller", "example.com/theirs"
_SETTLED_SECONDS = 3.0  # in which whoever writes what he should not has written it
CONDITION = {
    "type": "Accepted", "status": "True", "reason": "Accepted", "message": "theirs",
    "lastTransitionTime": "2024-01-01T00:00:00Z",
}  # fmt: skip
CLASS = manifest(GATEWAY_API, "GatewayClass", "theirs", spec={"controllerName": THEIRS})
GATEWAY = manifest(
    GATEWAY_API, "Gateway", "theirs",
    spec={
        "gatewayClassName": "theirs",
        "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}],
    },
)  # fmt: skip
THEIR_REFERENCE = {"group": GATEWAY_API.partition("/")[0], "kind": "Gateway", "name": "theirs"}
SHARED = route("both", path={"type": "PathPrefix", "value": "/both"})
SHARED["spec"]["parentRefs"] = [{"name": "store"}, {"name": "theirs"}]


def say(kind: str, name: str, said: Manifest) -> None:
    """A status, as whoever that object is of writes it."""
    text = json.dumps({"status": said})
    kubectl(CLUSTER, "patch", kind, name, "--subresource=status", "--type=merge", "-p", text)


def parents(name: str) -> dict[str, Any]:
    """By controller."""
    found = status("httproute", name).get("parents") or ()
    return {each["controllerName"]: each for each in found}


@pytest.fixture
def theirs() -> Iterator[dict[str, Manifest]]:
    """What the other controller has said of each object."""
    apply(CLASS, GATEWAY, SHARED)
    entry = {
        "controllerName": THEIRS, "parentRef": THEIR_REFERENCE, "conditions": [CONDITION],
    }  # fmt: skip
    eventually({OURS}, lambda: parents("both").keys() & {OURS}, 30)
    said = {"gatewayclass": {"conditions": [CONDITION]}, "gateway": {"conditions": [CONDITION]}}
    for kind, written in said.items():
        say(kind, "theirs", written)
    say("httproute", "both", {"parents": [*parents("both").values(), entry]})
    yield {kind: status(kind, "theirs") for kind in said} | {"entry": entry}
    delete(SHARED, GATEWAY, CLASS)


def test_what_is_another_controllers_is_left_alone(theirs: dict[str, Manifest]) -> None:
    changed = SHARED | {"spec": SHARED["spec"] | {"hostnames": ["both.test"]}}
    apply(changed)  # a new generation, of which we have to say something
    eventually(2, lambda: parents("both")[OURS]["conditions"][0]["observedGeneration"], 30)
    time.sleep(_SETTLED_SECONDS)
    assert parents("both")[THEIRS] == theirs["entry"]
    for kind in ("gatewayclass", "gateway"):
        assert status(kind, "theirs") == theirs[kind]
    made = kubectl(CLUSTER, "get", "services", "-o", "name").split()
    assert "service/gateway-store" in made
    assert "service/gateway-theirs" not in made
    # Where we are asked no more, we take what we said back, and nothing else.
    apply(changed | {"spec": changed["spec"] | {"parentRefs": [{"name": "theirs"}]}})
    eventually({THEIRS: theirs["entry"]}, lambda: parents("both"), 30)


def leader() -> str:
    lease = kubectl(CLUSTER, "-n", SYSTEM, "get", "lease", "sidegate-operator", "-o", "json")
    return str(json.loads(lease)["spec"].get("holderIdentity") or "")


def test_the_next_operator_has_nothing_to_write_of_what_is_as_it_was() -> None:
    """Two that wrote what each of them thinks would never come to an end."""
    wanted = ("gatewayclasses,gateways,httproutes,ingresses", "-o", "json")

    def versions() -> dict[str, str]:
        items = json.loads(kubectl(CLUSTER, "get", *wanted))["items"]
        return {
            f"{each['kind']}/{each['metadata']['name']}": each["metadata"]["resourceVersion"]
            for each in items
        }

    eventually(True, lambda: bool(gateway_addresses("store")), 60)
    before, first = versions(), leader()
    conditions = status("gateway", "store")["conditions"]
    kubectl(CLUSTER, "-n", SYSTEM, "delete", "pod", first, "--wait=false")
    eventually(True, lambda: leader() not in ("", first), 60)
    new = route("new", path={"type": "PathPrefix", "value": "/new"})
    apply(new)
    try:
        eventually({OURS}, lambda: parents("new").keys() & {OURS}, 60)
        time.sleep(_SETTLED_SECONDS)
        others = {name: v for name, v in versions().items() if name in before}
        assert others | {"Gateway/store": before["Gateway/store"]} == before
        # It has one route more, and otherwise what it had.
        assert status("gateway", "store")["conditions"] == conditions
    finally:
        delete(new)
        await_rollout(CLUSTER)


def test_agents_that_start_anew_without_the_api_server_leave_all_served() -> None:
    eventually(True, lambda: bool(gateway_addresses("store")), 60)
    (address, *_) = gateway_addresses("store")
    eventually(200, lambda: ask(address, "http://store.test/").status, 60)
    before = [agent_of(node) for node in NODES]
    with api_server_away(CLUSTER):
        for agent in before:
            os.kill(agent, signal.SIGKILL)
        eventually([True, True], lambda: [agent_of(n) not in (0, *before) for n in NODES], 30)
        until = time.monotonic() + _SETTLED_SECONDS
        while time.monotonic() < until:
            assert ask(address, "http://store.test/").status == 200
    late = route("late", path={"type": "PathPrefix", "value": "/late"})
    late["spec"]["rules"][0]["filters"] = [
        {"type": "ResponseHeaderModifier", "responseHeaderModifier": {
            "set": [{"name": "x-route", "value": "late"}]}},
    ]  # fmt: skip
    apply(late)
    try:
        eventually(
            "late", lambda: ask(address, "http://store.test/late").headers.get("x-route"), 60
        )
    finally:
        delete(late)
