/* SPDX-License-Identifier: Apache-2.0 */
/* Reading events: pages, counts, following. Each read has a time limit, which really stops it. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/alloc.h"
#include "base/str.h"
#include "base/time.h"
#include "store/events_internal.h"

#define SQL_MAX         (4u << 20)
#define TIMEOUT_DEFAULT 30000u
#define PAGE_BYTES_MAX  (32u << 20) /* of raw records in one answer; the rest is the next page */

struct reading {
    struct pk_events *events;
    size_t reader; /* connection */
    struct pk_segment **segments;
    size_t segment_count;
    struct pk_query query;
    struct pk_buf sql;
    pk_nsec deadline; /* monotonic */
    duckdb_prepared stmt;
    duckdb_pending pending;
    struct duckdb_result result;
    bool has_reader, has_result;
    bool no_params; /* the statement has none of the query's parameters */
};

static void statement_done(struct reading *reading)
{
    const struct pk_duckdb *duck = reading->events->duck;

    if (reading->has_result)
        duck->destroy_result(&reading->result);
    if (reading->pending != NULL)
        duck->destroy_pending(&reading->pending);
    if (reading->stmt != NULL)
        duck->destroy_prepare(&reading->stmt);
    reading->has_result = false;
}

static void reading_done(struct reading *reading)
{
    struct pk_events *events = reading->events;

    statement_done(reading);
    if (reading->has_reader) {
        pthread_mutex_lock(&events->lock);
        events->reader_busy[reading->reader] = false;
        events->reader_deadline[reading->reader] = 0;
        pthread_cond_signal(&events->reader_free);
        pthread_mutex_unlock(&events->lock);
    }
    for (size_t i = 0; i < reading->segment_count; i++)
        pk_segment_unref(events, reading->segments[i]);
    pk_free(reading->segments);
    pk_query_done(&reading->query);
    pk_buf_done(&reading->sql);
}

static int too_slow(struct pk_error *err)
{
    (void)pk_fail(err, PK_E_TIMEOUT, "the query took too long and was stopped");
    return pk_hint(err, "ask for a shorter time (--since) or a narrower query");
}

static struct timespec to_timespec(pk_nsec when)
{
    return (struct timespec){ .tv_sec = (time_t)(when / PK_NSEC_PER_SEC),
                              .tv_nsec = (long)(when % PK_NSEC_PER_SEC) };
}

static int take_reader(struct reading *reading, struct pk_error *err)
{
    struct pk_events *events = reading->events;
    struct timespec until = to_timespec(reading->deadline);
    int r = 0;

    pthread_mutex_lock(&events->lock);
    while (r == 0 && !reading->has_reader) {
        for (size_t i = 0; i < PK_EVENTS_READERS && !reading->has_reader; i++)
            if (!events->reader_busy[i]) {
                events->reader_busy[i] = true;
                events->reader_deadline[i] = reading->deadline;
                reading->reader = i;
                reading->has_reader = true;
                pthread_cond_signal(&events->reader_taken);
            }
        if (events->stopping)
            r = pk_fail(err, PK_E_UNREACHABLE, "the event store is closing");
        else if (!reading->has_reader &&
                 pthread_cond_timedwait(&events->reader_free, &events->lock, &until) != 0)
            r = too_slow(err);
    }
    pthread_mutex_unlock(&events->lock);
    return r;
}

/* Stops what is past its time. A task of a query may run for long, so the thread that runs it
 * cannot look at the clock often enough; DuckDB looks at the interruption with every 2,048 rows. */
void *pk_events_watchdog(void *arg)
{
    struct pk_events *events = arg;

    pthread_mutex_lock(&events->lock);
    while (!events->stopping) {
        pk_nsec now = pk_time_monotonic();
        struct timespec until = to_timespec(now + 50 * PK_NSEC_PER_MS);
        bool busy = false;
        for (size_t i = 0; i < PK_EVENTS_READERS; i++) {
            busy = busy || events->reader_deadline[i] != 0;
            if (events->reader_deadline[i] != 0 && now > events->reader_deadline[i])
                events->duck->interrupt(events->readers[i]);
        }
        if (busy)
            (void)pthread_cond_timedwait(&events->reader_taken, &events->lock, &until);
        else
            (void)pthread_cond_wait(&events->reader_taken, &events->lock);
    }
    for (size_t i = 0; i < PK_EVENTS_READERS; i++)
        if (events->reader_busy[i])
            events->duck->interrupt(events->readers[i]);
    pthread_mutex_unlock(&events->lock);
    return NULL;
}

static int reading_begin(struct pk_events *events, const char *filter, unsigned timeout_ms,
                         struct reading *reading, struct pk_error *err)
{
    *reading = (struct reading){ .events = events, .sql = PK_BUF_INIT(SQL_MAX) };
    if (timeout_ms == 0)
        timeout_ms = TIMEOUT_DEFAULT;
    reading->deadline = pk_time_monotonic() + timeout_ms * PK_NSEC_PER_MS;
    return pk_query_parse(filter, pk_time_now(), &reading->query, err);
}

static int bind(struct reading *reading, struct pk_error *err)
{
    const struct pk_duckdb *duck = reading->events->duck;

    for (size_t i = 0; i < reading->query.param_count && !reading->no_params; i++) {
        const struct pk_param *param = &reading->query.params[i];
        int state = param->is_text
                        ? duck->bind_varchar_length(reading->stmt, i + 1, param->text, param->len)
                        : duck->bind_int64(reading->stmt, i + 1, param->number);
        if (state != DUCKDB_OK)
            return pk_fail(err, PK_E_INTERNAL, "the query's values do not fit its statement");
    }
    return 0;
}

/* Runs reading->sql with the query's parameters until done or the watchdog stops it. */
static int run(struct reading *reading, struct pk_error *err)
{
    struct pk_events *events = reading->events;
    const struct pk_duckdb *duck = events->duck;
    static const char what[] = "the query failed";

    statement_done(reading); /* of the reading before, on the same connection */
    if (reading->sql.failed)
        return pk_fail(err, PK_E_NOMEM, "the query is too large");
    int r = reading->has_reader ? 0 : take_reader(reading, err);
    if (r < 0)
        return r;
    duckdb_connection connection = events->readers[reading->reader];
    if (duck->prepare(connection, reading->sql.data, &reading->stmt) != DUCKDB_OK)
        return pk_duckdb_fail(err, what, duck->prepare_error(reading->stmt));
    r = bind(reading, err);
    if (r < 0)
        return r;
    if (duck->pending_prepared(reading->stmt, &reading->pending) != DUCKDB_OK)
        return pk_duckdb_fail(err, what, duck->pending_error(reading->pending));
    if (duck->execute_pending(reading->pending, &reading->result) != DUCKDB_OK) {
        r = pk_time_monotonic() > reading->deadline
                ? too_slow(err)
                : pk_duckdb_fail(err, what, duck->result_error(&reading->result));
        duck->destroy_result(&reading->result);
        return r;
    }
    reading->has_result = true;
    return 0;
}

/* ---- rows to JSON ---- */

static json_t *value_json(const struct pk_duckdb *duck, duckdb_vector vector, duckdb_idx row,
                          enum pk_column_type type, size_t *size)
{
    const void *data = duck->vector_get_data(vector);
    char text[40];
    size_t len;

    if (!pk_duckdb_is_valid(duck->vector_get_validity(vector), row))
        return NULL;
    switch (type) {
    case PK_COL_TIME:
        return json_string(pk_time_format(((const int64_t *)data)[row], 9, text, sizeof(text)));
    case PK_COL_U64:
        return json_integer(((const int64_t *)data)[row]);
    case PK_COL_TEXT:
    case PK_COL_IP:
        break;
    }
    const char *bytes = pk_duckdb_text((const union duckdb_string *)data + row, &len);
    *size += len;
    return json_stringn_nocheck(bytes, len); /* DuckDB's texts are UTF-8 */
}

static json_t *row_json(const struct pk_duckdb *duck, duckdb_chunk chunk, duckdb_idx row,
                        size_t *size)
{
    size_t count;
    const struct pk_column *columns = pk_event_columns(&count);
    json_t *event = json_object();

    for (size_t i = 0; event != NULL && i < count; i++) {
        json_t *value =
            value_json(duck, duck->data_chunk_get_vector(chunk, i), row, columns[i].type, size);
        if (value == NULL && (columns[i].flags & PK_COLUMN_ALWAYS) == 0)
            continue;
        if (json_object_set_new_nocheck(event, columns[i].name,
                                        value != NULL ? value : json_null()) < 0) {
            json_decref(event);
            return NULL;
        }
    }
    return event;
}

static int64_t number_at(const struct pk_duckdb *duck, duckdb_chunk chunk, size_t column,
                         duckdb_idx row)
{
    const int64_t *data = duck->vector_get_data(duck->data_chunk_get_vector(chunk, column));

    return data[row];
}

struct rows {
    json_t *list;
    int64_t last_time, last_seq;
    bool cut; /* the answer became too large */
};

static int take_rows(struct reading *reading, struct rows *rows, struct pk_error *err)
{
    const struct pk_duckdb *duck = reading->events->duck;
    size_t count, size = 0;
    duckdb_chunk chunk;
    int r = 0;

    (void)pk_event_columns(&count);
    rows->list = json_array();
    if (rows->list == NULL)
        return pk_no_memory(err);
    while (r == 0 && !rows->cut && (chunk = duck->fetch_chunk(reading->result)) != NULL) {
        duckdb_idx n = duck->data_chunk_get_size(chunk);
        for (duckdb_idx row = 0; r == 0 && row < n && !rows->cut; row++) {
            if (json_array_append_new(rows->list, row_json(duck, chunk, row, &size)) < 0)
                r = pk_no_memory(err);
            rows->last_time = number_at(duck, chunk, PK_EV_TIME, row);
            rows->last_seq = number_at(duck, chunk, count, row);
            rows->cut = size > PAGE_BYTES_MAX;
        }
        duck->destroy_data_chunk(&chunk);
        if (n == 0)
            break;
    }
    if (r < 0) {
        json_decref(rows->list);
        rows->list = NULL;
    }
    return r;
}

/* The filter. A heavy one names a second column (no seq is below 0): DuckDB then runs it above the
 * scan, where it looks at the interruption with every 2,048 rows. Within the scan it looks only
 * once a row group, which can take seconds. */
static void add_filter(struct pk_buf *sql, const struct pk_query *query)
{
    (void)pk_buf_printf(sql, query->heavy ? "((%s) OR seq < 0)" : "(%s)", query->where);
}

static int check_query(const struct pk_events_query *query, struct pk_error *err)
{
    if (query->limit < 1 || query->limit > 10000) {
        (void)pk_fail(err, PK_E_USAGE, "the limit is %u, it can be 1 to 10000", query->limit);
        return pk_hint(err, "ask for pages: each answer names the next one");
    }
    return 0;
}

/* The last instant that DuckDB's type can hold is its infinity. */
static pk_nsec clamp_until(pk_nsec until)
{
    return until <= 0 || until > INT64_MAX - 1 ? INT64_MAX - 1 : until;
}

static int parse_page(const char *page, int64_t *ret_time, int64_t *ret_seq, struct pk_error *err)
{
    char time[32];
    const char *dash = page[0] == '\0' ? NULL : strchr(page + 1, '-'); /* a time may be negative */
    int n =
        snprintf(time, sizeof(time), "%.*s", dash == NULL ? 0 : (int)PK_MIN(dash - page, 40), page);
    if (n >= (int)sizeof(time) || pk_parse_i64(time, ret_time, NULL) < 0 ||
        pk_parse_i64(dash + 1, ret_seq, NULL) < 0) {
        (void)pk_fail(err, PK_E_USAGE, "the page \"%.40s\" is none of ours", page);
        return pk_hint(err, "give back the page of the last answer as it was, or none");
    }
    return 0;
}

/* ---- pages ----
 *
 * In two steps: which events (their times and numbers, for which only the columns that the query
 * names are read), then these events whole. The raw records are most of the bytes, and of them only
 * those that are shown are read. */

struct keys {
    pk_nsec min_time, max_time;
    int64_t min_seq, max_seq;
    size_t count;
};

static int by_number(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return x < y ? -1 : x > y;
}

/* Reads the first step's result; the numbers as picket_among() takes them. */
static int take_keys(struct reading *reading, unsigned limit, struct keys *keys,
                     struct pk_buf *list)
{
    const struct pk_duckdb *duck = reading->events->duck;
    PK_CLEANUP(pk_free_p) int64_t *numbers = pk_zalloc_array(limit, sizeof(*numbers));
    duckdb_chunk chunk;

    *keys = (struct keys){ .min_time = INT64_MAX, .max_time = INT64_MIN };
    if (numbers == NULL)
        return PK_E_NOMEM;
    while ((chunk = duck->fetch_chunk(reading->result)) != NULL) {
        duckdb_idx n = duck->data_chunk_get_size(chunk);
        for (duckdb_idx row = 0; row < n && keys->count < limit; row++) {
            pk_nsec when = number_at(duck, chunk, 0, row);
            keys->min_time = PK_MIN(keys->min_time, when);
            keys->max_time = PK_MAX(keys->max_time, when);
            numbers[keys->count++] = number_at(duck, chunk, 1, row);
        }
        duck->destroy_data_chunk(&chunk);
        if (n == 0)
            break;
    }
    qsort(numbers, keys->count, sizeof(*numbers), by_number);
    for (size_t i = 0; i < keys->count; i++)
        (void)pk_buf_printf(list, "%016" PRIx64, (uint64_t)numbers[i]);
    if (keys->count > 0) {
        keys->min_seq = numbers[0];
        keys->max_seq = numbers[keys->count - 1];
    }
    return list->failed ? PK_E_NOMEM : 0;
}

/* Leaves the segments that have none of the events out. */
static void narrow(struct reading *reading, const struct keys *keys)
{
    size_t kept = 0;

    for (size_t i = 0; i < reading->segment_count; i++) {
        struct pk_segment *s = reading->segments[i];
        if (s->memory || (s->min_time <= keys->max_time && s->max_time >= keys->min_time))
            reading->segments[kept++] = s;
        else
            pk_segment_unref(reading->events, s);
    }
    reading->segment_count = kept;
}

/* The events of the keys, newest first. */
static int read_whole(struct reading *reading, const struct keys *keys, const struct pk_buf *list,
                      struct rows *rows, struct pk_error *err)
{
    narrow(reading, keys);
    pk_buf_clear(&reading->sql);
    pk_sql_select(&reading->sql);
    int r = pk_events_from_sql(reading->events, reading->segments, reading->segment_count,
                               keys->min_time, keys->max_time + 1, &reading->sql, err);
    if (r < 0)
        return r;
    (void)pk_buf_printf(&reading->sql,
                        " AS e WHERE seq BETWEEN %" PRId64 " AND %" PRId64
                        " AND picket_among(seq, '%s') ORDER BY time DESC, seq DESC",
                        keys->min_seq, keys->max_seq, list->data);
    reading->no_params = true;
    r = run(reading, err);
    return r < 0 ? r : take_rows(reading, rows, err);
}

int pk_events_query(struct pk_events *events, const struct pk_events_query *query,
                    json_t **ret_list, char **ret_page, struct pk_error *err)
{
    PK_CLEANUP(reading_done) struct reading reading;
    PK_CLEANUP(pk_buf_done) struct pk_buf list = PK_BUF_INIT(1u << 20);
    struct rows rows = { 0 };
    struct keys keys;
    pk_nsec until = clamp_until(query->until);
    char *page = NULL;
    int64_t at_time = 0, at_seq = 0;

    int r = reading_begin(events, query->filter, query->timeout_ms, &reading, err);
    if (r == 0)
        r = check_query(query, err);
    if (r == 0 && query->page != NULL && query->page[0] != '\0') {
        r = parse_page(query->page, &at_time, &at_seq, err);
        if (r == 0 && at_time < INT64_MAX)
            until = PK_MIN(until, at_time + 1);
    }
    char dataset[33] = "";
    if (r == 0 && reading.query.type[0] != '\0')
        pk_events_dataset(reading.query.type, strlen(reading.query.type), dataset);
    if (r == 0)
        r = pk_events_snapshot(events, query->since, until, 0, dataset, &reading.segments,
                               &reading.segment_count, err);
    if (r < 0)
        return r;

    (void)pk_buf_puts(&reading.sql, "SELECT time, seq FROM ");
    r = pk_events_from_sql(events, reading.segments, reading.segment_count, query->since, until,
                           &reading.sql, err);
    if (r < 0)
        return r;
    (void)pk_buf_puts(&reading.sql, " AS e WHERE ");
    add_filter(&reading.sql, &reading.query);
    if (query->page != NULL && query->page[0] != '\0')
        (void)pk_buf_printf(&reading.sql,
                            " AND (time < make_timestamp_ns(%" PRId64 ") OR seq < %" PRId64 ")",
                            at_time, at_seq);
    (void)pk_buf_printf(&reading.sql, " ORDER BY time DESC, seq DESC LIMIT %u", query->limit);
    r = run(&reading, err);
    if (r == 0 && take_keys(&reading, query->limit, &keys, &list) < 0)
        r = pk_no_memory(err);
    if (r == 0 && keys.count > 0)
        r = read_whole(&reading, &keys, &list, &rows, err);
    if (r == 0 && rows.list == NULL && (rows.list = json_array()) == NULL)
        r = pk_no_memory(err);
    if (r < 0)
        return r;
    if (rows.cut || json_array_size(rows.list) == query->limit) {
        page = pk_asprintf("%" PRId64 "-%" PRId64, rows.last_time, rows.last_seq);
        if (page == NULL) {
            json_decref(rows.list);
            return pk_no_memory(err);
        }
    }
    *ret_list = rows.list;
    *ret_page = page;
    return 0;
}

/* ---- counts ---- */

int pk_events_count(struct pk_events *events, const struct pk_events_query *query,
                    const char *field, json_t **ret_list, struct pk_error *err)
{
    PK_CLEANUP(reading_done) struct reading reading;
    const struct pk_duckdb *duck = events->duck;
    pk_nsec until = clamp_until(query->until);
    size_t count, size = 0;
    char dataset[33] = "";

    int r = reading_begin(events, query->filter, query->timeout_ms, &reading, err);
    if (r == 0)
        r = check_query(query, err);
    if (r < 0)
        return r;
    int column = pk_event_column(field);
    if (column < 0)
        return pk_query_unknown_field(field, 0, err);
    const struct pk_column *columns = pk_event_columns(&count);
    if (reading.query.type[0] != '\0')
        pk_events_dataset(reading.query.type, strlen(reading.query.type), dataset);
    r = pk_events_snapshot(events, query->since, until, 0, dataset, &reading.segments,
                           &reading.segment_count, err);
    if (r < 0)
        return r;
    (void)pk_buf_printf(&reading.sql, "SELECT \"%s\" AS v, count(*) AS n FROM ",
                        columns[column].name);
    r = pk_events_from_sql(events, reading.segments, reading.segment_count, query->since, until,
                           &reading.sql, err);
    if (r < 0)
        return r;
    (void)pk_buf_puts(&reading.sql, " AS e WHERE ");
    add_filter(&reading.sql, &reading.query);
    (void)pk_buf_printf(&reading.sql,
                        " AND \"%s\" IS NOT NULL GROUP BY v ORDER BY n DESC, v LIMIT %u",
                        columns[column].name, query->limit);
    r = run(&reading, err);
    if (r < 0)
        return r;

    json_t *list = json_array();
    duckdb_chunk chunk;
    bool ok = list != NULL;
    while (ok && (chunk = duck->fetch_chunk(reading.result)) != NULL) {
        duckdb_idx n = duck->data_chunk_get_size(chunk);
        for (duckdb_idx row = 0; ok && row < n; row++) {
            json_t *value = value_json(duck, duck->data_chunk_get_vector(chunk, 0), row,
                                       columns[column].type, &size);
            json_t *entry = json_pack("{s:o, s:I}", "value", value, "count",
                                      (json_int_t)number_at(duck, chunk, 1, row));
            ok = json_array_append_new(list, entry) == 0;
        }
        duck->destroy_data_chunk(&chunk);
        if (n == 0)
            break;
    }
    if (!ok) {
        json_decref(list);
        return pk_no_memory(err);
    }
    *ret_list = list;
    return 0;
}

/* Waits for events above *cursor; *ret_now = the number of the newest. False when there are none.
 */
static bool wait_for_news(struct pk_events *events, uint64_t cursor, unsigned wait_ms,
                          uint64_t *ret_now)
{
    struct timespec until = to_timespec(pk_time_monotonic() + wait_ms * PK_NSEC_PER_MS);

    pthread_mutex_lock(&events->lock);
    while (!events->stopping && events->next_seq <= cursor)
        if (pthread_cond_timedwait(&events->arrived, &events->lock, &until) != 0)
            break;
    *ret_now = events->next_seq;
    pthread_mutex_unlock(&events->lock);
    return *ret_now > cursor;
}

int pk_events_follow(struct pk_events *events, const char *filter, uint64_t cursor,
                     unsigned wait_ms, unsigned limit, json_t **ret_list, uint64_t *ret_cursor,
                     struct pk_error *err)
{
    PK_CLEANUP(reading_done) struct reading reading;
    struct rows rows = { 0 };
    uint64_t now;

    int r = reading_begin(events, filter, 0, &reading, err); /* a bad filter is told at once */
    if (r < 0)
        return r;
    limit = PK_MIN(PK_MAX(limit, 1u), 10000u);
    if (cursor == 0) {
        pthread_mutex_lock(&events->lock);
        cursor = events->next_seq;
        pthread_mutex_unlock(&events->lock);
    }
    if (!wait_for_news(events, cursor, wait_ms, &now)) {
        *ret_list = json_array();
        *ret_cursor = cursor;
        return *ret_list != NULL ? 0 : pk_no_memory(err);
    }
    r = pk_events_snapshot(events, INT64_MIN, INT64_MAX, cursor, NULL, &reading.segments,
                           &reading.segment_count, err);
    if (r < 0)
        return r;
    pk_sql_select(&reading.sql);
    r = pk_events_from_sql(events, reading.segments, reading.segment_count, INT64_MIN, INT64_MAX,
                           &reading.sql, err);
    if (r < 0)
        return r;
    (void)pk_buf_printf(&reading.sql, " AS e WHERE seq > %" PRIu64 " AND seq <= %" PRIu64 " AND ",
                        cursor, now);
    add_filter(&reading.sql, &reading.query);
    (void)pk_buf_printf(&reading.sql, " ORDER BY seq LIMIT %u", limit);
    r = run(&reading, err);
    if (r == 0)
        r = take_rows(&reading, &rows, err);
    if (r < 0)
        return r;
    bool more = rows.cut || json_array_size(rows.list) == limit;
    *ret_list = rows.list;
    *ret_cursor = more ? (uint64_t)rows.last_seq : now;
    return 0;
}
