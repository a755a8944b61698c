"""The CNI configuration of the node: there when the agent can serve it, so never before."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

NAME = "05-sidegate.conflist"


def install(directory: Path, socket: Path, data_dir: Path, pod_cidrs: Iterable[str]) -> None:
    """Written aside and renamed: a runtime never reads half of it. Raises OSError."""
    directory.mkdir(parents=True, exist_ok=True)
    target, fresh = directory / NAME, directory / f".{NAME}.new"
    fresh.write_text(json.dumps(configuration(socket, data_dir, pod_cidrs), indent=1))
    fresh.rename(target)


def configuration(socket: Path, data_dir: Path, pod_cidrs: Iterable[str]) -> dict[str, Any]:
    """A configuration list (CNI 1.1) whose addresses are of the node's pod CIDRs."""
    own = {
        "type": "sidegate-cni",
        "agentSocket": str(socket),
        "ipam": {"dataDir": str(data_dir), "ranges": list(pod_cidrs)},
    }
    return {"cniVersion": "1.1.0", "name": "sidegate", "plugins": [own]}
