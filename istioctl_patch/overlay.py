"""What Sidegate adds to an Istio installation, as plain YAML. Pure.

The values are istioctl's own (``IstioOperator``); the resources are applied beside Istio's.
Sources: Istio documentation, "Sidecar injection: custom templates" and "EnvoyFilter".
"""

from __future__ import annotations

import json
from typing import Any

DIRECTORY = "/var/run/sidegate"
CSI_DRIVER = "csi.sidegate.io"
MANAGED_BY = {"app.kubernetes.io/managed-by": "sidegate-istioctl"}
ROOT_NAMESPACE = "istio-system"

# Istio applies filters of higher priority later; within the root namespace ours are last.
_PRIORITY = 1000
_TYPE = "type.googleapis.com"
_HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

# Patched into the pod after Istio's own template. A native sidecar is among the init containers.
_TEMPLATE = f"""\
{{{{ $native := ne (index .ObjectMeta.Annotations `sidecar.istio.io/nativeSidecar` | default (printf "%t" .NativeSidecars)) "false" }}}}
spec:
  {{{{ if $native }}}}initContainers{{{{ else }}}}containers{{{{ end }}}}:
  - name: istio-proxy
    volumeMounts:
    - name: sidegate
      mountPath: {DIRECTORY}
      readOnly: true
  volumes:
  - name: sidegate
    csi:
      driver: {CSI_DRIVER}
      readOnly: true
"""  # noqa: E501


def operator(*, stock_envoy: bool = False) -> dict[str, Any]:
    """Values for ``istioctl install -f``.

    ``stock_envoy``: the sidecar is a plain Envoy instead of Istio's, which lacks the extensions
    that Istio's telemetry, metadata exchange and ALPN need.
    """
    values: dict[str, Any] = {
        "sidecarInjectorWebhook": {
            "defaultTemplates": ["sidecar", "sidegate"],
            "templates": {"sidegate": _TEMPLATE},
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


def resources() -> list[dict[str, Any]]:
    """What is applied besides: the filters, for every sidecar of the mesh."""
    return [_inbound()]


def _inbound() -> dict[str, Any]:
    """The module as the last filter before the application, so that nothing changes what it judged.

    Clusters of TCP ports have no HTTP options of Istio's, and what is merged into them has to be
    whole: the application is spoken to as the client spoke, which Istio does for most ports anyway.
    """
    codec = {
        "name": "envoy.filters.http.upstream_codec",
        "typed_config": {
            "@type": f"{_TYPE}/envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec"
        },
    }
    options = {
        "@type": f"{_TYPE}/{_HTTP_OPTIONS}",
        "use_downstream_protocol_config": {},
        "http_filters": [_filter("http", "DynamicModuleFilter", "sidegate_http"), codec],
    }
    return {
        "apiVersion": "networking.istio.io/v1alpha3",
        "kind": "EnvoyFilter",
        "metadata": {
            "name": "sidegate-inbound",
            "namespace": ROOT_NAMESPACE,
            "labels": dict(MANAGED_BY),
        },
        "spec": {
            "priority": _PRIORITY,
            "configPatches": [
                {
                    # What is not HTTP: Kafka is judged, the rest passes as L4 rules say.
                    "applyTo": "NETWORK_FILTER",
                    "match": {
                        "context": "SIDECAR_INBOUND",
                        "listener": {
                            "filterChain": {"filter": {"name": "envoy.filters.network.tcp_proxy"}}
                        },
                    },
                    "patch": {
                        "operation": "INSERT_BEFORE",
                        "value": _filter("network", "DynamicModuleNetworkFilter", "sidegate_kafka"),
                    },
                },
                {
                    "applyTo": "CLUSTER",
                    "match": {"context": "SIDECAR_INBOUND"},
                    "patch": {
                        "operation": "MERGE",
                        "value": {"typed_extension_protocol_options": {_HTTP_OPTIONS: options}},
                    },
                },
            ],
        },
    }


def _filter(kind: str, message: str, name: str) -> dict[str, Any]:
    config = {"direction": "ingress", "directory": DIRECTORY}
    return {
        "name": name,
        "typed_config": {
            "@type": f"{_TYPE}/envoy.extensions.filters.{kind}.dynamic_modules.v3.{message}",
            "dynamic_module_config": {
                "name": "sidegate",
                "do_not_close": True,  # it has a thread
                "module": {"local": {"filename": f"{DIRECTORY}/libsidegate.so"}},
            },
            "filter_name": name,
            "filter_config": {
                "@type": f"{_TYPE}/google.protobuf.StringValue",
                "value": json.dumps(config),
            },
        },
    }
