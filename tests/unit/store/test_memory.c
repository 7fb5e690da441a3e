/* SPDX-License-Identifier: Apache-2.0 */
/* A store that seals, merges and answers for long takes no more memory than one that did so for a
 * while: hours of a sensor's events, as fast as they go. */
#include "pk_test.h"

#include <unistd.h>

#include "base/common.h"
#include "event_test.h"

#define ROWS      240 /* of a seal, of all types together */
#define WARM_UP   48u /* seals until DuckDB has what it keeps: arenas, lists of blocks */
#define SEALS     96u
#define ROOM_KIB  (48 * 1024) /* DuckDB's own ups and downs are half of that at most */
#define ASK_EVERY 8u

static const char *const types[] = { "flow", "dns", "http", "tls", "fileinfo", "alert" };

static long resident_kib(void)
{
    long size, resident;
    FILE *file = fopen("/proc/self/statm", "re");

    assert_non_null(file);
    assert_int_equal(fscanf(file, "%ld %ld", &size, &resident), 2);
    (void)fclose(file);
    return resident * (sysconf(_SC_PAGESIZE) / 1024);
}

static void ask(struct pk_events *events)
{
    const struct pk_events_query query = { .filter = "", .until = INT64_MAX, .limit = 100 };
    struct pk_error err = { 0 };
    json_t *list = NULL;
    char *page = NULL;

    assert_int_equal(pk_events_query(events, &query, &list, &page, &err), 0);
    assert_int_equal(json_array_size(list), 100);
    json_decref(list);
    pk_free(page);
    assert_int_equal(pk_events_count(events, &query, "type", &list, &err), 0);
    assert_int_equal(json_array_size(list), PK_ARRAY_SIZE(types));
    json_decref(list);
}

/* The most that it took at the end of any of so many seals. */
static long seal_often(struct maker *maker, unsigned seals)
{
    struct pk_error err = { 0 };
    long most = 0;

    for (unsigned seal = 0; seal < seals; seal++) {
        for (size_t i = 0; i < PK_ARRAY_SIZE(types); i++) {
            maker->type = types[i];
            if (make(maker, ROWS / PK_ARRAY_SIZE(types), &err) < 0)
                fail_msg("%s (%s)", err.msg, err.hint);
        }
        assert_true(wait_stat(maker->events, "memoryRows", 0));
        if (seal % ASK_EVERY == 0)
            ask(maker->events);
        most = PK_MAX(most, resident_kib());
    }
    return most;
}

static void test_no_growth(void **state)
{
    char *dir = test_dir();
    struct maker maker = { .events = open_events(dir, PK_NSEC_PER_MS),
                           .source = "s1",
                           .fleet = "border",
                           .step = PK_NSEC_PER_MS };
    struct pk_error err = { 0 };

    (void)state;
    maker_sync(&maker);
    long before = seal_often(&maker, WARM_UP);
    long after = seal_often(&maker, SEALS);
    int64_t files = stat_of(maker.events, "files");
    print_message("%ld KiB after %u seals, %ld KiB after %u more; %lld files\n", before, WARM_UP,
                  after, SEALS, (long long)files);
    /* A seal made a file of each type at least; most have become few by merging. */
    assert_true(files > 0 && files < (int64_t)((WARM_UP + SEALS) * PK_ARRAY_SIZE(types) / 2));
    assert_true(after - before < ROOM_KIB);
    pk_events_close(maker.events);
    assert_int_equal(pk_rm_rf(dir, &err), 0);
    free(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_no_growth) };

    if (!have_duckdb())
        return 0;
#if defined(__SANITIZE_ADDRESS__)
    printf("1..0 # SKIP the sanitizer keeps what was freed\n");
    return 0;
#endif
    return cmocka_run_group_tests(tests, NULL, NULL);
}
