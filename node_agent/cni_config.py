"""The CNI configuration of the node: there when the agent can serve it, so never before."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from kube_store.files import replace_file

NAME = "05-sidegate.conflist"
_PLUGIN = "sidegate-cni"
_SUFFIXES = (".conf", ".conflist", ".json")  # what container runtimes read


class NothingToChain(ValueError):
    """No configuration that ours could go behind; the message says why."""


def install(directory: Path, text: str) -> None:
    """Written aside and renamed: a runtime never reads half of it. Raises OSError."""
    directory.mkdir(parents=True, exist_ok=True)
    replace_file(directory / NAME, text.encode())


def configuration(socket: Path, data_dir: Path, pod_cidrs: Iterable[str]) -> str:
    """A configuration list (CNI 1.1) whose addresses are of the node's pod CIDRs."""
    ipam = {"dataDir": str(data_dir), "ranges": list(pod_cidrs)}
    return _text({"cniVersion": "1.1.0", "name": "sidegate"}, [{**_own(socket), "ipam": ipam}])


def chained(directory: Path, socket: Path) -> str:
    """The first other configuration of the directory, with our plugin as its last.

    That one stays as it is, and ours is read before it. Raises NothingToChain, OSError.
    """
    others = sorted(
        path
        for path in directory.glob("*")
        if path.suffix in _SUFFIXES and path.name != NAME and not path.name.startswith(".")
    )
    if not others:
        raise NothingToChain(f"{directory} has no configuration of another CNI plugin yet")
    first = others[0]
    if first.name < NAME:
        raise NothingToChain(
            f"{first} would be read before {NAME}: rename it, as to 10-{first.name}"
        )
    try:
        found = json.loads(first.read_text())
        plugins = found.get("plugins") or [found]
        before = [plugin for plugin in plugins if plugin["type"] != _PLUGIN]
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise NothingToChain(f"{first} is no CNI configuration: {error!r}") from None
    return _text(found, [*before, _own(socket)])


def _own(socket: Path) -> dict[str, Any]:
    return {"type": _PLUGIN, "agentSocket": str(socket)}


def _text(network: dict[str, Any], plugins: list[dict[str, Any]]) -> str:
    """With the name of ``network``: plugins keep what they know of pods by it."""
    head = {"cniVersion": network.get("cniVersion", "0.3.1"), "name": network.get("name", "cni")}
    return json.dumps({**head, "plugins": plugins}, indent=1)
