"""Certificates and CA bundles out of Secrets and ConfigMaps, with why one cannot be used."""

from __future__ import annotations

import base64
import binascii

from gateway_translator.certificates import bundle_problem, pair_problem
from gateway_translator.ir import Certificate, TrustBundle
from gateway_translator.resources.core import ConfigMap, Secret
from gateway_translator.resources.meta import Key
from gateway_translator.resources.refs import GROUP, ObjectReference
from gateway_translator.world import Reader


class UnusableError(Exception):
    """``reason`` is that of the condition; the message says what is wrong and with what."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def certificate(ref: ObjectReference, referrer: Key, reader: Reader, reason: str) -> Certificate:
    """Of a TLS Secret. Raises UnusableError, for ``reason`` unless it is not granted."""
    namespace = ref.namespace or referrer[1]
    where = f"Secret {namespace}/{ref.name}"
    if (ref.group, ref.kind) != ("", "Secret"):
        raise UnusableError(reason, f"{ref.group}/{ref.kind} {ref.name}: refer to a Secret")
    if not reader.granted((GROUP, referrer[0], referrer[1]), ("", "Secret", namespace, ref.name)):
        raise UnusableError("RefNotPermitted", f"{where}: no ReferenceGrant there allows it")
    secret = reader.get(("Secret", namespace, ref.name), Secret)
    if secret is None:
        raise UnusableError(reason, f"{where} does not exist")
    chain, key = _bytes(secret, "tls.crt"), _bytes(secret, "tls.key")
    if problem := pair_problem(chain, key):
        raise UnusableError(reason, f"{where}: {problem}")
    return Certificate(f"{namespace}/{ref.name}", chain, key)


def trust(
    refs: tuple[ObjectReference, ...],
    referrer: Key,
    reader: Reader,
    kind_reason: str,
) -> tuple[TrustBundle | None, list[UnusableError]]:
    """All usable references as one bundle, None if there is none, and what is wrong with others."""
    parts: list[tuple[str, bytes]] = []
    problems: list[UnusableError] = []
    for ref in refs:
        try:
            parts.append(_bundle(ref, referrer, reader, kind_reason))
        except UnusableError as error:
            problems.append(error)
    if not parts:
        return None, problems
    name = "+".join(name for name, _ in parts)
    return TrustBundle(name, b"\n".join(pem.strip() for _, pem in parts) + b"\n"), problems


def _bundle(
    ref: ObjectReference, referrer: Key, reader: Reader, kind_reason: str
) -> tuple[str, bytes]:
    namespace = ref.namespace or referrer[1]
    where = f"{ref.kind} {namespace}/{ref.name}"
    if ref.group or ref.kind not in {"ConfigMap", "Secret"}:
        raise UnusableError(
            kind_reason, f"{ref.group}/{where}: refer to a ConfigMap or a Secret with ca.crt"
        )
    if not reader.granted((GROUP, referrer[0], referrer[1]), ("", ref.kind, namespace, ref.name)):
        raise UnusableError("RefNotPermitted", f"{where}: no ReferenceGrant there allows it")
    holder: ConfigMap | Secret | None
    if ref.kind == "ConfigMap":
        holder = reader.get(("ConfigMap", namespace, ref.name), ConfigMap)
        pem = holder.data.get("ca.crt", "").encode() if holder else b""
    else:
        holder = reader.get(("Secret", namespace, ref.name), Secret)
        pem = _bytes(holder, "ca.crt") if holder else b""
    if holder is None:
        raise UnusableError("InvalidCACertificateRef", f"{where} does not exist")
    if problem := bundle_problem(pem):
        raise UnusableError("InvalidCACertificateRef", f"{where}: ca.crt: {problem}")
    return f"{ref.kind.lower()}:{namespace}/{ref.name}", pem


def _bytes(secret: Secret, field: str) -> bytes:
    if field in secret.string_data:
        return secret.string_data[field].encode()
    try:
        return base64.b64decode(secret.data.get(field, ""), validate=True)
    except binascii.Error:
        return b""
