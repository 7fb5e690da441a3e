/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Slots that drain: the lane of a slot has changed, and no flow is to be cut. A TCP flow that
 * begins (SYN without ACK) goes to the new lane and is remembered; all else stays with the old
 * lane, and what is seen there is remembered too, so that the agent knows when the last flow has
 * ended. What is no TCP has no beginning that could be seen: it stays until the drain ends. Only
 * packets of slots that drain come here.
 *
 * The includer has the map pk_drains.
 */
#ifndef PICKET_BROKER_BPF_DRAIN_H
#define PICKET_BROKER_BPF_DRAIN_H

#include "broker/bpf/abi.h"
#include "packet/parse.h"

#define PK_TCP_FIN 0x01u
#define PK_TCP_SYN 0x02u
#define PK_TCP_RST 0x04u
#define PK_TCP_ACK 0x10u

/* Later fragments have no ports: they follow what their first one leaves under this. */
static __always_inline __u64 pk_drain_datagram(const struct pk_fragment_header *header, __u64 seed)
{
    return pk_hash_mix(pk_hash_end6(header->key.src[0], header->key.src[1], 0, seed) +
                           pk_hash_end6(header->key.dst[0], header->key.dst[1], 1, seed),
                       (__u64)header->key.proto << 32 | header->key.id);
}

/* Which ends have ended the flow for themselves; RST ends it for both. */
static __always_inline __u8 pk_drain_ends(const struct pk_flow *flow)
{
    if (flow->tcp_flags & PK_TCP_RST)
        return 3;
    if (!(flow->tcp_flags & PK_TCP_FIN))
        return 0;
    if (flow->src[0] != flow->dst[0])
        return flow->src[0] < flow->dst[0] ? 1 : 2;
    if (flow->src[1] != flow->dst[1])
        return flow->src[1] < flow->dst[1] ? 1 : 2;
    return flow->src_port < flow->dst_port ? 1 : 2;
}

/* The lane of a packet of a slot that drains from the lane old to the lane fresh. */
static __always_inline __u32 pk_drain_lane(const struct pk_flow *flow, __u64 seed, __u32 group,
                                           __u32 slot, __u32 fresh, __u32 old)
{
    struct pk_drain_key key = { .group = group, .slot = slot };
    struct pk_drain_flow entry = { .seen = bpf_ktime_get_coarse_ns(), .lane = old };
    struct pk_drain_flow *known;
    int is_first_fragment = 0;
    if (flow->fragments) {
        key.flow = pk_drain_datagram(&flow->fragment[0], seed);
        known = bpf_map_lookup_elem(&pk_drains, &key);
        if (known && known->lane == fresh)
            return fresh;
        if (flow->fragment[0].place == PK_FRAGMENT_LATER ||
            (flow->fragments > 1 && flow->fragment[1].place == PK_FRAGMENT_LATER))
            return old;
        is_first_fragment = 1;
    }
    key.flow = pk_flow_hash64(flow, seed);
    known = bpf_map_lookup_elem(&pk_drains, &key);
    if (flow->quoted) /* an ICMP error: it follows its flow and is none itself */
        return known && known->lane == fresh ? fresh : old;

    __u8 begins_or_ends = flow->tcp_flags & (PK_TCP_SYN | PK_TCP_ACK | PK_TCP_RST | PK_TCP_FIN);
    entry.is_tcp = flow->proto == 6;
    if (entry.is_tcp && begins_or_ends == PK_TCP_SYN) {
        /* Not one within a flow that is alive in the old lane: anybody could send that. */
        if (!known || known->lane != old || known->ended == 3) {
            entry.lane = fresh;
            bpf_map_update_elem(&pk_drains, &key, &entry, BPF_ANY);
        }
    } else if (known) {
        if (known->lane == fresh)
            entry.lane = fresh;
        else
            known->lane = old;
        known->seen = entry.seen;
        if (entry.is_tcp)
            known->ended |= pk_drain_ends(flow);
    } else {
        if (entry.is_tcp)
            entry.ended = pk_drain_ends(flow);
        bpf_map_update_elem(&pk_drains, &key, &entry, BPF_ANY);
    }
    if (entry.lane != fresh)
        return old;
    if (is_first_fragment && !flow->fragment[0].quoted) {
        key.flow = pk_drain_datagram(&flow->fragment[0], seed);
        bpf_map_update_elem(&pk_drains, &key, &entry, BPF_ANY);
    }
    return fresh;
}

#endif
