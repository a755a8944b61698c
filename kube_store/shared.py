"""The objects that agents and operator share through the API server, of a group of our own."""

from __future__ import annotations

from kube_store.kube_client import resource_path
from kube_store.resource import plural

GROUP = "policy.sidegate.io"
GROUP_VERSION = f"{GROUP}/v2"

IDENTITY = "SidegateIdentity"
SLICE = "SidegateEndpointSlice"
REPORT = "SidegatePolicyReport"

NODE_LABEL = f"{GROUP}/node"  # of a slice: whose it is


def path_of(kind: str, name: str = "") -> str:
    """Of one of these kinds, or of one object of it."""
    return resource_path(GROUP_VERSION, plural(kind), name=name)
