"""policy: what is in force, whether files are valid, what the verdict would be."""

# ruff: noqa: PLC0415 - what a command needs is loaded when it runs, so that --help is quick

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from sidegate_cli.failure import Failure
from sidegate_cli.options import Node, Output, group
from sidegate_cli.output import Format, show

app = group("Policy in force, and policy to be.")

_ENTRY = (
    "endpoint",
    "direction",
    "identity",
    "protocol",
    "port",
    "action",
    "parser",
    "rules",
)
_STEP = ("endpoint", "direction", "layer", "verdict", "reason", "rules")


@app.command("get")
def get(
    endpoint: Annotated[str | None, typer.Argument(help="Number, or pod; all if none.")] = None,
    output: Output = Format.TABLE,
    node: Node = "default",
) -> None:
    """What each endpoint's policies compiled to, with the rules that made each entry."""
    from sidegate_cli.client import AgentClient

    answer = AgentClient(node).get("/v1/policy", endpoint=endpoint)
    rows = [
        {**entry, "endpoint": item["pod"] or item["endpoint"]}
        for item in answer["items"]
        for entry in item["entries"]
    ]
    if output is Format.TABLE:
        for item in answer["items"]:
            print(
                f"{item['pod'] or item['endpoint']}: ingress {item['ingress']}, "
                f"egress {item['egress']}, revision {item['revision']}"
            )
        print()
    show(answer, output, rows, _ENTRY)


@app.command("check")
def check(
    files: Annotated[list[Path], typer.Argument(help="YAML file or directory, or - for stdin.")],
    output: Output = Format.TABLE,
) -> None:
    """Whether each object is valid and, if not, which field and why. Asks no agent.

    Exit code 1 if any is not.
    """
    from sidegate_cli.policy_check import check_files

    items = check_files(files)
    rows = [
        {
            "object": item["object"],
            "source": item["source"],
            "valid": item["valid"],
            "field": error["field"],
            "error": "; ".join(filter(None, (error["message"], error["remedy"]))),
        }
        for item in items
        for error in item["errors"] or [{"field": "", "message": "", "remedy": ""}]
    ]
    show({"items": items}, output, rows)
    if not items:
        raise Failure("there is no object in these files")
    if not all(item["valid"] for item in items):
        raise typer.Exit(1)


@app.command("trace")
def trace(
    source: Annotated[
        str, typer.Option("--from", help="Pod, address, identity:N or reserved:NAME.")
    ],
    destination: Annotated[str, typer.Option("--to", help="As --from.")],
    protocol: Annotated[str, typer.Option(help="TCP, UDP or SCTP.")] = "TCP",
    port: Annotated[int | None, typer.Option(min=1, max=65535)] = None,
    http: Annotated[str | None, typer.Option(help="As 'GET /v1/orders'.")] = None,
    host: Annotated[str, typer.Option(help="Of the HTTP request.")] = "",
    header: Annotated[list[str] | None, typer.Option(help="As 'x-tenant: a'.")] = None,
    kafka: Annotated[str | None, typer.Option(help="As 'produce orders'.")] = None,
    client_id: Annotated[str, typer.Option(help="Of the Kafka client.")] = "",
    api_version: Annotated[int | None, typer.Option(min=0, help="Of the Kafka request.")] = None,
    certificate: Annotated[
        bool, typer.Option(help="Both ends speak mTLS, each with its own certificate.")
    ] = False,
    output: Output = Format.TABLE,
    node: Node = "default",
) -> None:
    """The verdict for a connection or request that need not exist, and the rules that make it.

    Exit code 1 if it is denied.
    """
    from sidegate_cli.client import AgentClient

    if http is not None and kafka is not None:
        raise typer.BadParameter("give --http or --kafka, not both")
    question = {
        "from": source,
        "to": destination,
        "protocol": protocol,
        "port": port,
        "certificate": certificate,
        "http": None if http is None else _http(http, host, header or []),
        "kafka": None if kafka is None else _kafka(kafka, client_id, api_version),
    }
    answer: Mapping[str, Any] = AgentClient(node).post("/v1/policy/trace", question)
    show(answer, output, answer["steps"], _STEP)
    if output is Format.TABLE:
        print(f"\nverdict: {answer['verdict']}")
    if answer["verdict"] == "denied":
        raise typer.Exit(1)


def _http(text: str, host: str, headers: list[str]) -> dict[str, Any]:
    method, _, path = text.strip().partition(" ")
    if not path.strip():
        raise typer.BadParameter(f"--http {text!r}: give method and path, as 'GET /v1/orders'")
    pairs = []
    for header in headers:
        name, colon, value = header.partition(":")
        if not colon:
            raise typer.BadParameter(f"--header {header!r}: give name and value, as 'x-tenant: a'")
        pairs.append([name.strip().lower(), value.strip()])
    return {"method": method, "path": path.strip(), "host": host, "headers": pairs}


def _kafka(text: str, client_id: str, api_version: int | None) -> dict[str, Any]:
    api, _, topic = text.strip().partition(" ")
    if not api:
        raise typer.BadParameter("--kafka: give API and topic, as 'produce orders'")
    return {
        "api_key": api,
        "topic": topic.strip(),
        "client_id": client_id,
        "api_version": api_version,
    }
