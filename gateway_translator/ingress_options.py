"""How an Ingress wants to be served: its annotations, over the parameters of its class.

Source: Cilium documentation, "Ingress annotations"; the parameters are a ConfigMap with the same
names without the prefix.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gateway_translator.durations import seconds
from gateway_translator.resources.core import ConfigMap
from gateway_translator.resources.ingress import Ingress, IngressClass
from gateway_translator.resources.meta import Key
from gateway_translator.world import Reader

CONTROLLER = "sidegate.io/ingress-controller"
PREFIX = "ingress.cilium.io/"
DEFAULT_CLASS = "ingressclass.kubernetes.io/is-default-class"
_LEGACY_CLASS = "kubernetes.io/ingress.class"


@dataclass(frozen=True, slots=True)
class Options:
    """``frontend``: what has the addresses: the Ingress itself, or its class if it is shared.

    ``insecure_node_port`` and ``secure_node_port`` are 0 where none is asked for.
    """

    frontend: Key
    force_https: bool = True
    tls_passthrough: bool = False
    request_timeout: float | None = None
    node_ports: bool = False
    insecure_node_port: int = 0
    secure_node_port: int = 0


def class_of(ingress: Ingress, reader: Reader) -> IngressClass | None:
    """Its class if that is ours: the named one, or the default class if it names none."""
    name = ingress.spec.ingress_class_name or ingress.metadata.annotations.get(_LEGACY_CLASS, "")
    if name:
        found = reader.get(("IngressClass", "", name), IngressClass)
    else:
        classes = reader.group(("ingress classes", "", ""), IngressClass)
        marked = (c for c in classes if c.metadata.annotations.get(DEFAULT_CLASS) == "true")
        found = next(marked, None)
    return found if found is not None and found.spec.controller == CONTROLLER else None


def read_options(
    ingress: Ingress, ingress_class: IngressClass, reader: Reader
) -> tuple[Options, list[str]]:
    """With what is wrong in them; a value that is wrong counts as not given."""
    problems: list[str] = []
    values = _values(ingress, ingress_class, reader, problems)
    mode = values.get("loadbalancer-mode", "dedicated")
    if mode not in {"dedicated", "shared"}:
        problems.append(f"loadbalancer-mode {mode!r} is neither dedicated nor shared")
    service = values.get("service-type", "LoadBalancer")
    if service not in {"LoadBalancer", "NodePort"}:
        problems.append(f"service-type {service!r} is neither LoadBalancer nor NodePort")
    timeout = None
    try:
        timeout = seconds(values.get("request-timeout", ""))
    except ValueError as error:
        problems.append(f"request-timeout: {error}")
    options = Options(
        frontend=ingress_class.key if mode == "shared" else ingress.key,
        force_https=_switch(values, "force-https", True, problems),
        tls_passthrough=_switch(values, "tls-passthrough", False, problems),
        request_timeout=timeout,
        node_ports=service == "NodePort",
        insecure_node_port=_port(values, "insecure-node-port", problems),
        secure_node_port=_port(values, "secure-node-port", problems),
    )
    return options, problems


def _values(
    ingress: Ingress, ingress_class: IngressClass, reader: Reader, problems: list[str]
) -> dict[str, str]:
    values: dict[str, str] = {}
    if (ref := ingress_class.spec.parameters) is not None:
        key = ("ConfigMap", ref.namespace or "default", ref.name)
        found = reader.get(key, ConfigMap) if (ref.group, ref.kind) == ("", "ConfigMap") else None
        if found is None:
            problems.append(f"IngressClass {ingress_class.name}: parameters name no ConfigMap")
        else:
            values |= found.data
    for name, value in ingress.metadata.annotations.items():
        if name.startswith(PREFIX):
            values[name.removeprefix(PREFIX)] = value
    return values


def _switch(values: Mapping[str, str], name: str, default: bool, problems: list[str]) -> bool:
    match values.get(name, "").lower():
        case "":
            return default
        case "enabled" | "true":
            return True
        case "disabled" | "false":
            return False
        case other:
            problems.append(f"{name} {other!r} is neither enabled nor disabled")
            return default


def _port(values: Mapping[str, str], name: str, problems: list[str]) -> int:
    text = values.get(name, "0")
    if text.isdecimal() and int(text) < 1 << 16:
        return int(text)
    problems.append(f"{name} {text!r} is no port")
    return 0
