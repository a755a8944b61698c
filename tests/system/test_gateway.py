"""Gateways of a node by itself, as `examples/gateway` has them."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox.node import Node
from tests.system.sandbox_rig import CLI, Sandbox

pytestmark = [pytest.mark.system, pytest.mark.timeout(60)]

EXAMPLE = Path(__file__).parents[2] / "examples" / "gateway"
NAME = "gateway"


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    folder = tmp_path_factory.mktemp("resources")
    shutil.copytree(EXAMPLE, folder, dirs_exist_ok=True)
    made = Sandbox(folder, NAME)
    yield made
    made.close()


def asked(node: Node, path: str, host: str = "www.shop.test") -> dict[str, Any]:
    """What the Gateway answers, asked on the node itself: by the peer, if it got that far."""
    command = ["curl", "-s", "-m", "1", "-o", "-", "-w", "\n%{http_code} %{redirect_url}"]
    command += ["-H", f"Host: {host}", f"http://127.0.0.1{path}"]
    done = subprocess.run(node.inside(command), check=False, capture_output=True, text=True)
    body, _, said = done.stdout.rpartition("\n")
    status, _, location = said.partition(" ")
    peer = json.loads(body) if status == "200" else {}
    return {**peer, "status": int(status), "location": location}


def eventually(node: Node, path: str, status: int, host: str = "www.shop.test") -> dict[str, Any]:
    deadline = time.monotonic() + 10
    while (answer := asked(node, path, host))["status"] != status:
        assert time.monotonic() < deadline, answer
        time.sleep(0.05)
    return answer


def test_routes_lead_to_pods(sandbox: Sandbox) -> None:
    first = eventually(sandbox.node, "/things", 200)
    assert (first["pod"], first["path"]) == ("shop-v1", "/things")
    second = eventually(sandbox.node, "/v2/things", 200)
    assert (second["pod"], second["path"]) == ("shop-v2", "/things")
    moved = asked(sandbox.node, "/old")
    assert (moved["status"], moved["location"]) == (301, "http://www.shop.test/v2")
    assert asked(sandbox.node, "/things", "other.test")["status"] == 404


def test_a_changed_file_is_served(sandbox: Sandbox) -> None:
    eventually(sandbox.node, "/", 200)
    file = sandbox.resources / "gateway.yaml"
    text = file.read_text()
    file.write_text(text.replace("value: /old", "value: /older"))
    assert eventually(sandbox.node, "/older", 301)["location"] == "http://www.shop.test/v2"
    file.write_text(text)
    eventually(sandbox.node, "/old", 301)
    assert asked(sandbox.node, "/older")["status"] == 200


def test_a_pod_that_is_gone_is_asked_no_more(sandbox: Sandbox) -> None:
    eventually(sandbox.node, "/", 200)
    file = sandbox.resources / "shop.yaml"
    text = file.read_text()
    file.write_text(
        text.replace("version: v1}\nspec:\n  containers", "version: v0}\nspec:\n  containers")
    )
    eventually(sandbox.node, "/", 503)
    assert asked(sandbox.node, "/v2/")["status"] == 200
    file.write_text(text)
    eventually(sandbox.node, "/", 200)


def told(*arguments: str) -> list[dict[str, Any]]:
    """What the CLI says of the running agent."""
    done = subprocess.run(
        [str(CLI), "gateway", *arguments, "--node", NAME, "-o", "json"],
        check=True,
        capture_output=True,
        text=True,
    )
    items: list[dict[str, Any]] = json.loads(done.stdout)["items"]
    return items


def test_the_agent_says_what_it_serves_and_which_way_a_request_takes(sandbox: Sandbox) -> None:
    eventually(sandbox.node, "/", 200)
    (gateway,) = [each for each in told("status") if each["kind"] == "Gateway"]
    assert (gateway["name"], gateway["attached"], gateway["problems"]) == ("shop", {"http": 1}, [])
    assert [each["rule"].partition("#")[2] for each in told("routes")] == ["1", "0", "2"]
    (way,) = told("trace", "http://www.shop.test/v2/things")
    assert told("trace", "http://127.0.0.1/v2/things", "-H", "Host: www.shop.test") == [way]
    assert (way["rule"], way["result"]) == (
        "HTTPRoute default/shop#0",
        "default/shop-v2:80 (rewrite)",
    )
    assert way["endpoints"][0].startswith(sandbox.address("shop-v2", 4))
    assert "HTTPRoute default/shop#2: it matches too, and comes later" in way["why"]
