/* SPDX-License-Identifier: Apache-2.0 */
#include "base/paths.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/str.h"

static int too_long(const char *what, const char *path, size_t size, struct pk_error *err)
{
    pk_fail(err, PK_E_USAGE, "%s '%.200s' is longer than %zu bytes", what, path, size - 1);
    pk_hint(err, "choose a shorter path for %s", what);
    return PK_E_USAGE;
}

/* Absolute, without "//", "." and "..": the same folder must always give the same tag. By text
 * only, as the folder need not exist yet. */
static int normalise(const char *what, const char *path, char *out, size_t size,
                     struct pk_error *err)
{
    char whole[PATH_MAX];
    char here[PATH_MAX] = "";
    if (path[0] == '\0') {
        pk_fail(err, PK_E_USAGE, "%s is empty", what);
        pk_hint(err, "give a folder, such as /tmp/picket");
        return PK_E_USAGE;
    }
    if (path[0] != '/' && getcwd(here, sizeof(here)) == NULL)
        return pk_fail_errno(err, errno, "cannot tell the current folder");
    int n = snprintf(whole, sizeof(whole), "%s/%s", here, path);
    if (n < 0 || (size_t)n >= sizeof(whole))
        return too_long(what, path, size, err);
    size_t used = 0;
    for (const char *p = whole; *p != '\0';) {
        p += strspn(p, "/");
        size_t len = strcspn(p, "/");
        if (len == 0)
            break;
        if (len == 2 && p[0] == '.' && p[1] == '.') {
            while (used > 0 && out[--used] != '/')
                ;
        } else if (!(len == 1 && p[0] == '.')) {
            if (used + 1 + len >= size)
                return too_long(what, path, size, err);
            out[used++] = '/';
            memcpy(out + used, p, len);
            used += len;
        }
        p += len;
    }
    out[used] = '\0';
    if (used == 0) {
        pk_fail(err, PK_E_USAGE, "%s cannot be the root folder", what);
        pk_hint(err, "give a folder of its own, such as /var/lib/picket");
        return PK_E_USAGE;
    }
    for (const char *p = out; *p != '\0'; p++) {
        if ((unsigned char)*p < 0x20 || *p == 0x7f) {
            pk_fail(err, PK_E_USAGE, "%s has a control character in it", what);
            pk_hint(err, "give a path of printable characters");
            return PK_E_USAGE;
        }
    }
    return 0;
}

static const char *choose(const char *given, const char *variable, const char *fallback)
{
    if (given != NULL)
        return given;
    /* NOLINTNEXTLINE(concurrency-mt-unsafe): nothing changes the environment */
    const char *from_environment = getenv(variable);
    return from_environment != NULL && from_environment[0] != '\0' ? from_environment : fallback;
}

int pk_paths_init(const char *state_dir, const char *run_dir, struct pk_paths *ret_paths,
                  struct pk_error *err)
{
    struct pk_paths paths = { 0 };
    const char *state = choose(state_dir, "PICKET_STATE_DIR", PK_DEFAULT_STATE_DIR);
    const char *run = choose(run_dir, "PICKET_RUN_DIR", PK_DEFAULT_RUN_DIR);
    int r = normalise("the state folder", state, paths.state_dir, sizeof(paths.state_dir), err);
    if (r < 0)
        return r;
    r = normalise("the run folder", run, paths.run_dir, sizeof(paths.run_dir), err);
    if (r < 0)
        return r;
    char digest[65];
    pk_sha256_hex(paths.run_dir, strlen(paths.run_dir), digest);
    (void)snprintf(paths.tag, sizeof(paths.tag), "pk%.4s", digest);
    *ret_paths = paths;
    return 0;
}
