"""EnvoyFilter ``sidegate-inbound``: what comes into a pod is judged in its sidecar. Pure."""

from __future__ import annotations

from typing import Any

from istioctl_patch import module_filter


def inbound() -> dict[str, Any]:
    """The module as the last filter before the application."""
    return module_filter.envoy_filter(
        "sidegate-inbound",
        [
            {
                # Who connected: what Envoy takes for the source is what X-Forwarded-For claims.
                "applyTo": "LISTENER_FILTER",
                "match": {"context": "SIDECAR_INBOUND"},
                "patch": {"operation": "ADD", "value": module_filter.listener("ingress")},
            },
            # What is not HTTP: Kafka is judged, the rest passes as L4 rules say.
            module_filter.before_tcp_proxy("SIDECAR_INBOUND", "ingress"),
            module_filter.in_router("SIDECAR_INBOUND", "ingress"),
        ],
    )
