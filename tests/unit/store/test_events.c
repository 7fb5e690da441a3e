/* SPDX-License-Identifier: Apache-2.0 */
#include "pk_test.h"

#include "event_test.h"

#include <unistd.h>

static struct maker maker_of(struct pk_events *events)
{
    struct maker maker = {
        .events = events, .source = "s1", .fleet = "border", .type = "flow", .step = PK_NSEC_PER_MS
    };
    maker_sync(&maker);
    return maker;
}

static void done(struct pk_events *events, char *dir)
{
    pk_events_close(events);
    assert_int_equal(pk_rm_rf(dir, NULL), 0);
    free(dir);
}

static void test_ingest_query(void **state)
{
    (void)state;
    char *dir = test_dir();
    struct pk_events *events = open_events(dir, 3600 * PK_NSEC_PER_SEC);
    struct maker maker = maker_of(events);
    struct pk_error err = { 0 };

    assert_int_equal(make(&maker, 5000, &err), 0);
    assert_int_equal(stat_of(events, "memoryRows"), 5000);
    assert_int_equal(stat_of(events, "received"), 5000);
    assert_int_equal(stat_of(events, "stored"), 0);
    assert_int_equal(query_all(events, NULL, 777), 5000);
    assert_int_equal(query_all(events, "dst_port:53", 10000), 1667);
    assert_int_equal(query_all(events, "dst_port:53 OR dst_port:443", 10000), 5000);
    assert_int_equal(query_all(events, "NOT dst_port:53", 10000), 3333);
    assert_int_equal(query_all(events, "-host:*", 10000), 2500);
    assert_int_equal(query_all(events, "-host:www.example.com", 10000), 3750);
    assert_int_equal(query_all(events, "host:WWW.Example.com", 10000), 1250);
    assert_int_equal(query_all(events, "host:*.example.*", 10000), 2500);
    assert_int_equal(query_all(events, "host:100%_sure*", 10000), 1250);
    assert_int_equal(query_all(events, "host:100%*", 10000), 1250);
    assert_int_equal(query_all(events, "host:1%_sure*", 10000), 0);
    assert_int_equal(query_all(events, "src_ip:10.0.0.0/24", 10000), 256);
    assert_int_equal(query_all(events, "ip:192.168.0.7", 10000), 25);
    assert_int_equal(query_all(events, "ip:10.0.0.0/8 src_port>=1024 src_port<1026", 10000), 2);
    assert_int_equal(query_all(events, "\"it's \\\"quoted\"", 10000), 0);
    assert_int_equal(query_all(events, "\"It's \\\\\\\"quoted\\\\\\\" \xc3\x89\"", 10000), 5000);
    assert_int_equal(query_all(events, "\"n\\\":42,\"", 10000), 1);
    assert_int_equal(query_all(events, "time<2025-10-09T08:53:21Z", 10000), 1000);
    assert_int_equal(query_all(events, "fleet:border lane:1 tool:suricata", 10000), 5000);
    assert_int_equal(query_all(events, "type:FLOW", 10000), 5000);
    assert_int_equal(query_all(events, "type:'x' OR raw:';DROP\\ TABLE", 10000), 0);
    done(events, dir);
}

static void test_event_json(void **state)
{
    (void)state;
    char *dir = test_dir();
    struct pk_events *events = open_events(dir, 3600 * PK_NSEC_PER_SEC);
    struct maker maker = maker_of(events);
    struct pk_error err = { 0 };
    struct pk_events_query query = { .until = INT64_MAX, .limit = 1 };
    PK_JSON list = NULL;
    PK_CLEANUP(pk_free_p) char *page = NULL;

    assert_int_equal(make(&maker, 2, &err), 0);
    assert_int_equal(pk_events_query(events, &query, &list, &page, &err), 0);
    json_t *event = json_array_get(list, 0);
    assert_string_equal(pk_json_string_or(event, "time", ""), "2025-10-09T08:53:20.001000000Z");
    assert_string_equal(pk_json_string_or(event, "src_ip", ""), "10.0.0.1");
    assert_string_equal(pk_json_string_or(event, "raw", ""),
                        "{\"n\":1,\"text\":\"It's \\\"Quoted\\\" \xc3\xa9\"}");
    assert_int_equal(pk_json_int_or(event, "dst_port", 0), 443);
    assert_int_equal(pk_json_int_or(event, "lane", 0), 1);
    assert_true(json_is_null(json_object_get(event, "community_id")));
    assert_null(json_object_get(event, "host"));
    assert_non_null(page);
    done(events, dir);
}

static void test_seal_and_reopen(void **state)
{
    (void)state;
    char *dir = test_dir();
    struct pk_events *events = open_events(dir, 50 * PK_NSEC_PER_MS);
    struct maker maker = maker_of(events);
    struct pk_error err = { 0 };

    for (int i = 0; i < 10; i++) {
        maker.type = i % 2 == 0 ? "flow" : "../evil";
        assert_int_equal(make(&maker, 3000, &err), 0);
        assert_int_equal(query_all(events, "fleet:border", 10000), 3000 * (i + 1));
        pk_sleep_ms(20);
    }
    assert_true(wait_stat(events, "stored", 30000));
    assert_true(wait_stat(events, "memoryRows", 0));
    assert_int_equal(query_all(events, NULL, 999), 30000);
    assert_int_equal(query_all(events, "type:../evil", 999), 15000);
    assert_true(stat_of(events, "files") >= 2);
    pk_events_close(events);

    events = open_events(dir, 3600 * PK_NSEC_PER_SEC);
    assert_int_equal(query_all(events, NULL, 10000), 30000);
    assert_int_equal(query_all(events, "src_ip:10.0.1.0/24", 10000), 256);
    assert_int_equal(stat_of(events, "stored"), 30000);
    struct maker again = maker_of(events);
    assert_int_equal(again.offset, maker.offset);
    assert_string_not_equal(again.session, maker.session);
    maker.events = events;
    /* an old session's batch, a gap, a repetition: refused */
    assert_int_equal(make(&maker, 1, &err), PK_E_CONFLICT);
    again.offset -= 100;
    assert_int_equal(make(&again, 1, &err), PK_E_CONFLICT);
    again.offset += 200;
    assert_int_equal(make(&again, 1, &err), PK_E_CONFLICT);
    again.offset -= 100;
    assert_int_equal(make(&again, 1, &err), 0);
    assert_int_equal(query_all(events, NULL, 10000), 30001);
    done(events, dir);
}

/* Files that no commit knows, and a file that somebody took away. */
static void test_reconcile(void **state)
{
    (void)state;
    char *dir = test_dir(), path[300], command[400];
    struct pk_events *events = open_events(dir, 3600 * PK_NSEC_PER_SEC);
    struct maker maker = maker_of(events);
    struct pk_error err = { 0 };

    assert_int_equal(make(&maker, 100, &err), 0);
    pk_events_close(events);
    snprintf(path, sizeof(path), "%s/flow/2025-10-09/orphan.parquet", dir);
    assert_int_equal(pk_file_write(path, "x", 1, 0600, &err), 0);
    events = open_events(dir, 3600 * PK_NSEC_PER_SEC);
    assert_false(pk_file_exists(path));
    assert_int_equal(query_all(events, NULL, 10000), 100);
    struct pk_events *second = NULL;
    struct pk_events_options options = { .dir = dir };
    assert_int_equal(pk_events_open(&options, &second, &err), PK_E_CONFLICT);
    pk_events_close(events);
    snprintf(command, sizeof(command), "%s/flow", dir);
    assert_int_equal(pk_rm_rf(command, &err), 0);
    events = open_events(dir, 3600 * PK_NSEC_PER_SEC);
    assert_int_equal(query_all(events, NULL, 10000), 0);
    assert_int_equal(stat_of(events, "stored"), 100);
    done(events, dir);
}

static void test_count(void **state)
{
    (void)state;
    char *dir = test_dir();
    struct pk_events *events = open_events(dir, 3600 * PK_NSEC_PER_SEC);
    struct maker maker = maker_of(events);
    struct pk_error err = { 0 };
    struct pk_events_query query = { .until = INT64_MAX, .limit = 10 };
    PK_JSON list = NULL;
    PK_JSON ips = NULL;
    json_t *none = NULL;

    assert_int_equal(make(&maker, 3000, &err), 0);
    assert_int_equal(pk_events_count(events, &query, "dest_port", &list, &err), 0);
    assert_int_equal(json_array_size(list), 2);
    assert_int_equal(pk_json_int_or(json_array_get(list, 0), "value", 0), 443);
    assert_int_equal(pk_json_int_or(json_array_get(list, 0), "count", 0), 2000);
    query.filter = "dst_port:53";
    assert_int_equal(pk_events_count(events, &query, "dst_ip", &ips, &err), 0);
    assert_int_equal(json_array_size(ips), 10);
    assert_int_equal(pk_events_count(events, &query, "dst_prt", &none, &err), PK_E_USAGE);
    assert_string_equal(err.hint, "did you mean dst_port?");
    done(events, dir);
}

static void test_follow(void **state)
{
    (void)state;
    char *dir = test_dir();
    struct pk_events *events = open_events(dir, 30 * PK_NSEC_PER_MS);
    struct maker maker = maker_of(events);
    struct pk_error err = { 0 };
    uint64_t cursor = 0;
    size_t seen = 0;
    json_t *list = NULL;

    assert_int_equal(make(&maker, 10, &err), 0);
    assert_int_equal(pk_events_follow(events, "dst_port:53", 0, 0, 100, &list, &cursor, &err), 0);
    assert_int_equal(json_array_size(list), 0);
    json_decref(list);
    for (int i = 0; i < 20; i++) { /* seals and merges happen meanwhile */
        assert_int_equal(make(&maker, 30, &err), 0);
        pk_sleep_ms(25);
        if (i % 3 != 0)
            continue;
        for (size_t n = 1; n > 0; seen += n) {
            assert_int_equal(
                pk_events_follow(events, "dst_port:53", cursor, 0, 7, &list, &cursor, &err), 0);
            n = json_array_size(list);
            json_decref(list);
        }
    }
    for (size_t n = 1; n > 0; seen += n) {
        assert_int_equal(
            pk_events_follow(events, "dst_port:53", cursor, 0, 100, &list, &cursor, &err), 0);
        n = json_array_size(list);
        json_decref(list);
    }
    assert_int_equal(seen, 200);
    done(events, dir);
}

static void test_losses_and_end(void **state)
{
    (void)state;
    char *dir = test_dir();
    struct pk_events *events = open_events(dir, 20 * PK_NSEC_PER_MS);
    struct maker maker = maker_of(events);
    struct pk_error err = { 0 };

    maker.lost = 7;
    assert_int_equal(make(&maker, 3, &err), 0);
    assert_int_equal(stat_of(events, "lost"), 7);
    maker.lost = 0;
    maker.flags = PK_WIRE_END;
    assert_int_equal(make(&maker, 0, &err), 0);
    assert_true(wait_stat(events, "stored", 3));
    for (int i = 0; i < 200; i++) {
        PK_JSON sources = pk_events_sources(events, &err);
        if (json_object_size(json_object_get(sources, "sources")) == 0)
            break;
        pk_sleep_ms(10);
        assert_true(i < 199);
    }
    pk_events_close(events);
    events = open_events(dir, PK_NSEC_PER_SEC);
    assert_int_equal(stat_of(events, "lost"), 7);
    done(events, dir);
}

/* Many small seals become few files; retention removes whole files, oldest first. */
static void test_merge_and_retention(void **state)
{
    (void)state;
    char *dir = test_dir();
    struct pk_events *events = open_events(dir, 1);
    struct maker maker = maker_of(events);
    struct pk_error err = { 0 };

    for (int i = 0; i < 70; i++) {
        assert_int_equal(make(&maker, 100, &err), 0);
        assert_true(wait_stat(events, "stored", 100 * (i + 1)));
    }
    for (int i = 0; stat_of(events, "files") > 20; i++) {
        assert_true(i < 1000);
        pk_sleep_ms(10);
    }
    assert_int_equal(query_all(events, NULL, 1000), 7000);
    int64_t bytes = stat_of(events, "bytes");
    struct pk_events_options limits = { .max_bytes = (uint64_t)bytes / 2,
                                        .seal_after = 1,
                                        .memory_bytes = 64u << 20 };
    pk_events_set_limits(events, &limits);
    for (int i = 0; stat_of(events, "bytes") > bytes / 2; i++) {
        assert_true(i < 1000);
        pk_sleep_ms(10);
    }
    size_t left = query_all(events, NULL, 1000);
    assert_true(left < 7000);
    limits = (struct pk_events_options){ .retain = 1, .seal_after = 1, .memory_bytes = 64u << 20 };
    pk_events_set_limits(events, &limits);
    assert_true(wait_stat(events, "files", 0));
    assert_int_equal(query_all(events, NULL, 1000), 0);
    assert_int_equal(stat_of(events, "stored"), 7000);
    done(events, dir);
}

static void test_timeout(void **state)
{
    (void)state;
    char *dir = test_dir();
    struct pk_events *events = open_events(dir, 3600 * PK_NSEC_PER_SEC);
    struct maker maker = maker_of(events);
    struct pk_error err = { 0 };
    PK_JSON list = NULL;
    PK_CLEANUP(pk_free_p) char *page = NULL;
    char filter[3000] = "";

    for (int i = 0; i < 10; i++)
        assert_int_equal(make(&maker, 20000, &err), 0);
    for (int i = 0; i < 60; i++)
        snprintf(filter + strlen(filter), sizeof(filter) - strlen(filter), "%sraw:*z*%d*y*x*w* ",
                 i > 0 ? "OR " : "", i);
    struct pk_events_query query = {
        .filter = filter, .until = INT64_MAX, .limit = 10, .timeout_ms = 30
    };
    pk_nsec start = pk_time_monotonic();
    assert_int_equal(pk_events_query(events, &query, &list, &page, &err), PK_E_TIMEOUT);
    assert_true(pk_time_monotonic() - start < 3 * PK_NSEC_PER_SEC);
    query.filter = "dst_port:53"; /* the connection still works */
    query.timeout_ms = 20000;
    for (int i = 0; i < 4; i++) {
        json_t *again = NULL;
        char *next = NULL;
        assert_int_equal(pk_events_query(events, &query, &again, &next, &err), 0);
        assert_int_equal(json_array_size(again), 10);
        json_decref(again);
        pk_free(next);
    }
    done(events, dir);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ingest_query),    cmocka_unit_test(test_event_json),
        cmocka_unit_test(test_seal_and_reopen), cmocka_unit_test(test_reconcile),
        cmocka_unit_test(test_count),           cmocka_unit_test(test_follow),
        cmocka_unit_test(test_losses_and_end),  cmocka_unit_test(test_merge_and_retention),
        cmocka_unit_test(test_timeout),
    };
    if (!have_duckdb())
        return 0;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
