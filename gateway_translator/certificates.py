"""Whether the proxy would take a certificate: found before it is sent, since it would refuse all.

Source: Envoy, "Certificate selection" and DownstreamTlsContext: RSA of 2048 bits and more, or ECDSA
on P-256, P-384 and P-521; the key must be that of the first certificate.
"""

from __future__ import annotations

from functools import lru_cache

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

_LEAST_RSA_BITS = 2048
_CURVES = frozenset({"secp256r1", "secp384r1", "secp521r1"})


@lru_cache(maxsize=4096)
def pair_problem(chain: bytes, key: bytes) -> str:
    """What is wrong with a chain and its key, both PEM; empty if nothing is."""
    if problem := bundle_problem(chain):
        return f"tls.crt: {problem}"
    try:
        private = load_pem_private_key(key, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return "tls.key: no private key in PEM, or one with a password"
    match private:
        case rsa.RSAPrivateKey() if private.key_size < _LEAST_RSA_BITS:
            return f"tls.key: RSA of {private.key_size} bits; use {_LEAST_RSA_BITS} or more"
        case rsa.RSAPrivateKey():
            pass
        case ec.EllipticCurvePrivateKey() if private.curve.name in _CURVES:
            pass
        case _:
            return "tls.key: neither RSA nor ECDSA on P-256, P-384 or P-521"
    if x509.load_pem_x509_certificate(chain).public_key() != private.public_key():
        return "tls.key is not the key of the first certificate of tls.crt"
    return ""


@lru_cache(maxsize=4096)
def bundle_problem(pem: bytes) -> str:
    """What is wrong with one or more certificates in PEM; empty if nothing is."""
    try:
        for each in x509.load_pem_x509_certificates(pem):
            each.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return "no certificate in PEM"
    return ""
