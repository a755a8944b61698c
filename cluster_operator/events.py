"""Events (API: core/v1 Event) about objects, so that ``kubectl describe`` shows what was wrong."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import structlog

from kube_store.kube_client import CONNECTION_ERRORS, KubeClient, KubeError, resource_path

log = structlog.get_logger(__name__)


class Events:
    """Best effort: what cannot be said is logged, and nothing waits for it."""

    def __init__(self, client: KubeClient, reporter: str) -> None:
        self._client, self._reporter = client, reporter

    async def say(self, about: dict[str, Any], kind: str, reason: str, message: str) -> None:
        """``kind`` is Normal or Warning."""
        metadata = about["metadata"]
        namespace = metadata.get("namespace") or "default"
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        body = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{metadata['name']}.{time.time_ns():x}", "namespace": namespace},
            "involvedObject": {
                "apiVersion": about["apiVersion"], "kind": about["kind"],
                "name": metadata["name"], "namespace": metadata.get("namespace", ""),
                "uid": metadata.get("uid", ""),
            },
            "type": kind,
            "reason": reason,
            "message": message[:1000],
            "source": {"component": "sidegate-operator"},
            "reportingComponent": "sidegate-operator",
            "reportingInstance": self._reporter,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }  # fmt: skip
        try:
            await self._client.request("POST", resource_path("v1", "events", namespace), body=body)
        except (KubeError, *CONNECTION_ERRORS) as error:
            log.warning("an event was not taken", message=message, error=str(error))
