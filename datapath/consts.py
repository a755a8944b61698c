"""Numbers shared with ``bpf/consts.h``; a unit test holds the two together."""

from __future__ import annotations

import enum

IDENTITY_HOST = 1
IDENTITY_WORLD = 2

MARK_MASK = 0xF00
MARK_TO_PROXY = 0x200
MARK_FROM_PROXY = 0xA00
MARK_UPSTREAM = 0x1000

COUNTER_SLOTS = 64

# Where the sizes of port blocks begin among an endpoint's flags.
INGRESS_PORT_BITS = 16
EGRESS_PORT_BITS = 32


class EndpointFlag(enum.IntFlag):
    INGRESS_ENFORCED = 1
    EGRESS_ENFORCED = 2
    INGRESS_AUDIT = 4
    EGRESS_AUDIT = 8
    INGRESS_DEFAULT_ALLOW = 16
    EGRESS_DEFAULT_ALLOW = 32


class Verdict(enum.IntEnum):
    FORWARDED = 1
    DROPPED = 2
    AUDIT = 3
    REDIRECTED = 4


class Enforcer(enum.IntEnum):
    """Who judges what policy sends to L7. Without an entry: the node's Envoy."""

    NODE = 1
    SIDECAR = 2
    UNPROVEN = 3


class DropReason(enum.IntEnum):
    NONE = 0
    POLICY_DENIED = 1
    INVALID_SOURCE = 2
    UNKNOWN_ENDPOINT = 3
    NOT_IP = 4
    MALFORMED = 5
    FRAGMENT = 6
    PROXY_DOWN = 7
    PROXY_MISMATCH = 8
    NOT_TCP = 9
    NO_IPCACHE = 10
    CONNTRACK_FULL = 11
    HAIRPIN = 12
    NO_BACKEND = 13
    INVALID_DESTINATION = 14
    SIDECAR_LEASE = 15
    NOT_SIDECAR = 16
    AUTHENTICATION = 17

    @property
    def text(self) -> str:
        return self.name.lower().replace("_", " ")
