/* SPDX-License-Identifier: Apache-2.0 */
/* Event stores in a folder of their own, and batches to fill them. */
#ifndef PICKET_TESTS_EVENT_TEST_H
#define PICKET_TESTS_EVENT_TEST_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/json.h"
#include "base/time.h"
#include "base/wire.h"
#include "store/duckdb_api.h"
#include "store/store.h"

#define T0 (1760000000LL * PK_NSEC_PER_SEC)

/* A TAP program that can test nothing without the library says so. */
static inline bool have_duckdb(void)
{
    const struct pk_duckdb *duck;
    struct pk_error err = { 0 };

    if (pk_duckdb_load(&duck, &err) == 0)
        return true;
    printf("1..0 # SKIP %s\n", err.msg);
    return false;
}

static inline void set_text(struct pk_value *value, const char *text)
{
    *value = (struct pk_value){ .set = true, .text = text, .len = (uint32_t)strlen(text) };
}

static inline void set_number(struct pk_value *value, uint64_t number)
{
    *value = (struct pk_value){ .set = true, .number = number };
}

struct maker {
    struct pk_events *events;
    const char *source, *fleet;
    uint64_t offset; /* of the source */
    char session[40];
    uint64_t made; /* events */
    const char *type;
    pk_nsec step; /* between events */
    uint32_t flags;
    uint64_t lost;
};

static inline void maker_sync(struct maker *maker)
{
    struct pk_error err = { 0 };
    PK_JSON sources = pk_events_sources(maker->events, &err);
    assert_non_null(sources);
    snprintf(maker->session, sizeof(maker->session), "%s",
             pk_json_string_or(sources, "session", ""));
    json_t *source = json_object_get(json_object_get(sources, "sources"), maker->source);
    maker->offset = (uint64_t)pk_json_int_or(source, "received", 0);
}

/* One batch of count events at T0 + n * step: 10.0.x.y:1024+n%60000 -> 192.168.0.(n%200), number n.
 */
static inline int make(struct maker *maker, unsigned count, struct pk_error *err)
{
    struct pk_buf buf = PK_BUF_INIT(PK_WIRE_MAX);
    struct pk_batch batch = { .session = maker->session,
                              .source = maker->source,
                              .fleet = maker->fleet,
                              .group = "analysis",
                              .tool = "suricata",
                              .path = "/x/eve.json",
                              .lane = 1,
                              .from = maker->offset,
                              .to = maker->offset + count * 100 + maker->lost,
                              .lost_events = maker->lost,
                              .lost_bytes = maker->lost,
                              .flags = maker->flags };
    char raw[160];
    json_t *reply = NULL;
    int r = pk_wire_begin(&buf, &batch, err);
    for (unsigned i = 0; r == 0 && i < count; i++) {
        struct pk_value values[PK_EVENT_COLUMNS_MAX] = { 0 };
        uint64_t n = maker->made + i;
        values[PK_EV_TIME] =
            (struct pk_value){ .set = true, .time = T0 + (pk_nsec)n * maker->step };
        set_text(&values[PK_EV_TYPE], maker->type);
        values[PK_EV_SRC_IP] = (struct pk_value){ .set = true,
                                                  .ip_len = 4,
                                                  .ip = { 10, 0, (uint8_t)(n >> 8), (uint8_t)n } };
        set_number(&values[PK_EV_SRC_PORT], 1024 + n % 60000);
        values[PK_EV_DST_IP] = (struct pk_value){ .set = true,
                                                  .ip_len = 4,
                                                  .ip = { 192, 168, 0, (uint8_t)(n % 200) } };
        set_number(&values[PK_EV_DST_PORT], n % 3 == 0 ? 53 : 443);
        set_text(&values[PK_EV_PROTO], n % 3 == 0 ? "udp" : "tcp");
        int host = pk_event_column("host");
        if (n % 2 == 0)
            set_text(&values[host], n % 4 == 0 ? "www.example.com" : "100%_sure.example.org");
        snprintf(raw, sizeof(raw), "{\"n\":%llu,\"text\":\"It's \\\"Quoted\\\" \xc3\xa9\"}",
                 (unsigned long long)n);
        int raw_column = pk_event_column("raw");
        set_text(&values[raw_column], raw);
        r = pk_wire_add(&buf, values, err);
    }
    if (r == 0)
        r = pk_events_ingest(maker->events, buf.data, buf.len, &reply, err);
    pk_buf_done(&buf);
    if (r == 0) {
        maker->offset = batch.to;
        maker->made += count;
    }
    json_decref(reply);
    return r;
}

static inline char *test_dir(void)
{
    char template[] = "/tmp/store-test-XXXXXX";
    assert_non_null(mkdtemp(template));
    return strdup(template);
}

static inline struct pk_events *open_events(const char *dir, pk_nsec seal_after)
{
    struct pk_events_options options = { .dir = dir,
                                         .retain = 30 * 86400 * PK_NSEC_PER_SEC,
                                         .max_bytes = 1ull << 30,
                                         .seal_after = seal_after,
                                         .memory_bytes = 64u << 20 };
    struct pk_events *events = NULL;
    struct pk_error err = { 0 };
    int r = pk_events_open(&options, &events, &err);
    if (r < 0)
        fail_msg("open: %s (%s)", err.msg, err.hint);
    return events;
}

static inline int64_t stat_of(struct pk_events *events, const char *name)
{
    PK_JSON stats = pk_events_stats(events, NULL, NULL);
    return pk_json_int_or(stats, name, -1);
}

static inline bool wait_stat(struct pk_events *events, const char *name, int64_t value)
{
    for (int i = 0; i < 1000; i++) {
        if (stat_of(events, name) == value)
            return true;
        pk_sleep_ms(10);
    }
    return false;
}

/* The number of events that match, by paging through all of them; each number at most once. */
static inline size_t query_all(struct pk_events *events, const char *filter, unsigned limit)
{
    struct pk_events_query query = { .filter = filter, .until = INT64_MAX, .limit = limit };
    PK_CLEANUP(pk_free_p) char *page = NULL;
    size_t total = 0;
    char last[40] = "9";
    do {
        json_t *list = NULL;
        char *next = NULL;
        struct pk_error err = { 0 };
        query.page = page;
        int r = pk_events_query(events, &query, &list, &next, &err);
        if (r < 0)
            fail_msg("%s: %s (%s)", filter != NULL ? filter : "", err.msg, err.hint);
        for (size_t i = 0; i < json_array_size(list); i++) {
            const char *time = pk_json_string_or(json_array_get(list, i), "time", "");
            assert_true(strcmp(time, last) <= 0);
            snprintf(last, sizeof(last), "%s", time);
        }
        total += json_array_size(list);
        json_decref(list);
        pk_free(page);
        page = next;
    } while (page != NULL);
    return total;
}

#endif
