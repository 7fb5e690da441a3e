/* SPDX-License-Identifier: Apache-2.0 */
#include "store/duckdb_api.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LIBRARY "libduckdb.so"

static pthread_mutex_t load_lock = PTHREAD_MUTEX_INITIALIZER;
static struct pk_duckdb loaded;
static bool is_loaded;

static int load_from(const char *path, struct pk_error *err)
{
    /* Never closed: its threads and thread-local data would outlive the mapping. */
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);

    if (library == NULL) {
        (void)pk_fail(err, PK_E_UNSUPPORTED, "cannot load %s: %s", path, dlerror());
        return pk_hint(err, "run tools/fetch-duckdb to fetch it again");
    }
    struct pk_duckdb api;
    const char *missing = NULL;
#define TAKE(result, name, parameters)                                \
    api.name = (result(*) parameters)dlsym(library, "duckdb_" #name); \
    if (api.name == NULL)                                             \
        missing = "duckdb_" #name;
    PK_DUCKDB_FUNCTIONS(TAKE)
#undef TAKE
    if (missing != NULL) {
        (void)pk_fail(err, PK_E_UNSUPPORTED, "%s lacks %s", path, missing);
        return pk_hint(err, "picket needs DuckDB 1.x: run tools/fetch-duckdb");
    }
    loaded = api;
    return 0;
}

/* dir may be the file itself. */
static bool find_in(const char *dir, char *path, size_t size)
{
    struct stat st;

    if (dir == NULL || dir[0] == '\0' || stat(dir, &st) < 0)
        return false;
    int n = S_ISDIR(st.st_mode) ? snprintf(path, size, "%s/" LIBRARY, dir)
                                : snprintf(path, size, "%s", dir);
    return n > 0 && (size_t)n < size && stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

static bool find_library(char *path, size_t size)
{
    char program[512], dir[600];

    const char *wish = getenv("PICKET_DUCKDB");
    if (wish != NULL && wish[0] != '\0') /* a wish that cannot be met is an error, not a default */
        return find_in(wish, path, size);

    ssize_t n = readlink("/proc/self/exe", program, sizeof(program) - 1);
    if (n > 0) {
        program[n] = '\0';
        char *slash = strrchr(program, '/');
        if (slash != NULL)
            *slash = '\0';
        if (find_in(program, path, size))
            return true;
        (void)snprintf(dir, sizeof(dir), "%s/../lib/picket", program);
        if (find_in(dir, path, size))
            return true;
    }
    return find_in(PICKET_DUCKDB_DIR, path, size);
}

int pk_duckdb_load(const struct pk_duckdb **ret_api, struct pk_error *err)
{
    char path[700];
    int r = 0;

    pthread_mutex_lock(&load_lock);
    if (!is_loaded) {
        if (find_library(path, sizeof(path))) {
            r = load_from(path, err);
        } else {
            r = pk_fail(err, PK_E_NOTFOUND,
                        "the event store needs " LIBRARY ", which is not found");
            (void)pk_hint(err, "run tools/fetch-duckdb, or set PICKET_DUCKDB to the file");
        }
        is_loaded = r == 0;
    }
    pthread_mutex_unlock(&load_lock);
    if (r == 0)
        *ret_api = &loaded;
    return r;
}

int pk_duckdb_fail(struct pk_error *err, const char *what, const char *message)
{
    int code = PK_E_IO;
    const char *hint = "see the message; the store goes on and tries again";

    if (message == NULL)
        message = "unknown error";
    if (strstr(message, "No space left") != NULL || strstr(message, "not enough space") != NULL) {
        code = PK_E_NOSPACE;
        hint = "free some space: ingest goes on by itself, nothing is lost until then";
    } else if (strstr(message, "Out of Memory") != NULL) {
        code = PK_E_NOSPACE;
        hint = "ask for fewer events or a shorter time";
    } else if (strstr(message, "INTERRUPT") != NULL) {
        code = PK_E_TIMEOUT;
        hint = "ask for a shorter time or a narrower query";
    }
    (void)pk_fail(err, code, "%s: %s", what, message);
    return pk_hint(err, "%s", hint);
}

int pk_duckdb_exec(const struct pk_duckdb *duck, duckdb_connection connection, const char *what,
                   const char *sql, struct pk_error *err)
{
    struct duckdb_result result;
    int r = 0;

    if (duck->query(connection, sql, &result) != DUCKDB_OK)
        r = pk_duckdb_fail(err, what, duck->result_error(&result));
    duck->destroy_result(&result);
    return r;
}
