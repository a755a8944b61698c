/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Handing packets to Envoy's sockets. Works at ingress hooks only: egress goes by the hairpin. */
#pragma once

#define BPF_TCP_LISTEN_STATE 10
#define BPF_TCP_TIME_WAIT_STATE 6
#define BPF_TCP_NEW_SYN_RECV_STATE 12
#define PACKET_IS_HOST 0

static __always_inline __u32 tuple_of(const struct packet *p, struct bpf_sock_tuple *t)
{
    if (p->family == 4) {
        t->ipv4.saddr = p->tuple.saddr.w[3];
        t->ipv4.daddr = p->tuple.daddr.w[3];
        t->ipv4.sport = p->tuple.sport;
        t->ipv4.dport = p->tuple.dport;
        return sizeof(t->ipv4);
    }
    __builtin_memcpy(t->ipv6.saddr, &p->tuple.saddr, 16);
    __builtin_memcpy(t->ipv6.daddr, &p->tuple.daddr, 16);
    t->ipv6.sport = p->tuple.sport;
    t->ipv6.dport = p->tuple.dport;
    return sizeof(t->ipv6);
}

static __always_inline bool is_proxy_mark(__u32 mark)
{
    return (mark & MARK_MASK) == MARK_FROM_PROXY;
}

/* A socket of Envoy's with exactly this packet's tuple, to be released; NULL otherwise.
 * The lookup also finds other processes' sockets, wildcard listeners and TIME_WAIT. */
static __always_inline struct bpf_sock *proxy_socket(struct __sk_buff *skb, const struct packet *p)
{
    struct bpf_sock_tuple t = {};
    __u32 size = tuple_of(p, &t);
    struct bpf_sock *sk, *full;

    if (size == sizeof(t.ipv4))
        sk = bpf_skc_lookup_tcp(skb, &t, sizeof(t.ipv4), BPF_F_CURRENT_NETNS, 0);
    else
        sk = bpf_skc_lookup_tcp(skb, &t, sizeof(t.ipv6), BPF_F_CURRENT_NETNS, 0);
    if (!sk)
        return NULL;
    if (sk->state == BPF_TCP_NEW_SYN_RECV_STATE)
        return sk; /* a request socket has no mark that we could read */
    if (sk->state != BPF_TCP_LISTEN_STATE && sk->state != BPF_TCP_TIME_WAIT_STATE) {
        full = bpf_sk_fullsock(sk);
        if (full && is_proxy_mark(full->mark))
            return sk;
    }
    bpf_sk_release(sk);
    return NULL;
}

/* Whether a packet answers a connection that Envoy opened itself. */
static __always_inline bool is_for_upstream(struct __sk_buff *skb, const struct packet *p)
{
    struct bpf_sock *sk, *full;
    bool upstream;

    if (p->tuple.protocol != IPPROTO_TCP || is_first_syn(p))
        return false;
    sk = proxy_socket(skb, p);
    if (!sk)
        return false;
    full = sk->state == BPF_TCP_NEW_SYN_RECV_STATE ? NULL : bpf_sk_fullsock(sk);
    upstream = full && (full->mark & MARK_UPSTREAM);
    bpf_sk_release(sk);
    return upstream;
}

static __always_inline struct bpf_sock *proxy_listener(struct __sk_buff *skb,
                                                       const struct packet *p, __u16 port)
{
    struct bpf_sock_tuple t = {};
    __u32 size = tuple_of(p, &t);
    struct bpf_sock *sk, *full;

    if (size == sizeof(t.ipv4)) {
        t.ipv4.daddr = bpf_htonl(0x7f000001);
        t.ipv4.dport = bpf_htons(port);
        sk = bpf_skc_lookup_tcp(skb, &t, sizeof(t.ipv4), BPF_F_CURRENT_NETNS, 0);
    } else {
        t.ipv6.daddr[0] = t.ipv6.daddr[1] = t.ipv6.daddr[2] = 0;
        t.ipv6.daddr[3] = bpf_htonl(1);
        t.ipv6.dport = bpf_htons(port);
        sk = bpf_skc_lookup_tcp(skb, &t, sizeof(t.ipv6), BPF_F_CURRENT_NETNS, 0);
    }
    if (!sk)
        return NULL;
    if (sk->state == BPF_TCP_LISTEN_STATE) {
        full = bpf_sk_fullsock(sk);
        if (full && is_proxy_mark(full->mark))
            return sk;
    }
    bpf_sk_release(sk);
    return NULL;
}

static __always_inline int assign(struct __sk_buff *skb, struct bpf_sock *sk)
{
    int err = bpf_sk_assign(skb, sk, 0);

    bpf_sk_release(sk);
    if (err)
        return err;
    skb->mark = (skb->mark & ~MARK_MASK) | MARK_TO_PROXY;
    return 0;
}

/* To the connection's own socket, or to the listener: which answers a packet that begins no
 * connection with a reset, so that a connection older than its policy ends. */
static __always_inline int to_proxy(struct __sk_buff *skb, const struct packet *p, __u16 port)
{
    struct bpf_sock *sk = proxy_socket(skb, p);

    if (!sk)
        sk = proxy_listener(skb, p, port);
    if (!sk)
        return -1;
    skb->tc_index = port; /* for from_hairpin, should it come there */
    return assign(skb, sk);
}

static __always_inline bool is_for_proxy(const struct __sk_buff *skb)
{
    return (skb->mark & MARK_MASK) == MARK_TO_PROXY;
}

/* Only to a socket that exists. */
static __always_inline int to_proxy_socket(struct __sk_buff *skb, const struct packet *p)
{
    struct bpf_sock *sk = proxy_socket(skb, p);

    return sk ? assign(skb, sk) : -1;
}
