/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Inline taps: what their BPF programs and the agent have in common. Part of the pinned layout, as
 * abi.h.
 *
 * A side of an inline tap is 0 (A) or 1 (B). A direction is called by the side that its packets
 * come in at: they go into the lane by the end of that side and come back by the other one.
 */
#ifndef PICKET_BROKER_BPF_INLINE_H
#define PICKET_BROKER_BPF_INLINE_H

#include <linux/types.h>

#define PK_SIDES 2u

/* Probe frames: the agent sends them into a lane's outer end, the tool copies them like any packet,
 * the program at the other outer end takes them. The token is the instance's secret, so that nobody
 * on the wire can keep a dead lane alive. */
#define PK_PROBE_TYPE 0x88b5u /* local experimental (IEEE 802, clause 9.2.4) */
#define PK_PROBE_SIZE 60u     /* the shortest frame of Ethernet */
struct pk_probe_frame {
    __u8 target[6];
    __u8 source[6];
    __be16 type;
    __be16 side; /* the one that it goes in at */
    __be32 zero;
    __u64 token;
    __u8 rest[PK_PROBE_SIZE - 28];
} __attribute__((packed));

/* Per lane. The times are of CLOCK_MONOTONIC_COARSE, in ns, and by direction. A direction is
 * unanswered since asked when asked > alive. */
struct pk_inline_state {
    __u64 asked[PK_SIDES]; /* the first packet was sent since something came back */
    __u64 alive[PK_SIDES]; /* something came back */
};

/* Per tap and direction. packets = sent + bypassed + blocked + not_sent;
 * no_lane + unanswered + odd_tag = bypassed + blocked + what of not_sent was to be bypassed. */
struct pk_inline_counters {
    __u64 packets;
    __u64 bytes;
    __u64 sent; /* into a lane */
    __u64 sent_bytes;
    __u64 bypassed; /* straight to the other side */
    __u64 bypassed_bytes;
    __u64 blocked; /* dropped, since the tap fails closed */
    __u64 blocked_bytes;
    __u64 not_sent;   /* dropped: no interface to send it to, or too large for this kernel */
    __u64 no_lane;    /* why: no lane has a tool */
    __u64 unanswered; /* why: the lane's tool does not answer */
    __u64 odd_tag;    /* why: its VLAN tag cannot be kept through a tool */
};

/* Per lane and direction. sent = arrived + what the lane's receive ring had no room for;
 * arrived = unread + dropped by the tool + returned + not_sent */
struct pk_inline_lane_counters {
    __u64 sent;
    __u64 sent_bytes;
    __u64 arrived;
    __u64 arrived_bytes;
    __u64 unread;
    __u64 returned;
    __u64 returned_bytes;
    __u64 not_sent; /* came back, and could not be sent: as of a tap */
    __u64 probes;   /* arrived in the lane; not in arrived */
    __u64 answered; /* probes that came back; not in returned */
};

/* Of the agent; programs do not read them. */
struct pk_inline_tap_record {
    char key[192]; /* "" = free; PK_KEY_SIZE */
    __u64 build;
    __u64 began;      /* CLOCK_REALTIME, ns: when its counters were 0 */
    __u64 fail_after; /* ns */
    __u32 ifindex[PK_SIDES];
    __u32 mode[PK_SIDES]; /* enum pk_xdp_mode */
    __u32 group;
    __u32 closed;
};

/* Of a lane; beside its pk_lane_record. All 0: the lane is not inline. */
struct pk_inline_lane_record {
    __u32 outer[PK_SIDES];
    __u32 inner[PK_SIDES];
};

_Static_assert(sizeof(struct pk_probe_frame) == PK_PROBE_SIZE, "a probe is a shortest frame");
_Static_assert(sizeof(struct pk_inline_state) == 32, "part of the pinned layout");
_Static_assert(sizeof(struct pk_inline_counters) == 96, "part of the pinned layout");
_Static_assert(sizeof(struct pk_inline_lane_counters) == 80, "part of the pinned layout");
_Static_assert(sizeof(struct pk_inline_tap_record) == 240, "part of the pinned layout");
_Static_assert(sizeof(struct pk_inline_lane_record) == 16, "part of the pinned layout");

#endif
