/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "pk_test.h"

#include "base/json.h"
#include "catalog/catalog.h"
#include "mustache_test.h"

struct own_case {
    const char *template_text, *data, *want; /* want: NULL = an error */
    unsigned line, col;
};

static const struct own_case own_cases[] = {
    { "a {{x}} b\n", "{\"x\": 3}", "a 3 b\n", 0, 0 },
    { "{{a.b.c}}", "{\"a\": {\"b\": {\"c\": \"deep\"}}}", "deep", 0, 0 },
    { "{{#l}}\n- {{.}}\n{{/l}}\nend", "{\"l\": [1, 2.5, true, \"x\"]}",
      "- 1\n- 2.5\n- true\n- x\nend", 0, 0 },
    { "{{^e}}none{{/e}}{{#e}}some{{/e}}", "{\"e\": \"\"}", "none", 0, 0 },
    { "{{#version.7}}seven{{/version.7}}", "{\"version\": {\"7\": true}}", "seven", 0, 0 },
    { "{{missing}}|{{a.missing}}", "{\"a\": {}, \"missing2\": 1}", "|", 0, 0 },
    { "x = \"{{v}}\"", "{\"v\": \"<&>\"}", "x = \"<&>\"", 0, 0 },
    { "ok\n  {{#a}}", "{}", NULL, 2, 6 },
    { "ok\n{{/a}}", "{}", NULL, 2, 1 },
    { "{{#a}}{{#b}}{{/a}}{{/b}}", "{}", NULL, 1, 13 },
    { "a\n\n {{open", "{}", NULL, 3, 2 },
    { "{{}}", "{}", NULL, 1, 1 },
    { "{{=<%=}}", "{}", NULL, 1, 1 },
    { "{{$block}}{{/block}}", "{}", NULL, 1, 1 },
    { "{{map}}", "{\"map\": {}}", NULL, 1, 3 },
};

static void test_own_cases(void **state)
{
    (void)state;
    for (size_t i = 0; i < PK_ARRAY_SIZE(own_cases); i++) {
        const struct own_case *c = &own_cases[i];
        PK_JSON data = json_loads(c->data, 0, NULL);
        struct pk_error err = { 0 };
        PK_CLEANUP(pk_free_p) char *out = render(c->template_text, data, NULL, false, &err);
        if (c->want != NULL) {
            assert_non_null(out);
            assert_string_equal(out, c->want);
            continue;
        }
        if (out != NULL)
            fail_msg("%s gave %s", c->template_text, out);
        assert_int_equal(err.code, PK_E_INVALID);
        assert_int_equal(err.line, c->line);
        assert_int_equal(err.col, c->col);
        assert_true(err.hint[0] != '\0');
    }
}

static void test_bounds(void **state)
{
    (void)state;
    struct pk_error err = { 0 };
    PK_JSON partials = json_pack("{s:s, s:s}", "loop", "{{>loop}}", "fork", "{{>fork}}{{>fork}}");
    PK_JSON data = json_loads("{\"l\": [1,2,3,4,5,6,7,8,9,0], \"f\": \"x\"}", 0, NULL);
    assert_null(render("{{>loop}}", data, partials, false, &err));
    assert_null(render("{{>fork}}", data, partials, false, &err));
    /* 10^12 turns that write nothing, and as many that write much */
    char text[512] = "", tail[256] = "";
    for (int i = 0; i < 12; i++) {
        strcat(text, "{{#l}}");
        strcat(tail, "{{/l}}");
    }
    strcat(text, tail);
    assert_null(render(text, data, NULL, false, &err));
    assert_int_equal(err.code, PK_E_INVALID);
    text[12 * 6] = '\0';
    strcat(text, "0123456789012345678901234567890123456789");
    strcat(text, tail);
    assert_null(render(text, data, NULL, false, &err));
    assert_int_equal(err.code, PK_E_NOSPACE);
}

static void test_every_allocation_may_fail(void **state)
{
    (void)state;
    PK_JSON data = json_loads("{\"l\": [1, 2], \"x\": \"<\"}", 0, NULL);
    PK_JSON partials = json_pack("{s:s}", "p", "[{{x}}]\n");
    const char *text = "{{#l}}\n  {{>p}}\n{{/l}}\n";
    int r = 0;
    PK_TEST_EACH_ALLOC_FAILS(r, {
        char *out = NULL;
        size_t len;
        struct pk_error err;
        r = pk_mustache_render("t", text, strlen(text), data, partial_of_json, partials, true, &out,
                               &len, &err);
        pk_free(out);
    });
    assert_int_equal(r, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_own_cases),
        cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
