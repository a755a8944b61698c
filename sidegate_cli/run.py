"""What runs rather than asks: the agent and the sandbox."""

# ruff: noqa: PLC0415 - what a command needs is loaded when it runs, so that --help is quick

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from sidegate_cli.failure import Failure
from sidegate_cli.options import Node, group

sandbox = group("Pods as namespaced processes on this machine.")


def agent(
    resources: Annotated[
        Path | None, typer.Option(help="Directory of YAML to enforce.", file_okay=False)
    ] = None,
    node: Node = "default",
    device: Annotated[
        list[str] | None,
        typer.Option(help="Uplink; may be repeated. In a cluster: those of default routes."),
    ] = None,
    module: Annotated[
        Path | None, typer.Option(help="The library that Envoy loads.", dir_okay=False)
    ] = None,
    cluster: Annotated[
        bool, typer.Option("--cluster", help="Objects come from the API server.")
    ] = False,
    kubeconfig: Annotated[
        Path | None, typer.Option(help="With --cluster; none: as the pod that runs this.")
    ] = None,
    bpffs: Annotated[
        Path | None, typer.Option(help="Directory of a mounted bpffs for what is pinned.")
    ] = None,
    cni_config: Annotated[
        Path | None, typer.Option(help="The node's CNI configurations: ours is put there.")
    ] = None,
    cni_chained: Annotated[
        bool, typer.Option("--cni-chained", help="Behind the first other configuration there.")
    ] = False,
    kubelet_dir: Annotated[
        Path | None, typer.Option("--kubelet-dir", help="Serve the proxies of pods (Istio).")
    ] = None,
    masquerade: Annotated[
        bool, typer.Option("--masquerade", help="Out of the cluster with the node's address.")
    ] = False,
    external_proxy: Annotated[
        bool, typer.Option("--external-proxy", help="`sidegate proxy` keeps Envoy.")
    ] = False,
    gateways: Annotated[
        bool, typer.Option("--gateways", help="With --cluster: serve its Gateways.")
    ] = False,
    namespace: Annotated[
        str, typer.Option(help="Of the Lease by which a node holds addresses of Gateways.")
    ] = "sidegate-system",
    gateway_address: Annotated[
        list[str] | None,
        typer.Option(help="Without --cluster: of Gateways that ask for none; may be repeated."),
    ] = None,
    ingress_address: Annotated[
        list[str] | None,
        typer.Option(help="What backends see of Gateways; one of a family, of nobody else's."),
    ] = None,
    node_cgroup: Annotated[
        Path | None, typer.Option(help="cgroup2 directory that has all pods.", file_okay=False)
    ] = None,
    kubelet_cgroup: Annotated[
        Path | None, typer.Option(help="cgroup2 directory of the kubelet.", file_okay=False)
    ] = None,
    metrics_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Serve metrics on the network; 0: do not.")
    ] = 0,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
) -> None:
    """Run the agent of a node in this network namespace until a signal."""
    if cni_chained and masquerade:
        raise Failure("--masquerade: with --cni-chained it is for the plugin before ours", 2)
    from datapath.routing import default_devices
    from node_agent.config import AgentConfig, run_dir_of
    from node_agent.main import run

    config = AgentConfig(
        node=node,
        run_dir=run_dir_of(node),
        resources=resources,
        devices=tuple(device or (default_devices() if cluster else ())),
        cluster=cluster,
        kubeconfig=kubeconfig,
        bpffs=bpffs,
        cni_config=cni_config,
        cni_chained=cni_chained,
        masquerade=masquerade,
        kubelet_dir=kubelet_dir,
        external_proxy=external_proxy,
        node_cgroup=node_cgroup,
        kubelet_cgroup=kubelet_cgroup,
        metrics_port=metrics_port,
        gateways=gateways,
        namespace=namespace,
        ingress_addresses=tuple(ingress_address or ()),
    )
    if gateway_address:
        config = replace(config, gateway_addresses=tuple(gateway_address))
    if module:
        config = replace(config, module=module)
    raise typer.Exit(run(config, log_level))


def proxy(
    node: Node = "default",
    module: Annotated[
        Path | None, typer.Option(help="The library that Envoy loads.", dir_okay=False)
    ] = None,
    bpffs: Annotated[
        Path | None, typer.Option(help="Where the agent pins its maps; none: as the agent.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Envoy's worker threads.")] = 2,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
) -> None:
    """Keep a node's Envoy, for an agent that runs with --external-proxy, until a signal."""
    from node_agent.config import AgentConfig, run_dir_of
    from node_agent.proxy import run

    config = AgentConfig(node=node, run_dir=run_dir_of(node), bpffs=bpffs, workers=workers)
    if module:
        config = replace(config, module=module)
    raise typer.Exit(run(config, log_level))


@sandbox.command("run")
def sandbox_run(
    directory: Annotated[
        Path | None, typer.Argument(exists=True, file_okay=False, help="Kubernetes YAML.")
    ] = None,
    node: Node = "default",
    cluster: Annotated[
        bool, typer.Option("--cluster", help="A real control plane and several nodes.")
    ] = False,
    chained: Annotated[
        str, typer.Option(help="bridge or ptp: pods have their network by that CNI plugin.")
    ] = "",
    nodes: Annotated[int, typer.Option(min=1, max=200, help="Of a cluster.")] = 2,
    name: Annotated[str, typer.Option(help="Of a cluster.")] = "sandbox",
) -> None:
    """Run the pods of a directory of YAML under its policies until a signal."""
    if chained not in ("", "bridge", "ptp"):
        raise Failure(f"--chained {chained}: bridge or ptp is expected", 2)
    if cluster:
        raise typer.Exit(_part("sandbox.cluster").run(name, nodes, directory, chained))
    if directory is None:
        raise Failure("sandbox run: give a directory of Kubernetes YAML, or --cluster", 2)
    raise typer.Exit(_part("sandbox.run").run(directory, node, chained))


@sandbox.command("exec")
def sandbox_exec(
    pod: Annotated[str, typer.Argument(help="Name, or namespace/name.")],
    command: Annotated[list[str], typer.Argument(help="After --.")],
    node: Node = "default",
) -> None:
    """Run a command inside a pod; its exit code is this one's."""
    raise typer.Exit(_part("sandbox.execute").execute(node, pod, command))


@sandbox.command("reboot")
def sandbox_reboot(node: Annotated[str, typer.Argument(help="Of a cluster.")]) -> None:
    """Cut a node's power and boot it again; returns when it has booted."""
    raise typer.Exit(_part("sandbox.cluster").reboot(node))


@sandbox.command("stop")
def sandbox_stop(node: Node = "default") -> None:
    """End a running sandbox, or clean up what a killed one left."""
    raise typer.Exit(_part("sandbox.run").stop(node))


def _part(name: str) -> Any:
    """A room above this one, or one that need not be installed."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise Failure(f"{name.partition('.')[0]} cannot be loaded: {error}", 3) from None
