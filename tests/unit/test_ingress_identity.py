"""The addresses by which a node's Gateways speak to backends."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

from node_agent.ingress import reserve


def test_the_last_of_each_range_that_no_pod_has(tmp_path: Path) -> None:
    (tmp_path / "10.0.0.6").write_text("container eth0")
    cidrs = ("10.0.0.0/29", "fd00::/64")
    found = reserve(tmp_path, cidrs)
    assert found == (ip_address("10.0.0.5"), ip_address("fd00::ffff"))
    (tmp_path / "10.0.0.6").unlink()
    assert reserve(tmp_path, cidrs) == found  # the next agent has what this one had
    assert reserve(tmp_path, ("10.9.0.0/24",)) == (ip_address("10.9.0.254"),)


def test_a_full_range_gives_none(tmp_path: Path) -> None:
    (tmp_path / "10.0.0.2").write_text("container eth0")
    assert reserve(tmp_path, ("10.0.0.0/30",)) == ()
