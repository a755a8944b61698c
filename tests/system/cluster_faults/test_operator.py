"""Operators that are killed, and CRDs of an older version."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from cluster_operator.crds import SCHEMA_VERSION, VERSION_ANNOTATION
from sandbox import processes
from sandbox.cluster import kubectl
from tests.system.cluster_faults.shop import (
    CLUSTER,
    ENFORCED,
    NODES,
    SYSTEM,
    apply,
    policy,
    refused,
    verdicts,
)
from tests.system.cluster_rig import eventually

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(300)]
CRD = "ciliumnetworkpolicies.cilium.io"
BAD = policy("/x", ingres=[])


def operators() -> list[int]:
    """Processes of operators, on any node."""
    found = []
    for node in NODES:
        for pid in processes.inside(node.netns):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                if b"cluster_operator" in words:
                    found.append(pid)
    return found


def crd() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(kubectl(CLUSTER, "get", "crd", CRD, "-ojson"))
    return found


def version() -> str:
    return str(crd()["metadata"]["annotations"][VERSION_ANNOTATION])


def make_older() -> None:
    """As an earlier release had it: its schema knows less, and takes anything."""
    older = crd()
    older["metadata"]["annotations"][VERSION_ANNOTATION] = "0"
    for field in ("managedFields", "resourceVersion"):
        older["metadata"].pop(field, None)
    for each in older["spec"]["versions"]:
        spec = each["schema"]["openAPIV3Schema"]["properties"]
        spec["spec"] = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    kubectl(CLUSTER, "replace", "-f", "-", text=json.dumps(older))


def kill_operators() -> None:
    for pid in operators():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def test_older_crds_are_brought_to_this_version_and_nothing_is_lost() -> None:
    make_older()
    uid = kubectl(CLUSTER, "get", "cnp", "server", "-ojsonpath={.metadata.uid}")
    kill_operators()
    eventually(str(SCHEMA_VERSION), version, 60)
    eventually(True, lambda: "spec.ingres" in attempt(BAD), 10)
    assert kubectl(CLUSTER, "get", "cnp", "server", "-ojsonpath={.metadata.uid}") == uid
    assert verdicts() == ENFORCED


def attempt(manifest: dict[str, Any]) -> str:
    """What kubectl says of it, without keeping it."""
    try:
        return apply_dry(manifest)
    except subprocess.CalledProcessError as error:
        return str(error.stderr)


def apply_dry(manifest: dict[str, Any]) -> str:
    return kubectl(CLUSTER, "apply", "--dry-run=server", "-f", "-", text=json.dumps(manifest))


@pytest.mark.parametrize("seconds", [0.0, 1.0])
def test_an_operator_killed_at_any_step_leaves_work_that_the_next_one_ends(seconds: float) -> None:
    """Both at once, and again while the next ones begin."""
    make_older()
    kill_operators()
    eventually(True, lambda: len(operators()) > 0, 30)
    time.sleep(seconds)
    kill_operators()
    eventually(str(SCHEMA_VERSION), version, 90)
    assert verdicts() == ENFORCED


def test_an_operator_without_rights_says_so_and_recovers() -> None:
    binding = kubectl(CLUSTER, "get", "clusterrolebinding", "sidegate-operator", "-ojson")
    kubectl(CLUSTER, "delete", "clusterrolebinding", "sidegate-operator")
    try:
        make_older()
        kill_operators()
        eventually(True, lambda: "403" in logs() or "forbidden" in logs(), 60)
        assert verdicts() == ENFORCED
    finally:
        apply(json.loads(binding))
    eventually(str(SCHEMA_VERSION), version, 90)
    assert "spec.ingres" in refused(BAD)


def logs() -> str:
    return kubectl(
        CLUSTER, "-n", SYSTEM, "logs", "-l", "app.kubernetes.io/component=operator", "--tail=50"
    )
