"""ReferenceGrant and BackendTLSPolicy. Source: gateway.networking.k8s.io/v1."""

from __future__ import annotations

import msgspec

from gateway_translator.resources.meta import Object, Struct
from gateway_translator.resources.refs import ObjectReference


class GrantFrom(Struct, frozen=True):
    group: str
    kind: str
    namespace: str


class GrantTo(Struct, frozen=True):
    group: str
    kind: str
    name: str = ""


class ReferenceGrantSpec(Struct, frozen=True):
    from_: tuple[GrantFrom, ...] = msgspec.field(name="from")
    to: tuple[GrantTo, ...]


class ReferenceGrant(Object, frozen=True):
    spec: ReferenceGrantSpec


class TargetReference(Struct, frozen=True):
    """``section_name``: of a Service, the name of a port."""

    name: str
    group: str = ""
    kind: str = "Service"
    section_name: str = ""


class SubjectAltName(Struct, frozen=True):
    type: str
    hostname: str = ""
    uri: str = ""


class TlsValidation(Struct, frozen=True):
    hostname: str
    ca_certificate_refs: tuple[ObjectReference, ...] = msgspec.field(
        name="caCertificateRefs", default=()
    )
    well_known: str = msgspec.field(name="wellKnownCACertificates", default="")
    subject_alt_names: tuple[SubjectAltName, ...] = ()


class BackendTlsPolicySpec(Struct, frozen=True):
    target_refs: tuple[TargetReference, ...]
    validation: TlsValidation


class BackendTlsPolicy(Object, frozen=True):
    spec: BackendTlsPolicySpec
