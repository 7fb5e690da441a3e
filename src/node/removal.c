/* SPDX-License-Identifier: Apache-2.0 */
/* How taps, groups and lanes go, and what nobody asked for. */
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "base/log.h"
#include "node/agent.h"
#include "node/replay.h"

#define AREA "node"

/* Its shunts' records come first: their entries name the group by a number, which the next group
 * may get. */
int pk_agent_group_remove(struct pk_agent *agent, const char *key, struct pk_error *err)
{
    int r = pk_shunts_group_forget(agent->shunts, key, err);
    return r < 0 ? r : pk_broker_group_remove(agent->broker, key, err);
}

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
            (void)pk_agent_group_remove(agent, key, NULL);
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

/* Taps whose removal an earlier agent did not end: their interfaces still have to be put back. */
static void end_removals(struct pk_agent *agent)
{
    bool any = false;
    for (size_t i = agent->plane.tap_count; i-- > 0;) {
        struct pk_tap *tap = agent->plane.taps[i];
        if (!tap->leaving)
            continue;
        struct pk_error err = { 0 };
        if (pk_tap_remove(agent, tap, &err) < 0)
            pk_log_error(PK_LOG_WARN, AREA, &err, "tap %s", tap->key);
        pk_node_plane_drop_tap(&agent->plane, tap);
        pk_tap_free(tap);
        any = true;
    }
    if (any)
        pk_agent_save_back(agent);
}

void pk_agent_remove_strays(struct pk_agent *agent)
{
    PK_AGENT_LOCKED(agent);
    end_removals(agent);
    remove_strays(agent);
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
    pk_node_plane_drop_lane(&agent->plane, lane);
    int r = pk_agent_save(agent, err);
    if (r < 0) {
        (void)pk_node_plane_add_lane_take(&agent->plane, lane, NULL);
        return r;
    }
    r = pk_lane_remove(agent, lane, err);
    pk_lane_free(lane);
    return r;
}

int pk_agent_delete_group(struct pk_agent *agent, const char *fleet, const char *name,
                          struct pk_error *err)
{
    PK_AGENT_LOCKED(agent);
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
    pk_node_plane_drop_group(&agent->plane, group);
    int r = pk_agent_save(agent, err);
    if (r < 0) {
        (void)pk_node_plane_add_group_take(&agent->plane, group, NULL);
        return r;
    }
    r = pk_agent_group_remove(agent, group->key, err);
    pk_group_free(group);
    return r == PK_E_NOTFOUND ? 0 : r;
}

int pk_agent_delete_tap(struct pk_agent *agent, const char *fleet, const char *name,
                        struct pk_error *err)
{
    PK_AGENT_LOCKED(agent);
    struct pk_tap *tap = pk_node_plane_tap(&agent->plane, fleet, name);
    if (tap == NULL)
        return 0;
    tap->leaving = true;
    int r = pk_agent_save(agent, err);
    if (r < 0) {
        tap->leaving = false;
        return r;
    }
    pk_replay_free(tap->replay);
    tap->replay = NULL;
    r = pk_tap_remove(agent, tap, err);
    pk_node_plane_drop_tap(&agent->plane, tap);
    pk_tap_free(tap);
    pk_agent_save_back(agent);
    return r;
}

int pk_agent_delete_all(struct pk_agent *agent, struct pk_error *err)
{
    PK_AGENT_LOCKED(agent);
    struct pk_plane plane = agent->plane;
    const struct pk_plane leaving = { .taps = plane.taps, .tap_count = plane.tap_count };
    for (size_t i = 0; i < plane.tap_count; i++)
        plane.taps[i]->leaving = true;
    int first = pk_node_plane_save(&leaving, agent->plane_path, err);
    if (first < 0) {
        for (size_t i = 0; i < plane.tap_count; i++)
            plane.taps[i]->leaving = false;
        return first;
    }
    agent->plane = (struct pk_plane){ 0 };
    for (size_t i = 0; i < plane.tap_count; i++) {
        struct pk_tap *tap = plane.taps[i];
        pk_replay_free(tap->replay);
        tap->replay = NULL;
        int r = pk_tap_remove(agent, tap, first < 0 ? NULL : err);
        first = first < 0 ? first : r;
    }
    for (size_t i = 0; i < plane.group_count; i++) {
        int r = pk_agent_group_remove(agent, plane.groups[i]->key, first < 0 ? NULL : err);
        first = first < 0 || r == PK_E_NOTFOUND ? first : r;
    }
    for (size_t i = 0; i < plane.lane_count; i++) {
        int r = pk_lane_remove(agent, plane.lanes[i], first < 0 ? NULL : err);
        first = first < 0 ? first : r;
    }
    pk_node_plane_done(&plane);
    remove_strays(agent);
    pk_agent_save_back(agent);
    return first;
}
