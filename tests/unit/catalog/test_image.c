/* SPDX-License-Identifier: Apache-2.0 */
/* Recipes, the choice of files, tar files and archives. Building for real is a system test. */
#include "../pk_test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/json.h"
#include "base/proc.h"
#include "catalog/image_internal.h"

static char dir[64];

static int setup(void **state)
{
    (void)state;
    snprintf(dir, sizeof(dir), "/tmp/pk-image-XXXXXX");
    return mkdtemp(dir) != NULL ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    return pk_rm_rf(dir, NULL);
}

static char *put(const char *path, const char *text, mode_t mode)
{
    char *full = pk_asprintf("%s/%s", dir, path);
    char *folder = pk_strndup(full, (size_t)(strrchr(full, '/') - full));
    assert_int_equal(pk_mkdir_p(folder, 0755, NULL), 0);
    assert_int_equal(pk_file_write(full, text, strlen(text), mode, NULL), 0);
    pk_free(folder);
    return full;
}

#define HEAD "apiVersion: picket.dev/v1alpha1\nkind: Image\nversions:\n"
#define GOOD                                                                       \
    "- version: \"1\"\n  debian:\n    release: bookworm\n    suites: [bookworm]\n" \
    "    packages: [a/bookworm-backports]\n  final:\n    programs: [/usr/bin/a]\n" \
    "    command: [/usr/bin/a]\n  check: [/usr/bin/a, -V]\n"

static int load(const char *text, const char *version, struct pk_recipe *recipe,
                struct pk_error *err)
{
    pk_free(put("image.yaml", text, 0644));
    return pk_recipe_load(dir, version, recipe, err);
}

static void test_recipe(void **state)
{
    (void)state;
    struct pk_recipe recipe, again;
    struct pk_error err = { 0 };
    assert_int_equal(load(HEAD GOOD, "1", &recipe, &err), 0);
    assert_string_equal(recipe.release, "bookworm");
    assert_string_equal(recipe.packages.list[0], "a/bookworm-backports");
    assert_int_equal(recipe.check.count, 2);
    assert_int_equal(recipe.files.count, 0);
    assert_int_equal(strlen(recipe.hash), 64);
    /* Comments and spaces do not make another image, another package does. */
    assert_int_equal(load("# x\n" HEAD "\n" GOOD, "1", &again, &err), 0);
    assert_string_equal(recipe.hash, again.hash);
    pk_recipe_done(&again);
    pk_recipe_done(&recipe);

    assert_int_equal(load(HEAD GOOD, "2", &recipe, &err), PK_E_NOTFOUND);
    assert_string_not_equal(err.hint, "");
}

static void test_recipe_faults(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        unsigned line;
    } cases[] = {
        { "[]", 1 },
        { "versions: 3\n", 1 },
        { "version:\n- version: \"1\"\n", 1 },
        { HEAD "- versio: \"1\"\n", 4 },
        { HEAD "- version: \"1\"\n  debian: []\n  final: {}\n", 5 },
        { HEAD "- version: \"1\"\n  debian: {release: Bad Name, suites: [x], packages: [a]}\n"
               "  final: {programs: [/a], command: [/a]}\n  check: [/a]\n",
          5 },
        { HEAD "- version: \"1\"\n  debian: {release: x, suites: [x], packages: [\"a;b\"]}\n"
               "  final: {programs: [/a], command: [/a]}\n  check: [/a]\n",
          5 },
        { HEAD "- version: \"1\"\n  debian: {release: x, suites: [x], packages: [--help]}\n"
               "  final: {programs: [/a], command: [/a]}\n  check: [/a]\n",
          5 },
        { HEAD "- version: \"1\"\n  debian: {release: x, suites: [x], packages: [a]}\n"
               "  final: {programs: [/a/../b], command: [/a]}\n  check: [/a]\n",
          6 },
        { HEAD "- version: \"1\"\n  debian: {release: x, suites: [x], packages: [a]}\n"
               "  final: {programs: [a], command: [/a]}\n  check: [/a]\n",
          6 },
        { HEAD "- version: \"1\"\n  debian: {release: x, suites: [], packages: [a]}\n"
               "  final: {programs: [/a], command: [/a]}\n  check: [/a]\n",
          5 },
        { HEAD "- version: \"1\"\n  debian: {release: x, suites: [x], packages: [a], mirror: m}\n"
               "  final: {programs: [/a], command: [/a]}\n  check: [/a]\n",
          5 },
        { HEAD "- version: \"1\"\n  debian: {release: x, suites: [x], packages: [a]}\n"
               "  final: {programs: [/a], command: [/a]}\n",
          4 },
    };
    for (size_t i = 0; i < PK_ARRAY_SIZE(cases); i++) {
        struct pk_recipe recipe;
        struct pk_error err = { 0 };
        assert_int_equal(load(cases[i].text, "1", &recipe, &err), PK_E_INVALID);
        assert_int_equal(err.line, cases[i].line);
        assert_string_not_equal(err.msg, "");
    }
    struct pk_recipe recipe;
    struct pk_error err = { 0 };
    assert_int_equal(load(HEAD "- version: \"1\"\n  debain: {}\n  debian: {}\n  final: {}\n", "1",
                          &recipe, &err),
                     PK_E_INVALID);
    assert_non_null(strstr(err.hint, "debian"));
}

static void test_base(void **state)
{
    (void)state;
    static const char *const good[] = { "debian:bookworm-slim", "library/debian:12",
                                        "a/b-c/d_e:V1.0-x" };
    static const char *const bad[] = { "debian",
                                       "quay.example/debian:1",
                                       "localhost/debian:1",
                                       "h:5000/d:1",
                                       "Debian:1",
                                       "-debian:1",
                                       "/debian:1",
                                       "debian:",
                                       "debian:1 --tls-verify",
                                       "a//b:1",
                                       "debian@sha256:00",
                                       "d:1:2" };
    for (size_t i = 0; i < PK_ARRAY_SIZE(good) + PK_ARRAY_SIZE(bad); i++) {
        bool fits = i < PK_ARRAY_SIZE(good);
        const char *base = fits ? good[i] : bad[i - PK_ARRAY_SIZE(good)];
        PK_CLEANUP(pk_free_p) char *text = pk_asprintf("%s%s  base: \"%s\"\n", HEAD, GOOD, base);
        struct pk_recipe recipe;
        struct pk_error err = { 0 };
        int r = load(text, "1", &recipe, &err);
        if (r != (fits ? 0 : PK_E_INVALID))
            fail_msg("%s: %d %s", base, r, err.msg);
        if (fits) {
            assert_string_equal(recipe.base, base);
            pk_recipe_done(&recipe);
        } else {
            assert_int_equal(err.line, 13);
        }
    }
}

static void test_registry(void **state)
{
    (void)state;
    static const char *const good[] = { "registry.example.org", "h",         "127.0.0.1:5000",
                                        "[::1]:5000",           "[fe80::1]", "none" };
    static const char *const bad[] = {
        "",      ":5000", "h:",       "h:x", "h:70000", "h:123456", "[::1",
        "[]:1x", "h/x",   "http://h", "-h",  ".h",      "h\n",      "h:1]\ninsecure=true"
    };
    struct pk_error err = { 0 };
    for (size_t i = 0; i < PK_ARRAY_SIZE(good); i++)
        assert_int_equal(pk_registry_check(good[i], &err), 0);
    for (size_t i = 0; i < PK_ARRAY_SIZE(bad); i++) {
        assert_int_equal(pk_registry_check(bad[i], &err), PK_E_USAGE);
        assert_string_not_equal(err.hint, "");
    }
}

/* The recipes that are shipped. */
static void test_shipped(void **state)
{
    (void)state;
    PK_CLEANUP(pk_free_p) char *path = pk_asprintf("%s/catalog/suricata", getenv("PICKET_SOURCE"));
    struct pk_recipe seven, eight;
    struct pk_error err = { 0 };
    assert_int_equal(pk_recipe_load(path, "7", &seven, &err), 0);
    assert_int_equal(pk_recipe_load(path, "8", &eight, &err), 0);
    assert_string_not_equal(seven.hash, eight.hash);
    assert_true(pk_strv_contains(&seven.programs, "/usr/bin/suricata"));
    assert_true(pk_strv_contains(&eight.programs, "/usr/bin/suricata"));
    pk_recipe_done(&seven);
    pk_recipe_done(&eight);
}

static const struct pk_tree_entry *find(const struct pk_tree *tree, const char *path)
{
    for (size_t i = 0; i < tree->count; i++)
        if (strcmp(tree->entries[i].path, path) == 0)
            return &tree->entries[i];
    return NULL;
}

static int choose(const char *root, const char *program, struct pk_tree *tree, struct pk_error *err)
{
    struct pk_recipe recipe = { 0 };
    assert_int_equal(pk_strv_add(&recipe.programs, program), 0);
    assert_int_equal(pk_strv_add(&recipe.directories, "/etc/picket"), 0);
    int r = pk_tree_choose(root, &recipe, tree, err);
    pk_recipe_done(&recipe);
    return r;
}

static void test_tree_program(void **state)
{
    (void)state;
    /* This test itself: linked with cmocka, libc and what they need. */
    char self[512];
    ssize_t len = readlink("/proc/self/exe", self, sizeof(self) - 1);
    assert_true(len > 0);
    self[len] = '\0';
    struct pk_tree tree;
    struct pk_error err = { 0 };
    if (choose("", self, &tree, &err) < 0)
        fail_msg("%s", err.msg);
    assert_non_null(find(&tree, self));
    assert_non_null(find(&tree, "/etc/passwd"));
    assert_non_null(find(&tree, "/etc/picket"));
    assert_int_equal(find(&tree, "/tmp")->mode, 01777);
    bool libc = false, cmocka = false, loader = false;
    for (size_t i = 0; i < tree.count; i++) {
        const char *path = tree.entries[i].path;
        libc = libc || pk_str_ends(path, "/libc.so.6");
        cmocka = cmocka || strstr(path, "/libcmocka.so") != NULL;
        loader = loader || strstr(path, "/ld-linux") != NULL;
        assert_int_equal(tree.entries[i].mode & 06000, 0);
        if (i > 0)
            assert_true(strcmp(tree.entries[i - 1].path, path) < 0);
    }
    assert_true(libc && cmocka && loader);
    assert_null(find(&tree, "/bin/sh"));
    pk_tree_done(&tree);
}

static void test_tree_links(void **state)
{
    (void)state;
    pk_free(put("root/usr/lib/real/file.1", "x", 0644));
    char root[80];
    snprintf(root, sizeof(root), "%s/root", dir);
    PK_CLEANUP(pk_free_p) char *folder = pk_asprintf("%s/lib", root);
    PK_CLEANUP(pk_free_p) char *file = pk_asprintf("%s/usr/lib/real/file", root);
    PK_CLEANUP(pk_free_p) char *far = pk_asprintf("%s/usr/far", root);
    PK_CLEANUP(pk_free_p) char *up = pk_asprintf("%s/usr/up", root);
    PK_CLEANUP(pk_free_p) char *circle = pk_asprintf("%s/usr/circle", root);
    assert_int_equal(symlink("usr/lib", folder), 0);
    assert_int_equal(symlink("file.1", file), 0);
    assert_int_equal(symlink("/lib/real/file", far), 0);
    assert_int_equal(symlink("../../../../../usr/lib/./real/file.1", up), 0);
    assert_int_equal(symlink("circle", circle), 0);

    struct pk_tree tree;
    struct pk_error err = { 0 };
    assert_int_equal(choose(root, "/usr/far", &tree, &err), 0);
    assert_string_equal(find(&tree, "/usr/far")->target, "/lib/real/file");
    assert_string_equal(find(&tree, "/lib")->target, "usr/lib");
    assert_string_equal(find(&tree, "/usr/lib/real/file")->target, "file.1");
    assert_int_equal(find(&tree, "/usr/lib/real/file.1")->type, 'f');
    pk_tree_done(&tree);
    /* A link cannot lead out of the root. */
    assert_int_equal(choose(root, "/usr/up", &tree, &err), 0);
    assert_non_null(find(&tree, "/usr/lib/real/file.1"));
    pk_tree_done(&tree);
    assert_int_equal(choose(root, "/usr/circle", &tree, &err), 0);
    pk_tree_done(&tree);
    assert_int_equal(choose(root, "/usr/none", &tree, &err), PK_E_NOTFOUND);
    assert_string_not_equal(err.hint, "");
}

static void test_tree_broken_elf(void **state)
{
    (void)state;
    /* Each byte of this program's headers broken in turn: any result, but no crash. */
    char *data = NULL;
    size_t len = 0;
    assert_int_equal(pk_file_read("/proc/self/exe", 64u << 20, &data, &len, NULL), 0);
    len = PK_MIN(len, (size_t)16384);
    char root[80];
    snprintf(root, sizeof(root), "%s/elf", dir);
    for (size_t at = 0; at < 1024; at += 3) {
        PK_CLEANUP(pk_free_p) char *copy = pk_memdup(data, len);
        copy[at] = (char)~copy[at];
        PK_CLEANUP(pk_free_p) char *path = pk_asprintf("%s/a", root);
        assert_int_equal(pk_mkdir_p(root, 0755, NULL), 0);
        FILE *file = fopen(path, "we");
        fwrite(copy, 1, at % 2 == 0 ? len : len - at, file);
        fclose(file);
        struct pk_tree tree;
        if (choose(root, "/a", &tree, NULL) == 0)
            pk_tree_done(&tree);
    }
    pk_free(data);
}

static void test_archive(void **state)
{
    (void)state;
    char deep[300];
    snprintf(deep, sizeof(deep), "tree/usr/%0*d/%0*d", 90, 1, 80, 2);
    pk_free(put(deep, "deep", 0644));
    pk_free(put("tree/bin/tool", "#!/x\n", 04755));
    char root[80], one[80], two[80], archive[80];
    snprintf(root, sizeof(root), "%s/tree", dir);
    snprintf(one, sizeof(one), "%s/one.tar", dir);
    snprintf(two, sizeof(two), "%s/two.tar", dir);
    snprintf(archive, sizeof(archive), "%s/archive.tar", dir);

    struct pk_recipe recipe = { 0 };
    pk_strv_add(&recipe.programs, "/bin/tool");
    pk_strv_add(&recipe.files, "/usr");
    pk_strv_add(&recipe.command, "/bin/tool");
    struct pk_tree tree;
    struct pk_error err = { 0 };
    assert_int_equal(pk_tree_choose(root, &recipe, &tree, &err), 0);
    assert_int_equal(find(&tree, "/bin/tool")->mode, 0755); /* no set-uid */
    assert_int_equal(pk_tree_write_tar(&tree, root, one, &err), 0);
    assert_int_equal(pk_tree_write_tar(&tree, root, two, &err), 0);
    char *a, *b;
    size_t a_len, b_len;
    assert_int_equal(pk_file_read(one, 1u << 20, &a, &a_len, NULL), 0);
    assert_int_equal(pk_file_read(two, 1u << 20, &b, &b_len, NULL), 0);
    assert_int_equal(a_len, b_len);
    assert_memory_equal(a, b, a_len);
    pk_free(a);
    pk_free(b);

    /* tar reads it, the long name too. */
    const char *const argv[] = { "tar", "-tf", one, NULL };
    struct pk_proc_options options = { .argv = argv, .timeout_ms = 10000 };
    PK_CLEANUP(pk_buf_done) struct pk_buf out = PK_BUF_INIT(65536);
    assert_int_equal(pk_proc_check(&options, &out, &err), 0);
    assert_non_null(strstr(out.data, "bin/tool\n"));
    assert_non_null(strstr(out.data, deep + 5));
    assert_non_null(strstr(out.data, "etc/passwd\n"));

    PK_JSON labels = json_object();
    struct pk_image_meta meta = { .name = "localhost/picket/x:1",
                                  .command = &recipe.command,
                                  .labels = labels,
                                  .created = 1700000000 };
    char *digest = NULL, *same = NULL;
    assert_int_equal(pk_image_write_archive(one, &meta, archive, &digest, &err), 0);
    assert_int_equal(pk_image_write_archive(two, &meta, archive, &same, &err), 0);
    assert_string_equal(digest, same);
    assert_int_equal(strlen(digest), 7 + 64);
    assert_int_equal(pk_tree_write_tar(&tree, root, "/dev/full", &err), PK_E_NOSPACE);
    assert_string_not_equal(err.hint, "");
    pk_free(digest);
    pk_free(same);
    pk_tree_done(&tree);
    pk_recipe_done(&recipe);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_recipe),     cmocka_unit_test(test_recipe_faults),
        cmocka_unit_test(test_base),       cmocka_unit_test(test_registry),
        cmocka_unit_test(test_shipped),    cmocka_unit_test(test_tree_program),
        cmocka_unit_test(test_tree_links), cmocka_unit_test(test_tree_broken_elf),
        cmocka_unit_test(test_archive),
    };
    return cmocka_run_group_tests_name("catalog image", tests, setup, teardown);
}
