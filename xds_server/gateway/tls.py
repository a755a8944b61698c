"""Certificates as secrets (SDS), and TLS with clients and with backends."""

from __future__ import annotations

from typing import Any

from envoy.config.core.v3 import base_pb2
from envoy.extensions.transport_sockets.quic.v3 import quic_transport_pb2
from envoy.extensions.transport_sockets.tls.v3 import common_pb2, secret_pb2, tls_pb2
from google.protobuf.message import Message
from google.protobuf.wrappers_pb2 import BoolValue

from gateway_translator.ir import Certificate, DownstreamTls, Protocol, TrustBundle, UpstreamTls
from xds_server.gateway.names import ads, named, string
from xds_server.resources import packed

_TLS = "envoy.transport_sockets.tls"
_SYSTEM_CAS = "/etc/ssl/certs/ca-certificates.crt"  # Debian's, as of our images
_SAN = common_pb2.SubjectAltNameMatcher


def certificate_name(name: str) -> str:
    """A Secret may be a certificate and a bundle of CAs at once; in Envoy each has its name."""
    return named(f"certificate/{name}")


def trust_name(name: str) -> str:
    return named(f"trust/{name}")


def certificate_secret(certificate: Certificate) -> Message:
    secret: Message = secret_pb2.Secret(
        name=certificate_name(certificate.name),
        tls_certificate=common_pb2.TlsCertificate(
            certificate_chain=base_pb2.DataSource(inline_bytes=certificate.chain),
            private_key=base_pb2.DataSource(inline_bytes=certificate.key),
        ),
    )
    return secret


def trust_secret(bundle: TrustBundle) -> Message:
    secret: Message = secret_pb2.Secret(
        name=trust_name(bundle.name),
        validation_context=common_pb2.CertificateValidationContext(
            trusted_ca=base_pb2.DataSource(inline_bytes=bundle.pem)
        ),
    )
    return secret


def downstream(tls: DownstreamTls, quic: bool = False) -> Any:
    """The transport socket of a filter chain that ends TLS."""
    context = tls_pb2.DownstreamTlsContext(
        common_tls_context=tls_pb2.CommonTlsContext(
            tls_certificate_sds_secret_configs=[
                _sds(certificate_name(name)) for name in tls.certificates
            ],
            alpn_protocols=["h3"] if quic else tls.alpn,
        )
    )
    if tls.client:
        checks = common_pb2.CertificateValidationContext()
        if tls.client.optional:
            checks.trust_chain_verification = checks.ACCEPT_UNTRUSTED
        context.common_tls_context.combined_validation_context.CopyFrom(
            _combined(checks, tls.client.trust)
        )
        context.require_client_certificate.CopyFrom(BoolValue(value=not tls.client.optional))
    if quic:
        config = quic_transport_pb2.QuicDownstreamTransport(downstream_tls_context=context)
        return _socket("envoy.transport_sockets.quic", config)
    return _socket(_TLS, context)


def upstream(tls: UpstreamTls, protocol: Protocol) -> Any:
    """The transport socket of a cluster whose backends speak TLS."""
    checks = common_pb2.CertificateValidationContext(match_typed_subject_alt_names=_sans(tls))
    common = tls_pb2.CommonTlsContext()
    if tls.trust:
        common.combined_validation_context.CopyFrom(_combined(checks, tls.trust))
    else:
        checks.trusted_ca.filename = _SYSTEM_CAS
        common.validation_context.CopyFrom(checks)
    if tls.client_certificate:
        common.tls_certificate_sds_secret_configs.append(
            _sds(certificate_name(tls.client_certificate))
        )
    if protocol is not Protocol.TCP:
        common.alpn_protocols.append("h2" if protocol is Protocol.HTTP2 else "http/1.1")
    return _socket(_TLS, tls_pb2.UpstreamTlsContext(common_tls_context=common, sni=tls.sni))


def _sans(tls: UpstreamTls) -> list[Any]:
    names = tls.names if tls.names or tls.uris else (tls.sni,)
    # Envoy reads a name in the certificate that begins with "*." as a pattern (RFC 6125, 6.4.3).
    return [_SAN(san_type=_SAN.DNS, matcher=string(name)) for name in names] + [
        _SAN(san_type=_SAN.URI, matcher=string(uri)) for uri in tls.uris
    ]


def _combined(checks: Any, trust: str) -> Any:
    return tls_pb2.CommonTlsContext.CombinedCertificateValidationContext(
        default_validation_context=checks,
        validation_context_sds_secret_config=_sds(trust_name(trust)),
    )


def _sds(name: str) -> Any:
    return secret_pb2.SdsSecretConfig(name=name, sds_config=ads())


def _socket(name: str, config: Message) -> Any:
    return base_pb2.TransportSocket(name=name, typed_config=packed(config))
