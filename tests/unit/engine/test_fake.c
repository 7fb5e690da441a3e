/* SPDX-License-Identifier: Apache-2.0 */
#include "../pk_test.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "base/time.h"
#include "conformance.h"
#include "engine/fake/fake.h"

static void let_exit(struct bench *bench, const char *name)
{
    assert_int_equal(pk_fake_exit(bench->engine, name, 7, false, NULL), 0);
}

static void let_write(struct bench *bench, const char *name)
{
    for (int i = 1; i <= 5; i++) {
        char line[16];
        snprintf(line, sizeof(line), "line %d", i);
        assert_int_equal(pk_fake_write_log(bench->engine, name, line, NULL), 0);
    }
}

static int setup(void **state)
{
    static struct bench bench;
    bench = (struct bench){ .tag = "pkfake",
                            .image = "localhost/picket/helper:1",
                            .let_exit = let_exit,
                            .let_write = let_write };
    if (pk_engine_open("fake", "", bench.tag, &bench.engine, NULL) < 0 ||
        pk_engine_fake_new("pkother", &bench.other, NULL) < 0)
        return -1;
    *state = &bench;
    return bench.engine->ops->image_find(bench.engine->self, bench.image, &bench.digest, NULL,
                                         NULL);
}

static int teardown(void **state)
{
    struct bench *bench = *state;
    pk_free(bench->digest);
    pk_engine_free(bench->engine);
    pk_engine_free(bench->other);
    return 0;
}

static void test_levers(void **state)
{
    struct bench *bench = *state;
    struct pk_engine *engine = bench->engine;
    struct pk_error err = { 0 };
    struct pk_unit *unit = unit_new(bench, "f", 0, "run", "a");

    assert_true(pk_engine_is_fake(engine));
    pk_fake_fail(engine, PK_FAKE_CREATE, PK_E_NOSPACE, 2);
    assert_int_equal(engine->ops->create(engine->self, unit, &err), PK_E_NOSPACE);
    assert_string_not_equal(err.hint, "");
    assert_int_equal(engine->ops->create(engine->self, unit, &err), PK_E_NOSPACE);
    assert_int_equal(engine->ops->create(engine->self, unit, &err), 0);
    assert_int_equal(pk_fake_calls(engine, PK_FAKE_CREATE) >= 3, true);

    pk_fake_delay(engine, PK_FAKE_START, 50);
    pk_nsec before = pk_time_monotonic();
    assert_int_equal(engine->ops->start(engine->self, unit->name, &err), 0);
    assert_true(pk_time_monotonic() - before >= 45 * PK_NSEC_PER_MS);
    pk_fake_delay(engine, PK_FAKE_START, 0);

    assert_int_equal(pk_fake_exit(engine, unit->name, 137, true, &err), 0);
    assert_int_equal(pk_fake_exit(engine, unit->name, 137, true, &err), PK_E_CONFLICT);
    struct pk_unit_status status;
    assert_true(unit_find(engine, unit->name, &status));
    assert_true(status.oom_killed);
    unit_status_done(&status);

    assert_int_equal(pk_fake_vanish(engine, unit->name, &err), 0);
    assert_false(unit_find(engine, unit->name, &status));
    assert_int_equal(pk_fake_vanish(engine, unit->name, &err), PK_E_NOTFOUND);

    char *digest = NULL;
    assert_int_equal(pk_fake_image_missing(engine, bench->image, true, &err), 0);
    assert_int_equal(engine->ops->image_find(engine->self, bench->image, &digest, NULL, &err),
                     PK_E_NOTFOUND);
    assert_int_equal(engine->ops->create(engine->self, unit, &err), PK_E_NOTFOUND);
    assert_int_equal(pk_fake_image_missing(engine, bench->image, false, &err), 0);
    assert_int_equal(engine->ops->image_find(engine->self, bench->image, &digest, NULL, &err), 0);
    pk_free(digest);
    unit_free(unit);
}

static void test_log_is_bounded(void **state)
{
    struct bench *bench = *state;
    struct pk_unit *unit = unit_new(bench, "f", 0, "run", "a");
    assert_int_equal(bench->engine->ops->create(bench->engine->self, unit, NULL), 0);
    char line[1024];
    memset(line, 'x', sizeof(line) - 1);
    line[sizeof(line) - 1] = '\0';
    for (int i = 0; i < 600; i++)
        assert_int_equal(pk_fake_write_log(bench->engine, unit->name, line, NULL), 0);
    PK_CLEANUP(pk_buf_done) struct pk_buf out = PK_BUF_INIT(1u << 20);
    assert_int_equal(
        bench->engine->ops->logs(bench->engine->self, unit->name, UINT_MAX, &out, NULL), 0);
    assert_true(out.len <= 256u << 10);
    assert_int_equal(bench->engine->ops->remove(bench->engine->self, unit->name, NULL), 0);
    unit_free(unit);
}

static void test_no_memory(void **state)
{
    struct bench *bench = *state;
    struct pk_engine *engine = bench->engine;
    struct pk_unit *unit = unit_new(bench, "f", 0, "run", "a");
    struct pk_unit_status *list = NULL;
    size_t count = 0;
    int r = 0;
    /* json_pack() takes its memory elsewhere; what the engine takes must be able to fail. */
    PK_TEST_EACH_ALLOC_FAILS(r, {
        r = engine->ops->create(engine->self, unit, NULL);
        if (r == 0)
            engine->ops->remove(engine->self, unit->name, NULL);
    });
    assert_int_equal(engine->ops->create(engine->self, unit, NULL), 0);
    PK_TEST_EACH_ALLOC_FAILS(r, {
        r = engine->ops->list(engine->self, NULL, &list, &count, NULL);
        if (r == 0)
            pk_unit_status_list_free(list, count);
    });
    unit_free(unit);
}

static void test_open(void **state)
{
    (void)state;
    struct pk_engine *engine = NULL;
    struct pk_error err = { 0 };
    assert_int_equal(pk_engine_open("docker", "/x", "pk", &engine, &err), PK_E_USAGE);
    assert_int_equal(pk_engine_open("podman:relative", "/x", "pk", &engine, &err), PK_E_USAGE);
    assert_non_null(strstr(err.hint, "podman:/path/to/socket"));
    assert_null(engine);
    assert_string_equal(pk_unit_state_name(PK_UNIT_EXITED), "exited");
    pk_engine_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_levers),
        cmocka_unit_test(test_log_is_bounded),
        cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_open),
    };
    int failed = conformance_run("engine fake, conformance", setup, teardown);
    return failed + cmocka_run_group_tests_name("engine fake", tests, setup, teardown);
}
