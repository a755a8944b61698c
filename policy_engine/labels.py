"""Cilium's label form ``source:key=value`` and the labels that make an identity.

Source: Cilium documentation, "Identity-relevant labels" and "Layer 3 policies".
"""

from __future__ import annotations

from collections.abc import Mapping

Labels = Mapping[str, str]  # "source:key" -> value

NAMESPACE = "k8s:io.kubernetes.pod.namespace"
NAMESPACE_LABEL_PREFIX = "k8s:io.cilium.k8s.namespace.labels."
SERVICE_ACCOUNT = "k8s:io.cilium.k8s.policy.serviceaccount"
CLUSTER = "k8s:io.cilium.k8s.policy.cluster"
_DERIVED = ("io.kubernetes.pod.", "io.cilium.k8s.")  # made here, never taken from a pod


def pod_labels(
    namespace: str,
    labels: Labels,
    namespace_labels: Labels,
    service_account: str = "default",
) -> dict[str, str]:
    """The identity labels of a pod. Its own labels cannot speak for its namespace or account."""
    made = {f"k8s:{key}": value for key, value in labels.items() if not key.startswith(_DERIVED)}
    made |= {f"{NAMESPACE_LABEL_PREFIX}{key}": value for key, value in namespace_labels.items()}
    made[NAMESPACE] = namespace
    made[SERVICE_ACCOUNT] = service_account
    made[CLUSTER] = "default"
    return made


def format_labels(labels: Labels) -> tuple[str, ...]:
    """Sorted ``source:key=value`` texts (``source:key`` where the value is empty)."""
    return tuple(sorted(f"{key}={value}" if value else key for key, value in labels.items()))


def parse_labels(texts: tuple[str, ...]) -> dict[str, str]:
    """The reverse of :func:`format_labels`."""
    return {key: value for key, _, value in (text.partition("=") for text in texts)}


def selector_key(key: str) -> str:
    """A selector's key with its source: ``any:`` unless one is given before the first dot."""
    source, colon, _ = key.partition(":")
    return key if colon and "." not in source and "/" not in source else f"any:{key}"


def lookup(labels: Labels, key: str) -> str | None:
    """The value of a selector's key in ``labels``, None if absent; ``any:`` matches any source."""
    if not key.startswith("any:"):
        return labels.get(key)
    bare = key[len("any:") :]
    for source in ("k8s:", "reserved:", "cidr:"):
        if (value := labels.get(source + bare)) is not None:
            return value
    return None
