/* SPDX-License-Identifier: Apache-2.0 */
/* Looks at schemas themselves: that only supported keywords are used, and rightly; their defaults.
 */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/str.h"
#include "catalog/internal.h"
#include "spec/pattern.h"

#define DIALECT "https://json-schema.org/draft/2020-12/schema"

struct checker {
    const json_t *root;
    char path[400]; /* where in the schema, as a JSON pointer; cut when longer */
    unsigned depth;
    struct pk_error *err;
};

static int check_schema(struct checker *c, const json_t *schema);

static int refuse(struct checker *c, int code, const char *what, const char *hint)
{
    char quoted[100];
    pk_fail(c->err, code, "schema: %s: %s",
            c->path[0] != '\0' ? pk_quote(c->path, quoted, sizeof(quoted)) : "top", what);
    (void)pk_hint(c->err, "%s", hint);
    return code;
}

static size_t enter(struct checker *c, const char *part)
{
    size_t old = strlen(c->path);
    (void)snprintf(c->path + old, sizeof(c->path) - old, "/%s", part);
    return old;
}

static bool all_strings(const json_t *list)
{
    if (!json_is_array(list))
        return false;
    for (size_t i = 0; i < json_array_size(list); i++)
        if (!json_is_string(json_array_get(list, i)))
            return false;
    return true;
}

static bool is_type_name(const json_t *name)
{
    static const char *const names[] = { "object", "array",   "string", "integer",
                                         "number", "boolean", "null" };
    for (size_t i = 0; i < PK_ARRAY_SIZE(names); i++)
        if (pk_str_equal(json_string_value(name), names[i]))
            return true;
    return false;
}

static bool is_types(const json_t *operand)
{
    if (!json_is_array(operand))
        return is_type_name(operand);
    for (size_t i = 0; i < json_array_size(operand); i++)
        if (!is_type_name(json_array_get(operand, i)))
            return false;
    return json_array_size(operand) > 0;
}

static int check_members(struct checker *c, const json_t *map, bool patterns, bool names)
{
    const char *key;
    json_t *inner;
    if (!json_is_object(map))
        return refuse(c, PK_E_INVALID, "expected a map", "write {\"name\": ...}");
    json_object_foreach((json_t *)(uintptr_t)map, key, inner)
    {
        size_t old = enter(c, key);
        if (patterns && pk_pattern_check(key, c->err) < 0)
            return pk_wrap(c->err, "schema: %s", c->path);
        if (names && !all_strings(inner))
            return refuse(c, PK_E_INVALID, "expected a list of keys", "write [\"a\", \"b\"]");
        int r = names ? 0 : check_schema(c, inner);
        if (r < 0)
            return r;
        c->path[old] = '\0';
    }
    return 0;
}

static int check_keyword(struct checker *c, const char *name, const json_t *operand)
{
    int r = 0;
    bool good = true;
    switch (pk_jsonschema_takes(name)) {
    case PK_TAKES_UNKNOWN:
        return refuse(c, PK_E_UNSUPPORTED, "this keyword is not supported",
                      "see docs/packages.md for the keywords that are");
    case PK_TAKES_ANY:
        break;
    case PK_TAKES_SCHEMA:
        return check_schema(c, operand);
    case PK_TAKES_SCHEMAS:
        good = json_is_array(operand) && json_array_size(operand) > 0;
        for (size_t i = 0; i < json_array_size(operand) && r == 0; i++)
            r = check_schema(c, json_array_get(operand, i));
        break;
    case PK_TAKES_SCHEMA_MAP:
        return check_members(c, operand, strcmp(name, "patternProperties") == 0, false);
    case PK_TAKES_NAME_MAP:
        return check_members(c, operand, false, true);
    case PK_TAKES_COUNT:
        good = json_is_number(operand) && json_number_value(operand) >= 0;
        break;
    case PK_TAKES_NUMBER:
        good = json_is_number(operand) &&
               (strcmp(name, "multipleOf") != 0 || json_number_value(operand) > 0);
        break;
    case PK_TAKES_BOOL:
        good = json_is_boolean(operand);
        break;
    case PK_TAKES_STRING:
        good = json_is_string(operand);
        if (strcmp(name, "$schema") == 0 && good &&
            strcmp(json_string_value(operand), DIALECT) != 0)
            return refuse(c, PK_E_UNSUPPORTED, "another dialect of JSON Schema",
                          "write \"$schema\": \"" DIALECT "\"");
        if (name[0] == '$' && name[1] != 'c' && c->depth > 1)
            return refuse(c, PK_E_UNSUPPORTED, "supported at the top only", "remove it");
        break;
    case PK_TAKES_PATTERN:
        if (json_is_string(operand) &&
            (r = pk_pattern_check(json_string_value(operand), c->err)) < 0)
            return pk_wrap(c->err, "schema: %s", c->path);
        good = json_is_string(operand);
        break;
    case PK_TAKES_NAMES:
        good = all_strings(operand);
        break;
    case PK_TAKES_LIST:
        good = json_is_array(operand);
        break;
    case PK_TAKES_TYPES:
        good = is_types(operand);
        break;
    case PK_TAKES_REFERENCE: {
        const json_t *target = json_is_string(operand)
                                   ? pk_jsonschema_resolve(c->root, json_string_value(operand))
                                   : NULL;
        if (target == NULL)
            return refuse(c, PK_E_UNSUPPORTED, "this reference leads nowhere in the schema",
                          "write \"#/$defs/NAME\"");
        good = json_is_object(target) || json_is_boolean(target);
        break;
    }
    }
    if (r == 0 && !good)
        return refuse(c, PK_E_INVALID, "the keyword's value has the wrong form",
                      "see JSON Schema, draft 2020-12");
    return r;
}

static int check_schema(struct checker *c, const json_t *schema)
{
    const char *name;
    json_t *operand;
    if (json_is_boolean(schema))
        return 0;
    if (!json_is_object(schema))
        return refuse(c, PK_E_INVALID, "a schema is a map, true or false", "write {...}");
    if (c->depth == PK_JSONSCHEMA_DEPTH)
        return refuse(c, PK_E_INVALID, "nested too deeply", "use $defs and $ref");
    c->depth++;
    json_object_foreach((json_t *)(uintptr_t)schema, name, operand)
    {
        size_t old = enter(c, name);
        int r = check_keyword(c, name, operand);
        if (r < 0)
            return r;
        c->path[old] = '\0';
    }
    c->depth--;
    return 0;
}

int pk_jsonschema_check(const json_t *schema, struct pk_error *err)
{
    struct checker c = { .root = schema, .err = err };
    return check_schema(&c, schema);
}

/* ---- defaults ---- */

static int fill(const json_t *root, const json_t *schema, json_t *value, unsigned depth,
                struct pk_error *err)
{
    const char *key;
    json_t *inner;
    size_t i;
    int r = 0;
    if (depth == PK_JSONSCHEMA_DEPTH) {
        pk_fail(err, PK_E_INVALID, "schema: the defaults have no end");
        return pk_hint(err, "a default must not lead to itself by $ref");
    }
    const char *reference = json_string_value(json_object_get(schema, "$ref"));
    if (reference != NULL)
        r = fill(root, pk_jsonschema_resolve(root, reference), value, depth + 1, err);
    if (json_is_object(value)) {
        json_object_foreach(json_object_get(schema, "properties"), key, inner)
        {
            json_t *member = json_object_get(value, key);
            const json_t *initial = json_object_get(inner, "default");
            if (r == 0 && member == NULL && initial != NULL) {
                member = json_deep_copy(initial);
                if (json_object_set_new(value, key, member) < 0)
                    return pk_no_memory(err);
            }
            if (r == 0 && member != NULL)
                r = fill(root, inner, member, depth + 1, err);
        }
    } else if (json_is_array(value)) {
        const json_t *items = json_object_get(schema, "items");
        json_array_foreach(value, i, inner)
        {
            if (r == 0 && items != NULL)
                r = fill(root, items, inner, depth + 1, err);
        }
    }
    return r;
}

int pk_jsonschema_fill_defaults(const json_t *schema, json_t *value, struct pk_error *err)
{
    return fill(schema, schema, value, 0, err);
}
