"""EnvoyFilter ``sidegate-gateway``: what a gateway sends on is judged in it. Pure."""

from __future__ import annotations

from typing import Any

from istioctl_patch import module_filter


def gateway() -> dict[str, Any]:
    """As ``sidegate-outbound`` does it in sidecars (docs/adr/0021)."""
    return module_filter.envoy_filter(
        "sidegate-gateway",
        [
            module_filter.before_tcp_proxy("GATEWAY", "forward"),
            module_filter.in_router("GATEWAY", "forward"),
        ],
    )
