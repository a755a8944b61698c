"""Each command against a real HTTP server on the agent's socket, answers made up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import uvicorn
import yaml
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from sidegate_cli.main import main
from sidegate_cli.observe import line

FLOW = {
    "time": 1_700_000_000_123_000_000,
    "verdict": "denied",
    "layer": "L7",
    "direction": "ingress",
    "reason": "no_rule",
    "source": {
        "identity": 256,
        "labels": ["k8s:app=frontend"],
        "pod": "default/frontend",
        "ip": "10.0.0.1",
        "port": 40000,
    },
    "destination": {
        "identity": 2,
        "labels": ["reserved:world"],
        "pod": "",
        "ip": "2001:db8::1",
        "port": 8080,
    },
    "protocol": "TCP",
    "endpoint_id": 7,
    "rule": "",
    "revision": 3,
    "latency_ns": 1_500_000,
    "http": {
        "method": "GET",
        "path": "/v1",
        "host": "orders",
        "status": 403,
        "protocol": "HTTP/1.1",
    },
    "kafka": None,
    "count": 2,
}
STEP = {
    "endpoint": "default/orders",
    "direction": "ingress",
    "layer": "L7",
    "verdict": "denied",
    "reason": "no_rule",
    "rules": [],
}
ENTRY = {
    "direction": "ingress",
    "identity": 256,
    "protocol": "TCP",
    "port": 8080,
    "action": "redirect",
    "parser": "http",
    "rules": ["cnp/default/orders#ingress[0]"],
}
COMPILED = {
    "endpoint": 7,
    "pod": "default/orders",
    "revision": 3,
    "ingress": "enforced",
    "egress": "open",
    "entries": [ENTRY],
}
MANIFEST = {"apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy", "metadata": {"name": "p"}}
RESOURCE = {
    "manifest": MANIFEST,
    "source": "p.yaml:1",
    "conditions": [{"type": "Valid", "status": "False", "reason": "x", "message": "spec: bad"}],
}
RESULT = {"kind": "Pod", "namespace": "default", "name": "a", "result": "created", "errors": []}
WRONG = {"field": "spec.x", "message": "unknown field", "remedy": "did you mean y?"}
INVALID = {**RESULT, "name": "b", "result": "invalid", "errors": [WRONG]}


@dataclass
class Agent:
    """Answers by method and path; remembers what it was asked."""

    answers: dict[str, Any] = field(default_factory=dict)
    asked: list[tuple[str, Any]] = field(default_factory=list)

    async def handle(self, request: Request) -> Response:
        call = f"{request.method} {request.url.path}"
        body = await request.body()
        self.asked.append((call, json.loads(body) if body else dict(request.query_params)))
        if call == "GET /v1/flows":
            return PlainTextResponse("".join(json.dumps(f) + "\n" for f in self.answers[call]))
        if call not in self.answers:
            return JSONResponse({"error": f"{call}: there is none"}, 404)
        return JSONResponse(self.answers[call])


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Agent]:
    monkeypatch.setenv("SIDEGATE_RUN_DIR", str(tmp_path))
    fake = Agent()
    app = Starlette(routes=[Route("/{path:path}", fake.handle, methods=["GET", "POST"])])
    config = uvicorn.Config(app, uds=str(tmp_path / "agent.sock"), log_level="error")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 10
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.01)
    yield fake
    server.should_exit = server.force_exit = True
    thread.join(10)


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return [" ".join(text.split()) for text in self.out.splitlines()]


class Cli:
    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: str) -> Ran:
        with pytest.raises(SystemExit) as end:
            main(arguments)
        out, err = self._capsys.readouterr()
        return Ran(int(end.value.code or 0), out, err)


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(capsys)


READS: list[tuple[str, str, Any, list[str]]] = [
    (
        "endpoint list",
        "GET /v1/endpoints",
        {"items": [{"id": 7, "pod": "default/orders", "identity": 257, "labels": ["a", "b"]}]},
        [
            "ID POD IDENTITY IPV4 IPV6 INGRESS EGRESS REVISION LABELS",
            "7 default/orders 257 a,b",
        ],
    ),
    (
        "endpoint get 7",
        "GET /v1/endpoints/7",
        {"id": 7, "more": {"x": [1, 2]}},
        ["NAME VALUE", "id 7", "more.x 1,2"],
    ),
    (
        "identity list",
        "GET /v1/identities",
        {"items": [{"id": 2, "labels": ["reserved:world"], "pods": []}]},
        ["ID LABELS PODS", "2 reserved:world"],
    ),
    (
        "map list",
        "GET /v1/maps",
        {"items": [{"name": "policy", "type": "hash", "entries": 3, "max_entries": 9}]},
        ["NAME TYPE ENTRIES MAX ENTRIES", "policy hash 3 9"],
    ),
    (
        "map dump policy",
        "GET /v1/maps/policy",
        {"rows": [{"identity": 256, "action": "allow"}]},
        ["IDENTITY ACTION", "256 allow"],
    ),
    ("envoy stats", "GET /v1/envoy/stats", {"a.b": 1}, ["NAME VALUE", "a.b 1"]),
    (
        "status",
        "GET /v1/status",
        {"node": "n", "problems": ["Envoy is down"]},
        ["1 problem(s)", "- Envoy is down", "", "NAME VALUE", "node n"],
    ),
    (
        "policy get orders",
        "GET /v1/policy",
        {"items": [COMPILED]},
        [
            "default/orders: ingress enforced, egress open, revision 3",
            "",
            "ENDPOINT DIRECTION IDENTITY PROTOCOL PORT ACTION PARSER RULES",
            "default/orders ingress 256 TCP 8080 redirect http cnp/default/orders#ingress[0]",
        ],
    ),
    (
        "get cnp p",
        "GET /v1/resources",
        {"items": [RESOURCE]},
        [
            "KIND NAMESPACE NAME SOURCE STATUS",
            "CiliumNetworkPolicy p p.yaml:1 Valid=False (spec: bad)",
        ],
    ),
    ("get", "GET /v1/resources", {"items": []}, ["none"]),
]


@pytest.mark.parametrize(("command", "call", "answer", "lines"), READS)
def test_reads_in_every_form(
    cli: Cli, agent: Agent, command: str, call: str, answer: Any, lines: list[str]
) -> None:
    agent.answers[call] = answer
    ran = cli(*command.split())
    assert (ran.code, ran.lines, ran.err) == (0, lines, "")
    assert json.loads(cli(*command.split(), "-o", "json").out) == answer
    assert yaml.safe_load(cli(*command.split(), "-o", "yaml").out) == answer
    assert {asked for asked, _ in agent.asked} == {call}


def test_apply_sends_what_is_valid_and_names_what_is_not(
    cli: Cli, agent: Agent, tmp_path: Path
) -> None:
    file = tmp_path / "o.yaml"
    good = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}}
    file.write_text(json.dumps(good) + "\n---\nkind: [\n")
    agent.answers["POST /v1/apply"] = {"results": [RESULT, INVALID]}
    ran = cli("apply", "-f", str(file))
    assert agent.asked == [("POST /v1/apply", {"objects": [good]})]
    assert ran.code == 1
    assert ran.lines[1:] == ["Pod default a created", "Pod default b invalid"]
    assert f"{file}:4: while parsing" in ran.err
    assert "Pod default/b: spec.x: unknown field; did you mean y?" in ran.err


@pytest.mark.parametrize(("result", "code"), [("deleted", 0), ("not found", 1)])
def test_delete(cli: Cli, agent: Agent, tmp_path: Path, result: str, code: int) -> None:
    (tmp_path / "o.yaml").write_text(json.dumps(MANIFEST))
    agent.answers["POST /v1/delete"] = {"results": [{**RESULT, "result": result}]}
    assert cli("delete", "-f", str(tmp_path)).code == code
    assert agent.asked[0][1]["objects"] == [MANIFEST]


def test_trace_asks_for_a_request_and_a_denial_is_exit_code_1(cli: Cli, agent: Agent) -> None:
    agent.answers["POST /v1/policy/trace"] = {"verdict": "denied", "steps": [STEP]}
    ends = ("policy", "trace", "--from", "frontend", "--to", "orders")
    ran = cli(*ends, "--http", "GET /v1", "--host", "o", "--header", "X-Tenant: a")
    assert ran.code == 1
    assert ran.lines[1:] == ["default/orders ingress L7 denied no_rule", "", "verdict: denied"]
    agent.answers["POST /v1/policy/trace"] = {"verdict": "allowed", "steps": [STEP]}
    assert cli(*ends, "--kafka", "produce audit", "--port", "9092").code == 0
    http, kafka = (body for _, body in agent.asked)
    headers = [["x-tenant", "a"]]
    assert http["http"] == {"method": "GET", "path": "/v1", "host": "o", "headers": headers}
    assert (http["from"], http["to"], http["port"], http["kafka"]) == (
        "frontend",
        "orders",
        None,
        None,
    )
    assert kafka["kafka"] == {
        "api_key": "produce",
        "topic": "audit",
        "client_id": "",
        "api_version": None,
    }
    assert cli(*ends, "--http", "GET").code == 2


def test_observe_passes_filters_on_and_prints_lines(cli: Cli, agent: Agent) -> None:
    agent.answers["GET /v1/flows"] = [FLOW, {"lost": 3}]
    ran = cli("observe", "--follow", "--from", "frontend", "--port", "8080", "--http-path", "/v1")
    assert agent.asked[0][1] == {
        "follow": "1",
        "last": "20",
        "from": "frontend",
        "port": "8080",
        "http-path": "/v1",
    }
    assert ran.out == line(FLOW) + "\n"
    assert ran.err == "3 flows were lost: too many to follow\n"
    assert line(FLOW)[13:] == (
        "denied     L7    ingress default/frontend:40000 (256) -> "
        "[2001:db8::1]:8080 (reserved:world) HTTP/1.1 GET orders/v1 403 [no_rule] 1.50ms x2"
    )
    assert json.loads(cli("observe", "-o", "json").out) == FLOW


POLICY = """\
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: %s}
spec:
  endpointSelector: {}
  ingress:
  - toPorts:
    - ports: [{port: "80", protocol: TCP}]
      rules: {http: [{path: "%s"}]}
---
"""
CHECKS = [
    (POLICY % ("a", "/v1/.*"), 0, [("CiliumNetworkPolicy default/a", "")]),
    (
        POLICY % ("a", "/v1/(") + POLICY % ("b", "/"),
        1,
        [
            ("CiliumNetworkPolicy default/a", "spec.ingress[0].toPorts[0].rules.http[0].path"),
            ("CiliumNetworkPolicy default/b", ""),
        ],
    ),
    (
        POLICY % ("a", "/") * 2,
        1,
        [
            ("CiliumNetworkPolicy default/a", ""),
            ("CiliumNetworkPolicy default/a", "metadata.name"),
        ],
    ),
    ("kind: X\nkind: X\n", 1, [("X", "kind")]),
]


@pytest.mark.parametrize(("text", "code", "found"), CHECKS)
def test_policy_check_needs_no_agent(
    cli: Cli, tmp_path: Path, text: str, code: int, found: list[tuple[str, str]]
) -> None:
    (tmp_path / "p.yaml").write_text(text)
    ran = cli("policy", "check", str(tmp_path / "p.yaml"), "-o", "json")
    items = json.loads(ran.out)["items"]
    assert [(i["object"], "".join(e["field"] for e in i["errors"])) for i in items] == found
    assert all(i["valid"] == (not field) for i, (_, field) in zip(items, found, strict=True))
    assert ran.code == code == cli("policy", "check", str(tmp_path)).code


def test_exit_codes_of_what_cannot_be_asked(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIDEGATE_RUN_DIR", str(tmp_path / "none"))
    ran = cli("endpoint", "list")
    assert (ran.code, ran.out) == (3, "")
    assert ran.err.startswith(f"sidegate: no agent at {tmp_path}/none/agent.sock")
    assert cli("endpoint", "list", "-o", "xml").code == 2
    assert cli("nonsense").code == 2
    assert cli("apply", "-f", str(tmp_path / "gone.yaml")).code == 1
    assert json.loads(cli("version", "-o", "json").out)["agent"] is None


def test_refusals_are_said_in_one_line(cli: Cli, agent: Agent) -> None:
    assert cli("endpoint", "get", "9") == Ran(
        1, "", "sidegate: GET /v1/endpoints/9: there is none\n"
    )
    agent.answers["GET /v1/resources"] = {"items": []}
    ran = cli("get", "pod", "x")
    assert (ran.code, ran.err) == (
        1,
        "sidegate: pod x: there is none; `sidegate get pod` lists them\n",
    )


def test_help_is_quick_and_loads_nothing_heavy() -> None:
    heavy = "import sys, sidegate_cli.main; print({'httpx', 'yaml', 'rich'} & set(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "set()"
    before = os.times()
    subprocess.run(
        [sys.executable, "-m", "sidegate_cli.main", "--help"], capture_output=True, check=True
    )
    after = os.times()
    spent = after.children_user + after.children_system
    assert spent - before.children_user - before.children_system < 0.8
