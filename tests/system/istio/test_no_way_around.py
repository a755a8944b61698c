"""What an L7-selected port is tried by, around the proxy that enforces: each is denied, and said.

It is the shared mesh; the pod ``reviews`` is its example's.
"""

from __future__ import annotations

import subprocess

import pytest

from node_agent.proof import filters
from sandbox.mesh_probes import ask
from tests.system.cluster_rig import eventually
from tests.system.istio.mesh import MESH, applied, sidecars

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(300)]

READ = ("http://reviews:8080/reviews/1",)
DELETE = ("--method", "DELETE", "http://reviews:8080/reviews/1")


def lacking() -> str:
    """Why the proxy of ``reviews`` does not enforce all that comes in; "" if it does."""
    try:
        said = str(sidecars()["default/reviews"]["lacking"])
    except (KeyError, ValueError, subprocess.CalledProcessError):
        return "no status"
    return "; ".join(each for each in said.split("; ") if each.startswith("ingress"))


@pytest.mark.usefixtures("mesh")
@pytest.mark.parametrize(
    ("patch", "why"),
    [
        (
            """
    - applyTo: CLUSTER
      match: {context: SIDECAR_INBOUND}
      patch:
        operation: ADD
        value:
          name: straight
          type: STATIC
          connect_timeout: 1s
          load_assignment:
            cluster_name: straight
            endpoints:
              - lb_endpoints:
                  - endpoint:
                      address: {socket_address: {address: 127.0.0.1, port_value: 8080}}
          typed_extension_protocol_options:
            envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
              "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
              use_downstream_protocol_config: {}
              http_filters:
                - name: codec
                  typed_config:
                    "@type": {codec}
    - applyTo: HTTP_ROUTE
      match: {context: SIDECAR_INBOUND, routeConfiguration: {portNumber: 8080}}
      patch: {operation: MERGE, value: {route: {cluster: straight}}}""",
            "cluster straight: sidegate_http is not its last filter",
        ),
        (
            """
    - applyTo: NETWORK_FILTER
      match:
        context: SIDECAR_INBOUND
        listener: {filterChain: {filter: {name: sidegate_kafka}}}
      patch: {operation: REMOVE}""",
            "sidegate_kafka is not right before tcp_proxy",
        ),
    ],
    ids=["http", "tcp"],
)
def test_a_tenant_that_takes_our_filter_out_closes_the_port(patch: str, why: str) -> None:
    """Of its own proxies only, and of one port or one kind of connection: the module lives on."""
    eventually("", lacking)
    with applied(_TENANT.format(patch=patch.replace("{codec}", _CODEC))):
        eventually(True, lambda: why in lacking(), 10)
        assert ask(MESH, "productpage", ("--timeout=1s", *READ)) == "none"
        assert ask(MESH, "productpage", ("--timeout=1s", *DELETE)) == "none"
    eventually("", lacking)
    eventually("200", lambda: ask(MESH, "productpage", READ))
    assert ask(MESH, "productpage", DELETE) == "403"


_CODEC = f"type.googleapis.com/{filters.CODEC}"
_TENANT = """
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {{name: tenant, namespace: default}}
spec:
  priority: 5000
  workloadSelector: {{labels: {{app: reviews}}}}
  configPatches:{patch}
"""
