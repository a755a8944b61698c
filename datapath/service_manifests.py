"""core/v1 Services and discovery.k8s.io/v1 EndpointSlices: what the service table needs of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from typing import Any, NamedTuple

from datapath.codec import Address
from policy_engine.model import TRANSPORTS, Protocol

Manifest = Mapping[str, Any]
ServiceName = tuple[str, str]
"""(namespace, name)"""

_SERVICE_LABEL = "kubernetes.io/service-name"
_CLIENT_IP_SECONDS = 10800  # the API's own default


class InvalidServiceError(ValueError):
    """The manifest is not what the API promises; the message names the object and what is wrong."""


class Port(NamedTuple):
    name: str
    number: int
    protocol: Protocol


class Service(NamedTuple):
    """``affinity_seconds`` is 0 without affinity; ``local``: only this node's endpoints."""

    addresses: tuple[Address, ...]
    ports: tuple[Port, ...]
    affinity_seconds: int
    local: bool


class Endpoint(NamedTuple):
    addresses: tuple[Address, ...]
    ready: bool
    serving: bool
    terminating: bool
    node: str


class Slice(NamedTuple):
    service: ServiceName
    ports: tuple[Port, ...]
    endpoints: tuple[Endpoint, ...]


def name_of(manifest: Manifest) -> tuple[str, str]:
    """(namespace, name). Raises InvalidServiceError."""
    try:
        metadata = manifest["metadata"]
        return metadata.get("namespace") or "default", metadata["name"]
    except (KeyError, TypeError, AttributeError) as error:
        raise InvalidServiceError(f"{manifest.get('kind')} without metadata.name") from error


def parse(manifest: Manifest) -> Service | Slice | None:
    """None for a slice that belongs to no Service, or has names for addresses.

    Raises InvalidServiceError, also for another kind.
    """
    name = "/".join(name_of(manifest))
    kind = manifest.get("kind")
    try:
        if kind == "Service":
            return _service(manifest["spec"])
        if kind == "EndpointSlice":
            return _slice(manifest)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidServiceError(f"{kind} {name}: {error!r}") from error
    raise InvalidServiceError(f"{kind} {name} is neither a Service nor an EndpointSlice")


def _service(spec: Manifest) -> Service:
    """Without addresses, hence without frontends: headless ones and ExternalName."""
    addresses: list[str] = []
    if spec.get("type") != "ExternalName":
        addresses = spec.get("clusterIPs") or [spec.get("clusterIP") or "None"]
    affinity = 0
    if spec.get("sessionAffinity") == "ClientIP":
        client = (spec.get("sessionAffinityConfig") or {}).get("clientIP") or {}
        affinity = int(client.get("timeoutSeconds") or _CLIENT_IP_SECONDS)
    return Service(
        tuple(ip_address(each) for each in addresses if each != "None"),
        _ports(spec.get("ports")),
        affinity,
        spec.get("internalTrafficPolicy") == "Local",
    )


def _slice(manifest: Manifest) -> Slice | None:
    service = (manifest["metadata"].get("labels") or {}).get(_SERVICE_LABEL)
    if not service or manifest["addressType"] not in {"IPv4", "IPv6"}:
        return None
    return Slice(
        (name_of(manifest)[0], service),
        _ports(manifest.get("ports")),
        tuple(_endpoint(each) for each in manifest.get("endpoints") or ()),
    )


def _endpoint(endpoint: Manifest) -> Endpoint:
    """What is not said of its conditions is to be read as ready, serving, not terminating."""
    conditions = endpoint.get("conditions") or {}
    ready = conditions.get("ready") is not False
    serving = conditions.get("serving")
    return Endpoint(
        tuple(ip_address(each) for each in endpoint["addresses"]),
        ready,
        ready if serving is None else bool(serving),
        bool(conditions.get("terminating")),
        endpoint.get("nodeName") or "",
    )


def _ports(ports: Iterable[Manifest] | None) -> tuple[Port, ...]:
    """Without SCTP, which no socket hook sees, and slices' ports without a number."""
    found = ((each, TRANSPORTS.get(each.get("protocol") or "TCP")) for each in ports or ())
    return tuple(
        Port(each.get("name") or "", int(each["port"]), protocol)
        for each, protocol in found
        if protocol in (Protocol.TCP, Protocol.UDP) and each.get("port")
    )
