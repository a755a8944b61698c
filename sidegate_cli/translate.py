"""translate: what Gateway API and Ingress resources become, without a cluster or an agent."""

# ruff: noqa: PLC0415 - what a command needs is loaded when it runs, so that --help is quick

from __future__ import annotations

import enum
import sys
from pathlib import Path
from typing import Annotated, Any

import typer


class Stage(enum.StrEnum):
    """The value of ``-o``."""

    IR = "ir"
    XDS = "xds"


def translate(
    files: Annotated[list[Path], typer.Argument(help="YAML file or directory, or - for stdin.")],
    output: Annotated[
        Stage, typer.Option("--output", "-o", help="The listeners as such, or as Envoy has them.")
    ] = Stage.IR,
) -> None:
    """Listeners, routes, clusters and statuses of Gateway API and Ingress resources, as YAML.

    Gateways that ask for no address have an example's; key material is not shown. Exit code 1 if
    an object could not be read, or something is wrong in an Ingress.
    """
    import yaml

    from gateway_translator.dump import dump_snapshot
    from gateway_translator.offline import translate as translate_manifests
    from sidegate_cli.manifests import read_manifests

    resources, broken = read_manifests(files)
    found = translate_manifests(each.manifest for each in resources)
    problems = [str(error) for error in broken]
    problems += [f"{ref}: {text}" for ref, text in sorted(found.problems.items())]
    shown: dict[str, Any] = (
        {"ir": dump_snapshot(found.snapshot)}
        if output is Stage.IR
        else {"xds": _xds(found.snapshot)}
    )
    shown["statuses"] = {str(ref): status for ref, status in sorted(found.statuses.items())}
    yaml.safe_dump(shown, sys.stdout, sort_keys=False, allow_unicode=True)
    for problem in problems:
        print(problem, file=sys.stderr)
    if problems:
        raise typer.Exit(1)


def _xds(snapshot: Any) -> dict[str, Any]:
    """By type, then name; of secrets the names alone."""
    import dataclasses
    import json

    from google.protobuf.json_format import MessageToJson

    from gateway_translator.ir import Delta
    from xds_server.gateway.render import Renderer
    from xds_server.resources import SECRET_TYPE

    parts = {field.name: getattr(snapshot, field.name) for field in dataclasses.fields(snapshot)}
    return {
        type_url.rpartition(".")[2]: {
            name: {}
            if type_url == SECRET_TYPE or message is None
            else json.loads(MessageToJson(message))
            for name, message in sorted(resources.items())
        }
        for type_url, resources in Renderer().render(Delta(**parts)).items()
        if resources
    }
