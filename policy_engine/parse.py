"""CiliumNetworkPolicy and CiliumClusterwideNetworkPolicy v2 from plain data to typed rules.

Every field of the v2 schema is known by name: enforced, or refused with an error that names it.
Source: the CRDs ciliumnetworkpolicies.cilium.io and ciliumclusterwidenetworkpolicies.cilium.io.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_network
from typing import Any

from policy_engine.errors import Errors, FieldError
from policy_engine.identity import Prefix
from policy_engine.labels import selector_key
from policy_engine.parse_ports import parse_ports
from policy_engine.rules import Policy, PolicyRef, Rule, Spec
from policy_engine.selector import (
    ENTITIES,
    CIDRSelector,
    EntitySelector,
    LabelSelector,
    Requirement,
    Selector,
)

AUDIT_ANNOTATION = "policy.sidegate.io/audit"
API_VERSION = "cilium.io/v2"
KINDS = {"CiliumNetworkPolicy": "cnp", "CiliumClusterwideNetworkPolicy": "ccnp"}

RegexError = Callable[[str], str | None]

_SPEC_REFUSED = ("ingressDeny", "egressDeny", "nodeSelector", "enableDefaultDeny", "log")
_PEER_REFUSED = {
    "from": ("fromRequires", "fromGroups", "fromNodes", "icmps", "authentication"),
    "to": (
        "toRequires",
        "toServices",
        "toFQDNs",
        "toGroups",
        "toNodes",
        "icmps",
        "authentication",
    ),
}
_OPERATORS = ("In", "NotIn", "Exists", "DoesNotExist")


def parse_policy(manifest: Any, regex_error: RegexError) -> tuple[Policy | None, list[FieldError]]:
    """The policy, or None and every error found. ``regex_error`` is the module's own compiler."""
    errors = Errors()
    manifest = errors.typed(manifest, dict, "manifest") or {}
    kind = KINDS.get(str(manifest.get("kind")))
    if kind is None or manifest.get("apiVersion") != API_VERSION:
        errors.add("kind", "not a Cilium policy", f"{API_VERSION}, one of {', '.join(KINDS)}")
        return None, errors
    top = errors.fields(manifest, "", ("apiVersion", "kind", "metadata", "spec", "specs", "status"))
    metadata = errors.typed(top.get("metadata"), dict, "metadata") or {}
    name = errors.typed(metadata.get("name"), str, "metadata.name") or ""
    namespace = "" if kind == "ccnp" else str(metadata.get("namespace") or "default")
    annotations = errors.typed(metadata.get("annotations") or {}, dict, "metadata.annotations")
    specs = []
    if "spec" in top:
        specs.append(_spec(top["spec"], "spec", namespace, errors, regex_error))
    for path, item in errors.items(top.get("specs", []), "specs"):
        specs.append(_spec(item, path, namespace, errors, regex_error))
    if not specs and not errors:
        errors.add("spec", "there is no rule", "give spec or specs")
    if errors:
        return None, errors
    audit = str((annotations or {}).get(AUDIT_ANNOTATION, "")).lower() == "true"
    return Policy(PolicyRef(kind, namespace, name), tuple(specs), audit), []


def _spec(value: Any, path: str, namespace: str, errors: Errors, regex: RegexError) -> Spec:
    known = ("endpointSelector", "ingress", "egress", "description", "labels")
    spec = errors.fields(value, path, known, _SPEC_REFUSED)
    subject = LabelSelector()
    if "endpointSelector" in spec:
        subject = _labels(spec["endpointSelector"], f"{path}.endpointSelector", errors)
    else:
        errors.add(f"{path}.endpointSelector", "is required", "{} selects every pod")
    if not {"ingress", "egress"} & spec.keys() and isinstance(value, dict):
        errors.add(path, "neither ingress nor egress is given", "[] denies a direction")
    if namespace:
        subject = subject.within(namespace)
    return Spec(
        path="" if path == "spec" else path,
        subject=subject,
        ingress=_rules(spec, "ingress", "from", path, namespace, errors, regex),
        egress=_rules(spec, "egress", "to", path, namespace, errors, regex),
    )


def _rules(
    spec: dict[str, Any],
    direction: str,
    side: str,
    path: str,
    namespace: str,
    errors: Errors,
    regex: RegexError,
) -> tuple[Rule, ...] | None:
    if spec.get(direction) is None:
        return None
    rules = []
    names = (f"{side}Endpoints", f"{side}Entities", f"{side}CIDR", f"{side}CIDRSet")
    for item_path, item in errors.items(spec[direction], f"{path}.{direction}"):
        rule = errors.fields(item, item_path, (*names, "toPorts"), _PEER_REFUSED[side])
        peers = _peers(rule, names, item_path, namespace, errors)
        if not any(rule.get(name) for name in (*names, "toPorts")):
            peers = ()  # an empty rule enforces the direction and allows nothing, as in Cilium
        ports = None
        if rule.get("toPorts"):
            ports = parse_ports(rule["toPorts"], f"{item_path}.toPorts", errors, regex)
        rules.append(Rule(peers, ports))
    return tuple(rules)


def _peers(
    rule: dict[str, Any], names: tuple[str, ...], path: str, namespace: str, errors: Errors
) -> tuple[Selector, ...] | None:
    """None where no peer field is given, or where one of them is the entity ``all``."""
    if not any(name in rule for name in names):
        return None
    endpoints, entities, cidrs, cidr_sets = names
    peers: list[Selector] = []
    everyone = False
    for at, item in errors.items(rule.get(endpoints, []), f"{path}.{endpoints}"):
        selector = _labels(item, at, errors)
        peers.append(selector.scoped(namespace) if namespace else selector)
    for at, item in errors.items(rule.get(entities, []), f"{path}.{entities}"):
        if item == "all":
            everyone = True
        elif item in ENTITIES:
            peers.append(EntitySelector(item))
        else:
            errors.add(at, f"unknown entity {item!r}", f"known are {', '.join(ENTITIES)}")
    for at, item in errors.items(rule.get(cidrs, []), f"{path}.{cidrs}"):
        if (prefix := _prefix(item, at, errors)) is not None:
            peers.append(CIDRSelector(prefix))
    for at, item in errors.items(rule.get(cidr_sets, []), f"{path}.{cidr_sets}"):
        if (cidr_set := _cidr_set(item, at, errors)) is not None:
            peers.append(cidr_set)
    return None if everyone else tuple(peers)


def _labels(value: Any, path: str, errors: Errors) -> LabelSelector:
    """A LabelSelector of Kubernetes, keys with Cilium's optional source."""
    known = errors.fields(value, path, ("matchLabels", "matchExpressions"))
    requirements = []
    labels = errors.typed(known.get("matchLabels") or {}, dict, f"{path}.matchLabels") or {}
    for key, item in labels.items():
        text = errors.typed(item, str, f"{path}.matchLabels.{key}")
        if text is not None:
            requirements.append(Requirement(selector_key(str(key)), "In", frozenset({text})))
    for at, item in errors.items(known.get("matchExpressions") or [], f"{path}.matchExpressions"):
        fields = errors.fields(item, at, ("key", "operator", "values"))
        key = errors.typed(fields.get("key"), str, f"{at}.key")
        operator = fields.get("operator")
        if operator not in _OPERATORS:
            remedy = f"one of {', '.join(_OPERATORS)}"
            errors.add(f"{at}.operator", f"unknown operator {operator!r}", remedy)
            continue
        values = errors.items(fields.get("values") or [], f"{at}.values")
        texts = [errors.typed(text, str, where) for where, text in values]
        if operator in ("In", "NotIn") and not texts:
            errors.add(f"{at}.values", f"{operator} needs at least one value")
        if operator in ("Exists", "DoesNotExist") and texts:
            errors.add(f"{at}.values", f"{operator} takes no values", "remove them")
        if key:
            chosen = frozenset(text for text in texts if text is not None)
            requirements.append(Requirement(selector_key(key), operator, chosen))
    return LabelSelector(tuple(requirements))


def _prefix(value: Any, path: str, errors: Errors) -> Prefix | None:
    text = errors.typed(value, str, path)
    if text is None:
        return None
    try:
        return ip_network(text, strict=False)
    except ValueError as error:
        errors.add(path, str(error), "address/length, such as 10.0.0.0/8")
        return None


def _cidr_set(value: Any, path: str, errors: Errors) -> CIDRSelector | None:
    refused = ("cidrGroupRef", "cidrGroupSelector")
    fields = errors.fields(value, path, ("cidr", "except"), refused)
    if "cidr" not in fields:
        if isinstance(value, dict) and not set(refused) & value.keys():
            errors.add(f"{path}.cidr", "is required")
        return None
    prefix = _prefix(fields["cidr"], f"{path}.cidr", errors)
    excepts = []
    for at, item in errors.items(fields.get("except") or [], f"{path}.except"):
        inner = _prefix(item, at, errors)
        if inner is None or prefix is None:
            continue
        if inner.version != prefix.version or not inner.subnet_of(prefix):  # type: ignore[arg-type]
            errors.add(at, f"{inner} is not inside {prefix}", "an except narrows its own cidr")
        excepts.append(inner)
    return CIDRSelector(prefix, tuple(excepts)) if prefix is not None else None
