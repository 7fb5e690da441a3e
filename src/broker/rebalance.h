/* SPDX-License-Identifier: Apache-2.0 */
/* Which slots to move from hot lanes to cold ones (after RSS++ by Barbette et al., 2019).
 * Pure. */
#ifndef PICKET_BROKER_REBALANCE_H
#define PICKET_BROKER_REBALANCE_H

#include "broker/broker.h"

/* A group is uneven when its hottest lane has more than this of the mean, and even when it has less
 * than that. */
#define PK_UNEVEN 1.25
#define PK_EVEN   1.10
/* At once; the next look takes more. */
#define PK_MOVES_MAX 256u

/* Load of the hottest lane over the mean, lanes weighed by their shares; 1 where there is no load
 * or no lane. loads: in the shares' order. Lanes that are not in do not count. */
double pk_unevenness(const struct pk_broker_share *shares, const uint64_t *loads, size_t count);

struct pk_rebalance {
    struct pk_broker_move moves[PK_MOVES_MAX];
    size_t count;
    double before, after; /* unevenness, with the slots as they are, and once moved */
    double home;          /* if no slot were moved */
    /* Where nothing helps: one slot that is more than its lane should have in all. */
    bool elephant;
    uint32_t slot;
    unsigned lane;
    double share; /* of its lane's load */
};
/* Few slots: the largest that fit, from the hottest lane to the coldest, until all are even.
 * PK_E_NOMEM. */
int pk_rebalance(const struct pk_broker_slot slots[PK_SLOT_COUNT],
                 const struct pk_broker_share *shares, size_t count,
                 struct pk_rebalance *ret_rebalance, struct pk_error *err);

#endif
