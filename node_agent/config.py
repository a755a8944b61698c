"""Where an agent keeps what it owns, and what it was told to do."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from policy_engine.model import Parser

RUN_ROOT = Path("/run/sidegate")


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """``resources`` is the directory of YAML to enforce, None for none.

    ``devices`` are the uplinks, by name; peers beyond them are remote. ``workers`` is Envoy's
    concurrency. ``module`` is the library that Envoy loads. ``cluster`` takes objects from the
    API server, by ``kubeconfig`` or as the pod that we are. ``bpffs`` is where pins go, None for a
    bpffs of our own in the run directory. ``cni_config`` is the directory of the node's CNI
    configuration, None to leave it alone; ``cni_chained``: ours goes behind another plugin's, and
    routes are that one's. ``node_cgroup`` has all pods of the node below it,
    ``kubelet_cgroup`` the kubelet. ``metrics_port`` serves metrics on the network, 0 does not.
    ``external_proxy``: ``sidegate proxy`` keeps Envoy, not the agent.
    ``kubelet_dir`` is the kubelet's directory, where the driver of the volumes of pods with a proxy
    of their own answers; None: there are none.
    ``namespace`` is where nodes settle who holds addresses.
    ``gateways`` follows the Gateway API of a cluster; a node by itself always does, and there
    ``gateway_addresses`` are those of Gateways that ask for none. ``ingress_addresses``, one of a
    family, are what backends see of Gateways; none: of the pod CIDRs where the node gives them out
    itself, else the node's own.
    ``masquerade``: what pods send out of the cluster has the node's address.
    """

    node: str = "default"
    run_dir: Path = RUN_ROOT / "default"
    resources: Path | None = None
    devices: tuple[str, ...] = ()
    proxy_ports: dict[Parser, int] = field(
        default_factory=lambda: {Parser.HTTP: 15001, Parser.KAFKA: 15002}
    )
    workers: int = 2
    module: Path = Path(__file__).parent.parent / "l7_proxy_ext" / "lib" / "libsidegate.so"

    cluster: bool = False
    kubeconfig: Path | None = None
    bpffs: Path | None = None
    cni_config: Path | None = None
    cni_chained: bool = False
    masquerade: bool = False
    node_cgroup: Path | None = None
    kubelet_cgroup: Path | None = None
    metrics_port: int = 0
    kubelet_dir: Path | None = None
    external_proxy: bool = False
    gateways: bool = False
    namespace: str = "sidegate-system"
    gateway_addresses: tuple[str, ...] = ("0.0.0.0", "::")  # noqa: S104
    ingress_addresses: tuple[str, ...] = ()

    @property
    def agent_socket(self) -> Path:
        return self.run_dir / "agent.sock"

    @property
    def xds_socket(self) -> Path:
        return self.run_dir / "xds.sock"

    @property
    def bpf_dir(self) -> Path:
        return self.bpffs or self.run_dir / "bpf"

    @property
    def envoy_dir(self) -> Path:
        return self.run_dir / "envoy"

    @property
    def ipam_dir(self) -> Path:
        return self.run_dir / "ipam"

    @property
    def state_dir(self) -> Path:
        return self.run_dir / "state"


def run_dir_of(node: str) -> Path:
    """The run directory of a node, or what ``SIDEGATE_RUN_DIR`` says."""
    override = os.environ.get("SIDEGATE_RUN_DIR")
    return Path(override) if override else RUN_ROOT / node
