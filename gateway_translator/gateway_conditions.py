"""What is said of a Gateway and of its ListenerSets. Source: GatewayStatus, ListenerSetStatus."""

from __future__ import annotations

from collections.abc import Sequence

from gateway_translator.conditions import Condition, bad, good
from gateway_translator.gateway_options import BadParametersError, Exposure, exposure_of_class
from gateway_translator.listeners import ListenerState
from gateway_translator.resources.gateway import Gateway, GatewayClass, XMesh
from gateway_translator.world import Reader


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


def accepted(
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


def programmed(
    is_accepted: Condition, own: list[ListenerState], unusable: Sequence[str], reachable: bool
) -> Condition:
    """``unusable``: addresses that it asked for. ``reachable``: it has any, or needs none."""
    if not is_accepted.status:
        return bad("Programmed", "Invalid", "the Gateway is not accepted")
    if unusable:
        text = f"cannot be had: {', '.join(unusable)}; ask for others in spec.addresses"
        return bad("Programmed", "AddressNotUsable", text)
    if not reachable:
        text = "no address yet; see the address pools of the operator"
        return bad("Programmed", "AddressNotAssigned", text)
    if not any(each.served for each in own):
        return bad("Programmed", "Invalid", "no listener can be served")
    return good("Programmed")


def insecure(gateway: Gateway) -> Condition | None:
    frontend = gateway.spec.tls.frontend if gateway.spec.tls else None
    if frontend is None:
        return None
    configs = (frontend.default, *(each.tls for each in frontend.per_port))
    if any(c.validation and c.validation.mode == "AllowInsecureFallback" for c in configs):
        text = "clients without a valid certificate are served"
        return Condition("InsecureFrontendValidationMode", True, "ConfigurationChanged", text)
    return None


def of_set(listeners: list[ListenerState], gateway: Condition) -> list[Condition]:
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
