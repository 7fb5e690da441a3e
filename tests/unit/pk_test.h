/* SPDX-License-Identifier: Apache-2.0 */
/* cmocka with the headers it needs, in the order it needs them. */
#ifndef PICKET_TESTS_PK_TEST_H
#define PICKET_TESTS_PK_TEST_H

/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */

#include "base/alloc.h"
#include "base/error.h"

/* Runs a statement once for each allocation that it makes, with that one failing, until it makes
 * none that fails. r is its result: it must be PK_E_NOMEM while an allocation failed. */
#define PK_TEST_EACH_ALLOC_FAILS(r, ...)              \
    do {                                              \
        for (unsigned long nth_ = 1;; nth_++) {       \
            assert_true(nth_ < 100000);               \
            pk_alloc_fail_nth(nth_);                  \
            __VA_ARGS__;                              \
            bool reached_ = pk_alloc_count() >= nth_; \
            pk_alloc_fail_nth(0);                     \
            if (!reached_)                            \
                break;                                \
            assert_int_equal((r), PK_E_NOMEM);        \
        }                                             \
    } while (0)

/* Ends a test that cannot run here, with the reason. cmocka's own skip() writes "not ok", which is
 * a failure to who reads TAP; tools/test-summary counts these lines. */
#define PK_SKIP(reason)                                           \
    do {                                                          \
        print_message("# skipped: %s: %s\n", __func__, (reason)); \
        return;                                                   \
    } while (0)

#endif
