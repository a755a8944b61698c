"""Which addresses Ingresses get, and what those say who only read them."""

from __future__ import annotations

from typing import Any

import pytest

from gateway_translator.ingress_options import CONTROLLER
from gateway_translator.ir import ObjectRef
from gateway_translator.pools import Allocator
from kube_store.gateway_addresses import Assigned, Assigner
from kube_store.gateways import GatewayObjects
from kube_store.resource import Resource, ResourceKey
from kube_store.store import Store
from tests.unit.gateway_manifests import Manifest, gateway, gateway_class, listener, service

POOL = {
    "apiVersion": "cilium.io/v2",
    "kind": "CiliumLoadBalancerIPPool",
    "metadata": {"name": "pool"},
    "spec": {"blocks": [{"start": "192.0.2.1", "stop": "192.0.2.9"}]},
}
CLASS = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "IngressClass",
    "metadata": {"name": "ours"},
    "spec": {"controller": CONTROLLER},
}


def ingress(
    name: str, mode: str = "dedicated", addresses: tuple[str, ...] = (), **annotations: str
) -> Manifest:
    given = {"loadbalancer-mode": mode, **{k.replace("_", "-"): v for k, v in annotations.items()}}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {
            "name": name,
            "namespace": "shop",
            "annotations": {f"ingress.cilium.io/{key}": value for key, value in given.items()},
        },
        "spec": {
            "ingressClassName": "ours",
            "defaultBackend": {"service": {"name": "orders", "port": {"number": 80}}},
        },
        "status": {"loadBalancer": {"ingress": [{"ip": each} for each in addresses]}},
    }


class Cluster:
    """A store, and what follows from it for an operator or, without a pool, an agent."""

    def __init__(self, *manifests: Manifest, agent: bool = False) -> None:
        self.store = Store()
        source = Assigned(self.store) if agent else Assigner(self.store, Allocator())
        self.objects = GatewayObjects(self.store, source, lambda: None)
        self.statuses: dict[ObjectRef, Any] = {}
        self.say(CLASS, service("orders"), *([] if agent else [POOL]), *manifests)

    def say(self, *manifests: Manifest) -> None:
        for each in manifests:
            metadata = each["metadata"]
            key = ResourceKey(each["kind"], metadata.get("namespace", ""), metadata["name"])
            self.store.upsert(Resource(key, each))
        self.settle()

    def remove(self, kind: str, namespace: str, name: str) -> None:
        self.store.apply([], [ResourceKey(kind, namespace, name)])
        self.settle()

    def settle(self) -> None:
        for output in self.objects.settle():
            self.statuses |= output.statuses

    def told(self, name: str) -> list[str]:
        status = self.statuses[ObjectRef("Ingress", "shop", name)]
        return [each["ip"] for each in status["loadBalancer"]["ingress"]]

    def of_gateway(self) -> list[str]:
        status = self.statuses[ObjectRef("Gateway", "shop", "web")]
        return [each["value"] for each in status["addresses"]]

    def bound(self) -> dict[str, tuple[str, ...]]:
        listeners = self.objects.translator.snapshot().listeners
        return {name: each.addresses for name, each in listeners.items()}


def test_a_dedicated_one_has_an_address_and_those_of_a_class_share_one() -> None:
    made = Cluster(
        gateway_class(), gateway(listener("http")), ingress("a"), ingress("b"),
        ingress("c", "shared"), ingress("d", "shared"),
    )  # fmt: skip
    addresses = [made.told(name) for name in "abcd"]
    assert addresses[2] == addresses[3]
    assert all(len(each) == 1 for each in addresses)
    assert len({each[0] for each in addresses}) == 3
    assert made.bound()["ingress:shop/a/80/tcp"] == tuple(made.told("a"))
    assert made.bound()["ingress:/ours/80/tcp"] == tuple(made.told("c"))
    assert made.bound()["shop/web/80/tcp"][0] not in {each[0] for each in addresses}


def test_what_was_told_before_is_kept_whoever_comes_first() -> None:
    made = Cluster(ingress("a"), ingress("b", addresses=("192.0.2.1",)))
    assert (made.told("a"), made.told("b")) == (["192.0.2.2"], ["192.0.2.1"])


def test_an_address_is_free_again_with_the_last_that_has_it() -> None:
    made = Cluster(ingress("c", "shared"), ingress("d", "shared"))
    (shared,) = made.told("c")
    made.remove("Ingress", "shop", "c")
    made.say(ingress("a"))
    assert made.told("d") == [shared] != made.told("a")
    made.remove("Ingress", "shop", "d")
    made.say(ingress("b"))
    assert made.told("b") == [shared]


def test_from_dedicated_to_shared_and_to_ports_of_the_node() -> None:
    made = Cluster(ingress("a"))
    (own,) = made.told("a")
    made.say(ingress("a", "shared", addresses=(own,)))
    assert made.told("a") == [own]  # it had it, and nobody else wants it
    made.say(ingress("a", service_type="NodePort", insecure_node_port="30080"))
    assert made.told("a") == []
    (served,) = made.objects.translator.snapshot().listeners.values()
    assert (served.addresses, served.node_port) == ((), 30080)


def parameters(service_type: str) -> Manifest:
    metadata = {"name": "reached", "namespace": "shop"}
    data = {"service-type": service_type, "node-port-80": "30080"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


@pytest.mark.parametrize(("service_type", "port"), [("NodePort", 30080), ("HostNetwork", 80)])
def test_a_gateway_moves_to_addresses_of_nodes_and_back(service_type: str, port: int) -> None:
    ref = {"group": "", "kind": "ConfigMap", "name": "reached"}
    web = gateway(listener("http"), infrastructure={"parametersRef": ref})
    made = Cluster(gateway_class(), parameters("LoadBalancer"), web)
    assert made.of_gateway() == ["192.0.2.1"]
    made.say(parameters(service_type))
    assert made.of_gateway() == []
    (served,) = made.objects.translator.snapshot().listeners.values()
    assert (served.addresses, served.node_port) == ((), port)
    made.say(ingress("a"))
    assert made.told("a") == ["192.0.2.1"], "it is free again"
    made.say(web | {"metadata": {**web["metadata"], "labels": {"any": "change"}}})
    assert made.of_gateway() == []
    made.say(parameters("LoadBalancer"))
    assert made.of_gateway() == ["192.0.2.2"]
    (_, served) = sorted(made.objects.translator.snapshot().listeners.values(), key=str)
    assert (served.addresses, served.node_port) == (("192.0.2.2",), 0)


def test_a_pool_that_comes_later_serves_those_that_wait() -> None:
    made = Cluster(ingress("a"), agent=True)
    assert made.bound() == {"ingress:shop/a/80/tcp": ()}
    made = Cluster()
    made.remove("CiliumLoadBalancerIPPool", "", "pool")
    made.say(ingress("a"))
    assert made.told("a") == []
    made.say(POOL)
    assert made.told("a") == ["192.0.2.1"]


def test_an_agent_binds_what_statuses_say() -> None:
    made = Cluster(ingress("a"), ingress("c", "shared"), ingress("d", "shared"), agent=True)
    made.say(ingress("a", addresses=("192.0.2.1",)), ingress("d", "shared", ("192.0.2.2",)))
    assert made.bound() == {
        "ingress:shop/a/80/tcp": ("192.0.2.1",),
        "ingress:/ours/80/tcp": ("192.0.2.2",),
    }


def test_those_of_other_classes_are_left_alone() -> None:
    other = ingress("a")
    other["spec"]["ingressClassName"] = "theirs"
    made = Cluster(other)
    assert made.bound() == {}
    assert made.statuses.get(ObjectRef("Ingress", "shop", "a")) is None


def test_a_status_that_is_no_address_binds_nothing() -> None:
    made = Cluster(gateway_class(), gateway(listener("http")), agent=True)
    said = [{"value": "nowhere"}, {}, {"value": "192.0.2.7"}]
    made.say(gateway(listener("http")) | {"status": {"addresses": said}})
    assert made.bound() == {"shop/web/80/tcp": ("192.0.2.7",)}
    made.say(ingress("a", addresses=("nowhere", "192.0.2.8")))
    assert made.bound()["ingress:shop/a/80/tcp"] == ("192.0.2.8",)
