"""backendRefs to clusters, with why one refers to nothing that may be served."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from gateway_translator.backend_tls import policy_for, read_policy
from gateway_translator.ir import Cluster, ObjectRef, Protocol, TrustBundle
from gateway_translator.resources.core import Service, ServicePort
from gateway_translator.resources.meta import Key
from gateway_translator.resources.refs import GROUP, BackendReference
from gateway_translator.secrets import UnusableError
from gateway_translator.world import Reader

Use = Literal["http", "grpc", "tcp", "udp"]
_APP_PROTOCOLS = {
    "kubernetes.io/h2c": Protocol.HTTP2,
    "kubernetes.io/ws": Protocol.WEBSOCKET,
    "kubernetes.io/wss": Protocol.WEBSOCKET,
}


class _PolicyInvalidError(Exception):
    """The reference itself resolves; what is wrong is said by the status of the policy."""


@dataclass(slots=True)
class BackendResolver:
    """Resolves the references of one route; collects the clusters that it found.

    ``client_certificate``: name of the one that the Gateway shows to backends; ``uses_tls``: it
    mattered. ``mesh``: for clients of these Services (namespace, name), whose address backends see;
    None: for clients of a Gateway.
    """

    referrer: Key
    reader: Reader
    client_certificate: str = ""
    group: str = GROUP
    mesh: frozenset[tuple[str, str]] | None = None
    clusters: dict[str, Cluster] = field(default_factory=dict)
    bundles: dict[str, TrustBundle] = field(default_factory=dict)
    problems: list[UnusableError] = field(default_factory=list)
    uses_tls: bool = False

    def cluster(self, ref: BackendReference, use: Use) -> str | None:
        """Its name; None if it cannot be had, which ``problems`` then says."""
        try:
            found = self._cluster(ref, use)
        except UnusableError as error:
            self.problems.append(error)
            return None
        except _PolicyInvalidError:
            return None
        return self.clusters.setdefault(found.name, found).name

    def _cluster(self, ref: BackendReference, use: Use) -> Cluster:
        namespace = ref.namespace or self.referrer[1]
        where = f"{ref.kind} {namespace}/{ref.name}"
        if (ref.group, ref.kind) != ("", "Service"):
            raise UnusableError("InvalidKind", f"{ref.group}/{where}: refer to a Service")
        # Whom a Service's clients have dialled they reach without a route as well.
        if (namespace, ref.name) not in (self.mesh or ()) and not self.reader.granted(
            (self.group, self.referrer[0], self.referrer[1]),
            ("", "Service", namespace, ref.name),
        ):
            raise UnusableError("RefNotPermitted", f"{where}: no ReferenceGrant there allows it")
        service = self.reader.service(namespace, ref.name)
        port = self._port(service, ref, where)
        transport = "UDP" if use == "udp" else "TCP"
        if port.protocol != transport:
            raise UnusableError(
                "UnsupportedProtocol", f"{where}: port {port.port} is {port.protocol}"
            )
        return self._with_tls((namespace, ref.name), port, _protocol(port, use))

    def _port(self, service: Service | None, ref: BackendReference, where: str) -> ServicePort:
        if service is None:
            raise UnusableError("BackendNotFound", f"{where} does not exist")
        if service.spec.type == "ExternalName":
            # Whoever may write a Service could otherwise reach what only the proxy can.
            raise UnusableError("UnsupportedValue", f"{where}: an ExternalName is not followed")
        port = service.port(ref.port)
        if port is None:
            raise UnusableError(
                "BackendNotFound", f"{where} has no port {ref.port or '(none given)'}"
            )
        return port

    def _with_tls(self, service: tuple[str, str], port: ServicePort, protocol: Protocol) -> Cluster:
        where = f"{service[0]}/{service[1]}/{port.port}"
        plain = _plain(*service, port.port, protocol, self.mesh is not None)
        if protocol in {Protocol.TCP, Protocol.UDP}:
            return plain
        policy = policy_for(self.reader, service, port)
        if policy is None:
            if port.app_protocol == "kubernetes.io/wss":
                text = f"Service {where}: kubernetes.io/wss needs a BackendTLSPolicy"
                raise UnusableError("UnsupportedProtocol", text)
            return plain
        reading = read_policy(policy, self.reader)
        if reading.tls is None:
            raise _PolicyInvalidError(f"BackendTLSPolicy {policy.namespace}/{policy.name}")
        self.uses_tls = True
        if reading.bundle is not None:
            self.bundles[reading.bundle.name] = reading.bundle
        certificate = self.client_certificate
        name = f"{plain.name}/tls:{policy.name}" + (f"/as:{certificate}" if certificate else "")
        tls = dataclasses.replace(reading.tls, client_certificate=certificate)
        return dataclasses.replace(plain, name=name, endpoints=name, tls=tls)


@functools.lru_cache(maxsize=4096)
def _plain(namespace: str, name: str, port: int, protocol: Protocol, mesh: bool) -> Cluster:
    """One object for all the routes that lead there."""
    cluster = f"{namespace}/{name}/{port}/{protocol}" + ("/mesh" if mesh else "")
    service = ObjectRef("Service", namespace, name)
    return Cluster(cluster, service, port, cluster, protocol, transparent=mesh)


def _protocol(port: ServicePort, use: Use) -> Protocol:
    if use in {"tcp", "udp"}:
        return Protocol(use)
    default = Protocol.HTTP2 if use == "grpc" else Protocol.HTTP
    return _APP_PROTOCOLS.get(port.app_protocol, default)


def reasons(problems: Iterable[UnusableError]) -> str:
    return "; ".join(dict.fromkeys(map(str, problems)))
