/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Every packet is counted; a verdict is reported once per connection, a drop once a second. */
#pragma once

#define REPORT_INTERVAL_NS 1000000000ULL

struct report {
    __u32 source_identity;
    __u32 destination_identity;
    __u16 endpoint_id;
    __u8 direction;
    __u8 verdict;
    __u8 reason;
};

static __always_inline void count(const struct packet *p, const struct report *r)
{
    __u32 slot = r->verdict == VERDICT_DROPPED ? 16 + r->reason : r->verdict;
    struct counter *c;

    slot += r->direction * COUNTER_SLOTS;
    c = bpf_map_lookup_elem(&counters, &slot);
    if (c) {
        c->packets++;
        c->bytes += p->length;
    }
}

static __always_inline void report(const struct packet *p, const struct report *r)
{
    struct event *e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
    __u32 zero = 0;
    __u64 *lost;

    if (!e) {
        lost = bpf_map_lookup_elem(&events_lost, &zero);
        if (lost)
            (*lost)++;
        return;
    }
    e->ktime = bpf_ktime_get_ns();
    e->saddr = p->tuple.saddr;
    e->daddr = p->tuple.daddr;
    e->sport = p->tuple.sport;
    e->dport = p->tuple.dport;
    e->source_identity = r->source_identity;
    e->destination_identity = r->destination_identity;
    e->endpoint_id = r->endpoint_id;
    e->protocol = p->tuple.protocol;
    e->direction = r->direction;
    e->verdict = r->verdict;
    e->reason = r->reason;
    e->tcp_flags = p->tcp_flags;
    e->family = p->family;
    bpf_ringbuf_submit(e, 0);
}

static __always_inline int count_drop(const struct packet *p, struct report *r, __u8 reason)
{
    r->verdict = VERDICT_DROPPED;
    r->reason = reason;
    count(p, r);
    return TCX_DROP;
}

static __always_inline int drop(struct packet *p, struct report *r, __u8 reason)
{
    __u64 now = bpf_ktime_get_ns(), *last;

    count_drop(p, r, reason);
    p->tuple.direction = r->direction;
    last = bpf_map_lookup_elem(&reported, &p->tuple);
    if (!last || now - *last > REPORT_INTERVAL_NS) {
        bpf_map_update_elem(&reported, &p->tuple, &now, BPF_ANY);
        report(p, r);
    }
    return TCX_DROP;
}
