"""What a real Envoy refuses and our checks let through ends in a status; the rest is served on."""

from __future__ import annotations

import asyncio
import socket
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway_translator.ir import ObjectRef
from gateway_translator.regexes import regex_error
from kube_store.resource import Resource, ResourceKey
from kube_store.store import Store
from node_agent import gateways
from node_agent.gateways import Gateways
from tests.system.envoy_rig import Node, eventually, node
from tests.system.module_rig import free_port
from tests.unit.gateway_manifests import Manifest, gateway, gateway_class, listener, route

pytestmark = [pytest.mark.system, pytest.mark.timeout(90)]

# RE2 multiplies repeats within repeats, of which it takes 1,000 (re2/parse.cc).
REFUSED = "/(?:(?:a{100}){100})"
ADDRESS = "127.0.0.1"


class Served:
    """A store whose Gateways are a real Envoy's."""

    def __init__(self, made: Node) -> None:
        self.store, self.node = Store(), made
        self.gateways = Gateways(self.store, made.server, table=(), shared=(ADDRESS,))

    def say(self, *manifests: Manifest) -> None:
        found = [
            Resource(
                ResourceKey(m["kind"], m["metadata"].get("namespace", ""), m["metadata"]["name"]), m
            )
            for m in manifests
        ]
        self.store.apply(found, [])

    def conditions(self, name: str, kind: str = "HTTPRoute") -> dict[str, dict[str, Any]]:
        status = self.gateways.objects.translator.statuses()[ObjectRef(kind, "shop", name)]
        found = status["parents"][0] if kind == "HTTPRoute" else status["listeners"][0]
        return {each["type"]: each for each in found["conditions"]}


@pytest.fixture
async def served(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Served]:
    monkeypatch.setattr(gateways, "RETRY_SECONDS", 0.5)
    async with node(Path(tempfile.mkdtemp(prefix="sgr"))) as made:
        await made.server.start()
        await made.supervisor.start()
        found = Served(made)
        running = asyncio.create_task(found.gateways.run())
        yield found
        running.cancel()


def moved(kind: str, value: str, to: str) -> Manifest:
    """A rule that answers without any backend."""
    return {
        "matches": [{"path": {"type": kind, "value": value}}],
        "filters": [{"type": "RequestRedirect", "requestRedirect": {"hostname": to}}],
    }


async def asked(port: int, path: str) -> str:
    """Where to, or the status; "" while nobody answers."""
    async with httpx.AsyncClient(verify=False) as client:
        try:
            answer = await client.get(f"http://{ADDRESS}:{port}{path}", headers={"host": "a.test"})
        except httpx.TransportError:
            return ""
    return str(answer.headers.get("location", answer.status_code))


async def until(port: int, path: str, expected: str) -> None:
    for _ in range(300):
        if (answer := await asked(port, path)) == expected:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"{path} still answers {answer!r}")


async def test_a_rule_that_envoy_refuses_is_named_and_the_others_are_served(served: Served) -> None:
    assert regex_error(REFUSED) is None
    port = free_port(ADDRESS)
    served.say(
        gateway_class(),
        gateway(listener("http", port)),
        route("old", moved("PathPrefix", "/old", "old.test")),
    )
    await until(port, "/old", f"http://old.test:{port}/old")
    served.say(
        route("good", moved("PathPrefix", "/good", "good.test"), age=1),
        route(
            "bad",
            moved("PathPrefix", "/fine", "fine.test"),
            moved("RegularExpression", REFUSED, "bad.test"),
            age=2,
        ),
    )
    await until(port, "/good", f"http://good.test:{port}/good")
    await until(port, "/fine", f"http://fine.test:{port}/fine")
    assert await asked(port, "/old") == f"http://old.test:{port}/old"
    (guilty,) = served.gateways.refused()
    assert guilty == ObjectRef("HTTPRoute", "shop", "bad", "1")
    said = served.conditions("bad")["PartiallyInvalid"]
    assert said["status"] == "True"
    assert "the proxy refuses it" in said["message"]
    assert "repetition" in said["message"]
    for name in ("old", "good"):
        assert "PartiallyInvalid" not in served.conditions(name)
    # Its owner writes another expression.
    served.say(route("bad", moved("RegularExpression", "/a{1,9}", "bad.test"), age=2))
    await until(port, "/aaa", f"http://bad.test:{port}/aaa")
    assert served.gateways.refused() == {}
    assert "PartiallyInvalid" not in served.conditions("bad")


async def test_a_listener_whose_port_is_taken_is_named_and_comes_when_it_is_free(
    served: Served,
) -> None:
    with socket.socket() as other:
        other.bind((ADDRESS, 0))
        other.listen()
        taken, free = other.getsockname()[1], free_port(ADDRESS)
        served.say(
            gateway_class(),
            gateway(listener("taken", taken), listener("free", free)),
            route("old", moved("PathPrefix", "/old", "old.test")),
        )
        await until(free, "/old", f"http://old.test:{free}/old")
        await eventually(lambda: served.gateways.refused())
        (guilty,) = served.gateways.refused()
        assert guilty == ObjectRef("Gateway", "shop", "web", "taken")
        said = served.conditions("web", "Gateway")["Accepted"]
        assert said["status"] == "False"
        assert "the proxy refuses it" in said["message"]
    await until(taken, "/old", f"http://old.test:{taken}/old")
    await eventually(lambda: not served.gateways.refused())
    assert served.conditions("web", "Gateway")["Accepted"]["status"] == "True"
