"""The status of a pod, from what runs (API: PodStatus)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sandbox.node import Node
from sandbox.pod import Container
from sandbox.runner import ContainerState, RunningPod


def waiting(manifest: Mapping[str, Any], why: str) -> dict[str, Any]:
    """Of a pod that cannot start yet."""
    statuses = [
        {
            "name": item["name"], "image": item.get("image", ""), "imageID": "", "ready": False,
            "restartCount": 0,
            "state": {"waiting": {"reason": "CreatePodSandboxError", "message": why}},
        }
        for item in manifest["spec"]["containers"]
    ]  # fmt: skip
    return {"phase": "Pending", "containerStatuses": statuses}


def status(manifest: Mapping[str, Any], pod: RunningPod, node: Node) -> dict[str, Any]:
    containers = [_container(each, pod.states.get(each.name)) for each in pod.spec.containers]
    init = [_container(each, pod.states.get(each.name)) for each in pod.spec.init]
    beside = [one for one, each in zip(init, pod.spec.init, strict=True) if each.stays]
    ready = all(each["ready"] for each in [*containers, *beside])
    initialized = all(one["started"] or "terminated" in one["state"] for one in init)
    held = {c["type"]: c for c in (manifest.get("status") or {}).get("conditions") or []}
    conditions = [held["PodScheduled"]] if "PodScheduled" in held else []
    for kind, holds in (("Initialized", initialized), ("ContainersReady", ready), ("Ready", ready)):
        value = "True" if holds else "False"
        since = held.get(kind, {})
        when = since.get("lastTransitionTime") if since.get("status") == value else None
        conditions.append({"type": kind, "status": value, "lastTransitionTime": when or _time()})
    result: dict[str, Any] = {
        "phase": pod.phase,
        "conditions": conditions,
        "hostIP": node.addresses[0],
        "hostIPs": [{"ip": address} for address in node.addresses],
        "startTime": _time(pod.began),
        "containerStatuses": containers,
    }
    if pod.addresses:
        result["podIP"] = pod.addresses[0]
        result["podIPs"] = [{"ip": address} for address in pod.addresses]
    if init:
        result["initContainerStatuses"] = init
    return result


def _container(each: Container, state: ContainerState | None) -> dict[str, Any]:
    if state is None or not state.pid:
        current: dict[str, Any] = {"waiting": {"reason": "PodInitializing"}}
    elif state.exit_code is None:
        current = {"running": {"startedAt": _time(state.started)}}
    else:
        code = state.exit_code if state.exit_code >= 0 else 128 - state.exit_code
        reason = "Completed" if code == 0 else "Error"
        current = {"terminated": {"exitCode": code, "reason": reason,
                                  "startedAt": _time(state.started)}}  # fmt: skip
    return {
        "name": each.name,
        "image": each.image,
        "imageID": each.image,
        "containerID": f"sandbox://{state.id}" if state and state.pid else "",
        "ready": bool(state and state.ready),
        "started": bool(state and state.exit_code is None and state.up.is_set()),
        "restartCount": state.restarts if state else 0,
        "state": current,
    }


def _time(when: float | None = None) -> str:
    at = datetime.now(UTC) if when is None else datetime.fromtimestamp(when, UTC)
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")
