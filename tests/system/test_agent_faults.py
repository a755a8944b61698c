"""An agent that is given broken files, a broken module, or is killed in the middle of it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from sandbox.run import start_agent
from tests.system.sandbox_rig import CLI, Sandbox, http_rule, policy

pytestmark = [pytest.mark.system]

PODS = (Path(__file__).parent / "resources" / "pods.yaml").read_text()
GET_OPEN = {"method": "GET", "path": "/open.*"}
OPEN, CLOSED = "http://server:8080/open", "http://server:8080/closed"


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """Its resources are a directory that the tests may write to."""
    directory = tmp_path_factory.mktemp("resources")
    (directory / "pods.yaml").write_text(PODS)
    made = Sandbox(directory, f"f{os.getpid()}")
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def files(sandbox: Sandbox) -> Iterator[Path]:
    yield sandbox.resources
    for path in sandbox.resources.glob("policy*.yaml"):
        path.unlink()
    until(lambda: not problems(sandbox) and sandbox.status("other", CLOSED) == 200)


def until(condition: Callable[[], bool], seconds: float = 15) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.05)


def problems(sandbox: Sandbox) -> list[str]:
    found: list[str] = sandbox.api.get("/v1/status").json()["problems"]
    return found


def restart(sandbox: Sandbox, *options: str) -> None:
    os.kill(sandbox.agent_pid(), signal.SIGKILL)
    start_agent(sandbox.node, sandbox.resources, *options)
    end = time.monotonic() + 15
    while time.monotonic() < end:
        with contextlib.suppress(httpx.HTTPError):
            if sandbox.api.get("/v1/status").status_code == 200:
                return
        time.sleep(0.05)
    raise AssertionError("the agent is not back")


def text(*objects: dict[str, Any]) -> str:
    return yaml.safe_dump_all(objects)


ALLOW_OPEN = policy("p", "server", ingress=[http_rule("from", "client", GET_OPEN)])


@pytest.mark.parametrize(
    ("broken", "named"),
    [
        (text(ALLOW_OPEN)[:-11], "policy.yaml:"),
        (text(ALLOW_OPEN) + "---\n{\n", "policy.yaml:"),
        ("\0", "policy.yaml"),
        (text({**ALLOW_OPEN, "spec": {}}), "CiliumNetworkPolicy default/p"),
        (text(policy("p", "server", ingress=[http_rule("from", "client", {"path": "("})])),
         "spec.ingress[0].toPorts[0].rules.http[0].path"),
        (text(policy("p", "server", ingres=[])), "spec.ingres"),
        (text(policy("p", "server", ingress=[{"fromEndpoints": [{"matchExpressions": [
            {"key": "a", "operator": "Like"}]}]}])), "matchExpressions[0].operator"),
    ],
    ids=["cut", "open bracket", "no text", "no spec", "bad regex", "bad field", "bad selector"],
)  # fmt: skip
def test_a_broken_edit_is_named_and_opens_nothing(
    sandbox: Sandbox, files: Path, broken: str, named: str
) -> None:
    other = policy("q", "other", ingress=[http_rule("from", "client", GET_OPEN)])
    (files / "policy.yaml").write_text(text(ALLOW_OPEN))
    until(lambda: sandbox.status("client", CLOSED) == 403)
    (files / "policy.yaml").write_text(broken)
    (files / "policy-other.yaml").write_text(text(other))
    until(lambda: any(named in problem for problem in problems(sandbox)))
    assert [sandbox.status("client", url) for url in (OPEN, CLOSED)] == [200, 403]
    restart(sandbox)
    sandbox.ready()
    assert any(named in problem for problem in problems(sandbox))
    assert [sandbox.status("client", url) for url in (OPEN, CLOSED)] == [200, 403]
    assert sandbox.status("other", OPEN) == 0, "the rest is enforced"
    (files / "policy.yaml").write_text(text(ALLOW_OPEN))
    until(lambda: not problems(sandbox))


def test_of_two_objects_of_one_name_the_first_holds(sandbox: Sandbox, files: Path) -> None:
    (files / "policy-a.yaml").write_text(text(ALLOW_OPEN))
    until(lambda: sandbox.status("client", CLOSED) == 403)
    everything = policy("p", "server", ingress=[{"fromEntities": ["all"]}])
    (files / "policy-b.yaml").write_text(text(everything))
    until(lambda: bool(problems(sandbox)))
    (problem,) = problems(sandbox)
    assert "policy-b.yaml:1: CiliumNetworkPolicy default/p: metadata.name" in problem
    assert "policy-a.yaml:1 has an object of this name" in problem
    assert sandbox.status("client", CLOSED) == 403


def test_without_its_library_selected_traffic_is_denied_and_status_says_why(
    sandbox: Sandbox, files: Path, tmp_path: Path
) -> None:
    rules = [http_rule("from", "client", GET_OPEN), http_rule("from", "other")]
    (files / "policy.yaml").write_text(text(policy("p", "server", ingress=rules)))
    until(lambda: sandbox.status("client", CLOSED) == 403)
    restart(sandbox, "--module", str(tmp_path / "missing" / "libsidegate.so"))
    until(lambda: any("libsidegate.so" in problem for problem in problems(sandbox)))
    assert sandbox.status("client", OPEN) == 0
    assert sandbox.status("other", CLOSED) == 200, "unselected traffic is untouched"
    said = subprocess.run(
        [str(CLI), "status", "--node", sandbox.node.name],
        check=False,
        capture_output=True,
        text=True,
    )
    assert "libsidegate.so" in said.stdout + said.stderr
    restart(sandbox)
    sandbox.ready()
    assert [sandbox.status("client", url) for url in (OPEN, CLOSED)] == [200, 403]


@contextlib.contextmanager
def read_only(directory: Path) -> Iterator[None]:
    """As a file system is made after an error of its disk."""
    subprocess.run(["mount", "--bind", str(directory), str(directory)], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", str(directory)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(directory)], check=True)


def test_an_agent_of_which_a_part_fails_ends_and_says_so(sandbox: Sandbox, files: Path) -> None:
    """It would go on without that part, and what it is told would change nothing any more."""
    (files / "policy.yaml").write_text(text(ALLOW_OPEN))
    until(lambda: sandbox.status("client", CLOSED) == 403)
    agent = sandbox.agent_pid()
    with read_only(sandbox.node.run_dir / "state" / "endpoints"):
        (files / "pods.yaml").write_text(PODS.replace("app: other", "app: another"))
        until(lambda: not Path(f"/proc/{agent}/exe").exists())
        last = (sandbox.node.run_dir / "agent.log").read_text().splitlines()[-1]
        assert "a part of the agent has failed" in last
        assert "enforcement: OSError(30, 'Read-only file system')" in last
        assert [sandbox.status("client", url) for url in (OPEN, CLOSED)] == [200, 403]
    start_agent(sandbox.node, sandbox.resources)
    sandbox.ready()
    (files / "pods.yaml").write_text(PODS)
    labels = "/v1/endpoints/other"
    until(lambda: "k8s:app=other" in sandbox.api.get(labels).json()["labels"])


def test_the_death_of_the_agent_ends_no_request(sandbox: Sandbox, files: Path) -> None:
    (files / "policy.yaml").write_text(text(ALLOW_OPEN))
    until(lambda: sandbox.status("client", CLOSED) == 403)
    command = ["wrk", "-t1", "-c8", "-d4s", OPEN]
    loads: list[str] = []

    load = threading.Thread(target=lambda: loads.append(sandbox.run("client", *command).stdout))
    load.start()
    time.sleep(1)
    restart(sandbox)
    sandbox.ready()
    load.join(20)
    assert "requests in" in loads[0]
    assert "Non-2xx" not in loads[0]
    assert "Socket errors" not in loads[0]
