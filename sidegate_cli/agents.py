"""What each agent of a cluster answers: the program inside its pod is run, by the API server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kube_store.kube_client import CONNECTION_ERRORS, KubeError, connect
from sidegate_cli.connectivity.cluster import TestCluster
from sidegate_cli.failure import Failure

_COMPONENT = "app.kubernetes.io/component"


def ask_all(
    kubeconfig: Path | None, namespace: str, arguments: Sequence[str]
) -> list[dict[str, Any]]:
    """The ``items`` that ``sidegate ARGUMENTS -o json`` has on each node, with ``node``; where an
    agent cannot answer, one with ``node`` and ``error``. Raises Failure."""
    try:
        return asyncio.run(_ask_all(kubeconfig, namespace, arguments))
    except (KubeError, *CONNECTION_ERRORS) as error:
        raise Failure(f"{' '.join(arguments)}: {error}", 3) from None


async def _ask_all(
    kubeconfig: Path | None, namespace: str, arguments: Sequence[str]
) -> list[dict[str, Any]]:
    client = await connect(kubeconfig)
    try:
        cluster = TestCluster(client, namespace)
        agents = [
            pod
            for pod in await cluster.items("Pod")
            if (pod["metadata"].get("labels") or {}).get(_COMPONENT) == "agent"
        ]
        if not agents:
            raise Failure(f"no agent runs in {namespace}: sidegate install, or say --namespace", 3)
        return [
            {"node": pod["spec"].get("nodeName", ""), **item}
            for pod in sorted(agents, key=lambda pod: str(pod["spec"].get("nodeName")))
            for item in await _ask(cluster, pod["metadata"]["name"], arguments)
        ]
    finally:
        await client.close()


async def _ask(cluster: TestCluster, pod: str, arguments: Sequence[str]) -> list[dict[str, Any]]:
    try:
        ran = await cluster.run(pod, ["sidegate", *arguments, "-o", "json"])
        items: list[dict[str, Any]] = json.loads(ran.output)["items"]
    except (KubeError, *CONNECTION_ERRORS) as error:
        return [{"error": f"{pod}: {error}"}]
    except ValueError:
        return [{"error": f"{pod}: {ran.output.strip()[:200]}"}]
    return items
