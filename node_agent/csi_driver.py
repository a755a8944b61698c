"""The node's CSI driver: ephemeral volumes that hold a pod's sockets (:mod:`node_agent.sidecars`).

Nothing is mounted: the kubelet binds the directory that we fill into the container.
Source: Container Storage Interface 1.x; Kubernetes documentation, "CSI ephemeral volumes".
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import grpc
import structlog

from node_agent.sidecars import Sidecars, Volume
from sidegate_api.csi.v1 import csi_pb2 as csi
from sidegate_api.csi.v1 import csi_pb2_grpc as csi_grpc
from sidegate_api.pluginregistration.v1 import registration_pb2 as registration
from sidegate_api.pluginregistration.v1 import registration_pb2_grpc as registration_grpc

log = structlog.get_logger(__name__)

NAME = "csi.sidegate.io"
_POD = "csi.storage.k8s.io/pod."


class Identity(csi_grpc.IdentityServicer):
    async def GetPluginInfo(self, _request: Any, _context: Any) -> csi.GetPluginInfoResponse:
        return csi.GetPluginInfoResponse(name=NAME, vendor_version=version("sidegate"))

    async def GetPluginCapabilities(
        self, _request: Any, _context: Any
    ) -> csi.GetPluginCapabilitiesResponse:
        return csi.GetPluginCapabilitiesResponse()

    async def Probe(self, _request: Any, _context: Any) -> csi.ProbeResponse:
        return csi.ProbeResponse()


class Node(csi_grpc.NodeServicer):
    def __init__(self, node: str, sidecars: Sidecars) -> None:
        self._node, self._sidecars = node, sidecars

    async def NodeGetInfo(self, _request: Any, _context: Any) -> csi.NodeGetInfoResponse:
        return csi.NodeGetInfoResponse(node_id=self._node)

    async def NodeGetCapabilities(
        self, _request: Any, _context: Any
    ) -> csi.NodeGetCapabilitiesResponse:
        return csi.NodeGetCapabilitiesResponse()

    async def NodePublishVolume(
        self, request: csi.NodePublishVolumeRequest, context: Any
    ) -> csi.NodePublishVolumeResponse:
        pod = {
            key: request.volume_context.get(_POD + key, "") for key in ("uid", "namespace", "name")
        }
        if not all(pod.values()):
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"volume_context: {_POD}uid, namespace and name are needed: CSIDriver {NAME} has "
                "to have spec.podInfoOnMount",
            )
        if not request.readonly:
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT, "readonly: true is required of this volume"
            )
        await self._sidecars.publish(
            Volume(pod["uid"], pod["namespace"], pod["name"], request.target_path)
        )
        return csi.NodePublishVolumeResponse()

    async def NodeUnpublishVolume(
        self, request: csi.NodeUnpublishVolumeRequest, _context: Any
    ) -> csi.NodeUnpublishVolumeResponse:
        await self._sidecars.unpublish(request.target_path)
        return csi.NodeUnpublishVolumeResponse()


class Registration(registration_grpc.RegistrationServicer):
    def __init__(self, endpoint: Path) -> None:
        self._endpoint = endpoint

    async def GetInfo(self, _request: Any, _context: Any) -> registration.PluginInfo:
        return registration.PluginInfo(
            type="CSIPlugin", name=NAME, endpoint=str(self._endpoint), supported_versions=["1.0.0"]
        )

    async def NotifyRegistrationStatus(
        self, request: registration.RegistrationStatus, _context: Any
    ) -> registration.RegistrationStatusResponse:
        if not request.plugin_registered:
            log.error("the kubelet refused the CSI driver", error=request.error)
        return registration.RegistrationStatusResponse()


@contextlib.asynccontextmanager
async def serving(kubelet_dir: Path, node: str, sidecars: Sidecars) -> AsyncIterator[None]:
    """The driver on its socket below ``kubelet_dir``, and what tells the kubelet of it. Raises
    OSError."""
    driver = kubelet_dir / "plugins" / NAME / "csi.sock"
    registry = kubelet_dir / "plugins_registry" / f"{NAME}-reg.sock"
    servers = [grpc.aio.server(), grpc.aio.server()]
    csi_grpc.add_IdentityServicer_to_server(Identity(), servers[0])
    csi_grpc.add_NodeServicer_to_server(Node(node, sidecars), servers[0])
    registration_grpc.add_RegistrationServicer_to_server(Registration(driver), servers[1])
    try:
        for server, path in zip(servers, (driver, registry), strict=True):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            server.add_insecure_port(f"unix:{path}")
            await server.start()
        yield
    finally:
        registry.unlink(missing_ok=True)
        for server in servers:
            await server.stop(grace=0.1)
