/* SPDX-License-Identifier: Apache-2.0 */
/* How taps, groups and lanes go, and what nobody asked for. */
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "base/log.h"
#include "base/time.h"
#include "node/agent.h"
#include "node/replay.h"

#define AREA "node"

/* What does not go at once is tried again with each sweep, and given up after so many. */
#define LEAVE_TRIES 20u

/* ---- groups ---- */

static struct pk_leaving *find_leaving(struct pk_agent *agent, const char *key)
{
    for (size_t i = 0; i < agent->leaving_count; i++)
        if (strcmp(agent->leaving[i].key, key) == 0)
            return &agent->leaving[i];
    return NULL;
}

void pk_agent_group_stay(struct pk_agent *agent, const char *key)
{
    struct pk_leaving *leaving = find_leaving(agent, key);
    if (leaving != NULL)
        *leaving = agent->leaving[--agent->leaving_count];
}

/* Some thousands of its shunts, and last the group itself. Their records come first: the entries
 * name the group by a number, which the next group may get. */
static int leave_step(struct pk_agent *agent, const char *key, bool *ret_done, struct pk_error *err)
{
    bool done = false;
    int r = pk_shunts_group_forget(agent->shunts, key, &done, err);
    if (r == 0 && done)
        r = pk_broker_group_remove(agent->broker, key, err);
    if (r == PK_E_NOTFOUND)
        r = 0;
    if (r == 0 && done)
        pk_agent_group_stay(agent, key); /* nothing is left to do */
    if (r == 0)
        *ret_done = done;
    return r;
}

/* There is room for as many groups as the broker can have. False when it is full. */
static bool note_leaving(struct pk_agent *agent, const char *key)
{
    if (find_leaving(agent, key) != NULL)
        return true;
    if (agent->leaving_count >= PK_ARRAY_SIZE(agent->leaving))
        return false;
    struct pk_leaving *leaving = &agent->leaving[agent->leaving_count++];
    leaving->told = false;
    (void)snprintf(leaving->key, sizeof(leaving->key), "%s", key);
    return true;
}

void pk_agent_group_leave(struct pk_agent *agent, const char *key)
{
    bool done = false;
    if (leave_step(agent, key, &done, NULL) < 0 || !done)
        (void)note_leaving(agent, key);
}

static void end_groups(struct pk_agent *agent)
{
    for (size_t i = agent->leaving_count; i-- > 0;) {
        struct pk_leaving *leaving = &agent->leaving[i];
        struct pk_error err = { 0 };
        char key[sizeof(leaving->key)];
        bool done = false;
        memcpy(key, leaving->key, sizeof(key)); /* the place may be another's afterwards */
        if (leave_step(agent, key, &done, &err) < 0 && !leaving->told) {
            leaving->told = true;
            pk_log_error(PK_LOG_WARN, AREA, &err, "group %s cannot be removed: tried again", key);
        }
    }
}

/* All of it, with the lock held. */
static int remove_group(struct pk_agent *agent, const char *key, struct pk_error *err)
{
    bool done = false;
    int r = 0;
    while (r == 0 && !done)
        r = leave_step(agent, key, &done, err);
    if (r < 0)
        (void)note_leaving(agent, key);
    return r;
}

static int begin_delete_group(struct pk_agent *agent, const char *fleet, const char *name,
                              struct pk_error *err)
{
    struct pk_group *group = pk_node_plane_group(&agent->plane, fleet, name);
    if (group == NULL)
        return 0;
    for (size_t i = 0; i < agent->plane.tap_count; i++) {
        const struct pk_tap *tap = agent->plane.taps[i];
        if (strcmp(tap->fleet, fleet) != 0 || !pk_targets_have(&tap->targets, name))
            continue;
        (void)pk_fail(err, PK_E_CONFLICT, "tap %s still sends to group %s", tap->key, group->key);
        return pk_hint(err,
                       "remove the tap first, or give it other groups: DELETE or PUT "
                       "/v1/fleets/%s/taps/%s",
                       fleet, tap->name);
    }
    if (!note_leaving(agent, group->key)) {
        (void)pk_fail(err, PK_E_CONFLICT, "%zu groups are being removed already",
                      agent->leaving_count);
        return pk_hint(err, "wait until they are; the agent's log says what keeps them");
    }
    pk_node_plane_drop_group(&agent->plane, group);
    pk_agent_save_later(agent);
    pk_group_free(group);
    return 0;
}

static int go_on_deleting(struct pk_agent *agent, const char *key, bool *ret_done,
                          struct pk_error *err)
{
    PK_AGENT_LOCKED(agent);
    if (find_leaving(agent, key) != NULL)
        return leave_step(agent, key, ret_done, err);
    *ret_done = true; /* the sweep was quicker, or it is wanted again */
    return 0;
}

int pk_agent_delete_group(struct pk_agent *agent, const char *fleet, const char *name,
                          struct pk_error *err)
{
    char key[2 * PK_NODE_NAME_MAX + 2];
    bool done = false;
    int r;
    (void)snprintf(key, sizeof(key), "%.63s/%.63s", fleet, name);
    {
        PK_AGENT_LOCKED(agent);
        r = begin_delete_group(agent, fleet, name, err);
    }
    /* Others get the lock between: a group may have a million shunts. */
    while (r == 0 && !done) {
        r = go_on_deleting(agent, key, &done, err);
        if (r == 0 && !done)
            pk_sleep_ms(1);
    }
    return r;
}

/* ---- taps and lanes ---- */

/* plane.json is not written by what ends one thing: there may be many. */

static void forget_tap(struct pk_agent *agent, struct pk_tap *tap)
{
    pk_node_plane_drop_tap(&agent->plane, tap);
    pk_tap_free(tap);
}

/* What does not work now is tried again by the sweep, so the tap stays known. */
static int end_tap(struct pk_agent *agent, struct pk_tap *tap, struct pk_error *err)
{
    struct pk_error fault = { 0 };
    char before[sizeof(tap->detail)];
    int r = pk_tap_remove(agent, tap, &fault);
    if (r == 0) {
        forget_tap(agent, tap);
        return 0;
    }
    memcpy(before, tap->detail, sizeof(before));
    (void)snprintf(tap->detail, sizeof(tap->detail), "it cannot be removed: %.170s", fault.msg);
    if (strcmp(before, tap->detail) != 0)
        pk_log_error(PK_LOG_WARN, AREA, &fault, "tap %s cannot be removed: tried again", tap->key);
    if (tap->detached && ++tap->left_tries >= LEAVE_TRIES) {
        pk_log(PK_LOG_WARN, AREA, "tap %s is gone, but its interface is not as it was before",
               tap->key);
        forget_tap(agent, tap);
    }
    if (err != NULL)
        *err = fault;
    return r;
}

static int end_lane(struct pk_agent *agent, struct pk_lane *lane, struct pk_error *err)
{
    struct pk_error fault = { 0 };
    int r = pk_lane_remove(agent, lane, &fault);
    bool given_up = r < 0 && ++lane->left_tries >= LEAVE_TRIES;
    if (r < 0 && (lane->left_tries == 1 || given_up))
        pk_log_error(PK_LOG_WARN, AREA, &fault, "lane %s cannot be removed: %s", lane->key,
                     given_up ? "given up until the agent starts again" : "tried again");
    lane->leaving = r < 0 && !given_up;
    if (lane->leaving) {
        (void)snprintf(lane->detail, sizeof(lane->detail), "it cannot be removed: %.170s",
                       fault.msg);
    } else {
        pk_node_plane_drop_lane(&agent->plane, lane);
        pk_lane_free(lane);
    }
    if (r < 0 && err != NULL)
        *err = fault;
    return r;
}

void pk_agent_end_removals(struct pk_agent *agent)
{
    bool any = agent->unsaved;
    for (size_t i = agent->plane.tap_count; i-- > 0;) {
        if (!agent->plane.taps[i]->leaving)
            continue;
        (void)end_tap(agent, agent->plane.taps[i], NULL);
        any = true;
    }
    end_groups(agent);
    for (size_t i = agent->plane.lane_count; i-- > 0;) {
        if (!agent->plane.lanes[i]->leaving)
            continue;
        (void)end_lane(agent, agent->plane.lanes[i], NULL);
        any = true;
    }
    if (any)
        pk_agent_save_later(agent);
}

int pk_agent_delete_lane(struct pk_agent *agent, const char *key, struct pk_error *err)
{
    PK_AGENT_LOCKED(agent);
    struct pk_lane *lane = pk_node_plane_lane(&agent->plane, key);
    if (lane == NULL)
        return 0; /* gone is what was asked */
    const struct pk_group *group = pk_node_plane_group(&agent->plane, lane->fleet, lane->group);
    for (size_t i = 0; group != NULL && i < group->share_count; i++) {
        if (group->shares[i].lane != lane->index)
            continue;
        (void)pk_fail(err, PK_E_CONFLICT, "lane %s still gets packets of its group", key);
        return pk_hint(err,
                       "take it out of the group first: PUT or DELETE "
                       "/v1/fleets/%s/groups/%s",
                       lane->fleet, lane->group);
    }
    lane->leaving = true; /* not in the file any more */
    pk_agent_save_later(agent);
    return end_lane(agent, lane, err);
}

int pk_agent_delete_tap(struct pk_agent *agent, const char *fleet, const char *name,
                        struct pk_error *err)
{
    PK_AGENT_LOCKED(agent);
    struct pk_tap *tap = pk_node_plane_tap(&agent->plane, fleet, name);
    if (tap == NULL)
        return 0;
    if (!tap->leaving) {
        tap->leaving = true;
        pk_agent_save_later(agent);
    }
    pk_replay_free(tap->replay);
    tap->replay = NULL;
    int r = end_tap(agent, tap, err);
    pk_agent_save_later(agent);
    return r;
}

/* ---- what nobody asked for ---- */

static bool keeps_netns(void *arg, const char *name)
{
    const struct pk_plane *plane = arg;
    for (size_t i = 0; i < plane->lane_count; i++) {
        const char *slash = strrchr(plane->lanes[i]->netns_path, '/');
        if (strcmp(slash + 1, name) == 0)
            return true;
    }
    return false;
}

static bool keeps_link(void *arg, const char *name)
{
    const struct pk_plane *plane = arg;
    for (size_t i = 0; i < plane->lane_count; i++)
        if (strcmp(plane->lanes[i]->link_name, name) == 0 ||
            (plane->lanes[i]->is_inline && strcmp(plane->lanes[i]->second.link_name, name) == 0))
            return true;
    for (size_t i = 0; i < plane->tap_count; i++)
        if (strcmp(plane->taps[i]->interface, name) == 0 ||
            strcmp(plane->taps[i]->send_name, name) == 0)
            return true;
    return false;
}

static void remove_stray_keys(struct pk_agent *agent)
{
    struct pk_error err = { 0 };
    json_t *counters = pk_broker_counters(agent->broker, &err), *item;
    size_t i;
    json_array_foreach(json_object_get(counters, "taps"), i, item)
    {
        const char *key = json_string_value(json_object_get(item, "key"));
        bool wanted = false;
        for (size_t j = 0; key != NULL && j < agent->plane.tap_count; j++)
            wanted |= strcmp(agent->plane.taps[j]->key, key) == 0;
        if (key != NULL && !wanted)
            (void)pk_broker_tap_detach(agent->broker, key, NULL);
    }
    json_array_foreach(json_object_get(counters, "inline"), i, item)
    {
        const char *key = json_string_value(json_object_get(item, "key"));
        bool wanted = false;
        for (size_t j = 0; key != NULL && j < agent->plane.tap_count; j++)
            wanted |= agent->plane.taps[j]->kind == PK_TAP_INLINE &&
                      strcmp(agent->plane.taps[j]->key, key) == 0;
        if (key != NULL && !wanted)
            (void)pk_broker_inline_detach(agent->broker, key, NULL);
    }
    json_array_foreach(json_object_get(counters, "groups"), i, item)
    {
        const char *key = json_string_value(json_object_get(item, "key"));
        bool wanted = false;
        for (size_t j = 0; key != NULL && j < agent->plane.group_count; j++)
            wanted |= strcmp(agent->plane.groups[j]->key, key) == 0;
        if (key != NULL && !wanted)
            (void)remove_group(agent, key, NULL);
    }
    json_array_foreach(json_object_get(counters, "lanes"), i, item)
    {
        const char *key = json_string_value(json_object_get(item, "key"));
        if (key != NULL && pk_node_plane_lane(&agent->plane, key) == NULL)
            (void)pk_broker_lane_remove(agent->broker, key, NULL);
    }
    json_decref(counters);
}

static void remove_strays(struct pk_agent *agent)
{
    struct pk_error err = { 0 };
    remove_stray_keys(agent);
    int r = pk_link_delete_all(agent->nl, agent->paths.tag, keeps_link, &agent->plane, &err);
    char prefix[16];
    (void)snprintf(prefix, sizeof(prefix), "%s-", agent->paths.tag);
    if (r == 0)
        r = pk_netns_remove_all(prefix, keeps_netns, &agent->plane, &err);
    if (r < 0)
        pk_log_error(PK_LOG_WARN, AREA, &err, "cannot clear away what an earlier agent left");
}

void pk_agent_remove_strays(struct pk_agent *agent)
{
    PK_AGENT_LOCKED(agent);
    pk_agent_end_removals(agent); /* that an earlier agent did not end */
    remove_strays(agent);
}

/* ---- all ---- */

int pk_agent_delete_all(struct pk_agent *agent, struct pk_error *err)
{
    PK_AGENT_LOCKED(agent);
    struct pk_plane *plane = &agent->plane;
    int first = 0, r;
    for (size_t i = 0; i < plane->tap_count; i++)
        plane->taps[i]->leaving = true;
    for (size_t i = 0; i < plane->lane_count; i++)
        plane->lanes[i]->leaving = true;
    struct pk_plane groups = { .groups = plane->groups, .group_count = plane->group_count };
    plane->groups = NULL;
    plane->group_count = 0;
    pk_agent_save_later(agent);
    for (size_t i = plane->tap_count; i-- > 0;) {
        pk_replay_free(plane->taps[i]->replay);
        plane->taps[i]->replay = NULL;
        r = end_tap(agent, plane->taps[i], first < 0 ? NULL : err);
        first = first < 0 ? first : r;
    }
    for (size_t i = 0; i < groups.group_count; i++) {
        r = remove_group(agent, groups.groups[i]->key, first < 0 ? NULL : err);
        first = first < 0 ? first : r;
    }
    pk_node_plane_done(&groups);
    for (size_t i = plane->lane_count; i-- > 0;) {
        r = end_lane(agent, plane->lanes[i], first < 0 ? NULL : err);
        first = first < 0 ? first : r;
    }
    remove_strays(agent);
    pk_agent_save_later(agent);
    return first;
}
