"""What a client of Kafka may do at a broker, by the policy of the client: its sidecar judges it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from sandbox.cluster import kubectl
from sandbox.mesh_probes import seen
from sandbox.probes import Probe
from tests.system.cluster_rig import eventually
from tests.system.istio import pods
from tests.system.istio.mesh import MESH, agent, applied, enforces

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(240)]


def _at_broker(*rules: dict[str, str]) -> list[pods.Object]:
    each: pods.Object = {"ports": [{"port": "9092", "protocol": "TCP"}]}
    return [{**each, "rules": {"kafka": list(rules)}} if rules else each]


@pytest.fixture(scope="module")
def teller(mesh: None) -> Iterator[None]:
    """It may write one topic; to the broker it is as good as anybody."""
    where = "k8s:io.kubernetes.pod.namespace"
    system = [{"matchLabels": {where: each}} for each in ("istio-system", "kube-system")]
    egress = [
        {"toEndpoints": pods.peers("kafka"),
         "toPorts": _at_broker({"role": "produce", "topic": "audit"})},
        {"toEndpoints": system},
        {"toEntities": ["host", "remote-node", "kube-apiserver"]},
    ]  # fmt: skip
    broker = pods.policy(
        "kafka", ingress=[{"fromEndpoints": pods.peers("teller"), "toPorts": _at_broker()}]
    )
    broker["metadata"]["name"] = "kafka-by-teller"
    idle = [{"name": "app", "image": "sidegate.test/client"}]
    made = pods.text(pods.policy("teller", egress=egress), broker,
                     pods.pod("teller", containers=idle))  # fmt: skip
    with applied(made):
        kubectl(MESH, "wait", "--for=condition=Ready", "pod/teller", "--timeout=240s")
        eventually(True, lambda: enforces("default/teller"), 20)
        yield


@pytest.mark.usefixtures("teller")
@pytest.mark.parametrize(
    ("kafka", "expected"),
    [("produce audit", "allowed"), ("produce ledger", "denied"), ("consume audit", "denied")],
)
def test_each_request_is_judged_before_it_leaves(kafka: str, expected: str) -> None:
    assert seen(MESH, Probe("teller", expected, kafka=kafka))[0] == expected
    verdict = "forwarded" if expected == "allowed" else expected
    eventually(True, lambda: kafka.split()[1] in _topics(verdict))


def _topics(verdict: str) -> set[str]:
    """Of which its sidecar judged requests so, on their way out."""
    said = agent("teller", "observe", "--last", "200", "--direction", "egress", "--layer", "L7",
                 "--verdict", verdict, "--pod", "teller", "-o", "json")  # fmt: skip
    flows: list[dict[str, Any]] = [json.loads(line) for line in said.splitlines()]
    return {topic for flow in flows if flow["kafka"] for topic in flow["kafka"]["topics"]}
