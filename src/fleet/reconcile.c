/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The reconciler: observe, plan, carry out, for an apply and for a repair alike.
 *
 * From its beginning on, the newest revision is what is desired. An apply stops at the first step
 * that fails: the revision is "failed", nothing later is done, and until it is applied again or
 * rolled back only what is there is kept going (the causes gone, fault and stopped). An apply that
 * was cut off by the end of serve is taken up at its next start.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/json.h"
#include "base/log.h"
#include "base/time.h"
#include "fleet/internal.h"

#define PASS_INTERVAL     PK_NSEC_PER_SEC
#define SAVE_INTERVAL     (5 * PK_NSEC_PER_SEC)
#define SWEEP_INTERVAL    (30 * PK_NSEC_PER_SEC)
#define RETRY_FIRST       PK_NSEC_PER_SEC
#define RETRY_LAST        (60 * PK_NSEC_PER_SEC)
#define EFFECT_TIMEOUT_MS 5000u
#define FRESH_TIMEOUT_MS  15000u
#define PEER_BACK_WITHIN  (20 * PK_NSEC_PER_SEC)
#define PEER_LOOK_MS      300u
#define BOTH_PEERS        (1u << PK_PEER_ENGINE | 1u << PK_PEER_AGENT)

void pk_step_key(const struct pk_step *step, char *out, size_t size)
{
    (void)snprintf(out, size, "%s %s", pk_step_kind_name(step->kind), step->name);
}

bool pk_fleet_must_yield(struct pk_manager *manager, struct pk_fleet *fleet)
{
    pk_manager_lock(manager);
    bool must = manager->stop || (fleet->yield && !fleet->job);
    pk_manager_unlock(manager);
    return must;
}

/* ---- the journal ---- */

json_t *pk_journal_of_plan(const struct pk_plan *plan)
{
    PK_JSON journal = json_array();
    for (size_t i = 0; i < plan->step_count && journal != NULL; i++) {
        const struct pk_step *step = &plan->steps[i];
        json_t *row = json_pack("{s:s,s:s,s:s,s:s,s:s}", "op", pk_step_op_name(step->op), "kind",
                                pk_step_kind_name(step->kind), "name", step->name, "reason",
                                step->reason, "state", "pending");
        if (json_array_append_new(journal, row) < 0)
            return NULL;
    }
    return PK_TAKE(journal);
}

/* The journal of a revision that is taken up: what was done stays, the rest follows from what is
 * there now. */
static int begin_journal(struct pk_manager *manager, struct pk_fleet *fleet,
                         const struct pk_plan *plan, size_t *ret_first, struct pk_error *err)
{
    PK_JSON journal = json_array();
    PK_JSON rest = pk_journal_of_plan(plan);
    if (journal == NULL || rest == NULL)
        return pk_no_memory(err);
    pk_manager_lock(manager);
    size_t i;
    json_t *row;
    json_array_foreach(fleet->journal, i, row)
    {
        if (strcmp(pk_json_string_or(row, "state", ""), "done") == 0)
            (void)json_array_append(journal, row);
    }
    *ret_first = json_array_size(journal);
    (void)json_array_extend(journal, rest);
    json_decref(fleet->journal);
    fleet->journal = PK_TAKE(journal);
    fleet->version++;
    (void)pthread_cond_broadcast(&manager->changed);
    pk_manager_unlock(manager);
    return 0;
}

/* Sets a step's state in memory and on disk. */
static int mark(struct pk_manager *manager, struct pk_fleet *fleet, size_t index, const char *state,
                const char *detail, struct pk_error *err)
{
    pk_manager_lock(manager);
    json_t *row = json_array_get(fleet->journal, index);
    bool running = strcmp(state, "running") == 0;
    (void)json_object_set_new(row, "state", json_string(state));
    (void)json_object_set_new(row, running ? "startedAt" : "finishedAt",
                              pk_time_json(pk_time_now()));
    if (detail != NULL)
        (void)json_object_set_new(row, "detail", json_string(detail));
    fleet->version++;
    PK_JSON copy = json_deep_copy(fleet->journal);
    uint64_t revision = fleet->revision;
    (void)pthread_cond_broadcast(&manager->changed);
    pk_manager_unlock(manager);
    if (copy == NULL)
        return pk_no_memory(err);
    return pk_state_revision_step(manager->options.state, fleet->name, revision, copy, err);
}

/* ---- apply ---- */

static bool starts_only(const struct pk_step *step)
{
    return step->kind == PK_STEP_UNIT &&
           (step->op == PK_STEP_ADD ||
            (step->op == PK_STEP_CHANGE && step->cause == PK_CAUSE_STOPPED));
}

/* Whoever restarts Podman's service or the agent takes a moment. Steps can be repeated, so one that
 * met a dead peer is, before it fails the apply. */
static int execute(struct pk_manager *manager, struct pk_fleet *fleet,
                   const struct pk_observed *observed, const struct pk_step *step, bool wait,
                   struct pk_error *err)
{
    pk_nsec deadline = pk_time_monotonic() + PEER_BACK_WITHIN;
    for (;;) {
        int r = pk_step_execute(manager, fleet, observed, step, wait, err);
        if (r != PK_E_UNREACHABLE || pk_time_monotonic() > deadline ||
            pk_fleet_must_yield(manager, fleet))
            return r;
        pk_sleep_ms(PEER_LOOK_MS);
    }
}

/* The journal says where; the error says what. */
static int fail_step(struct pk_manager *manager, struct pk_fleet *fleet, const struct pk_step *step,
                     size_t row, struct pk_error *err)
{
    if (err->code == PK_E_INTERRUPTED)
        return err->code;
    (void)mark(manager, fleet, row, "failed", err->msg, NULL);
    return pk_wrap(err, "%s %s", pk_step_kind_name(step->kind), step->name);
}

/* Tools that are only started come up side by side: one is waited for while the others load. */
static int run_starts(struct pk_manager *manager, struct pk_fleet *fleet,
                      const struct pk_observed *observed, const struct pk_step *steps, size_t count,
                      size_t row, struct pk_error *err)
{
    int r = 0;
    for (size_t i = 0; i < count && r >= 0; i++) {
        r = mark(manager, fleet, row + i, "running", NULL, err);
        if (r >= 0)
            r = execute(manager, fleet, observed, &steps[i], false, err);
        if (r < 0)
            r = fail_step(manager, fleet, &steps[i], row + i, err);
    }
    for (size_t i = 0; i < count && r >= 0; i++) {
        const struct pk_unit *unit = &fleet->desired->units[steps[i].index];
        r = pk_unit_wait_ready(manager, fleet, unit, err);
        if (r >= 0)
            r = mark(manager, fleet, row + i, "done", NULL, err);
        if (r < 0)
            r = fail_step(manager, fleet, &steps[i], row + i, err);
    }
    return r;
}

/* Its interface is away, and nothing else of it is to be changed: the agent takes it when it is
 * back, which must keep nobody from changing the rest of the fleet. */
static bool waits_for_interface(const struct pk_step *step, int result)
{
    return result == PK_E_NOTFOUND && step->kind == PK_STEP_TAP && step->cause == PK_CAUSE_FAULT;
}

static int run_steps(struct pk_manager *manager, struct pk_fleet *fleet,
                     const struct pk_observed *observed, const struct pk_plan *plan, size_t first,
                     struct pk_error *err)
{
    size_t i = 0;
    while (i < plan->step_count) {
        if (pk_fleet_must_yield(manager, fleet))
            return pk_fail(err, PK_E_INTERRUPTED, "serve stops");
        const struct pk_step *step = &plan->steps[i];
        size_t count = 0;
        while (i + count < plan->step_count && starts_only(&plan->steps[i + count]))
            count++;
        if (count > 0) {
            int r = run_starts(manager, fleet, observed, step, count, first + i, err);
            if (r < 0)
                return r;
            i += count;
            continue;
        }
        int r = mark(manager, fleet, first + i, "running", NULL, err);
        if (r >= 0)
            r = execute(manager, fleet, observed, step, true, err);
        bool waits = waits_for_interface(step, r);
        if (r >= 0 || waits)
            r = mark(manager, fleet, first + i, "done",
                     waits ? "waits until its interface is there" : NULL, err);
        if (r < 0)
            return fail_step(manager, fleet, step, first + i, err);
        i++;
    }
    return 0;
}

static void take_note(struct pk_manager *manager, struct pk_fleet *fleet,
                      const struct pk_plan *plan);

/* Looks once more after the last step, so that whoever sees the end of an apply sees its effect.
 * That the look fails is no failure of the apply: the next look tells. */
static void look_at_effect(struct pk_manager *manager, struct pk_fleet *fleet)
{
    struct pk_view view;
    PK_CLEANUP(pk_observed_free_p) struct pk_observed *observed = NULL;
    PK_CLEANUP(pk_plan_free_p) struct pk_plan *plan = NULL;
    if (pk_view_fresh(manager, BOTH_PEERS, EFFECT_TIMEOUT_MS, &view, NULL) < 0)
        return;
    bool worked = view.engine_error.code == 0 && view.agent_error.code == 0;
    if (worked)
        pk_runtime_update(manager, fleet, &view);
    if (worked &&
        pk_observe(manager, &view, fleet->name, fleet->desired, &fleet->known, &observed, NULL) >=
            0 &&
        pk_plan_make(fleet->desired, observed, &plan, NULL) >= 0)
        take_note(manager, fleet, plan);
    pk_view_done(&view);
}

/* Observes and plans anew: what was approved is the desired state, and it is the same code that
 * takes up a revision after a crash. */
static int carry_out(struct pk_manager *manager, struct pk_fleet *fleet, bool *ret_look_failed,
                     struct pk_error *err)
{
    struct pk_view view;
    *ret_look_failed = true;
    int r = pk_view_fresh(manager, BOTH_PEERS, FRESH_TIMEOUT_MS, &view, err);
    if (r < 0)
        return r;
    const struct pk_error *trouble =
        view.engine_error.code < 0 ? &view.engine_error : &view.agent_error;
    if (trouble->code < 0) {
        *err = *trouble;
        pk_view_done(&view);
        return err->code;
    }
    *ret_look_failed = false;
    pk_runtime_update(manager, fleet, &view);
    PK_CLEANUP(pk_observed_free_p) struct pk_observed *observed = NULL;
    PK_CLEANUP(pk_plan_free_p) struct pk_plan *plan = NULL;
    size_t first = 0;
    r = pk_observe(manager, &view, fleet->name, fleet->desired, &fleet->known, &observed, err);
    pk_view_done(&view);
    if (r >= 0)
        r = pk_plan_make(fleet->desired, observed, &plan, err);
    if (r >= 0)
        r = begin_journal(manager, fleet, plan, &first, err);
    if (r >= 0)
        r = run_steps(manager, fleet, observed, plan, first, err);
    if (r != PK_E_INTERRUPTED)
        look_at_effect(manager, fleet);
    return r;
}

/* Keys of all that is desired and not in unknown: what is in order now and may be gone later. */
static int known_keys(const struct pk_desired *desired, const struct pk_strv *unknown,
                      struct pk_strv *keys)
{
    char key[PK_STEP_KEY_MAX];
    int r = 0;
    for (size_t i = 0; i < desired->lane_count && r >= 0; i++) {
        (void)snprintf(key, sizeof(key), "lane %s/%u", desired->lanes[i].group,
                       desired->lanes[i].index);
        r = pk_strv_contains(unknown, key) ? 0 : pk_strv_add(keys, key);
    }
    for (size_t i = 0; i < desired->unit_count && r >= 0; i++) {
        const struct pk_unit *unit = &desired->units[i];
        (void)snprintf(key, sizeof(key), "unit %s/%u/%s", unit->group, unit->lane, unit->tool);
        r = pk_strv_contains(unknown, key) ? 0 : pk_strv_add(keys, key);
    }
    for (size_t i = 0; i < desired->group_count && r >= 0; i++) {
        const char *group = desired->groups[i].name;
        unsigned lanes = 0;
        for (size_t l = 0; l < desired->lane_count; l++)
            lanes += strcmp(desired->lanes[l].group, group) == 0;
        (void)snprintf(key, sizeof(key), "group %s", group);
        bool is_unknown = pk_strv_contains(unknown, key);
        pk_group_key(key, sizeof(key), group, lanes, desired->groups[i].hash);
        r = is_unknown ? 0 : pk_strv_addf(keys, "group %s", key);
    }
    for (size_t i = 0; i < desired->tap_count && r >= 0; i++) {
        (void)snprintf(key, sizeof(key), "tap %s", desired->taps[i].name);
        r = pk_strv_contains(unknown, key) ? 0 : pk_strv_add(keys, key);
    }
    return r;
}

/* The fleet is gone: its history stays. Lock not held; busy. */
static void finish_removal(struct pk_manager *manager, struct pk_fleet *fleet)
{
    struct pk_error err = { 0 };
    if (pk_state_fleet_remove(manager->options.state, fleet->name, &err) < 0 ||
        pk_state_put(manager->options.state, PK_KIND_RUNTIME, fleet->name, NULL, &err) < 0)
        pk_log_error(PK_LOG_INFO, "fleet", &err, "forgetting fleet %s", fleet->name);
    pk_ledger_forget(manager, fleet->name);
    pk_manager_lock(manager);
    pk_manager_drop(manager, fleet);
    (void)pthread_cond_broadcast(&manager->changed);
    pk_manager_unlock(manager);
}

/* Returns whether the fleet is still there. */
static bool run_job(struct pk_manager *manager, struct pk_fleet *fleet)
{
    struct pk_error err = { 0 };
    bool look_failed = false;
    int r = carry_out(manager, fleet, &look_failed, &err);
    /* Cut off, or taken up before engine and agent are there: it stays to be done. */
    if (r == PK_E_INTERRUPTED || (r < 0 && look_failed && fleet->resumed))
        return true;

    if (r < 0)
        pk_log_error(PK_LOG_INFO, "fleet", &err, "fleet %s: revision %" PRIu64 " failed",
                     fleet->name, fleet->revision);
    else
        pk_log(PK_LOG_INFO, "fleet", "fleet %s: revision %" PRIu64 " is applied", fleet->name,
               fleet->revision);
    char detail[sizeof(err.msg) + sizeof(err.hint) + 8] = "";
    if (r < 0)
        (void)snprintf(detail, sizeof(detail), "%s%s%s%s", err.msg, err.hint[0] ? " (" : "",
                       err.hint, err.hint[0] ? ")" : "");
    struct pk_error trouble = { 0 };
    if (pk_state_revision_finish(manager->options.state, fleet->name, fleet->revision,
                                 r < 0 ? "failed" : "applied", detail, &trouble) < 0) {
        pk_log_error(PK_LOG_INFO, "fleet", &trouble, "fleet %s: recording the outcome",
                     fleet->name);
        /* Not on disk: a later start takes the revision up again, which does no harm. */
    }
    struct pk_strv known = { 0 };
    struct pk_strv unknown = { 0 };
    bool all_known = r >= 0 && known_keys(fleet->desired, &unknown, &known) >= 0;
    pk_manager_lock(manager);
    if (all_known) {
        struct pk_strv old = fleet->known;
        fleet->known = known;
        known = old;
        fleet->known_dirty = true;
    }
    fleet->job = false;
    fleet->resumed = false;
    fleet->outcome = r < 0 ? PK_OUTCOME_FAILED : PK_OUTCOME_APPLIED;
    pk_free(fleet->detail);
    fleet->detail = pk_strdup(detail);
    fleet->acted_at = pk_time_monotonic();
    fleet->version++;
    bool gone = r >= 0 && fleet->document != NULL && fleet->document[0] == '\0';
    pk_manager_unlock(manager);
    pk_strv_done(&known);
    if (gone)
        finish_removal(manager, fleet);
    return !gone;
}

/* ---- repair ---- */

static const struct pk_observed_unit *unit_of_step(const struct pk_fleet *fleet,
                                                   const struct pk_observed *observed,
                                                   const struct pk_step *step)
{
    if (step->kind != PK_STEP_UNIT || step->op == PK_STEP_REMOVE)
        return NULL;
    const char *name = fleet->desired->units[step->index].name;
    for (size_t i = 0; i < observed->unit_count; i++)
        if (strcmp(observed->units[i].name, name) == 0)
            return &observed->units[i];
    return NULL;
}

/* A tool that a failed apply did not get to, and that ended: it goes on as it was before. */
static bool goes_on_as_before(const struct pk_fleet *fleet, const struct pk_observed *observed,
                              const struct pk_step *step)
{
    const struct pk_observed_unit *unit = unit_of_step(fleet, observed, step);
    return fleet->outcome == PK_OUTCOME_FAILED && step->cause == PK_CAUSE_CHANGED && unit != NULL &&
           !unit->running;
}

/* Runs a repair step now? Lock not held. */
static bool is_due(struct pk_manager *manager, struct pk_fleet *fleet,
                   const struct pk_observed *observed, const struct pk_step *step, const char *key,
                   bool agent_ok)
{
    bool as_before = goes_on_as_before(fleet, observed, step);
    bool restores = (step->cause != PK_CAUSE_NEW && step->cause != PK_CAUSE_CHANGED) || as_before;
    if ((fleet->outcome == PK_OUTCOME_FAILED && !restores) ||
        (!agent_ok && step->kind != PK_STEP_UNIT))
        return false;
    pk_nsec now = pk_time_monotonic();
    pk_manager_lock(manager);
    const struct pk_retry *retry = pk_map_get(fleet->retries, key);
    bool due = retry == NULL || now >= retry->next_try_at;
    if (due && (step->cause == PK_CAUSE_STOPPED || as_before)) {
        const struct pk_runtime *runtime =
            pk_runtime_find(fleet, fleet->desired->units[step->index].name);
        due = runtime == NULL || now >= runtime->next_try_at;
    }
    pk_manager_unlock(manager);
    return due;
}

/* A step that was tried is not tried again at once, also when it seemed to work: only when the next
 * look shows that it is no longer needed is it forgotten. Takes the lock. */
static void note_try(struct pk_manager *manager, struct pk_fleet *fleet, const char *key,
                     const struct pk_error *err)
{
    pk_manager_lock(manager);
    struct pk_retry *retry = pk_map_get(fleet->retries, key);
    if (retry == NULL) {
        retry = pk_zalloc(sizeof(*retry));
        if (retry != NULL && pk_map_set_take(fleet->retries, key, retry) < 0) {
            pk_free(retry);
            retry = NULL;
        }
    }
    if (retry != NULL) {
        pk_nsec delay = RETRY_FIRST;
        for (unsigned i = 0; i < retry->failures && delay < RETRY_LAST; i++)
            delay *= 2;
        retry->failures++;
        retry->next_try_at = pk_time_monotonic() + PK_MIN(delay, RETRY_LAST);
        retry->error = *err;
    }
    pk_manager_unlock(manager);
}

/* Forgets tries of what is in order again. Lock held. */
static void forget_tries(struct pk_fleet *fleet, const struct pk_strv *needed)
{
    for (size_t i = pk_map_count(fleet->retries); i-- > 0;) {
        const char *key = NULL;
        void *value = NULL;
        pk_map_at(fleet->retries, i, &key, &value);
        if (!pk_strv_contains(needed, key))
            (void)pk_map_remove(fleet->retries, key);
    }
}

static bool same_strv(const struct pk_strv *a, const struct pk_strv *b)
{
    if (a->count != b->count)
        return false;
    for (size_t i = 0; i < a->count; i++)
        if (strcmp(a->list[i], b->list[i]) != 0)
            return false;
    return true;
}

/* Publishes what is amiss, and remembers what was once in order. Takes the lock. */
static void take_note(struct pk_manager *manager, struct pk_fleet *fleet,
                      const struct pk_plan *plan)
{
    char key[PK_STEP_KEY_MAX];
    struct pk_strv needed = { 0 };
    struct pk_strv unknown = { 0 };
    struct pk_strv known = { 0 };
    PK_JSON json = pk_plan_to_json(plan);
    int r = json != NULL ? 0 : PK_E_NOMEM;
    for (size_t i = 0; i < plan->step_count && r >= 0; i++) {
        const struct pk_step *step = &plan->steps[i];
        pk_step_key(step, key, sizeof(key));
        r = pk_strv_add(&needed, key);
        if (r >= 0 && (step->cause == PK_CAUSE_NEW || step->cause == PK_CAUSE_CHANGED))
            r = pk_strv_add(&unknown, key);
    }
    if (r >= 0)
        r = known_keys(fleet->desired, &unknown, &known);
    if (r >= 0) {
        pk_manager_lock(manager);
        json_decref(fleet->drift);
        fleet->drift = json_incref(json_object_get(json, "steps"));
        forget_tries(fleet, &needed);
        if (!same_strv(&known, &fleet->known)) {
            struct pk_strv old = fleet->known;
            fleet->known = known;
            known = old;
            fleet->known_dirty = true;
        }
        pk_manager_unlock(manager);
    }
    pk_strv_done(&needed);
    pk_strv_done(&unknown);
    pk_strv_done(&known);
}

/* One repair step; its failure holds up no other. */
static void repair_step(struct pk_manager *manager, struct pk_fleet *fleet,
                        const struct pk_observed *observed, const struct pk_step *step,
                        const char *key)
{
    struct pk_error err = { 0 };
    pk_log(PK_LOG_INFO, "fleet", "fleet %s: repair: %s %s: %s", fleet->name,
           pk_step_op_name(step->op), key, step->reason);
    bool as_before = goes_on_as_before(fleet, observed, step);
    struct pk_engine *engine = manager->options.engine;
    int r = as_before
                ? engine->ops->start(engine->self, fleet->desired->units[step->index].name, &err)
                : pk_step_execute(manager, fleet, observed, step, false, &err);
    if (r == PK_E_INTERRUPTED)
        return;
    if (r < 0)
        pk_log_error(PK_LOG_INFO, "fleet", &err, "fleet %s: repair of %s", fleet->name, key);
    /* A tool's own back-off counts its ends. */
    if (r < 0 || (step->cause != PK_CAUSE_STOPPED && !as_before))
        note_try(manager, fleet, key, &err);
}

static void repair(struct pk_manager *manager, struct pk_fleet *fleet, const struct pk_view *view)
{
    bool agent_ok = view->agent_error.code == 0;
    /* What was seen while we acted is half of it: our own stop is no end of a tool. */
    if (view->engine_begun <= fleet->acted_at)
        return;
    pk_runtime_update(manager, fleet, view);
    if (fleet->desired == NULL || view->engine_error.code < 0 || view->units == NULL ||
        view->plane == NULL || (agent_ok && view->agent_begun <= fleet->acted_at))
        return;
    PK_CLEANUP(pk_observed_free_p) struct pk_observed *observed = NULL;
    PK_CLEANUP(pk_plan_free_p) struct pk_plan *plan = NULL;
    struct pk_error err = { 0 };
    int r = pk_observe(manager, view, fleet->name, fleet->desired, &fleet->known, &observed, &err);
    if (r >= 0)
        r = pk_plan_make(fleet->desired, observed, &plan, &err);
    if (r < 0) {
        pk_log_error(PK_LOG_INFO, "fleet", &err, "fleet %s: looking for drift", fleet->name);
        return;
    }
    take_note(manager, fleet, plan);
    if (fleet->outcome == PK_OUTCOME_APPLIED)
        pk_sources_ensure(manager, fleet->desired);
    bool acted = false;
    for (size_t i = 0; i < plan->step_count && !pk_fleet_must_yield(manager, fleet); i++) {
        char key[PK_STEP_KEY_MAX];
        pk_step_key(&plan->steps[i], key, sizeof(key));
        if (!is_due(manager, fleet, observed, &plan->steps[i], key, agent_ok))
            continue;
        repair_step(manager, fleet, observed, &plan->steps[i], key);
        acted = true;
    }
    if (!acted)
        return;
    pk_manager_lock(manager);
    fleet->acted_at = pk_time_monotonic();
    for (size_t i = 0; i < PK_PEERS; i++)
        manager->peers[i].wanted_at = fleet->acted_at;
    (void)pthread_cond_broadcast(&manager->changed);
    pk_manager_unlock(manager);
}

/* ---- the thread ---- */

/* Takes hold of a fleet that needs work. Lock held. */
static bool seize(struct pk_fleet *fleet, bool *ret_job)
{
    if (fleet->busy || (fleet->yield && !fleet->job))
        return false;
    *ret_job = fleet->job;
    fleet->busy = true;
    return true;
}

static void pass(struct pk_manager *manager)
{
    struct pk_view view;
    pk_view_take(manager, &view);
    pk_manager_lock(manager);
    for (size_t i = 0; i < manager->fleet_count && !manager->stop; i++) {
        struct pk_fleet *fleet = manager->fleets[i];
        bool job = false;
        if (!seize(fleet, &job))
            continue;
        pk_manager_unlock(manager);
        bool still_there = true;
        if (job)
            still_there = run_job(manager, fleet);
        else
            repair(manager, fleet, &view);
        pk_manager_lock(manager);
        if (!still_there) {
            i--;
            continue;
        }
        fleet->busy = false;
        (void)pthread_cond_broadcast(&manager->changed);
    }
    pk_manager_unlock(manager);
    pk_view_done(&view);
}

static void save_all(struct pk_manager *manager)
{
    pk_manager_lock(manager);
    for (size_t i = 0; i < manager->fleet_count; i++) {
        struct pk_fleet *fleet = manager->fleets[i];
        if (fleet->busy)
            continue;
        fleet->busy = true;
        pk_manager_unlock(manager);
        struct pk_error err = { 0 };
        if (pk_fleet_save(manager, fleet, &err) < 0)
            pk_log_error(PK_LOG_INFO, "fleet", &err, "fleet %s: saving its counters", fleet->name);
        pk_manager_lock(manager);
        fleet->busy = false;
        (void)pthread_cond_broadcast(&manager->changed);
    }
    pk_manager_unlock(manager);
}

/* Something new was seen, or an apply waits. Lock held. */
static bool has_work(const struct pk_manager *manager, const pk_nsec seen[PK_PEERS])
{
    for (size_t i = 0; i < manager->fleet_count; i++)
        if (manager->fleets[i]->job && !manager->fleets[i]->resumed && !manager->fleets[i]->busy)
            return true;
    for (size_t i = 0; i < PK_PEERS; i++)
        if (manager->peers[i].begun_at != seen[i])
            return true;
    return false;
}

void *pk_thread_reconcile(void *arg)
{
    struct pk_manager *manager = arg;
    pk_nsec seen[PK_PEERS] = { 0 };
    pk_nsec save_at = pk_time_monotonic() + SAVE_INTERVAL;
    pk_nsec sweep_at = pk_time_monotonic() + SWEEP_INTERVAL;
    for (;;) {
        pk_manager_lock(manager);
        pk_nsec until = pk_time_monotonic() + PASS_INTERVAL;
        while (!manager->stop && !has_work(manager, seen) && pk_time_monotonic() < until)
            pk_manager_wait(manager, until);
        for (size_t i = 0; i < PK_PEERS; i++)
            seen[i] = manager->peers[i].begun_at;
        bool stop = manager->stop;
        pk_manager_unlock(manager);
        pk_nsec now = pk_time_monotonic();
        if (stop || now >= save_at) {
            save_all(manager);
            save_at = now + SAVE_INTERVAL;
        }
        if (stop)
            return NULL;
        if (now >= sweep_at) {
            pk_sources_sweep(manager);
            sweep_at = now + SWEEP_INTERVAL;
        }
        pass(manager);
    }
}
