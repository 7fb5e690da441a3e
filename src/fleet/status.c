/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What users see: status, progress, history, logs. Status is made of the last look, with its age;
 * it waits for nobody.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/json.h"
#include "base/time.h"
#include "fleet/internal.h"

/* A tool that answers no question for so long after its start is not starting any more. */
#define STARTING_FOR (180 * PK_NSEC_PER_SEC)
/* The tools are asked each second: some answers may come late. */
#define ANSWER_MAX_AGE (10 * PK_NSEC_PER_SEC)
#define HISTORY_MAX    500u

json_t *pk_time_json(pk_nsec when)
{
    char text[36];
    return when == 0 ? json_null() : json_string(pk_time_format(when, 3, text, sizeof(text)));
}

static json_t *age_json(pk_nsec then)
{
    return then == 0 ? json_null() : json_integer((pk_time_monotonic() - then) / PK_NSEC_PER_MS);
}

static const char *const outcome_names[] = { "applied", "applying", "failed" };

/* Builds one fleet's status. Lock held. */
struct report {
    struct pk_manager *manager;
    struct pk_fleet *fleet;
    const struct pk_view *view;
    json_t *reasons; /* why it is degraded */
};

static void complain(struct report *report, const char *fmt, ...) PK_PRINTF(2, 3);
static void complain(struct report *report, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    PK_CLEANUP(pk_free_p) char *text = pk_vasprintf(fmt, args);
    va_end(args);
    if (text != NULL && json_array_size(report->reasons) < 100)
        (void)json_array_append_new(report->reasons, json_string(text));
}

static json_int_t number(const json_t *row, const char *key)
{
    return (json_int_t)PK_MAX(pk_json_int_or(row, key, 0), 0);
}

/* ---- tools ---- */

static const char *tool_state(struct report *report, const struct pk_unit *unit,
                              const struct pk_unit_status *status, const struct pk_runtime *runtime)
{
    if (status == NULL)
        return "missing";
    if (status->state == PK_UNIT_CREATED)
        return "created";
    if (status->state == PK_UNIT_EXITED)
        return report->fleet->outcome == PK_OUTCOME_APPLYING ? "exited" : "restarting";
    if (unit->probe == PK_PROBE_NONE)
        return "running";
    pk_nsec now = pk_time_monotonic();
    if (runtime != NULL && runtime->answered_at != 0)
        return now - runtime->answered_at <= ANSWER_MAX_AGE ? "running" : "silent";
    return pk_time_now() - status->started_at < STARTING_FOR ? "starting" : "silent";
}

static json_t *tool_json(struct report *report, const struct pk_unit *unit)
{
    const struct pk_unit_status *status = pk_view_unit(report->view, unit->name);
    const struct pk_runtime *runtime = pk_runtime_find(report->fleet, unit->name);
    static const struct pk_runtime none = { 0 };
    const struct pk_runtime *life = runtime != NULL ? runtime : &none;
    const char *state = tool_state(report, unit, status, runtime);
    bool running = strcmp(state, "running") == 0;
    pk_nsec next_try = status != NULL && status->state == PK_UNIT_EXITED ? life->next_try_at : 0;
    json_int_t wait_ms = PK_MAX((next_try - pk_time_monotonic()) / PK_NSEC_PER_MS, 0);

    const char *reason = "";
    if (!running && status != NULL && status->state == PK_UNIT_RUNNING)
        reason = life->probe_error.msg;
    if (!running && reason[0] == '\0' && life->reason != NULL)
        reason = life->reason;
    if (!running)
        complain(report, "%s/%u/%s is %s%s%s", unit->group, unit->lane, unit->tool, state,
                 reason[0] != '\0' ? ": " : "", reason);
    json_t *tool = json_pack(
        "{s:s,s:s,s:s,s:s,s:I,s:I,s:I,s:I,s:s,s:I,s:o,s:s}", "name", unit->tool, "package",
        unit->package, "version", unit->release[0] != '\0' ? unit->release : unit->version, "state",
        state, "restarts", (json_int_t)life->restarts, "packets",
        (json_int_t)(life->base_packets + life->packets), "dropped",
        (json_int_t)(life->base_drops + life->drops), "unconfirmed",
        (json_int_t)pk_ledger_unconfirmed(report->fleet, unit), "unit", unit->name, "pid",
        (json_int_t)(status != NULL ? status->pid : 0), "startedAt",
        pk_time_json(status != NULL ? status->started_at : 0), "reason", reason);
    if (tool == NULL)
        return NULL;
    (void)json_object_set_new(tool, "cpu", json_string(unit->cpuset));
    if (life->ended_at != 0)
        (void)json_object_set_new(tool, "lastEnd",
                                  json_pack("{s:o,s:s}", "at", pk_time_json(life->ended_at),
                                            "reason", life->reason != NULL ? life->reason : ""));
    if (next_try != 0)
        (void)json_object_set_new(tool, "restartInMs", json_integer(wait_ms));
    return tool;
}

/* ---- lanes, groups, taps ---- */

static json_t *lane_json(struct report *report, const struct pk_lane_desired *lane)
{
    const char *fleet = report->fleet->name;
    const struct pk_desired *desired = report->fleet->desired;
    const json_t *row = pk_view_lane(report->view, fleet, lane->group, lane->index);
    const char *state = row != NULL ? pk_json_string_or(row, "state", "broken") : "missing";
    const char *detail = pk_json_string_or(row, "detail", "");
    json_t *tools = json_array();
    for (size_t i = 0; i < desired->unit_count; i++) {
        const struct pk_unit *unit = &desired->units[i];
        if (unit->lane == lane->index && strcmp(unit->group, lane->group) == 0)
            (void)json_array_append_new(tools, tool_json(report, unit));
    }
    if (strcmp(state, "ready") != 0)
        complain(report, "lane %s/%u is %s%s%s", lane->group, lane->index, state,
                 detail[0] != '\0' ? ": " : "", detail);
    const char *health = pk_json_string_or(row, "health", "");
    const char *why = pk_json_string_or(row, "why", "");
    if (strcmp(state, "ready") == 0 && why[0] != '\0')
        complain(report, "lane %s/%u is %s: %s", lane->group, lane->index, health, why);
    PK_CLEANUP(pk_free_p) char *name = pk_asprintf("%s/%u", lane->group, lane->index);
    json_t *json = json_pack(
        "{s:s,s:I,s:s,s:s,s:I,s:I,s:I,s:I,s:I,s:I,s:s,s:o}", "name", name != NULL ? name : "",
        "index", (json_int_t)lane->index, "state", state, "detail", detail, "slots",
        number(row, "slots"), "packets", number(row, "packets"), "bytes", number(row, "bytes"),
        "dropped", number(row, "dropped"), "unread", number(row, "unread"), "ringDropped",
        number(row, "ringDropped"), "netns", pk_json_string_or(row, "netns", ""), "tools", tools);
    json_t *drain = json_object_get(row, "drain");
    if (json == NULL)
        return NULL;
    (void)json_object_set_new(json, "health", json_string(health));
    (void)json_object_set_new(json, "why", json_string(why));
    (void)json_object_set(json, "drain", drain != NULL ? drain : json_null());
    json_t *canary = json_object_get(row, "canary");
    (void)json_object_set(json, "canary", canary != NULL ? canary : json_null());
    return json;
}

/* What is counted, of a row of the agent's: its numbers, but for these. */
static json_t *counters_json(const json_t *row)
{
    static const char *const others[] = { "mtu", "priority", "generation", "began" };
    json_t *counters = json_object();
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)row, key, value)
    {
        bool counted = json_is_integer(value) && json_integer_value(value) >= 0;
        for (size_t i = 0; i < PK_ARRAY_SIZE(others); i++)
            counted = counted && strcmp(key, others[i]) != 0;
        if (counted)
            (void)json_object_set(counters, key, value);
    }
    return counters;
}

static json_t *group_json(struct report *report, const struct pk_group_desired *group,
                          json_t *lanes_take)
{
    const json_t *row = pk_view_group(report->view, report->fleet->name, group->name);
    json_t *overload = json_object_get(row, "overload");
    return json_pack("{s:s,s:s,s:I,s:s,s:O?,s:o,s:o}", "name", group->name, "tenant", group->tenant,
                     "priority", (json_int_t)group->priority, "detail",
                     pk_json_string_or(row, "detail", ""), "overload", overload, "counters",
                     counters_json(row), "lanes", lanes_take);
}

static json_t *groups_json(struct report *report)
{
    const struct pk_desired *desired = report->fleet->desired;
    json_t *groups = json_array();
    for (size_t g = 0; desired != NULL && g < desired->group_count; g++) {
        json_t *lanes = json_array();
        for (size_t i = 0; i < desired->lane_count; i++)
            if (strcmp(desired->lanes[i].group, desired->groups[g].name) == 0)
                (void)json_array_append_new(lanes, lane_json(report, &desired->lanes[i]));
        (void)json_array_append_new(groups, group_json(report, &desired->groups[g], lanes));
    }
    return groups;
}

/* Traffic that no tool looks at, or that is cut, is nothing to find out by chance. */
static void complain_of_inline(struct report *report, const char *tap, const json_t *through)
{
    const char *state = pk_json_string_or(through, "state", "");
    json_int_t lanes = number(through, "lanes"), good = number(through, "lanesThrough");
    if (strcmp(state, "inline") == 0)
        return;
    complain(report, "tap %s: packets of %lld of %lld lanes %s, since %s", tap,
             (long long)(lanes - good), (long long)lanes,
             strcmp(state, "blocking") == 0 ? "are dropped" : "go past their tool",
             pk_json_string_or(through, "since", "its start"));
}

static json_t *taps_json(struct report *report)
{
    const struct pk_desired *desired = report->fleet->desired;
    json_t *taps = json_array();
    for (size_t i = 0; desired != NULL && i < desired->tap_count; i++) {
        const struct pk_tap_desired *tap = &desired->taps[i];
        const json_t *row = pk_view_tap(report->view, report->fleet->name, tap->name);
        const char *state = row != NULL ? pk_json_string_or(row, "state", "up") : "missing";
        const char *detail = pk_json_string_or(row, "detail", "");
        const char *interface =
            pk_tap_has_interface(tap->kind) ? tap->interface : pk_json_string_or(row, "interface", "");
        json_t *counted = json_object_get(row, "tenants");
        if (strcmp(state, "up") != 0)
            complain(report, "tap %s is %s%s%s", tap->name, state, detail[0] != '\0' ? ": " : "",
                     detail);
        json_t *json =
            json_pack("{s:s,s:s,s:s,s:O,s:O,s:s,s:s,s:I,s:I,s:I}", "name", tap->name, "kind",
                      pk_tap_kind_name(tap->kind), "interface", interface, "groups", tap->groups,
                      "tenants", counted != NULL ? counted : tap->tenants, "state", state, "mode",
                      pk_json_string_or(row, "mode", "none"), "packets", number(row, "packets"),
                      "bytes", number(row, "bytes"), "dropped", number(row, "dropped"));
        json_t *replay = json_object_get(row, "replay");
        if (replay != NULL)
            (void)json_object_set(json, "replay", replay);
        json_t *through = json_object_get(row, "inline");
        if (through != NULL) {
            (void)json_object_set(json, "inline", through);
            complain_of_inline(report, tap->name, through);
        }
        json_t *why = json_object_get(row, "reasons");
        if (why != NULL)
            (void)json_object_set(json, "reasons", why);
        json_t *setup = json_object_get(row, "setup");
        if (setup != NULL)
            (void)json_object_set(json, "setup", setup);
        (void)json_object_set_new(json, "counters", counters_json(row));
        (void)json_array_append_new(taps, json);
    }
    return taps;
}

/* ---- the rest ---- */

static json_t *peer_json(struct report *report, const char *what, const struct pk_error *trouble,
                         pk_nsec answered_at)
{
    bool reachable = trouble->code == 0 && answered_at != 0;
    if (trouble->code != 0)
        complain(report, "the %s cannot be reached: %s", what, trouble->msg);
    else if (answered_at == 0)
        complain(report, "the %s has not answered yet", what);
    json_t *json =
        json_pack("{s:b,s:o}", "reachable", (int)reachable, "ageMs", age_json(answered_at));
    if (trouble->code != 0)
        (void)json_object_set_new(json, "error", pk_json_of_error(trouble));
    return json;
}

/* The steps that are left to take, with what their last try said. */
static json_t *drift_json(struct report *report)
{
    const struct pk_fleet *fleet = report->fleet;
    json_t *drift = json_array();
    size_t i;
    json_t *step;
    json_array_foreach(fleet->drift, i, step)
    {
        json_t *row = json_copy(step);
        char key[PK_STEP_KEY_MAX];
        (void)snprintf(key, sizeof(key), "%s %s", pk_json_string_or(step, "kind", ""),
                       pk_json_string_or(step, "name", ""));
        const struct pk_retry *retry = pk_map_get(fleet->retries, key);
        if (retry != NULL) {
            pk_nsec left = retry->next_try_at - pk_time_monotonic();
            (void)json_object_set_new(row, "tries", json_integer(retry->failures));
            (void)json_object_set_new(row, "nextTryInMs",
                                      json_integer(PK_MAX(left, 0) / PK_NSEC_PER_MS));
            if (retry->error.code != 0)
                (void)json_object_set_new(row, "error", pk_json_of_error(&retry->error));
        }
        complain(report, "%s %s: %s", pk_json_string_or(step, "kind", ""),
                 pk_json_string_or(step, "name", ""), pk_json_string_or(step, "reason", ""));
        (void)json_array_append_new(drift, row);
    }
    return drift;
}

static json_t *apply_json(const struct pk_fleet *fleet)
{
    size_t done = 0;
    size_t i;
    json_t *row;
    const char *current = "";
    json_array_foreach(fleet->journal, i, row)
    {
        const char *state = pk_json_string_or(row, "state", "");
        done += strcmp(state, "done") == 0;
        if (strcmp(state, "running") == 0 && current[0] == '\0')
            current = pk_json_string_or(row, "name", "");
    }
    return json_pack("{s:s,s:s,s:I,s:I,s:s}", "outcome", outcome_names[fleet->outcome], "detail",
                     fleet->detail != NULL ? fleet->detail : "", "done", (json_int_t)done, "steps",
                     (json_int_t)json_array_size(fleet->journal), "step", current);
}

static json_t *events_json(const json_t *stats)
{
    return json_pack("{s:I,s:I,s:I}", "received", number(stats, "received"), "stored",
                     number(stats, "stored"), "lost", number(stats, "lost"));
}

static json_t *fleet_json(struct report *report, const json_t *stats)
{
    const struct pk_fleet *fleet = report->fleet;
    const struct pk_view *view = report->view;
    pk_nsec oldest = PK_MIN(view->engine_answered, view->agent_answered);
    json_t *engine = peer_json(report, "engine", &view->engine_error, view->engine_answered);
    json_t *agent = peer_json(report, "agent", &view->agent_error, view->agent_answered);
    json_t *taps = taps_json(report);
    json_t *groups = groups_json(report);
    json_t *drift = drift_json(report);
    if (fleet->outcome == PK_OUTCOME_FAILED)
        complain(report, "revision %" PRIu64 " failed: %s", fleet->revision,
                 fleet->detail != NULL ? fleet->detail : "");
    const char *state = "converged";
    if (fleet->job || fleet->outcome == PK_OUTCOME_APPLYING)
        state = "applying";
    else if (json_array_size(report->reasons) > 0)
        state = "degraded";
    return json_pack("{s:s,s:s,s:s,s:I,s:s,s:O,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o}", "apiVersion",
                     PK_API_VERSION, "kind", "Status", "fleet", fleet->name, "revision",
                     (json_int_t)fleet->revision, "state", state, "reasons", report->reasons,
                     "ageMs", age_json(oldest), "taps", taps, "groups", groups, "events",
                     events_json(stats), "apply", apply_json(fleet), "drift", drift, "engine",
                     engine, "agent", agent);
}

static int no_fleet(const char *fleet, struct pk_error *err)
{
    pk_fail(err, PK_E_NOTFOUND, "there is no fleet %s", fleet);
    return pk_hint(err, "'picket status' lists the fleets, 'picket apply FILE' makes one");
}

/* Not so one without a revision yet, nor one whose removal has been told: it is forgotten at once.
 */
static bool is_there(const struct pk_fleet *fleet)
{
    bool removed = fleet->document != NULL && fleet->document[0] == '\0' && !fleet->job &&
                   fleet->outcome == PK_OUTCOME_APPLIED;
    return fleet->revision != 0 && !removed;
}

int pk_manager_status(struct pk_manager *manager, const char *fleet, json_t **ret_status,
                      struct pk_error *err)
{
    PK_JSON stats = manager->options.events != NULL
                        ? pk_events_stats(manager->options.events, fleet, NULL)
                        : NULL;
    struct pk_view view;
    pk_view_take(manager, &view);
    PK_JSON reasons = json_array();
    struct report report = { .manager = manager, .view = &view, .reasons = reasons };
    json_t *status = NULL;
    pk_manager_lock(manager);
    report.fleet = pk_manager_find(manager, fleet);
    bool found = report.fleet != NULL && is_there(report.fleet);
    if (found && reasons != NULL)
        status = fleet_json(&report, stats);
    pk_manager_unlock(manager);
    pk_view_done(&view);
    if (!found)
        return no_fleet(fleet, err);
    if (status == NULL)
        return pk_no_memory(err);
    *ret_status = status;
    return 0;
}

int pk_manager_fleets(struct pk_manager *manager, json_t **ret_names, struct pk_error *err)
{
    PK_JSON names = json_array();
    int r = names != NULL ? 0 : PK_E_NOMEM;
    pk_manager_lock(manager);
    for (size_t i = 0; i < manager->fleet_count && r >= 0; i++)
        if (is_there(manager->fleets[i]) &&
            json_array_append_new(names, json_string(manager->fleets[i]->name)) < 0)
            r = PK_E_NOMEM;
    pk_manager_unlock(manager);
    if (r < 0)
        return pk_no_memory(err);
    *ret_names = PK_TAKE(names);
    return 0;
}

/* ---- progress ---- */

/* The progress of the revision that the manager has at hand; NULL when it has not. Lock held. */
static json_t *live_progress(struct pk_manager *manager, const char *name, uint64_t revision,
                             uint64_t *ret_version, bool *ret_final)
{
    const struct pk_fleet *fleet = pk_manager_find(manager, name);
    if (fleet == NULL || fleet->revision != revision)
        return NULL;
    *ret_version = fleet->version;
    *ret_final = fleet->outcome != PK_OUTCOME_APPLYING;
    return json_pack("{s:s,s:I,s:s,s:s,s:o,s:I}", "fleet", name, "revision", (json_int_t)revision,
                     "outcome", outcome_names[fleet->outcome], "detail",
                     fleet->detail != NULL && *ret_final ? fleet->detail : "", "steps",
                     json_deep_copy(fleet->journal), "version", (json_int_t)fleet->version);
}

static int kept_progress(struct pk_manager *manager, const char *fleet, uint64_t number,
                         uint64_t after, json_t **ret_progress, struct pk_error *err)
{
    struct pk_revision revision = { 0 };
    int r = pk_state_revision_get(manager->options.state, fleet, number, &revision, err);
    if (r < 0)
        return r;
    json_t *progress =
        json_pack("{s:s,s:I,s:s,s:s,s:O,s:I}", "fleet", fleet, "revision",
                  (json_int_t)revision.number, "outcome", revision.outcome, "detail",
                  revision.detail, "steps", revision.steps, "version", (json_int_t)(after + 1));
    pk_revision_done(&revision);
    if (progress == NULL)
        return pk_no_memory(err);
    *ret_progress = progress;
    return 0;
}

int pk_manager_progress(struct pk_manager *manager, const char *fleet, uint64_t revision,
                        uint64_t after, unsigned wait_ms, json_t **ret_progress,
                        struct pk_error *err)
{
    pk_nsec deadline = pk_time_monotonic() + wait_ms * PK_NSEC_PER_MS;
    json_t *progress = NULL;
    pk_manager_lock(manager);
    for (;;) {
        uint64_t version = 0;
        bool final = false;
        progress = live_progress(manager, fleet, revision, &version, &final);
        if (progress == NULL || final || version > after || manager->stop ||
            pk_time_monotonic() >= deadline)
            break;
        json_decref(progress);
        pk_manager_wait(manager, deadline);
    }
    pk_manager_unlock(manager);
    if (progress == NULL) /* an older one, or the one that removed the fleet */
        return kept_progress(manager, fleet, revision, after, ret_progress, err);
    *ret_progress = progress;
    return 0;
}

/* ---- history ---- */

static json_t *revision_json(const struct pk_revision *revision)
{
    return json_pack("{s:I,s:o,s:o,s:s,s:s,s:s,s:s,s:s,s:b}", "number",
                     (json_int_t)revision->number, "createdAt", pk_time_json(revision->created_at),
                     "finishedAt", pk_time_json(revision->finished_at), "user", revision->user,
                     "reason", revision->reason, "outcome", revision->outcome, "detail",
                     revision->detail, "plan", revision->plan_id, "removed",
                     revision->document[0] == '\0');
}

int pk_manager_history(struct pk_manager *manager, const char *fleet, uint64_t before, size_t limit,
                       json_t **ret_history, struct pk_error *err)
{
    struct pk_revision *list = NULL;
    size_t count = 0;
    limit = limit == 0 ? 50 : PK_MIN(limit, HISTORY_MAX);
    int r =
        pk_state_revision_list(manager->options.state, fleet, before, limit, &list, &count, err);
    if (r < 0)
        return r;
    PK_JSON revisions = json_array();
    for (size_t i = 0; i < count && revisions != NULL; i++) {
        json_t *row = revision_json(&list[i]);
        if (row != NULL)
            (void)json_object_set_new(row, "steps",
                                      json_integer((json_int_t)json_array_size(list[i].steps)));
        (void)json_array_append_new(revisions, row);
    }
    pk_revision_list_free(list, count);
    if (count == 0 && before == 0)
        return no_fleet(fleet, err);
    json_t *history = json_pack("{s:s,s:s,s:s,s:O}", "apiVersion", PK_API_VERSION, "kind",
                                "History", "fleet", fleet, "revisions", revisions);
    if (history == NULL)
        return pk_no_memory(err);
    *ret_history = history;
    return 0;
}

int pk_manager_revision(struct pk_manager *manager, const char *fleet, uint64_t number,
                        json_t **ret_revision, struct pk_error *err)
{
    struct pk_revision revision = { 0 };
    int r = pk_state_revision_get(manager->options.state, fleet, number, &revision, err);
    if (r < 0)
        return r;
    json_t *json = revision_json(&revision);
    if (json != NULL) {
        (void)json_object_set_new(json, "apiVersion", json_string(PK_API_VERSION));
        (void)json_object_set_new(json, "kind", json_string("Revision"));
        (void)json_object_set_new(json, "fleet", json_string(fleet));
        (void)json_object_set_new(json, "document", json_string(revision.document));
        (void)json_object_set(json, "steps", revision.steps);
    }
    pk_revision_done(&revision);
    if (json == NULL)
        return pk_no_memory(err);
    *ret_revision = json;
    return 0;
}

/* ---- logs ---- */

int pk_manager_logs(struct pk_manager *manager, const char *fleet, const char *unit, unsigned lines,
                    struct pk_buf *out, struct pk_error *err)
{
    PK_CLEANUP(pk_free_p) char *container = NULL;
    pk_manager_lock(manager);
    const struct pk_fleet *found = pk_manager_find(manager, fleet);
    const struct pk_desired *desired = found != NULL ? found->desired : NULL;
    for (size_t i = 0; desired != NULL && i < desired->unit_count; i++) {
        const struct pk_unit *one = &desired->units[i];
        PK_CLEANUP(pk_free_p)
        char *name = pk_asprintf("%s/%u/%s", one->group, one->lane, one->tool);
        if (container == NULL && name != NULL && strcmp(name, unit) == 0)
            container = pk_strdup(one->name);
    }
    pk_manager_unlock(manager);
    if (found == NULL)
        return no_fleet(fleet, err);
    if (container == NULL) {
        pk_fail(err, PK_E_NOTFOUND, "fleet %s has no unit %s", fleet, unit);
        return pk_hint(err, "write GROUP/LANE/TOOL as 'picket status %s' shows them", fleet);
    }
    struct pk_engine *engine = manager->options.engine;
    return engine->ops->logs(engine->self, container, lines, out, err);
}
