/* SPDX-License-Identifier: Apache-2.0 */
/* /v1/events and /v1/ingest: thin routes over the event store. */
#include <string.h>

#include "base/alloc.h"
#include "base/event.h"
#include "base/json.h"
#include "base/str.h"
#include "base/time.h"
#include "serve/internal.h"
#include "spec/spec.h"

#define DEFAULT_SPAN     (3600 * PK_NSEC_PER_SEC)
#define MAX_QUERY        4096u
#define MAX_PAGE         256u
#define MAX_LIMIT        10000u
#define QUERY_TIMEOUT_MS 10000u
#define FOLLOW_WAIT_MS   500u /* also how long a stop of the server may wait for a stream */
#define FOLLOW_BATCH     1000u

static int text_query(const struct pk_http_request *request, const char *name, size_t max,
                      const char **ret_text, struct pk_error *err)
{
    const char *text = pk_http_query(request, name);
    if (text != NULL && strlen(text) > max) {
        (void)pk_fail(err, PK_E_USAGE, "%s is longer than %zu bytes", name, max);
        return pk_hint(err, "ask for less at a time");
    }
    *ret_text = text != NULL && text[0] != '\0' ? text : NULL;
    return 0;
}

static int read_query(const struct pk_http_request *request, uint64_t default_limit,
                      struct pk_events_query *ret_query, struct pk_error *err)
{
    struct pk_events_query query = { .timeout_ms = QUERY_TIMEOUT_MS };
    pk_nsec now = pk_time_now();
    uint64_t limit = 0;
    int r = text_query(request, "q", MAX_QUERY, &query.filter, err);
    if (r >= 0)
        r = text_query(request, "page", MAX_PAGE, &query.page, err);
    if (r >= 0)
        r = pk_serve_time_query(request, "since", now, now - DEFAULT_SPAN, &query.since, err);
    /* Events carry the sensor's clock, which may be ahead of ours: no "until" means no bound. */
    if (r >= 0)
        r = pk_serve_time_query(request, "until", now, INT64_MAX, &query.until, err);
    if (r >= 0)
        r = pk_serve_number_query(request, "limit", 1, MAX_LIMIT, default_limit, &limit, err);
    if (r < 0)
        return r;
    if (query.since >= query.until) {
        (void)pk_fail(err, PK_E_USAGE, "the time range is empty: since is not before until");
        return pk_hint(err, "swap them, or leave 'until' out");
    }
    query.limit = (unsigned)limit;
    *ret_query = query;
    return 0;
}

int pk_api_events(void *arg, struct pk_http_request *request, struct pk_error *err)
{
    struct pk_serve *serve = arg;
    struct pk_events_query query;
    int r = read_query(request, 100, &query, err);
    if (r < 0)
        return r;
    json_t *list = NULL;
    PK_CLEANUP(pk_free_p) char *page = NULL;
    r = pk_events_query(serve->events, &query, &list, &page, err);
    if (r < 0)
        return r;
    return pk_http_reply_json_take(request, 200,
                                   json_pack("{s:o,s:s?}", "events", list, "page", page));
}

int pk_api_events_count(void *arg, struct pk_http_request *request, struct pk_error *err)
{
    struct pk_serve *serve = arg;
    struct pk_events_query query;
    int r = read_query(request, 20, &query, err);
    if (r < 0)
        return r;
    const char *by = pk_http_query(request, "by");
    int column = by == NULL ? -1 : pk_event_column(by);
    size_t count = 0;
    const struct pk_column *columns = pk_event_columns(&count);
    if (column < 0) {
        const char *names[64];
        size_t named = PK_MIN(count, PK_ARRAY_SIZE(names));
        for (size_t i = 0; i < named; i++)
            names[i] = columns[i].name;
        (void)pk_fail(err, PK_E_USAGE, "by: '%.60s' is not a field of events",
                      by == NULL ? "" : by);
        const char *near = by == NULL ? NULL : pk_str_closest(by, names, named);
        return pk_hint(err, "%s%s", near == NULL ? "for example " : "did you mean ",
                       near == NULL ? "by=type" : near);
    }
    json_t *list = NULL;
    r = pk_events_count(serve->events, &query, columns[column].name, &list, err);
    if (r < 0)
        return r;
    return pk_http_reply_json_take(
        request, 200, json_pack("{s:s,s:o}", "by", columns[column].name, "counts", list));
}

int pk_api_events_stats(void *arg, struct pk_http_request *request, struct pk_error *err)
{
    struct pk_serve *serve = arg;
    const char *fleet = NULL;
    int r = text_query(request, "fleet", PK_NAME_MAX, &fleet, err);
    if (r < 0)
        return r;
    json_t *stats = pk_events_stats(serve->events, fleet, err);
    return stats == NULL ? PK_E_IO : pk_http_reply_json_take(request, 200, stats);
}

/* ---- the stream ---- */

struct follow {
    struct pk_serve *serve;
    char *filter;
    char *fleet;
    uint64_t cursor;
};

static void follow_done(void *arg)
{
    struct follow *follow = arg;
    (void)atomic_fetch_sub(&follow->serve->streams, 1);
    pk_free(follow->filter);
    pk_free(follow->fleet);
    pk_free(follow);
}

static int append_line(struct pk_buf *buf, const json_t *json)
{
    PK_CLEANUP(pk_free_p) char *line = pk_json_compact(json);
    if (line == NULL)
        return PK_E_NOMEM;
    (void)pk_buf_puts(buf, line);
    return pk_buf_putc(buf, '\n');
}

static int follow_next(void *arg, struct pk_buf *buf)
{
    struct follow *follow = arg;
    if (atomic_load(&follow->serve->stopping))
        return 0;
    struct pk_error err = { 0 };
    PK_JSON list = NULL;
    int r = pk_events_follow(follow->serve->events, follow->filter, follow->cursor, FOLLOW_WAIT_MS,
                             FOLLOW_BATCH, &list, &follow->cursor, &err);
    if (r < 0) {
        /* The status is long sent: the error is the stream's last line. */
        PK_JSON last = json_pack("{s:o}", "error", pk_json_of_error(&err));
        if (last != NULL)
            (void)append_line(buf, last);
        return 0;
    }
    size_t i;
    json_t *event;
    json_array_foreach(list, i, event)
    {
        if (follow->fleet != NULL &&
            !pk_str_equal(follow->fleet, pk_json_string_or(event, "fleet", NULL)))
            continue;
        if (append_line(buf, event) < 0)
            return 0;
    }
    return 1;
}

int pk_api_events_follow(void *arg, struct pk_http_request *request, struct pk_error *err)
{
    struct pk_serve *serve = arg;
    const char *filter = NULL, *fleet = NULL;
    int r = text_query(request, "q", MAX_QUERY, &filter, err);
    if (r >= 0)
        r = text_query(request, "fleet", PK_NAME_MAX, &fleet, err);
    if (r < 0)
        return r;
    /* From here on; this also checks the filter while an error still has a status. */
    uint64_t cursor = 0;
    PK_JSON none = NULL;
    r = pk_events_follow(serve->events, filter, 0, 0, 1, &none, &cursor, err);
    if (r < 0)
        return r;
    struct follow *follow = pk_zalloc(sizeof(*follow));
    if (follow == NULL)
        return pk_no_memory(err);
    follow->serve = serve;
    (void)atomic_fetch_add(&serve->streams, 1);
    follow->cursor = cursor;
    follow->filter = pk_strdup(filter);
    follow->fleet = pk_strdup(fleet);
    if ((filter != NULL && follow->filter == NULL) || (fleet != NULL && follow->fleet == NULL)) {
        follow_done(follow);
        return pk_no_memory(err);
    }
    return pk_http_reply_stream(request, "application/x-ndjson", follow_next, follow_done, follow);
}

/* ---- for the shipper ---- */

int pk_api_ingest_sources(void *arg, struct pk_http_request *request, struct pk_error *err)
{
    struct pk_serve *serve = arg;
    json_t *sources = pk_events_sources(serve->events, err);
    return sources == NULL ? PK_E_IO : pk_http_reply_json_take(request, 200, sources);
}

int pk_api_ingest(void *arg, struct pk_http_request *request, struct pk_error *err)
{
    struct pk_serve *serve = arg;
    size_t len = 0;
    const char *data = pk_http_body(request, &len);
    json_t *reply = NULL;
    int r = pk_events_ingest(serve->events, data, len, &reply, err);
    return r < 0 ? r : pk_http_reply_json_take(request, 200, reply);
}

int pk_api_ingest_canaries(void *arg, struct pk_http_request *request, struct pk_error *err)
{
    struct pk_serve *serve = arg;
    PK_JSON body = NULL;
    int r = pk_http_body_json(request, &body, err);
    if (r >= 0)
        r = pk_manager_canaries(serve->manager, body, err);
    return r < 0 ? r : pk_http_reply_json_take(request, 200, json_object());
}
