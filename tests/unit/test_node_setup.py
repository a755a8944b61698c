"""What the chart's init container puts on a node."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest

from node_agent import node_setup


def test_the_plugin_is_executable_and_whole(tmp_path: Path) -> None:
    plugin, target = tmp_path / "sidegate-cni", tmp_path / "bin"
    for content in (b"old", b"new"):
        plugin.write_bytes(content)
        node_setup.install_plugin(target, plugin)
    assert [path.name for path in target.iterdir()] == ["sidegate-cni"]
    assert (target / "sidegate-cni").read_bytes() == b"new"
    assert (target / "sidegate-cni").stat().st_mode & 0o777 == 0o755


def test_modules_are_kept_one_upgrade_long(tmp_path: Path) -> None:
    module, target = tmp_path / "libsidegate.so", tmp_path / "modules"
    paths = []
    for content in (b"one", b"two", b"two", b"three"):
        module.write_bytes(content)
        paths.append(node_setup.install_module(target, module))
        assert (target / "current" / "libsidegate.so").read_bytes() == content
        assert paths[-1].read_bytes() == content
    one, two, again, three = paths
    assert two == again
    assert len({one, two, three}) == 3
    assert {path.name for path in target.iterdir()} == {
        "current", two.parent.name, three.parent.name,
    }  # fmt: skip


def test_what_a_killed_installation_left_is_no_obstacle(tmp_path: Path) -> None:
    module, target = tmp_path / "libsidegate.so", tmp_path / "modules"
    module.write_bytes(b"one")
    made = node_setup.install_module(target, module)
    (target / ".current.new").symlink_to("nowhere")
    (target / ".0123456789abcdef.new").mkdir()
    module.write_bytes(b"two")
    node_setup.install_module(target, module)
    assert made.exists()
    assert not list(target.glob(".*"))


def test_nothing_is_taken_from_under_an_agent(tmp_path: Path) -> None:
    configuration = tmp_path / "cni" / "05-sidegate.conflist"
    configuration.parent.mkdir()
    configuration.touch()
    with (tmp_path / "agent.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(node_setup.AgentRuns, match="DaemonSet"):
            node_setup.remove(tmp_path, tmp_path / "bpf", configuration.parent, seconds=0.2)
    assert configuration.exists()
