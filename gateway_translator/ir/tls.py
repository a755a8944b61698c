"""Certificates, and how TLS is spoken with clients. Key material shows in no repr."""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway_translator.ir.names import check


@dataclass(frozen=True, slots=True)
class Certificate:
    """``name``: ``namespace/name`` of the Secret. ``chain`` and ``key`` are PEM."""

    name: str
    chain: bytes = field(repr=False)
    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class TrustBundle:
    """CA certificates, PEM, of one or several ConfigMaps or Secrets joined."""

    name: str
    pem: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class ClientValidation:
    """Of client certificates. Source: Gateway ``spec.tls.frontend``.

    ``optional``: mode AllowInsecureFallback: a client without a certificate, or with one that does
    not verify, is served all the same.
    """

    trust: str
    optional: bool = False


@dataclass(frozen=True, slots=True)
class DownstreamTls:
    """``certificates``: names; several are of different kinds or names, SNI chooses among them."""

    certificates: tuple[str, ...]
    client: ClientValidation | None = None
    alpn: tuple[str, ...] = ("h2", "http/1.1")

    def __post_init__(self) -> None:
        check(bool(self.certificates), "DownstreamTls without a certificate")
