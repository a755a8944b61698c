"""Which addresses Gateways get."""

from __future__ import annotations

from typing import Any

import pytest

from gateway_translator.pools import Allocator, BadPoolError, parse_pool

A, B, C = (("Gateway", "shop", name) for name in "abc")
DUAL = [{"cidr": "192.0.2.0/30"}, {"start": "2001:db8::5"}]


def allocator(*blocks: dict[str, str], shared: tuple[str, ...] = (), **spec: Any) -> Allocator:
    made = Allocator(shared)
    if blocks:
        made.set_pool("pool", parse_pool({"spec": {"blocks": blocks, **spec}}))
    return made


def test_one_of_each_family_and_no_address_twice() -> None:
    made = allocator(*DUAL)
    assert made.assign(A, (), (), {}) == (("192.0.2.1", "2001:db8::5"), ())
    assert made.assign(B, ("",), (), {}) == (("192.0.2.2",), ())
    assert made.assign(C, (), (), {}) == ((), ())
    made.release(A)
    assert made.assign(C, (), (), {}) == (("192.0.2.1", "2001:db8::5"), ())


def test_what_it_had_it_keeps() -> None:
    made = allocator(*DUAL)
    assert made.assign(A, (), ("192.0.2.2",), {})[0] == ("192.0.2.2", "2001:db8::5")
    assert made.assign(A, (), (), {})[0] == ("192.0.2.2", "2001:db8::5")
    assert made.assign(B, (), ("198.51.100.1", "192.0.2.2"), {})[0] == ("192.0.2.1",)


@pytest.mark.parametrize("asked", ["198.51.100.1", "no address", "192.0.2.2"])
def test_asked_for_and_not_to_be_had(asked: str) -> None:
    made = allocator(*DUAL)
    made.assign(B, ("192.0.2.2",), (), {})
    assert made.assign(A, (asked, "192.0.2.1"), (), {}) == (("192.0.2.1",), (asked,))


@pytest.mark.parametrize(
    ("selector", "found"),
    [
        ({"matchLabels": {"io.kubernetes.service.namespace": "shop"}}, 1),
        ({"matchLabels": {"gateway.networking.k8s.io/gateway-name": "b"}}, 0),
        ({"matchExpressions": [{"key": "team", "operator": "In", "values": ["x"]}]}, 1),
    ],
)
def test_pools_select_gateways(selector: dict[str, Any], found: int) -> None:
    made = allocator({"cidr": "192.0.2.0/30"}, serviceSelector=selector)
    assert len(made.assign(A, (), (), {"team": "x"})[0]) == found


def test_a_node_by_itself_serves_on_its_own_or_as_it_is_told() -> None:
    made = allocator(shared=("0.0.0.0",))
    assert made.assign(A, (), (), {}) == made.assign(B, (), (), {}) == (("0.0.0.0",), ())
    assert made.assign(A, ("198.51.100.1",), (), {}) == (("198.51.100.1",), ())


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        ({"blocks": [{"cidr": "192.0.2.1/24"}]}, "blocks[0]"),
        ({"blocks": [{"cidr": "192.0.2.0/24"}, {}]}, "blocks[1]"),
        ({"serviceSelector": {"matchLabels": 1}}, "serviceSelector"),
    ],
)
def test_what_cannot_be_read_is_named(spec: dict[str, Any], named: str) -> None:
    with pytest.raises(BadPoolError) as error:
        parse_pool({"spec": spec})
    assert named in str(error.value)
