"""YAML to objects: what is read, and how each fault is named."""

from __future__ import annotations

import pytest

from kube_store.yaml_reader import read_yaml

POD = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {}\n"


def test_documents_in_order_with_lines_and_namespaces() -> None:
    text = (
        "# first\n"
        + POD.format("a")
        + "---\n"
        + POD.format("b")
        + "  namespace: shop\n---\n---\napiVersion: cilium.io/v2\n"
        + "kind: CiliumClusterwideNetworkPolicy\nmetadata: {name: c, namespace: ignored}\n"
    )
    resources, errors = read_yaml(text, "x.yaml")
    assert errors == []
    assert [(str(r.key), r.origin) for r in resources] == [
        ("Pod default/a", "x.yaml:2"),
        ("Pod shop/b", "x.yaml:7"),
        ("CiliumClusterwideNetworkPolicy c", "x.yaml:14"),
    ]


def test_a_list_is_its_items() -> None:
    item = "- {apiVersion: v1, kind: Pod, metadata: {name: a}}\n"
    text = "apiVersion: v1\nkind: List\nitems:\n" + item + "- 7\n"
    resources, errors = read_yaml(text, "l.yaml")
    assert [r.origin for r in resources] == ["l.yaml:4"]
    assert [str(e) for e in errors] == [
        "l.yaml:5: items[1]: not a Kubernetes object; give apiVersion, kind and metadata.name"
    ]


def test_dates_stay_text_and_merges_are_merged() -> None:
    text = POD.format("a") + "x: 2024-01-01\nbase: &b {k: 1}\nmerged: {<<: *b, l: 2}\n"
    resources, errors = read_yaml(text, "x")
    assert errors == []
    assert resources[0].manifest["x"] == "2024-01-01"
    assert resources[0].manifest["merged"] == {"k": 1, "l": 2}


BOMB = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{n}: &{n} [" + ",".join([f"*{m}"] * 10) + "]\n"
    for m, n in zip("abcdef", "bcdefg", strict=True)
)


@pytest.mark.parametrize(
    ("body", "line", "field", "message"),
    [
        ("spec: [1, 2\n", 6, "", "did not find expected ',' or ']'"),
        ("spec: 'open\n", 6, "", "unexpected end of stream"),
        ("spec:\n\tx: 1\n", 6, "", "cannot start any token"),
        ("spec:\n  x: 1\n  x: 2\n", 7, "spec.x", "given twice"),
        ("spec: {80: x}\n", 5, "spec", "the key 80 is not a string"),
        ("spec: !!python/object:os.system {}\n", 5, "spec", "are not known"),
        ("spec: .nan\n", 5, "spec", "not a number"),
        ("spec: &s [*s]\n", 5, "spec[0]", "contains itself"),
        (BOMB, 10, "f", "aliases are written out"),
        ("spec: " + "[" * 200_000 + "\n", 5, "", "nested too deep"),
    ],
)
def test_a_broken_document_is_named_and_hides_no_other(
    body: str, line: int, field: str, message: str
) -> None:
    resources, errors = read_yaml(POD.format("a") + body + "---\n" + POD.format("b"), "x.yaml")
    assert [r.key.name for r in resources] == ["b"]
    (error,) = errors
    assert (error.source, error.line, error.field) == ("x.yaml", line, field)
    assert message in error.message
    assert error.remedy


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("kind: Pod\nmetadata: {name: a}\n", "apiVersion"),
        ("apiVersion: v1\nmetadata: {name: a}\n", "kind"),
        ("apiVersion: v1\nkind: Pod\n", "metadata"),
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: 7}\n", "metadata.name"),
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: ../a}\n", "metadata.name"),
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: a, namespace: [b]}\n", "metadata.namespace"),
        ("just text\n", ""),
    ],
)
def test_an_object_without_identity_is_refused(text: str, field: str) -> None:
    resources, errors = read_yaml(text, "x.yaml")
    assert resources == []
    assert [error.field for error in errors] == [field]
