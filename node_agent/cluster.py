"""What the API server says of the rest of the cluster, as addresses with identities and routes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

from datapath.codec import Prefix
from kube_store import gateway_kinds
from kube_store.kube import Watched
from kube_store.resource import ResourceKey, plural
from kube_store.shared import GROUP_VERSION, IDENTITY, SLICE
from kube_store.store import Change, ChangeType
from node_agent.address_book import AddressBook, Layer
from node_agent.interception import INTERCEPTORS
from node_agent.peer_process import PROXY_CONTAINER, STATUSES
from policy_engine.identity import Reserved
from policy_engine.kinds import API_VERSIONS, CRD_KINDS

_API_SLICES = "kubernetes.io/service-name"

Address = IPv4Address | IPv6Address


def watched(node: str, gateways: bool = False) -> list[Watched]:
    """What an agent follows: pods of its own node only, the rest as small as it can be."""
    return [
        *(gateway_kinds.watched() if gateways else ()),
        Watched("Pod", "v1", "pods", field_selector=f"spec.nodeName={node}", trim=_pod),
        Watched("Namespace", "v1", "namespaces", metadata_only=True),
        Watched("Node", "v1", "nodes", trim=_node),
        Watched("Service", "v1", "services"),
        Watched("EndpointSlice", "discovery.k8s.io/v1", "endpointslices"),
        Watched("NetworkPolicy", "networking.k8s.io/v1", "networkpolicies"),
        *(
            Watched(kind, API_VERSIONS[kind], plural(kind), optional=True, trim=_policy)
            for kind in CRD_KINDS
        ),
        Watched(IDENTITY, GROUP_VERSION, plural(IDENTITY), optional=True),
        Watched(SLICE, GROUP_VERSION, plural(SLICE), optional=True),
    ]


def _pod(manifest: dict[str, Any]) -> dict[str, Any]:
    """No status, which changes often, but for the ID of the proxy's container."""
    spec = manifest.get("spec") or {}
    wanted = ("serviceAccountName", "hostNetwork", "nodeName")
    containers = spec.get("containers") or []
    kept = {name: spec[name] for name in wanted if name in spec}
    kept["containers"] = [{"ports": c.get("ports") or []} | _told(c) for c in containers]
    if init := [found for c in spec.get("initContainers") or [] if (found := _told(c))]:
        kept["initContainers"] = init
    return {**_without_status(manifest), "spec": kept, **_proxy_status(manifest)}


def _proxy_status(manifest: dict[str, Any]) -> dict[str, Any]:
    status = manifest.get("status") or {}
    for kind in STATUSES:
        for each in status.get(kind) or []:
            if each["name"] == PROXY_CONTAINER:
                known = {name: each.get(name, "") for name in ("name", "containerID")}
                return {"status": {kind: [known]}}
    return {}


def _told(container: Mapping[str, Any]) -> dict[str, Any]:
    """Of those of a mesh: what its proxy is, and what it catches."""
    if container.get("name") not in (*INTERCEPTORS, PROXY_CONTAINER):
        return {}
    return {name: container.get(name) for name in ("name", "args")}


def _node(manifest: dict[str, Any]) -> dict[str, Any]:
    """Without conditions, whose heartbeats would be changes."""
    spec, status = manifest.get("spec") or {}, manifest.get("status") or {}
    metadata = manifest["metadata"]
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {name: metadata.get(name) for name in ("name", "uid", "labels")},
        "spec": {"podCIDRs": spec.get("podCIDRs") or []},
        "status": {"addresses": status.get("addresses") or []},
    }


def _policy(manifest: dict[str, Any]) -> dict[str, Any]:
    """Without status: what we write there must not come back as a change."""
    metadata = manifest["metadata"]
    wanted = ("name", "namespace", "uid", "labels", "annotations", "generation")
    return {
        **_without_status(manifest),
        "metadata": {name: metadata[name] for name in wanted if name in metadata},
    }


def _without_status(manifest: dict[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in manifest.items() if name != "status"}
    metadata = dict(manifest["metadata"])
    metadata.pop("resourceVersion", None)
    return {**kept, "metadata": metadata}


@dataclass(frozen=True, slots=True)
class PeerPod:
    """A pod of another node. Addresses are text."""

    pod: str  # namespace/name
    identity: int
    addresses: tuple[str, ...]


class Cluster:
    """Feeds the address book, and knows the routes to other nodes' pods.

    ``rerouted`` is set whenever ``routes`` or ``cluster_cidrs`` may say something else.
    """

    def __init__(self, node: str, book: AddressBook) -> None:
        self._node, self._book = node, book
        self._prefixes: dict[ResourceKey, dict[Prefix, tuple[Layer, int]]] = {}
        self.pod_cidrs: tuple[str, ...] = ()
        self.rerouted = asyncio.Event()
        self._pod_cidrs: dict[str, dict[Prefix, Address | None]] = {}  # by node; None: no way there
        self._pods_of: dict[ResourceKey, tuple[PeerPod, ...]] = {}
        self._pods: dict[str, PeerPod] = {}
        self._pod_at: dict[str, PeerPod] = {}

    @property
    def routes(self) -> dict[Prefix, Address]:
        """Pod CIDRs of other nodes, and the address of the node that is the next hop."""
        found = (item for cidrs in self._pod_cidrs.values() for item in cidrs.items())
        return {cidr: via for cidr, via in found if via}

    @property
    def cluster_cidrs(self) -> frozenset[Prefix]:
        """Pod CIDRs of every node, this one's too."""
        return frozenset(cidr for cidrs in self._pod_cidrs.values() for cidr in cidrs)

    def pod_at(self, address: str) -> PeerPod | None:
        """None for an address that no pod of another node has."""
        return self._pod_at.get(address)

    def pod(self, name: str) -> PeerPod | None:
        """By ``namespace/name``."""
        return self._pods.get(name)

    def take(self, change: Change) -> None:
        """A change of the store; kinds that say nothing of addresses are no error."""
        key, manifest = change.resource.key, change.resource.manifest
        gone = change.type is ChangeType.DELETED
        if key.kind == SLICE:
            found = {} if gone else dict(self._peers(manifest))
            self._take_pods(key, {} if gone else manifest)
        elif key.kind == "Node":
            found = {} if gone else dict(self._node_prefixes(manifest))
            self._take_routes(key.name, {} if gone else manifest)
        elif key.kind == "EndpointSlice" and _is_api_server(manifest):
            found = {} if gone else dict(_api_server(manifest))
        else:
            return
        before = self._prefixes.pop(key, {})
        for prefix, (layer, _) in before.items():
            if prefix not in found:
                self._book.drop(layer, prefix)
        for prefix, (layer, identity) in found.items():
            self._book.put(layer, prefix, (identity, 0))
        if found:
            self._prefixes[key] = found

    def _peers(self, manifest: Mapping[str, Any]) -> Iterator[tuple[Prefix, tuple[Layer, int]]]:
        if manifest.get("node") == self._node:
            return
        for endpoint in manifest.get("endpoints") or []:
            for family in ("ipv4", "ipv6"):
                if text := endpoint.get(family):
                    yield ip_network(text), (Layer.PEER, int(endpoint["identity"]))

    def _take_pods(self, key: ResourceKey, manifest: Mapping[str, Any]) -> None:
        for pod in self._pods_of.pop(key, ()):
            if self._pods.get(pod.pod) is pod:
                del self._pods[pod.pod]
            for address in pod.addresses:
                if self._pod_at.get(address) is pod:
                    del self._pod_at[address]
        if not manifest or manifest.get("node") == self._node:
            return
        found = []
        for endpoint in manifest.get("endpoints") or []:
            if not endpoint.get("name"):
                continue  # the node's own, of what enters by its Gateways
            addresses = tuple(a for a in (endpoint.get("ipv4"), endpoint.get("ipv6")) if a)
            name = f"{endpoint.get('namespace')}/{endpoint.get('name')}"
            found.append(PeerPod(name, int(endpoint["identity"]), addresses))
        for pod in found:
            self._pods[pod.pod] = pod
            self._pod_at.update(dict.fromkeys(pod.addresses, pod))
        self._pods_of[key] = tuple(found)

    def _node_prefixes(
        self, manifest: Mapping[str, Any]
    ) -> Iterator[tuple[Prefix, tuple[Layer, int]]]:
        for cidr in manifest["spec"]["podCIDRs"]:
            yield ip_network(cidr), (Layer.POD_CIDR, Reserved.UNMANAGED)
        if manifest["metadata"]["name"] != self._node:
            for address in _addresses(manifest):
                yield ip_network(address), (Layer.NODE, Reserved.REMOTE_NODE)

    def _take_routes(self, name: str, manifest: Mapping[str, Any]) -> None:
        cidrs = [ip_network(c) for c in manifest["spec"]["podCIDRs"]] if manifest else []
        via: dict[int, Address] = {}
        if name == self._node:
            self.pod_cidrs = tuple(map(str, cidrs))
        elif manifest:
            via = {address.version: address for address in reversed(list(_addresses(manifest)))}
        found = {cidr: via.get(cidr.version) for cidr in cidrs}
        if found == self._pod_cidrs.get(name, {}):
            return
        self._pod_cidrs[name] = found
        if not found:
            del self._pod_cidrs[name]
        self.rerouted.set()


def _addresses(node: Mapping[str, Any]) -> Iterator[Address]:
    for item in node["status"]["addresses"]:
        if item.get("type") in ("InternalIP", "ExternalIP"):
            yield ip_address(item["address"])


def _is_api_server(manifest: Mapping[str, Any]) -> bool:
    metadata = manifest["metadata"]
    service = (metadata.get("labels") or {}).get(_API_SLICES)
    return metadata.get("namespace") == "default" and service == "kubernetes"


def _api_server(manifest: Mapping[str, Any]) -> Iterator[tuple[Prefix, tuple[Layer, int]]]:
    for endpoint in manifest.get("endpoints") or []:
        for text in endpoint.get("addresses") or []:
            yield ip_network(text), (Layer.API_SERVER, Reserved.KUBE_APISERVER)
