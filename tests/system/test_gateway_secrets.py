"""Keys go to Envoy and nowhere else: no log, no dump and no status has any of one."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import ssl
from typing import Any

import pytest
import trustme

from gateway_translator.dump import dump_snapshot
from tests.system.module_rig import free_port
from tests.system.test_gateway_refusals import ADDRESS, Served, moved, served
from tests.unit.gateway_manifests import Manifest, gateway, gateway_class, listener, route

__all__ = ["served"]  # a fixture
pytestmark = [pytest.mark.system, pytest.mark.timeout(90)]

_PIECE = 40  # characters of a key in base64: nothing else has the same ones


def secret(name: str, chain: bytes, key: bytes) -> Manifest:
    data = {"tls.crt": chain, "tls.key": key}
    return {
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
        "metadata": {"name": name, "namespace": "shop"},
        "data": {field: base64.b64encode(part).decode() for field, part in data.items()},
    }  # fmt: skip


def pieces(key: bytes) -> set[str]:
    """Of a key, as PEM has them and as a Secret has that."""
    lines = [line for line in key.decode().splitlines() if not line.startswith("-")]
    whole = [base64.b64encode(key).decode(), base64.b64encode("".join(lines).encode()).decode()]
    return {
        text[at : at + _PIECE]
        for text in (*lines, *whole)
        for at in range(0, max(1, len(text) - _PIECE), 8)
    }


def https(name: str, port: int, hostname: str) -> Manifest:
    tls = {"certificateRefs": [{"name": name}]}
    return listener(name, port, "HTTPS", hostname=hostname, tls=tls)


async def until(port: int, name: str) -> None:
    """Its certificate is served."""
    for _ in range(300):
        with contextlib.suppress(OSError):
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            _, writer = await asyncio.open_connection(
                ADDRESS, port, ssl=context, server_hostname=name
            )
            writer.close()
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"{name} is not served")


async def test_no_key_is_said_anywhere(served: Served, capfd: pytest.CaptureFixture[str]) -> None:
    """One pair is good, one has another's key, one is no pair at all: errors say most."""
    ca, port = trustme.CA(), free_port(ADDRESS)
    good, other = ca.issue_cert("a.test"), ca.issue_cert("b.test")
    chain, key = good.cert_chain_pems[0].bytes(), good.private_key_pem.bytes()
    stranger = other.private_key_pem.bytes()
    broken = stranger.replace(b"PRIVATE", b"PRIVAT")
    served.say(
        gateway_class(),
        secret("good", chain, key),
        secret("mixed", chain, stranger),
        secret("broken", chain, broken),
        gateway(*(https(name, port, f"{name}.test") for name in ("good", "mixed", "broken"))),
        route("web", moved("PathPrefix", "/", "c.test")),
    )
    await until(port, "good.test")
    translator = served.gateways.objects.translator
    said: dict[str, Any] = {
        "configuration of Envoy": json.dumps(await served.node.admin.config_dump()),
        "log of Envoy": served.node.log,
        "status of xDS": json.dumps(served.node.server.status()),
        "statuses": json.dumps(served.gateways.status()),
        "routes": json.dumps(served.gateways.routes()),
        "dump": json.dumps(dump_snapshot(translator.snapshot())),
        "repr": repr(translator.snapshot()),
        "logs": "".join(capfd.readouterr()),
    }
    assert "mixed" in said["statuses"]
    for secret_key in (key, stranger, broken):
        for piece in pieces(secret_key):
            assert [where for where, text in said.items() if piece in text] == []
    certificate = json.dumps(chain.decode())[1:-1]
    assert (
        certificate in said["configuration of Envoy"]
        or base64.b64encode(chain).decode() in (said["configuration of Envoy"])
    ), "the secret is in what was looked at"
