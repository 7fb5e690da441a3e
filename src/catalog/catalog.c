/* SPDX-License-Identifier: Apache-2.0 */
/* Folders of packages, and looking a package up. */
#include "catalog/catalog.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/fs.h"
#include "catalog/internal.h"

#define PACKAGES_MAX 1000u
#define INSTALLED    "/usr/share/picket/catalog"

struct pk_catalog {
    struct pk_package **packages; /* sorted by name */
    size_t count;
};

void pk_catalog_free(struct pk_catalog *catalog)
{
    if (catalog == NULL)
        return;
    for (size_t i = 0; i < catalog->count; i++)
        pk_package_free(catalog->packages[i]);
    pk_free(catalog->packages);
    pk_free(catalog);
}

size_t pk_catalog_count(const struct pk_catalog *catalog)
{
    return catalog->count;
}

const struct pk_package *pk_catalog_at(const struct pk_catalog *catalog, size_t index)
{
    return catalog->packages[index];
}

const char *pk_package_name(const struct pk_package *package)
{
    return package->rows.name;
}

const char *pk_package_summary(const struct pk_package *package)
{
    return package->rows.summary;
}

const char *pk_package_dir(const struct pk_package *package)
{
    return package->dir;
}

const struct pk_package_version *pk_package_versions(const struct pk_package *package,
                                                     size_t *ret_count)
{
    *ret_count = package->version_count;
    return package->versions;
}

const json_t *pk_package_schema(const struct pk_package *package)
{
    return package->schema;
}

const json_t *pk_package_manifest(const struct pk_package *package)
{
    return package->manifest;
}

/* ---- opening ---- */

static int out_of_memory(struct pk_errors *errors)
{
    struct pk_error err;
    pk_fail(&err, PK_E_NOMEM, "catalog: out of memory");
    pk_errors_add(errors, &err);
    return PK_E_NOMEM;
}

static const struct pk_package *find_exact(const struct pk_catalog *catalog, const char *name)
{
    for (size_t i = 0; i < catalog->count; i++)
        if (strcmp(catalog->packages[i]->rows.name, name) == 0)
            return catalog->packages[i];
    return NULL;
}

/* Sorted insertion; takes the package. */
static int insert(struct pk_catalog *catalog, struct pk_package *package)
{
    struct pk_package **grown =
        pk_realloc_array(catalog->packages, catalog->count + 1, sizeof(struct pk_package *));
    if (grown == NULL) {
        pk_package_free(package);
        return PK_E_NOMEM;
    }
    catalog->packages = grown;
    size_t at = catalog->count++;
    for (; at > 0 && strcmp(grown[at - 1]->rows.name, package->rows.name) > 0; at--)
        grown[at] = grown[at - 1];
    grown[at] = package;
    return 0;
}

/* Names of the folders in dir, sorted, without hidden ones. */
static int list_folders(const char *dir, struct pk_strv *names, struct pk_error *err)
{
    DIR *stream = opendir(dir);
    if (stream == NULL) {
        int r = pk_fail_errno(err, errno, "catalog %s", dir);
        (void)pk_hint(err, "PICKET_CATALOG names folders of packages, with ':' between them");
        return r;
    }
    int r = 0;
    for (struct dirent *entry; r == 0 && (entry = readdir(stream)) != NULL;) {
        struct stat st;
        if (entry->d_name[0] == '.' || fstatat(dirfd(stream), entry->d_name, &st, 0) < 0 ||
            !S_ISDIR(st.st_mode))
            continue;
        if (names->count == PACKAGES_MAX)
            r = pk_fail(err, PK_E_NOSPACE, "catalog %s: more than %u packages", dir, PACKAGES_MAX);
        else if (pk_strv_add(names, entry->d_name) < 0)
            r = pk_fail(err, PK_E_NOMEM, "catalog: out of memory");
    }
    closedir(stream);
    pk_strv_sort(names);
    return r;
}

/* Packages of earlier folders hide those of the same name in later ones. */
static int add_folder(struct pk_catalog *catalog, const char *dir, struct pk_errors *errors)
{
    PK_CLEANUP(pk_strv_done) struct pk_strv names = { 0 };
    struct pk_error err;
    int r = list_folders(dir, &names, &err);
    if (r < 0) {
        pk_errors_add(errors, &err);
        return r;
    }
    for (size_t i = 0; i < names.count; i++) {
        PK_CLEANUP(pk_free_p) char *path = pk_path_join(dir, names.list[i]);
        struct pk_package *package = NULL;
        if (path == NULL)
            return out_of_memory(errors);
        if (find_exact(catalog, names.list[i]) != NULL)
            continue;
        r = pk_package_load(path, &package, errors);
        if (r == PK_E_NOMEM || (r == 0 && insert(catalog, package) < 0))
            return r < 0 ? r : out_of_memory(errors);
    }
    return 0;
}

static bool is_folder(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

/* PICKET_CATALOG, else the catalog of the source tree or prefix that this program runs from, else
 * the installed one. */
static int search_path(struct pk_strv *dirs, struct pk_error *err)
{
    const char *variable = getenv("PICKET_CATALOG");
    if (variable != NULL && variable[0] != '\0') {
        for (const char *at = variable; at != NULL;) {
            size_t len = strcspn(at, ":");
            if (len > 0 && pk_strv_addf(dirs, "%.*s", (int)len, at) < 0)
                return pk_fail(err, PK_E_NOMEM, "catalog: out of memory");
            at = at[len] == ':' ? at + len + 1 : NULL;
        }
        return 0;
    }
    char path[4096 + 32];
    ssize_t got = readlink("/proc/self/exe", path, 4096);
    path[got > 0 ? got : 0] = '\0';
    for (char *slash; dirs->count == 0 && (slash = strrchr(path, '/')) != NULL;) {
        *slash = '\0';
        size_t room = sizeof(path) - (size_t)(slash - path);
        (void)snprintf(slash, room, "/src/catalog/catalog.h");
        bool source = access(path, R_OK) == 0;
        (void)snprintf(slash, room, "%s", source ? "/catalog" : "/share/picket/catalog");
        if (is_folder(path) && pk_strv_add(dirs, path) < 0)
            return pk_fail(err, PK_E_NOMEM, "catalog: out of memory");
        *slash = '\0';
    }
    if (dirs->count == 0 && is_folder(INSTALLED) && pk_strv_add(dirs, INSTALLED) < 0)
        return pk_fail(err, PK_E_NOMEM, "catalog: out of memory");
    if (dirs->count > 0)
        return 0;
    pk_fail(err, PK_E_NOTFOUND, "there is no catalog of packages");
    return pk_hint(err, "set PICKET_CATALOG to a folder of packages, or install one in " INSTALLED);
}

int pk_catalog_open(const char *const *dirs, struct pk_catalog **ret_catalog,
                    struct pk_errors *errors)
{
    PK_CLEANUP(pk_catalog_free_p) struct pk_catalog *catalog = pk_zalloc(sizeof(*catalog));
    PK_CLEANUP(pk_strv_done) struct pk_strv found = { 0 };
    struct pk_error err;
    if (catalog == NULL)
        return out_of_memory(errors);
    if (dirs == NULL) {
        int r = search_path(&found, &err);
        if (r < 0) {
            pk_errors_add(errors, &err);
            return r;
        }
        dirs = (const char *const *)found.list;
    }
    for (; dirs != NULL && *dirs != NULL; dirs++) {
        int r = add_folder(catalog, *dirs, errors);
        if (r < 0)
            return r;
    }
    *ret_catalog = PK_TAKE(catalog);
    return 0;
}

/* ---- looking up ---- */

static int no_package(const struct pk_catalog *catalog, const char *name, struct pk_error *err)
{
    const char *names[PACKAGES_MAX];
    size_t count = 0;
    char quoted[100];
    for (; count < catalog->count && count < PACKAGES_MAX; count++)
        names[count] = catalog->packages[count]->rows.name;
    const char *near = pk_str_closest(name, names, count);
    pk_fail(err, PK_E_NOTFOUND, "there is no package %s in the catalog",
            pk_quote(name, quoted, sizeof(quoted)));
    if (near != NULL)
        return pk_hint(err, "did you mean \"%s\"?", near);
    return pk_hint(err, "'picket catalog list' shows the packages");
}

static int no_version(const struct pk_package *package, const char *version, struct pk_error *err)
{
    char list[160] = "", quoted[100];
    for (size_t i = 0; i < package->version_count; i++) {
        size_t used = strlen(list);
        (void)snprintf(list + used, sizeof(list) - used, "%s%s@%s", i > 0 ? ", " : "",
                       package->rows.name, package->versions[i].version);
        for (size_t k = 0; k < package->versions[i].known.count; k++) {
            used = strlen(list);
            (void)snprintf(list + used, sizeof(list) - used, ", %s@%s", package->rows.name,
                           package->versions[i].known.list[k]);
        }
    }
    pk_fail(err, PK_E_NOTFOUND, "the package %s has no version %s", package->rows.name,
            pk_quote(version, quoted, sizeof(quoted)));
    return pk_hint(err, "write one of: %s", list);
}

bool pk_version_in_line(const char *version, const struct pk_package_version *line)
{
    static const char plain[] =
        "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.+~-";
    size_t len = strlen(line->version);
    if (strcmp(line->version, version) == 0 || pk_strv_contains(&line->known, version))
        return true;
    const char *rest = version + len;
    return strncmp(line->version, version, len) == 0 && rest[0] == '.' && rest[1] >= '0' &&
           rest[1] <= '9' && rest[strspn(rest, plain)] == '\0';
}

int pk_catalog_find(const struct pk_catalog *catalog, const char *name, const char *version,
                    const struct pk_package **ret_package,
                    const struct pk_package_version **ret_version, struct pk_error *err)
{
    const struct pk_package *package = find_exact(catalog, name);
    if (package == NULL)
        return no_package(catalog, name, err);
    const char *wanted = version[0] != '\0' ? version : package->rows.default_version;
    const struct pk_package_version *best = NULL;
    for (size_t i = 0; i < package->version_count; i++) {
        const struct pk_package_version *line = &package->versions[i];
        if (pk_version_in_line(wanted, line) &&
            (best == NULL || strlen(line->version) > strlen(best->version)))
            best = line;
    }
    if (best == NULL)
        return no_version(package, wanted, err);
    *ret_package = package;
    *ret_version = best;
    return 0;
}
