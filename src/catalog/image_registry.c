/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The builder stage from a registry: the recipe's base image, in a container of which the packages
 * are installed. Which registry is the host's own business (registries.conf), or one that was
 * named. Where none answers quickly there is no base, which is no error: Debian's packages alone
 * will do.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/fs.h"
#include "base/proc.h"
#include "catalog/image_internal.h"
#include "catalog/internal.h"

extern char **environ;

#define ASK_MS     4000u /* a registry that takes longer to say that it is there is not there */
#define PULL_MS    (5u * 60 * 1000)
#define INSTALL_MS (15u * 60 * 1000)
#define STAGE      "/run/picket-build" /* in the container */

static int run(const struct pk_base *base, const char *const *argv, unsigned timeout_ms,
               struct pk_buf *out, struct pk_error *err)
{
    struct pk_proc_options options = { .argv = argv,
                                       .env = (const char *const *)base->env.list,
                                       .timeout_ms = timeout_ms };
    return pk_proc_check(&options, out, err);
}

void pk_base_done(struct pk_base *base)
{
    if (base->container != NULL) {
        const char *const argv[] = { "podman", "rm", "--force", "--time=0", base->container, NULL };
        (void)run(base, argv, 60000, NULL, NULL);
    }
    pk_free(base->image);
    pk_free(base->id);
    pk_free(base->container);
    pk_free(base->root);
    pk_strv_done(&base->env);
    memset(base, 0, sizeof(*base));
}

/* ---- the registry ---- */

/* Plain HTTP says to everybody on the way what is built and lets them change it: only this machine
 * may be spoken to like that. */
static bool is_loopback(const char *registry)
{
    size_t len = registry[0] == '[' ? strcspn(registry, "]") + 1 : strcspn(registry, ":");
    return (len == 9 && strncmp(registry, "localhost", len) == 0) ||
           (len == 5 && strncmp(registry, "[::1]", len) == 0) ||
           (strncmp(registry, "127.", 4) == 0 && strspn(registry, "0123456789.") == len);
}

int pk_registry_check(const char *registry, struct pk_error *err)
{
    size_t len = strlen(registry);
    size_t host = registry[0] == '[' ? 1 + strspn(registry + 1, "0123456789abcdefABCDEF:.")
                                     : strspn(registry, "0123456789abcdefghijklmnopqrstuvwxyz.-"
                                                        "ABCDEFGHIJKLMNOPQRSTUVWXYZ");
    if (registry[0] == '[')
        host = registry[host] == ']' ? host + 1 : 0;
    bool fits = host > 0 && host < 256 && registry[0] != '-' && registry[0] != '.';
    if (fits && registry[host] == ':') {
        uint64_t port = 0;
        fits = pk_parse_u64(registry + host + 1, &port, NULL) == 0 && port > 0 && port <= 65535;
        host = len;
    }
    if (fits && host == len)
        return 0;
    char quoted[100];
    pk_fail(err, PK_E_USAGE, "not a registry: %s", pk_quote(registry, quoted, sizeof(quoted)));
    return pk_hint(err, "write HOST or HOST:PORT, or none");
}

static int make_env(struct pk_base *base, const char *dir, const char *registry,
                    const char *containers_conf, struct pk_error *err)
{
    int r = 0;
    bool insecure = registry[0] != '\0' && is_loopback(registry);
    for (char **at = environ; *at != NULL && r == 0; at++)
        if (!(containers_conf != NULL && pk_str_starts(*at, "CONTAINERS_CONF=")) &&
            !(insecure && pk_str_starts(*at, "CONTAINERS_REGISTRIES_CONF=")))
            r = pk_strv_add(&base->env, *at);
    if (r == 0 && containers_conf != NULL) {
        PK_CLEANUP(pk_free_p) char *path = pk_path_join(dir, "containers.conf");
        r = path != NULL ? pk_file_write(path, containers_conf, strlen(containers_conf), 0644, err)
                         : PK_E_NOMEM;
        if (r == 0)
            r = pk_strv_addf(&base->env, "CONTAINERS_CONF=%s", path);
    }
    if (r == 0 && insecure) {
        PK_CLEANUP(pk_free_p) char *path = pk_path_join(dir, "registries.conf");
        PK_CLEANUP(pk_free_p)
        char *text = pk_asprintf("[[registry]]\nlocation = \"%s\"\ninsecure = true\n", registry);
        r = path != NULL && text != NULL ? pk_file_write(path, text, strlen(text), 0644, err)
                                         : PK_E_NOMEM;
        if (r == 0)
            r = pk_strv_addf(&base->env, "CONTAINERS_REGISTRIES_CONF=%s", path);
    }
    return r == PK_E_NOMEM ? pk_fail(err, r, "out of memory") : r;
}

/* Asks for the image's manifest: a few hundred bytes. *ret_why: what Podman says against it, NULL =
 * it is there. */
static int ask(const struct pk_base *base, char **ret_why, struct pk_error *err)
{
    const char *const argv[] = { "podman", "manifest", "inspect", base->image, NULL };
    struct pk_proc_options options = { .argv = argv,
                                       .env = (const char *const *)base->env.list,
                                       .timeout_ms = ASK_MS };
    PK_CLEANUP(pk_buf_done) struct pk_buf errout = PK_BUF_INIT(1u << 20);
    int status = 0;
    int r = pk_proc_run(&options, NULL, &errout, &status, err);
    const char *text = errout.data != NULL ? errout.data : "";
    *ret_why = NULL;
    if (r == PK_E_TIMEOUT) {
        *ret_why = pk_asprintf("no answer in %u s", ASK_MS / 1000);
        return *ret_why != NULL ? 0 : pk_fail(err, PK_E_NOMEM, "out of memory");
    }
    if (r == PK_E_NOTFOUND)
        return pk_hint(err, "apt install podman"), r;
    /* Before 4.4 Podman has the manifest of an image for one architecture, but will not show it. */
    if (r < 0 || status == 0 || strstr(text, "Treating single images as manifest lists") != NULL)
        return r;
    /* The last of the causes says most: "...: no such host". */
    size_t len = strcspn(text, "\n");
    const char *last = text;
    for (size_t i = 0; i + 2 < len; i++)
        if (text[i] == ':' && text[i + 1] == ' ')
            last = text + i + 2;
    *ret_why = pk_asprintf("%.*s", (int)PK_MIN(len - (size_t)(last - text), 100u), last);
    return *ret_why != NULL ? 0 : pk_fail(err, PK_E_NOMEM, "out of memory");
}

int pk_base_pull(const struct pk_recipe *recipe, const char *registry, const char *containers_conf,
                 const char *dir, struct pk_base *ret_base, char **ret_why, struct pk_error *err)
{
    PK_CLEANUP(pk_base_done) struct pk_base base = { 0 };
    int r = make_env(&base, dir, registry, containers_conf, err);
    if (r < 0)
        return r;
    base.image = registry[0] != '\0' ? pk_asprintf("%s/%s", registry, recipe->base)
                                     : pk_strdup(recipe->base);
    if (base.image == NULL)
        return pk_fail(err, PK_E_NOMEM, "out of memory");

    r = ask(&base, ret_why, err);
    if (r < 0 || *ret_why != NULL)
        return r;
    PK_CLEANUP(pk_buf_done) struct pk_buf id = PK_BUF_INIT(4096);
    const char *const pull[] = { "podman", "pull", "--quiet", base.image, NULL };
    r = run(&base, pull, PULL_MS, &id, err);
    if (r < 0) {
        pk_wrap(err, "the base image %s", base.image);
        return pk_hint(err, "--registry none builds without it"), r;
    }
    base.id =
        pk_strndup(id.data != NULL ? id.data : "", id.data != NULL ? strcspn(id.data, "\n") : 0);
    if (base.id == NULL)
        return pk_fail(err, PK_E_NOMEM, "out of memory");
    *ret_base = base;
    memset(&base, 0, sizeof(base));
    return 0;
}

/* ---- the container ---- */

/* dir: of the build, unique: the container is named like it. stage: what it gets to see of the
 * host. */
static int start_container(struct pk_base *base, const char *dir, const char *stage,
                           struct pk_error *err)
{
    const char *name = strrchr(dir, '/');
    name = name != NULL ? name + 1 : dir;
    base->container = pk_asprintf("picket-%s", name);
    PK_CLEANUP(pk_free_p) char *mount = pk_asprintf("%s:" STAGE ":ro", stage);
    if (base->container == NULL || mount == NULL)
        return pk_fail(err, PK_E_NOMEM, "out of memory");
    /* The host's network, since a mirror may be on this very machine; its proxies are handed over
     * by Podman. */
    const char *const argv[] = { "podman",
                                 "run",
                                 "--detach",
                                 "--rm",
                                 "--pull=never",
                                 "--network=host",
                                 "--name",
                                 base->container,
                                 "--volume",
                                 mount,
                                 "--env=DEBIAN_FRONTEND=noninteractive",
                                 "--env=LC_ALL=C.UTF-8",
                                 "--entrypoint=",
                                 base->id,
                                 "sleep",
                                 "1800",
                                 NULL };
    int r = run(base, argv, 60000, NULL, err);
    return r < 0 ? (void)pk_wrap(err, "a container of %s", base->image), r : 0;
}

static int exec(const struct pk_base *base, const char *const *words, const struct pk_strv *more,
                struct pk_buf *out, struct pk_error *err)
{
    PK_CLEANUP(pk_strv_done) struct pk_strv argv = { 0 };
    static const char *const first[] = { "podman", "exec" };
    int r = 0;
    for (size_t i = 0; i < PK_ARRAY_SIZE(first) && r == 0; i++)
        r = pk_strv_add(&argv, first[i]);
    if (r == 0)
        r = pk_strv_add(&argv, base->container);
    for (; *words != NULL && r == 0; words++)
        r = pk_strv_add(&argv, *words);
    for (size_t i = 0; more != NULL && i < more->count && r == 0; i++)
        r = pk_strv_add(&argv, more->list[i]);
    if (r < 0)
        return pk_fail(err, PK_E_NOMEM, "out of memory");
    return run(base, (const char *const *)argv.list, INSTALL_MS, out, err);
}

/* The sources are the recipe's alone, whatever the base image came with. */
#define APT                                                               \
    "apt-get", "-o", "Dir::Etc::SourceList=" STAGE "/sources.list", "-o", \
        "Dir::Etc::SourceParts=-", "-o", "Acquire::Retries=2", "-o",      \
        "Acquire::https::CAInfo=" STAGE "/ca.crt", "-o", "Dpkg::Use-Pty=false"

static int install(const struct pk_base *base, const struct pk_recipe *recipe, struct pk_error *err)
{
    static const char *const update[] = { APT, "update", NULL };
    static const char *const add[] = {
        APT, "install", "--yes", "--no-install-recommends", "--allow-downgrades", NULL
    };
    int r = exec(base, update, NULL, NULL, err);
    if (r == 0)
        r = exec(base, add, &recipe->packages, NULL, err);
    if (r < 0) {
        pk_wrap(err, "installing the packages in %s", base->image);
        pk_hint(err, "is it Debian %s with apt? --registry none builds without it",
                recipe->release);
    }
    return r;
}

static int list_packages(const struct pk_base *base, struct pk_strv *ret_packages,
                         struct pk_error *err)
{
    static const char *const query[] = { "dpkg-query", "--show",
                                         "--showformat=${Package} ${Version}\\n", NULL };
    PK_CLEANUP(pk_buf_done) struct pk_buf out = PK_BUF_INIT(1u << 20);
    int r = exec(base, query, NULL, &out, err);
    struct pk_strv packages = { 0 };
    char *save = NULL;
    char *text = out.data != NULL ? out.data : (char[]){ "" };
    for (char *line = strtok_r(text, "\n", &save); line != NULL && r == 0;
         line = strtok_r(NULL, "\n", &save))
        r = pk_strv_add(&packages, line) < 0 ? pk_fail(err, PK_E_NOMEM, "out of memory") : 0;
    if (r < 0) {
        pk_strv_done(&packages);
        return r;
    }
    pk_strv_sort(&packages);
    *ret_packages = packages;
    return 0;
}

int pk_base_install(struct pk_base *base, const struct pk_recipe *recipe, const char *dir,
                    struct pk_strv *ret_packages, struct pk_error *err)
{
    PK_CLEANUP(pk_free_p) char *stage = pk_path_join(dir, "apt");
    PK_CLEANUP(pk_free_p) char *list = stage != NULL ? pk_path_join(stage, "sources.list") : NULL;
    PK_CLEANUP(pk_free_p) char *sources = NULL;
    if (stage == NULL || list == NULL)
        return pk_fail(err, PK_E_NOMEM, "out of memory");
    int r = pk_mkdir_p(stage, 0755, err);
    if (r == 0)
        r = pk_debian_sources(recipe, stage, STAGE, &sources, err);
    if (r == 0)
        r = pk_file_write(list, sources, strlen(sources), 0644, err);
    if (r == 0)
        r = start_container(base, dir, stage, err);
    if (r == 0)
        r = install(base, recipe, err);
    if (r == 0)
        r = list_packages(base, ret_packages, err);
    if (r < 0)
        return r;

    PK_CLEANUP(pk_buf_done) struct pk_buf out = PK_BUF_INIT(4096);
    const char *const mount[] = { "podman", "mount", base->container, NULL };
    r = run(base, mount, 60000, &out, err);
    if (r < 0)
        return r;
    base->root = pk_strndup(out.data != NULL ? out.data : "",
                            out.data != NULL ? strcspn(out.data, "\n") : 0);
    if (base->root == NULL)
        return pk_fail(err, PK_E_NOMEM, "out of memory");
    if (base->root[0] != '/') {
        pk_fail(err, PK_E_IO, "Podman does not say where the container's files are");
        return pk_hint(err, "--registry none builds without it"), PK_E_IO;
    }
    return 0;
}
