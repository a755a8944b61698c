"""``python -m node_agent.await_daemonset NAMESPACE NAME``: until it is ready on every node.

The last step of an uninstallation, which Helm cannot wait for by itself: of hooks it awaits Jobs.
"""

from __future__ import annotations

import asyncio
import sys

from kube_store.kube_client import CONNECTION_ERRORS, KubeClient, KubeError, connect, resource_path

_PAUSE_SECONDS = 1.0


async def is_ready(client: KubeClient, namespace: str, name: str) -> bool:
    """Raises KubeError or one of CONNECTION_ERRORS."""
    path = resource_path("apps/v1", "daemonsets", namespace, name)
    found, _ = await client.request("GET", path)
    status = found.get("status") or {}
    if status.get("observedGeneration") != found["metadata"]["generation"]:
        return False
    return bool(status["numberReady"] == status["desiredNumberScheduled"])


async def _until_ready(namespace: str, name: str) -> None:
    client = await connect(None)
    try:
        while True:
            try:
                if await is_ready(client, namespace, name):
                    return
            except (KubeError, *CONNECTION_ERRORS) as error:
                print(f"await_daemonset: {error}", file=sys.stderr)
            await asyncio.sleep(_PAUSE_SECONDS)
    finally:
        await client.close()


if __name__ == "__main__":
    asyncio.run(_until_ready(sys.argv[1], sys.argv[2]))
