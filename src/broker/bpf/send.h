/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Out to the lanes. A tap with one group: a redirect. With several, the packet goes up into the
 * kernel with its lanes written before it, where pk_tap_copy sends it round them (bpf/round.h).
 *
 * Kernels without that, and drivers that keep nothing before a packet: a redirect with
 * BPF_F_BROADCAST to a small map that holds just those lanes; there is one for each combination of
 * lanes, in pk_own_combos. That copies a frame into one page, so what is larger, or lies in several
 * buffers, goes up too, where pk_tap_copy makes the copies and drops the frame.
 */
#ifndef PICKET_BROKER_BPF_SEND_H
#define PICKET_BROKER_BPF_SEND_H

#include "broker/bpf/maps.h"
#include "broker/bpf/round.h"

/* A page less the room before a frame (256 bytes, some drivers more) and what follows it. */
#define PK_BROADCAST_MAX 3000u

struct pk_combo_map {
    __uint(type, BPF_MAP_TYPE_DEVMAP);
    __uint(max_entries, PK_TARGETS_MAX);
    __uint(key_size, sizeof(__u32));
    __uint(value_size, sizeof(__u32));
};
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
    __uint(max_entries, 1);
    __type(key, __u32);
    __array(values, struct pk_combo_map);
} pk_own_combos SEC(".maps");

static __always_inline void count_tenant(__u32 tap, __u32 channel, __u32 size)
{
    __u32 at = tap * PK_CHANNELS + (instance.channels[channel & (PK_CHANNELS - 1)].counter & 255);
    struct pk_tenant_counters *count = bpf_map_lookup_elem(&pk_tenant_counts, &at);
    if (!count)
        return;
    count->packets++;
    count->bytes += size;
}

/* Why the packet did not go by its own flow: by the first mode that the tap's groups use. */
static __always_inline void count_reason(struct pk_tap_counters *count,
                                         const struct pk_packet *packet)
{
    __u32 reason;
    if (instance.modes & 1u << PK_HASH_FLOW)
        reason = packet->reason[PK_HASH_FLOW];
    else if (instance.modes & 1u << PK_HASH_ADDRESSES)
        reason = packet->reason[PK_HASH_ADDRESSES];
    else
        reason = packet->reason[PK_HASH_OUTER];
    if (reason != PK_REASON_NONE)
        count->reasons[reason & (PK_REASON_ROOM - 1)]++;
}

static __always_inline void count_lane(__u32 lane, __u32 size)
{
    struct pk_lane_counters *to = bpf_map_lookup_elem(&pk_lane_counts, &lane);
    if (!to)
        return;
    to->sent++;
    to->sent_bytes += size;
}

static __always_inline int has_frags(struct xdp_md *ctx, __u32 size)
{
    return (__u64)ctx->data + size != (__u64)ctx->data_end;
}

/* Returns XDP_PASS, or XDP_DROP where that way is not open, and must is not set or of no help. */
static __always_inline int hand_over(struct xdp_md *ctx, const struct pk_copies *lanes,
                                     struct pk_tap_counters *count, int must)
{
    __u32 tap = tap_id;
    struct pk_handover *over = bpf_map_lookup_elem(&pk_handovers, &tap);
    if (!instance.copies || !over)
        return XDP_DROP;
    /* Until lanes have come through once: after that nothing is written that CPUs share. */
    int proven = over->taken > over->lost;
    if (!proven && over->lost && !must)
        return XDP_DROP;
    if (bpf_xdp_adjust_meta(ctx, -(int)sizeof *lanes) < 0)
        return XDP_DROP;
    struct pk_copies *meta = (struct pk_copies *)(long)ctx->data_meta;
    if ((void *)(meta + 1) > (void *)(long)ctx->data)
        return XDP_DROP;
    __builtin_memcpy(meta, lanes, sizeof *meta);
    meta->serial = (__u32)count->passed;
    if (!proven)
        __sync_fetch_and_add(&over->handed, 1);
    return XDP_PASS;
}

static __always_inline int send_one(struct xdp_md *ctx, struct pk_packet *packet,
                                    struct pk_tap_counters *tap, __u32 target)
{
    __u32 group = instance.targets[target & (PK_GROUPS_MAX - 1)].group, size = packet->size;
    struct pk_group_counters *count = bpf_map_lookup_elem(&pk_group_counts, &group);
    if (!count)
        return XDP_DROP;
    __u32 lane = target_lane(ctx, packet, target, count);
    if (lane >= PK_LANES_MAX) {
        tap->reasons[lane == PK_NO_LANE_WANTED ? PK_REASON_UNWANTED : PK_REASON_NO_LANE]++;
        tap->dropped++;
        return XDP_DROP;
    }
    if (!instance.redirects_frags && has_frags(ctx, size)) {
        struct pk_copies lanes = { .magic = PK_COPIES_MAGIC, .size = (__u16)size };
        __builtin_memset(lanes.lane, 0xff, sizeof lanes.lane);
        lanes.lane[0] = (__u16)lane;
        lanes.group[0] = (__u8)group;
        if (hand_over(ctx, &lanes, tap, 1) == XDP_PASS) {
            count_outcome(count, PK_OUTCOME_HANDED, size);
            tap->passed++;
            return XDP_PASS;
        }
    } else if (bpf_redirect_map(&pk_ports, lane, XDP_DROP) == XDP_REDIRECT) {
        count_outcome(count, PK_OUTCOME_SENT, size);
        count_lane(lane, size);
        tap->redirected++;
        return XDP_REDIRECT;
    }
    count_outcome(count, PK_OUTCOME_NOT_SENT, size);
    tap->reasons[PK_REASON_NOT_SENT]++;
    tap->dropped++;
    return XDP_DROP;
}

/* target_lane() of one of several. */
static __always_inline __u32 lane_of_target(struct xdp_md *ctx, struct pk_packet *packet,
                                            __u32 target)
{
    __u32 group = instance.targets[target & (PK_GROUPS_MAX - 1)].group;
    struct pk_group_counters *count = bpf_map_lookup_elem(&pk_group_counts, &group);
    return count ? target_lane(ctx, packet, target, count) : PK_NO_LANE;
}

static __always_inline void count_copy(__u32 group, __u32 lane, __u32 outcome, __u32 size)
{
    struct pk_group_counters *count = bpf_map_lookup_elem(&pk_group_counts, &group);
    if (!count || outcome >= PK_OUTCOMES)
        return;
    count_outcome(count, outcome, size);
    if (outcome == PK_OUTCOME_SENT || outcome == PK_OUTCOME_COPIED)
        count_lane(lane, size);
}

/* The lanes of a channel with several targets. One call for all of them, since a return costs as
 * much as a target; and what it finds is in memory, as in pk_parse_headers(). */
__attribute__((noinline)) int pk_choose_lanes(struct xdp_md *ctx, __u32 channel)
{
    const volatile struct pk_channel *of = &instance.channels[channel & (PK_CHANNELS - 1)];
    __u32 zero = 0, first = of->targets, count = of->count;
    struct pk_packet *packet = bpf_map_lookup_elem(&pk_own_packets, &zero);
    if (!packet)
        return 0;
    packet->combo = of->combo;
    packet->last = PK_NO_LANE;
    packet->lanes = 0;
    packet->unwanted = 0;
    packet->unknown = 0;
    __builtin_memset(packet->copies.lane, 0xff, sizeof packet->copies.lane);
#pragma clang loop unroll(disable)
    for (__u32 i = 0; i < PK_TARGETS_MAX && i < count; i++) {
        asm volatile("" ::: "memory");
        __u32 lane = lane_of_target(ctx, packet, first + i);
        if (lane < PK_LANES_MAX) {
            packet->copies.lane[i] = (__u16)lane;
            packet->copies.group[i] = instance.targets[(first + i) & (PK_GROUPS_MAX - 1)].group;
            packet->combo += instance.digits[lane];
            packet->unknown |= instance.digits[lane] == 0;
            packet->last = (__u16)lane;
            packet->lanes++;
        } else if (lane == PK_NO_LANE_WANTED) {
            packet->unwanted = 1;
        }
    }
    return 1;
}

static __always_inline int send_several(struct xdp_md *ctx, struct pk_packet *packet,
                                        struct pk_tap_counters *tap, __u32 channel)
{
    const volatile struct pk_channel *of = &instance.channels[channel & (PK_CHANNELS - 1)];
    struct pk_copies *to = &packet->copies;
    pk_choose_lanes(ctx, channel);
    __u32 size = packet->size, lanes = packet->lanes, combo = packet->combo;
    to->size = (__u16)size;
    if (lanes == 0) {
        tap->reasons[packet->unwanted ? PK_REASON_UNWANTED : PK_REASON_NO_LANE]++;
        tap->dropped++;
        return XDP_DROP;
    }

    __u32 outcome = PK_OUTCOME_NOT_SENT;
    int action = XDP_DROP, frags = has_frags(ctx, size);
    if (of->ways & PK_WAY_ROUND) {
        to->magic = PK_ROUND_MAGIC;
        action = hand_over(ctx, to, tap, 0);
    }
    to->magic = PK_COPIES_MAGIC;
    if (action == XDP_PASS) {
        /* All packets of the tap go this way, so that a flow's keep their order. */
    } else if (lanes == 1 && (instance.redirects_frags || !frags)) {
        action = (int)bpf_redirect_map(&pk_ports, packet->last, XDP_DROP);
    } else if (lanes == 1 || frags || packet->unknown || size > PK_BROADCAST_MAX ||
               (of->ways & PK_WAY_COPIES)) {
        action = hand_over(ctx, to, tap, 1);
    } else {
        void *map = bpf_map_lookup_elem(&pk_own_combos, &combo);
        if (map)
            action = (int)bpf_redirect_map(map, 0, BPF_F_BROADCAST);
        PK_ONE_MAP(action);
    }
    if (action == XDP_REDIRECT) {
        outcome = PK_OUTCOME_SENT;
        tap->redirected++;
    } else if (action == XDP_PASS) {
        outcome = PK_OUTCOME_HANDED;
        tap->passed++;
    } else {
        tap->reasons[PK_REASON_NOT_SENT]++;
        tap->dropped++;
    }
#pragma clang loop unroll(disable)
    for (__u32 i = 0; i < PK_TARGETS_MAX; i++)
        if (to->lane[i] != PK_NO_LANE)
            count_copy(to->group[i], to->lane[i], outcome, size);
    return action;
}

/*
 * At the interface's ingress in the kernel: brings what pk_tap has handed over to its lanes.
 * Whatever else the interface gives to the kernel stays as it is. A packet that was handed over,
 * but comes without its lanes (a driver that drops them), must not go on to the host: as many as
 * are missing are taken for it. Where lanes have come through once, the driver keeps them, and what
 * has none is the host's own, which may overtake packets that were handed over.
 */
SEC("tc")
int pk_tap_copy(struct __sk_buff *skb)
{
    __u32 tap = tap_id;
    struct pk_copies *meta = (struct pk_copies *)(long)skb->data_meta, to;
    __u32 magic = 0;
    struct pk_handover *over = bpf_map_lookup_elem(&pk_handovers, &tap);
    if (!over)
        return PK_TC_NEXT;
    if ((void *)(meta + 1) <= (void *)(long)skb->data) {
        __builtin_memcpy(&to, meta, sizeof to);
        magic = to.magic;
    }
    if (magic != PK_COPIES_MAGIC && magic != PK_ROUND_MAGIC) {
        if (over->taken > over->lost || over->taken >= over->handed)
            return PK_TC_NEXT;
        __sync_fetch_and_add(&over->lost, 1); /* first, or the two differ for a moment */
        __sync_fetch_and_add(&over->taken, 1);
        return PK_TC_DROP;
    }
    if (over->taken <= over->lost)
        __sync_fetch_and_add(&over->taken, 1);
    if (magic == PK_ROUND_MAGIC)
        return round_go_on(skb, &to, PK_NO_LANE);
#pragma unroll
    for (__u32 i = 0; i < PK_TARGETS_MAX; i++) {
        __u32 lane = to.lane[i];
        if (lane >= PK_LANES_MAX)
            continue;
        struct pk_lane_record *record = bpf_map_lookup_elem(&pk_lanes, &lane);
        __u32 ifindex = record ? record->host_ifindex : 0;
        if (ifindex && bpf_clone_redirect(skb, ifindex, 0) == 0)
            count_copy(to.group[i], lane, PK_OUTCOME_COPIED, copies_size(skb, &to));
    }
    return PK_TC_DROP;
}

#endif
