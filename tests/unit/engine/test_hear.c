/* SPDX-License-Identifier: Apache-2.0 */
/* How answers of Podman are read: good, odd and hostile ones. */
#include "../pk_test.h"

#include <string.h>

#include "base/json.h"
#include "engine/internal.h"
#include "engine/podman/internal.h"

static int read_text(const char *text, struct pk_unit_status **list, size_t *count,
                     struct pk_error *err)
{
    PK_JSON json = json_loads(text, JSON_DECODE_ANY, NULL);
    assert_non_null(json);
    return pk_podman_read_list(json, "pk12ab", list, count, err);
}

static void test_list(void **state)
{
    (void)state;
    struct pk_unit_status *list;
    size_t count;
    assert_int_equal(
        read_text(
            "[{\"Names\":[\"n\"],\"Id\":\"abc\",\"ImageID\":\"ff\",\"State\":\"running\","
            "\"Pid\":42,\"StartedAt\":1700000000,\"Labels\":{\"io.picket.instance\":\"pk12ab\","
            "\"io.picket.fleet\":\"f\",\"io.picket.group\":\"g\",\"io.picket.tool\":\"t\","
            "\"io.picket.lane\":\"3\",\"io.picket.hash\":\"h\",\"io.picket.unit\":"
            "\"{\\\"a\\\":1}\"}},{\"Labels\":{\"io.picket.instance\":\"other\"}}]",
            &list, &count, NULL),
        0);
    assert_int_equal(count, 1);
    assert_string_equal(list[0].name, "n");
    assert_string_equal(list[0].image_digest, "sha256:ff");
    assert_int_equal(list[0].lane, 3);
    assert_int_equal(list[0].state, PK_UNIT_RUNNING);
    assert_int_equal(list[0].pid, 42);
    assert_true(list[0].started_at == 1700000000 * PK_NSEC_PER_SEC);
    assert_int_equal(pk_json_int_or(list[0].unit, "a", 0), 1);
    pk_unit_status_list_free(list, count);
}

static void test_list_odd(void **state)
{
    (void)state;
    static const char *const refused[] = { "{}", "3", "null", "\"x\"" };
    struct pk_unit_status *list = NULL;
    size_t count = 0;
    for (size_t i = 0; i < PK_ARRAY_SIZE(refused); i++) {
        struct pk_error err = { 0 };
        assert_int_equal(read_text(refused[i], &list, &count, &err), PK_E_IO);
        assert_string_not_equal(err.hint, "");
    }
    /* Ours by the label, everything else absent, of another type or out of range. */
    static const char *const odd[] = {
        "[{\"Labels\":{\"io.picket.instance\":\"pk12ab\"}}]",
        "[{\"Names\":7,\"Id\":{},\"State\":[],\"Pid\":\"x\",\"ExitCode\":true,\"StartedAt\":\"y\","
        "\"ImageID\":3,\"Labels\":{\"io.picket.instance\":\"pk12ab\",\"io.picket.lane\":\"-1\","
        "\"io.picket.unit\":\"{{{\",\"io.picket.fleet\":4}}]",
        "[{\"Names\":[null],\"State\":\"running\",\"Pid\":99999999999999,\"StartedAt\":"
        "9223372036854775807,\"Labels\":{\"io.picket.instance\":\"pk12ab\",\"io.picket.lane\":"
        "\"99999999999999999999\"}}]",
        "[{\"State\":\"exited\",\"ExitCode\":-5,\"StartedAt\":-62135596800,\"Labels\":"
        "{\"io.picket.instance\":\"pk12ab\"}}]",
    };
    for (size_t i = 0; i < PK_ARRAY_SIZE(odd); i++) {
        assert_int_equal(read_text(odd[i], &list, &count, NULL), 0);
        assert_int_equal(count, 1);
        assert_string_equal(list[0].name, "");
        assert_int_equal(list[0].pid, 0);
        assert_int_equal(list[0].lane, 0);
        assert_null(list[0].unit);
        assert_true(list[0].exit_code >= 0 && list[0].exit_code <= 255);
        assert_true(list[0].started_at >= 0);
        pk_unit_status_list_free(list, count);
    }
    assert_int_equal(read_text("[1, null, [], {\"Labels\": 4}]", &list, &count, NULL), 0);
    assert_int_equal(count, 0);
    pk_unit_status_list_free(list, count);
}

static void test_inspect(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool oom;
        bool started;
    } cases[] = {
        { "{\"State\":{\"OOMKilled\":true,\"StartedAt\":\"2024-05-01T10:00:00.5+02:00\"}}", true,
          true },
        { "{\"State\":{\"OOMKilled\":\"yes\",\"StartedAt\":\"0001-01-01T00:00:00Z\"}}", false,
          false },
        { "{\"State\":4}", false, false },
        { "[]", false, false },
    };
    for (size_t i = 0; i < PK_ARRAY_SIZE(cases); i++) {
        PK_JSON json = json_loads(cases[i].text, 0, NULL);
        struct pk_unit_status status = { 0 };
        pk_podman_read_inspect(json, &status);
        assert_int_equal(status.oom_killed, cases[i].oom);
        assert_int_equal(status.started_at != 0, cases[i].started);
    }
}

static void test_errors(void **state)
{
    (void)state;
    static const struct {
        const char *body;
        unsigned status;
        int code;
        const char *hint;
    } cases[] = {
        { "{\"message\":\"write /x: no space left on device\"}", 500, PK_E_NOSPACE, "free space" },
        { "{\"message\":\"the container name \\\"n\\\" is already in use by 123\"}", 500,
          PK_E_CONFLICT, "podman ps" },
        { "{\"message\":\"sha256:00: image not known\"}", 404, PK_E_NOTFOUND, "image build" },
        { "{\"message\":\"crun: cgroup in hybrid mode not supported, drop all controllers\"}", 500,
          PK_E_UNSUPPORTED, "runc" },
        { "{\"message\":\"error setting rlimit type 7: operation not permitted\"}", 500,
          PK_E_DENIED, "limit" },
        { "{\"cause\":\"cannot find specified network namespace path\"}", 500, PK_E_NOTFOUND,
          "picket node" },
        { "{\"message\":\"strange\"}", 500, PK_E_IO, "podman logs" },
        { "{\"message\":5}", 409, PK_E_CONFLICT, "podman" },
        { "<html>", 404, PK_E_NOTFOUND, "podman" },
        { "", 400, PK_E_INVALID, "podman" },
    };
    for (size_t i = 0; i < PK_ARRAY_SIZE(cases); i++) {
        struct pk_error err = { 0 };
        int r = pk_podman_read_error("unit", cases[i].status, cases[i].body, strlen(cases[i].body),
                                     &err);
        assert_int_equal(r, cases[i].code);
        assert_int_equal(err.code, cases[i].code);
        assert_non_null(strstr(err.hint, cases[i].hint));
        assert_int_equal(pk_podman_read_error("unit", cases[i].status, cases[i].body,
                                              strlen(cases[i].body), NULL),
                         cases[i].code);
    }
}

static void test_unframe(void **state)
{
    (void)state;
    static const char two[] = "\1\0\0\0\0\0\0\2ab\2\0\0\0\0\0\0\1c";
    PK_CLEANUP(pk_buf_done) struct pk_buf out = PK_BUF_INIT(64);
    assert_true(pk_podman_unframe(two, sizeof(two) - 1, &out));
    assert_string_equal(out.data, "abc");
    pk_buf_clear(&out);
    /* Cut off inside the data; a length of 4 GiB. */
    assert_true(pk_podman_unframe(two, 9, &out));
    assert_string_equal(out.data, "a");
    pk_buf_clear(&out);
    assert_true(pk_podman_unframe("\1\0\0\0\377\377\377\377xyz", 11, &out));
    assert_string_equal(out.data, "xyz");
    pk_buf_clear(&out);
    assert_true(pk_podman_unframe(NULL, 0, &out));
    assert_int_equal(out.len, 0);
    assert_false(pk_podman_unframe("\1\0\0", 3, &out));
    assert_false(pk_podman_unframe("\7\0\0\0\0\0\0\1x", 9, &out));
    assert_false(pk_podman_unframe("plain text here", 15, &out));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_list),    cmocka_unit_test(test_list_odd),
        cmocka_unit_test(test_inspect), cmocka_unit_test(test_errors),
        cmocka_unit_test(test_unframe),
    };
    return cmocka_run_group_tests_name("engine podman, answers", tests, NULL, NULL);
}
