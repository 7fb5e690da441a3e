/* SPDX-License-Identifier: Apache-2.0 */
#include "node/level.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "broker/rebalance.h"
#include "node/agent.h"

#define UNEVEN_FOR   (5 * PK_NSEC_PER_SEC)
#define MEASURES_FOR (5 * PK_NSEC_PER_SEC)
/* After a look that found nothing more to move. */
#define RESTS_FOR (30 * PK_NSEC_PER_SEC)
/* How often it is seen whether slots that were moved can go home. */
#define HOME_EVERY (300 * PK_NSEC_PER_SEC)
/* Of all lanes in a second: less is not worth a move, and a second of it tells little. */
#define LOAD_MIN (2000u * PK_NODE_PACKET_LOAD)

static void stop(struct pk_agent *agent, struct pk_group *group)
{
    struct pk_error err = { 0 };
    if (group->level.state == PK_LEVEL_MEASURES &&
        pk_broker_group_meter(agent->broker, group->key, false, &err) < 0)
        pk_log_error(PK_LOG_WARN, "node", &err, "group %s", group->key);
    group->level.measures_since = group->level.uneven_since = 0;
}

static bool measure(struct pk_agent *agent, struct pk_group *group, pk_nsec now)
{
    struct pk_error err = { 0 };
    /* Off and on: the counts begin at zero. */
    int r = pk_broker_group_meter(agent->broker, group->key, false, &err);
    if (r >= 0)
        r = pk_broker_group_meter(agent->broker, group->key, true, &err);
    if (r < 0) {
        pk_log_error(PK_LOG_WARN, "node", &err, "group %s: its slots cannot be measured",
                     group->key);
        return false;
    }
    group->level.state = PK_LEVEL_MEASURES;
    group->level.measures_since = now;
    return true;
}

static size_t count_moved(const struct pk_broker_slot *slots)
{
    size_t moved = 0;
    for (size_t i = 0; i < PK_SLOT_COUNT; i++)
        moved += slots[i].lane != slots[i].home;
    return moved;
}

static void tell_elephant(struct pk_group *group, const struct pk_rebalance *plan)
{
    char said[sizeof(group->level.said)];
    (void)snprintf(said, sizeof(said),
                   "one slot (%" PRIu32 ") is %.0f %% of lane %u's load: shunt its largest flow",
                   plan->slot, plan->share * 100, plan->lane);
    group->level.state = PK_LEVEL_ELEPHANT;
    if (strcmp(said, group->level.said) != 0)
        pk_log(PK_LOG_INFO, "node", "group %s: %s", group->key, said);
    (void)snprintf(group->level.said, sizeof(group->level.said), "%s", said);
}

/* The slots' loads of some seconds are known. */
static int act(struct pk_agent *agent, struct pk_group *group, const struct pk_broker_share *shares,
               pk_nsec now, struct pk_error *err)
{
    struct pk_level *level = &group->level;
    PK_CLEANUP(pk_free_p)
    struct pk_broker_slot *slots = pk_zalloc_array(PK_SLOT_COUNT, sizeof(*slots));
    PK_CLEANUP(pk_free_p) struct pk_rebalance *plan = pk_zalloc(sizeof(*plan));
    if (slots == NULL || plan == NULL)
        return pk_no_memory(err);
    int r = pk_broker_group_slots(agent->broker, group->key, slots, err);
    if (r >= 0)
        r = pk_rebalance(slots, shares, group->share_count, plan, err);
    if (r < 0)
        return r;
    level->moved = count_moved(slots);
    bool home = level->moved > 0 && plan->home < PK_EVEN;
    if (home) {
        pk_log(PK_LOG_INFO, "node", "group %s: even by itself, %zu slots go home", group->key,
               level->moved);
        r = pk_broker_group_move(agent->broker, group->key, NULL, 0, group->drain, err);
    } else if (plan->before >= PK_EVEN && plan->count > 0) {
        pk_log(PK_LOG_INFO, "node",
               "group %s: its hottest lane has %.2f of the mean; %zu slots move: %.2f", group->key,
               plan->before, plan->count, plan->after);
        r = pk_broker_group_move(agent->broker, group->key, plan->moves, plan->count, group->drain,
                                 err);
        if (r >= 0)
            level->moved += plan->count;
    }
    if (r < 0)
        return r;
    bool more = !home && plan->count == PK_MOVES_MAX;
    stop(agent, group);
    level->state = PK_LEVEL_EVEN;
    level->said[0] = '\0';
    if (plan->elephant && plan->before >= PK_UNEVEN)
        tell_elephant(group, plan);
    if (home)
        level->moved = 0;
    level->next_at = more ? now : now + RESTS_FOR;
    level->home_at = now + HOME_EVERY;
    return 0;
}

/* What each lane got since the last look; false at the first one. */
static bool since_last(struct pk_level *level, const uint64_t *loads, size_t count,
                       uint64_t *ret_deltas)
{
    bool known = level->load_count == count && level->loads != NULL;
    for (size_t i = 0; i < count && known; i++)
        ret_deltas[i] = loads[i] - PK_MIN(loads[i], level->loads[i]);
    if (!known) {
        pk_free(level->loads);
        level->loads = pk_zalloc_array(count + 1, sizeof(*level->loads));
        level->load_count = level->loads != NULL ? count : 0;
    }
    if (level->loads != NULL)
        memcpy(level->loads, loads, count * sizeof(*loads));
    return known;
}

void pk_level_look(struct pk_agent *agent, struct pk_group *group,
                   const struct pk_broker_share *shares, const uint64_t *loads, pk_nsec now)
{
    struct pk_level *level = &group->level;
    size_t count = group->share_count;
    uint64_t total = 0;
    PK_CLEANUP(pk_free_p) uint64_t *deltas = pk_zalloc_array(count + 1, sizeof(*deltas));
    if (deltas == NULL || !since_last(level, loads, count, deltas))
        return;
    for (size_t i = 0; i < count; i++)
        total += deltas[i];
    level->unevenness = pk_unevenness(shares, deltas, count);
    if (!group->rebalance) {
        if (level->moved > 0)
            (void)pk_broker_group_move(agent->broker, group->key, NULL, 0, group->drain, NULL);
        stop(agent, group);
        level->moved = 0;
        level->said[0] = '\0';
        level->state = PK_LEVEL_OFF;
        return;
    }
    if (level->state == PK_LEVEL_OFF)
        level->state = PK_LEVEL_EVEN;
    if (total < LOAD_MIN) {
        stop(agent, group);
        level->state = PK_LEVEL_EVEN;
        return;
    }
    if (level->state == PK_LEVEL_MEASURES) {
        struct pk_error err = { 0 };
        if (now - level->measures_since >= MEASURES_FOR &&
            act(agent, group, shares, now, &err) < 0) {
            pk_log_error(PK_LOG_WARN, "node", &err, "group %s cannot be levelled", group->key);
            stop(agent, group);
            level->state = PK_LEVEL_EVEN;
            level->next_at = now + RESTS_FOR;
        }
        return;
    }
    if (level->unevenness < PK_UNEVEN) {
        level->uneven_since = 0;
        if (level->state == PK_LEVEL_ELEPHANT && level->unevenness < PK_EVEN) {
            level->state = PK_LEVEL_EVEN;
            level->said[0] = '\0';
        }
        if (level->moved > 0 && now >= level->home_at)
            (void)measure(agent, group, now);
        return;
    }
    if (level->uneven_since == 0)
        level->uneven_since = now;
    if (now - level->uneven_since >= UNEVEN_FOR && now >= level->next_at)
        (void)measure(agent, group, now);
}
