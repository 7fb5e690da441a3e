/* SPDX-License-Identifier: Apache-2.0 */
/* Lanes are drained before their tools are replaced or go, so that no flow is cut. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "base/log.h"
#include "base/time.h"
#include "fleet/internal.h"

#define CALL_TIMEOUT_MS 20000u
#define LOOK_MS         5000u
/* The agent gives the slots back when it does not hear of the change for so long: a serve that dies
 * leaves no lane without packets. */
#define LEASE_MS 15000
/* More than any drain may last (spec.groups[].drain). */
#define DRAIN_MAX (3700 * PK_NSEC_PER_SEC)

/* Goes to the row of the step that runs, for those who watch. */
static void tell(struct pk_manager *manager, struct pk_fleet *fleet, const char *text)
{
    size_t i;
    json_t *row;
    pk_manager_lock(manager);
    json_array_foreach(fleet->journal, i, row)
    {
        if (strcmp(pk_json_string_or(row, "state", ""), "running") != 0 ||
            strcmp(pk_json_string_or(row, "detail", ""), text) == 0)
            continue;
        (void)json_object_set_new(row, "detail", json_string(text));
        fleet->version++;
    }
    (void)pthread_cond_broadcast(&manager->changed);
    pk_manager_unlock(manager);
}

/* How far the group's lanes have drained; only = one of them, or -1: those without a place in the
 * desired state. Returns false when nothing drains any more. */
static bool still_drains(const struct pk_fleet *fleet, const json_t *plane, const char *group,
                         int only, char *text, size_t size)
{
    size_t i;
    json_t *row;
    int64_t flows = 0, left = 0, slots = 0;
    unsigned lanes = 0, lane = 0;
    json_array_foreach(json_object_get(plane, "lanes"), i, row)
    {
        int64_t index = pk_json_int_or(row, "index", -1);
        const json_t *drain = json_object_get(row, "drain");
        bool wanted = false;
        for (size_t k = 0; k < fleet->desired->lane_count; k++)
            wanted |= fleet->desired->lanes[k].index == index &&
                      strcmp(fleet->desired->lanes[k].group, group) == 0;
        if (strcmp(pk_json_string_or(row, "fleet", ""), fleet->name) != 0 ||
            strcmp(pk_json_string_or(row, "group", ""), group) != 0 ||
            (only >= 0 ? index != only : wanted) ||
            strcmp(pk_json_string_or(drain, "state", ""), "draining") != 0)
            continue;
        lanes++;
        lane = (unsigned)index;
        flows += pk_json_int_or(drain, "flows", 0);
        slots += pk_json_int_or(drain, "slots", 0);
        left = PK_MAX(left, pk_json_int_or(drain, "leftMs", 0));
    }
    if (lanes == 0 || slots == 0)
        return false;
    char which[24];
    (void)snprintf(which, sizeof(which), lanes == 1 ? "lane %u" : "%u lanes",
                   lanes == 1 ? lane : lanes);
    (void)snprintf(text, size, "draining %s: %" PRId64 " flows left, %" PRId64 " s", which, flows,
                   (left + 999) / 1000);
    return true;
}

static int hold(struct pk_manager *manager, const struct pk_fleet *fleet, const char *group,
                unsigned lane, int lease_ms, struct pk_error *err)
{
    return pk_fleet_agent_call(manager, CALL_TIMEOUT_MS, "PUT",
                               json_pack("{s:i}", "leaseMs", lease_ms), NULL, err,
                               "/v1/fleets/%s/lanes/%s/%u/drain", fleet->name, group, lane);
}

static int wait_drained(struct pk_manager *manager, struct pk_fleet *fleet, const char *group,
                        int only, struct pk_error *err)
{
    pk_nsec deadline = pk_time_monotonic() + DRAIN_MAX;
    while (pk_time_monotonic() < deadline) {
        struct pk_view view;
        char text[96];
        if (pk_fleet_must_yield(manager, fleet))
            return pk_fail(err, PK_E_INTERRUPTED, "cut off while a lane drained");
        int r = only >= 0 ? hold(manager, fleet, group, (unsigned)only, LEASE_MS, err) : 0;
        if (r >= 0)
            r = pk_view_fresh(manager, 1u << PK_PEER_AGENT, LOOK_MS, &view, err);
        if (r < 0)
            return r;
        bool drains = still_drains(fleet, view.plane, group, only, text, sizeof(text));
        pk_view_done(&view);
        if (!drains)
            break;
        tell(manager, fleet, text);
        pk_sleep_ms(250);
    }
    tell(manager, fleet, "");
    return 0;
}

int pk_lane_drain(struct pk_manager *manager, struct pk_fleet *fleet, const char *group,
                  unsigned lane, struct pk_error *err)
{
    return wait_drained(manager, fleet, group, (int)lane, err);
}

void pk_lane_restore(struct pk_manager *manager, const struct pk_fleet *fleet, const char *group,
                     unsigned lane)
{
    struct pk_error err = { 0 };
    if (hold(manager, fleet, group, lane, 0, &err) < 0)
        pk_log_error(PK_LOG_WARN, "fleet", &err, "lane %s/%u gets its slots back later", group,
                     lane);
}

int pk_group_drained(struct pk_manager *manager, struct pk_fleet *fleet, const char *group,
                     struct pk_error *err)
{
    return wait_drained(manager, fleet, group, -1, err);
}
