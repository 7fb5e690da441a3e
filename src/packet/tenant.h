/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Whose packet is it? Tenants are numbered in their order: of those that claim a packet, the first
 * one has it.
 *
 * A later fragment does not show what is inside the datagram. Where that may decide, it takes the
 * tenant that the datagram's first fragment left in the fragment memory; when that is not known, it
 * belongs to nobody. What is visible from outside (VLANs, the numbers of a tunnel around the
 * datagram) is part of the key, so that tenants may use the same addresses.
 *
 * The includer defines what packet/decide.h wants, and the two look-ups below.
 */
#ifndef PICKET_PACKET_TENANT_H
#define PICKET_PACKET_TENANT_H

#include "packet/decide.h"
#include "packet/tenancy.h"

struct pk_tenants;
/* The first tenant with this selector (kind: one of PK_BY_*), or PK_TENANT_NONE. */
PK_INLINE __u32 pk_tenant_by_number(struct pk_tenants *tenants, __u32 kind, __u32 number);
PK_INLINE __u32 pk_tenant_by_address(struct pk_tenants *tenants, __u32 family,
                                     const __u64 address[2]);

/* May there be more headers in a datagram of this protocol than its addresses tell? */
PK_INLINE int pk_protocol_hides(__u32 protocol)
{
    return protocol != 6 && protocol != 132 && protocol != 50; /* TCP, SCTP, ESP */
}

PK_INLINE __u32 pk_tenant_least(__u32 a, __u32 b)
{
    return a < b ? a : b;
}

/* By what does not hide: everything but the addresses. */
PK_INLINE __u32 pk_tenant_around(struct pk_tenants *tenants, const struct pk_tenants_shape *shape,
                                 const struct pk_flow *flow)
{
    __u32 kinds = shape->kinds, least = shape->everything;
    if ((kinds & PK_BY_VLAN) && flow->vlans > 0)
        least = pk_tenant_least(least, pk_tenant_by_number(tenants, PK_BY_VLAN, flow->vlan[0]));
    if ((kinds & PK_BY_QINQ) && flow->vlans > 1)
        least = pk_tenant_least(
            least, pk_tenant_by_number(tenants, PK_BY_QINQ,
                                       (__u32)flow->vlan[0] << 16 | (__u32)flow->vlan[1]));
    if ((kinds & PK_BY_VNI) && (flow->tags & PK_TAG_VNI))
        least = pk_tenant_least(least, pk_tenant_by_number(tenants, PK_BY_VNI, flow->vni));
    if ((kinds & PK_BY_GRE_KEY) && (flow->tags & PK_TAG_GRE_KEY))
        least = pk_tenant_least(least, pk_tenant_by_number(tenants, PK_BY_GRE_KEY, flow->gre_key));
    if ((kinds & PK_BY_ERSPAN) && (flow->tags & PK_TAG_ERSPAN))
        least = pk_tenant_least(least,
                                pk_tenant_by_number(tenants, PK_BY_ERSPAN, flow->erspan_session));
    return least;
}

PK_INLINE __u32 pk_tenant_inside(struct pk_tenants *tenants, const struct pk_tenants_shape *shape,
                                 const struct pk_flow *flow, __u32 least)
{
    if (flow->family == 4 ? shape->kinds & PK_BY_PREFIX4
                          : flow->family == 6 && (shape->kinds & PK_BY_PREFIX6)) {
        least = pk_tenant_least(least, pk_tenant_by_address(tenants, flow->family, flow->src));
        least = pk_tenant_least(least, pk_tenant_by_address(tenants, flow->family, flow->dst));
    }
    return least;
}

/* As pk_tenant_of(), of what is no fragment. */
PK_INLINE __u32 pk_tenant_of_whole(struct pk_tenants *tenants, const struct pk_tenants_shape *shape,
                                   const struct pk_flow *flow)
{
    __u32 least = pk_tenant_around(tenants, shape, flow);
    return least <= shape->inside ? least : pk_tenant_inside(tenants, shape, flow, least);
}

/* Each list of tenants has entries of its own. The entry says whose it is, since two of these
 * scopes may be the same by chance. */
PK_INLINE void pk_tenant_key(const struct pk_fragment_header *header, __u32 list,
                             struct pk_fragment_key *ret_key)
{
    pk_fragment_key_for(header, PK_TENANT_USE, header->key.scope ^ (__u64)list << 32, ret_key);
}

PK_INLINE void pk_tenant_remember(struct pk_fragment_memory *memory,
                                  const struct pk_fragment_header *header,
                                  const struct pk_fragment_entry *entry)
{
    struct pk_fragment_key key;
    if (header->place != PK_FRAGMENT_FIRST || header->quoted)
        return;
    pk_tenant_key(header, entry->orphan, &key);
    pk_fragment_store(memory, &key, entry);
}

/* flow: the innermost one. Returns a tenant's number, PK_TENANT_NONE or PK_TENANT_UNKNOWN. */
PK_INLINE __u32 pk_tenant_of(struct pk_fragment_memory *memory, struct pk_tenants *tenants,
                             const struct pk_tenants_shape *shape, const struct pk_flow *flow)
{
    if (flow->fragments == 0 || !(shape->kinds & PK_BY_INSIDE))
        return pk_tenant_of_whole(tenants, shape, flow);
    __u32 least = pk_tenant_around(tenants, shape, flow);

    /* The last header is the only one that may be a later fragment's. Both are looked at in turn,
     * not by an index: so the kernel's verifier keeps its bounds. */
    const struct pk_fragment_header *outer = &flow->fragment[0], *inner = &flow->fragment[1];
    int has_inner = flow->fragments > 1;
    const struct pk_fragment_header *last = has_inner ? inner : outer;
    __u64 now = pk_fragment_now(memory);
    if (last->place != PK_FRAGMENT_LATER || !pk_protocol_hides(last->key.proto)) {
        least = pk_tenant_inside(tenants, shape, flow, least);
    } else if (least > shape->inside) {
        struct pk_fragment_key key;
        pk_tenant_key(last, shape->id, &key);
        struct pk_fragment_entry *entry = pk_fragment_find(memory, &key);
        if (!entry || now - entry->time >= PK_FRAGMENT_NSEC || entry->orphan != shape->id)
            return PK_TENANT_UNKNOWN;
        least = entry->hash;
    }
    struct pk_fragment_entry entry = { .time = now, .hash = least, .orphan = shape->id };
    pk_tenant_remember(memory, outer, &entry);
    if (has_inner)
        pk_tenant_remember(memory, inner, &entry);
    return least;
}

#endif
