"""Tables of Ingresses and of requests to them: what each is to be answered, and what it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import trustme
import yaml

from sandbox.conformance import CLASS
from tests.system.gateway_cluster.edge import (
    AGENT,
    NODES,
    Manifest,
    ask,
    ask_http3,
    manifest,
    tls_secret,
)

FOLDER = Path(__file__).parent
_SCALED = "echo-service"
REPLICAS = 10
_ASKED = 100
_HEADERS = ("content-length", "content-type", "date", "server")
_IMAGE = "gateway-conformance/echo-basic"
_NETWORKING = "networking.k8s.io/v1"

Table = list[dict[str, Any]]
EDGE, BACKEND = trustme.CA(), trustme.CA()
_SHOWN = {"edge": EDGE, "backend": BACKEND}


def load(name: str) -> Table:
    """``ingress_conformance`` or ``ingress_annotations``; each says what its fields are."""
    table: Table = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    return table


@dataclass(frozen=True)
class Case:
    """A request, and at which Ingress's addresses it is asked."""

    feature: str
    of: str
    request: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.feature}: {self.request['says']}"

    def addresses(self, known: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
        """``known``: of each Ingress."""
        if self.of == "nodes":
            return tuple(address for node in NODES for address in node.addresses)
        return known[self.of]


def cases(table: Table) -> list[Case]:
    return [
        Case(group["feature"], request.get("of", next(iter(group["ingresses"]))), request)
        for group in table
        for request in group["requests"]
    ]


def wanted(case: Case) -> dict[str, Any]:
    request = case.request
    if request.get("refused"):
        return {"status": 0}
    if "by" not in request:
        location = {"location": request["to"]} if "to" in request else {}
        return {"status": request["status"], **location}
    method, host, path = _target(request)
    return {
        "status": 200,
        "told of HTTP/3": _h3_port(request),
        "by": request["by"],
        # The backend names no server: we do, where we see its answer.
        "missing": ["server"] if "shown" in request else [],
        "reached it": (method, host, path, "HTTP/1.1", [AGENT]),
        **({"pods": request["pods"]} if "pods" in request else {}),
    }


def seen(case: Case, address: str) -> dict[str, Any]:
    """In the words of :func:`wanted`."""
    request = case.request
    method, url = request["ask"].split()
    ca = _SHOWN[request.get("shown", "edge")]
    http3 = request.get("http3")
    answer = ask_http3(address, url, ca) if http3 else ask(address, url, method, ca)
    if "by" not in request:
        location = {"location": answer.headers.get("location")} if "to" in request else {}
        return {"status": answer.status, **location}
    alternative = answer.headers.get("alt-svc")
    if answer.status == 308:  # on to HTTPS, at the same address
        answer = ask(address, answer.headers["location"], method, ca)
    told = answer.told
    found = {
        "status": answer.status,
        "told of HTTP/3": alternative,
        "by": told.get("service"),
        "missing": [name for name in _HEADERS if name not in answer.headers],
        "reached it": _reached(told, address),
    }
    if "pods" in request:
        asked = (ask(address, url, method, ca) for _ in range(_ASKED))
        found["pods"] = len({each.told.get("pod") for each in asked})
    return found


def _h3_port(request: dict[str, Any]) -> str | None:
    """What ``alt-svc`` is to say where it is asked by TCP and we end TLS."""
    parts = urlsplit(request["ask"].split()[1])
    if parts.scheme != "https" or request.get("http3") or "shown" in request:
        return None
    return f'h3=":{parts.port or 443}"; ma=86400'


def _target(request: dict[str, Any]) -> tuple[str, str, str]:
    """Method, host and path as the backend is to see them."""
    method, url = request["ask"].split()
    host, _, path = url.partition("://")[2].partition("/")
    return method, host, f"/{path}"


def _reached(told: dict[str, Any], address: str) -> tuple[Any, ...]:
    """An address as the host is none, as in the tables."""
    host = told.get("host")
    literal = f"[{address}]" if ":" in address else address
    host = "" if host == literal else host
    agent = told.get("headers", {}).get("User-Agent")
    return told.get("method"), host, told.get("path"), told.get("proto"), agent


def objects(*tables: Table) -> Iterator[Manifest]:
    """Everything that the tables' Ingresses need, and themselves."""
    groups = [group for table in tables for group in table]
    ingresses = {k: v for group in groups for k, v in group["ingresses"].items()}
    services = sorted(set(_services(list(ingresses.values()))))
    yield tls_secret(BACKEND, "backend-tls", "passed.test")
    yield from _backends([each for each in services if each != _SCALED])
    yield from _scaled()
    for group in groups:
        for name, hosts in group.get("secrets", {}).items():
            yield tls_secret(EDGE, name, *hosts)
        for name, parameters in group.get("classes", {}).items():
            yield manifest("v1", "ConfigMap", name, data=parameters)
            yield _class(name)
    for name, spec in ingresses.items():
        yield _ingress(name, spec)


def _ingress(name: str, spec: dict[str, Any]) -> Manifest:
    annotations = spec.pop("annotations", {})
    prefixed = {f"ingress.cilium.io/{key}": value for key, value in annotations.items()}
    return manifest(
        _NETWORKING, "Ingress", name,
        metadata={"annotations": prefixed}, spec={"ingressClassName": CLASS, **spec},
    )  # fmt: skip


def _class(name: str) -> Manifest:
    """Its parameters are the ConfigMap of its name."""
    parameters = {"kind": "ConfigMap", "name": name, "namespace": "default", "scope": "Namespace"}
    controller = "sidegate.io/ingress-controller"
    spec = {"controller": controller, "parameters": parameters}
    return manifest(_NETWORKING, "IngressClass", name, spec=spec)


def _services(found: Any) -> Iterator[str]:
    """The names of all backends, wherever they are."""
    if isinstance(found, dict):
        if "service" in found:
            yield found["service"]["name"]
        found = list(found.values())
    for each in found if isinstance(found, list) else ():
        yield from _services(each)


def _backends(services: list[str]) -> Iterator[Manifest]:
    """All of them in one pod, each a container with ports of its own."""
    containers = []
    for number, name in enumerate(services):
        plain, h2c, secure = (9000 + 10 * number + n for n in range(3))
        ports = {"HTTP_PORT": plain, "H2C_PORT": h2c, "HTTPS_PORT": secure}
        tls = {"TLS_SERVER_CERT": "/tls/tls.crt", "TLS_SERVER_PRIVKEY": "/tls/tls.key"}
        container = _container(name, {**{k: str(v) for k, v in ports.items()}, **tls})
        containers.append(container | {"volumeMounts": [{"name": "tls", "mountPath": "/tls"}]})
        yield _service(name, "echoes", http=plain, https=secure)
    volumes = [{"name": "tls", "secret": {"secretName": "backend-tls"}}]
    yield manifest(
        "v1", "Pod", "echoes", metadata={"labels": {"app": "echoes"}},
        spec={"containers": containers, "volumes": volumes},
    )  # fmt: skip


def _scaled() -> Iterator[Manifest]:
    labels = {"app": _SCALED}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [_container(_SCALED, {})]}}
    yield _service(_SCALED, _SCALED, http=3000)
    yield manifest(
        "apps/v1", "Deployment", _SCALED,
        spec={
            "replicas": REPLICAS, "selector": {"matchLabels": labels},
            "template": template,
        },
    )  # fmt: skip


def _service(name: str, app: str, **ports: int) -> Manifest:
    numbers = {"http": 8080, "https": 8443}
    listed = [{"name": k, "port": numbers[k], "targetPort": v} for k, v in ports.items()]
    return manifest("v1", "Service", name, spec={"selector": {"app": app}, "ports": listed})


def _container(service: str, environment: dict[str, str]) -> dict[str, Any]:
    named = {"SERVICE_NAME": service, **environment}
    pod = {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
    variables = [{"name": name, "value": value} for name, value in named.items()]
    return {"name": service, "image": _IMAGE, "env": [*variables, pod]}
