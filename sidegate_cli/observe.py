"""observe: flows as they come, or the last ones."""

# ruff: noqa: PLC0415 - what a command needs is loaded when it runs, so that --help is quick

from __future__ import annotations

import sys
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

import typer

from sidegate_cli.options import Node, Output
from sidegate_cli.output import Format

_COLOURS = {"denied": "red", "audit": "yellow", "redirected": "cyan"}


def observe(
    follow: Annotated[bool, typer.Option("--follow", help="Go on with new flows.")] = False,
    last: Annotated[int, typer.Option(min=0, help="So many of before.")] = 20,
    verdict: Annotated[str, typer.Option(help="forwarded, denied, audit or redirected.")] = "",
    layer: Annotated[str, typer.Option(help="L3/L4 or L7.")] = "",
    direction: Annotated[str, typer.Option(help="ingress or egress.")] = "",
    protocol: Annotated[str, typer.Option(help="TCP, UDP, http, kafka and so on.")] = "",
    pod: Annotated[str, typer.Option(help="At either end.")] = "",
    identity: Annotated[int | None, typer.Option(min=0, help="At either end.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Of the destination.")] = None,
    source: Annotated[str, typer.Option("--from", help="Pod, address, identity:N or label.")] = "",
    destination: Annotated[str, typer.Option("--to", help="As --from.")] = "",
    http_method: Annotated[str, typer.Option()] = "",
    http_path: Annotated[str, typer.Option(help="How the path begins.")] = "",
    kafka_topic: Annotated[str, typer.Option()] = "",
    output: Output = Format.TABLE,
    node: Node = "default",
) -> None:
    """Verdicts with both ends, the layer and the rule that made each.

    Every filter that is given must hold. With -o json one flow is one line.
    """
    from sidegate_cli.client import AgentClient

    query = {
        "follow": "1" if follow else "",
        "last": str(last),
        "verdict": verdict,
        "layer": layer,
        "direction": direction,
        "protocol": protocol,
        "pod": pod,
        "identity": "" if identity is None else str(identity),
        "port": "" if port is None else str(port),
        "from": source,
        "to": destination,
        "http-method": http_method,
        "http-path": http_path,
        "kafka-topic": kafka_topic,
    }
    given = {name: value for name, value in query.items() if value}
    try:
        for item in AgentClient(node).stream("/v1/flows", given):
            _show(item, output)
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


def _show(item: Mapping[str, Any], output: Format) -> None:
    if "lost" in item:
        print(f"{item['lost']} flows were lost: too many to follow", file=sys.stderr)
    elif output is Format.JSON:
        import json

        print(json.dumps(item, separators=(",", ":")), flush=True)
    elif output is Format.YAML:
        import yaml

        yaml.safe_dump(dict(item), sys.stdout, sort_keys=False, explicit_start=True)
        sys.stdout.flush()
    else:
        verdict = typer.style(f"{item['verdict']:<10}", fg=_COLOURS.get(item["verdict"], "green"))
        typer.echo(line(item).replace(f"{item['verdict']:<10}", verdict, 1))
        sys.stdout.flush()


def line(flow: Mapping[str, Any]) -> str:
    """One flow for people, time in the local zone."""
    when = datetime.fromtimestamp(flow["time"] / 1e9).astimezone()
    parts = [
        when.strftime("%H:%M:%S.") + f"{when.microsecond // 1000:03}",
        f"{flow['verdict']:<10}",
        f"{flow['layer']:<5}",
        f"{flow['direction']:<7}",
        f"{_peer(flow['source'])} -> {_peer(flow['destination'])}",
        _request(flow),
        f"[{flow['rule'] or flow['reason']}]",
    ]
    if flow["latency_ns"]:
        parts.append(f"{flow['latency_ns'] / 1e6:.2f}ms")
    if flow["count"] > 1:
        parts.append(f"x{flow['count']}")
    return " ".join(parts)


def _peer(peer: Mapping[str, Any]) -> str:
    """``pod:port (identity)``; the address where it is no pod of this node."""
    name = peer["pod"] or (f"[{peer['ip']}]" if ":" in peer["ip"] else peer["ip"])
    what = next((text for text in peer["labels"] if text.startswith("reserved:")), "")
    return f"{name}:{peer['port']} ({what or peer['identity']})"


def _request(flow: Mapping[str, Any]) -> str:
    if http := flow["http"]:
        status = f" {http['status']}" if http["status"] else ""
        return f"{http['protocol']} {http['method']} {http['host']}{http['path']}{status}"
    if kafka := flow["kafka"]:
        return f"Kafka {kafka['api']} v{kafka['api_version']} {','.join(kafka['topics'])}".rstrip()
    return str(flow["protocol"])
