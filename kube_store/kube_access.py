"""How an API server is reached, and who we are there: as the pod that we are, or by a kubeconfig.

What a kubeconfig says by itself is read here. Where it names a program or a provider of credentials
the official client is asked, which is not loaded otherwise: it takes 21 MB (docs/adr/0024).
Sources: "Accessing the Kubernetes API from a Pod"; kubeconfig (v1).
"""

from __future__ import annotations

import base64
import binascii
import os
import ssl
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import yaml

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_TOKEN_SECONDS = 60.0  # the kubelet replaces the file long before the token ends

Headers = Callable[[], Awaitable[Mapping[str, str]]]


async def nobody() -> Mapping[str, str]:
    """No header: a client certificate may say who we are."""
    return {}


@dataclass(frozen=True, slots=True)
class Access:
    """``headers`` say who we are; asked for each request, they raise OSError while there are none.

    ``server``: its URL. ``server_name`` is what its certificate says, if that is not its host.
    """

    server: str
    tls: ssl.SSLContext | None = None
    headers: Headers = nobody
    server_name: str | None = None
    proxy: str | None = None


def proxy_of(server: str) -> str | None:
    """What the environment says (HTTPS_PROXY, NO_PROXY); None: it is reached without."""
    url = urlsplit(server)
    if url.hostname is None or proxy_bypass(url.hostname):
        return None
    return getproxies().get(url.scheme)


class TokenFile:
    """A token that somebody replaces in its file."""

    def __init__(self, path: Path) -> None:
        self._path, self._headers, self._until = path, {"authorization": ""}, 0.0

    async def __call__(self) -> Mapping[str, str]:
        """Raises OSError."""
        if time.monotonic() >= self._until:
            token = self._path.read_text().strip()
            if not token:
                raise PermissionError(f"no credentials: {self._path} is empty")
            self._headers = _bearer(token)
            self._until = time.monotonic() + _TOKEN_SECONDS
        return self._headers


async def of_pod(account: Path = ACCOUNT, environ: Mapping[str, str] = os.environ) -> Access:
    """Raises OSError."""
    host, port = (environ.get(f"KUBERNETES_SERVICE_{each}", "") for each in ("HOST", "PORT"))
    if not host or not port:
        raise OSError("no pod's account: KUBERNETES_SERVICE_HOST and _PORT are not set")
    token = TokenFile(account / "token")
    await token()
    tls = ssl.create_default_context(cafile=str(account / "ca.crt"))
    return Access(f"https://{f'[{host}]' if ':' in host else host}:{port}", tls, token)


async def by_kubeconfig(path: Path) -> Access:
    """By its current context. Raises OSError, and ValueError for what is no kubeconfig."""
    try:
        said = yaml.safe_load(path.read_text())
        context = _named(said, "context", said["current-context"])
        cluster = _named(said, "cluster", context["cluster"])
        user = _named(said, "user", context["user"]) if context.get("user") else {}
        return _read(cluster, user, path.parent) if user.keys() <= _KNOWN else await _asked(path)
    except (yaml.YAMLError, TypeError, LookupError, AttributeError, binascii.Error) as error:
        raise ValueError(f"no kubeconfig that can be read: {error!r}") from None


_KNOWN = {
    "client-certificate", "client-certificate-data", "client-key", "client-key-data", "token",
    "tokenFile",
}  # fmt: skip


def _named(said: Mapping[str, Any], kind: str, name: str) -> dict[str, Any]:
    """Raises LookupError."""
    for each in said.get(f"{kind}s") or ():
        if each["name"] == name:
            found: dict[str, Any] = each[kind] or {}
            return found
    raise LookupError(f"{kind}s has no {name!r}")


def _read(cluster: Mapping[str, Any], user: Mapping[str, Any], folder: Path) -> Access:
    headers: Headers = nobody
    if user.get("tokenFile"):
        headers = TokenFile(folder / user["tokenFile"])
    elif user.get("token"):
        headers = _always(_bearer(user["token"]))
    tls = None
    if cluster["server"].startswith("https:"):
        with tempfile.TemporaryDirectory() as directory:  # OpenSSL reads files alone
            tls = _context(cluster, user, _Files(folder, Path(directory)))
    return Access(
        cluster["server"].rstrip("/"), tls, headers, cluster.get("tls-server-name"),
        cluster.get("proxy-url"),
    )  # fmt: skip


class _Files:
    """What a kubeconfig names, or holds itself, as files; ``directory`` is for the latter."""

    def __init__(self, folder: Path, directory: Path) -> None:
        self._folder, self._directory = folder, directory

    def of(self, said: Mapping[str, Any], name: str) -> str | None:
        if data := said.get(f"{name}-data"):
            file = self._directory / name
            file.touch(mode=0o600)
            file.write_bytes(base64.b64decode(data))
            return str(file)
        return str(self._folder / said[name]) if said.get(name) else None


def _context(cluster: Mapping[str, Any], user: Mapping[str, Any], files: _Files) -> ssl.SSLContext:
    made = ssl.create_default_context(cafile=files.of(cluster, "certificate-authority"))
    if cluster.get("insecure-skip-tls-verify"):
        made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
    if certificate := files.of(user, "client-certificate"):
        made.load_cert_chain(certificate, files.of(user, "client-key"))
    return made


async def _asked(path: Path) -> Access:
    """By the official client, which knows plugins and providers and renews what they give."""
    from kubernetes.aio import client, config  # noqa: PLC0415 - see above

    api: Any = client
    configuration: Any = api.Configuration()
    try:
        await config.load_kube_config(str(path), client_configuration=configuration)  # type: ignore[no-untyped-call]
    except config.ConfigException as error:
        raise ValueError(str(error)) from None
    official = api.ApiClient(configuration)

    async def headers() -> Mapping[str, str]:
        found: dict[str, str] = {}
        try:
            await official.update_params_for_auth(found, [], ["BearerToken"], "", "GET", None)
        except config.ConfigException as error:
            raise PermissionError(f"no credentials: {error}") from None
        return found

    return Access(
        configuration.host, official.rest_client.ssl_context, headers,
        configuration.tls_server_name, configuration.proxy,
    )  # fmt: skip


def _bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def _always(headers: Mapping[str, str]) -> Headers:
    async def said() -> Mapping[str, str]:
        return headers

    return said
