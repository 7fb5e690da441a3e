/* SPDX-License-Identifier: Apache-2.0 */
/* What is there, and the hash that tells whether a plan still fits it. */
#include <string.h>

#include "base/alloc.h"
#include "base/json.h"
#include "plan/internal.h"
#include "plan/plan.h"

void pk_observed_free(struct pk_observed *observed)
{
    if (observed == NULL)
        return;
    for (size_t i = 0; i < observed->tap_count; i++) {
        pk_free(observed->taps[i].name);
        pk_free(observed->taps[i].interface);
        json_decref(observed->taps[i].groups);
        json_decref(observed->taps[i].tenants);
        pk_free(observed->taps[i].fault);
        json_decref(observed->taps[i].options);
        json_decref(observed->taps[i].set);
    }
    pk_free(observed->taps);
    for (size_t i = 0; i < observed->nic_count; i++)
        pk_free(observed->nics[i].interface);
    pk_free(observed->nics);
    for (size_t i = 0; i < observed->lane_count; i++) {
        pk_free(observed->lanes[i].group);
        pk_free(observed->lanes[i].device);
        pk_free(observed->lanes[i].fault);
    }
    pk_free(observed->lanes);
    for (size_t i = 0; i < observed->group_count; i++) {
        pk_free(observed->groups[i].name);
        pk_free(observed->groups[i].hash);
        json_decref(observed->groups[i].options);
        pk_free(observed->groups[i].tenant);
    }
    pk_free(observed->groups);
    for (size_t i = 0; i < observed->unit_count; i++) {
        struct pk_observed_unit *unit = &observed->units[i];
        pk_free(unit->name);
        pk_free(unit->hash);
        pk_free(unit->group);
        pk_free(unit->tool);
        pk_free(unit->fault);
        pk_free(unit->stopped);
        json_decref(unit->unit);
    }
    pk_free(observed->units);
    pk_strv_done(&observed->known);
    pk_free(observed);
}

/* One member per thing, keyed by its name: canonical whatever the order of the rows. */
static int put(json_t *object, char *key, json_t *value)
{
    int r = key == NULL ? -1 : json_object_set_new(object, key, value);
    if (key == NULL)
        json_decref(value);
    pk_free(key);
    return r;
}

static json_t *describe(const struct pk_observed *observed)
{
    PK_JSON json = json_object();
    if (json == NULL)
        return NULL;
    for (size_t i = 0; i < observed->tap_count; i++) {
        const struct pk_observed_tap *tap = &observed->taps[i];
        if (put(json, pk_asprintf("tap %s", tap->name),
                json_pack("[O,O,i,s,I,s,O?]", tap->groups, tap->tenants, (int)tap->kind,
                          tap->interface, (json_int_t)tap->mtu, tap->fault, tap->options)) < 0)
            return NULL;
    }
    for (size_t i = 0; i < observed->lane_count; i++) {
        const struct pk_observed_lane *lane = &observed->lanes[i];
        if (put(json, pk_asprintf("lane %s/%u", lane->group, lane->index),
                json_pack("[I,b,s,s*]", (json_int_t)lane->mtu, lane->is_inline, lane->fault,
                          lane->device)) < 0)
            return NULL;
    }
    for (size_t i = 0; i < observed->group_count; i++) {
        const struct pk_observed_group *group = &observed->groups[i];
        PK_JSON lanes = json_array();
        for (unsigned lane = 0; lane < PK_LANES_MAX; lane++)
            if (group->lanes[lane] && json_array_append_new(lanes, json_integer(lane)) < 0)
                return NULL;
        if (group->hash != NULL && strcmp(group->hash, "outer") != 0 &&
            json_array_append_new(lanes, json_string(group->hash)) < 0)
            return NULL;
        if (group->tenant != NULL && group->tenant[0] != '\0' &&
            json_array_append_new(lanes, json_pack("{s:s,s:I}", "tenant", group->tenant, "priority",
                                                   (json_int_t)group->priority)) < 0)
            return NULL;
        if (json_object_size(group->options) > 0 && json_array_append(lanes, group->options) < 0)
            return NULL;
        if (put(json, pk_asprintf("group %s", group->name), json_incref(lanes)) < 0)
            return NULL;
    }
    for (size_t i = 0; i < observed->unit_count; i++) {
        const struct pk_observed_unit *unit = &observed->units[i];
        if (put(json, pk_asprintf("unit %s", unit->name),
                json_pack("[s,s]", unit->hash, unit->fault)) < 0)
            return NULL;
    }
    return PK_TAKE(json);
}

int pk_observed_hash(const struct pk_observed *observed, char out[65], struct pk_error *err)
{
    PK_JSON json = describe(observed);
    return pk_json_hash(json, out, err);
}
