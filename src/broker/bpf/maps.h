/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* The maps that all instances share: pinned, so that they outlive the agent. */
#ifndef PICKET_BROKER_BPF_MAPS_H
#define PICKET_BROKER_BPF_MAPS_H

#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#include "broker/bpf/abi.h"
#include "packet/step.h"

/* After a call about one map, in a branch whose other side does the same with another: or clang
 * makes one call of both. The kernel calls a map's own code straight only where a call is about one
 * map.
 */
#define PK_ONE_MAP(result) asm volatile("" : "+r"(result))

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
    __uint(max_entries, PK_GROUPS_MAX);
    __type(key, __u32);
    __type(value, struct pk_group_counters);
} pk_group_counts SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, PK_TAPS_MAX *PK_CHANNELS);
    __type(key, __u32);
    __type(value, struct pk_tenant_counters);
} pk_tenant_counts SEC(".maps");

/* Whose counters those are. Programs do not read it. */
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, PK_TAPS_MAX *PK_CHANNELS);
    __type(key, __u32);
    __type(value, struct pk_tenant_record);
} pk_tenants SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, PK_TAPS_MAX);
    __type(key, __u32);
    __type(value, struct pk_handover);
} pk_handovers SEC(".maps");

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

#endif
