/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pk_test.h"

#include "base/fs.h"
#include "base/json.h"
#include "catalog/internal.h"

static char *source_path(const char *name)
{
    return pk_path_join(getenv("PICKET_SOURCE"), name);
}

static void show(const struct pk_errors *errors)
{
    for (size_t i = 0; i < errors->count; i++)
        print_error("%s:%u:%u: %s (%s)\n", errors->list[i].file, errors->list[i].line,
                    errors->list[i].col, errors->list[i].msg, errors->list[i].hint);
}

static struct pk_catalog *open_own(void)
{
    PK_CLEANUP(pk_free_p) char *dir = source_path("catalog");
    const char *dirs[] = { dir, NULL };
    struct pk_catalog *catalog = NULL;
    struct pk_errors errors = { 0 };
    (void)pk_catalog_open(dirs, &catalog, &errors);
    show(&errors);
    assert_int_equal(errors.count, 0);
    assert_non_null(catalog);
    return catalog;
}

static void test_shipped_packages_are_good(void **state)
{
    (void)state;
    PK_CLEANUP(pk_catalog_free_p) struct pk_catalog *catalog = open_own();
    const struct pk_package *package = NULL;
    const struct pk_package_version *version = NULL;
    struct pk_error err;
    assert_true(pk_catalog_count(catalog) >= 1);
    assert_int_equal(pk_catalog_find(catalog, "suricata", "", &package, &version, &err), 0);
    assert_string_equal(version->version, "7");
    assert_string_equal(version->image, "localhost/picket/suricata:7");
    assert_true(version->argv.count > 0);
    assert_true(pk_strv_contains(&version->capabilities, "NET_RAW"));
    assert_int_equal(version->probe, PK_PROBE_SURICATA);
    assert_int_equal(version->canary, PK_CANARY_DNS);
    assert_string_equal(version->canary_value, "eve.dns.enabled");
    assert_true(version->log_count > 0);
    assert_string_equal(version->logs[0].format, "eve");
    assert_int_equal(pk_catalog_find(catalog, "suricata", "8", &package, &version, &err), 0);
    assert_string_equal(version->version, "8");
    assert_int_equal(pk_catalog_find(catalog, "suricata", "6", &package, &version, &err),
                     PK_E_NOTFOUND);
    assert_non_null(strstr(err.hint, "suricata@7"));
    assert_int_equal(pk_catalog_find(catalog, "surikata", "", &package, &version, &err),
                     PK_E_NOTFOUND);
    assert_string_equal(err.hint, "did you mean \"suricata\"?");
}

static void test_shipped_package_renders_the_same_twice(void **state)
{
    (void)state;
    PK_CLEANUP(pk_catalog_free_p) struct pk_catalog *catalog = open_own();
    const struct pk_package *package = NULL;
    const struct pk_package_version *version = NULL;
    struct pk_error err;
    struct pk_errors errors = { 0 };
    PK_JSON values = NULL;
    assert_int_equal(pk_catalog_find(catalog, "suricata", "7", &package, &version, &err), 0);
    assert_int_equal(pk_package_check_values(package, version, NULL, NULL, &values, &errors), 0);
    PK_JSON context =
        json_pack("{s:O,s:s,s:s,s:s,s:i,s:i,s:s,s:i,s:[],s:{s:b},s:I,s:{s:s,s:s,s:s}}", "values",
                  values, "fleet", "f", "group", "g", "tool", "suricata", "lane", 0, "lanes", 2,
                  "interface", "tap0", "mtu", 9000, "cpus", "version", "7", 1, "memoryBytes",
                  (json_int_t)1 << 31, "paths", "config", "/c", "log", "/l", "run", "/r");
    assert_non_null(context);
    PK_CLEANUP(pk_rendered_done) struct pk_rendered one = { 0 };
    PK_CLEANUP(pk_rendered_done) struct pk_rendered two = { 0 };
    int r = pk_package_render(package, version, context, &one, &err);
    if (r < 0)
        fail_msg("%s:%u:%u: %s", err.file, err.line, err.col, err.msg);
    assert_int_equal(pk_package_render(package, version, context, &two, &err), 0);
    assert_true(one.count > 1);
    assert_int_equal(one.count, two.count);
    bool config = false;
    for (size_t i = 0; i < one.count; i++) {
        assert_string_equal(one.files[i].path, two.files[i].path);
        assert_true(i == 0 || strcmp(one.files[i - 1].path, one.files[i].path) < 0);
        assert_int_equal(one.files[i].len, two.files[i].len);
        assert_memory_equal(one.files[i].data, two.files[i].data, one.files[i].len);
        config = config || strcmp(one.files[i].path, "suricata.yaml") == 0;
    }
    assert_true(config);
}

static const char *const fleet_head = "apiVersion: picket.dev/v1alpha1\n"
                                      "kind: Fleet\n"
                                      "metadata: {name: f}\n"
                                      "spec:\n"
                                      "  taps: [{name: t, replay: }]\n"
                                      "  groups:\n"
                                      "    - name: g\n"
                                      "      taps: [t]\n"
                                      "      tools:\n";

static const struct {
    const char *tool;
    unsigned line, col;
    const char *message, *hint;
} bad_tools[] = {
    { "        - package: surikata\n", 10, 20, "no package \"surikata\"",
      "did you mean \"suricata\"" },
    { "        - package: suricata@6\n", 10, 20, "no version \"6\"", "suricata@7" },
    { "        - package: suricata@7\n          values:\n            home-nt: [10.0.0.0/8]\n", 12,
      13, "suricata: values: unknown key \"home-nt\"", "did you mean \"home-net\"?" },
    { "        - package: suricata@7\n          values:\n            home-net: [10.0.0.0/8, house]\n",
      12, 36, "suricata: values.home-net[1]: \"house\"", "" },
    { "        - package: suricata@7\n          values:\n            threads: 1000\n", 12, 22,
      "suricata: values.threads: 1000 is not at most", "at most" },
    { "        - package: suricata@7\n          values:\n            threads: two\n", 12, 22,
      "suricata: values.threads: expected a whole number", "whole number" },
    { "        - {package: suricata@7, values: {detect: {profile: hgh}}}\n", 10, 60,
      "suricata: values.detect.profile: \"hgh\" is not one of", "did you mean \"high\"?" },
};

static void test_bad_values_name_the_value_in_the_users_file(void **state)
{
    (void)state;
    PK_CLEANUP(pk_catalog_free_p) struct pk_catalog *catalog = open_own();
    for (size_t i = 0; i < PK_ARRAY_SIZE(bad_tools); i++) {
        char text[1024];
        struct pk_errors errors = { 0 };
        PK_CLEANUP(pk_spec_free_p) struct pk_fleet_spec *fleet = NULL;
        (void)snprintf(text, sizeof(text), "%s%s", fleet_head, bad_tools[i].tool);
        assert_int_equal(pk_spec_parse("fleet.yaml", text, strlen(text), &fleet, &errors), 0);
        assert_int_equal(pk_catalog_check_fleet(catalog, fleet, &errors), PK_E_INVALID);
        assert_int_equal(errors.count, 1);
        const struct pk_error *err = &errors.list[0];
        if (err->line != bad_tools[i].line || err->col != bad_tools[i].col ||
            strstr(err->msg, bad_tools[i].message) == NULL ||
            strstr(err->hint, bad_tools[i].hint) == NULL || err->hint[0] == '\0')
            fail_msg("case %zu: %s:%u:%u: %s (%s)", i, err->file, err->line, err->col, err->msg,
                     err->hint);
        assert_string_equal(err->file, "fleet.yaml");
        pk_errors_done(&errors);
    }
}

#define HEAD                                                                                       \
    "apiVersion: picket.dev/v1alpha1\nkind: Package\nname: tool\nsummary: A tool\nroles: [lane]\n" \
    "defaultVersion: \"1\"\n"
#define RUN \
    "defaults: {argv: [/bin/tool], configDir: /etc/tool, logDir: /var/log/t, runDir: /run/t}\n"
#define VERSIONS "versions: [{version: \"1\", image: \"localhost/tool:1\", known: [1.2.3]}]\n"

static void test_manifest_defaults_and_overrides(void **state)
{
    (void)state;
    const char *text =
        HEAD RUN "versions:\n"
                 "  - {version: \"1\", image: \"localhost/tool:1\", known: [\"1.2.3\"]}\n"
                 "  - version: \"2\"\n"
                 "    image: localhost/tool:2\n"
                 "    argv: [/bin/tool2, -x]\n"
                 "    stopTimeout: 30s\n"
                 "    logs: [{glob: \"*.log\", format: zeek-json}]\n"
                 "    probe: {kind: suricata, socket: s.sock}\n"
                 "    canary: {event: dns}\n"
                 "ports: [{name: metrics, port: 99}]\n"
                 "metrics: [{name: a.b, type: gauge}]\n";
    struct pk_errors errors = { 0 };
    PK_CLEANUP(pk_package_free_p) struct pk_package *package = NULL;
    (void)pk_package_parse("manifest.yaml", text, strlen(text), &package, &errors);
    show(&errors);
    assert_non_null(package);
    size_t count;
    const struct pk_package_version *versions = pk_package_versions(package, &count);
    assert_int_equal(count, 2);
    assert_string_equal(versions[0].argv.list[0], "/bin/tool");
    assert_int_equal(versions[0].stop_timeout_ms, 10000);
    assert_int_equal(versions[0].probe, PK_PROBE_NONE);
    assert_int_equal(versions[0].log_count, 0);
    assert_int_equal(versions[0].canary, PK_CANARY_NONE);
    assert_int_equal(versions[1].canary, PK_CANARY_DNS);
    assert_string_equal(versions[1].canary_value, "");
    assert_true(pk_strv_contains(&versions[0].known, "1.2.3"));
    assert_string_equal(versions[1].argv.list[0], "/bin/tool2");
    assert_string_equal(versions[1].config_dir, "/etc/tool");
    assert_int_equal(versions[1].stop_timeout_ms, 30000);
    assert_int_equal(versions[1].log_count, 1);
    assert_string_equal(versions[1].probe_socket, "s.sock");
    assert_int_equal(package->rows.ports[0].port, 99);
    assert_int_equal(package->rows.metrics[0].type, 1);
}

static const struct {
    const char *text;
    unsigned line, col;
    const char *message;
} bad_manifests[] = {
    { "", 1, 1, "empty" },
    { "- a\n", 1, 1, "expected a Package" },
    { HEAD RUN, 1, 1, "versions is missing" },
    { HEAD RUN "versions: []\n", 8, 11, "too short" },
    { HEAD VERSIONS, 7, 12, "version 1 has no argv" },
    { HEAD RUN "versions: [{version: 1, image: \"localhost/t:1\"}]\n", 8, 22,
      "expected a version" },
    { HEAD RUN "versions: [{version: \"2\", image: \"localhost/t:1\"}]\n", 6, 17,
      "there is no \"1\"" },
    { HEAD RUN "versions: [{version: \"1\", image: \"nope\"}]\n", 8, 34, "is not an image" },
    { HEAD RUN VERSIONS "capabilitys: [NET_RAW]\n", 9, 1, "unknown key \"capabilitys\"" },
    { HEAD "defaults: {argv: [/bin/t], configDir: /etc/../root, logDir: /l, runDir: /r}\n" VERSIONS,
      7, 39, "is not an absolute path" },
    { HEAD "defaults: {argv: [/bin/t], configDir: etc, logDir: /l, runDir: /r}\n" VERSIONS, 7, 39,
      "is not an absolute path" },
    { HEAD
      "defaults: {argv: [/bin/t], capabilities: [SYS_ADMIN], configDir: /c, logDir: /l, runDir: /r}\n" VERSIONS,
      7, 43, "is not NET_RAW" },
    { HEAD "defaults: {argv: [], configDir: /c, logDir: /l, runDir: /r}\n" VERSIONS, 7, 18,
      "too short" },
    { HEAD "defaults: {argv: [/t], logs: [{glob: ../x, format: eve}], configDir: /c, logDir: /l, "
           "runDir: /r}\n" VERSIONS,
      7, 38, "is not a file name" },
    { HEAD
      "defaults: {argv: [/t], probe: {kind: http}, configDir: /c, logDir: /l, runDir: /r}\n" VERSIONS,
      7, 38, "is not none or suricata" },
    { HEAD
      "defaults: {argv: [/t], stopTimeout: 1h, configDir: /c, logDir: /l, runDir: /r}\n" VERSIONS,
      7, 37, "more than" },
    { "apiVersion: picket.dev/v1alpha1\nkind: Fleet\n", 2, 7, "is not Package" },
};

static void test_bad_manifests(void **state)
{
    (void)state;
    for (size_t i = 0; i < PK_ARRAY_SIZE(bad_manifests); i++) {
        struct pk_errors errors = { 0 };
        struct pk_package *package = NULL;
        const char *text = bad_manifests[i].text;
        assert_int_equal(pk_package_parse("manifest.yaml", text, strlen(text), &package, &errors),
                         PK_E_INVALID);
        assert_null(package);
        bool found = false;
        for (size_t k = 0; k < errors.count; k++) {
            assert_true(errors.list[k].line > 0 && errors.list[k].hint[0] != '\0');
            found = found || (errors.list[k].line == bad_manifests[i].line &&
                              errors.list[k].col == bad_manifests[i].col &&
                              strstr(errors.list[k].msg, bad_manifests[i].message) != NULL);
        }
        if (!found) {
            show(&errors);
            fail_msg("case %zu: %s", i, bad_manifests[i].message);
        }
        pk_errors_done(&errors);
    }
}

/* ---- folders ---- */

static char root[64];

static void put(const char *path, const char *text)
{
    char full[300];
    struct pk_error err;
    (void)snprintf(full, sizeof(full), "%s/%s", root, path);
    char *slash = strrchr(full, '/');
    *slash = '\0';
    assert_int_equal(pk_mkdir_p(full, 0755, &err), 0);
    *slash = '/';
    assert_int_equal(pk_file_write(full, text, strlen(text), 0644, &err), 0);
}

static int make_root(void **state)
{
    (void)state;
    (void)strcpy(root, "/tmp/picket-test-catalog-XXXXXX");
    return mkdtemp(root) != NULL ? 0 : -1;
}

static int remove_root(void **state)
{
    (void)state;
    return pk_rm_rf(root, NULL);
}

#define VERSIONS_OK "versions: [{version: \"1\", image: \"localhost/tool:1\"}]\n"

static void test_broken_packages_are_left_out(void **state)
{
    (void)state;
    put("a/tool/manifest.yaml", HEAD RUN VERSIONS_OK);
    put("a/other/manifest.yaml", HEAD RUN VERSIONS_OK); /* named "tool" */
    put("a/broken/manifest.yaml", "name: [");
    put("a/nothing/readme", "no manifest");
    put("a/.hidden/manifest.yaml", "also no manifest");
    put("b/tool/manifest.yaml", "hidden by the first folder");
    char one[100], two[100];
    (void)snprintf(one, sizeof(one), "%s/a", root);
    (void)snprintf(two, sizeof(two), "%s/b", root);
    const char *dirs[] = { one, two, NULL };
    struct pk_errors errors = { 0 };
    PK_CLEANUP(pk_catalog_free_p) struct pk_catalog *catalog = NULL;
    assert_int_equal(pk_catalog_open(dirs, &catalog, &errors), 0);
    assert_int_equal(pk_catalog_count(catalog), 1);
    assert_string_equal(pk_package_name(pk_catalog_at(catalog, 0)), "tool");
    assert_int_equal(errors.count, 3);
    pk_errors_done(&errors);
}

static void test_bad_value_schemas_are_refused(void **state)
{
    (void)state;
    static const char *const schemas[] = {
        "{",
        "{\"unevaluatedItems\": false}",
        "{\"properties\": {\"a\": {\"type\": \"integer\", \"default\": \"x\"}}}",
        "{\"required\": [\"a\"]}",
    };
    for (size_t i = 0; i < PK_ARRAY_SIZE(schemas); i++) {
        put("c/tool/manifest.yaml", HEAD RUN VERSIONS_OK);
        put("c/tool/values.schema.json", schemas[i]);
        char dir[100];
        (void)snprintf(dir, sizeof(dir), "%s/c/tool", root);
        struct pk_errors errors = { 0 };
        struct pk_package *package = NULL;
        assert_true(pk_package_load(dir, &package, &errors) < 0);
        assert_int_equal(errors.count, 1);
        assert_non_null(strstr(errors.list[0].file, "values.schema.json"));
        pk_errors_done(&errors);
    }
}

static void test_render_templates_partials_and_files(void **state)
{
    (void)state;
    put("d/tool/manifest.yaml", HEAD RUN VERSIONS_OK);
    put("d/tool/templates/tool.conf.mustache", "lane {{lane}}\n{{> _common}}\n{{> sub/part}}\n");
    put("d/tool/templates/_common.mustache", "common {{x}}\n");
    put("d/tool/templates/sub/part.mustache", "part\n");
    put("d/tool/files/rules/a.rules", "alert\n");
    char dir[100];
    (void)snprintf(dir, sizeof(dir), "%s/d/tool", root);
    struct pk_errors errors = { 0 };
    struct pk_error err;
    PK_CLEANUP(pk_package_free_p) struct pk_package *package = NULL;
    assert_int_equal(pk_package_load(dir, &package, &errors), 0);
    PK_JSON context = json_pack("{s:i,s:s}", "lane", 3, "x", "<y>");
    struct pk_rendered rendered = { 0 };
    assert_int_equal(pk_package_render(package, &package->versions[0], context, &rendered, &err),
                     0);
    assert_int_equal(rendered.count, 3);
    assert_string_equal(rendered.files[0].path, "rules/a.rules");
    assert_string_equal(rendered.files[1].path, "sub/part");
    assert_string_equal(rendered.files[2].path, "tool.conf");
    assert_string_equal(rendered.files[2].data, "lane 3\ncommon <y>\npart\n");
    pk_rendered_done(&rendered);

    put("d/tool/templates/bad.mustache", "\n {{> none}}\n");
    assert_int_equal(pk_package_render(package, &package->versions[0], context, &rendered, &err),
                     PK_E_INVALID);
    assert_int_equal(err.line, 2);
    put("d/tool/templates/bad.mustache", "{{> ../../../etc/passwd}}");
    assert_int_equal(pk_package_render(package, &package->versions[0], context, &rendered, &err),
                     PK_E_INVALID);
    char link_path[160], bad[160];
    (void)snprintf(bad, sizeof(bad), "%s/templates/bad.mustache", dir);
    assert_int_equal(unlink(bad), 0);
    (void)snprintf(link_path, sizeof(link_path), "%s/files/shadow", dir);
    assert_int_equal(symlink("/etc/shadow", link_path), 0);
    assert_int_equal(pk_package_render(package, &package->versions[0], context, &rendered, &err),
                     PK_E_INVALID);
    assert_int_equal(unlink(link_path), 0);
    put("d/tool/files/tool.conf", "twice");
    assert_int_equal(pk_package_render(package, &package->versions[0], context, &rendered, &err),
                     PK_E_INVALID);
    assert_int_equal(rendered.count, 0);
}

static void test_search_path_of_the_environment(void **state)
{
    (void)state;
    put("e/tool/manifest.yaml", HEAD RUN VERSIONS_OK);
    char value[300];
    struct pk_errors errors = { 0 };
    PK_CLEANUP(pk_catalog_free_p) struct pk_catalog *catalog = NULL;
    (void)snprintf(value, sizeof(value), "%s/e:", root);
    assert_int_equal(setenv("PICKET_CATALOG", value, 1), 0);
    assert_int_equal(pk_catalog_open(NULL, &catalog, &errors), 0);
    assert_int_equal(pk_catalog_count(catalog), 1);
    struct pk_catalog *none = NULL;
    assert_int_equal(setenv("PICKET_CATALOG", "/nonexistent", 1), 0);
    assert_int_equal(pk_catalog_open(NULL, &none, &errors), PK_E_NOTFOUND);
    assert_int_equal(errors.count, 1);
    pk_errors_done(&errors);
    assert_int_equal(unsetenv("PICKET_CATALOG"), 0);
}

/* Without the variable: the catalog of the source tree that the program runs from, or an installed
 * one, or an error that says what to do. */
static void test_search_path_without_the_variable(void **state)
{
    (void)state;
    char self[4096];
    ssize_t len = readlink("/proc/self/exe", self, sizeof(self) - 1);
    assert_true(len > 0);
    self[len] = '\0';
    struct pk_errors errors = { 0 };
    PK_CLEANUP(pk_catalog_free_p) struct pk_catalog *own = NULL;
    int r = pk_catalog_open(NULL, &own, &errors);
    if (pk_str_starts(self, getenv("PICKET_SOURCE")))
        assert_int_equal(r, 0);
    if (r == 0) {
        assert_true(pk_catalog_count(own) >= 1);
    } else {
        assert_int_equal(r, PK_E_NOTFOUND);
        assert_non_null(strstr(errors.list[0].hint, "PICKET_CATALOG"));
    }
    pk_errors_done(&errors);
}

static void test_every_allocation_may_fail(void **state)
{
    (void)state;
    const char *text = HEAD RUN VERSIONS_OK;
    int r = 0;
    PK_TEST_EACH_ALLOC_FAILS(r, {
        struct pk_errors errors = { 0 };
        struct pk_package *package = NULL;
        r = pk_package_parse("manifest.yaml", text, strlen(text), &package, &errors);
        pk_package_free(package);
        pk_errors_done(&errors);
    });
    assert_int_equal(r, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shipped_packages_are_good),
        cmocka_unit_test(test_shipped_package_renders_the_same_twice),
        cmocka_unit_test(test_bad_values_name_the_value_in_the_users_file),
        cmocka_unit_test(test_manifest_defaults_and_overrides),
        cmocka_unit_test(test_bad_manifests),
        cmocka_unit_test(test_broken_packages_are_left_out),
        cmocka_unit_test(test_bad_value_schemas_are_refused),
        cmocka_unit_test(test_render_templates_partials_and_files),
        cmocka_unit_test(test_search_path_of_the_environment),
        cmocka_unit_test(test_search_path_without_the_variable),
        cmocka_unit_test(test_every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, make_root, remove_root);
}
