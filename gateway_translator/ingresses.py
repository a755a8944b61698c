"""One Ingress to routes of virtual hosts and to TLS chains, by itself. Source: IngressSpec."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from gateway_translator.backends import BackendResolver
from gateway_translator.compiled import Precedence
from gateway_translator.hostnames import ANY, covers
from gateway_translator.ingress_options import Options
from gateway_translator.ir import (
    Backends,
    Forward,
    HttpAction,
    HttpMatch,
    HttpRoute,
    ObjectRef,
    PathKind,
    PathMatch,
    Redirect,
    Timeouts,
    ValueMatch,
    WeightedBackend,
)
from gateway_translator.listener_tls import Material
from gateway_translator.resources.core import Service
from gateway_translator.resources.ingress import Ingress, IngressBackend, IngressPath
from gateway_translator.resources.meta import Key
from gateway_translator.resources.refs import BackendReference, ObjectReference
from gateway_translator.route_matches import http_precedence
from gateway_translator.secrets import UnusableError, certificate
from gateway_translator.tables import Entries
from gateway_translator.world import Reader

_KINDS = {
    "Exact": PathKind.EXACT,
    "Prefix": PathKind.PREFIX,
    "ImplementationSpecific": PathKind.STRING_PREFIX,
}
_LAST: Precedence = (9, 0, 0, 0, 0)
_TO_HTTPS = HttpAction(redirect=Redirect(scheme="https", status=308))


@dataclass(slots=True)
class CompiledIngress:
    """``plain`` and ``secure``: routes by hostname, for ports 80 and 443.

    ``certificates``: (server name, "" for any; name of the certificate).
    """

    options: Options
    plain: dict[str, Entries] = field(default_factory=dict)
    secure: dict[str, Entries] = field(default_factory=dict)
    certificates: list[tuple[str, str]] = field(default_factory=list)
    passthrough: list[tuple[str, Forward]] = field(default_factory=list)
    material: Material = field(default_factory=Material)
    problems: list[str] = field(default_factory=list)


def compile_ingress(
    ingress: Ingress, options: Options, backends: BackendResolver, reader: Reader
) -> CompiledIngress:
    """A path that leads nowhere answers 500; a host without a usable certificate has no TLS."""
    compiled = CompiledIngress(options)
    if refusal := reader.refusal(ingress.key):
        compiled.problems.append(f"the proxy refuses it: {refusal}")
        return compiled
    reading = _Reading(ingress, options, backends, reader)
    if options.tls_passthrough:
        compiled.passthrough = list(reading.passthrough())
    else:
        _certificates(ingress, reader, compiled)
        hosts = reading.hosts()
        secured = [name for name, _ in compiled.certificates]
        for host, entries in hosts.items():
            if any(covers(name, host) for name in secured):
                compiled.secure[host] = entries
                if options.force_https:
                    compiled.plain[host] = tuple(
                        (key, HttpRoute(r.name, r.origin, r.match, _TO_HTTPS)) for key, r in entries
                    )
                    continue
            compiled.plain[host] = entries
    compiled.problems += reading.problems + [str(each) for each in backends.problems]
    return compiled


@dataclass(slots=True)
class _Reading:
    ingress: Ingress
    options: Options
    backends: BackendResolver
    reader: Reader
    problems: list[str] = field(default_factory=list)

    def hosts(self) -> dict[str, Entries]:
        """With the default backend behind the paths of each host."""
        found: dict[str, list[tuple[Precedence, HttpRoute]]] = {}
        for number, rule in enumerate(self.ingress.spec.rules):
            host = rule.host.lower() or ANY
            entries = found.setdefault(host, [])
            for index, path in enumerate(rule.http.paths if rule.http else ()):
                match = self._match(path, host)
                if match is not None:
                    key = self._key(http_precedence(match), number, index)
                    entries.append((key, self._route(match, path.backend, number, index)))
        default = self.ingress.spec.default_backend
        if default is not None:
            found.setdefault(ANY, [])
            number = len(self.ingress.spec.rules)
            for index, entries in enumerate(found.values()):
                route = self._route(HttpMatch(), default, number, index)
                entries.append((self._key(_LAST, number, index), route))
        return {host: tuple(entries) for host, entries in found.items()}

    def passthrough(self) -> Iterator[tuple[str, Forward]]:
        """By server name: what a path would be is not seen."""
        for rule in self.ingress.spec.rules:
            for path in rule.http.paths[:1] if rule.http else ():
                reference = self._reference(path.backend)
                cluster = self.backends.cluster(reference, "tcp") if reference else None
                valid = (WeightedBackend(cluster),) if cluster else ()
                forward = Forward(Backends(valid), ObjectRef(*self.ingress.key))
                yield rule.host.lower(), forward

    def _key(self, precedence: Precedence, number: int, index: int) -> Precedence:
        return (*precedence, *self.ingress.age, "ingress", number, index)

    def _route(
        self, match: HttpMatch, backend: IngressBackend, number: int, index: int
    ) -> HttpRoute:
        reference = self._reference(backend)
        cluster = self.backends.cluster(reference, "http") if reference else None
        if refusal := self.reader.refusal(self.ingress.key, str(number)):
            self.problems.append(f"rule {number}: the proxy refuses it: {refusal}")
            cluster = None
        timeouts = Timeouts(request=self.options.request_timeout)
        action = HttpAction(
            Backends((WeightedBackend(cluster),)) if cluster else Backends(invalid_weight=1),
            timeouts=timeouts,
        )
        name = f"ingress/{self.ingress.namespace}/{self.ingress.name}/{number}/{index}"
        return HttpRoute(name, ObjectRef(*self.ingress.key, str(number)), match, action)

    def _match(self, path: IngressPath, host: str) -> HttpMatch | None:
        kind = _KINDS.get(path.path_type)
        if kind is None or not path.path.startswith("/"):
            self.problems.append(f"path {path.path!r} of type {path.path_type!r} is not served")
            return None
        value = path.path
        if kind is PathKind.PREFIX:
            value = value.rstrip("/") or "/"
        headers: tuple[ValueMatch, ...] = ()
        if host.startswith("*."):
            # In an Ingress the star is exactly one label, in a virtual host it is one or more.
            pattern = r"[^.]+" + re.escape(host[1:]) + r"(:[0-9]+)?"
            headers = (ValueMatch(":authority", pattern, regex=True),)
        return HttpMatch(PathMatch(kind, value), headers=headers)

    def _reference(self, backend: IngressBackend) -> BackendReference | None:
        service = backend.service
        if service is None:
            self.problems.append("a backend that is no Service is not served")
            return None
        number = service.port.number
        if service.port.name:
            key: Key = ("Service", self.ingress.namespace, service.name)
            found = self.reader.get(key, Service)
            ports = found.spec.ports if found else ()
            number = next((p.port for p in ports if p.name == service.port.name), 0)
        return BackendReference(name=service.name, port=number)


def _certificates(ingress: Ingress, reader: Reader, compiled: CompiledIngress) -> None:
    """Hosts that are not given are those of the rules; without any, every server name."""
    for entry in ingress.spec.tls:
        reference = ObjectReference(name=entry.secret_name)
        try:
            found = certificate(reference, ingress.key, reader, "InvalidCertificateRef")
        except UnusableError as error:
            compiled.problems.append(f"tls: {error}")
            continue
        compiled.material.certificates[found.name] = found
        hosts = entry.hosts or tuple(rule.host for rule in ingress.spec.rules) or ("",)
        compiled.certificates += [(host.lower(), found.name) for host in hosts]
