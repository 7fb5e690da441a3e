/* SPDX-License-Identifier: Apache-2.0 */
/* Fleets on disk: bad ones with the faults that they must give, good ones with their canonical
 * form; and what becomes of good ones that are cut or damaged at any place. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pk_test.h"

#include "base/fs.h"
#include "base/str.h"
#include "spec/pattern.h"
#include "spec/schema.h"

static char *path_of(const char *name)
{
    char *path = pk_path_join(getenv("PICKET_SOURCE"), name);
    assert_non_null(path);
    return path;
}

static char *read_file(const char *name, size_t *ret_len)
{
    PK_CLEANUP(pk_free_p) char *path = path_of(name);
    char *text = NULL;
    struct pk_error err;
    if (pk_file_read(path, 1 << 20, &text, ret_len, &err) < 0)
        fail_msg("%s", err.msg);
    return text;
}

static void show(const struct pk_errors *errors)
{
    for (size_t i = 0; i < errors->count; i++)
        print_error("  %s:%u:%u: %s (%s)\n", errors->list[i].file, errors->list[i].line,
                    errors->list[i].col, errors->list[i].msg, errors->list[i].hint);
}

/* What every fault of a user's file has: a place, a message that can be printed, a hint. */
static void check_errors(const struct pk_errors *errors)
{
    assert_true(errors->count > 0);
    for (size_t i = 0; i < errors->count; i++) {
        const struct pk_error *err = &errors->list[i];
        bool good = err->code == PK_E_INVALID && err->line > 0 && err->col > 0 &&
                    err->msg[0] != '\0' && err->hint[0] != '\0' && err->file[0] != '\0';
        for (const char *p = err->msg; *p != '\0'; p++)
            good = good && ((unsigned char)*p >= 0x20 && *p != 0x7f);
        if (!good) {
            show(errors);
            fail_msg("fault %zu lacks something", i);
        }
    }
}

static bool has_error(const struct pk_errors *errors, unsigned line, unsigned col, const char *text)
{
    for (size_t i = 0; i < errors->count; i++)
        if (errors->list[i].line == line && errors->list[i].col == col &&
            strstr(errors->list[i].msg, text) != NULL)
            return true;
    return false;
}

/* "# want: 12:5: unknown key" */
static unsigned check_wants(const char *name, char *text, const struct pk_errors *errors)
{
    unsigned wants = 0;
    for (char *line = text; strncmp(line, "# want: ", 8) == 0;) {
        char *end = strchr(line, '\n'), *at = line + 8;
        *end = '\0';
        unsigned row = (unsigned)strtoul(at, &at, 10), col = (unsigned)strtoul(at + 1, &at, 10);
        if (!has_error(errors, row, col, at + 2)) {
            show(errors);
            fail_msg("%s: wanted %s", name, line + 8);
        }
        wants++;
        line = end + 1;
    }
    return wants;
}

static void test_bad_fleets(void **state)
{
    (void)state;
    PK_CLEANUP(pk_free_p) char *folder = path_of("tests/data/bad-fleets");
    unsigned count = 0;
    DIR *dir = opendir(folder);
    assert_non_null(dir);
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        if (!pk_str_ends(entry->d_name, ".yaml"))
            continue;
        char name[400];
        (void)snprintf(name, sizeof(name), "tests/data/bad-fleets/%s", entry->d_name);
        size_t len;
        PK_CLEANUP(pk_free_p) char *text = read_file(name, &len);
        struct pk_errors errors = { 0 };
        struct pk_fleet_spec *fleet = NULL;
        if (pk_spec_parse(entry->d_name, text, len, &fleet, &errors) != PK_E_INVALID)
            fail_msg("%s was accepted", name);
        assert_null(fleet);
        check_errors(&errors);
        if (check_wants(entry->d_name, text, &errors) == 0)
            fail_msg("%s: no '# want:' line", name);
        pk_errors_done(&errors);
        count++;
    }
    closedir(dir);
    assert_true(count >= 60);
}

static void test_all_faults_are_told_in_order(void **state)
{
    (void)state;
    const char *text = "apiVersion: v1\nkind: fleet\nmetadata: {name: A}\nspec:\n"
                       "  taps: [{name: t}, {name: t, interface: e, x: 1}]\n"
                       "  groups: [{name: g, taps: [u], lanes: 0, tools: [{package: '@'}]}]\n";
    struct pk_errors errors = { 0 };
    struct pk_fleet_spec *fleet = NULL;
    assert_int_equal(pk_spec_parse("f", text, strlen(text), &fleet, &errors), PK_E_INVALID);
    check_errors(&errors);
    assert_int_equal(errors.count, 9);
    for (size_t i = 1; i < errors.count; i++)
        assert_true(errors.list[i - 1].line < errors.list[i].line ||
                    (errors.list[i - 1].line == errors.list[i].line &&
                     errors.list[i - 1].col <= errors.list[i].col));
    pk_errors_done(&errors);
}

static void test_byte_order_marks(void **state)
{
    (void)state;
    static const char utf16[] = "\xff\xfe"
                                "a\0:\0 \0b\0\n";
    static const char utf16_big[] = "\xfe\xff\0a\0:\0 \0b\0\n";
    static const char utf32[] = "\xff\xfe\0\0a\0\0\0";
    const struct {
        const char *text;
        size_t len;
    } cases[] = { { utf16, sizeof(utf16) },
                  { utf16_big, sizeof(utf16_big) },
                  { utf32, sizeof(utf32) } };
    for (size_t i = 0; i < PK_ARRAY_SIZE(cases); i++) {
        struct pk_errors errors = { 0 };
        struct pk_fleet_spec *fleet = NULL;
        assert_int_equal(pk_spec_parse("f", cases[i].text, cases[i].len, &fleet, &errors),
                         PK_E_INVALID);
        check_errors(&errors);
        pk_errors_done(&errors);
    }
    /* UTF-8 has none that matters: an editor's mark at the start is let pass. */
    PK_CLEANUP(pk_free_p) char *text = pk_asprintf("\xef\xbb\xbf%s", pk_spec_example());
    struct pk_errors errors = { 0 };
    PK_CLEANUP(pk_spec_free_p) struct pk_fleet_spec *fleet = NULL;
    (void)pk_spec_parse("f", text, strlen(text), &fleet, &errors);
    show(&errors);
    assert_non_null(fleet);
}

/* Either a fleet, or faults with places. */
static void parse_any(const char *text, size_t len)
{
    struct pk_errors errors = { 0 };
    struct pk_fleet_spec *fleet = NULL;
    int r = pk_spec_parse("cut.yaml", text, len, &fleet, &errors);
    if (r == 0) {
        assert_int_equal(errors.count, 0);
        PK_CLEANUP(pk_free_p) char *yaml = pk_spec_to_yaml(fleet, true);
        assert_non_null(yaml);
    } else {
        assert_int_equal(r, PK_E_INVALID);
        assert_null(fleet);
        check_errors(&errors);
    }
    pk_spec_free(fleet);
    pk_errors_done(&errors);
}

static const char *const good_fleets[] = { "demo", "full", "taps" };

static void test_every_prefix_of_good_fleets(void **state)
{
    (void)state;
    const char *example = pk_spec_example();
    for (size_t len = 0; len <= strlen(example); len++)
        parse_any(example, len);
    for (size_t i = 0; i < PK_ARRAY_SIZE(good_fleets); i++) {
        char name[100];
        size_t len;
        (void)snprintf(name, sizeof(name), "tests/data/fleets/%s.yaml", good_fleets[i]);
        PK_CLEANUP(pk_free_p) char *text = read_file(name, &len);
        for (size_t cut = 0; cut <= len; cut++)
            parse_any(text, cut);
    }
}

/* The same every time: a simple generator with a fixed start. */
static uint64_t random_state = 0x9e3779b97f4a7c15ull;

static size_t pick(size_t below)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (size_t)(random_state % below);
}

static void test_damaged_fleets(void **state)
{
    (void)state;
    static const char spice[] = "{}[]:-,&*!|>'\"%@`#?\n\t 0~\xff\x01";
    PK_CLEANUP(pk_free_p) char *example = pk_strdup(pk_spec_example());
    size_t len = strlen(example);
    for (int round = 0; round < 3000; round++) {
        PK_CLEANUP(pk_free_p) char *text = pk_memdup(example, len + 1);
        size_t from = pick(len), part = pick(len - from);
        for (size_t k = 0; k <= pick(4); k++)
            text[pick(len)] = spice[pick(sizeof(spice) - 1)];
        if (round % 3 == 0) /* a piece is missing */
            memmove(text + from, text + from + part, len - from - part + 1);
        parse_any(text, round % 3 == 0 ? len - part : round % 3 == 1 ? from : len);
    }
}

static void check_golden(const char *fleet_name, bool defaults)
{
    char name[100], want_name[100];
    size_t len, want_len;
    (void)snprintf(name, sizeof(name), "tests/data/fleets/%s.yaml", fleet_name);
    (void)snprintf(want_name, sizeof(want_name), "tests/data/fleets/%s.%s.yaml", fleet_name,
                   defaults ? "defaults" : "canonical");
    PK_CLEANUP(pk_free_p) char *text = read_file(name, &len);
    PK_CLEANUP(pk_free_p) char *want = read_file(want_name, &want_len);
    struct pk_errors errors = { 0 };
    PK_CLEANUP(pk_spec_free_p) struct pk_fleet_spec *fleet = NULL;
    PK_CLEANUP(pk_spec_free_p) struct pk_fleet_spec *again = NULL;
    (void)pk_spec_parse(name, text, len, &fleet, &errors);
    show(&errors);
    assert_non_null(fleet);
    PK_CLEANUP(pk_free_p) char *once = pk_spec_to_yaml(fleet, defaults);
    assert_string_equal(once, want);
    assert_int_equal(pk_spec_parse(name, once, strlen(once), &again, &errors), 0);
    PK_CLEANUP(pk_free_p) char *twice = pk_spec_to_yaml(again, defaults);
    assert_string_equal(once, twice);
}

static void test_canonical_forms(void **state)
{
    (void)state;
    for (size_t i = 0; i < PK_ARRAY_SIZE(good_fleets); i++) {
        check_golden(good_fleets[i], false);
        check_golden(good_fleets[i], true);
    }
}

/* The page is made from the table: PK_UPDATE=1 writes it anew. */
static void test_reference_page(void **state)
{
    (void)state;
    PK_CLEANUP(pk_free_p) char *rows = pk_table_reference(&pk_fleet_table);
    PK_CLEANUP(pk_free_p)
    char *page =
        pk_asprintf("# Reference: the fleet file\n\n"
                    "Made from the table in `src/spec/schema.c`; do not edit. The guide is "
                    "[fleet-file.md](../fleet-file.md).\n\n%s\n## Example\n\n```yaml\n%s```\n",
                    rows, pk_spec_example());
    if (getenv("PK_UPDATE") != NULL) {
        PK_CLEANUP(pk_free_p) char *path = path_of("docs/reference/fleet.md");
        struct pk_error err;
        if (pk_file_write(path, page, strlen(page), 0644, &err) < 0)
            fail_msg("%s", err.msg);
    }
    size_t len;
    PK_CLEANUP(pk_free_p) char *there = read_file("docs/reference/fleet.md", &len);
    if (strcmp(there, page) != 0)
        fail_msg("docs/reference/fleet.md is out of date: run this test with PK_UPDATE=1");
}

static void test_table_is_in_order(void **state)
{
    (void)state;
    for (size_t i = 0; i < pk_fleet_table.count; i++) {
        const struct pk_field *field = &pk_fleet_table.fields[i];
        struct pk_error err;
        if (field->pattern != NULL && pk_pattern_check(field->pattern, &err) < 0)
            fail_msg("%s: %s", field->path, err.msg);
        if (field->help == NULL || field->help[0] == '\0')
            fail_msg("%s has no help", field->path);
        if (field->type == PK_FIELD_LIST) {
            size_t len = strlen(field->path);
            assert_int_equal(strncmp((field + 1)->path, field->path, len), 0);
            assert_string_equal((field + 1)->path + len, "[]");
        } else if (field->type != PK_FIELD_MAP) {
            assert_true(field->type == PK_FIELD_OBJECT || field->example != NULL);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_fleets),
        cmocka_unit_test(test_all_faults_are_told_in_order),
        cmocka_unit_test(test_byte_order_marks),
        cmocka_unit_test(test_every_prefix_of_good_fleets),
        cmocka_unit_test(test_damaged_fleets),
        cmocka_unit_test(test_canonical_forms),
        cmocka_unit_test(test_reference_page),
        cmocka_unit_test(test_table_is_in_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
