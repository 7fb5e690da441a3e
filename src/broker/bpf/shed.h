/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Shedding: slots of a group whose packets are left out while its lanes cannot take all. Whole
 * slots, so whole flows. Apart from the table of slots, which says where packets go: so nothing
 * that moves slots has to know of it, and a slot that comes back is where it should be.
 */
#ifndef PICKET_BROKER_BPF_SHED_H
#define PICKET_BROKER_BPF_SHED_H

#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#include "broker/bpf/abi.h"
#include "broker/bpf/shunt_abi.h"

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, PK_GROUPS_MAX);
    __type(key, __u32);
    __type(value, struct pk_shed_slots);
} pk_sheds SEC(".maps");

/* Is the packet's slot left out? The outcome to count, or 0. What has no slot never is, and nothing
 * is while no agent says so any more: nobody would give it back. */
static __always_inline __u32 pk_shed_takes(__u32 group, __u32 slot)
{
    struct pk_shed_slots *shed = bpf_map_lookup_elem(&pk_sheds, &group);
    if (!shed || shed->count == 0)
        return 0;
    asm volatile("" : "+r"(slot)); /* Linux 6.1's verifier needs the check where it is used */
    if (slot >= PK_HASH_SLOTS || !(shed->bits[slot / 64] >> (slot % 64) & 1) ||
        bpf_ktime_get_coarse_ns() >= shed->until)
        return 0;
    return shed->yields[slot / 64] >> (slot % 64) & 1 ? PK_OUTCOME_YIELDED : PK_OUTCOME_SHED;
}

#endif
