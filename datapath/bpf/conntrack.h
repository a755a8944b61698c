/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Which packets are replies. Forward packets are judged one by one, so that a revoked policy stops
 * a live connection; replies pass because the connection that they answer was allowed.
 */
#pragma once

#define SECOND 1000000000ULL
#define TCP_TIMEOUT (6 * 3600 * SECOND)
#define TCP_CLOSED_TIMEOUT (10 * SECOND)
#define DATAGRAM_TIMEOUT (180 * SECOND)

static __always_inline bool is_first_syn(const struct packet *p)
{
    return p->tuple.protocol == IPPROTO_TCP && (p->tcp_flags & TCP_SYN) &&
           !(p->tcp_flags & TCP_ACK);
}

static __always_inline bool is_live(const struct packet *p, const struct conn *c, __u64 now)
{
    __u64 timeout = DATAGRAM_TIMEOUT;

    if (p->tuple.protocol == IPPROTO_TCP)
        timeout = c->flags & CT_CLOSING ? TCP_CLOSED_TIMEOUT : TCP_TIMEOUT;
    return now - c->last_seen < timeout;
}

static __always_inline struct conn *find_conn(const struct packet *p, const struct tuple *t)
{
    struct conn *c = bpf_map_lookup_elem(&conntrack, t);

    if (!c || !is_live(p, c, bpf_ktime_get_ns()))
        return NULL;
    if (p->tcp_flags & TCP_RST)
        c->flags |= CT_CLOSING;
    return c;
}

/* The connection of which this packet is a reply; `begun` is the direction it began in here.
 * Replies alone keep no entry alive: whom a datagram was once allowed to ask may not go on. */
static __always_inline struct conn *find_reply(const struct packet *p, __u8 begun)
{
    struct tuple t = p->tuple;
    struct conn *c;

    swap_ends(&t);
    t.direction = begun;
    c = find_conn(p, &t);
    if (c && p->tuple.protocol == IPPROTO_TCP && !(c->flags & CT_CLOSING))
        c->last_seen = bpf_ktime_get_ns();
    return c;
}

/* A forward packet keeps it alive, even after a reset that was none. */
static __always_inline struct conn *find_forward(struct packet *p, __u8 direction)
{
    struct conn *c;

    p->tuple.direction = direction;
    c = find_conn(p, &p->tuple);
    if (c && !(p->tcp_flags & TCP_RST)) {
        c->flags &= ~CT_CLOSING;
        c->last_seen = bpf_ktime_get_ns();
    }
    return c;
}

static __always_inline bool is_known(const struct packet *p, struct tuple *t, __u8 direction)
{
    struct conn *c;

    t->direction = direction;
    c = bpf_map_lookup_elem(&conntrack, t);
    return c && is_live(p, c, bpf_ktime_get_ns());
}

/* An ICMP error passes if the packet that it is about belongs to a connection, whichever way, and
 * if it goes to whoever sent that packet. It keeps no connection alive. */
static __always_inline bool concerns_conn(const struct packet *p)
{
    struct tuple t = p->tuple;

    if (p->destination.d[0] != t.saddr.d[0] || p->destination.d[1] != t.saddr.d[1])
        return false;
    if (is_known(p, &t, EGRESS) || is_known(p, &t, INGRESS))
        return true;
    swap_ends(&t);
    return is_known(p, &t, EGRESS) || is_known(p, &t, INGRESS);
}

static __always_inline int remember(struct packet *p, __u8 direction, __u32 flags, __u32 peer)
{
    struct conn c = {.last_seen = bpf_ktime_get_ns(), .flags = flags, .peer_identity = peer};

    p->tuple.direction = direction;
    return bpf_map_update_elem(&conntrack, &p->tuple, &c, BPF_ANY);
}

/* At both hooks that it may have passed, so that replies stop as well. */
static __always_inline void forget(struct packet *p)
{
    p->tuple.direction = EGRESS;
    bpf_map_delete_elem(&conntrack, &p->tuple);
    p->tuple.direction = INGRESS;
    bpf_map_delete_elem(&conntrack, &p->tuple);
}
