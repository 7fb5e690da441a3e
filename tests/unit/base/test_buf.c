/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "pk_test.h"

#include "base/buf.h"

static void test_append_and_take(void **state)
{
    (void)state;
    struct pk_buf buf = PK_BUF_INIT(1024);
    assert_int_equal(pk_buf_puts(&buf, "ab"), 0);
    assert_int_equal(pk_buf_printf(&buf, "%d-%s", 42, "c"), 0);
    assert_int_equal(buf.len, 6);
    pk_buf_consume(&buf, 2);
    assert_string_equal(buf.data, "42-c");
    char *text = pk_buf_take(&buf);
    assert_string_equal(text, "42-c");
    pk_free(text);
    text = pk_buf_take(&buf);
    assert_string_equal(text, "");
    pk_free(text);
}

static void test_max_is_a_hard_limit(void **state)
{
    (void)state;
    struct pk_buf buf = PK_BUF_INIT(4);
    assert_int_equal(pk_buf_puts(&buf, "abcd"), 0);
    assert_int_equal(pk_buf_putc(&buf, 'e'), PK_E_NOSPACE);
    assert_true(buf.failed);
    assert_string_equal(buf.data, "abcd");
    assert_null(pk_buf_take(&buf));
}

static void test_allocation_failure_is_sticky(void **state)
{
    (void)state;
    struct pk_buf buf = PK_BUF_INIT(1024);
    pk_alloc_fail_nth(1);
    assert_int_equal(pk_buf_puts(&buf, "ab"), PK_E_NOMEM);
    pk_alloc_fail_nth(0);
    assert_int_equal(pk_buf_puts(&buf, "ab"), PK_E_NOSPACE);
    assert_null(pk_buf_take(&buf));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_append_and_take),
        cmocka_unit_test(test_max_is_a_hard_limit),
        cmocka_unit_test(test_allocation_failure_is_sticky),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
