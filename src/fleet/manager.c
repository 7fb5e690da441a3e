/* SPDX-License-Identifier: Apache-2.0 */
/* A manager's life, its fleets, and what is kept of them. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/alloc.h"
#include "base/fs.h"
#include "base/json.h"
#include "base/log.h"
#include "base/time.h"
#include "fleet/internal.h"

void pk_manager_lock(struct pk_manager *manager)
{
    (void)pthread_mutex_lock(&manager->lock);
}

void pk_manager_unlock(struct pk_manager *manager)
{
    (void)pthread_mutex_unlock(&manager->lock);
}

void pk_manager_wait(struct pk_manager *manager, pk_nsec deadline)
{
    struct timespec until = { .tv_sec = deadline / PK_NSEC_PER_SEC,
                              .tv_nsec = deadline % PK_NSEC_PER_SEC };
    (void)pthread_cond_timedwait(&manager->changed, &manager->lock, &until);
}

/* ---- fleets ---- */

struct pk_fleet *pk_manager_find(struct pk_manager *manager, const char *fleet)
{
    for (size_t i = 0; i < manager->fleet_count; i++)
        if (strcmp(manager->fleets[i]->name, fleet) == 0)
            return manager->fleets[i];
    return NULL;
}

static void fleet_free(struct pk_fleet *fleet)
{
    if (fleet == NULL)
        return;
    pk_free(fleet->name);
    pk_free(fleet->detail);
    pk_free(fleet->document);
    pk_desired_free(fleet->desired);
    json_decref(fleet->journal);
    json_decref(fleet->drift);
    json_decref(fleet->ledger);
    pk_strv_done(&fleet->known);
    for (size_t i = 0; i < fleet->runtime_count; i++)
        pk_runtime_done(&fleet->runtimes[i]);
    pk_free(fleet->runtimes);
    pk_map_free(fleet->retries);
    pk_free(fleet);
}
PK_DEFINE_CLEANUP(struct pk_fleet, fleet_free);

struct pk_fleet *pk_manager_find_or_add(struct pk_manager *manager, const char *name)
{
    struct pk_fleet *found = pk_manager_find(manager, name);
    if (found != NULL)
        return found;
    PK_CLEANUP(fleet_free_p) struct pk_fleet *fleet = pk_zalloc(sizeof(*fleet));
    if (fleet == NULL)
        return NULL;
    fleet->name = pk_strdup(name);
    fleet->detail = pk_strdup("");
    fleet->document = pk_strdup("");
    fleet->journal = json_array();
    fleet->retries = pk_map_new(pk_free);
    if (fleet->name == NULL || fleet->detail == NULL || fleet->document == NULL ||
        fleet->journal == NULL || fleet->retries == NULL)
        return NULL;
    struct pk_fleet **list =
        pk_realloc_array(manager->fleets, manager->fleet_count + 1, sizeof(struct pk_fleet *));
    if (list == NULL)
        return NULL;
    manager->fleets = list;
    list[manager->fleet_count++] = fleet;
    return PK_TAKE(fleet);
}

void pk_manager_drop(struct pk_manager *manager, struct pk_fleet *fleet)
{
    for (size_t i = 0; i < manager->fleet_count; i++) {
        if (manager->fleets[i] != fleet)
            continue;
        memmove(&manager->fleets[i], &manager->fleets[i + 1],
                (manager->fleet_count - i - 1) * sizeof(struct pk_fleet *));
        manager->fleet_count--;
        fleet_free(fleet);
        return;
    }
}

/* One store serves all fleets: the most generous of their wishes holds. Lock held. */
static void set_store_limits(struct pk_manager *manager)
{
    if (manager->options.events == NULL)
        return;
    struct pk_events_options limits = { 0 };
    for (size_t i = 0; i < manager->fleet_count; i++) {
        const struct pk_desired *desired = manager->fleets[i]->desired;
        if (desired == NULL || manager->fleets[i]->document[0] == '\0')
            continue;
        limits.retain = PK_MAX(limits.retain, desired->store.retain);
        limits.max_bytes = PK_MAX(limits.max_bytes, desired->store.max_bytes);
        if (limits.seal_after == 0 || desired->store.seal_after < limits.seal_after)
            limits.seal_after = desired->store.seal_after;
    }
    if (limits.retain > 0 && limits.max_bytes > 0 && limits.seal_after > 0)
        pk_events_set_limits(manager->options.events, &limits);
}

void pk_fleet_set_desired_take(struct pk_manager *manager, struct pk_fleet *fleet,
                               struct pk_desired *desired)
{
    pk_desired_free(fleet->desired);
    fleet->desired = desired;
    set_store_limits(manager);
}

/* ---- what is kept ---- */

int pk_fleet_save(struct pk_manager *manager, struct pk_fleet *fleet, struct pk_error *err)
{
    pk_manager_lock(manager);
    bool dirty = fleet->known_dirty;
    for (size_t i = 0; i < fleet->runtime_count; i++) {
        dirty |= fleet->runtimes[i].dirty;
        fleet->runtimes[i].dirty = false;
    }
    fleet->known_dirty = false;
    PK_JSON known = json_array();
    for (size_t i = 0; i < fleet->known.count && dirty && known != NULL; i++)
        (void)json_array_append_new(known, json_string(fleet->known.list[i]));
    PK_JSON row =
        dirty ? json_pack("{s:O,s:o}", "known", known, "units", pk_runtimes_to_json(fleet)) : NULL;
    pk_manager_unlock(manager);
    if (!dirty)
        return 0;
    if (row == NULL)
        return pk_no_memory(err);
    return pk_state_put(manager->options.state, PK_KIND_RUNTIME, fleet->name, row, err);
}

static int load_runtime(struct pk_manager *manager, struct pk_fleet *fleet, struct pk_error *err)
{
    PK_JSON row = NULL;
    int r = pk_state_get(manager->options.state, PK_KIND_RUNTIME, fleet->name, &row, err);
    if (r == PK_E_NOTFOUND)
        return 0;
    if (r < 0)
        return r;
    size_t i;
    json_t *key;
    json_array_foreach(json_object_get(row, "known"), i, key)
    {
        if (json_is_string(key) && pk_strv_add(&fleet->known, json_string_value(key)) < 0)
            return pk_no_memory(err);
    }
    if (pk_runtimes_from_json(fleet, json_object_get(row, "units")) < 0)
        return pk_no_memory(err);
    return 0;
}

static int load_fleet(struct pk_manager *manager, const char *name, uint64_t number,
                      struct pk_error *err)
{
    struct pk_fleet *fleet = pk_manager_find_or_add(manager, name);
    if (fleet == NULL)
        return pk_no_memory(err);
    struct pk_revision revision = { 0 };
    int r = pk_state_revision_get(manager->options.state, name, number, &revision, err);
    if (r < 0)
        return r;
    fleet->revision = number;
    fleet->version = 1;
    pk_free(fleet->document);
    fleet->document = PK_TAKE(revision.document);
    pk_free(fleet->detail);
    fleet->detail = PK_TAKE(revision.detail);
    json_decref(fleet->journal);
    fleet->journal = PK_TAKE(revision.steps);
    bool unfinished = strcmp(revision.outcome, "applying") == 0;
    fleet->outcome = unfinished                                 ? PK_OUTCOME_APPLYING
                     : strcmp(revision.outcome, "applied") == 0 ? PK_OUTCOME_APPLIED
                                                                : PK_OUTCOME_FAILED;
    PK_JSON frozen = NULL;
    struct pk_desired *desired = NULL;
    struct pk_error trouble = { 0 };
    r = pk_state_get(manager->options.state, PK_KIND_DESIRED, revision.plan_id, &frozen, &trouble);
    if (r >= 0)
        r = pk_desired_thaw(frozen, &desired, &trouble);
    pk_revision_done(&revision);
    if (r >= 0) {
        fleet->job = unfinished;
        fleet->resumed = unfinished;
        pk_fleet_set_desired_take(manager, fleet, desired);
        if (unfinished)
            pk_log(PK_LOG_INFO, "fleet", "fleet %s: taking up revision %llu", name,
                   (unsigned long long)number);
    } else {
        /* What runs goes on; the user must say anew what is wanted. */
        pk_log_error(PK_LOG_INFO, "fleet", &trouble, "fleet %s: its desired state cannot be read",
                     name);
        fleet->outcome = PK_OUTCOME_FAILED;
        pk_free(fleet->detail);
        fleet->detail = pk_strdup("its desired state cannot be read: apply the fleet again");
    }
    r = load_runtime(manager, fleet, err);
    return r < 0 ? r : pk_ledger_load(manager, fleet, err);
}

static int load_fleets(struct pk_manager *manager, struct pk_error *err)
{
    PK_JSON fleets = NULL;
    int r = pk_state_fleets(manager->options.state, &fleets, err);
    if (r < 0)
        return r;
    const char *name;
    json_t *number;
    json_object_foreach(fleets, name, number)
    {
        r = load_fleet(manager, name, (uint64_t)json_integer_value(number), err);
        if (r < 0)
            return pk_wrap(err, "fleet %s", name), r;
    }
    return 0;
}

/* ---- life ---- */

static void release(struct pk_manager *manager)
{
    for (size_t i = 0; i < manager->fleet_count; i++)
        fleet_free(manager->fleets[i]);
    pk_free(manager->fleets);
    struct pk_view view = { .units = manager->units, .plane = manager->plane };
    pk_view_done(&view);
    json_decref(manager->canaries_told);
    json_decref(manager->sources);
    pk_free(manager->sources_written);
    pk_map_free(manager->files);
    pk_free(manager->node_url);
    (void)pthread_cond_destroy(&manager->changed);
    (void)pthread_mutex_destroy(&manager->lock);
    (void)pthread_mutex_destroy(&manager->files_lock);
    pk_free(manager);
}

static void stop_threads(struct pk_manager *manager)
{
    pk_manager_lock(manager);
    manager->stop = true;
    (void)pthread_cond_broadcast(&manager->changed);
    pk_manager_unlock(manager);
    for (size_t i = 0; i < manager->thread_count; i++)
        (void)pthread_join(manager->threads[i], NULL);
    manager->thread_count = 0;
}

void pk_manager_stop(struct pk_manager *manager)
{
    if (manager == NULL)
        return;
    stop_threads(manager);
    pk_ledger_keep_all(manager);
    release(manager);
}

static int start_threads(struct pk_manager *manager, struct pk_error *err)
{
    void *(*const mains[])(void *) = { pk_thread_engine, pk_thread_agent, pk_thread_events,
                                       pk_thread_tools, pk_thread_reconcile };
    for (size_t i = 0; i < PK_ARRAY_SIZE(mains); i++) {
        int failed = pthread_create(&manager->threads[i], NULL, mains[i], manager);
        if (failed != 0)
            return pk_fail_errno(err, failed, "starting a thread");
        manager->thread_count++;
    }
    return 0;
}

int pk_manager_start(const struct pk_manager_options *options, struct pk_manager **ret_manager,
                     struct pk_error *err)
{
    struct pk_manager *manager = pk_zalloc(sizeof(*manager));
    if (manager == NULL)
        return pk_no_memory(err);
    pthread_condattr_t attributes;
    (void)pthread_condattr_init(&attributes);
    (void)pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&manager->changed, &attributes);
    (void)pthread_condattr_destroy(&attributes);
    (void)pthread_mutex_init(&manager->lock, NULL);
    (void)pthread_mutex_init(&manager->files_lock, NULL);
    manager->options = *options;
    manager->paths = options->paths;
    manager->files = pk_map_new(pk_free);
    manager->node_url = options->node_socket != NULL
                            ? pk_asprintf("unix:%s", options->node_socket)
                            : pk_asprintf("unix:%s/node.sock", options->paths.run_dir);
    manager->options.node_socket = NULL; /* borrowed for the call only */
    int r = manager->files != NULL && manager->node_url != NULL ? 0 : pk_no_memory(err);
    if (r >= 0)
        r = pk_canaries_load(manager, err);
    if (r >= 0)
        r = pk_sources_load(manager, err);
    if (r >= 0)
        r = load_fleets(manager, err);
    if (r >= 0)
        r = start_threads(manager, err);
    if (r < 0) {
        pk_manager_stop(manager);
        return r;
    }
    *ret_manager = manager;
    return 0;
}
