"""`sidegate-istioctl`: what it adds, what it passes through. ``python -m tests.unit.test_istioctl
--regen`` writes the golden files anew."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from istioctl_patch import injector, overlay, support, verify
from istioctl_patch.call import parse
from istioctl_patch.verify import Check

GOLDEN = Path(__file__).parent.parent / "golden" / "istioctl"
COMMAND = [sys.executable, "-m", "istioctl_patch.main"]
# Says how it was called, and ends as it was told.
FAKE = """#!/bin/sh
if [ "$1 $2" = "version -o" ]; then
  echo '{"clientVersion": {"version": "'"$VERSION"'"}, "meshVersion":
    [{"Component": "pilot", "Revision": "default", "Info": {"version": "'"${MESH:-$VERSION}"'"}}]}'
  exit 0
fi
if [ "$1 $2" = "get --raw" ] && [ -f "$API/$(echo "$3" | tr / _)" ]; then
  cat "$API/$(echo "$3" | tr / _)"; exit 0
fi
if [ "$1 $2" = "get --ignore-not-found" ]; then exit 0; fi
if [ "$1 $2" = "get --raw" ]; then echo "Error from server (NotFound)" >&2; exit 1; fi
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
    api = tmp_path / "api"
    api.mkdir()
    return {**os.environ, "PATH": path, "VERSION": "1.31.0", "SEEN": str(tmp_path / "seen"),
            "API": str(api)}  # fmt: skip


def serve(env: dict[str, str], path: str, *items: object) -> None:
    """What the fake kubectl has at a path of the API."""
    (Path(env["API"]) / path.replace("/", "_")).write_text(json.dumps({"items": items}))


def run(env: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], check=False, capture_output=True, text=True, env=env, timeout=20
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ("proxy-status",),
        ("analyze", "--use-kube=false", "a.yaml"),
        ("dashboard", "-h"),
        ("no-such",),
    ],
)
def test_the_rest_is_istioctls_own(env: dict[str, str], arguments: tuple[str, ...]) -> None:
    done = run(env | {"CODE": "7"}, *arguments)
    assert (done.returncode, done.stdout.split(), done.stderr) == (7, list(arguments), "")


@pytest.mark.parametrize("arguments", [(), ("--help",), ("help",), ("install", "-h")])
def test_help_lists_ours_behind_istioctls(env: dict[str, str], arguments: tuple[str, ...]) -> None:
    done = run(env, *arguments)
    assert done.returncode == 0
    assert done.stdout.startswith(" ".join(arguments))
    assert "verify-install" in done.stdout
    assert run(env | {"CODE": "5"}, *arguments).returncode == 5


def test_version_is_istioctls_and_ours_goes_to_stderr(env: dict[str, str]) -> None:
    done = run(env | {"CODE": "4"}, "version", "--short")
    assert (done.returncode, done.stdout) == (4, "version --short ")
    assert done.stderr.startswith("sidegate version: ")


def test_completion_knows_our_name_and_our_command(env: dict[str, str]) -> None:
    assert run(env, "__complete", "ver").stdout.startswith("verify-install\t")
    assert "verify-install" not in run(env, "__complete", "install", "ver").stdout
    script = run(env, "completion", "bash")
    assert script.stdout == "completion bash "


@pytest.mark.parametrize(
    ("arguments", "words", "name", "value"),
    [
        ("-n shop install", "install", "namespace", "shop"),
        ("-nshop install -y", "install", "namespace", "shop"),
        ("install --set revision=canary -y", "install", "set", "revision=canary"),
        ("-i=mesh verify-install", "verify-install", "istioNamespace", "mesh"),
        ("manifest generate -f a.yaml -f b.yaml", "manifest generate", "filename", "b.yaml"),
        ("uninstall --purge", "uninstall", "purge", ""),
        ("install --stock-envoy", "install", "stock-envoy", ""),
        ("x -- --purge", "x -- --purge", "none", "default"),
    ],
)
def test_arguments_are_read_as_istioctl_reads_them(
    monkeypatch: pytest.MonkeyPatch, arguments: str, words: str, name: str, value: str
) -> None:
    monkeypatch.setenv("SIDEGATE_ISTIOCTL", sys.executable)
    call = parse(arguments.split())
    assert " ".join(call.words) == words
    assert call.flag(name, "default") == value
    ours = {"--stock-envoy"}
    assert call.arguments == tuple(word for word in arguments.split() if word not in ours)


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


@pytest.mark.parametrize("tag", ["tag=1.30.2", "values.global.tag=1.29.0-distroless"])
def test_an_older_tag_is_refused_too(env: dict[str, str], tag: str) -> None:
    done = run(env, "install", "--set", tag)
    assert (done.returncode, done.stdout) == (2, "")
    assert "cannot load dynamic modules" in done.stderr


def test_an_older_revision_beside_is_left_alone_and_said(env: dict[str, str]) -> None:
    done = run(env | {"MESH": "1.30.2"}, "install", "--revision", "canary")
    assert done.returncode == 0
    assert "revision default is Istio 1.30.2" in done.stderr


def test_a_dry_run_applies_nothing(env: dict[str, str]) -> None:
    done = run(env, "install", "--dry-run")
    assert done.returncode == 0
    assert "apply" not in done.stdout


def config_map(revision: str = "default", **config: object) -> dict[str, Any]:
    values = overlay.operator()["spec"]["values"]["sidecarInjectorWebhook"]
    text = yaml.safe_dump({"policy": "enabled", **values, **config})
    metadata = {"name": "istio-sidecar-injector", "namespace": "istio-system",
                "labels": {"istio.io/rev": revision}}  # fmt: skip
    chart = json.dumps({"global": {}, "sidecarInjectorWebhook": values})
    return {"metadata": metadata, "data": {"config": text, "values": chart}}


INJECTORS = "/api/v1/namespaces/istio-system/configmaps"


def test_uninstall_takes_ours_and_leaves_istio(env: dict[str, str]) -> None:
    serve(env, INJECTORS, config_map())
    done = run(env, "uninstall", "-y")
    assert done.returncode == 0, done.stderr
    said = done.stdout
    assert said.index("patch configmap istio-sidecar-injector") < said.index("delete")
    assert "uninstall" not in said


def test_uninstall_asks_first(env: dict[str, str]) -> None:
    done = run(env, "uninstall")
    assert (done.returncode, done.stdout) == (1, "")
    assert "Proceed?" in done.stderr


def test_a_purge_goes_to_istioctl_after_ours_has_gone(env: dict[str, str]) -> None:
    done = run(env | {"CODE": "0"}, "uninstall", "--purge", "-y")
    assert done.stdout.rstrip().endswith("uninstall --purge -y")
    assert "delete" in done.stdout


@pytest.mark.parametrize(("left", "removed"), [([config_map()], False), ([], True)])
def test_a_revision_takes_our_filters_only_if_it_was_the_last(
    env: dict[str, str], left: list[object], removed: bool
) -> None:
    serve(env, INJECTORS, *left)
    done = run(env, "uninstall", "--revision", "canary", "-y")
    assert done.stdout.startswith("uninstall --revision canary -y")
    assert ("delete" in done.stdout) is removed


def test_an_injector_without_ours_says_the_rest_as_before() -> None:
    before = config_map(
        templates={"mine": "spec: {}", "sidegate": "x"},
        defaultTemplates=["sidecar", "mine", "sidegate"],
    )
    data = injector.without(before)
    assert yaml.safe_load(data["config"]) == {
        "policy": "enabled", "defaultTemplates": ["sidecar", "mine"],
        "templates": {"mine": "spec: {}"},
    }  # fmt: skip
    assert "sidegate" not in data["values"]
    assert not injector.carries({**before, "data": data})


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({}, ""),
        ({"defaultTemplates": ["sidecar"]}, "not among its defaultTemplates"),
        ({"templates": {}}, "has no template sidegate"),
        ({"templates": {"sidegate": "spec: {}"}}, "is not this version's"),
    ],
)
def test_an_injector_is_verified(change: dict[str, object], problem: str) -> None:
    (check,) = verify.injectors([config_map("canary", **change)])
    assert problem in check.problem
    assert check.ok is (problem == "")
    assert not problem or check.problem.endswith("install --revision canary")


def changed(**spec: object) -> dict[str, Any]:
    (first, *_) = overlay.resources()
    return {**first, "spec": {**first["spec"], **spec}, "status": {}}


@pytest.mark.parametrize(
    ("held", "problem"),
    [
        ([changed()], ""),
        ([changed(added="by the API server")], ""),
        ([], "is not there"),
        ([changed(priority=1)], "spec.priority is not what"),
        ([changed(configPatches=[])], "spec.configPatches is not what"),
    ],
)
def test_what_was_installed_is_verified(held: list[dict[str, Any]], problem: str) -> None:
    check = next(iter(verify.resources(overlay.resources(), held)))
    assert problem in check.problem
    assert check.ok is (problem == "")


def agent(node: str, ready: str = "True") -> dict[str, Any]:
    labels = {"app.kubernetes.io/name": "sidegate", "app.kubernetes.io/component": "agent"}
    return {"metadata": {"name": f"agent-{node}", "labels": labels}, "spec": {"nodeName": node},
            "status": {"conditions": [{"type": "Ready", "status": ready}]}}  # fmt: skip


def test_every_node_needs_an_agent_that_is_ready() -> None:
    nodes = [{"metadata": {"name": name}} for name in ("a", "b", "c", "d")]
    driver = {"metadata": {"name": "csi.sidegate.io"}, "spec": {"podInfoOnMount": True}}
    known = [{"metadata": {"name": "d"}, "spec": {"drivers": [{"name": "other"}]}}]
    pods = [agent("a"), agent("b", "False"), agent("d")]
    assert list(verify.node_drivers([driver], nodes, pods, known)) == [
        Check("CSI driver", "CSIDriver csi.sidegate.io"),
        Check("agent", "Node a"),
        Check("agent", "Node b", "pod agent-b is not ready"),
        Check("agent", "Node c", "no agent: sidegate install --set istio.enabled=true"),
        Check("agent", "Node d", "the kubelet does not know the driver: "
              "sidegate install --set istio.enabled=true"),
    ]  # fmt: skip


def test_verify_install_says_what_is_missing_and_fails(env: dict[str, str]) -> None:
    serve(env, INJECTORS, config_map())
    done = run(env, "verify-install", "-o", "json")
    said = json.loads(done.stdout)
    assert done.returncode == 1, done.stderr
    assert said["ok"] is False
    by_what = {each["what"]: each["ok"] for each in said["checks"]}
    assert by_what == {"istiod": False, "version": True, "injection template": True,
                       "overlay": False, "CSI driver": False}  # fmt: skip
    assert "✘" in run(env, "verify-install").stdout


def test_no_istioctl_is_said_with_the_remedy(tmp_path: Path) -> None:
    done = run({**os.environ, "SIDEGATE_ISTIOCTL": str(tmp_path / "none")}, "install")
    assert done.returncode == 2
    assert "--istioctl PATH" in done.stderr


if __name__ == "__main__" and "--regen" in sys.argv:
    GOLDEN.mkdir(parents=True, exist_ok=True)
    for file, document in documents().items():
        (GOLDEN / file).write_text(text_of(document))
