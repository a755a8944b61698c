/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Services by packet, for pods whose sidecar must see the Service's address: the destination is
 * exchanged as a packet leaves the pod, before it is judged, the source as a reply goes in, after.
 */
#pragma once

#define CLASH_ATTEMPTS 3

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

static __always_inline struct tuple answer_of(const struct packet *p, const struct l4_addr *backend)
{
    struct tuple t = p->tuple;

    t.daddr = backend->addr;
    t.dport = backend->port;
    swap_ends(&t);
    t.direction = INGRESS;
    return t;
}

/* Whether answers would go astray: another flow of the same source port has this backend. */
static __always_inline bool clashes(const struct packet *p, const struct l4_addr *frontend,
                                    const struct l4_addr *backend)
{
    struct tuple answer = answer_of(p, backend);
    struct nat *n = bpf_map_lookup_elem(&service_nat, &answer);

    return n && is_recent(p, n) && !same_addr(&n->other, frontend);
}

/* As select_backend, for the packet that begins a flow; its retransmission gets the same. */
static __always_inline int select_for(const struct packet *p, const struct l4_addr *frontend,
                                      const struct service *s, __u16 endpoint_id,
                                      struct l4_addr *backend)
{
    struct affinity_key client = {};
    /* Below, where all of it counts: a client's ports follow each other. */
    __u64 seed = p->tuple.saddr.d[1] ^ bpf_ntohs(p->tuple.sport);

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
        int result = 0;

        if (s && !find_view(&frontend, endpoint_id)) /* else from_endpoint redirects it */
            result = select_for(p, &frontend, s, endpoint_id, &flow.other);
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

static __always_inline bool is_to_itself(const struct packet *p)
{
    return p->tuple.daddr.d[0] == p->tuple.saddr.d[0] && p->tuple.daddr.d[1] == p->tuple.saddr.d[1];
}

/* Back into the pod that has sent it, without asking anybody: policy has no say in what a pod sends
 * itself. */
static __always_inline int turn_round(struct __sk_buff *skb)
{
    struct ethhdr eth;
    __u8 mac[ETH_ALEN];

    if (bpf_skb_load_bytes(skb, 0, &eth, sizeof(eth)) < 0)
        return TCX_DROP;
    __builtin_memcpy(mac, eth.h_dest, ETH_ALEN);
    __builtin_memcpy(eth.h_dest, eth.h_source, ETH_ALEN);
    __builtin_memcpy(eth.h_source, mac, ETH_ALEN);
    if (bpf_skb_store_bytes(skb, 0, &eth, sizeof(eth), 0) < 0)
        return TCX_DROP;
    return bpf_redirect_peer(skb->ifindex, 0);
}

/* What a pod answers itself, as the frontend; TCX_NEXT: it is Envoy that it answers. */
static __always_inline int answer_itself(struct __sk_buff *skb, struct packet *p)
{
    struct tuple answer = p->tuple;
    struct l4_addr frontend;
    struct nat *known;

    answer.daddr = answer.saddr;
    answer.direction = INGRESS;
    known = bpf_map_lookup_elem(&service_nat, &answer);
    if (!known)
        return TCX_NEXT;
    known->last_seen = bpf_ktime_get_ns();
    frontend = known->other;
    if (to_itself(skb, p) < 0 || rewrite(skb, p, true, &frontend) < 0)
        return TCX_DROP;
    return turn_round(skb);
}
