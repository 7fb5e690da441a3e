/* SPDX-License-Identifier: Apache-2.0 */
#include "broker/rebalance.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

struct lane {
    unsigned index;
    double due; /* its part of the whole load */
    uint64_t load, home;
    uint32_t *slots; /* with load, the heaviest first */
    size_t count;
};

struct level {
    const struct pk_broker_slot *slots;
    struct lane *lanes;
    size_t count;
    uint64_t total;
};

static double weight_of(const struct pk_broker_share *share)
{
    return share->part == PK_PART_IN ? (double)share->weight : 0;
}

double pk_unevenness(const struct pk_broker_share *shares, const uint64_t *loads, size_t count)
{
    double weights = 0, total = 0, most = 0;
    for (size_t i = 0; i < count; i++) {
        weights += weight_of(&shares[i]);
        total += weight_of(&shares[i]) > 0 ? (double)loads[i] : 0;
    }
    for (size_t i = 0; i < count && total > 0; i++)
        if (weight_of(&shares[i]) > 0)
            most = PK_MAX(most, (double)loads[i] * weights / (total * weight_of(&shares[i])));
    return most > 0 ? most : 1;
}

static struct lane *find(const struct level *level, unsigned index)
{
    for (size_t i = 0; i < level->count; i++)
        if (level->lanes[i].index == index)
            return &level->lanes[i];
    return NULL;
}

static int by_load(const void *a, const void *b, void *arg)
{
    const struct pk_broker_slot *slots = arg;
    uint32_t x = slots[*(const uint32_t *)a].load, y = slots[*(const uint32_t *)b].load;
    return x < y ? 1 : x > y ? -1 : 0;
}

static void take_slots(struct level *level, uint32_t *room)
{
    for (size_t i = 0; i < level->count; i++) {
        struct lane *lane = &level->lanes[i];
        lane->slots = room;
        for (uint32_t slot = 0; slot < PK_SLOT_COUNT; slot++) {
            if (level->slots[slot].lane == lane->index && level->slots[slot].load > 0)
                lane->slots[lane->count++] = slot;
        }
        room += lane->count;
        qsort_r(lane->slots, lane->count, sizeof *lane->slots, by_load,
                (void *)(uintptr_t)level->slots);
    }
}

static double unevenness(const struct level *level, bool home)
{
    double most = 0;
    for (size_t i = 0; i < level->count; i++) {
        const struct lane *lane = &level->lanes[i];
        if (lane->due > 0)
            most = PK_MAX(most, (double)(home ? lane->home : lane->load) / lane->due);
    }
    return most > 0 ? most : 1;
}

/* The heaviest slot of the lane that weighs limit at most, or the lane's count. */
static size_t heaviest_up_to(const struct level *level, const struct lane *lane, double limit)
{
    size_t from = 0, to = lane->count;
    while (from < to) {
        size_t middle = (from + to) / 2;
        if ((double)level->slots[lane->slots[middle]].load > limit)
            from = middle + 1;
        else
            to = middle;
    }
    return from;
}

static void level_out(struct level *level, struct pk_rebalance *plan)
{
    while (plan->count < PK_MOVES_MAX) {
        struct lane *hot = NULL, *cold = NULL;
        for (size_t i = 0; i < level->count; i++) {
            struct lane *lane = &level->lanes[i];
            if (hot == NULL || (double)lane->load / lane->due > (double)hot->load / hot->due)
                hot = lane;
            if (cold == NULL || (double)lane->load / lane->due < (double)cold->load / cold->due)
                cold = lane;
        }
        /* Half way to even again, so that the next small change does not start all over. */
        if (hot == NULL || hot == cold || (double)hot->load / hot->due < (1 + PK_EVEN) / 2)
            return;
        double much = (double)hot->load - hot->due, room = cold->due - (double)cold->load;
        size_t at = heaviest_up_to(level, hot, PK_MIN(much, room));
        if (at == hot->count) {
            if (hot->count == 0 || plan->count > 0)
                return;
            uint32_t load = level->slots[hot->slots[0]].load;
            plan->elephant = (double)load > much && (double)load * 2 > (double)hot->load;
            plan->slot = hot->slots[0];
            plan->lane = hot->index;
            plan->share = (double)load / (double)hot->load;
            return;
        }
        uint32_t slot = hot->slots[at];
        hot->load -= level->slots[slot].load;
        cold->load += level->slots[slot].load;
        memmove(hot->slots + at, hot->slots + at + 1, (--hot->count - at) * sizeof *hot->slots);
        plan->moves[plan->count++] = (struct pk_broker_move){ .slot = slot, .lane = cold->index };
    }
}

int pk_rebalance(const struct pk_broker_slot slots[PK_SLOT_COUNT],
                 const struct pk_broker_share *shares, size_t count,
                 struct pk_rebalance *ret_rebalance, struct pk_error *err)
{
    struct level level = { .slots = slots };
    *ret_rebalance = (struct pk_rebalance){ .before = 1, .after = 1, .home = 1 };
    PK_CLEANUP(pk_free_p) struct lane *lanes = pk_zalloc_array(count + 1, sizeof *lanes);
    PK_CLEANUP(pk_free_p) uint32_t *room = pk_zalloc_array(PK_SLOT_COUNT, sizeof *room);
    if (lanes == NULL || room == NULL)
        return pk_no_memory(err);
    level.lanes = lanes;
    double weights = 0;
    for (size_t i = 0; i < count; i++) {
        if (weight_of(&shares[i]) <= 0)
            continue;
        lanes[level.count++] =
            (struct lane){ .index = shares[i].lane, .due = weight_of(&shares[i]) };
        weights += weight_of(&shares[i]);
    }
    for (size_t slot = 0; slot < PK_SLOT_COUNT; slot++) {
        if (slots[slot].load == 0)
            continue;
        struct lane *lane = find(&level, slots[slot].lane), *home = find(&level, slots[slot].home);
        if (lane == NULL)
            continue; /* of a lane that is not in: it moves by itself */
        lane->load += slots[slot].load;
        level.total += slots[slot].load;
        if (home != NULL)
            home->home += slots[slot].load;
    }
    if (level.count < 2 || level.total == 0)
        return 0;
    for (size_t i = 0; i < level.count; i++)
        lanes[i].due *= (double)level.total / weights;
    take_slots(&level, room);
    ret_rebalance->before = unevenness(&level, false);
    ret_rebalance->home = unevenness(&level, true);
    level_out(&level, ret_rebalance);
    ret_rebalance->after = unevenness(&level, false);
    return 0;
}
