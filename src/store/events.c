/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/fs.h"
#include "base/json.h"
#include "base/log.h"
#include "base/str.h"
#include "base/time.h"
#include "store/events_internal.h"

/* ---- segments ---- */

struct pk_segment *pk_segment_new(void)
{
    struct pk_segment *segment = pk_zalloc(sizeof(*segment));

    if (segment != NULL) {
        segment->refs = 1;
        segment->min_time = INT64_MAX;
        segment->max_time = INT64_MIN;
    }
    return segment;
}

void pk_segment_unref(struct pk_events *events, struct pk_segment *segment)
{
    pthread_mutex_lock(&events->lock);
    bool last = --segment->refs == 0;
    pthread_mutex_unlock(&events->lock);
    if (!last)
        return;
    if (segment->memory && segment->dead && events->trash_connection != NULL) {
        char sql[160];
        struct pk_error err;
        (void)snprintf(sql, sizeof(sql), "DROP TABLE %s", segment->name);
        pthread_mutex_lock(&events->trash_lock);
        if (pk_duckdb_exec(events->duck, events->trash_connection, "cannot drop a sealed table",
                           sql, &err) < 0)
            pk_log_error(PK_LOG_INFO, "store", &err, "events");
        pthread_mutex_unlock(&events->trash_lock);
    } else if (!segment->memory && segment->dead) {
        char *path = pk_asprintf("%s/%s", events->dir, segment->name);
        if (path != NULL)
            (void)unlink(path); /* what stays is unknown at the next start, and goes then */
        pk_free(path);
    }
    pk_free(segment->parts);
    pk_free(segment);
}

int pk_events_add_segment_take(struct pk_events *events, struct pk_segment *segment)
{
    struct pk_segment **grown =
        pk_realloc_array(events->segments, events->segment_count + 1, sizeof(struct pk_segment *));

    if (grown == NULL)
        return PK_E_NOMEM;
    events->segments = grown;
    grown[events->segment_count++] = segment;
    return 0;
}

void pk_events_remove_segment(struct pk_events *events, const struct pk_segment *segment)
{
    for (size_t i = 0; i < events->segment_count; i++)
        if (events->segments[i] == segment) {
            events->segments[i]->dead = true;
            memmove(&events->segments[i], &events->segments[i + 1],
                    (events->segment_count - i - 1) * sizeof(struct pk_segment *));
            events->segment_count--;
            return;
        }
}

static int newest_first(const void *a, const void *b)
{
    const struct pk_segment *x = *(struct pk_segment *const *)a;
    const struct pk_segment *y = *(struct pk_segment *const *)b;

    return x->max_time > y->max_time ? -1 : x->max_time < y->max_time;
}

int pk_events_snapshot(struct pk_events *events, pk_nsec since, pk_nsec until, uint64_t seq,
                       const char *dataset, struct pk_segment ***ret_list, size_t *ret_count,
                       struct pk_error *err)
{
    size_t count = 0;

    pthread_mutex_lock(&events->lock);
    struct pk_segment **list = pk_zalloc_array(events->segment_count + 1, sizeof(*list));
    for (size_t i = 0; list != NULL && i < events->segment_count; i++) {
        struct pk_segment *s = events->segments[i];
        if (s->rows == 0 || s->max_time < since || s->min_time >= until || s->max_seq <= seq)
            continue;
        if (dataset != NULL && dataset[0] != '\0' && !s->memory &&
            strcmp(s->dataset, dataset) != 0 && strcmp(s->dataset, PK_EVENTS_MIXED) != 0)
            continue;
        s->refs++;
        list[count++] = s;
    }
    if (list != NULL)
        qsort(list, count, sizeof(struct pk_segment *), newest_first);
    pthread_mutex_unlock(&events->lock);
    if (list == NULL)
        return pk_no_memory(err);
    *ret_list = list;
    *ret_count = count;
    return 0;
}

void pk_events_dataset(const char *type, size_t len, char ret_dataset[33])
{
    size_t n = 0;

    for (; n < len && n < 32; n++) {
        char c = type[n];
        if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '-'))
            break;
        ret_dataset[n] = c;
    }
    ret_dataset[n] = '\0';
    /* A type that cannot be a folder's name (or is the work folder's) goes with the others. */
    if (n == 0 || n != len || strcmp(ret_dataset, "tmp") == 0)
        (void)snprintf(ret_dataset, 33, PK_EVENTS_MIXED);
}

void pk_events_day(int64_t day, char out[16])
{
    time_t when = (time_t)(day * 86400);
    struct tm tm;

    if (gmtime_r(&when, &tm) == NULL || strftime(out, 16, "%Y-%m-%d", &tm) == 0)
        (void)snprintf(out, 16, "1970-01-01");
}

/* ---- sources and totals ---- */

struct pk_source *pk_events_source(struct pk_events *events, const char *id)
{
    struct pk_source *source = pk_map_get(events->sources, id);

    if (source == NULL) {
        source = pk_zalloc(sizeof(*source));
        if (source != NULL && pk_map_set_take(events->sources, id, source) < 0) {
            pk_free(source);
            source = NULL;
        }
    }
    return source;
}

struct pk_totals *pk_events_totals(struct pk_events *events, const char *fleet)
{
    struct pk_totals *totals = pk_map_get(events->totals, fleet);

    if (totals == NULL) {
        totals = pk_zalloc(sizeof(*totals));
        if (totals != NULL && pk_map_set_take(events->totals, fleet, totals) < 0) {
            pk_free(totals);
            totals = NULL;
        }
    }
    return totals;
}

static json_t *source_json(const struct pk_source *source)
{
    return json_pack("{s:I, s:I}", "received", (json_int_t)source->received, "sealed",
                     (json_int_t)source->sealed);
}

static json_t *reply_json(struct pk_events *events, const char *only)
{
    json_t *sources = json_object();
    json_t *reply = json_pack("{s:s, s:o}", "session", events->session, "sources", sources);

    for (size_t i = 0; reply != NULL && i < pk_map_count(events->sources); i++) {
        const char *id = only;
        void *value = only != NULL ? pk_map_get(events->sources, only) : NULL;
        if (only == NULL)
            pk_map_at(events->sources, i, &id, &value);
        if (value != NULL && json_object_set_new(sources, id, source_json(value)) < 0) {
            json_decref(reply);
            return NULL;
        }
        if (only != NULL)
            break;
    }
    return reply;
}

json_t *pk_events_sources(struct pk_events *events, struct pk_error *err)
{
    pthread_mutex_lock(&events->lock);
    json_t *reply = reply_json(events, NULL);
    pthread_mutex_unlock(&events->lock);
    if (reply == NULL)
        (void)pk_no_memory(err);
    return reply;
}

/* ---- ingest ---- */

static uint64_t memory_used(const struct pk_events *events)
{
    return events->head->bytes + (events->sealing != NULL ? events->sealing->bytes : 0);
}

/* Room on disk is asked for before events are taken, so that a seal seldom meets a full disk. */
static bool space_is_low(struct pk_events *events)
{
    pk_nsec now = pk_time_monotonic();

    if (events->space_checked != 0 && now - events->space_checked < 500 * PK_NSEC_PER_MS)
        return events->space_low;
    struct statvfs fs;
    if (statvfs(events->dir, &fs) == 0) {
        uint64_t total = (uint64_t)fs.f_blocks * fs.f_frsize;
        uint64_t available = (uint64_t)fs.f_bavail * fs.f_frsize;
        events->space_low = available < PK_MIN(64u << 20, total / 20);
    }
    events->space_checked = now;
    return events->space_low;
}

/* Waits until there is room in memory and on disk, a while at most. */
static int wait_for_room(struct pk_events *events, struct pk_error *err)
{
    struct timespec until;
    int r = 0;

    (void)clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += 2;
    pthread_mutex_lock(&events->lock);
    while (!events->stopping && memory_used(events) >= events->options.memory_bytes) {
        events->seal_now = true;
        pthread_cond_broadcast(&events->arrived);
        if (pthread_cond_timedwait(&events->sealed, &events->lock, &until) != 0)
            break;
    }
    if (events->stopping) {
        r = pk_fail(err, PK_E_UNREACHABLE, "the event store is closing");
    } else if (space_is_low(events) || events->seal_error.code == PK_E_NOSPACE) {
        (void)pk_fail(err, PK_E_NOSPACE, "the disk of %s is full", events->dir);
        r = pk_hint(err, "free some space: ingest goes on by itself, nothing is lost until then");
    } else if (memory_used(events) >= events->options.memory_bytes) {
        (void)pk_fail(err, PK_E_NOSPACE, "the memory for events that are not on disk yet is full");
        r = pk_hint(err, "nothing is lost: the shipper waits; see the log if this lasts");
    }
    pthread_mutex_unlock(&events->lock);
    return r;
}

/* Where the row goes when it is sealed. */
static size_t find_part(struct pk_parts *parts, const char *type, size_t type_len, pk_nsec when)
{
    char dataset[33];
    int64_t day = when / (86400 * PK_NSEC_PER_SEC) - (when % (86400 * PK_NSEC_PER_SEC) < 0);

    pk_events_dataset(type, type_len, dataset);
    for (size_t i = 0; i < parts->count; i++)
        if (parts->list[i].day == day && strcmp(parts->list[i].dataset, dataset) == 0)
            return i;
    if (parts->count == PK_EVENTS_PARTS_MAX)
        return PK_EVENTS_PARTS_MAX - 1;
    if (parts->count == PK_EVENTS_PARTS_MAX - 1) { /* many types or wild clocks: keep it bounded */
        day = pk_time_now() / (86400 * PK_NSEC_PER_SEC);
        (void)snprintf(dataset, sizeof(dataset), PK_EVENTS_MIXED);
    }
    struct pk_part *part = &parts->list[parts->count];
    *part = (struct pk_part){ .day = day, .min_time = INT64_MAX, .max_time = INT64_MIN };
    (void)snprintf(part->dataset, sizeof(part->dataset), "%s", dataset);
    return parts->count++;
}

static void set_text(struct pk_value *value, const char *text)
{
    *value = (struct pk_value){ .set = true, .text = text, .len = (uint32_t)strlen(text) };
}

/* Adds the batch's rows to the head's table, and to what is known of it in `after`. */
static int append_rows(struct pk_events *events, struct pk_wire_reader *reader,
                       duckdb_appender appender, struct pk_segment *after, uint64_t *seq,
                       struct pk_error *err)
{
    struct pk_value values[PK_EVENT_COLUMNS_MAX];
    int r;

    pk_rows_discard(events->rows); /* of a batch that failed in the middle */
    do {
        r = pk_wire_next(reader, values, err);
        if (r > 0) {
            const struct pk_value *type = &values[PK_EV_TYPE];
            pk_nsec when = values[PK_EV_TIME].time;
            size_t at = find_part(after->parts, type->set ? type->text : "",
                                  type->set ? type->len : 0, when);
            struct pk_part *part = &after->parts->list[at];
            set_text(&values[PK_EV_FLEET], reader->batch.fleet);
            set_text(&values[PK_EV_GROUP], reader->batch.group);
            set_text(&values[PK_EV_TOOL], reader->batch.tool);
            values[PK_EV_LANE] = (struct pk_value){ .set = true, .number = reader->batch.lane };
            pk_rows_add(events->rows, values, ++*seq, at);
            part->rows++;
            part->min_time = PK_MIN(part->min_time, when);
            part->max_time = PK_MAX(part->max_time, when);
            part->max_seq = *seq;
            after->min_time = PK_MIN(after->min_time, when);
            after->max_time = PK_MAX(after->max_time, when);
            after->max_seq = *seq;
            after->rows++;
        }
        if (r == 0 || pk_rows_full(events->rows)) {
            int appended = pk_rows_append(events->rows, appender, err);
            r = appended < 0 ? appended : r;
        }
    } while (r > 0);
    return r;
}

static int append_batch(struct pk_events *events, struct pk_wire_reader *reader,
                        struct pk_segment *after, uint64_t *seq, struct pk_error *err)
{
    const struct pk_duckdb *duck = events->duck;
    duckdb_appender appender = NULL;

    if (reader->rows == 0)
        return pk_wire_next(reader, NULL, err); /* nothing may follow */
    int r = pk_duckdb_exec(duck, events->writer, "cannot add events", "BEGIN", err);
    if (r < 0)
        return r;
    if (duck->appender_create(events->writer, NULL, events->head->name, &appender) != DUCKDB_OK)
        r = pk_duckdb_fail(err, "cannot add events",
                           appender != NULL ? duck->appender_error(appender) : NULL);
    if (r == 0)
        r = append_rows(events, reader, appender, after, seq, err);
    if (r == 0 && duck->appender_flush(appender) != DUCKDB_OK)
        r = pk_duckdb_fail(err, "cannot add events", duck->appender_error(appender));
    (void)duck->appender_destroy(&appender);
    if (r == 0)
        return pk_duckdb_exec(duck, events->writer, "cannot add events", "COMMIT", err);
    (void)pk_duckdb_exec(duck, events->writer, "cannot undo", "ROLLBACK", NULL);
    return r;
}

static int check_batch(struct pk_events *events, const struct pk_batch *batch, struct pk_error *err)
{
    int r = 0;

    pthread_mutex_lock(&events->lock);
    const struct pk_source *source = pk_map_get(events->sources, batch->source);
    uint64_t received = source != NULL ? source->received : 0;
    if (strcmp(batch->session, events->session) != 0) {
        (void)pk_fail(err, PK_E_CONFLICT, "the event store was started anew");
        r = pk_hint(err, "ask for the sources and go on from what is sealed");
    } else if (batch->from != received) {
        (void)pk_fail(err, PK_E_CONFLICT, "the batch begins at %llu, the next byte is %llu",
                      (unsigned long long)batch->from, (unsigned long long)received);
        r = pk_hint(err, "ask for the sources and go on from what is received");
    }
    pthread_mutex_unlock(&events->lock);
    return r;
}

static int keep_text(char **slot, const char *text)
{
    if (pk_str_equal(*slot, text))
        return 0;
    char *copy = pk_strdup(text);
    if (copy == NULL)
        return PK_E_NOMEM;
    pk_free(*slot);
    *slot = copy;
    return 0;
}

/* All memory that recording a batch needs, taken before its rows are. */
static int reserve(struct pk_events *events, const struct pk_batch *batch,
                   struct pk_source **ret_source, struct pk_totals **ret_totals,
                   struct pk_error *err)
{
    pthread_mutex_lock(&events->lock);
    struct pk_source *source = pk_events_source(events, batch->source);
    struct pk_totals *totals = pk_events_totals(events, batch->fleet);
    bool ok = source != NULL && totals != NULL && keep_text(&source->fleet, batch->fleet) == 0 &&
              keep_text(&source->group, batch->group) == 0 &&
              keep_text(&source->tool, batch->tool) == 0 &&
              keep_text(&source->path, batch->path) == 0;
    pthread_mutex_unlock(&events->lock);
    if (!ok)
        return pk_no_memory(err);
    *ret_source = source;
    *ret_totals = totals;
    return 0;
}

int pk_events_ingest(struct pk_events *events, const void *data, size_t len, json_t **ret_reply,
                     struct pk_error *err)
{
    PK_CLEANUP(pk_free_p) struct pk_wire_reader *reader = pk_zalloc(sizeof(*reader));
    PK_CLEANUP(pk_free_p) struct pk_parts *parts = pk_zalloc(sizeof(*parts));
    struct pk_segment after;
    struct pk_source *source = NULL;
    struct pk_totals *totals = NULL;

    if (reader == NULL || parts == NULL)
        return pk_no_memory(err);
    int r = pk_wire_open(reader, data, len, err);
    if (r == 0)
        r = wait_for_room(events, err);
    if (r < 0)
        return r;

    const struct pk_batch *batch = &reader->batch;
    pthread_mutex_lock(&events->ingest_lock);
    r = check_batch(events, batch, err);
    if (r == 0)
        r = reserve(events, batch, &source, &totals, err);
    if (r == 0) {
        uint64_t seq = events->next_seq;
        after = *events->head; /* as it will be, should all go well */
        *parts = *after.parts;
        after.parts = parts;
        r = append_batch(events, reader, &after, &seq, err);
        if (r == 0) {
            struct pk_segment *head = events->head;
            pthread_mutex_lock(&events->lock);
            *head->parts = *parts;
            head->rows = after.rows;
            head->min_time = after.min_time;
            head->max_time = after.max_time;
            head->max_seq = after.max_seq;
            head->bytes += len + reader->rows * 64u;
            if (head->born == 0)
                head->born = pk_time_monotonic();
            events->next_seq = seq;
            source->received = batch->to;
            source->lane = batch->lane;
            source->dirty = true;
            source->ended = (batch->flags & PK_WIRE_END) != 0;
            totals->received += reader->rows;
            totals->lost += batch->lost_events;
            totals->lost_bytes += batch->lost_bytes;
            *ret_reply = reply_json(events, batch->source);
            pthread_cond_broadcast(&events->arrived);
            pthread_mutex_unlock(&events->lock);
            if (*ret_reply == NULL)
                r = pk_no_memory(err); /* ship asks again and goes on */
        }
    }
    pthread_mutex_unlock(&events->ingest_lock);
    return r;
}

/* ---- numbers ---- */

json_t *pk_events_stats(struct pk_events *events, const char *fleet, struct pk_error *err)
{
    struct pk_totals sum = { 0 };
    uint64_t memory_rows = 0, files = 0, bytes = 0;
    pk_nsec oldest = INT64_MAX, newest = INT64_MIN;
    char text[40];

    pthread_mutex_lock(&events->lock);
    for (size_t i = 0; i < pk_map_count(events->totals); i++) {
        const char *name;
        void *value;
        pk_map_at(events->totals, i, &name, &value);
        const struct pk_totals *totals = value;
        if (fleet != NULL && strcmp(fleet, name) != 0)
            continue;
        sum.received += totals->received;
        sum.stored += totals->stored;
        sum.lost += totals->lost;
        sum.lost_bytes += totals->lost_bytes;
    }
    for (size_t i = 0; i < events->segment_count; i++) {
        const struct pk_segment *s = events->segments[i];
        if (s->memory) {
            memory_rows += s->rows;
        } else {
            files++;
            bytes += s->bytes;
        }
        if (s->rows > 0) {
            oldest = PK_MIN(oldest, s->min_time);
            newest = PK_MAX(newest, s->max_time);
        }
    }
    json_t *stats =
        json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "received", (json_int_t)sum.received,
                  "stored", (json_int_t)sum.stored, "lost", (json_int_t)sum.lost, "lostBytes",
                  (json_int_t)sum.lost_bytes, "memoryRows", (json_int_t)memory_rows, "files",
                  (json_int_t)files, "bytes", (json_int_t)bytes);
    if (stats != NULL && oldest <= newest) {
        (void)json_object_set_new(stats, "oldest",
                                  json_string(pk_time_format(oldest, 6, text, sizeof(text))));
        (void)json_object_set_new(stats, "newest",
                                  json_string(pk_time_format(newest, 6, text, sizeof(text))));
    }
    if (stats != NULL && events->seal_error.code != 0)
        (void)json_object_set_new(stats, "error", pk_json_of_error(&events->seal_error));
    pthread_mutex_unlock(&events->lock);
    if (stats == NULL)
        (void)pk_no_memory(err);
    return stats;
}
