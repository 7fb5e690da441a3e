/* SPDX-License-Identifier: Apache-2.0 */
/* Names what changed between two canonical units. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/json.h"
#include "base/str.h"
#include "plan/internal.h"

#define CHANGES_MAX_BYTES 1024u
#define NAMES_MAX         6u /* listed by name; the rest is counted */

static void separate(struct pk_buf *out)
{
    if (out->len > 0)
        (void)pk_buf_puts(out, "; ");
}

/* Lists "what: a, b, c and 3 more" of the members that differ between two objects. */
static bool list_members(struct pk_buf *out, const char *what, json_t *from, json_t *to)
{
    size_t count = 0;
    for (int pass = 0; pass < 2; pass++) {
        json_t *one = pass == 0 ? to : from;
        json_t *other = pass == 0 ? from : to;
        const char *key;
        json_t *value;
        json_object_foreach(one, key, value)
        {
            json_t *before = json_object_get(other, key);
            if (pass == 0 ? before != NULL && json_equal(before, value) : before != NULL)
                continue;
            if (count == 0) {
                separate(out);
                (void)pk_buf_printf(out, "%s: ", what);
            }
            if (count < NAMES_MAX)
                (void)pk_buf_printf(out, "%s%s", count > 0 ? ", " : "", key);
            count++;
        }
    }
    if (count > NAMES_MAX)
        (void)pk_buf_printf(out, " and %zu more", count - NAMES_MAX);
    return count > 0;
}

/* "sha256:0123456789ab..." as people know images. */
static const char *short_digest(const char *digest, char out[24])
{
    (void)snprintf(out, 24, "%.19s", digest);
    return out;
}

static void compare_text(struct pk_buf *out, const json_t *from, const json_t *to, const char *key,
                         const char *what)
{
    const char *before = pk_json_string_or(from, key, "");
    const char *after = pk_json_string_or(to, key, "");
    if (strcmp(before, after) == 0)
        return;
    separate(out);
    (void)pk_buf_printf(out, "%s %s -> %s", what, *before != '\0' ? before : "none",
                        *after != '\0' ? after : "none");
}

static void compare_bytes(struct pk_buf *out, const json_t *from, const json_t *to, const char *key,
                          const char *what)
{
    int64_t before = pk_json_int_or(from, key, 0);
    int64_t after = pk_json_int_or(to, key, 0);
    if (before == after)
        return;
    char a[32];
    char b[32];
    separate(out);
    (void)pk_buf_printf(out, "%s %s -> %s", what, pk_format_bytes((uint64_t)before, a, sizeof(a)),
                        pk_format_bytes((uint64_t)after, b, sizeof(b)));
}

static void compare_number(struct pk_buf *out, const json_t *from, const json_t *to,
                           const char *key, const char *what)
{
    int64_t before = pk_json_int_or(from, key, 0);
    int64_t after = pk_json_int_or(to, key, 0);
    if (before == after)
        return;
    separate(out);
    (void)pk_buf_printf(out, "%s %" PRId64 " -> %" PRId64, what, before, after);
}

static bool differs(const json_t *from, const json_t *to, const char *key)
{
    json_t *before = json_object_get(from, key);
    json_t *after = json_object_get(to, key);
    return (before != NULL || after != NULL) && !json_equal(before, after);
}

char *pk_unit_changes(const json_t *from, const json_t *to)
{
    PK_CLEANUP(pk_buf_done) struct pk_buf out = PK_BUF_INIT(CHANGES_MAX_BYTES);
    if (from == NULL)
        return pk_strdup("its definition differs");

    compare_text(&out, from, to, "package", "package");
    compare_text(&out, from, to, "version", "version");
    compare_text(&out, from, to, "image", "image name");
    const char *before = pk_json_string_or(from, "imageDigest", "");
    const char *after = pk_json_string_or(to, "imageDigest", "");
    if (strcmp(before, after) != 0) {
        char a[24];
        char b[24];
        separate(&out);
        (void)pk_buf_printf(&out, "image %s -> %s", short_digest(before, a),
                            short_digest(after, b));
    }
    bool values = list_members(&out, "values changed", json_object_get(from, "values"),
                               json_object_get(to, "values"));
    if (!values) /* else the files follow from the values and say nothing new */
        (void)list_members(&out, "config files changed", json_object_get(from, "files"),
                           json_object_get(to, "files"));
    compare_text(&out, from, to, "user", "user");
    compare_text(&out, from, to, "cpuset", "cpu");
    compare_bytes(&out, from, to, "memoryBytes", "memory");
    compare_bytes(&out, from, to, "tmpfsBytes", "tmpfs");
    compare_number(&out, from, to, "pidsMax", "process limit");
    compare_number(&out, from, to, "nofile", "open file limit");
    compare_number(&out, from, to, "stopTimeoutMs", "stop timeout (ms)");
    compare_text(&out, from, to, "netns", "namespace");
    if (differs(from, to, "argv")) {
        separate(&out);
        (void)pk_buf_puts(&out, "command changed");
    }
    if (differs(from, to, "capabilities")) {
        separate(&out);
        (void)pk_buf_puts(&out, "capabilities changed");
    }
    if (out.len == 0)
        (void)pk_buf_puts(&out, "its definition differs");
    if (out.failed && out.data != NULL) /* too long to list: still true */
        return pk_strdup("many settings changed");
    return pk_buf_take(&out);
}
