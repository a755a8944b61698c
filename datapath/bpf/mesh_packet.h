/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* What packets of an endpoint need of mesh.h. */
#pragma once

/* What an endpoint sees at a Service's address; NULL: the Service as if there were no routes. A pod
 * with a proxy of its own follows that one's. */
static __always_inline struct mesh_view *find_view(const struct l4_addr *at, __u32 endpoint_id)
{
    struct mesh_key key = {.frontend = *at};
    struct mesh_view *any = bpf_map_lookup_elem(&mesh_views, &key), *own;
    __u32 *space;

    if (!any || bpf_map_lookup_elem(&proxy_cgroups, &endpoint_id))
        return NULL;
    space = bpf_map_lookup_elem(&mesh_spaces, &endpoint_id);
    if (space) {
        key.space = *space;
        own = bpf_map_lookup_elem(&mesh_views, &key);
        if (own)
            return own;
    }
    return any->served ? any : NULL;
}
