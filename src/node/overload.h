/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is done when a group's lanes cannot take its packets, so that whole flows are lost and not
 * some packets of all: first its large flows are shunted, then slots are shed, a share each time,
 * of the tenant with the lowest priority. When it is over they come back, one after the other, and
 * more slowly each time that this was too early.
 *
 * It begins before anything is lost where that can be seen: when a tool's queue is half full and
 * gets fuller.
 */
#ifndef PICKET_NODE_OVERLOAD_H
#define PICKET_NODE_OVERLOAD_H

#include <jansson.h>

#include "base/common.h"
#include "node/fill.h"
#include "spec/rules.h"

/* ---- a lane ---- */

/* Losses count from a share of what was sent, and from so many packets in about a second. */
#define PK_OVERLOAD_SHARE   0.005
#define PK_OVERLOAD_PACKETS 16u
/* Of a tool's queue: room for a burst; something is done when it gets fuller, or already at low
 * when it would be full within a few seconds; as good as full. */
#define PK_OVERLOAD_FILL_LOW  0.25
#define PK_OVERLOAD_FILL_HIGH 0.5
#define PK_OVERLOAD_FILL_FULL 0.9

enum pk_overload_sign {
    PK_OVERLOAD_CALM,
    PK_OVERLOAD_BUSY,   /* not more, please */
    PK_OVERLOAD_RISING, /* nothing is lost yet, but its queue fills */
    PK_OVERLOAD_LOSES
};
#define PK_OVERLOAD_FILLS 6u
struct pk_overload_lane {
    enum pk_overload_sign sign;
    double excess; /* how much of what it gets is too much, 0 to 1; < 0 = not known */
    double fill;   /* of its fullest queue, or PK_FILL_UNKNOWN */
    double sent;   /* packets, in about a second */
    /* not for others */
    double lost, span; /* as sent; seconds */
    bool known, lost_before;
    uint64_t all_sent, all_lost, told, told_lost;
    pk_nsec looked_at, acted, told_at;
    double told_share;
    double fills[PK_OVERLOAD_FILLS]; /* of the last looks, the latest first */
    pk_nsec fills_at[PK_OVERLOAD_FILLS];
    uint64_t sents[PK_OVERLOAD_FILLS]; /* all_sent then */
    unsigned fill_count;
    double takes; /* packets a second that its tools took while they had too many; 0 = not known */
    pk_nsec full_since;
};
/* What is seen at one look. Counters since the lane was made. */
struct pk_overload_lane_look {
    pk_nsec now, acted;  /* acted: when what it gets was changed last; older losses are no guide */
    uint64_t sent, lost; /* packets; lost in its interface's ring and its tools' sockets */
    uint64_t told, told_lost; /* what its tools say: packets, and of these not taken in time */
    pk_nsec told_at;          /* when; 0 = they do not say */
    double fill, room;        /* room: packets that this queue holds, about; 0 = not known */
};
/* A few times a second. Pure. */
void pk_overload_judge_lane(struct pk_overload_lane *lane,
                            const struct pk_overload_lane_look *look);

/* ---- a group ---- */

#define PK_OVERLOAD_AFTER    (600 * PK_NSEC_PER_MS) /* too much for so long, before the first step */
#define PK_OVERLOAD_EVERY    (PK_NSEC_PER_SEC)      /* then a step, until it is enough */
#define PK_OVERLOAD_MARGIN   0.03 /* shed beyond the excess: or a full queue would stay full */
#define PK_OVERLOAD_STEP_MAX 0.6  /* of what the lanes get, each step */
#define PK_OVERLOAD_GUESS    0.1  /* where the excess is not known, twice that the next time */
#define PK_OVERLOAD_HOLD     (10 * PK_NSEC_PER_SEC) /* calm, before anything comes back */
#define PK_OVERLOAD_BACK     (2 * PK_NSEC_PER_SEC)  /* between its steps */
#define PK_OVERLOAD_BACK_MIN 0.01                   /* of all slots: the first one */
#define PK_OVERLOAD_HOLD_MAX (120 * PK_NSEC_PER_SEC)

struct pk_overload {
    bool shunting;
    size_t shed;    /* slots */
    size_t yielded; /* of these: for a group of higher priority */
    double loss;    /* lost / sent, in about a second */
    double fill;    /* of the fullest queue of its lanes, or PK_FILL_UNKNOWN */
    pk_nsec since;  /* wall clock; of what is done now */
    pk_nsec acted;
    /* not for others */
    pk_nsec bad_since, bad_at, calm_since, next_at, hold, back_at;
    double guess;
    size_t back;
};

struct pk_overload_look {
    pk_nsec now;
    enum pk_overload_sign sign; /* of the lane that is worst */
    double excess;              /* of those that have too much, together; < 0 = not known */
    size_t slots;               /* there are */
    struct pk_overload_spec may;
};

enum pk_overload_action {
    PK_OVERLOAD_NONE,
    PK_OVERLOAD_SHUNT,
    PK_OVERLOAD_SHED,
    PK_OVERLOAD_UNSHED,
    PK_OVERLOAD_UNSHUNT
};
struct pk_overload_step {
    enum pk_overload_action action;
    double share; /* SHED: of what the lanes that have too much get */
    size_t slots; /* UNSHED */
};
/* What is to be done now. The caller sets shunting, shed and yielded to what came of it. Pure. */
struct pk_overload_step pk_overload_judge(struct pk_overload *state,
                                          const struct pk_overload_look *look);
/* What has just come back was too much: the next try waits longer. Pure. */
void pk_overload_too_early(struct pk_overload *state, pk_nsec now);

/* A group that could be shed for another one's sake. */
struct pk_overload_candidate {
    unsigned priority; /* lower ones are shed first */
    bool may;          /* shed, and it has packets and slots left */
    bool shares;       /* its lanes run on the same processors */
};
/* Whose slots are shed for the group with the number own: its own where the processors are not the
 * trouble, for then no other group's packets are; else those of the lowest priority. -1 = nobody's.
 * Pure. */
int pk_overload_victim(const struct pk_overload_candidate *candidates, size_t count, size_t own,
                       bool starves);

/* {"state":"none|shunting|shedding","shedSlots","yieldedSlots","shedShare","loss","fill":null or
 * 0..1,"since"}
 */
json_t *pk_overload_describe(const struct pk_overload *state);

struct pk_agent;
/* overload_look.c: each LOOK_EVERY (node.c), with the lock. */
void pk_overload_look_at(struct pk_agent *agent, pk_nsec now);

/* ---- cpus.c: the processors ---- */

#define PK_CPUS_MAX 1024u
struct pk_cpus {
    double busy[PK_CPUS_MAX], soft[PK_CPUS_MAX]; /* of a processor's time; soft: receiving */
    bool there[PK_CPUS_MAX];
    /* not for others */
    uint64_t all[PK_CPUS_MAX], idle[PK_CPUS_MAX], softirq[PK_CPUS_MAX];
};
/* Since the last call, from the text of /proc/stat. Pure. */
void pk_cpus_update(struct pk_cpus *cpus, const char *text);
/* Nanoseconds that all threads of the process waited for a processor, since they began. */
uint64_t pk_process_waited(pid_t pid);

#endif
