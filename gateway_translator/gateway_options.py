"""How a Gateway wants to be reached: the parameters of its class, and its own over them.

Both are ConfigMaps: GatewayClass.spec.parametersRef, Gateway.spec.infrastructure.parametersRef.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from gateway_translator.resources.core import ConfigMap
from gateway_translator.resources.gateway import Gateway, GatewayClass
from gateway_translator.resources.refs import ObjectReference
from gateway_translator.world import Reader

_TYPES = ("LoadBalancer", "NodePort", "HostNetwork")
_NODE_PORT = "node-port-"

NodePort = tuple[str, int]
"""Transport ("tcp", "udp") and number."""


class BadParametersError(ValueError):
    """The message names the field and the remedy."""


@dataclass(frozen=True, slots=True)
class Exposure:
    """``on_nodes``: it has no addresses, and is served on those of every node: at the port of
    ``node_ports`` for each of its own ports, or at the same one (``host_network``)."""

    on_nodes: bool = False
    host_network: bool = False
    node_ports: Mapping[int, int] = field(default_factory=dict)

    def node_port(self, port: int) -> int:
        """0: there is none."""
        return port if self.host_network else self.node_ports.get(port, 0)


def class_parameters(gateway_class: GatewayClass, reader: Reader) -> Mapping[str, str]:
    """Raises BadParametersError."""
    ref = gateway_class.spec.parameters_ref
    return _parameters(ref, "default", reader) if ref else {}


def exposure_of_class(gateway_class: GatewayClass, reader: Reader) -> Exposure:
    """Raises BadParametersError."""
    return _exposure(class_parameters(gateway_class, reader))


def exposure(gateway: Gateway, gateway_class: GatewayClass, reader: Reader) -> Exposure:
    """Raises BadParametersError."""
    infrastructure = gateway.spec.infrastructure
    ref = infrastructure.parameters_ref if infrastructure else None
    own = _parameters(ref, gateway.namespace, reader) if ref else {}
    return _exposure({**class_parameters(gateway_class, reader), **own})


def node_ports_of_older(
    gateway: Gateway, gateway_class: GatewayClass, reader: Reader
) -> dict[NodePort, str]:
    """What Gateways of the same controller have that come before this one, with their names."""
    taken: dict[NodePort, str] = {}
    for each in reader.group(("gateways", "", ""), Gateway):
        if each.key == gateway.key:
            break
        found = reader.get(("GatewayClass", "", each.spec.gateway_class_name), GatewayClass)
        if found is None or found.spec.controller_name != gateway_class.spec.controller_name:
            continue
        with contextlib.suppress(BadParametersError):
            reached = exposure(each, found, reader)
            for listener in each.spec.listeners if reached.on_nodes else ():
                transport = "udp" if listener.protocol == "UDP" else "tcp"
                port = (transport, reached.node_port(listener.port))
                taken.setdefault(port, f"{each.namespace}/{each.name}")
    return taken


def _parameters(ref: ObjectReference, namespace: str, reader: Reader) -> Mapping[str, str]:
    namespace = ref.namespace or namespace
    if (ref.group, ref.kind) != ("", "ConfigMap"):
        text = f"{ref.group}/{ref.kind} is not supported; refer to a ConfigMap"
        raise BadParametersError(f"parametersRef: {text}")
    found = reader.get(("ConfigMap", namespace, ref.name), ConfigMap)
    if found is None:
        text = f"ConfigMap {namespace}/{ref.name} does not exist"
        raise BadParametersError(f"parametersRef: {text}")
    return found.data


def _exposure(values: Mapping[str, str]) -> Exposure:
    kind = values.get("service-type", _TYPES[0])
    if kind not in _TYPES:
        raise BadParametersError(f"service-type {kind!r} is none of {', '.join(_TYPES)}")
    ports = {
        _port(name.removeprefix(_NODE_PORT), name): _port(value, name)
        for name, value in values.items()
        if name.startswith(_NODE_PORT)
    }
    if len(set(ports.values())) < len(ports):
        raise BadParametersError(f"{_NODE_PORT}...: one port of nodes is given twice")
    return Exposure(kind != _TYPES[0], kind == "HostNetwork", ports)


def _port(text: str, name: str) -> int:
    if text.isdecimal() and 0 < int(text) < 1 << 16:
        return int(text)
    raise BadParametersError(f"{name}: {text!r} is no port; give node-port-80: '30080'")
