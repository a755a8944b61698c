"""The node's CNI configuration, of our own and behind another plugin's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from node_agent.cni_config import NAME, NothingToChain, chained, configuration, install

SOCKET = Path("/run/sidegate/agent.sock")
OURS = {"type": "sidegate-cni", "agentSocket": str(SOCKET)}
BRIDGE = {"type": "bridge", "ipam": {"type": "host-local"}}
PORTMAP = {"type": "portmap", "capabilities": {"portMappings": True}}


def behind(directory: Path) -> Any:
    return json.loads(chained(directory, SOCKET))


def write(path: Path, value: object) -> None:
    path.write_text(value if isinstance(value, str) else json.dumps(value))


def test_of_our_own() -> None:
    made = json.loads(configuration(SOCKET, Path("/run/sidegate/ipam"), ["10.244.1.0/24"]))
    ipam = {"dataDir": "/run/sidegate/ipam", "ranges": ["10.244.1.0/24"]}
    assert made == {"cniVersion": "1.1.0", "name": "sidegate", "plugins": [{**OURS, "ipam": ipam}]}


def test_behind_the_first_list(tmp_path: Path) -> None:
    write(tmp_path / "20-later.conflist", {"name": "later", "plugins": [PORTMAP]})
    first = {"cniVersion": "0.4.0", "name": "cbr0", "plugins": [BRIDGE, PORTMAP]}
    write(tmp_path / "10-flannel.conflist", first)
    write(tmp_path / ".05-hidden.conflist", "x")
    write(tmp_path / "07-kubeconfig", "x")
    assert behind(tmp_path) == {**first, "plugins": [BRIDGE, PORTMAP, OURS]}


def test_behind_a_single_plugin(tmp_path: Path) -> None:
    write(tmp_path / "10-bridge.conf", {"cniVersion": "0.3.1", "name": "one", **BRIDGE})
    made = behind(tmp_path)
    assert (made["cniVersion"], made["name"]) == ("0.3.1", "one")
    assert [plugin["type"] for plugin in made["plugins"]] == ["bridge", "sidegate-cni"]


def test_what_we_wrote_and_an_own_entry_are_not_chained_twice(tmp_path: Path) -> None:
    write(tmp_path / "10-a.conflist", {"cniVersion": "1.0.0", "name": "a", "plugins": [BRIDGE]})
    install(tmp_path, chained(tmp_path, SOCKET))
    assert behind(tmp_path)["plugins"] == [BRIDGE, OURS]
    by_hand = {"cniVersion": "1.0.0", "name": "a", "plugins": [BRIDGE, {"type": "sidegate-cni"}]}
    write(tmp_path / "10-a.conflist", by_hand)
    assert behind(tmp_path)["plugins"] == [BRIDGE, OURS]
    assert sorted(path.name for path in tmp_path.iterdir()) == [NAME, "10-a.conflist"]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("", "", "has no configuration of another CNI plugin yet"),
        ("10-a.conflist", "{", "is no CNI configuration"),
        ("10-a.conflist", [], "is no CNI configuration"),
        ("10-a.conflist", {"plugins": [{"name": "x"}]}, "is no CNI configuration"),
        ("00-multus.conf", {**BRIDGE}, "would be read before 05-sidegate.conflist: rename it"),
    ],
)
def test_nothing_to_chain(tmp_path: Path, name: str, content: object, words: str) -> None:
    if name:
        write(tmp_path / name, content)
    with pytest.raises(NothingToChain, match=words):
        chained(tmp_path, SOCKET)
