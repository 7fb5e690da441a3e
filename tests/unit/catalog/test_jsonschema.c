/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "pk_test.h"

#include "base/json.h"
#include "catalog/catalog.h"

struct faults {
    unsigned count;
    char pointer[200], message[400], hint[300];
};

static void on_fault(void *arg, const char *pointer, const char *message, const char *hint)
{
    struct faults *faults = arg;
    if (faults->count++ == 0) {
        (void)snprintf(faults->pointer, sizeof(faults->pointer), "%s", pointer);
        (void)snprintf(faults->message, sizeof(faults->message), "%s", message);
        (void)snprintf(faults->hint, sizeof(faults->hint), "%s", hint);
    }
}

struct own_case {
    const char *schema, *value;
    const char *pointer, *message, *hint; /* NULL pointer: valid */
};

static const struct own_case own_cases[] = {
    { "{\"type\": \"integer\"}", "3", NULL, NULL, NULL },
    { "{\"type\": \"integer\"}", "3.0", NULL, NULL, NULL },
    { "{\"type\": \"integer\"}", "3.5", "", "expected a whole number, found 3.5",
      "a whole number" },
    { "{\"type\": \"string\"}", "3", "", "expected text, found 3", "quotes" },
    { "{\"properties\": {\"home-net\": {}}, \"additionalProperties\": false}", "{\"home-nt\": 1}",
      "/home-nt", "unknown key \"home-nt\"", "did you mean \"home-net\"?" },
    { "{\"properties\": {\"a\": {\"enum\": [\"low\", \"high\"]}}}", "{\"a\": \"hihg\"}", "/a",
      "\"hihg\" is not one of", "did you mean \"high\"?" },
    { "{\"items\": {\"maximum\": 5}}", "[1, 9]", "/1", "9 is not at most 5", "at most 5" },
    { "{\"required\": [\"x\"]}", "{}", "", "\"x\" is missing", "add \"x:\"" },
    { "{\"pattern\": \"^[a-z]+$\"}", "\"A\"", "", "\"A\" does not have the form", "^[a-z]+$" },
    { "{\"uniqueItems\": true}", "[1, 2, 1.0]", "/2", "1 is there already", "remove" },
    { "{\"$ref\": \"#/$defs/p\", \"$defs\": {\"p\": {\"minimum\": 1}}}", "0", "",
      "0 is not at least 1", "at least 1" },
    { "{\"properties\": {\"a/b\": {\"type\": \"null\"}}}", "{\"a/b\": 1}", "/a~1b",
      "expected nothing", "write" },
};

static void test_own_cases(void **state)
{
    (void)state;
    for (size_t i = 0; i < PK_ARRAY_SIZE(own_cases); i++) {
        const struct own_case *c = &own_cases[i];
        PK_JSON schema = json_loads(c->schema, 0, NULL);
        PK_JSON value = json_loads(c->value, JSON_DECODE_ANY, NULL);
        struct pk_error err = { 0 };
        struct faults faults = { 0 };
        assert_non_null(schema);
        assert_non_null(value);
        assert_int_equal(pk_jsonschema_check(schema, &err), 0);
        int r = pk_jsonschema_validate(schema, value, on_fault, &faults, &err);
        if (c->pointer == NULL) {
            assert_int_equal(r, 0);
            continue;
        }
        assert_int_equal(r, PK_E_INVALID);
        assert_int_equal(faults.count, 1);
        assert_string_equal(faults.pointer, c->pointer);
        if (strstr(faults.message, c->message) == NULL || strstr(faults.hint, c->hint) == NULL)
            fail_msg("%s: %s (%s)", c->schema, faults.message, faults.hint);
    }
}

static void test_schemas_that_are_refused(void **state)
{
    (void)state;
    static const char *const schemas[] = {
        "3",
        "{\"unevaluatedProperties\": false}",
        "{\"typ\": \"string\"}",
        "{\"type\": \"strin\"}",
        "{\"properties\": {\"a\": {\"minimum\": \"1\"}}}",
        "{\"pattern\": \"(\"}",
        "{\"pattern\": \"(?=a)\"}",
        "{\"pattern\": \"(a)\\\\1\"}",
        "{\"patternProperties\": {\"[\": {}}}",
        "{\"$ref\": \"#/$defs/none\"}",
        "{\"$ref\": \"https://example.com/schema\"}",
        "{\"required\": [1]}",
        "{\"multipleOf\": 0}",
        "{\"minLength\": -1}",
        "{\"anyOf\": []}",
        "{\"$schema\": \"http://json-schema.org/draft-07/schema#\"}",
        "{\"items\": [{}]}",
    };
    for (size_t i = 0; i < PK_ARRAY_SIZE(schemas); i++) {
        PK_JSON schema = json_loads(schemas[i], JSON_DECODE_ANY, NULL);
        struct pk_error err = { 0 };
        assert_non_null(schema);
        int r = pk_jsonschema_check(schema, &err);
        if (r != PK_E_INVALID && r != PK_E_UNSUPPORTED)
            fail_msg("accepted: %s", schemas[i]);
        assert_non_null(strstr(err.msg, "schema"));
    }
}

static void test_work_is_bounded(void **state)
{
    (void)state;
    struct pk_error err = { 0 };
    PK_JSON endless = json_loads("{\"$ref\": \"#\"}", 0, NULL);
    PK_JSON doubled = json_loads("{\"allOf\": [{\"$ref\": \"#\"}, {\"$ref\": \"#\"}]}", 0, NULL);
    PK_JSON defaults =
        json_loads("{\"properties\": {\"a\": {\"$ref\": \"#\", \"default\": {}}}}", 0, NULL);
    PK_JSON value = json_object();
    assert_int_equal(pk_jsonschema_validate(endless, value, NULL, NULL, &err), PK_E_INVALID);
    assert_int_equal(pk_jsonschema_validate(doubled, value, NULL, NULL, &err), PK_E_INVALID);
    assert_int_equal(pk_jsonschema_fill_defaults(defaults, value, &err), PK_E_INVALID);
}

static void test_defaults_are_filled_in(void **state)
{
    (void)state;
    struct pk_error err = { 0 };
    PK_JSON schema =
        json_loads("{\"properties\": {\"a\": {\"default\": 1},"
                   "\"b\": {\"default\": {}, \"properties\": {\"c\": {\"default\": [2]}}},"
                   "\"d\": {\"properties\": {\"e\": {\"default\": 3}}},"
                   "\"l\": {\"items\": {\"properties\": {\"x\": {\"default\": 4}}}}}}",
                   0, NULL);
    PK_JSON value = json_loads("{\"a\": 9, \"l\": [{}, {\"x\": 5}]}", 0, NULL);
    PK_JSON want =
        json_loads("{\"a\": 9, \"b\": {\"c\": [2]}, \"l\": [{\"x\": 4}, {\"x\": 5}]}", 0, NULL);
    assert_int_equal(pk_jsonschema_fill_defaults(schema, value, &err), 0);
    assert_true(json_equal(value, want));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_own_cases),
        cmocka_unit_test(test_schemas_that_are_refused),
        cmocka_unit_test(test_work_is_bounded),
        cmocka_unit_test(test_defaults_are_filled_in),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
