"""Where our filter stands among Istio's own: what they deny we do not see, what they change we see
as the application does (docs/istio.md)."""

from __future__ import annotations

import itertools
import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from sandbox.cluster import kubectl
from tests.system.cluster_rig import eventually
from tests.system.istio.mesh import MESH, agent, enforces

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(300)]

_RESOURCES = Path(__file__).parent / "filter_order"
_URL, _AUTHZ = "http://ordered:8080", "http://authz:8000"
_OURS = "Denied by Sidegate policy (ingress)"
_MESH_CONFIG = ("configmap", "istio", "-n", "istio-system")


@pytest.fixture(scope="module")
def ordered(mesh: None) -> Iterator[None]:
    """A pod whose requests need a header that none of its clients is known to send."""
    with _applied("pods.yaml"):
        wait = ("wait", "--for=condition=Ready", "pod/ordered", "pod/authz", "--timeout=60s")
        kubectl(MESH, *wait)
        eventually(True, lambda: enforces("default/ordered"), 20)
        eventually(f"200 {_URL}/open", lambda: _get("/open"), 20)
        assert _get("/other").startswith(f"403 {_OURS}")
        yield


@pytest.mark.usefixtures("ordered")
@pytest.mark.parametrize(
    ("file", "path", "header", "answer"),
    [
        ("jwt_authn.yaml", "/jwt", "Authorization: Bearer none", "401 Jwt is not in the form"),
        ("rbac.yaml", "/rbac", "", "403 RBAC: access denied"),
    ],
)
def test_what_istio_denies_we_do_not_see(file: str, path: str, header: str, answer: str) -> None:
    with _applied(file):
        _await_unseen(path, header, answer)


@pytest.mark.usefixtures("ordered")
def test_a_header_that_a_filter_sets_is_what_a_rule_sees() -> None:
    assert _get("/lua", "X-Checked: by the client").startswith("200"), "the rule is about a header"
    with _applied("lua.yaml"):
        eventually(True, lambda: _get("/lua").startswith("200"), 20)
        given = "X-Checked: by the client"
        eventually(True, lambda: _get("/taken", given).startswith(f"403 {_OURS}"), 20)


@pytest.mark.usefixtures("ordered")
def test_ext_authz_is_asked_before_us_and_its_callout_is_judged_by_l4_alone() -> None:
    with _provider(), _applied("ext_authz.yaml"):
        _await_unseen("/authz", "", "403 no")
        eventually(True, lambda: _get("/authz", "X-Let: in").startswith("200"), 20)
        with _applied("egress_http.yaml"):
            judged = "403 Denied by Sidegate policy (egress)"
            eventually(True, lambda: _get("/", who="ordered", to=_AUTHZ).startswith(judged), 20)
            assert _get("/authz", "X-Let: in").startswith("200"), "the callout meets none"
        with _applied("egress_none.yaml"):
            eventually("403 ", lambda: _get("/authz", "X-Let: in"), 20)


@contextmanager
def _applied(file: str) -> Iterator[None]:
    path = str(_RESOURCES / file)
    kubectl(MESH, "apply", "-f", path)
    try:
        yield
    finally:
        kubectl(MESH, "delete", "-f", path, "--ignore-not-found")


@contextmanager
def _provider() -> Iterator[None]:
    """The mesh knows the pod ``authz`` as a provider of authorization."""
    before = kubectl(MESH, "get", *_MESH_CONFIG, "-o", "jsonpath={.data.mesh}")
    config = yaml.safe_load(before)
    config["extensionProviders"] = [yaml.safe_load((_RESOURCES / "provider.yml").read_text())]
    _configure(yaml.safe_dump(config))
    try:
        yield
    finally:
        _configure(before)


def _configure(text: str) -> None:
    patch = json.dumps({"data": {"mesh": text}})
    kubectl(MESH, "patch", *_MESH_CONFIG, "--type=merge", f"--patch={patch}")


def _get(path: str, header: str = "", who: str = "productpage", to: str = _URL) -> str:
    """Status and body of a request; of a 200 what was asked for instead."""
    given = ("--header", header) if header else ()
    url = f"{to}{path}"
    client = ("http", "get", "--timeout=3s", *given, url)
    try:
        said = json.loads(kubectl(MESH, "exec", who, "-c", "app", "--", *client))
    except (subprocess.CalledProcessError, ValueError):
        return "none"
    body = url if said["status"] == 200 else said.get("body", "")
    return f"{said['status']} {body}"


def _await_unseen(path: str, header: str, answer: str) -> None:
    """Until a request below a path gets such an answer: our filter has not seen that one. Kept
    connections are on the old configuration for a while, so that each attempt has its own path."""
    attempts = (f"{path}/{n}" for n in itertools.count())
    tried = ""

    def answered() -> bool:
        nonlocal tried
        tried = next(attempts)
        return _get(tried, header).startswith(answer)

    eventually(True, answered, 30)
    assert _get(f"/open{path}").startswith("200")
    eventually(True, lambda: f"/open{path}" in _seen())
    assert tried not in _seen()


def _seen() -> set[str]:
    """Paths of what came to the pod and that our filter has judged. The callout has the path of
    the request that it is about, and what leaves another pod of the node is not what came here."""
    filters = ("--layer", "L7", "--direction", "ingress", "--pod", "ordered", "--last", "200")
    said = agent("ordered", "observe", *filters, "-o", "json")
    flows = [flow for flow in map(json.loads, said.splitlines()) if flow["http"]]
    return {f["http"]["path"] for f in flows if f["destination"]["pod"] == "default/ordered"}
