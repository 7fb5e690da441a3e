/* SPDX-License-Identifier: Apache-2.0 */
/* Looks at the engine, the agent and the config files on disk, and says what is there of a fleet.
 */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "base/alloc.h"
#include "base/fs.h"
#include "base/json.h"
#include "base/log.h"
#include "base/time.h"
#include "fleet/internal.h"

#define AGENT_TIMEOUT_MS 5000u
#define AGENT_INTERVAL   PK_NSEC_PER_SEC
/* The engine tells of changes; looking anyway is for those that it does not tell of. */
#define ENGINE_INTERVAL   (2 * PK_NSEC_PER_SEC)
#define EVENTS_TIMEOUT_MS 1000u
#define CONFIG_MAX_BYTES  (256u << 20)

/* ---- looking ---- */

static void units_unref(struct pk_units_seen *units)
{
    if (units == NULL || atomic_fetch_sub(&units->refs, 1) != 1)
        return;
    pk_unit_status_list_free(units->list, units->count);
    pk_free(units);
}

static const char *const peer_names[] = { "engine", "agent" };

/* Publishes a look's end. Takes the lock. */
static void publish(struct pk_manager *manager, enum pk_peer_kind kind, pk_nsec begun,
                    struct pk_units_seen *units, json_t *plane, const struct pk_error *err)
{
    pk_manager_lock(manager);
    struct pk_peer *peer = &manager->peers[kind];
    bool worked = err->code == 0;
    if (!worked && !peer->told)
        pk_log_error(PK_LOG_INFO, "fleet", err, "the %s cannot be reached", peer_names[kind]);
    if (worked && peer->told)
        pk_log(PK_LOG_INFO, "fleet", "the %s answers again", peer_names[kind]);
    peer->told = !worked;
    peer->begun_at = begun;
    peer->error = *err;
    if (worked) {
        peer->answered_at = pk_time_monotonic();
        if (kind == PK_PEER_ENGINE) {
            struct pk_units_seen *old = manager->units;
            manager->units = units;
            units_unref(old);
        } else {
            json_decref(manager->plane);
            manager->plane = plane;
        }
    }
    (void)pthread_cond_broadcast(&manager->changed);
    pk_manager_unlock(manager);
}

static void look_at_engine(struct pk_manager *manager)
{
    struct pk_error err = { 0 };
    pk_nsec begun = pk_time_monotonic();
    struct pk_engine *engine = manager->options.engine;
    struct pk_units_seen *units = pk_zalloc(sizeof(*units));
    if (units == NULL) {
        (void)pk_fail(&err, PK_E_NOMEM, "out of memory");
    } else {
        atomic_init(&units->refs, 1);
        if (engine->ops->list(engine->self, NULL, &units->list, &units->count, &err) < 0) {
            pk_free(units);
            units = NULL;
        }
    }
    publish(manager, PK_PEER_ENGINE, begun, units, NULL, &err);
}

static void look_at_agent(struct pk_manager *manager)
{
    struct pk_error err = { 0 };
    pk_nsec begun = pk_time_monotonic();
    json_t *plane = NULL;
    int r = pk_fleet_agent_call(manager, AGENT_TIMEOUT_MS, "GET", NULL, &plane, &err, "/v1/plane");
    if (r >= 0 && !json_is_object(plane)) {
        json_decref(plane);
        plane = NULL;
        (void)pk_fail(&err, PK_E_INVALID, "the agent's plane is no object");
    }
    publish(manager, PK_PEER_AGENT, begun, NULL, plane, &err);
}

/* Looks each interval, and at once when somebody waits for it. */
static void keep_looking(struct pk_manager *manager, enum pk_peer_kind kind, pk_nsec interval,
                         void (*look)(struct pk_manager *))
{
    for (;;) {
        pk_manager_lock(manager);
        const struct pk_peer *peer = &manager->peers[kind];
        pk_nsec next = peer->begun_at + interval;
        while (!manager->stop && pk_time_monotonic() < next && peer->wanted_at <= peer->begun_at)
            pk_manager_wait(manager, next);
        bool stop = manager->stop;
        pk_manager_unlock(manager);
        if (stop)
            return;
        look(manager);
    }
}

void *pk_thread_engine(void *manager)
{
    keep_looking(manager, PK_PEER_ENGINE, ENGINE_INTERVAL, look_at_engine);
    return NULL;
}

void *pk_thread_agent(void *manager)
{
    keep_looking(manager, PK_PEER_AGENT, AGENT_INTERVAL, look_at_agent);
    return NULL;
}

void *pk_thread_events(void *arg)
{
    struct pk_manager *manager = arg;
    struct pk_engine *engine = manager->options.engine;
    for (;;) {
        bool changed = false;
        int r = engine->ops->wait_change(engine->self, EVENTS_TIMEOUT_MS, &changed, NULL);
        pk_manager_lock(manager);
        if (r >= 0 && changed) {
            manager->peers[PK_PEER_ENGINE].wanted_at = pk_time_monotonic();
            (void)pthread_cond_broadcast(&manager->changed);
        }
        pk_nsec until = pk_time_monotonic() + EVENTS_TIMEOUT_MS * PK_NSEC_PER_MS;
        while (r < 0 && !manager->stop && pk_time_monotonic() < until)
            pk_manager_wait(manager, until);
        bool stop = manager->stop;
        pk_manager_unlock(manager);
        if (stop)
            return NULL;
    }
}

/* ---- views ---- */

/* Lock held. */
static void view_fill(struct pk_manager *manager, struct pk_view *view)
{
    const struct pk_peer *engine = &manager->peers[PK_PEER_ENGINE];
    const struct pk_peer *agent = &manager->peers[PK_PEER_AGENT];
    *view = (struct pk_view){
        .units = manager->units,
        .plane = json_incref(manager->plane),
        .engine_error = engine->error,
        .agent_error = agent->error,
        .engine_begun = engine->begun_at,
        .agent_begun = agent->begun_at,
        .engine_answered = engine->answered_at,
        .agent_answered = agent->answered_at,
    };
    if (view->units != NULL)
        atomic_fetch_add(&view->units->refs, 1);
}

void pk_view_take(struct pk_manager *manager, struct pk_view *ret_view)
{
    pk_manager_lock(manager);
    view_fill(manager, ret_view);
    pk_manager_unlock(manager);
}

void pk_view_done(struct pk_view *view)
{
    units_unref(view->units);
    json_decref(view->plane);
    view->units = NULL;
    view->plane = NULL;
}

int pk_view_fresh(struct pk_manager *manager, unsigned peers, unsigned timeout_ms,
                  struct pk_view *ret_view, struct pk_error *err)
{
    pk_manager_lock(manager);
    pk_nsec now = pk_time_monotonic();
    pk_nsec deadline = now + timeout_ms * PK_NSEC_PER_MS;
    for (size_t i = 0; i < PK_PEERS; i++)
        if (peers & (1u << i))
            manager->peers[i].wanted_at = now;
    (void)pthread_cond_broadcast(&manager->changed);
    for (;;) {
        int old = -1;
        for (size_t i = 0; i < PK_PEERS; i++)
            if ((peers & (1u << i)) && manager->peers[i].begun_at < now)
                old = (int)i;
        if (old < 0)
            break;
        if (manager->stop || pk_time_monotonic() >= deadline) {
            bool stop = manager->stop;
            pk_manager_unlock(manager);
            if (stop)
                return pk_fail(err, PK_E_INTERRUPTED, "serve stops");
            pk_fail(err, PK_E_TIMEOUT, "the %s did not answer within %u s", peer_names[old],
                    timeout_ms / 1000);
            return pk_hint(err, "it hangs or is very busy: see 'picket doctor'");
        }
        pk_manager_wait(manager, deadline);
    }
    view_fill(manager, ret_view);
    pk_manager_unlock(manager);
    return 0;
}

const struct pk_unit_status *pk_view_unit(const struct pk_view *view, const char *name)
{
    for (size_t i = 0; view->units != NULL && i < view->units->count; i++)
        if (strcmp(view->units->list[i].name, name) == 0)
            return &view->units->list[i];
    return NULL;
}

const json_t *pk_view_lane(const struct pk_view *view, const char *fleet, const char *group,
                           unsigned index)
{
    size_t i;
    json_t *lane;
    json_array_foreach(json_object_get(view->plane, "lanes"), i, lane)
    {
        if (strcmp(pk_json_string_or(lane, "fleet", ""), fleet) == 0 &&
            strcmp(pk_json_string_or(lane, "group", ""), group) == 0 &&
            pk_json_int_or(lane, "index", -1) == (int64_t)index)
            return lane;
    }
    return NULL;
}

static const json_t *named_row(const struct pk_view *view, const char *list, const char *fleet,
                               const char *name)
{
    size_t i;
    json_t *row;
    json_array_foreach(json_object_get(view->plane, list), i, row)
    {
        if (strcmp(pk_json_string_or(row, "fleet", ""), fleet) == 0 &&
            strcmp(pk_json_string_or(row, "name", ""), name) == 0)
            return row;
    }
    return NULL;
}

const json_t *pk_view_tap(const struct pk_view *view, const char *fleet, const char *tap)
{
    return named_row(view, "taps", fleet, tap);
}

const json_t *pk_view_group(const struct pk_view *view, const char *fleet, const char *group)
{
    return named_row(view, "groups", fleet, group);
}

/* ---- config files ---- */

/* A file's hash, read again only when its signature changed: a ruleset may have megabytes. */
struct file_seen {
    dev_t dev;
    ino_t ino;
    off_t size;
    struct timespec mtime, ctime;
    char hash[65];
};

static bool same_file(const struct file_seen *seen, const struct stat *st)
{
    return seen->dev == st->st_dev && seen->ino == st->st_ino && seen->size == st->st_size &&
           memcmp(&seen->mtime, &st->st_mtim, sizeof(seen->mtime)) == 0 &&
           memcmp(&seen->ctime, &st->st_ctim, sizeof(seen->ctime)) == 0;
}

static int hash_file(struct pk_manager *manager, const char *path, char out[65],
                     struct pk_error *err)
{
    struct stat st;
    if (lstat(path, &st) < 0)
        return pk_fail_errno(err, errno, "%s", path);
    if (!S_ISREG(st.st_mode))
        return pk_fail(err, PK_E_INVALID, "%s is no file", path);
    (void)pthread_mutex_lock(&manager->files_lock);
    const struct file_seen *seen = pk_map_get(manager->files, path);
    bool known = seen != NULL && same_file(seen, &st);
    if (known)
        memcpy(out, seen->hash, 65);
    (void)pthread_mutex_unlock(&manager->files_lock);
    if (known)
        return 0;

    PK_CLEANUP(pk_free_p) char *data = NULL;
    size_t len = 0;
    int r = pk_file_read(path, CONFIG_MAX_BYTES, &data, &len, err);
    if (r < 0)
        return r;
    pk_sha256_hex(data, len, out);
    struct file_seen *now = pk_zalloc(sizeof(*now));
    if (now == NULL)
        return 0; /* it is only not remembered */
    *now = (struct file_seen){ .dev = st.st_dev,
                               .ino = st.st_ino,
                               .size = st.st_size,
                               .mtime = st.st_mtim,
                               .ctime = st.st_ctim };
    memcpy(now->hash, out, 65);
    (void)pthread_mutex_lock(&manager->files_lock);
    if (pk_map_set_take(manager->files, path, now) < 0)
        pk_free(now);
    (void)pthread_mutex_unlock(&manager->files_lock);
    return 0;
}

/* What is wrong with a unit's config folder, in words; "" = nothing. NULL = out of memory. */
static char *config_fault(struct pk_manager *manager, const struct pk_unit *unit)
{
    for (size_t i = 0; i < unit->files.count; i++) {
        const struct pk_rendered_file *file = &unit->files.files[i];
        PK_CLEANUP(pk_free_p)
        char *path = pk_asprintf("%s/units/%s/config/%s/%s", manager->paths.state_dir, unit->name,
                                 unit->files_hash, file->path);
        if (path == NULL)
            return NULL;
        struct pk_error err = { 0 };
        char actual[65];
        char wanted[65];
        int r = hash_file(manager, path, actual, &err);
        if (r == PK_E_NOTFOUND)
            return pk_asprintf("config file %s is gone", file->path);
        if (r < 0)
            return pk_asprintf("config file %s cannot be read", file->path);
        pk_sha256_hex(file->data, file->len, wanted);
        if (strcmp(actual, wanted) != 0)
            return pk_asprintf("config file %s edited on disk", file->path);
    }
    return pk_strdup("");
}

/* ---- units ---- */

/* A container stays in the namespace that it joined. The agent makes a lost namespace again under
 * the same path, and nobody but the kernel knows then that they differ. */
static bool in_other_netns(const struct pk_unit_status *status, const char *netns)
{
    char path[64];
    struct stat inside;
    struct stat outside;
    (void)snprintf(path, sizeof(path), "/proc/%d/ns/net", (int)status->pid);
    if (status->pid <= 0 || stat(path, &inside) < 0 || stat(netns, &outside) < 0)
        return false; /* ended meanwhile, or not ours to see */
    return inside.st_dev != outside.st_dev || inside.st_ino != outside.st_ino;
}

char *pk_exit_text(const struct pk_unit_status *status, char *out, size_t size)
{
    if (status->oom_killed)
        (void)snprintf(out, size, "out of memory: it reached its limit");
    else if (status->end_unseen)
        (void)snprintf(out, size, "ended unseen: its monitor (conmon) had been killed before");
    else if (status->exit_code > 128 && status->exit_code < 128 + NSIG)
        (void)snprintf(out, size, "killed by signal %d", status->exit_code - 128);
    else
        (void)snprintf(out, size, "exit code %d", status->exit_code);
    return out;
}

static const struct pk_unit *desired_unit(const struct pk_desired *desired, const char *name)
{
    for (size_t i = 0; desired != NULL && i < desired->unit_count; i++)
        if (strcmp(desired->units[i].name, name) == 0)
            return &desired->units[i];
    return NULL;
}

static int observe_unit(struct pk_manager *manager, const struct pk_unit_status *status,
                        const struct pk_desired *desired, struct pk_observed_unit *row)
{
    char text[96];
    const struct pk_unit *want = desired_unit(desired, status->name);
    bool same = want != NULL && status->hash != NULL && strcmp(want->hash, status->hash) == 0;
    row->name = pk_strdup(status->name);
    row->hash = pk_strdup(status->hash != NULL ? status->hash : "");
    row->group = pk_strdup(status->group != NULL ? status->group : "");
    row->tool = pk_strdup(status->tool != NULL ? status->tool : "");
    row->lane = status->lane;
    row->running = status->state == PK_UNIT_RUNNING;
    row->unit = json_incref(status->unit);
    row->stopped =
        pk_strdup(status->state == PK_UNIT_EXITED ? pk_exit_text(status, text, sizeof(text)) : "");
    if (same && row->running && in_other_netns(status, want->netns))
        row->fault = pk_strdup("its namespace was made anew");
    else if (same)
        row->fault = config_fault(manager, want);
    else
        row->fault = pk_strdup("");
    return row->name != NULL && row->hash != NULL && row->group != NULL && row->tool != NULL &&
                   row->stopped != NULL && row->fault != NULL
               ? 0
               : PK_E_NOMEM;
}

static int observe_units(struct pk_manager *manager, const struct pk_view *view, const char *fleet,
                         const struct pk_desired *desired, struct pk_observed *observed)
{
    size_t total = view->units != NULL ? view->units->count : 0;
    observed->units = pk_zalloc_array(total + 1, sizeof(*observed->units));
    if (observed->units == NULL)
        return PK_E_NOMEM;
    for (size_t i = 0; i < total; i++) {
        const struct pk_unit_status *status = &view->units->list[i];
        if (status->fleet == NULL || strcmp(status->fleet, fleet) != 0)
            continue;
        int r = observe_unit(manager, status, desired, &observed->units[observed->unit_count++]);
        if (r < 0)
            return r;
    }
    return 0;
}

/* ---- the agent's plane ---- */

static bool is_of(const json_t *row, const char *fleet)
{
    return strcmp(pk_json_string_or(row, "fleet", ""), fleet) == 0;
}

/* New reference; an empty list when there is none. NULL = out of memory. */
static json_t *list_of(const json_t *row, const char *key)
{
    json_t *list = json_object_get(row, key);
    return json_is_array(list) ? json_incref(list) : json_array();
}

/* The selectors of a tap's tenants, without what is counted of them: it must not make a plan stale.
 */
static json_t *tenants_of(const json_t *tap)
{
    static const char *const keys[] = { "name",    "vlans",          "vnis",
                                        "greKeys", "erspanSessions", "prefixes" };
    json_t *list = json_array();
    size_t i;
    json_t *row;
    json_array_foreach(json_object_get(tap, "tenants"), i, row)
    {
        json_t *tenant = json_object();
        if (pk_json_string_or(row, "name", "")[0] == '\0') { /* what none of them claims */
            json_decref(tenant);
            continue;
        }
        for (size_t k = 0; k < PK_ARRAY_SIZE(keys); k++)
            if (json_object_get(row, keys[k]) != NULL)
                (void)json_object_set(tenant, keys[k], json_object_get(row, keys[k]));
        (void)json_array_append_new(list, tenant);
    }
    return list;
}

static int observe_taps(const json_t *plane, const char *fleet, struct pk_observed *observed)
{
    const json_t *list = json_object_get(plane, "taps");
    observed->taps = pk_zalloc_array(json_array_size(list) + 1, sizeof(*observed->taps));
    if (observed->taps == NULL)
        return PK_E_NOMEM;
    size_t i;
    json_t *row;
    json_array_foreach(list, i, row)
    {
        if (!is_of(row, fleet))
            continue;
        struct pk_observed_tap *tap = &observed->taps[observed->tap_count++];
        const char *state = pk_json_string_or(row, "state", "up");
        tap->kind = pk_tap_kind_parse(pk_json_string_or(row, "kind", ""));
        bool replay = !pk_tap_has_interface(tap->kind);
        const char *interface = replay ? "" : pk_json_string_or(row, "interface", "");
        json_t *options = json_object_get(row, "options");
        tap->options = options != NULL ? json_incref(options) : json_object();
        tap->set = json_incref(pk_json_at(row, "setup.set"));
        tap->name = pk_strdup(pk_json_string_or(row, "name", ""));
        tap->groups = list_of(row, "groups");
        tap->tenants = tenants_of(row);
        tap->interface = pk_strdup(interface);
        tap->mtu = (unsigned)PK_MAX(pk_json_int_or(row, "mtu", 0), 0);
        if (strcmp(state, "up") == 0)
            tap->fault = pk_strdup("");
        else if (strcmp(state, "missing") == 0 && !replay)
            tap->fault = pk_asprintf("interface %s is gone", interface);
        else
            tap->fault = pk_asprintf("tap is %s", state);
        if (tap->name == NULL || tap->groups == NULL || tap->tenants == NULL ||
            tap->interface == NULL || tap->fault == NULL)
            return PK_E_NOMEM;
    }
    return 0;
}

/* "broken" comes with a detail for people; it must not change a plan's hash from look to look. */
static int observe_lanes(const json_t *plane, const char *fleet, struct pk_observed *observed)
{
    const json_t *list = json_object_get(plane, "lanes");
    observed->lanes = pk_zalloc_array(json_array_size(list) + 1, sizeof(*observed->lanes));
    if (observed->lanes == NULL)
        return PK_E_NOMEM;
    size_t i;
    json_t *row;
    json_array_foreach(list, i, row)
    {
        int64_t index = pk_json_int_or(row, "index", -1);
        if (!is_of(row, fleet) || index < 0 || index >= PK_LANES_MAX)
            continue;
        struct pk_observed_lane *lane = &observed->lanes[observed->lane_count++];
        bool broken = strcmp(pk_json_string_or(row, "state", ""), "broken") == 0;
        const char *detail = pk_json_string_or(row, "detail", "");
        lane->group = pk_strdup(pk_json_string_or(row, "group", ""));
        lane->index = (unsigned)index;
        lane->mtu = (unsigned)PK_MAX(pk_json_int_or(row, "mtu", 0), 0);
        lane->is_inline = json_object_get(row, "inline") != NULL;
        const char *device = pk_json_string_or(row, "device", NULL);
        if (device != NULL && (lane->device = pk_strdup(device)) == NULL)
            return PK_E_NOMEM;
        if (broken)
            lane->fault = pk_strdup(detail[0] != '\0' ? detail : "lane is broken");
        else
            lane->fault = pk_strdup("");
        if (lane->group == NULL || lane->fault == NULL)
            return PK_E_NOMEM;
    }
    return 0;
}

static int observe_groups(const json_t *plane, const char *fleet, struct pk_observed *observed)
{
    const json_t *list = json_object_get(plane, "groups");
    observed->groups = pk_zalloc_array(json_array_size(list) + 1, sizeof(*observed->groups));
    if (observed->groups == NULL)
        return PK_E_NOMEM;
    size_t i;
    json_t *row;
    json_array_foreach(list, i, row)
    {
        if (!is_of(row, fleet))
            continue;
        struct pk_observed_group *group = &observed->groups[observed->group_count++];
        const char *name = pk_json_string_or(row, "name", "");
        group->name = pk_strdup(name);
        group->hash = pk_strdup(pk_json_string_or(row, "hash", "outer"));
        group->tenant = pk_strdup(pk_json_string_or(row, "tenant", ""));
        group->priority = (unsigned)pk_json_int_or(row, "priority", PK_PRIORITY_DEFAULT);
        group->options = json_incref(json_object_get(row, "options"));
        if (group->name == NULL || group->hash == NULL || group->tenant == NULL)
            return PK_E_NOMEM;
        size_t l;
        json_t *lane;
        json_array_foreach(json_object_get(plane, "lanes"), l, lane)
        {
            int64_t index = pk_json_int_or(lane, "index", -1);
            if (is_of(lane, fleet) && strcmp(pk_json_string_or(lane, "group", ""), name) == 0 &&
                index >= 0 && index < PK_LANES_MAX)
                group->lanes[index] =
                    pk_json_int_or(lane, "slots", 0) > 0 || json_object_get(lane, "device") != NULL;
        }
    }
    return 0;
}

int pk_observe(struct pk_manager *manager, const struct pk_view *view, const char *fleet,
               const struct pk_desired *desired, const struct pk_strv *known,
               struct pk_observed **ret_observed, struct pk_error *err)
{
    PK_CLEANUP(pk_observed_free_p) struct pk_observed *observed = pk_zalloc(sizeof(*observed));
    int r = observed != NULL ? 0 : PK_E_NOMEM;
    if (r >= 0 && known != NULL)
        r = pk_strv_copy(known, &observed->known);
    if (r >= 0)
        r = observe_units(manager, view, fleet, desired, observed);
    if (r >= 0)
        r = observe_taps(view->plane, fleet, observed);
    if (r >= 0)
        r = observe_lanes(view->plane, fleet, observed);
    if (r >= 0)
        r = observe_groups(view->plane, fleet, observed);
    if (r < 0)
        return pk_no_memory(err);
    *ret_observed = PK_TAKE(observed);
    return 0;
}
