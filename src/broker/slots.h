/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A group's slots: the lane that each of them should have, and the way there. A slot whose lane
 * changes drains: its new lane takes the flows that begin from then on, the old lane keeps those
 * that it knows, until they end or the time is over. Slots of a lane that is out move at once.
 * Pure: no kernel, no clock.
 */
#ifndef PICKET_BROKER_SLOTS_H
#define PICKET_BROKER_SLOTS_H

#include "broker/bpf/abi.h"
#include "broker/broker.h"

struct pk_slots_wish {
    const struct pk_broker_share *shares;
    const uint16_t *numbers; /* the lanes' numbers, in the shares' order */
    size_t count;
    const uint16_t *moves; /* per slot the number of the lane that it was moved to, or PK_NO_LANE;
                              NULL = no slot was moved */
};
/* Lanes' numbers for all slots and for what has no flow. While a lane is not in, its slots are with
 * the other lanes and no other slot moves; it gets the same ones back. Where no lane is in, all are
 * taken as if they were. */
void pk_slots_target(const struct pk_slots_wish *wish, uint16_t target[PK_HASH_SLOTS + 1]);

struct pk_slots_way {
    const uint16_t *target;
    const bool *usable; /* by number: flows may stay with this lane */
    pk_nsec now;        /* CLOCK_MONOTONIC */
    pk_nsec drain;      /* 0 = at once */
};
/* Goes as far towards the target as can be now: a slot that drains still moves on only when that
 * has ended. until: per slot when its drain ends. True when something changed. */
bool pk_slots_step(struct pk_slots *slots, pk_nsec until[PK_HASH_SLOTS],
                   const struct pk_slots_way *way);

#endif
