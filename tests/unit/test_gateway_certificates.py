"""Pairs of certificate and key that Envoy would refuse are told apart from those it takes."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID

from gateway_translator.certificates import bundle_problem, pair_problem

START = datetime.datetime(2024, 1, 1)
NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "example.com")])


def certificate(key: Any) -> bytes:
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return (
        x509.CertificateBuilder()
        .subject_name(NAME)
        .issuer_name(NAME)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(START)
        .not_valid_after(START + datetime.timedelta(days=1))
        .sign(key, algorithm)
        .public_bytes(serialization.Encoding.PEM)
    )


def pem(key: Any, password: bytes = b"") -> bytes:
    hidden = serialization.BestAvailableEncryption(password) if password else None
    return bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            hidden or serialization.NoEncryption(),
        )
    )


EC = ec.generate_private_key(ec.SECP256R1())
OTHER = ec.generate_private_key(ec.SECP256R1())
RSA = rsa.generate_private_key(65537, 2048)
SHORT = rsa.generate_private_key(65537, 1024)
EDWARDS = ed25519.Ed25519PrivateKey.generate()
KOBLITZ = ec.generate_private_key(ec.SECP256K1())
CASES = {
    # All of these have expired. Envoy serves such a pair, and clients judge it: so nobody is served
    # less than what its owner has given.
    "ecdsa": (certificate(EC), pem(EC), ""),
    "rsa": (certificate(RSA), pem(RSA), ""),
    "a chain, its own certificate first": (certificate(EC) + certificate(RSA), pem(EC), ""),
    "the chain the wrong way round": (certificate(RSA) + certificate(EC), pem(EC), "not the key"),
    "another key": (certificate(EC), pem(OTHER), "not the key"),
    "short": (certificate(SHORT), pem(SHORT), "1024 bits"),
    "edwards": (certificate(EDWARDS), pem(EDWARDS), "neither RSA nor ECDSA"),
    "another curve": (certificate(KOBLITZ), pem(KOBLITZ), "neither RSA nor ECDSA"),
    "with a password": (certificate(EC), pem(EC, b"secret"), "password"),
    "no certificate": (b"Hello", pem(EC), "tls.crt"),
    "no key": (certificate(EC), certificate(EC), "tls.key"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_pair(name: str) -> None:
    chain, key, problem = CASES[name]
    found = pair_problem(chain, key)
    assert problem in found if problem else not found


def test_bundles() -> None:
    assert not bundle_problem(certificate(EC) + certificate(RSA))
    assert bundle_problem(b"")
    assert bundle_problem(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
