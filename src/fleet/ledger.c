/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The fleets' accounts: fed each second, kept in the state each minute. When serve dies, the
 * broker's counters go on and the account is taken up where it was kept last: nothing is missed,
 * since an account adds up what counters grew by.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/json.h"
#include "base/log.h"
#include "base/time.h"
#include "fleet/internal.h"
#include "fleet/ledger.h"

#define AGENT_WAIT_MS 2000u
#define KEEP_EVERY    (60 * PK_NSEC_PER_SEC)
/* 360 samples of a minute each, then some 1,000 of ten minutes: a few MB for a fleet of ten lanes.
 */
#define KEEP_ALL_FOR  (6 * 3600 * PK_NSEC_PER_SEC)
#define THIN_EVERY    (600 * PK_NSEC_PER_SEC)
#define KEEP_SOME_FOR (7 * 24 * 3600 * PK_NSEC_PER_SEC)
/* A tool that is asked every second and has not answered for so long hangs. */
#define ANSWER_AGE (5 * PK_NSEC_PER_SEC)

static bool is_inline(const struct pk_desired *desired, const struct pk_unit *unit)
{
    for (size_t i = 0; i < desired->lane_count; i++)
        if (desired->lanes[i].index == unit->lane &&
            strcmp(desired->lanes[i].group, unit->group) == 0)
            return desired->lanes[i].is_inline;
    return false;
}

/* What is known of a fleet's tools, for pk_ledger_look(). Lock held. */
static json_t *tools_of(struct pk_fleet *fleet)
{
    json_t *tools = json_array();
    const struct pk_desired *desired = fleet->desired;
    pk_nsec now = pk_time_monotonic();
    for (size_t i = 0; desired != NULL && i < desired->unit_count; i++) {
        const struct pk_unit *unit = &desired->units[i];
        const struct pk_runtime *life = pk_runtime_find(fleet, unit->name);
        /* An inline tool counts the agent's probes as well: what was handed to it says more. */
        bool counts = unit->probe != PK_PROBE_NONE && !is_inline(desired, unit);
        bool live = life != NULL && life->answered_at != 0 && !life->end_noted;
        bool silent = live && now - life->answered_at > ANSWER_AGE;
        uint64_t packets = life != NULL ? life->base_packets + life->packets : 0;
        uint64_t dropped = life != NULL ? life->base_drops + life->drops : 0;
        const char *state = !counts ? "running" : silent ? "silent" : live ? "running" : "away";
        json_t *tool =
            json_pack("{s:s,s:I,s:s,s:s,s:b,s:b,s:I,s:I,s:I}", "group", unit->group, "lane",
                      (json_int_t)unit->lane, "tool", unit->tool, "state", state, "counts",
                      (int)counts, "live", (int)live, "packets", (json_int_t)packets, "dropped",
                      (json_int_t)dropped, "life", (json_int_t)(life != NULL ? life->packets : 0));
        if (tool != NULL && life != NULL && life->notes != NULL)
            (void)json_object_set(tool, "notes", life->notes);
        (void)json_array_append_new(tools, tool);
    }
    return tools;
}

/* Lock held. */
static int add_look(struct pk_fleet *fleet, const json_t *plane, pk_nsec now, struct pk_error *err)
{
    PK_JSON tools = tools_of(fleet);
    PK_JSON look = pk_ledger_look(plane, fleet->name, tools, now);
    if (fleet->ledger == NULL)
        fleet->ledger = pk_ledger_account_new(now);
    if (look == NULL || fleet->ledger == NULL)
        return pk_no_memory(err);
    return pk_ledger_account_add(fleet->ledger, look, err);
}

static int keep(struct pk_manager *manager, const char *fleet, const json_t *account,
                const json_t *sample, pk_nsec now, struct pk_error *err)
{
    struct pk_state *state = manager->options.state;
    int r = pk_state_put(state, PK_KIND_LEDGER, fleet, account, err);
    if (r >= 0)
        r = pk_state_sample_put(state, fleet, now, sample, err);
    if (r >= 0)
        r = pk_state_sample_thin(state, fleet, now - KEEP_SOME_FOR, now - KEEP_ALL_FOR, THIN_EVERY,
                                 err);
    return r;
}

/* One fleet's turn. Takes the lock; not while the state is written. */
static int tick(struct pk_manager *manager, const char *name, const json_t *plane,
                struct pk_error *err)
{
    PK_JSON account = NULL;
    PK_JSON sample = NULL;
    pk_nsec now = pk_time_now();
    pk_manager_lock(manager);
    struct pk_fleet *fleet = pk_manager_find(manager, name);
    int r = fleet != NULL && fleet->desired != NULL ? 0 : PK_E_NOTFOUND;
    if (r == 0 && plane != NULL)
        r = add_look(fleet, plane, now, err);
    /* What is new is kept at once: what an interface had counted before is not to be taken for what
     * it has counted since. */
    bool due = r >= 0 && fleet->ledger != NULL &&
               (plane == NULL || now - fleet->ledger_kept_at >= KEEP_EVERY ||
                now < fleet->ledger_kept_at ||
                pk_json_int_or(fleet->ledger, "changed", 0) > fleet->ledger_kept_at);
    if (due) {
        account = json_deep_copy(fleet->ledger);
        sample = pk_ledger_sample(fleet->ledger);
        fleet->ledger_kept_at = now;
    }
    pk_manager_unlock(manager);
    if (!due)
        return r == PK_E_NOTFOUND ? 0 : r;
    if (account == NULL || sample == NULL)
        return pk_no_memory(err);
    return keep(manager, name, account, sample, now, err);
}

/* plane NULL = only keeps what there is. */
static void tick_all(struct pk_manager *manager, const json_t *plane)
{
    PK_JSON names = NULL;
    struct pk_error err = { 0 };
    if (pk_manager_fleets(manager, &names, &err) < 0)
        return;
    size_t i;
    const json_t *name;
    json_array_foreach(names, i, name)
    {
        err = (struct pk_error){ 0 };
        if (tick(manager, json_string_value(name), plane, &err) < 0)
            pk_log_error(PK_LOG_WARN, "fleet", &err, "the ledger of fleet %s",
                         json_string_value(name));
    }
}

void pk_ledger_tick(struct pk_manager *manager)
{
    struct pk_view view = { 0 };
    if (pk_view_fresh(manager, 1u << PK_PEER_AGENT, AGENT_WAIT_MS, &view, NULL) < 0)
        return;
    if (view.agent_error.code == 0 && view.plane != NULL)
        tick_all(manager, view.plane);
    pk_view_done(&view);
}

void pk_ledger_keep_all(struct pk_manager *manager)
{
    tick_all(manager, NULL);
}

int pk_ledger_load(struct pk_manager *manager, struct pk_fleet *fleet, struct pk_error *err)
{
    PK_JSON account = NULL;
    int r = pk_state_get(manager->options.state, PK_KIND_LEDGER, fleet->name, &account, err);
    if (r == PK_E_NOTFOUND)
        return 0;
    if (r < 0)
        return r;
    if (json_is_object(json_object_get(account, "things")))
        fleet->ledger = PK_TAKE(account);
    return 0;
}

int64_t pk_ledger_unconfirmed(const struct pk_fleet *fleet, const struct pk_unit *unit)
{
    PK_CLEANUP(pk_free_p)
    char *key = pk_asprintf("tool/%s/%u/%s", unit->group, unit->lane, unit->tool);
    if (key == NULL)
        return 0;
    const json_t *thing = json_object_get(json_object_get(fleet->ledger, "things"), key);
    return pk_json_int_or(thing, "sum.unconfirmed", 0);
}

void pk_ledger_forget(struct pk_manager *manager, const char *fleet)
{
    struct pk_error err = { 0 };
    int r = pk_state_put(manager->options.state, PK_KIND_LEDGER, fleet, NULL, &err);
    if (r >= 0)
        r = pk_state_sample_thin(manager->options.state, fleet, INT64_MAX, INT64_MAX, 1, &err);
    if (r < 0)
        pk_log_error(PK_LOG_WARN, "fleet", &err, "the ledger of fleet %s", fleet);
}

int pk_manager_ledger(struct pk_manager *manager, const char *fleet, pk_nsec since,
                      json_t **ret_ledger, struct pk_error *err)
{
    PK_JSON sample = NULL;
    int r = 0;
    if (since != 0)
        r = pk_state_sample_get(manager->options.state, fleet, since, &sample, err);
    if (r < 0 && r != PK_E_NOTFOUND)
        return r;
    pk_manager_lock(manager);
    const struct pk_fleet *found = pk_manager_find(manager, fleet);
    const json_t *account = found != NULL ? found->ledger : NULL;
    if (account == NULL && found != NULL) {
        (void)pk_fail(err, PK_E_NOTFOUND, "nothing of fleet %s is counted yet", fleet);
        r = pk_hint(err, "the ledger begins when the agent answers: see 'picket status'");
    } else if (account == NULL) {
        (void)pk_fail(err, PK_E_NOTFOUND, "there is no fleet %s", fleet);
        r = pk_hint(err, "'picket status' lists the fleets, 'picket apply FILE' makes one");
    } else {
        int64_t began = pk_json_int_or(account, "since", 0);
        bool whole = began >= since || pk_json_int_or(sample, "at", 0) < began;
        r = pk_ledger_join(account, whole ? NULL : sample, fleet, ret_ledger, err);
    }
    pk_manager_unlock(manager);
    return r;
}
