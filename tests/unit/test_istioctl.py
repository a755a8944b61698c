"""`sidegate-istioctl`: what it adds, what it passes through. ``python -m tests.unit.test_istioctl
--regen`` writes the golden files anew."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from istioctl_patch import overlay, support

GOLDEN = Path(__file__).parent.parent / "golden" / "istioctl"
COMMAND = [sys.executable, "-m", "istioctl_patch.main"]
# Says how it was called, and ends as it was told.
FAKE = """#!/bin/sh
if [ "$1" = version ]; then echo '{"clientVersion": {"version": "'"$VERSION"'"}}'; exit 0; fi
for each in "$@"; do case "$each" in */sidegate.yaml) cp "$each" "$SEEN"; each=OVERLAY;; esac
printf '%s ' "$each"; done
exit "${CODE:-0}"
"""


def documents() -> dict[str, object]:
    return {
        "operator.yaml": overlay.operator(),
        "operator-stock-envoy.yaml": overlay.operator(stock_envoy=True),
        "resources.yaml": overlay.resources(),
    }


def text_of(document: object) -> str:
    if isinstance(document, list):
        return yaml.safe_dump_all(document, sort_keys=False)
    return yaml.safe_dump(document, sort_keys=False)


@pytest.mark.parametrize("name", documents())
def test_what_is_added(name: str) -> None:
    assert text_of(documents()[name]) == (GOLDEN / name).read_text()


@pytest.mark.parametrize("version", ["1.31.0", "1.31-alpha.0fc1", "1.32.1", "2.0.0"])
def test_versions_that_fit(version: str) -> None:
    support.check(version)


@pytest.mark.parametrize("version", ["1.30.9", "1.9.0", "unknown", ""])
def test_versions_that_do_not(version: str) -> None:
    with pytest.raises(support.Unsupported, match=r"1\.31|released"):
        support.check(version)


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    for name in ("istioctl", "kubectl"):
        fake = tmp_path / name
        fake.write_text(FAKE)
        fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
    path = f"{tmp_path}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "VERSION": "1.31.0", "SEEN": str(tmp_path / "seen")}


def run(env: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], check=False, capture_output=True, text=True, env=env, timeout=20
    )


@pytest.mark.parametrize("arguments", [("proxy-status",), ("analyze", "-A"), (), ("--help",)])
def test_the_rest_is_istioctls_own(env: dict[str, str], arguments: tuple[str, ...]) -> None:
    done = run(env | {"CODE": "7"}, *arguments)
    assert (done.returncode, done.stdout.split(), done.stderr) == (7, list(arguments), "")


def test_install_puts_our_values_before_the_users(env: dict[str, str]) -> None:
    done = run(env, "install", "-y", "--context=c", "-f", "mine.yaml")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("install -f OVERLAY -y --context=c -f mine.yaml")
    assert "--context=c apply -f -" in done.stdout
    assert "EnvoyFilter sidegate-inbound" in " ".join(done.stderr.split())
    assert yaml.safe_load(Path(env["SEEN"]).read_text()) == overlay.operator()


def test_generate_shows_all_of_it(env: dict[str, str]) -> None:
    done = run(env, "manifest", "generate", "--set", "profile=minimal")
    assert done.stdout.startswith("manifest generate -f OVERLAY --set profile=minimal")
    assert list(yaml.safe_load_all(done.stdout.partition("---\n")[2])) == overlay.resources()


def test_a_failed_install_applies_nothing(env: dict[str, str]) -> None:
    done = run(env | {"CODE": "3"}, "install")
    assert done.returncode == 3
    assert "apply" not in done.stdout


@pytest.mark.parametrize("command", [("install",), ("manifest", "generate"), ("upgrade",)])
def test_an_older_mesh_is_refused_with_the_reason(
    env: dict[str, str], command: tuple[str, ...]
) -> None:
    done = run(env | {"VERSION": "1.30.2"}, *command)
    assert done.returncode == 2
    assert "cannot load dynamic modules" in done.stderr
    assert done.stdout == ""


def test_no_istioctl_is_said_with_the_remedy(tmp_path: Path) -> None:
    done = run({**os.environ, "SIDEGATE_ISTIOCTL": str(tmp_path / "none")}, "install")
    assert done.returncode == 2
    assert "--istioctl PATH" in done.stderr


if __name__ == "__main__" and "--regen" in sys.argv:
    GOLDEN.mkdir(parents=True, exist_ok=True)
    for file, document in documents().items():
        (GOLDEN / file).write_text(text_of(document))
