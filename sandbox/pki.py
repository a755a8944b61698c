"""Certificates and kubeconfigs of a cluster on one machine: made anew each time it is created."""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path

import trustme
import yaml


class Pki:
    """Everything is a PEM file in ``directory``: NAME.crt and NAME.key, ca.crt."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._ca = trustme.CA(organization_name="sidegate sandbox")
        directory.mkdir(parents=True, exist_ok=True)
        directory.chmod(0o700)
        self._ca.cert_pem.write_to_path(str(self.ca))

    @property
    def ca(self) -> Path:
        return self._directory / "ca.crt"

    def certificate(self, name: str) -> Path:
        return self._directory / f"{name}.crt"

    def key(self, name: str) -> Path:
        return self._directory / f"{name}.key"

    def issue(self, name: str, user: str, *hosts: str, group: str | None = None) -> None:
        """For a client ``user`` of ``group``, for a server that is reached as ``hosts``, or both.

        Source: Kubernetes documentation, "Authenticating", X.509 client certificates.
        """
        made = self._ca.issue_cert(*(hosts or (f"{name}.test",)), common_name=user,
                                   organization_name=group)  # fmt: skip
        for at, blobs in ((self.certificate(name), made.cert_chain_pems),
                          (self.key(name), [made.private_key_pem])):  # fmt: skip
            at.write_bytes(b"".join(blob.bytes() for blob in blobs))
            at.chmod(0o600)

    def kubeconfig(self, name: str, server: str) -> Path:
        """For the client whose certificate is ``name``; written beside it, and its path."""

        def data(path: Path) -> str:
            return b64encode(path.read_bytes()).decode()

        cluster = {"server": server, "certificate-authority-data": data(self.ca)}
        user = {
            "client-certificate-data": data(self.certificate(name)),
            "client-key-data": data(self.key(name)),
        }
        path = self._directory / f"{name}.kubeconfig"
        path.touch(mode=0o600)
        path.write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [{"name": "sandbox", "cluster": cluster}],
                    "users": [{"name": name, "user": user}],
                    "contexts": [{"name": "s", "context": {"cluster": "sandbox", "user": name}}],
                    "current-context": "s",
                }
            )
        )
        return path
