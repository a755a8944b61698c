// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * Services by packet, at the veth of a pod whose sockets are left alone:
 *
 *   service_from_endpoint  before from_endpoint, which judges by the backend then
 *   service_to_endpoint    after to_endpoint
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

#define TCX_NEXT -1
#define TCX_DROP 2

#include "consts.h"
#include "structs.h"
#include "maps.h"
#include "packet.h"
#include "events.h"
#include "conntrack.h"
#include "nat.h"
#include "itself.h"
#include "services.h"
#include "mesh.h"
#include "mesh_packet.h"
#include "services_packet.h"
#include "services_icmp.h"

char _license[] SEC("license") = "GPL";

SEC("tc")
int service_from_endpoint(struct __sk_buff *skb)
{
    struct packet p = {};
    struct report r = {.direction = EGRESS};
    struct endpoint *ep;
    __u32 ifindex = skb->ifindex;
    __u8 reason;

    if (parse_packet(skb, &p) != PARSED || p.icmp_error)
        return TCX_NEXT;
    ep = bpf_map_lookup_elem(&endpoints, &ifindex);
    if (!ep || !is_own_source(&p, ep))
        return TCX_NEXT; /* from_endpoint drops it */
    if (is_to_nobody(&p))
        return answer_itself(skb, &p);
    reason = packet_to_backend(skb, &p, ep->id);
    if (!reason && is_to_itself(&p))
        return from_nobody(skb, &p) < 0 ? TCX_DROP : turn_round(skb);
    if (!reason)
        return TCX_NEXT;
    r.endpoint_id = ep->id;
    r.source_identity = ep->identity;
    return drop(&p, &r, reason);
}

SEC("tc")
int service_to_endpoint(struct __sk_buff *skb)
{
    struct packet p = {};
    struct report r = {.direction = INGRESS};
    __u8 reason;

    if (parse_packet(skb, &p) != PARSED)
        return TCX_NEXT;
    reason = p.icmp_error ? error_to_frontend(skb, &p) : packet_to_frontend(skb, &p);
    return reason ? drop(&p, &r, reason) : TCX_NEXT;
}
