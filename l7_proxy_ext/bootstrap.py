"""What a node's Envoy starts with: who it is, the module, and where its agent listens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

AGENT_CLUSTER = "sidegate-agent"
_TYPE = "type.googleapis.com"


def bootstrap(
    node: str, run_dir: Path, *, bpf_dir: Path | None = None, delta: bool = True
) -> dict[str, Any]:
    """Envoy's bootstrap (``envoy.config.bootstrap.v3.Bootstrap`` as JSON), paths as in
    docs/architecture.md. Nothing in it changes while a node runs.

    ``delta`` False asks for the state-of-the-world variant of ADS.
    """
    bpf_dir = bpf_dir or run_dir / "bpf"
    module = {
        "node": node,
        "agent_socket": str(run_dir / "xds.sock"),
        "ipcache": str(bpf_dir / "ipcache"),
        "ipcache_epoch": str(bpf_dir / "ipcache_epoch"),
    }
    ads = {"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"}
    return {
        "node": {"id": node, "cluster": "sidegate"},
        "admin": {"address": {"pipe": {"path": str(run_dir / "envoy" / "admin.sock")}}},
        "bootstrap_extensions": [
            {
                "name": "sidegate",
                "typed_config": {
                    "@type": f"{_TYPE}/envoy.extensions.bootstrap.dynamic_modules.v3"
                    ".DynamicModuleBootstrapExtension",
                    "dynamic_module_config": {"name": "sidegate"},
                    "extension_name": "sidegate",
                    "extension_config": {
                        "@type": f"{_TYPE}/google.protobuf.StringValue",
                        "value": json.dumps(module),
                    },
                },
            }
        ],
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC" if delta else "GRPC",
                "transport_api_version": "V3",
                "set_node_on_first_message_only": True,
                "grpc_services": [
                    {
                        "envoy_grpc": {
                            "cluster_name": AGENT_CLUSTER,
                            # An agent that restarts is found again at once.
                            "retry_policy": {
                                "retry_back_off": {"base_interval": "0.1s", "max_interval": "1s"}
                            },
                        }
                    }
                ],
            },
            "lds_config": ads,
            "cds_config": ads,
        },
        "static_resources": {"clusters": [_agent_cluster(run_dir / "xds.sock")]},
    }


def _agent_cluster(path: Path) -> dict[str, Any]:
    endpoint = {"endpoint": {"address": {"pipe": {"path": str(path)}}}}
    return {
        "name": AGENT_CLUSTER,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": AGENT_CLUSTER,
            "endpoints": [{"lb_endpoints": [endpoint]}],
        },
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": f"{_TYPE}/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        },
    }
