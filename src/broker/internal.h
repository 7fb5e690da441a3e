/* SPDX-License-Identifier: Apache-2.0 */
/* The broker's inside. What the kernel holds is the truth; the records here are copies of its maps.
 */
#ifndef PICKET_BROKER_INTERNAL_H
#define PICKET_BROKER_INTERNAL_H

#include "broker/bpf/abi.h"
#include "broker/bpf/inline.h"
#include "broker/broker.h"
#include "broker/instance.h"
#include "packet/tunnel.h"

struct plane_bpf;
struct pk_fragment_memory;

/* The pinned maps, by the name they have in plane.bpf.c. */
enum pk_plane_map {
    PK_MAP_META,
    PK_MAP_TAPS,
    PK_MAP_GROUPS,
    PK_MAP_LANES,
    PK_MAP_TABLES,
    PK_MAP_PORTS,
    PK_MAP_READERS,
    PK_MAP_FRAGMENTS,
    PK_MAP_DRAINS,
    PK_MAP_TAP_COUNTS,
    PK_MAP_GROUP_COUNTS,
    PK_MAP_TENANT_COUNTS,
    PK_MAP_TENANTS,
    PK_MAP_HANDOVERS,
    PK_MAP_LANE_COUNTS,
    PK_MAP_SHUNTS,
    PK_MAP_SHUNT_RULES,
    PK_MAP_SHUNT_CONTROL,
    PK_MAP_SHUNT_FLOWS,
    PK_MAP_SHUNT_CLOSING,
    PK_MAP_SHEDS,
    PK_MAP_INLINE_TAPS,
    PK_MAP_INLINE_LANES,
    PK_MAP_INLINE_STATES,
    PK_MAP_INLINE_WIRES,
    PK_MAP_INLINE_PORTS,
    PK_MAP_INLINE_EXITS,
    PK_MAP_INLINE_COUNTS,
    PK_MAP_INLINE_LANE_COUNTS,
    PK_MAP_COUNT
};

/* What is wanted of a group's slots. Not kept in the kernel: an agent that starts says it anew, and
 * slots that were moved go home. */
struct pk_group_wish {
    struct pk_broker_share *shares; /* NULL = not said yet */
    size_t count;
    pk_nsec drain;
    uint16_t *moves;   /* per slot the number of its lane, or PK_NO_LANE; NULL = none */
    pk_nsec *began;    /* per slot, when its drain began */
    pk_nsec *until;    /* per slot, when its drain ends; NULL = none drained since the start */
    size_t *slots;     /* per lane's number, that drain from it; as of the last step */
    size_t *flows;     /* the same */
    pk_nsec *deadline; /* the same */
};

struct pk_broker {
    char *pin_dir;
    int maps[PK_MAP_COUNT];
    uint64_t seed;
    uint64_t build; /* of this binary's programs */
    bool removed;
    bool drained; /* something drained at the last step */
    struct pk_tap_record taps[PK_TAPS_MAX];
    struct pk_group_record groups[PK_GROUPS_MAX];
    struct pk_lane_record lanes[PK_LANES_MAX];
    struct pk_inline_tap_record inline_taps[PK_TAPS_MAX];
    struct pk_inline_lane_record inline_lanes[PK_LANES_MAX];
    struct pk_slots *tables[PK_GROUPS_MAX]; /* copies of what is in force; NULL = none */
    struct pk_group_wish wishes[PK_GROUPS_MAX];
    bool copies_not; /* the kernel has no pk_tap_copy */
    bool round_not;  /* nor the round (bpf/round.h) */
    struct pk_tenant_record
        *tenants[PK_TAPS_MAX];                  /* whose the tap's counters are; NULL = not read */
    struct pk_tap_setup *setups[PK_TAPS_MAX];   /* NULL = not attached since this agent started */
    struct pk_fragment_memory *fragments;       /* for pk_broker_decide() */
    int shunt_close;                            /* the program, -1 = not loaded yet */
    struct pk_shed_slots *sheds[PK_GROUPS_MAX]; /* NULL = not read */
    int parked[PK_TAPS_MAX]; /* programs of taps whose interface is not there; -1 = none */
};

/* ---- shed.c ---- */

/* Nothing of a group whose number another one may get is shed. */
int pk_shed_forget_group(struct pk_broker *broker, uint32_t group, struct pk_error *err);

/* ---- plane.c: programs, maps, links, pins ---- */

uint64_t pk_plane_build(void);
/* Opens the pinned maps or makes and pins what is missing. PK_E_CONFLICT: another layout is pinned.
 */
int pk_plane_open_maps(struct pk_broker *broker, struct pk_error *err);
int pk_map_write(struct pk_broker *broker, enum pk_plane_map map, uint32_t index, const void *value,
                 struct pk_error *err);
/* Zeroes one element of a per-CPU map. */
int pk_map_zero(struct pk_broker *broker, enum pk_plane_map map, uint32_t index, size_t size,
                struct pk_error *err);

/* The constants of an instance. */
struct pk_plane_numbers {
    uint32_t tap;
    uint32_t group;
    uint32_t lane;
    uint32_t side; /* from here on of inline taps */
    bool closed;
    uint64_t fail_after;                  /* ns */
    const struct pk_tunnel_rules *tunnel; /* NULL = no tunnel tap */
};
enum pk_plane_program {
    PK_PROGRAM_TAP,
    PK_PROGRAM_TAP_COPY,
    PK_PROGRAM_TAP_PROBE,
    PK_PROGRAM_LANE_IN,
    PK_PROGRAM_LANE_GUARD,
    PK_PROGRAM_ROUND_IN,
    PK_PROGRAM_ROUND_OUT,
    PK_PROGRAM_SHUNT_CLOSE,
    PK_PROGRAM_INLINE_WIRE,
    PK_PROGRAM_INLINE_IN,
    PK_PROGRAM_INLINE_OUT,
};
int pk_plane_load(struct pk_broker *broker, enum pk_plane_program program,
                  struct pk_plane_numbers numbers, int *ret_fd, struct pk_error *err);

/* An instance of a tap; its own maps are still empty. own: to be closed by the caller, also after a
 * failure, those that are not -1. */
int pk_plane_load_tap(struct pk_broker *broker, enum pk_plane_program program, uint32_t tap,
                      const struct pk_tap_setup *setup, const struct pk_instance_plan *plan,
                      int own[PK_OWN_COUNT], int *ret_fd, struct pk_error *err);
/* Does this kernel redirect frames that lie in several buffers? */
bool pk_plane_redirects_frags(void);

/* A pinned link of XDP or of the ingress (tcx) by name ("tap-3", "lane-0-in"). */
bool pk_link_is_on(struct pk_broker *broker, const char *name, unsigned ifindex);
/* The program of a pinned link, also of one whose interface has gone. -1 = there is none. */
int pk_link_program(struct pk_broker *broker, const char *name);
/* Puts program on ifindex and pins the link. native_only: no generic mode. */
int pk_link_attach(struct pk_broker *broker, const char *name, unsigned ifindex, int program,
                   bool native_only, enum pk_xdp_mode *ret_mode, struct pk_error *err);
/* The same at the ingress, before what else is there. PK_E_UNSUPPORTED: before Linux 6.6. */
int pk_link_attach_ingress(struct pk_broker *broker, const char *name, unsigned ifindex,
                           int program, struct pk_error *err);
/* Puts another program in the place of the one that runs, without a packet in between. */
int pk_link_renew(struct pk_broker *broker, const char *name, int program, struct pk_error *err);
/* Detaches at once and unpins; absent is success. */
int pk_link_remove(struct pk_broker *broker, const char *name, struct pk_error *err);
int pk_link_drop(const char *path, struct pk_error *err);

/* ---- tunnel.c ---- */

void pk_tunnel_rules_make(const struct pk_broker_tunnel *tunnel, struct pk_tunnel_rules *ret_rules);
/* Never 0. */
uint32_t pk_tunnel_digest(const struct pk_broker_tunnel *tunnel);

/* ---- broker.c ---- */

/* Index of the record with this key, or -1. */
int pk_record_find(const void *records, size_t size, size_t count, const char *key);
/* Checks a key's length and finds its record or a free one. */
int pk_record_take(const void *records, size_t size, size_t count, const char *key,
                   const char *what, uint32_t *ret_index, bool *ret_is_new, struct pk_error *err);
#define PK_FIND(records, key) \
    pk_record_find((records), sizeof((records)[0]), PK_ARRAY_SIZE(records), (key))
#define PK_RECORD_TAKE(records, key, what, ret_index, ret_is_new, err)                     \
    pk_record_take((records), sizeof((records)[0]), PK_ARRAY_SIZE(records), (key), (what), \
                   (ret_index), (ret_is_new), (err))
int pk_broker_check_open(struct pk_broker *broker, struct pk_error *err);

/* ---- renewal, at open, of what an older binary attached ---- */

int pk_lane_renew(struct pk_broker *broker, uint32_t id, struct pk_error *err);

/* ---- lane.c ---- */

/* Puts a program on one end of a lane. */
struct pk_lane_end {
    struct pk_broker *broker;
    const char *link; /* the pin's name */
    enum pk_plane_program program;
    struct pk_plane_numbers numbers;
    unsigned ifindex;       /* 0 = that of inner_name, which is told here */
    const char *inner_name; /* in the namespace netns_fd; NULL = an outer end */
    int netns_fd;
    bool ingress; /* a program of the ingress; else of XDP */
    bool renew;   /* the program that is there is another build's */
};
int pk_lane_end_attach(struct pk_lane_end *end, struct pk_error *err);
/* The lane's number, with its counters at zero when it is new. */
int pk_lane_take(struct pk_broker *broker, const char *key, uint32_t *ret_id, struct pk_error *err);
/* All programs of this build are attached. */
int pk_lane_done(struct pk_broker *broker, uint32_t id, unsigned host_ifindex,
                 unsigned inner_ifindex, struct pk_error *err);

/* ---- inline.c ---- */

int pk_inline_load_records(struct pk_broker *broker, struct pk_error *err);
/* Renews, at open, the programs of taps that another build attached. */
int pk_inline_taps_renew(struct pk_broker *broker, struct pk_error *err);
bool pk_inline_is_lane(struct pk_broker *broker, uint32_t id);
bool pk_inline_lane_intact(struct pk_broker *broker, uint32_t id);
int pk_inline_lane_renew(struct pk_broker *broker, uint32_t id, struct pk_error *err);
int pk_inline_lane_remove(struct pk_broker *broker, uint32_t id, struct pk_error *err);
/* The key of the inline tap that sends to the group, or NULL. */
const char *pk_inline_tap_of_group(struct pk_broker *broker, uint32_t group);
/* Adds the lists "inline" and "inlineLanes". */
int pk_inline_add_counters(struct pk_broker *broker, json_t *all, struct pk_error *err);

/* ---- counters.c ---- */

/* Adds up one element of a per-CPU map over all CPUs; values = uint64_t members of it. */
int pk_counters_sum(struct pk_broker *broker, enum pk_plane_map map, uint32_t index,
                    uint64_t *ret_sums, size_t values, struct pk_error *err);
#define PK_COUNTERS_SUM(broker, map, index, ret_counters, err)            \
    pk_counters_sum((broker), (map), (index), (uint64_t *)(ret_counters), \
                    sizeof *(ret_counters) / 8, (err))

/* ---- tap.c ---- */

/* The place of a tenant's counters among those of the tap. */
uint32_t pk_tap_tenant_counter(struct pk_broker *broker, uint32_t tap, const char *name);
/* Reads whose the places are, if that was not done yet. */
int pk_tap_load_tenants(struct pk_broker *broker, uint32_t tap, struct pk_error *err);
/* Renews the instances that were made for other lanes or hash modes than there are now. */
int pk_taps_follow(struct pk_broker *broker, struct pk_error *err);

/* ---- group.c ---- */

/* Reads the tables in force. */
int pk_group_load_tables(struct pk_broker *broker, struct pk_error *err);
/* Puts a table in force, at once. Takes slots on success. */
int pk_group_swap_table_take(struct pk_broker *broker, uint32_t group, struct pk_slots *slots,
                             struct pk_error *err);
/* The number of a group's lane, or -1. */
int pk_group_lane(struct pk_broker *broker, const char *group_key, unsigned index);
/* Takes a lane that goes out of all tables. */
int pk_group_forget_lane(struct pk_broker *broker, uint32_t lane, struct pk_error *err);

/* ---- drain.c ---- */

/* Goes towards what is wished of the group, as far as can be now. */
int pk_group_step(struct pk_broker *broker, uint32_t group, enum pk_hash_mode mode,
                  struct pk_error *err);
void pk_group_wish_done(struct pk_group_wish *wish);
void pk_group_forget_moves(struct pk_broker *broker, uint32_t group, uint32_t lane);

#endif
