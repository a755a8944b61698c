"""What ``verify-install`` checks. Pure: objects in, checks out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from istioctl_patch import injector, support
from istioctl_patch.names import CSI_DRIVER

Manifest = Mapping[str, Any]
_AGENT = "app.kubernetes.io/component"


@dataclass(frozen=True, slots=True)
class Check:
    """``problem`` is "" where all is well, and says what to do where it is not."""

    what: str
    object: str
    problem: str = ""

    @property
    def ok(self) -> bool:
        return not self.problem


def istio(versions: support.Versions, pilots: Sequence[Manifest]) -> Iterator[Check]:
    """Istio's own part: istiod of each revision, and whether its version fits."""
    if not pilots:
        yield Check("istiod", "Deployment", "there is none: sidegate-istioctl install")
    for pilot in pilots:
        metadata = pilot["metadata"]
        wanted = (pilot.get("spec") or {}).get("replicas", 1)
        ready = (pilot.get("status") or {}).get("readyReplicas", 0)
        problem = "" if ready >= wanted else f"{ready} of {wanted} replicas are ready"
        yield Check("istiod", f"Deployment {metadata['namespace']}/{metadata['name']}", problem)
    for name, version in sorted(versions.pilots.items()):
        yield Check("version", f"revision {name}", _unfit(version))


def injectors(config_maps: Iterable[Manifest]) -> Iterator[Check]:
    """Each revision's injector has our template."""
    for each in config_maps:
        problem = injector.problem(each)
        metadata = each["metadata"]
        yield Check("injection template", f"ConfigMap {metadata['namespace']}/{metadata['name']}",
                    f"{problem}: {injector.remedy(each)}" if problem else "")  # fmt: skip


def resources(wanted: Iterable[Manifest], found: Iterable[Manifest]) -> Iterator[Check]:
    """Ours are there, and say what this version of ours says."""
    there = {_key(each): each for each in found}
    for each in wanted:
        kind, namespace, name = _key(each)
        held, problem = there.get((kind, namespace, name)), ""
        if held is None:
            problem = "is not there: sidegate-istioctl install"
        elif path := differs(each["spec"], held.get("spec"), "spec"):
            problem = f"{path} is not what this version installs: sidegate-istioctl install"
        yield Check("overlay", f"{kind} {namespace}/{name}".replace(" /", " "), problem)


def node_drivers(
    drivers: Iterable[Manifest],
    nodes: Iterable[Manifest],
    pods: Iterable[Manifest],
    csi_nodes: Iterable[Manifest],
) -> Iterator[Check]:
    """The CSI driver, and on each node an agent that serves it."""
    enable = "sidegate install --set istio.enabled=true"
    driver = next((e for e in drivers if e["metadata"]["name"] == CSI_DRIVER), None)
    informed = driver is not None and (driver.get("spec") or {}).get("podInfoOnMount")
    lacks = "does not tell of pods" if driver else "is not there"
    yield Check("CSI driver", f"CSIDriver {CSI_DRIVER}", "" if informed else f"{lacks}: {enable}")
    agents = {
        each["spec"].get("nodeName"): each
        for each in pods
        if (each["metadata"].get("labels") or {}).get(_AGENT) == "agent"
        and "sidegate" in (each["metadata"].get("labels") or {}).get("app.kubernetes.io/name", "")
    }
    known = {
        each["metadata"]["name"]: [d["name"] for d in (each.get("spec") or {}).get("drivers") or []]
        for each in csi_nodes
    }
    for node in nodes:
        name = node["metadata"]["name"]
        agent, problem = agents.get(name), ""
        if agent is None:
            problem = f"no agent: {enable}"
        elif not _ready(agent):
            problem = f"pod {agent['metadata']['name']} is not ready"
        elif name in known and CSI_DRIVER not in known[name]:
            problem = f"the kubelet does not know the driver: {enable}"
        yield Check("agent", f"Node {name}", problem)


def differs(wanted: Any, held: Any, path: str) -> str:
    """Where ``held`` lacks what is wanted, "" if nowhere; the API server's defaults are its own."""
    if isinstance(wanted, Mapping):
        if not isinstance(held, Mapping):
            return path
        found = (differs(value, held.get(key), f"{path}.{key}") for key, value in wanted.items())
        return next(filter(None, found), "")
    if isinstance(wanted, Sequence) and not isinstance(wanted, str):
        if not isinstance(held, Sequence) or len(held) != len(wanted):
            return path
        pairs = enumerate(zip(wanted, held, strict=True))
        return next(filter(None, (differs(a, b, f"{path}[{i}]") for i, (a, b) in pairs)), "")
    return "" if wanted == held else path


def _unfit(version: str) -> str:
    try:
        support.check(version)
    except support.Unsupported as error:
        return str(error)
    return ""


def _key(manifest: Manifest) -> tuple[str, str, str]:
    metadata = manifest["metadata"]
    return manifest["kind"], metadata.get("namespace", ""), metadata["name"]


def _ready(pod: Manifest) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or []
    return any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)
