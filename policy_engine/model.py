"""What policy compiles to: the types that the other rooms share.

Everything here is immutable and free of I/O. The kernel maps are programmed from
:meth:`EndpointPolicy.entries`, the module in Envoy from the same rules, so that both layers and
``sidegate policy trace`` answer from one source.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

ANY_IDENTITY = 0
ANY_PORT = 0


class Direction(enum.IntEnum):
    """As seen from the endpoint. The values are those of the BPF maps and of the policy stream."""

    INGRESS = 0
    EGRESS = 1


class Protocol(enum.IntEnum):
    """IANA protocol numbers; ANY (0) is our wildcard."""

    ANY = 0
    ICMP = 1
    TCP = 6
    UDP = 17
    ICMPV6 = 58
    SCTP = 132


TRANSPORTS = {each.name: each for each in (Protocol.TCP, Protocol.UDP, Protocol.SCTP)}
"""By the names that Kubernetes has for them."""


class Action(enum.IntEnum):
    """What the kernel does with a match. Values are those of the BPF policy map.

    :data:`PRECEDENCE` says which counts where several entries match one packet. AUTHENTICATE passes
    where the end's own proxy judges, which sees the peer's certificate, and nowhere else.
    """

    DENY = 0
    ALLOW = 1
    REDIRECT = 2
    AUTHENTICATE = 3


PRECEDENCE = (Action.DENY, Action.AUTHENTICATE, Action.ALLOW, Action.REDIRECT)


class Authentication(enum.IntEnum):
    """What a peer has to prove besides its address. Values are those of the policy stream; where
    several rules are about the same traffic, the highest counts."""

    NONE = 0
    REQUIRED = 1
    ALWAYS_FAIL = 2


class Parser(enum.StrEnum):
    """The L7 protocol that a rule speaks, hence the listener it is redirected to."""

    HTTP = "http"
    KAFKA = "kafka"


@dataclass(frozen=True, slots=True)
class HeaderMatch:
    """``value`` None: presence is enough. ``name`` is lower case."""

    name: str
    value: str | None = None


@dataclass(frozen=True, slots=True)
class HttpRule:
    """Regular expressions matched against the whole value; empty means any."""

    method: str = ""
    path: str = ""
    host: str = ""
    headers: tuple[HeaderMatch, ...] = ()


@dataclass(frozen=True, slots=True)
class KafkaRule:
    """``api_keys`` empty means any; a role is expanded to its keys when it is parsed."""

    api_keys: frozenset[int] = frozenset()
    api_version: int | None = None
    client_id: str = ""
    topic: str = ""


@dataclass(frozen=True, slots=True)
class PortRule:
    """One compiled rule of one direction of one endpoint.

    ``peers`` None means any peer; otherwise the identities it selects now. ``parser`` None means
    L4 only, which allows everything at L7 for these peers.
    """

    origin: str
    peers: frozenset[int] | None
    protocol: Protocol = Protocol.ANY
    port: int = ANY_PORT
    end_port: int = 0
    deny: bool = False
    parser: Parser | None = None
    http: tuple[HttpRule, ...] = ()
    kafka: tuple[KafkaRule, ...] = ()
    authentication: Authentication = Authentication.NONE


@dataclass(frozen=True, slots=True)
class DirectionPolicy:
    """``enforced`` False: default allow, no rules. ``audit``: denials are logged and pass.

    ``default_allow``: the rules deny and narrow what they are about, the rest is allowed.
    """

    enforced: bool = False
    audit: bool = False
    rules: tuple[PortRule, ...] = ()
    default_allow: bool = False


@dataclass(frozen=True, slots=True)
class PolicyKey:
    """A key of the BPF policy map; 0 is the wildcard of each field but ``direction``.

    ``port`` has ``port_bits`` leading bits that count, the others are 0: ranges are split into
    such blocks. 0 bits are every port.
    """

    direction: Direction
    identity: int
    protocol: Protocol
    port: int
    port_bits: int


@dataclass(frozen=True, slots=True)
class PolicyEntry:
    """``origins`` name the rules that made the entry, for flows and for ``policy trace``.

    A REDIRECT without ``parser`` is one to two L7 protocols: nothing passes unless an ALLOW matches
    as well.
    """

    action: Action
    parser: Parser | None = None
    origins: tuple[str, ...] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class EndpointPolicy:
    """The whole policy of one endpoint. Equal policies compare equal whatever their revision."""

    endpoint_id: int
    identity: int
    ingress: DirectionPolicy
    egress: DirectionPolicy
    entries: Mapping[PolicyKey, PolicyEntry]
    revision: int = field(default=0, compare=False)

    def direction(self, direction: Direction) -> DirectionPolicy:
        return self.ingress if direction is Direction.INGRESS else self.egress
