/* SPDX-License-Identifier: Apache-2.0 */
/* The command line against the real table of commands. */
#include <string.h>

#include "pk_test.h"

#include "cli/parse.h"

#define PARSE(parsed, err, ...) \
    parse_words((const char *[]){ "picket", __VA_ARGS__, NULL }, parsed, err)

static int parse_words(const char **words, struct pk_parsed *ret_parsed, struct pk_error *err)
{
    char **argv = (char **)(uintptr_t)words; /* as main() gets them; nothing writes to them */
    int argc = 0;
    while (argv[argc] != NULL)
        argc++;
    *err = (struct pk_error){ 0 };
    *ret_parsed = (struct pk_parsed){ 0 };
    return pk_parse(argc, argv, ret_parsed, err);
}

static void test_options_stand_anywhere(void **state)
{
    (void)state;
    struct pk_parsed p;
    struct pk_error err;
    assert_int_equal(PARSE(&p, &err, "--run-dir", "/r", "-q", "plan", "-ojson", "f.yaml",
                           "--state-dir=/s", "--exit-code"),
                     0);
    assert_string_equal(p.cmd->name, "plan");
    assert_string_equal(p.globals.run_dir, "/r");
    assert_string_equal(p.globals.state_dir, "/s");
    assert_string_equal(p.globals.output, "json");
    assert_true(p.globals.quiet);
    assert_int_equal(p.rest_count, 1);
    assert_string_equal(p.rest[0], "f.yaml");
    assert_true(*(const bool *)p.args); /* plan's only option */
    pk_parsed_done(&p);
    assert_int_equal(PARSE(&p, &err, "plan", "--", "--exit-code"), 0);
    assert_string_equal(p.rest[0], "--exit-code");
    pk_parsed_done(&p);
    assert_int_equal(PARSE(&p, &err, "plan", "-"), 0);
    assert_string_equal(p.rest[0], "-");
    pk_parsed_done(&p);
}

static void test_two_words_and_other_names(void **state)
{
    (void)state;
    struct pk_parsed p;
    struct pk_error err;
    assert_int_equal(PARSE(&p, &err, "token", "list"), 0);
    assert_string_equal(p.cmd->name, "token list");
    pk_parsed_done(&p);
    assert_int_equal(PARSE(&p, &err, "deploy", "f.yaml"), 0);
    assert_string_equal(p.cmd->name, "apply");
    pk_parsed_done(&p);
    assert_int_equal(PARSE(&p, &err, "token", "--help"), 0);
    assert_null(p.cmd);
    assert_string_equal(p.group, "token");
    assert_true(p.globals.help);
    pk_parsed_done(&p);
    assert_int_equal(PARSE(&p, &err, "plan", "--help"), 0); /* without its argument */
    pk_parsed_done(&p);
}

static void assert_usage(const char **argv, const char *message, const char *hint)
{
    struct pk_parsed p;
    struct pk_error err;
    assert_int_equal(parse_words(argv, &p, &err), PK_E_USAGE);
    assert_int_equal(err.code, PK_E_USAGE);
    assert_null(p.args);
    if (strstr(err.msg, message) == NULL || strstr(err.hint, hint) == NULL)
        fail_msg("%s (%s)", err.msg, err.hint);
}
#define USAGE(message, hint, ...) \
    assert_usage((const char *[]){ "picket", __VA_ARGS__, NULL }, message, hint)

static void test_slips_get_hints(void **state)
{
    (void)state;
    USAGE("no command 'pln'", "'picket plan'", "pln");
    USAGE("no command 'xyzzy'", "picket help", "xyzzy");
    USAGE("no command 'token lst'", "'picket token list'", "token", "lst");
    USAGE("one more word", "create", "token");
    USAGE("no option '--exit-cod'", "'--exit-code'", "plan", "--exit-cod", "f");
    USAGE("no option '-Z'", "--help", "plan", "-Z", "f");
    USAGE("needs FLEET", "usage: picket plan", "plan");
    USAGE("one argument too many", "usage: picket plan", "plan", "a", "b");
    USAGE("'jsn' is not possible", "table|wide|json", "plan", "f", "-o", "jsn");
    USAGE("needs a value", "--run-dir DIR", "plan", "f", "--run-dir");
    USAGE("takes no value", "--exit-code alone", "plan", "f", "--exit-code=1");
    USAGE("does not take --output", "leave it out", "completion", "bash", "-o", "json");
    USAGE("option --interval", "write numbers with units", "status", "--interval", "soon");
}

static void test_without_memory(void **state)
{
    (void)state;
    /* The two that matter: the options' struct and the arguments. */
    for (unsigned long nth = 1; nth <= 2; nth++) {
        struct pk_parsed p;
        struct pk_error err;
        pk_alloc_fail_nth(nth);
        int r = PARSE(&p, &err, "plan", "f.yaml");
        pk_alloc_fail_nth(0);
        assert_int_equal(r, PK_E_NOMEM);
        assert_int_equal(err.code, PK_E_NOMEM);
        assert_null(p.args);
    }
}

static void test_output_is_known_early(void **state)
{
    (void)state;
    static const struct {
        const char *words[5];
        int count;
        const char *want;
    } cases[] = {
        { { "picket", "pln", "--output=json" }, 3, "json" },
        { { "picket", "-oyaml", "x" }, 3, "yaml" },
        { { "picket", "plan", "--", "-ojson" }, 4, "" },
        { { "picket", "-o" }, 2, "" },
    };
    for (size_t i = 0; i < PK_ARRAY_SIZE(cases); i++)
        assert_string_equal(pk_scan_output(cases[i].count, (char **)(uintptr_t)cases[i].words),
                            cases[i].want);
}

/* Help and usage of every command there is: no column beyond the width that was asked for, unless a
 * word is longer. */
static void test_help_fits(void **state)
{
    (void)state;
    size_t count;
    const struct pk_cmd *const *table = pk_cmd_table(&count);
    assert_true(count > 10);
    for (size_t i = 0; i < count; i++) {
        PK_CLEANUP(pk_buf_done) struct pk_buf out = PK_BUF_INIT(1 << 20);
        pk_help_command(table[i], 80, &out);
        assert_false(out.failed);
        assert_true(out.len > 100);
        assert_non_null(strstr(out.data, table[i]->summary));
        for (size_t o = 0; o < table[i]->opt_count; o++)
            assert_non_null(strstr(out.data, table[i]->opts[o].name));
    }
    assert_int_equal(pk_text_width("\xc3\xa4z", 3), 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_options_stand_anywhere),
        cmocka_unit_test(test_two_words_and_other_names),
        cmocka_unit_test(test_slips_get_hints),
        cmocka_unit_test(test_without_memory),
        cmocka_unit_test(test_output_is_known_early),
        cmocka_unit_test(test_help_fits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
