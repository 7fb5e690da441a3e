/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "pk_test.h"

#include "node/replay.h"

#define SEC PK_NSEC_PER_SEC

static void test_recorded_speed(void **state)
{
    (void)state;
    struct pk_pace pace = { .mode = PK_REPLAY_RECORDED, .speed = 2.0 };
    pk_nsec t0 = 1700000000 * SEC;
    assert_int_equal(pk_pace_next(&pace, t0, 60), 0);
    assert_int_equal(pk_pace_next(&pace, t0 + SEC, 60), SEC / 2);
    /* a capture whose clock goes back must not hold the replay up or send it back */
    assert_int_equal(pk_pace_next(&pace, t0 - 5 * SEC, 60), SEC / 2);
    assert_int_equal(pk_pace_next(&pace, t0 + 4 * SEC, 60), 2 * SEC);
    /* the next file starts where this one ended, whatever its times are */
    pk_pace_next_file(&pace);
    assert_int_equal(pk_pace_next(&pace, 5, 60), 2 * SEC);
    assert_int_equal(pk_pace_next(&pace, 5 + SEC, 60), 2 * SEC + SEC / 2);
}

static void test_long_gaps_are_cut(void **state)
{
    (void)state;
    struct pk_pace pace = { .mode = PK_REPLAY_RECORDED, .speed = 1.0, .max_gap = 2 * SEC };
    assert_int_equal(pk_pace_next(&pace, 10 * SEC, 60), 0);
    assert_int_equal(pk_pace_next(&pace, 11 * SEC, 60), SEC);
    assert_int_equal(pk_pace_next(&pace, 900000000 * SEC, 60), 3 * SEC);
    assert_int_equal(pk_pace_next(&pace, 900000002 * SEC, 60), 5 * SEC);
    assert_int_equal(pace.cut_gaps, 1);
    pk_pace_next_file(&pace);
    assert_int_equal(pk_pace_next(&pace, 0, 60), 5 * SEC);
}

static void test_recorded_times_from_outside(void **state)
{
    (void)state;
    struct pk_pace pace = { .mode = PK_REPLAY_RECORDED, .speed = 0.001 };
    assert_int_equal(pk_pace_next(&pace, INT64_MIN, 60), 0);
    pk_nsec due = pk_pace_next(&pace, INT64_MAX, 60);
    assert_true(due > 0 && due <= 366 * 24 * 3600 * SEC);
    assert_true(pk_pace_next(&pace, INT64_MIN, 60) == due);
}

static void test_packets_per_second_does_not_drift(void **state)
{
    (void)state;
    struct pk_pace pace = { .mode = PK_REPLAY_RATE, .pps = 3 };
    assert_int_equal(pk_pace_next(&pace, 99, 1500), 0);
    assert_int_equal(pk_pace_next(&pace, 7, 60), SEC / 3);
    assert_int_equal(pk_pace_next(&pace, 0, 60), 2 * SEC / 3);
    assert_int_equal(pk_pace_next(&pace, 0, 60), SEC);
    pace.frames = 3000000000ULL; /* a billion seconds */
    assert_int_equal(pk_pace_next(&pace, 0, 60), 1000000000LL * SEC);
    struct pk_pace quick = { .mode = PK_REPLAY_RATE, .pps = 100000000, .frames = 1ULL << 40 };
    assert_int_equal(pk_pace_next(&quick, 0, 60), (1LL << 40) * 10);
}

static void test_megabits_per_second(void **state)
{
    (void)state;
    struct pk_pace pace = { .mode = PK_REPLAY_RATE, .mbps = 8 }; /* a million bytes a second */
    assert_int_equal(pk_pace_next(&pace, 0, 1000), 0);
    assert_int_equal(pk_pace_next(&pace, 0, 500), SEC / 1000);
    assert_int_equal(pk_pace_next(&pace, 0, 1), SEC / 1000 + SEC / 2000);
    pace.bits = 8000000ULL * 1000000;
    assert_int_equal(pk_pace_next(&pace, 0, 1), 1000000LL * SEC);
}

static void test_frames_that_fit(void **state)
{
    (void)state;
    uint8_t plain[64] = { [12] = 0x08, [13] = 0x00 };
    uint8_t vlan[64] = { [12] = 0x81, [13] = 0x00, [16] = 0x08 };
    uint8_t qinq[64] = { [12] = 0x88, [13] = 0xa8, [16] = 0x81, [17] = 0x00, [20] = 0x81 };
    assert_true(pk_replay_fits(plain, 1514, 1500));
    assert_false(pk_replay_fits(plain, 1515, 1500));
    assert_true(pk_replay_fits(vlan, 1518, 1500));
    assert_false(pk_replay_fits(vlan, 1519, 1500));
    assert_true(pk_replay_fits(qinq, 1522, 1500));
    assert_false(pk_replay_fits(qinq, 1526, 1500)); /* a third tag counts */
    assert_true(pk_replay_fits(plain, 0, 1500));
    assert_true(pk_replay_fits(vlan, 14, 1500));
}

static json_t *body(const char *text)
{
    json_t *json = json_loads(text, 0, NULL);
    assert_non_null(json);
    return json;
}

static void test_options_that_are_right(void **state)
{
    (void)state;
    struct pk_replay_options options;
    json_t *json = body("{\"files\":[\"/a.pcap\",\"/b\"],\"mode\":\"rate\",\"pps\":5,\"loops\":0}");
    assert_int_equal(pk_replay_options_parse(json, &options, NULL), 0);
    assert_int_equal(options.files.count, 2);
    assert_int_equal(options.pace.mode, PK_REPLAY_RATE);
    assert_int_equal(options.pace.pps, 5);
    assert_int_equal(options.loops, 0);
    pk_replay_options_done(&options);
    json_decref(json);

    json = body("{\"files\":[\"/a.pcap\"]}");
    assert_int_equal(pk_replay_options_parse(json, &options, NULL), 0);
    assert_int_equal(options.pace.mode, PK_REPLAY_RECORDED);
    assert_true(options.pace.speed > 0.99 && options.pace.speed < 1.01);
    assert_int_equal(options.loops, 1);
    pk_replay_options_done(&options);
    json_decref(json);
}

static void test_options_that_are_wrong(void **state)
{
    (void)state;
    static const char *const wrong[] = {
        "[]",
        "{}",
        "{\"files\":\"/a\"}",
        "{\"files\":[]}",
        "{\"files\":[\"relative.pcap\"]}",
        "{\"files\":[5]}",
        "{\"files\":[\"/a\"],\"colour\":1}",
        "{\"files\":[\"/a\"],\"mode\":\"slow\"}",
        "{\"files\":[\"/a\"],\"mode\":\"rate\"}",
        "{\"files\":[\"/a\"],\"mode\":\"rate\",\"pps\":1,\"mbps\":1}",
        "{\"files\":[\"/a\"],\"mode\":\"rate\",\"pps\":0}",
        "{\"files\":[\"/a\"],\"mode\":\"rate\",\"pps\":-1}",
        "{\"files\":[\"/a\"],\"mode\":\"rate\",\"pps\":1.5}",
        "{\"files\":[\"/a\"],\"mode\":\"rate\",\"pps\":99999999999}",
        "{\"files\":[\"/a\"],\"mode\":\"fast\",\"pps\":1}",
        "{\"files\":[\"/a\"],\"mode\":\"fast\",\"speed\":1}",
        "{\"files\":[\"/a\"],\"speed\":0}",
        "{\"files\":[\"/a\"],\"speed\":-1}",
        "{\"files\":[\"/a\"],\"speed\":\"1\"}",
        "{\"files\":[\"/a\"],\"speed\":1e300}",
        "{\"files\":[\"/a\"],\"loops\":-1}",
        "{\"files\":[\"/a\"],\"pps\":7}",
    };
    for (size_t i = 0; i < PK_ARRAY_SIZE(wrong); i++) {
        struct pk_error err = { 0 };
        struct pk_replay_options options = { .loops = 4711 };
        json_t *json = body(wrong[i]);
        assert_int_equal(pk_replay_options_parse(json, &options, &err), PK_E_INVALID);
        assert_int_equal(options.loops, 4711); /* untouched */
        assert_true(strlen(err.msg) > 0);
        json_decref(json);
    }
    json_t *json = json_pack("{s:[s#]}", "files", "/a\0b", (size_t)4);
    if (json != NULL) { /* a NUL inside would name another file */
        struct pk_replay_options options;
        assert_int_equal(pk_replay_options_parse(json, &options, NULL), PK_E_INVALID);
        json_decref(json);
    }
}

static void test_options_when_memory_runs_out(void **state)
{
    (void)state;
    json_t *json = body("{\"files\":[\"/a\",\"/b\",\"/c\"]}");
    int r = 0;
    PK_TEST_EACH_ALLOC_FAILS(r, {
        struct pk_replay_options options = { 0 };
        r = pk_replay_options_parse(json, &options, NULL);
        pk_replay_options_done(&options);
    });
    assert_int_equal(r, 0);
    json_decref(json);
}

static void test_a_wrong_file_is_told_at_once(void **state)
{
    (void)state;
    static const struct {
        const char *path;
        int code;
    } cases[] = {
        { "/nonexistent/file.pcap", PK_E_NOTFOUND },
        { "/dev/zero", PK_E_INVALID },
        { "/", PK_E_INVALID },
        { "/proc/self/status", PK_E_INVALID },
    };
    for (size_t i = 0; i < PK_ARRAY_SIZE(cases); i++) {
        struct pk_error err = { 0 };
        struct pk_replay *replay = NULL;
        struct pk_replay_options options = { .loops = 1 };
        assert_int_equal(pk_strv_add(&options.files, cases[i].path), 0);
        assert_int_equal(pk_replay_start(&options, "none0", 1, 1500, &replay, &err), cases[i].code);
        assert_null(replay);
        assert_non_null(strstr(err.msg, cases[i].path));
        pk_replay_options_done(&options);
    }
}

static void test_status_without_and_after_a_replay(void **state)
{
    (void)state;
    json_t *json = pk_replay_status(NULL);
    assert_string_equal(json_string_value(json_object_get(json, "state")), "none");
    assert_true(json_is_null(json_object_get(json, "error")));
    json_decref(json);
    struct pk_replay *lost = pk_replay_lost("the agent was restarted");
    json = pk_replay_status(lost);
    assert_string_equal(json_string_value(json_object_get(json, "state")), "failed");
    assert_string_equal(json_string_value(json_object_get(json, "error")),
                        "the agent was restarted");
    assert_false(pk_replay_running(lost));
    json_decref(json);
    pk_replay_free(lost);
    pk_replay_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_recorded_speed),
        cmocka_unit_test(test_long_gaps_are_cut),
        cmocka_unit_test(test_recorded_times_from_outside),
        cmocka_unit_test(test_packets_per_second_does_not_drift),
        cmocka_unit_test(test_megabits_per_second),
        cmocka_unit_test(test_frames_that_fit),
        cmocka_unit_test(test_options_that_are_right),
        cmocka_unit_test(test_options_that_are_wrong),
        cmocka_unit_test(test_options_when_memory_runs_out),
        cmocka_unit_test(test_a_wrong_file_is_told_at_once),
        cmocka_unit_test(test_status_without_and_after_a_replay),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
