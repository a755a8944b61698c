"""The findings of ``analyze``, one function for each. Pure: objects in, findings out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from istioctl_patch import injector, support
from istioctl_patch.findings import Finding, Level
from istioctl_patch.names import MANAGED_BY, PROXY, VOLUME
from istioctl_patch.selected import Selected
from istioctl_patch.touching import touched
from node_agent.ambient import LIMIT, is_ambient

Manifest = Mapping[str, Any]
_RESTART = "restart it once the injector has the template: sidegate-istioctl verify-install"
_TRAFFIC = "traffic.sidecar.istio.io/"


def without_module(pods: Iterable[Selected]) -> Iterator[Finding]:
    for each in pods:
        if not is_injected(each.pod) or has_module(each.pod):
            continue
        level, what = Level.INFO, "L7 rules would have nobody to judge them"
        if each.l7:
            level = Level.ERROR
            what = f"{', '.join(each.l7)} selects it at L7: what comes inside mTLS is denied"
        yield _about(each, "SG0101", level, f"istio-proxy has no module, and {what}; {_RESTART}.")


def not_intercepted(pods: Iterable[Selected]) -> Iterator[Finding]:
    """Ports that the sidecar does not see are the node's, which reads no mTLS."""
    for each in pods:
        excluded = {int(p) for p in _listed(each.annotation(f"{_TRAFFIC}excludeInboundPorts"))}
        included = each.annotation(f"{_TRAFFIC}includeInboundPorts")
        if not is_injected(each.pod) or not (excluded or included):
            continue
        named = {int(p) for p in _listed(included)}
        everything = included in ("", "*")
        past = {p for p in each.ports if p in excluded or not (everything or p in named)}
        if past:
            text = ", ".join(map(str, sorted(past)))
            message = (
                f"{', '.join(each.l7)} has L7 rules for port {text}, which the sidecar does not "
                "intercept: the node's proxy judges it, and denies what is mTLS."
            )
            yield _about(each, "SG0102", Level.WARNING, message)
        elif excluded:
            text = ", ".join(map(str, sorted(excluded)))
            message = (
                f"port {text} is excluded from interception: no L7 rule selects it now, and one "
                "that does is the node's, which denies what is mTLS."
            )
            yield _about(each, "SG0102", Level.INFO, message)


def contradictions(
    pods: Iterable[Selected], manifests: Iterable[Manifest], root: str
) -> Iterator[Finding]:
    """What a policy lets in, and mTLS keeps out."""
    authentications = list(manifests)
    for each in pods:
        if not (is_injected(each.pod) and each.outsiders):
            continue
        found = _effective(each, authentications, root)
        if found and ((found.get("spec") or {}).get("mtls") or {}).get("mode") == "STRICT":
            at = f"{found['metadata']['namespace']}/{found['metadata']['name']}"
            message = (
                f"{', '.join(dict.fromkeys(each.outsiders))} lets in peers that have no "
                f"certificate of the mesh, and PeerAuthentication {at} is STRICT: they are refused "
                "before policy is asked."
            )
            yield _about(each, "SG0103", Level.WARNING, message)


def versions(found: support.Versions) -> Iterator[Finding]:
    for revision, version in sorted(found.pilots.items()):
        if not support.fits(version):
            message = f"istiod is {version}, whose proxies cannot load the module."
            yield Finding("SG0104", Level.ERROR, "Revision", "", revision, message)
    for proxy, version in sorted(found.proxies.items()):
        if not support.fits(version):
            name, _, namespace = proxy.partition(".")
            message = (
                f"its proxy is {version}, which cannot load the module: restart it under a newer "
                "revision."
            )
            yield Finding("SG0104", Level.ERROR, "Pod", namespace, name, message)


def foreign_filters(manifests: Iterable[Manifest]) -> Iterator[Finding]:
    """EnvoyFilters of others that can take away or pass what ours put there."""
    for each in manifests:
        metadata = each["metadata"]
        if MANAGED_BY.items() <= (metadata.get("labels") or {}).items():
            continue
        for index, patch in enumerate((each.get("spec") or {}).get("configPatches") or []):
            if touch := touched(patch):
                message = (
                    f"spec.configPatches[{index}] {touch.what}: the proxies that it selects may "
                    "lose the module, and with it their lease: L7-selected ports close; "
                    f"{touch.instead}."
                )
                where = metadata["namespace"], metadata["name"]
                yield Finding("SG0105", Level.ERROR, "EnvoyFilter", *where, message)


def ambient(pods: Iterable[Selected], namespaces: Iterable[Manifest]) -> Iterator[Finding]:
    known = {each["metadata"]["name"]: each for each in namespaces}
    for each in pods:
        if each.l7 and is_ambient(each.pod, known.get(each.namespace, {})):
            message = f"{', '.join(each.l7)} selects it at L7, and it is {LIMIT}."
            yield _about(each, "SG0106", Level.WARNING, message)


def revisions(config_maps: Iterable[Manifest], namespaces: Iterable[Manifest]) -> Iterator[Finding]:
    """A namespace that a revision without our template injects."""
    lacking = {injector.revision(each): each for each in config_maps if injector.problem(each)}
    for each in namespaces:
        labels = each["metadata"].get("labels") or {}
        wanted = labels.get("istio.io/rev", "")
        if not wanted and labels.get("istio-injection") == "enabled":
            wanted = "default"
        if wanted in lacking:
            name = each["metadata"]["name"]
            message = (
                f"is injected by revision {wanted}, whose injector "
                f"{injector.problem(lacking[wanted])}: {injector.remedy(lacking[wanted])}."
            )
            yield Finding("SG0107", Level.WARNING, "Namespace", name, name, message)


def is_injected(pod: Manifest) -> bool:
    return _proxy(pod) is not None


def has_module(pod: Manifest) -> bool:
    mounts = (_proxy(pod) or {}).get("volumeMounts") or []
    return any(mount.get("name") == VOLUME for mount in mounts)


def _proxy(pod: Manifest) -> Manifest | None:
    spec = pod.get("spec") or {}
    containers = [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]
    return next((c for c in containers if c.get("name") == PROXY), None)


def _effective(pod: Selected, authentications: Iterable[Manifest], root: str) -> Manifest | None:
    """The nearest: of the pod, of its namespace, of the mesh."""
    labels = pod.pod["metadata"].get("labels") or {}
    ranked = []
    for each in authentications:
        namespace = each["metadata"]["namespace"]
        wanted = ((each.get("spec") or {}).get("selector") or {}).get("matchLabels") or {}
        if namespace == pod.namespace and wanted:
            if wanted.items() <= labels.items():
                ranked.append((0, each))
        elif not wanted and namespace in (pod.namespace, root):
            ranked.append((1 if namespace == pod.namespace else 2, each))
    return min(ranked, key=lambda item: item[0])[1] if ranked else None


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip().isdecimal()]


def _about(pod: Selected, code: str, level: Level, message: str) -> Finding:
    return Finding(code, level, "Pod", pod.namespace, pod.name, message)
