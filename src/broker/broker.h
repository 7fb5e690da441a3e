/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The traffic plane: XDP programs that take a tap's packets to the lanes of its group, whole flows
 * to one lane. Everything in the kernel is pinned below one folder, so packets flow on when the
 * agent dies; pk_broker_open() takes over what is pinned, without touching the traffic, and renews
 * programs in place when the binary's are newer.
 *
 * Keys are "fleet/tap", "fleet/group" and "fleet/group/lane". One thread at a time.
 */
#ifndef PICKET_BROKER_BROKER_H
#define PICKET_BROKER_BROKER_H

#include <jansson.h>

#include "base/common.h"
#include "base/error.h"
#include "packet/hash.h"

#define PK_SLOT_COUNT  65537u /* prime, as Maglev asks (Eisenbud et al., NSDI 2016, section 3.4) */
#define PK_SLOT_RANGES 64u    /* counters are kept per range of slots */
/* More of one is PK_E_NOSPACE. */
#define PK_BROKER_TAPS_MAX   64u
#define PK_BROKER_GROUPS_MAX 64u
#define PK_BROKER_LANES_MAX  512u

struct pk_broker;

struct pk_broker_options {
    const char *pin_dir; /* on a bpffs; made with mode 0700 */
};
int pk_broker_open(const struct pk_broker_options *options, struct pk_broker **ret_broker,
                   struct pk_error *err);
/* Leaves everything pinned and running. */
void pk_broker_close(struct pk_broker *broker);
PK_DEFINE_CLEANUP(struct pk_broker, pk_broker_close);
/* Detaches and unpins everything. Afterwards the broker can only be closed. */
int pk_broker_remove_all(struct pk_broker *broker, struct pk_error *err);
/* The same without a broker, also for pins that another version left. Absent is success. */
int pk_broker_remove_pins(const char *pin_dir, struct pk_error *err);

/* A lane: host_ifindex is the veth's outer end in the caller's namespace, the inner end is
 * inner_name in the namespace netns_fd. Attaches the inner XDP program (which turns NAPI on, counts
 * what arrives, and drops and counts while no tool reads) and the guard on the outer end (nothing
 * the lane sends gets out; counted). Idempotent; repairs what is missing. */
int pk_broker_lane_add(struct pk_broker *broker, const char *key, unsigned host_ifindex,
                       int netns_fd, const char *inner_name, struct pk_error *err);
int pk_broker_lane_remove(struct pk_broker *broker, const char *key, struct pk_error *err);
/* For a reader that has a program of its own in the place of the inner one (AF_XDP): packets that
 * go round the lanes of several groups (bpf/round.h) meet no XDP program, so they are broadcast to
 * this lane, and to those that get the same packets. Until the lane is added again. */
int pk_broker_lane_leave_round(struct pk_broker *broker, const char *key, struct pk_error *err);
/* Are the programs attached? */
bool pk_broker_lane_intact(struct pk_broker *broker, const char *key);
/* Whether some tool has a packet socket open in the lane: while not, arrivals count as unread. */
int pk_broker_lane_set_reader(struct pk_broker *broker, const char *key, bool present,
                              struct pk_error *err);
/* What was set last, also by an agent before this one. */
bool pk_broker_lane_reader(struct pk_broker *broker, const char *key);

/* A lane's packets and bytes, since it was made: to it by the taps, what arrived, and what of that
 * was dropped since no tool read. PK_E_NOTFOUND. */
struct pk_broker_lane_count {
    uint64_t sent, sent_bytes, arrived, arrived_bytes, unread;
    uint64_t canaries; /* handed to the tools besides; in none of the others */
};
int pk_broker_lane_count(struct pk_broker *broker, const char *key,
                         struct pk_broker_lane_count *ret_count, struct pk_error *err);

/* The first 8 bytes of frames that the agent itself puts into a lane: sent to its outer end, they
 * get to the tools that read the lane and are counted as canaries, not as packets. Two locally
 * administered addresses' bytes, the rest of them a secret of the instance, as they lie in memory.
 */
uint64_t pk_broker_canary_mark(const struct pk_broker *broker);

/* A lane that is not in has its slots with the other lanes; it gets the same ones back. */
enum pk_broker_part {
    PK_PART_IN,
    PK_PART_LEAVING, /* its flows may stay until they end */
    PK_PART_OUT      /* nothing stays: it takes no packets */
};
struct pk_broker_share {
    unsigned lane;   /* index in the group; the lane was added before */
    unsigned weight; /* 1.. ; 0 = gets no slots */
    enum pk_broker_part part;
};
/* Builds the slot table (Maglev) and swaps it in at once, with what is hashed for it; lanes that
 * stay keep their slots as far as the shares allow. What cannot be parsed goes to the lane with the
 * lowest index. */
int pk_broker_group_set(struct pk_broker *broker, const char *key, enum pk_hash_mode mode,
                        const struct pk_broker_share *shares, size_t count, struct pk_error *err);
/* The same, but slots of a lane that takes packets drain: new TCP flows go to the slot's new lane,
 * all else stays with the old one until those flows have ended, drain ns at most. What cannot move
 * yet (a slot that drains already) moves with a later pk_broker_drains_step(). Another hash mode
 * comes at once. */
int pk_broker_group_turn(struct pk_broker *broker, const char *key, enum pk_hash_mode mode,
                         const struct pk_broker_share *shares, size_t count, pk_nsec drain,
                         struct pk_error *err);
int pk_broker_group_remove(struct pk_broker *broker, const char *key, struct pk_error *err);

/* Ends what has drained. Each second while something drains; cheap while nothing does. Tells how
 * many slots of all groups drain still. */
int pk_broker_drains_step(struct pk_broker *broker, size_t *ret_slots, struct pk_error *err);
struct pk_broker_draining {
    size_t slots; /* 0 = the lane drains no more */
    size_t flows; /* that are alive in the lane, as of the last step */
    pk_nsec left; /* until the end at the latest */
};
/* What drains from a lane. False: there is no such lane. */
bool pk_broker_lane_draining(struct pk_broker *broker, const char *key,
                             struct pk_broker_draining *ret_draining);

/* Has it no slots at all? */
bool pk_broker_lane_is_bare(struct pk_broker *broker, const char *key);

/* Single slots to other lanes, on top of what the shares say; they move by draining. They stay
 * through pk_broker_group_turn(), while their lane is in. count 0 takes all moves back. */
struct pk_broker_move {
    uint32_t slot;
    unsigned lane; /* index in the group */
};
int pk_broker_group_move(struct pk_broker *broker, const char *key,
                         const struct pk_broker_move *moves, size_t count, pk_nsec drain,
                         struct pk_error *err);
/* Switches the count of each slot's load on or off. */
int pk_broker_group_meter(struct pk_broker *broker, const char *key, bool on, struct pk_error *err);
/* Per slot: the lane's index (UINT_MAX = none), where it would be without moves, and the load that
 * was counted since metering began (PK_LOAD_PACKET in bpf/abi.h; wraps). */
struct pk_broker_slot {
    unsigned lane, home;
    uint32_t load;
};
int pk_broker_group_slots(struct pk_broker *broker, const char *key,
                          struct pk_broker_slot slots[PK_SLOT_COUNT], struct pk_error *err);

/* More of one is PK_E_NOSPACE. */
#define PK_BROKER_TENANTS_MAX 255u /* of a tap */
#define PK_BROKER_TARGETS_MAX 8u   /* of a tenant on a tap */
#define PK_BROKER_TENANT_NAME 64u  /* bytes, with the 0 */

struct pk_broker_vlan {
    uint16_t outer; /* id of the outermost tag */
    int inner;      /* of the next one, or -1 = whatever follows */
};
struct pk_broker_prefix {
    uint8_t family; /* 4, 6 */
    uint8_t length; /* in bits */
    uint8_t address[16];
};

/* Whose packet it is: any of these, or, where all are empty, every packet. VLANs are those of the
 * outermost Ethernet header; VNI (VXLAN, GENEVE), GRE key and ERSPAN session those of the outermost
 * tunnel that has one of them; a prefix holds for either address of the innermost flow. */
struct pk_broker_tenant {
    const char *name;
    const struct pk_broker_vlan *vlans;
    size_t vlan_count;
    const uint32_t *vnis;
    size_t vni_count;
    const uint32_t *gre_keys;
    size_t gre_key_count;
    const uint16_t *erspan_sessions;
    size_t erspan_session_count;
    const struct pk_broker_prefix *prefixes;
    size_t prefix_count;
};

struct pk_filter;

/* A group that gets the packets of a tenant. A group stands once in a tap's list. */
struct pk_broker_target {
    const char *group_key;
    const char *tenant;       /* NULL or "" = what no tenant of the tap claims */
    struct pk_filter *filter; /* NULL = all; the broker holds it too (pk_filter_ref()) */
};

enum pk_broker_tap_kind {
    PK_BROKER_TAP_MIRROR, /* takes every packet of the interface */
    PK_BROKER_TAP_TUNNEL, /* takes what is sent to the machine's tunnels, leaves the rest to it */
    PK_BROKER_TAP_INLINE, /* between two interfaces */
};

/* Which tunnels end here, of a tunnel tap. */
#define PK_BROKER_TUNNEL_ENDS 64u
struct pk_broker_tunnel {
    bool vxlan, geneve, gre, erspan;
    uint16_t port; /* of VXLAN or GENEVE, of which only one is set then; 0 = 4789, 6081 */
    bool keep;     /* outer headers stay */
    size_t end_count;
    struct pk_broker_prefix ends[PK_BROKER_TUNNEL_ENDS]; /* the length says nothing */
};

struct pk_broker_tap_config {
    enum pk_broker_tap_kind kind;
    const struct pk_broker_tenant *tenants; /* the first one that claims a packet has it */
    size_t tenant_count;
    const struct pk_broker_target *targets;
    size_t target_count;
    const struct pk_broker_tunnel *tunnel; /* of PK_BROKER_TAP_TUNNEL, else NULL */
};

/* native, or generic where the driver has no XDP */
enum pk_xdp_mode { PK_XDP_NONE, PK_XDP_NATIVE, PK_XDP_GENERIC };
/* Attaches the tap's program, which is made for this configuration. Idempotent; where another
 * configuration runs, the new program takes its place at once, between two packets. The groups were
 * set before. Another XDP program on the interface that is not ours: PK_E_CONFLICT, left alone. */
int pk_broker_tap_attach(struct pk_broker *broker, const char *key, unsigned ifindex,
                         const struct pk_broker_tap_config *config, enum pk_xdp_mode *ret_mode,
                         struct pk_error *err);
/* Takes the tap's program away, but not its place and counters: its interface has gone, or is no
 * longer here. */
int pk_broker_tap_suspend(struct pk_broker *broker, const char *key, struct pk_error *err);
int pk_broker_tap_detach(struct pk_broker *broker, const char *key, struct pk_error *err);
bool pk_broker_tap_intact(struct pk_broker *broker, const char *key, unsigned ifindex);

/*
 * All counters as JSON, since the thing was added (they survive the agent):
 * {"taps":[{"key","began","packets","bytes","redirected","passed","dropped","unclaimed","copiesLost",
 *           "reasons":{"non-ip":N,...},
 *           "tenants":[{"name","began","packets","bytes"}]}],   "" = what no tenant claims; only
 *                                                               counted while there are some
 *  "groups":[{"key","began","generation","packets","bytes","filtered","shunted","shed","yielded",
 *             "noLane","notSent","sent","copied", and the bytes of each: "filteredBytes",...,
 *             "ranges":[{"packets","bytes"}*64]}],
 *  "lanes":[{"key","began","slots","sent","sentBytes",     sent towards the lane by the broker
 *            "packets","bytes",                    arrived in the lane
 *            "ringDropped",                        sent - arrived: the lane's receive ring was full
 *            "unread","blocked"}]}                 arrived while no tool read; tried to leave the
 * lane. Of a tap, each packet is in one of redirected (to one lane or more), passed (for
 * several groups: goes round their lanes, or is copied for each, further up in the kernel) and
 * dropped; unclaimed is a part of dropped. Of a group, packets = filtered + shunted + shed +
 * yielded + noLane + notSent + sent; copied is a part of sent. began: when the counters were 0
 * (CLOCK_REALTIME, ns); another one means other counters. New reference.
 */
json_t *pk_broker_counters(struct pk_broker *broker, struct pk_error *err);

/* What a group of the tap does with a packet. */
struct pk_broker_choice {
    const char *group_key;
    int lane;           /* index in the group, or -1 = to none */
    bool filtered;      /* by its filter */
    const char *reason; /* why it did not go by its own flow; "" = it did */
};
struct pk_broker_decision {
    const char *tenant; /* "" = none that is named; NULL = cannot be known: the packet is dropped */
    size_t count;
    struct pk_broker_choice targets[PK_BROKER_TARGETS_MAX];
};
/* Decides about one packet exactly as the kernel does (same parser, tenants and hash source), as
 * long as no slot drains and nothing is shunted. For replay, tests and benches. The strings live as
 * long as the tap is attached so. */
int pk_broker_decide(struct pk_broker *broker, const char *tap_key, const void *frame, size_t len,
                     struct pk_broker_decision *ret_decision, struct pk_error *err);

#endif
