/* SPDX-License-Identifier: Apache-2.0 */
/* The outside suites of JSON Schema and Mustache, where they are: in the folder that
 * PICKET_SHARED_DATA names, else in ../shared/data beside the source. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pk_test.h"

#include "base/fs.h"
#include "base/json.h"
#include "base/str.h"
#include "catalog/catalog.h"
#include "mustache_test.h"

static char data_dir[512];

static void test_outside_specification(void **state)
{
    (void)state;
    static const char *const modules[] = { "comments", "delimiters", "interpolation",
                                           "inverted", "partials",   "sections" };
    unsigned passed = 0;
    for (size_t m = 0; m < PK_ARRAY_SIZE(modules); m++) {
        char path[600];
        (void)snprintf(path, sizeof(path), "%s/mustache/specs/%s.json", data_dir, modules[m]);
        PK_JSON module = json_load_file(path, 0, NULL);
        size_t i;
        json_t *test;
        assert_non_null(module);
        json_array_foreach(json_object_get(module, "tests"), i, test)
        {
            struct pk_error err = { 0 };
            PK_CLEANUP(pk_free_p)
            char *out = render(json_string_value(json_object_get(test, "template")),
                               json_object_get(test, "data"), json_object_get(test, "partials"),
                               true, &err);
            if (out == NULL ||
                strcmp(out, json_string_value(json_object_get(test, "expected"))) != 0)
                fail_msg("%s: %s: wanted [%s], got [%s] %s", modules[m],
                         json_string_value(json_object_get(test, "name")),
                         json_string_value(json_object_get(test, "expected")),
                         out != NULL ? out : "", err.msg);
            passed++;
        }
    }
    assert_true(passed >= 130);
}

/* Files of keywords that are supported: their schemas have to be taken, but for those that need
 * something outside of our subset too. */
static const char *const supported[] = {
    "additionalProperties.json",
    "allOf.json",
    "anyOf.json",
    "boolean_schema.json",
    "const.json",
    "contains.json",
    "default.json",
    "dependentRequired.json",
    "dependentSchemas.json",
    "enum.json",
    "exclusiveMaximum.json",
    "exclusiveMinimum.json",
    "format.json",
    "if-then-else.json",
    "infinite-loop-detection.json",
    "items.json",
    "maxContains.json",
    "maxItems.json",
    "maxLength.json",
    "maxProperties.json",
    "maximum.json",
    "minContains.json",
    "minItems.json",
    "minLength.json",
    "minProperties.json",
    "minimum.json",
    "multipleOf.json",
    "not.json",
    "oneOf.json",
    "pattern.json",
    "patternProperties.json",
    "prefixItems.json",
    "properties.json",
    "propertyNames.json",
    "required.json",
    "type.json",
    "uniqueItems.json",
};

static bool uses_what_is_not_supported(const json_t *schema)
{
    PK_CLEANUP(pk_free_p) char *text = pk_json_compact(schema);
    static const char *const parts[] = { "unevaluated",
                                         "\\\\p{",
                                         "$anchor",
                                         "$dynamic",
                                         "$vocabulary",
                                         "dependencies",
                                         "://json-schema.org/draft/2020-12/schema\"}" };
    for (size_t i = 0; i < PK_ARRAY_SIZE(parts); i++)
        if (strstr(text, parts[i]) != NULL)
            return true;
    return false;
}

static void test_outside_suite(void **state)
{
    (void)state;
    unsigned cases = 0, refused_without_need = 0;
    char suite[600];
    (void)snprintf(suite, sizeof(suite), "%s/json-schema/tests/draft2020-12", data_dir);
    DIR *dir = opendir(suite);
    assert_non_null(dir);
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        char path[1024];
        (void)snprintf(path, sizeof(path), "%s/%s", suite, entry->d_name);
        if (!pk_str_ends(entry->d_name, ".json"))
            continue;
        bool all = false;
        for (size_t i = 0; i < PK_ARRAY_SIZE(supported); i++)
            all = all || strcmp(supported[i], entry->d_name) == 0;
        PK_JSON file = json_load_file(path, JSON_ALLOW_NUL, NULL);
        if (file == NULL) /* integers beyond 64 bits */
            file = json_load_file(path, JSON_DECODE_INT_AS_REAL | JSON_ALLOW_NUL, NULL);
        assert_non_null(file);
        size_t g, t;
        json_t *group, *test;
        json_array_foreach(file, g, group)
        {
            const json_t *schema = json_object_get(group, "schema");
            struct pk_error err = { 0 };
            if (pk_jsonschema_check(schema, &err) < 0) {
                if (all && !uses_what_is_not_supported(schema)) {
                    refused_without_need++;
                    print_error("%s: %s: %s\n", entry->d_name,
                                json_string_value(json_object_get(group, "description")), err.msg);
                }
                continue;
            }
            json_array_foreach(json_object_get(group, "tests"), t, test)
            {
                int r =
                    pk_jsonschema_validate(schema, json_object_get(test, "data"), NULL, NULL, &err);
                bool want = json_is_true(json_object_get(test, "valid"));
                cases++;
                if ((r == 0) != want)
                    fail_msg("%s: %s: %s: %d %s", entry->d_name,
                             json_string_value(json_object_get(group, "description")),
                             json_string_value(json_object_get(test, "description")), r, err.msg);
            }
        }
    }
    closedir(dir);
    assert_int_equal(refused_without_need, 0);
    assert_true(cases > 800);
}

int main(void)
{
    const char *variable = getenv("PICKET_SHARED_DATA"), *source = getenv("PICKET_SOURCE");
    if (variable != NULL)
        (void)snprintf(data_dir, sizeof(data_dir), "%s", variable);
    else
        (void)snprintf(data_dir, sizeof(data_dir), "%s/../shared/data",
                       source != NULL ? source : ".");
    char probe[600];
    (void)snprintf(probe, sizeof(probe), "%s/mustache/specs/comments.json", data_dir);
    if (!pk_file_exists(probe)) {
        printf("1..0 # SKIP no outside data in %s\n", data_dir);
        return 0;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_outside_specification),
        cmocka_unit_test(test_outside_suite),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
