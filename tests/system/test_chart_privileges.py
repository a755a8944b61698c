"""Agent and proxy with exactly what the chart's security contexts leave them: no more, and no less.

A runtime's container is imitated with the kernel's own means: the root file system and /proc/sys
read-only, the bounding set of capabilities, no new privileges.
"""

from __future__ import annotations

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
_CONTAINER = r"""
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
module=/var/lib/sidegate/modules/current/libsidegate.so
$enter="$PROXY" "$PYTHON" -m sidegate_cli.main proxy --bpffs=/sys/fs/bpf/sidegate \
  --module=$module >/run/sidegate/proxy.log 2>&1 &
proxy=$!
$enter="$AGENT" "$PYTHON" -m sidegate_cli.main agent --external-proxy --device eth0 \
  --bpffs=/sys/fs/bpf/sidegate --resources /var/lib/sidegate/resources \
  --module=$module >/run/sidegate/agent.log 2>&1 &
agent=$! said=
for _ in $(seq 40); do
  kill -0 $agent 2>/dev/null || break
  said=$(curl -sf --unix-socket /run/sidegate/agent.sock http://agent/v1/status)
  if echo "$said" | grep -q '"problems":\[\]'; then
    kill $agent $proxy; wait $agent $proxy || true
    $enter="$AGENT" "$PYTHON" -m node_agent.node_setup remove --bpffs=/sys/fs/bpf/sidegate
    ls -d /sys/fs/bpf/sidegate 2>/dev/null || exit 0
  fi
  sleep 0.2
done
kill $agent $proxy 2>/dev/null
echo "$said"
tail -n 3 /run/sidegate/agent.log /run/sidegate/proxy.log
exit 1
"""


def container(name: str) -> tuple[dict[str, str], list[str]]:
    """The environment and capabilities of the first container of a DaemonSet."""
    for each in yaml.safe_load_all((GOLDEN / "defaults.yaml").read_text()):
        if each and each["kind"] == "DaemonSet" and each["metadata"]["name"] == name:
            found: dict[str, Any] = each["spec"]["template"]["spec"]["containers"][0]
            literal = {item["name"]: item["value"] for item in found["env"] if "value" in item}
            return literal, found["securityContext"]["capabilities"]["add"]
    raise AssertionError(f"no {name} in the chart")


ENVIRONMENT, AGENT = container("sidegate-agent")
_, PROXY = container("sidegate-proxy")


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


def run(agent: list[str], proxy: list[str]) -> subprocess.CompletedProcess[str]:
    def bounding(names: list[str]) -> str:
        return ",".join(["-all", *(f"+{name.lower()}" for name in names)])

    return subprocess.run(
        ["ip", "netns", "exec", NETNS, "unshare", "--mount", "--propagation", "private",
         "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-uc", _CONTAINER],
        check=False, capture_output=True, text=True, timeout=60, cwd="/",
        env={**os.environ, **ENVIRONMENT, "AGENT": bounding(agent), "PROXY": bounding(proxy),
             "PYTHON": sys.executable, "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip


def test_they_come_up_and_go_away() -> None:
    done = run(AGENT, PROXY)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("spared", AGENT)
def test_the_agent_needs_every_capability(spared: str) -> None:
    refused(run([name for name in AGENT if name != spared], PROXY))


@pytest.mark.parametrize("spared", PROXY)
def test_envoy_needs_every_capability(spared: str) -> None:
    refused(run(AGENT, [name for name in PROXY if name != spared]))


def refused(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 1
    words = ("not permitted", "denied", "setting socket options failed")
    assert any(each in done.stdout.lower() for each in words), done.stdout
