/* SPDX-License-Identifier: Apache-2.0 */
#include "../pk_test.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "base/time.h"
#include "conformance.h"
#include "engine/internal.h"

struct pk_unit *unit_new(const struct bench *bench, const char *fleet, unsigned lane,
                         const char *argument, const char *hash)
{
    struct pk_unit *unit = pk_zalloc(sizeof(*unit));
    assert_non_null(unit);
    unit->name = pk_asprintf("%s-%s-g-%u-helper", bench->tag, fleet, lane);
    unit->fleet = pk_strdup(fleet);
    unit->group = pk_strdup("g");
    unit->tool = pk_strdup("helper");
    unit->package = pk_strdup("helper");
    unit->version = pk_strdup("1");
    unit->lane = lane;
    unit->image = pk_strdup(bench->image);
    unit->image_digest = pk_strdup(bench->digest);
    pk_strv_add(&unit->argv, "/helper");
    char words[64];
    snprintf(words, sizeof(words), "%s", argument);
    char *save = NULL;
    for (char *word = strtok_r(words, " ", &save); word; word = strtok_r(NULL, " ", &save))
        pk_strv_add(&unit->argv, word);
    pk_strv_add(&unit->capabilities, "NET_RAW");
    unit->netns = pk_strdup("");
    unit->cpuset = pk_strdup("");
    unit->memory_bytes = 64u << 20;
    unit->pids_max = 16;
    unit->nofile = 64;
    unit->tmpfs_bytes = 1u << 20;
    unit->stop_timeout_ms = 3000;
    unit->files_hash = pk_strdup("");
    unit->hash = pk_strdup(hash);
    unit->probe_socket = pk_strdup("");
    return unit;
}

void unit_free(struct pk_unit *unit)
{
    char *texts[] = { unit->name,       unit->fleet, unit->group,        unit->tool,  unit->package,
                      unit->version,    unit->image, unit->image_digest, unit->netns, unit->cpuset,
                      unit->files_hash, unit->hash,  unit->probe_socket };
    for (size_t i = 0; i < PK_ARRAY_SIZE(texts); i++)
        pk_free(texts[i]);
    for (size_t i = 0; i < unit->mount_count; i++) {
        pk_free(unit->mounts[i].source);
        pk_free(unit->mounts[i].target);
    }
    pk_free(unit->mounts);
    pk_strv_done(&unit->argv);
    pk_strv_done(&unit->capabilities);
    pk_free(unit);
}

void unit_status_done(struct pk_unit_status *status)
{
    pk_unit_status_done(status);
}

bool unit_find(struct pk_engine *engine, const char *name, struct pk_unit_status *ret_status)
{
    struct pk_unit_status *list;
    size_t count;
    struct pk_error err = { 0 };
    int r = engine->ops->list(engine->self, NULL, &list, &count, &err);
    if (r < 0)
        fail_msg("list: %s", err.msg);
    bool found = false;
    for (size_t i = 0; i < count; i++) {
        if (strcmp(list[i].name, name) != 0)
            continue;
        assert_false(found);
        found = true;
        *ret_status = list[i];
        memset(&list[i], 0, sizeof(list[i]));
    }
    pk_unit_status_list_free(list, count);
    return found;
}

void unit_wait(struct pk_engine *engine, const char *name, enum pk_unit_state state)
{
    for (int i = 0; i < 200; i++) {
        struct pk_unit_status status;
        if (unit_find(engine, name, &status)) {
            enum pk_unit_state is = status.state;
            pk_unit_status_done(&status);
            if (is == state)
                return;
        }
        pk_sleep_ms(50);
    }
    fail_msg("%s did not become %s", name, pk_unit_state_name(state));
}

/* ---- short forms ---- */

#define ok(call)                                               \
    do {                                                       \
        struct pk_error err = { 0 };                           \
        int r_ = (call);                                       \
        if (r_ < 0)                                            \
            fail_msg("%s: %s (%s)", #call, err.msg, err.hint); \
    } while (0)
#define fails(call, want)                                                    \
    do {                                                                     \
        struct pk_error err = { 0 };                                         \
        int r_ = (call);                                                     \
        if (r_ != (want))                                                    \
            fail_msg("%s gave %d (%s), not %d", #call, r_, err.msg, (want)); \
        assert_int_equal(err.code, (want));                                  \
        assert_string_not_equal(err.msg, "");                                \
    } while (0)
#define OP(bench, op, ...) ((bench)->engine->ops->op((bench)->engine->self, ##__VA_ARGS__))

static struct pk_unit_status find(struct bench *bench, const struct pk_unit *unit)
{
    struct pk_unit_status status;
    assert_true(unit_find(bench->engine, unit->name, &status));
    return status;
}

static void finish(struct bench *bench, struct pk_unit *unit)
{
    ok(OP(bench, remove, unit->name, &err));
    struct pk_unit_status status;
    assert_false(unit_find(bench->engine, unit->name, &status));
    unit_free(unit);
}

/* ---- the tests ---- */

static void test_probe(void **state)
{
    struct bench *bench = *state;
    struct pk_engine_info info;
    ok(OP(bench, probe, &info, &err));
    assert_string_not_equal(info.name, "");
    assert_string_not_equal(info.version, "");
}

static void test_image(void **state)
{
    struct bench *bench = *state;
    char *digest = NULL;
    ok(OP(bench, image_find, bench->image, &digest, NULL, &err));
    assert_string_equal(digest, bench->digest);
    assert_int_equal(strlen(digest), 7 + 64);
    pk_free(digest);

    struct pk_error err = { 0 };
    digest = NULL;
    assert_int_equal(OP(bench, image_find, "localhost/elsewhere/none:3", &digest, NULL, &err),
                     PK_E_NOTFOUND);
    assert_null(digest);
    assert_non_null(strstr(err.hint, "picket image build"));
}

static void test_create(void **state)
{
    struct bench *bench = *state;
    struct pk_unit *unit = unit_new(bench, "f1", 2, "run", "hash-1");
    ok(OP(bench, create, unit, &err));
    struct pk_unit_status status = find(bench, unit);
    assert_int_equal(status.state, PK_UNIT_CREATED);
    assert_string_equal(status.fleet, "f1");
    assert_string_equal(status.group, "g");
    assert_string_equal(status.tool, "helper");
    assert_string_equal(status.hash, "hash-1");
    assert_string_equal(status.image_digest, bench->digest);
    assert_int_equal(status.lane, 2);
    assert_int_equal(status.pid, 0);
    assert_int_equal(status.started_at, 0);
    json_t *json = pk_unit_to_json(unit);
    assert_true(json_equal(json, status.unit));
    json_decref(json);

    /* The same again is left alone, another definition replaces it. */
    ok(OP(bench, create, unit, &err));
    struct pk_unit_status same = find(bench, unit);
    assert_string_equal(same.id, status.id);
    pk_free(unit->hash);
    unit->hash = pk_strdup("hash-2");
    ok(OP(bench, create, unit, &err));
    struct pk_unit_status changed = find(bench, unit);
    assert_string_not_equal(changed.id, status.id);
    assert_string_equal(changed.hash, "hash-2");
    assert_int_equal(changed.state, PK_UNIT_CREATED);
    pk_unit_status_done(&status);
    pk_unit_status_done(&same);
    pk_unit_status_done(&changed);
    finish(bench, unit);
}

static void test_create_replaces_running(void **state)
{
    struct bench *bench = *state;
    struct pk_unit *unit = unit_new(bench, "f1", 0, "run", "a");
    ok(OP(bench, create, unit, &err));
    ok(OP(bench, start, unit->name, &err));
    pk_free(unit->hash);
    unit->hash = pk_strdup("b");
    ok(OP(bench, create, unit, &err));
    struct pk_unit_status status = find(bench, unit);
    assert_int_equal(status.state, PK_UNIT_CREATED);
    pk_unit_status_done(&status);
    finish(bench, unit);
}

static void test_image_missing(void **state)
{
    struct bench *bench = *state;
    struct pk_unit *unit = unit_new(bench, "f1", 0, "run", "a");
    pk_free(unit->image);
    unit->image = pk_strdup("localhost/elsewhere/none:3");
    memset(unit->image_digest + 7, '0', 64);
    fails(OP(bench, create, unit, &err), PK_E_NOTFOUND);
    struct pk_unit_status status;
    assert_false(unit_find(bench->engine, unit->name, &status));
    unit_free(unit);
}

static void test_start_stop(void **state)
{
    struct bench *bench = *state;
    struct pk_unit *unit = unit_new(bench, "f1", 0, "run", "a");
    ok(OP(bench, create, unit, &err));
    /* What was never started can be stopped. */
    ok(OP(bench, stop, unit->name, 1000, &err));
    pk_nsec before = pk_time_now();
    ok(OP(bench, start, unit->name, &err));
    struct pk_unit_status status = find(bench, unit);
    assert_int_equal(status.state, PK_UNIT_RUNNING);
    assert_true(status.pid > 0);
    /* Podman's list tells the start in whole seconds. */
    assert_true(status.started_at >= before - PK_NSEC_PER_SEC);
    assert_true(status.started_at <= pk_time_now());
    ok(OP(bench, start, unit->name, &err));
    struct pk_unit_status again = find(bench, unit);
    assert_int_equal(again.pid, status.pid);

    /* Until it has taken the container over, the runtime is what a signal meets. */
    bench->let_write(bench, unit->name);
    ok(OP(bench, stop, unit->name, 5000, &err));
    pk_unit_status_done(&status);
    status = find(bench, unit);
    assert_int_equal(status.state, PK_UNIT_EXITED);
    assert_int_equal(status.exit_code, 0);
    assert_int_equal(status.pid, 0);
    assert_false(status.oom_killed);
    ok(OP(bench, stop, unit->name, 1000, &err));
    ok(OP(bench, start, unit->name, &err));
    pk_unit_status_done(&status);
    status = find(bench, unit);
    assert_int_equal(status.state, PK_UNIT_RUNNING);
    pk_unit_status_done(&status);
    pk_unit_status_done(&again);
    finish(bench, unit);
}

static void test_kill(void **state)
{
    struct bench *bench = *state;
    struct pk_unit *unit = unit_new(bench, "f1", 0, "run", "a");
    ok(OP(bench, create, unit, &err));
    fails(OP(bench, kill, unit->name, SIGKILL, &err), PK_E_CONFLICT);
    ok(OP(bench, start, unit->name, &err));
    ok(OP(bench, kill, unit->name, SIGKILL, &err));
    unit_wait(bench->engine, unit->name, PK_UNIT_EXITED);
    struct pk_unit_status status = find(bench, unit);
    assert_int_equal(status.exit_code, 128 + SIGKILL);
    pk_unit_status_done(&status);
    finish(bench, unit);
}

static void test_exit(void **state)
{
    struct bench *bench = *state;
    struct pk_unit *unit = unit_new(bench, "f1", 0, "exit 7", "a");
    ok(OP(bench, create, unit, &err));
    ok(OP(bench, start, unit->name, &err));
    bench->let_exit(bench, unit->name);
    unit_wait(bench->engine, unit->name, PK_UNIT_EXITED);
    struct pk_unit_status status = find(bench, unit);
    assert_int_equal(status.exit_code, 7);
    assert_true(status.started_at > 0);
    pk_unit_status_done(&status);
    finish(bench, unit);
}

static void test_absent(void **state)
{
    struct bench *bench = *state;
    PK_CLEANUP(pk_free_p) char *name = pk_asprintf("%s-none", bench->tag);
    PK_CLEANUP(pk_buf_done) struct pk_buf out = PK_BUF_INIT(4096);
    const char *const argv[] = { "/helper", "exit", "0", NULL };
    int code = -1;
    fails(OP(bench, start, name, &err), PK_E_NOTFOUND);
    fails(OP(bench, stop, name, 100, &err), PK_E_NOTFOUND);
    fails(OP(bench, kill, name, SIGTERM, &err), PK_E_NOTFOUND);
    fails(OP(bench, logs, name, 5, &out, &err), PK_E_NOTFOUND);
    fails(OP(bench, exec, name, argv, 1000, &out, &code, &err), PK_E_NOTFOUND);
    assert_int_equal(code, -1);
    ok(OP(bench, remove, name, &err));
}

static void test_remove_running(void **state)
{
    struct bench *bench = *state;
    struct pk_unit *unit = unit_new(bench, "f1", 0, "run", "a");
    ok(OP(bench, create, unit, &err));
    ok(OP(bench, start, unit->name, &err));
    finish(bench, unit);
}

static void test_list(void **state)
{
    struct bench *bench = *state;
    struct pk_unit *one = unit_new(bench, "f1", 0, "run", "a");
    struct pk_unit *two = unit_new(bench, "f2", 0, "run", "a");
    ok(OP(bench, create, one, &err));
    ok(OP(bench, create, two, &err));
    struct pk_unit_status *list;
    size_t count;
    ok(OP(bench, list, NULL, &list, &count, &err));
    assert_int_equal(count, 2);
    pk_unit_status_list_free(list, count);
    ok(OP(bench, list, "f2", &list, &count, &err));
    assert_int_equal(count, 1);
    assert_string_equal(list[0].name, two->name);
    pk_unit_status_list_free(list, count);
    ok(OP(bench, list, "f3", &list, &count, &err));
    assert_int_equal(count, 0);
    pk_unit_status_list_free(list, count);
    /* Another instance sees nothing of it. */
    ok(bench->other->ops->list(bench->other->self, NULL, &list, &count, &err));
    assert_int_equal(count, 0);
    pk_unit_status_list_free(list, count);
    finish(bench, one);
    finish(bench, two);
}

static void test_logs(void **state)
{
    struct bench *bench = *state;
    struct pk_unit *unit = unit_new(bench, "f1", 0, "run", "a");
    ok(OP(bench, create, unit, &err));
    ok(OP(bench, start, unit->name, &err));
    bench->let_write(bench, unit->name);
    PK_CLEANUP(pk_buf_done) struct pk_buf out = PK_BUF_INIT(4096);
    ok(OP(bench, logs, unit->name, 2, &out, &err));
    assert_string_equal(out.data, "line 4\nline 5\n");
    pk_buf_clear(&out);
    ok(OP(bench, logs, unit->name, 100, &out, &err));
    assert_string_equal(out.data, "line 1\nline 2\nline 3\nline 4\nline 5\n");
    pk_buf_clear(&out);
    ok(OP(bench, logs, unit->name, 0, &out, &err));
    assert_int_equal(out.len, 0);
    finish(bench, unit);
}

static void test_exec(void **state)
{
    struct bench *bench = *state;
    struct pk_unit *unit = unit_new(bench, "f1", 0, "run", "a");
    const char *const argv[] = { "/helper", "exit", "0", NULL };
    PK_CLEANUP(pk_buf_done) struct pk_buf out = PK_BUF_INIT(4096);
    int code = -1;
    ok(OP(bench, create, unit, &err));
    fails(OP(bench, exec, unit->name, argv, 5000, &out, &code, &err), PK_E_CONFLICT);
    ok(OP(bench, start, unit->name, &err));
    ok(OP(bench, exec, unit->name, argv, 5000, &out, &code, &err));
    assert_int_equal(code, 0);
    finish(bench, unit);
}

struct killer {
    struct bench *bench;
    const char *name;
    int result;
};

static void *kill_later(void *arg)
{
    struct killer *killer = arg;
    pk_sleep_ms(300);
    killer->result = OP(killer->bench, kill, killer->name, SIGKILL, NULL);
    return NULL;
}

static void test_wait(void **state)
{
    struct bench *bench = *state;
    struct pk_unit *unit = unit_new(bench, "f1", 0, "run", "a");
    ok(OP(bench, create, unit, &err));
    ok(OP(bench, start, unit->name, &err));
    /* What was done up to now may count as a change; after that nothing happens. */
    bool changed = true;
    for (int i = 0; i < 20 && changed; i++)
        ok(OP(bench, wait_change, 200, &changed, &err));
    assert_false(changed);
    pk_nsec before = pk_time_monotonic();
    ok(OP(bench, wait_change, 300, &changed, &err));
    assert_false(changed);
    assert_true(pk_time_monotonic() - before >= 290 * PK_NSEC_PER_MS);

    struct killer killer = { .bench = bench, .name = unit->name };
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, kill_later, &killer), 0);
    before = pk_time_monotonic();
    ok(OP(bench, wait_change, 10000, &changed, &err));
    pk_nsec took = pk_time_monotonic() - before;
    pthread_join(thread, NULL);
    assert_int_equal(killer.result, 0);
    assert_true(changed);
    assert_true(took < 5 * PK_NSEC_PER_SEC);
    unit_wait(bench->engine, unit->name, PK_UNIT_EXITED);

    /* A change between two waits is told by the second at once. */
    do
        ok(OP(bench, wait_change, 100, &changed, &err));
    while (changed);
    finish(bench, unit);
    before = pk_time_monotonic();
    ok(OP(bench, wait_change, 10000, &changed, &err));
    assert_true(changed);
    assert_true(pk_time_monotonic() - before < 5 * PK_NSEC_PER_SEC);
}

int conformance_run(const char *group, int (*setup)(void **state), int (*teardown)(void **state))
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_probe),         cmocka_unit_test(test_image),
        cmocka_unit_test(test_create),        cmocka_unit_test(test_create_replaces_running),
        cmocka_unit_test(test_image_missing), cmocka_unit_test(test_start_stop),
        cmocka_unit_test(test_kill),          cmocka_unit_test(test_exit),
        cmocka_unit_test(test_absent),        cmocka_unit_test(test_remove_running),
        cmocka_unit_test(test_list),          cmocka_unit_test(test_logs),
        cmocka_unit_test(test_exec),          cmocka_unit_test(test_wait),
    };
    return cmocka_run_group_tests_name(group, tests, setup, teardown);
}
