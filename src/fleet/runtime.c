/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How units fare: their own counters, which go on over restarts, how often and why they ended, and
 * when one that ends again and again is started next.
 */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/json.h"
#include "base/log.h"
#include "base/time.h"
#include "fleet/internal.h"
#include "fleet/probe_suricata.h"

#define TOOLS_INTERVAL    PK_NSEC_PER_SEC
#define NOTES_EVERY       8u /* times that the tools are asked: Suricata adds them up so often */
#define PROBE_TIMEOUT_MS  1000u
#define REPORT_TIMEOUT_MS 500u
#define BACKOFF_FIRST     PK_NSEC_PER_SEC
#define BACKOFF_LAST      (60 * PK_NSEC_PER_SEC)
#define HEALTHY_AFTER     (60 * PK_NSEC_PER_SEC)
#define LOG_LINES         4u
#define LOG_MAX_BYTES     4096u
#define REASON_MAX        512u
#define START_ROUNDING    (1500 * PK_NSEC_PER_MS)
#define SIGKILL_EXIT      137

void pk_runtime_done(struct pk_runtime *runtime)
{
    pk_free(runtime->unit);
    pk_free(runtime->hash);
    pk_free(runtime->reason);
    json_decref(runtime->notes);
    memset(runtime, 0, sizeof(*runtime));
}

struct pk_runtime *pk_runtime_find(struct pk_fleet *fleet, const char *unit)
{
    for (size_t i = 0; i < fleet->runtime_count; i++)
        if (strcmp(fleet->runtimes[i].unit, unit) == 0)
            return &fleet->runtimes[i];
    return NULL;
}

static struct pk_runtime *find_or_add(struct pk_fleet *fleet, const char *unit)
{
    struct pk_runtime *runtime = pk_runtime_find(fleet, unit);
    if (runtime != NULL)
        return runtime;
    struct pk_runtime *list =
        pk_realloc_array(fleet->runtimes, fleet->runtime_count + 1, sizeof(*list));
    if (list == NULL)
        return NULL;
    fleet->runtimes = list;
    runtime = &list[fleet->runtime_count];
    *runtime = (struct pk_runtime){ .unit = pk_strdup(unit),
                                    .hash = pk_strdup(""),
                                    .reason = pk_strdup("") };
    if (runtime->unit == NULL || runtime->hash == NULL || runtime->reason == NULL) {
        pk_runtime_done(runtime);
        return NULL;
    }
    fleet->runtime_count++;
    return runtime;
}

static void replace_text(char **text, const char *with)
{
    char *copy = pk_strdup(with);
    if (copy == NULL)
        return; /* the old text is better than none */
    pk_free(*text);
    *text = copy;
}

/* Is this another life than the one we know? Engines round the time of the start as they like, so
 * the process tells; after a restart of serve it is not known, and the time must do. */
static bool is_new_life(const struct pk_runtime *runtime, const struct pk_unit_status *status)
{
    if (status->state != PK_UNIT_RUNNING || status->started_at == 0)
        return false;
    if (runtime->started_at == 0 || (runtime->pid != 0 && status->pid != runtime->pid))
        return true;
    pk_nsec apart = status->started_at - runtime->started_at;
    return apart > START_ROUNDING || apart < -START_ROUNDING;
}

/* A new life: what the last one counted is kept. Lock held. */
static void note_start(struct pk_runtime *runtime, const struct pk_unit_status *status)
{
    bool same = strcmp(runtime->hash, status->hash != NULL ? status->hash : "") == 0;
    if (runtime->started_at != 0 && same)
        runtime->restarts++;
    runtime->base_packets += runtime->packets;
    runtime->base_drops += runtime->drops;
    runtime->packets = 0;
    runtime->drops = 0;
    json_decref(runtime->notes);
    runtime->notes = NULL;
    runtime->answered_at = 0;
    runtime->started_at = status->started_at;
    runtime->end_noted = false;
    replace_text(&runtime->hash, status->hash != NULL ? status->hash : "");
    runtime->dirty = true;
}

/* When a tool that ended may be started again. Lock held. */
static void schedule(struct pk_runtime *runtime, const struct pk_unit_status *status)
{
    pk_nsec lived = pk_time_now() - status->started_at;
    if (runtime->failures > 0 && lived >= HEALTHY_AFTER)
        runtime->failures = 0;
    runtime->failures++;
    pk_nsec delay = BACKOFF_FIRST;
    /* Killed from outside, it has not failed by itself: there is no loop to slow down. */
    bool from_outside =
        status->end_unseen || (status->exit_code == SIGKILL_EXIT && !status->oom_killed);
    for (unsigned i = 1; i < runtime->failures && delay < BACKOFF_LAST && !from_outside; i++)
        delay *= 2;
    runtime->next_try_at = pk_time_monotonic() + PK_MIN(delay, BACKOFF_LAST);
}

void pk_unit_last_words(struct pk_engine *engine, const char *unit, struct pk_buf *ret_words)
{
    PK_CLEANUP(pk_buf_done) struct pk_buf log = PK_BUF_INIT(LOG_MAX_BYTES);
    (void)engine->ops->logs(engine->self, unit, LOG_LINES, &log, NULL);
    while (log.len > 0 && log.data[log.len - 1] == '\n')
        log.data[--log.len] = '\0';
    for (size_t i = 0; i < log.len; i++) {
        bool line_ends = log.data[i] == '\n';
        if (pk_buf_add(ret_words, line_ends ? " | " : log.data + i, line_ends ? 3 : 1) < 0)
            return;
    }
}

static void note_end(struct pk_manager *manager, struct pk_fleet *fleet,
                     const struct pk_unit_status *status)
{
    char text[96];
    PK_CLEANUP(pk_buf_done) struct pk_buf log = PK_BUF_INIT(REASON_MAX);
    pk_unit_last_words(manager->options.engine, status->name, &log);
    (void)pk_exit_text(status, text, sizeof(text));
    PK_CLEANUP(pk_free_p)
    char *reason =
        log.len > 0 ? pk_asprintf("%s; last words: %s", text, log.data) : pk_strdup(text);

    pk_manager_lock(manager);
    struct pk_runtime *runtime = pk_runtime_find(fleet, status->name);
    if (runtime != NULL) {
        replace_text(&runtime->reason, reason != NULL ? reason : text);
        runtime->ended_at = pk_time_now();
        runtime->end_noted = true;
        runtime->answered_at = 0;
        schedule(runtime, status);
        runtime->dirty = true;
        pk_log(PK_LOG_INFO, "fleet", "%s ended: %s", status->name, reason != NULL ? reason : text);
    }
    (void)pthread_cond_broadcast(&manager->changed);
    pk_manager_unlock(manager);
}

void pk_runtime_update(struct pk_manager *manager, struct pk_fleet *fleet,
                       const struct pk_view *view)
{
    for (size_t i = 0; view->units != NULL && i < view->units->count; i++) {
        const struct pk_unit_status *status = &view->units->list[i];
        if (status->fleet == NULL || strcmp(status->fleet, fleet->name) != 0)
            continue;
        pk_manager_lock(manager);
        struct pk_runtime *runtime = find_or_add(fleet, status->name);
        if (runtime != NULL && is_new_life(runtime, status))
            note_start(runtime, status);
        if (runtime != NULL && status->state == PK_UNIT_RUNNING)
            runtime->pid = status->pid;
        bool ended = runtime != NULL && status->state == PK_UNIT_EXITED && !runtime->end_noted;
        pk_manager_unlock(manager);
        if (ended)
            note_end(manager, fleet, status);
    }
}

void pk_runtime_answered(struct pk_manager *manager, struct pk_fleet *fleet, const char *unit)
{
    pk_manager_lock(manager);
    struct pk_runtime *runtime = pk_runtime_find(fleet, unit);
    if (runtime != NULL) {
        runtime->answered_at = pk_time_monotonic();
        runtime->probe_error = (struct pk_error){ 0 };
    }
    pk_manager_unlock(manager);
}

/* ---- asking the tools ---- */

struct question {
    char *fleet, *group, *unit, *socket;
    unsigned lane;
};

static void questions_free(struct question *questions, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        pk_free(questions[i].fleet);
        pk_free(questions[i].group);
        pk_free(questions[i].unit);
        pk_free(questions[i].socket);
    }
    pk_free(questions);
}

/* It runs, and its start was taken note of: what it counts is then of the life that is counted. */
static bool can_be_asked(const struct pk_manager *manager, struct pk_fleet *fleet, const char *unit)
{
    const struct pk_runtime *runtime = pk_runtime_find(fleet, unit);
    const struct pk_units_seen *units = manager->units;
    for (size_t i = 0; runtime != NULL && units != NULL && i < units->count; i++)
        if (units->list[i].state == PK_UNIT_RUNNING && strcmp(units->list[i].name, unit) == 0)
            return units->list[i].pid == runtime->pid && !is_new_life(runtime, &units->list[i]);
    return false;
}

/* All running tools that can be asked. Lock held. */
static struct question *collect(struct pk_manager *manager, size_t *ret_count)
{
    size_t total = 0;
    for (size_t f = 0; f < manager->fleet_count; f++)
        if (manager->fleets[f]->desired != NULL)
            total += manager->fleets[f]->desired->unit_count;
    struct question *questions = pk_zalloc_array(total + 1, sizeof(*questions));
    size_t count = 0;
    for (size_t f = 0; questions != NULL && f < manager->fleet_count; f++) {
        const struct pk_desired *desired = manager->fleets[f]->desired;
        for (size_t i = 0; desired != NULL && i < desired->unit_count; i++) {
            const struct pk_unit *unit = &desired->units[i];
            if (unit->probe != PK_PROBE_SURICATA ||
                !can_be_asked(manager, manager->fleets[f], unit->name))
                continue;
            struct question *question = &questions[count];
            question->fleet = pk_strdup(unit->fleet);
            question->group = pk_strdup(unit->group);
            question->lane = unit->lane;
            question->unit = pk_strdup(unit->name);
            question->socket = pk_strdup(unit->probe_socket);
            count++;
            if (question->fleet == NULL || question->group == NULL || question->unit == NULL ||
                question->socket == NULL) {
                questions_free(questions, count);
                return NULL;
            }
        }
    }
    *ret_count = count;
    return questions;
}

/* Lock held. */
static void take_answer(struct pk_manager *manager, const struct question *question,
                        struct pk_suricata_probe *probe)
{
    struct pk_fleet *fleet = pk_manager_find(manager, question->fleet);
    struct pk_runtime *runtime = fleet != NULL ? pk_runtime_find(fleet, question->unit) : NULL;
    if (runtime == NULL)
        return;
    if (probe->code < 0) {
        runtime->probe_error = probe->error;
        return;
    }
    if (probe->packets < runtime->packets)
        return; /* already a new life: counted once its start was seen */
    runtime->dirty |= probe->packets != runtime->packets || probe->drops != runtime->drops;
    runtime->packets = probe->packets;
    runtime->drops = probe->drops;
    if (probe->notes != NULL) {
        json_decref(runtime->notes);
        runtime->notes = PK_TAKE(probe->notes);
    }
    runtime->answered_at = pk_time_monotonic();
    runtime->probe_error = (struct pk_error){ 0 };
}

static bool same_lane(const struct question *a, const struct question *b)
{
    return a->lane == b->lane && strcmp(a->group, b->group) == 0 && strcmp(a->fleet, b->fleet) == 0;
}

/* The agent judges the lanes' health, also by what their tools say: of several in a lane the one
 * that reads least. */
static void report(struct pk_manager *manager, const struct question *questions,
                   const struct pk_suricata_probe *probes, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        bool first = true;
        bool all = true;
        uint64_t packets = UINT64_MAX;
        uint64_t drops = 0;
        for (size_t k = 0; k < count; k++) {
            if (!same_lane(&questions[i], &questions[k]))
                continue;
            first &= k >= i;
            all &= probes[k].code >= 0;
            packets =
                PK_MIN(packets, probes[k].packets - PK_MIN(probes[k].packets, probes[k].drops));
            drops = PK_MAX(drops, probes[k].drops);
        }
        if (first && all) /* the agent's own trouble is told elsewhere */
            (void)pk_fleet_agent_call(manager, REPORT_TIMEOUT_MS, "PUT",
                                      json_pack("{s:I,s:I}", "packets", (json_int_t)packets,
                                                "dropped", (json_int_t)drops),
                                      NULL, NULL, "/v1/fleets/%s/lanes/%s/%u/report",
                                      questions[i].fleet, questions[i].group, questions[i].lane);
    }
}

static void ask_all(struct pk_manager *manager, bool want_notes)
{
    size_t count = 0;
    pk_manager_lock(manager);
    struct question *questions = collect(manager, &count);
    pk_manager_unlock(manager);
    PK_CLEANUP(pk_free_p)
    struct pk_suricata_probe *probes = pk_zalloc_array(count + 1, sizeof(*probes));
    if (questions != NULL && probes != NULL && count > 0) {
        for (size_t i = 0; i < count; i++)
            probes[i] = (struct pk_suricata_probe){ .socket = questions[i].socket,
                                                    .interface = PK_LANE_DEVICE,
                                                    .want_notes = want_notes };
        pk_suricata_probe_all(probes, count, PROBE_TIMEOUT_MS);
        pk_manager_lock(manager);
        for (size_t i = 0; i < count; i++)
            take_answer(manager, &questions[i], &probes[i]);
        pk_manager_unlock(manager);
        report(manager, questions, probes, count);
        for (size_t i = 0; i < count; i++)
            json_decref(probes[i].notes);
    }
    if (questions != NULL)
        questions_free(questions, count);
}

void *pk_thread_tools(void *arg)
{
    struct pk_manager *manager = arg;
    for (unsigned round = 0;; round++) {
        pk_nsec next = pk_time_monotonic() + TOOLS_INTERVAL;
        ask_all(manager, round % NOTES_EVERY == 0);
        pk_canaries_tell(manager);
        pk_ledger_tick(manager);
        pk_manager_lock(manager);
        while (!manager->stop && pk_time_monotonic() < next)
            pk_manager_wait(manager, next);
        bool stop = manager->stop;
        pk_manager_unlock(manager);
        if (stop)
            return NULL;
    }
}

/* ---- kept in the state ---- */

json_t *pk_runtimes_to_json(const struct pk_fleet *fleet)
{
    PK_JSON object = json_object();
    for (size_t i = 0; i < fleet->runtime_count && object != NULL; i++) {
        const struct pk_runtime *runtime = &fleet->runtimes[i];
        json_t *row =
            json_pack("{s:s,s:I,s:I,s:I,s:I,s:I,s:I,s:s,s:I}", "hash", runtime->hash, "startedAt",
                      (json_int_t)runtime->started_at, "restarts", (json_int_t)runtime->restarts,
                      "basePackets", (json_int_t)runtime->base_packets, "baseDrops",
                      (json_int_t)runtime->base_drops, "packets", (json_int_t)runtime->packets,
                      "drops", (json_int_t)runtime->drops, "reason", runtime->reason, "endedAt",
                      (json_int_t)runtime->ended_at);
        if (json_object_set_new(object, runtime->unit, row) < 0)
            return NULL;
    }
    return PK_TAKE(object);
}

static uint64_t count_of(const json_t *row, const char *key)
{
    int64_t value = pk_json_int_or(row, key, 0);
    return value > 0 ? (uint64_t)value : 0;
}

int pk_runtimes_from_json(struct pk_fleet *fleet, const json_t *json)
{
    const char *unit;
    json_t *row;
    json_t *object = json_incref((json_t *)(uintptr_t)json);
    int r = 0;
    json_object_foreach(object, unit, row)
    {
        struct pk_runtime *runtime = find_or_add(fleet, unit);
        if (runtime == NULL) {
            r = PK_E_NOMEM;
            break;
        }
        replace_text(&runtime->hash, pk_json_string_or(row, "hash", ""));
        replace_text(&runtime->reason, pk_json_string_or(row, "reason", ""));
        runtime->started_at = pk_json_int_or(row, "startedAt", 0);
        runtime->ended_at = pk_json_int_or(row, "endedAt", 0);
        runtime->restarts = count_of(row, "restarts");
        runtime->base_packets = count_of(row, "basePackets");
        runtime->base_drops = count_of(row, "baseDrops");
        runtime->packets = count_of(row, "packets");
        runtime->drops = count_of(row, "drops");
    }
    json_decref(object);
    return r;
}
