"""The Helm chart: what it renders, what it refuses, and what it asks for.

``python -m tests.unit.test_chart --regen`` writes the golden files anew.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster_operator import main as operator
from kube_store.kube import Watched
from node_agent import cluster as agent
from sandbox.binaries import binary, build
from sidegate_cli.cluster import CHART, RELEASE

pytestmark = pytest.mark.timeout(900)  # helm is built if it is not there

GOLDEN = Path(__file__).parent.parent / "golden" / "chart"
VARIANTS = sorted(path.stem for path in (GOLDEN / "values").glob("*.yaml"))
KUBERNETES = "1.36.1"


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    build("helm")
    command = [str(binary("helm", "helm")), *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)


def template(*arguments: str) -> subprocess.CompletedProcess[str]:
    common = ("--namespace=sidegate-system", f"--kube-version={KUBERNETES}")
    return helm("template", RELEASE, str(CHART), *common, *arguments)


def rendered(variant: str) -> str:
    done = template(f"--values={GOLDEN / 'values' / f'{variant}.yaml'}")
    assert done.returncode == 0, done.stderr
    return done.stdout


def objects(variant: str) -> list[dict[str, Any]]:
    return [each for each in yaml.safe_load_all(rendered(variant)) if each]


def pod_specs(variant: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for each in objects(variant):
        if template := (each.get("spec") or {}).get("template"):
            yield f"{each['kind']}/{each['metadata']['name']}", template["spec"]


def rules(role: str, variant: str = "defaults") -> list[dict[str, Any]]:
    found = [each for each in objects(variant) if each["kind"] in ("ClusterRole", "Role")]
    return [rule for each in found if each["metadata"]["name"] == role for rule in each["rules"]]


@pytest.mark.parametrize("variant", VARIANTS)
def test_renders_as_before(variant: str) -> None:
    assert rendered(variant) == (GOLDEN / f"{variant}.yaml").read_text()


@pytest.mark.parametrize("variant", VARIANTS)
def test_lint_has_nothing_to_say(variant: str) -> None:
    done = helm("lint", "--strict", str(CHART), f"--values={GOLDEN / 'values' / f'{variant}.yaml'}")
    assert done.returncode == 0, done.stdout
    assert "WARNING" not in done.stdout


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("agent.devces={eth0}", "devces"),
        ("agent.devices={a/b}", "agent/devices/0"),
        ("agent.image.digest=sha256:abc", "agent/image/digest"),
        ("agent.logLevel=loud", "agent/logLevel"),
        ("agent.cgroup.root=/tmp", "agent/cgroup/root"),
        ("agent.cni.binDir=opt", "agent/cni/binDir"),
        ("operator.replicas=0", "operator/replicas"),
        ("operator.port=70000", "operator/port"),
        ("metrics.serviceMonitor.interval=often", "metrics/serviceMonitor/interval"),
        ("agentt.logLevel=info", "agentt"),
    ],
)
def test_wrong_values_are_refused_by_name(setting: str, named: str) -> None:
    done = template(f"--set={setting}")
    assert done.returncode != 0
    assert named in done.stderr


@pytest.mark.parametrize(
    ("variant", "role", "watched"),
    [
        ("defaults", "sidegate-agent", agent.watched("any-node")),
        ("defaults", "sidegate-operator", operator.watched()),
        ("gateways", "sidegate-agent", agent.watched("any-node", gateways=True)),
        ("gateways", "sidegate-operator", operator.watched(gateways=True)),
    ],
)
def test_each_may_read_what_it_follows_and_nothing_else(
    variant: str, role: str, watched: list[Watched]
) -> None:
    """Lists and watches, of the role and of the program."""
    granted = {
        (group, resource)
        for rule in rules(role, variant)
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        if {"list", "watch"} <= set(rule["verbs"])
    }
    followed = {(each.group_version.rpartition("/")[0], each.plural) for each in watched}
    assert granted == followed


def test_roles_name_everything_one_by_one() -> None:
    for role in ("sidegate-agent", "sidegate-operator", "sidegate-cleanup"):
        assert rules(role), role
        for rule in rules(role):
            assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]], role
            assert "secrets" not in rule["resources"], role


@pytest.mark.parametrize("variant", VARIANTS)
def test_no_container_has_more_than_its_share(variant: str) -> None:
    most = {
        "mount-filesystems": {"SYS_ADMIN", "SYS_CHROOT", "SYS_PTRACE"},
        "agent": {"BPF", "NET_ADMIN", "PERFMON"},
        "proxy": {"NET_ADMIN"},
        "remove": {"BPF", "NET_ADMIN", "PERFMON"},
    }
    if variant == "gateways":
        most["proxy"] |= {"NET_BIND_SERVICE"}
    if variant == "istio":  # sidecars are looked at inside their pods (docs/adr/0015)
        most["agent"] |= {"SYS_ADMIN", "SYS_PTRACE"}
    for name, spec in pod_specs(variant):
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        # Whoever asks for a sidecar's lease is known by its process.
        known = {"hostPID"} if (variant, name) == ("istio", "DaemonSet/sidegate-agent") else set()
        assert {"hostPID", "hostIPC"} & spec.keys() == known, name
        for container in [*spec.get("initContainers", []), *spec["containers"]]:
            context = container["securityContext"]
            where = f"{name} {container['name']}"
            assert not context.get("privileged"), where
            assert context["allowPrivilegeEscalation"] is False, where
            assert context["readOnlyRootFilesystem"] is True, where
            assert context["capabilities"]["drop"] == ["ALL"], where
            added = set(context["capabilities"].get("add", []))
            assert added <= most.get(container["name"], set()), where


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_volume_is_mounted_and_every_mount_is_there(variant: str) -> None:
    for name, spec in pod_specs(variant):
        containers = [*spec.get("initContainers", []), *spec["containers"]]
        mounts = {mount["name"] for c in containers for mount in c.get("volumeMounts", [])}
        assert mounts == {volume["name"] for volume in spec.get("volumes", [])}, name


def regenerate() -> None:
    for variant in VARIANTS:
        (GOLDEN / f"{variant}.yaml").write_text(rendered(variant))


if __name__ == "__main__":
    if sys.argv[1:] != ["--regen"]:
        sys.exit("usage: python -m tests.unit.test_chart --regen")
    regenerate()
