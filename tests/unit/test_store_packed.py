"""Objects that are kept as the bytes of their JSON, and statuses."""

from __future__ import annotations

from gateway_translator.ir import ObjectRef
from gateway_translator.status_table import StatusTable
from kube_store.resource import Resource, ResourceKey
from kube_store.store import ChangeType, Store

KEY = ResourceKey("HTTPRoute", "shop", "web")


def test_a_packed_object_says_and_equals_what_it_was() -> None:
    made = Resource(KEY, {"spec": {"a": 1, "b": [None, "x"]}}, "here")
    packed = made.packed()
    assert packed.manifest == made.manifest
    assert (packed.key, packed.origin) == (KEY, "here")
    assert packed == made == packed
    assert packed == Resource(KEY, {"spec": {"b": [None, "x"], "a": 1}}).packed()
    assert packed != Resource(KEY, {"spec": {"a": 2}}).packed()
    assert packed != Resource(ResourceKey("HTTPRoute", "shop", "other"), made.manifest).packed()


def test_the_same_again_is_no_change_and_another_is() -> None:
    store = Store()
    assert store.upsert(Resource(KEY, {"a": 1}).packed())
    assert store.upsert(Resource(KEY, {"a": 1}).packed()) is None
    changed = store.upsert(Resource(KEY, {"a": 2}).packed())
    assert changed is not None
    assert changed.type is ChangeType.MODIFIED
    assert changed.resource.manifest == {"a": 2}


def test_what_is_read_of_a_status_changes_nothing() -> None:
    table, ref = StatusTable(), ObjectRef("HTTPRoute", "shop", "web")
    table.set(ref, {"parents": [{"conditions": []}]})
    table.current[ref]["parents"].clear()
    assert table.take() == {ref: {"parents": [{"conditions": []}]}}
    table.set(ref, {"parents": [{"conditions": []}]})
    assert table.take() == {}
    table.set(ref, None)
    assert (dict(table.take()), dict(table.current)) == ({ref: None}, {})
