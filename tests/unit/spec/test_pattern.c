/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "pk_test.h"

#include "spec/pattern.h"

static const struct {
    const char *pattern, *text;
    bool match;
} cases[] = {
    { "", "", true },
    { "^$", "", true },
    { "^$", "a", false },
    { "a+", "xxaayy", true },
    { "^a*$", "aaa", true },
    { "^a*$", "aab", false },
    { "^(ab|cd|)x$", "cdx", true },
    { "^(ab|cd|)x$", "x", true },
    { "^(ab|cd)x$", "x", false },
    { "^(a|b|c|d)+$", "dcba", true },
    { "^a{2,3}$", "a", false },
    { "^a{2,3}$", "aaa", true },
    { "^a{2,3}$", "aaaa", false },
    { "^a{2}$", "aa", true },
    { "^a{2,}$", "aaaaa", true },
    { "^a{0}$", "", true },
    { "^(a{0,2}b){2}$", "abaab", true },
    { "^(a{0,2}b){2}$", "aaabb", false },
    { "^(a?b?){3}$", "ababab", true },
    { "^([a-z]{1,2}(\\.[0-9]{1,3}){2}|x)$", "ab.1.234", true },
    { "^[^a-c]+$", "xyz", true },
    { "^[^a-c]+$", "xbz", false },
    { "^[]$", "a", false },
    { "^[^]$", "a", true },
    { "^[a-]+$", "a-a", true },
    { "^[\\w.-]+$", "a_1.b-c", true },
    { "^[\\]\\\\]+$", "]\\", true },
    { "^\\d{3}-\\d{4}$", "555-1234", true },
    { "^\\d$", "\xd9\xa0", false }, /* an Arabic digit */
    { "^\\D\\S\\W$", "ab-", true },
    { "^\\s+$", "\t \xc2\xa0\n", true },
    { "\\bfoo\\b", "a foo b", true },
    { "\\bfoo\\b", "afoob", false },
    { "^.$", "\xc3\xa4", true },
    { "^.$", "\n", false },
    { "^[\xc3\xa4-\xc3\xb6]$", "\xc3\xa5", true },
    { "^\\u00e4\\x41\\cA$",
      "\xc3\xa4"
      "A\x01",
      true },
    { "^a.*?b$", "axxb", true },
    { "^(?:a|b)$", "b", true },
    { "^(a*)*$", "aaaa", true },
    { "^(a*)*b$", "aaaa", false },
    { "(^a|b)c", "xbc", true },
    { "(^a|b)c", "xac", false },
    { "a$|^b", "ba", true },
};

static void test_matches(void **state)
{
    (void)state;
    for (size_t i = 0; i < PK_ARRAY_SIZE(cases); i++) {
        bool match;
        struct pk_error err;
        if (pk_pattern_match(cases[i].pattern, cases[i].text, strlen(cases[i].text), &match, &err) <
            0)
            fail_msg("%s: %s", cases[i].pattern, err.msg);
        if (match != cases[i].match)
            fail_msg("%s on %s: %d", cases[i].pattern, cases[i].text, match);
    }
}

static void test_refused(void **state)
{
    (void)state;
    static const struct {
        const char *pattern;
        int code;
    } bad[] = {
        { "(", PK_E_INVALID },
        { ")", PK_E_INVALID },
        { "[a", PK_E_INVALID },
        { "a**", PK_E_INVALID },
        { "*", PK_E_INVALID },
        { "a{2", PK_E_INVALID },
        { "a{3,2}", PK_E_INVALID },
        { "a{1001}", PK_E_INVALID },
        { "[z-a]", PK_E_INVALID },
        { "[\\d-z]", PK_E_INVALID },
        { "\\", PK_E_INVALID },
        { "\\q", PK_E_INVALID },
        { "\\xg0", PK_E_INVALID },
        { "\\u12", PK_E_INVALID },
        { "(?=a)", PK_E_UNSUPPORTED },
        { "(?<n>a)", PK_E_UNSUPPORTED },
        { "(a)\\1", PK_E_UNSUPPORTED },
        { "\\p{L}", PK_E_UNSUPPORTED },
        { "((((a{1000}){1000}){1000}){1000})", PK_E_INVALID },
        { "(((((){1000}){1000}){1000}){1000})", PK_E_INVALID },
        { "]", PK_E_INVALID },
        { "}", PK_E_INVALID },
    };
    for (size_t i = 0; i < PK_ARRAY_SIZE(bad); i++) {
        struct pk_error err = { 0 };
        if (pk_pattern_check(bad[i].pattern, &err) != bad[i].code)
            fail_msg("%s: %d %s", bad[i].pattern, err.code, err.msg);
    }
    char long_pattern[1200];
    memset(long_pattern, 'a', sizeof(long_pattern));
    long_pattern[sizeof(long_pattern) - 1] = '\0';
    assert_int_equal(pk_pattern_check(long_pattern, NULL), PK_E_INVALID);
}

/* Patterns that take a backtracking matcher for ever. 200,000 bytes of text would not end today. */
static void test_time_is_linear(void **state)
{
    (void)state;
    static const char *const slow[] = { "^(a+)+$", "^(a|aa)+$", "^(a*)*b", "(x+x+)+y",
                                        "^(a?){30}a{30}$" };
    const size_t len = 200000;
    PK_CLEANUP(pk_free_p) char *text = pk_zalloc(len + 1);
    assert_non_null(text);
    memset(text, 'a', len);
    text[len - 1] = '!';
    for (size_t i = 0; i < PK_ARRAY_SIZE(slow); i++) {
        bool match = true;
        assert_int_equal(pk_pattern_match(slow[i], text, len, &match, NULL), 0);
        assert_false(match);
    }
}

static void test_every_allocation_may_fail(void **state)
{
    (void)state;
    int r = 0;
    PK_TEST_EACH_ALLOC_FAILS(r, {
        bool match;
        r = pk_pattern_match("^(a|b)*$", "abab", 4, &match, NULL);
    });
    assert_int_equal(r, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_matches),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_time_is_linear),
        cmocka_unit_test(test_every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
