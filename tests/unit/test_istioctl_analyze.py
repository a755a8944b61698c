"""What ``sidegate-istioctl analyze`` finds in a mesh: golden lines for ``mesh.in.yaml``.
``python -m tests.unit.test_istioctl_analyze --regen`` writes them anew."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from istioctl_patch import examine, overlay, support
from istioctl_patch.findings import CODES, Finding, Level, kept
from istioctl_patch.selected import selected
from istioctl_patch.touching import TOUCHES, touched

GOLDEN = Path(__file__).parent.parent / "golden" / "istioctl"
VERSIONS = support.Versions(
    "1.31.0", {"default": "1.31.0", "1-30": "1.30.4"}, {"good.shop": "1.31.0", "old.shop": "1.30.4"}
)


def injector(revision: str, templates: list[str]) -> dict[str, object]:
    values = overlay.operator()["spec"]["values"]["sidecarInjectorWebhook"]
    config = {"defaultTemplates": templates, "templates": values["templates"]}
    labels = {"istio.io/rev": revision}
    return {
        "metadata": {"name": f"istio-sidecar-injector-{revision}", "labels": labels},
        "data": {"config": yaml.safe_dump(config)},
    }


def found() -> Iterator[Finding]:
    by_kind: dict[str, list[dict[str, object]]] = {}
    for each in yaml.safe_load_all((GOLDEN / "mesh.in.yaml").read_text()):
        by_kind.setdefault(each["kind"], []).append(each)
    namespaces = by_kind["Namespace"]
    policies = [each for kind in by_kind if kind.endswith("Policy") for each in by_kind[kind]]
    pods = list(selected(by_kind["Pod"], namespaces, policies))
    config_maps = [injector("default", ["sidecar", "sidegate"]), injector("1-32", ["sidecar"])]
    yield from examine.versions(VERSIONS)
    yield from examine.revisions(config_maps, namespaces)
    yield from examine.foreign_filters(by_kind["EnvoyFilter"])
    yield from examine.without_module(pods)
    yield from examine.not_intercepted(pods)
    yield from examine.contradictions(pods, by_kind["PeerAuthentication"], "istio-system")
    yield from examine.ambient(pods, namespaces)


def lines() -> str:
    return "".join(f"{each.line()}\n" for each in found())


def test_what_is_found() -> None:
    assert lines() == (GOLDEN / "mesh.out.txt").read_text()


def test_every_code_is_found_and_told_of() -> None:
    assert {each.code for each in found()} == CODES.keys()
    documented = (Path(__file__).parent.parent.parent / "docs" / "istio.md").read_text()
    assert [code for code in CODES if code not in documented] == []


def test_what_a_patch_does_to_our_filters() -> None:
    """The API server says the same of the same table (tests/system/istio/test_admission.py)."""
    cases = yaml.safe_load((GOLDEN / "touching.yaml").read_text())
    for case in cases:
        touch = touched(case["patch"])
        assert (touch.what if touch else "") == case["touches"], case
    assert {each.what for each in TOUCHES} == {case["touches"] for case in cases} - {""}


@pytest.mark.parametrize(
    ("namespace", "suppressed", "wanted"),
    [
        ("", [], ["shop/a", "zt/b", "x"]),
        ("shop", [], ["shop/a", "x"]),
        ("", ["SG0101=Pod a.shop"], ["zt/b", "x"]),
        ("", ["SG0101=Pod *.zt", "SG0102=Pod *"], ["shop/a", "x"]),
        ("", ["SG0104=Revision x"], ["shop/a", "zt/b"]),
    ],
)
def test_by_namespace_and_what_is_suppressed(
    namespace: str, suppressed: list[str], wanted: list[str]
) -> None:
    three = [
        Finding("SG0101", Level.ERROR, "Pod", "shop", "a", ""),
        Finding("SG0101", Level.ERROR, "Pod", "zt", "b", ""),
        Finding("SG0104", Level.ERROR, "Revision", "", "x", ""),
    ]
    names = [each.object.partition(" ")[2] for each in kept(three, namespace, suppressed)]
    assert names == wanted


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(ValueError, match="one of Info, Warning, Error"):
        Level.of("Fatal")


if __name__ == "__main__" and "--regen" in sys.argv:
    (GOLDEN / "mesh.out.txt").write_text(lines())
