"""What a pod asks and is asked from its first moment to its last is judged like all else: with a
native sidecar, and with one that merely starts before the application."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.cluster import kubectl
from sandbox.node import SANDBOX_ROOT
from tests.system.cluster_rig import eventually
from tests.system.istio import pods
from tests.system.istio.mesh import MESH, applied, node_of, within

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(300)]

# It serves and asks before it does anything else, and until it is killed.
_RESTLESS = """
trap '' TERM
http serve --http :8080 &
now=running
while true; do
  [ -e /state/draining ] && now=draining
  for path in /allowed /refused-here /refused-there; do
    printf '%s\n' "$now $path $(http get --timeout=500ms http://sedentary:8080$path)"
  done
done
"""
_DRAIN = "touch /state/draining; sleep 8"
_GRACE = 10  # seconds
_CLASSIC = {
    "sidecar.istio.io/nativeSidecar": "false",
    "proxy.istio.io/config": json.dumps(
        {"holdApplicationUntilProxyStarts": True, "terminationDrainDuration": f"{_GRACE}s"}
    ),
}
_GET = {"method": "GET"}


def _transient(annotations: dict[str, str]) -> str:
    """A pod that comes and goes, and who may ask it, and whom it may ask, for what. Clients know it
    while it drains as well."""
    app = {
        "name": "app", "image": "sidegate.test/client", "command": ["sh", "-c", _RESTLESS],
        "lifecycle": {"preStop": {"exec": {"command": ["sh", "-c", _DRAIN]}}},
        "volumeMounts": [{"name": "state", "mountPath": "/state"}],
    }  # fmt: skip
    where = "k8s:io.kubernetes.pod.namespace"
    system = [{"matchLabels": {where: each}} for each in ("istio-system", "kube-system")]
    egress = [
        {"toEndpoints": pods.peers("sedentary"),
         "toPorts": pods.http({**_GET, "path": "/(allowed|refused-there)"})},
        {"toEndpoints": system},
        {"toEntities": ["host", "remote-node", "kube-apiserver"]},
    ]  # fmt: skip
    ingress = [{"fromEndpoints": pods.peers("productpage"),
                "toPorts": pods.http({**_GET, "path": "/allowed"})}]  # fmt: skip
    return pods.text(
        pods.policy("transient", ingress=ingress, egress=egress),
        pods.service("transient", publishNotReadyAddresses=True),
        pods.pod(
            "transient",
            annotations,
            containers=[app],
            volumes=[{"name": "state", "emptyDir": {}}],
            terminationGracePeriodSeconds=_GRACE,
        ),
    )


@pytest.fixture(scope="module")
def sedentary(mesh: None) -> Iterator[None]:
    rules = [{"fromEndpoints": pods.peers("transient"),
              "toPorts": pods.http({**_GET, "path": "/(allowed|refused-here)"})}]  # fmt: skip
    other = pods.policy("sedentary", ingress=rules)
    other["metadata"]["name"] = "sedentary-by-transient"
    with pods.server("sedentary"), applied(pods.text(other)):
        yield


class Asked:
    """All that productpage saw of a pod: whether it drained, paths and statuses."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, str]] = []
        self._node, self._stopped = node_of("productpage"), threading.Event()

    @contextlib.contextmanager
    def asking(self) -> Iterator[None]:
        thread = threading.Thread(target=self._ask)
        thread.start()
        try:
            yield
        finally:
            self._stopped.set()
            thread.join()

    def _ask(self) -> None:
        while not self._stopped.is_set():
            now = "draining" if any(_files("volumes/state/draining")) else "running"
            for path in ("/allowed", "/refused"):
                url = f"http://transient:8080{path}"
                status = within(self._node, "productpage", ("--timeout=500ms", url))
                self.seen.append((now, path, status))


def _files(name: str) -> Iterator[Path]:
    return SANDBOX_ROOT.glob(f"*/pods/default_transient/{name}")


def told(text: str) -> list[tuple[str, str, str]]:
    """The same of what the pod itself wrote; the last line may be cut off."""
    found = []
    for line in text.splitlines():
        with contextlib.suppress(ValueError):
            now, path, said = line.split(" ", 2)
            found.append((now, path, str(json.loads(said)["status"] or "none")))
    return found


@pytest.mark.usefixtures("sedentary")
@pytest.mark.parametrize("annotations", [{}, _CLASSIC], ids=["native", "classic"])
def test_first_and_last_requests_are_judged_like_all_others(annotations: dict[str, str]) -> None:
    asked = Asked()
    with asked.asking(), applied(_transient(annotations)):
        kubectl(MESH, "wait", "--for=condition=Ready", "pod/transient", "--timeout=240s")
        (log,) = _files("app/log")
        with log.open() as file:  # it stays readable after the pod has gone
            eventually(True, lambda: ("running", "/allowed", "200") in asked.seen, 30)
            eventually(True, lambda: ("running", "/allowed", "200") in told(log.read_text()), 30)
            kubectl(MESH, "delete", "pod", "transient")
            own = told(file.read())
    for seen, refused in ((asked.seen, {"/refused"}), (own, {"/refused-here", "/refused-there"})):
        assert {path for _, path, status in seen if status == "200"} == {"/allowed"}
        judged = {("draining", "/allowed", "200")} | {("draining", path, "403") for path in refused}
        assert judged <= set(seen)
