"""One translation of a set of manifests, without a cluster that assigns addresses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from gateway_translator.gateways import Addresses
from gateway_translator.ingress_options import CONTROLLER as INGRESS_CONTROLLER
from gateway_translator.ingress_options import DEFAULT_CLASS
from gateway_translator.ir import ObjectRef, Snapshot
from gateway_translator.regexes import RegexError, regex_error
from gateway_translator.resources.refs import GROUP
from gateway_translator.statuses import Status
from gateway_translator.translator import CONTROLLER, Translator

EXAMPLE_ADDRESS = "192.0.2.1"
"""Of RFC 5737: for Gateways that ask for no address of their own."""


@dataclass(frozen=True, slots=True)
class Translation:
    snapshot: Snapshot
    statuses: Mapping[ObjectRef, Status]
    problems: Mapping[ObjectRef, str]


def translate(manifests: Iterable[dict[str, Any]], regex: RegexError = regex_error) -> Translation:
    """Every Gateway has the addresses that it asks for. Classes that are not given are ours."""
    manifests = list(manifests)
    translator = Translator(regex=regex)
    output = translator.apply([*manifests, *_classes(manifests)])
    asked = {
        (m["metadata"].get("namespace") or "default", m["metadata"].get("name")): tuple(
            address["value"]
            for address in m["spec"].get("addresses") or ()
            if isinstance(address, dict) and address.get("value")
        )
        for m in manifests
        if m.get("kind") == "Gateway" and isinstance(m.get("spec"), dict)
    }
    owners = {ref for ref in translator.statuses() if ref.kind == "Gateway"}
    owners |= {each.gateway for each in translator.snapshot().listeners.values()}
    for owner in sorted(owners):
        addresses = asked.get((owner.namespace, owner.name)) or (EXAMPLE_ADDRESS,)
        translator.set_addresses(owner.namespace, owner.name, Addresses(addresses), owner.kind)
    return Translation(translator.snapshot(), translator.statuses(), output.problems)


def _classes(manifests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those that are named and not given; for an Ingress that names none, a default class."""
    given = {(m.get("kind"), m["metadata"]["name"]) for m in manifests if "metadata" in m}
    found: dict[str, dict[str, Any]] = {}
    for manifest in manifests:
        spec = manifest.get("spec")
        if not isinstance(spec, dict):
            continue
        if manifest.get("kind") == "Gateway" and isinstance(spec.get("gatewayClassName"), str):
            name = spec["gatewayClassName"]
            if ("GatewayClass", name) not in given:
                found["Gateway " + name] = {
                    "apiVersion": f"{GROUP}/v1",
                    "kind": "GatewayClass",
                    "metadata": {"name": name},
                    "spec": {"controllerName": CONTROLLER},
                }
        elif manifest.get("kind") == "Ingress":
            name = spec.get("ingressClassName") or "sidegate"
            if ("IngressClass", name) not in given:
                found["Ingress " + name] = {
                    "apiVersion": "networking.k8s.io/v1",
                    "kind": "IngressClass",
                    "metadata": {"name": name, "annotations": {DEFAULT_CLASS: "true"}},
                    "spec": {"controller": INGRESS_CONTROLLER},
                }
    return list(found.values())
