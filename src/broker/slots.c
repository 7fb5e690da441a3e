/* SPDX-License-Identifier: Apache-2.0 */
#include "broker/slots.h"

#include <string.h>

#include "broker/maglev.h"

void pk_slots_target(const struct pk_slots_wish *wish, uint16_t target[PK_HASH_SLOTS + 1])
{
    struct pk_broker_share in[PK_LANES_MAX];
    size_t count = PK_MIN(wish->count, PK_LANES_MAX);
    bool any = false, all = true;
    for (size_t i = 0; i < count; i++)
        any |= wish->shares[i].weight > 0 && wish->shares[i].part == PK_PART_IN;
    bool is_in[PK_LANES_MAX] = { false }; /* by number */
    uint16_t first = PK_NO_LANE;
    unsigned lowest = 0;
    for (size_t i = 0; i < count; i++) {
        in[i] = wish->shares[i];
        if (any && in[i].part != PK_PART_IN) {
            in[i].weight = 0;
            all = false;
        }
        if (in[i].weight == 0)
            continue;
        is_in[wish->numbers[i]] = true;
        if (first == PK_NO_LANE || in[i].lane < lowest) {
            first = wish->numbers[i];
            lowest = in[i].lane;
        }
    }
    pk_maglev_fill(wish->shares, count, target);
    for (size_t i = 0; i < PK_HASH_SLOTS; i++)
        target[i] = target[i] == PK_MAGLEV_EMPTY ? (uint16_t)PK_NO_LANE : wish->numbers[target[i]];
    target[PK_HASH_SLOTS] = first;
    for (size_t i = 0; wish->moves != NULL && i < PK_HASH_SLOTS; i++)
        if (wish->moves[i] < PK_LANES_MAX && is_in[wish->moves[i]])
            target[i] = wish->moves[i];
    if (all)
        return;
    uint16_t rest[PK_HASH_SLOTS];
    pk_maglev_fill(in, count, rest);
    for (size_t i = 0; i < PK_HASH_SLOTS; i++)
        if (target[i] != PK_NO_LANE && !is_in[target[i]])
            target[i] = wish->numbers[rest[i]];
}

bool pk_slots_step(struct pk_slots *slots, pk_nsec until[PK_HASH_SLOTS],
                   const struct pk_slots_way *way)
{
    bool changed = slots->lane[PK_HASH_SLOTS] != way->target[PK_HASH_SLOTS];
    slots->lane[PK_HASH_SLOTS] = way->target[PK_HASH_SLOTS];
    slots->draining = 0;
    slots->drain_until = 0;
    for (size_t i = 0; i < PK_HASH_SLOTS; i++) {
        uint16_t lane = slots->lane[i], old = slots->old[i], target = way->target[i];
        if (old != PK_NO_LANE && (!way->usable[old] || way->now >= until[i]))
            old = PK_NO_LANE;
        if (lane == target) {
            /* there */
        } else if (lane == PK_NO_LANE || !way->usable[lane] || target == PK_NO_LANE) {
            lane = target;
            old = old == target ? (uint16_t)PK_NO_LANE : old;
        } else if (way->drain <= 0) {
            lane = target;
            old = PK_NO_LANE;
        } else if (old == PK_NO_LANE) {
            old = lane;
            lane = target;
            until[i] = way->now + way->drain;
        }
        changed |= lane != slots->lane[i] || old != slots->old[i];
        slots->lane[i] = lane;
        slots->old[i] = old;
        if (old == PK_NO_LANE)
            continue;
        slots->draining++;
        slots->drain_until = PK_MAX(slots->drain_until, (uint64_t)until[i]);
    }
    return changed;
}
