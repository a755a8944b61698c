"""Random policies: what the kernel's entries decide is what reading the rules one by one says."""

from __future__ import annotations

from ipaddress import ip_network
from itertools import product
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from policy_engine.labels import pod_labels
from policy_engine.model import Direction, Protocol
from policy_engine.parse import parse_policy
from policy_engine.repository import PolicyRepository, Subject
from policy_engine.trace import decide

PODS = {256: ("default", "server"), 257: ("default", "client"), 258: ("far", "client")}
NAMED = {256: {"web": {(80, "TCP")}}, 257: {"web": {(81, "TCP"), (80, "UDP")}}, 258: {}}
INNER, OUTER = "10.1.0.0/16", "10.0.0.0/8"
BACKENDS: dict[str, set[int | str]] = {"web": {257}, "outside": {INNER}}
L7 = {"http": {"http": [{"path": "/a"}]}, "kafka": {"kafka": [{"role": "produce"}]}}
PROTOCOLS = ("TCP", "UDP", "SCTP")
RESERVED = (1, 2, 7)  # host, world, kube-apiserver

SIMPLE = [None, ("Entities", ["all"]), ("Endpoints", [{"matchLabels": {"app": "client"}}])]
PEERS = [
    ("Endpoints", []),
    ("Endpoints", [{"matchLabels": {"app": "client", "k8s:io.kubernetes.pod.namespace": "far"}}]),
    ("Entities", ["cluster"]),
    ("Entities", ["world"]),
    ("Entities", ["world-ipv4"]),
    ("Entities", ["host", "none"]),
    ("CIDR", [OUTER]),
    ("CIDRSet", [{"cidr": OUTER, "except": [INNER]}]),
    ("Services", [{"k8sService": {"serviceName": "web"}}]),
    ("Services", [{"k8sService": {"serviceName": "outside"}}]),
]
PORTS = st.fixed_dictionaries(
    {"port": st.sampled_from(["0", "80", "81", "web"])},
    optional={"protocol": st.sampled_from([*PROTOCOLS, "ANY"]), "endPort": st.just(90)},
).map(lambda p: p if p["port"] in ("80", "81") else {k: p[k] for k in p if k != "endPort"})
TCP_80 = {"port": "80", "protocol": "TCP"}
L4 = st.fixed_dictionaries({"ports": st.lists(PORTS, min_size=1, max_size=2)})
L7_PORTS = st.fixed_dictionaries(
    {
        "ports": st.sampled_from(
            [[TCP_80], [TCP_80 | {"endPort": 85}], [{"port": "web", "protocol": "TCP"}]]
        ),
        "rules": st.sampled_from(list(L7.values())),
    }
)


@st.composite
def rule(draw: st.DrawFn, side: str, allows: bool) -> dict[str, Any]:
    others = PEERS if side == "to" else PEERS[:-2]
    peers = draw(st.sampled_from(SIMPLE) | st.sampled_from(others))  # much about few, then all
    made: dict[str, Any] = {} if peers is None else {f"{side}{peers[0]}": peers[1]}
    if ports := draw(st.lists(L7_PORTS | L4 if allows else L4, max_size=2)):
        made["toPorts"] = ports
    if allows and (mode := draw(st.sampled_from([None, None, "disabled", "required"]))):
        made["authentication"] = {"mode": mode}
    return made


@st.composite
def spec(draw: st.DrawFn) -> dict[str, Any]:
    sections = {
        "ingress": st.lists(rule("from", True), max_size=4),
        "ingressDeny": st.lists(rule("from", False), max_size=1),
        "egress": st.lists(rule("to", True), max_size=4),
        "egressDeny": st.lists(rule("to", False), max_size=1),
    }
    names = draw(st.sets(st.sampled_from(sorted(sections)), min_size=1))
    toggles = st.dictionaries(st.sampled_from(["ingress", "egress"]), st.booleans())
    selector = draw(st.sampled_from([{}, {"matchLabels": {"app": "client"}}]))
    return {
        "endpointSelector": selector,
        "enableDefaultDeny": draw(toggles),
        **{name: draw(sections[name]) for name in sorted(names)},
    }


def repository(specs: list[dict[str, Any]]) -> PolicyRepository:
    """Endpoint 1 is the server. What comes first, policies or what they mean, does not matter."""
    made = PolicyRepository()
    for number, (namespace, app) in PODS.items():
        labels = pod_labels(namespace, {"app": app}, {})
        if number == 256:
            made.upsert_endpoint(1, Subject(number, labels, False, named(number)))
        made.upsert_identity(number, labels)
    made.upsert_service("default", "web", {}, {"app": "client"})
    for number, each in enumerate(specs):
        manifest = {
            "apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy",
            "metadata": {"name": f"p{number}"}, "spec": each,
        }  # fmt: skip
        policy, errors = parse_policy(manifest, lambda _: None)
        assert policy, (each, errors)
        made.upsert_policy(policy)
    made.upsert_service("default", "outside", {}, {}, frozenset({ip_network(INNER)}))
    for number in PODS:
        made.set_named_ports(number, named(number))
    return made


def named(number: int) -> dict[str, frozenset[tuple[int, Protocol]]]:
    return {
        name: frozenset((port, Protocol[protocol]) for port, protocol in ports)
        for name, ports in NAMED[number].items()
    }


def is_peer(kind: str, item: Any, who: int | str) -> bool:
    """``who`` is the number of a pod or a reserved identity, or a CIDR."""
    if kind == "Endpoints":
        namespace, app = PODS.get(who, ("", ""))  # type: ignore[arg-type]
        labels = item["matchLabels"]
        wanted = labels.get("k8s:io.kubernetes.pod.namespace", "default")
        return bool(app == labels["app"] and namespace == wanted)
    if kind == "Entities":
        world = isinstance(who, str) or who == 2
        is_ipv4 = isinstance(who, str) and ":" not in who
        named = {"all": True, "cluster": not world, "world": world, "host": who == 1}
        return named.get(item, False) or (item == "world-ipv4" and is_ipv4)
    if kind == "Services":
        return who in BACKENDS[item["k8sService"]["serviceName"]]
    prefix = item if kind == "CIDR" else item["cidr"]
    excepted = isinstance(item, dict) and who in item["except"]
    inside = isinstance(who, str) and ip_network(who).subnet_of(ip_network(prefix))  # type: ignore[arg-type]
    return inside and not excepted


def is_port(item: dict[str, Any], owner: int | str, protocol: str, port: int) -> bool:
    """``owner`` is whose container ports a name is of."""
    if item.get("protocol", "ANY") not in ("ANY", protocol):
        return False
    if item["port"] == "web":
        known = NAMED.get(owner, {}) if isinstance(owner, int) else {}
        return (port, protocol) in known.get("web", set())
    first = int(item["port"])
    return first == 0 or first <= port <= item.get("endPort", first)


def naive(
    specs: list[dict[str, Any]], direction: str, who: int | str, protocol: str, port: int
) -> str:
    """open, deny, authenticate, allow, http or kafka."""
    side, owner = ("from", 256) if direction == "ingress" else ("to", who)
    selecting = [s for s in specs if not s["endpointSelector"]]
    touching = [s for s in selecting if direction in s or f"{direction}Deny" in s]
    if not touching:
        return "open"
    said = set()
    for section, denies in ((direction, False), (f"{direction}Deny", True)):
        for each in (r for s in touching for r in s.get(section, [])):
            peers = {k: v for k, v in each.items() if k not in ("toPorts", "authentication")}
            if not any(peers.values()) and "toPorts" not in each:
                continue
            if peers and not any(
                is_peer(kind.removeprefix(side), item, who)
                for kind, items in peers.items()
                for item in items
            ):
                continue
            items = each.get("toPorts", [{"ports": [{"port": "0"}]}])
            for item in items:
                if any(is_port(p, owner, protocol, port) for p in item["ports"]):
                    said.add("deny" if denies else next(iter(item.get("rules", ["allow"]))))
                    if each.get("authentication") == {"mode": "required"}:
                        said.add("authenticate")
    for verdict in ("deny", "authenticate", "allow"):
        if verdict in said:
            return verdict
    if said:
        return said.pop() if len(said) == 1 else "deny"
    if all(s["enableDefaultDeny"].get(direction) is False for s in touching):
        return "allow"
    return "deny"


@settings(max_examples=150, deadline=None)
@given(st.lists(spec(), min_size=1, max_size=3))
def test_entries_decide_as_the_rules_read(specs: list[dict[str, Any]]) -> None:
    made = repository(specs)
    policy = made.policy_for(1)
    assert policy
    cidrs = {str(prefix): number for prefix, number in made.cidr_identities().items()}
    peers: dict[int | str, int] = {number: number for number in (*PODS, *RESERVED)}
    asked = product(Direction, (peers | cidrs).items(), PROTOCOLS, (80, 81, 85, 90, 91))
    for direction, (who, identity), protocol, port in asked:
        found = decide(policy, direction, identity, Protocol[protocol], port)
        verdict = str(found.parser or found.action.name.lower())
        if not policy.direction(direction).enforced:
            verdict = "open"
        question = (direction.name.lower(), who, protocol, port)
        assert (question, verdict) == (question, naive(specs, *question))
