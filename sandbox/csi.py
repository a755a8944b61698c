"""Ephemeral volumes of CSI drivers, as the kubelet asks for them (CSI 1.x, "NodePublishVolume")."""

from __future__ import annotations

from pathlib import Path

import grpc

from sandbox.node import Node
from sandbox.pod import PodSpec
from sandbox.volumes import Volume
from sidegate_api.csi.v1 import csi_pb2 as csi
from sidegate_api.csi.v1 import csi_pb2_grpc as csi_grpc

_SECONDS = 10


async def publish(node: Node, pod: PodSpec, volume: Volume, target: Path) -> None:
    """Raises OSError with the driver's own words."""
    request = csi.NodePublishVolumeRequest(
        volume_id=_id(pod, volume),
        target_path=str(target),
        readonly=bool(volume.csi.get("readOnly")),
        volume_context={
            **volume.csi.get("volumeAttributes", {}),
            "csi.storage.k8s.io/pod.name": pod.name,
            "csi.storage.k8s.io/pod.namespace": pod.namespace,
            "csi.storage.k8s.io/pod.uid": pod.uid,
            "csi.storage.k8s.io/ephemeral": "true",
        },
    )
    async with _driver(node, volume) as channel:
        try:
            await csi_grpc.NodeStub(channel).NodePublishVolume(request, timeout=_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise OSError(f"volume {volume.name}: {error.details()}") from None


async def unpublish(node: Node, pod: PodSpec, volume: Volume, target: Path) -> None:
    """Raises OSError."""
    request = csi.NodeUnpublishVolumeRequest(volume_id=_id(pod, volume), target_path=str(target))
    async with _driver(node, volume) as channel:
        try:
            await csi_grpc.NodeStub(channel).NodeUnpublishVolume(request, timeout=_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise OSError(f"volume {volume.name}: {error.details()}") from None


def _driver(node: Node, volume: Volume) -> grpc.aio.Channel:
    driver = volume.csi.get("driver", "")
    socket = node.csi_sockets / driver / "csi.sock"
    if not socket.exists():
        raise OSError(f"volume {volume.name}: no CSI driver {driver} on node {node.name}")
    return grpc.aio.insecure_channel(f"unix:{socket}")


def _id(pod: PodSpec, volume: Volume) -> str:
    return f"csi-{pod.uid}-{volume.name}"
