/* SPDX-License-Identifier: Apache-2.0 */
#include "pk_test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "cli/client.h"

static void check(const char *old_text, const char *new_text, const char *want)
{
    PK_CLEANUP(pk_free_p) char *diff = pk_text_diff("a", old_text, "b", new_text);
    assert_non_null(diff);
    assert_string_equal(diff, want);
}

static void test_known_cases(void **state)
{
    (void)state;
    check("", "", "");
    check("x\n", "x\n", "");
    check("", "x\n", "--- a\n+++ b\n@@ -0,0 +1,1 @@\n+x\n");
    check("x\n", "", "--- a\n+++ b\n@@ -1,1 +0,0 @@\n-x\n");
    check("x\ny\nz\n", "x\nY\nz\n", "--- a\n+++ b\n@@ -1,3 +1,3 @@\n x\n-y\n+Y\n z\n");
    check("x", "x\n", "--- a\n+++ b\n@@ -1,1 +1,1 @@\n-x\n\\ No newline at end of file\n+x\n");
    /* Two changes far apart are two hunks of three lines of context each. */
    check(
        "A\n1\n2\n3\n4\n5\n6\n7\n8\nB\n", "a\n1\n2\n3\n4\n5\n6\n7\n8\nb\n",
        "--- a\n+++ b\n@@ -1,4 +1,4 @@\n-A\n+a\n 1\n 2\n 3\n@@ -7,4 +7,4 @@\n 6\n 7\n 8\n-B\n+b\n");
}

/* Applies a diff of ours to old; the result must be new. */
static void apply(const char *old_text, const char *diff, char *out, size_t size)
{
    size_t used = 0, old_line = 1;
    const char *old = old_text;
    const char *line = diff;
    for (int header = 0; header < 2 && *line != '\0'; header++)
        line = strchr(line, '\n') + 1;
    while (*line != '\0') {
        const char *end = strchr(line, '\n');
        size_t len = (size_t)(end - line);
        if (line[0] == '@') {
            unsigned long start = 0, count = 0;
            assert_int_equal(sscanf(line, "@@ -%lu,%lu", &start, &count), 2);
            for (start += count == 0; old_line < start; old_line++) {
                const char *next = strchr(old, '\n') + 1;
                memcpy(out + used, old, (size_t)(next - old));
                used += (size_t)(next - old);
                old = next;
            }
        } else if (line[0] == ' ' || line[0] == '-') {
            assert_int_equal(strncmp(old, line + 1, len - 1), 0);
            old = strchr(old, '\n') + 1;
            old_line++;
        }
        if (line[0] == ' ' || line[0] == '+') {
            memcpy(out + used, line + 1, len);
            used += len;
        }
        assert_true(used < size);
        line = end + 1;
    }
    (void)snprintf(out + used, size - used, "%s", old);
}

/* Random texts of few different lines, so that there is much to confuse. */
static void test_random_texts_apply(void **state)
{
    (void)state;
    unsigned seed = 7;
    for (unsigned round = 0; round < 2000; round++) {
        char old_text[256] = "", new_text[256] = "", got[1024];
        unsigned count = (unsigned)rand_r(&seed) % 40, o = 0, n = 0;
        for (unsigned i = 0; i < count; i++) {
            char c = (char)('a' + rand_r(&seed) % 4);
            unsigned what = (unsigned)rand_r(&seed) % 10;
            if (what != 0) {
                old_text[o++] = c;
                old_text[o++] = '\n';
            }
            if (what != 1) {
                new_text[n++] = what == 2 ? 'z' : c;
                new_text[n++] = '\n';
            }
        }
        PK_CLEANUP(pk_free_p) char *diff = pk_text_diff("a", old_text, "b", new_text);
        assert_non_null(diff);
        apply(old_text, diff, got, sizeof(got));
        assert_string_equal(got, new_text);
    }
}

static void test_no_memory(void **state)
{
    (void)state;
    for (unsigned long nth = 1;; nth++) {
        pk_alloc_fail_nth(nth);
        PK_CLEANUP(pk_free_p) char *diff = pk_text_diff("a", "x\ny\n", "b", "x\nz\n");
        bool reached = pk_alloc_count() >= nth;
        pk_alloc_fail_nth(0);
        if (!reached)
            break;
        /* Without the table the middle is replaced as a whole: the same here. */
        if (diff != NULL)
            assert_string_equal(diff, "--- a\n+++ b\n@@ -1,2 +1,2 @@\n x\n-y\n+z\n");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_cases),
        cmocka_unit_test(test_random_texts_apply),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
