// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * The programs of the traffic plane. One instance of pk_tap is loaded per tap and one of pk_lane_in
 * and pk_lane_guard per lane, each with its numbers and its configuration as constants, so that no
 * packet pays for finding out where it is, or for what is not configured: the verifier takes out
 * what the constants make unreachable.
 */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#include "broker/bpf/abi.h"
#include "broker/bpf/inline.h"

/* Set before an instance is loaded. */
const volatile __u64 seed;
const volatile __u32 tap_id;
const volatile __u32 group_id;
const volatile __u32 lane_id;
const volatile __u64 canary_mark;

#include "broker/bpf/look.h"
#include "broker/bpf/tap.h"

/* Frames of the agent's own (broker/broker.h, pk_broker_canary_mark()): their first 8 bytes are a
 * secret of this instance. */
static __always_inline int pk_is_canary(const struct xdp_md *ctx)
{
    const __u64 *mark = (const __u64 *)(long)ctx->data;
    return (const void *)(mark + 1) <= (const void *)(long)ctx->data_end && *mark == canary_mark;
}

/* On the lane's inner end. That it is there turns the veth's NAPI on, without which redirected
 * packets vanish unseen; it must not be left to GRO, which would merge packets. */
SEC("xdp.frags")
int pk_lane_in(struct xdp_md *ctx)
{
    __u32 lane = lane_id;
    struct pk_lane_counters *count = bpf_map_lookup_elem(&pk_lane_counts, &lane);
    __u32 *reader = bpf_map_lookup_elem(&pk_readers, &lane);
    if (!count || !reader)
        return XDP_PASS;
    if (pk_is_canary(ctx)) {
        count->canaries += *reader != 0;
        return *reader ? XDP_PASS : XDP_DROP;
    }
    count->packets++;
    count->bytes += bpf_xdp_get_buff_len(ctx);
    if (*reader)
        return XDP_PASS;
    count->unread++;
    return XDP_DROP;
}

/* On the outer end: a lane receives and never sends. */
SEC("xdp.frags")
int pk_lane_guard(struct xdp_md *ctx)
{
    __u32 lane = lane_id;
    struct pk_lane_counters *count = bpf_map_lookup_elem(&pk_lane_counts, &lane);
    (void)ctx;
    if (count)
        count->blocked++;
    return XDP_DROP;
}

#include "broker/bpf/inline.bpf.h"

/* For tests and benches: what the decision is, and what a program costs that decides nothing. */
__u32 probe_mode;
__u32 probe_hash;
__u32 probe_reason;
__u64 probe_flow[sizeof(struct pk_flow) / 8];

SEC("xdp.frags")
int pk_probe(struct xdp_md *ctx)
{
    __u32 hash = 0;
    probe_reason = decide(ctx, (__u32)bpf_xdp_get_buff_len(ctx), probe_mode, &hash);
    probe_hash = hash;
    return XDP_PASS;
}

/* What the whole parser sees. */
SEC("xdp.frags")
int pk_probe_flow(struct xdp_md *ctx)
{
    __u32 hash = 0, zero = 0;
    struct pk_parser *parser = bpf_map_lookup_elem(&pk_parsers, &zero);
    probe_reason = decide_slow(ctx, (__u32)bpf_xdp_get_buff_len(ctx), probe_mode, &hash);
    probe_hash = hash;
    if (parser)
        __builtin_memcpy(probe_flow, &parser->flow, sizeof probe_flow);
    return XDP_PASS;
}

/* Would the group probe_group get the packet, as far as shunts go? */
__u32 probe_group;
__u32 probe_shunted;

SEC("xdp.frags")
int pk_probe_shunt(struct xdp_md *ctx)
{
    __u32 hash = 0, zero = 0, size = (__u32)bpf_xdp_get_buff_len(ctx);
    probe_shunted = 0;
    if ((pk_shunt_groups() >> (probe_group & 63) & 1) == 0)
        return XDP_PASS;
    decide_slow(ctx, size, probe_mode, &hash);
    struct pk_parser *parser = bpf_map_lookup_elem(&pk_parsers, &zero);
    struct pk_shunt_packet packet;
    if (parser && pk_shunt_packet_set(&packet, &parser->flow, size, probe_group))
        probe_shunted = (__u32)pk_shunt_takes(&packet);
    return XDP_PASS;
}

/* Where the tap's program would send the packet: its channel, and a lane per target of it. */
__u32 probe_channel;
__u32 probe_lanes[PK_TARGETS_MAX];

SEC("xdp.frags")
int pk_tap_probe(struct xdp_md *ctx)
{
    struct pk_packet *packet = pk_packet_begin(ctx);
    if (!packet)
        return XDP_PASS;
    packet->shunts = 0;
    __u32 channel = look(ctx, packet);
    probe_channel = channel;
    if (channel >= PK_CHANNELS)
        return XDP_PASS;
#pragma clang loop unroll(disable)
    for (__u32 i = 0; i < PK_TARGETS_MAX; i++)
        probe_lanes[i] = i < instance.channels[channel].count
                             ? lane_of_target(ctx, packet, instance.channels[channel].targets + i)
                             : PK_NO_LANE;
    return XDP_PASS;
}

SEC("xdp.frags")
int pk_empty(struct xdp_md *ctx)
{
    (void)ctx;
    return XDP_PASS;
}

/* The license helpers ask for; the source itself may also be used under Apache-2.0. */
char _license[] SEC("license") = "GPL";
