"""One Gateway: its listeners, its own conditions, and those of its ListenerSets."""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway_translator.conditions import Condition, bad, good
from gateway_translator.gateway_options import (
    BadParametersError,
    Exposure,
    exposure,
    exposure_of_class,
)
from gateway_translator.listener_tls import Material, resolve_tls
from gateway_translator.listeners import ListenerState, selects, states
from gateway_translator.resources.gateway import Gateway, GatewayClass, ListenerSet, XMesh
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
    _refuse_unreachable(listeners, reached)
    material = resolve_tls(gateway, listeners, reader)
    own = [each for each in listeners if each.owner == gateway.key]
    accepted = _accepted(gateway, own, reached, problem)
    client, resolved = _client_certificate(gateway, own, reader, material)
    programmed = _programmed(accepted, own, addresses, reached)
    conditions = [accepted, resolved, programmed]
    if insecure := _insecure(gateway):
        conditions.append(insecure)
    verdicts = {
        each.key: _set_conditions([s for s in listeners if s.owner == each.key], accepted)
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


def _refuse_unreachable(listeners: list[ListenerState], reached: Exposure) -> None:
    for each in listeners if reached.on_nodes else ():
        if each.accepted.status and not reached.node_port(each.spec.port):
            text = f"service-type NodePort: the parameters have no node-port-{each.spec.port}"
            each.accepted = bad("Accepted", "PortUnavailable", text)


def _accepted(
    gateway: Gateway, own: list[ListenerState], reached: Exposure, problem: str
) -> Condition:
    """``problem``: of its parameters."""
    if problem:
        return bad("Accepted", "InvalidParameters", problem)
    if gateway.spec.addresses and reached.on_nodes:
        text = "addresses: its service-type is served on those of nodes; leave addresses away"
        return bad("Accepted", "UnsupportedAddress", text)
    for address in gateway.spec.addresses:
        if address.type != "IPAddress":
            text = f"addresses: type {address.type} is not supported; use IPAddress"
            return bad("Accepted", "UnsupportedAddress", text)
    broken = [each.spec.name for each in own if not each.accepted.status]
    if not broken:
        return good("Accepted")
    text = f"not served: {', '.join(broken)}"
    return Condition("Accepted", len(broken) < len(own), "ListenersNotValid", text)


def class_condition(gateway_class: GatewayClass, reader: Reader) -> Condition:
    try:
        exposure_of_class(gateway_class, reader)
    except BadParametersError as error:
        return bad("Accepted", "InvalidParameters", str(error))
    return good("Accepted")


def mesh_condition(mesh: XMesh) -> Condition:
    if mesh.spec.parameters_ref:
        text = "parametersRef: a mesh has no parameters; leave it out"
        return bad("Accepted", "InvalidParameters", text)
    return good("Accepted")


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


def _programmed(
    accepted: Condition, own: list[ListenerState], addresses: Addresses, reached: Exposure
) -> Condition:
    if not accepted.status:
        return bad("Programmed", "Invalid", "the Gateway is not accepted")
    if addresses.unusable:
        text = f"cannot be had: {', '.join(addresses.unusable)}; ask for others in spec.addresses"
        return bad("Programmed", "AddressNotUsable", text)
    if not addresses.assigned and not reached.on_nodes:
        text = "no address yet; see the address pools of the operator"
        return bad("Programmed", "AddressNotAssigned", text)
    if not any(each.served for each in own):
        return bad("Programmed", "Invalid", "no listener can be served")
    return good("Programmed")


def _insecure(gateway: Gateway) -> Condition | None:
    frontend = gateway.spec.tls.frontend if gateway.spec.tls else None
    if frontend is None:
        return None
    configs = (frontend.default, *(each.tls for each in frontend.per_port))
    if any(c.validation and c.validation.mode == "AllowInsecureFallback" for c in configs):
        text = "clients without a valid certificate are served"
        return Condition("InsecureFrontendValidationMode", True, "ConfigurationChanged", text)
    return None


def _set_conditions(listeners: list[ListenerState], gateway: Condition) -> list[Condition]:
    if not gateway.status:
        text = "the Gateway is not accepted"
        return [
            bad("Accepted", "ParentNotAccepted", text),
            bad("Programmed", "ParentNotAccepted", text),
        ]
    broken = [each.spec.name for each in listeners if not each.served]
    text = f"not served: {', '.join(broken)}"
    if len(broken) == len(listeners):
        return [
            bad("Accepted", "ListenersNotValid", text),
            bad("Programmed", "ListenersNotValid", text),
        ]
    if broken:
        return [Condition("Accepted", True, "ListenersNotValid", text), good("Programmed")]
    return [good("Accepted"), good("Programmed")]
