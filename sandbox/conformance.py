"""The official suite of the Gateway API against a cluster on this machine.

``python -m sandbox.conformance [--channel standard|experimental] [--report FILE]
[--logs DIRECTORY] [OPTIONS...]``

Options that are not ours are the suite's. Without any it runs what belongs to the profiles and to
the features that the GatewayClass says it supports: all that we claim.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from sandbox.binaries import binary
from sandbox.cluster import await_rollout, install, keep_logs, kubectl, prepare, running
from sandbox.control_plane import Cluster

CLASS = MESH = "sidegate"
# Of the nodes' own network: whoever is on it finds the holder by ARP and ND.
USABLE, UNUSABLE = "192.0.2.190", "198.51.100.77"
_BLOCKS = [{"start": "192.0.2.130", "stop": "192.0.2.190"}]
GATEWAY_PROFILES = ("GATEWAY-HTTP", "GATEWAY-GRPC", "GATEWAY-TLS", "GATEWAY-TCP", "GATEWAY-UDP")
MESH_PROFILES = ("MESH-HTTP", "MESH-GRPC")
EXPERIMENTAL = "experimental"
_SUITE = "gateway-conformance"
_ROLLED_OUT = "chart and CRDs are there"


def objects(channel: str) -> list[dict[str, object]]:
    """What the suite takes for given. Meshes are objects of the experimental channel alone."""
    mesh: dict[str, object] = {
        "apiVersion": "gateway.networking.x-k8s.io/v1alpha1",
        "kind": "XMesh",
        "metadata": {"name": MESH},
        "spec": {"controllerName": "sidegate.io/gateway-controller"},
    }
    return [
        *([mesh] if channel == EXPERIMENTAL else []),
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "GatewayClass",
            "metadata": {"name": CLASS},
            "spec": {"controllerName": "sidegate.io/gateway-controller"},
        },
        {
            "apiVersion": "cilium.io/v2",
            "kind": "CiliumLoadBalancerIPPool",
            "metadata": {"name": "segment"},
            "spec": {"blocks": _BLOCKS},
        },
    ]


def set_up(cluster: Cluster, channel: str) -> None:
    """Sidegate with the Gateway API in a cluster that is up. Raises CalledProcessError."""
    crds = binary(_SUITE, channel)
    for file in sorted(crds.glob("gateway.*.yaml")):
        kubectl(cluster, "apply", "--server-side", "-f", str(file))
    kubectl(cluster, "create", "namespace", "sidegate-system")
    install(cluster, "gatewayAPI.enabled=true")
    await_rollout(cluster)
    for each in objects(channel):
        kubectl(cluster, "apply", "-f", "-", text=json.dumps(each))


def claims(channel: str) -> list[str]:
    """Options of the suite: what it is to look at; features are in the objects' statuses."""
    mesh = channel == EXPERIMENTAL
    profiles = (*GATEWAY_PROFILES, *(MESH_PROFILES if mesh else ()))
    return [
        f"-gateway-class={CLASS}",
        *([f"-mesh-name={MESH}"] if mesh else []),
        f"-conformance-profiles={','.join(profiles)}",
    ]


def suite(cluster: Cluster, *options: str) -> subprocess.CompletedProcess[bytes]:
    """Runs the suite where the Gateways' addresses can be dialled; its output is ours."""
    command = [
        *("nsenter", f"--net=/run/netns/{cluster.netns}"),
        *("env", f"KUBECONFIG={cluster.kubeconfig}", str(binary(_SUITE, "conformance"))),
        *("-test.v", "-test.timeout=30m"),
        *(f"-usable-address={USABLE}", f"-unusable-address={UNUSABLE}"),
        *options,
    ]
    return subprocess.run(command, check=False)


def report_options(file: Path) -> list[str]:
    """Of the suite, so that it writes what it has found to ``file`` (a ConformanceReport)."""
    implementation = {
        "organization": "sidegate",
        "project": "sidegate",
        "url": "https://sidegate.io",
        "version": version("sidegate"),
        "contact": "the maintainers",
    }
    return [
        f"-report-output={file.absolute()}",
        *(f"-{name}={value}" for name, value in implementation.items()),
    ]


async def _run(channel: str, nodes: int, logs: Path | None, options: list[str]) -> int:
    cluster = Cluster("conformance")
    async with running(cluster, nodes):
        try:
            await asyncio.to_thread(set_up, cluster, channel)
            print(_ROLLED_OUT, flush=True)
            done = await asyncio.to_thread(suite, cluster, *claims(channel), *options)
        finally:
            if logs:
                keep_logs(cluster, nodes, logs)
    return done.returncode


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--channel", choices=("standard", EXPERIMENTAL), default=EXPERIMENTAL)
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("--report", type=Path, help="where the suite's report goes")
    parser.add_argument("--logs", type=Path, help="where what ran in the cluster has its logs kept")
    given, options = parser.parse_known_args()
    if given.report:
        options += report_options(given.report)
    prepare(_SUITE, "istio-echo")
    return asyncio.run(_run(given.channel, given.nodes, given.logs, options))


if __name__ == "__main__":
    sys.exit(main())
