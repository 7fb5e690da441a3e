/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From memory to Parquet, small files to larger ones, old files away. A file is complete and synced
 * under its final name before the manifest tells of it, and leaves the manifest before it is
 * removed; so whatever a crash leaves behind is a file that the manifest does not know, removed at
 * start.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/fs.h"
#include "base/log.h"
#include "base/time.h"
#include "store/events_internal.h"

#define SEAL_ZSTD       1   /* what is sealed waits for it; */
#define MERGE_ZSTD      3   /* what is merged has time */
#define MERGE_FILES     16u /* files of one level make one of the next */
#define MERGE_FILES_MAX 64u
#define MERGE_BYTES_MAX (64ull << 20) /* of what is merged: bounds the time and memory of it */
#define SMALL_BYTES     (32ull << 20) /* larger files are left alone */
#define SETTLED_AFTER                                                           \
    (600 * PK_NSEC_PER_SEC) /* then also a past day's last few files are merged \
                             */

/* ---- tables in memory ---- */

int pk_events_new_head(struct pk_events *events, struct pk_error *err)
{
    struct pk_segment *head = pk_segment_new();
    struct pk_buf sql = PK_BUF_INIT(64u << 10);
    size_t count;
    const struct pk_column *columns = pk_event_columns(&count);

    if (head != NULL)
        head->parts = pk_zalloc(sizeof(*head->parts));
    if (head == NULL || head->parts == NULL) {
        pk_free(head);
        return pk_no_memory(err);
    }
    head->memory = true;
    (void)snprintf(head->name, sizeof(head->name), "memory_%llu",
                   (unsigned long long)++events->table_number);
    (void)pk_buf_printf(&sql, "CREATE TABLE %s (", head->name);
    for (size_t i = 0; i < count; i++)
        (void)pk_buf_printf(&sql, "\"%s\" %s, ", columns[i].name, pk_sql_type(columns[i].type));
    (void)pk_buf_puts(&sql, "seq BIGINT, part BIGINT)");
    int r = sql.failed ? pk_no_memory(err)
                       : pk_duckdb_exec(events->duck, events->writer, "cannot make a table",
                                        sql.data, err);
    pk_buf_done(&sql);
    if (r == 0) {
        pthread_mutex_lock(&events->lock);
        if (pk_events_add_segment_take(events, head) < 0)
            r = pk_no_memory(err);
        else
            events->head = head;
        pthread_mutex_unlock(&events->lock);
    }
    if (r < 0) {
        pk_free(head->parts);
        pk_free(head);
    }
    return r;
}

/* ---- files ---- */

static int sync_path(const char *path, int flags, uint64_t *ret_size, struct pk_error *err)
{
    PK_CLEANUP(pk_close_p) int fd = open(path, flags | O_RDONLY | O_CLOEXEC);
    struct stat st;

    if (fd < 0 || fsync(fd) < 0 || fstat(fd, &st) < 0)
        return pk_fail_errno(err, errno, "cannot sync %s", path);
    if (ret_size != NULL)
        *ret_size = (uint64_t)st.st_size;
    return 0;
}

/* Puts tmp in its place below dir, so that it is there after a power cut. */
static int move_in(const struct pk_events *events, const char *tmp, struct pk_segment *file,
                   struct pk_error *err)
{
    char day[16], folder[PATH_MAX], path[PATH_MAX];

    pk_events_day(file->day, day);
    int n = snprintf(folder, sizeof(folder), "%s/%s/%s", events->dir, file->dataset, day);
    int m = snprintf(path, sizeof(path), "%s/%s", events->dir, file->name);
    if (n < 0 || m < 0 || (size_t)n >= sizeof(folder) || (size_t)m >= sizeof(path))
        return pk_fail(err, PK_E_IO, "the path of %s is too long", events->dir);
    bool fresh = !pk_file_exists(folder);
    int r = pk_mkdir_p(folder, 0750, err);
    if (r == 0)
        r = sync_path(tmp, O_NOFOLLOW, &file->bytes, err);
    if (r == 0 && rename(tmp, path) < 0)
        r = pk_fail_errno(err, errno, "cannot move %s into place", path);
    if (r == 0)
        r = sync_path(folder, O_DIRECTORY, NULL, err);
    if (r == 0 && fresh) {
        (void)snprintf(folder, sizeof(folder), "%s/%s", events->dir, file->dataset);
        r = sync_path(folder, O_DIRECTORY, NULL, err);
        if (r == 0)
            r = sync_path(events->dir, O_DIRECTORY, NULL, err);
    }
    return r;
}

static struct pk_segment *new_file(struct pk_events *events, const char *dataset, int64_t day)
{
    struct pk_segment *file = pk_segment_new();
    char date[16];

    if (file == NULL)
        return NULL;
    pk_events_day(day, date);
    pthread_mutex_lock(&events->lock);
    uint64_t number = ++events->file_number;
    pthread_mutex_unlock(&events->lock);
    (void)snprintf(file->dataset, sizeof(file->dataset), "%s", dataset);
    (void)snprintf(file->name, sizeof(file->name), "%s/%s/%.12s-%llu.parquet", dataset, date,
                   events->session, (unsigned long long)number);
    file->day = day;
    file->columns = pk_event_columns_hash();
    file->sealed_at = pk_time_now();
    return file;
}

/* COPY (<select>) to a temporary file, then into place. Rows stay in the order of arrival, which is
 * nearly that of time: the row groups' ranges of time hardly overlap, and nothing needs sorting. */
static int write_file(struct pk_events *events, duckdb_connection connection, const char *select,
                      int zstd_level, struct pk_segment *file, struct pk_error *err)
{
    struct pk_buf sql = PK_BUF_INIT(1u << 20);
    char tmp[PATH_MAX];

    (void)snprintf(tmp, sizeof(tmp), "%s/tmp/%s", events->dir, strrchr(file->name, '/') + 1);
    (void)pk_buf_printf(&sql, "COPY (%s) TO ", select);
    pk_sql_quote(&sql, tmp);
    (void)pk_buf_printf(&sql,
                        " (FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL %d,"
                        " ROW_GROUP_SIZE 122880)",
                        zstd_level);
    int r = sql.failed ? pk_no_memory(err)
                       : pk_duckdb_exec(events->duck, connection, "cannot write events to disk",
                                        sql.data, err);
    pk_buf_done(&sql);
    if (r == 0)
        r = move_in(events, tmp, file, err);
    if (r < 0)
        (void)unlink(tmp);
    return r;
}

static void discard_files(struct pk_events *events, struct pk_segment **files, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        files[i]->dead = true; /* its file goes with the reference */
        pk_segment_unref(events, files[i]);
    }
}

/* ---- sealing ---- */

/* Takes the head away from the writer; what was received so far is what this seal will commit. */
static int take_head(struct pk_events *events, struct pk_error *err)
{
    bool any = false;
    int r = 0;

    pthread_mutex_lock(&events->ingest_lock);
    pthread_mutex_lock(&events->lock);
    any = events->head->born != 0;
    struct pk_segment *old = events->head;
    events->seal_now = false;
    pthread_mutex_unlock(&events->lock);
    if (any)
        r = pk_events_new_head(events, err);
    if (any && r == 0) {
        pthread_mutex_lock(&events->lock);
        events->sealing = old;
        for (size_t i = 0; i < pk_map_count(events->sources); i++) {
            const char *id;
            void *value;
            pk_map_at(events->sources, i, &id, &value);
            struct pk_source *source = value;
            if (!source->dirty)
                continue;
            source->dirty = false;
            source->taken = true;
            source->sealing = source->received;
            source->sealing_end = source->ended;
        }
        for (size_t i = 0; i < pk_map_count(events->totals); i++) {
            const char *fleet;
            void *value;
            pk_map_at(events->totals, i, &fleet, &value);
            struct pk_totals *totals = value;
            totals->sealing = totals->received;
            totals->sealing_lost = totals->lost;
            totals->sealing_lost_bytes = totals->lost_bytes;
        }
        pthread_mutex_unlock(&events->lock);
    }
    pthread_mutex_unlock(&events->ingest_lock);
    return r;
}

/* The sealed table goes, its files come: readers see either. */
static void publish(struct pk_events *events, struct pk_segment **files, size_t count)
{
    struct pk_segment *old = events->sealing;

    pthread_mutex_lock(&events->lock);
    for (size_t i = 0; i < count; i++)
        (void)pk_events_add_segment_take(events, files[i]); /* room was reserved */
    pk_events_remove_segment(events, old);
    for (size_t i = pk_map_count(events->sources); i-- > 0;) {
        const char *id;
        void *value;
        pk_map_at(events->sources, i, &id, &value);
        struct pk_source *source = value;
        if (!source->taken)
            continue;
        source->taken = false;
        source->sealed = source->sealing;
        if (source->sealing_end && !source->dirty)
            (void)pk_map_remove(events->sources, id);
    }
    for (size_t i = 0; i < pk_map_count(events->totals); i++) {
        const char *fleet;
        void *value;
        pk_map_at(events->totals, i, &fleet, &value);
        struct pk_totals *totals = value;
        totals->stored = totals->sealing;
        totals->stored_lost = totals->sealing_lost;
        totals->stored_lost_bytes = totals->sealing_lost_bytes;
    }
    events->sealing = NULL;
    pthread_cond_broadcast(&events->sealed);
    pthread_mutex_unlock(&events->lock);
    pk_segment_unref(events, old);
}

/* The list may take count more without failing. */
static int reserve_segments(struct pk_events *events, size_t count, struct pk_error *err)
{
    int r = 0;

    pthread_mutex_lock(&events->lock);
    struct pk_segment **grown = pk_realloc_array(
        events->segments, events->segment_count + count + 1, sizeof(struct pk_segment *));
    if (grown == NULL)
        r = pk_no_memory(err);
    else
        events->segments = grown;
    pthread_mutex_unlock(&events->lock);
    return r;
}

int pk_events_seal(struct pk_events *events, struct pk_error *err)
{
    struct pk_segment *files[PK_EVENTS_PARTS_MAX];
    size_t count = 0;
    int r = 0;

    if (events->sealing == NULL)
        r = take_head(events, err);
    if (r < 0 || events->sealing == NULL)
        return r;

    const struct pk_parts *parts = events->sealing->parts;
    for (size_t i = 0; r == 0 && i < parts->count; i++) {
        const struct pk_part *part = &parts->list[i];
        struct pk_buf select = PK_BUF_INIT(64u << 10);
        if (part->rows == 0)
            continue;
        struct pk_segment *file = new_file(events, part->dataset, part->day);
        pk_sql_select(&select);
        (void)pk_buf_printf(&select, "%s WHERE part = %zu", events->sealing->name, i);
        if (file == NULL || select.failed) {
            pk_free(file);
            r = pk_no_memory(err);
        } else {
            file->rows = part->rows;
            file->min_time = part->min_time;
            file->max_time = part->max_time;
            file->max_seq = part->max_seq;
            files[count++] = file;
            r = write_file(events, events->seal_connection, select.data, SEAL_ZSTD, file, err);
        }
        pk_buf_done(&select);
    }
    if (r == 0)
        r = reserve_segments(events, count, err);
    if (r == 0)
        r = pk_manifest_commit(events, files, count, NULL, 0, true, err);
    if (r < 0) {
        discard_files(events, files, count);
        return r;
    }
    publish(events, files, count);
    return 0;
}

static bool seal_is_due(const struct pk_events *events, pk_nsec now, pk_nsec *ret_wait)
{
    const struct pk_segment *head = events->head;

    *ret_wait = PK_NSEC_PER_SEC;
    if (events->sealing != NULL || events->seal_now)
        return true;
    if (head->born == 0)
        return false;
    pk_nsec left = head->born + events->options.seal_after - now;
    *ret_wait = PK_MIN(PK_MAX(left, 1), PK_NSEC_PER_SEC);
    return left <= 0 || head->bytes >= events->options.memory_bytes / 3;
}

static void wait_until(struct pk_events *events, pthread_cond_t *condition, pk_nsec span)
{
    struct timespec until;

    (void)clock_gettime(CLOCK_MONOTONIC, &until);
    span += until.tv_nsec;
    until.tv_sec += (time_t)(span / PK_NSEC_PER_SEC);
    until.tv_nsec = (long)(span % PK_NSEC_PER_SEC);
    (void)pthread_cond_timedwait(condition, &events->lock, &until);
}

void *pk_events_sealer(void *arg)
{
    struct pk_events *events = arg;
    struct pk_error err = { 0 };
    pk_nsec wait;

    pthread_mutex_lock(&events->lock);
    while (!events->stopping) {
        if (!seal_is_due(events, pk_time_monotonic(), &wait)) {
            wait_until(events, &events->arrived, wait);
            continue;
        }
        pthread_mutex_unlock(&events->lock);
        int r = pk_events_seal(events, &err);
        pthread_mutex_lock(&events->lock);
        bool news = r < 0 && events->seal_error.code != err.code;
        if (r == 0 && events->seal_error.code != 0)
            pk_log(PK_LOG_INFO, "store", "events go to disk again");
        events->seal_error = r < 0 ? err : (struct pk_error){ 0 };
        if (news)
            pk_log_error(PK_LOG_INFO, "store", &err, "events wait in memory");
        if (r < 0 && !events->stopping)
            wait_until(events, &events->sealed, PK_NSEC_PER_SEC);
    }
    pthread_mutex_unlock(&events->lock);
    return NULL;
}

/* ---- merging ---- */

static int by_age(const void *a, const void *b)
{
    const struct pk_segment *x = *(struct pk_segment *const *)a;
    const struct pk_segment *y = *(struct pk_segment *const *)b;

    return x->sealed_at < y->sealed_at ? -1 : x->sealed_at > y->sealed_at;
}

static bool mergeable(const struct pk_segment *s)
{
    return !s->memory && s->bytes < SMALL_BYTES;
}

static bool same_place(const struct pk_segment *a, const struct pk_segment *b)
{
    return a->day == b->day && strcmp(a->dataset, b->dataset) == 0;
}

/* Picks files of one dataset and day to merge, oldest first; under lock. 0 = nothing to do. */
static size_t pick_merge(struct pk_events *events, struct pk_segment **out)
{
    pk_nsec now = pk_time_now();
    int64_t today = now / (86400 * PK_NSEC_PER_SEC);

    for (size_t i = 0; i < events->segment_count; i++) {
        const struct pk_segment *first = events->segments[i];
        if (!mergeable(first))
            continue;
        size_t same_level = 0, all = 0;
        pk_nsec newest = 0;
        for (size_t j = 0; j < events->segment_count; j++) {
            const struct pk_segment *s = events->segments[j];
            if (!mergeable(s) || !same_place(s, first))
                continue;
            all++;
            same_level += s->level == first->level;
            newest = PK_MAX(newest, s->sealed_at);
        }
        bool full = same_level >= MERGE_FILES && first->level < PK_EVENTS_LEVEL_MAX;
        bool settled = all >= 2 && first->day < today && newest + SETTLED_AFTER < now;
        if (!full && !settled && all < 4 * MERGE_FILES)
            continue;
        size_t n = 0;
        uint64_t bytes = 0;
        for (size_t j = 0; j < events->segment_count && n < MERGE_FILES_MAX; j++) {
            struct pk_segment *s = events->segments[j];
            if (mergeable(s) && same_place(s, first) && (!full || s->level == first->level))
                out[n++] = s;
        }
        qsort(out, n, sizeof(*out), by_age);
        size_t keep = 0;
        while (keep < n && (keep < 2 || bytes + out[keep]->bytes <= MERGE_BYTES_MAX))
            bytes += out[keep++]->bytes;
        return keep;
    }
    return 0;
}

static int merge(struct pk_events *events, struct pk_segment **old, size_t count,
                 struct pk_error *err)
{
    struct pk_buf select = PK_BUF_INIT(512u << 10);
    struct pk_segment *file = new_file(events, old[0]->dataset, old[0]->day);
    int r;

    if (file == NULL)
        return pk_no_memory(err);
    file->sealed_at = 0;
    for (size_t i = 0; i < count; i++) {
        file->rows += old[i]->rows;
        file->min_time = PK_MIN(file->min_time, old[i]->min_time);
        file->max_time = PK_MAX(file->max_time, old[i]->max_time);
        file->max_seq = PK_MAX(file->max_seq, old[i]->max_seq);
        file->sealed_at = PK_MAX(file->sealed_at, old[i]->sealed_at);
        file->level = PK_MAX(file->level, old[i]->level + 1);
    }
    file->level = PK_MIN(file->level, PK_EVENTS_LEVEL_MAX);
    pk_sql_select(&select);
    r = pk_events_from_sql(events, old, count, INT64_MIN, INT64_MAX, &select, err);
    if (r == 0 && select.failed)
        r = pk_no_memory(err);
    if (r == 0)
        r = write_file(events, events->keep_connection, select.data, MERGE_ZSTD, file, err);
    pk_buf_done(&select);
    if (r == 0)
        r = reserve_segments(events, PK_EVENTS_PARTS_MAX + 1, err);
    if (r == 0)
        r = pk_manifest_commit(events, &file, 1, old, count, false, err);
    if (r < 0) {
        discard_files(events, &file, 1);
        return r;
    }
    pthread_mutex_lock(&events->lock);
    (void)pk_events_add_segment_take(events, file);
    for (size_t i = 0; i < count; i++)
        pk_events_remove_segment(events, old[i]);
    pthread_mutex_unlock(&events->lock);
    for (size_t i = 0; i < count; i++)
        pk_segment_unref(events, old[i]);
    return 0;
}

/* ---- retention ---- */

static size_t pick_expired(struct pk_events *events, struct pk_segment ***ret_list)
{
    pk_nsec now = pk_time_now();
    uint64_t bytes = 0;
    size_t count = 0, expired = 0;

    pthread_mutex_lock(&events->lock);
    struct pk_segment **list = pk_zalloc_array(events->segment_count + 1, sizeof(*list));
    for (size_t i = 0; list != NULL && i < events->segment_count; i++)
        if (!events->segments[i]->memory) {
            list[count++] = events->segments[i];
            bytes += events->segments[i]->bytes;
        }
    pk_nsec retain = events->options.retain;
    uint64_t max_bytes = events->options.max_bytes;
    pthread_mutex_unlock(&events->lock);
    if (list == NULL)
        return 0;
    qsort(list, count, sizeof(*list), by_age);
    while (expired < count && ((max_bytes > 0 && bytes > max_bytes) ||
                               (retain > 0 && list[expired]->sealed_at < now - retain)))
        bytes -= list[expired++]->bytes;
    *ret_list = list;
    return expired;
}

static int expire(struct pk_events *events, struct pk_error *err)
{
    PK_CLEANUP(pk_free_p) struct pk_segment **list = NULL;
    size_t count = pick_expired(events, &list);

    if (count == 0)
        return 0;
    int r = pk_manifest_commit(events, NULL, 0, list, count, false, err);
    if (r < 0)
        return r;
    pthread_mutex_lock(&events->lock);
    for (size_t i = 0; i < count; i++)
        pk_events_remove_segment(events, list[i]);
    pthread_mutex_unlock(&events->lock);
    for (size_t i = 0; i < count; i++)
        pk_segment_unref(events, list[i]);
    return 0;
}

/* Merges and expires; the only one that removes files, so what it picked stays until it is done. */
void *pk_events_keeper(void *arg)
{
    struct pk_events *events = arg;
    struct pk_segment *old[MERGE_FILES_MAX];
    struct pk_error err = { 0 };
    bool failed = false;

    pthread_mutex_lock(&events->lock);
    while (!events->stopping) {
        size_t count = failed ? 0 : pick_merge(events, old);
        pthread_mutex_unlock(&events->lock);
        int r = expire(events, &err);
        /* What expired may be what was picked: pick again next time. */
        if (r == 0 && count > 0) {
            pthread_mutex_lock(&events->lock);
            count = pick_merge(events, old);
            pthread_mutex_unlock(&events->lock);
            if (count > 0)
                r = merge(events, old, count, &err);
        }
        if (r < 0 && !failed)
            pk_log_error(PK_LOG_INFO, "store", &err, "cannot tidy up the event files yet");
        failed = r < 0;
        pthread_mutex_lock(&events->lock);
        if (!events->stopping)
            wait_until(events, &events->sealed, failed ? 10 * PK_NSEC_PER_SEC : PK_NSEC_PER_SEC);
    }
    pthread_mutex_unlock(&events->lock);
    return NULL;
}
