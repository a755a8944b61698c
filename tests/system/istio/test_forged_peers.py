"""Who claims to be another pod, by its certificate or by its address, is not taken for it."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.cluster import kubectl
from sandbox.execute import command_in
from sandbox.node import Node
from tests.system.cluster_rig import eventually
from tests.system.istio import certificates, pods
from tests.system.istio.certificates import Certificate
from tests.system.istio.mesh import MESH, address_of, applied, node_of, reasons

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(240)]

READER = "productpage"  # its account, and the label by which policy knows it


@pytest.fixture(scope="module")
def asked(mesh: None) -> Iterator[str]:
    """A server in strict mTLS, and two pods outside the mesh that speak TLS themselves: one is as
    policy wants it to be, the other one is not."""
    plain = {"sidecar.istio.io/inject": "false"}
    idle = [{"name": "app", "image": "sidegate.test/client"}]
    honest = pods.pod("honest", plain, containers=idle, serviceAccountName=READER)
    honest["metadata"]["labels"] = {"app": READER}
    forger = pods.pod("forger", plain, containers=idle)
    with pods.server("asked"), applied(pods.text(honest, forger)):
        kubectl(MESH, "wait", "--for=condition=Ready", "pod/honest", "pod/forger", "--timeout=240s")
        # Somebody may ask for something, so that the kernel does not settle it.
        rules = [{"fromEndpoints": pods.peers("forger"),
                  "toPorts": pods.http({"path": "/health"})}]  # fmt: skip
        forgers = pods.policy("asked", ingress=rules)
        forgers["metadata"]["name"] = "asked-by-forger"
        with applied(pods.text(forgers)):
            yield address_of("asked")


def ask(who: str, url: str, *options: str | Path) -> str:
    """The status that a request over TLS of its own ends with; "000" without an answer."""
    curl = ["curl", "-sk", "--http1.1", "-m", "2", "-o", "/dev/null", "-w", "%{http_code}"]
    command = command_in(Node(node_of(who)), who, [*curl, *map(str, options), url])
    return subprocess.run(command, check=False, capture_output=True, text=True).stdout


def showing(certificate: Certificate) -> tuple[str | Path, ...]:
    return "--cert", certificate.chain, "--key", certificate.key


def test_a_certificate_of_another_account_is_refused_by_the_address_it_comes_from(
    asked: str, tmp_path: Path
) -> None:
    """It is real: the mesh's CA signed it, for whoever has the account's token."""
    url, began = f"https://{asked}:8080/", time.time_ns()
    stolen, own = (certificates.of_mesh(name, tmp_path) for name in (READER, "default"))
    eventually("200", lambda: ask("honest", url, *showing(stolen)), 20)
    assert ask("honest", url, "-X", "DELETE", *showing(stolen)) == "403"
    assert ask("forger", f"{url}health", *showing(own)) == "200"
    assert ask("forger", url, *showing(own)) == "403", "by rule"
    assert "peer_mismatch" not in reasons("asked", began)
    for path in ("", "health"):
        assert ask("forger", f"{url}{path}", *showing(stolen)) == "403"
    eventually(True, lambda: "peer_mismatch" in reasons("asked", began))


def test_a_certificate_of_a_strange_ca_gets_no_answer(asked: str, tmp_path: Path) -> None:
    url = f"https://{asked}:8080/"
    eventually("200", lambda: ask("honest", url, *showing(certificates.of_mesh(READER, tmp_path))))
    assert ask("honest", url, *showing(certificates.of_stranger(READER, tmp_path))) == "000"
    assert ask("honest", url) == "000", "without any"


def test_a_forged_address_does_not_leave_the_pod(asked: str, tmp_path: Path) -> None:
    """Not even with the certificate that fits it."""
    url, began = f"https://{asked}:8080/health", time.time_ns()
    own, stolen = (showing(certificates.of_mesh(name, tmp_path)) for name in ("default", READER))
    eventually("200", lambda: ask("forger", url, *own), 20)
    forged = address_of(READER)
    interface = command_in(
        Node(node_of("forger")), "forger", ["ip", "addr", "add", f"{forged}/32", "dev", "eth0"]
    )
    subprocess.run(interface, check=True)
    assert ask("forger", url, "--interface", forged, *stolen) == "000"
    eventually(True, lambda: "invalid source" in reasons("forger", began))
    assert ask("forger", url, *own) == "200"
