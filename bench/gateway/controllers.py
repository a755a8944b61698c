"""Sidegate, and istiod and Envoy Gateway as its peers: each with the Envoy that it feeds, as
processes of a node, on the same API server."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from bench.gateway.manifests import GATEWAY, PORT, Manifest, gateway, made
from bench.mesh.rig import cpu_nanos, resident
from bench.rig import CLI
from l7_proxy_ext.supervisor import envoy_binary
from sandbox.binaries import binary
from sandbox.control_plane import ControlPlane
from sandbox.node import Node
from sandbox.segment import UPLINK

_ADDRESS = "192.0.2.130"
_LOG_END = 3000
_TYPE = "type.googleapis.com"
_CERTS = Path("/certs")  # where Envoy Gateway looks, whatever it is told: a link of ours


class Controller(ABC):
    """Runs on ``node``. ``name`` is that of its GatewayClasses' controller."""

    title: str
    name: str
    namespace: str
    port = PORT

    def __init__(self, plane: ControlPlane, node: Node) -> None:
        self._plane, self._node = plane, node
        self._own: list[subprocess.Popen[bytes]] = []
        host, port = plane.server
        plane.pki.issue("bench", "bench", group="system:masters")
        self._kubeconfig = plane.pki.kubeconfig("bench", f"https://{host}:{port}")

    @property
    def address(self) -> str:
        return self._node.addresses[0]

    @property
    @abstractmethod
    def objects(self) -> list[Manifest]:
        """The Gateway, and what it takes for it to be served."""

    @abstractmethod
    def start(self) -> None:
        """Control plane and Envoy, both with nothing."""

    def stop(self) -> None:
        """Before the node goes, with which the rest does."""
        for process in self._own:
            process.terminate()
        for process in self._own:
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._own.clear()

    def said(self) -> str:
        """The ends of what its processes have logged."""
        logs = sorted(self._node.sandbox_dir.glob("*.log"))
        return "\n".join(f"{log.name}: {log.read_text()[-_LOG_END:]}" for log in logs)

    def cpu(self) -> float:
        """Seconds that the control plane has used so far."""
        return sum(cpu_nanos(process.pid) for process in self._own) / 1e9

    def resident(self) -> float:
        """MiB of the control plane."""
        return sum(resident(process.pid) for process in self._own)

    def _run(self, name: str, command: Sequence[str], **env: str) -> subprocess.Popen[bytes]:
        self._node.sandbox_dir.mkdir(parents=True, exist_ok=True)
        with (self._node.sandbox_dir / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                self._node.inside(command), stdout=log, stderr=log, env=os.environ | env,
                start_new_session=True, cwd=self._node.sandbox_dir,
            )  # fmt: skip

    def _control(self, name: str, command: Sequence[str], **env: str) -> None:
        self._own.append(self._run(name, command, KUBECONFIG=str(self._kubeconfig), **env))

    def _envoy(self, node: dict[str, Any], ads: str, clusters: list[dict[str, Any]]) -> None:
        """A stock one that asks for everything over incremental ADS."""
        source = {"ads": {}, "resource_api_version": "V3"}
        soon = {"retry_back_off": {"base_interval": "0.1s", "max_interval": "1s"}}
        config = {
            "node": node,
            "dynamic_resources": {
                "ads_config": {
                    "api_type": "DELTA_GRPC",
                    "transport_api_version": "V3",
                    "set_node_on_first_message_only": True,
                    "grpc_services": [{"envoy_grpc": {"cluster_name": ads, "retry_policy": soon}}],
                },
                "lds_config": source,
                "cds_config": source,
            },
            "static_resources": {"clusters": clusters},
        }
        file = self._node.sandbox_dir / "envoy.json"
        file.write_text(json.dumps(config))
        command = [str(envoy_binary()), "-c", str(file), "--concurrency", "2"]
        self._run("envoy", [*command, "--disable-hot-restart", "--log-level", "warning"])


class Sidegate(Controller):
    """Agent and operator. The agent looks after its Envoy itself."""

    title, name = "Sidegate", "sidegate.io/gateway-controller"
    namespace = "sidegate-system"
    address = _ADDRESS

    @property
    def objects(self) -> list[Manifest]:
        blocks = [{"start": _ADDRESS, "stop": _ADDRESS}]
        pool = made("cilium.io/v2", "CiliumLoadBalancerIPPool", "bench", spec={"blocks": blocks})
        node = made("v1", "Node", self._node.name, spec={"podCIDRs": ["10.244.0.0/24"]})
        return [node, pool, *gateway(self.name)]

    def start(self) -> None:
        known = ["--kubeconfig", str(self._kubeconfig)]
        self._control(
            "operator",
            [sys.executable, "-m", "cluster_operator", *known, "--gateways", "--name", "bench"],
        )
        self._control(
            "agent",
            [str(CLI), "agent", "--cluster", "--gateways", *known, "--node", self._node.name,
             "--device", UPLINK],
        )  # fmt: skip


class Istiod(Controller):
    """Its Envoy is the pod of a Service that the Gateway names, so that istiod deploys none."""

    title, name = "istiod", "istio.io/gateway-controller"
    namespace = "istio-system"

    @property
    def objects(self) -> list[Manifest]:
        service = f"{GATEWAY}.default.svc.cluster.local"
        addresses = [{"type": "Hostname", "value": service}]
        labels = {"app": GATEWAY}
        ports = [{"name": "http", "port": PORT, "targetPort": PORT}]
        container = {"name": "istio-proxy", "image": "envoy"}
        pod = made("v1", "Pod", GATEWAY, labels, spec={"containers": [container]})
        conditions = [{"type": "Ready", "status": "True"}]
        pod["status"] = {
            "phase": "Running", "podIP": self.address, "podIPs": [{"ip": self.address}],
            "conditions": conditions,
        }  # fmt: skip
        return [
            made("v1", "Service", GATEWAY, spec={"selector": labels, "ports": ports}),
            pod,
            *gateway(self.name, addresses=addresses),
        ]

    def start(self) -> None:
        mesh = self._node.sandbox_dir / "mesh.yaml"
        mesh.write_text(yaml.safe_dump({"enableAutoMtls": False}))
        self._control(
            "istiod",
            [str(binary("istio", "pilot-discovery")), "discovery", f"--meshConfig={mesh}",
             f"--kubeconfig={self._kubeconfig}", "--log_output_level=default:warn"],
            POD_NAME="istiod", POD_NAMESPACE=self.namespace, CLUSTER_ID="Kubernetes",
            PILOT_ENABLE_METADATA_EXCHANGE="false", PILOT_ENABLE_ALPN_FILTER="false",
            PILOT_ENABLE_GATEWAY_API_DEPLOYMENT_CONTROLLER="false",
            INJECTION_WEBHOOK_CONFIG_NAME="", VALIDATION_WEBHOOK_CONFIG_NAME="",
        )  # fmt: skip
        node = {
            "id": f"router~{self.address}~{GATEWAY}.default~default.svc.cluster.local",
            "cluster": f"{GATEWAY}.default",
            "metadata": {
                "NAME": GATEWAY, "NAMESPACE": "default", "CLUSTER_ID": "Kubernetes",
                "ISTIO_VERSION": "1.31.0", "INSTANCE_IPS": self.address,
                "LABELS": {"app": GATEWAY}, "SERVICE_ACCOUNT": "default",
            },
        }  # fmt: skip
        self._envoy(node, "xds-grpc", [_grpc_cluster("xds-grpc", 15010)])


class EnvoyGateway(Controller):
    """Privileged ports are moved by ten thousand, as in its containers."""

    title, name = "Envoy Gateway", "gateway.envoyproxy.io/gatewayclass-controller"
    namespace = "envoy-gateway-system"
    port = PORT + 10_000

    @property
    def objects(self) -> list[Manifest]:
        return gateway(self.name)

    def start(self) -> None:
        self._certificates()
        program = str(binary("envoy-gateway", "envoy-gateway"))
        config = self._node.sandbox_dir / "envoy-gateway.yaml"
        config.write_text(
            yaml.safe_dump({
                "apiVersion": "gateway.envoyproxy.io/v1alpha1", "kind": "EnvoyGateway",
                "gateway": {"controllerName": self.name}, "provider": {"type": "Kubernetes"},
                "logging": {"level": {"default": "error"}},
            })
        )  # fmt: skip
        env = {"KUBECONFIG": str(self._kubeconfig), "ENVOY_GATEWAY_NAMESPACE": self.namespace}
        subprocess.run(
            self._node.inside([program, "certgen", "--disable-topology-injector"]),
            env=os.environ | env, check=True, capture_output=True,
        )  # fmt: skip
        self._control(
            "envoy-gateway", [program, "server", f"--config-path={config}"],
            ENVOY_GATEWAY_NAMESPACE=self.namespace,
        )  # fmt: skip
        node = {"id": "bench", "cluster": f"default/{GATEWAY}"}
        self._envoy(node, "xds", [_grpc_cluster("xds", 18000) | {"transport_socket": self._tls()}])

    def stop(self) -> None:
        super().stop()
        if _CERTS.is_symlink():
            _CERTS.unlink()

    def _certificates(self) -> None:
        """Raises FileExistsError where somebody else has that directory."""
        pki = self._plane.pki
        pki.issue("envoy-gateway", "envoy-gateway", "envoy-gateway", "127.0.0.1")
        folder = self._node.sandbox_dir / "certs"
        folder.mkdir()
        if _CERTS.is_symlink():
            _CERTS.unlink()
        _CERTS.symlink_to(folder)
        for source, name in (
            (pki.ca, "ca.crt"),
            (pki.certificate("envoy-gateway"), "tls.crt"),
            (pki.key("envoy-gateway"), "tls.key"),
        ):
            shutil.copy(source, _CERTS / name)

    @staticmethod
    def _tls() -> dict[str, Any]:
        def file(name: str) -> dict[str, str]:
            return {"filename": str(_CERTS / name)}

        pair = {"certificate_chain": file("tls.crt"), "private_key": file("tls.key")}
        return {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": f"{_TYPE}/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                "common_tls_context": {
                    "tls_params": {"tls_maximum_protocol_version": "TLSv1_3"},
                    "tls_certificates": [pair],
                    "validation_context": {"trusted_ca": file("ca.crt")},
                },
            },
        }


def _grpc_cluster(name: str, port: int) -> dict[str, Any]:
    where = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    http2: dict[str, Any] = {"explicit_http_config": {"http2_protocol_options": {}}}
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": where}}]}],
        },
        "typed_extension_protocol_options": {options: {"@type": f"{_TYPE}/{options}", **http2}},
    }
