/* SPDX-License-Identifier: Apache-2.0 */
#include "pk_test.h"

#include <string.h>

#include "store/query.h"

static void test_sql(void **state)
{
    (void)state;
    static const struct {
        const char *text, *where;
        size_t params;
    } cases[] = {
        { NULL, "true", 0 },
        { "  ", "true", 0 },
        { "dst_port:53", "(\"dst_port\" = $1)", 1 },
        { "dest_port>=53", "(\"dst_port\" >= $1)", 1 },
        { "type:alert", "(\"type\" = lower($1))", 1 },
        { "host:*", "(\"host\" IS NOT NULL)", 0 },
        { "url:/a*", "(\"url\" ILIKE $1 ESCAPE '\\')", 1 },
        { "ip:10.0.0.0/8", "(picket_in_net(\"src_ip\", $1) OR picket_in_net(\"dst_ip\", $2))", 2 },
        { "src_ip:2001:DB8::1", "(\"src_ip\" = $1)", 1 },
        { "a b", "picket_contains(raw, $1) AND picket_contains(raw, $2)", 2 },
        { "NOT (dst_port:1 OR dst_port:2)",
          "NOT coalesce(((\"dst_port\" = $1) OR (\"dst_port\" = $2)), false)", 2 },
        { "ORDER", "picket_contains(raw, $1)", 1 },
        { "stra\u00dfe", "contains(lower(raw), lower($1))", 1 },
    };
    for (size_t i = 0; i < PK_ARRAY_SIZE(cases); i++) {
        struct pk_query query = { 0 };
        struct pk_error err = { 0 };
        assert_int_equal(pk_query_parse(cases[i].text, 0, &query, &err), 0);
        assert_string_equal(query.where, cases[i].where);
        assert_int_equal(query.param_count, cases[i].params);
        pk_query_done(&query);
    }
}

static void test_type(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        { "type:alert", "alert" },
        { "type:Alert dst_port:1", "alert" },
        { "type:alert OR type:dns", "" },
        { "NOT type:alert", "" },
        { "(type:alert)", "" },
        { "type:alert (x OR y)", "alert" },
        { "x OR y type:alert", "" },
        { "type:al*", "" },
        { "type>alert", "" },
    };
    for (size_t i = 0; i < PK_ARRAY_SIZE(cases); i++) {
        struct pk_query query = { 0 };
        assert_int_equal(pk_query_parse(cases[i][0], 0, &query, NULL), 0);
        assert_string_equal(query.type, cases[i][1]);
        pk_query_done(&query);
    }
}

static void test_errors(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        unsigned col;
    } cases[] = {
        { "x dst_prt:1", 3 },
        { "(a", 1 },
        { "a)", 2 },
        { "host:\"x", 6 },
        { "dst_port:abc", 10 },
        { "src_ip:x", 8 },
        { "src_ip:10.0.0.0/33", 8 },
        { "src_ip>10.0.0.1", 8 },
        { "time>gestern", 6 },
        { "()", 2 },
        { "a OR", 5 },
        { "host:", 6 },
        { "\xff", 1 },
    };
    for (size_t i = 0; i < PK_ARRAY_SIZE(cases); i++) {
        struct pk_query query;
        struct pk_error err = { 0 };
        assert_int_equal(pk_query_parse(cases[i].text, 0, &query, &err), PK_E_USAGE);
        assert_int_equal(err.col, cases[i].col);
        assert_string_not_equal(err.hint, "");
    }
    char deep[200];
    memset(deep, '(', sizeof(deep) - 1);
    deep[sizeof(deep) - 1] = '\0';
    struct pk_query query;
    struct pk_error err = { 0 };
    assert_int_equal(pk_query_parse(deep, 0, &query, &err), PK_E_USAGE);
}

static void test_nomem(void **state)
{
    (void)state;
    struct pk_query query;
    int r = 0;
    PK_TEST_EACH_ALLOC_FAILS(r, {
        r = pk_query_parse("type:alert (host:\"a b\" OR ip:10.0.0.0/8) word", 0, &query, NULL);
        if (r == 0)
            pk_query_done(&query);
    });
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sql),
        cmocka_unit_test(test_type),
        cmocka_unit_test(test_errors),
        cmocka_unit_test(test_nomem),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
