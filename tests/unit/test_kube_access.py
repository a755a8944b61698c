"""Where the API server is and who we are there: pods' accounts and kubeconfigs."""

from __future__ import annotations

import base64
import ssl
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml
from aiohttp import web

from kube_store import kube_access
from kube_store.kube_access import of_pod
from kube_store.kube_client import CONNECTION_ERRORS, KubeClient, connect


@pytest.fixture
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
async def server(ca: trustme.CA) -> AsyncIterator[int]:
    """Its port. It tells who asks: the client's certificate, and the token."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.verify_mode = ssl.CERT_OPTIONAL
    ca.issue_cert("127.0.0.1").configure_cert(context)
    ca.configure_trust(context)

    async def answer(request: web.Request) -> web.Response:
        assert request.transport
        certificate = request.transport.get_extra_info("peercert") or {}
        return web.json_response(
            {
                "certificate": bool(certificate),
                "token": request.headers.get("authorization", ""),
                "query": dict(request.query),
            }
        )

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    yield runner.addresses[0][1]
    await runner.cleanup()


def kubeconfig(folder: Path, cluster: dict[str, Any], user: dict[str, Any]) -> Path:
    path = folder / "kubeconfig"
    said = {
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "other", "cluster": {}}, {"name": "c", "cluster": cluster}],
        "users": [{"name": "u", "user": user}],
    }
    path.write_text(yaml.safe_dump(said))
    return path


def data(blob: bytes) -> str:
    return base64.b64encode(blob).decode()


async def asked(client: KubeClient) -> Any:
    try:
        answer, _ = await client.request("GET", "/api", {"limit": "5", "labelSelector": "a=b"})
    finally:
        await client.close()
    assert answer["query"] == {"limit": "5", "labelSelector": "a=b"}
    return answer


@pytest.mark.parametrize("inline", [True, False])
async def test_a_client_certificate(
    server: int, ca: trustme.CA, tmp_path: Path, inline: bool
) -> None:
    leaf = ca.issue_cert("client.test")
    parts = {
        "client-certificate": leaf.cert_chain_pems[0].bytes(),
        "client-key": leaf.private_key_pem.bytes(),
        "certificate-authority": ca.cert_pem.bytes(),
    }
    for name, blob in parts.items():
        (tmp_path / name).write_bytes(blob)
    said: dict[str, Any] = (
        {f"{name}-data": data(blob) for name, blob in parts.items()}
        if inline
        else {name: name for name in parts}  # beside the kubeconfig
    )
    trusted = {name: said.pop(name) for name in list(said) if name.startswith("certificate-")}
    cluster = {"server": f"https://127.0.0.1:{server}/", **trusted}
    answer = await asked(await connect(kubeconfig(tmp_path, cluster, said)))
    assert (answer["certificate"], answer["token"]) == (True, "")


async def test_a_token(server: int, ca: trustme.CA, tmp_path: Path) -> None:
    trusted = {"certificate-authority-data": data(ca.cert_pem.bytes())}
    cluster = {"server": f"https://127.0.0.1:{server}", **trusted}
    answer = await asked(await connect(kubeconfig(tmp_path, cluster, {"token": "t"})))
    assert (answer["certificate"], answer["token"]) == (False, "Bearer t")


async def test_what_a_program_says_is_asked_of_it_by_the_official_client(
    server: int, ca: trustme.CA, tmp_path: Path
) -> None:
    said = '{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential",'
    said += '"status":{"token":"of-a-program"}}'
    program = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": sys.executable,
        "args": ["-c", f"print({said!r})"],
        "interactiveMode": "Never",
    }
    trusted = {"certificate-authority-data": data(ca.cert_pem.bytes())}
    cluster = {"server": f"https://127.0.0.1:{server}", **trusted}
    answer = await asked(await connect(kubeconfig(tmp_path, cluster, {"exec": program})))
    assert answer["token"] == "Bearer of-a-program"


async def test_whom_nobody_vouches_for_is_not_spoken_to(server: int, tmp_path: Path) -> None:
    stranger = data(trustme.CA().cert_pem.bytes())
    cluster = {"server": f"https://127.0.0.1:{server}", "certificate-authority-data": stranger}
    client = await connect(kubeconfig(tmp_path, cluster, {}))
    with pytest.raises(CONNECTION_ERRORS, match="certificate verify failed"):
        await asked(client)
    cluster["insecure-skip-tls-verify"] = True  # type: ignore[assignment]
    await asked(await connect(kubeconfig(tmp_path, cluster, {})))


async def test_a_pods_account(
    server: int, ca: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its token is replaced in its file."""
    monkeypatch.setattr(kube_access, "_TOKEN_SECONDS", 0)
    ca.cert_pem.write_to_path(str(tmp_path / "ca.crt"))
    (tmp_path / "token").write_text("first\n")
    where = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(server)}
    access = await of_pod(tmp_path, where)
    assert (await asked(KubeClient(access)))["token"] == "Bearer first"
    (tmp_path / "token").write_text("second")
    assert (await asked(KubeClient(access)))["token"] == "Bearer second"


async def test_an_address_of_ipv6_is_one_of_a_url(ca: trustme.CA, tmp_path: Path) -> None:
    ca.cert_pem.write_to_path(str(tmp_path / "ca.crt"))
    (tmp_path / "token").write_text("t")
    where = {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"}
    assert (await of_pod(tmp_path, where)).server == "https://[fd00::1]:443"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "no kubeconfig that can be read"),
        ("", "no kubeconfig that can be read"),
        ("[]", "no kubeconfig that can be read"),
        ("current-context: here\ncontexts: []", "no kubeconfig that can be read"),
        (
            "current-context: a\ncontexts: [{name: a, context: {cluster: c}}]\nclusters: []",
            "clusters has no",
        ),
    ],
)
async def test_what_is_no_kubeconfig_is_said(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(text)
    with pytest.raises(OSError, match=f"{path}.*{why}.*; name another with --kubeconfig"):
        await connect(path)


async def test_no_kubeconfig_and_no_pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(OSError, match=r"no pod's account.*; name another with --kubeconfig"):
        await connect(None)
    with pytest.raises(OSError, match="No such file"):
        await connect(tmp_path / "none")


@pytest.mark.parametrize(
    ("server", "proxy"),
    [("https://api.test:6443", "http://proxy.test:3128"), ("https://near.test", None)],
)
def test_the_environment_may_name_a_proxy(
    monkeypatch: pytest.MonkeyPatch, server: str, proxy: str | None
) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy.test:3128")
    monkeypatch.setenv("no_proxy", "near.test")
    assert kube_access.proxy_of(server) == proxy
