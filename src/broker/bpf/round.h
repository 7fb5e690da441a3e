/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The round: how a packet for several groups comes to all their lanes without a copy. It is built
 * once by the kernel, for the tap, and then goes from lane to lane within one call of the kernel's
 * receive path: into a lane's inner end, where its packet sockets take what they want, back out to
 * the lane's outer end, and from there into the next one (bpf_redirect_peer). No queue is on the
 * way, so nothing is lost for want of room, and the order stays. The lanes stand before the packet
 * (struct pk_copies), out of the tools' reach. What is after the packet sockets in a lane, its own
 * IP stack, never sees it, nor does the host's.
 *
 * Programs at the ingress of both ends, by tcx, which Linux has since 6.6.
 */
#ifndef PICKET_BROKER_BPF_ROUND_H
#define PICKET_BROKER_BPF_ROUND_H

#include "broker/bpf/maps.h"

/* What a program at an ingress answers: TCX_NEXT and TCX_DROP, and TC_ACT_ of the same numbers. */
#define PK_TC_NEXT (-1)
#define PK_TC_DROP 2

static __always_inline int round_lanes(struct __sk_buff *skb, struct pk_copies *ret_lanes)
{
    const struct pk_copies *meta = (const struct pk_copies *)(long)skb->data_meta;
    if ((const void *)(meta + 1) > (const void *)(long)skb->data || meta->magic != PK_ROUND_MAGIC)
        return 0;
    __builtin_memcpy(ret_lanes, meta, sizeof *ret_lanes);
    return 1;
}

/* Of the packet as pk_tap saw it. The kernel may have taken a tag out of it since: the number that
 * is nearest to its length now and has these lower bits. */
static __always_inline __u32 copies_size(const struct __sk_buff *skb, const struct pk_copies *lanes)
{
    return lanes->size + ((skb->len + 0x8000u - lanes->size) & 0xffff0000u);
}

/* Into the lane with this number. Returns the program's answer, or PK_TC_DROP where it is not to be
 * had there: no tool reads the lane, or its interface is gone. Then the next one's turn has come.
 */
__attribute__((noinline)) int pk_round_visit(struct __sk_buff *skb, __u32 lane, __u32 group,
                                             __u32 size)
{
    struct pk_lane_counters *count = bpf_map_lookup_elem(&pk_lane_counts, &lane);
    struct pk_lane_record *record = bpf_map_lookup_elem(&pk_lanes, &lane);
    struct pk_group_counters *of = bpf_map_lookup_elem(&pk_group_counts, &group);
    __u32 *reader = bpf_map_lookup_elem(&pk_readers, &lane);
    if (!skb || !count || !record || !of || !reader || !record->round)
        return PK_TC_DROP;
    /* An interface that is gone must not end the round. */
    __u32 mtu = 0;
    if (bpf_check_mtu(skb, record->host_ifindex, &mtu, 0, 0) < 0)
        return PK_TC_DROP;
    of->outcomes[PK_OUTCOME_COPIED].packets++;
    of->outcomes[PK_OUTCOME_COPIED].bytes += size;
    count->sent++;
    count->sent_bytes += size;
    if (*reader)
        return (int)bpf_redirect_peer(record->host_ifindex, 0);
    count->packets++;
    count->bytes += size;
    count->unread++;
    return PK_TC_DROP;
}

/* On to the lane after this one (PK_NO_LANE: to the first). */
static __always_inline int round_go_on(struct __sk_buff *skb, const struct pk_copies *lanes,
                                       __u32 after)
{
    int passed = after == PK_NO_LANE;
#pragma unroll
    for (__u32 i = 0; i < PK_TARGETS_MAX; i++) {
        __u32 lane = lanes->lane[i];
        if (passed && lane < PK_LANES_MAX) {
            int answer = pk_round_visit(skb, lane, lanes->group[i], copies_size(skb, lanes));
            if (answer != PK_TC_DROP)
                return answer;
        }
        passed |= lane == after;
    }
    return PK_TC_DROP;
}

/* On a lane's inner end, after its packet sockets. */
SEC("tc")
int pk_round_in(struct __sk_buff *skb)
{
    __u32 lane = lane_id;
    struct pk_copies lanes;
    struct pk_lane_counters *count = bpf_map_lookup_elem(&pk_lane_counts, &lane);
    if (!count || !round_lanes(skb, &lanes))
        return PK_TC_DROP;
    count->packets++;
    count->bytes += copies_size(skb, &lanes);
    int passed = 0, more = 0;
#pragma unroll
    for (__u32 i = 0; i < PK_TARGETS_MAX; i++) {
        more |= passed && lanes.lane[i] < PK_LANES_MAX;
        passed |= lanes.lane[i] == lane;
    }
    return more ? (int)bpf_redirect_peer(skb->ifindex, 0) : PK_TC_DROP;
}

/* On its outer end. */
SEC("tc")
int pk_round_out(struct __sk_buff *skb)
{
    struct pk_copies lanes;
    if (!round_lanes(skb, &lanes))
        return PK_TC_NEXT;
    return round_go_on(skb, &lanes, lane_id);
}

#endif
