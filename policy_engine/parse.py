"""Policies of every kind from plain data to typed rules; here those of Cilium's v2 schema.

Every field of the v2 schema is known by name: enforced, or refused with an error that names it.
Source: the CRDs ciliumnetworkpolicies.cilium.io and ciliumclusterwidenetworkpolicies.cilium.io.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from policy_engine import network_policy
from policy_engine.errors import Errors, FieldError, RegexError
from policy_engine.kinds import API_VERSIONS, CLUSTERWIDE, KINDS
from policy_engine.model import Authentication, Direction
from policy_engine.parse_ports import parse_ports
from policy_engine.parse_selectors import (
    parse_cidr_set,
    parse_labels,
    parse_prefix,
    parse_service,
)
from policy_engine.rules import Policy, PolicyRef, Rule, Spec
from policy_engine.selector import (
    ENTITIES,
    FAMILIES,
    CIDRSelector,
    EntitySelector,
    LabelSelector,
    Selector,
)

AUDIT_ANNOTATION = "policy.sidegate.io/audit"
_SPEC_REFUSED = ("nodeSelector", "log")
_PEER_REFUSED = {
    "ingress": ("fromRequires", "fromGroups", "fromNodes", "icmps"),
    "egress": ("toRequires", "toFQDNs", "toGroups", "toNodes", "icmps"),
}
_PEER_FIELDS = {
    "ingress": ("fromEndpoints", "fromEntities", "fromCIDR", "fromCIDRSet"),
    "egress": ("toEndpoints", "toEntities", "toCIDR", "toCIDRSet", "toServices"),
}
_AUTHENTICATION = {
    "disabled": Authentication.NONE,
    "required": Authentication.REQUIRED,
    "test-always-fail": Authentication.ALWAYS_FAIL,
}
_SECTIONS = ("ingress", "egress", "ingressDeny", "egressDeny")


@dataclass(frozen=True, slots=True)
class _Reading:
    """What every part of one object is read with. ``namespace`` is "" where it is clusterwide."""

    namespace: str
    errors: Errors
    regex: RegexError


def parse_policy(manifest: Any, regex_error: RegexError) -> tuple[Policy | None, list[FieldError]]:
    """The policy, or None and every error found. ``regex_error`` is the module's own compiler."""
    errors = Errors()
    manifest = errors.typed(manifest, dict, "manifest") or {}
    kind = KINDS.get(str(manifest.get("kind")))
    if kind is None:
        errors.add("kind", "not a policy", f"one of {', '.join(KINDS)}")
        return None, errors
    if manifest.get("apiVersion") != (wanted := API_VERSIONS[manifest["kind"]]):
        errors.add("apiVersion", f"{manifest.get('apiVersion')!r} has no such policy", wanted)
        return None, errors
    top = errors.fields(manifest, "", ("apiVersion", "kind", "metadata", "spec", "specs", "status"))
    metadata = errors.typed(top.get("metadata"), dict, "metadata") or {}
    name = errors.typed(metadata.get("name"), str, "metadata.name") or ""
    namespace = "" if kind in CLUSTERWIDE else str(metadata.get("namespace") or "default")
    annotations = errors.typed(metadata.get("annotations") or {}, dict, "metadata.annotations")
    specs = []
    reading = _Reading(namespace, errors, regex_error)
    if kind == "knp":
        specs.append(network_policy.parse_spec(top.get("spec"), namespace, errors))
    elif "spec" in top:
        specs.append(_spec(top["spec"], "spec", reading))
    for path, item in errors.items(top.get("specs", []), "specs"):
        specs.append(_spec(item, path, reading))
    if not specs and not errors:
        errors.add("spec", "there is no rule", "give spec or specs")
    if errors:
        return None, errors
    audit = str((annotations or {}).get(AUDIT_ANNOTATION, "")).lower() == "true"
    return Policy(PolicyRef(kind, namespace, name), tuple(specs), audit), []


def _spec(value: Any, path: str, reading: _Reading) -> Spec:
    errors = reading.errors
    known = ("endpointSelector", *_SECTIONS, "enableDefaultDeny", "description", "labels")
    spec = errors.fields(value, path, known, _SPEC_REFUSED)
    subject = LabelSelector()
    if "endpointSelector" in spec:
        subject = parse_labels(spec["endpointSelector"], f"{path}.endpointSelector", errors)
    else:
        errors.add(f"{path}.endpointSelector", "is required", "{} selects every pod")
    if not set(_SECTIONS) & spec.keys() and isinstance(value, dict):
        errors.add(path, "neither ingress nor egress is given", "[] denies a direction")
    if reading.namespace:
        subject = subject.within(reading.namespace)
    return Spec(
        path="" if path == "spec" else path,
        subject=subject,
        ingress=_section(spec, "ingress", path, reading),
        egress=_section(spec, "egress", path, reading),
        default_allow=_default_allow(spec.get("enableDefaultDeny") or {}, path, errors),
    )


def _default_allow(value: Any, path: str, errors: Errors) -> frozenset[Direction]:
    """The directions for which ``enableDefaultDeny`` is false."""
    fields = errors.fields(value, f"{path}.enableDefaultDeny", ("ingress", "egress"))
    for name, item in fields.items():
        errors.typed(item, bool, f"{path}.enableDefaultDeny.{name}")
    return frozenset(d for d in Direction if fields.get(d.name.lower()) is False)


def _section(
    spec: dict[str, Any], direction: str, path: str, reading: _Reading
) -> tuple[Rule, ...] | None:
    """Rules that allow, then those that deny; None where neither list is given."""
    allow = _rules(spec, direction, False, path, reading)
    deny = _rules(spec, direction, True, path, reading)
    return None if allow is None and deny is None else (*(allow or ()), *(deny or ()))


def _rules(
    spec: dict[str, Any], direction: str, denies: bool, path: str, reading: _Reading
) -> tuple[Rule, ...] | None:
    section = f"{direction}Deny" if denies else direction
    if spec.get(section) is None:
        return None
    errors = reading.errors
    rules = []
    names = _PEER_FIELDS[direction]
    for item_path, item in errors.items(spec[section], f"{path}.{section}"):
        known = (*names, "toPorts") if denies else (*names, "toPorts", "authentication")
        rule = errors.fields(item, item_path, known, _PEER_REFUSED[direction])
        peers = _peers(rule, names, item_path, reading)
        if not any(rule.get(name) for name in (*names, "toPorts")):
            peers = ()  # an empty rule enforces the direction and allows nothing, as in Cilium
        ports = None
        if rule.get("toPorts"):
            ports = parse_ports(rule["toPorts"], f"{item_path}.toPorts", errors, reading.regex)
        if denies and ports and any(each.parser for each in ports):
            remedy = "deny the port, or allow what may pass by ingress or egress rules"
            errors.add(f"{item_path}.toPorts", "a rule that denies cannot have L7 rules", remedy)
        authentication = _authentication(rule, f"{item_path}.authentication", errors)
        rules.append(Rule(peers, ports, denies, authentication))
    return tuple(rules)


def _authentication(rule: dict[str, Any], path: str, errors: Errors) -> Authentication:
    if "authentication" not in rule:
        return Authentication.NONE
    mode = errors.fields(rule["authentication"], path, ("mode",)).get("mode")
    if not isinstance(mode, str) or mode not in _AUTHENTICATION:
        errors.add(f"{path}.mode", f"{mode!r} is no mode", f"one of {', '.join(_AUTHENTICATION)}")
        return Authentication.ALWAYS_FAIL
    return _AUTHENTICATION[mode]


def _peers(
    rule: dict[str, Any], names: tuple[str, ...], path: str, reading: _Reading
) -> tuple[Selector, ...] | None:
    """None where no peer field is given, or where one of them is the entity ``all``."""
    if not any(name in rule for name in names):
        return None
    errors, namespace = reading.errors, reading.namespace
    endpoints, entities, *others = names
    peers: list[Selector] = []
    everyone = False
    for at, item in errors.items(rule.get(endpoints, []), f"{path}.{endpoints}"):
        selector = parse_labels(item, at, errors)
        peers.append(selector.scoped(namespace) if namespace else selector)
    for at, item in errors.items(rule.get(entities, []), f"{path}.{entities}"):
        if item == "all":
            everyone = True
        elif isinstance(item, str) and item in FAMILIES:
            peers.append(CIDRSelector(FAMILIES[item]))
        elif item in ENTITIES:
            peers.append(EntitySelector(item))
        else:
            errors.add(at, f"unknown entity {item!r}", f"known are {', '.join(ENTITIES)}")
    for name, parse in zip(others, (_parse_cidr, parse_cidr_set, parse_service), strict=False):
        for at, item in errors.items(rule.get(name, []), f"{path}.{name}"):
            if (peer := parse(item, at, errors)) is not None:
                peers.append(peer)
    return None if everyone else tuple(peers)


def _parse_cidr(value: Any, path: str, errors: Errors) -> CIDRSelector | None:
    prefix = parse_prefix(value, path, errors)
    return CIDRSelector(prefix) if prefix is not None else None
