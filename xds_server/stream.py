"""One ADS stream as a state machine without I/O: requests in, responses out.

Both variants of the protocol keep, for each resource, the version that Envoy took and the error
with which it refused one. https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol
"""

from __future__ import annotations

import itertools
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

from envoy.service.discovery.v3 import discovery_pb2 as discovery

from xds_server.cache import ResourceCache
from xds_server.refusal_reason import reason
from xds_server.resources import CLUSTER_TYPE, ENDPOINT_TYPE, ROUTE_TYPE, VIRTUAL_HOST_TYPE

WILDCARD = "*"


@dataclass(slots=True)
class Subscription:
    """What one stream knows about one resource type.

    ``sent`` is what Envoy has or was offered last, ``pending`` what each unanswered response
    held, ``accepted`` and ``errors`` Envoy's last word on each resource, ``refused`` the version
    that the error is about. ``seen`` is the cache's revision that ``sent`` is of.
    """

    names: set[str] = field(default_factory=set)
    sent: dict[str, str] = field(default_factory=dict)
    pending: dict[str, dict[str, str]] = field(default_factory=dict)
    accepted: dict[str, str] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    seen: int = 0

    def wants(self, name: str) -> bool:
        return WILDCARD in self.names or name in self.names

    def accept(self, offered: dict[str, str]) -> None:
        self.accepted.update(offered)
        for name in offered:
            self.errors.pop(name, None)
            self.refused.pop(name, None)

    def refuse(self, offered: Mapping[str, str], message: str) -> None:
        self.errors.update(dict.fromkeys(offered, reason(message)))
        self.refused.update(offered)

    def forget(self, names: Iterable[str]) -> None:
        for name in names:
            self.sent.pop(name, None)
            self.accepted.pop(name, None)
            self.errors.pop(name, None)
            self.refused.pop(name, None)


class _Stream(ABC):
    """What both variants have; by type, what Envoy subscribed to."""

    def __init__(self, cache: ResourceCache) -> None:
        self._cache = cache
        self._nonces = itertools.count(1)
        self.subscriptions: dict[str, Subscription] = {}

    def wants(self, type_url: str, name: str) -> bool:
        """Whether Envoy has asked for it."""
        subscription = self.subscriptions.get(type_url)
        return subscription is not None and subscription.wants(name)

    @abstractmethod
    def changed(self) -> list[Any]:
        """What the stream has to be told after a change of the cache."""


class DeltaStream(_Stream):
    """The incremental variant.

    Envoy asks for virtual hosts once, for all that there are, and drops those whose route
    configuration it does not have (``VhdsSubscription``): they are sent once it has taken that.
    """

    def wants(self, type_url: str, name: str) -> bool:
        if type_url == VIRTUAL_HOST_TYPE:
            return _routes_of(name) in self._routes()
        return super().wants(type_url, name)

    def receive(self, request: Any) -> list[Any]:
        """Take a ``DeltaDiscoveryRequest``; the ``DeltaDiscoveryResponse``s it calls for."""
        if request.type_url != ROUTE_TYPE:
            return self._receive(request)
        before = set(self._routes())
        return self._receive(request) + self._virtual_hosts(self._routes() - before)

    def _routes(self) -> AbstractSet[str]:
        """Route configurations that Envoy has taken."""
        subscription = self.subscriptions.get(ROUTE_TYPE)
        return subscription.accepted.keys() if subscription else frozenset()

    def _receive(self, request: Any) -> list[Any]:
        type_url = request.type_url
        first = type_url not in self.subscriptions
        subscription = self.subscriptions.setdefault(type_url, Subscription())
        if first:
            subscription.sent.update(request.initial_resource_versions)
            current = self._cache.of_type(type_url)
            known = request.initial_resource_versions.items()
            subscription.accept(
                {n: v for n, v in known if n in current and current[n].version == v}
            )
            subscription.seen = self._cache.revision
        asked = self._subscribe(type_url, subscription, request, first)
        split = self._answer(subscription, request) if request.response_nonce else []
        responses = [self._response(type_url, subscription, [name], []) for name in split]
        names, removed = self._news(type_url, subscription, asked)
        if names or removed or first:
            responses.append(self._response(type_url, subscription, names, removed))
        return responses

    def changed(self) -> list[Any]:
        """Clusters go last: until then what is new may still name what is gone."""
        responses, last = [], []
        for type_url in self._cache.type_urls():
            subscription = self._subscription(type_url)
            if subscription is None:
                continue
            names, removed = self._news(type_url, subscription, ())
            if type_url == CLUSTER_TYPE and removed:
                last.append((type_url, subscription, removed))
                removed = []
            if names or removed:
                responses.append(self._response(type_url, subscription, names, removed))
        return responses + [self._response(t, s, [], removed) for t, s, removed in last]

    def _subscription(self, type_url: str) -> Subscription | None:
        """Endpoints follow their cluster without being asked for: a route that is sent in the same
        breath finds the cluster warm."""
        subscription = self.subscriptions.get(type_url)
        if type_url == ENDPOINT_TYPE and CLUSTER_TYPE in self.subscriptions:
            subscription = self.subscriptions.setdefault(type_url, Subscription())
            subscription.names.add(WILDCARD)
        return subscription

    def _subscribe(
        self, type_url: str, subscription: Subscription, request: Any, first: bool
    ) -> Iterable[str]:
        """The names that are to be looked at whether or not they changed."""
        subscribe = set(request.resource_names_subscribe)
        if first and not subscribe:
            subscribe = {WILDCARD}
        subscription.names |= subscribe
        # A name asked for again is sent again, though it has not changed.
        again = subscribe - set(request.initial_resource_versions)
        subscription.forget(again)
        if type_url == ROUTE_TYPE and (hosts := self.subscriptions.get(VIRTUAL_HOST_TYPE)):
            hosts.forget([name for name in hosts.sent if _routes_of(name) in again])
        subscription.names -= set(request.resource_names_unsubscribe)
        if WILDCARD not in subscription.names:
            subscription.forget(request.resource_names_unsubscribe)
        if WILDCARD in subscribe:
            return [*self._cache.of_type(type_url), *subscription.sent]
        return [*subscribe, *subscription.sent] if first else subscribe

    def _virtual_hosts(self, of: AbstractSet[str]) -> list[Any]:
        """What route configurations that Envoy has taken just now lack."""
        hosts = self.subscriptions.get(VIRTUAL_HOST_TYPE)
        if hosts is None or not of:
            return []
        known = self._cache.of_type(VIRTUAL_HOST_TYPE)
        look = [name for name in known if _routes_of(name) in of]
        names, removed = self._news(VIRTUAL_HOST_TYPE, hosts, look)
        if names or removed:
            return [self._response(VIRTUAL_HOST_TYPE, hosts, names, removed)]
        return []

    def _answer(self, subscription: Subscription, request: Any) -> list[str]:
        """Note an ACK or a NACK; the names to offer one by one, to learn which was refused."""
        offered = subscription.pending.pop(request.response_nonce, {})
        if not request.HasField("error_detail"):
            # What was forgotten since is another's matter: it is asked for again, or gone.
            subscription.accept({n: v for n, v in offered.items() if n in subscription.sent})
            return []
        if len(offered) > 1:
            current = self._cache.of_type(request.type_url)
            return [n for n, v in offered.items() if n in current and current[n].version == v]
        subscription.refuse(offered, request.error_detail.message)
        return []

    def _news(
        self, type_url: str, subscription: Subscription, asked: Iterable[str]
    ) -> tuple[list[str], list[str]]:
        """Names to send and names that are gone, of those asked for and those that changed."""
        current, sent = self._cache.of_type(type_url), subscription.sent
        look = {*asked, *self._cache.changed_since(type_url, subscription.seen)}
        subscription.seen = self._cache.revision
        names = [
            name
            for name in look
            if name in current
            and self.wants(type_url, name)
            and sent.get(name) != current[name].version
        ]
        return sorted(names), sorted(n for n in look if n in sent and n not in current)

    def _response(
        self, type_url: str, subscription: Subscription, names: list[str], removed: list[str]
    ) -> Any:
        resources = {name: self._cache.of_type(type_url)[name] for name in names}
        offered = {name: resource.version for name, resource in resources.items()}
        nonce = str(next(self._nonces))
        subscription.pending[nonce] = offered
        subscription.sent.update(offered)
        subscription.forget(removed)
        return discovery.DeltaDiscoveryResponse(
            type_url=type_url,
            nonce=nonce,
            system_version_info=self._cache.type_version(type_url),
            resources=[
                discovery.Resource(name=name, version=resource.version, resource=resource.body)
                for name, resource in resources.items()
            ],
            removed_resources=removed,
        )


def _routes_of(virtual_host: str) -> str:
    """The route configuration is the part before the last / (envoy.config.route.v3.Vhds)."""
    return virtual_host.rpartition("/")[0]


class SotwStream(_Stream):
    """The state-of-the-world variant: each response holds every resource of its type."""

    def __init__(self, cache: ResourceCache) -> None:
        super().__init__(cache)
        self._latest: dict[str, str] = {}

    def changed(self) -> list[Any]:
        return [
            response
            for type_url in self._cache.type_urls()
            if (subscription := self.subscriptions.get(type_url))
            for response in self._update(type_url, subscription)
        ]

    def receive(self, request: Any) -> list[Any]:
        """Take a ``DiscoveryRequest``; the ``DiscoveryResponse`` it calls for."""
        type_url = request.type_url
        if request.response_nonce != self._latest.get(type_url, ""):
            return []  # about a response that a later one has replaced
        subscription = self.subscriptions.setdefault(type_url, Subscription())
        if request.response_nonce:
            self._answer(subscription, request)
        names = set(request.resource_names) or {WILDCARD}
        if names == subscription.names:
            return self._update(type_url, subscription)
        subscription.names = names
        return [self._response(type_url, subscription)]

    def _answer(self, subscription: Subscription, request: Any) -> None:
        offered = subscription.pending.pop(request.response_nonce, {})
        if not request.HasField("error_detail"):
            subscription.accept(offered)
            return
        # Envoy takes the good ones and names the others in its message.
        message = request.error_detail.message
        named = {
            name: version
            for name, version in offered.items()
            if re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", message)
        }
        subscription.refuse(named or offered, message)
        if named:
            subscription.accept({n: v for n, v in offered.items() if n not in named})

    def _update(self, type_url: str, subscription: Subscription) -> list[Any]:
        wanted = {
            name: resource.version
            for name, resource in self._cache.of_type(type_url).items()
            if subscription.wants(name)
        }
        return [] if wanted == subscription.sent else [self._response(type_url, subscription)]

    def _response(self, type_url: str, subscription: Subscription) -> Any:
        resources = {
            name: resource
            for name, resource in self._cache.of_type(type_url).items()
            if subscription.wants(name)
        }
        offered = {name: resource.version for name, resource in resources.items()}
        subscription.forget(subscription.sent.keys() - offered.keys())
        nonce = self._latest[type_url] = str(next(self._nonces))
        subscription.pending = {nonce: offered}
        subscription.sent = offered
        return discovery.DiscoveryResponse(
            type_url=type_url,
            nonce=nonce,
            version_info=self._cache.type_version(type_url),
            resources=[resource.body for resource in resources.values()],
        )
