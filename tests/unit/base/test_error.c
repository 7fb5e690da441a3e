/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "pk_test.h"

static void test_codes_are_unique_and_named(void **state)
{
    (void)state;
    size_t count;
    const struct pk_code_info *table = pk_code_table(&count);
    for (size_t i = 0; i < count; i++) {
        assert_ptr_equal(pk_code_info(table[i].code), &table[i]);
        assert_ptr_equal(pk_code_info_by_name(table[i].name), &table[i]);
    }
    assert_int_equal(pk_code_info(-999)->code, PK_E_INTERNAL);
    assert_null(pk_code_info_by_name("nonsense"));
}

static void test_wrap_and_hint_keep_the_rest(void **state)
{
    (void)state;
    struct pk_error err;
    assert_int_equal(pk_fail_errno(&err, ENOENT, "open %s", "x"), PK_E_NOTFOUND);
    assert_non_null(strstr(err.msg, "open x: No such file"));
    assert_int_equal(pk_wrap(&err, "load"), PK_E_NOTFOUND);
    assert_non_null(strstr(err.msg, "load: open x"));
    assert_int_equal(pk_hint(&err, "make it"), PK_E_NOTFOUND);
    assert_string_equal(err.hint, "make it");
    assert_int_equal(err.sys, ENOENT);
    assert_int_equal(pk_fail(NULL, PK_E_IO, "nobody listens"), PK_E_IO);
}

static void test_errors_are_bounded(void **state)
{
    (void)state;
    struct pk_errors errors = { 0 };
    struct pk_error err;
    pk_fail(&err, PK_E_INVALID, "bad");
    for (int i = 0; i < PK_ERRORS_MAX + 5; i++)
        pk_errors_add(&errors, &err);
    assert_int_equal(errors.count, PK_ERRORS_MAX);
    assert_int_equal(errors.dropped, 5);
    pk_errors_done(&errors);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_codes_are_unique_and_named),
        cmocka_unit_test(test_wrap_and_hint_keep_the_rest),
        cmocka_unit_test(test_errors_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
