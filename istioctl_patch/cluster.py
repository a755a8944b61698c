"""What is in the cluster, as far as ``verify-install``, ``analyze`` and ``uninstall`` look."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from functools import cache, cached_property
from typing import Any

from istioctl_patch import injector, overlay, tools
from kube_store.resource import plural
from policy_engine.kinds import API_VERSIONS

Manifest = dict[str, Any]


class Mesh:
    """``flags`` name the cluster to kubectl. Every method raises CalledProcessError, Missing; each
    asks once."""

    def __init__(self, flags: Sequence[str], istio_namespace: str) -> None:
        self._flags, self.istio_namespace = tuple(flags), istio_namespace
        self._list = cache(self._ask)

    def _ask(self, path: str) -> list[Manifest]:
        return tools.listed(self._flags, path)

    def pods(self) -> list[Manifest]:
        return self._list("/api/v1/pods")

    def namespaces(self) -> list[Manifest]:
        return self._list("/api/v1/namespaces")

    def nodes(self) -> list[Manifest]:
        return self._list("/api/v1/nodes")

    def csi_nodes(self) -> list[Manifest]:
        """What the kubelets know of drivers."""
        return self._list("/apis/storage.k8s.io/v1/csinodes")

    def csi_drivers(self) -> list[Manifest]:
        return self._list("/apis/storage.k8s.io/v1/csidrivers")

    def pilots(self) -> list[Manifest]:
        """Deployments of istiod."""
        path = f"/apis/apps/v1/namespaces/{self.istio_namespace}/deployments"
        return self._list(f"{path}?labelSelector=app%3Distiod")

    def injectors(self) -> list[Manifest]:
        path = f"/api/v1/namespaces/{self.istio_namespace}/configmaps"
        return [each for each in self._list(path) if injector.is_one(each)]

    def envoy_filters(self) -> list[Manifest]:
        return self._list("/apis/networking.istio.io/v1alpha3/envoyfilters")

    def peer_authentications(self) -> list[Manifest]:
        return self._list("/apis/security.istio.io/v1/peerauthentications")

    def ours(self) -> list[Manifest]:
        """As many of the overlay's resources as there are; none without their kind, of which
        kubectl tells."""
        objects = overlay.resources(self.istio_namespace)
        try:
            said = tools.kubectl(
                self._flags, "get", "--ignore-not-found", "-o", "json", "-f", "-", objects=objects
            )
        except subprocess.CalledProcessError:
            return []
        found = json.loads(said or '{"items": []}')
        return list(found["items"]) if "items" in found else [found]

    @cached_property
    def policies(self) -> list[Manifest]:
        """Of every kind; lists of the API leave kinds out of their items."""
        found = []
        for kind, version in API_VERSIONS.items():
            for each in self._list(f"/apis/{version}/{plural(kind)}"):
                found.append({**each, "apiVersion": version, "kind": kind})
        return found
