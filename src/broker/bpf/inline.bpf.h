/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The programs of an inline tap, included by plane.bpf.c. A packet that comes in on one of the
 * tap's two interfaces goes into a lane, is copied by the tool to the lane's other end, and goes
 * out on the other interface:
 *
 *   wire A -> pk_inline_wire -> outer end 0 | pk_inline_in -> tap0 -> tool -> tap1 -> outer end 1
 *          -> pk_inline_out -> wire B
 *
 * and the same way back. Whether the tool is alive is decided here, from what comes back, so that
 * traffic needs no process of picket's to flow past a dead tool.
 */
#ifndef PICKET_BROKER_BPF_INLINE_BPF_H
#define PICKET_BROKER_BPF_INLINE_BPF_H

/* Set before an instance is loaded. */
const volatile __u32 inline_side;
const volatile __u32 inline_closed;
const volatile __u64 inline_fail_after;
const volatile __u64 inline_token;
const volatile __u32 inline_frags; /* this kernel redirects frames in several buffers */

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, PK_TAPS_MAX);
    __type(key, __u32);
    __type(value, struct pk_inline_tap_record);
} pk_inline_taps SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, PK_LANES_MAX);
    __type(key, __u32);
    __type(value, struct pk_inline_lane_record);
} pk_inline_lanes SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, PK_LANES_MAX);
    __type(key, __u32);
    __type(value, struct pk_inline_state);
} pk_inline_states SEC(".maps");

/* By tap and side: the tap's interfaces. */
struct {
    __uint(type, BPF_MAP_TYPE_DEVMAP);
    __uint(max_entries, PK_TAPS_MAX *PK_SIDES);
    __type(key, __u32);
    __type(value, __u32);
} pk_inline_wires SEC(".maps");

/* By lane and side: the lane's outer ends. */
struct {
    __uint(type, BPF_MAP_TYPE_DEVMAP);
    __uint(max_entries, PK_LANES_MAX *PK_SIDES);
    __type(key, __u32);
    __type(value, __u32);
} pk_inline_ports SEC(".maps");

/* By lane and side: the interface that what leaves by that end goes to. */
struct {
    __uint(type, BPF_MAP_TYPE_DEVMAP);
    __uint(max_entries, PK_LANES_MAX *PK_SIDES);
    __type(key, __u32);
    __type(value, __u32);
} pk_inline_exits SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, PK_TAPS_MAX *PK_SIDES);
    __type(key, __u32);
    __type(value, struct pk_inline_counters);
} pk_inline_counts SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, PK_LANES_MAX *PK_SIDES);
    __type(key, __u32);
    __type(value, struct pk_inline_lane_counters);
} pk_inline_lane_counts SEC(".maps");

#define PK_SWAP16(value) ((__be16)__builtin_bswap16(value))

/*
 * The kernel takes an outermost tag of type 0x8100 or 0x88a8 out of the packet before a packet
 * socket sees it, and what the tool sends would go without: Suricata puts it back, but always as
 * 0x8100, and not when it is all zeros. So inside a lane 0x8100 is 0x9100, which the kernel leaves
 * alone and Suricata reads as a tag too; 0x9100 is 0x9200; and what comes back as 0x8100 was
 * 0x88a8.
 */
static __always_inline int pk_tag_has_place(struct xdp_md *ctx)
{
    const __be16 *type = (const __be16 *)((__u8 *)(long)ctx->data + 12);
    if ((const void *)(type + 2) > (const void *)(long)ctx->data_end)
        return 1; /* no tag */
    return *type != PK_SWAP16(0x9200) && (*type != PK_SWAP16(0x88a8) || type[1] != 0);
}

static __always_inline void pk_tag_hide(struct xdp_md *ctx)
{
    __be16 *type = (__be16 *)((__u8 *)(long)ctx->data + 12);
    if ((void *)(type + 1) > (void *)(long)ctx->data_end)
        return;
    if (*type == PK_SWAP16(0x8100))
        *type = PK_SWAP16(0x9100);
    else if (*type == PK_SWAP16(0x9100))
        *type = PK_SWAP16(0x9200);
}

static __always_inline void pk_tag_show(struct xdp_md *ctx)
{
    __be16 *type = (__be16 *)((__u8 *)(long)ctx->data + 12);
    if ((void *)(type + 1) > (void *)(long)ctx->data_end)
        return;
    if (*type == PK_SWAP16(0x9100))
        *type = PK_SWAP16(0x8100);
    else if (*type == PK_SWAP16(0x9200))
        *type = PK_SWAP16(0x9100);
    else if (*type == PK_SWAP16(0x8100))
        *type = PK_SWAP16(0x88a8);
}

static __always_inline int pk_is_probe(struct xdp_md *ctx)
{
    const struct pk_probe_frame *probe = (const struct pk_probe_frame *)(long)ctx->data;
    return (const void *)(probe + 1) <= (const void *)(long)ctx->data_end &&
           probe->type == PK_SWAP16(PK_PROBE_TYPE) && probe->token == inline_token;
}

/* The lane's number, or one that is none: then the packet does not go through a lane. */
static __always_inline __u32 pk_inline_lane(struct xdp_md *ctx, __u32 size)
{
    __u32 group = group_id, zero = 0, hash = 0;
    void *table = bpf_map_lookup_elem(&pk_tables, &group);
    struct pk_slots *slots = table ? bpf_map_lookup_elem(table, &zero) : 0;
    if (!slots)
        return PK_NO_LANE;
    __u32 reason = decide(ctx, size, slots->mode, &hash);
    __u32 slot = pk_reason_is_first_lane(reason) ? PK_HASH_SLOTS : pk_hash_slot(hash);
    asm volatile("" : "+r"(slot)); /* see pk_tap */
    if (slot > PK_HASH_SLOTS)
        return PK_NO_LANE;
    __u32 lane = slots->lane[slot];
    if (lane >= PK_LANES_MAX)
        return PK_NO_LANE;
    __u32 *reader = bpf_map_lookup_elem(&pk_readers, &lane);
    return reader && *reader ? lane : PK_NO_LANE;
}

/* A tool that fails in one direction fails in both: it would only see halves of connections. */
static __always_inline int pk_inline_answers(const struct pk_inline_state *state, __u64 now)
{
    for (__u32 i = 0; i < PK_SIDES; i++)
        if (state->asked[i] > state->alive[i] && now > state->asked[i] &&
            now - state->asked[i] > inline_fail_after)
            return 0;
    return 1;
}

/* Something goes in. Written once per tick of the clock, so that CPUs do not fight for the line. */
static __always_inline void pk_inline_ask(struct pk_inline_state *state, __u32 side, __u64 now)
{
    __u64 asked = state->asked[side & 1];
    if (asked <= state->alive[side & 1] && asked != now)
        state->asked[side & 1] = now;
}

/* Linux before 6.3 takes such a frame, and loses it without a word. */
static __always_inline int pk_inline_too_large(struct xdp_md *ctx, __u64 size)
{
    return !inline_frags && has_frags(ctx, (__u32)size);
}

static __always_inline int pk_inline_past(struct pk_inline_counters *count, __u32 side, __u64 size)
{
    __u32 wire = tap_id * PK_SIDES + !side;
    if (inline_closed) {
        count->blocked++;
        count->blocked_bytes += size;
        return XDP_DROP;
    }
    if (bpf_redirect_map(&pk_inline_wires, wire, XDP_DROP) != XDP_REDIRECT) {
        count->not_sent++;
        return XDP_DROP;
    }
    count->bypassed++;
    count->bypassed_bytes += size;
    return XDP_REDIRECT;
}

/* On both interfaces of the tap. */
SEC("xdp.frags")
int pk_inline_wire(struct xdp_md *ctx)
{
    __u32 side = inline_side & 1, own = tap_id * PK_SIDES + side;
    __u64 size = bpf_xdp_get_buff_len(ctx);
    struct pk_inline_counters *count = bpf_map_lookup_elem(&pk_inline_counts, &own);
    if (!count)
        return XDP_DROP;
    count->packets++;
    count->bytes += size;

    if (pk_inline_too_large(ctx, size)) {
        count->not_sent++;
        return XDP_DROP;
    }

    __u32 lane = pk_inline_lane(ctx, (__u32)size);
    struct pk_inline_state *state = bpf_map_lookup_elem(&pk_inline_states, &lane);
    __u32 port = lane * PK_SIDES + side;
    struct pk_inline_lane_counters *in = bpf_map_lookup_elem(&pk_inline_lane_counts, &port);
    struct pk_lane_counters *all = bpf_map_lookup_elem(&pk_lane_counts, &lane);
    if (!state || !in || !all ||
        bpf_redirect_map(&pk_inline_ports, port, XDP_ABORTED) != XDP_REDIRECT) {
        count->no_lane++;
        return pk_inline_past(count, side, size);
    }
    if (!pk_tag_has_place(ctx)) {
        count->odd_tag++;
        return pk_inline_past(count, side, size);
    }
    __u64 now = bpf_ktime_get_coarse_ns();
    if (!pk_inline_answers(state, now)) {
        count->unanswered++;
        return pk_inline_past(count, side, size);
    }
    pk_inline_ask(state, side, now);
    pk_tag_hide(ctx);
    __u32 group = group_id;
    struct pk_group_counters *of_group = bpf_map_lookup_elem(&pk_group_counts, &group);
    if (of_group) { /* it has only seen what was not sent past it */
        count_outcome(of_group, PK_OUTCOME_ALL, (__u32)size);
        count_outcome(of_group, PK_OUTCOME_SENT, (__u32)size);
    }
    in->sent++;
    in->sent_bytes += size;
    all->sent++;
    all->sent_bytes += size;
    count->sent++;
    count->sent_bytes += size;
    return XDP_REDIRECT;
}

/* On both inner ends of the lane. What a tool's end left behind in the ring is counted, and not
 * handed to the lane's network stack. */
SEC("xdp.frags")
int pk_inline_in(struct xdp_md *ctx)
{
    __u32 lane = lane_id, side = inline_side & 1, port = lane * PK_SIDES + side;
    struct pk_inline_lane_counters *count = bpf_map_lookup_elem(&pk_inline_lane_counts, &port);
    struct pk_lane_counters *all = bpf_map_lookup_elem(&pk_lane_counts, &lane);
    struct pk_inline_state *state = bpf_map_lookup_elem(&pk_inline_states, &lane);
    __u32 *reader = bpf_map_lookup_elem(&pk_readers, &lane);
    if (!count || !all || !state || !reader)
        return XDP_DROP;
    if (pk_is_probe(ctx)) {
        /* A question as well: that a tool died is known before the first packet is lost to it. */
        pk_inline_ask(state, side, bpf_ktime_get_coarse_ns());
        count->probes++;
        return XDP_PASS;
    }
    __u64 size = bpf_xdp_get_buff_len(ctx);
    count->arrived++;
    count->arrived_bytes += size;
    all->packets++;
    all->bytes += size;
    if (*reader)
        return XDP_PASS;
    count->unread++;
    all->unread++;
    return XDP_DROP;
}

/* On both outer ends: what the tool let through. */
SEC("xdp.frags")
int pk_inline_out(struct xdp_md *ctx)
{
    __u32 lane = lane_id, side = inline_side & 1, from = !side;
    __u32 port = lane * PK_SIDES + from, end = lane * PK_SIDES + side;
    struct pk_inline_lane_counters *count = bpf_map_lookup_elem(&pk_inline_lane_counts, &port);
    struct pk_lane_counters *all = bpf_map_lookup_elem(&pk_lane_counts, &lane);
    struct pk_inline_state *state = bpf_map_lookup_elem(&pk_inline_states, &lane);
    if (!count || !all || !state)
        return XDP_DROP;
    __u64 now = bpf_ktime_get_coarse_ns();
    if (state->alive[from & 1] != now)
        state->alive[from & 1] = now;
    if (pk_is_probe(ctx)) {
        count->answered++;
        return XDP_DROP;
    }
    __u64 size = bpf_xdp_get_buff_len(ctx);
    if (pk_inline_too_large(ctx, size) ||
        bpf_redirect_map(&pk_inline_exits, end, XDP_DROP) != XDP_REDIRECT) {
        count->not_sent++;
        all->blocked++;
        return XDP_DROP;
    }
    pk_tag_show(ctx);
    count->returned++;
    count->returned_bytes += size;
    return XDP_REDIRECT;
}

#endif
