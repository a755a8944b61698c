"""``sidegate status --cluster``: what runs of Sidegate in a cluster, and what is wrong there."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from kube_store.kube_client import CONNECTION_ERRORS, KubeClient, KubeError, connect, resource_path
from kube_store.resource import plural
from policy_engine.kinds import API_VERSIONS, CRD_KINDS
from sidegate_cli.failure import Failure

_PAUSE_SECONDS = 1.0
_WORKLOADS = (
    ("DaemonSet", "sidegate-agent", "desiredNumberScheduled", "numberReady"),
    ("DaemonSet", "sidegate-proxy", "desiredNumberScheduled", "numberReady"),
    ("Deployment", "sidegate-operator", "replicas", "readyReplicas"),
)


def cluster_status(
    kubeconfig: Path | None, namespace: str, wait: bool, seconds: float
) -> dict[str, Any]:
    """``components`` (with wanted and ready), ``nodes``, ``policies`` (how many, how many valid)
    and ``problems``. With ``wait``, until there are none or the time is over. Raises Failure."""
    try:
        return asyncio.run(_status(kubeconfig, namespace, wait, seconds))
    except (KubeError, *CONNECTION_ERRORS) as error:
        raise Failure(f"status: {error}", 3) from None


async def _status(
    kubeconfig: Path | None, namespace: str, wait: bool, seconds: float
) -> dict[str, Any]:
    client, deadline = await connect(kubeconfig), time.monotonic() + seconds
    try:
        while True:
            found = await _once(client, namespace)
            if not wait or not found["problems"] or time.monotonic() > deadline:
                return found
            await asyncio.sleep(_PAUSE_SECONDS)
    finally:
        await client.close()


async def _once(client: KubeClient, namespace: str) -> dict[str, Any]:
    components, problems = [], []
    for kind, name, wanted, ready in _WORKLOADS:
        found = await client.find(resource_path("apps/v1", plural(kind), namespace, name))
        status = (found or {}).get("status") or {}
        row = {"component": name, "wanted": status.get(wanted, 0), "ready": status.get(ready, 0)}
        components.append(row)
        if found is None:
            problems.append(f"{name} is not installed in {namespace}: sidegate install")
        elif not row["wanted"] or row["ready"] < row["wanted"]:
            problems.append(f"{name}: {row['ready']} of {row['wanted']} are ready")
    nodes = (await client.find(resource_path("v1", "nodes")) or {}).get("items") or []
    unready = [n["metadata"]["name"] for n in nodes if _condition(n, "Ready") != "True"]
    problems += [f"node {name} is not ready" for name in unready]
    policies, valid = 0, 0
    for kind in CRD_KINDS:
        path = resource_path(API_VERSIONS[kind], plural(kind))
        for item in (await client.find(path) or {}).get("items") or []:
            policies += 1
            valid += _condition(item, "Valid") == "True"
            if _condition(item, "Valid") == "False":
                metadata = item["metadata"]
                where = f"{metadata.get('namespace', '')}/{metadata['name']}".lstrip("/")
                problems.append(f"{kind} {where}: {_condition(item, 'Valid', 'message')}")
    return {
        "components": components,
        "nodes": {"all": len(nodes), "ready": len(nodes) - len(unready)},
        "policies": {"all": policies, "valid": valid},
        "problems": problems,
    }


def _condition(item: dict[str, Any], kind: str, field: str = "status") -> str:
    conditions = (item.get("status") or {}).get("conditions") or []
    return next((str(c.get(field, "")) for c in conditions if c.get("type") == kind), "")
