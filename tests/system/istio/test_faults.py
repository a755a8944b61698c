"""What breaks in a sidecar: its programs are killed, its library is not what it should be. Its
ports are closed meanwhile, and it is said why."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from node_agent.module_library import LINK
from sandbox.node import SANDBOX_ROOT
from tests.system.cluster_rig import eventually
from tests.system.istio import pods
from tests.system.istio.mesh import (
    address_of,
    node_of,
    pids,
    reasons,
    sidecars,
    within,
)

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(300)]

AWAY = 3.0  # seconds: leases last for one


class Victim:
    """A server of this module's; ``productpage`` asks it, by its Service and by its address."""

    def __init__(self) -> None:
        self.node, self._client = node_of("victim"), node_of("productpage")
        self._files = SANDBOX_ROOT / self.node / "pods" / "default_victim"
        self._urls = ("http://victim:8080/", f"http://{address_of('victim')}:8080/")

    def ask(self, *options: str) -> set[str]:
        return {
            within(self._client, "productpage", ("--timeout=1s", *options, url))
            for url in self._urls
        }

    def lets_pass(self) -> bool:
        return "200" in self.ask() | self.ask("--method", "DELETE")

    @property
    def proxy(self) -> int:
        """The first process of its container: pilot-agent."""
        (pid,) = pids(self.node, "default_victim", "istio-proxy")
        return pid

    @property
    def envoy(self) -> int:
        found = subprocess.run(
            ["pgrep", "-P", str(self.proxy)], check=True, capture_output=True, text=True
        )
        return int(found.stdout)

    def is_new(self, than: int) -> bool:
        """Whether its proxy's container was started again since it had this process."""
        with contextlib.suppress(KeyError):
            return self.proxy != than
        return False

    @property
    def library(self) -> Path:
        """What its proxy loads when it starts."""
        return self._files / "volumes" / "sidegate" / LINK

    def log(self) -> str:
        """Of its proxy. Who is refused garbage as a library quotes it."""
        return (self._files / "istio-proxy" / "log").read_text(errors="replace")

    def restart(self) -> None:
        """Its proxy, unless it is about to start anyway."""
        with contextlib.suppress(KeyError):
            os.killpg(self.proxy, signal.SIGKILL)

    def holds_again(self) -> None:
        """By its Service; STRICT refuses who asks by its address."""
        eventually(True, lambda: "200" in self.ask(), 60)
        denied = self.ask("--method", "DELETE")
        assert "403" in denied
        assert "200" not in denied


@pytest.fixture(scope="module")
def victim(mesh: None) -> Iterator[Victim]:
    with pods.server("victim"):
        made = Victim()
        made.holds_again()
        yield made


@pytest.mark.parametrize("program", ["pilot-agent", "envoy"])
def test_a_program_of_the_sidecar_that_is_killed_leaves_nothing_open(
    victim: Victim, program: str
) -> None:
    began, pid = time.time_ns(), victim.proxy
    os.kill(pid if program == "pilot-agent" else victim.envoy, signal.SIGKILL)
    while not victim.is_new(pid) or "200" not in victim.ask():
        assert "200" not in victim.ask("--method", "DELETE")
        assert time.time_ns() - began < 60e9
    if time.time_ns() - began > 3e9:  # who is back before its lease has run out was never missed
        assert "sidecar lease" in reasons("victim", began)
    victim.holds_again()


def _of_another_abi(library: Path) -> bytes:
    """It lacks a function that this Envoy asks every HTTP filter for."""
    hook, content = b"\0envoy_dynamic_module_on_http_filter_new\0", library.read_bytes()
    assert content.count(hook) == 1
    return content.replace(hook, hook[:-2] + b"_\0")


def _truncated(library: Path) -> bytes:
    return library.read_bytes()[: library.stat().st_size // 2]


def _garbage(library: Path) -> bytes:
    return os.urandom(library.stat().st_size)


def _damaged(library: Path) -> bytes:
    """Its tables are whole; its code is breakpoints."""
    listed = subprocess.run(
        ["readelf", "-SW", library], check=True, capture_output=True, text=True
    ).stdout
    fields = next(line for line in listed.splitlines() if " .text " in line).split(".text")[1]
    start, size = (int(number, 16) for number in fields.split()[2:4])
    content = library.read_bytes()
    return content[:start] + b"\xcc" * size + content[start + size :]


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        (_of_another_abi, "Failed to resolve symbol envoy_dynamic_module_on_http_filter_new"),
        (_truncated, "bus error"),
        (_garbage, "invalid ELF header"),
        (_damaged, "trace/breakpoint trap"),
    ],
    ids=["another ABI", "truncated", "garbage", "damaged"],
)
def test_a_library_that_is_not_ours_judges_nothing_and_lets_nothing_pass(
    victim: Victim, broken: Callable[[Path], bytes], why: str
) -> None:
    before, began = len(victim.log()), time.time_ns()
    with _loading(victim, broken):
        end = time.monotonic() + AWAY
        while time.monotonic() < end:
            assert not victim.lets_pass()
        eventually(True, lambda: why in victim.log()[before:], 60)
        assert not victim.lets_pass()
        assert "sidecar lease" in reasons("victim", began)
        row = sidecars()["default/victim"]
        assert row["enforcer"] == "none: closed", row
    victim.holds_again()


@contextlib.contextmanager
def _loading(victim: Victim, broken: Callable[[Path], bytes]) -> Iterator[None]:
    """Its proxy starts anew with such a library, and afterwards with the right one again."""
    link = victim.library
    right = link.readlink()
    wrong = link.with_name("libsidegate-broken.so")
    wrong.write_bytes(broken(link.parent / right))
    try:
        _point(link, wrong.name)
        victim.restart()
        yield
    finally:
        _point(link, str(right))
        wrong.unlink()
        victim.restart()


def _point(link: Path, name: str) -> None:
    fresh = link.with_name(".fresh")
    fresh.symlink_to(name)
    fresh.replace(link)
