/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "pk_test.h"

#include "base/buf.h"
#include "base/doc.h"
#include "base/json.h"

static struct pk_doc *parse(const char *text)
{
    struct pk_doc *doc = NULL;
    struct pk_error err = { 0 };
    int r = pk_doc_parse("f.yaml", text, strlen(text), &doc, &err);
    if (r < 0)
        print_error("%s:%u:%u: %s\n", err.file, err.line, err.col, err.msg);
    assert_int_equal(r, 0);
    return doc;
}

static void assert_json(const char *text, const char *want)
{
    PK_CLEANUP(pk_doc_free_p) struct pk_doc *doc = parse(text);
    PK_JSON json = pk_node_to_json(pk_doc_root(doc));
    PK_CLEANUP(pk_free_p) char *got = pk_json_compact(json);
    assert_string_equal(got, want);
}

static void test_core_schema(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        { "", "null" },
        { "# only a comment\n", "null" },
        { "[~, null, Null, NULL, ]", "[null,null,null,null]" },
        { "[true, True, FALSE, yes, on]", "[true,true,false,\"yes\",\"on\"]" },
        { "[0, -1, +7, 007, 0o17, 0x1F]", "[0,-1,7,7,15,31]" },
        { "[9223372036854775807, -9223372036854775808]",
          "[9223372036854775807,-9223372036854775808]" },
        { "[1.5, -.5, 1e3, 2.]", "[1.5,-0.5,1000.0,2.0]" },
        { "[0o8, 0xg, 1_000, 1:30, .]", "[\"0o8\",\"0xg\",\"1_000\",\"1:30\",\".\"]" },
        { "['1', \"true\", '']", "[\"1\",\"true\",\"\"]" },
        { "[!!str 12, !!int 12, !!float 1, ! 5]", "[\"12\",12,1.0,\"5\"]" },
        { "a: |\n  x\n  y\nb: >-\n  p\n  q\n", "{\"a\":\"x\\ny\\n\",\"b\":\"p q\"}" },
        { "a: &x {b: 1}\nc: *x\n", "{\"a\":{\"b\":1},\"c\":{\"b\":1}}" },
        { "{\"a\": [1, {\"b\": null}]}", "{\"a\":[1,{\"b\":null}]}" },
        { "%YAML 1.2\n---\na: 1\n...\n", "{\"a\":1}" },
        { "a: \"\\u00e4\\U0001F600\"", "{\"a\":\"\xc3\xa4\xf0\x9f\x98\x80\"}" },
    };
    for (size_t i = 0; i < PK_ARRAY_SIZE(cases); i++)
        assert_json(cases[i][0], cases[i][1]);
}

static void assert_place(const struct pk_node *node, unsigned key_line, unsigned key_col,
                         unsigned line, unsigned col)
{
    assert_non_null(node);
    assert_int_equal(node->key_line, key_line);
    assert_int_equal(node->key_col, key_col);
    assert_int_equal(node->line, line);
    assert_int_equal(node->col, col);
}

static void test_positions(void **state)
{
    (void)state;
    PK_CLEANUP(pk_doc_free_p)
    struct pk_doc *doc = parse("taps:\n"
                               "  - name: \"web\"\n"
                               "    empty:\n"
                               "    anchored: &a x\n"
                               "    again: *a\n"
                               "'k/~': {in: [1, 'two']}\n");
    const struct pk_node *root = pk_doc_root(doc);
    assert_place(root, 0, 0, 1, 1);
    assert_place(pk_node_resolve(root, "/taps/0/name"), 2, 5, 2, 11);
    assert_place(pk_node_resolve(root, "/taps/0/empty"), 3, 5, 3, 5);
    assert_place(pk_node_resolve(root, "/taps/0/anchored"), 4, 5, 4, 18);
    assert_place(pk_node_resolve(root, "/taps/0/again"), 5, 5, 5, 12);
    assert_place(pk_node_resolve(root, "/k~1~0/in/1"), 0, 0, 6, 17);
    /* As far as it goes. */
    assert_ptr_equal(pk_node_resolve(root, "/taps/7/name"), pk_node_get(root, "taps"));
    assert_ptr_equal(pk_node_resolve(root, ""), root);
    assert_null(pk_node_get(root, "tap"));
    assert_null(pk_node_get(pk_node_get(root, "taps"), "x"));
    assert_string_equal(pk_doc_name(doc), "f.yaml");
    struct pk_error err = { 0 };
    assert_int_equal(pk_node_fail(doc, root, &err, "no %s", "good"), PK_E_INVALID);
    assert_string_equal(err.msg, "no good");
    assert_int_equal(err.line, 1);
}

static void test_faults_have_positions(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        unsigned line, col;
        const char *message;
    } cases[] = {
        { "a: 1\nb: 2\na: 3\n", 3, 1, "key 'a' is given twice: first at line 1, column 1" },
        { "x:\n  \"a\": 1\n  'a': 2", 3, 3, "twice" },
        { "a: [1, 2", 2, 1, "closing bracket" },
        { "a: b: c", 1, 5, "not valid YAML" },
        { "a:\n\tb: 1", 2, 1, "tab" },
        { "a: *b", 1, 4, "no anchor" },
        { "a: &a [1, *a]", 1, 11, "contains itself" },
        { "a\n---\nb", 2, 1, "second document" },
        { "a: !include x", 1, 13, "tag" },
        { "a: !!int x", 1, 10, "tag asks for" },
        { "? [a]\n: b", 1, 3, "key cannot be" },
        { "a: 18446744073709551616", 1, 4, "can be represented" },
        { "a: .inf", 1, 4, "can be represented" },
        { "a: 1e999", 1, 4, "can be represented" },
        { "a: \xff", 1, 4, "not UTF-8" },
        { "a: \"x\\0y\"", 1, 4, "NUL" },
    };
    for (size_t i = 0; i < PK_ARRAY_SIZE(cases); i++) {
        struct pk_doc *doc = NULL;
        struct pk_error err = { 0 };
        assert_int_equal(pk_doc_parse("f", cases[i].text, strlen(cases[i].text), &doc, &err),
                         PK_E_INVALID);
        assert_null(doc);
        if (strstr(err.msg, cases[i].message) == NULL || err.line != cases[i].line ||
            err.col != cases[i].col)
            fail_msg("%s\n-> %u:%u %s", cases[i].text, err.line, err.col, err.msg);
        assert_true(err.hint[0] != '\0');
        assert_string_equal(err.file, "f");
    }
}

static void test_limits(void **state)
{
    (void)state;
    struct pk_doc *doc = NULL;
    struct pk_error err = { 0 };
    struct pk_buf bomb = PK_BUF_INIT(1 << 20);
    assert_int_equal(pk_buf_puts(&bomb, "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"), 0);
    for (int i = 1; i < 10; i++) /* ten to the tenth values */
        assert_int_equal(pk_buf_printf(&bomb,
                                       "a%d: &a%d [*a%d, *a%d, *a%d, *a%d, *a%d, *a%d, *a%d, "
                                       "*a%d, *a%d, *a%d]\n",
                                       i, i, i - 1, i - 1, i - 1, i - 1, i - 1, i - 1, i - 1, i - 1,
                                       i - 1, i - 1),
                         0);
    assert_int_equal(pk_doc_parse("f", bomb.data, bomb.len, &doc, &err), PK_E_INVALID);
    assert_non_null(strstr(err.msg, "more than"));
    pk_buf_clear(&bomb);
    for (int i = 0; i < 100; i++)
        assert_int_equal(pk_buf_putc(&bomb, '['), 0);
    assert_int_equal(pk_doc_parse("f", bomb.data, bomb.len, &doc, &err), PK_E_INVALID);
    pk_buf_done(&bomb);
    struct pk_buf big = PK_BUF_INIT(8 << 20);
    assert_int_equal(pk_buf_reserve(&big, PK_DOC_MAX_BYTES + 1), 0);
    memset(big.data, ' ', PK_DOC_MAX_BYTES + 1);
    assert_int_equal(pk_doc_parse("f", big.data, PK_DOC_MAX_BYTES + 1, &doc, &err), PK_E_INVALID);
    assert_non_null(strstr(err.msg, "larger"));
    pk_buf_done(&big);
}

static void test_without_memory(void **state)
{
    (void)state;
    static const char text[] = "a: &x [1, 'b', {c: ~}]\nd: *x\ne: |\n  long\n";
    int r = 0;
    PK_TEST_EACH_ALLOC_FAILS(r, {
        struct pk_doc *doc = NULL;
        r = pk_doc_parse("f", text, strlen(text), &doc, NULL);
        assert_true((r == 0) == (doc != NULL));
        pk_doc_free(doc);
    });
    PK_CLEANUP(pk_doc_free_p) struct pk_doc *doc = parse(text);
    PK_TEST_EACH_ALLOC_FAILS(r, {
        PK_JSON json = pk_node_to_json(pk_doc_root(doc));
        PK_CLEANUP(pk_free_p) char *yaml = json == NULL ? NULL : pk_yaml_of_json(json);
        r = yaml == NULL ? PK_E_NOMEM : 0;
    });
}

static void test_yaml_reads_back(void **state)
{
    (void)state;
    static const char *const strings[] = {
        "",
        " ",
        "a",
        "1",
        "-1",
        "0x1f",
        "1.5",
        ".inf",
        "true",
        "Null",
        "~",
        "yes",
        "-",
        "- a",
        "-a",
        "?",
        "? a",
        ":a",
        "a:",
        "a: b",
        "a:b",
        "a #b",
        "a#b",
        "#a",
        "&a",
        "*a",
        "!a",
        "|",
        ">",
        "'a'",
        "\"a\"",
        "%a",
        "@a",
        "`a`",
        "[a",
        "{a",
        "a,b",
        "---",
        "--- x",
        "...",
        "a ",
        " a",
        "a\nb",
        "a\nb\n",
        "a\n\nb",
        "a\n\nb\n\n",
        "\n",
        "\na",
        " a\nb",
        "a\n  b\n",
        "a\n# b\n",
        "a\tb",
        "\ta",
        "a\r\nb",
        "\x01",
        "\x7f",
        "\xc2\x85",
        "\xe2\x80\xa8x",
        "\xef\xbb\xbfx",
        "\xc3\xa4",
        "\xf0\x9f\x98\x80",
        "a\\b",
        "C:\\x",
        "10.0.0.0/8",
        "http://x:80/",
        "2026-11-23",
        "<<",
        "=",
        "1e3",
        "0o7",
        "+1",
        "1_0",
        "a\n---\nb",
        "x: |\n  y",
        "\xef\xbf\xbe",
        "key\n: v",
        "a\n%b\n",
    };
    static const char shapes[] =
        "{\"empty\":[],\"none\":{},\"nest\":[[],[[1,2],[3]],{}],\"maps\":[{\"a\":1,\"b\":[{\"c\":2}]}],"
        "\"third\":0.33333333333333331,\"one\":1.0,\"big\":1e300,\"nothing\":null,\"no\":false}";
    PK_JSON all = json_loads(shapes, 0, NULL);
    assert_non_null(all);
    json_t *list = json_array();
    for (size_t i = 0; i < PK_ARRAY_SIZE(strings); i++) {
        assert_int_equal(json_array_append_new(list, json_string(strings[i])), 0);
        assert_int_equal(json_object_set_new(all, strings[i], json_string(strings[i])), 0);
    }
    assert_int_equal(json_object_set_new(all, "list", list), 0);
    char longkey[1500];
    memset(longkey, 'k', sizeof(longkey) - 1);
    longkey[sizeof(longkey) - 1] = '\0';
    assert_int_equal(json_object_set_new(all, longkey, json_pack("{s:[i,i]}", "deep", 1, 2)), 0);

    PK_CLEANUP(pk_free_p) char *yaml = pk_yaml_of_json(all);
    assert_non_null(yaml);
    PK_CLEANUP(pk_doc_free_p) struct pk_doc *doc = parse(yaml);
    PK_JSON again = pk_node_to_json(pk_doc_root(doc));
    PK_CLEANUP(pk_free_p) char *want = pk_json_pretty(all);
    PK_CLEANUP(pk_free_p) char *got = pk_json_pretty(again);
    assert_string_equal(got, want);
    PK_CLEANUP(pk_free_p) char *yaml_again = pk_yaml_of_json(again);
    assert_string_equal(yaml_again, yaml);
    for (size_t i = 0; i < PK_ARRAY_SIZE(strings); i++) { /* and each alone, as the root */
        PK_JSON one = json_string(strings[i]);
        PK_CLEANUP(pk_free_p) char *text = pk_yaml_of_json(one);
        PK_CLEANUP(pk_doc_free_p) struct pk_doc *single = parse(text);
        assert_string_equal(pk_doc_root(single)->text, strings[i]);
        assert_int_equal(pk_doc_root(single)->kind, PK_NODE_STRING);
    }
}

static void test_yaml_looks_as_people_write_it(void **state)
{
    (void)state;
    PK_JSON json = json_pack("{s:s,s:[s,s],s:{s:i,s:b},s:[{s:s,s:n}],s:s}", "name", "demo", "taps",
                             "eth1", "10.0.0.0/8", "limits", "memory", 3, "on", 1, "lanes", "name",
                             "-a", "size", "note", "one\ntwo\n");
    PK_CLEANUP(pk_free_p) char *yaml = pk_yaml_of_json(json);
    assert_string_equal(yaml, "name: demo\n"
                              "taps:\n"
                              "  - eth1\n"
                              "  - 10.0.0.0/8\n"
                              "limits:\n"
                              "  memory: 3\n"
                              "  \"on\": true\n"
                              "lanes:\n"
                              "  - name: -a\n"
                              "    size: null\n"
                              "note: |\n"
                              "  one\n"
                              "  two\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_core_schema),
        cmocka_unit_test(test_positions),
        cmocka_unit_test(test_faults_have_positions),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_without_memory),
        cmocka_unit_test(test_yaml_reads_back),
        cmocka_unit_test(test_yaml_looks_as_people_write_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
