"""Ingresses as the conformance suite of Kubernetes asks of them, and with annotations."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from sandbox.cluster import kubectl
from tests.system.cluster_rig import eventually
from tests.system.gateway_cluster.edge import CLUSTER, addresses_of_ingresses, apply, delete
from tests.system.gateway_cluster.ingress_table import Case, cases, load, objects, seen, wanted

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(300)]

CONFORMANCE, ANNOTATIONS = load("ingress_conformance"), load("ingress_annotations")
CASES = cases(CONFORMANCE) + cases(ANNOTATIONS)
SERVED = [case for case in CASES if "by" in case.request]
Addresses = dict[str, tuple[str, ...]]


@pytest.fixture(scope="module")
def ingresses() -> Iterator[Addresses]:
    """Until everything is served that is to be: what is refused then is meant to be. What is not
    served by then is said by its own test."""
    made = list(objects(CONFORMANCE, ANNOTATIONS))
    apply(*made)
    kubectl(CLUSTER, "rollout", "status", "deployment", "echo-service", "--timeout=120s")
    kubectl(CLUSTER, "wait", "--for=condition=Ready", "pod", "--all", "--timeout=120s")
    with contextlib.suppress(AssertionError):
        eventually([], lambda: without_address(addresses_of_ingresses()), 60)
    known = addresses_of_ingresses()
    for case in SERVED:
        with contextlib.suppress(AssertionError):
            for address in case.addresses(known) if "delay" not in case.request["ask"] else ():
                eventually(wanted(case), lambda case=case, at=address: seen(case, at), 30)
    yield known
    delete(*made)


def without_address(known: Addresses) -> list[str]:
    return [str(case) for case in SERVED if not case.addresses(known)]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_ingress(case: Case, ingresses: Addresses) -> None:
    addresses = case.addresses(ingresses)
    if case.request.get("unaddressed"):
        assert addresses == ()
        return
    assert addresses
    for address in addresses:
        assert seen(case, address) == wanted(case)
