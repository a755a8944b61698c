"""`examples/gateway` serves the same in a cluster as on a machine without one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox.cluster import kubectl
from tests.system.cluster_rig import eventually
from tests.system.gateway_cluster.edge import CLUSTER, Answer, ask, gateway_addresses
from tests.system.sandbox_rig import Sandbox

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(300)]

EXAMPLE = Path(__file__).parents[3] / "examples" / "gateway"
# Request -> status, pod and path there, location.
SERVED: dict[str, tuple[int, str, str, str]] = {
    "http://www.shop.test/": (200, "shop-v1", "/", ""),
    "http://www.shop.test/things?n=1": (200, "shop-v1", "/things?n=1", ""),
    "http://www.shop.test/v2": (200, "shop-v2", "/", ""),
    "http://www.shop.test/v2/things": (200, "shop-v2", "/things", ""),
    "http://www.shop.test/v22": (200, "shop-v1", "/v22", ""),
    "http://www.shop.test/old": (301, "", "", "http://www.shop.test/v2"),
    "http://www.shop.test/older": (200, "shop-v1", "/older", ""),
    "http://ftp.shop.test/": (404, "", "", ""),
    "http://shop.test/": (404, "", "", ""),
    "http://other.test/": (404, "", "", ""),
}
Ask = Callable[[str], Answer]


@pytest.fixture
def in_a_cluster() -> Iterator[Ask]:
    kubectl(CLUSTER, "apply", "-f", str(EXAMPLE))
    eventually(True, lambda: bool(gateway_addresses("shop")), 60)
    (address, *_) = gateway_addresses("shop")
    yield lambda url: ask(address, url)
    kubectl(CLUSTER, "delete", "--wait=false", "-f", str(EXAMPLE / "shop.yaml"))
    kubectl(CLUSTER, "delete", "--wait=false", "gateway/shop", "httproute/shop")


@pytest.fixture
def on_a_machine() -> Iterator[Ask]:
    sandbox = Sandbox(EXAMPLE, "gwex")
    node = sandbox.node
    yield lambda url: ask(node.addresses[0], url, netns=node.router_netns)
    sandbox.close()


@pytest.mark.parametrize("place", ["in_a_cluster", "on_a_machine"])
def test_the_example_serves_the_same_everywhere(place: str, request: pytest.FixtureRequest) -> None:
    asked: Ask = request.getfixturevalue(place)

    def seen() -> dict[str, Any]:
        return {url: _seen(asked(url)) for url in SERVED}

    eventually(SERVED, seen, 60)


def _seen(answer: Answer) -> tuple[int, str, str, str]:
    told = answer.told
    location = answer.headers.get("location", "")
    return answer.status, told.get("pod", ""), told.get("path", ""), location
