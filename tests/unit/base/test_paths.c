/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pk_test.h"

#include "base/paths.h"
#include "base/str.h"

static void test_one_folder_one_tag(void **state)
{
    (void)state;
    static const char *const same[] = { "/tmp/pk/run", "/tmp//pk/run/", "/tmp/./pk/run",
                                        "/tmp/x/../pk/run", "/../tmp/pk/run/." };
    struct pk_paths first, other;
    assert_int_equal(pk_paths_init("/s", same[0], &first, NULL), 0);
    assert_int_equal(strlen(first.tag), 6);
    assert_true(pk_str_starts(first.tag, "pk"));
    for (size_t i = 0; i < PK_ARRAY_SIZE(same); i++) {
        assert_int_equal(pk_paths_init("/s", same[i], &other, NULL), 0);
        assert_string_equal(other.run_dir, "/tmp/pk/run");
        assert_string_equal(other.tag, first.tag);
    }
    assert_int_equal(pk_paths_init("/s", "/tmp/pk/run2", &other, NULL), 0);
    assert_string_not_equal(other.tag, first.tag);
    assert_int_equal(chdir("/tmp"), 0);
    assert_int_equal(pk_paths_init("/s", "pk/run", &other, NULL), 0);
    assert_string_equal(other.run_dir, "/tmp/pk/run");
}

static void test_where_they_come_from(void **state)
{
    (void)state;
    struct pk_paths paths;
    assert_int_equal(unsetenv("PICKET_STATE_DIR"), 0);
    assert_int_equal(setenv("PICKET_RUN_DIR", "/tmp/from-env", 1), 0);
    assert_int_equal(pk_paths_init(NULL, NULL, &paths, NULL), 0);
    assert_string_equal(paths.state_dir, PK_DEFAULT_STATE_DIR);
    assert_string_equal(paths.run_dir, "/tmp/from-env");
    assert_int_equal(pk_paths_init("/a", "/b", &paths, NULL), 0);
    assert_string_equal(paths.run_dir, "/b");
    assert_int_equal(unsetenv("PICKET_RUN_DIR"), 0);
}

static void test_what_is_no_folder(void **state)
{
    (void)state;
    char too_long[100];
    memset(too_long, 'x', sizeof(too_long) - 1);
    too_long[0] = '/';
    too_long[sizeof(too_long) - 1] = '\0';
    const char *const bad[] = { "", "/", "/..", "/tmp/..", "/tmp/a\nb", too_long };
    for (size_t i = 0; i < PK_ARRAY_SIZE(bad); i++) {
        struct pk_paths paths = { .tag = "old" };
        struct pk_error err = { 0 };
        assert_int_equal(pk_paths_init("/s", bad[i], &paths, &err), PK_E_USAGE);
        assert_true(err.hint[0] != '\0');
        assert_string_equal(paths.tag, "old");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_folder_one_tag),
        cmocka_unit_test(test_where_they_come_from),
        cmocka_unit_test(test_what_is_no_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
