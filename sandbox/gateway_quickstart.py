"""``make run RUN_ARGS=--gateway``: a Gateway on a node by itself, asked by a client beyond it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import yaml
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from sandbox.node import Node
from sandbox.processes import stop_asked
from sandbox.progress import marked, started

EXAMPLE = Path(__file__).parent.parent / "examples" / "gateway"
_READY_SECONDS = 15.0
_NEXT = """[bold]What to try next[/bold], from another terminal:
  sidegate gateway status
  sidegate gateway routes
  sidegate gateway trace http://www.shop.test/v2/things
  ip netns exec {netns} curl -H 'Host: www.shop.test' http://{address}/v2/things
  edit {example}/gateway.yaml: it is served when you save it
(the command is .venv/bin/sidegate; Ctrl-C here ends everything)"""


async def run(console: Console, node: Node, *, once: bool) -> int:
    """The exit code. Raises SandboxError."""
    stopped = stop_asked()
    async with started(console, EXAMPLE, node) as (kubelet, api):
        failed = await _probe(console, node, api)
        if not once and not stopped.is_set():
            named = {"netns": node.router_netns, "address": node.addresses[0], "example": EXAMPLE}
            console.print(_NEXT.format(**named))
            await stopped.wait()
    return 1 if failed or kubelet.failed else 0


async def _probe(console: Console, node: Node, api: httpx.AsyncClient) -> int:
    """Print the table; the number of probes that came out otherwise than expected."""
    table = Table(title="Requests", title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for name in ("GET", "expected", "seen", "rule", "leads to"):
        table.add_column(name, overflow="fold")
    probes: list[dict[str, str]] = yaml.safe_load(
        EXAMPLE.with_name("gateway-probes.yaml").read_text()
    )
    failed = 0
    deadline = time.monotonic() + _READY_SECONDS  # of pods and listeners that have just begun
    for probe in probes:
        while (seen := _ask(node, probe["url"])) != probe["expect"]:
            if time.monotonic() > deadline:
                break
            await asyncio.sleep(0.1)
        failed += seen != probe["expect"]
        way = await _way(api, probe["url"])
        seen = marked(seen, probe["expect"])
        table.add_row(probe["url"], probe["expect"], seen, way["rule"], way["result"])
    console.print(table)
    console.print(f"{len(probes) - failed} of {len(probes)} as expected")
    return failed


def _ask(node: Node, url: str) -> str:
    """As a probe expects it; "no answer" without one."""
    parts = urlsplit(url)
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    command = ["ip", "netns", "exec", node.router_netns]
    command += ["curl", "-s", "-m", "2", "-w", "\n%{http_code} %{redirect_url}"]
    command += ["-H", f"Host: {parts.hostname}", f"http://{node.addresses[0]}{path}"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    body, _, said = done.stdout.rpartition("\n")
    if done.returncode:
        return "no answer"
    if said.startswith("200"):
        told = json.loads(body)
        return f"200 {told['pod']} {told['path']}"
    return said.strip()


async def _way(api: httpx.AsyncClient, url: str) -> dict[str, Any]:
    """What the agent says which way it takes."""
    question = {"url": url, "method": "GET", "headers": []}
    answer = (await api.post("/v1/gateways/trace", json=question)).raise_for_status()
    (way,) = answer.json()["items"]
    return dict(way)
