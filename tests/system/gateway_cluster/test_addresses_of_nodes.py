"""Gateways that have no addresses of their own: NodePort and the network of the host."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sandbox.conformance import CLASS
from tests.system.cluster_rig import eventually
from tests.system.gateway_cluster.edge import (
    GATEWAY_API,
    NODES,
    Manifest,
    apply,
    delete,
    manifest,
    status,
)
from tests.system.gateway_cluster.store import BOTH, answers, route

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(300)]


def on_nodes(name: str, listener: int, **parameters: str) -> list[Manifest]:
    """A Gateway with parameters of its own, and a route of it to the store."""
    return [
        manifest("v1", "ConfigMap", name, data=parameters),
        manifest(
            GATEWAY_API, "Gateway", name,
            spec={
                "gatewayClassName": CLASS,
                "infrastructure": {
                    "parametersRef": {"group": "", "kind": "ConfigMap", "name": name}
                },
                "listeners": [{"name": "http", "port": listener, "protocol": "HTTP"}],
            },
        ),
        route(name, name, path={"type": "PathPrefix", "value": "/"}),
    ]  # fmt: skip


PORT = on_nodes("port", 80, **{"service-type": "NodePort", "node-port-80": "30081"})
HOST = on_nodes("host", 8088, **{"service-type": "HostNetwork"})


@pytest.fixture(scope="module", autouse=True)
def gateways() -> Iterator[None]:
    apply(*PORT, *HOST)
    yield
    delete(*PORT, *HOST)


def programmed(name: str) -> dict[str, str]:
    found = status("gateway", name).get("conditions") or ()
    return {each["type"]: each["status"] for each in found}


@pytest.mark.parametrize(("name", "port"), [("port", 30081), ("host", 8088)])
def test_every_node_serves_it_on_its_own_addresses(name: str, port: int) -> None:
    wanted = {"Accepted": "True", "ResolvedRefs": "True", "Programmed": "True"}
    eventually(wanted, lambda: programmed(name), 60)
    assert not status("gateway", name).get("addresses")
    for node in NODES:
        for address in node.addresses:
            eventually(BOTH, lambda at=address: answers(at, "/", port), 60)


def test_a_port_of_nodes_that_another_has_is_refused_and_harms_nobody() -> None:
    late = on_nodes("port-late", 80, **{"service-type": "NodePort", "node-port-80": "30081"})
    wanted = {"Accepted": "True", "ResolvedRefs": "True", "Programmed": "True"}
    eventually(wanted, lambda: programmed("port"), 60)
    apply(*late)
    try:
        eventually("False", lambda: programmed("port-late").get("Programmed"), 60)
        (listener,) = status("gateway", "port-late")["listeners"]
        said = {each["type"]: each["message"] for each in listener["conditions"]}
        assert said["Accepted"] == "port 30081 of nodes is that of Gateway default/port"
        assert programmed("port") == wanted
        for node in NODES:
            assert answers(node.addresses[0], "/", 30081) == BOTH
    finally:
        delete(*late)
