/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * A pod that is its own backend: it takes no packet from its own address, so they come from one
 * that is nobody's, and what answers that goes back as from the pod to itself.
 */
#pragma once

#define NOBODY_IPV4 0xc0000008 /* 192.0.0.8, the dummy address (RFC 7600) */

/* 64:ff9b:1::192.0.0.8, of the prefix for translation within a network (RFC 8215). */
static __always_inline struct addr nobody_of(__u8 family)
{
    struct addr a = {};

    if (family == 4) {
        v4_mapped(&a, bpf_htonl(NOBODY_IPV4));
        return a;
    }
    a.w[0] = bpf_htonl(0x0064ff9b);
    a.w[1] = bpf_htonl(0x00010000);
    a.w[3] = bpf_htonl(NOBODY_IPV4);
    return a;
}

static __always_inline bool is_to_nobody(const struct packet *p)
{
    struct addr nobody = nobody_of(p->family);

    return !p->icmp_error && p->tuple.daddr.d[0] == nobody.d[0] &&
           p->tuple.daddr.d[1] == nobody.d[1];
}

static __always_inline int from_nobody(struct __sk_buff *skb, struct packet *p)
{
    struct l4_addr nobody = {.addr = nobody_of(p->family), .port = p->tuple.sport};

    return rewrite(skb, p, true, &nobody);
}

static __always_inline int to_itself(struct __sk_buff *skb, struct packet *p)
{
    struct l4_addr own = {.addr = p->tuple.saddr, .port = p->tuple.dport};

    if (rewrite(skb, p, false, &own) < 0)
        return -1;
    p->destination = p->tuple.daddr;
    return 0;
}
