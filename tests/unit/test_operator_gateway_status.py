"""Statuses of Gateway objects: merged with what others say, and written only where they differ."""

from __future__ import annotations

from typing import Any, cast

from cluster_operator.gateway_status import GatewayStatuses
from kube_store.resource import Resource, ResourceKey
from kube_store.status import Status, StatusTarget, StatusWriter
from kube_store.store import Store

KEY = ("HTTPRoute", "shop", "web")
OURS, THEIRS = "example.com/ours", "example.com/theirs"


class Writer:
    def __init__(self) -> None:
        self.said: list[tuple[str, Status]] = []

    def put(self, target: StatusTarget, status: Status) -> None:
        self.said.append((target.path, status))

    def forget(self, _: StatusTarget) -> None:
        pass


def parent(controller: str, name: str, status: str, since: str = "") -> dict[str, Any]:
    condition = {"type": "Accepted", "status": status}
    return {
        "controllerName": controller,
        "parentRef": {"name": name},
        "conditions": [condition | ({"lastTransitionTime": since} if since else {})],
    }


def statuses(*held: dict[str, Any]) -> tuple[GatewayStatuses, Writer]:
    store, writer = Store(), Writer()
    manifest = {"kind": KEY[0], "metadata": {"name": "web"}, "status": {"parents": list(held)}}
    store.upsert(Resource(ResourceKey(*KEY), manifest))
    return GatewayStatuses(store, cast(StatusWriter, writer), OURS), writer


def test_what_it_has_is_not_written() -> None:
    made, writer = statuses(parent(OURS, "a", "True", "then"))
    made.put(KEY, {"parents": [parent(OURS, "a", "True")]})
    assert writer.said == []


def test_others_entries_stay_and_times_only_change_with_the_status() -> None:
    theirs = parent(THEIRS, "a", "False", "long ago")
    made, writer = statuses(parent(OURS, "a", "True", "then"), theirs)
    made.put(KEY, {"parents": [parent(OURS, "a", "True"), parent(OURS, "b", "False")]})
    ((path, status),) = writer.said
    assert path.endswith("/namespaces/shop/httproutes/web/status")
    first, kept, new = status["parents"]
    assert first == theirs
    assert kept == parent(OURS, "a", "True", "then")
    assert new["conditions"][0]["lastTransitionTime"] > "2026"


def test_nothing_of_ours_to_say_takes_ours_away() -> None:
    theirs = parent(THEIRS, "a", "False", "long ago")
    made, writer = statuses(parent(OURS, "a", "True", "then"), theirs)
    made.put(KEY, None)
    assert [status for _, status in writer.said] == [{"parents": [theirs]}]


def test_an_object_that_is_gone_is_no_error() -> None:
    made, writer = statuses()
    made.put(("Gateway", "shop", "none"), {"conditions": []})
    assert writer.said == []
