"""Listeners of one port that cannot be told apart, and those whose TLS may be taken for another's.

Source: GatewaySpec.listeners, "Distinct Listeners"; ListenerConditionOverlappingTLSConfig.
"""

from __future__ import annotations

from gateway_translator.hostnames import covers
from gateway_translator.resources.gateway import ListenerSpec


def conflict(a: ListenerSpec, b: ListenerSpec) -> str:
    """The reason, empty where a connection can be told to be for one of the two."""
    if a.port != b.port or (a.protocol == "UDP") != (b.protocol == "UDP"):
        return ""
    tls = {"HTTPS", "TLS"}
    if a.protocol != b.protocol and not {a.protocol, b.protocol} <= tls:
        return "ProtocolConflict"
    if a.protocol in {"TCP", "UDP"}:
        return "ProtocolConflict"
    return "HostnameConflict" if a.hostname.lower() == b.hostname.lower() else ""


def overlap(a: ListenerSpec, b: ListenerSpec) -> bool:
    """Whether one client's TLS connection may be right for both: HTTPS, one port, one name."""
    return (a.protocol, a.port) == (b.protocol, b.port) == ("HTTPS", a.port) and (
        covers(a.hostname, b.hostname) or covers(b.hostname, a.hostname)
    )
