/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Exchanging one end of a packet, with its checksums. */
#pragma once

#ifndef BPF_F_IPV6
#define BPF_F_IPV6 (1ULL << 7) /* from 6.16 on, and in what was fixed since */
#endif

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
