/* SPDX-License-Identifier: Apache-2.0 */
/* Opening and closing the event store. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/fs.h"
#include "base/log.h"
#include "base/proc.h"
#include "base/str.h"
#include "base/time.h"
#include "store/events_internal.h"

#define MEMORY_DEFAULT (256ull << 20)
#define MEMORY_MIN     (8ull << 20)

static void source_free(void *pointer)
{
    struct pk_source *source = pointer;

    pk_free(source->fleet);
    pk_free(source->group);
    pk_free(source->tool);
    pk_free(source->path);
    pk_free(source);
}

static void take_limits(struct pk_events *events, const struct pk_events_options *options)
{
    char *dir = events->dir;

    events->options = *options;
    events->options.dir = dir;
    if (events->options.memory_bytes == 0)
        events->options.memory_bytes = MEMORY_DEFAULT;
    events->options.memory_bytes = PK_MAX(events->options.memory_bytes, MEMORY_MIN);
    if (events->options.seal_after <= 0)
        events->options.seal_after = 5 * PK_NSEC_PER_SEC;
}

void pk_events_set_limits(struct pk_events *events, const struct pk_events_options *options)
{
    pthread_mutex_lock(&events->lock);
    take_limits(events, options);
    pthread_mutex_unlock(&events->lock);
}

/* ---- the folder ---- */

static int open_dir(struct pk_events *events, const char *dir, struct pk_error *err)
{
    char real[PATH_MAX], path[PATH_MAX];
    int r = pk_mkdir_p(dir, 0750, err);

    if (r < 0)
        return r;
    if (realpath(dir, real) == NULL)
        return pk_fail_errno(err, errno, "cannot use %s", dir);
    events->dir = pk_strdup(real);
    if (events->dir == NULL)
        return pk_no_memory(err);
    if (strlen(real) + 128 >= PATH_MAX)
        return pk_fail(err, PK_E_USAGE, "the path %s is too long", real);
    (void)snprintf(path, sizeof(path), "%s/lock", real);
    r = pk_lock_process(path, PK_LOCK_WAIT_MS, &events->lock_fd, err);
    if (r < 0) {
        if (r == PK_E_CONFLICT)
            (void)pk_wrap(err, "another picket has the events of %s open", real);
        return r;
    }
    (void)snprintf(path, sizeof(path), "%s/tmp", real);
    r = pk_rm_rf(path, err); /* what a crash left half-written */
    return r < 0 ? r : pk_mkdir_p(path, 0750, err);
}

static int remove_unknown_in(const char *dir, const char *below, unsigned depth,
                             const struct pk_map *known, struct pk_error *err)
{
    PK_CLEANUP(pk_free_p)
    char *path = below[0] != '\0' ? pk_asprintf("%s/%s", dir, below) : pk_strdup(dir);
    DIR *folder = path != NULL ? opendir(path) : NULL;
    int r = 0;

    if (folder == NULL)
        return pk_fail_errno(err, path == NULL ? ENOMEM : errno, "cannot list %s", dir);
    for (struct dirent *entry; r == 0 && (entry = readdir(folder)) != NULL;) {
        const char *name = entry->d_name;
        struct stat st;
        if (name[0] == '.' || fstatat(dirfd(folder), name, &st, AT_SYMLINK_NOFOLLOW) < 0)
            continue;
        PK_CLEANUP(pk_free_p)
        char *inner = below[0] != '\0' ? pk_asprintf("%s/%s", below, name) : pk_strdup(name);
        if (inner == NULL)
            r = pk_no_memory(err);
        else if (S_ISDIR(st.st_mode) && depth < 2)
            r = remove_unknown_in(dir, inner, depth + 1, known, err);
        else if (S_ISREG(st.st_mode) && depth == 2 && pk_str_ends(name, ".parquet") &&
                 pk_map_get(known, inner) == NULL)
            (void)unlinkat(dirfd(folder), name, 0);
    }
    (void)closedir(folder);
    return r;
}

/* Brings folder and manifest together: a file that the manifest does not know was never committed;
 * a row whose file somebody took away would make every query fail. */
static int reconcile(struct pk_events *events, struct pk_error *err)
{
    PK_CLEANUP(pk_map_free_p) struct pk_map *known = pk_map_new(NULL);
    int r = 0;

    if (known == NULL)
        return pk_no_memory(err);
    for (size_t i = events->segment_count; r == 0 && i-- > 0;) {
        struct pk_segment *s = events->segments[i];
        PK_CLEANUP(pk_free_p) char *path = pk_asprintf("%s/%s", events->dir, s->name);
        if (path == NULL || pk_map_set_take(known, s->name, s) < 0)
            return pk_no_memory(err);
        if (access(path, F_OK) == 0 || errno != ENOENT)
            continue;
        pk_log(PK_LOG_INFO, "store", "%s is gone: its %llu events are no longer there", path,
               (unsigned long long)s->rows);
        r = pk_manifest_commit(events, NULL, 0, &s, 1, false, err);
        if (r == 0) {
            (void)pk_map_remove(known, s->name);
            pk_events_remove_segment(events, s);
            pk_free(s);
        }
    }
    return r < 0 ? r : remove_unknown_in(events->dir, "", 0, known, err);
}

/* ---- DuckDB ---- */

static int connect(struct pk_events *events, duckdb_connection *ret_connection,
                   struct pk_error *err)
{
    if (events->duck->connect(events->db, ret_connection) != DUCKDB_OK)
        return pk_fail(err, PK_E_INTERNAL, "DuckDB gives no connection");
    return 0;
}

static int set_up(struct pk_events *events, struct pk_error *err)
{
    struct pk_buf sql = PK_BUF_INIT(16u << 10);
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);

    /* What is in memory, as much again while it is sealed, and some for queries. Few threads: with
     * more than one, DuckDB's main thread burns its CPU while it waits for the others, which costs
     * ingest and seal a third; and the CPUs are there for the sensors. */
    (void)pk_buf_printf(&sql, "SET memory_limit='%lluMiB'; SET threads=%d;",
                        (unsigned long long)((events->options.memory_bytes * 3) >> 20) + 512,
                        cpus >= 16  ? 4
                        : cpus >= 8 ? 2
                                    : 1);
    /* A table in memory has nothing to gain from checkpoints: they would pack it anew with every
     * batch, which costs twice as much as all the rest of ingest. */
    (void)pk_buf_puts(&sql, "SET checkpoint_threshold='1024TiB';");
    /* By default DuckDB keeps the bytes of every file that it ever read, also of those that were
     * merged and removed since, until all its memory is used. The kernel keeps what is read again,
     * and gives it up when memory is short. */
    (void)pk_buf_puts(&sql, "SET enable_external_file_cache=false;");
    (void)pk_buf_puts(&sql, "SET temp_directory=");
    struct pk_buf tmp = PK_BUF_INIT(PATH_MAX + 32);
    (void)pk_buf_printf(&tmp, "%s/tmp/spill", events->dir);
    pk_sql_quote(&sql, tmp.data != NULL ? tmp.data : "");
    (void)pk_buf_puts(&sql, "; SET max_temp_directory_size='2GiB';"
                            "SET autoinstall_known_extensions=false;"
                            "SET autoload_known_extensions=false;"
                            "SET allow_community_extensions=false;"
                            "SET enable_progress_bar=false; SET allowed_directories=[");
    pk_sql_quote(&sql, events->dir);
    /* From here on it reads and writes nothing but our folder, whatever a statement says. */
    (void)pk_buf_puts(&sql, "]; SET enable_external_access=false; SET lock_configuration=true;");
    int r = sql.failed || tmp.failed ? pk_no_memory(err)
                                     : pk_duckdb_exec(events->duck, events->writer,
                                                      "cannot set up DuckDB", sql.data, err);
    pk_buf_done(&tmp);
    pk_buf_done(&sql);
    return r;
}

static int open_duckdb(struct pk_events *events, struct pk_error *err)
{
    int r = pk_duckdb_load(&events->duck, err);

    if (r < 0)
        return r;
    if (events->duck->open(NULL, &events->db) != DUCKDB_OK)
        return pk_fail(err, PK_E_INTERNAL, "DuckDB does not start");
    r = connect(events, &events->writer, err);
    if (r == 0)
        r = set_up(events, err);
    if (r == 0)
        r = pk_events_register_functions(events, err);
    if (r == 0)
        r = connect(events, &events->seal_connection, err);
    if (r == 0)
        r = connect(events, &events->keep_connection, err);
    if (r == 0)
        r = connect(events, &events->trash_connection, err);
    for (size_t i = 0; r == 0 && i < PK_EVENTS_READERS; i++)
        r = connect(events, &events->readers[i], err);
    if (r == 0)
        r = pk_rows_new(events->duck, &events->rows, err);
    return r < 0 ? r : pk_events_new_head(events, err);
}

static void close_duckdb(struct pk_events *events)
{
    const struct pk_duckdb *duck = events->duck;

    if (duck == NULL)
        return;
    pk_rows_free(events->rows);
    for (size_t i = 0; i < PK_EVENTS_READERS; i++)
        if (events->readers[i] != NULL)
            duck->disconnect(&events->readers[i]);
    duckdb_connection *const others[] = { &events->trash_connection, &events->keep_connection,
                                          &events->seal_connection, &events->writer };
    for (size_t i = 0; i < PK_ARRAY_SIZE(others); i++)
        if (*others[i] != NULL)
            duck->disconnect(others[i]);
    if (events->db != NULL)
        duck->close(&events->db);
}

/* ---- */

static void free_all(struct pk_events *events)
{
    for (size_t i = 0; i < events->segment_count; i++) {
        pk_free(events->segments[i]->parts);
        pk_free(events->segments[i]);
    }
    pk_free(events->segments);
    close_duckdb(events);
    if (events->manifest != NULL)
        (void)sqlite3_close(events->manifest);
    pk_map_free(events->sources);
    pk_map_free(events->totals);
    pk_close_p(&events->lock_fd);
    pthread_cond_destroy(&events->arrived);
    pthread_cond_destroy(&events->sealed);
    pthread_cond_destroy(&events->reader_free);
    pthread_cond_destroy(&events->reader_taken);
    pthread_mutex_destroy(&events->lock);
    pthread_mutex_destroy(&events->ingest_lock);
    pthread_mutex_destroy(&events->manifest_lock);
    pthread_mutex_destroy(&events->trash_lock);
    pk_free(events->dir);
    pk_free(events);
}

static void init_locks(struct pk_events *events)
{
    pthread_condattr_t monotonic;

    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&events->arrived, &monotonic);
    pthread_cond_init(&events->sealed, &monotonic);
    pthread_cond_init(&events->reader_free, &monotonic);
    pthread_cond_init(&events->reader_taken, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_mutex_init(&events->lock, NULL);
    pthread_mutex_init(&events->ingest_lock, NULL);
    pthread_mutex_init(&events->manifest_lock, NULL);
    pthread_mutex_init(&events->trash_lock, NULL);
}

int pk_events_open(const struct pk_events_options *options, struct pk_events **ret_events,
                   struct pk_error *err)
{
    struct pk_events *events = pk_zalloc(sizeof(*events));
    unsigned char random[16];

    if (events == NULL)
        return pk_no_memory(err);
    events->lock_fd = -1;
    init_locks(events);
    events->sources = pk_map_new(source_free);
    events->totals = pk_map_new(pk_free);
    int r = sodium_init() < 0 ? pk_fail(err, PK_E_INTERNAL, "libsodium does not start") : 0;
    if (events->sources == NULL || events->totals == NULL)
        r = pk_no_memory(err);
    if (r == 0) {
        randombytes_buf(random, sizeof(random));
        pk_hex(random, sizeof(random), events->session);
        r = open_dir(events, options->dir, err);
    }
    take_limits(events, options);
    if (r == 0)
        r = pk_manifest_open(events, err);
    if (r == 0)
        r = reconcile(events, err);
    if (r == 0)
        r = open_duckdb(events, err);
    if (r == 0) {
        events->sealer_runs = pthread_create(&events->sealer, NULL, pk_events_sealer, events) == 0;
        events->keeper_runs = pthread_create(&events->keeper, NULL, pk_events_keeper, events) == 0;
        events->watchdog_runs =
            pthread_create(&events->watchdog, NULL, pk_events_watchdog, events) == 0;
        if (!events->sealer_runs || !events->keeper_runs || !events->watchdog_runs) {
            r = pk_fail(err, PK_E_IO, "cannot start a thread");
            pk_events_close(events);
            return r;
        }
    }
    if (r < 0) {
        free_all(events);
        return r;
    }
    *ret_events = events;
    return 0;
}

void pk_events_close(struct pk_events *events)
{
    struct pk_error err;

    if (events == NULL)
        return;
    pthread_mutex_lock(&events->lock);
    events->stopping = true;
    pthread_cond_broadcast(&events->arrived);
    pthread_cond_broadcast(&events->sealed);
    pthread_cond_broadcast(&events->reader_free);
    pthread_cond_broadcast(&events->reader_taken);
    pthread_mutex_unlock(&events->lock);
    if (events->sealer_runs)
        (void)pthread_join(events->sealer, NULL);
    if (events->watchdog_runs)
        (void)pthread_join(events->watchdog, NULL);
    if (events->keeper_runs)
        (void)pthread_join(events->keeper, NULL);
    /* Twice where a seal was under way that failed: its table first, then the head. What cannot be
     * sealed now is read again from the tools' files by the next session. */
    for (int i = 0; i < 2; i++)
        if (pk_events_seal(events, &err) < 0) {
            pk_log_error(PK_LOG_INFO, "store", &err, "the last events are left to the next start");
            break;
        }
    free_all(events);
}
