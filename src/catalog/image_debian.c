/* SPDX-License-Identifier: Apache-2.0 */
/* The builder stage: Debian packages, unpacked by mmdebstrap with its own apt state. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/fs.h"
#include "base/proc.h"
#include "catalog/image_internal.h"

extern char **environ;

#define KEYRING          "/usr/share/keyrings/debian-archive-keyring.gpg"
#define BUILD_TIMEOUT_MS (15u * 60 * 1000)

struct mirrors {
    char *main, *security; /* URIs */
};

static void mirrors_done(struct mirrors *mirrors)
{
    pk_free(mirrors->main);
    pk_free(mirrors->security);
}

static bool is_security(const char *suite)
{
    return pk_str_ends(suite, "-security");
}

/* Is it a suite of Debian, which every mirror of Debian has, whatever release the host is? */
static bool is_debian_suite(const char *suite)
{
    static const char *const names[] = { "buster", "bullseye", "bookworm", "trixie",  "forky",
                                         "sid",    "stable",   "testing",  "unstable" };
    for (size_t i = 0; i < PK_ARRAY_SIZE(names); i++) {
        size_t len = strlen(names[i]);
        if (strncmp(suite, names[i], len) == 0 && (suite[len] == '\0' || suite[len] == '-'))
            return true;
    }
    return false;
}

static int set_uri(char **to, const char *uri, struct pk_error *err)
{
    if (*to != NULL)
        return 0;
    /* It goes into a sources.list line. */
    if (uri[strcspn(uri, " \t\r\n[]")] != '\0')
        return pk_fail(err, PK_E_INVALID, "not a package mirror: %s", uri);
    *to = pk_strdup(uri);
    return *to != NULL ? 0 : pk_fail(err, PK_E_NOMEM, "out of memory");
}

/* apt itself says where its packages come from, whichever of its file formats the host uses. */
static int find_mirrors(struct mirrors *mirrors, struct pk_error *err)
{
    const char *named = getenv("PICKET_DEBIAN_MIRROR");
    const char *security = getenv("PICKET_DEBIAN_SECURITY_MIRROR");
    int r = named != NULL && named[0] != '\0' ? set_uri(&mirrors->main, named, err) : 0;
    if (r == 0 && security != NULL && security[0] != '\0')
        r = set_uri(&mirrors->security, security, err);
    if (r < 0 || (mirrors->main != NULL && mirrors->security != NULL))
        return r;

    static const char *const argv[] = { "apt-get", "indextargets", "--format",
                                        "$(CREATED_BY) $(RELEASE) $(REPO_URI)", NULL };
    struct pk_proc_options options = { .argv = argv, .timeout_ms = 60000 };
    PK_CLEANUP(pk_buf_done) struct pk_buf out = PK_BUF_INIT(1u << 20);
    struct pk_error ignored;
    (void)pk_proc_check(&options, &out, &ignored);
    char *save = NULL;
    for (char *line = strtok_r(out.data != NULL ? out.data : (char[]){ "" }, "\n", &save);
         line != NULL; line = strtok_r(NULL, "\n", &save)) {
        char suite[64], uri[512];
        if (sscanf(line, "Packages %63s %511s", suite, uri) != 2 || !is_debian_suite(suite))
            continue;
        r = set_uri(is_security(suite) ? &mirrors->security : &mirrors->main, uri, err);
        if (r < 0)
            return r;
    }
    if (mirrors->main == NULL) {
        pk_fail(err, PK_E_NOTFOUND, "this host's apt has no Debian mirror to build images from");
        return pk_hint(err, "set PICKET_DEBIAN_MIRROR to the URI of one"), PK_E_NOTFOUND;
    }
    return 0;
}

static int write_sources(const struct pk_recipe *recipe, const char *keyring,
                         struct pk_buf *sources, struct pk_error *err)
{
    PK_CLEANUP(mirrors_done) struct mirrors mirrors = { 0 };
    int r = find_mirrors(&mirrors, err);
    if (r < 0)
        return r;
    char option[PATH_MAX + 32] = "";
    if (access(KEYRING, R_OK) == 0)
        (void)snprintf(option, sizeof(option), "[signed-by=%s] ", keyring);
    for (size_t i = 0; i < recipe->suites.count; i++) {
        const char *suite = recipe->suites.list[i];
        const char *uri = is_security(suite) ? mirrors.security : mirrors.main;
        /* A host without security updates of its own gets none in its images either. */
        if (uri != NULL)
            pk_buf_printf(sources, "deb %s%s %s main\n", option, uri, suite);
    }
    return sources->failed ? pk_fail(err, PK_E_NOMEM, "out of memory") : 0;
}

static int copy_if_there(const char *from, const char *dir, const char *name, struct pk_error *err)
{
    if (access(from, R_OK) < 0)
        return 0;
    PK_CLEANUP(pk_free_p) char *to = pk_path_join(dir, name);
    PK_CLEANUP(pk_free_p) char *data = NULL;
    size_t len = 0;
    if (to == NULL)
        return pk_fail(err, PK_E_NOMEM, "out of memory");
    int r = pk_file_read(from, 16u << 20, &data, &len, err);
    return r < 0 ? r : pk_file_write(to, data, len, 0644, err);
}

int pk_debian_sources(const struct pk_recipe *recipe, const char *stage, const char *seen_as,
                      char **ret_text, struct pk_error *err)
{
    PK_CLEANUP(pk_buf_done) struct pk_buf sources = PK_BUF_INIT(1u << 16);
    PK_CLEANUP(pk_free_p) char *keyring = pk_path_join(seen_as, "keyring.gpg");
    if (keyring == NULL)
        return pk_fail(err, PK_E_NOMEM, "out of memory");
    int r = write_sources(recipe, keyring, &sources, err);
    if (r == 0)
        r = copy_if_there(KEYRING, stage, "keyring.gpg", err);
    if (r == 0)
        r = copy_if_there("/etc/ssl/certs/ca-certificates.crt", stage, "ca.crt", err);
    if (r < 0)
        return r;
    *ret_text = pk_buf_take(&sources);
    return *ret_text != NULL ? 0 : pk_fail(err, PK_E_NOMEM, "out of memory");
}

static int explain(struct pk_error *err, const char *output)
{
    static const struct {
        const char *part;
        int code;
        const char *hint;
    } meanings[] = {
        { "No space left", PK_E_NOSPACE, "free space below the state folder (--state-dir)" },
        { "Could not resolve", PK_E_UNREACHABLE,
          "the package mirror cannot be found: see the network, http_proxy, PICKET_DEBIAN_MIRROR" },
        { "Could not connect", PK_E_UNREACHABLE,
          "the package mirror does not answer: see the network, http_proxy, PICKET_DEBIAN_MIRROR" },
        { "Failed to fetch", PK_E_UNREACHABLE,
          "the package mirror does not have it: try again later, or set PICKET_DEBIAN_MIRROR" },
        { "Unable to locate package", PK_E_NOTFOUND,
          "the mirror has no such package: see the recipe's suites and packages" },
        { "unmet dependencies", PK_E_CONFLICT,
          "name the suite of the packages at fault too in the recipe: NAME/SUITE" },
        { "NO_PUBKEY", PK_E_DENIED, "apt install debian-archive-keyring" },
    };
    for (size_t i = 0; i < PK_ARRAY_SIZE(meanings); i++) {
        if (strstr(output, meanings[i].part) == NULL)
            continue;
        if (err != NULL)
            err->code = meanings[i].code;
        pk_hint(err, "%s", meanings[i].hint);
        return meanings[i].code;
    }
    pk_hint(err, "run it with --verbose to see all that mmdebstrap says");
    return PK_E_IO;
}

/* "suricata_1%3a7.0.10-1~bpo12+1_amd64.deb" -> "suricata 1:7.0.10-1~bpo12+1" */
static int note_package(const char *file, struct pk_strv *packages)
{
    const char *first = strchr(file, '_');
    const char *second = first != NULL ? strchr(first + 1, '_') : NULL;
    if (second == NULL || !pk_str_ends(file, ".deb"))
        return 0;
    char version[128];
    size_t len = 0;
    for (const char *at = first + 1; at < second && len + 1 < sizeof(version); at++) {
        if (strncmp(at, "%3a", 3) == 0) {
            version[len++] = ':';
            at += 2;
        } else {
            version[len++] = *at;
        }
    }
    version[len] = '\0';
    return pk_strv_addf(packages, "%.*s %s", (int)(first - file), file, version);
}

static int list_packages(const char *root, struct pk_strv *ret_packages, struct pk_error *err)
{
    PK_CLEANUP(pk_free_p) char *path = pk_path_join(root, "var/cache/apt/archives");
    DIR *dir = path != NULL ? opendir(path) : NULL;
    if (dir == NULL)
        return pk_fail(err, PK_E_IO, "mmdebstrap left no packages in %s", root);
    struct pk_strv packages = { 0 };
    int r = 0;
    for (struct dirent *entry = readdir(dir); entry != NULL && r == 0; entry = readdir(dir))
        r = note_package(entry->d_name, &packages);
    closedir(dir);
    if (r < 0) {
        pk_strv_done(&packages);
        return pk_fail(err, PK_E_NOMEM, "out of memory");
    }
    pk_strv_sort(&packages);
    *ret_packages = packages;
    return 0;
}

/* Debian has /bin, /sbin, /lib and /lib64 as links into /usr since trixie, but no package contains
 * them: they are made at installation. */
static int merge_usr(const char *root, struct pk_error *err)
{
    static const char *const names[] = { "bin", "sbin", "lib", "lib64" };
    for (size_t i = 0; i < PK_ARRAY_SIZE(names); i++) {
        PK_CLEANUP(pk_free_p) char *link = pk_path_join(root, names[i]);
        PK_CLEANUP(pk_free_p) char *folder = pk_asprintf("%s/usr/%s", root, names[i]);
        char target[16];
        snprintf(target, sizeof(target), "usr/%s", names[i]);
        struct stat st;
        if (link == NULL || folder == NULL)
            return pk_fail(err, PK_E_NOMEM, "out of memory");
        if (lstat(link, &st) == 0 || lstat(folder, &st) < 0)
            continue;
        /* The time of the build must not get into the image. */
        const struct timespec none[2] = { { 0, 0 }, { 0, 0 } };
        if (symlink(target, link) < 0 || utimensat(AT_FDCWD, link, none, AT_SYMLINK_NOFOLLOW) < 0)
            return pk_fail_errno(err, errno, "%s", link);
    }
    return 0;
}

/* Ours, but for the language, so that the messages can be read, and the folder of temporary files.
 */
static int make_env(const char *tmp_dir, struct pk_strv *env)
{
    int r = 0;
    for (char **at = environ; *at != NULL && r == 0; at++)
        if (!pk_str_starts(*at, "LC_") && !pk_str_starts(*at, "LANG") &&
            !pk_str_starts(*at, "TMPDIR="))
            r = pk_strv_add(env, *at);
    if (r == 0)
        r = pk_strv_addf(env, "TMPDIR=%s", tmp_dir);
    if (r == 0)
        r = pk_strv_add(env, "LC_ALL=C.UTF-8");
    return r;
}

int pk_debian_unpack(const struct pk_recipe *recipe, const char *root, const char *tmp_dir,
                     void (*on_line)(void *arg, const char *line), void *on_line_arg,
                     struct pk_strv *ret_packages, struct pk_error *err)
{
    PK_CLEANUP(pk_buf_done) struct pk_buf sources = PK_BUF_INIT(1u << 16);
    int r = write_sources(recipe, KEYRING, &sources, err);
    if (r < 0)
        return r;

    PK_CLEANUP(pk_buf_done) struct pk_buf include = PK_BUF_INIT(1u << 16);
    pk_buf_puts(&include, "--include=");
    for (size_t i = 0; i < recipe->packages.count; i++)
        pk_buf_printf(&include, "%s%s", i > 0 ? "," : "", recipe->packages.list[i]);
    PK_CLEANUP(pk_strv_done) struct pk_strv env = { 0 };
    r = make_env(tmp_dir, &env);
    if (include.failed || r < 0)
        return pk_fail(err, PK_E_NOMEM, "out of memory");

    /* Unpacked only, nothing of the packages is run. */
    const char *const argv[] = { "mmdebstrap",
                                 "--variant=extract",
                                 "--mode=root",
                                 "--skip=cleanup/apt",
                                 "--aptopt=Apt::Install-Recommends \"false\"",
                                 "--aptopt=Acquire::Retries \"2\"",
                                 include.data,
                                 recipe->release,
                                 root,
                                 "-",
                                 NULL };
    struct pk_proc_options options = { .argv = argv,
                                       .env = (const char *const *)env.list,
                                       .input = sources.data,
                                       .input_len = sources.len,
                                       .timeout_ms = BUILD_TIMEOUT_MS,
                                       .on_line = on_line,
                                       .on_line_arg = on_line_arg };
    PK_CLEANUP(pk_buf_done) struct pk_buf errout = PK_BUF_INIT(1u << 20);
    int status = 0;
    r = pk_proc_run(&options, NULL, &errout, &status, err);
    if (r < 0) {
        if (r == PK_E_NOTFOUND)
            pk_hint(err, "apt install mmdebstrap");
        return pk_wrap(err, "mmdebstrap"), r;
    }
    if (status != 0) {
        const char *output = errout.data != NULL ? errout.data : "";
        const char *fault = strstr(output, "\nE: ");
        fault = fault != NULL ? fault + 1 : output;
        pk_fail(err, PK_E_IO, "unpacking the packages failed: %.*s",
                (int)PK_MIN(strcspn(fault, "\n"), 300u), fault);
        return explain(err, output);
    }
    r = merge_usr(root, err);
    if (r < 0)
        return r;
    return list_packages(root, ret_packages, err);
}
