/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "pk_test.h"

#include "base/json.h"

static json_t *parse(const char *text)
{
    json_t *json = NULL;
    assert_int_equal(pk_json_parse("t", text, strlen(text), &json, NULL), 0);
    return json;
}

static void test_faults_have_positions(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        unsigned line, col;
        const char *hint;
    } cases[] = {
        { "", 1, 1, "position" },
        { "{\n  \"a\": 1,\n}", 3, 1, "position" },
        { "{\"a\": 1, \"a\": 2}", 1, 12, "remove one" },
        { "[18446744073709551616]", 1, 21, "position" },
        { "[1] x", 1, 5, "position" },
    };
    for (size_t i = 0; i < PK_ARRAY_SIZE(cases); i++) {
        json_t *json = NULL;
        struct pk_error err = { 0 };
        assert_int_equal(pk_json_parse("f.json", cases[i].text, strlen(cases[i].text), &json, &err),
                         PK_E_INVALID);
        assert_null(json);
        assert_string_equal(err.file, "f.json");
        if (err.line != cases[i].line || err.col != cases[i].col)
            fail_msg("%s: %u:%u %s", cases[i].text, err.line, err.col, err.msg);
        assert_non_null(strstr(err.hint, cases[i].hint));
    }
    json_t *json = NULL;
    assert_int_equal(pk_json_load("/nonexistent.json", &json, NULL), PK_E_NOTFOUND);
    assert_null(json);
}

static void test_printing(void **state)
{
    (void)state;
    PK_JSON a = parse("{\"b\": [1, 2.5, \"\xc3\xa4/\"], \"a\": {\"d\": null, \"c\": true}}");
    PK_JSON b = parse("{\"a\": {\"c\": true, \"d\": null}, \"b\": [1, 2.5, \"\xc3\xa4/\"]}");
    PK_CLEANUP(pk_free_p) char *canonical_a = pk_json_canonical(a);
    PK_CLEANUP(pk_free_p) char *canonical_b = pk_json_canonical(b);
    assert_string_equal(canonical_a, canonical_b);
    assert_string_equal(canonical_a, "{\"a\":{\"c\":true,\"d\":null},\"b\":[1,2.5,\"\xc3\xa4/\"]}");
    PK_CLEANUP(pk_free_p) char *compact = pk_json_compact(a);
    assert_string_equal(compact, "{\"b\":[1,2.5,\"\xc3\xa4/\"],\"a\":{\"d\":null,\"c\":true}}");
    PK_JSON small = parse("{\"k\":[1]}");
    PK_CLEANUP(pk_free_p) char *pretty = pk_json_pretty(small);
    assert_string_equal(pretty, "{\n  \"k\": [\n    1\n  ]\n}");
}

static void test_getters(void **state)
{
    (void)state;
    PK_JSON json = parse("{\"a\":{\"b\":{\"n\":7,\"s\":\"x\",\"t\":true,\"m\":-1}}}");
    uint64_t number = 1;
    const char *text = "old";
    struct pk_error err = { 0 };
    assert_int_equal(pk_json_get_u64(json, "a.b.n", &number, &err), 0);
    assert_int_equal(number, 7);
    assert_int_equal(pk_json_get_u64(json, "a.b.m", &number, &err), PK_E_INVALID);
    assert_int_equal(pk_json_get_u64(json, "a.b.s", &number, &err), PK_E_INVALID);
    assert_int_equal(pk_json_get_u64(json, "a.x.n", &number, &err), PK_E_NOTFOUND);
    assert_non_null(strstr(err.msg, "a.x.n"));
    assert_int_equal(number, 7);
    assert_int_equal(pk_json_get_string(json, "a.b.s", &text, &err), 0);
    assert_string_equal(text, "x");
    assert_int_equal(pk_json_get_string(json, "a.b.n", &text, &err), PK_E_INVALID);
    assert_int_equal(pk_json_get_string(json, "", &text, &err), PK_E_NOTFOUND);
    assert_string_equal(pk_json_string_or(json, "a.b.n", "other"), "other");
    assert_int_equal(pk_json_int_or(json, "a.b.m", 5), -1);
    assert_int_equal(pk_json_int_or(NULL, "a", 5), 5);
    assert_true(pk_json_bool_or(json, "a.b.t", false));
    assert_true(pk_json_bool_or(json, "a.b.n", true));
    char longpath[300];
    memset(longpath, 'k', sizeof(longpath) - 1);
    longpath[sizeof(longpath) - 1] = '\0';
    assert_null(pk_json_at(json, longpath));
}

static void test_errors_as_json(void **state)
{
    (void)state;
    struct pk_error err = { 0 }, back = { 0 };
    pk_fail(&err, PK_E_INVALID, "wrong \xff byte");
    pk_hint(&err, "do this");
    pk_error_at(&err, "f", 3, 4);
    PK_JSON json = pk_json_of_error(&err);
    assert_non_null(json);
    pk_json_to_error(json, &back);
    assert_int_equal(back.code, PK_E_INVALID);
    assert_string_equal(back.msg, "wrong ? byte");
    assert_string_equal(back.hint, "do this");
    assert_string_equal(back.file, "f");
    assert_int_equal(back.line, 3);
    assert_int_equal(back.col, 4);
    /* What a server sends that is none of ours. */
    static const char *const odd[] = { "{}", "[]", "{\"code\":\"ok\"}",
                                       "{\"code\":7,\"line\":-1}" };
    for (size_t i = 0; i < PK_ARRAY_SIZE(odd); i++) {
        PK_JSON strange = parse(odd[i]);
        pk_json_to_error(strange, &back);
        assert_int_equal(back.code, PK_E_INTERNAL);
        assert_int_equal(back.line, 0);
    }
    int r = 0;
    PK_TEST_EACH_ALLOC_FAILS(r, {
        PK_JSON partial = pk_json_of_error(&err);
        r = partial == NULL ? PK_E_NOMEM : 0;
    });
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_faults_have_positions),
        cmocka_unit_test(test_printing),
        cmocka_unit_test(test_getters),
        cmocka_unit_test(test_errors_as_json),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
