/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The shunt in the tap's program: is this packet's flow one that a group is to see no more of?
 *
 * What says how a connection goes on always passes, so that the tool's picture of it stays right:
 * SYN, FIN, RST, and ICMP errors about it (the way of ncsa/dumbno). A packet without ports of its
 * own, such as a later fragment, is never shunted.
 *
 * No lock: counters are added to atomically, and an entry is taken out in two steps. First its
 * state is changed where it lies, by the program that meets it or by pk_shunt_close; then, when no
 * program runs any more that may have seen the old state, the agent reads it and deletes it. So no
 * packet is counted in an entry that has been read.
 */
#ifndef PICKET_BROKER_BPF_SHUNT_H
#define PICKET_BROKER_BPF_SHUNT_H

#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#include "broker/bpf/shunt_abi.h"

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, PK_SHUNTS_MAX);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, struct pk_shunt_key);
    __type(value, struct pk_shunt);
} pk_shunts SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, PK_GROUPS_MAX);
    __type(key, __u32);
    __type(value, struct pk_shunt_rule);
} pk_shunt_rules SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, PK_SHUNT_NUMBERS);
    __type(key, __u32);
    __type(value, __u64);
} pk_shunt_control SEC(".maps");

/* Holds a map only while some rule counts bytes. */
struct pk_shunt_flows_map {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __uint(max_entries, PK_SHUNT_FLOWS_MAX);
    __uint(key_size, sizeof(struct pk_shunt_key)); /* clang writes no type information here */
    __uint(value_size, sizeof(struct pk_shunt_flow));
};
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
    __uint(max_entries, 1);
    __type(key, __u32);
    __array(values, struct pk_shunt_flows_map);
} pk_shunt_flows SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct pk_shunt_closing);
} pk_shunt_closing SEC(".maps");

/* A packet and one group that it would go to. */
struct pk_shunt_packet {
    struct pk_shunt_key key;
    __u32 size;
    __u8 from_b;
    __u8 tcp_flags; /* 0 where the flow is not TCP */
    __u8 quoted;    /* by an ICMP error */
    __u8 reserved;
};

/* Groups that have shunts or a rule: for all others pk_shunt_takes() would say no. */
static __always_inline __u64 pk_shunt_groups(void)
{
    __u32 at = PK_SHUNT_GROUPS;
    const __u64 *groups = bpf_map_lookup_elem(&pk_shunt_control, &at);
    return groups ? *groups : 0;
}

static __always_inline void shunt_close(struct pk_shunt *shunt, __u32 state)
{
    (void)__sync_val_compare_and_swap(&shunt->state, (__u32)PK_SHUNT_LIVE, state);
}

static __always_inline void shunt_count(__u64 *packets, __u64 *bytes, __u32 size)
{
    __sync_fetch_and_add(packets, 1);
    __sync_fetch_and_add(bytes, size);
}

/* An entry was met. Returns 1 where the packet is left out. */
static __always_inline int shunt_meet(struct pk_shunt *shunt, const struct pk_shunt_packet *packet,
                                      __u64 now)
{
    __u8 flags = packet->tcp_flags;
    if (*(volatile __u32 *)&shunt->state != PK_SHUNT_LIVE)
        return 0;
    __u32 over = pk_shunt_is_over(shunt, now);
    /* The same ports again, after this connection ended or was under way. */
    if (!over && !packet->quoted && (flags & (PK_TCP_SYN | PK_TCP_ACK)) == PK_TCP_SYN &&
        (shunt->ended || shunt->packets[0] || shunt->packets[1]))
        over = PK_SHUNT_RENEWED;
    if (over) {
        shunt_close(shunt, over);
        return 0;
    }
    int passes = packet->quoted || (flags & (PK_TCP_SYN | PK_TCP_FIN | PK_TCP_RST));
    if (!packet->quoted) {
        shunt->last = now;
        if ((flags & (PK_TCP_FIN | PK_TCP_RST)) && !shunt->ended) {
            shunt->ended = 1;
            if (shunt->until > now + PK_SHUNT_ENDED_NSEC)
                shunt->until = now + PK_SHUNT_ENDED_NSEC;
        }
    }
    if (passes || shunt->passed_bytes < shunt->keep) {
        shunt_count(&shunt->passed_packets, &shunt->passed_bytes, packet->size);
        return 0;
    }
    __u32 way = packet->from_b & 1;
    shunt_count(&shunt->packets[way], &shunt->bytes[way], packet->size);
    return 1;
}

static __always_inline int shunt_port_is_in(const struct pk_shunt_rule *rule, __u16 a, __u16 b)
{
    if (rule->port_count == 0)
        return 1;
    for (__u32 i = 0; i < PK_SHUNT_PORTS; i++)
        if (i < rule->port_count && (rule->ports[i] == a || rule->ports[i] == b))
            return 1;
    return 0;
}

/* Adds the packet to its flow's bytes. Returns 1 where they are beyond what the rule gives. */
static __always_inline int shunt_is_large(const struct pk_shunt_packet *packet,
                                          const struct pk_shunt_key *key,
                                          const struct pk_shunt_rule *rule, __u64 now)
{
    __u32 zero = 0;
    if (rule->after == 0)
        return 1;
    void *flows = bpf_map_lookup_elem(&pk_shunt_flows, &zero);
    if (!flows)
        return 0;
    struct pk_shunt_flow *flow = bpf_map_lookup_elem(flows, key);
    if (!flow) {
        struct pk_shunt_flow first = { .bytes = packet->size, .last = now };
        bpf_map_update_elem(flows, key, &first, BPF_NOEXIST);
        return 0;
    }
    /* Another flow with the same ports, as far as can be told. */
    if ((now > flow->last && now - flow->last > rule->idle_ms * PK_NSEC_IN_MS) ||
        (packet->tcp_flags & (PK_TCP_SYN | PK_TCP_ACK)) == PK_TCP_SYN)
        flow->bytes = 0;
    flow->last = now;
    __sync_fetch_and_add(&flow->bytes, packet->size);
    return flow->bytes > rule->after;
}

/* Which end of a flow that began before anybody looked asked the other? The one whose port is not
 * the smaller one. */
static __always_inline __u8 shunt_guess_from_b(const struct pk_shunt_key *key)
{
    __u16 a = PK_BE16(key->a_port), b = PK_BE16(key->b_port);
    return a < b;
}

static __always_inline int shunt_begin(const struct pk_shunt_packet *packet,
                                       const struct pk_shunt_key *key,
                                       const struct pk_shunt_rule *rule, __u64 now)
{
    __u32 refused = PK_SHUNT_REFUSED, way = packet->from_b & 1;
    struct pk_shunt shunt = { .begin = now,
                              .last = now,
                              .until = now + rule->life_nsec,
                              .idle_ms = rule->idle_ms,
                              .reason = (__u8)rule->reason,
                              .from_b = shunt_guess_from_b(key) };
    /* Another CPU may have been faster: then the entry is its. */
    bpf_map_update_elem(&pk_shunts, key, &shunt, BPF_NOEXIST);
    struct pk_shunt *entry = bpf_map_lookup_elem(&pk_shunts, key);
    if (!entry) {
        __u64 *count = bpf_map_lookup_elem(&pk_shunt_control, &refused);
        if (count)
            __sync_fetch_and_add(count, 1);
        return 0;
    }
    if (*(volatile __u32 *)&entry->state != PK_SHUNT_LIVE)
        return 0;
    shunt_count(&entry->packets[way], &entry->bytes[way], packet->size);
    return 1;
}

/* Returns 1 where the group is not to get the packet; it is counted in the flow's entry then.
 * Global, so that the verifier proves it once and not per target. */
__attribute__((noinline)) int pk_shunt_takes(struct pk_shunt_packet *packet)
{
    if (!packet)
        return 0;
    struct pk_shunt_key key = packet->key; /* Linux 6.1 takes keys from the stack, not from here */
    struct pk_shunt *shunt = bpf_map_lookup_elem(&pk_shunts, &key);
    if (shunt)
        return shunt_meet(shunt, packet, bpf_ktime_get_coarse_ns());
    __u32 group = key.group;
    const struct pk_shunt_rule *rule = bpf_map_lookup_elem(&pk_shunt_rules, &group);
    if (!rule || !rule->on || packet->quoted || !shunt_port_is_in(rule, key.a_port, key.b_port))
        return 0;
    __u64 now = bpf_ktime_get_coarse_ns();
    if (!shunt_is_large(packet, &key, rule, now) ||
        (packet->tcp_flags & (PK_TCP_SYN | PK_TCP_FIN | PK_TCP_RST)))
        return 0;
    return shunt_begin(packet, &key, rule, now);
}

/* Sets up what pk_shunt_takes() asks for; 0 = the packet has no flow that can be shunted. */
static __always_inline int pk_shunt_packet_set(struct pk_shunt_packet *packet,
                                               const struct pk_flow *flow, __u32 size, __u32 group)
{
    if (flow->reason != PK_REASON_NONE || flow->proto == 0 || flow->family == 0)
        return 0;
    packet->from_b = (__u8)pk_shunt_key_set(&packet->key, flow, group);
    packet->size = size;
    packet->tcp_flags = flow->tcp_flags;
    packet->quoted = flow->quoted;
    packet->reserved = 0;
    return 1;
}

/* Run by the agent (BPF_PROG_TEST_RUN): changes the state of entries where they lie, which a write
 * from user space cannot do. */
SEC("xdp")
int pk_shunt_close(struct xdp_md *ctx)
{
    __u32 zero = 0;
    (void)ctx;
    struct pk_shunt_closing *closing = bpf_map_lookup_elem(&pk_shunt_closing, &zero);
    if (!closing)
        return XDP_PASS;
    __u32 count = closing->count, state = closing->state;
    for (__u32 i = 0; i < PK_SHUNT_BATCH && i < count; i++) {
        struct pk_shunt *shunt = bpf_map_lookup_elem(&pk_shunts, &closing->keys[i]);
        if (shunt)
            shunt_close(shunt, state);
    }
    return XDP_PASS;
}

#endif
