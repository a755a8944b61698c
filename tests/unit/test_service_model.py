"""Services and EndpointSlices to frontends and backends."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datapath.service_manifests import InvalidServiceError
from datapath.service_model import (
    Backend,
    Frontend,
    ServiceModel,
    ServicePort,
    compile_services,
)
from policy_engine.model import Protocol

READY = {"ready": True, "serving": True, "terminating": False}
NOT_READY = {"ready": False, "serving": False, "terminating": False}
TERMINATING = {"ready": False, "serving": True, "terminating": True}
GONE = {"ready": False, "serving": False, "terminating": True}


def service(name: str = "web", **spec: Any) -> dict[str, Any]:
    defaults = {"clusterIPs": ["10.96.0.10"], "ports": [{"name": "http", "port": 80}]}
    return {"kind": "Service", "metadata": {"name": name}, "spec": {**defaults, **spec}}


def endpoint_slice(
    endpoints: dict[str, dict[str, bool] | None], name: str = "web-1", service: str = "web",
    **fields: Any,
) -> dict[str, Any]:  # fmt: skip
    addresses = [
        {"addresses": [address], "nodeName": f"node-{address[-1]}"}
        | ({} if conditions is None else {"conditions": conditions})
        for address, conditions in endpoints.items()
    ]
    return {
        "kind": "EndpointSlice",
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv6" if any(":" in each for each in endpoints) else "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": addresses,
        **fields,
    }


def frontend(
    address: str = "10.96.0.10", port: int = 80, protocol: Protocol = Protocol.TCP
) -> Frontend:
    return Frontend(ip_address(address), port, protocol)


def backends(*addresses: str, port: int = 8080) -> tuple[Backend, ...]:
    return tuple(Backend(ip_address(each), port) for each in addresses)


WEB = frontend()


@pytest.mark.parametrize(
    ("case", "endpoints", "chosen", "draining"),
    [
        ("ready", {"10.0.0.1": READY, "10.0.0.2": READY}, ("10.0.0.1", "10.0.0.2"), ()),
        ("nothing said means ready", {"10.0.0.1": None, "10.0.0.2": {}},
         ("10.0.0.1", "10.0.0.2"), ()),
        ("not ready", {"10.0.0.1": READY, "10.0.0.2": NOT_READY}, ("10.0.0.1",), ()),
        ("terminating beside a ready one", {"10.0.0.1": READY, "10.0.0.2": TERMINATING},
         ("10.0.0.1",), ("10.0.0.2",)),
        ("only terminating ones that serve", {"10.0.0.1": GONE, "10.0.0.2": TERMINATING},
         ("10.0.0.2",), ()),
        ("serving, but neither ready nor terminating",
         {"10.0.0.1": {"ready": False, "serving": True}}, (), ()),
        ("none", {}, (), ()),
    ],
)  # fmt: skip
def test_conditions(
    case: str, endpoints: dict[str, Any], chosen: tuple[str, ...], draining: tuple[str, ...]
) -> None:
    table = compile_services([service()], [endpoint_slice(endpoints)])
    assert table == {WEB: ServicePort(backends(*chosen), backends(*draining))}, case


@pytest.mark.parametrize(
    ("case", "spec"),
    [
        ("headless", {"clusterIPs": ["None"]}),
        ("headless by the older field", {"clusterIPs": None, "clusterIP": "None"}),
        ("no address yet", {"clusterIPs": []}),
        ("ExternalName", {"type": "ExternalName", "clusterIPs": ["10.96.0.10"]}),
        ("SCTP", {"ports": [{"name": "http", "port": 80, "protocol": "SCTP"}]}),
    ],
)
def test_services_without_frontends(case: str, spec: dict[str, Any]) -> None:
    assert compile_services([service(**spec)], [endpoint_slice({"10.0.0.1": READY})]) == {}, case


def test_dual_stack_and_ports_by_name() -> None:
    ports = [
        {"name": "http", "port": 80},
        {"name": "dns", "port": 53, "protocol": "UDP"},
        {"name": "absent", "port": 81},
    ]
    in_slices = [
        {"name": "http", "port": 8080, "protocol": "TCP"},
        {"name": "dns", "port": 5353, "protocol": "UDP"},
        {"name": "http", "port": 9999, "protocol": "UDP"},
        {"name": "absent", "port": None},
    ]
    table = compile_services(
        [service(clusterIPs=["10.96.0.10", "fd00:96::a"], ports=ports)],
        [
            endpoint_slice({"10.0.0.1": READY}, ports=in_slices),
            endpoint_slice({"fd00::1": READY}, "web-2", ports=in_slices),
            endpoint_slice({"example.org": READY}, "web-3", addressType="FQDN"),
        ],
    )
    assert table == {
        WEB: ServicePort(backends("10.0.0.1")),
        frontend("fd00:96::a"): ServicePort(backends("fd00::1")),
        frontend(port=53, protocol=Protocol.UDP): ServicePort(backends("10.0.0.1", port=5353)),
        frontend("fd00:96::a", 53, Protocol.UDP): ServicePort(backends("fd00::1", port=5353)),
        frontend(port=81): ServicePort(),
        frontend("fd00:96::a", 81): ServicePort(),
    }


def test_slices_of_one_service_with_different_target_ports() -> None:
    other = [{"name": "http", "port": 9090, "protocol": "TCP"}]
    slices = [
        endpoint_slice({"10.0.0.1": READY}),
        endpoint_slice({"10.0.0.2": READY}, "web-2", ports=other),
    ]
    both = (*backends("10.0.0.1"), *backends("10.0.0.2", port=9090))
    assert compile_services([service()], slices)[WEB].backends == both


def test_client_ip_affinity_and_local_traffic() -> None:
    slices = [endpoint_slice({"10.0.0.1": READY, "10.0.0.2": READY})]
    config = {"clientIP": {"timeoutSeconds": 60}}
    for spec, seconds in (
        ({"sessionAffinity": "ClientIP"}, 10800),
        ({"sessionAffinity": "ClientIP", "sessionAffinityConfig": config}, 60),
        ({"sessionAffinity": "None"}, 0),
    ):
        assert compile_services([service(**spec)], slices)[WEB].affinity_seconds == seconds
    local = compile_services([service(internalTrafficPolicy="Local")], slices, node="node-2")
    assert local[WEB].backends == backends("10.0.0.2")


def test_changes_name_the_frontends_that_changed() -> None:
    model = ServiceModel()
    both = endpoint_slice({"10.0.0.1": READY, "10.0.0.2": READY})
    assert model.upsert(both) == set()
    assert model.upsert(service()) == {WEB}
    assert model.upsert(service()) == set()
    assert model.upsert(service("other", clusterIPs=["10.96.0.11"])) == {frontend("10.96.0.11")}
    assert model.upsert(endpoint_slice({"10.0.0.1": READY})) == {WEB}
    assert model.select({WEB}) == {WEB: ServicePort(backends("10.0.0.1"))}
    assert model.upsert(endpoint_slice({"10.0.0.1": READY}, service="other")) == {
        WEB,
        frontend("10.96.0.11"),
    }
    assert model.delete(both) == {frontend("10.96.0.11")}
    assert model.delete(both) == set()
    assert model.delete(service()) == {WEB}
    assert model.select({WEB}) == {WEB: None}


def test_an_address_that_another_service_gets_before_the_first_is_known_to_be_gone() -> None:
    model = ServiceModel()
    model.upsert(service())
    assert model.upsert(service("heir")) == set()
    model.upsert(endpoint_slice({"10.0.0.1": READY}, "heir-1", "heir"))
    assert model.table[WEB] == ServicePort()
    assert model.delete(service()) == {WEB}
    assert model.table[WEB].backends == backends("10.0.0.1")


@pytest.mark.parametrize(
    ("manifest", "named"),
    [
        (service(clusterIPs=["10.96.0.300"]), "10.96.0.300"),
        (endpoint_slice({"10.0.0": READY}), "EndpointSlice default/web-1"),
        ({"kind": "Service", "metadata": {"name": "web"}}, "'spec'"),
        ({"kind": "Service"}, "metadata.name"),
        ({"kind": "Pod", "metadata": {"name": "p"}}, "Pod default/p"),
    ],
)
def test_bad_manifests_change_nothing(manifest: dict[str, Any], named: str) -> None:
    model = ServiceModel()
    model.upsert(service())
    with pytest.raises(InvalidServiceError, match=named):
        model.upsert(manifest)
    assert model.table == {WEB: ServicePort()}


_NAMES = st.sampled_from(["web", "api"])
_CONDITIONS = st.sampled_from([READY, NOT_READY, TERMINATING, GONE])
_MANIFESTS = st.one_of(
    st.builds(
        lambda name, last: service(name, clusterIPs=[f"10.96.0.{last}"]),
        _NAMES,
        st.integers(1, 2),
    ),
    st.builds(
        lambda name, owner, endpoints: endpoint_slice(endpoints, name, owner),
        st.sampled_from(["s1", "s2"]),
        _NAMES,
        st.dictionaries(st.sampled_from(["10.0.0.1", "10.0.0.2"]), _CONDITIONS),
    ),
)


@given(st.lists(st.tuples(st.booleans(), _MANIFESTS), max_size=20))
def test_any_order_of_changes_ends_in_the_table_of_what_is_left(
    changes: list[tuple[bool, dict[str, Any]]],
) -> None:
    """And the changes named are exactly the differences."""
    model = ServiceModel()
    left: dict[tuple[str, str], dict[str, Any]] = {}
    for deleted, manifest in changes:
        before = dict(model.table)
        name = (manifest["kind"], manifest["metadata"]["name"])
        if deleted:
            left.pop(name, None)
            changed = model.delete(manifest)
        else:
            left[name] = manifest
            changed = model.upsert(manifest)
        keys = before.keys() | model.table.keys()
        assert changed == {key for key in keys if before.get(key) != model.table.get(key)}
    kept = [m for (kind, _), m in left.items() if kind == "Service"]
    slices = [m for (kind, _), m in left.items() if kind == "EndpointSlice"]
    addresses = [m["spec"]["clusterIPs"][0] for m in kept]
    if len(set(addresses)) == len(addresses):  # else it depends on who was first
        assert model.table == compile_services(kept, slices)
