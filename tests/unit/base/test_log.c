/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>
#include <unistd.h>

#include "pk_test.h"

#include "base/json.h"
#include "base/log.h"

/* What a call writes to standard error. */
#define CAPTURE(out, call)                                              \
    do {                                                                \
        int pipe_[2], saved_ = dup(STDERR_FILENO);                      \
        assert_int_equal(pipe(pipe_), 0);                               \
        assert_int_equal(dup2(pipe_[1], STDERR_FILENO), STDERR_FILENO); \
        (void)close(pipe_[1]);                                          \
        call;                                                           \
        assert_int_equal(dup2(saved_, STDERR_FILENO), STDERR_FILENO);   \
        (void)close(saved_);                                            \
        ssize_t n_ = read(pipe_[0], out, sizeof(out) - 1);              \
        (out)[n_ < 0 ? 0 : n_] = '\0';                                  \
        (void)close(pipe_[0]);                                          \
    } while (0)

static void test_text(void **state)
{
    (void)state;
    char out[4096];
    pk_log_setup(PK_LOG_INFO, false);
    CAPTURE(out, pk_log(PK_LOG_WARN, "node", "tap %s is\ngone\033[31m", "eth1"));
    assert_non_null(strstr(out, "Z warn node: tap eth1 is\\x0agone\\x1b[31m\n"));
    CAPTURE(out, pk_log(PK_LOG_DEBUG, "node", "not wanted"));
    assert_string_equal(out, "");
    struct pk_error err = { 0 };
    pk_fail(&err, PK_E_CONFLICT, "taken");
    pk_hint(&err, "choose another");
    pk_error_at(&err, "f.yaml", 2, 3);
    CAPTURE(out, pk_log_error(PK_LOG_ERROR, "serve", &err, "cannot %s", "start"));
    assert_non_null(strstr(
        out, "error serve: cannot start: taken [conflict] at f.yaml:2:3 (choose another)\n"));
}

static void test_json(void **state)
{
    (void)state;
    char out[8192], huge[6000];
    memset(huge, '"', sizeof(huge) - 1);
    huge[sizeof(huge) - 1] = '\0';
    pk_log_setup(PK_LOG_DEBUG, true);
    CAPTURE(out, pk_log(PK_LOG_DEBUG, "ship", "a \"b\" \\ \t %s", huge));
    PK_JSON json = NULL; /* one whole line, however long the message was */
    assert_int_equal(pk_json_parse("line", out, strlen(out), &json, NULL), 0);
    assert_string_equal(pk_json_string_or(json, "level", ""), "debug");
    assert_string_equal(pk_json_string_or(json, "area", ""), "ship");
    assert_memory_equal(pk_json_string_or(json, "message", ""), "a \"b\" \\ \t \"", 11);
    assert_true(strlen(out) <= 2048);
    pk_log_setup(PK_LOG_INFO, false);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_text), cmocka_unit_test(test_json) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
