/* SPDX-License-Identifier: Apache-2.0 */
/* picket image: builds the container images of packages, on this machine. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/fs.h"
#include "base/json.h"
#include "catalog/catalog.h"
#include "cli/cli.h"
#include "cli/commands.h"
#include "engine/podman/service.h"

static char *images_dir(const struct pk_ctx *ctx)
{
    return pk_path_join(ctx->paths.state_dir, "images");
}

static int open_catalog(const struct pk_ctx *ctx, struct pk_catalog **ret_catalog,
                        struct pk_error *err)
{
    struct pk_errors errors = { 0 };
    int r = pk_catalog_open(NULL, ret_catalog, &errors);
    if (r < 0 && errors.count > 0) {
        if (err != NULL)
            *err = errors.list[0];
    } else if (r < 0) {
        pk_fail(err, r, "the catalog cannot be opened");
        pk_hint(err, "set PICKET_CATALOG to the folder of packages");
    } else if (errors.count > 0) {
        pk_report_errors(ctx, &errors);
    }
    pk_errors_done(&errors);
    return r;
}

/* ---- build ---- */

struct build_args {
    bool force;
    const char *registry;
};
static const struct pk_opt build_opts[] = {
    { "force", 'f', PK_OPT_FLAG, NULL, offsetof(struct build_args, force),
      "build even if the image of this recipe is there", NULL },
    { "registry", 0, PK_OPT_STRING, "HOST[:PORT]", offsetof(struct build_args, registry),
      "where the base image comes from; none = nowhere (default: PICKET_REGISTRY, else as Podman "
      "resolves short names)",
      NULL },
};
static const struct pk_arg build_pos[] = {
    { "PACKAGE", "NAME or NAME@VERSION; without a version the package's default", "package", false,
      false },
};

static void show_line(void *arg, const char *line)
{
    const struct pk_ctx *ctx = arg;
    /* Progress is not the result: it goes to standard error. */
    if (!ctx->quiet)
        fprintf(stderr, "%s\n", line);
}

static int run_build(struct pk_ctx *ctx, const void *args, int argc, char **argv,
                     struct pk_error *err)
{
    const struct build_args *options = args;
    (void)argc;
    PK_CLEANUP(pk_catalog_free_p) struct pk_catalog *catalog = NULL;
    int r = open_catalog(ctx, &catalog, err);
    if (r < 0)
        return r;
    const char *at = strchr(argv[0], '@');
    PK_CLEANUP(pk_free_p) char *name = pk_strndup(argv[0], strcspn(argv[0], "@"));
    PK_CLEANUP(pk_free_p) char *socket = pk_path_join(ctx->paths.run_dir, "podman.sock");
    PK_CLEANUP(pk_free_p) char *work_dir = images_dir(ctx);
    if (name == NULL || socket == NULL || work_dir == NULL)
        return pk_fail(err, PK_E_NOMEM, "out of memory");
    const struct pk_package *package;
    const struct pk_package_version *version;
    r = pk_catalog_find(catalog, name, at != NULL ? at + 1 : "", &package, &version, err);
    if (r < 0)
        return r;

    /* A container is run for the base image: with settings that fit this machine. */
    struct pk_podman_host host;
    PK_CLEANUP(pk_free_p) char *conf = NULL;
    if (pk_podman_host_probe(&host, NULL) == 0 && host.runtime[0] != '\0')
        conf = pk_podman_containers_conf(&host);
    const char *registry =
        options->registry != NULL ? options->registry : getenv("PICKET_REGISTRY");
    struct pk_image_build_options build = { .podman_socket = socket,
                                            .work_dir = work_dir,
                                            .force = options->force,
                                            .registry = registry,
                                            .containers_conf = conf,
                                            .on_line = show_line,
                                            .on_line_arg = ctx };
    PK_CLEANUP(pk_free_p) char *digest = NULL;
    r = pk_image_build(package, version, &build, &digest, err);
    if (r < 0)
        return r;
    if (ctx->output == PK_OUT_JSON || ctx->output == PK_OUT_YAML) {
        PK_JSON document =
            json_pack("{s:s, s:s, s:s, s:s}", "package", pk_package_name(package), "version",
                      version->version, "image", version->image, "digest", digest);
        return document != NULL ? pk_out_document(ctx, document, err)
                                : pk_fail(err, PK_E_NOMEM, "out of memory");
    }
    printf("%s\n", digest);
    return 0;
}

static const char *const build_examples[] = { "picket image build suricata",
                                              "picket image build suricata@8 --force", NULL };
const struct pk_cmd pk_cmd_image_build = {
    .name = "image build",
    .group = "Packages",
    .summary = "build a package's container image from its recipe",
    .details =
        "Takes the recipe's base image where a registry answers within seconds, and installs the "
        "recipe's Debian packages there; else unpacks these alone. They come from the mirrors that "
        "this host's apt has. Then keeps "
        "only what the tool needs to run, and loads that into Podman. The host's own packages "
        "and package sources stay as they are. Nothing is done when the image of the same "
        "recipe is there, unless --force is given. Prints the image's digest.\n\n"
        "PICKET_DEBIAN_MIRROR and PICKET_DEBIAN_SECURITY_MIRROR name other mirrors.",
    .examples = build_examples,
    .opts = build_opts,
    .opt_count = PK_ARRAY_SIZE(build_opts),
    .args = build_pos,
    .arg_count = PK_ARRAY_SIZE(build_pos),
    .args_size = sizeof(struct build_args),
    .flags = PK_CMD_OUTPUT,
    .run = run_build,
};

/* ---- list ---- */

static const struct pk_table_column list_columns[] = {
    { "PACKAGE", "package", 1, false, NULL }, { "LINE", "version", 1, false, NULL },
    { "VERSION", "release", 1, false, NULL }, { "BUILT", "builtAt", 2, false, "ago" },
    { "SIZE", "bytes", 2, true, "bytes" },    { "IMAGE", "image", 3, false, NULL },
    { "DIGEST", "digest", 0, false, NULL },   { "FILES", "files", 0, true, NULL },
};

/* A version line with its record, if it was built here. */
static json_t *list_row(const char *dir, const struct pk_package *package,
                        const struct pk_package_version *version)
{
    PK_CLEANUP(pk_free_p)
    char *path = pk_asprintf("%s/%s-%s.json", dir, pk_package_name(package), version->version);
    json_t *row = NULL;
    if (path != NULL && pk_file_exists(path) && pk_json_load(path, &row, NULL) == 0 &&
        json_is_object(row))
        return row;
    json_decref(row);
    return json_pack("{s:s, s:s, s:s}", "package", pk_package_name(package), "version",
                     version->version, "image", version->image);
}

static int run_list(struct pk_ctx *ctx, const void *args, int argc, char **argv,
                    struct pk_error *err)
{
    (void)args, (void)argc, (void)argv;
    PK_CLEANUP(pk_catalog_free_p) struct pk_catalog *catalog = NULL;
    int r = open_catalog(ctx, &catalog, err);
    if (r < 0)
        return r;
    PK_CLEANUP(pk_free_p) char *dir = images_dir(ctx);
    PK_JSON rows = json_array();
    if (dir == NULL || rows == NULL)
        return pk_fail(err, PK_E_NOMEM, "out of memory");
    for (size_t i = 0; i < pk_catalog_count(catalog); i++) {
        const struct pk_package *package = pk_catalog_at(catalog, i);
        size_t count;
        const struct pk_package_version *versions = pk_package_versions(package, &count);
        for (size_t k = 0; k < count; k++)
            if (json_array_append_new(rows, list_row(dir, package, &versions[k])) < 0)
                return pk_fail(err, PK_E_NOMEM, "out of memory");
    }
    return pk_out_table(ctx, NULL, rows, list_columns, PK_ARRAY_SIZE(list_columns), "image", err);
}

static const char *const list_examples[] = { "picket image list", "picket image list -o json",
                                             NULL };
const struct pk_cmd pk_cmd_image_list = {
    .name = "image list",
    .group = "Packages",
    .summary = "list the packages' images and when they were built here",
    .examples = list_examples,
    .flags = PK_CMD_OUTPUT,
    .run = run_list,
};
