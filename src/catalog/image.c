/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Builds the image of a package's version line and remembers from which recipe. All work happens in
 * a folder of its own below work_dir, which is removed at the end, also of a failure.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/fs.h"
#include "base/json.h"
#include "base/proc.h"
#include "base/time.h"
#include "catalog/image_internal.h"

/* Builder stage, layer, archive and what Podman unpacks, with room to spare. */
#define SPACE_BYTES (UINT64_C(1) << 30)

struct build {
    const struct pk_package *package;
    const struct pk_package_version *version;
    const struct pk_image_build_options *options;
    struct pk_recipe recipe;
    char *record_path;
    char *dir; /* of this build */
    struct pk_strv packages;
    char *check_output; /* first line */
    char *release;      /* full version of the tool: "7.0.10" */
    uint64_t bytes;
    size_t files;
    struct pk_base base; /* of a registry; without an id there was none */
    pk_nsec started;
};

static void say(const struct build *build, const char *fmt, ...) PK_PRINTF(2, 3);
static void say(const struct build *build, const char *fmt, ...)
{
    if (build->options->on_line == NULL)
        return;
    va_list args;
    va_start(args, fmt);
    PK_CLEANUP(pk_free_p) char *line = pk_vasprintf(fmt, args);
    va_end(args);
    if (line != NULL)
        build->options->on_line(build->options->on_line_arg, line);
}

static void forward_line(void *arg, const char *line)
{
    const struct build *build = arg;
    /* mmdebstrap's notes; apt's own chatter goes unseen. */
    if (pk_str_starts(line, "I: ") || pk_str_starts(line, "E: "))
        say(build, "  %s", line + 3);
}

static void build_done(struct build *build)
{
    pk_base_done(&build->base);
    if (build->dir != NULL)
        (void)pk_rm_rf(build->dir, NULL);
    pk_recipe_done(&build->recipe);
    pk_strv_done(&build->packages);
    pk_free(build->record_path);
    pk_free(build->dir);
    pk_free(build->check_output);
    pk_free(build->release);
}

/* What 'picket image list' shows. */
static int write_record(const struct build *build, const char *digest, struct pk_error *err)
{
    char when[40];
    pk_time_format(pk_time_now(), 0, when, sizeof(when));
    json_t *packages = json_array();
    for (size_t i = 0; packages != NULL && i < build->packages.count; i++)
        json_array_append_new(packages, json_string(build->packages.list[i]));
    PK_JSON record =
        json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:I, s:I, s:s, s:I, s:o}", "package",
                  pk_package_name(build->package), "version", build->version->version, "release",
                  build->release != NULL ? build->release : "", "image", build->version->image,
                  "recipeHash", build->recipe.hash, "digest", digest, "check",
                  build->check_output != NULL ? build->check_output : "", "bytes",
                  (json_int_t)build->bytes, "files", (json_int_t)build->files, "builtAt", when,
                  "seconds", (json_int_t)((pk_time_monotonic() - build->started) / PK_NSEC_PER_SEC),
                  "packages", packages);
    PK_CLEANUP(pk_free_p) char *text = record != NULL ? pk_json_pretty(record) : NULL;
    if (text == NULL)
        return pk_fail(err, PK_E_NOMEM, "out of memory");
    return pk_file_write(build->record_path, text, strlen(text), 0644, err);
}

/* *ret_digest: of the image that is there and was made from this recipe, or NULL. What Podman says
 * of it counts, so that instances with state folders of their own share images. */
static int find_built(struct build *build, char **ret_digest, struct pk_error *err)
{
    *ret_digest = NULL;
    if (build->options->force)
        return 0;
    PK_CLEANUP(pk_podman_image_done) struct pk_podman_image image = { 0 };
    int r = pk_podman_image_find(build->options->podman_socket, build->version->image, &image, err);
    if (r < 0 || image.digest == NULL || strcmp(image.recipe, build->recipe.hash) != 0)
        return r;
    PK_JSON record = NULL;
    if (!pk_file_exists(build->record_path) ||
        pk_json_load(build->record_path, &record, NULL) < 0 ||
        strcmp(pk_json_string_or(record, "digest", ""), image.digest) != 0) {
        build->bytes = image.bytes;
        build->release = PK_TAKE(image.release);
        r = write_record(build, image.digest, err);
    }
    if (r == 0)
        *ret_digest = PK_TAKE(image.digest);
    return r;
}

static int check_space(const char *dir, struct pk_error *err)
{
    uint64_t bytes = 0;
    int r = pk_disk_free(dir, &bytes, err);
    if (r < 0)
        return r;
    if (bytes >= SPACE_BYTES)
        return 0;
    char have[32];
    pk_fail(err, PK_E_NOSPACE, "building an image needs 1 GiB below %s, %s are free", dir,
            pk_human_bytes(bytes, have, sizeof(have)));
    return pk_hint(err, "free some, or take another --state-dir"), PK_E_NOSPACE;
}

/* The tool says what it is ("This is Suricata version 7.0.10 RELEASE"): the first word of its
 * answer that is a version of the line. One of another line must not be called that. */
static int find_release(struct build *build, struct pk_error *err)
{
    const char *line = build->version->version;
    for (const char *at = build->check_output; *at != '\0';) {
        size_t len = strcspn(at, " \t,;:()");
        PK_CLEANUP(pk_free_p) char *word = pk_strndup(at, len);
        if (word == NULL)
            return pk_fail(err, PK_E_NOMEM, "out of memory");
        const char *number = word[0] == 'v' ? word + 1 : word;
        if (len > 0 && pk_version_in_line(number, build->version)) {
            build->release = pk_strdup(number);
            return build->release != NULL ? 0 : pk_fail(err, PK_E_NOMEM, "out of memory");
        }
        at += len + (at[len] != '\0');
    }
    pk_fail(err, PK_E_INVALID, "the image's check does not name a version of %s@%s: %.200s",
            pk_package_name(build->package), line, build->check_output);
    return pk_hint(err, "see packages and check in image.yaml: the check prints the version");
}

/* Runs the recipe's check in the final stage: what does not start here must not reach a lane. */
static int check_final(struct build *build, const char *layer, struct pk_error *err)
{
    PK_CLEANUP(pk_free_p) char *final = pk_path_join(build->dir, "final");
    if (final == NULL)
        return pk_fail(err, PK_E_NOMEM, "out of memory");
    int r = pk_mkdir_p(final, 0755, err);
    if (r < 0)
        return r;
    const char *const unpack[] = { "tar", "-C", final, "-xf", layer, NULL };
    struct pk_proc_options options = { .argv = unpack, .timeout_ms = 120000 };
    r = pk_proc_check(&options, NULL, err);
    if (r < 0)
        return pk_wrap(err, "unpacking the final stage"), r;

    PK_CLEANUP(pk_strv_done) struct pk_strv argv = { 0 };
    r = pk_strv_add(&argv, "chroot");
    if (r == 0)
        r = pk_strv_add(&argv, final);
    for (size_t i = 0; i < build->recipe.check.count && r == 0; i++)
        r = pk_strv_add(&argv, build->recipe.check.list[i]);
    if (r < 0)
        return pk_fail(err, PK_E_NOMEM, "out of memory");
    options =
        (struct pk_proc_options){ .argv = (const char *const *)argv.list, .timeout_ms = 60000 };
    PK_CLEANUP(pk_buf_done) struct pk_buf out = PK_BUF_INIT(65536);
    r = pk_proc_check(&options, &out, err);
    if (r < 0) {
        pk_wrap(err, "the image's check");
        return pk_hint(err, "the final stage lacks something: see final and check in image.yaml"),
               r;
    }
    const char *text = out.data != NULL ? out.data : "";
    build->check_output = pk_strndup(text, strcspn(text, "\n"));
    return build->check_output != NULL ? find_release(build, err)
                                       : pk_fail(err, PK_E_NOMEM, "out of memory");
}

static json_t *image_labels(const struct build *build)
{
    const char *base = build->base.id != NULL ? build->base.image : "";
    return json_pack("{s:s, s:s, s:s, s:s, s:s}", "io.picket.base", base, "io.picket.package",
                     pk_package_name(build->package), "io.picket.version", build->version->version,
                     PK_IMAGE_LABEL_RELEASE, build->release, PK_IMAGE_LABEL_RECIPE,
                     build->recipe.hash);
}

/* The folder with the packages: of a base image where a registry has one, else of Debian's packages
 * alone. *ret_root: pk_free(). */
static int builder_stage(struct build *build, char **ret_root, struct pk_error *err)
{
    const struct pk_recipe *recipe = &build->recipe;
    const char *registry = build->options->registry != NULL ? build->options->registry : "";
    if (recipe->base[0] != '\0' && strcmp(registry, "none") != 0) {
        PK_CLEANUP(pk_free_p) char *why = NULL;
        int r = pk_base_pull(recipe, registry, build->options->containers_conf, build->dir,
                             &build->base, &why, err);
        if (r < 0)
            return r;
        if (build->base.id == NULL)
            say(build, "no registry has %s (%s): Debian packages alone", recipe->base, why);
    }
    if (build->base.id != NULL) {
        say(build, "builder stage: %s (%.12s) and Debian %s packages", build->base.image,
            build->base.id, recipe->release);
        int r = pk_base_install(&build->base, recipe, build->dir, &build->packages, err);
        if (r < 0)
            return r;
        *ret_root = pk_strdup(build->base.root);
        return *ret_root != NULL ? 0 : pk_fail(err, PK_E_NOMEM, "out of memory");
    }
    PK_CLEANUP(pk_free_p) char *root = pk_path_join(build->dir, "root");
    PK_CLEANUP(pk_free_p) char *tmp = pk_path_join(build->dir, "tmp");
    if (root == NULL || tmp == NULL)
        return pk_fail(err, PK_E_NOMEM, "out of memory");
    int r = pk_mkdir_p(tmp, 0755, err);
    if (r < 0)
        return r;
    say(build, "builder stage: Debian %s packages", recipe->release);
    r = pk_debian_unpack(recipe, root, tmp, forward_line, build, &build->packages, err);
    if (r == 0)
        *ret_root = PK_TAKE(root);
    return r;
}

/* The builder and the final stage; *ret_digest: what Podman will call the archive's image. */
static int make_archive(struct build *build, const char *archive, char **ret_digest,
                        struct pk_error *err)
{
    PK_CLEANUP(pk_free_p) char *layer = pk_path_join(build->dir, "layer.tar");
    PK_CLEANUP(pk_free_p) char *root = NULL;
    if (layer == NULL)
        return pk_fail(err, PK_E_NOMEM, "out of memory");
    int r = builder_stage(build, &root, err);
    if (r < 0)
        return r;

    PK_CLEANUP(pk_tree_done) struct pk_tree tree = { 0 };
    r = pk_tree_choose(root, &build->recipe, &tree, err);
    if (r < 0)
        return pk_wrap(err, "final stage"), r;
    build->bytes = tree.bytes;
    build->files = tree.count;
    char size[32];
    say(build, "final stage: %zu files of %zu packages, %s", tree.count, build->packages.count,
        pk_human_bytes(tree.bytes, size, sizeof(size)));
    r = pk_tree_write_tar(&tree, root, layer, err);
    if (r == 0)
        r = check_final(build, layer, err);
    if (r < 0)
        return r;
    say(build, "check: %s", build->check_output);
    PK_JSON labels = image_labels(build);
    if (labels == NULL)
        return pk_fail(err, PK_E_NOMEM, "out of memory");
    struct pk_image_meta meta = { .name = build->version->image,
                                  .command = &build->recipe.command,
                                  .labels = labels,
                                  .created = tree.newest };
    return pk_image_write_archive(layer, &meta, archive, ret_digest, err);
}

static int build_image(struct build *build, char **ret_digest, struct pk_error *err)
{
    if (geteuid() != 0) {
        pk_fail(err, PK_E_DENIED, "building an image needs root");
        return pk_hint(err, "run it with sudo"), PK_E_DENIED;
    }
    const char *work_dir = build->options->work_dir;
    int r = check_space(work_dir, err);
    if (r < 0)
        return r;
    build->dir = pk_asprintf("%s/build-XXXXXX", work_dir);
    if (build->dir == NULL)
        return pk_fail(err, PK_E_NOMEM, "out of memory");
    if (mkdtemp(build->dir) == NULL) {
        int sys = errno;
        pk_free(build->dir);
        build->dir = NULL;
        return pk_fail_errno(err, sys, "a folder in %s", work_dir);
    }
    /* apt drops its rights and must still get in. */
    if (chmod(build->dir, 0755) < 0)
        return pk_fail_errno(err, errno, "%s", build->dir);

    PK_CLEANUP(pk_free_p) char *archive = pk_path_join(build->dir, "image.tar");
    if (archive == NULL)
        return pk_fail(err, PK_E_NOMEM, "out of memory");
    PK_CLEANUP(pk_free_p) char *expected = NULL;
    r = make_archive(build, archive, &expected, err);
    if (r < 0)
        return r;
    say(build, "loading into Podman as %s", build->version->image);
    r = pk_podman_image_load(build->options->podman_socket, archive, err);
    PK_CLEANUP(pk_podman_image_done) struct pk_podman_image image = { 0 };
    if (r == 0)
        r = pk_podman_image_find(build->options->podman_socket, build->version->image, &image, err);
    if (r < 0)
        return r;
    if (!pk_str_equal(image.digest, expected)) {
        pk_fail(err, PK_E_INTERNAL, "Podman has %s as %s instead of %s", build->version->image,
                image.digest != NULL ? image.digest : "nothing", expected);
        return pk_hint(err, "did another build run at the same time? Try again"), PK_E_INTERNAL;
    }
    r = write_record(build, expected, err);
    if (r < 0)
        return r;
    say(build, "built %s %.19s in %lld s", build->version->image, expected,
        (long long)((pk_time_monotonic() - build->started) / PK_NSEC_PER_SEC));
    *ret_digest = PK_TAKE(expected);
    return 0;
}

int pk_image_build(const struct pk_package *package, const struct pk_package_version *version,
                   const struct pk_image_build_options *options, char **ret_digest,
                   struct pk_error *err)
{
    PK_CLEANUP(build_done)
    struct build build = {
        .package = package, .version = version, .options = options, .started = pk_time_monotonic()
    };
    const char *registry = options->registry != NULL ? options->registry : "";
    int r = registry[0] != '\0' ? pk_registry_check(registry, err) : 0;
    if (r < 0)
        return r;
    r = pk_recipe_load(pk_package_dir(package), version->version, &build.recipe, err);
    if (r < 0)
        return r;
    r = pk_mkdir_p(options->work_dir, 0755, err);
    if (r < 0)
        return r;
    build.record_path =
        pk_asprintf("%s/%s-%s.json", options->work_dir, pk_package_name(package), version->version);
    PK_CLEANUP(pk_free_p) char *lock_path = pk_path_join(options->work_dir, "lock");
    if (build.record_path == NULL || lock_path == NULL)
        return pk_fail(err, PK_E_NOMEM, "out of memory");
    PK_CLEANUP(pk_close_p) int lock = -1;
    r = pk_lock_process(lock_path, PK_LOCK_WAIT_MS, &lock, err);
    if (r < 0) {
        if (r == PK_E_CONFLICT)
            pk_hint(err, "another image build runs: wait for it");
        return r;
    }
    PK_CLEANUP(pk_free_p) char *digest = NULL;
    r = find_built(&build, &digest, err);
    if (r < 0)
        return r;
    if (digest != NULL) {
        say(&build, "%s is built from this recipe already: %.19s", version->image, digest);
        *ret_digest = PK_TAKE(digest);
        return 0;
    }
    return build_image(&build, ret_digest, err);
}
