"""One Gateway: its listeners, its own conditions, and those of its ListenerSets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gateway_translator import gateway_conditions
from gateway_translator.conditions import Condition, bad, good
from gateway_translator.gateway_options import (
    BadParametersError,
    Exposure,
    NodePort,
    exposure,
    node_ports_of_older,
)
from gateway_translator.listener_tls import Material, resolve_tls
from gateway_translator.listeners import ListenerState, selects, states
from gateway_translator.resources.gateway import Gateway, GatewayClass, ListenerSet
from gateway_translator.resources.meta import Key
from gateway_translator.secrets import UnusableError, certificate
from gateway_translator.world import Reader


@dataclass(frozen=True, slots=True)
class Addresses:
    """What a Gateway has now, decided elsewhere. ``unusable``: asked for and not to be had."""

    assigned: tuple[str, ...] = ()
    unusable: tuple[str, ...] = ()


@dataclass(slots=True)
class CompiledGateway:
    """``conditions``: of the Gateway. ``sets``: those of all ListenerSets that refer to it.

    ``addresses``: none where it is served on those of nodes.
    """

    gateway: Gateway
    listeners: list[ListenerState]
    conditions: list[Condition]
    sets: dict[Key, list[Condition]]
    addresses: Addresses
    material: Material
    exposure: Exposure
    client_certificate: str = ""
    attached_sets: int = 0
    programmed: Condition = field(default_factory=lambda: good("Programmed"))
    served: bool = field(default=True)


def compile_gateway(
    gateway: Gateway, gateway_class: GatewayClass, addresses: Addresses, reader: Reader
) -> CompiledGateway:
    """Of a GatewayClass of ours."""
    reached, problem = _exposure(gateway, gateway_class, reader)
    addresses = Addresses() if reached.on_nodes else addresses
    rejected: dict[Key, Condition] = {}
    sets: list[ListenerSet] = []
    everyone = reader.group(("sets", gateway.namespace, gateway.name), ListenerSet)
    allowed = gateway.spec.allowed_listeners
    for each in everyone:
        rule = allowed.namespaces if allowed else None
        if selects(rule, "None", gateway.namespace, each.namespace, reader):
            sets.append(each)
        else:
            text = (
                f"Gateway {gateway.namespace}/{gateway.name}: allowedListeners does not select it"
            )
            rejected[each.key] = bad("Accepted", "NotAllowed", text)
    listeners = states(gateway, sets, reader)
    if reached.on_nodes:
        taken = node_ports_of_older(gateway, gateway_class, reader)
        _refuse_unreachable(listeners, reached, taken)
    material = resolve_tls(gateway, listeners, reader)
    own = [each for each in listeners if each.owner == gateway.key]
    accepted = gateway_conditions.accepted(gateway, own, reached, problem)
    client, resolved = _client_certificate(gateway, own, reader, material)
    programmed = gateway_conditions.programmed(
        accepted, own, addresses.unusable, bool(addresses.assigned) or reached.on_nodes
    )
    conditions = [accepted, resolved, programmed]
    if insecure := gateway_conditions.insecure(gateway):
        conditions.append(insecure)
    verdicts = {
        each.key: gateway_conditions.of_set([s for s in listeners if s.owner == each.key], accepted)
        for each in sets
    }
    for key, condition in rejected.items():
        verdicts[key] = [condition, bad("Programmed", condition.reason, condition.message)]
    compiled = CompiledGateway(
        gateway,
        listeners,
        conditions,
        verdicts,
        addresses,
        material,
        reached,
        client,
        served=accepted.status,
    )
    compiled.programmed = programmed
    compiled.attached_sets = sum(verdicts[each.key][0].status for each in sets)
    return compiled


def _exposure(
    gateway: Gateway, gateway_class: GatewayClass, reader: Reader
) -> tuple[Exposure, str]:
    """With what is wrong with its parameters."""
    try:
        return exposure(gateway, gateway_class, reader), ""
    except BadParametersError as error:
        return Exposure(), str(error)


def _refuse_unreachable(
    listeners: list[ListenerState], reached: Exposure, taken: Mapping[NodePort, str]
) -> None:
    for each in listeners:
        number = reached.node_port(each.spec.port)
        if not number:
            text = f"service-type NodePort: the parameters have no node-port-{each.spec.port}"
        elif owner := taken.get((each.transport, number)):
            text = f"port {number} of nodes is that of Gateway {owner}"
        else:
            continue
        if each.accepted.status:
            each.accepted = bad("Accepted", "PortUnavailable", text)


def _client_certificate(
    gateway: Gateway, own: list[ListenerState], reader: Reader, material: Material
) -> tuple[str, Condition]:
    """Its name, empty without one, and ResolvedRefs of the Gateway."""
    backend = gateway.spec.tls.backend if gateway.spec.tls else None
    name = ""
    if backend and backend.client_certificate_ref:
        try:
            found = certificate(
                backend.client_certificate_ref, gateway.key, reader, "InvalidClientCertificateRef"
            )
        except UnusableError as error:
            return "", bad("ResolvedRefs", error.reason, str(error))
        material.certificates[found.name] = found
        name = found.name
    broken = [each.spec.name for each in own if each.problems]
    if broken:
        text = f"listeners: {', '.join(broken)}"
        return name, bad("ResolvedRefs", "ListenersNotResolved", text)
    return name, good("ResolvedRefs")
