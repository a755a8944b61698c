"""trace: what the kernel itself says of the packets and connections of endpoints."""

# ruff: noqa: PLC0415 - what a command needs is loaded when it runs, so that --help is quick

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

import typer

from sidegate_cli.failure import Failure
from sidegate_cli.options import Node, Output, group
from sidegate_cli.output import Format, table

trace = group("What the kernel itself drops and retransmits (BCC tools, an optional extra).")

Seconds = Annotated[float | None, typer.Option(min=0.1, help="End after so long.")]
Count = Annotated[int | None, typer.Option(min=1, help="End after so many events.")]
Everything = Annotated[bool, typer.Option("--all", help="Not only of this node's pods.")]


@trace.command("drops")
def drops(
    seconds: Seconds = None,
    count: Count = None,
    everything: Everything = False,
    output: Output = Format.TABLE,
    node: Node = "default",
) -> None:
    """Packets that the kernel drops, with its reason; at the end a table of how many."""
    _trace("drops", seconds, count, everything, output, node)


@trace.command("tcp")
def tcp(
    seconds: Seconds = None,
    count: Count = None,
    everything: Everything = False,
    output: Output = Format.TABLE,
    node: Node = "default",
) -> None:
    """Retransmits and state changes of TCP connections."""
    _trace("tcp", seconds, count, everything, output, node)


def _trace(
    what: str,
    seconds: float | None,
    count: int | None,
    everything: bool,
    output: Format,
    node: str,
) -> None:
    from sidegate_cli.client import AgentClient
    from tracing.main import Limits, Missing
    from tracing.main import trace as events

    agent = AgentClient(node)

    def names() -> dict[str, str]:
        try:
            found = agent.get("/v1/endpoints")["items"]
        except Failure:
            if everything:
                return {}
            raise
        return {e[family]: e["pod"] for e in found for family in ("ipv4", "ipv6") if e[family]}

    seen: Counter[tuple[str, str, str]] = Counter()
    try:
        for event in events(what, names, Limits(seconds, count, everything)):
            if event["kind"] == "drop":
                ends = (event["source_pod"], event["destination_pod"])
                seen[event["reason"], *(end or "-" for end in ends)] += 1
            _show(event, output)
    except Missing as missing:
        raise Failure(f"trace: {missing}", 3) from None
    except KeyboardInterrupt:
        pass
    if seen and output is Format.TABLE:
        print()
        rows = [
            {"reason": reason, "from": source, "to": destination, "packets": packets}
            for (reason, source, destination), packets in seen.most_common()
        ]
        table(rows, ("reason", "from", "to", "packets"))


def _show(event: Mapping[str, Any], output: Format) -> None:
    if event["kind"] == "ready":
        print("tracing; Ctrl-C ends it", file=sys.stderr, flush=True)
    elif event["kind"] == "lost":
        print(f"{event['count']} events were lost: too many to follow", file=sys.stderr)
    elif output is Format.JSON:
        print(json.dumps(event), flush=True)
    elif output is Format.YAML:
        import yaml

        yaml.safe_dump(dict(event), sys.stdout, sort_keys=False, explicit_start=True)
        sys.stdout.flush()
    else:
        from tracing.main import text

        when = datetime.fromtimestamp(event["time"] / 1e9).astimezone()
        print(f"{when:%H:%M:%S}.{when.microsecond // 1000:03} {text(dict(event))}", flush=True)
