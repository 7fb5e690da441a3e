/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * From a flow to its hash, with the memory of fragments. Only a datagram's first fragment has
 * ports; the later ones take the hash that it left under (source, destination, id, protocol). When
 * a later one comes first, it leaves the hash of the address pair, and the rest, the first fragment
 * included, follows it: the datagram stays whole, so that the tool can put it together.
 *
 * The includer defines before: struct pk_fragment_memory, and
 *   struct pk_fragment_entry *pk_fragment_find(memory, const struct pk_fragment_key *key);
 *   void pk_fragment_store(memory, key, const struct pk_fragment_entry *entry);
 *   __u64 pk_fragment_now(memory);      nanoseconds of a clock that only goes forward
 */
#ifndef PICKET_PACKET_DECIDE_H
#define PICKET_PACKET_DECIDE_H

#include "packet/fragment.h"
#include "packet/parse.h"

/* Returns the reason (enum pk_reason). *ret_hash counts unless pk_reason_is_first_lane(). */
PK_INLINE __u8 pk_decide(struct pk_fragment_memory *memory, const struct pk_flow *flow, __u64 seed,
                         __u32 *ret_hash)
{
    if (pk_reason_is_first_lane(flow->reason)) {
        *ret_hash = 0;
        return flow->reason;
    }
    __u32 hash = pk_flow_hash(flow, seed);
    *ret_hash = hash;
    if (flow->fragment == PK_FRAGMENT_NONE)
        return flow->reason;
    /* A quoted packet tells about a datagram, but is none: nothing is remembered from it. */
    if (flow->quoted && flow->fragment == PK_FRAGMENT_FIRST)
        return flow->reason;

    struct pk_fragment_key key = { .src = { flow->src[0], flow->src[1] },
                                   .dst = { flow->dst[0], flow->dst[1] },
                                   .id = flow->fragment_id,
                                   .proto = flow->fragment_proto };
    __u64 now = pk_fragment_now(memory);
    struct pk_fragment_entry *known = pk_fragment_find(memory, &key);
    if (known && now - known->time < PK_FRAGMENT_NSEC &&
        (flow->fragment == PK_FRAGMENT_LATER || known->orphan)) {
        *ret_hash = known->hash;
        return known->orphan ? PK_REASON_FRAGMENT_UNKNOWN : flow->reason;
    }
    if (!flow->quoted) {
        struct pk_fragment_entry entry = { .time = now,
                                           .hash = hash,
                                           .orphan = flow->fragment == PK_FRAGMENT_LATER };
        pk_fragment_store(memory, &key, &entry);
    }
    return flow->fragment == PK_FRAGMENT_LATER ? PK_REASON_FRAGMENT_UNKNOWN : flow->reason;
}

#endif
