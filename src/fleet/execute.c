/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Carries out single steps. Each is idempotent: after a crash at any point the same step, planned
 * again from what is there then, comes to the same end.
 */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/fs.h"
#include "base/json.h"
#include "base/log.h"
#include "base/time.h"
#include "fleet/internal.h"
#include "fleet/probe_suricata.h"

#define AGENT_STEP_TIMEOUT_MS 20000u
/* A tool with a full ruleset takes a minute on a slow machine. */
#define READY_TIMEOUT    (180 * PK_NSEC_PER_SEC)
#define READY_LOOK_MS    5000u
#define LAST_ANSWER_MS   1500u
#define PROBE_TIMEOUT_MS 1000u
/* Without a probe, a tool that runs this long has not failed at once. */
#define RUNS_FOR        (500 * PK_NSEC_PER_MS)
#define LOG_MAX_BYTES   4096u
#define STOP_TIMEOUT_MS 10000u /* of a unit whose own is not known */

/* ---- a unit's folder ---- */

static int same_content(const char *path, const struct pk_rendered_file *file)
{
    PK_CLEANUP(pk_free_p) char *data = NULL;
    size_t len = 0;
    struct stat st;
    if (lstat(path, &st) < 0 || !S_ISREG(st.st_mode) || (size_t)st.st_size != file->len)
        return false;
    return pk_file_read(path, file->len + 1, &data, &len, NULL) >= 0 && len == file->len &&
           memcmp(data, file->data, len) == 0;
}

/* The folder is named by the hash of what is in it, so a tool never sees a mixture of two
 * definitions; each file is replaced at once. */
static int write_config(const char *folder, const struct pk_unit *unit, struct pk_error *err)
{
    int r = pk_mkdir_p(folder, 0755, err);
    for (size_t i = 0; i < unit->files.count && r >= 0; i++) {
        const struct pk_rendered_file *file = &unit->files.files[i];
        PK_CLEANUP(pk_free_p) char *path = pk_path_join(folder, file->path);
        if (path == NULL)
            return pk_no_memory(err);
        if (same_content(path, file))
            continue;
        char *slash = strrchr(path, '/');
        *slash = '\0';
        r = pk_mkdir_p(path, 0755, err);
        *slash = '/';
        if (r >= 0)
            r = pk_file_write(path, file->data, file->len, 0644, err);
    }
    return r;
}

static int make_folders(struct pk_manager *manager, const struct pk_unit *unit,
                        struct pk_error *err)
{
    PK_CLEANUP(pk_free_p)
    char *base = pk_asprintf("%s/units/%s", manager->paths.state_dir, unit->name);
    PK_CLEANUP(pk_free_p)
    char *config = base != NULL ? pk_asprintf("%s/config/%s", base, unit->files_hash) : NULL;
    PK_CLEANUP(pk_free_p) char *log = base != NULL ? pk_path_join(base, "log") : NULL;
    PK_CLEANUP(pk_free_p) char *run = base != NULL ? pk_path_join(base, "run") : NULL;
    if (config == NULL || log == NULL || run == NULL)
        return pk_no_memory(err);
    int r = pk_mkdir_p(log, 0755, err);
    if (r >= 0)
        r = pk_mkdir_p(run, 0755, err);
    if (r >= 0)
        r = write_config(config, unit, err);
    return r;
}

/* Removes the config folders of earlier definitions. What stays behind harms nobody. */
static void drop_old_configs(struct pk_manager *manager, const struct pk_unit *unit)
{
    PK_CLEANUP(pk_free_p)
    char *folder = pk_asprintf("%s/units/%s/config", manager->paths.state_dir, unit->name);
    DIR *dir = folder != NULL ? opendir(folder) : NULL;
    if (dir == NULL)
        return;
    const struct dirent *entry;
    while ((entry = readdir(dir)) != NULL) {
        if (entry->d_name[0] == '.' || strcmp(entry->d_name, unit->files_hash) == 0)
            continue;
        PK_CLEANUP(pk_free_p) char *old = pk_path_join(folder, entry->d_name);
        if (old != NULL)
            (void)pk_rm_rf(old, NULL);
    }
    (void)closedir(dir);
}

/* Config and run go, the logs stay until the shipper has sealed them. */
static int remove_folders(struct pk_manager *manager, const char *unit, struct pk_error *err)
{
    static const char *const parts[] = { "config", "run" };
    int r = 0;
    for (size_t i = 0; i < PK_ARRAY_SIZE(parts) && r >= 0; i++) {
        PK_CLEANUP(pk_free_p)
        char *path = pk_asprintf("%s/units/%s/%s", manager->paths.state_dir, unit, parts[i]);
        if (path == NULL)
            return pk_no_memory(err);
        r = pk_rm_rf(path, err);
    }
    return r;
}

/* ---- units ---- */

/* The end of a tool that did not become ready, with its own last words. */
static int fail_ended(struct pk_manager *manager, const struct pk_unit *unit,
                      const struct pk_unit_status *status, struct pk_error *err)
{
    char text[96];
    PK_CLEANUP(pk_buf_done) struct pk_buf log = PK_BUF_INIT(LOG_MAX_BYTES);
    pk_unit_last_words(manager->options.engine, unit->name, &log);
    const char *words = log.len > 0 ? log.data : "";
    size_t len = strlen(words);
    pk_fail(err, PK_E_IO, "%s ended at once: %s%s%s", unit->tool,
            pk_exit_text(status, text, sizeof(text)), len > 0 ? "; its last words: " : "",
            len > 300 ? words + len - 300 : words);
    if (status->oom_killed)
        return pk_hint(err, "give it more memory: 'memory' of the tool in the fleet file");
    return pk_hint(err, "'picket logs %s/%u/%s' shows all that it wrote", unit->group, unit->lane,
                   unit->tool);
}

static int probe_once(const struct pk_unit *unit, struct pk_error *err)
{
    struct pk_suricata_probe probe = { .socket = unit->probe_socket, .interface = PK_LANE_DEVICE };
    pk_suricata_probe_all(&probe, 1, PROBE_TIMEOUT_MS);
    if (probe.code < 0 && err != NULL)
        *err = probe.error;
    return probe.code;
}

/* The tool's own word, and the kernel's: something reads the lane's interface. */
static int check_ready(struct pk_manager *manager, const struct pk_unit *unit,
                       const struct pk_unit_status *status, struct pk_error *err)
{
    if (unit->probe == PK_PROBE_NONE)
        return pk_time_now() - status->started_at >= RUNS_FOR
                   ? 0
                   : pk_fail(err, PK_E_TIMEOUT, "it was not seen to run for long enough");
    int r = probe_once(unit, err);
    if (r < 0)
        return r;
    struct pk_view fresh;
    r = pk_view_fresh(manager, 1u << PK_PEER_AGENT, READY_LOOK_MS, &fresh, err);
    if (r < 0)
        return r;
    const json_t *lane = pk_view_lane(&fresh, unit->fleet, unit->group, unit->lane);
    bool unread = strcmp(pk_json_string_or(lane, "state", ""), "unread") == 0;
    pk_view_done(&fresh);
    if (unread)
        return pk_fail(err, PK_E_TIMEOUT, "it answers, but nothing reads %s of its lane",
                       PK_LANE_DEVICE);
    return 0;
}

int pk_unit_wait_ready(struct pk_manager *manager, struct pk_fleet *fleet,
                       const struct pk_unit *unit, struct pk_error *err)
{
    pk_nsec deadline = pk_time_monotonic() + READY_TIMEOUT;
    struct pk_error last = { 0 };
    (void)pk_fail(&last, PK_E_TIMEOUT, "it does not run");
    while (pk_time_monotonic() < deadline) {
        if (pk_fleet_must_yield(manager, fleet))
            return pk_fail(err, PK_E_INTERRUPTED, "cut off while waiting for %s", unit->tool);
        struct pk_view view;
        int r = pk_view_fresh(manager, 1u << PK_PEER_ENGINE, READY_LOOK_MS, &view, &last);
        if (r < 0)
            continue; /* slow is not wrong; serve's end is seen above */
        const struct pk_unit_status *status = pk_view_unit(&view, unit->name);
        if (view.engine_error.code < 0)
            last = view.engine_error;
        else if (status == NULL)
            r = pk_fail(err, PK_E_CONFLICT, "its container was removed by someone else");
        else if (status->state == PK_UNIT_EXITED)
            r = fail_ended(manager, unit, status, err);
        else if (status->state == PK_UNIT_RUNNING) {
            if (check_ready(manager, unit, status, &last) == 0) {
                pk_runtime_update(manager, fleet, &view);
                pk_runtime_answered(manager, fleet, unit->name);
                pk_view_done(&view);
                return 0;
            }
        }
        pk_view_done(&view);
        if (r < 0)
            return r;
        pk_sleep_ms(100);
    }
    pk_fail(err, PK_E_TIMEOUT, "%s is not ready after %lld s: %.300s", unit->tool,
            (long long)(READY_TIMEOUT / PK_NSEC_PER_SEC), last.msg);
    return pk_hint(err, "'picket logs %s/%u/%s' shows what it wrote", unit->group, unit->lane,
                   unit->tool);
}

/* Stops it so that it writes its last events. Absent is success. */
static int stop(struct pk_manager *manager, const char *name, unsigned timeout_ms,
                struct pk_error *err)
{
    struct pk_engine *engine = manager->options.engine;
    int r = engine->ops->stop(engine->self, name, timeout_ms, err);
    return r == PK_E_NOTFOUND ? 0 : r;
}

static int start_unit(struct pk_manager *manager, const struct pk_unit *unit, bool replace,
                      struct pk_error *err)
{
    struct pk_engine *engine = manager->options.engine;
    int r = 0;
    if (replace)
        r = stop(manager, unit->name, unit->stop_timeout_ms, err);
    if (r >= 0 && replace)
        r = engine->ops->remove(engine->self, unit->name, err);
    if (r >= 0)
        r = make_folders(manager, unit, err);
    /* Before it runs: once it does, nothing more is to be done, also after a crash here. */
    if (r >= 0)
        drop_old_configs(manager, unit);
    /* Before it can write: what it writes must be followed from the first byte. */
    if (r >= 0)
        r = pk_sources_add(manager, unit, err);
    if (r >= 0)
        r = engine->ops->create(engine->self, unit, err);
    if (r >= 0)
        r = engine->ops->start(engine->self, unit->name, err);
    return r;
}

static unsigned stop_timeout_of(const struct pk_observed_unit *unit)
{
    int64_t timeout = pk_json_int_or(unit->unit, "stopTimeoutMs", STOP_TIMEOUT_MS);
    return timeout > 0 && timeout <= 600000 ? (unsigned)timeout : STOP_TIMEOUT_MS;
}

/* The container goes last: as long as it is there, a crash leaves something that tells that this is
 * still to be done. */
static int remove_unit(struct pk_manager *manager, const struct pk_observed_unit *unit,
                       struct pk_error *err)
{
    struct pk_engine *engine = manager->options.engine;
    int r = stop(manager, unit->name, stop_timeout_of(unit), err);
    if (r >= 0)
        r = remove_folders(manager, unit->name, err);
    if (r >= 0)
        r = pk_sources_retire(manager, unit->name, err);
    if (r >= 0)
        r = engine->ops->remove(engine->self, unit->name, err);
    return r;
}

static int do_unit(struct pk_manager *manager, struct pk_fleet *fleet,
                   const struct pk_observed *observed, const struct pk_step *step, bool wait,
                   struct pk_error *err)
{
    if (step->op == PK_STEP_REMOVE)
        return remove_unit(manager, &observed->units[step->index], err);
    const struct pk_unit *unit = &fleet->desired->units[step->index];
    bool replace = step->op == PK_STEP_CHANGE && step->cause != PK_CAUSE_STOPPED;
    bool drain = wait && replace && step->drains;
    int r = drain ? pk_lane_drain(manager, fleet, unit->group, unit->lane, err) : 0;
    /* Now that nothing comes any more it can tell of all that it had: it is asked each second. */
    if (r >= 0 && drain)
        pk_sleep_ms(LAST_ANSWER_MS);
    if (r >= 0)
        r = start_unit(manager, unit, replace, err);
    if (r >= 0 && wait)
        r = pk_unit_wait_ready(manager, fleet, unit, err);
    /* Also when it failed: a lane that nobody reads gets no packets anyway. */
    if (drain)
        pk_lane_restore(manager, fleet, unit->group, unit->lane);
    return r;
}

/* ---- what the agent does ---- */

/* What an inline lane stands between; NULL of another lane. */
static json_t *inline_of(const struct pk_desired *desired, const struct pk_lane_desired *lane)
{
    for (size_t i = 0; lane->is_inline && i < desired->tap_count; i++) {
        const struct pk_tap_desired *tap = &desired->taps[i];
        const char *group = pk_json_string_or(json_array_get(tap->groups, 0), "name", "");
        if (tap->kind == PK_TAP_INLINE && strcmp(group, lane->group) == 0)
            return json_pack(
                "{s:[s,s]}", "interfaces", tap->interface,
                pk_json_string_or(json_object_get(tap->options, "inline"), "interface", ""));
    }
    return lane->is_inline ? json_true() : NULL;
}

static int do_lane(struct pk_manager *manager, const struct pk_fleet *fleet,
                   const struct pk_observed *observed, const struct pk_step *step,
                   struct pk_error *err)
{
    if (step->op == PK_STEP_REMOVE) {
        const struct pk_observed_lane *lane = &observed->lanes[step->index];
        return pk_fleet_agent_call(manager, AGENT_STEP_TIMEOUT_MS, "DELETE", NULL, NULL, err,
                                   "/v1/fleets/%s/lanes/%s/%u", fleet->name, lane->group,
                                   lane->index);
    }
    const struct pk_lane_desired *lane = &fleet->desired->lanes[step->index];
    PK_JSON answer = NULL;
    int r = pk_fleet_agent_call(manager, AGENT_STEP_TIMEOUT_MS, "PUT",
                                json_pack("{s:I,s:o*,s:s*}", "mtu", (json_int_t)lane->mtu, "inline",
                                          inline_of(fleet->desired, lane), "device", lane->device),
                                &answer, err, "/v1/fleets/%s/lanes/%s/%u", fleet->name, lane->group,
                                lane->index);
    if (r < 0)
        return r;
    /* The units were planned for this path: an agent with another run folder would give another. */
    const char *netns = pk_json_string_or(answer, "netns", "");
    for (size_t i = 0; i < fleet->desired->unit_count; i++) {
        const struct pk_unit *unit = &fleet->desired->units[i];
        if (unit->lane != lane->index || strcmp(unit->group, lane->group) != 0 ||
            strcmp(unit->netns, netns) == 0)
            continue;
        pk_fail(err, PK_E_CONFLICT, "the agent made the namespace %s, the plan names %s", netns,
                unit->netns);
        return pk_hint(err, "'picket serve' and 'picket node' must have the same --run-dir");
    }
    return 0;
}

static int do_group(struct pk_manager *manager, struct pk_fleet *fleet,
                    const struct pk_observed *observed, const struct pk_step *step,
                    struct pk_error *err)
{
    if (step->op == PK_STEP_REMOVE) {
        const char *gone = observed->groups[step->index].name;
        int r = pk_fleet_agent_call(manager, AGENT_STEP_TIMEOUT_MS, "DELETE", NULL, NULL, err,
                                    "/v1/fleets/%s/groups/%s", fleet->name, gone);
        return r < 0 ? r : pk_sources_retire_shunts(manager, fleet->name, gone, err);
    }
    const struct pk_desired *desired = fleet->desired;
    const char *group = desired->groups[step->index].name;
    PK_JSON lanes = json_array();
    for (size_t i = 0; i < desired->lane_count && lanes != NULL; i++)
        if (strcmp(desired->lanes[i].group, group) == 0)
            (void)json_array_append_new(
                lanes,
                json_pack("{s:I,s:i}", "index", (json_int_t)desired->lanes[i].index, "weight", 1));
    const struct pk_group_desired *want = &desired->groups[step->index];
    json_t *body = json_pack(
        "{s:O,s:s,s:s*,s:I}", "lanes", lanes, "hash", pk_group_hash_name(want->hash), "tenant",
        want->tenant[0] != '\0' ? want->tenant : NULL, "priority", (json_int_t)want->priority);
    if (body == NULL || (want->options != NULL && json_object_update(body, want->options) < 0)) {
        json_decref(body);
        return pk_no_memory(err);
    }
    int r = pk_fleet_agent_call(manager, AGENT_STEP_TIMEOUT_MS, "PUT", body, NULL, err,
                                "/v1/fleets/%s/groups/%s", fleet->name, group);
    return r < 0 ? r : pk_group_drained(manager, fleet, group, err);
}

static int do_tap(struct pk_manager *manager, const struct pk_fleet *fleet,
                  const struct pk_observed *observed, const struct pk_step *step,
                  struct pk_error *err)
{
    if (step->op == PK_STEP_REMOVE)
        return pk_fleet_agent_call(manager, AGENT_STEP_TIMEOUT_MS, "DELETE", NULL, NULL, err,
                                   "/v1/fleets/%s/taps/%s", fleet->name,
                                   observed->taps[step->index].name);
    const struct pk_tap_desired *tap = &fleet->desired->taps[step->index];
    json_t *body = tap->kind == PK_TAP_REPLAY
                       ? json_pack("{s:s,s:I}", "kind", "replay", "mtu", (json_int_t)tap->mtu)
                       : json_pack("{s:s,s:s}", "kind", pk_tap_kind_name(tap->kind), "interface",
                                   tap->interface);
    if ((tap->options != NULL && json_object_update(body, tap->options) < 0) ||
        json_object_set(body, "groups", tap->groups) < 0 ||
        json_object_set(body, "tenants", tap->tenants) < 0) {
        json_decref(body);
        return pk_no_memory(err);
    }
    return pk_fleet_agent_call(manager, AGENT_STEP_TIMEOUT_MS, "PUT", body, NULL, err,
                               "/v1/fleets/%s/taps/%s", fleet->name, tap->name);
}

int pk_step_execute(struct pk_manager *manager, struct pk_fleet *fleet,
                    const struct pk_observed *observed, const struct pk_step *step, bool wait,
                    struct pk_error *err)
{
    int r = PK_E_INTERNAL;
    switch (step->kind) {
    case PK_STEP_LANE:
        r = do_lane(manager, fleet, observed, step, err);
        break;
    case PK_STEP_UNIT:
        r = do_unit(manager, fleet, observed, step, wait, err);
        break;
    case PK_STEP_GROUP:
        r = do_group(manager, fleet, observed, step, err);
        break;
    case PK_STEP_TAP:
        r = do_tap(manager, fleet, observed, step, err);
        break;
    }
    return r;
}
