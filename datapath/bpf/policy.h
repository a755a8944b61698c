/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* The verdict of one endpoint in one direction. policy_engine/trace.py is the same in Python. */
#pragma once

static __always_inline int look_at(struct policy_key *key, struct judgement *j)
{
    struct policy_value *v = bpf_map_lookup_elem(&policy, key);

    if (!v)
        return 0;
    j->matched = 1;
    if (v->action == ACTION_DENY)
        return -1;
    if (v->action == ACTION_AUTHENTICATE || j->action == ACTION_AUTHENTICATE) {
        j->action = ACTION_AUTHENTICATE;
    } else if (v->action == ACTION_ALLOW) {
        j->action = ACTION_ALLOW;
    } else if (j->action != ACTION_ALLOW) {
        if (!v->proxy_port || (j->action == ACTION_REDIRECT && j->proxy_port != v->proxy_port))
            j->conflict = 1;
        j->action = ACTION_REDIRECT;
        j->proxy_port = v->proxy_port;
    }
    return 0;
}

/* Keys of one peer: its port, the blocks of ports that it is in, any port of the protocol,
 * anything. `blocks` has the sizes of block that the direction has entries of, mostly none. */
static __always_inline int look_at_peer(struct policy_key *key, __u8 protocol, __be16 port,
                                        __u16 blocks, struct judgement *j)
{
    key->protocol = protocol;
    key->port = port;
    key->port_bits = 16;
    if (look_at(key, j) < 0)
        return -1;
    for (int bits = 15; blocks && bits > 0; bits--) {
        if (!(blocks & (1 << bits)))
            continue;
        key->port = port & bpf_htons(0xffff << (16 - bits));
        key->port_bits = bits;
        if (look_at(key, j) < 0)
            return -1;
    }
    key->port = 0;
    key->port_bits = 0;
    if (look_at(key, j) < 0)
        return -1;
    key->protocol = 0;
    return look_at(key, j);
}

/* Global, so that the verifier walks it once and not at every place that judges. `key` has
 * endpoint, direction and identity; the result is in `j`. */
__noinline int policy_lookup(struct policy_key *key, struct judgement *j, __u8 protocol,
                             __be16 port, __u16 blocks)
{
    __u32 identity;

    if (!key || !j)
        return -1;
    identity = key->identity;
    j->action = ACTION_DENY;
    if (look_at_peer(key, protocol, port, blocks, j) < 0)
        goto deny;
    key->identity = 0;
    if (identity && look_at_peer(key, protocol, port, blocks, j) < 0)
        goto deny;
    if (j->action == ACTION_REDIRECT && j->conflict)
        goto deny;
    return 0;
deny:
    j->action = ACTION_DENY;
    return 0;
}

/* An endpoint without flags has no policy yet: deny. */
static __always_inline struct judgement judge(__u16 endpoint_id, __u8 direction, __u32 peer,
                                              const struct packet *p)
{
    struct policy_key key = {.endpoint_id = endpoint_id, .direction = direction, .identity = peer};
    struct judgement j = {};
    __u32 id = endpoint_id;
    __u64 *flags = bpf_map_lookup_elem(&endpoint_flags, &id);
    __u8 shift = direction == INGRESS ? INGRESS_PORT_BITS : EGRESS_PORT_BITS;
    bool icmp = p->tuple.protocol == IPPROTO_ICMP || p->tuple.protocol == IPPROTO_ICMPV6;

    if (!flags)
        return j;
    if (!(*flags & (direction == INGRESS ? INGRESS_ENFORCED : EGRESS_ENFORCED))) {
        j.action = ACTION_ALLOW;
        return j;
    }
    j.enforced = 1;
    policy_lookup(&key, &j, p->tuple.protocol, icmp ? 0 : p->tuple.dport, *flags >> shift);
    if (!j.matched &&
        (*flags & (direction == INGRESS ? INGRESS_DEFAULT_ALLOW : EGRESS_DEFAULT_ALLOW)))
        j.action = ACTION_ALLOW;
    if ((j.action == ACTION_REDIRECT || j.action == ACTION_AUTHENTICATE) &&
        ask_sidecar(&j, endpoint_id, direction, p))
        return j;
    if (j.action == ACTION_AUTHENTICATE) {
        j.action = ACTION_DENY;
        j.reason = DROP_AUTHENTICATION;
    }
    if (j.action == ACTION_DENY &&
        (*flags & (direction == INGRESS ? INGRESS_AUDIT : EGRESS_AUDIT))) {
        j.action = ACTION_ALLOW;
        j.audited = 1;
    }
    return j;
}

/* False only where the map lacks its default entries, which is a fault: the caller drops. */
static __always_inline bool resolve(const struct addr *a, struct ipcache_value *to)
{
    struct ipcache_key key = {.prefixlen = 128};
    struct ipcache_value *v;

    __builtin_memcpy(key.addr, a, sizeof(key.addr));
    v = bpf_map_lookup_elem(&ipcache, &key);
    if (!v)
        return false;
    *to = *v;
    return true;
}
