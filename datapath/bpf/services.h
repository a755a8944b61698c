/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Services: which backend a connection to a frontend gets. Layouts are those of
 * datapath/service_codec.py. A change of backends writes them under a new revision, then the
 * frontend's value, then deletes the old ones: a reader sees one set or the other.
 */
#pragma once

struct service {
    __u32 id;
    __u32 revision;
    __u32 count;            /* of backends; 0: refuse */
    __u32 affinity_seconds; /* sessionAffinity ClientIP; 0: none */
};

struct backend_key {
    __u32 service;
    __u32 revision;
    __u32 slot; /* below count */
};

/* Whom a client may stay with. */
struct member_key {
    __u32 service;
    __u32 pad;
    struct l4_addr backend;
};

#define MEMBER_READY 1
#define MEMBER_DRAINING 2 /* keeps its datagram flows, gets nothing new */

#define AFFINITY_SOCKET 1   /* datagrams of an unconnected socket */
#define AFFINITY_CLIENT 2   /* all of a pod's connections */
#define AFFINITY_ENDPOINT 3 /* the same of a pod that is served by packet */

struct affinity_key {
    __u64 client; /* cookie of the socket or of the network namespace; endpoint's id */
    __u32 service;
    __u32 kind;
};

struct affinity {
    struct l4_addr backend;
    __u64 last_used; /* ktime, ns */
};

enum service_counter {
    SERVICE_NO_BACKEND = 0,      /* refused: the Service has none */
    SERVICE_MISSING_BACKEND = 1, /* refused: a slot was empty, which is a defect */
    SERVICE_COUNTERS = 2,
};

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __type(key, struct l4_addr); /* frontend */
    __type(value, struct service);
    __uint(max_entries, 65536);
    __uint(map_flags, BPF_F_NO_PREALLOC);
} services SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __type(key, struct backend_key);
    __type(value, struct l4_addr);
    __uint(max_entries, 524288);
    __uint(map_flags, BPF_F_NO_PREALLOC);
} service_backends SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __type(key, struct member_key);
    __type(value, __u32);
    __uint(max_entries, 524288);
    __uint(map_flags, BPF_F_NO_PREALLOC);
} service_members SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __type(key, struct affinity_key);
    __type(value, struct affinity);
    __uint(max_entries, 65536);
} service_affinity SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __type(key, __u32);
    __type(value, __u64);
    __uint(max_entries, SERVICE_COUNTERS);
} service_counters SEC(".maps");

#define AFFINITY_SECOND 1000000000ULL
#define SELECT_ATTEMPTS 3 /* each means that the backends changed between two lookups */

static __always_inline void count_service(__u32 slot)
{
    __u64 *value = bpf_map_lookup_elem(&service_counters, &slot);

    if (value)
        (*value)++;
}

static __always_inline bool same_addr(const struct l4_addr *a, const struct l4_addr *b)
{
    return a->addr.d[0] == b->addr.d[0] && a->addr.d[1] == b->addr.d[1] && a->port == b->port;
}

static __always_inline bool stays(const struct affinity_key *key, const struct service *s,
                                  struct l4_addr *backend)
{
    struct affinity *a = bpf_map_lookup_elem(&service_affinity, key);
    struct member_key member = {.service = key->service};
    __u64 now = bpf_ktime_get_ns();
    bool client = key->kind != AFFINITY_SOCKET;
    __u32 *state;

    if (!a || (client && now - a->last_used > s->affinity_seconds * AFFINITY_SECOND))
        return false;
    member.backend = a->backend;
    state = bpf_map_lookup_elem(&service_members, &member);
    if (!state || (client && *state == MEMBER_DRAINING))
        return false;
    a->last_used = now;
    *backend = member.backend;
    return true;
}

/* Spreads cookies, which are consecutive numbers: drawing a random one costs three lookups. */
static __always_inline __u32 spread(__u64 cookie)
{
    return (cookie * 0x9e3779b97f4a7c15ULL) >> 32;
}

/* 1: `backend` is chosen; 0: no frontend any more; -1: to be refused, and counted. `s` is what
 * `frontend` has; `hash` chooses. `key` says by what the client stays with a backend; kind 0 if by
 * nothing. */
static __always_inline int select_backend(const struct l4_addr *frontend, const struct service *s,
                                          __u32 hash, struct affinity_key *key,
                                          struct l4_addr *backend)
{
    struct affinity a = {};

    key->service = s->id;
    if (key->kind && stays(key, s, backend))
        return 1;
    for (int i = 0; i < SELECT_ATTEMPTS; i++) {
        struct backend_key slot = {.service = s->id, .revision = s->revision};
        struct l4_addr *chosen;
        __u32 count = s->count;

        if (!count) {
            count_service(SERVICE_NO_BACKEND);
            return -1;
        }
        slot.slot = hash % count;
        chosen = bpf_map_lookup_elem(&service_backends, &slot);
        if (chosen) {
            *backend = *chosen;
            if (!key->kind)
                return 1;
            a.backend = *backend;
            a.last_used = bpf_ktime_get_ns();
            bpf_map_update_elem(&service_affinity, key, &a, BPF_ANY);
            return 1;
        }
        s = bpf_map_lookup_elem(&services, frontend);
        if (!s)
            return 0;
    }
    count_service(SERVICE_MISSING_BACKEND);
    return -1;
}
