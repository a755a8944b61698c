"""ADS as dialogues: `says` is Envoy, what comes back is what the server answers."""

from __future__ import annotations

from typing import Any

import pytest
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_components_pb2, route_pb2
from envoy.service.discovery.v3 import discovery_pb2 as discovery

from xds_server.cache import ResourceCache
from xds_server.resources import (
    CLUSTER_TYPE,
    ENDPOINT_TYPE,
    LISTENER_TYPE,
    ROUTE_TYPE,
    VIRTUAL_HOST_TYPE,
)
from xds_server.stream import DeltaStream, SotwStream, Subscription


def listeners(**prefixes: str) -> dict[str, Any]:
    return {n: listener_pb2.Listener(name=n, stat_prefix=p) for n, p in prefixes.items()}


def routes(*names: str) -> dict[str, Any]:
    return {name: route_pb2.RouteConfiguration(name=name) for name in names}


def virtual_hosts(*names: str) -> dict[str, Any]:
    return {name: route_components_pb2.VirtualHost(name=name) for name in names}


@pytest.fixture
def cache() -> ResourceCache:
    cache = ResourceCache()
    cache.set_resources(LISTENER_TYPE, listeners(a="1", b="1"))
    return cache


class Delta:
    """An Envoy that speaks the incremental variant; responses as (names, removed)."""

    def __init__(self, cache: ResourceCache) -> None:
        self.stream = DeltaStream(cache)
        self.last: list[Any] = []

    def says(
        self, type_url: str = LISTENER_TYPE, nonce: str = "", error: str = "", **fields: Any
    ) -> list[Any]:
        request = discovery.DeltaDiscoveryRequest(type_url=type_url, response_nonce=nonce, **fields)
        if error:
            request.error_detail.message = error
        return self.heard(self.stream.receive(request))

    def hears(self) -> list[Any]:
        return self.heard(self.stream.changed())

    def heard(self, responses: list[Any]) -> list[Any]:
        self.last = responses
        return [([r.name for r in x.resources], list(x.removed_resources)) for x in responses]

    @property
    def types(self) -> list[str]:
        return [response.type_url for response in self.last]

    @property
    def nonces(self) -> list[str]:
        return [response.nonce for response in self.last]

    @property
    def subscription(self) -> Subscription:
        return self.stream.subscriptions[LISTENER_TYPE]


class TestDelta:
    def test_everything_at_first_then_only_what_changed(self, cache: ResourceCache) -> None:
        envoy = Delta(cache)
        assert envoy.says() == [(["a", "b"], [])]
        assert envoy.says(nonce=envoy.nonces[0]) == []
        cache.set_resources(LISTENER_TYPE, listeners(a="1", b="2"))
        assert envoy.hears() == [(["b"], [])]
        assert envoy.hears() == []
        cache.set_resources(LISTENER_TYPE, listeners(b="2", c="1"))
        assert envoy.hears() == [(["c"], ["a"])]

    def test_an_empty_answer_to_a_first_question_about_nothing(self) -> None:
        assert Delta(ResourceCache()).says() == [([], [])]

    def test_an_envoy_that_reconnects_gets_the_difference(self, cache: ResourceCache) -> None:
        version = cache.of_type(LISTENER_TYPE)["a"].version
        envoy = Delta(cache)
        known = {"a": version, "b": "old", "gone": "1"}
        assert envoy.says(initial_resource_versions=known) == [(["b"], ["gone"])]
        assert envoy.subscription.accepted == {"a": version}

    def test_only_names_that_were_asked_for(self, cache: ResourceCache) -> None:
        envoy = Delta(cache)
        assert envoy.says(resource_names_subscribe=["b"]) == [(["b"], [])]
        assert envoy.says(resource_names_subscribe=["a"]) == [(["a"], [])]
        assert envoy.says(resource_names_unsubscribe=["b"]) == []
        cache.set_resources(LISTENER_TYPE, listeners(a="2", b="2"))
        assert envoy.hears() == [(["a"], [])]

    def test_a_name_asked_for_again_is_sent_again(self, cache: ResourceCache) -> None:
        envoy = Delta(cache)
        envoy.says(resource_names_subscribe=["a"])
        assert envoy.says(resource_names_subscribe=["a"]) == [(["a"], [])]

    def test_a_refused_response_is_offered_piece_by_piece(self, cache: ResourceCache) -> None:
        envoy = Delta(cache)
        envoy.says()
        assert envoy.says(nonce=envoy.nonces[0], error="b is bad") == [(["a"], []), (["b"], [])]
        first, second = envoy.nonces
        assert envoy.says(nonce=first) == []
        assert envoy.says(nonce=second, error="b is bad") == []
        assert envoy.subscription.accepted.keys() == {"a"}
        assert envoy.subscription.errors == {"b": "b is bad"}

        cache.set_resources(LISTENER_TYPE, listeners(a="1", b="mended"))
        assert envoy.hears() == [(["b"], [])]
        envoy.says(nonce=envoy.nonces[0])
        assert envoy.subscription.errors == {}

    def test_a_refused_resource_that_is_gone_meanwhile(self, cache: ResourceCache) -> None:
        envoy = Delta(cache)
        envoy.says()
        nonce = envoy.nonces[0]
        cache.set_resources(LISTENER_TYPE, listeners(a="1"))
        assert envoy.says(nonce=nonce, error="b is bad") == [(["a"], []), ([], ["b"])]
        assert envoy.subscription.errors == {}

    def test_virtual_hosts_go_to_who_has_taken_their_routes(self) -> None:
        cache = ResourceCache()
        envoy = Delta(cache)
        cache.update({ROUTE_TYPE: routes("r", "other")})
        cache.update({VIRTUAL_HOST_TYPE: virtual_hosts("r/a", "r/b", "other/a")})
        assert envoy.says(ROUTE_TYPE, resource_names_subscribe=["r"]) == [(["r"], [])]
        (nonce,) = envoy.nonces
        # Envoy asks for all of them: of routes that it does not have it would drop them.
        assert envoy.says(VIRTUAL_HOST_TYPE) == [([], [])]
        assert envoy.says(ROUTE_TYPE, nonce) == [(["r/a", "r/b"], [])]
        cache.update({VIRTUAL_HOST_TYPE: {**virtual_hosts("r/c", "other/b"), "r/a": None}})
        assert envoy.hears() == [(["r/c"], ["r/a"])]
        assert envoy.says(ROUTE_TYPE, resource_names_subscribe=["other"]) == [(["other"], [])]
        assert envoy.says(ROUTE_TYPE, envoy.nonces[0]) == [(["other/a", "other/b"], [])]

    def test_virtual_hosts_of_refused_routes_stay(self) -> None:
        cache = ResourceCache()
        envoy = Delta(cache)
        cache.update({ROUTE_TYPE: routes("r"), VIRTUAL_HOST_TYPE: virtual_hosts("r/a")})
        envoy.says(VIRTUAL_HOST_TYPE)
        envoy.says(ROUTE_TYPE, resource_names_subscribe=["r"])
        assert envoy.says(ROUTE_TYPE, envoy.nonces[0], error="r is bad") == []
        assert envoy.says(ROUTE_TYPE, resource_names_unsubscribe=["r"]) == []

    def test_virtual_hosts_of_a_listener_that_comes_again_are_sent_again(self) -> None:
        cache = ResourceCache()
        envoy = Delta(cache)
        cache.update({ROUTE_TYPE: routes("r"), VIRTUAL_HOST_TYPE: virtual_hosts("r/a")})
        envoy.says(VIRTUAL_HOST_TYPE)
        for _ in range(2):
            assert envoy.says(ROUTE_TYPE, resource_names_subscribe=["r"]) == [(["r"], [])]
            assert envoy.says(ROUTE_TYPE, envoy.nonces[0]) == [(["r/a"], [])]
            assert envoy.says(ROUTE_TYPE, resource_names_unsubscribe=["r"]) == []

    def test_an_answer_from_before_does_not_bring_virtual_hosts(self) -> None:
        cache = ResourceCache()
        envoy = Delta(cache)
        cache.update({ROUTE_TYPE: routes("r"), VIRTUAL_HOST_TYPE: virtual_hosts("r/a")})
        envoy.says(VIRTUAL_HOST_TYPE)
        envoy.says(ROUTE_TYPE, resource_names_subscribe=["r"])
        again = envoy.says(ROUTE_TYPE, envoy.nonces[0], resource_names_subscribe=["r"])
        assert again == [(["r"], [])]
        assert envoy.says(ROUTE_TYPE, envoy.nonces[0]) == [(["r/a"], [])]

    @pytest.mark.parametrize("order", [(0, 1), (1, 0)])
    def test_who_reconnects_gets_the_virtual_hosts_that_it_lacks(
        self, order: tuple[int, int]
    ) -> None:
        cache = ResourceCache()
        envoy = Delta(cache)
        cache.update({ROUTE_TYPE: routes("r"), VIRTUAL_HOST_TYPE: virtual_hosts("r/a", "r/b")})
        types = (ROUTE_TYPE, VIRTUAL_HOST_TYPE)
        has = [{n: cache.of_type(t)[n].version} for t, n in zip(types, ("r", "r/a"), strict=True)]
        heard = []
        for each in order:
            names = ["r"] if types[each] == ROUTE_TYPE else []
            heard += envoy.says(
                types[each], initial_resource_versions=has[each], resource_names_subscribe=names
            )
        assert [names for names, _ in heard if names] == [["r/b"]]

    def test_endpoints_follow_a_cluster_unasked_and_clusters_go_last(self) -> None:
        cache = ResourceCache()
        envoy = Delta(cache)
        envoy.heard(envoy.stream.receive(discovery.DeltaDiscoveryRequest(type_url=CLUSTER_TYPE)))
        envoy.says()
        endpoints = endpoint_pb2.ClusterLoadAssignment(cluster_name="c")
        cluster = cluster_pb2.Cluster(name="c")
        cache.update({LISTENER_TYPE: listeners(a="1"), ENDPOINT_TYPE: {"c": endpoints},
                      CLUSTER_TYPE: {"c": cluster}})  # fmt: skip
        assert envoy.hears() == [(["c"], []), (["c"], []), (["a"], [])]
        assert envoy.types == [CLUSTER_TYPE, ENDPOINT_TYPE, LISTENER_TYPE]
        cache.update({LISTENER_TYPE: listeners(a="2"), CLUSTER_TYPE: {"c": None}})
        assert envoy.hears() == [(["a"], []), ([], ["c"])]
        assert envoy.types == [LISTENER_TYPE, CLUSTER_TYPE]

    def test_a_change_looks_at_what_changed_alone(self) -> None:
        cache = ResourceCache()
        cache.update({LISTENER_TYPE: listeners(**{f"l{n}": "1" for n in range(1000)})})
        before = cache.revision
        cache.update({LISTENER_TYPE: listeners(l7="2", l8="1")})
        assert list(cache.changed_since(LISTENER_TYPE, before)) == ["l7"]

    def test_an_unknown_nonce_means_nothing(self, cache: ResourceCache) -> None:
        envoy = Delta(cache)
        envoy.says()
        assert envoy.says(nonce="77", error="?") == []
        assert envoy.subscription.errors == {}


class Sotw:
    """An Envoy that speaks the state-of-the-world variant; responses as names."""

    def __init__(self, cache: ResourceCache) -> None:
        self.stream = SotwStream(cache)
        self.nonce = ""

    def says(self, nonce: str = "", error: str = "", **fields: Any) -> list[Any]:
        request = discovery.DiscoveryRequest(type_url=LISTENER_TYPE, response_nonce=nonce, **fields)
        if error:
            request.error_detail.message = error
        return self._heard(self.stream.receive(request))

    def hears(self) -> list[Any]:
        return self._heard(self.stream.changed())

    def _heard(self, responses: list[Any]) -> list[Any]:
        for response in responses:
            self.nonce = response.nonce
        return [
            [listener_pb2.Listener.FromString(body.value).name for body in response.resources]
            for response in responses
        ]

    @property
    def subscription(self) -> Subscription:
        return self.stream.subscriptions[LISTENER_TYPE]


class TestSotw:
    def test_every_change_brings_everything(self, cache: ResourceCache) -> None:
        envoy = Sotw(cache)
        assert envoy.says() == [["a", "b"]]
        assert envoy.says(nonce=envoy.nonce) == []
        assert envoy.subscription.accepted.keys() == {"a", "b"}
        cache.set_resources(LISTENER_TYPE, listeners(b="2"))
        assert envoy.hears() == [["b"]]
        assert envoy.subscription.accepted.keys() == {"b"}
        assert envoy.hears() == []

    def test_other_names_bring_another_response(self, cache: ResourceCache) -> None:
        envoy = Sotw(cache)
        assert envoy.says(resource_names=["b"]) == [["b"]]
        assert envoy.says(nonce=envoy.nonce, resource_names=["a", "b"]) == [["a", "b"]]

    def test_an_answer_to_a_replaced_response_means_nothing(self, cache: ResourceCache) -> None:
        envoy = Sotw(cache)
        envoy.says()
        stale = envoy.nonce
        cache.set_resources(LISTENER_TYPE, listeners(a="2"))
        envoy.hears()
        assert envoy.says(nonce=stale, error="?") == []
        assert envoy.subscription.errors == {}

    @pytest.mark.parametrize(
        ("message", "refused"),
        [
            ("Error adding/updating listener(s) b: no such filter", {"b"}),
            ("cannot parse", {"a", "b"}),
            ("listener ab is bad, so is b-2", {"a", "b"}),
        ],
    )
    def test_the_refused_are_those_that_the_message_names(
        self, cache: ResourceCache, message: str, refused: set[str]
    ) -> None:
        envoy = Sotw(cache)
        envoy.says()
        assert envoy.says(nonce=envoy.nonce, error=message) == []
        assert envoy.subscription.errors.keys() == refused
        assert envoy.subscription.accepted.keys() == {"a", "b"} - refused


class TestCache:
    def test_equal_content_has_an_equal_version_and_wakes_nobody(
        self, cache: ResourceCache
    ) -> None:
        before, woken = cache.of_type(LISTENER_TYPE), []
        cache.watch(lambda: woken.append(True))
        cache.set_resources(LISTENER_TYPE, listeners(b="1", a="1"))
        assert (cache.of_type(LISTENER_TYPE), woken) == (before, [])
        cache.set_resources(LISTENER_TYPE, listeners(a="1"))
        assert woken == [True]

    def test_clusters_come_before_what_uses_them(self, cache: ResourceCache) -> None:
        cache.set_resources(CLUSTER_TYPE, {"c": cluster_pb2.Cluster(name="c")})
        assert cache.type_urls() == [CLUSTER_TYPE, LISTENER_TYPE]

    def test_a_resource_of_another_type_is_refused(self, cache: ResourceCache) -> None:
        with pytest.raises(ValueError, match=r"'c'.*Cluster, not .*Listener"):
            cache.set_resources(LISTENER_TYPE, {"c": cluster_pb2.Cluster(name="c")})
