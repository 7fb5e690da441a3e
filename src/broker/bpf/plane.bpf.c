// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * The programs of the traffic plane. One instance of pk_tap is loaded per tap and one of pk_lane_in
 * and pk_lane_guard per lane, each with its numbers as constants, so that no packet pays for
 * finding out where it is. The maps are the same for all of them.
 */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#include "broker/bpf/abi.h"
#include "broker/bpf/inline.h"
#include "broker/bpf/shunt.h"
#include "packet/parse.h"

/* Set before an instance is loaded. */
const volatile __u64 seed;
const volatile __u32 tap_id;
const volatile __u32 group_id;
const volatile __u32 lane_id;

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct pk_meta);
} pk_meta SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, PK_TAPS_MAX);
    __type(key, __u32);
    __type(value, struct pk_tap_record);
} pk_taps SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, PK_GROUPS_MAX);
    __type(key, __u32);
    __type(value, struct pk_group_record);
} pk_groups SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, PK_LANES_MAX);
    __type(key, __u32);
    __type(value, struct pk_lane_record);
} pk_lanes SEC(".maps");

/* Per group its table, of one element: swapped at once by putting another map in its place. */
struct pk_slots_map {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __uint(key_size, sizeof(__u32));
    __uint(value_size, sizeof(struct pk_slots)); /* clang writes no type information for it here */
};
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
    __uint(max_entries, PK_GROUPS_MAX);
    __type(key, __u32);
    __array(values, struct pk_slots_map);
} pk_tables SEC(".maps");

/* The lanes' outer ends. */
struct {
    __uint(type, BPF_MAP_TYPE_DEVMAP);
    __uint(max_entries, PK_LANES_MAX);
    __type(key, __u32);
    __type(value, __u32);
} pk_ports SEC(".maps");

/* 1 = some tool reads the lane. */
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, PK_LANES_MAX);
    __type(key, __u32);
    __type(value, __u32);
} pk_readers SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __uint(max_entries, PK_FRAGMENT_ENTRIES);
    __type(key, struct pk_fragment_key);
    __type(value, struct pk_fragment_entry);
} pk_fragments SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __uint(max_entries, PK_DRAIN_FLOWS);
    __type(key, struct pk_drain_key);
    __type(value, struct pk_drain_flow);
} pk_drains SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, PK_TAPS_MAX);
    __type(key, __u32);
    __type(value, struct pk_tap_counters);
} pk_tap_counts SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, PK_GROUPS_MAX *PK_RANGES);
    __type(key, __u32);
    __type(value, struct pk_range_counters);
} pk_range_counts SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, PK_LANES_MAX);
    __type(key, __u32);
    __type(value, struct pk_lane_counters);
} pk_lane_counts SEC(".maps");

/* The parser with a copy of the packet's start: bounds in it are easier to prove than in the
 * packet.
 */
struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct pk_parser);
} pk_parsers SEC(".maps");

struct pk_fragment_memory;

static __always_inline struct pk_fragment_entry *pk_fragment_find(struct pk_fragment_memory *memory,
                                                                  const struct pk_fragment_key *key)
{
    (void)memory;
    return bpf_map_lookup_elem(&pk_fragments, key);
}

static __always_inline void pk_fragment_store(struct pk_fragment_memory *memory,
                                              const struct pk_fragment_key *key,
                                              const struct pk_fragment_entry *entry)
{
    (void)memory;
    bpf_map_update_elem(&pk_fragments, key, entry, BPF_ANY);
}

static __always_inline __u64 pk_fragment_now(struct pk_fragment_memory *memory)
{
    (void)memory;
    return bpf_ktime_get_coarse_ns();
}

#include "broker/bpf/drain.h"
#include "packet/decide.h"

/* Copies size bytes of a packet, size <= PK_PARSE_WINDOW; 0 = they are not all in its first buffer.
 * bpf_xdp_load_bytes() does the same for some 50 ns more. */
static __always_inline int copy_start(const __u8 *data, const __u8 *end, __u32 size, __u8 *out)
{
    __u32 at = 0;
    for (__u32 i = 0; i < PK_PARSE_WINDOW / 32; i++) {
        const __u64 *from = (const __u64 *)(data + at);
        if ((const __u8 *)(from + 4) > end)
            break;
        __u64 *to = (__u64 *)(out + at);
        to[0] = from[0];
        to[1] = from[1];
        to[2] = from[2];
        to[3] = from[3];
        at += 32;
    }
    /* The rest in powers of 2. at <= PK_PARSE_WINDOW, and the window has room beyond that. */
#define COPY_ONE(type)                                    \
    if (at < size && data + at + sizeof(type) <= end) {   \
        *(type *)(out + at) = *(const type *)(data + at); \
        at += sizeof(type);                               \
    }
    COPY_ONE(__u64)
    COPY_ONE(__u64)
    COPY_ONE(__u64)
    COPY_ONE(__u32)
    COPY_ONE(__u16)
    COPY_ONE(__u8)
#undef COPY_ONE
    return at >= size;
}

#include "broker/bpf/tunnel.h"

/* Everything but plain packets with ports. */
static __noinline __u32 decide_slow(struct xdp_md *ctx, __u32 size, __u32 mode, __u32 *ret_hash)
{
    __u32 zero = 0, part = size;
    struct pk_parser *parser = bpf_map_lookup_elem(&pk_parsers, &zero);
    *ret_hash = 0;
    if (!parser)
        return PK_REASON_TRUNCATED;
    if (part > PK_PARSE_WINDOW)
        part = PK_PARSE_WINDOW;
    if (!copy_start((const __u8 *)(long)ctx->data, (const __u8 *)(long)ctx->data_end, part,
                    parser->window)) {
        asm volatile("" : "+r"(part)); /* Linux 6.1's verifier has lost the bound by now */
        if (part < 1 || part > PK_PARSE_WINDOW ||
            bpf_xdp_load_bytes(ctx, 0, parser->window, part) < 0)
            return PK_REASON_TRUNCATED;
    }
    pk_parse_begin(parser, size, mode);
    tunnel_numbers(parser);
    pk_parse_all(parser);
    return pk_decide(0, &parser->flow, mode, seed, ret_hash);
}

static __always_inline __u32 decide(struct xdp_md *ctx, __u32 size, __u32 mode, __u32 *ret_hash)
{
    const __u8 *data = (const __u8 *)(long)ctx->data;
    const __u8 *end = (const __u8 *)(long)ctx->data_end;
    if (pk_parse_fast(data, end, mode, seed, ret_hash))
        return PK_REASON_NONE;
    return decide_slow(ctx, size, mode, ret_hash);
}

/* The lane of a packet whose slot drains: known by the flow, so that all of it is parsed. */
struct drain_place {
    __u32 group, slot, fresh, old;
};
static __noinline __u32 drain_slow(struct xdp_md *ctx, __u32 size, __u32 mode,
                                   const struct drain_place *place)
{
    __u32 zero = 0, hash = 0;
    struct pk_parser *parser = bpf_map_lookup_elem(&pk_parsers, &zero);
    decide_slow(ctx, size, mode, &hash);
    if (!parser)
        return place->old;
    return pk_drain_lane(&parser->flow, seed, place->group, place->slot, place->fresh, place->old);
}

/* What is done for single slots: while they drain, and while their load is measured. slot is less
 * than PK_HASH_SLOTS. Returns the packet's lane. */
static __always_inline __u32 slot_lane(struct xdp_md *ctx, __u32 size, struct pk_slots *slots,
                                       __u32 group, __u32 slot)
{
    struct drain_place place = { .group = group, .slot = slot, .fresh = slots->lane[slot] };
    if (slots->metered)
        __sync_fetch_and_add(&slots->load[slot], size + PK_LOAD_PACKET);
    if (slots->draining == 0)
        return place.fresh;
    place.old = slots->old[slot];
    return place.old == PK_NO_LANE ? place.fresh : drain_slow(ctx, size, slots->mode, &place);
}

SEC("xdp.frags")
int pk_tap(struct xdp_md *ctx)
{
    __u32 tap = tap_id, group = group_id, zero = 0, hash = 0;
    if (tunnel.types && !tunnel_open(ctx, tap))
        return XDP_PASS;
    __u64 size = bpf_xdp_get_buff_len(ctx);
    void *table = bpf_map_lookup_elem(&pk_tables, &group);
    struct pk_slots *slots = table ? bpf_map_lookup_elem(table, &zero) : 0;
    __u32 reason = decide(ctx, (__u32)size, slots ? slots->mode : PK_HASH_OUTER, &hash);

    struct pk_tap_counters *count = bpf_map_lookup_elem(&pk_tap_counts, &tap);
    if (!count)
        return XDP_DROP;
    count->packets++;
    count->bytes += size;
    if (reason != PK_REASON_NONE)
        count->reasons[reason & (PK_REASON_ROOM - 1)]++;

    __u32 slot = pk_reason_is_first_lane(reason) ? PK_HASH_SLOTS : pk_hash_slot(hash);
    __u32 lane = PK_NO_LANE;
    /* clang knows the bound and drops the check; Linux 6.1's verifier loses it on the way. */
    asm volatile("" : "+r"(slot));
    if (slots && slot < PK_HASH_SLOTS)
        lane = slot_lane(ctx, (__u32)size, slots, group, slot);
    else if (slots)
        lane = slots->lane[PK_HASH_SLOTS];
    if (lane >= PK_LANES_MAX) {
        count->reasons[PK_REASON_NO_LANE]++;
        count->dropped++;
        return XDP_DROP;
    }
    /* What has no slot is in no range: the ranges add up to the packets that went by hash. */
    if (slot < PK_HASH_SLOTS) {
        __u32 range = slot >> 10;
        if (range >= PK_RANGES)
            range = PK_RANGES - 1;
        range += group * PK_RANGES;
        struct pk_range_counters *in_range = bpf_map_lookup_elem(&pk_range_counts, &range);
        if (in_range) {
            in_range->packets++;
            in_range->bytes += size;
        }
    }
    if (bpf_redirect_map(&pk_ports, lane, XDP_DROP) != XDP_REDIRECT) {
        count->reasons[PK_REASON_NOT_SENT]++;
        count->dropped++;
        return XDP_DROP;
    }
    struct pk_lane_counters *to = bpf_map_lookup_elem(&pk_lane_counts, &lane);
    if (to) {
        to->sent++;
        to->sent_bytes += size;
    }
    count->redirected++;
    return XDP_REDIRECT;
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

SEC("xdp.frags")
int pk_empty(struct xdp_md *ctx)
{
    (void)ctx;
    return XDP_PASS;
}

/* The license helpers ask for; the source itself may also be used under Apache-2.0. */
char _license[] SEC("license") = "GPL";
