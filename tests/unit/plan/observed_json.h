/* SPDX-License-Identifier: Apache-2.0 */
/* What is there, as the tests write it down. */
#ifndef PICKET_TESTS_PLAN_OBSERVED_JSON_H
#define PICKET_TESTS_PLAN_OBSERVED_JSON_H

#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "plan/plan.h"

static inline struct pk_observed *observed_of_json(const json_t *json)
{
    struct pk_observed *observed = pk_zalloc(sizeof(*observed));
    const json_t *list = json_object_get(json, "taps");
    size_t i;
    json_t *row;
    observed->taps = pk_zalloc_array(json_array_size(list) + 1, sizeof(*observed->taps));
    json_array_foreach(list, i, row)
    {
        struct pk_observed_tap *tap = &observed->taps[observed->tap_count++];
        tap->name = pk_strdup(pk_json_string_or(row, "name", ""));
        tap->groups = json_incref(json_object_get(row, "groups"));
        tap->tenants = json_incref(json_object_get(row, "tenants"));
        tap->interface = pk_strdup(pk_json_string_or(row, "interface", ""));
        tap->fault = pk_strdup(pk_json_string_or(row, "fault", ""));
        tap->kind = tap->interface[0] == '\0' ? PK_TAP_REPLAY : PK_TAP_INTERFACE;
        tap->mtu = (unsigned)pk_json_int_or(row, "mtu", 0);
    }
    list = json_object_get(json, "lanes");
    observed->lanes = pk_zalloc_array(json_array_size(list) + 1, sizeof(*observed->lanes));
    json_array_foreach(list, i, row)
    {
        struct pk_observed_lane *lane = &observed->lanes[observed->lane_count++];
        lane->group = pk_strdup(pk_json_string_or(row, "group", ""));
        lane->fault = pk_strdup(pk_json_string_or(row, "fault", ""));
        lane->index = (unsigned)pk_json_int_or(row, "index", 0);
        lane->mtu = (unsigned)pk_json_int_or(row, "mtu", 0);
    }
    list = json_object_get(json, "groups");
    observed->groups = pk_zalloc_array(json_array_size(list) + 1, sizeof(*observed->groups));
    json_array_foreach(list, i, row)
    {
        struct pk_observed_group *group = &observed->groups[observed->group_count++];
        size_t n;
        group->hash = pk_strdup(pk_json_string_or(row, "hash", "outer"));
        group->tenant = pk_strdup(pk_json_string_or(row, "tenant", ""));
        group->options = json_incref(json_object_get(row, "options"));
        group->priority = (unsigned)pk_json_int_or(row, "priority", PK_PRIORITY_DEFAULT);
        json_t *lane;
        group->name = pk_strdup(pk_json_string_or(row, "name", ""));
        json_array_foreach(json_object_get(row, "lanes"), n, lane)
        {
            group->lanes[json_integer_value(lane) % PK_LANES_MAX] = true;
        }
    }
    list = json_object_get(json, "units");
    observed->units = pk_zalloc_array(json_array_size(list) + 1, sizeof(*observed->units));
    json_array_foreach(list, i, row)
    {
        struct pk_observed_unit *unit = &observed->units[observed->unit_count++];
        const json_t *label = json_object_get(row, "unit");
        unit->name = pk_strdup(pk_json_string_or(label, "name", ""));
        unit->hash = pk_strdup(pk_json_string_or(label, "hash", ""));
        unit->group = pk_strdup(pk_json_string_or(label, "group", ""));
        unit->tool = pk_strdup(pk_json_string_or(label, "tool", ""));
        unit->lane = (unsigned)pk_json_int_or(label, "lane", 0);
        unit->running = pk_json_bool_or(row, "running", true);
        unit->fault = pk_strdup(pk_json_string_or(row, "fault", ""));
        unit->stopped = pk_strdup(pk_json_string_or(row, "stopped", ""));
        unit->unit = json_incref(json_object_get(row, "unit"));
    }
    json_array_foreach(json_object_get(json, "known"), i, row)
    {
        (void)pk_strv_add(&observed->known, json_string_value(row));
    }
    return observed;
}

#endif
