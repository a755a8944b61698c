"""kubelet-streaming behind a real API server, by kubectl: logs, exec and port-forward."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from sandbox.cluster import kubectl, nodes_of
from sandbox.control_plane import Cluster
from sandbox.node_object import KUBELET_PORT
from tests.system import cluster_rig

pytestmark = [pytest.mark.system, pytest.mark.slow]

CLUSTER = Cluster("streaming")
NODE = nodes_of(CLUSTER, 1)[0]
PKI = CLUSTER.directory / "pki"
SECONDS = 20
# The node has no CNI configuration, so the pod is on the node's own network.
POD = """
apiVersion: v1
kind: Pod
metadata: {{name: talker, namespace: default}}
spec:
  nodeName: {node}
  hostNetwork: true
  restartPolicy: Never
  containers:
  - name: main
    image: sidegate.test/any
    env: [{{name: COLOUR, value: dark green}}, {{name: UNTIL, value: {until}}}]
    command: [sh, -c, 'seq 1 300; while [ ! -e "$UNTIL" ]; do sleep 0.1; done; echo last']
  - name: web
    image: sidegate.test/any
    command: ["{python}", -m, http.server, "8000", --bind, 127.0.0.1]
"""


@pytest.fixture(scope="module")
def talker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The pod runs; what makes its first container end when it is there."""
    with cluster_rig.running(CLUSTER, 1):
        until = tmp_path_factory.mktemp("talker") / "until"
        manifest = POD.format(node=NODE.name, until=until, python=sys.executable)
        kubectl(CLUSTER, "wait", "--for=create", "serviceaccount/default", f"--timeout={SECONDS}s")
        kubectl(CLUSTER, "apply", "-f", "-", text=manifest)
        kubectl(CLUSTER, "wait", "--for=condition=Ready", "pod/talker", f"--timeout={SECONDS}s")
        yield until


def arguments(*given: str) -> list[str]:
    return cluster_rig.kubectl(CLUSTER, *given)


def execute(*command: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    flags = ["-i"] if text is not None else []
    return subprocess.run(
        arguments("exec", *flags, "talker", "-c", "main", "--", *command),
        check=False, capture_output=True, text=True, input=text, timeout=SECONDS,
    )  # fmt: skip


@pytest.mark.usefixtures("talker")
def test_exec_passes_streams_and_exit_code() -> None:
    done = execute("sh", "-c", "cat; echo error >&2; exit 7", text="given\n")
    assert (done.stdout, done.returncode) == ("given\n", 7)
    assert done.stderr.startswith("error\n")


@pytest.mark.usefixtures("talker")
def test_exec_is_where_the_container_is() -> None:
    done = execute("sh", "-c", 'echo "$COLOUR"; hostname; cat /proc/self/cgroup')
    colour, hostname, *groups = done.stdout.splitlines()
    assert (colour, hostname) == ("dark green", NODE.name)
    if NODE.cgroup:
        path = "{.metadata.uid}/{.status.containerStatuses[0].containerID}"
        place = kubectl(CLUSTER, "get", "pod", "talker", "-o", f"jsonpath={path}")
        place = place.replace("sandbox://", "")
        assert f"0::/sidegate/{NODE.name}/kubepods/pod{place}" in groups


@pytest.mark.usefixtures("talker")
def test_exec_does_not_wait_for_what_it_left_behind() -> None:
    began = time.monotonic()
    assert execute("sh", "-c", "sleep 15 & echo started").stdout == "started\n"
    assert time.monotonic() - began < 10


@pytest.mark.usefixtures("talker")
def test_exec_with_a_terminal() -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 101, 0, 0))
    command = "sleep 1; stty size; test -t 0 || exit 1; read word; echo got $word; exit 5"
    client = subprocess.Popen(
        arguments("exec", "-it", "talker", "-c", "main", "--", "sh", "-c", command),
        stdin=theirs, stdout=theirs,
    )  # fmt: skip
    os.write(ours, b"this\n")
    try:
        assert client.wait(SECONDS) == 5
    finally:
        client.kill()
        said = os.read(ours, 4096).decode()
        os.close(ours)
        os.close(theirs)
    assert "33 101" in said
    assert "got this" in said


@pytest.mark.usefixtures("talker")
def test_port_forward() -> None:
    client = subprocess.Popen(
        arguments("port-forward", "pod/talker", ":8000"), stdout=subprocess.PIPE, text=True
    )
    try:
        assert client.stdout
        address = client.stdout.readline().split()[2]
        for _ in range(2):
            answer = httpx.get(f"http://{address}/", timeout=SECONDS)
            assert answer.status_code == 200
            assert "Directory listing" in answer.text
    finally:
        client.terminate()
        client.wait(5)


@pytest.mark.usefixtures("talker")
def test_only_the_api_server_may_ask() -> None:
    address, netns = NODE.addresses[0], f"--net=/run/netns/{CLUSTER.netns}"

    def ask(client: str | None, path: str) -> str:
        own = ["--cert", f"{PKI}/{client}.crt", "--key", f"{PKI}/{client}.key"] if client else []
        done = subprocess.run(
            ["nsenter", netns, "curl", "-s", "--path-as-is", "--cacert", f"{PKI}/ca.crt", *own,
             "-w", "%{http_code}", "-o", "/dev/null", f"https://{address}:{KUBELET_PORT}{path}"],
            check=False, capture_output=True, text=True, timeout=SECONDS,
        )  # fmt: skip
        return done.stdout

    assert ask("apiserver-kubelet", "/healthz") == "200"
    assert ask(None, "/healthz") == "000"
    assert ask(NODE.name, "/healthz") == "000"  # a kubelet's own certificate
    assert ask("apiserver-kubelet", "/containerLogs/default/nobody/main") == "404"
    assert ask("apiserver-kubelet", "/containerLogs/default/talker/..%2f..%2fcni") == "404"
    assert ask("apiserver-kubelet", "/attach/default/talker/main") == "501"


def test_logs(talker: Path) -> None:
    whole = [str(number) for number in range(1, 301)]
    assert kubectl(CLUSTER, "logs", "talker", "-c", "main").split() == whole
    assert kubectl(CLUSTER, "logs", "talker", "-c", "main", "--tail=3").split() == whole[-3:]
    client = subprocess.Popen(
        arguments("logs", "-f", "--tail=2", "talker", "-c", "main"),
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert client.stdout
    assert [client.stdout.readline().strip() for _ in range(2)] == whole[-2:]
    talker.touch()  # the container ends, and so does what follows it
    said, _ = client.communicate(timeout=SECONDS)
    assert (said, client.returncode) == ("last\n", 0)
    refused = subprocess.run(
        arguments("logs", "--timestamps", "talker", "-c", "main"),
        check=False, capture_output=True, text=True, timeout=SECONDS,
    )  # fmt: skip
    assert "carry no times" in refused.stderr
