"""apply, delete, get."""

# ruff: noqa: PLC0415 - what a command needs is loaded when it runs, so that --help is quick

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from sidegate_cli.failure import Failure
from sidegate_cli.options import Files, Node, Output
from sidegate_cli.output import Format, show

_RESULT = ("kind", "namespace", "name", "result")


def apply(filename: Files, output: Output = Format.TABLE, node: Node = "default") -> None:
    """Create or change objects on the running agent, at once.

    What is valid is applied; exit code 1 if anything is not.
    """
    _send("/v1/apply", filename, output, node, bad="invalid")


def delete(filename: Files, output: Output = Format.TABLE, node: Node = "default") -> None:
    """Delete the objects of the files from the running agent, at once.

    Exit code 1 if there was none of a name.
    """
    _send("/v1/delete", filename, output, node, bad="not found")


def get(
    kind: Annotated[
        str | None, typer.Argument(help="Such as pod or cnp; every kind if none.")
    ] = None,
    name: Annotated[str | None, typer.Argument()] = None,
    namespace: Annotated[str | None, typer.Option("--namespace", "-n")] = None,
    output: Output = Format.TABLE,
    node: Node = "default",
) -> None:
    """Objects that the agent knows, where they are from, and whether they are in force."""
    from sidegate_cli.client import AgentClient

    answer = AgentClient(node).get("/v1/resources", kind=kind, namespace=namespace, name=name)
    show(answer, output, [_row(item) for item in answer["items"]])
    if name is not None and not answer["items"]:
        raise Failure(f"{kind} {name}: there is none; `sidegate get {kind}` lists them")


def _send(path: str, files: Files, output: Format, node: str, bad: str) -> None:
    from sidegate_cli.client import AgentClient
    from sidegate_cli.manifests import read_manifests

    resources, errors = read_manifests(files)
    for error in errors:
        print(error, file=sys.stderr)
    answer: dict[str, Any] = {"results": []}
    if resources:
        answer = AgentClient(node).post(path, {"objects": [r.manifest for r in resources]})
    results = answer["results"]
    show(answer, output, results, _RESULT)
    for result in results:
        for wrong in result.get("errors", ()):
            name = f"{result['kind']} {result['namespace']}/{result['name']}".replace(" /", " ")
            remedy = f"; {wrong['remedy']}" if wrong.get("remedy") else ""
            print(f"{name}: {wrong['field']}: {wrong['message']}{remedy}", file=sys.stderr)
    if not resources and not errors:
        raise Failure("there is no object in these files")
    if errors or any(result["result"] == bad for result in results):
        raise typer.Exit(1)


def _row(item: Mapping[str, Any]) -> dict[str, Any]:
    manifest = item["manifest"]
    metadata = manifest.get("metadata") or {}
    conditions = [
        f"{c['type']}={c['status']}" + (f" ({c['message']})" if c.get("message") else "")
        for c in item.get("conditions", ())
    ]
    status = manifest.get("status")
    phase = status.get("phase") if isinstance(status, dict) else None
    return {
        "kind": manifest.get("kind"),
        "namespace": metadata.get("namespace"),
        "name": metadata.get("name"),
        "source": item.get("source"),
        "status": "; ".join(conditions) or phase,
    }
