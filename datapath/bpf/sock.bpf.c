// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * ClusterIP Services at the socket: programs of the node's cgroup.
 *
 *   connect, sendmsg        the frontend that is asked for becomes a backend
 *   recvmsg, getpeername    the backend that answers becomes the frontend again
 *
 * A packet never carries a frontend's address, so everything behind the socket, policy too, sees
 * the backend. Nothing is translated twice: the kernel runs these once per call.
 */
#include <stdbool.h>
#include <stddef.h>
#include <linux/errno.h>
#include <linux/bpf.h>
#include <linux/in.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "consts.h"
#include "structs.h"
#include "services.h"
#include "services_sock.h"
#include "mesh.h"

#define ALLOW 1
#define REFUSE 0

char _license[] SEC("license") = "GPL";

/* False for what no Service has. MPTCP connects by a TCP socket of its own, which is seen here. */
static __always_inline bool is_served(const struct bpf_sock_addr *ctx, struct l4_addr *at)
{
    if (ctx->protocol == IPPROTO_TCP)
        at->protocol = IPPROTO_TCP;
    else if (ctx->protocol == IPPROTO_UDP)
        at->protocol = IPPROTO_UDP;
    return at->protocol;
}

static __always_inline bool load4(const struct bpf_sock_addr *ctx, struct l4_addr *at)
{
    at->addr.w[2] = bpf_htonl(0xffff);
    at->addr.w[3] = ctx->user_ip4;
    at->port = ctx->user_port;
    return is_served(ctx, at);
}

static __always_inline bool load6(const struct bpf_sock_addr *ctx, struct l4_addr *at)
{
    at->addr.w[0] = ctx->user_ip6[0];
    at->addr.w[1] = ctx->user_ip6[1];
    at->addr.w[2] = ctx->user_ip6[2];
    at->addr.w[3] = ctx->user_ip6[3];
    at->port = ctx->user_port;
    return is_served(ctx, at);
}

static __always_inline void store4(struct bpf_sock_addr *ctx, const struct l4_addr *at)
{
    ctx->user_ip4 = at->addr.w[3];
    ctx->user_port = at->port;
}

static __always_inline void store6(struct bpf_sock_addr *ctx, const struct l4_addr *at)
{
    ctx->user_ip6[0] = at->addr.w[0];
    ctx->user_ip6[1] = at->addr.w[1];
    ctx->user_ip6[2] = at->addr.w[2];
    ctx->user_ip6[3] = at->addr.w[3];
    ctx->user_port = at->port;
}

/* Envoy's own sockets, whose addresses are final, and pods that a sidecar serves. */
static __always_inline bool is_left_alone(struct bpf_sock_addr *ctx)
{
    struct bpf_sock *sk = ctx->sk;
    __u64 netns;

    if (sk && (sk->mark & MARK_MASK) == MARK_FROM_PROXY)
        return true;
    netns = bpf_get_netns_cookie(ctx);
    return bpf_map_lookup_elem(&service_bypass, &netns);
}

static __always_inline void remember_flow(__u64 socket, const struct l4_addr *frontend,
                                          const struct l4_addr *backend)
{
    struct flow_key key = {.socket = socket, .backend = *backend};
    struct l4_addr *known = bpf_map_lookup_elem(&service_flows, &key);

    if (!known || !same_addr(known, frontend))
        bpf_map_update_elem(&service_flows, &key, frontend, BPF_ANY);
}

static __always_inline struct peer *peer_of(__u64 socket)
{
    __u32 slot = socket % SERVICE_PEERS;

    return bpf_map_lookup_elem(&service_peers, &slot);
}

static __always_inline void remember_peer(__u64 socket, const struct l4_addr *frontend,
                                          const struct l4_addr *backend)
{
    struct peer *p = peer_of(socket);

    if (!p)
        return;
    __sync_lock_test_and_set(&p->socket, 0); /* in this order on every machine */
    p->frontend = *frontend;
    p->backend = *backend;
    __sync_lock_test_and_set(&p->socket, socket);
}

/* As select_backend; `at` is the frontend and becomes the backend. `flow`: of one datagram. */
static __always_inline int translate(struct bpf_sock_addr *ctx, struct l4_addr *at, bool flow)
{
    struct l4_addr frontend = *at;
    struct affinity_key client = {};
    struct service *s = bpf_map_lookup_elem(&services, at);
    __u64 socket;
    int result;

    if (!s || is_left_alone(ctx) || has_views(at, bpf_get_netns_cookie(ctx)))
        return 0;
    socket = bpf_get_socket_cookie(ctx);
    if (s->affinity_seconds) {
        client.kind = AFFINITY_CLIENT;
        client.client = bpf_get_netns_cookie(ctx);
    } else if (flow) {
        client.kind = AFFINITY_SOCKET;
        client.client = socket;
    }
    result = select_backend(&frontend, s, spread(socket), &client, at);
    if (result < 0)
        bpf_set_retval(-ECONNREFUSED);
    if (result > 0) {
        if (frontend.protocol == IPPROTO_UDP)
            remember_flow(socket, &frontend, at);
        else
            remember_peer(socket, &frontend, at);
    }
    return result;
}

/* Whether `at`, a backend, stands for a frontend in this socket's eyes: then it becomes that. */
static __always_inline bool translate_back(struct bpf_sock_addr *ctx, struct l4_addr *at)
{
    __u64 socket = bpf_get_socket_cookie(ctx);
    struct peer *p;

    if (at->protocol == IPPROTO_UDP) {
        struct flow_key key = {.socket = socket, .backend = *at};
        struct l4_addr *frontend = bpf_map_lookup_elem(&service_flows, &key);

        if (!frontend)
            return false;
        *at = *frontend;
        return true;
    }
    p = peer_of(socket);
    if (!p || p->socket != socket || !same_addr(&p->backend, at))
        return false;
    *at = p->frontend;
    return true;
}

static __always_inline int to_backend4(struct bpf_sock_addr *ctx, bool flow)
{
    struct l4_addr at = {};
    int result;

    if (!load4(ctx, &at))
        return ALLOW;
    result = translate(ctx, &at, flow);
    if (result > 0)
        store4(ctx, &at);
    return result < 0 ? REFUSE : ALLOW;
}

static __always_inline int to_backend6(struct bpf_sock_addr *ctx, bool flow)
{
    struct l4_addr at = {};
    int result;

    if (!load6(ctx, &at))
        return ALLOW;
    result = translate(ctx, &at, flow);
    if (result > 0)
        store6(ctx, &at);
    return result < 0 ? REFUSE : ALLOW;
}

static __always_inline int to_frontend4(struct bpf_sock_addr *ctx)
{
    struct l4_addr at = {};

    if (load4(ctx, &at) && translate_back(ctx, &at))
        store4(ctx, &at);
    return ALLOW;
}

static __always_inline int to_frontend6(struct bpf_sock_addr *ctx)
{
    struct l4_addr at = {};

    if (load6(ctx, &at) && translate_back(ctx, &at))
        store6(ctx, &at);
    return ALLOW;
}

SEC("cgroup/connect4")
int sock_connect4(struct bpf_sock_addr *ctx)
{
    return to_backend4(ctx, false);
}

SEC("cgroup/connect6")
int sock_connect6(struct bpf_sock_addr *ctx)
{
    return to_backend6(ctx, false);
}

SEC("cgroup/sendmsg4")
int sock_sendmsg4(struct bpf_sock_addr *ctx)
{
    return to_backend4(ctx, true);
}

SEC("cgroup/sendmsg6")
int sock_sendmsg6(struct bpf_sock_addr *ctx)
{
    return to_backend6(ctx, true);
}

SEC("cgroup/recvmsg4")
int sock_recvmsg4(struct bpf_sock_addr *ctx)
{
    return to_frontend4(ctx);
}

SEC("cgroup/recvmsg6")
int sock_recvmsg6(struct bpf_sock_addr *ctx)
{
    return to_frontend6(ctx);
}

SEC("cgroup/getpeername4")
int sock_getpeername4(struct bpf_sock_addr *ctx)
{
    return to_frontend4(ctx);
}

SEC("cgroup/getpeername6")
int sock_getpeername6(struct bpf_sock_addr *ctx)
{
    return to_frontend6(ctx);
}
