"""Certificates as a thief of an account's token has them made, by Istio's own CA API."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from google.protobuf import field_mask_pb2, wrappers_pb2

from sandbox.cluster import kubectl
from tests.system.istio.mesh import MESH

_CA = "istiod.istio-system.svc"
_PORT = 15012
_METHOD = "istio.v1.auth.IstioCertificateService/CreateCertificate"


@dataclass(frozen=True, slots=True)
class Certificate:
    """Files of PEM."""

    chain: Path
    key: Path


def of_mesh(account: str, folder: Path) -> Certificate:
    """For an account of the default namespace, by the mesh's CA. Raises CalledProcessError."""
    key = ec.generate_private_key(ec.SECP256R1())
    asked = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    csr = asked.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()
    chain = "".join(_sign(csr, account, folder))
    return _written(folder / f"mesh-{account}", chain.encode(), key)


def of_stranger(account: str, folder: Path) -> Certificate:
    """It says the same, and is its own CA."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    spiffe = x509.UniformResourceIdentifier(f"spiffe://cluster.local/ns/default/sa/{account}")
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "stranger")])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([spiffe]), critical=True)
        .sign(key, hashes.SHA256())
    )
    chain = made.public_bytes(serialization.Encoding.PEM)
    return _written(folder / f"stranger-{account}", chain, key)


def _written(path: Path, chain: bytes, key: ec.EllipticCurvePrivateKey) -> Certificate:
    made = Certificate(path.with_suffix(".pem"), path.with_suffix(".key"))
    made.chain.write_bytes(chain)
    private = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    made.key.write_bytes(key.private_bytes(serialization.Encoding.PEM, *private))
    return made


def _sign(csr: str, account: str, folder: Path) -> list[str]:
    """security/v1alpha1/ca.proto of istio.io/api: field 1 of the request is the CSR, field 1 of the
    response the chain; messages of protobuf's own have the same fields. gRPC goes by curl, which
    runs in whatever network it is started in."""
    message = wrappers_pb2.StringValue(value=csr).SerializeToString()
    request, root = folder / "request", folder / "root.pem"
    request.write_bytes(b"\0" + len(message).to_bytes(4) + message)
    data = r"jsonpath={.data.root-cert\.pem}"
    root.write_text(kubectl(MESH, "get", "configmap", "istio-ca-root-cert", "-o", data))
    token = kubectl(MESH, "create", "token", account, "--audience=istio-ca").strip()
    istiod = kubectl(MESH, "get", "pods", "-n", "istio-system", "-l", "app=istiod",
                     "-o", "jsonpath={.items[0].status.podIP}")  # fmt: skip
    answer = subprocess.run(
        ["ip", "netns", "exec", MESH.netns, "curl", "-sSf", "--http2", "--max-time", "20",
         "--cacert", root, "--resolve", f"{_CA}:{_PORT}:{istiod}",
         "-H", "content-type: application/grpc", "-H", "te: trailers",
         "-H", f"authorization: Bearer {token}", "-H", "clusterid: Kubernetes",
         "--data-binary", f"@{request}", f"https://{_CA}:{_PORT}/{_METHOD}"],
        check=True, capture_output=True,
    ).stdout  # fmt: skip
    assert answer, "no certificate: see istiod's log"
    return list(field_mask_pb2.FieldMask.FromString(answer[5:]).paths)
