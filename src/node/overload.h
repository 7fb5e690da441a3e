/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is done when a group's lanes cannot take its packets, so that whole flows are lost and not
 * some packets of all: first its large flows are shunted, then slots are shed, a few each time, of
 * the tenant with the lowest priority. When it is over they come back, one after the other, and
 * more slowly each time that this was too early.
 */
#ifndef PICKET_NODE_OVERLOAD_H
#define PICKET_NODE_OVERLOAD_H

#include <jansson.h>

#include "base/common.h"
#include "spec/rules.h"

/* A group's losses count from a share of what was sent on. */
#define PK_OVERLOAD_SHARE    0.005
#define PK_OVERLOAD_PACKETS  16u
#define PK_OVERLOAD_AFTER    (2 * PK_NSEC_PER_SEC) /* lossy for so long, before each step */
#define PK_OVERLOAD_STEP     0.10                  /* of the slots, at most, each step */
#define PK_OVERLOAD_STEP_MIN 0.01
#define PK_OVERLOAD_HOLD     (10 * PK_NSEC_PER_SEC) /* without losses, before anything comes back */
#define PK_OVERLOAD_BACK     (PK_NSEC_PER_SEC)      /* then an eighth of it each time */
#define PK_OVERLOAD_HOLD_MAX (120 * PK_NSEC_PER_SEC)

struct pk_overload {
    bool shunting;
    size_t shed; /* slots */
    double loss; /* lost / sent of the last look */
    /* not for others */
    pk_nsec lossy_since, clean_since, next_at, hold, back_at;
};

/* Of about a second. */
struct pk_overload_look {
    pk_nsec now;
    uint64_t sent, lost; /* packets, since the look before */
    size_t slots;        /* there are */
    struct pk_overload_spec may;
};

enum pk_overload_action {
    PK_OVERLOAD_NONE,
    PK_OVERLOAD_SHUNT,
    PK_OVERLOAD_SHED,
    PK_OVERLOAD_UNSHED,
    PK_OVERLOAD_UNSHUNT
};
/* What is to be done now; *ret_slots of SHED and UNSHED. The caller sets shunting and shed to what
 * came of it. Pure. */
enum pk_overload_action pk_overload_judge(struct pk_overload *state,
                                          const struct pk_overload_look *look, size_t *ret_slots);

/* A group that could be shed for another one's sake. */
struct pk_overload_candidate {
    unsigned priority; /* lower ones are shed first */
    bool may;          /* shed, and it has packets and slots left */
};
/* Whose slots are shed for the group with the number own: its own where the processors are not the
 * trouble, for then no other group's packets are; else those of the lowest priority. -1 = nobody's.
 * Pure. */
int pk_overload_victim(const struct pk_overload_candidate *candidates, size_t count, size_t own,
                       bool cpu_is_full);

/* The share of the processors' time that was spent since the last call, 0 to 1, from the text of
 * /proc/stat; state is two numbers, 0 at first. Pure. */
double pk_overload_cpu(const char *text, uint64_t state[2]);

/* {"state":"none|shunting|shedding","shedSlots","loss"} */
json_t *pk_overload_describe(const struct pk_overload *state);

struct pk_agent;
/* Each second, with the lock. */
void pk_overload_look_at(struct pk_agent *agent, pk_nsec now);

#endif
