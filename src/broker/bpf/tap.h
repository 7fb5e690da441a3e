/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The tap's program. A packet's way: what flow it is of (bpf/look.h), whose it is (its channel),
 * then, for each group of the channel: filter, shunt, slot, drain, lane; then out to all those
 * lanes at once (bpf/send.h).
 */
#ifndef PICKET_BROKER_BPF_TAP_H
#define PICKET_BROKER_BPF_TAP_H

#include "broker/bpf/drain.h"
#include "broker/bpf/filter.h"
#include "broker/bpf/look.h"
#include "broker/bpf/maps.h"
#include "broker/bpf/shed.h"
#include "broker/bpf/shunt.h"
#include "packet/tenant.h"

/* ---- the configuration of an instance (broker/instance.c) ---- */

const volatile struct pk_instance instance;

/* Private to the instance: what its tenants are told by. */
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, __u32);
} pk_own_vlans SEC(".maps");

struct pk_number {
    __u32 kind; /* PK_BY_* */
    __u32 number;
};
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 1);
    __type(key, struct pk_number);
    __type(value, __u32);
} pk_own_numbers SEC(".maps");

struct pk_prefix4_key {
    __u32 bits;
    __u32 address;
};
struct {
    __uint(type, BPF_MAP_TYPE_LPM_TRIE);
    __uint(max_entries, 1);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, struct pk_prefix4_key);
    __type(value, __u32);
} pk_own_prefixes4 SEC(".maps");

struct pk_prefix6_key {
    __u32 bits;
    __u32 address[4];
};
struct {
    __uint(type, BPF_MAP_TYPE_LPM_TRIE);
    __uint(max_entries, 1);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, struct pk_prefix6_key);
    __type(value, __u32);
} pk_own_prefixes6 SEC(".maps");

struct pk_tenants {
    struct pk_prefix6_key key; /* of a look-up: the stack has no room for it */
};

PK_INLINE __u32 pk_tenant_by_number(struct pk_tenants *tenants, __u32 kind, __u32 number)
{
    struct pk_number key = { kind, number };
    (void)tenants;
    __u32 *tenant = kind == PK_BY_VLAN ? bpf_map_lookup_elem(&pk_own_vlans, &number)
                                       : bpf_map_lookup_elem(&pk_own_numbers, &key);
    return tenant ? *tenant : PK_TENANT_NONE;
}

PK_INLINE __u32 pk_tenant_by_address(struct pk_tenants *tenants, __u32 family,
                                     const __u64 address[2])
{
    __u32 *tenant;
    struct pk_prefix6_key *key = &tenants->key;
    key->bits = family == 4 ? 32 : 128;
    __builtin_memcpy(key->address, address, sizeof key->address);
    if (family == 4) { /* its key is the beginning of the other's */
        tenant = bpf_map_lookup_elem(&pk_own_prefixes4, key);
        PK_ONE_MAP(tenant);
    } else {
        tenant = bpf_map_lookup_elem(&pk_own_prefixes6, key);
    }
    return tenant ? *tenant : PK_TENANT_NONE;
}

/* ---- a packet ---- */

#define PK_NO_LANE_WANTED (PK_NO_LANE - 1) /* as PK_NO_LANE, but by choice */

struct pk_packet {
    __u64 wanted; /* targets whose filter it passes, a bit for each */
    __u64 shunts; /* groups that have shunts or rules for them */
    __u32 size;
    __u32 hash[PK_HASH_MODES];
    __u8 reason[PK_HASH_MODES + 1];
    __u8 read;   /* the parser has the packet's start */
    __u8 parsed; /* the parser's flow is its innermost one */
    __u16 channel;
    /* Where there are several targets: */
    __u32 combo;   /* the number of the combination of its lanes */
    __u16 last;    /* one of them */
    __u8 lanes;    /* how many */
    __u8 unwanted; /* some target leaves it out by choice */
    __u8 unknown;  /* some lane is in no combination */
    __u8 unused[3];
    struct pk_copies copies;
    struct pk_tenants tenants;
    struct pk_shunt_packet shunted;
};

/* The packet at hand: not on the stack, which is short, and whose contents the verifier tells apart
 * wherever two ways meet. */
struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct pk_packet);
} pk_own_packets SEC(".maps");

static __always_inline struct pk_packet *pk_packet_begin(struct xdp_md *ctx)
{
    __u32 zero = 0;
    struct pk_packet *packet = bpf_map_lookup_elem(&pk_own_packets, &zero);
    if (!packet)
        return 0;
    packet->wanted = ~0ull;
    packet->size = (__u32)bpf_xdp_get_buff_len(ctx);
    __builtin_memset(packet->reason, PK_REASON_NONE, sizeof packet->reason);
    packet->read = 0;
    packet->parsed = 0;
    return packet;
}

/* Functions that are not static are proved once by the verifier, whoever calls them. */

/* The parser with the packet's start, or 0. */
static __always_inline struct pk_parser *pk_read(struct xdp_md *ctx, struct pk_packet *packet)
{
    __u32 zero = 0;
    struct pk_parser *parser = bpf_map_lookup_elem(&pk_parsers, &zero);
    if (!parser || packet->read)
        return parser;
    packet->read = 1;
    return copy_window(ctx, packet->size, parser) ? parser : 0;
}

/* The innermost flow. */
__attribute__((noinline)) int pk_parse_flow(struct xdp_md *ctx, struct pk_packet *packet)
{
    if (!packet)
        return 0;
    struct pk_parser *parser = pk_read(ctx, packet);
    if (!parser)
        return 0;
    parse(parser, packet->size, PK_HASH_FLOW);
    packet->parsed = 1;
    return 1;
}

/* The hash by one mode, of what the parser has. */
__attribute__((noinline)) int pk_decide_by(struct pk_packet *packet, __u32 mode)
{
    __u32 zero = 0, hash = 0;
    struct pk_parser *parser = bpf_map_lookup_elem(&pk_parsers, &zero);
    if (!packet || !parser || mode >= PK_HASH_MODES)
        return 0;
    packet->reason[mode] = pk_decide(0, &parser->flow, mode, seed, &hash);
    packet->hash[mode] = hash;
    return 1;
}

__attribute__((noinline)) int pk_find_tenant(void)
{
    __u32 zero = 0;
    struct pk_parser *parser = bpf_map_lookup_elem(&pk_parsers, &zero);
    struct pk_packet *packet = bpf_map_lookup_elem(&pk_own_packets, &zero); /* keys lie in it */
    struct pk_tenants_shape shape = { instance.tenants.id, instance.tenants.kinds,
                                      instance.tenants.everything, instance.tenants.inside };
    if (!packet || !parser)
        return PK_TENANT_UNKNOWN;
    return (int)pk_tenant_of(0, &packet->tenants, &shape, &parser->flow);
}

/* A plain packet, which goes by its flow in all modes. */
static __always_inline __u32 look_plain(struct xdp_md *ctx, struct pk_packet *packet,
                                        struct pk_parser *parser)
{
    struct pk_tenants_shape shape = { instance.tenants.id, instance.tenants.kinds,
                                      instance.tenants.everything, instance.tenants.inside };
    __u32 channel = PK_TENANT_NONE;
    packet->parsed = 1;
    if (instance.modes & (1u << PK_HASH_OUTER | 1u << PK_HASH_FLOW)) {
        __u32 hash = pk_flow_hash(&parser->flow, PK_HASH_FLOW, seed);
        packet->hash[PK_HASH_OUTER] = hash;
        packet->hash[PK_HASH_FLOW] = hash;
    }
    if (instance.modes & 1u << PK_HASH_ADDRESSES)
        packet->hash[PK_HASH_ADDRESSES] = pk_flow_hash(&parser->flow, PK_HASH_ADDRESSES, seed);
    if (instance.has_tenants)
        channel = pk_tenant_of_whole(&packet->tenants, &shape, &parser->flow);
    if (instance.has_filters) {
        if (pk_read(ctx, packet))
            packet->wanted = pk_filter_mask(parser, packet->size, channel); /* FILTER */
    }
    return channel;
}

/* The flow by the tunnels' own addresses. */
__attribute__((noinline)) int pk_parse_outer(struct pk_packet *packet)
{
    __u32 zero = 0;
    struct pk_parser *parser = bpf_map_lookup_elem(&pk_parsers, &zero);
    if (!packet || !parser)
        return 0;
    parse(parser, packet->size, PK_HASH_OUTER);
    packet->parsed = 0; /* a shunt or a drain asks for the innermost flow again */
    return 1;
}

/* Everything but plain packets with ports that only their hash counts of. Returns the channel.
 * What most taps need is in this one function, since a call costs as much as a header. */
static __noinline __u32 look_slow(struct xdp_md *ctx, struct pk_packet *packet)
{
    const __u32 outer = 1u << PK_HASH_OUTER, both = 1u << PK_HASH_FLOW | 1u << PK_HASH_ADDRESSES;
    struct pk_parser *parser = pk_read(ctx, packet);
    __u32 channel = PK_TENANT_NONE, hash = 0;
    __u8 reason = PK_REASON_TRUNCATED;
    if (parser) {
        __u32 mode = PK_HASH_OUTER;
        if (instance.modes & 1u << PK_HASH_ADDRESSES)
            mode = PK_HASH_ADDRESSES;
        if (instance.modes & 1u << PK_HASH_FLOW)
            mode = PK_HASH_FLOW;
        if (instance.has_tenants || instance.has_filters || instance.modes != outer) {
            parse(parser, packet->size, PK_HASH_FLOW);
            packet->parsed = 1;
        } else {
            parse(parser, packet->size, PK_HASH_OUTER);
        }
        if (instance.has_tenants)
            channel = (__u32)pk_find_tenant();
        if (instance.has_filters)
            packet->wanted = pk_filter_mask(parser, packet->size, channel); /* FILTER */
        if (!packet->parsed || mode != PK_HASH_OUTER)
            reason = pk_decide(0, &parser->flow, mode, seed, &hash);
    } else if (instance.has_tenants) {
        channel = PK_TENANT_UNKNOWN;
    }
    for (__u32 i = 0; i < PK_HASH_MODES; i++) {
        packet->reason[i] = reason;
        packet->hash[i] = hash;
    }
    if (parser && (instance.modes & both) == both)
        pk_decide_by(packet, PK_HASH_ADDRESSES);
    if (parser && packet->parsed && (instance.modes & outer)) {
        pk_parse_outer(packet);
        pk_decide_by(packet, PK_HASH_OUTER);
    }
    return channel;
}

/* Returns the channel. */
static __always_inline __u32 look(struct xdp_md *ctx, struct pk_packet *packet)
{
    __u32 zero = 0;
    struct pk_parser *parser = bpf_map_lookup_elem(&pk_parsers, &zero);
    if (parser && parse_plain(ctx, parser))
        packet->channel = (__u16)look_plain(ctx, packet, parser);
    else
        packet->channel = (__u16)look_slow(ctx, packet);
    asm volatile("" ::: "memory"); /* all ways meet here in one state: see pk_parse_headers() */
    return packet->channel;
}

static __always_inline void count_outcome(struct pk_group_counters *count, __u32 outcome,
                                          __u32 size)
{
    count->outcomes[outcome].packets++;
    count->outcomes[outcome].bytes += size;
}

/* SHUNT: is the group to see no more of the packet's flow? */
__attribute__((noinline)) int pk_is_shunted(struct xdp_md *ctx, struct pk_packet *packet,
                                            __u32 group)
{
    __u32 zero = 0;
    if (!packet || (!packet->parsed && !pk_parse_flow(ctx, packet)))
        return 0;
    struct pk_parser *parser = bpf_map_lookup_elem(&pk_parsers, &zero);
    return parser && pk_shunt_packet_set(&packet->shunted, &parser->flow, packet->size, group) &&
           pk_shunt_takes(&packet->shunted);
}

/* DRAIN: the slot has an old lane, where its known flows stay. */
__attribute__((noinline)) int pk_drained_lane(struct xdp_md *ctx, struct pk_packet *packet,
                                              __u32 group, __u32 slot, __u32 lanes)
{
    __u32 zero = 0, fresh = lanes & 0xffff, old = lanes >> 16;
    if (!packet || (!packet->parsed && !pk_parse_flow(ctx, packet)))
        return (int)old;
    struct pk_parser *parser = bpf_map_lookup_elem(&pk_parsers, &zero);
    if (!parser)
        return (int)old;
    return (int)pk_drain_lane(&parser->flow, seed, group, slot, fresh, old);
}

/* What one group does with the packet: the lane that is to get it, or one that is none; then that
 * is counted. */
static __always_inline __u32 target_lane(struct xdp_md *ctx, struct pk_packet *packet, __u32 target,
                                         struct pk_group_counters *count)
{
    __u32 group = instance.targets[target & (PK_GROUPS_MAX - 1)].group, zero = 0;
    __u32 mode = instance.targets[target & (PK_GROUPS_MAX - 1)].mode, size = packet->size;
    count_outcome(count, PK_OUTCOME_ALL, size);
    if (instance.has_filters && !(packet->wanted >> (target & 63) & 1)) {
        count_outcome(count, PK_OUTCOME_FILTERED, size);
        return PK_NO_LANE_WANTED;
    }
    if ((packet->shunts >> (group & 63) & 1) && pk_is_shunted(ctx, packet, group)) {
        count_outcome(count, PK_OUTCOME_SHUNTED, size);
        return PK_NO_LANE_WANTED;
    }

    void *table = bpf_map_lookup_elem(&pk_tables, &group);
    struct pk_slots *slots = table ? bpf_map_lookup_elem(table, &zero) : 0;
    if (mode >= PK_HASH_MODES)
        mode = 0;
    __u32 slot = pk_reason_is_first_lane(packet->reason[mode]) ? PK_HASH_SLOTS
                                                               : pk_hash_slot(packet->hash[mode]);
    __u32 lane = PK_NO_LANE;
    __u32 shed = pk_shed_takes(group, slot);
    if (shed) {
        count_outcome(count, shed == PK_OUTCOME_YIELDED ? PK_OUTCOME_YIELDED : PK_OUTCOME_SHED,
                      size);
        return PK_NO_LANE_WANTED;
    }
    /* clang knows the bound and drops the check; Linux 6.1's verifier loses it on the way. */
    asm volatile("" : "+r"(slot));
    if (slots && slot <= PK_HASH_SLOTS) {
        lane = slots->lane[slot];
        if (slots->draining && slots->old[slot] != PK_NO_LANE)
            lane = (__u32)pk_drained_lane(ctx, packet, group, slot,
                                          lane | (__u32)slots->old[slot] << 16);
        if (slots->metered)
            __sync_fetch_and_add(&slots->load[slot], PK_LOAD_PACKET + size);
    }
    if (lane >= PK_LANES_MAX) {
        count_outcome(count, PK_OUTCOME_NO_LANE, size);
        return PK_NO_LANE;
    }
    /* What has no slot is in no range: the ranges add up to the packets that went by hash. */
    if (slot < PK_HASH_SLOTS) {
        __u32 range = slot >> 10 & (PK_RANGES - 1); /* the last slot's is the first range */
        count->ranges[range].packets++;
        count->ranges[range].bytes += size;
    }
    return lane;
}

#include "broker/bpf/send.h"

SEC("xdp.frags")
int pk_tap(struct xdp_md *ctx)
{
    __u32 tap = tap_id;
    if (tunnel.types && !tunnel_open(ctx, tap)) /* TUNNEL: it is the machine's own */
        return XDP_PASS;
    struct pk_packet *packet = pk_packet_begin(ctx);
    struct pk_tap_counters *count = bpf_map_lookup_elem(&pk_tap_counts, &tap);
    if (!packet || !count)
        return XDP_DROP;
    count->packets++;
    count->bytes += packet->size;
    packet->shunts = pk_shunt_groups();

    __u32 channel = look(ctx, packet);
    if (instance.has_tenants) {
        if (channel >= PK_CHANNELS) {
            count->reasons[PK_REASON_TENANT_UNKNOWN]++;
            count->dropped++;
            return XDP_DROP;
        }
        count_tenant(tap, channel, packet->size);
    } else {
        channel = PK_TENANT_NONE;
    }
    count_reason(count, packet);
    __u32 first = instance.channels[channel].targets, several = instance.channels[channel].count;
    if (several == 0) {
        count->unclaimed++;
        count->dropped++;
        return XDP_DROP;
    }
    return instance.has_several && several > 1 ? send_several(ctx, packet, count, channel)
                                               : send_one(ctx, packet, count, first);
}

#endif
