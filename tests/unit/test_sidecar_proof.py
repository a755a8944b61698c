"""What of a sidecar's configuration proves that it enforces. ``reviews.json`` is a real one, of the
mesh of the tests with nothing but our inbound filters, without what says nothing of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from istioctl_patch import module_filter
from node_agent.proof import filters
from node_agent.proof.configuration import chains, read
from node_agent.proof.prove import Proof, lacking, prove, proven
from policy_engine.model import Direction

GOLDEN = Path(__file__).parent.parent / "golden" / "proof" / "reviews.json"
IN, OUT = Direction.INGRESS, Direction.EGRESS
LUA = {"name": "lua", "typed_config": {"@type": "type.googleapis.com/x.Lua"}}


class Dump:
    """The golden configuration, and its parts by name."""

    def __init__(self) -> None:
        self.whole: dict[str, Any] = json.loads(GOLDEN.read_text())

    def dynamic_listeners(self) -> Any:
        parts = self.whole["configs"]
        return next(part["dynamic_listeners"] for part in parts if "dynamic_listeners" in part)

    def listener(self, name: str) -> Any:
        return next(each for each in read(self.whole).listeners if each.get("name") == name)

    def chain(self, name: str) -> Any:
        chains = self.listener("virtualInbound")["filter_chains"]
        return next(each for each in chains if each["name"] == name)

    def manager(self, chain: str) -> Any:
        return self.chain(chain)["filters"][-1]["typed_config"]

    def upstream(self, chain: str) -> Any:
        """Of its router."""
        return self.manager(chain)["http_filters"][-1]["typed_config"]["upstream_http_filters"]

    def own_filters(self, cluster: str) -> Any:
        """Those that a cluster has in the place of the router's."""
        (options,) = read(self.whole).clusters[cluster]["typed_extension_protocol_options"].values()
        return options.setdefault("http_filters", [])


def _drop_tcp(dump: Dump) -> None:
    dump.chain("virtualInbound")["filters"].pop(0)


def _come_between(dump: Dump) -> None:
    dump.chain("virtualInbound")["filters"].insert(1, LUA)


def _drop_http(dump: Dump) -> None:
    dump.upstream("0.0.0.0_8080").pop(0)


def _after_ours(dump: Dump) -> None:
    dump.upstream("0.0.0.0_8080").insert(1, LUA)


def _disabled(dump: Dump) -> None:
    dump.upstream("0.0.0.0_8080")[0]["disabled"] = True


def _another_library(dump: Dump) -> None:
    config = dump.upstream("0.0.0.0_8080")[0]["typed_config"]
    config["dynamic_module_config"]["module"]["local"]["filename"] = "/tmp/libsidegate.so"


def _other_side(dump: Dump) -> None:
    config = dump.upstream("0.0.0.0_8080")[0]["typed_config"]["filter_config"]
    config["value"] = config["value"].replace("ingress", "egress")


def _switched_off(dump: Dump) -> None:
    (host,) = dump.manager("0.0.0.0_8080")["route_config"]["virtual_hosts"]
    host["routes"][0]["typed_per_filter_config"] = {"sidegate_http": {"disabled": True}}


def _by_header(dump: Dump) -> None:
    (host,) = dump.manager("0.0.0.0_8080")["route_config"]["virtual_hosts"]
    host["routes"][0]["route"] = {"cluster_header": "x-where"}


def _by_tcp(dump: Dump) -> None:
    dump.chain("0.0.0.0_8080")["filters"] = [dump.chain("virtualInbound")["filters"][-1]]


def _another_port_leads_there(dump: Dump) -> None:
    tcp = json.loads(json.dumps(dump.chain("virtualInbound")["filters"][-1]))
    tcp["typed_config"]["cluster"] = "inbound|8080||"
    match = {"destination_port": 9999}
    dump.listener("virtualInbound")["filter_chains"].append(
        {"name": "mine", "filter_chain_match": match, "filters": [tcp]}
    )


def _by_cluster(dump: Dump) -> None:
    dump.own_filters("inbound|8080||").extend(dump.upstream("0.0.0.0_8080"))
    dump.upstream("0.0.0.0_8080").clear()


def _past_router(dump: Dump) -> None:
    codec = dump.upstream("0.0.0.0_8080")[-1]
    dump.own_filters("inbound|8080||").append(codec)


def _mirrored(dump: Dump) -> None:
    (host,) = dump.manager("0.0.0.0_8080")["route_config"]["virtual_hosts"]
    host["routes"][0]["route"]["request_mirror_policies"] = [{"cluster": "inbound|8080||"}]


def _drains(dump: Dump) -> None:
    for part in dump.whole["configs"]:
        for each in part.get("dynamic_listeners", ()):
            if each["name"] == "virtualInbound":
                old = json.loads(json.dumps(each["active_state"]))
                old["listener"]["filter_chains"][2]["filters"].pop(0)
                each["draining_state"] = old


def _no_listener(dump: Dump) -> None:
    for part in dump.whole["configs"]:
        part.pop("dynamic_listeners", None)


def _no_dump(dump: Dump) -> None:
    dump.whole = {}


@pytest.mark.parametrize(
    ("tamper", "ports", "why"),
    [
        (lambda _: None, set(), ""),
        (_drop_tcp, {0}, "sidegate_kafka is not right before tcp_proxy"),
        (_come_between, {0}, "sidegate_kafka is not right before tcp_proxy"),
        (_drop_http, {8080}, "cluster inbound|8080||: sidegate_http is not its last filter"),
        (_after_ours, {8080}, "cluster inbound|8080||: sidegate_http is not its last filter"),
        (_disabled, {8080}, "cluster inbound|8080||: sidegate_http is not its last filter"),
        (_another_library, {8080}, "cluster inbound|8080||: sidegate_http is not its last filter"),
        (_other_side, {8080}, "cluster inbound|8080||: sidegate_http is not its last filter"),
        (_switched_off, {0}, "its routes switch sidegate_http off"),
        (_by_header, {0}, "where it goes is not known"),
        (_by_tcp, {8080}, "sidegate_kafka is not right before tcp_proxy"),
        (_another_port_leads_there, {8080, 9999}, "chain mine: sidegate_kafka is not"),
        (_by_cluster, set(), ""),
        (_past_router, {8080}, "cluster inbound|8080||: sidegate_http is not its last filter"),
        (_mirrored, {8080}, "cluster inbound|8080||: sidegate_http is not its last filter"),
        (_drains, {0}, "sidegate_kafka is not right before tcp_proxy"),
        (_no_listener, {0}, "no listener virtualInbound"),
        (_no_dump, {0}, "its configuration cannot be read"),
    ],
)
def test_ports_on_which_it_does_not_enforce(
    tamper: Callable[[Dump], None], ports: set[int], why: str
) -> None:
    dump = Dump()
    tamper(dump)
    said = {port: why for (at, port), why in prove(dump.whole).lacking.items() if at is IN}
    assert said.keys() == ports
    assert all(why in each for each in said.values()), said


def test_what_goes_out_is_proven_apart() -> None:
    proof = prove(Dump().whole)
    assert proof.why_not(OUT, 443)
    assert proven(proof) == "ingress"
    assert lacking(proof).startswith("egress: listener ")


def _both_sides(side: str = "egress") -> Dump:
    """With our outbound filters too."""
    dump = Dump()
    for listener in read(dump.whole).listeners:
        if listener.get("traffic_direction") != "OUTBOUND":
            continue
        for chain in chains(listener):
            last = chain["filters"][-1]
            if "tcp_proxy" in last["name"]:
                chain["filters"].insert(-1, module_filter.network(side))
            else:
                router = last["typed_config"]["http_filters"][-1]["typed_config"]
                router |= module_filter.router(side)["typed_config"]
    return dump


def _tcp_to(cluster: str) -> dict[str, Any]:
    kind = "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"
    config = {"@type": f"type.googleapis.com/{kind}", "cluster": cluster}
    return {"name": "envoy.filters.network.tcp_proxy", "typed_config": config}


OUTSIDE = "outbound|8080||reviews.default.svc.cluster.local"


def _comes_in_and_leaves(dump: Dump) -> None:
    chain = dump.chain("virtualInbound")
    chain["filters"] = [module_filter.network("ingress"), _tcp_to(OUTSIDE)]


def _comes_in_and_leaves_as_http(dump: Dump) -> None:
    (host,) = dump.manager("0.0.0.0_8080")["route_config"]["virtual_hosts"]
    host["routes"][0]["route"]["cluster"] = OUTSIDE


def _a_listener_of_ones_own(dump: Dump) -> None:
    filters = [module_filter.network("ingress"), _tcp_to(OUTSIDE)]
    dump.dynamic_listeners().append(
        {"active_state": {"listener": {"name": "mine", "filter_chains": [{"filters": filters}]}}}
    )


def _from_another_address(dump: Dump) -> None:
    cluster = read(dump.whole).clusters["inbound|8080||"]
    cluster["upstream_bind_config"]["source_address"]["address"] = "10.0.1.2"


@pytest.mark.parametrize(
    ("tamper", "proves", "why"),
    [
        (lambda _: None, "ingress, egress", ""),
        (_comes_in_and_leaves, "ingress", "chain virtualInbound: sidegate_kafka is not right"),
        (
            _comes_in_and_leaves_as_http,
            "ingress",
            f"cluster {OUTSIDE}: sidegate_http is not its last",
        ),
        (_a_listener_of_ones_own, "ingress", "listener mine, chain without a name"),
        (_from_another_address, "ingress", "cluster inbound|8080||: sidegate_http is not its last"),
    ],
)
def test_what_comes_in_is_no_way_out(tamper: Callable[[Dump], None], proves: str, why: str) -> None:
    dump = _both_sides()
    tamper(dump)
    proof = prove(dump.whole)
    assert why in proof.why_not(OUT, 80)
    assert (proof.why_not(OUT, 80) == "") is (why == "")
    assert proven(proof) == proves, lacking(proof)


def test_a_gateway_catches_nothing_and_proves_what_it_sends() -> None:
    for side, proves in (("forward", "egress"), ("egress", "")):
        dump = _both_sides(side)
        listeners = dump.dynamic_listeners()
        listeners[:] = [each for each in listeners if not each["name"].startswith("virtual")]
        node = {"id": "router~10.0.1.2~gateway.default~default.svc.cluster.local"}
        kind = "type.googleapis.com/envoy.admin.v3.BootstrapConfigDump"
        assert proven(prove(dump.whole)) == ""
        dump.whole["configs"].append({"@type": kind, "bootstrap": {"node": node}})
        assert proven(prove(dump.whole)) == proves, lacking(prove(dump.whole))


def test_all_ports_include_each() -> None:
    proof = Proof({(IN, 0): "all"})
    assert proof.why_not(IN, 8080) == "all"
    assert proven(proof) == "egress"


@pytest.mark.parametrize("side", ["ingress", "egress", "forward"])
def test_the_overlays_filters_are_ours(side: str) -> None:
    router = module_filter.router(side)["typed_config"]
    assert filters.judges_requests(router["upstream_http_filters"], side)
    assert filters.judges_bytes([module_filter.network(side)], side)
    assert not filters.judges_bytes([module_filter.network(side)], "other")
