/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* What Services need besides where they are translated at the socket. */
#pragma once

struct flow_key {
    __u64 socket; /* cookie */
    struct l4_addr backend;
};

struct peer {
    __u64 socket; /* cookie; 0 while it is written */
    struct l4_addr frontend;
    struct l4_addr backend;
};

/* Datagrams back: which frontend a socket's backend stands for. */
struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __type(key, struct flow_key);
    __type(value, struct l4_addr);
    __uint(max_entries, 131072);
} service_flows SEC(".maps");

/*
 * The same of connected TCP sockets, for getpeername: by cookie modulo the size, so that the newest
 * connections are known. An LRU hash here costs 1 % of a connection, socket storage 4 %.
 */
#define SERVICE_PEERS 131072
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __type(key, __u32);
    __type(value, struct peer);
    __uint(max_entries, SERVICE_PEERS);
} service_peers SEC(".maps");

/* Network namespaces (cookies) whose sockets are left alone: pods with a sidecar. */
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __type(key, __u64);
    __type(value, __u32);
    __uint(max_entries, 4096);
    __uint(map_flags, BPF_F_NO_PREALLOC);
} service_bypass SEC(".maps");
