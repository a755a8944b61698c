"""Certificates and client validation of listeners that end TLS.

Source: ListenerTLSConfig, FrontendTLSConfig.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from gateway_translator.conditions import bad
from gateway_translator.ir import Certificate, ClientValidation, DownstreamTls, TrustBundle
from gateway_translator.listeners import ListenerState
from gateway_translator.resources.gateway import Gateway
from gateway_translator.secrets import UnusableError, certificate, trust
from gateway_translator.world import Reader


@dataclass(slots=True)
class Material:
    """Certificates and bundles that the listeners refer to, by name."""

    certificates: dict[str, Certificate] = field(default_factory=dict)
    bundles: dict[str, TrustBundle] = field(default_factory=dict)


def resolve_tls(gateway: Gateway, listeners: Iterable[ListenerState], reader: Reader) -> Material:
    """Certificates and client validation of all listeners that end TLS."""
    material = Material()
    for state in listeners:
        if state.ends_tls:
            _certificates(state, gateway, reader, material)
    return material


def _certificates(
    state: ListenerState, gateway: Gateway, reader: Reader, material: Material
) -> None:
    spec = state.spec
    names: list[str] = []
    for ref in spec.tls.certificate_refs if spec.tls else ():
        try:
            found = certificate(ref, state.owner, reader, "InvalidCertificateRef")
        except UnusableError as error:
            state.problems.append(error)
            continue
        material.certificates[found.name] = found
        names.append(found.name)
    if not names and not state.problems:
        text = "tls.certificateRefs is empty; refer to a Secret of type kubernetes.io/tls"
        state.problems.append(UnusableError("InvalidCertificateRef", text))
    validation = None
    if gateway.spec.tls and gateway.spec.tls.frontend and spec.protocol == "HTTPS":
        validation = gateway.spec.tls.frontend.at(spec.port)
    client: ClientValidation | None = None
    if validation is not None:
        bundle, problems = trust(
            validation.ca_certificate_refs, gateway.key, reader, "InvalidCACertificateKind"
        )
        state.problems += problems
        if bundle is None:
            text = "no reference of tls.frontend can be used: " + "; ".join(map(str, problems))
            state.accepted = bad("Accepted", "NoValidCACertificate", text)
            return
        material.bundles[bundle.name] = bundle
        client = ClientValidation(bundle.name, validation.mode == "AllowInsecureFallback")
    if names:
        alpn = ("h2", "http/1.1") if spec.protocol == "HTTPS" else ()
        state.tls = DownstreamTls(tuple(names), client, alpn)
