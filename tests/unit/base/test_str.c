/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "pk_test.h"

#include "base/str.h"

static void test_strv(void **state)
{
    (void)state;
    struct pk_strv a = { 0 }, b = { 0 };
    assert_int_equal(pk_strv_add(&a, "zeek"), 0);
    assert_int_equal(pk_strv_addf(&a, "lane-%d", 7), 0);
    assert_int_equal(pk_strv_copy(&a, &b), 0);
    pk_strv_sort(&b);
    assert_string_equal(b.list[0], "lane-7");
    assert_string_equal(b.list[1], "zeek");
    assert_null(b.list[2]);
    assert_true(pk_strv_contains(&a, "zeek"));
    assert_false(pk_strv_contains(&a, "zee"));
    assert_string_equal(a.list[0], "zeek");
    pk_strv_done(&a);
    pk_strv_done(&b);
    assert_int_equal(a.count, 0);
    assert_null(a.list);
    struct pk_strv empty = { 0 };
    pk_strv_sort(&empty);
    assert_int_equal(pk_strv_copy(&empty, &a), 0);
    assert_null(a.list);
}

static void test_strv_without_memory(void **state)
{
    (void)state;
    struct pk_strv from = { 0 };
    assert_int_equal(pk_strv_add(&from, "a"), 0);
    assert_int_equal(pk_strv_add(&from, "b"), 0);
    int r = 0;
    PK_TEST_EACH_ALLOC_FAILS(r, {
        struct pk_strv copy = { 0 };
        r = pk_strv_copy(&from, &copy);
        if (r < 0)
            assert_null(copy.list);
        pk_strv_done(&copy);
    });
    PK_TEST_EACH_ALLOC_FAILS(r, {
        struct pk_strv strv = { 0 };
        r = pk_strv_addf(&strv, "%d", 1);
        pk_strv_done(&strv);
    });
    pk_strv_done(&from);
}

static void test_names(void **state)
{
    (void)state;
    assert_true(pk_str_is_name("a", 1));
    assert_true(pk_str_is_name("web-1", 5));
    assert_false(pk_str_is_name("web-1", 4));
    const char *const bad[] = { "", "-a", "a-", "A", "a_b", "a.b", "a/b", "\xc3\xa4" };
    for (size_t i = 0; i < PK_ARRAY_SIZE(bad); i++)
        assert_false(pk_str_is_name(bad[i], 20));
    assert_true(pk_str_starts("pk-a", "pk-") && !pk_str_starts("p", "pk-"));
    assert_true(pk_str_ends("a.yaml", ".yaml") && !pk_str_ends("l", ".yaml"));
    assert_true(pk_str_equal(NULL, NULL) && !pk_str_equal(NULL, "") && pk_str_equal("a", "a"));
}

static void test_closest(void **state)
{
    (void)state;
    const char *const keys[] = { "lanes", "memory", "replay", "interface" };
    assert_string_equal(pk_str_closest("lanse", keys, 4), "lanes");
    assert_string_equal(pk_str_closest("memroy", keys, 4), "memory");
    assert_string_equal(pk_str_closest("interfaces", keys, 4), "interface");
    assert_null(pk_str_closest("ring", keys, 4));
    assert_null(pk_str_closest("", keys, 4));
    char longword[200];
    memset(longword, 'x', sizeof(longword) - 1);
    longword[sizeof(longword) - 1] = '\0';
    assert_null(pk_str_closest(longword, keys, 4));
}

static void test_whole_numbers(void **state)
{
    (void)state;
    uint64_t u = 7;
    int64_t i = 7;
    struct pk_error err = { 0 };
    assert_int_equal(pk_parse_u64("18446744073709551615", &u, &err), 0);
    assert_true(u == UINT64_MAX);
    assert_int_equal(pk_parse_i64("-9223372036854775808", &i, &err), 0);
    assert_true(i == INT64_MIN);
    assert_int_equal(pk_parse_i64("9223372036854775807", &i, &err), 0);
    assert_true(i == INT64_MAX);
    const char *const bad[] = { "",   " 1", "1 ", "+", "-", "0x1", "1e3", "18446744073709551616",
                                "--1" };
    for (size_t n = 0; n < PK_ARRAY_SIZE(bad); n++) {
        u = 7;
        assert_int_equal(pk_parse_u64(bad[n], &u, &err), PK_E_INVALID);
        assert_int_equal(u, 7);
        assert_non_null(strstr(err.hint, "digits"));
        assert_int_equal(pk_parse_i64(bad[n], &i, NULL), PK_E_INVALID);
    }
    assert_int_equal(pk_parse_i64("9223372036854775808", &i, &err), PK_E_INVALID);
    assert_int_equal(pk_parse_i64("-9223372036854775809", &i, &err), PK_E_INVALID);
}

static void test_hexadecimal(void **state)
{
    (void)state;
    uint64_t value = 1;
    assert_int_equal(pk_parse_hex("00fFx", 4, &value, NULL), 0);
    assert_int_equal(value, 255);
    assert_int_equal(pk_parse_hex("ffffffffffffffff", 16, &value, NULL), 0);
    assert_true(value == UINT64_MAX);
    static const char *const bad[] = {
        "", "0x1", "g", "@", "`", ":", "/", " 1", "00000000000000001"
    };
    for (size_t i = 0; i < PK_ARRAY_SIZE(bad); i++)
        assert_int_equal(pk_parse_hex(bad[i], strlen(bad[i]), &value, NULL), PK_E_INVALID);
}

static void test_doubles_and_bools(void **state)
{
    (void)state;
    double d = 0;
    bool b = false;
    assert_int_equal(pk_parse_double("-0.25", &d, NULL), 0);
    assert_true(d == -0.25);
    assert_int_equal(pk_parse_double("1e3", &d, NULL), 0);
    assert_true(d == 1000);
    assert_int_equal(pk_parse_double(".5", &d, NULL), 0);
    const char *const bad[] = { "",    ".",     "e3", "1e", "1e+",  "inf",
                                "nan", "0x1p3", " 1", "1 ", "1e999" };
    for (size_t i = 0; i < PK_ARRAY_SIZE(bad); i++)
        assert_int_equal(pk_parse_double(bad[i], &d, NULL), PK_E_INVALID);
    assert_int_equal(pk_parse_bool("yes", &b, NULL), 0);
    assert_true(b);
    assert_int_equal(pk_parse_bool("false", &b, NULL), 0);
    assert_false(b);
    assert_int_equal(pk_parse_bool("1", &b, NULL), PK_E_INVALID);
}

static void test_bytes_round_trip(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint64_t bytes;
        const char *shortest;
    } cases[] = {
        { "0", 0, "0" },
        { "512", 512, "512" },
        { "512B", 512, "512" },
        { "64KiB", 65536, "64KiB" },
        { "65536", 65536, "64KiB" },
        { "1024MiB", 1ull << 30, "1GiB" },
        { "1GB", 1000000000, "1GB" },
        { "1536MiB", 1536ull << 20, "1536MiB" },
        { "15EiB", 15ull << 60, "15EiB" },
    };
    for (size_t i = 0; i < PK_ARRAY_SIZE(cases); i++) {
        uint64_t bytes = 1;
        char out[32];
        assert_int_equal(pk_parse_bytes(cases[i].text, &bytes, NULL), 0);
        assert_true(bytes == cases[i].bytes);
        assert_string_equal(pk_format_bytes(bytes, out, sizeof(out)), cases[i].shortest);
        assert_int_equal(pk_parse_bytes(out, &bytes, NULL), 0);
        assert_true(bytes == cases[i].bytes);
    }
    uint64_t bytes;
    const char *const bad[] = { "", "KiB", "1 KiB", "1.5GiB", "-1", "16EiB", "1kib", "1KiBB" };
    for (size_t i = 0; i < PK_ARRAY_SIZE(bad); i++)
        assert_int_equal(pk_parse_bytes(bad[i], &bytes, NULL), PK_E_INVALID);
}

static void test_durations_round_trip(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        pk_nsec span;
        const char *shortest;
    } cases[] = {
        { "0s", 0, "0s" },
        { "500ms", 500 * PK_NSEC_PER_MS, "500ms" },
        { "90s", 90 * PK_NSEC_PER_SEC, "1m30s" },
        { "1h30m", 5400 * PK_NSEC_PER_SEC, "1h30m" },
        { "30d", 30 * 86400 * PK_NSEC_PER_SEC, "30d" },
        { "2w", 14 * 86400 * PK_NSEC_PER_SEC, "2w" },
        { "1s1ns", PK_NSEC_PER_SEC + 1, "1s1ns" },
        { "9223372036854775807ns", INT64_MAX, "106751d23h47m16s854ms775us807ns" },
    };
    for (size_t i = 0; i < PK_ARRAY_SIZE(cases); i++) {
        pk_nsec span = 1;
        char out[48];
        assert_int_equal(pk_parse_duration(cases[i].text, &span, NULL), 0);
        assert_true(span == cases[i].span);
        assert_string_equal(pk_format_duration(span, out, sizeof(out)), cases[i].shortest);
        assert_int_equal(pk_parse_duration(out, &span, NULL), 0);
        assert_true(span == cases[i].span);
    }
    pk_nsec span;
    const char *const bad[] = { "",       "10",   "s",   "1m1h", "1s1s",
                                "-1s",    "1.5s", "1 s", "1y",   "9223372036854775808ns",
                                "15251w", "1S" };
    for (size_t i = 0; i < PK_ARRAY_SIZE(bad); i++)
        assert_int_equal(pk_parse_duration(bad[i], &span, NULL), PK_E_INVALID);
    char tiny[4]; /* a short buffer is cut, never overrun */
    assert_int_equal(strlen(pk_format_duration(INT64_MAX, tiny, sizeof(tiny))), 3);
}

static void test_for_people(void **state)
{
    (void)state;
    char out[32];
    assert_string_equal(pk_human_bytes(0, out, 32), "0 B");
    assert_string_equal(pk_human_bytes(1023, out, 32), "1023 B");
    assert_string_equal(pk_human_bytes(1024, out, 32), "1.0 KiB");
    assert_string_equal(pk_human_bytes((1ull << 20) - 1, out, 32), "1.0 MiB");
    assert_string_equal(pk_human_bytes(UINT64_MAX, out, 32), "16.0 EiB");
    assert_string_equal(pk_human_count(999, out, 32), "999");
    assert_string_equal(pk_human_count(12345, out, 32), "12.3k");
    assert_string_equal(pk_human_count(999999, out, 32), "1.0M");
    assert_string_equal(pk_human_duration(125 * PK_NSEC_PER_SEC, out, 32), "2m");
    assert_string_equal(pk_human_duration(0, out, 32), "0s");
    assert_string_equal(pk_human_duration(14 * 86400 * PK_NSEC_PER_SEC, out, 32), "14d");
}

static size_t encode(uint32_t c, char out[4])
{
    size_t len = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (size_t i = len; i > 1; i--, c >>= 6)
        out[i - 1] = (char)(0x80 | (c & 0x3f));
    static const unsigned char leads[] = { 0, 0, 0xc0, 0xe0, 0xf0 };
    out[0] = (char)(leads[len] | c);
    return len;
}

/* Every number that four bytes can hold: a character, or the place where the text is wrong. */
static void test_utf8(void **state)
{
    (void)state;
    char text[16] = "0123456789"; /* more than the eight that are looked at together */
    for (uint32_t c = 0; c < 0x120000; c++) {
        bool good = c < 0x110000 && (c < 0xd800 || c > 0xdfff);
        size_t len = encode(c, text + 10);
        assert_int_equal(pk_utf8_prefix(text, 10 + len), good ? 10 + len : 10);
        assert_int_equal(pk_utf8_prefix(text, 10 + len - 1), 10); /* cut */
        const char *at = text + 10;
        assert_int_equal(pk_utf8_next(&at, text + 10 + len), good ? c : 0xfffd);
        assert_int_equal(at - (text + 10), good ? len : 1);
    }
    static const char *const wrong[] = { "\x80",         "\xc0\x80",         "\xc1\xbf",
                                         "\xe0\x9f\xbf", "\xf0\x8f\xbf\xbf", "\xf5\x80\x80\x80",
                                         "\xff" };
    for (size_t i = 0; i < PK_ARRAY_SIZE(wrong); i++)
        assert_int_equal(pk_utf8_prefix(wrong[i], strlen(wrong[i])), 0);
    assert_int_equal(pk_utf8_prefix("", 0), 0);
}

static void test_digests(void **state)
{
    (void)state;
    char out[65];
    pk_hex("\x00\xab\xff", 3, out);
    assert_string_equal(out, "00abff");
    pk_sha256_hex("abc", 3, out); /* FIPS 180-4's example */
    assert_string_equal(out, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_strv),
        cmocka_unit_test(test_strv_without_memory),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_closest),
        cmocka_unit_test(test_whole_numbers),
        cmocka_unit_test(test_hexadecimal),
        cmocka_unit_test(test_doubles_and_bools),
        cmocka_unit_test(test_bytes_round_trip),
        cmocka_unit_test(test_durations_round_trip),
        cmocka_unit_test(test_for_people),
        cmocka_unit_test(test_utf8),
        cmocka_unit_test(test_digests),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
