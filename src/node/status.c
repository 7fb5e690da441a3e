/* SPDX-License-Identifier: Apache-2.0 */
/* What there is: the plane, the inventory and the metrics as the API tells them. */
#include <stdint.h>
#include <string.h>

#include "base/json.h"
#include "base/time.h"
#include "node/agent.h"
#include "node/loss.h"
#include "node/metrics.h"
#include "packet/flow.h"

static const json_t *counters_of(const json_t *counters, const char *list, const char *key)
{
    const json_t *item;
    size_t i;
    json_array_foreach(json_object_get(counters, list), i, item)
    {
        const char *name = json_string_value(json_object_get(item, "key"));
        if (name != NULL && strcmp(name, key) == 0)
            return item;
    }
    return NULL;
}

static json_int_t number(const json_t *counters, const char *name)
{
    return json_integer_value(json_object_get(counters, name));
}

/* Adds what the broker counts and the row does not have. Takes the row; NULL = out of memory. */
static json_t *with_counters_take(json_t *row, const json_t *counters)
{
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)counters, name, value)
    {
        if (row != NULL && strcmp(name, "key") != 0 && json_object_get(row, name) == NULL &&
            json_object_set(row, name, value) < 0) {
            json_decref(row);
            return NULL;
        }
    }
    return row;
}

static const json_t *named(const json_t *list, const char *name)
{
    size_t i;
    json_t *row;
    json_array_foreach(list, i, row)
    {
        if (strcmp(pk_json_string_or(row, "name", ""), name) == 0)
            return row;
    }
    return NULL;
}

/* The tap's tenants with what was counted of each; last "", what none of them claims. NULL = out of
 * memory. */
static json_t *tenants_status(const struct pk_tap *tap, const json_t *counters)
{
    const json_t *counted = json_object_get(counters, "tenants");
    json_t *list = json_array();
    size_t i;
    json_t *row;
    json_array_foreach(tap->targets.tenants, i, row)
    {
        json_t *copy = json_copy(row);
        const json_t *count = named(counted, pk_json_string_or(row, "name", ""));
        if (count != NULL && copy != NULL)
            (void)json_object_update_missing(copy, (json_t *)(uintptr_t)count);
        (void)json_array_append_new(list, copy);
    }
    const json_t *rest = named(counted, "");
    if (rest != NULL)
        (void)json_array_append(list, (json_t *)(uintptr_t)rest);
    return list;
}

static json_t *tap_status(const struct pk_agent *agent, struct pk_tap *tap, const json_t *all)
{
    static const char *const modes[] = { "none", "native", "generic" };
    static const char *const states[] = { "up", "missing", "detached" };
    PK_JSON through = NULL;
    const json_t *counters = counters_of(all, "taps", tap->key);
    if (tap->kind == PK_TAP_INLINE)
        counters = through = pk_inline_tap_status(agent, tap, all);
    json_t *reasons = json_object_get(counters, "reasons");
    bool is_replay = tap->kind == PK_TAP_REPLAY;
    bool up = tap->state == PK_TAP_UP;
    json_t *row = json_pack(
        "{s:s,s:s,s:s,s:s,s:O,s:o,s:i,s:s,s:s,s:s,s:I,s:I,s:I,s:o,s:o}", "fleet", tap->fleet,
        "name", tap->name, "kind", pk_node_tap_kinds[tap->kind], "interface", tap->interface,
        "groups", tap->targets.groups, "tenants", tenants_status(tap, counters), "mtu",
        (int)tap->live_mtu, "mode", modes[up ? tap->mode : PK_XDP_NONE], "state",
        states[tap->state], "detail", tap->detail, "packets", number(counters, "packets"), "bytes",
        number(counters, "bytes"), "dropped", number(counters, "dropped"), "reasons",
        reasons != NULL ? json_incref(reasons) : json_object(), "replay",
        is_replay ? pk_agent_tap_replay(agent, tap) : json_null());
    if (!is_replay && (json_object_set_new(row, "options", pk_tap_options_to_json(tap)) < 0 ||
                       json_object_set_new(row, "setup", pk_tap_nic_status(agent, tap)) < 0)) {
        json_decref(row);
        return NULL;
    }
    if (row != NULL)
        (void)json_object_set_new(row, "nic", pk_loss_of_tap(agent->nl, agent->ioctl_fd, tap));
    return with_counters_take(row, counters);
}

static json_t *group_status(const struct pk_group *group, const json_t *counters)
{
    json_t *ranges = json_object_get(counters, "ranges");
    json_t *row = json_pack(
        "{s:s,s:s,s:s,s:s,s:s,s:I,s:I,s:o,s:{s:o*,s:o*}}", "fleet", group->fleet, "name",
        group->name, "detail", group->detail, "hash", pk_hash_mode_name(group->hash), "tenant",
        group->tenant, "priority", (json_int_t)group->priority, "generation",
        number(counters, "generation"), "ranges",
        ranges != NULL ? json_incref(ranges) : json_array(), "options", "shunt",
        pk_shunt_spec_to_json(&group->shunt), "overload", pk_overload_to_json(&group->overload));
    if (row != NULL) {
        pk_group_describe(group, row);
        (void)json_object_set_new(row, "overload", pk_overload_describe(&group->over));
    }
    return with_counters_take(row, counters);
}

static json_t *lane_status(const struct pk_agent *agent, const struct pk_lane *lane,
                           const json_t *counters)
{
    PK_JSON own = pk_lane_has_device(lane) ? pk_device_lane_counters(lane) : NULL;
    if (own != NULL)
        counters = own;
    json_int_t unread = number(counters, "unread");
    json_int_t ring = number(counters, "ringDropped");
    const char *state = !lane->working ? "broken" : lane->reader ? "ready" : "unread";
    json_t *row = json_pack(
        "{s:s,s:s,s:i,s:s,s:s,s:i,s:s,s:s,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I}", "fleet", lane->fleet,
        "group", lane->group, "index", (int)lane->index, "netns", lane->netns_path, "interface",
        "tap0", "mtu", (int)lane->live_mtu, "state", state, "detail", lane->detail, "slots",
        number(counters, "slots"), "sent", number(counters, "sent"), "packets",
        number(counters, "packets"), "bytes", number(counters, "bytes"), "dropped", unread + ring,
        "unread", unread, "ringDropped", ring, "blocked", number(counters, "blocked"));
    if (row != NULL && pk_lane_has_device(lane))
        (void)json_object_set_new(row, "device", json_string(lane->device.name));
    if (row != NULL)
        pk_lane_describe(agent, lane, row);
    return with_counters_take(row, counters);
}

static json_t *inline_lane_status_take(const struct pk_lane *lane, const json_t *counters,
                                       json_t *row)
{
    if (row == NULL || !lane->is_inline ||
        json_object_set_new(row, "inline", pk_inline_lane_status(lane, counters)) == 0)
        return row;
    json_decref(row);
    return NULL;
}

int pk_agent_plane(struct pk_agent *agent, json_t **ret_json, struct pk_error *err)
{
    PK_AGENT_LOCKED(agent);
    json_t *counters = pk_broker_counters(agent->broker, err);
    if (counters == NULL)
        return err != NULL && err->code < 0 ? err->code : pk_no_memory(err);
    json_t *taps = json_array(), *groups = json_array(), *lanes = json_array();
    const struct pk_plane *plane = &agent->plane;
    int bad = 0;
    for (size_t i = 0; i < plane->tap_count; i++)
        bad |= json_array_append_new(taps, tap_status(agent, plane->taps[i], counters));
    for (size_t i = 0; i < plane->group_count; i++)
        bad |= json_array_append_new(
            groups,
            group_status(plane->groups[i], counters_of(counters, "groups", plane->groups[i]->key)));
    for (size_t i = 0; i < plane->lane_count; i++)
        bad |= json_array_append_new(
            lanes, inline_lane_status_take(
                       plane->lanes[i], counters,
                       lane_status(agent, plane->lanes[i],
                                   counters_of(counters, "lanes", plane->lanes[i]->key))));
    json_decref(counters);
    json_t *json = json_pack("{s:o,s:o,s:o}", "taps", taps, "groups", groups, "lanes", lanes);
    if (bad != 0 || json == NULL) {
        json_decref(json);
        return pk_no_memory(err);
    }
    *ret_json = json;
    return 0;
}

int pk_agent_inventory(struct pk_agent *agent, json_t **ret_json, struct pk_error *err)
{
    PK_AGENT_LOCKED(agent);
    return pk_node_inventory(agent->nl, agent->ioctl_fd, agent->paths.tag, ret_json, err);
}

int pk_agent_metrics(struct pk_agent *agent, struct pk_buf *buf, struct pk_error *err)
{
    PK_JSON plane = NULL;
    int r = pk_agent_plane(agent, &plane, err);
    if (r < 0)
        return r;
    struct pk_metrics_agent facts;
    {
        PK_AGENT_LOCKED(agent);
        facts = (struct pk_metrics_agent){
            .start_time = (double)agent->started_at / (double)PK_NSEC_PER_SEC,
            .sweep_seconds = (double)agent->sweep_time / (double)PK_NSEC_PER_SEC,
            .sweeps = agent->sweeps,
        };
    }
    r = pk_metrics_write(plane, &facts, buf);
    return r < 0 ? pk_fail(err, r, "the metrics do not fit") : 0;
}
