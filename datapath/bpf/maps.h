/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
#pragma once

struct {
    __uint(type, BPF_MAP_TYPE_LPM_TRIE);
    __type(key, struct ipcache_key);
    __type(value, struct ipcache_value);
    __uint(max_entries, 65536);
    __uint(map_flags, BPF_F_NO_PREALLOC);
} ipcache SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __type(key, __u32);
    __type(value, __u64);
    __uint(max_entries, 1);
    __uint(map_flags, BPF_F_MMAPABLE);
} ipcache_epoch SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __type(key, __u32); /* ifindex of the host side of the veth */
    __type(value, struct endpoint);
    __uint(max_entries, 4096);
} endpoints SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __type(key, __u32); /* endpoint id */
    __type(value, __u64);
    __uint(max_entries, 4096);
} endpoint_flags SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __type(key, struct policy_key);
    __type(value, struct policy_value);
    __uint(max_entries, 131072);
    __uint(map_flags, BPF_F_NO_PREALLOC);
} policy SEC(".maps");

struct lease_map {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(key_size, sizeof(__u32));
    __uint(value_size, sizeof(struct lease));
    __uint(max_entries, 1);
    __uint(map_flags, BPF_F_MMAPABLE);
};

struct {
    __uint(type, BPF_MAP_TYPE_HASH_OF_MAPS);
    __type(key, __u32); /* endpoint id */
    __uint(max_entries, 4096);
    __array(values, struct lease_map);
} leases SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __type(key, struct enforcer_key);
    __type(value, __u8);
    __uint(max_entries, 16384);
    __uint(map_flags, BPF_F_NO_PREALLOC);
} enforcers SEC(".maps");

/* The cgroup of the container that a pod's own proxy runs in. */
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __type(key, __u32); /* endpoint id */
    __type(value, __u64);
    __uint(max_entries, 4096);
    __uint(map_flags, BPF_F_NO_PREALLOC);
} proxy_cgroups SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __type(key, struct tuple);
    __type(value, struct conn);
    __uint(max_entries, 131072);
} conntrack SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __type(key, struct fragment_key);
    __type(value, struct fragment_value);
    __uint(max_entries, 8192);
} fragments SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __type(key, __u32);
    __type(value, struct config);
    __uint(max_entries, 1);
} config SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __type(key, __u32);
    __type(value, struct counter);
    __uint(max_entries, 2 * COUNTER_SLOTS);
} counters SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_RINGBUF);
    __uint(max_entries, 1 << 20);
} events SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __type(key, __u32);
    __type(value, __u64);
    __uint(max_entries, 1);
} events_lost SEC(".maps");

/* The last time a drop of this tuple was reported, so that a retry loop is one event a second. */
struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __type(key, struct tuple);
    __type(value, __u64);
    __uint(max_entries, 8192);
} reported SEC(".maps");
