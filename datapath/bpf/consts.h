/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Numbers shared with user space: datapath/consts.py mirrors them, a test holds the two together.
 */
#pragma once

#define IDENTITY_HOST 1
#define IDENTITY_WORLD 2
#define IDENTITY_OF_LABELS 256       /* pods are from here on */
#define IDENTITY_OF_BLOCKS 0x1000000 /* blocks of addresses that policy names are */

#define MARK_MASK 0xf00
#define MARK_TO_PROXY 0x200
#define MARK_FROM_PROXY 0xa00
#define MARK_UPSTREAM 0x1000 /* besides, on the sockets that Envoy opens itself */

enum direction { INGRESS = 0, EGRESS = 1 };

enum action { ACTION_DENY = 0, ACTION_ALLOW = 1, ACTION_REDIRECT = 2, ACTION_AUTHENTICATE = 3 };

/* endpoint_flags */
#define INGRESS_ENFORCED 1
#define EGRESS_ENFORCED 2
#define INGRESS_AUDIT 4
#define EGRESS_AUDIT 8
#define INGRESS_DEFAULT_ALLOW 16
#define EGRESS_DEFAULT_ALLOW 32
/* Bit n: the direction has entries whose port has n bits, for n of 1 to 15. */
#define INGRESS_PORT_BITS 16
#define EGRESS_PORT_BITS 32

enum verdict {
    VERDICT_FORWARDED = 1,
    VERDICT_DROPPED = 2,
    VERDICT_AUDIT = 3,
    VERDICT_REDIRECTED = 4,
};

enum drop_reason {
    DROP_NONE = 0,
    DROP_POLICY_DENIED = 1,        /* no entry allows it, or one denies it */
    DROP_INVALID_SOURCE = 2,       /* the source is not the endpoint's own address */
    DROP_UNKNOWN_ENDPOINT = 3,     /* the interface has no endpoint */
    DROP_NOT_IP = 4,               /* an ethertype other than IPv4, IPv6, ARP */
    DROP_MALFORMED = 5,            /* truncated or unparsable headers */
    DROP_FRAGMENT = 6,             /* a fragment whose first one was not seen */
    DROP_PROXY_DOWN = 7,           /* L7-selected, and Envoy does not listen */
    DROP_PROXY_MISMATCH = 8,       /* both ends select L7, of different protocols */
    DROP_NOT_TCP = 9,              /* L7-selected, and not TCP */
    DROP_NO_IPCACHE = 10,          /* the ipcache lacks its default entry */
    DROP_CONNTRACK_FULL = 11,      /* the connection could not be remembered */
    DROP_HAIRPIN = 12,             /* no hairpin device */
    DROP_NO_BACKEND = 13,          /* the Service has none that this flow could have */
    DROP_INVALID_DESTINATION = 14, /* a frame for an address that is not the endpoint's */
    DROP_SIDECAR_LEASE = 15,       /* L7-selected, and the pod's own proxy does not prove itself */
    DROP_NOT_SIDECAR = 16,         /* L7-selected, and past the pod's own proxy, out or in */
    DROP_AUTHENTICATION = 17,      /* policy asks for a certificate, and nobody sees one here */
    DROP_REASONS = 18,
};

/* enforcers: who judges what policy sends to L7 */
enum enforcer { ENFORCER_NODE = 1, ENFORCER_SIDECAR = 2, ENFORCER_UNPROVEN = 3 };

#define LEASE_NS 1000000000ULL
#define LEASE_INGRESS 1
#define LEASE_EGRESS 2

#define COUNTER_SLOTS 64 /* verdict * 16 + reason for drops; direction in the high bit */
