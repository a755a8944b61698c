"""The agent with exactly what the chart's security context leaves it: no more, and no less.

A runtime's container is imitated with the kernel's own means: the root file system and /proc/sys
read-only, the bounding set of capabilities, no new privileges.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.system.netns import ip
from tests.unit.test_chart import GOLDEN

pytestmark = [pytest.mark.system, pytest.mark.slow]

NETNS = f"sgt{os.getpid()}-chart"
_CONTAINER = """
for path in /run/sidegate /var/lib/sidegate; do mount -t tmpfs tmpfs $path; done
mount -t bpf bpf /sys/fs/bpf
mkdir -p /run/sidegate/proc-sys/net /var/lib/sidegate/resources
mount --bind /proc/sys/net /run/sidegate/proc-sys/net
mount --bind /proc/sys /proc/sys
mount -o remount,bind,ro /proc/sys
mount -o remount,bind,ro /
enter="setpriv --no-new-privs --inh-caps=-all --bounding-set"
$enter=-all "$PYTHON" -m node_agent.node_setup install \
  --modules=/var/lib/sidegate/modules --cni-bin=/var/lib/sidegate/bin
$enter="$CAPABILITIES" "$PYTHON" -m sidegate_cli.main agent --device eth0 \
  --bpffs=/sys/fs/bpf/sidegate --resources /var/lib/sidegate/resources \
  --module=/var/lib/sidegate/modules/current/libsidegate.so >/run/sidegate/agent.log 2>&1 &
for _ in $(seq 100); do
  kill -0 $! 2>/dev/null || break
  if curl -sf --unix-socket /run/sidegate/agent.sock http://agent/v1/status; then
    kill $!; wait $! || true
    $enter="$CAPABILITIES" "$PYTHON" -m node_agent.node_setup remove --bpffs=/sys/fs/bpf/sidegate
    ls -d /sys/fs/bpf/sidegate 2>/dev/null || exit 0
  fi
  sleep 0.1
done
kill $! 2>/dev/null
tail -n 1 /run/sidegate/agent.log
exit 1
"""


def chart() -> tuple[dict[str, str], list[str]]:
    """The agent's environment and capabilities."""
    for each in yaml.safe_load_all((GOLDEN / "defaults.yaml").read_text()):
        if each and each["kind"] == "DaemonSet" and each["metadata"]["name"] == "sidegate-agent":
            agent: dict[str, Any] = each["spec"]["template"]["spec"]["containers"][0]
            literal = {item["name"]: item["value"] for item in agent["env"] if "value" in item}
            return literal, agent["securityContext"]["capabilities"]["add"]
    raise AssertionError("no agent in the chart")


ENVIRONMENT, CAPABILITIES = chart()


@pytest.fixture(autouse=True)
def node() -> Iterator[None]:
    for path in ("/run/sidegate", "/var/lib/sidegate"):
        Path(path).mkdir(exist_ok=True)
    ip("netns", "add", NETNS)
    ip("link", "add", "eth0", "type", "veth", "peer", "name", "peer", netns=NETNS)
    try:
        yield
    finally:
        ip("netns", "del", NETNS)


def run(capabilities: list[str]) -> subprocess.CompletedProcess[str]:
    bounding = ",".join(["-all", *(f"+{name.lower()}" for name in capabilities)])
    return subprocess.run(
        ["ip", "netns", "exec", NETNS, "unshare", "--mount", "--propagation", "private",
         "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-uc", _CONTAINER],
        check=False, capture_output=True, text=True, timeout=60, cwd="/",
        env={**os.environ, **ENVIRONMENT, "CAPABILITIES": bounding, "PYTHON": sys.executable,
             "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip


def test_it_comes_up_and_goes_away() -> None:
    done = run(CAPABILITIES)
    assert done.returncode == 0, done.stdout + done.stderr
    status = json.loads(done.stdout.splitlines()[-1])
    assert status["problems"] == []


@pytest.mark.parametrize("spared", CAPABILITIES)
def test_it_needs_every_capability(spared: str) -> None:
    done = run([name for name in CAPABILITIES if name != spared])
    assert done.returncode == 1
    assert "not permitted" in done.stdout.lower() or "denied" in done.stdout.lower(), done.stdout
