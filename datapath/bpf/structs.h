/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Layouts of keys and values. See docs/architecture.md; datapath/codec.py decodes the same. */
#pragma once

struct addr {
    union {
        __u8 b[16];
        __u32 w[4];
        __u64 d[2];
    };
};

/* An address is v4-mapped, so that one map serves both families and IPv6 sockets need no care. */
struct l4_addr {
    struct addr addr;
    __be16 port;
    __u8 protocol;
    __u8 pad;
    __u32 pad2;
};

struct ipcache_key {
    __u32 prefixlen;
    __u8 addr[16];
};

struct ipcache_value {
    __u32 identity;
    __u16 endpoint_id;
    __u16 flags;
};

#define ENDPOINT_BRIDGED 1 /* its interface is the port of a bridge */

struct endpoint {
    __u32 identity;
    __u16 id;
    __u16 flags;
    __u32 ipv4; /* network order, 0 for none */
    __u32 pad;
    struct addr ipv6;
};

struct policy_key {
    __u16 endpoint_id;
    __u8 direction;
    __u8 protocol;
    __u32 identity;
    __be16 port;
    __u8 port_bits; /* leading bits of the port that count; the others are 0 */
    __u8 pad;
};

struct policy_value {
    __u8 action;
    __u8 pad;
    __u16 proxy_port; /* host order */
};

/* Addresses are v4-mapped, so that one map serves both families. */
struct tuple {
    struct addr saddr;
    struct addr daddr;
    __be16 sport;
    __be16 dport;
    __u8 protocol;
    __u8 direction; /* of the hook that saw the connection begin */
    __u16 pad;
};

#define CT_PROXIED 1        /* the client's side of a connection that Envoy terminates */
#define CT_PROXY_UPSTREAM 2 /* Envoy's own connection with the client's address */
#define CT_CLOSING 4        /* a reset was seen */
#define CT_KUBELET 8        /* the kubelet began it */
#define CT_SIDECAR 16       /* the pod's own proxy has accepted it */
#define CT_MESH 32          /* the client's side, to a Service that routes are attached to */

struct conn {
    __u64 last_seen; /* ktime, ns */
    __u32 flags;
    __u32 peer_identity;
};

struct fragment_key {
    struct addr saddr;
    struct addr daddr;
    __u32 id;
    __u32 protocol;
};

struct fragment_value {
    __be16 sport;
    __be16 dport;
};

/* Written by the module in a pod's own proxy, which has it mapped. */
struct lease {
    __u64 time; /* ktime, ns */
    __u32 revision;
    __u32 sides; /* LEASE_INGRESS, LEASE_EGRESS; 0: of a module that knows of no egress */
};

struct enforcer_key {
    __u16 endpoint_id;
    __u8 direction;
    __u8 pad;
    __be16 port; /* of the server; 0: any other */
    __u16 pad2;
};

/* config[0] */
struct config {
    __u32 hairpin_ifindex;
    __u32 proxy_port;     /* host order; a listener of Envoy's that is always there */
    __u64 kubelet_cgroup; /* id of the cgroup; 0: not known, nobody is the kubelet */
};

struct event {
    __u64 ktime;
    struct addr saddr;
    struct addr daddr;
    __u32 source_identity;
    __u32 destination_identity;
    __be16 sport;
    __be16 dport;
    __u16 endpoint_id; /* whose policy decided */
    __u8 protocol;
    __u8 direction;
    __u8 verdict;
    __u8 reason;
    __u8 tcp_flags;
    __u8 family; /* 4 or 6 */
    __u32 pad;
};

struct counter {
    __u64 packets;
    __u64 bytes;
};

/* What an end says to a packet. */
struct judgement {
    __u8 action;
    __u8 audited;  /* would have been denied */
    __u8 enforced; /* a rule allowed it, not the want of rules */
    __u8 matched;  /* an entry is about it */
    __u8 conflict; /* redirects to different proxy ports, or to none: two L7 protocols */
    __u8 sidecar;  /* the end's own proxy judges it at L7 */
    __u8 reason;   /* of a denial that is not for want of a rule; 0 */
    __u16 proxy_port;
};
