/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pk_test.h"

#include "base/fs.h"

static char top[] = "/tmp/pk-test-fs-XXXXXX";

static int make_top(void **state)
{
    (void)state;
    return mkdtemp(top) == NULL ? -1 : 0;
}

static int remove_top(void **state)
{
    (void)state;
    return pk_rm_rf(top, NULL);
}

static char *in_top(const char *name)
{
    char *path = pk_path_join(top, name);
    assert_non_null(path);
    return path;
}

static void test_write_then_read(void **state)
{
    (void)state;
    PK_CLEANUP(pk_free_p) char *path = in_top("file");
    char *data = NULL;
    size_t len = 0;
    assert_int_equal(pk_file_write(path, "a\0b", 3, 0640, NULL), 0);
    assert_int_equal(pk_file_read(path, 3, &data, &len, NULL), 0);
    assert_int_equal(len, 3);
    assert_memory_equal(data, "a\0b\0", 4);
    pk_free(data);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0640);
    data = NULL;
    struct pk_error err = { 0 };
    assert_int_equal(pk_file_read(path, 2, &data, &len, &err), PK_E_NOSPACE);
    assert_null(data);
    assert_true(err.hint[0] != '\0');
    assert_int_equal(pk_file_write(path, "", 0, 0600, NULL), 0);
    assert_int_equal(pk_file_read(path, 0, &data, &len, NULL), 0);
    assert_string_equal(data, "");
    pk_free(data);
}

static void test_file_errors(void **state)
{
    (void)state;
    char *data = NULL;
    assert_int_equal(pk_file_read("/nonexistent/x", 10, &data, NULL, NULL), PK_E_NOTFOUND);
    assert_int_equal(pk_file_write("/nonexistent/x", "a", 1, 0600, NULL), PK_E_NOTFOUND);
    assert_true(pk_file_read(top, 10, &data, NULL, NULL) < 0); /* a folder */
    assert_null(data);
    /* A write that cannot replace its target leaves no temporary file behind. */
    PK_CLEANUP(pk_free_p) char *folder = in_top("folder");
    PK_CLEANUP(pk_free_p) char *inside = in_top("folder/inside");
    assert_int_equal(pk_mkdir_p(inside, 0755, NULL), 0);
    assert_true(pk_file_write(folder, "a", 1, 0600, NULL) < 0);
    assert_int_equal(pk_rm_rf(folder, NULL), 0);
    assert_false(pk_file_exists(folder));
}

static void test_without_memory(void **state)
{
    (void)state;
    PK_CLEANUP(pk_free_p) char *path = in_top("alloc");
    int r = 0;
    PK_TEST_EACH_ALLOC_FAILS(r, r = pk_file_write(path, "abc", 3, 0600, NULL));
    assert_int_equal(r, 0);
    PK_TEST_EACH_ALLOC_FAILS(r, {
        char *data = NULL;
        r = pk_file_read(path, 100, &data, NULL, NULL);
        pk_free(data);
    });
    PK_TEST_EACH_ALLOC_FAILS(r, r = pk_mkdir_p(top, 0755, NULL));
}

static void test_mkdir_p(void **state)
{
    (void)state;
    PK_CLEANUP(pk_free_p) char *deep = in_top("a//b/c/");
    assert_int_equal(pk_mkdir_p(deep, 0755, NULL), 0);
    assert_int_equal(pk_mkdir_p(deep, 0755, NULL), 0);
    assert_true(pk_file_exists(deep));
    PK_CLEANUP(pk_free_p) char *file = in_top("a/file");
    PK_CLEANUP(pk_free_p) char *below = in_top("a/file/d");
    assert_int_equal(pk_file_write(file, "", 0, 0600, NULL), 0);
    struct pk_error err = { 0 };
    assert_true(pk_mkdir_p(below, 0755, &err) < 0);
    assert_int_equal(pk_mkdir_p(file, 0755, &err), PK_E_CONFLICT);
    assert_true(err.hint[0] != '\0');
}

static void test_rm_rf_follows_no_link(void **state)
{
    (void)state;
    PK_CLEANUP(pk_free_p) char *keep = in_top("keep");
    PK_CLEANUP(pk_free_p) char *kept_file = in_top("keep/file");
    PK_CLEANUP(pk_free_p) char *tree = in_top("tree");
    PK_CLEANUP(pk_free_p) char *deep = in_top("tree/x/y");
    PK_CLEANUP(pk_free_p) char *link = in_top("tree/x/link");
    assert_int_equal(pk_mkdir_p(keep, 0755, NULL), 0);
    assert_int_equal(pk_file_write(kept_file, "1", 1, 0600, NULL), 0);
    assert_int_equal(pk_mkdir_p(deep, 0755, NULL), 0);
    assert_int_equal(symlink(keep, link), 0);
    assert_int_equal(pk_rm_rf(tree, NULL), 0);
    assert_false(pk_file_exists(tree));
    assert_true(pk_file_exists(kept_file));
    assert_int_equal(pk_rm_rf(tree, NULL), 0); /* absent */
}

static void test_locks(void **state)
{
    (void)state;
    PK_CLEANUP(pk_free_p) char *path = in_top("lock");
    int first = -1, second = -1;
    assert_int_equal(pk_lock_file(path, &first, NULL), 0);
    struct pk_error err = { 0 };
    assert_int_equal(pk_lock_file(path, &second, &err), PK_E_CONFLICT);
    assert_int_equal(second, -1);
    pk_close_p(&first);
    assert_int_equal(first, -1);
    assert_int_equal(pk_lock_file(path, &second, NULL), 0);
    assert_true((fcntl(second, F_GETFD) & FD_CLOEXEC) != 0);
    pk_close_p(&second);
}

static void test_disk_and_join(void **state)
{
    (void)state;
    uint64_t bytes = 0;
    assert_int_equal(pk_disk_free(top, &bytes, NULL), 0);
    assert_true(bytes > 0);
    assert_int_equal(pk_disk_free("/nonexistent", &bytes, NULL), PK_E_NOTFOUND);
    static const char *const cases[][3] = {
        { "/a", "b", "/a/b" }, { "/a/", "b", "/a/b" }, { "/", "b", "/b" }, { "a", "b", "a/b" }
    };
    for (size_t i = 0; i < PK_ARRAY_SIZE(cases); i++) {
        PK_CLEANUP(pk_free_p) char *joined = pk_path_join(cases[i][0], cases[i][1]);
        assert_string_equal(joined, cases[i][2]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_write_then_read),       cmocka_unit_test(test_file_errors),
        cmocka_unit_test(test_without_memory),        cmocka_unit_test(test_mkdir_p),
        cmocka_unit_test(test_rm_rf_follows_no_link), cmocka_unit_test(test_locks),
        cmocka_unit_test(test_disk_and_join),
    };
    return cmocka_run_group_tests(tests, make_top, remove_top);
}
