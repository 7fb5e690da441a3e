/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The shunt: what the agent and the programs know of flows that leave the slow path. Part of the
 * pinned maps' layout (broker/bpf/abi.h), and the key's canonical order, which both sides build.
 *
 * A shunt is about one flow in one group, so that groups differ in what they leave out and tenants,
 * whose groups are their own, never share one.
 */
#ifndef PICKET_BROKER_BPF_SHUNT_ABI_H
#define PICKET_BROKER_BPF_SHUNT_ABI_H

#include <linux/types.h>

#include "packet/step.h"

#define PK_SHUNTS_MAX      1048576u /* entries, not allocated before they are used */
#define PK_SHUNT_FLOWS_MAX 131072u  /* flows whose bytes are counted, the least used give way */
#define PK_SHUNT_PORTS     16u      /* of a rule */
#define PK_SHUNT_BATCH     512u     /* keys that one run of pk_shunt_close takes; power of 2 */
#define PK_SHUNT_BY_SIZE   13u
/* After a FIN or RST the rest of the connection may still come for this long. */
#define PK_SHUNT_ENDED_NSEC 5000000000ull
#define PK_NSEC_IN_MS       1000000ull

#define PK_TCP_FIN 0x01u
#define PK_TCP_SYN 0x02u
#define PK_TCP_RST 0x04u
#define PK_TCP_ACK 0x10u

/* Of two ends the smaller one (address, then port, as numbers of the packet's bytes) is a. */
struct pk_shunt_key {
    __u64 a[2];
    __u64 b[2];
    __u16 a_port;
    __u16 b_port;
    __u8 proto;
    __u8 family;
    __u16 group;
};

/* Why a shunt began. */
enum pk_shunt_reason { PK_SHUNT_REQUEST, PK_SHUNT_RULE, PK_SHUNT_OVERLOAD, PK_SHUNT_REASONS };

/* Why it ended. All but PK_SHUNT_LIVE: nothing is shunted or counted by it any more. */
enum pk_shunt_state {
    PK_SHUNT_LIVE,
    PK_SHUNT_IDLE,    /* no packet came for the idle time */
    PK_SHUNT_TIME,    /* its whole time is over */
    PK_SHUNT_ENDED,   /* the connection ended (FIN, RST) */
    PK_SHUNT_RENEWED, /* another connection began with the same addresses and ports */
    PK_SHUNT_REMOVED, /* somebody asked for it, or the group is gone */
    PK_SHUNT_STATES
};

/* Times are nanoseconds of CLOCK_MONOTONIC_COARSE. Counters are added to atomically; the rest is
 * set by whoever makes the entry, but for last, until and ended, where the latest writer wins, and
 * state, which leaves PK_SHUNT_LIVE once. */
struct pk_shunt {
    __u64 packets[2]; /* not given to the group: from a to b, from b to a */
    __u64 bytes[2];
    __u64 passed_packets; /* given to it since the entry began */
    __u64 passed_bytes;
    __u64 begin;
    __u64 last;
    __u64 until; /* the end at the latest */
    __u64 keep;  /* bytes that are given to the group before anything is left out */
    __u32 idle_ms;
    __u32 state;               /* enum pk_shunt_state */
    __u8 reason;               /* enum pk_shunt_reason */
    __u8 from_b;               /* the flow's originator is b, as far as is known */
    __u8 ended;                /* a FIN or RST came */
    char by[PK_SHUNT_BY_SIZE]; /* who asked for it, NUL-terminated */
};

/* Bytes of a flow that may become one. */
struct pk_shunt_flow {
    __u64 bytes;
    __u64 last;
};

/* What becomes a shunt by itself, per group. */
struct pk_shunt_rule {
    __u64 after;     /* bytes of a flow */
    __u64 life_nsec; /* a shunt ends at the latest then */
    __u32 idle_ms;
    __u32 on;                    /* 0 = no rule */
    __u32 reason;                /* enum pk_shunt_reason */
    __u32 port_count;            /* 0 = all ports */
    __u16 ports[PK_SHUNT_PORTS]; /* either end's, as in the packet */
};

/* Numbers of pk_shunt_control. */
enum {
    PK_SHUNT_GROUPS,  /* bit = a group that has shunts or a rule: others are not looked up */
    PK_SHUNT_REFUSED, /* shunts by rule that had no room */
    PK_SHUNT_NUMBERS
};

/* Slots of a group that are shed: a bit each. */
struct pk_shed_slots {
    __u64 until; /* CLOCK_MONOTONIC: not shed any more then; the agent moves it on */
    __u32 count; /* 0 = none: the bits are not looked at */
    __u32 yielded;
    __u64 bits[PK_HASH_SLOTS / 64 + 1];
    __u64 yields[PK_HASH_SLOTS / 64 + 1]; /* of these: for a group of higher priority */
};

/* What pk_shunt_close is to close. */
struct pk_shunt_closing {
    __u32 count;
    __u32 state; /* enum pk_shunt_state that they get */
    struct pk_shunt_key keys[PK_SHUNT_BATCH];
};

_Static_assert(sizeof(struct pk_shunt_key) == 40, "part of the pinned layout");
_Static_assert(sizeof(struct pk_shunt) == 104, "with key and header the kernel's class of 192");
_Static_assert(sizeof(struct pk_shunt_rule) == 64, "part of the pinned layout");

/* Returns 1 where the flow's source is b. */
PK_INLINE int pk_shunt_key_set(struct pk_shunt_key *key, const struct pk_flow *flow, __u32 group)
{
    int swap = flow->src[0] != flow->dst[0]   ? flow->src[0] > flow->dst[0]
               : flow->src[1] != flow->dst[1] ? flow->src[1] > flow->dst[1]
                                              : flow->src_port > flow->dst_port;
    key->a[0] = swap ? flow->dst[0] : flow->src[0];
    key->a[1] = swap ? flow->dst[1] : flow->src[1];
    key->b[0] = swap ? flow->src[0] : flow->dst[0];
    key->b[1] = swap ? flow->src[1] : flow->dst[1];
    key->a_port = swap ? flow->dst_port : flow->src_port;
    key->b_port = swap ? flow->src_port : flow->dst_port;
    key->proto = flow->proto;
    key->family = flow->family;
    key->group = (__u16)group;
    return swap;
}

/* The reason to end, as of the clock; 0 = none. */
PK_INLINE __u32 pk_shunt_is_over(const struct pk_shunt *shunt, __u64 now)
{
    if (now > shunt->until)
        return shunt->ended ? PK_SHUNT_ENDED : PK_SHUNT_TIME;
    if (now > shunt->last && now - shunt->last > shunt->idle_ms * PK_NSEC_IN_MS)
        return shunt->ended ? PK_SHUNT_ENDED : PK_SHUNT_IDLE;
    return PK_SHUNT_LIVE;
}

#endif
