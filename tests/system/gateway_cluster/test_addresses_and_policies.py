"""Gateways and Ingresses of a cluster: addresses, and who they are to policies, on either node."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from sandbox.cluster import kubectl
from tests.system.cluster_rig import eventually
from tests.system.gateway_cluster.edge import (
    CLUSTER,
    apply,
    ask,
    gateway_addresses,
    ingress_addresses,
    status,
)
from tests.system.gateway_cluster.store import BOTH, answers, route
from tests.system.sandbox_rig import policy
from tests.system.test_gateway_refusals import REFUSED

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(600)]

POOLS = (ip_network("192.0.2.128/25"), ip_network("2001:db8::1:0/120"))
NODES_NETWORK = ip_network("192.0.2.0/24")


def gateway_address() -> str:
    """Of IPv4; empty while there is none."""
    return next((a for a in gateway_addresses("store") if ":" not in a), "")


def test_ingresses_have_addresses_of_the_pools_and_are_served_there() -> None:
    eventually(True, lambda: all(ingress_addresses(name) for name in ("own", "one", "two")), 60)
    own, one, two = (ingress_addresses(name) for name in ("own", "one", "two"))
    assert one == two
    gateway = gateway_addresses("store")
    assert len({*own, *one, *gateway}) == 3 * len(POOLS)
    for each in (*own, *one):
        assert any(ip_address(each) in pool for pool in POOLS)
        eventually(BOTH, lambda each=each: answers(each, "/"), 60)


def test_policies_of_backends_on_either_node_apply_to_what_enters() -> None:
    eventually(BOTH, lambda: answers(gateway_address(), "/things"), 60)
    ports = {"ports": [{"port": "8080", "protocol": "TCP"}]}
    rules = {"http": [{"method": "GET", "path": "/things"}]}
    rule = {"fromEntities": ["ingress"], "toPorts": [{**ports, "rules": rules}]}
    made = policy("store", "store", ingress=[rule])
    apply(made)
    try:
        eventually({(403, "")}, lambda: answers(gateway_address(), "/others"), 60)
        assert answers(gateway_address(), "/things") == BOTH
        (client,) = ask(gateway_address(), "http:///things").told["headers"]["X-Forwarded-For"]
        assert ip_address(client) in NODES_NETWORK
    finally:
        kubectl(CLUSTER, "delete", "ciliumnetworkpolicy", "store")


def test_what_the_nodes_envoys_refuse_is_a_condition_of_the_route() -> None:
    eventually(200, lambda: ask(gateway_address(), "http:///").status, 60)
    apply(route("bad", path={"type": "RegularExpression", "value": REFUSED}))

    def said() -> str:
        parents = status("httproute", "bad").get("parents") or [{"conditions": []}]
        found = {each["type"]: each["message"] for each in parents[0]["conditions"]}
        return "the proxy refuses it" if "the proxy refuses it" in str(found) else str(found)

    eventually("the proxy refuses it", said, 60)
    assert ask(gateway_address(), "http:///").status == 200
    kubectl(CLUSTER, "delete", "httproute", "bad")
