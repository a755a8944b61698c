"""Services of Gateways: what is written, what is left alone, and what goes again."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any, cast

import pytest

from cluster_operator.gateway_objects import service, service_name, slices
from cluster_operator.gateway_services import GatewayServices
from kube_store.kube_client import KubeClient, KubeError
from kube_store.resource import Resource, ResourceKey
from kube_store.store import Store
from kube_store.tasks import cancelled

GATEWAY: dict[str, Any] = {
    "apiVersion": "gateway.networking.k8s.io/v1",
    "kind": "Gateway",
    "metadata": {"name": "web", "namespace": "shop", "uid": "u1"},
    "spec": {
        "gatewayClassName": "sidegate",
        "infrastructure": {"labels": {"team": "a"}, "annotations": {"cost": "low"}},
        "listeners": [
            {"name": "a", "port": 443, "protocol": "HTTPS", "hostname": "a.test"},
            {"name": "b", "port": 443, "protocol": "TLS", "hostname": "b.test"},
            {"name": "dns", "port": 53, "protocol": "UDP"},
        ],
    },
}
PORTS = [
    {"name": "tcp-443", "protocol": "TCP", "port": 443},
    {"name": "udp-53", "protocol": "UDP", "port": 53},
]


SERVICE = "/api/v1/namespaces/shop/services/gateway-web"
SLICES = [
    f"/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices/gateway-web-{family}"
    for family in ("ipv4", "ipv6")
]


@pytest.mark.parametrize("gateway", ["web", "3.example", "w" * 100, f"{'w' * 100}.x", "a.b", "a-b"])
def test_a_name_that_a_service_may_have(gateway: str) -> None:
    assert re.fullmatch(r"gateway-[a-z0-9]([-a-z0-9]{0,53}[a-z0-9])?", service_name(gateway))


def test_two_gateways_have_two_names() -> None:
    names = ["a-b", "a.b", "w" * 100, "w" * 101]
    assert len({service_name(each) for each in names}) == len(names)


def test_labels_annotations_and_one_port_of_each_number() -> None:
    made = service(GATEWAY)
    assert made["metadata"]["labels"] == {
        "team": "a",
        "gateway.networking.k8s.io/gateway-name": "web",
    }
    assert made["metadata"]["annotations"] == {"cost": "low"}
    assert made["spec"] == {"clusterIP": "None", "ports": PORTS}


def test_an_address_is_in_the_slice_of_its_family() -> None:
    four, six = slices(GATEWAY, ["192.0.2.1", "2001:db8::1", "192.0.2.2"])
    assert [each["addresses"] for each in four["endpoints"]] == [["192.0.2.1"], ["192.0.2.2"]]
    assert [each["addresses"] for each in six["endpoints"]] == [["2001:db8::1"]]
    assert (four["addressType"], six["addressType"]) == ("IPv4", "IPv6")


class Client:
    """``held`` is what is there; ``said`` what was asked for, by path."""

    def __init__(self, held: dict[str, Any] | None = None) -> None:
        self.held, self.said = held, list[tuple[str, str]]()
        self.failures = 0

    async def find(self, _: str) -> dict[str, Any] | None:
        if self.failures:
            self.failures -= 1
            raise KubeError(500, "it is ill")
        return self.held

    async def apply(self, path: str, manifest: dict[str, Any], _: str) -> None:
        self.said.append(("apply", path))
        self.held = self.held or manifest

    async def remove(self, path: str) -> None:
        self.said.append(("remove", path))
        self.held = None


async def written(client: Client, say: Callable[[GatewayServices], None], count: int) -> None:
    """Until so much was asked for; nothing more comes."""
    store = Store()
    store.upsert(Resource(ResourceKey("Gateway", "shop", "web"), GATEWAY))
    made = GatewayServices(cast(KubeClient, client), store)
    running = asyncio.create_task(made.run())
    say(made)
    for _ in range(1000):
        if len(client.said) >= count:
            break
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)
    await cancelled(running)


async def test_written_once_while_it_says_the_same() -> None:
    client = Client()

    def say(made: GatewayServices) -> None:
        made.put(("shop", "web"), ["192.0.2.1"])
        asyncio.get_running_loop().call_later(0.02, made.put, ("shop", "web"), ["192.0.2.1"])

    await written(client, say, 3)
    assert client.said == [("apply", path) for path in (SERVICE, *SLICES)]


async def test_what_another_has_there_is_left_alone() -> None:
    client = Client({"metadata": {"name": "gateway-web"}})
    await written(client, lambda made: made.put(("shop", "web"), ["192.0.2.1"]), 0)
    await written(client, lambda made: made.put(("shop", "web"), None), 0)
    assert client.said == []


async def test_what_is_of_another_controller_now_is_taken_back() -> None:
    client = Client(service(GATEWAY))
    await written(client, lambda made: made.put(("shop", "web"), None), 3)
    assert client.said == [("remove", path) for path in (SERVICE, *SLICES)]


async def test_an_api_server_that_is_ill_is_asked_again() -> None:
    client = Client()
    client.failures = 1
    await written(client, lambda made: made.put(("shop", "web"), []), 3)
    assert len(client.said) == 3
