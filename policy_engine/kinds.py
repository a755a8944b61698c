"""The kinds of policy, their API versions, and the short names that rules are called by."""

from __future__ import annotations

KINDS = {
    "CiliumNetworkPolicy": "cnp",
    "CiliumClusterwideNetworkPolicy": "ccnp",
    "SidegateNetworkPolicy": "snp",
    "SidegateClusterwideNetworkPolicy": "scnp",
    "NetworkPolicy": "knp",
}
CRD_KINDS = tuple(kind for kind in KINDS if kind != "NetworkPolicy")  # that one is Kubernetes' own
CLUSTERWIDE = frozenset({"ccnp", "scnp"})
API_VERSIONS = {
    "CiliumNetworkPolicy": "cilium.io/v2",
    "CiliumClusterwideNetworkPolicy": "cilium.io/v2",
    "SidegateNetworkPolicy": "policy.sidegate.io/v2",
    "SidegateClusterwideNetworkPolicy": "policy.sidegate.io/v2",
    "NetworkPolicy": "networking.k8s.io/v1",
}
