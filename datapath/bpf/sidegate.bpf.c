// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * The programs at the TCX hooks of a node.
 *
 *   from_endpoint  host side of a pod's veth, ingress: what the pod sends
 *   to_endpoint    the same veth, egress: what the pod receives
 *   from_netdev    uplink, ingress: peers beyond a router
 *   to_netdev      uplink, egress
 *   from_hairpin   ingress of the hairpin device: what to_endpoint had to turn round, and what
 *                  would else meet a bridge on its way to Envoy
 *
 * A connection is redirected once, at the first ingress hook it meets, where both ends are judged.
 */
#include <stdbool.h>
#include <stddef.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#ifndef BPF_F_CURRENT_NETNS
#define BPF_F_CURRENT_NETNS (-1L)
#endif
#define TCX_NEXT -1
#define TCX_PASS 0
#define TCX_DROP 2

#include "consts.h"
#include "structs.h"
#include "maps.h"
#include "packet.h"
#include "events.h"
#include "conntrack.h"
#include "sidecar.h"
#include "policy.h"
#include "redirect.h"
#include "mesh.h"
#include "mesh_packet.h"
#include "nat.h"
#include "itself.h"

char _license[] SEC("license") = "GPL";

/* A connection that may begin, or go on, without Envoy. */
static __always_inline int forward(struct packet *p, struct report *r, const struct judgement *j,
                                   struct conn *known, __u32 peer)
{
    bool begins = is_first_syn(p) || (!known && p->tuple.protocol != IPPROTO_TCP);

    r->verdict = j->audited ? VERDICT_AUDIT : VERDICT_FORWARDED;
    count(p, r);
    /* Only what begins a connection makes an entry: a reply must never make one the wrong way
     * round. A live connection whose entry was evicted under pressure stays cut on its way back. */
    if (begins) {
        /* A first packet may come again after it was answered. */
        if (remember(p, r->direction, known ? known->flags & CT_SIDECAR : 0, peer) < 0)
            return drop(p, r, DROP_CONNTRACK_FULL);
        report(p, r);
    }
    return TCX_NEXT;
}

/* `hook` is the direction of the hook, `r` names the end whose policy decided; `flags` are for the
 * connection, besides CT_PROXIED. */
static __always_inline int redirect(struct __sk_buff *skb, struct packet *p, struct report *r,
                                    __u16 port, __u8 hook, __u32 peer, __u32 flags)
{
    if (p->tuple.protocol != IPPROTO_TCP)
        return drop(p, r, DROP_NOT_TCP);
    if (to_proxy(skb, p, port) < 0)
        return drop(p, r, DROP_PROXY_DOWN);
    r->verdict = VERDICT_REDIRECTED;
    count(p, r);
    if (is_first_syn(p)) {
        if (remember(p, hook, CT_PROXIED | flags, peer) < 0)
            return drop(p, r, DROP_CONNTRACK_FULL);
        report(p, r);
    }
    return TCX_PASS;
}

/* A proxy that proves itself again goes on where it was, so what it has is not forgotten. */
static __always_inline int deny(struct packet *p, struct report *r, const struct judgement *j)
{
    if (j->reason == DROP_SIDECAR_LEASE)
        return drop(p, r, j->reason);
    forget(p);
    return drop(p, r, j->reason ? j->reason : DROP_POLICY_DENIED);
}

static __always_inline struct config *find_config(void)
{
    __u32 zero = 0;

    return bpf_map_lookup_elem(&config, &zero);
}

static __always_inline int to_hairpin(struct packet *p, struct report *r)
{
    struct config *cfg = find_config();

    if (!cfg || !cfg->hairpin_ifindex)
        return drop(p, r, DROP_HAIRPIN);
    return bpf_redirect(cfg->hairpin_ifindex, BPF_F_INGRESS);
}

/* Neighbour discovery with the node, or between ports of a bridge: no policy may cut the link. */
static __always_inline bool is_neighbours(struct __sk_buff *skb, const struct packet *p,
                                          const struct endpoint *ep,
                                          const struct ipcache_value *peer)
{
    if (peer->identity != IDENTITY_HOST && !(ep->flags & ENDPOINT_BRIDGED && peer->endpoint_id))
        return false;
    return is_neighbour_unicast(skb, p);
}

/* A Service's address is no pod's: it is the world's, or of a block that policy names. */
static __always_inline struct mesh_view *view_of(const struct packet *p, const struct endpoint *ep,
                                                 __u32 identity)
{
    struct l4_addr at = {
        .addr = p->tuple.daddr, .port = p->tuple.dport, .protocol = p->tuple.protocol};

    if (identity >= IDENTITY_OF_LABELS && identity < IDENTITY_OF_BLOCKS)
        return NULL;
    return find_view(&at, ep->id);
}

/* A connection whose reason to be Envoy's went lives on where it began. But of a Service that has
 * no routes any more only what is under way comes to its end: what the pod sends is answered with a
 * reset, so that it dials anew. */
static __always_inline bool lives_on(struct __sk_buff *skb, struct packet *p, const struct conn *c)
{
    struct config *cfg = find_config();
    struct bpf_sock *sk;

    if (!c || is_first_syn(p))
        return false;
    if (!(c->flags & CT_MESH) || !(p->tcp_flags & TCP_PSH))
        return to_proxy_socket(skb, p) == 0;
    sk = cfg ? proxy_listener(skb, p, cfg->proxy_port) : NULL;
    return sk && assign(skb, sk) == 0;
}

/* TCX_PASS: it has Envoy's socket. */
static __always_inline int judge_sent(struct __sk_buff *skb, const struct endpoint *ep,
                                      struct packet *p, struct report *r)
{
    struct ipcache_value dst = {};
    struct judgement out, in = {.action = ACTION_ALLOW};
    struct mesh_view *view;
    struct conn *c;

    c = find_reply(p, INGRESS);
    if (c && !is_first_syn(p)) {
        note_acceptance(skb, p, ep->id, c);
        if (!(c->flags & CT_PROXY_UPSTREAM))
            return TCX_NEXT;
        return to_proxy_socket(skb, p) < 0 ? drop(p, r, DROP_PROXY_DOWN) : TCX_PASS;
    }

    if (!resolve(&p->tuple.daddr, &dst))
        return drop(p, r, DROP_NO_IPCACHE);
    r->destination_identity = dst.identity;
    if (is_neighbours(skb, p, ep, &dst))
        return speaks_for_itself(skb, ep) ? TCX_NEXT : drop(p, r, DROP_INVALID_SOURCE);
    view = view_of(p, ep, dst.identity);
    if (view) /* who the backend is, and so what policy says, is known in Envoy */
        return redirect(skb, p, r, view->proxy_port, EGRESS, dst.identity, CT_MESH);
    out = judge(ep->id, EGRESS, dst.identity, p);
    if (out.action == ACTION_DENY) {
        c = find_forward(p, EGRESS);
        if (c && (c->flags & CT_MESH) && lives_on(skb, p, c))
            return TCX_PASS;
        return deny(p, r, &out);
    }
    if (out.sidecar && !is_of_proxy(skb, p, ep->id, find_forward(p, EGRESS)))
        return drop(p, r, DROP_NOT_SIDECAR);
    if (dst.endpoint_id)
        in = judge(dst.endpoint_id, INGRESS, ep->identity, p);
    if (in.action == ACTION_DENY) {
        r->direction = INGRESS;
        r->endpoint_id = dst.endpoint_id;
        return deny(p, r, &in);
    }
    if (out.action == ACTION_REDIRECT || in.action == ACTION_REDIRECT) {
        __u16 port = out.action == ACTION_REDIRECT ? out.proxy_port : in.proxy_port;

        if (in.action == ACTION_REDIRECT && in.proxy_port != port)
            return drop(p, r, DROP_PROXY_MISMATCH);
        if (out.action != ACTION_REDIRECT) {
            r->direction = INGRESS; /* it is the destination's policy that asks for it */
            r->endpoint_id = dst.endpoint_id;
        }
        return redirect(skb, p, r, port, EGRESS, dst.identity, 0);
    }
    c = find_forward(p, EGRESS);
    if (c && (c->flags & CT_PROXIED) && lives_on(skb, p, c))
        return TCX_PASS;
    return forward(p, r, &out, c, dst.identity);
}

SEC("tc")
int from_endpoint(struct __sk_buff *skb)
{
    struct packet p = {};
    struct report r = {.direction = EGRESS};
    struct endpoint *ep;
    __u32 ifindex = skb->ifindex;
    int verdict, parsed = parse_packet(skb, &p);

    ep = bpf_map_lookup_elem(&endpoints, &ifindex);
    if (!ep)
        return parsed == PASS_UNJUDGED ? TCX_NEXT : drop(&p, &r, DROP_UNKNOWN_ENDPOINT);
    r.endpoint_id = ep->id;
    r.source_identity = ep->identity;
    if (parsed == PASS_UNJUDGED)
        return speaks_for_itself(skb, ep) ? TCX_NEXT : drop(&p, &r, DROP_INVALID_SOURCE);
    if (parsed == PARSE_DROP)
        return drop(&p, &r, p.reason);
    if (!is_own_source(&p, ep))
        return drop(&p, &r, DROP_INVALID_SOURCE);
    if (p.icmp_error)
        return concerns_conn(&p) ? TCX_NEXT : drop(&p, &r, DROP_POLICY_DENIED);
    if (is_to_nobody(&p) && (to_itself(skb, &p) < 0 || !find_reply(&p, INGRESS)))
        return drop(&p, &r, DROP_INVALID_DESTINATION);
    verdict = judge_sent(skb, ep, &p, &r);
    /* A bridge switches a frame to whomever it is for, and its netfilter hooks lose the socket of
     * one that is its own. */
    if (verdict == TCX_PASS && ep->flags & ENDPOINT_BRIDGED)
        return to_hairpin(&p, &r);
    return verdict;
}

/* The kubelet's probes pass whatever the policy. It is known by its cgroup: a node's address is
 * that of pods on the node's network too, and a mark can be set by any of them. Istio's ambient
 * mode gives its probes an address that is no node's, so what counts beside is that this host sends
 * it. */
static __always_inline bool is_of_kubelet(struct __sk_buff *skb, const struct packet *p,
                                          __u32 identity, struct conn *known)
{
    struct config *cfg;

    if (identity != IDENTITY_HOST && skb->ingress_ifindex)
        return false;
    cfg = find_config();
    if (!cfg || !cfg->kubelet_cgroup)
        return false;
    if (is_first_syn(p) || !known)
        return bpf_skb_cgroup_id(skb) == cfg->kubelet_cgroup;
    return known->flags & CT_KUBELET; /* the last packets of a socket may have no cgroup any more */
}

SEC("tc")
int to_endpoint(struct __sk_buff *skb)
{
    struct packet p = {};
    struct report r = {.direction = INGRESS};
    struct ipcache_value src = {};
    struct judgement in;
    struct endpoint *ep;
    struct conn *c;
    __u32 ifindex = skb->ifindex;
    bool turn;
    int parsed = parse_packet(skb, &p);

    if (parsed == PASS_UNJUDGED)
        return TCX_NEXT;
    ep = bpf_map_lookup_elem(&endpoints, &ifindex);
    if (!ep)
        return drop(&p, &r, DROP_UNKNOWN_ENDPOINT);
    r.endpoint_id = ep->id;
    r.destination_identity = ep->identity;
    if (parsed == PARSE_DROP)
        return drop(&p, &r, p.reason);
    if (!is_own_destination(&p, ep)) /* a bridge floods what it does not know: no event for it */
        return count_drop(&p, &r, DROP_INVALID_DESTINATION);
    if (p.icmp_error)
        return concerns_conn(&p) ? TCX_NEXT : drop(&p, &r, DROP_POLICY_DENIED);

    if (is_proxy_mark(skb->mark)) { /* judged when it came to Envoy, and by Envoy */
        if (is_first_syn(&p) && remember(&p, INGRESS, CT_PROXY_UPSTREAM, 0) < 0)
            return drop(&p, &r, DROP_CONNTRACK_FULL);
        if (is_own_source(&p, ep) && from_nobody(skb, &p) < 0)
            return drop(&p, &r, DROP_FRAGMENT);
        return TCX_NEXT;
    }
    if (!is_first_syn(&p) && find_reply(&p, EGRESS))
        return TCX_NEXT;

    if (!resolve(&p.tuple.saddr, &src))
        return drop(&p, &r, DROP_NO_IPCACHE);
    r.source_identity = src.identity;
    if (is_neighbours(skb, &p, ep, &src))
        return TCX_NEXT;
    in = judge(ep->id, INGRESS, src.identity, &p);
    c = find_forward(&p, INGRESS);
    if (is_of_kubelet(skb, &p, src.identity, c)) {
        if (is_first_syn(&p) && remember(&p, INGRESS, CT_KUBELET, src.identity) < 0)
            return drop(&p, &r, DROP_CONNTRACK_FULL);
        r.verdict = VERDICT_FORWARDED;
        count(&p, &r);
        return TCX_NEXT;
    }
    /* A process of the host answers Envoy, which speaks with the pod's address. */
    turn = !c && src.identity == IDENTITY_HOST && is_for_upstream(skb, &p);
    if (!turn && in.action == ACTION_DENY)
        return deny(&p, &r, &in);
    if (!passes_sidecar(&p, &in, c))
        return drop(&p, &r, DROP_NOT_SIDECAR);
    if (turn || in.action == ACTION_REDIRECT) {
        skb->mark &= ~MARK_MASK; /* its sender's; ours would say that it was judged */
        return to_hairpin(&p, &r);
    }
    return forward(&p, &r, &in, c, src.identity);
}

/* What comes to endpoints through a device at whose ingress it can be assigned. */
static __always_inline int from_device(struct __sk_buff *skb, bool hairpin)
{
    struct packet p = {};
    struct report r = {.direction = INGRESS};
    struct ipcache_value src = {}, dst = {};
    struct judgement in;
    struct conn *c;

    if (parse_packet(skb, &p) != PARSED || p.icmp_error)
        return TCX_NEXT; /* for a pod, to_endpoint judges it */
    if (!resolve(&p.tuple.daddr, &dst) || !resolve(&p.tuple.saddr, &src))
        return drop(&p, &r, DROP_NO_IPCACHE);
    r.source_identity = src.identity;
    r.destination_identity = dst.identity;
    r.endpoint_id = dst.endpoint_id;
    if (!hairpin && (src.endpoint_id || src.identity == IDENTITY_HOST))
        return drop(&p, &r, DROP_INVALID_SOURCE); /* our own addresses do not come from outside */
    if (!dst.endpoint_id)
        return TCX_NEXT;
    c = is_first_syn(&p) ? NULL : find_reply(&p, EGRESS);
    if (c && !(c->flags & CT_PROXY_UPSTREAM))
        return TCX_NEXT;
    if (c || (hairpin && is_for_upstream(skb, &p)))
        return to_proxy_socket(skb, &p) < 0 ? drop(&p, &r, DROP_PROXY_DOWN) : TCX_PASS;
    in = judge(dst.endpoint_id, INGRESS, src.identity, &p);
    if (in.action == ACTION_REDIRECT)
        return redirect(skb, &p, &r, in.proxy_port, INGRESS, src.identity, 0);
    c = is_first_syn(&p) ? NULL : find_forward(&p, INGRESS);
    if (!c || !(c->flags & CT_PROXIED))
        return TCX_NEXT;
    /* The kernel would find Envoy's socket by itself (tcp_early_demux). */
    if (in.action == ACTION_DENY)
        return drop(&p, &r, in.reason ? in.reason : DROP_POLICY_DENIED);
    return to_proxy_socket(skb, &p) == 0 ? TCX_PASS : TCX_NEXT;
}

SEC("tc")
int from_netdev(struct __sk_buff *skb)
{
    return from_device(skb, false);
}

SEC("tc")
int from_hairpin(struct __sk_buff *skb)
{
    struct packet p = {};
    struct report r = {.direction = EGRESS};

    bpf_skb_change_type(skb, PACKET_IS_HOST); /* it carries the pod's MAC address */
    if (!is_for_proxy(skb))
        return from_device(skb, true);
    /* from_endpoint judged it. */
    if (parse_packet(skb, &p) != PARSED || to_proxy(skb, &p, skb->tc_index) < 0)
        return drop(&p, &r, DROP_PROXY_DOWN);
    return TCX_PASS;
}

/* Envoy's connections with a pod's address to peers beyond a router: their replies must find it. */
SEC("tc")
int to_netdev(struct __sk_buff *skb)
{
    struct packet p = {};

    if (is_proxy_mark(skb->mark) && parse_packet(skb, &p) == PARSED && is_first_syn(&p) &&
        remember(&p, EGRESS, CT_PROXY_UPSTREAM, 0) < 0)
        return TCX_DROP;
    return TCX_NEXT;
}
