/* SPDX-License-Identifier: Apache-2.0 */
/* The engine in memory. One lock guards everything; waiting is done on its condition. */
#include "engine/fake/fake.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/alloc.h"
#include "base/str.h"
#include "base/time.h"
#include "engine/internal.h"

#define FAKE_LOG_MAX     (256u << 10)
#define FAKE_MISSING_MAX 16

struct fake_unit {
    struct pk_unit_status status;
    struct pk_buf log;
    struct fake_unit *next;
};

struct fake {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    char tag[32];
    struct fake_unit *units; /* in order of creation */
    unsigned long generation, seen;
    pid_t next_pid;
    struct {
        int code;
        unsigned times, delay_ms;
        unsigned long calls;
    } levers[PK_FAKE_OPS];
    char *missing[FAKE_MISSING_MAX];
};

static const struct pk_engine_ops fake_ops;

static void unit_free(struct fake_unit *unit)
{
    if (unit == NULL)
        return;
    pk_unit_status_done(&unit->status);
    pk_buf_done(&unit->log);
    pk_free(unit);
}

/* Begins an operation: counts it, waits as told, takes the lock. A failure that a lever asks for
 * leaves the lock free. */
static int begin(struct fake *fake, enum pk_fake_op op, struct pk_error *err)
{
    pthread_mutex_lock(&fake->lock);
    fake->levers[op].calls++;
    unsigned delay = fake->levers[op].delay_ms;
    if (delay > 0) {
        pthread_mutex_unlock(&fake->lock);
        pk_sleep_ms(delay);
        pthread_mutex_lock(&fake->lock);
    }
    if (fake->levers[op].times > 0) {
        if (fake->levers[op].times != UINT_MAX)
            fake->levers[op].times--;
        int code = fake->levers[op].code;
        pthread_mutex_unlock(&fake->lock);
        pk_fail(err, code, "the engine was told to fail");
        return pk_hint(err, "this is a test of what happens then");
    }
    return 0;
}

static int end(struct fake *fake, int r)
{
    pthread_mutex_unlock(&fake->lock);
    return r;
}

static void note_change(struct fake *fake)
{
    fake->generation++;
    pthread_cond_broadcast(&fake->changed);
}

static struct fake_unit *find(struct fake *fake, const char *name)
{
    for (struct fake_unit *unit = fake->units; unit != NULL; unit = unit->next)
        if (strcmp(unit->status.name, name) == 0)
            return unit;
    return NULL;
}

static int not_there(const char *name, struct pk_error *err)
{
    pk_fail(err, PK_E_NOTFOUND, "there is no container %s", name);
    return pk_hint(err, "apply the fleet again: the container is made anew");
}

static void drop(struct fake *fake, struct fake_unit *unit)
{
    for (struct fake_unit **at = &fake->units; *at != NULL; at = &(*at)->next) {
        if (*at == unit) {
            *at = unit->next;
            unit_free(unit);
            note_change(fake);
            return;
        }
    }
}

static void set_exited(struct fake *fake, struct fake_unit *unit, int exit_code, bool oom_killed)
{
    unit->status.state = PK_UNIT_EXITED;
    unit->status.exit_code = exit_code;
    unit->status.oom_killed = oom_killed;
    unit->status.pid = 0;
    note_change(fake);
}

static int fake_probe(void *self, struct pk_engine_info *ret_info, struct pk_error *err)
{
    struct fake *fake = self;
    int r = begin(fake, PK_FAKE_PROBE, err);
    if (r < 0)
        return r;
    memset(ret_info, 0, sizeof(*ret_info));
    snprintf(ret_info->name, sizeof(ret_info->name), "fake");
    snprintf(ret_info->version, sizeof(ret_info->version), "%s", PICKET_VERSION);
    snprintf(ret_info->runtime, sizeof(ret_info->runtime), "none");
    snprintf(ret_info->cgroups, sizeof(ret_info->cgroups), "none");
    return end(fake, 0);
}

/* Copies a status; false when out of memory, *to is then safe to free. */
static bool status_copy(const struct pk_unit_status *from, struct pk_unit_status *to)
{
    *to = *from;
    to->name = pk_strdup(from->name);
    to->id = pk_strdup(from->id);
    to->fleet = pk_strdup(from->fleet);
    to->group = pk_strdup(from->group);
    to->tool = pk_strdup(from->tool);
    to->hash = pk_strdup(from->hash);
    to->image_digest = pk_strdup(from->image_digest);
    to->unit = from->unit != NULL ? json_deep_copy(from->unit) : NULL;
    return to->name != NULL && to->id != NULL && to->fleet != NULL && to->group != NULL &&
           to->tool != NULL && to->hash != NULL && to->image_digest != NULL &&
           (from->unit == NULL || to->unit != NULL);
}

static int fake_list(void *self, const char *fleet, struct pk_unit_status **ret_list,
                     size_t *ret_count, struct pk_error *err)
{
    struct fake *fake = self;
    int r = begin(fake, PK_FAKE_LIST, err);
    if (r < 0)
        return r;

    size_t total = 0, count = 0;
    for (struct fake_unit *unit = fake->units; unit != NULL; unit = unit->next)
        total++;
    struct pk_unit_status *list = pk_zalloc_array(total + 1, sizeof(*list));
    bool ok = list != NULL;
    for (struct fake_unit *unit = fake->units; ok && unit != NULL; unit = unit->next) {
        if (fleet != NULL && strcmp(unit->status.fleet, fleet) != 0)
            continue;
        ok = status_copy(&unit->status, &list[count]);
        count++;
    }
    if (!ok) {
        pk_unit_status_list_free(list, count);
        return end(fake, pk_no_memory(err));
    }
    *ret_list = list;
    *ret_count = count;
    return end(fake, 0);
}

static bool image_there(const struct fake *fake, const char *image)
{
    if (!pk_str_starts(image, "localhost/picket/"))
        return false;
    for (size_t i = 0; i < FAKE_MISSING_MAX; i++)
        if (fake->missing[i] != NULL && strcmp(fake->missing[i], image) == 0)
            return false;
    return true;
}

static void image_id(const char *image, char out[7 + 65])
{
    (void)snprintf(out, 8, "sha256:");
    pk_sha256_hex(image, strlen(image), out + 7);
}

static int no_image(const char *image, struct pk_error *err)
{
    pk_fail(err, PK_E_NOTFOUND, "the image %s is not there", image);
    return pk_hint(err, "build it: picket image build NAME");
}

static int create_locked(struct fake *fake, const struct pk_unit *unit, struct pk_error *err)
{
    struct fake_unit *old = find(fake, unit->name);
    if (old != NULL && strcmp(old->status.hash, unit->hash) == 0)
        return 0;
    if (!image_there(fake, unit->image))
        return no_image(unit->image, err);

    char id[65];
    PK_CLEANUP(pk_free_p)
    char *seed = pk_asprintf("%s %s %lu", unit->name, unit->hash, fake->generation);
    struct fake_unit *made = pk_zalloc(sizeof(*made));
    if (seed == NULL || made == NULL) {
        pk_free(made);
        return pk_fail(err, PK_E_NOMEM, "%s: out of memory", unit->name);
    }
    pk_sha256_hex(seed, strlen(seed), id);
    made->log = PK_BUF_INIT(FAKE_LOG_MAX);
    struct pk_unit_status from = { .name = unit->name,
                                   .id = id,
                                   .fleet = unit->fleet,
                                   .group = unit->group,
                                   .tool = unit->tool,
                                   .hash = unit->hash,
                                   .lane = unit->lane,
                                   .state = PK_UNIT_CREATED,
                                   .image_digest = unit->image_digest,
                                   .unit = pk_unit_to_json(unit) };
    bool ok = from.unit != NULL && status_copy(&from, &made->status);
    json_decref(from.unit);
    if (!ok) {
        unit_free(made);
        return pk_fail(err, PK_E_NOMEM, "%s: out of memory", unit->name);
    }
    if (old != NULL)
        drop(fake, old);
    struct fake_unit **at = &fake->units;
    while (*at != NULL)
        at = &(*at)->next;
    *at = made;
    note_change(fake);
    return 0;
}

static int fake_create(void *self, const struct pk_unit *unit, struct pk_error *err)
{
    struct fake *fake = self;
    int r = begin(fake, PK_FAKE_CREATE, err);
    if (r < 0)
        return r;
    return end(fake, create_locked(fake, unit, err));
}

static int fake_start(void *self, const char *name, struct pk_error *err)
{
    struct fake *fake = self;
    int r = begin(fake, PK_FAKE_START, err);
    if (r < 0)
        return r;
    struct fake_unit *unit = find(fake, name);
    if (unit == NULL)
        return end(fake, not_there(name, err));
    if (unit->status.state != PK_UNIT_RUNNING) {
        unit->status.state = PK_UNIT_RUNNING;
        unit->status.exit_code = 0;
        unit->status.oom_killed = false;
        unit->status.pid = fake->next_pid++;
        unit->status.started_at = pk_time_now();
        note_change(fake);
    }
    return end(fake, 0);
}

static int fake_stop(void *self, const char *name, unsigned timeout_ms, struct pk_error *err)
{
    struct fake *fake = self;
    (void)timeout_ms;
    int r = begin(fake, PK_FAKE_STOP, err);
    if (r < 0)
        return r;
    struct fake_unit *unit = find(fake, name);
    if (unit == NULL)
        return end(fake, not_there(name, err));
    if (unit->status.state == PK_UNIT_RUNNING)
        set_exited(fake, unit, 0, false);
    return end(fake, 0);
}

static int fake_kill(void *self, const char *name, int signo, struct pk_error *err)
{
    struct fake *fake = self;
    int r = begin(fake, PK_FAKE_KILL, err);
    if (r < 0)
        return r;
    struct fake_unit *unit = find(fake, name);
    if (unit == NULL)
        return end(fake, not_there(name, err));
    if (unit->status.state != PK_UNIT_RUNNING)
        return end(fake, pk_fail(err, PK_E_CONFLICT, "%s does not run", name));
    if (signo == SIGKILL || signo == SIGTERM || signo == SIGINT)
        set_exited(fake, unit, 128 + signo, false);
    return end(fake, 0);
}

static int fake_remove(void *self, const char *name, struct pk_error *err)
{
    struct fake *fake = self;
    int r = begin(fake, PK_FAKE_REMOVE, err);
    if (r < 0)
        return r;
    struct fake_unit *unit = find(fake, name);
    if (unit != NULL)
        drop(fake, unit);
    return end(fake, 0);
}

static int fake_logs(void *self, const char *name, unsigned lines, struct pk_buf *out,
                     struct pk_error *err)
{
    struct fake *fake = self;
    int r = begin(fake, PK_FAKE_LOGS, err);
    if (r < 0)
        return r;
    struct fake_unit *unit = find(fake, name);
    if (unit == NULL)
        return end(fake, not_there(name, err));
    const struct pk_buf *log = &unit->log;
    size_t start = log->len;
    unsigned seen = 0;
    while (start > 0 && (log->data[start - 1] != '\n' || seen++ < lines))
        start--;
    if (log->len > start && pk_buf_add(out, log->data + start, log->len - start) < 0)
        r = pk_fail(err, PK_E_NOSPACE, "%s: the log does not fit", name);
    return end(fake, r);
}

static int fake_exec(void *self, const char *name, const char *const *argv, unsigned timeout_ms,
                     struct pk_buf *out, int *ret_exit_code, struct pk_error *err)
{
    struct fake *fake = self;
    (void)argv, (void)timeout_ms, (void)out;
    int r = begin(fake, PK_FAKE_EXEC, err);
    if (r < 0)
        return r;
    struct fake_unit *unit = find(fake, name);
    if (unit == NULL)
        return end(fake, not_there(name, err));
    if (unit->status.state != PK_UNIT_RUNNING)
        return end(fake, pk_fail(err, PK_E_CONFLICT, "%s does not run", name));
    *ret_exit_code = 0;
    return end(fake, 0);
}

/* Nothing is in these images, so they have no version. */
static int fake_image_find(void *self, const char *image, char **ret_digest, char **ret_release,
                           struct pk_error *err)
{
    struct fake *fake = self;
    int r = begin(fake, PK_FAKE_IMAGE, err);
    if (r < 0)
        return r;
    if (!image_there(fake, image))
        return end(fake, no_image(image, err));
    char id[7 + 65];
    image_id(image, id);
    char *digest = pk_strdup(id);
    char *release = ret_release != NULL ? pk_strdup("") : NULL;
    if (digest == NULL || (ret_release != NULL && release == NULL)) {
        pk_free(digest);
        pk_free(release);
        return end(fake, pk_no_memory(err));
    }
    *ret_digest = digest;
    if (ret_release != NULL)
        *ret_release = release;
    return end(fake, 0);
}

static int fake_wait_change(void *self, unsigned timeout_ms, bool *ret_changed,
                            struct pk_error *err)
{
    struct fake *fake = self;
    int r = begin(fake, PK_FAKE_WAIT, err);
    if (r < 0)
        return r;
    pk_nsec until = pk_time_monotonic() + timeout_ms * PK_NSEC_PER_MS;
    struct timespec limit = { .tv_sec = until / PK_NSEC_PER_SEC,
                              .tv_nsec = until % PK_NSEC_PER_SEC };
    while (fake->seen == fake->generation)
        if (pthread_cond_timedwait(&fake->changed, &fake->lock, &limit) == ETIMEDOUT)
            break;
    *ret_changed = fake->seen != fake->generation;
    fake->seen = fake->generation;
    return end(fake, 0);
}

static void fake_free(void *self)
{
    struct fake *fake = self;
    while (fake->units != NULL) {
        struct fake_unit *next = fake->units->next;
        unit_free(fake->units);
        fake->units = next;
    }
    for (size_t i = 0; i < FAKE_MISSING_MAX; i++)
        pk_free(fake->missing[i]);
    pthread_cond_destroy(&fake->changed);
    pthread_mutex_destroy(&fake->lock);
    pk_free(fake);
}

static const struct pk_engine_ops fake_ops = {
    .probe = fake_probe,
    .list = fake_list,
    .create = fake_create,
    .start = fake_start,
    .stop = fake_stop,
    .kill = fake_kill,
    .remove = fake_remove,
    .logs = fake_logs,
    .exec = fake_exec,
    .image_find = fake_image_find,
    .wait_change = fake_wait_change,
    .free = fake_free,
};

int pk_engine_fake_new(const char *tag, struct pk_engine **ret_engine, struct pk_error *err)
{
    struct pk_engine *engine = pk_zalloc(sizeof(*engine));
    struct fake *fake = pk_zalloc(sizeof(*fake));
    if (engine == NULL || fake == NULL) {
        pk_free(engine);
        pk_free(fake);
        return pk_no_memory(err);
    }
    pthread_condattr_t clock;
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_cond_init(&fake->changed, &clock);
    pthread_condattr_destroy(&clock);
    pthread_mutex_init(&fake->lock, NULL);
    snprintf(fake->tag, sizeof(fake->tag), "%s", tag);
    fake->next_pid = 1000;
    engine->ops = &fake_ops;
    engine->self = fake;
    *ret_engine = engine;
    return 0;
}

/* ---- levers ---- */

bool pk_engine_is_fake(const struct pk_engine *engine)
{
    return engine->ops == &fake_ops;
}

static struct fake *fake_of(struct pk_engine *engine)
{
    return engine->self; /* by contract a fake one */
}

static struct fake_unit *lever_find(struct fake *fake, const char *name)
{
    pthread_mutex_lock(&fake->lock);
    return find(fake, name);
}

int pk_fake_exit(struct pk_engine *engine, const char *name, int exit_code, bool oom_killed,
                 struct pk_error *err)
{
    struct fake *fake = fake_of(engine);
    struct fake_unit *unit = lever_find(fake, name);
    if (unit == NULL)
        return end(fake, not_there(name, err));
    if (unit->status.state != PK_UNIT_RUNNING)
        return end(fake, pk_fail(err, PK_E_CONFLICT, "%s does not run", name));
    set_exited(fake, unit, exit_code, oom_killed);
    return end(fake, 0);
}

int pk_fake_vanish(struct pk_engine *engine, const char *name, struct pk_error *err)
{
    struct fake *fake = fake_of(engine);
    struct fake_unit *unit = lever_find(fake, name);
    if (unit == NULL)
        return end(fake, not_there(name, err));
    drop(fake, unit);
    return end(fake, 0);
}

int pk_fake_write_log(struct pk_engine *engine, const char *name, const char *line,
                      struct pk_error *err)
{
    struct fake *fake = fake_of(engine);
    struct fake_unit *unit = lever_find(fake, name);
    if (unit == NULL)
        return end(fake, not_there(name, err));
    size_t need = strlen(line) + 1;
    if (need > FAKE_LOG_MAX)
        return end(fake, pk_fail(err, PK_E_NOSPACE, "the line is too long"));
    if (unit->log.len + need > FAKE_LOG_MAX)
        pk_buf_consume(&unit->log, unit->log.len + need - FAKE_LOG_MAX);
    if (pk_buf_printf(&unit->log, "%s\n", line) < 0)
        return end(fake, pk_no_memory(err));
    return end(fake, 0);
}

void pk_fake_fail(struct pk_engine *engine, enum pk_fake_op op, int code, unsigned times)
{
    struct fake *fake = fake_of(engine);
    pthread_mutex_lock(&fake->lock);
    fake->levers[op].code = code;
    fake->levers[op].times = times;
    pthread_mutex_unlock(&fake->lock);
}

void pk_fake_delay(struct pk_engine *engine, enum pk_fake_op op, unsigned ms)
{
    struct fake *fake = fake_of(engine);
    pthread_mutex_lock(&fake->lock);
    fake->levers[op].delay_ms = ms;
    pthread_mutex_unlock(&fake->lock);
}

int pk_fake_image_missing(struct pk_engine *engine, const char *image, bool missing,
                          struct pk_error *err)
{
    struct fake *fake = fake_of(engine);
    pthread_mutex_lock(&fake->lock);
    char **free_place = NULL;
    for (size_t i = 0; i < FAKE_MISSING_MAX; i++) {
        if (fake->missing[i] != NULL && strcmp(fake->missing[i], image) == 0) {
            pk_free(fake->missing[i]);
            fake->missing[i] = NULL;
        }
        if (fake->missing[i] == NULL)
            free_place = &fake->missing[i];
    }
    if (missing) {
        if (free_place == NULL)
            return end(fake, pk_fail(err, PK_E_NOSPACE, "too many images are away"));
        *free_place = pk_strdup(image);
        if (*free_place == NULL)
            return end(fake, pk_no_memory(err));
    }
    return end(fake, 0);
}

unsigned long pk_fake_calls(struct pk_engine *engine, enum pk_fake_op op)
{
    struct fake *fake = fake_of(engine);
    pthread_mutex_lock(&fake->lock);
    unsigned long calls = fake->levers[op].calls;
    pthread_mutex_unlock(&fake->lock);
    return calls;
}
