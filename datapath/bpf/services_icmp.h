/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* ICMP errors about a flow that is translated by packet: the pod knows its packet by the frontend.
 * Without them it never learns of a smaller MTU or of a closed port. */
#pragma once

/* Offset of the ICMP header; 0 behind extension headers. */
static __always_inline __u32 icmp_of(struct __sk_buff *skb, const struct packet *p)
{
    __u8 byte;

    if (p->family == 4) {
        if (bpf_skb_load_bytes(skb, ETH_HLEN, &byte, 1) < 0)
            return 0;
        return ETH_HLEN + (byte & 0xf) * 4;
    }
    if (bpf_skb_load_bytes(skb, ETH_HLEN + offsetof(struct ipv6hdr, nexthdr), &byte, 1) < 0 ||
        byte != IPPROTO_ICMPV6)
        return 0;
    return ETH_HLEN + sizeof(struct ipv6hdr);
}

/* The destination inside. In IPv4 the checksum of the inner header makes up for the address, so
 * that of ICMP sees the port alone. */
static __always_inline int rewrite_inner(struct __sk_buff *skb, const struct packet *p,
                                         const struct l4_addr *to)
{
    struct addr before = p->tuple.daddr, after = to->addr;
    __u32 icmp = icmp_of(skb, p), sum = icmp + 2, inner = icmp + 8, l4;
    __u8 byte;

    if (!icmp || bpf_skb_load_bytes(skb, inner, &byte, 1) < 0)
        return -1;
    if (p->family == 4) {
        l4 = inner + (byte & 0xf) * 4;
        if (bpf_l3_csum_replace(skb, inner + offsetof(struct iphdr, check), before.w[3], after.w[3],
                                4) < 0 ||
            bpf_skb_store_bytes(skb, inner + offsetof(struct iphdr, daddr), &after.w[3], 4, 0) < 0)
            return -1;
    } else {
        l4 = inner + sizeof(struct ipv6hdr);
        if (bpf_l4_csum_replace(skb, sum, 0, bpf_csum_diff(before.w, 16, after.w, 16, 0), 0) < 0 ||
            bpf_skb_store_bytes(skb, inner + offsetof(struct ipv6hdr, daddr), &after, 16, 0) < 0)
            return -1;
    }
    if (bpf_l4_csum_replace(skb, sum, p->tuple.dport, to->port, 2) < 0)
        return -1;
    return bpf_skb_store_bytes(skb, l4 + 2, &to->port, 2, 0);
}

/* As packet_to_frontend, for an error whose inner packet p has. */
static __always_inline int error_to_frontend(struct __sk_buff *skb, const struct packet *p)
{
    struct tuple answer = p->tuple;
    struct l4_addr frontend;
    struct nat *known;

    swap_ends(&answer);
    answer.direction = INGRESS;
    known = bpf_map_lookup_elem(&service_nat, &answer);
    if (!known)
        return DROP_NONE;
    frontend = known->other;
    return rewrite_inner(skb, p, &frontend) < 0 ? DROP_MALFORMED : DROP_NONE;
}
