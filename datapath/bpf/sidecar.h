/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Ends whose own proxy enforces L7, for as long as it proves that it does
 * (docs/adr/0013-a-sidecar-enforces-by-lease.md). */
#pragma once

static __always_inline bool holds_lease(__u16 endpoint_id, __u8 direction)
{
    __u32 id = endpoint_id, zero = 0, sides;
    void *inner = bpf_map_lookup_elem(&leases, &id);
    volatile struct lease *l;
    __u64 time;

    if (!inner)
        return false;
    l = bpf_map_lookup_elem(inner, &zero);
    if (!l)
        return false;
    sides = l->sides ?: LEASE_INGRESS;
    if (!(sides & (direction == INGRESS ? LEASE_INGRESS : LEASE_EGRESS)))
        return false;
    time = l->time; /* before the clock is read: a later one is a lie */
    return time && bpf_ktime_get_ns() - time < LEASE_NS;
}

/* What is to be judged at L7 passes an end whose own proxy does that; false where none does. Only
 * TCP is intercepted. */
static __always_inline bool ask_sidecar(struct judgement *j, __u16 endpoint_id, __u8 direction,
                                        const struct packet *p)
{
    struct enforcer_key key = {
        .endpoint_id = endpoint_id, .direction = direction, .port = p->tuple.dport};
    __u8 *enforcer = bpf_map_lookup_elem(&enforcers, &key);

    if (!enforcer) {
        key.port = 0;
        enforcer = bpf_map_lookup_elem(&enforcers, &key);
    }
    if (!enforcer || *enforcer == ENFORCER_NODE || p->tuple.protocol != IPPROTO_TCP)
        return false;
    j->action = ACTION_ALLOW;
    j->sidecar = 1;
    if (*enforcer != ENFORCER_SIDECAR || !holds_lease(endpoint_id, direction)) {
        j->action = ACTION_DENY;
        j->reason = DROP_SIDECAR_LEASE;
    }
    return true;
}

/* The last packets of a connection have no socket any more; its first one had. */
static __always_inline bool is_of_proxy(struct __sk_buff *skb, const struct packet *p,
                                        __u16 endpoint_id, const struct conn *known)
{
    __u32 id = endpoint_id;
    __u64 *proxy = bpf_map_lookup_elem(&proxy_cgroups, &id);
    __u64 sender = bpf_skb_cgroup_id(skb);

    if (!sender)
        return known && !is_first_syn(p);
    return proxy && *proxy == sender;
}

/* Who accepts a connection to the pod is known by whose socket answers its first packet, whatever
 * the pod's packet rules are, of whichever family, and whoever listens where the proxy did. */
static __always_inline void note_acceptance(struct __sk_buff *skb, const struct packet *p,
                                            __u16 endpoint_id, struct conn *c)
{
    __u8 both = TCP_SYN | TCP_ACK;
    __u32 id = endpoint_id;
    __u64 *proxy;

    if (p->tuple.protocol != IPPROTO_TCP || (p->tcp_flags & both) != both)
        return;
    proxy = bpf_map_lookup_elem(&proxy_cgroups, &id);
    if (proxy && *proxy == bpf_skb_cgroup_id(skb))
        c->flags |= CT_SIDECAR;
    else
        c->flags &= ~CT_SIDECAR;
}

/* What begins a connection is let in, to see who answers: nothing of it reaches an application. */
static __always_inline bool passes_sidecar(const struct packet *p, const struct judgement *j,
                                           const struct conn *known)
{
    return !j->sidecar || is_first_syn(p) || (known && known->flags & CT_SIDECAR);
}
