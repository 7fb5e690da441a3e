/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "pk_test.h"

#include "base/fs.h"
#include "base/json.h"
#include "cli/cli.h"

static char shown[16384];

/* What a call writes to a stream. A file in memory: a pipe would fill up. */
#define CAPTURE(stream, call)                                    \
    do {                                                         \
        (void)fflush(stream);                                    \
        FILE *file_ = tmpfile();                                 \
        int saved_ = dup(fileno(stream));                        \
        assert_non_null(file_);                                  \
        assert_true(dup2(fileno(file_), fileno(stream)) >= 0);   \
        call;                                                    \
        (void)fflush(stream);                                    \
        assert_true(dup2(saved_, fileno(stream)) >= 0);          \
        (void)close(saved_);                                     \
        rewind(file_);                                           \
        shown[fread(shown, 1, sizeof(shown) - 1, file_)] = '\0'; \
        (void)fclose(file_);                                     \
    } while (0)

static const struct pk_table_column columns[] = {
    { "NAME", "name", 1, false, NULL },       { "STATE", "state", 1, false, "state" },
    { "BYTES", "n.bytes", 2, true, "bytes" }, { "NOTE", "note", 3, false, NULL },
    { "EXTRA", "extra", 0, false, NULL },
};

static json_t *rows(void)
{
    json_t *json = json_loads(
        "[{\"name\":\"web\",\"state\":\"running\",\"n\":{\"bytes\":1536},\"note\":\"a\\nb\\u001b[31m\","
        "\"extra\":[1,2]},{\"name\":\"w\\u00e4\",\"state\":\"failed\",\"note\":null,\"extra\":true}]",
        0, NULL);
    assert_non_null(json);
    return json;
}

static void print(struct pk_ctx *ctx)
{
    PK_JSON json = rows();
    CAPTURE(stdout,
            assert_int_equal(
                pk_out_table(ctx, NULL, json, columns, PK_ARRAY_SIZE(columns), "name", NULL), 0));
}

static void test_forms(void **state)
{
    (void)state;
    struct pk_ctx ctx = { .output = PK_OUT_TABLE };
    print(&ctx);
    assert_string_equal(shown, "NAME  STATE      BYTES  NOTE\n"
                               "web   running  1.5 KiB  a?b?[31m\n"
                               "w\xc3\xa4    failed         -  -\n");
    ctx.no_headers = true;
    ctx.output = PK_OUT_WIDE;
    print(&ctx);
    assert_string_equal(shown, "web  running  1.5 KiB  a?b?[31m  1,2\n"
                               "w\xc3\xa4   failed         -  -         yes\n");
    ctx.output = PK_OUT_NAME;
    print(&ctx);
    assert_string_equal(shown, "web\nw\xc3\xa4\n");
    ctx.output = PK_OUT_JSON;
    print(&ctx);
    PK_JSON want = rows();
    PK_JSON got = json_loads(shown, 0, NULL);
    assert_true(json_equal(want, got));
    ctx.output = PK_OUT_YAML;
    print(&ctx);
    assert_non_null(strstr(shown, "- name: web\n  state: running\n"));
}

static void test_a_narrow_terminal(void **state)
{
    (void)state;
    /* Off a terminal the width is 80: a tty that is asked for is fitted to that. */
    struct pk_ctx ctx = { .output = PK_OUT_TABLE, .tty = true, .color = true };
    char note[200];
    memset(note, 'x', sizeof(note) - 1);
    note[sizeof(note) - 1] = '\0';
    PK_JSON json = json_pack("[{s:s,s:s,s:s}]", "name", note, "state", "running", "note", note);
    CAPTURE(stdout,
            assert_int_equal(
                pk_out_table(&ctx, NULL, json, columns, PK_ARRAY_SIZE(columns), "name", NULL), 0));
    assert_null(strstr(shown, "NOTE"));                       /* priority 3 went first */
    assert_non_null(strstr(shown, "\xe2\x80\xa6"));           /* the name is cut */
    assert_non_null(strstr(shown, "\033[32mrunning\033[0m")); /* and the state has its colour */
    ctx.tty = ctx.color = false;
    CAPTURE(stdout,
            assert_int_equal(
                pk_out_table(&ctx, NULL, json, columns, PK_ARRAY_SIZE(columns), "name", NULL), 0));
    assert_non_null(strstr(shown, note));
    assert_null(strchr(shown, '\033'));
}

static void test_errors(void **state)
{
    (void)state;
    struct pk_ctx ctx = { .output = PK_OUT_TABLE };
    struct pk_error err = { 0 };
    pk_fail(&err, PK_E_INVALID, "'ring' is unknown\033[2J");
    pk_hint(&err, "write rings");
    pk_error_at(&err, "demo.yaml", 12, 5);
    CAPTURE(stderr, pk_report_error(&ctx, &err));
    assert_string_equal(shown, "picket: demo.yaml:12:5: 'ring' is unknown?[2J\n"
                               "hint: write rings\n");
    ctx.output = PK_OUT_JSON;
    CAPTURE(stderr, pk_report_error(&ctx, &err));
    PK_JSON json = json_loads(shown, 0, NULL);
    assert_string_equal(pk_json_string_or(json, "error.code", ""), "invalid");
    assert_int_equal(pk_json_int_or(json, "error.line", 0), 12);
    struct pk_errors errors = { 0 };
    pk_errors_add(&errors, &err);
    pk_errors_add(&errors, &err);
    CAPTURE(stderr, pk_report_errors(&ctx, &errors));
    PK_JSON list = json_loads(shown, 0, NULL);
    assert_int_equal(json_array_size(json_object_get(list, "errors")), 2);
    pk_errors_done(&errors);
}

static void test_confirming(void **state)
{
    (void)state;
    struct pk_ctx ctx = { .yes = true };
    struct pk_error err = { 0 };
    assert_int_equal(pk_confirm(&ctx, "Really?", &err), 0);
    ctx.yes = false;
    int saved = dup(STDIN_FILENO);
    assert_non_null(freopen("/dev/null", "r", stdin));
    assert_int_equal(pk_confirm(&ctx, "Really?", &err), PK_E_USAGE);
    assert_string_equal(err.hint, "add --yes");
    assert_true(dup2(saved, STDIN_FILENO) >= 0);
    (void)close(saved);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forms),
        cmocka_unit_test(test_a_narrow_terminal),
        cmocka_unit_test(test_errors),
        cmocka_unit_test(test_confirming),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
