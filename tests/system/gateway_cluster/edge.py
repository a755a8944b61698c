"""Two nodes that serve Gateways and Ingresses, and a client beside them on their network."""

from __future__ import annotations

import asyncio
import base64
import http.client
import json
import socket
import ssl
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import trustme
import yaml

from sandbox.cluster import kubectl, nodes_of
from sandbox.control_plane import Cluster
from tests.peers.http3 import connected
from tests.system.netns import inside

CLUSTER = Cluster("gwc")
NODES = nodes_of(CLUSTER, 2)
GATEWAY_API = "gateway.networking.k8s.io/v1"
AGENT = "sidegate-test/1"
"""The client's ``user-agent``."""
_PORTS = {"http": 80, "https": 443}

Manifest = dict[str, Any]


def manifest(version: str, kind: str, name: str, **fields: Any) -> Manifest:
    metadata = {"name": name, **fields.pop("metadata", {})}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **fields}


def tls_secret(ca: trustme.CA, name: str, *hosts: str) -> Manifest:
    """With a certificate that nobody has seen before."""
    leaf = ca.issue_cert(*hosts)
    chain = b"".join(pem.bytes() for pem in leaf.cert_chain_pems)
    parts = {"tls.crt": chain, "tls.key": leaf.private_key_pem.bytes()}
    data = {key: base64.b64encode(part).decode() for key, part in parts.items()}
    return manifest("v1", "Secret", name, type="kubernetes.io/tls", data=data)


def apply(*objects: Manifest) -> None:
    kubectl(CLUSTER, "apply", "-f", "-", text=yaml.safe_dump_all(objects))


def delete(*objects: Manifest) -> None:
    """What is not there is no error."""
    text = yaml.safe_dump_all(objects)
    kubectl(CLUSTER, "delete", "--ignore-not-found", "--wait=false", "-f", "-", text=text)


def status(kind: str, name: str) -> Any:
    return json.loads(kubectl(CLUSTER, "get", kind, name, "-o", "json")).get("status") or {}


def gateway_addresses(name: str) -> tuple[str, ...]:
    return tuple(each["value"] for each in status("gateway", name).get("addresses") or ())


def ingress_addresses(name: str) -> tuple[str, ...]:
    return _balanced(status("ingress", name))


def addresses_of_ingresses() -> dict[str, tuple[str, ...]]:
    """By their names."""
    found = json.loads(kubectl(CLUSTER, "get", "ingress", "-o", "json"))["items"]
    return {each["metadata"]["name"]: _balanced(each.get("status") or {}) for each in found}


def _balanced(status: Any) -> tuple[str, ...]:
    said = (status.get("loadBalancer") or {}).get("ingress") or ()
    return tuple(each["ip"] for each in said)


@dataclass(frozen=True, slots=True)
class Answer:
    """``status`` is 0 where there was none; names of ``headers`` are in small letters."""

    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def told(self) -> dict[str, Any]:
        """What the backend says of the request, {} if none answered."""
        found: dict[str, Any] = json.loads(self.body) if self.status == 200 else {}
        return found


def ask(
    address: str,
    url: str,
    method: str = "GET",
    ca: trustme.CA | None = None,
    seconds: float = 5,
    netns: str = CLUSTER.netns,
) -> Answer:
    """Of this address, whatever the URL's host is called; without a host, by the address.

    HTTPS verifies the host by ``ca``. Each step may take ``seconds``. A refused or broken
    connection is no answer.
    """
    parts = urlsplit(url)
    literal = f"[{address}]" if ":" in address else address
    host = parts.netloc or literal
    try:
        with inside(netns):
            where = (address, parts.port or _PORTS[parts.scheme])
            dialled = socket.create_connection(where, seconds)
        connection = http.client.HTTPConnection(host)
        secure = ca if parts.scheme == "https" else None
        connection.sock = _secured(dialled, parts.hostname or "", secure) if secure else dialled
        try:
            path = parts._replace(scheme="", netloc="", path=parts.path or "/").geturl()
            connection.request(method, path, headers={"Host": host, "User-Agent": AGENT})
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, found, answer.read())
        finally:
            connection.close()
    except (OSError, http.client.HTTPException):
        return Answer()


def ask_http3(address: str, url: str, ca: trustme.CA) -> Answer:
    """As :func:`ask`, over HTTP/3."""
    parts = urlsplit(url)
    with tempfile.NamedTemporaryFile(suffix=".pem") as trusted:
        ca.cert_pem.write_to_path(trusted.name)
        to = (address, parts.port or _PORTS["https"], parts.hostname or "", trusted.name)

        async def asked() -> Answer:
            async with connected(*to) as connection:
                found = await connection.get(parts.netloc, parts.path, {"user-agent": AGENT})
            return Answer(found.status, found.headers, found.body)

        try:
            with inside(CLUSTER.netns):
                return asyncio.run(asyncio.wait_for(asked(), 5))
        except (OSError, TimeoutError):
            return Answer()


def _secured(dialled: socket.socket, name: str, ca: trustme.CA) -> ssl.SSLSocket:
    """Raises OSError: where the certificate is another's, too."""
    context = ssl.create_default_context()
    ca.configure_trust(context)
    try:
        return context.wrap_socket(dialled, server_hostname=name)
    except OSError:
        dialled.close()
        raise
