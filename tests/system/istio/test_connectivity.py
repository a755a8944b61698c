"""``sidegate connectivity test --istio`` against a real mesh."""

from __future__ import annotations

import json
import signal
import subprocess

import pytest

from sandbox.cluster import kubectl
from tests.system.cluster_rig import CLI
from tests.system.istio.mesh import MESH

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(300)]

COMMAND = (str(CLI), "connectivity", "test", "--istio", "--namespace=trial")


def _namespaces() -> list[str]:
    return kubectl(MESH, "get", "namespaces", "-o", "name").split()


@pytest.mark.usefixtures("mesh")
def test_all_cases_come_out_as_expected_and_nothing_is_left() -> None:
    done = subprocess.run(
        [*COMMAND, f"--kubeconfig={MESH.kubeconfig}", "-o", "json"],
        check=False, capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert {row["stage"] for row in rows} >= {"HTTP in strict mTLS", "authentication", "Kafka"}
    assert {row["seen"] for row in rows} >= {"200", "403", "no answer", "allowed", "denied"}
    assert "namespace/trial" not in _namespaces()


@pytest.mark.usefixtures("mesh")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_who_stops_it_finds_nothing_left(number: signal.Signals) -> None:
    test = subprocess.Popen(
        [*COMMAND, f"--kubeconfig={MESH.kubeconfig}"], stdout=subprocess.PIPE, text=True,
        # As from a terminal: who runs tests in the background may ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )  # fmt: skip
    assert test.stdout
    assert "start in namespace trial" in test.stdout.readline()
    while "namespace/trial" not in _namespaces():
        assert test.poll() is None
    test.send_signal(number)
    assert test.wait(90) == 130
    assert "namespace/trial" not in _namespaces()
