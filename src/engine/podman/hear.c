/* SPDX-License-Identifier: Apache-2.0 */
/* How Podman's answers are read. Nothing in them is trusted. */
#include <string.h>

#include "base/alloc.h"
#include "base/json.h"
#include "base/str.h"
#include "base/time.h"
#include "engine/internal.h"
#include "engine/podman/internal.h"

#define UNITS_MAX 65536

static const char *text_at(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text != NULL ? text : "";
}

static json_int_t int_at(const json_t *object, const char *key)
{
    return json_integer_value(json_object_get(object, key));
}

static enum pk_unit_state state_of(const char *text)
{
    /* "stopping" and "paused" still have a process; "removing" and "dead" have none any more. */
    static const char *const running[] = { "running", "stopping", "paused" };
    static const char *const created[] = { "created", "configured", "initialized" };

    for (size_t i = 0; i < PK_ARRAY_SIZE(running); i++)
        if (strcmp(text, running[i]) == 0)
            return PK_UNIT_RUNNING;
    for (size_t i = 0; i < PK_ARRAY_SIZE(created); i++)
        if (strcmp(text, created[i]) == 0)
            return PK_UNIT_CREATED;
    return PK_UNIT_EXITED;
}

static char *digest_of(const char *image_id)
{
    if (pk_str_starts(image_id, "sha256:"))
        return pk_strdup(image_id);
    return pk_asprintf("sha256:%s", image_id);
}

static int read_entry(const json_t *entry, struct pk_unit_status *status)
{
    const json_t *labels = json_object_get(entry, "Labels");
    const char *name = json_string_value(json_array_get(json_object_get(entry, "Names"), 0));

    status->name = pk_strdup(name != NULL ? name : "");
    status->id = pk_strdup(text_at(entry, "Id"));
    status->fleet = pk_strdup(text_at(labels, PK_LABEL_FLEET));
    status->group = pk_strdup(text_at(labels, PK_LABEL_GROUP));
    status->tool = pk_strdup(text_at(labels, PK_LABEL_TOOL));
    status->hash = pk_strdup(text_at(labels, PK_LABEL_HASH));
    status->image_digest = digest_of(text_at(entry, "ImageID"));
    if (status->name == NULL || status->id == NULL || status->fleet == NULL ||
        status->group == NULL || status->tool == NULL || status->hash == NULL ||
        status->image_digest == NULL)
        return PK_E_NOMEM;

    uint64_t lane = 0;
    if (pk_parse_u64(text_at(labels, PK_LABEL_LANE), &lane, NULL) == 0 && lane <= UINT32_MAX)
        status->lane = (unsigned)lane;
    status->state = state_of(text_at(entry, "State"));
    if (status->state == PK_UNIT_RUNNING) {
        json_int_t pid = int_at(entry, "Pid");
        status->pid = pid > 0 && pid <= INT32_MAX ? (pid_t)pid : 0;
    }
    json_int_t code = int_at(entry, "ExitCode");
    if (status->state == PK_UNIT_EXITED)
        status->exit_code = code >= 0 && code <= 255 ? (int)code : 255;
    json_int_t started = int_at(entry, "StartedAt");
    if (started > 0 && started < INT64_MAX / PK_NSEC_PER_SEC)
        status->started_at = started * PK_NSEC_PER_SEC;

    /* A label that does not read says nothing: the unit then differs from whatever is wanted. */
    const char *unit = text_at(labels, PK_LABEL_UNIT);
    if (unit[0] != '\0')
        (void)pk_json_parse(PK_LABEL_UNIT, unit, strlen(unit), &status->unit, NULL);
    return 0;
}

int pk_podman_read_list(const json_t *answer, const char *tag, struct pk_unit_status **ret_list,
                        size_t *ret_count, struct pk_error *err)
{
    if (!json_is_array(answer) || json_array_size(answer) > UNITS_MAX) {
        pk_fail(err, PK_E_IO, "Podman's list of containers is not what it should be");
        pk_hint(err, "is this the socket of Podman 4 or newer?");
        return PK_E_IO;
    }
    struct pk_unit_status *list = pk_zalloc_array(json_array_size(answer) + 1, sizeof(*list));
    if (list == NULL)
        return pk_no_memory(err);
    size_t count = 0;
    for (size_t i = 0; i < json_array_size(answer); i++) {
        const json_t *entry = json_array_get(answer, i);
        const char *instance = text_at(json_object_get(entry, "Labels"), PK_LABEL_INSTANCE);
        if (strcmp(instance, tag) != 0)
            continue;
        if (read_entry(entry, &list[count++]) < 0) {
            pk_unit_status_list_free(list, count);
            return pk_no_memory(err);
        }
    }
    *ret_list = list;
    *ret_count = count;
    return 0;
}

void pk_podman_read_inspect(const json_t *answer, struct pk_unit_status *status)
{
    const json_t *state = json_object_get(answer, "State");
    status->oom_killed = json_is_true(json_object_get(state, "OOMKilled"));
    const char *started = text_at(state, "StartedAt");
    pk_nsec when;
    /* A container that never started says year 1, which no pk_nsec holds. */
    if (pk_time_parse(started, strlen(started), &when, NULL) == 0 && when > 0)
        status->started_at = when;
}

char *pk_podman_read_release(const json_t *answer)
{
    static const char plain[] =
        "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.+~-";

    const char *text = text_at(json_object_get(answer, "Labels"), PK_IMAGE_LABEL_RELEASE);
    size_t len = strlen(text);
    return pk_strdup(len <= 40 && strspn(text, plain) == len ? text : "");
}

/* What an error text means. The API gives 500 for most things, so the text decides; it comes from
 * Podman, conmon, the runtime or the kernel. The first match counts. */
#define HINT_BUILD "build it: picket image build NAME"
#define HINT_LANE  "the lane is not there: is picket node running?"
#define HINT_APPLY "apply the fleet again: what is missing is made anew"
static const struct {
    const char *part;
    int code;
    const char *hint;
} meanings[] = {
    /* clang-format off */
    { "no space left", PK_E_NOSPACE, "free space where Podman keeps its images: podman system df" },
    { "already in use", PK_E_CONFLICT, "another container has the name: podman ps -a, podman rm" },
    { "no such image", PK_E_NOTFOUND, HINT_BUILD },
    { "image not known", PK_E_NOTFOUND, HINT_BUILD },
    { "no such container", PK_E_NOTFOUND, HINT_APPLY },
    { "state improper", PK_E_CONFLICT, "the container does not run: picket logs tells why" },
    { "cgroup", PK_E_UNSUPPORTED,
      "the container runtime does not take to this machine's cgroups: install runc, then picket doctor" },
    { "rlimit", PK_E_DENIED,
      "Podman's service may not set so high a limit: let picket up start it, or raise its limits" },
    { "network namespace", PK_E_NOTFOUND, HINT_LANE },
    { "netns", PK_E_NOTFOUND, HINT_LANE },
    { "executable file not found", PK_E_INVALID, "the image lacks it: picket image build NAME --force" },
    { "permission denied", PK_E_DENIED, "Podman's service must run as root" },
    { "no such file or directory", PK_E_NOTFOUND, HINT_APPLY },
    /* clang-format on */
};

int pk_podman_read_error(const char *what, unsigned http_status, const char *body, size_t len,
                         struct pk_error *err)
{
    PK_JSON answer = NULL;
    const char *text = "";
    if (pk_json_parse("Podman's answer", body, len, &answer, NULL) == 0) {
        text = text_at(answer, "message");
        if (text[0] == '\0')
            text = text_at(answer, "cause");
    }
    if (text[0] == '\0')
        text = "Podman gave no reason";

    int code = http_status == 404   ? PK_E_NOTFOUND
               : http_status == 409 ? PK_E_CONFLICT
               : http_status == 400 ? PK_E_INVALID
                                    : PK_E_IO;
    const char *hint = "see what Podman and the container say: podman logs, picket doctor";
    for (size_t i = 0; i < PK_ARRAY_SIZE(meanings); i++) {
        if (strcasestr(text, meanings[i].part) != NULL) {
            code = meanings[i].code;
            hint = meanings[i].hint;
            break;
        }
    }
    pk_fail(err, code, "%s: %s (status %u)", what, text, http_status);
    pk_hint(err, "%s", hint);
    return code;
}

bool pk_podman_unframe(const char *data, size_t len, struct pk_buf *out)
{
    while (len > 0) {
        const unsigned char *head = (const unsigned char *)data;
        if (len < 8 || head[0] > 3 || head[1] != 0 || head[2] != 0 || head[3] != 0)
            return false;
        size_t size =
            (size_t)head[4] << 24 | (size_t)head[5] << 16 | (size_t)head[6] << 8 | head[7];
        data += 8;
        len -= 8;
        size = PK_MIN(size, len);
        /* Output beyond the buffer's bound is dropped: a log is for reading. */
        (void)pk_buf_add(out, data, size);
        data += size;
        len -= size;
    }
    return true;
}
