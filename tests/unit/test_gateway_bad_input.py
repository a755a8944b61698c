"""Objects with anything at all in any field: never an exception, and the good ones are served on.

Golden inputs are broken at one place at a time; a Gateway and a route of another namespace must
stay as they are, and what is served must be something that the proxy's own encoder takes.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway_translator.dump import dump
from gateway_translator.gateways import Addresses
from gateway_translator.ir import Delta
from gateway_translator.translator import Translator
from tests.unit.gateway_manifests import (
    Manifest,
    backend,
    gateway,
    gateway_class,
    listener,
    route,
    service,
)
from tests.unit.test_gateway_golden import CASES, GOLDEN
from xds_server.gateway.render import Renderer

OBJECTS: dict[str, list[Manifest]] = {
    name: [e for e in yaml.safe_load_all((GOLDEN / f"{name}.in.yaml").read_text()) if e]
    for name in CASES
}
JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False),
    st.text(max_size=20),
    st.sampled_from(
        ["*", "*.", "/", "//", "a..b", "10.0.0.1", "::1", "-1s", "99999h", "(?=a)", "\n"]
    ),
    st.lists(st.text(max_size=3), max_size=2),
    st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=2),
)
Path = tuple[str | int, ...]


def places(value: Any, at: Path = ()) -> Iterator[Path]:
    """Every field of an object that has another one under it or is a leaf, but for what it is."""
    if at not in {(), ("apiVersion",), ("kind",), ("metadata",)}:
        yield at
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for key, item in items:
        yield from places(item, (*at, key))


@st.composite
def broken_cases(draw: st.DrawFn) -> tuple[str, list[Manifest]]:
    """A golden case, and some of its objects with something else in one field."""
    name = draw(st.sampled_from(CASES))
    broken = []
    for each in draw(st.lists(st.sampled_from(OBJECTS[name]), min_size=1, max_size=3)):
        manifest = copy.deepcopy(each)
        path = draw(st.sampled_from(sorted(places(manifest), key=str)))
        holder: Any = manifest
        for key in path[:-1]:
            holder = holder[key]
        holder[path[-1]] = draw(JUNK)
        broken.append(manifest)
    return name, broken


def good() -> list[Manifest]:
    objects = [
        gateway(listener("http")),
        service("orders"),
        route("good", {"backendRefs": [backend("orders")]}),
    ]
    for each in objects:
        each["metadata"]["namespace"] = "safe"
    return objects


@settings(max_examples=300, deadline=None)
@given(broken_cases())
def test_what_is_broken_harms_nothing_else(case: tuple[str, list[Manifest]]) -> None:
    name, broken = case
    translator = Translator()
    translator.apply([gateway_class(), *good()])
    translator.set_addresses("safe", "web", Addresses(("192.0.2.1",)))
    before = dump(translator.snapshot().virtual_hosts["safe/web/80", "*"])
    translator.apply(OBJECTS[name])
    translator.set_addresses("shop", "web", Addresses(("192.0.2.2",)))
    for each in broken:
        translator.apply([each])
    snapshot = translator.snapshot()
    assert dump(snapshot.virtual_hosts["safe/web/80", "*"]) == before
    assert snapshot.listeners["safe/web/80/tcp"].addresses == ("192.0.2.1",)
    parts = {name: getattr(snapshot, name) for name in snapshot.__dataclass_fields__}
    for resources in Renderer().render(Delta(**parts)).values():
        for message in resources.values():
            assert message is None or message.SerializeToString() is not None
