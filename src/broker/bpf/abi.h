/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * What the BPF programs and the agent have in common: the layout of the pinned maps. It outlives
 * the binary that wrote it, so a change of anything here raises PK_BROKER_ABI; an agent that finds
 * another number starts anew instead of misreading it.
 */
#ifndef PICKET_BROKER_BPF_ABI_H
#define PICKET_BROKER_BPF_ABI_H

#include <linux/types.h>

#include "packet/fragment.h"
#include "packet/hash.h"
#include "packet/reason.h"
#include "packet/tenancy.h"

#define PK_BROKER_MAGIC 0x706b6272u /* "pkbr" */
#define PK_BROKER_ABI   3u

#define PK_TAPS_MAX    64u
#define PK_GROUPS_MAX  64u
#define PK_LANES_MAX   512u
#define PK_RANGES      64u
#define PK_KEY_SIZE    192u
#define PK_CHANNELS    256u    /* of a tap: its tenants by their numbers, last what none claims */
#define PK_TARGETS_MAX 8u      /* groups of a channel */
#define PK_REASON_ROOM 32u     /* power of 2 */
#define PK_NO_LANE     0xffffu /* in a slot */

struct pk_meta {
    __u32 magic;
    __u32 abi;
    __u64 seed; /* of the flow hash: stays, or flows would move when the agent is renewed */
};

/* A group's table: a lane's number per slot, after the slots the lane for what has no flow, and
 * what the slots are by. */
struct pk_slots {
    __u16 lane[PK_HASH_SLOTS + 1];
    __u16
        old[PK_HASH_SLOTS + 1]; /* where the slot's known flows stay (bpf/drain.h), or PK_NO_LANE */
    __u32 load[PK_HASH_SLOTS + 1]; /* if metered: PK_LOAD_PACKET a packet, and its bytes; wraps */
    __u32 mode;                    /* enum pk_hash_mode */
    __u32 draining;                /* slots that have an old lane */
    __u32 metered;
    __u32 reserved;
    __u64 drain_until; /* CLOCK_MONOTONIC, ns: when the last of them is to end at the latest */
};
#define PK_LOAD_PACKET 256u

/* A flow of a slot that drains. */
struct pk_drain_key {
    __u64 flow; /* its hash */
    __u32 group;
    __u32 slot;
};
struct pk_drain_flow {
    __u64 seen; /* CLOCK_MONOTONIC_COARSE, ns: its last packet */
    __u32 lane; /* that has it */
    __u8 is_tcp;
    __u8 ended; /* bits: either end sent FIN (1, 2), or RST (3) */
    __u16 reserved;
};
#define PK_DRAIN_FLOWS 262144u

struct pk_tap_counters {
    __u64 packets;
    __u64 bytes;
    __u64 redirected; /* to one lane or more */
    __u64 passed;     /* handed to pk_tap_copy */
    __u64 dropped;
    __u64 unclaimed; /* dropped too: its tenant has no group */
    __u64 reasons[PK_REASON_ROOM];
};

struct pk_count {
    __u64 packets;
    __u64 bytes;
};

/* What became of a group's packets. Each one is counted in all and in one of those up to handed. */
enum pk_outcome {
    PK_OUTCOME_ALL,
    PK_OUTCOME_FILTERED, /* its filter lets it not pass */
    PK_OUTCOME_SHUNTED,
    PK_OUTCOME_SHED,    /* its lanes cannot take all */
    PK_OUTCOME_YIELDED, /* shed too: the lanes of a group of higher priority cannot */
    PK_OUTCOME_NO_LANE,
    PK_OUTCOME_NOT_SENT, /* the redirect failed */
    PK_OUTCOME_SENT,
    PK_OUTCOME_HANDED, /* to pk_tap_copy; what it does not count as copied was lost */
    PK_OUTCOME_COPIED,
    PK_OUTCOMES
};

struct pk_group_counters {
    struct pk_count outcomes[PK_OUTCOMES];
    struct pk_count ranges[PK_RANGES]; /* of slots, of what has a slot */
};

struct pk_tenant_counters {
    __u64 packets;
    __u64 bytes;
};

/* What pk_tap has given to the kernel's way for pk_tap_copy to take. Added to atomically: the
 * kernel may change the CPU in between. */
struct pk_handover {
    __u64 handed;
    __u64 taken;
    __u64 lost; /* of these: they came without their lanes */
};

/* The lanes of a packet, for pk_tap_copy, in the room before the packet (32 bytes at most). */
struct pk_copies {
    __u16 magic;
    __u16 size; /* of the packet: its lower bits */
    __u16 lane[PK_TARGETS_MAX];
    __u8 group[PK_TARGETS_MAX];
    __u32 serial; /* no two packets have the same here: GRO merges none of them on their way up */
};
#define PK_COPIES_MAGIC 0x706bu
#define PK_ROUND_MAGIC  0x706cu /* each of the lanes is one of the round (bpf/round.h) */

/* How a tenant's packets come to several lanes, if not by a broadcast. */
#define PK_WAY_COPIES 1u /* too many combinations of lanes: pk_tap_copy copies each packet */
#define PK_WAY_ROUND  2u /* each packet goes round the lanes, also one for a single lane */

/* A tenant of a tap, as its instance knows it. */
struct pk_channel {
    __u16 targets; /* the first of its targets */
    __u8 count;
    __u8 ways;     /* PK_WAY_* */
    __u32 combo;   /* the first of its combinations */
    __u32 counter; /* of its counters among the tap's */
};
struct pk_target {
    __u8 group;
    __u8 mode; /* enum pk_hash_mode */
};

/* The configuration of a tap's instance, in its constants (broker/instance.c). */
struct pk_instance {
    struct pk_tenants_shape tenants;
    struct pk_channel channels[PK_CHANNELS];
    struct pk_target targets[PK_GROUPS_MAX];
    __u32 digits[PK_LANES_MAX]; /* what a lane adds to a combination's number; 0 = not known */
    __u8 modes;                 /* bits: hash modes of the targets */
    __u8 has_tenants;           /* or only the last channel has packets */
    __u8 has_filters;
    __u8 has_several;     /* some channel has more than one target */
    __u8 copies;          /* pk_tap_copy is there */
    __u8 redirects_frags; /* this kernel redirects frames in several buffers */
    __u8 unused[2];
};

struct pk_lane_counters {
    __u64 sent;
    __u64 sent_bytes;
    __u64 packets;
    __u64 bytes;
    __u64 unread;
    __u64 blocked;
    __u64 canaries; /* of the agent, handed to the tools; in none of the others */
};

/* Records of the agent, kept in maps so that a new agent finds what the old one did. Programs do
 * not read them. */
struct pk_tap_record {
    char key[PK_KEY_SIZE]; /* "" = free */
    __u64 build;           /* of the programs that are attached */
    __u64 digest;          /* of what the instance was made from */
    __u64 groups;          /* that it sends to, a bit for each */
    __u64 began;           /* CLOCK_REALTIME, ns: when its counters were 0 */
    __u32 ifindex;         /* 0 = not attached */
    __u32 mode;            /* enum pk_xdp_mode */
};

struct pk_tenant_record {
    char name[64]; /* "" = free */
    __u64 began;
};

struct pk_group_record {
    char key[PK_KEY_SIZE];
    __u64 generation; /* of the slot table; 0 = none yet */
    __u64 began;
};

struct pk_lane_record {
    char key[PK_KEY_SIZE];
    __u64 build;
    __u64 began;
    __u32 host_ifindex;
    __u32 inner_ifindex;
    __u32 index; /* in its group */
    __u32 round; /* 1 = packets may come by the round (bpf/round.h): both ends have its programs */
};

#define PK_ASSERT_SIZE(type, bytes) \
    _Static_assert(sizeof(type) == (bytes), #type " is part of the pinned layout")
PK_ASSERT_SIZE(struct pk_meta, 16);
PK_ASSERT_SIZE(struct pk_slots, 524328);
PK_ASSERT_SIZE(struct pk_drain_key, 16);
PK_ASSERT_SIZE(struct pk_drain_flow, 16);
PK_ASSERT_SIZE(struct pk_tap_counters, 304);
PK_ASSERT_SIZE(struct pk_group_counters, 1184);
PK_ASSERT_SIZE(struct pk_tenant_counters, 16);
PK_ASSERT_SIZE(struct pk_handover, 24);
PK_ASSERT_SIZE(struct pk_copies, 32);
PK_ASSERT_SIZE(struct pk_lane_counters, 56);
PK_ASSERT_SIZE(struct pk_tap_record, 232);
PK_ASSERT_SIZE(struct pk_tenant_record, 72);
PK_ASSERT_SIZE(struct pk_group_record, 208);
PK_ASSERT_SIZE(struct pk_lane_record, 224);
PK_ASSERT_SIZE(struct pk_fragment_key, 48);
PK_ASSERT_SIZE(struct pk_fragment_entry, 16);
_Static_assert(PK_REASON_COUNT <= PK_REASON_ROOM, "a reason has no counter");
_Static_assert((PK_HASH_SLOTS >> 10) == PK_RANGES,
               "a range is 1,024 slots; the last takes one more");

#endif
