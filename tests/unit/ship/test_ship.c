/* SPDX-License-Identifier: Apache-2.0 */
/* The shipper on real files, delivering into a real event store in the same process. */
#include "pk_test.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../store/event_test.h"
#include "base/canary.h"
#include "ship/ship.h"

struct world {
    char *base, logs[200], ship_dir[200];
    struct pk_events *events;
    struct pk_ship *ship;
    unsigned fail_after; /* the delivery that arrives although its answer does not; 0 = none */
    unsigned deliveries;
    char canary[PK_CANARY_TOKEN_TEXT]; /* the source's token; "" = none */
    json_t *seen;                      /* what the shipper told of canaries */
    bool deaf;                         /* nobody takes that */
};

static int sources(void *arg, json_t **ret_reply, struct pk_error *err)
{
    struct world *world = arg;

    *ret_reply = pk_events_sources(world->events, err);
    return *ret_reply != NULL ? 0 : PK_E_NOMEM;
}

static int deliver(void *arg, const void *data, size_t len, json_t **ret_reply,
                   struct pk_error *err)
{
    struct world *world = arg;
    int r = pk_events_ingest(world->events, data, len, ret_reply, err);

    if (r == 0 && ++world->deliveries == world->fail_after) {
        json_decref(*ret_reply);
        *ret_reply = NULL;
        return pk_fail(err, PK_E_UNREACHABLE, "the connection broke");
    }
    return r;
}

static int canaries(void *arg, const json_t *seen, struct pk_error *err)
{
    struct world *world = arg;

    if (world->deaf)
        return pk_fail(err, PK_E_UNREACHABLE, "nobody is there");
    return json_array_extend(world->seen, json_object_get(seen, "canaries"));
}

static void start_store(struct world *world)
{
    char path[250];

    (void)snprintf(path, sizeof(path), "%s/events", world->base);
    world->events = open_events(path, 100 * PK_NSEC_PER_MS);
}

static void start_ship(struct world *world, pk_nsec keep)
{
    struct pk_error err = { 0 };
    const struct pk_ship_options options = { .dir = world->ship_dir,
                                             .sink = { sources, deliver, world, canaries },
                                             .keep = keep };
    if (pk_ship_new(&options, &world->ship, &err) < 0)
        fail_msg("%s", err.msg);
}

static void write_file(const char *dir, const char *name, int flags, const char *text)
{
    char path[300];

    (void)snprintf(path, sizeof(path), "%s/%s", dir, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | flags, 0644);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    assert_int_equal(close(fd), 0);
}

static void tell_sources(const struct world *world, bool active)
{
    char text[600];

    (void)snprintf(
        text, sizeof(text),
        "{\"sources\":[{\"fleet\":\"f\",\"group\":\"g\",\"lane\":2,\"tool\":\"suricata\","
        "\"dir\":\"%s\",\"active\":%s,\"canary\":\"%s\",\"logs\":[{\"glob\":\"eve*.json\",\"format\":\"eve\"}]}]}",
        world->logs, active ? "true" : "false", world->canary);
    write_file(world->ship_dir, "new", O_TRUNC, text);
    char from[250], to[250];
    (void)snprintf(from, sizeof(from), "%s/new", world->ship_dir);
    (void)snprintf(to, sizeof(to), "%s/sources.json", world->ship_dir);
    assert_int_equal(rename(from, to), 0);
}

static int set_up(void **state)
{
    struct world *world = calloc(1, sizeof(*world));

    world->base = test_dir();
    world->seen = json_array();
    (void)snprintf(world->logs, sizeof(world->logs), "%s/logs", world->base);
    (void)snprintf(world->ship_dir, sizeof(world->ship_dir), "%s/ship", world->base);
    assert_int_equal(mkdir(world->logs, 0755) | mkdir(world->ship_dir, 0755), 0);
    tell_sources(world, true);
    start_store(world);
    start_ship(world, 0);
    *state = world;
    return 0;
}

static int tear_down(void **state)
{
    struct world *world = *state;

    pk_ship_free(world->ship);
    pk_events_close(world->events);
    json_decref(world->seen);
    assert_int_equal(pk_rm_rf(world->base, NULL), 0);
    free(world->base);
    free(world);
    return 0;
}

/* Rounds until the store has that many events of the filter, and a while longer for doubles. */
static void expect_events(struct world *world, const char *filter, size_t count)
{
    struct pk_error err;
    bool more;
    size_t found = 0;

    for (int i = 0; i < 1000 && found != count; i++) {
        (void)pk_ship_step(world->ship, &more, &err);
        found = query_all(world->events, filter, 1000);
        pk_sleep_ms(5);
    }
    for (int i = 0; i < 60; i++) {
        (void)pk_ship_step(world->ship, &more, &err);
        pk_sleep_ms(5);
    }
    found = query_all(world->events, filter, 1000);
    if (found != count)
        fail_msg("%s: %zu events, not %zu", filter, found, count);
}

#define LINE(n)                              \
    "{\"timestamp\":\"2026-01-01T00:00:0" #n \
    ".000000+0000\",\"event_type\":\"flow\",\"flow_id\":" #n "}\n"

static size_t held(const struct world *world)
{
    return pk_ship_numbers(world->ship).pinned;
}

static void test_follow(void **state)
{
    struct world *world = *state;

    write_file(world->logs, "eve.json", 0, LINE(1) "{\"timestamp\":\"2026-01");
    write_file(world->logs, "other.json", 0, LINE(9));
    write_file(world->logs, ".eve.json", 0, LINE(9));
    expect_events(world, "", 1);
    write_file(world->logs, "eve.json", O_APPEND,
               "-01T00:00:02.000000+0000\",\"event_type\":\"dns\"}\n");
    expect_events(world, "type:dns", 1);
    expect_events(world, "", 2);
    expect_events(world, "fleet:f group:g lane:2 tool:suricata", 2);
}

/* A name that leads elsewhere is not followed, and nothing but regular files is read. */
static void test_strange_files(void **state)
{
    struct world *world = *state;
    char path[300];

    (void)snprintf(path, sizeof(path), "%s/eve-link.json", world->logs);
    assert_int_equal(symlink("/etc/passwd", path), 0);
    (void)snprintf(path, sizeof(path), "%s/eve-pipe.json", world->logs);
    assert_int_equal(mkfifo(path, 0644), 0);
    (void)snprintf(path, sizeof(path), "%s/eve-dir.json", world->logs);
    assert_int_equal(mkdir(path, 0755), 0);
    write_file(world->logs, "eve-1.json", 0, LINE(1));
    expect_events(world, "", 1);
    assert_int_equal(pk_ship_numbers(world->ship).files, 1);
}

static void test_rename_and_delete(void **state)
{
    struct world *world = *state;
    char from[300], to[300];

    write_file(world->logs, "eve.json", 0, LINE(1) LINE(2));
    expect_events(world, "", 2);
    (void)snprintf(from, sizeof(from), "%s/eve.json", world->logs);
    (void)snprintf(to, sizeof(to), "%s/eve-old.json", world->logs);
    assert_int_equal(rename(from, to), 0);
    write_file(world->logs, "eve-old.json", O_APPEND, LINE(3));
    write_file(world->logs, "eve.json", 0, LINE(4));
    expect_events(world, "", 4);
    write_file(world->logs, "eve.json", O_APPEND, LINE(5));
    (void)unlink(from); /* the pin has it */
    expect_events(world, "", 5);
    tell_sources(world, false);
    for (int i = 0; i < 400 && pk_ship_numbers(world->ship).files > 0; i++)
        expect_events(world, "", 5);
    assert_int_equal(held(world), 0);
    assert_int_equal(access(to, F_OK), -1); /* complete and sealed: deleted */
}

/* What is read while the store is away, or its answer is lost, comes once. */
static void test_restarts(void **state)
{
    struct world *world = *state;

    world->fail_after = 1;
    write_file(world->logs, "eve.json", 0, LINE(1) LINE(2));
    expect_events(world, "", 2);
    assert_true(world->deliveries == 1 && pk_ship_numbers(world->ship).retries == 1);

    pk_ship_free(world->ship); /* the shipper anew */
    start_ship(world, 3600 * PK_NSEC_PER_SEC);
    write_file(world->logs, "eve.json", O_APPEND, LINE(3));
    expect_events(world, "", 3);

    pk_events_close(world->events); /* the store anew: another session */
    start_store(world);
    write_file(world->logs, "eve.json", O_APPEND, LINE(4));
    expect_events(world, "", 4);

    pk_ship_free(world->ship);
    pk_events_close(world->events);
    write_file(world->logs, "eve.json", O_APPEND, LINE(5));
    start_store(world);
    start_ship(world, 3600 * PK_NSEC_PER_SEC);
    expect_events(world, "", 5);
}

static void test_truncated(void **state)
{
    struct world *world = *state;

    write_file(world->logs, "eve.json", 0, LINE(1) LINE(2));
    expect_events(world, "type:flow", 2);
    write_file(world->logs, "eve.json", O_TRUNC, "");
    write_file(world->logs, "eve.json", O_APPEND, LINE(3));
    expect_events(world, "type:flow", 3);
    assert_int_equal(stat_of(world->events, "lost"), 0); /* all of it was read before */
    assert_int_equal(query_all(world->events, "type:loss", 10), 0);
}

/* Seen, but cut before the store took it: counted, and there to be found. */
static void test_loss(void **state)
{
    struct world *world = *state;
    struct pk_events_query query = { .filter = "type:loss", .until = INT64_MAX, .limit = 10 };
    struct pk_error err;
    json_t *list = NULL;
    char *page = NULL;
    bool more;

    write_file(world->logs, "eve.json", 0, LINE(1));
    expect_events(world, "type:flow", 1);
    write_file(world->logs, "eve.json", O_APPEND, "{\"timestamp\":\"2026-01-01"); /* no end yet */
    for (int i = 0; i < 3; i++)
        assert_int_equal(pk_ship_step(world->ship, &more, &err), 0);
    write_file(world->logs, "eve.json", O_TRUNC, LINE(2));
    world->fail_after = world->deliveries + 1; /* and told once, although the answer is lost */
    expect_events(world, "type:flow", 2);
    assert_int_equal(stat_of(world->events, "lost"), 1);
    assert_int_equal(pk_events_query(world->events, &query, &list, &page, &err), 0);
    assert_int_equal(json_array_size(list), 1);
    const json_t *event = json_array_get(list, 0);
    assert_string_equal(pk_json_string_or(event, "fleet", ""), "f");
    const char *raw = pk_json_string_or(event, "raw", "");
    assert_non_null(strstr(raw, "\"reason\":\"truncated\""));
    assert_non_null(strstr(raw, "eve.json\""));
    assert_non_null(strstr(raw, "\"bytes\":24"));
    json_decref(list);
}

/* Descriptions that nobody wrote like this: whatever they say, the shipper starts and works. */
static void test_broken_hold(void **state)
{
    struct world *world = *state;
    static const char *const texts[] = {
        "", "{", "[]", "{\"path\":7}", "{\"path\":\"/etc/passwd\",\"id\":\"x\",\"epoch\":-1}",
    };
    char dir[250], path[320], name[40];

    write_file(world->logs, "eve.json", 0, LINE(1));
    expect_events(world, "", 1);
    pk_ship_free(world->ship);
    (void)snprintf(dir, sizeof(dir), "%s/hold", world->ship_dir);
    for (size_t i = 0; i < PK_ARRAY_SIZE(texts); i++) {
        (void)snprintf(name, sizeof(name), "%zx-1.json", i);
        write_file(dir, name, 0, texts[i]);
    }
    write_file(dir, "1-1.json.AbCdEf", 0, "{\"pa");
    write_file(world->ship_dir, "sources.json", O_APPEND, "rubbish");
    start_ship(world, 3600 * PK_NSEC_PER_SEC);
    tell_sources(world, true);
    write_file(world->logs, "eve.json", O_APPEND, LINE(2));
    expect_events(world, "", 2);
    assert_int_equal(pk_ship_numbers(world->ship).files, 1);
    (void)snprintf(path, sizeof(path), "%s/1-1.json.AbCdEf", dir);
    assert_int_equal(access(path, F_OK), -1);
}

/* Longer than a line may be: it comes in pieces, and the next line is whole. */
static void test_long_line(void **state)
{
    struct world *world = *state;
    size_t len = 2 * (1u << 20) + 100;
    char *text = malloc(len + 1);

    assert_non_null(text);
    memset(text, 'x', len);
    text[len] = '\0';
    write_file(world->logs, "eve.json", 0, LINE(1));
    write_file(world->logs, "eve.json", O_APPEND, text);
    write_file(world->logs, "eve.json", O_APPEND, "\n" LINE(2));
    free(text);
    expect_events(world, "type:flow", 2);
    expect_events(world, "type:invalid", 3);
}

/* ---- canaries ---- */

static const struct pk_canary_token token = { { 7 } };

/* A canary as Suricata writes it: question, answer, and its flow at the end. */
static void write_canary(const struct world *world, const struct pk_canary *canary, bool flow)
{
    char text[1200], ends[200], *at = text;
    (void)snprintf(ends, sizeof(ends),
                   "\"src_ip\":\"%u.%u.%u.%u\",\"src_port\":%u,\"dest_ip\":\"%u.%u.%u.%u\","
                   "\"dest_port\":53,\"proto\":\"UDP\"",
                   canary->client[0], canary->client[1], canary->client[2], canary->client[3],
                   canary->port, canary->server[0], canary->server[1], canary->server[2],
                   canary->server[3]);
    for (unsigned i = 0; i < 2 && !flow; i++)
        at += snprintf(at, 500,
                       "{\"timestamp\":\"2026-01-01T00:00:01.000000+0000\",\"event_type\":\"dns\","
                       "%s,\"dns\":{\"type\":\"%s\",\"rrname\":\"%s\"}}\n",
                       ends, i == 0 ? "query" : "answer", canary->name);
    if (flow)
        (void)snprintf(at, 500,
                       "{\"timestamp\":\"2026-01-01T00:00:01.000000+0000\",\"event_type\":\"flow\","
                       "%s,\"app_proto\":\"dns\"}\n",
                       ends);
    write_file(world->logs, "eve.json", O_APPEND, text);
}

static struct pk_canary canary_of(const struct pk_canary_token *of, uint64_t number)
{
    struct pk_canary canary;
    pk_canary_make(of, "g", 2, number, &canary);
    return canary;
}

static void with_canaries(struct world *world)
{
    pk_canary_token_print(&token, world->canary);
    tell_sources(world, true);
    pk_ship_free(world->ship);
    start_ship(world, 3600 * PK_NSEC_PER_SEC);
}

/* Each number once and in order, until so many were told of. */
static void expect_seen(struct world *world, size_t count)
{
    bool more;
    for (int i = 0; i < 1000 && json_array_size(world->seen) < count; i++) {
        (void)pk_ship_step(world->ship, &more, NULL);
        pk_sleep_ms(5);
    }
    assert_int_equal(json_array_size(world->seen), count);
    for (size_t i = 0; i < count; i++) {
        const json_t *row = json_array_get(world->seen, i);
        assert_string_equal(json_string_value(json_object_get(row, "fleet")), "f");
        assert_string_equal(json_string_value(json_object_get(row, "tool")), "suricata");
        assert_int_equal(json_integer_value(json_object_get(row, "lane")), 2);
        assert_int_equal(json_integer_value(json_object_get(row, "number")), i + 1);
        assert_true(json_integer_value(json_object_get(row, "delayMs")) > 0);
    }
}

/* They are told of, and are no events; all else is, once, whatever breaks. */
static void test_canaries(void **state)
{
    struct world *world = *state;
    const struct pk_canary_token other = { { 8 } };
    with_canaries(world);
    struct pk_canary first = canary_of(&token, 1), second = canary_of(&token, 2);
    struct pk_canary foreign = canary_of(&other, 3);
    write_file(world->logs, "eve.json", 0, LINE(1));
    write_canary(world, &first, false);
    write_file(world->logs, "eve.json", O_APPEND, LINE(2));
    expect_events(world, "", 2);
    world->fail_after = world->deliveries + 1; /* it arrives, its answer does not */
    world->deaf = true;
    write_canary(world, &second, false);
    write_canary(world, &foreign, false); /* of another lane: an event */
    write_canary(world, &first, true);
    expect_events(world, "", 4);
    expect_events(world, "type:dns", 2);
    world->deaf = false;
    expect_seen(world, 2);
    assert_int_equal(pk_ship_numbers(world->ship).invalid, 0);
    /* A new shipper knows their flows all the same. */
    pk_ship_free(world->ship);
    start_ship(world, 3600 * PK_NSEC_PER_SEC);
    write_canary(world, &second, true);
    write_canary(world, &foreign, true);
    expect_events(world, "", 5);
    assert_int_equal(pk_ship_numbers(world->ship).canaries, 1);
    /* A name of ours, between other ends: an event. */
    struct pk_canary moved = canary_of(&token, 3);
    moved.client[3] ^= 1;
    write_canary(world, &moved, false);
    expect_events(world, "", 7);
    expect_seen(world, 2);
}

/* A log with nothing else in it is sealed to its end, and let go. */
static void test_only_canaries(void **state)
{
    struct world *world = *state;
    with_canaries(world);
    pk_ship_free(world->ship);
    start_ship(world, 0);
    for (uint64_t number = 1; number <= 20; number++) {
        struct pk_canary canary = canary_of(&token, number);
        write_canary(world, &canary, false);
    }
    expect_seen(world, 20);
    tell_sources(world, false);
    bool more;
    for (int i = 0; i < 2000 && pk_ship_numbers(world->ship).files > 0; i++) {
        (void)pk_ship_step(world->ship, &more, NULL);
        pk_sleep_ms(5);
    }
    assert_int_equal(pk_ship_numbers(world->ship).files, 0);
    assert_int_equal(query_all(world->events, "", 1000), 0);
    assert_int_equal(pk_ship_numbers(world->ship).lost_bytes, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_follow, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_strange_files, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_rename_and_delete, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_restarts, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_truncated, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_loss, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_broken_hold, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_long_line, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_canaries, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_only_canaries, set_up, tear_down),
    };

    if (!have_duckdb())
        return 0;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
