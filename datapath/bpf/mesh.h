/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Services that routes are attached to: whom the veth redirects, and to which listener of Envoy's.
 * The socket leaves their addresses alone. Layouts are those of datapath/mesh_map.py.
 */
#pragma once

struct mesh_key {
    struct l4_addr frontend;
    __u32 space; /* number of the clients' namespace; 0: of any that has no view of its own */
    __u32 pad;
};

struct mesh_view {
    __u16 proxy_port; /* host order; 0: there was none left, it is closed */
    __u8 served;      /* 0, of the view of any: the Service is as if there were no routes */
    __u8 pad;
};

/* Each frontend that has views has one of any. */
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __type(key, struct mesh_key);
    __type(value, struct mesh_view);
    __uint(max_entries, 65536);
    __uint(map_flags, BPF_F_NO_PREALLOC);
} mesh_views SEC(".maps");

/* Of endpoints in namespaces that have views of their own. */
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __type(key, __u32); /* endpoint id */
    __type(value, __u32);
    __uint(max_entries, 4096);
    __uint(map_flags, BPF_F_NO_PREALLOC);
} mesh_spaces SEC(".maps");

/* The cookie of the node's own network namespace, whose processes are no clients. */
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __type(key, __u32);
    __type(value, __u64);
    __uint(max_entries, 1);
} mesh_host SEC(".maps");

/* Whether sockets of a network namespace leave it to the veth who the backend is. */
static __always_inline bool has_views(const struct l4_addr *at, __u64 netns)
{
    struct mesh_key key = {.frontend = *at};
    __u32 zero = 0;
    __u64 *host;

    if (!bpf_map_lookup_elem(&mesh_views, &key))
        return false;
    host = bpf_map_lookup_elem(&mesh_host, &zero);
    return !host || *host != netns;
}
