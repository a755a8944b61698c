"""The endpoints of this node: who they are, kept on disk so that a restarted agent knows them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any

import structlog

from node_agent.state import read_json, write_json

log = structlog.get_logger(__name__)

MAX_ENDPOINT_ID = 65535


class BadEndpoint(ValueError):
    """A registration that cannot be taken; the message names the field and the remedy."""


@dataclass(frozen=True, slots=True)
class EndpointRecord:
    """One pod interface, as the CNI plugin registered it. Addresses are text, "" for none.

    ``bridged``: the host's end is the port of a bridge.
    """

    id: int
    container_id: str
    pod_namespace: str
    pod_name: str
    host_ifname: str
    host_ifindex: int
    mac: str
    ipv4: str = ""
    ipv6: str = ""
    pod_uid: str = ""
    netns: str = ""
    container_ifname: str = "eth0"
    host_mac: str = ""
    bridged: bool = False
    identity: int = 0
    labels: tuple[str, ...] = field(default=())

    @property
    def pod(self) -> str:
        return f"{self.pod_namespace}/{self.pod_name}"

    @property
    def addresses(self) -> tuple[IPv4Address | IPv6Address, ...]:
        return tuple(ip_address(text) for text in (self.ipv4, self.ipv6) if text)


_REQUIRED = ("container_id", "pod_namespace", "pod_name", "host_ifname", "host_ifindex", "mac")


def parse_registration(body: Any, endpoint_id: int) -> EndpointRecord:
    """A record from the body of ``PUT /v1/endpoints/{container_id}``; raises BadEndpoint."""
    if not isinstance(body, dict):
        raise BadEndpoint("body: a JSON object is expected")
    for name in _REQUIRED:
        wanted = int if name == "host_ifindex" else str
        if not isinstance(body.get(name), wanted) or not body[name]:
            raise BadEndpoint(f"{name}: a {wanted.__name__} is required")
    known = {f.name for f in fields(EndpointRecord)} - {"id", "identity", "labels", "bridged"}
    values = {name: value for name, value in body.items() if name in known and value is not None}
    for name, version in (("ipv4", 4), ("ipv6", 6)):
        if values.get(name) and not _is_address(values[name], version):
            raise BadEndpoint(f"{name}: {values[name]!r} is not an IPv{version} address")
    if not values.get("ipv4") and not values.get("ipv6"):
        raise BadEndpoint("ipv4, ipv6: at least one address is required")
    return EndpointRecord(id=endpoint_id, **values)


def _is_address(text: str, version: int) -> bool:
    try:
        return ip_address(text).version == version
    except ValueError:
        return False


class EndpointTable:
    """Records by endpoint id, mirrored to one file each under ``directory``."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._records: dict[int, EndpointRecord] = {}
        self._last_id = 0

    def load(self) -> None:
        """Read what an earlier agent left. A file that cannot be read is set aside and logged."""
        for path in sorted(self._directory.glob("*.json")):
            saved = read_json(path)
            if saved is None:
                continue
            try:
                record = EndpointRecord(**{**saved, "labels": tuple(saved.get("labels", ()))})
            except TypeError as error:
                log.error("endpoint file ignored", file=str(path), error=str(error))
                continue
            self._records[record.id] = record
            self._last_id = max(self._last_id, record.id)

    def __iter__(self) -> Iterator[EndpointRecord]:
        return iter(sorted(self._records.values(), key=lambda record: record.id))

    def __len__(self) -> int:
        return len(self._records)

    def get(self, endpoint_id: int) -> EndpointRecord | None:
        return self._records.get(endpoint_id)

    def by_container(self, container_id: str) -> EndpointRecord | None:
        return next((r for r in self._records.values() if r.container_id == container_id), None)

    def by_pod(self, namespace: str, name: str) -> EndpointRecord | None:
        wanted = (namespace, name)
        return next(
            (r for r in self._records.values() if (r.pod_namespace, r.pod_name) == wanted), None
        )

    def by_address(self, address: IPv4Address | IPv6Address) -> EndpointRecord | None:
        return next((r for r in self._records.values() if address in r.addresses), None)

    def find(self, text: str) -> EndpointRecord | None:
        """By id, ``namespace/pod`` or name of a pod of namespace default."""
        if text.isdecimal():
            return self.get(int(text))
        namespace, _, name = text.rpartition("/")
        return self.by_pod(namespace or "default", name)

    def next_id(self) -> int:
        """The next free id, not one that was given or in use a moment ago; raises BadEndpoint
        when full."""
        for step in range(1, MAX_ENDPOINT_ID + 1):
            candidate = (self._last_id + step - 1) % MAX_ENDPOINT_ID + 1
            if candidate not in self._records:
                self._last_id = candidate
                return candidate
        raise BadEndpoint(f"this node already has {MAX_ENDPOINT_ID} endpoints")

    def put(self, record: EndpointRecord) -> None:
        self._records[record.id] = record
        self._last_id = record.id if record.id > self._last_id else self._last_id
        write_json(self._directory / f"{record.id}.json", asdict(record))

    def remove(self, endpoint_id: int) -> None:
        self._records.pop(endpoint_id, None)
        (self._directory / f"{endpoint_id}.json").unlink(missing_ok=True)
