/* SPDX-License-Identifier: Apache-2.0 */
/* The JSON Schema that is exported for fleets and manifests, held to our own validator. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pk_test.h"

#include "base/fs.h"
#include "base/json.h"
#include "base/str.h"
#include "catalog/internal.h"

/* Bad fleets that a schema cannot tell: what refers to another place or is unique by one key, and
 * the sizes of numbers that are written with units. */
static const char *const beyond_schema[] = {
    "group-name-twice",
    "group-tap-far",
    "group-tap-unknown",
    "max-size-small",
    "memory-overflow",
    "memory-small",
    "retain-short",
    "seal-after-zero",
    "sinks-two-same",
    "tap-interface-twice",
    "tap-name-twice",
    "tool-name-twice",
    "yaml-duplicate-key",
    "tunnel-interface-twice",
    "tunnel-port",
    "tunnel-port-of-which",
    "tunnel-address",
    "nic-replay",
    "taps-missing",
    "group-device-is-tap",
    "group-device-lanes",
    "inline-tenant",
    "inline-two-groups",
    "inline-two-tools",
    "inline-filter",
    "inline-group-of-two-taps",
    "inline-interface-of-another",
    "canary-short",
    "inline-fail-after-short",
    "inline-same-interface",
    "group-name-twice",
    "group-tap-far",
    "group-tap-unknown",
    "max-size-small",
    "memory-overflow",
    "memory-small",
    "retain-short",
    "seal-after-zero",
    "sinks-two-same",
    "tap-interface-twice",
    "tap-name-twice",
    "tool-name-twice",
    "yaml-duplicate-key",
    "tenant-unknown",
    "tenant-none-defined",
    "tenant-tap-unknown",
    "tenant-name-twice",
    "tenant-match-empty",
    "tenant-match-null",
    "tenant-prefix-host-bits",
    "tenant-prefix-long",
    "tenant-prefix-word",
    "tenant-claimed-same",
    "tenant-claimed-wider",
    "tenant-claimed-outer-vlan",
    "tenant-claimed-whole-tap",
    "tenant-not-on-tap",
    "tenant-takes-all",
    "groups-nine-of-tap",
    "shunt-empty",
    "shunt-idle-alone",
    "filter-empty",
    "filter-word",
    "filter-quoted-place",
    "filter-map-place",
    "filter-host-name",
    "filter-far",
    "filter-key",
    "filter-port",
    "filter-prefix",
    "filter-map-empty",
    "filter-block",
    "filter-not-ascii",
};

static json_t *own_schema(void)
{
    json_t *schema = pk_spec_json_schema();
    struct pk_error err = { 0 };
    assert_non_null(schema);
    if (pk_jsonschema_check(schema, &err) < 0)
        fail_msg("%s", err.msg);
    return schema;
}

static void print_fault(void *arg, const char *pointer, const char *message, const char *hint)
{
    (void)arg;
    (void)hint;
    print_error("%s: %s\n", pointer, message);
}

static void test_good_fleets_are_valid(void **state)
{
    (void)state;
    PK_JSON schema = own_schema();
    static const char *const names[] = { "demo", "full", "demo.canonical", "full.defaults" };
    for (size_t i = 0; i <= PK_ARRAY_SIZE(names); i++) {
        PK_CLEANUP(pk_doc_free_p) struct pk_doc *doc = NULL;
        struct pk_error err = { 0 };
        if (i == PK_ARRAY_SIZE(names)) {
            const char *example = pk_spec_example();
            assert_int_equal(pk_doc_parse("example", example, strlen(example), &doc, &err), 0);
        } else {
            char path[512];
            (void)snprintf(path, sizeof(path), "%s/tests/data/fleets/%s.yaml",
                           getenv("PICKET_SOURCE"), names[i]);
            assert_int_equal(pk_doc_load(path, &doc, &err), 0);
        }
        PK_JSON json = pk_node_to_json(pk_doc_root(doc));
        if (pk_jsonschema_validate(schema, json, print_fault, NULL, &err) < 0)
            fail_msg("%s: %s", pk_doc_name(doc), err.msg);
    }
}

static void test_bad_fleets_are_refused_where_a_schema_can(void **state)
{
    (void)state;
    PK_JSON schema = own_schema();
    char folder[512];
    unsigned refused = 0;
    (void)snprintf(folder, sizeof(folder), "%s/tests/data/bad-fleets", getenv("PICKET_SOURCE"));
    DIR *dir = opendir(folder);
    assert_non_null(dir);
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        char path[1024];
        PK_CLEANUP(pk_doc_free_p) struct pk_doc *doc = NULL;
        struct pk_error err = { 0 };
        (void)snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name);
        if (!pk_str_ends(entry->d_name, ".yaml") || pk_doc_load(path, &doc, &err) < 0)
            continue; /* not even YAML */
        PK_JSON json = pk_node_to_json(pk_doc_root(doc));
        assert_non_null(json);
        if (pk_jsonschema_validate(schema, json, NULL, NULL, &err) < 0) {
            refused++;
            continue;
        }
        bool known = false;
        for (size_t i = 0; i < PK_ARRAY_SIZE(beyond_schema); i++)
            known =
                known || (strncmp(entry->d_name, beyond_schema[i], strlen(beyond_schema[i])) == 0 &&
                          strcmp(entry->d_name + strlen(beyond_schema[i]), ".yaml") == 0);
        if (!known)
            fail_msg("%s: the exported schema takes it", entry->d_name);
    }
    closedir(dir);
    assert_true(refused >= 60);
}

static void test_manifest_schema_takes_the_shipped_packages(void **state)
{
    (void)state;
    PK_JSON schema = pk_table_json_schema(&pk_manifest_table);
    struct pk_error err = { 0 };
    char path[512];
    PK_CLEANUP(pk_doc_free_p) struct pk_doc *doc = NULL;
    if (pk_jsonschema_check(schema, &err) < 0)
        fail_msg("%s", err.msg);
    (void)snprintf(path, sizeof(path), "%s/catalog/suricata/manifest.yaml",
                   getenv("PICKET_SOURCE"));
    assert_int_equal(pk_doc_load(path, &doc, &err), 0);
    PK_JSON json = pk_node_to_json(pk_doc_root(doc));
    if (pk_jsonschema_validate(schema, json, print_fault, NULL, &err) < 0)
        fail_msg("%s", err.msg);
    assert_int_equal(json_object_del(json, "name"), 0);
    assert_int_equal(pk_jsonschema_validate(schema, json, NULL, NULL, &err), PK_E_INVALID);
}

/* The page is made from the table: PK_UPDATE=1 writes it anew. */
static void test_manifest_reference_page(void **state)
{
    (void)state;
    PK_CLEANUP(pk_free_p) char *rows = pk_table_reference(&pk_manifest_table);
    PK_CLEANUP(pk_free_p)
    char *page =
        pk_asprintf("# Reference: manifest.yaml of a package\n\n"
                    "Made from the table in `src/catalog/manifest.c`; do not edit. The guide is "
                    "[packages.md](../packages.md).\n\n%s",
                    rows);
    char path[512];
    struct pk_error err;
    (void)snprintf(path, sizeof(path), "%s/docs/reference/manifest.md", getenv("PICKET_SOURCE"));
    if (getenv("PK_UPDATE") != NULL && pk_file_write(path, page, strlen(page), 0644, &err) < 0)
        fail_msg("%s", err.msg);
    PK_CLEANUP(pk_free_p) char *there = NULL;
    size_t len;
    if (pk_file_read(path, 1 << 20, &there, &len, &err) < 0 || strcmp(there, page) != 0)
        fail_msg("docs/reference/manifest.md is out of date: run this test with PK_UPDATE=1");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good_fleets_are_valid),
        cmocka_unit_test(test_bad_fleets_are_refused_where_a_schema_can),
        cmocka_unit_test(test_manifest_schema_takes_the_shipped_packages),
        cmocka_unit_test(test_manifest_reference_page),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
