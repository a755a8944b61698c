"""Selectors of peers and subjects from plain data: labels and CIDRs."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

from policy_engine.errors import Errors
from policy_engine.identity import Prefix
from policy_engine.labels import selector_key
from policy_engine.selector import CIDRSelector, LabelSelector, Requirement, ServiceSelector

_OPERATORS = ("In", "NotIn", "Exists", "DoesNotExist")


def parse_labels(value: Any, path: str, errors: Errors) -> LabelSelector:
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


def parse_prefix(value: Any, path: str, errors: Errors) -> Prefix | None:
    text = errors.typed(value, str, path)
    if text is None:
        return None
    try:
        return ip_network(text, strict=False)
    except ValueError as error:
        errors.add(path, str(error), "address/length, such as 10.0.0.0/8")
        return None


def parse_cidr_set(value: Any, path: str, errors: Errors) -> CIDRSelector | None:
    refused = ("cidrGroupRef", "cidrGroupSelector")
    fields = errors.fields(value, path, ("cidr", "except"), refused)
    if "cidr" not in fields:
        if isinstance(value, dict) and not set(refused) & value.keys():
            errors.add(f"{path}.cidr", "is required")
        return None
    prefix = parse_prefix(fields["cidr"], f"{path}.cidr", errors)
    excepts = []
    for at, item in errors.items(fields.get("except") or [], f"{path}.except"):
        inner = parse_prefix(item, at, errors)
        if inner is None or prefix is None:
            continue
        if inner.version != prefix.version or not inner.subnet_of(prefix):  # type: ignore[arg-type]
            errors.add(at, f"{inner} is not inside {prefix}", "an except narrows its own cidr")
        excepts.append(inner)
    return CIDRSelector(prefix, tuple(excepts)) if prefix is not None else None


def parse_service(value: Any, path: str, errors: Errors) -> ServiceSelector | None:
    """An item of ``toServices``: a Service by name, or Services by labels."""
    fields = errors.fields(value, path, ("k8sService", "k8sServiceSelector"))
    if len(fields) != 1:
        remedy = "give k8sService or k8sServiceSelector; two items of the list for both"
        errors.add(path, "names no Service" if not fields else "names two things", remedy)
        return None
    if "k8sService" in fields:
        at = f"{path}.k8sService"
        service = errors.fields(fields["k8sService"], at, ("serviceName", "namespace"))
        name = errors.typed(service.get("serviceName"), str, f"{at}.serviceName")
        if name == "":
            errors.add(f"{at}.serviceName", "is empty", "name a Service")
        labels = None
    else:
        at = f"{path}.k8sServiceSelector"
        service = errors.fields(fields["k8sServiceSelector"], at, ("selector", "namespace"))
        name = ""
        labels = parse_labels(service.get("selector"), f"{at}.selector", errors)
    namespace = errors.typed(service.get("namespace", ""), str, f"{at}.namespace")
    return ServiceSelector(namespace or "", name or "", labels)
