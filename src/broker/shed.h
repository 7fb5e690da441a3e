/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shedding: a group's slots whose packets are left out while its lanes cannot take all. What is
 * left out are whole flows, but for those under way when their slot goes or comes back. It outlives
 * the agent, as all of the plane. One thread at a time, with the broker's other calls.
 */
#ifndef PICKET_BROKER_SHED_H
#define PICKET_BROKER_SHED_H

#include "broker/broker.h"

/* Sheds more of the group's slots, of those that go to the lanes with true at their index (NULL =
 * all lanes), spread evenly over them. *ret_done: how many, fewer than count where there are no
 * more. */
int pk_broker_shed(struct pk_broker *broker, const char *key, const bool *lanes, size_t lane_count,
                   size_t count, size_t *ret_done, struct pk_error *err);
/* Gives so many back, of any lane. */
int pk_broker_unshed(struct pk_broker *broker, const char *key, size_t count, struct pk_error *err);
/* Slots of PK_SLOT_COUNT that are shed. */
size_t pk_broker_shed_count(struct pk_broker *broker, const char *key);

#endif
