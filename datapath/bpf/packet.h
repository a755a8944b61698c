/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* From an skb to a tuple: both families, extension headers, fragments, ICMP errors. */
#pragma once

enum parsed {
    PARSED = 0,
    PASS_UNJUDGED = 1, /* ARP, neighbour discovery */
    PARSE_DROP = 2,    /* packet->reason says why */
};

struct packet {
    struct tuple tuple;
    struct addr source; /* of the outer header, as destination */
    struct addr destination;
    __u32 length;
    __u8 family;
    __u8 tcp_flags;
    __u8 reason;
    __u8 icmp_error; /* tuple is that of the packet which the error is about */
};

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_PSH 0x08
#define TCP_ACK 0x10

static __always_inline void v4_mapped(struct addr *to, __be32 v4)
{
    to->d[0] = 0;
    to->w[2] = bpf_htonl(0xffff);
    to->w[3] = v4;
}

static __always_inline void swap_ends(struct tuple *t)
{
    struct addr a = t->saddr;
    __be16 port = t->sport;

    t->saddr = t->daddr;
    t->daddr = a;
    t->sport = t->dport;
    t->dport = port;
}

static __always_inline int parse_ports(struct __sk_buff *skb, __u32 off, struct packet *p)
{
    __be16 ports[2];

    if (bpf_skb_load_bytes(skb, off, ports, sizeof(ports)) < 0)
        return -1;
    p->tuple.sport = ports[0];
    p->tuple.dport = ports[1];
    return 0;
}

/* The header inside an ICMP error is that of our own earlier packet: judge by its tuple. */
static __always_inline int parse_icmp_error(struct __sk_buff *skb, __u32 off, struct packet *p)
{
    if (p->family == 4) {
        struct iphdr ip;

        if (bpf_skb_load_bytes(skb, off, &ip, sizeof(ip)) < 0)
            return -1;
        v4_mapped(&p->tuple.saddr, ip.saddr);
        v4_mapped(&p->tuple.daddr, ip.daddr);
        p->tuple.protocol = ip.protocol;
        off += ip.ihl * 4;
    } else {
        struct ipv6hdr ip;

        if (bpf_skb_load_bytes(skb, off, &ip, sizeof(ip)) < 0)
            return -1;
        __builtin_memcpy(&p->tuple.saddr, &ip.saddr, 16);
        __builtin_memcpy(&p->tuple.daddr, &ip.daddr, 16);
        p->tuple.protocol = ip.nexthdr;
        off += sizeof(ip);
    }
    p->icmp_error = 1;
    if (p->tuple.protocol == IPPROTO_TCP || p->tuple.protocol == IPPROTO_UDP)
        return parse_ports(skb, off, p);
    return 0;
}

static __always_inline int parse_icmp(struct __sk_buff *skb, __u32 off, struct packet *p)
{
    __u8 header[8];
    __be16 id;

    if (bpf_skb_load_bytes(skb, off, header, sizeof(header)) < 0)
        return -1;
    if (p->family == 4 ? header[0] == 3 || header[0] == 11 || header[0] == 12 : header[0] < 128)
        return parse_icmp_error(skb, off + 8, p);
    /* An echo is tracked by its identifier, the same in both directions. */
    __builtin_memcpy(&id, &header[4], 2);
    p->tuple.sport = id;
    p->tuple.dport = id;
    return 0;
}

static __always_inline int parse_l4(struct __sk_buff *skb, __u32 off, struct packet *p)
{
    switch (p->tuple.protocol) {
    case IPPROTO_TCP:
        if (bpf_skb_load_bytes(skb, off + 13, &p->tcp_flags, 1) < 0)
            return -1;
        return parse_ports(skb, off, p);
    case IPPROTO_UDP:
    case IPPROTO_SCTP:
        return parse_ports(skb, off, p);
    case IPPROTO_ICMP:
    case IPPROTO_ICMPV6:
        return parse_icmp(skb, off, p);
    default:
        return 0;
    }
}

/* Ports of a later fragment are those of the first one. */
static __always_inline int parse_fragment(struct __sk_buff *skb, __u32 off, struct packet *p,
                                          __u32 id, bool first)
{
    struct fragment_key key = {.id = id, .protocol = p->tuple.protocol};
    struct fragment_value value = {}, *known;

    key.saddr = p->tuple.saddr;
    key.daddr = p->tuple.daddr;
    if (!first) {
        known = bpf_map_lookup_elem(&fragments, &key);
        if (!known) {
            p->reason = DROP_FRAGMENT;
            return -1;
        }
        p->tuple.sport = known->sport;
        p->tuple.dport = known->dport;
        return 0;
    }
    if (parse_l4(skb, off, p) < 0)
        return -1;
    value.sport = p->tuple.sport;
    value.dport = p->tuple.dport;
    bpf_map_update_elem(&fragments, &key, &value, BPF_ANY);
    return 0;
}

static __always_inline int parse_ipv4(struct __sk_buff *skb, struct packet *p)
{
    struct iphdr ip;
    __u32 off;
    __u16 frag;

    if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)) < 0 || ip.ihl < 5)
        return -1;
    p->family = 4;
    p->tuple.protocol = ip.protocol;
    v4_mapped(&p->tuple.saddr, ip.saddr);
    v4_mapped(&p->tuple.daddr, ip.daddr);
    p->source = p->tuple.saddr;
    p->destination = p->tuple.daddr;
    off = ETH_HLEN + ip.ihl * 4;
    frag = bpf_ntohs(ip.frag_off);
    if (frag & 0x3fff) /* more fragments, or an offset */
        return parse_fragment(skb, off, p, ip.id, !(frag & 0x1fff));
    return parse_l4(skb, off, p);
}

static __always_inline bool is_extension(__u8 next)
{
    return next == IPPROTO_HOPOPTS || next == IPPROTO_ROUTING || next == IPPROTO_DSTOPTS ||
           next == IPPROTO_FRAGMENT;
}

static __always_inline int parse_ipv6(struct __sk_buff *skb, struct packet *p)
{
    struct ipv6hdr ip;
    __u32 off = ETH_HLEN + sizeof(ip);
    __u8 next;

    if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)) < 0)
        return -1;
    p->family = 6;
    __builtin_memcpy(&p->tuple.saddr, &ip.saddr, 16);
    __builtin_memcpy(&p->tuple.daddr, &ip.daddr, 16);
    p->source = p->tuple.saddr;
    p->destination = p->tuple.daddr;
    next = ip.nexthdr;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        __u8 ext[8];

        if (!is_extension(next))
            break;
        if (bpf_skb_load_bytes(skb, off, ext, sizeof(ext)) < 0)
            return -1;
        if (next == IPPROTO_FRAGMENT) {
            __u16 frag = ((__u16)ext[2] << 8) | ext[3];
            __u32 id;

            __builtin_memcpy(&id, &ext[4], 4);
            if (is_extension(ext[0]))
                return -1;
            p->tuple.protocol = ext[0];
            return parse_fragment(skb, off + 8, p, id, !(frag & 0xfff8));
        }
        next = ext[0];
        off += (ext[1] + 1) * 8;
    }
    if (is_extension(next))
        return -1; /* more of them than anybody sends */
    p->tuple.protocol = next;
    return parse_l4(skb, off, p);
}

/* Router and neighbour solicitation and advertisement, and multicast listener reports: how
 * addresses are found at all. None of it is ever routed. */
static __always_inline bool is_neighbour_discovery(struct __sk_buff *skb)
{
    __u32 off = ETH_HLEN + sizeof(struct ipv6hdr);
    struct ipv6hdr ip;
    __u8 type, ext[8];

    if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)) < 0)
        return false;
    if (!(ip.daddr.s6_addr[0] == 0xff && ip.daddr.s6_addr[1] == 2) &&
        !(ip.daddr.s6_addr[0] == 0xfe && (ip.daddr.s6_addr[1] & 0xc0) == 0x80))
        return false;
    if (ip.nexthdr == IPPROTO_HOPOPTS) { /* a router alert, then the report (RFC 2710) */
        if (bpf_skb_load_bytes(skb, off, ext, sizeof(ext)) < 0)
            return false;
        off += 8;
        if (ext[0] != IPPROTO_ICMPV6 || ext[1] != 0)
            return false;
        if (bpf_skb_load_bytes(skb, off, &type, 1) < 0)
            return false;
        return (type >= 130 && type <= 132) || type == 143;
    }
    if (ip.nexthdr != IPPROTO_ICMPV6 || ip.hop_limit != 255)
        return false;
    if (bpf_skb_load_bytes(skb, off, &type, 1) < 0)
        return false;
    return type == 133 || type == 135 || type == 136;
}

/* The same to one neighbour's own address: between ports of a bridge, where it goes no further. */
static __always_inline bool is_neighbour_unicast(struct __sk_buff *skb, const struct packet *p)
{
    struct ipv6hdr ip;
    __u8 type;

    if (p->family != 6 || p->tuple.protocol != IPPROTO_ICMPV6)
        return false;
    if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)) < 0 || ip.hop_limit != 255 ||
        ip.nexthdr != IPPROTO_ICMPV6)
        return false;
    if (bpf_skb_load_bytes(skb, ETH_HLEN + sizeof(ip), &type, 1) < 0)
        return false;
    return type == 135 || type == 136;
}

static __always_inline int parse_packet(struct __sk_buff *skb, struct packet *p)
{
    int err;

    p->length = skb->len;
    p->reason = DROP_MALFORMED;
    if (skb->vlan_present) { /* a tag is no way around */
        p->reason = DROP_NOT_IP;
        return PARSE_DROP;
    }
    switch (skb->protocol) {
    case bpf_htons(ETH_P_IP):
        err = parse_ipv4(skb, p);
        break;
    case bpf_htons(ETH_P_IPV6):
        if (is_neighbour_discovery(skb))
            return PASS_UNJUDGED;
        err = parse_ipv6(skb, p);
        break;
    case bpf_htons(ETH_P_ARP):
        return PASS_UNJUDGED;
    default:
        p->reason = DROP_NOT_IP;
        return PARSE_DROP;
    }
    if (err < 0)
        return PARSE_DROP;
    p->reason = DROP_NONE;
    return PARSED;
}

static __always_inline bool is_address_of(const struct endpoint *ep, __u8 family,
                                          const struct addr *address)
{
    if (family == 4)
        return ep->ipv4 && address->w[3] == ep->ipv4;
    return (ep->ipv6.d[0] || ep->ipv6.d[1]) && address->d[0] == ep->ipv6.d[0] &&
           address->d[1] == ep->ipv6.d[1];
}

static __always_inline bool is_own_source(const struct packet *p, const struct endpoint *ep)
{
    return is_address_of(ep, p->family, &p->source);
}

static __always_inline bool is_own_destination(const struct packet *p, const struct endpoint *ep)
{
    return is_address_of(ep, p->family, &p->destination);
}

/* Whether ARP or neighbour discovery claims no address of another's: on a bridge every pod hears
 * it. Probes have no sender yet (RFC 5227, RFC 4862), and a link-local address is nobody's to
 * policy. */
static __always_inline bool speaks_for_itself(struct __sk_buff *skb, const struct endpoint *ep)
{
    __u32 icmp = ETH_HLEN + sizeof(struct ipv6hdr);
    struct ipv6hdr ip;
    struct addr claimed;
    __be32 sender;
    __u8 type;

    if (skb->protocol == bpf_htons(ETH_P_ARP)) {
        if (bpf_skb_load_bytes(skb, ETH_HLEN + 14, &sender, sizeof(sender)) < 0)
            return false;
        return !sender || sender == ep->ipv4;
    }
    if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)) < 0)
        return false;
    __builtin_memcpy(&claimed, &ip.saddr, 16);
    if (ip.nexthdr == IPPROTO_ICMPV6) {
        if (bpf_skb_load_bytes(skb, icmp, &type, 1) < 0)
            return false;
        if (type == 136 && bpf_skb_load_bytes(skb, icmp + 8, &claimed, sizeof(claimed)) < 0)
            return false;
    }
    if (!(claimed.d[0] | claimed.d[1]))
        return true;
    if (claimed.b[0] == 0xfe && (claimed.b[1] & 0xc0) == 0x80)
        return true;
    return is_address_of(ep, 6, &claimed);
}
