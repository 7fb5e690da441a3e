/* SPDX-License-Identifier: Apache-2.0 */
/* Podman's answers, whatever comes: lists of containers, inspections, images, errors, log frames.
 */
#include <string.h>

#include "base/alloc.h"
#include "base/json.h"
#include "engine/internal.h"
#include "engine/podman/internal.h"
#include "fuzz.h"

#define TAG     "pk12ab"
#define LOG_MAX 4096u

static void check_unit(const struct pk_unit_status *status)
{
    FUZZ_CHECK(status->name != NULL && status->id != NULL && status->fleet != NULL &&
               status->group != NULL && status->tool != NULL && status->hash != NULL);
    FUZZ_CHECK(strncmp(status->image_digest, "sha256:", 7) == 0);
    FUZZ_CHECK(status->exit_code >= 0 && status->exit_code <= 255 && status->started_at >= 0);
    /* A pid is signalled: only of what runs, and never a group's or everybody's. */
    FUZZ_CHECK(status->pid >= 0 && (status->pid == 0 || status->state == PK_UNIT_RUNNING));
}

static void read_json(const json_t *json)
{
    struct pk_unit_status *list = NULL;
    size_t count = 0;
    struct pk_error err = { 0 };
    int r = pk_podman_read_list(json, TAG, &list, &count, &err);
    FUZZ_CHECK((r == 0) == (list != NULL));
    FUZZ_CHECK(r == 0 || (err.code == r && err.hint[0] != '\0'));
    for (size_t i = 0; i < count; i++) {
        check_unit(&list[i]);
        pk_podman_read_inspect(json_array_get(json, i), &list[i]);
        check_unit(&list[i]);
    }
    pk_unit_status_list_free(list, count);

    struct pk_unit_status status = { 0 };
    pk_podman_read_inspect(json, &status);
    FUZZ_CHECK(status.started_at >= 0);
    char *release = pk_podman_read_release(json);
    FUZZ_CHECK(release != NULL && strlen(release) <= 40 && strpbrk(release, "\n\t \"'%") == NULL);
    pk_free(release);
}

/* Log frames: what comes out was in there, in this order, and the bound holds. */
static void unframe(const char *data, size_t size)
{
    struct pk_buf out = PK_BUF_INIT(LOG_MAX);
    bool framed = pk_podman_unframe(data, size, &out);
    FUZZ_CHECK(out.len <= LOG_MAX && out.len <= size);
    FUZZ_CHECK(!framed || size == 0 || size >= 8);
    size_t at = 0;
    for (size_t i = 0; i < size && at < out.len; i++)
        at += data[i] == out.data[at];
    FUZZ_CHECK(at == out.len);
    pk_buf_done(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data;
    json_t *json = NULL;
    if (pk_json_parse("input", text, size, &json, NULL) == 0)
        read_json(json);
    unframe(text, size);

    struct pk_error err = { 0 };
    static const unsigned statuses[] = { 400, 404, 409, 500 };
    int code = pk_podman_read_error("container x", statuses[size % 4], text, size, &err);
    FUZZ_CHECK(code < 0 && err.code == code && err.msg[0] != '\0' && err.hint[0] != '\0');

    struct pk_unit_status *list = NULL;
    size_t count = 0;
    pk_alloc_fail_nth(size % 16 + 1);
    int r = json != NULL ? pk_podman_read_list(json, TAG, &list, &count, NULL) : PK_E_INVALID;
    pk_alloc_fail_nth(0);
    FUZZ_CHECK((r == 0) == (list != NULL));
    pk_unit_status_list_free(list, count);
    json_decref(json);
    return 0;
}
