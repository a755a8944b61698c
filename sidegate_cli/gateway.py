"""gateway: what Gateways and Ingresses serve, of the running agent or of files."""

# ruff: noqa: PLC0415 - what a command needs is loaded when it runs, so that --help is quick

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sidegate_cli.failure import Failure
from sidegate_cli.options import Node, Output, group
from sidegate_cli.output import Format, show

if TYPE_CHECKING:
    from gateway_translator.offline import Translation

app = group("What Gateways and Ingresses serve, and what is wrong with them.")

_STATUS = ("kind", "namespace", "name", "addresses", "attached", "problems")
_ROUTES = ("listeners", "hostname", "match", "rule", "action")
_TRACE = ("gateway", "listener", "hostname", "rule", "match", "result", "endpoints")

Files = Annotated[
    list[Path] | None,
    typer.Option("--filename", "-f", help="YAML file or directory, or - for stdin: no agent."),
]


@app.command()
def status(files: Files = None, output: Output = Format.TABLE, node: Node = "default") -> None:
    """Addresses, attached routes, and what is wrong with each: exit code 1 if anything is."""
    if files:
        from gateway_translator import overview

        found = _translated(files)
        items = overview.statuses(found.statuses, found.problems)
    else:
        items = _client(node).get("/v1/gateways/status")["items"]
    show({"items": items}, output, items, _STATUS)
    if any(each["problems"] for each in items):
        raise typer.Exit(1)


@app.command()
def routes(files: Files = None, output: Output = Format.TABLE, node: Node = "default") -> None:
    """Every route of every hostname, in the order in which they are tried."""
    if files:
        from gateway_translator import overview

        items = overview.routes(_translated(files).snapshot)
    else:
        items = _client(node).get("/v1/gateways/routes")["items"]
    show({"items": items}, output, items, _ROUTES)


@app.command()
def trace(
    url: Annotated[str, typer.Argument(metavar="URL", help="http://HOST[:PORT]/PATH, or https.")],
    method: Annotated[str, typer.Option("--request", "-X", help="Method of the request.")] = "GET",
    header: Annotated[
        list[str] | None, typer.Option("--header", "-H", help="NAME: VALUE; may be repeated.")
    ] = None,
    gateway: Annotated[
        str, typer.Option(help="NAMESPACE/NAME; none: all that have the port.")
    ] = "",
    files: Files = None,
    output: Output = Format.TABLE,
    node: Node = "default",
) -> None:
    """Which listener, route, rule and backend a request takes, and why not another.

    Where the URL's host is an address, `-H "Host: NAME"` names the host. Exit code 1 if no listener
    has the port.
    """
    headers = [_header(each) for each in header or ()]
    if files:
        from gateway_translator import tracing

        try:
            items = tracing.trace(_translated(files).snapshot, url, method, dict(headers), gateway)
        except tracing.BadUrlError as error:
            raise Failure(str(error), 2) from None
    else:
        question = {"url": url, "method": method, "headers": headers, "gateway": gateway}
        items = _client(node).post("/v1/gateways/trace", question)["items"]
    show({"items": items}, output, items, _TRACE)
    if output is Format.TABLE:
        for each in items:
            for why in each["why"]:
                print(f"  - {why}")
    if not items:
        raise typer.Exit(1)


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not (colon and name.strip()):
        raise Failure(f"--header {text!r}: NAME: VALUE is expected", 2)
    return name.strip(), value.strip()


def _translated(files: list[Path]) -> Translation:
    """Raises Failure for what cannot be read."""
    from gateway_translator.offline import translate
    from sidegate_cli.manifests import read_manifests

    resources, broken = read_manifests(files)
    if broken:
        raise Failure("; ".join(map(str, broken)), 1)
    return translate(each.manifest for each in resources)


def _client(node: str) -> Any:
    from sidegate_cli.client import AgentClient

    return AgentClient(node)
