"""What Sidegate adds to an Istio installation, as plain YAML. Pure.

The values are istioctl's own (``IstioOperator``); the resources are applied beside Istio's.
"""

from __future__ import annotations

from typing import Any

from istioctl_patch import admission, injection
from istioctl_patch.gateway import gateway
from istioctl_patch.inbound import inbound
from istioctl_patch.names import ROOT_NAMESPACE
from istioctl_patch.outbound import outbound


def operator(*, stock_envoy: bool = False) -> dict[str, Any]:
    """Values for ``istioctl install -f``.

    ``stock_envoy``: the sidecar is a plain Envoy instead of Istio's, which lacks the extensions
    that Istio's telemetry, metadata exchange and ALPN need.
    """
    values: dict[str, Any] = {
        "sidecarInjectorWebhook": {
            "defaultTemplates": ["sidecar", injection.NAME],
            "templates": dict(injection.TEMPLATES),
        }
    }
    if stock_envoy:
        values["telemetry"] = {"enabled": False}
        values["pilot"] = {
            "env": {"PILOT_ENABLE_METADATA_EXCHANGE": "false", "PILOT_ENABLE_ALPN_FILTER": "false"}
        }
    return {
        "apiVersion": "install.istio.io/v1alpha1",
        "kind": "IstioOperator",
        "spec": {"values": values},
    }


def resources(namespace: str = ROOT_NAMESPACE) -> list[dict[str, Any]]:
    """What is applied besides, for every sidecar of the mesh; a module for each. ``namespace`` is
    the mesh's root namespace."""
    filters = [inbound(), outbound(), gateway()]
    for each in filters:
        each["metadata"]["namespace"] = namespace
    return [*filters, *admission.guard(filters)]
