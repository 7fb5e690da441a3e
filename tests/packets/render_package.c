/* SPDX-License-Identifier: Apache-2.0 */
/*
 * render_package PACKAGE VERSION VALUES-JSON FOLDER: writes the configuration of one lane's unit as
 * a fleet with these values would get it. For the packet tests of packages.
 */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/doc.h"
#include "base/fs.h"
#include "base/json.h"
#include "catalog/catalog.h"

static int fail(const char *what, const struct pk_error *err)
{
    fprintf(stderr, "%s: %s:%u: %s (%s)\n", what, err->file, err->line, err->msg, err->hint);
    return 1;
}

static int write_files(const struct pk_rendered *rendered, const char *folder)
{
    struct pk_error err = { 0 };
    for (size_t i = 0; i < rendered->count; i++) {
        PK_CLEANUP(pk_free_p) char *path = pk_asprintf("%s/%s", folder, rendered->files[i].path);
        PK_CLEANUP(pk_free_p)
        char *parent = path != NULL ? pk_strndup(path, (size_t)(strrchr(path, '/') - path)) : NULL;
        if (parent == NULL || pk_mkdir_p(parent, 0755, &err) < 0 ||
            pk_file_write(path, rendered->files[i].data, rendered->files[i].len, 0644, &err) < 0)
            return fail("write", &err);
    }
    return 0;
}

int main(int argc, char **argv)
{
    struct pk_error err = { 0 };
    struct pk_errors errors = { 0 };
    if (argc != 5) {
        fprintf(stderr, "usage: render_package PACKAGE VERSION VALUES-JSON FOLDER\n");
        return 2;
    }
    PK_CLEANUP(pk_catalog_free_p) struct pk_catalog *catalog = NULL;
    PK_CLEANUP(pk_doc_free_p) struct pk_doc *doc = NULL;
    const struct pk_package *package;
    const struct pk_package_version *version;
    json_t *values = NULL;
    if (pk_catalog_open(NULL, &catalog, &errors) < 0 || errors.count > 0)
        return fail("catalog", errors.count > 0 ? &errors.list[0] : &err);
    if (pk_catalog_find(catalog, argv[1], argv[2], &package, &version, &err) < 0 ||
        pk_doc_parse("values", argv[3], strlen(argv[3]), &doc, &err) < 0)
        return fail("package", &err);
    if (pk_package_check_values(package, version, doc, pk_doc_root(doc), &values, &errors) < 0)
        return fail("values", errors.count > 0 ? &errors.list[0] : &err);
    PK_JSON context = json_pack(
        "{s:o, s:s, s:s, s:s, s:i, s:i, s:s, s:i, s:[i], s:{s:b}, s:I, s:{s:s, s:s, s:s}}",
        "values", values, "fleet", "packets", "group", "packets", "tool", argv[1], "lane", 0,
        "lanes", 1, "interface", "tap0", "mtu", 1500, "cpus", 0, "version", version->version, 1,
        "memoryBytes", (json_int_t)1 << 30, "paths", "config", version->config_dir, "log",
        version->log_dir, "run", version->run_dir);
    struct pk_rendered rendered;
    if (context == NULL || pk_package_render(package, version, context, &rendered, &err) < 0)
        return fail("render", &err);
    int status = write_files(&rendered, argv[4]);
    pk_rendered_done(&rendered);
    pk_errors_done(&errors);
    return status;
}
