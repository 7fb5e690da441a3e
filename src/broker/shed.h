/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shedding: a group's slots whose packets are left out while lanes cannot take all. What is left
 * out are whole flows, but for those under way when their slot goes or comes back. It outlives an
 * agent that is restarted, and ends by itself where none comes back. One thread at a time, with the
 * broker's other calls.
 */
#ifndef PICKET_BROKER_SHED_H
#define PICKET_BROKER_SHED_H

#include "broker/broker.h"

/* Nothing is shed any more when pk_broker_shed_renew() was not called for so long. */
#define PK_SHED_LIFE (10 * PK_NSEC_PER_SEC)

/* Why a slot is shed; each is counted for itself. */
enum pk_shed_reason {
    PK_SHED_OWN,    /* the group's own lanes cannot take all */
    PK_SHED_YIELDED /* those of a group of higher priority cannot */
};

/* Sheds a share (0 to 1) of what the lanes with true at their index (NULL = all) still get, one
 * slot at least, spread evenly over them. *ret_done: how many slots, 0 where there are none. */
int pk_broker_shed(struct pk_broker *broker, const char *key, const bool *lanes, size_t lane_count,
                   double share, enum pk_shed_reason reason, size_t *ret_done,
                   struct pk_error *err);
/* Gives so many back, of any lane, of those that were shed for this reason. */
int pk_broker_unshed(struct pk_broker *broker, const char *key, size_t count,
                     enum pk_shed_reason reason, struct pk_error *err);
/* Slots of PK_SLOT_COUNT that are shed for this reason. */
size_t pk_broker_shed_count(struct pk_broker *broker, const char *key, enum pk_shed_reason reason);
/* What is shed stays so for PK_SHED_LIFE from now. Cheap where nothing is. */
int pk_broker_shed_renew(struct pk_broker *broker, const char *key, struct pk_error *err);
/* How many slots of PK_SLOT_COUNT that go to the lane with this index are shed. */
size_t pk_broker_shed_of_lane(struct pk_broker *broker, const char *key, unsigned index,
                              size_t *ret_slots);

#endif
