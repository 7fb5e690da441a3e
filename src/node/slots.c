/* SPDX-License-Identifier: Apache-2.0 */
/* Which lanes of a group get its packets: their health, drains, and the balance between them. */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/time.h"
#include "node/agent.h"

#define AREA "node"
/* Flows that were silent for so long have ended. */
#define QUIET (5 * PK_NSEC_PER_SEC)
/* Tools are asked each second. */
#define TOLD_MAX_AGE  (2500 * PK_NSEC_PER_MS)
#define DRAIN_INIT_MS 30000

static struct pk_lane *lane_of(struct pk_agent *agent, const struct pk_group *group, unsigned index)
{
    char key[2 * PK_NODE_NAME_MAX + 16];
    (void)snprintf(key, sizeof(key), "%s/%u", group->key, index);
    return pk_node_plane_lane(&agent->plane, key);
}

static enum pk_broker_part part_of(const struct pk_lane *lane)
{
    if (lane == NULL || !lane->working || lane->health.health <= PK_HEALTH_STALLED)
        return PK_PART_OUT;
    return lane->drained || lane->lease != 0 ? PK_PART_LEAVING : PK_PART_IN;
}

/* Its lanes have interfaces of their own: there is nothing to share out. */
static bool has_devices(struct pk_agent *agent, const struct pk_group *group)
{
    const struct pk_lane *lane = lane_of(agent, group, group->shares[0].lane);
    return lane != NULL && pk_lane_has_device(lane);
}

int pk_group_ensure(struct pk_agent *agent, struct pk_group *group, struct pk_error *err)
{
    if (group->working)
        return 0;
    if (has_devices(agent, group)) {
        group->working = true;
        group->detail[0] = '\0';
        return 0;
    }
    PK_CLEANUP(pk_free_p)
    struct pk_broker_share *shares =
        pk_memdup(group->shares, group->share_count * sizeof(*group->shares));
    if (shares == NULL)
        return pk_no_memory(err);
    for (size_t i = 0; i < group->share_count; i++)
        shares[i].part = part_of(lane_of(agent, group, shares[i].lane));
    /* Where nothing flows there is nothing to drain. */
    bool flows = group->traffic_at != 0 && pk_time_monotonic() - group->traffic_at < QUIET;
    int r = pk_broker_group_turn(agent->broker, group->key, group->hash, shares, group->share_count,
                                 flows ? group->drain : 0, err);
    /* Once: whoever removes a million shunts holds their lock, and a dead lane is not to wait. */
    if (r == 0 && !group->ruled) {
        r = pk_shunts_group_set(agent->shunts, group->fleet, group->name, &group->shunt, err);
        group->ruled = r == 0;
    }
    group->working = r == 0;
    group->detail[0] = '\0';
    if (r < 0) {
        (void)pk_wrap(err, "group %s", group->key);
        (void)snprintf(group->detail, sizeof(group->detail), "%.199s", err->msg);
    }
    return r;
}

void pk_lane_changed(struct pk_agent *agent, struct pk_lane *lane)
{
    struct pk_group *group = pk_node_plane_group(&agent->plane, lane->fleet, lane->group);
    struct pk_error err = { 0 };
    if (group == NULL)
        return;
    group->working = false;
    if (pk_group_ensure(agent, group, &err) < 0) /* the sweep tries again */
        pk_log_error(PK_LOG_WARN, AREA, &err, "group %s: its slots stay as they were", group->key);
}

/* ---- for the plane ---- */

static const char *level_name(enum pk_level_state state)
{
    static const char *const names[] = { "off", "even", "measuring", "elephant" };
    return names[state];
}

void pk_group_describe(const struct pk_group *group, json_t *row)
{
    const struct pk_level *level = &group->level;
    /* As in the fleet's own description: what is as it is by itself is not named. */
    json_t *options = json_object_get(row, "options");
    json_int_t deadline = (json_int_t)(group->drain / PK_NSEC_PER_MS);
    if (deadline != DRAIN_INIT_MS)
        (void)json_object_set_new(options, "drain", json_pack("{s:I}", "deadlineMs", deadline));
    if (!group->rebalance)
        (void)json_object_set_new(options, "rebalance", json_string("off"));
    if (group->canary != PK_CANARY_DEFAULT_MS * PK_NSEC_PER_MS)
        (void)json_object_set_new(
            options, "canary",
            json_pack("{s:I}", "everyMs", (json_int_t)(group->canary / PK_NSEC_PER_MS)));
    (void)json_object_set_new(row, "balance",
                              json_pack("{s:s,s:f,s:I,s:s}", "state", level_name(level->state),
                                        "unevenness", level->unevenness, "moved",
                                        (json_int_t)level->moved, "detail", level->said));
}

void pk_lane_describe(const struct pk_agent *agent, const struct pk_lane *lane, json_t *row)
{
    struct pk_broker_draining draining = { 0 };
    json_t *drain = json_null();
    (void)pk_broker_lane_draining(agent->broker, lane->key, &draining);
    if (lane->drained || lane->lease != 0 || draining.slots > 0)
        drain = json_pack("{s:b,s:s,s:I,s:I,s:I}", "leaving", lane->drained || lane->lease != 0,
                          "state", draining.slots > 0 ? "draining" : "drained", "slots",
                          (json_int_t)draining.slots, "flows", (json_int_t)draining.flows, "leftMs",
                          (json_int_t)(draining.left / PK_NSEC_PER_MS));
    (void)json_object_set_new(row, "health", json_string(pk_health_name(lane->health.health)));
    (void)json_object_set_new(row, "why", json_string(lane->health.why));
    (void)json_object_set_new(row, "drained", json_boolean(lane->drained));
    (void)json_object_set_new(row, "drain", drain);
    (void)json_object_set_new(row, "ends", json_integer((json_int_t)lane->ends));
    (void)json_object_set_new(row, "canary", pk_lane_canary_json(agent, lane));
    (void)json_object_set_new(row, "given", json_integer((json_int_t)lane->given));
}

/* ---- health ---- */

static void look_at_readers(const struct pk_lane *lane, struct pk_health_look *look)
{
    bool all_stopped = lane->reader_count > 0;
    look->knows_ticks = lane->reader_count > 0;
    for (size_t i = 0; i < lane->reader_count; i++) {
        uint64_t ticks = 0;
        char state = pk_reader_look(lane->readers[i].pid, &ticks);
        all_stopped &= state == 'T' || state == 't';
        look->ticks += ticks;
    }
    look->stopped = all_stopped;
}

void pk_agent_look_at_lane(struct pk_agent *agent, struct pk_lane *lane)
{
    struct pk_broker_lane_count count = { 0 };
    struct pk_health_look look = { .now = pk_time_monotonic(),
                                   .reader = lane->reader,
                                   .lost = lane->lost };
    if (!lane->working || pk_lane_has_device(lane))
        return;
    if (look.now - lane->told_at < TOLD_MAX_AGE) /* who is not asked says nothing */
        look.told = lane->told;
    if (lane->reader) {
        (void)pk_broker_lane_count(agent->broker, lane->key, &count, NULL);
        look_at_readers(lane, &look);
    }
    look.silent = lane->canary.watch.silent;
    look.told_since = lane->told > lane->canary.told;
    look.sent = count.sent;
    look.arrived = count.arrived;
    enum pk_health before = lane->health.health;
    if (!pk_health_judge(&lane->health, &look))
        return;
    const char *why = lane->health.why;
    pk_log(PK_LOG_INFO, AREA, "lane %s is %s%s%s", lane->key, pk_health_name(lane->health.health),
           why[0] != '\0' ? ": " : "", why);
    bool was_in = before > PK_HEALTH_STALLED;
    if (was_in != (lane->health.health > PK_HEALTH_STALLED))
        pk_lane_changed(agent, lane);
}

/* ---- each second ---- */

static void end_lease(struct pk_agent *agent, struct pk_lane *lane)
{
    lane->lease = 0;
    pk_log(PK_LOG_INFO, AREA, "lane %s gets its slots back", lane->key);
    pk_lane_changed(agent, lane);
}

static void look_at_drains(struct pk_agent *agent)
{
    struct pk_error err = { 0 };
    size_t slots = 0;
    if (pk_broker_drains_step(agent->broker, &slots, &err) < 0)
        pk_log_error(PK_LOG_WARN, AREA, &err, "what drains could not be looked at");
    for (size_t i = 0; i < agent->plane.lane_count; i++) {
        struct pk_lane *lane = agent->plane.lanes[i];
        struct pk_broker_draining draining = { 0 };
        if (slots > 0)
            (void)pk_broker_lane_draining(agent->broker, lane->key, &draining);
        bool before = lane->draining;
        lane->draining = draining.slots > 0;
        if (before && !lane->draining && lane->drained)
            pk_log(PK_LOG_INFO, AREA, "lane %s has drained", lane->key);
    }
}

static void look_at_group(struct pk_agent *agent, struct pk_group *group, pk_nsec now)
{
    uint64_t sent = 0;
    if (has_devices(agent, group))
        return;
    PK_CLEANUP(pk_free_p)
    uint64_t *loads = pk_zalloc_array(group->share_count + 1, sizeof(*loads));
    if (loads == NULL)
        return;
    for (size_t i = 0; i < group->share_count; i++) {
        struct pk_broker_lane_count count = { 0 };
        const struct pk_lane *lane = lane_of(agent, group, group->shares[i].lane);
        if (lane != NULL)
            (void)pk_broker_lane_count(agent->broker, lane->key, &count, NULL);
        loads[i] = count.sent * PK_NODE_PACKET_LOAD + count.sent_bytes;
        sent += count.sent;
    }
    if (sent != group->sent)
        group->traffic_at = now;
    group->sent = sent;
    if (!group->working)
        return;
    PK_CLEANUP(pk_free_p)
    struct pk_broker_share *shares =
        pk_memdup(group->shares, group->share_count * sizeof(*group->shares));
    if (shares == NULL)
        return;
    for (size_t i = 0; i < group->share_count; i++) {
        const struct pk_lane *lane = lane_of(agent, group, shares[i].lane);
        bool slow = lane != NULL && lane->health.health == PK_HEALTH_SLOW;
        shares[i].part = part_of(lane);
        shares[i].weight *= slow ? 3 : 4; /* it cannot take what the others can */
    }
    pk_level_look(agent, group, shares, loads, now);
}

void pk_agent_look_at_lanes(struct pk_agent *agent)
{
    (void)pthread_mutex_lock(&agent->lock);
    pk_nsec now = pk_time_monotonic();
    for (size_t i = 0; i < agent->plane.lane_count; i++) {
        struct pk_lane *lane = agent->plane.lanes[i];
        pk_lane_canary_look(agent, lane, now);
        pk_agent_look_at_lane(agent, lane);
        if (lane->lease != 0 && now >= lane->lease)
            end_lease(agent, lane);
    }
    if (now >= agent->second_at) {
        agent->second_at = now + PK_NSEC_PER_SEC - 10 * PK_NSEC_PER_MS;
        look_at_drains(agent);
        for (size_t i = 0; i < agent->plane.group_count; i++)
            look_at_group(agent, agent->plane.groups[i], now);
    }
    pk_overload_look_at(agent, now);
    (void)pthread_mutex_unlock(&agent->lock);
}

/* ---- calls ---- */

static int no_lane(const char *key, struct pk_error *err)
{
    (void)pk_fail(err, PK_E_NOTFOUND, "there is no lane %s on this machine", key);
    return pk_hint(err, "'picket status' lists the lanes");
}

/* Is there a lane that somebody did not take out, to take this one's flows? */
static bool has_other_lane(const struct pk_agent *agent, const struct pk_lane *lane)
{
    for (size_t i = 0; i < agent->plane.lane_count; i++) {
        const struct pk_lane *other = agent->plane.lanes[i];
        if (other != lane && !other->drained && strcmp(other->group, lane->group) == 0 &&
            strcmp(other->fleet, lane->fleet) == 0)
            return true;
    }
    return false;
}

static int turn_lane(struct pk_agent *agent, struct pk_lane *lane, bool on, struct pk_error *err)
{
    if (lane->drained == on && (on || lane->lease == 0))
        return 0;
    if (on && !has_other_lane(agent, lane)) {
        (void)pk_fail(err, PK_E_CONFLICT, "lane %s: its group has no other lane to take its flows",
                      lane->key);
        return pk_hint(err, "add a lane to the group (lanes: in the fleet file), or bring another "
                            "one back with 'picket lane restore'");
    }
    bool before = lane->drained;
    lane->drained = on;
    int r = pk_node_plane_save(&agent->plane, agent->plane_path, err);
    if (r < 0) {
        lane->drained = before;
        return r;
    }
    lane->lease = 0;
    pk_log(PK_LOG_INFO, AREA, "lane %s %s", lane->key, on ? "drains" : "gets its slots back");
    pk_lane_changed(agent, lane);
    return 0;
}

int pk_agent_drain_lane(struct pk_agent *agent, const char *key, bool on, struct pk_error *err)
{
    (void)pthread_mutex_lock(&agent->lock);
    struct pk_lane *lane = pk_node_plane_lane(&agent->plane, key);
    int r = lane == NULL ? no_lane(key, err) : turn_lane(agent, lane, on, err);
    (void)pthread_mutex_unlock(&agent->lock);
    return r;
}

static void lease_lane(struct pk_agent *agent, struct pk_lane *lane, pk_nsec lease)
{
    bool before = lane->lease != 0;
    if (lease <= 0) {
        if (before)
            end_lease(agent, lane);
        return;
    }
    lane->lease = pk_time_monotonic() + lease;
    if (before)
        return;
    pk_log(PK_LOG_INFO, AREA, "lane %s drains for a change", lane->key);
    pk_lane_changed(agent, lane);
}

int pk_agent_lease_lane(struct pk_agent *agent, const char *key, pk_nsec lease,
                        struct pk_error *err)
{
    (void)pthread_mutex_lock(&agent->lock);
    struct pk_lane *lane = pk_node_plane_lane(&agent->plane, key);
    if (lane != NULL)
        lease_lane(agent, lane, lease);
    (void)pthread_mutex_unlock(&agent->lock);
    return lane == NULL ? no_lane(key, err) : 0;
}

int pk_agent_report_lane(struct pk_agent *agent, const char *key, uint64_t told, uint64_t lost,
                         struct pk_error *err)
{
    (void)pthread_mutex_lock(&agent->lock);
    struct pk_lane *lane = pk_node_plane_lane(&agent->plane, key);
    if (lane != NULL) {
        lane->told = told;
        lane->lost = lost;
        lane->told_at = pk_time_monotonic();
    }
    (void)pthread_mutex_unlock(&agent->lock);
    return lane == NULL ? no_lane(key, err) : 0;
}
