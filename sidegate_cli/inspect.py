"""What the agent knows: status, endpoints, identities, maps, Envoy, version."""

# ruff: noqa: PLC0415 - what a command needs is loaded when it runs, so that --help is quick

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from sidegate_cli.options import Node, Output, found_kubeconfig, group
from sidegate_cli.output import Format, flat, show

endpoint = group("Pods that this node enforces policy for.")
identity = group("Identities that policy is decided by.")
bpf_map = group("The maps that the kernel decides by.")
istio = group("Policy in the sidecars of an Istio mesh.")
envoy = group("The Envoy that decides HTTP and Kafka.")

_SIDECAR = (
    "pod", "certificate", "enforcer", "connected", "lease", "version", "skew", "acknowledged",
    "wanted", "proven", "lacking", "refused",
)  # fmt: skip
_ENDPOINT = ("id", "pod", "identity", "ipv4", "ipv6", "ingress", "egress", "revision", "labels")


def ask(node: str, path: str, **query: str | None) -> Any:
    from sidegate_cli.client import AgentClient

    return AgentClient(node).get(path, **query)


def status(
    output: Output = Format.TABLE,
    node: Node = "default",
    cluster: Annotated[
        bool, typer.Option("--cluster", help="Of a whole cluster, by its API server.")
    ] = False,
    kubeconfig: Annotated[
        Path | None, typer.Option(envvar="KUBECONFIG", dir_okay=False, help="With --cluster.")
    ] = None,
    namespace: Annotated[str, typer.Option("--namespace", "-n")] = "sidegate-system",
    wait: Annotated[bool, typer.Option("--wait", help="Until a cluster has no problem.")] = False,
    timeout: Annotated[int, typer.Option(min=1, help="Seconds, with --wait.")] = 300,
) -> None:
    """What the agent is at, and what somebody should look at."""
    if cluster or wait:
        from sidegate_cli.cluster_status import cluster_status

        answer = cluster_status(found_kubeconfig(kubeconfig), namespace, wait, timeout)
    else:
        answer = ask(node, "/v1/status")
    if output is Format.TABLE:
        problems = answer.get("problems") or []
        print(f"{len(problems)} problem(s)" if problems else "no problems")
        for problem in problems:
            print(f"  - {problem}")
        print()
    show(answer, output, [row for row in flat(answer) if not row["name"].startswith("problems")])
    if (cluster or wait) and answer["problems"]:
        raise typer.Exit(1)


def version(output: Output = Format.TABLE, node: Node = "default") -> None:
    """Versions of this program, and of the agent if it runs."""
    from importlib.metadata import version as package_version

    from sidegate_cli.failure import Failure

    answer: dict[str, Any] = {"client": package_version("sidegate")}
    try:
        answer["agent"] = ask(node, "/v1/version")
    except Failure as failure:
        if failure.code != 3:
            raise
        answer["agent"] = None
    show(answer, output, list(flat(answer)))


@endpoint.command("list")
def endpoint_list(output: Output = Format.TABLE, node: Node = "default") -> None:
    """Every endpoint: identity, addresses, and whether each direction is enforced."""
    _items(ask(node, "/v1/endpoints"), output, _ENDPOINT)


@endpoint.command("get")
def endpoint_get(
    name: Annotated[str, typer.Argument(metavar="ID", help="Number, or pod.")],
    output: Output = Format.TABLE,
    node: Node = "default",
) -> None:
    """One endpoint with all that is known of it."""
    answer = ask(node, f"/v1/endpoints/{quote(name, safe='')}")
    show(answer, output, list(flat(answer)))


@identity.command("list")
def identity_list(output: Output = Format.TABLE, node: Node = "default") -> None:
    """Every identity with its labels and the pods that have it."""
    _items(ask(node, "/v1/identities"), output, ("id", "labels", "pods"))


@istio.command("status")
def istio_status(
    output: Output = Format.TABLE,
    node: Node = "default",
    cluster: Annotated[
        bool, typer.Option("--cluster", help="Of all nodes, by the API server.")
    ] = False,
    kubeconfig: Annotated[
        Path | None, typer.Option(envvar="KUBECONFIG", dir_okay=False, help="With --cluster.")
    ] = None,
    namespace: Annotated[str, typer.Option("--namespace", "-n")] = "sidegate-system",
) -> None:
    """The pods whose own proxy enforces L7: certificate, module, lease and policy version.

    Of this node, or with --cluster of all. Exit code 1 if an agent could not be asked.
    """
    if not cluster:
        _items(ask(node, "/v1/sidecars"), output, _SIDECAR)
        return
    from sidegate_cli.agents import ask_all

    items = ask_all(found_kubeconfig(kubeconfig), namespace, ("istio", "status"))
    silent = [item for item in items if "error" in item]
    columns = ("node", *_SIDECAR, *(("error",) if silent else ()))
    _items({"items": items}, output, columns)
    if silent:
        raise typer.Exit(1)


@bpf_map.command("list")
def map_list(output: Output = Format.TABLE, node: Node = "default") -> None:
    """The maps and how full they are."""
    _items(ask(node, "/v1/maps"), output, ("name", "type", "entries", "max_entries"))


@bpf_map.command("dump")
def map_dump(
    name: Annotated[str, typer.Argument(help="As `map list` has it.")],
    output: Output = Format.TABLE,
    node: Node = "default",
) -> None:
    """The entries of one map, decoded."""
    answer = ask(node, f"/v1/maps/{quote(name, safe='')}")
    show(answer, output, answer["rows"])


@envoy.command("config")
def envoy_config(output: Output = Format.JSON, node: Node = "default") -> None:
    """The configuration that Envoy has now (its config_dump)."""
    answer = ask(node, "/v1/envoy/config")
    show(answer, output, list(flat(answer)))


@envoy.command("stats")
def envoy_stats(output: Output = Format.TABLE, node: Node = "default") -> None:
    """Envoy's counters and gauges."""
    answer = ask(node, "/v1/envoy/stats")
    show(answer, output, list(flat(answer)))


def _items(answer: Any, output: Format, columns: Sequence[str]) -> None:
    show(answer, output, answer["items"], columns)
