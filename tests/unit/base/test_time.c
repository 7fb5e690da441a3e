/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "pk_test.h"

#include "base/time.h"

#define DAY (86400 * PK_NSEC_PER_SEC)

static void test_rfc3339(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        pk_nsec when;
    } cases[] = {
        { "1970-01-01T00:00:00Z", 0 },
        { "1969-12-31T23:59:59.5Z", -PK_NSEC_PER_SEC / 2 },
        { "2000-02-29T12:00:00Z", 951825600 * PK_NSEC_PER_SEC },
        { "2026-11-23T04:10:38.123456+0000", 1795407038123456000 },
        { "2026-11-23T05:10:38.123456789+01:00", 1795407038123456789 },
        { "2026-11-22 22:40:38-05:30", 1795407038000000000 },
        { "2026-11-23t04:10:38.1234567899z", 1795407038123456789 },
        { "2016-12-31T23:59:60Z", 1483228800 * PK_NSEC_PER_SEC },
        { "2262-04-11T23:47:16.854775807Z", INT64_MAX },
    };
    for (size_t i = 0; i < PK_ARRAY_SIZE(cases); i++) {
        pk_nsec when = 1;
        assert_int_equal(pk_time_parse(cases[i].text, strlen(cases[i].text), &when, NULL), 0);
        assert_true(when == cases[i].when);
        char out[36];
        pk_time_format(when, 9, out, sizeof(out));
        pk_nsec again;
        assert_int_equal(pk_time_parse(out, strlen(out), &again, NULL), 0);
        assert_true(again == when);
    }
}

static void test_what_is_no_time(void **state)
{
    (void)state;
    const char *const bad[] = {
        "",
        "2026",
        "2026-11-23",
        "2026-11-23T04:10:38",
        "2026-13-01T00:00:00Z",
        "2026-02-29T00:00:00Z",
        "1900-02-29T00:00:00Z",
        "2026-00-01T00:00:00Z",
        "2026-01-00T00:00:00Z",
        "2026-01-01T24:00:00Z",
        "2026-01-01T00:60:00Z",
        "2026-01-01T00:00:61Z",
        "2026-01-01T00:00:00.Z",
        "2026-01-01T00:00:00+24:00",
        "2026-01-01T00:00:00+1",
        "2026-01-01T00:00:00Zx",
        " 2026-01-01T00:00:00Z",
        "9999-12-31T23:59:59Z",
        "0000-01-01T00:00:00Z",
        "2262-04-11T23:47:16.854775808Z",
    };
    for (size_t i = 0; i < PK_ARRAY_SIZE(bad); i++) {
        pk_nsec when = 1;
        struct pk_error err = { 0 };
        assert_int_equal(pk_time_parse(bad[i], strlen(bad[i]), &when, &err), PK_E_INVALID);
        assert_true(when == 1);
        assert_true(err.hint[0] != '\0');
    }
    /* No byte beyond len is looked at. */
    pk_nsec when;
    assert_int_equal(pk_time_parse("2026-01-01T00:00:00Zrest", 20, &when, NULL), 0);
    assert_int_equal(pk_time_parse("2026-01-01T00:00:00Z", 19, &when, NULL), PK_E_INVALID);
}

static void test_format(void **state)
{
    (void)state;
    char out[36];
    assert_string_equal(pk_time_format(1795407038123456789, 0, out, 36), "2026-11-23T04:10:38Z");
    assert_string_equal(pk_time_format(1795407038123456789, 3, out, 36),
                        "2026-11-23T04:10:38.123Z");
    assert_string_equal(pk_time_format(1795407038123456789, 6, out, 36),
                        "2026-11-23T04:10:38.123456Z");
    assert_string_equal(pk_time_format(-1, 9, out, 36), "1969-12-31T23:59:59.999999999Z");
}

static void test_for_users(void **state)
{
    (void)state;
    const pk_nsec now = 1795407038123456789, midnight = now - now % DAY;
    pk_nsec when;
    assert_int_equal(pk_time_parse_user("now", now, &when, NULL), 0);
    assert_true(when == now);
    assert_int_equal(pk_time_parse_user("1h", now, &when, NULL), 0);
    assert_true(when == now - 3600 * PK_NSEC_PER_SEC);
    assert_int_equal(pk_time_parse_user("today", now, &when, NULL), 0);
    assert_true(when == midnight);
    assert_int_equal(pk_time_parse_user("yesterday", now, &when, NULL), 0);
    assert_true(when == midnight - DAY);
    assert_int_equal(pk_time_parse_user("2026-11-23", now, &when, NULL), 0);
    assert_true(when == midnight);
    assert_int_equal(pk_time_parse_user("2026-11-23T04:00:00Z", now, &when, NULL), 0);
    struct pk_error err = { 0 };
    assert_int_equal(pk_time_parse_user("tomorrow", now, &when, &err), PK_E_INVALID);
    assert_non_null(strstr(err.hint, "yesterday"));
}

static void test_clocks(void **state)
{
    (void)state;
    pk_nsec start = pk_time_monotonic();
    pk_sleep_ms(5);
    assert_true(pk_time_monotonic() - start >= 5 * PK_NSEC_PER_MS);
    assert_true(pk_time_now() > 1700000000 * PK_NSEC_PER_SEC);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rfc3339), cmocka_unit_test(test_what_is_no_time),
        cmocka_unit_test(test_format),  cmocka_unit_test(test_for_users),
        cmocka_unit_test(test_clocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
