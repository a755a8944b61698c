"""What is named in more than one part of the overlay."""

from __future__ import annotations

DIRECTORY = "/var/run/sidegate"
CSI_DRIVER = "csi.sidegate.io"
VOLUME = "sidegate"
PROXY = "istio-proxy"  # its container, in whatever Istio injects
MANAGED_BY = {"app.kubernetes.io/managed-by": "sidegate-istioctl"}
ROOT_NAMESPACE = "istio-system"

# Istio applies filters of higher priority later; within the root namespace ours are last.
PRIORITY = 1000
TYPE = "type.googleapis.com"
HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

# By this, istiod knows the proxies that have the module: others could not load what we patch in.
METADATA = "SIDEGATE"
