/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * From a flow to its hash, with the memory of fragments. Only a datagram's first fragment has what
 * is in it; the later ones take the hash that it left under (source, destination, id, protocol).
 * When a later one comes first, it leaves the hash of the address pair, and the rest, the first
 * fragment included, follows it: the datagram stays whole, so that the tool can put it together.
 *
 * A tunnel's packet may be a fragment of a packet that is a fragment itself. What is known of the
 * outer datagram counts first, and where the packet goes is remembered for both.
 *
 * The includer defines struct pk_fragment_memory and the three functions below.
 */
#ifndef PICKET_PACKET_DECIDE_H
#define PICKET_PACKET_DECIDE_H

#include "packet/fragment.h"
#include "packet/parse.h"

struct pk_fragment_memory;
static inline struct pk_fragment_entry *pk_fragment_find(struct pk_fragment_memory *memory,
                                                         const struct pk_fragment_key *key);
static inline void pk_fragment_store(struct pk_fragment_memory *memory,
                                     const struct pk_fragment_key *key,
                                     const struct pk_fragment_entry *entry);
/* Nanoseconds of a clock that only goes forward. */
static inline __u64 pk_fragment_now(struct pk_fragment_memory *memory);

/* A fragment's key for one use: hashes by different modes do not mix. */
PK_INLINE void pk_fragment_key_for(const struct pk_fragment_header *header, __u32 use, __u64 scope,
                                   struct pk_fragment_key *ret_key)
{
    *ret_key = header->key;
    ret_key->proto = header->key.proto | use << 8;
    ret_key->scope = scope;
}

/* Is it known where the datagram goes? A first fragment follows only what came before it. */
PK_INLINE struct pk_fragment_entry *pk_fragment_known(struct pk_fragment_memory *memory,
                                                      const struct pk_fragment_header *header,
                                                      const struct pk_fragment_key *key, __u64 now)
{
    struct pk_fragment_entry *entry = pk_fragment_find(memory, key);
    if (entry && now - entry->time < PK_FRAGMENT_NSEC &&
        (header->place == PK_FRAGMENT_LATER || entry->orphan))
        return entry;
    return 0;
}

/* Returns the reason (enum pk_reason). *ret_hash counts unless pk_reason_is_first_lane(). */
PK_INLINE __u8 pk_decide(struct pk_fragment_memory *memory, const struct pk_flow *flow, __u32 mode,
                         __u64 seed, __u32 *ret_hash)
{
    __u8 reason = flow->reason;
    if (pk_reason_is_first_lane(reason)) {
        *ret_hash = 0;
        return reason;
    }
    __u32 hash = pk_flow_hash(flow, mode, seed);
    *ret_hash = hash;
    if (flow->fragments == 0)
        return reason;

    const struct pk_fragment_header *outer = &flow->fragment[0];
    /* A flag and not a null pointer, of which Linux 6.1's verifier loses track. */
    const struct pk_fragment_header *inner = &flow->fragment[1];
    int has_inner = flow->fragments > 1;
    struct pk_fragment_key outer_key, inner_key;
    pk_fragment_key_for(outer, mode, 0, &outer_key);
    pk_fragment_key_for(inner, mode, 0, &inner_key);
    __u64 now = pk_fragment_now(memory);
    struct pk_fragment_entry *outer_known = pk_fragment_known(memory, outer, &outer_key, now);
    struct pk_fragment_entry *inner_known =
        has_inner ? pk_fragment_known(memory, inner, &inner_key, now) : 0;
    struct pk_fragment_entry *known = outer_known ? outer_known : inner_known;
    if (known) {
        hash = known->hash;
        if (known->orphan)
            reason = PK_REASON_FRAGMENT_UNKNOWN;
    } else if (outer->place == PK_FRAGMENT_LATER ||
               (has_inner && inner->place == PK_FRAGMENT_LATER)) {
        reason = PK_REASON_FRAGMENT_UNKNOWN;
    }
    *ret_hash = hash;
    struct pk_fragment_entry entry = { .time = now,
                                       .hash = hash,
                                       .orphan = reason == PK_REASON_FRAGMENT_UNKNOWN };
    if (!outer_known && !outer->quoted)
        pk_fragment_store(memory, &outer_key, &entry);
    if (has_inner && !inner_known && !inner->quoted)
        pk_fragment_store(memory, &inner_key, &entry);
    return reason;
}

#endif
