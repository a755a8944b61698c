/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Services by packet, for pods whose sidecar must see the Service's address: the destination is
 * exchanged as a packet leaves the pod, before it is judged, the source as a reply goes in, after.
 */
#pragma once

#define CLASH_ATTEMPTS 3
#ifndef BPF_F_IPV6
#define BPF_F_IPV6 (1ULL << 7) /* from 6.16 on, and in what was fixed since */
#endif

/* Of a flow, by what the pod sends (EGRESS) and by what comes back for it (INGRESS). */
struct nat {
    struct l4_addr other; /* backend, frontend */
    __u64 last_seen;      /* ktime, ns */
};

struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __type(key, struct tuple);
    __type(value, struct nat);
    __uint(max_entries, 65536);
} service_nat SEC(".maps");

static __always_inline bool is_recent(const struct packet *p, const struct nat *n)
{
    __u64 timeout = p->tuple.protocol == IPPROTO_TCP ? TCP_TIMEOUT : DATAGRAM_TIMEOUT;

    return bpf_ktime_get_ns() - n->last_seen < timeout;
}

/* Offset of the ports; 0 where they are not in this packet. */
static __always_inline __u32 ports_of(struct __sk_buff *skb, const struct packet *p)
{
    __u8 first, next;
    __be16 frag;

    if (p->family == 4) {
        if (bpf_skb_load_bytes(skb, ETH_HLEN, &first, 1) < 0 ||
            bpf_skb_load_bytes(skb, ETH_HLEN + offsetof(struct iphdr, frag_off), &frag, 2) < 0 ||
            (frag & bpf_htons(0x3fff)))
            return 0;
        return ETH_HLEN + (first & 0xf) * 4;
    }
    if (bpf_skb_load_bytes(skb, ETH_HLEN + offsetof(struct ipv6hdr, nexthdr), &next, 1) < 0 ||
        next != p->tuple.protocol)
        return 0;
    return ETH_HLEN + sizeof(struct ipv6hdr);
}

/* One end of the packet, and of p, becomes `to`. Negative if the packet is not of that form. */
static __always_inline int rewrite(struct __sk_buff *skb, struct packet *p, bool source,
                                   const struct l4_addr *to)
{
    struct addr *addr = source ? &p->tuple.saddr : &p->tuple.daddr;
    __be16 *port = source ? &p->tuple.sport : &p->tuple.dport;
    bool udp = p->tuple.protocol == IPPROTO_UDP;
    __u32 l4 = ports_of(skb, p), at, sum;
    __u64 flags = udp ? BPF_F_MARK_MANGLED_0 : 0;
    struct addr before = *addr, after = to->addr;
    __u64 v6_flags = flags | BPF_F_PSEUDO_HDR | BPF_F_IPV6;
    __s64 diff;
    long failed = 0;

    if (!l4)
        return -1;
    sum = l4 + (udp ? 6 : 16);
    if (p->family == 4) {
        at = ETH_HLEN + (source ? offsetof(struct iphdr, saddr) : offsetof(struct iphdr, daddr));
        if (bpf_l3_csum_replace(skb, ETH_HLEN + offsetof(struct iphdr, check), before.w[3],
                                after.w[3], 4) < 0 ||
            bpf_skb_store_bytes(skb, at, &after.w[3], 4, 0) < 0)
            return -1;
        diff = bpf_csum_diff(&before.w[3], 4, &after.w[3], 4, 0);
    } else {
        at =
            ETH_HLEN + (source ? offsetof(struct ipv6hdr, saddr) : offsetof(struct ipv6hdr, daddr));
        if (bpf_skb_store_bytes(skb, at, &after, 16, 0) < 0)
            return -1;
        diff = bpf_csum_diff(before.w, 16, after.w, 16, 0);
    }
    if (p->family == 4 || bpf_l4_csum_replace(skb, sum, 0, diff, v6_flags) < 0)
        failed = bpf_l4_csum_replace(skb, sum, 0, diff, flags | BPF_F_PSEUDO_HDR);
    if (failed || bpf_l4_csum_replace(skb, sum, *port, to->port, flags | 2) < 0 ||
        bpf_skb_store_bytes(skb, l4 + (source ? 0 : 2), &to->port, 2, 0) < 0)
        return -1;
    *addr = after;
    *port = to->port;
    return 0;
}

static __always_inline struct tuple answer_of(const struct packet *p, const struct l4_addr *backend)
{
    struct tuple t = p->tuple;

    t.daddr = backend->addr;
    t.dport = backend->port;
    swap_ends(&t);
    t.direction = INGRESS;
    return t;
}

/* Whether answers would go astray: another flow of the same source port has this backend, or it is
 * the pod itself, which takes no packet from its own address. */
static __always_inline bool clashes(const struct packet *p, const struct l4_addr *frontend,
                                    const struct l4_addr *backend)
{
    struct tuple answer = answer_of(p, backend);
    struct nat *n = bpf_map_lookup_elem(&service_nat, &answer);

    if (backend->addr.d[0] == p->tuple.saddr.d[0] && backend->addr.d[1] == p->tuple.saddr.d[1])
        return true;
    return n && is_recent(p, n) && !same_addr(&n->other, frontend);
}

/* As select_backend, for the packet that begins a flow; its retransmission gets the same. */
static __always_inline int select_for(const struct packet *p, const struct l4_addr *frontend,
                                      const struct service *s, __u16 endpoint_id,
                                      struct l4_addr *backend)
{
    struct affinity_key client = {};
    __u64 seed = p->tuple.saddr.d[1] ^ ((__u64)p->tuple.sport << 32);

    if (s->affinity_seconds) {
        client.kind = AFFINITY_ENDPOINT;
        client.client = endpoint_id;
    }
    for (int i = 0; i < CLASH_ATTEMPTS; i++) {
        int result = select_backend(frontend, s, spread(seed) + i, &client, backend);

        if (result <= 0 || !clashes(p, frontend, backend))
            return result;
    }
    return -1;
}

/* Whether a flow goes on with its backend: a connection always, datagrams while it is one. */
static __always_inline bool goes_on(const struct packet *p, const struct service *s,
                                    const struct nat *known)
{
    struct member_key member = {};

    if (p->tuple.protocol == IPPROTO_TCP)
        return !is_first_syn(p);
    if (!s || !is_recent(p, known))
        return false;
    member.service = s->id;
    member.backend = known->other;
    return bpf_map_lookup_elem(&service_members, &member);
}

/* A packet from a pod, of which p tells; a drop reason or DROP_NONE. */
static __always_inline int packet_to_backend(struct __sk_buff *skb, struct packet *p,
                                             __u16 endpoint_id)
{
    struct l4_addr frontend = {
        .addr = p->tuple.daddr, .port = p->tuple.dport, .protocol = p->tuple.protocol};
    struct nat flow = {.last_seen = bpf_ktime_get_ns()}, back = flow, *known;
    struct tuple sent = p->tuple, answer;
    struct service *s;

    if (p->tuple.protocol != IPPROTO_TCP && p->tuple.protocol != IPPROTO_UDP)
        return DROP_NONE;
    sent.direction = EGRESS;
    known = bpf_map_lookup_elem(&service_nat, &sent);
    s = bpf_map_lookup_elem(&services, &frontend);
    if (known && goes_on(p, s, known)) {
        flow.other = known->other;
    } else {
        int result = s ? select_for(p, &frontend, s, endpoint_id, &flow.other) : 0;

        if (result <= 0)
            return result < 0 ? DROP_NO_BACKEND : DROP_NONE;
    }
    back.other = frontend;
    answer = answer_of(p, &flow.other);
    if (bpf_map_update_elem(&service_nat, &sent, &flow, BPF_ANY) < 0 ||
        bpf_map_update_elem(&service_nat, &answer, &back, BPF_ANY) < 0)
        return DROP_CONNTRACK_FULL;
    if (rewrite(skb, p, false, &flow.other) < 0)
        return DROP_FRAGMENT;
    p->destination = p->tuple.daddr;
    return DROP_NONE;
}

/* A packet to a pod, judged already: what answers as a backend does so as the frontend. */
static __always_inline int packet_to_frontend(struct __sk_buff *skb, struct packet *p)
{
    struct tuple answer = p->tuple;
    struct l4_addr frontend;
    struct nat *known;

    answer.direction = INGRESS;
    known = bpf_map_lookup_elem(&service_nat, &answer);
    if (!known)
        return DROP_NONE;
    known->last_seen = bpf_ktime_get_ns();
    frontend = known->other;
    return rewrite(skb, p, true, &frontend) < 0 ? DROP_FRAGMENT : DROP_NONE;
}
