"""EnvoyFilter ``sidegate-outbound``: what leaves a pod is judged in its sidecar. Pure."""

from __future__ import annotations

from typing import Any

from istioctl_patch import module_filter


def outbound() -> dict[str, Any]:
    """The module where it is known which backend was chosen (docs/adr/0014): for HTTP among the
    upstream filters of the router, for the rest before ``tcp_proxy``."""
    return module_filter.envoy_filter(
        "sidegate-outbound",
        [
            module_filter.before_tcp_proxy("SIDECAR_OUTBOUND", "egress"),
            module_filter.in_router("SIDECAR_OUTBOUND", "egress"),
        ],
    )
