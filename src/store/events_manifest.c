/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The manifest: which Parquet files exist and up to where each source is in them. One transaction
 * per seal, synchronous, is what makes events neither lost nor doubled after a crash.
 */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/time.h"
#include "store/events_internal.h"

#define SCHEMA_VERSION 1
/* An ended source is remembered for a while, should its last messages come twice. */
#define FORGET_AFTER (7 * 86400 * PK_NSEC_PER_SEC)

static const char schema[] =
    "CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;"
    "CREATE TABLE IF NOT EXISTS files (path TEXT PRIMARY KEY, dataset TEXT NOT NULL,"
    " day INTEGER NOT NULL, level INTEGER NOT NULL, rows INTEGER NOT NULL, bytes INTEGER NOT NULL,"
    " min_time INTEGER NOT NULL, max_time INTEGER NOT NULL, max_seq INTEGER NOT NULL,"
    " sealed_at INTEGER NOT NULL, columns INTEGER NOT NULL) WITHOUT ROWID;"
    "CREATE TABLE IF NOT EXISTS sources (id TEXT PRIMARY KEY, fleet TEXT NOT NULL,"
    " grp TEXT NOT NULL, lane INTEGER NOT NULL, tool TEXT NOT NULL, path TEXT NOT NULL,"
    " sealed INTEGER NOT NULL, updated_at INTEGER NOT NULL, ended_at INTEGER) WITHOUT ROWID;"
    "CREATE TABLE IF NOT EXISTS totals (fleet TEXT PRIMARY KEY, stored INTEGER NOT NULL,"
    " lost INTEGER NOT NULL, lost_bytes INTEGER NOT NULL) WITHOUT ROWID;";

static int fail(const struct pk_events *events, struct pk_error *err, const char *what)
{
    int code = sqlite3_extended_errcode(events->manifest);
    const char *message = sqlite3_errmsg(events->manifest);

    if ((code & 0xff) == SQLITE_FULL) {
        (void)pk_fail(err, PK_E_NOSPACE, "event manifest: %s: %s", what, message);
        return pk_hint(err,
                       "free some space: ingest goes on by itself, nothing is lost until then");
    }
    if ((code & 0xff) == SQLITE_NOMEM)
        return pk_no_memory(err);
    (void)pk_fail(err, PK_E_IO, "event manifest: %s: %s", what, message);
    return pk_hint(err, "look at %s/manifest.db and the disk that holds it", events->dir);
}

static int exec(struct pk_events *events, const char *sql, struct pk_error *err)
{
    if (sqlite3_exec(events->manifest, sql, NULL, NULL, NULL) != SQLITE_OK)
        return fail(events, err, "cannot set up");
    return 0;
}

static void finalize_p(sqlite3_stmt **stmt)
{
    (void)sqlite3_finalize(*stmt);
}

static int prepare(struct pk_events *events, const char *sql, sqlite3_stmt **ret_stmt,
                   struct pk_error *err)
{
    if (sqlite3_prepare_v2(events->manifest, sql, -1, ret_stmt, NULL) != SQLITE_OK)
        return fail(events, err, "cannot prepare");
    return 0;
}

static void copy_text(char *out, size_t size, sqlite3_stmt *stmt, int column)
{
    const unsigned char *text = sqlite3_column_text(stmt, column);

    (void)snprintf(out, size, "%s", text != NULL ? (const char *)text : "");
}

static int load_files(struct pk_events *events, struct pk_error *err)
{
    PK_CLEANUP(finalize_p) sqlite3_stmt *stmt = NULL;
    int r = prepare(events,
                    "SELECT path, dataset, day, level, rows, bytes, min_time, max_time, max_seq,"
                    " sealed_at, columns FROM files",
                    &stmt, err);
    if (r < 0)
        return r;
    int step;
    while ((step = sqlite3_step(stmt)) == SQLITE_ROW) {
        struct pk_segment *segment = pk_segment_new();
        if (segment == NULL)
            return pk_no_memory(err);
        copy_text(segment->name, sizeof(segment->name), stmt, 0);
        copy_text(segment->dataset, sizeof(segment->dataset), stmt, 1);
        segment->day = sqlite3_column_int64(stmt, 2);
        segment->level = (unsigned)sqlite3_column_int(stmt, 3);
        segment->rows = (uint64_t)sqlite3_column_int64(stmt, 4);
        segment->bytes = (uint64_t)sqlite3_column_int64(stmt, 5);
        segment->min_time = sqlite3_column_int64(stmt, 6);
        segment->max_time = sqlite3_column_int64(stmt, 7);
        segment->max_seq = (uint64_t)sqlite3_column_int64(stmt, 8);
        segment->sealed_at = sqlite3_column_int64(stmt, 9);
        segment->columns = (uint64_t)sqlite3_column_int64(stmt, 10);
        if (pk_events_add_segment_take(events, segment) < 0) {
            pk_free(segment);
            return pk_no_memory(err);
        }
    }
    return step == SQLITE_DONE ? 0 : fail(events, err, "cannot read the files");
}

static char *dup_column(sqlite3_stmt *stmt, int column)
{
    const unsigned char *text = sqlite3_column_text(stmt, column);

    return pk_strdup(text != NULL ? (const char *)text : "");
}

static int load_sources(struct pk_events *events, struct pk_error *err)
{
    PK_CLEANUP(finalize_p) sqlite3_stmt *stmt = NULL;
    int r = prepare(events,
                    "SELECT id, fleet, grp, lane, tool, path, sealed FROM sources"
                    " WHERE ended_at IS NULL",
                    &stmt, err);
    if (r < 0)
        return r;
    int step;
    while ((step = sqlite3_step(stmt)) == SQLITE_ROW) {
        const char *id = (const char *)sqlite3_column_text(stmt, 0);
        struct pk_source *source = id != NULL ? pk_events_source(events, id) : NULL;
        if (source == NULL)
            return pk_no_memory(err);
        source->fleet = dup_column(stmt, 1);
        source->group = dup_column(stmt, 2);
        source->lane = (uint64_t)sqlite3_column_int64(stmt, 3);
        source->tool = dup_column(stmt, 4);
        source->path = dup_column(stmt, 5);
        source->sealed = source->sealing = source->received =
            (uint64_t)sqlite3_column_int64(stmt, 6);
    }
    return step == SQLITE_DONE ? 0 : fail(events, err, "cannot read the sources");
}

static int load_totals(struct pk_events *events, struct pk_error *err)
{
    PK_CLEANUP(finalize_p) sqlite3_stmt *stmt = NULL;
    int r = prepare(events, "SELECT fleet, stored, lost, lost_bytes FROM totals", &stmt, err);
    if (r < 0)
        return r;
    int step;
    while ((step = sqlite3_step(stmt)) == SQLITE_ROW) {
        const char *fleet = (const char *)sqlite3_column_text(stmt, 0);
        struct pk_totals *totals = pk_events_totals(events, fleet != NULL ? fleet : "");
        if (totals == NULL)
            return pk_no_memory(err);
        totals->stored = totals->sealing = totals->received =
            (uint64_t)sqlite3_column_int64(stmt, 1);
        totals->stored_lost = totals->sealing_lost = totals->lost =
            (uint64_t)sqlite3_column_int64(stmt, 2);
        totals->stored_lost_bytes = totals->sealing_lost_bytes = totals->lost_bytes =
            (uint64_t)sqlite3_column_int64(stmt, 3);
    }
    return step == SQLITE_DONE ? 0 : fail(events, err, "cannot read the totals");
}

static int get_meta(struct pk_events *events, const char *key, int64_t *value, struct pk_error *err)
{
    PK_CLEANUP(finalize_p) sqlite3_stmt *stmt = NULL;
    int r = prepare(events, "SELECT value FROM meta WHERE key = ?1", &stmt, err);
    if (r < 0)
        return r;
    (void)sqlite3_bind_text(stmt, 1, key, -1, SQLITE_STATIC);
    int step = sqlite3_step(stmt);
    if (step == SQLITE_ROW)
        *value = sqlite3_column_int64(stmt, 0);
    else if (step != SQLITE_DONE)
        return fail(events, err, "cannot read the settings");
    return 0;
}

static int put_meta(struct pk_events *events, const char *key, int64_t value, struct pk_error *err)
{
    PK_CLEANUP(finalize_p) sqlite3_stmt *stmt = NULL;
    int r = prepare(events, "INSERT OR REPLACE INTO meta VALUES (?1, ?2)", &stmt, err);
    if (r < 0)
        return r;
    (void)sqlite3_bind_text(stmt, 1, key, -1, SQLITE_STATIC);
    (void)sqlite3_bind_int64(stmt, 2, value);
    return sqlite3_step(stmt) == SQLITE_DONE ? 0 : fail(events, err, "cannot write the settings");
}

int pk_manifest_open(struct pk_events *events, struct pk_error *err)
{
    int64_t version = SCHEMA_VERSION, next_seq = 0;
    char *path = pk_asprintf("%s/manifest.db", events->dir);

    if (path == NULL)
        return pk_no_memory(err);
    int code = sqlite3_open_v2(path, &events->manifest,
                               SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX |
                                   SQLITE_OPEN_NOFOLLOW,
                               NULL);
    pk_free(path);
    if (code != SQLITE_OK)
        return fail(events, err, "cannot open");
    (void)sqlite3_busy_timeout(events->manifest, 5000);
    int r = exec(events, "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;", err);
    if (r == 0)
        r = exec(events, schema, err);
    if (r == 0)
        r = get_meta(events, "version", &version, err);
    if (r == 0 && version != SCHEMA_VERSION) {
        (void)pk_fail(err, PK_E_UNSUPPORTED, "%s/manifest.db is of a newer picket (version %lld)",
                      events->dir, (long long)version);
        return pk_hint(err, "use that picket again, or another --state-dir");
    }
    if (r == 0)
        r = put_meta(events, "version", SCHEMA_VERSION, err);
    if (r == 0)
        r = get_meta(events, "next_seq", &next_seq, err);
    if (r == 0)
        r = load_files(events, err);
    if (r == 0)
        r = load_sources(events, err);
    if (r == 0)
        r = load_totals(events, err);
    if (r < 0)
        return r;
    /* Numbers never come twice, also when those after the last seal were given out and lost: the
     * clock in microseconds runs ahead of them below a million events a second. */
    events->next_seq = (uint64_t)PK_MAX(next_seq, pk_time_now() / 1000);
    return 0;
}

static int write_files(struct pk_events *events, struct pk_segment *const *added,
                       size_t added_count, struct pk_segment *const *removed, size_t removed_count,
                       struct pk_error *err)
{
    PK_CLEANUP(finalize_p) sqlite3_stmt *insert = NULL;
    PK_CLEANUP(finalize_p) sqlite3_stmt *delete = NULL;
    int r = prepare(events, "INSERT INTO files VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11)",
                    &insert, err);
    if (r == 0)
        r = prepare(events, "DELETE FROM files WHERE path = ?1", &delete, err);
    if (r < 0)
        return r;
    for (size_t i = 0; i < added_count; i++) {
        const struct pk_segment *s = added[i];
        (void)sqlite3_bind_text(insert, 1, s->name, -1, SQLITE_STATIC);
        (void)sqlite3_bind_text(insert, 2, s->dataset, -1, SQLITE_STATIC);
        const int64_t numbers[] = { s->day,
                                    s->level,
                                    (int64_t)s->rows,
                                    (int64_t)s->bytes,
                                    s->min_time,
                                    s->max_time,
                                    (int64_t)s->max_seq,
                                    s->sealed_at,
                                    (int64_t)s->columns };
        for (size_t n = 0; n < PK_ARRAY_SIZE(numbers); n++)
            (void)sqlite3_bind_int64(insert, (int)n + 3, numbers[n]);
        if (sqlite3_step(insert) != SQLITE_DONE)
            return fail(events, err, "cannot add a file");
        (void)sqlite3_reset(insert);
    }
    for (size_t i = 0; i < removed_count; i++) {
        (void)sqlite3_bind_text(delete, 1, removed[i]->name, -1, SQLITE_STATIC);
        if (sqlite3_step(delete) != SQLITE_DONE)
            return fail(events, err, "cannot remove a file");
        (void)sqlite3_reset(delete);
    }
    return 0;
}

/* The values being sealed do not change until this seal is over, so they are read without lock; the
 * maps themselves may grow meanwhile, hence the lock around each step. */
static int write_sources(struct pk_events *events, struct pk_error *err)
{
    PK_CLEANUP(finalize_p) sqlite3_stmt *stmt = NULL;
    pk_nsec now = pk_time_now();
    int r = prepare(events, "INSERT OR REPLACE INTO sources VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9)",
                    &stmt, err);

    for (size_t i = 0; r == 0; i++) {
        const char *id;
        void *value;
        bool step = false;
        pthread_mutex_lock(&events->lock);
        bool end = i >= pk_map_count(events->sources);
        if (!end) {
            pk_map_at(events->sources, i, &id, &value);
            const struct pk_source *source = value;
            step = source->taken;
            if (step) {
                (void)sqlite3_bind_text(stmt, 1, id, -1, SQLITE_TRANSIENT);
                (void)sqlite3_bind_text(stmt, 2, source->fleet, -1, SQLITE_TRANSIENT);
                (void)sqlite3_bind_text(stmt, 3, source->group, -1, SQLITE_TRANSIENT);
                (void)sqlite3_bind_int64(stmt, 4, (int64_t)source->lane);
                (void)sqlite3_bind_text(stmt, 5, source->tool, -1, SQLITE_TRANSIENT);
                (void)sqlite3_bind_text(stmt, 6, source->path, -1, SQLITE_TRANSIENT);
                (void)sqlite3_bind_int64(stmt, 7, (int64_t)source->sealing);
                (void)sqlite3_bind_int64(stmt, 8, now);
                if (source->sealing_end)
                    (void)sqlite3_bind_int64(stmt, 9, now);
                else
                    (void)sqlite3_bind_null(stmt, 9);
            }
        }
        pthread_mutex_unlock(&events->lock);
        if (end)
            break;
        if (step && sqlite3_step(stmt) != SQLITE_DONE)
            return fail(events, err, "cannot write a source");
        (void)sqlite3_reset(stmt);
    }
    return r;
}

static int write_totals(struct pk_events *events, struct pk_error *err)
{
    PK_CLEANUP(finalize_p) sqlite3_stmt *stmt = NULL;
    int r = prepare(events, "INSERT OR REPLACE INTO totals VALUES (?1,?2,?3,?4)", &stmt, err);

    for (size_t i = 0; r == 0; i++) {
        pthread_mutex_lock(&events->lock);
        bool end = i >= pk_map_count(events->totals);
        if (!end) {
            const char *fleet;
            void *value;
            pk_map_at(events->totals, i, &fleet, &value);
            const struct pk_totals *totals = value;
            (void)sqlite3_bind_text(stmt, 1, fleet, -1, SQLITE_TRANSIENT);
            (void)sqlite3_bind_int64(stmt, 2, (int64_t)totals->sealing);
            (void)sqlite3_bind_int64(stmt, 3, (int64_t)totals->sealing_lost);
            (void)sqlite3_bind_int64(stmt, 4, (int64_t)totals->sealing_lost_bytes);
        }
        pthread_mutex_unlock(&events->lock);
        if (end)
            break;
        if (sqlite3_step(stmt) != SQLITE_DONE)
            return fail(events, err, "cannot write the totals");
        (void)sqlite3_reset(stmt);
    }
    return r;
}

static int forget_sources(struct pk_events *events, struct pk_error *err)
{
    PK_CLEANUP(finalize_p) sqlite3_stmt *stmt = NULL;
    int r = prepare(events, "DELETE FROM sources WHERE ended_at < ?1", &stmt, err);
    if (r < 0)
        return r;
    (void)sqlite3_bind_int64(stmt, 1, pk_time_now() - FORGET_AFTER);
    return sqlite3_step(stmt) == SQLITE_DONE ? 0 : fail(events, err, "cannot forget sources");
}

int pk_manifest_commit(struct pk_events *events, struct pk_segment *const *added,
                       size_t added_count, struct pk_segment *const *removed, size_t removed_count,
                       bool sealing, struct pk_error *err)
{
    pthread_mutex_lock(&events->manifest_lock);
    int r = sqlite3_exec(events->manifest, "BEGIN IMMEDIATE", NULL, NULL, NULL) == SQLITE_OK
                ? 0
                : fail(events, err, "cannot begin");
    if (r == 0) {
        r = write_files(events, added, added_count, removed, removed_count, err);
        if (r == 0 && sealing)
            r = write_sources(events, err);
        if (r == 0 && sealing)
            r = write_totals(events, err);
        if (r == 0 && sealing)
            r = put_meta(events, "next_seq", (int64_t)events->next_seq, err);
        if (r == 0 && sealing)
            r = forget_sources(events, err);
        if (r == 0 && sqlite3_exec(events->manifest, "COMMIT", NULL, NULL, NULL) != SQLITE_OK)
            r = fail(events, err, "cannot commit");
        if (r < 0)
            (void)sqlite3_exec(events->manifest, "ROLLBACK", NULL, NULL, NULL);
    }
    pthread_mutex_unlock(&events->manifest_lock);
    return r;
}
