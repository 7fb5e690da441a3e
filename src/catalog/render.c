/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A unit's configuration: templates/ rendered (NAME.mustache -> NAME; names that begin with '_' are
 * partials only), and files/ as they are. The same input gives the same bytes.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/fs.h"
#include "base/map.h"
#include "catalog/internal.h"

#define FILE_MAX  (8u << 20)
#define FILES_MAX 1000u
#define DEPTH_MAX 8u
#define SUFFIX    ".mustache"

/* Relative paths of the regular files below dir/below, sorted. Links are not followed: a package is
 * what its folder holds. */
static int list_files(const char *dir, const char *below, unsigned depth, struct pk_strv *list,
                      struct pk_error *err)
{
    PK_CLEANUP(pk_free_p) char *path = pk_path_join(dir, below);
    if (path == NULL)
        return pk_no_memory(err);
    DIR *stream = opendir(path);
    if (stream == NULL) {
        if (errno == ENOENT && depth == 0)
            return 0;
        return pk_fail_errno(err, errno, "%s", path);
    }
    int r = 0;
    for (struct dirent *entry; r == 0 && (entry = readdir(stream)) != NULL;) {
        struct stat st;
        if (entry->d_name[0] == '.')
            continue;
        PK_CLEANUP(pk_free_p)
        char *name = below[0] != '\0' ? pk_asprintf("%s/%s", below, entry->d_name)
                                      : pk_strdup(entry->d_name);
        if (name == NULL)
            r = pk_no_memory(err);
        else if (fstatat(dirfd(stream), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
            r = pk_fail_errno(err, errno, "%s/%s", dir, name);
        else if (S_ISDIR(st.st_mode) && depth < DEPTH_MAX)
            r = list_files(dir, name, depth + 1, list, err);
        else if (!S_ISREG(st.st_mode)) {
            r = pk_fail(err, PK_E_INVALID, "%s/%s is neither a file nor a folder", dir, name);
            (void)pk_hint(err, "a package holds plain files only");
        } else if (list->count == FILES_MAX)
            r = pk_fail(err, PK_E_INVALID, "%s has more than %u files", dir, FILES_MAX);
        else if (pk_strv_add(list, name) < 0)
            r = pk_no_memory(err);
    }
    closedir(stream);
    return r;
}

void pk_rendered_done(struct pk_rendered *rendered)
{
    for (size_t i = 0; i < rendered->count; i++) {
        pk_free(rendered->files[i].path);
        pk_free(rendered->files[i].data);
    }
    pk_free(rendered->files);
    *rendered = (struct pk_rendered){ 0 };
}

/* Takes data. */
static int add_file(struct pk_rendered *rendered, const char *path, char *data, size_t len,
                    struct pk_error *err)
{
    struct pk_rendered_file *grown =
        pk_realloc_array(rendered->files, rendered->count + 1, sizeof(*grown));
    char *copy = pk_strdup(path);
    if (grown != NULL)
        rendered->files = grown;
    if (grown == NULL || copy == NULL) {
        pk_free(copy);
        pk_free(data);
        return pk_no_memory(err);
    }
    grown[rendered->count++] = (struct pk_rendered_file){ .path = copy, .data = data, .len = len };
    return 0;
}

struct partials {
    const char *dir;     /* templates/ */
    struct pk_map *read; /* name -> struct partial */
};
struct partial {
    char *text;
    size_t len;
};

static void free_partial(void *value)
{
    struct partial *partial = value;
    if (partial != NULL)
        pk_free(partial->text);
    pk_free(partial);
}

/* "rules/head" is templates/rules/head.mustache. Unlike in the specification, one that is not there
 * is an error: half a configuration must not start. */
static int find_partial(void *arg, const char *name, const char **ret_text, size_t *ret_len)
{
    struct partials *partials = arg;
    struct partial *partial = pk_map_get(partials->read, name);
    if (partial == NULL) {
        if (name[0] == '/' || strstr(name, "..") != NULL)
            return PK_E_INVALID;
        PK_CLEANUP(pk_free_p) char *path = pk_asprintf("%s/%s" SUFFIX, partials->dir, name);
        partial = pk_zalloc(sizeof(*partial));
        if (path == NULL || partial == NULL ||
            pk_file_read(path, FILE_MAX, &partial->text, &partial->len, NULL) < 0 ||
            pk_map_set_take(partials->read, name, partial) < 0) {
            free_partial(partial);
            return PK_E_INVALID;
        }
    }
    *ret_text = partial->text;
    *ret_len = partial->len;
    return 0;
}

static int render_templates(const char *dir, const json_t *context, struct pk_rendered *rendered,
                            struct pk_error *err)
{
    PK_CLEANUP(pk_strv_done) struct pk_strv names = { 0 };
    struct partials partials = { .dir = dir };
    int r = list_files(dir, "", 0, &names, err);
    if (r < 0)
        return r;
    PK_CLEANUP(pk_map_free_p) struct pk_map *read = pk_map_new(free_partial);
    if (read == NULL)
        return pk_no_memory(err);
    partials.read = read;
    for (size_t i = 0; i < names.count; i++) {
        const char *base = strrchr(names.list[i], '/');
        base = base != NULL ? base + 1 : names.list[i];
        if (base[0] == '_' || !pk_str_ends(base, SUFFIX))
            continue;
        PK_CLEANUP(pk_free_p) char *path = pk_path_join(dir, names.list[i]);
        PK_CLEANUP(pk_free_p) char *text = NULL;
        char *out = NULL;
        size_t len, out_len;
        if (path == NULL)
            return pk_no_memory(err);
        if ((r = pk_file_read(path, FILE_MAX, &text, &len, err)) < 0 ||
            (r = pk_mustache_render(path, text, len, context, find_partial, &partials, false, &out,
                                    &out_len, err)) < 0)
            return r;
        names.list[i][strlen(names.list[i]) - strlen(SUFFIX)] = '\0';
        if ((r = add_file(rendered, names.list[i], out, out_len, err)) < 0)
            return r;
    }
    return 0;
}

static int copy_files(const char *dir, struct pk_rendered *rendered, struct pk_error *err)
{
    PK_CLEANUP(pk_strv_done) struct pk_strv names = { 0 };
    int r = list_files(dir, "", 0, &names, err);
    for (size_t i = 0; i < names.count && r == 0; i++) {
        PK_CLEANUP(pk_free_p) char *path = pk_path_join(dir, names.list[i]);
        char *data = NULL;
        size_t len;
        if (path == NULL)
            return pk_no_memory(err);
        r = pk_file_read(path, FILE_MAX, &data, &len, err);
        if (r == 0)
            r = add_file(rendered, names.list[i], data, len, err);
    }
    return r;
}

static int by_path(const void *a, const void *b)
{
    const struct pk_rendered_file *x = a, *y = b;
    return strcmp(x->path, y->path);
}

int pk_package_render(const struct pk_package *package, const struct pk_package_version *version,
                      const json_t *context, struct pk_rendered *ret_rendered, struct pk_error *err)
{
    (void)version; /* the context says which it is */
    PK_CLEANUP(pk_rendered_done) struct pk_rendered rendered = { 0 };
    PK_CLEANUP(pk_free_p) char *templates = pk_path_join(package->dir, "templates");
    PK_CLEANUP(pk_free_p) char *files = pk_path_join(package->dir, "files");
    if (templates == NULL || files == NULL)
        return pk_no_memory(err);
    int r = render_templates(templates, context, &rendered, err);
    if (r == 0)
        r = copy_files(files, &rendered, err);
    if (r < 0)
        return r;
    if (rendered.count > 0)
        qsort(rendered.files, rendered.count, sizeof(rendered.files[0]), by_path);
    for (size_t i = 1; i < rendered.count; i++)
        if (strcmp(rendered.files[i - 1].path, rendered.files[i].path) == 0) {
            pk_fail(err, PK_E_INVALID, "package %s: %s comes from templates/ and from files/",
                    package->rows.name, rendered.files[i].path);
            return pk_hint(err, "remove one of the two");
        }
    *ret_rendered = rendered;
    rendered = (struct pk_rendered){ 0 };
    return 0;
}
