"""Which of the objects in a refused resource is guilty: random ones against a plain Envoy."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway_translator.ir import ObjectRef
from xds_server.gateway.refusals import Refusals

RESOURCE = ("virtual host", "a.test")
REFS = tuple(ObjectRef("HTTPRoute", "shop", "web", str(n)) for n in range(20))


class Envoy:
    """Keeps the last form that it took; refuses one that has any of ``bad``."""

    def __init__(self, bad: set[ObjectRef]) -> None:
        self.bad = bad
        self.served: frozenset[ObjectRef] = frozenset()
        self.refuses = False
        self.offers = 0

    def offer(self, form: frozenset[ObjectRef]) -> None:
        self.offers += 1
        self.refuses = bool(form & self.bad)
        if not self.refuses:
            self.served = form


def converge(refusals: Refusals, envoy: Envoy, everything: set[ObjectRef]) -> list[int]:
    """How many were served after each answer, from the first that Envoy took."""
    seen: list[int] = []
    envoy.offer(frozenset(everything - refusals.out().keys()))
    for _ in range(200):
        changed = refusals.step(
            {RESOURCE: "no"} if envoy.refuses else {}, lambda *_: not envoy.refuses
        )
        if not changed:
            return seen
        envoy.offer(frozenset(everything - refusals.out().keys()))
        if not envoy.refuses:
            seen.append(len(envoy.served))
    raise AssertionError("it does not end")


@settings(max_examples=200, deadline=None)
@given(st.sets(st.sampled_from(REFS), min_size=1), st.sets(st.sampled_from(REFS)))
def test_exactly_the_bad_ones_are_found_and_the_others_served(
    new: set[ObjectRef], bad: set[ObjectRef]
) -> None:
    envoy, refusals = Envoy(bad & new), Refusals(lambda _: tuple(sorted(new)))
    served = converge(refusals, envoy, new)
    assert refusals.guilty().keys() == bad & new
    assert refusals.out() == refusals.guilty()
    assert envoy.served == new - bad
    assert served == sorted(served)  # what is served only grows


def test_one_among_many_is_found_in_few_steps() -> None:
    many = tuple(ObjectRef("HTTPRoute", "shop", f"r{n}", "0") for n in range(1000))
    envoy, refusals = Envoy({many[613]}), Refusals(lambda _: many)
    converge(refusals, envoy, set(many))
    assert refusals.guilty() == {many[613]: "no"}
    assert envoy.offers <= 40


def test_an_object_that_changed_is_offered_again() -> None:
    envoy, refusals = Envoy({REFS[0]}), Refusals(lambda _: REFS[:2])
    converge(refusals, envoy, set(REFS[:2]))
    assert not refusals.forget([("HTTPRoute", "shop", "other")])
    envoy.bad = set()
    assert refusals.forget([("HTTPRoute", "shop", "web")])
    converge(refusals, envoy, set(REFS[:2]))
    assert envoy.served == set(REFS[:2])
    assert not refusals


def test_what_else_it_depends_on_may_have_changed() -> None:
    envoy, refusals = Envoy({REFS[0]}), Refusals(lambda _: REFS[:2])
    converge(refusals, envoy, set(REFS[:2]))
    assert refusals.retry()
    converge(refusals, envoy, set(REFS[:2]))
    assert refusals.guilty() == {REFS[0]: "no"}
    envoy.bad = set()
    assert refusals.retry()
    assert refusals.guilty()  # until Envoy has said so
    converge(refusals, envoy, set(REFS[:2]))
    assert not refusals


def test_a_resource_that_is_nobodys_is_let_be() -> None:
    refusals = Refusals(lambda _: ())
    assert not refusals.step({RESOURCE: "no"}, lambda *_: False)
    assert not refusals
