/* SPDX-License-Identifier: Apache-2.0 */
/*
 * JSON Schema, draft 2020-12, as far as value schemas of packages need it. Every keyword is a row
 * of one table. Supported: any value   type enum const allOf anyOf oneOf not if then else $ref
 * (inside the schema: "#/...") numbers     minimum maximum exclusiveMinimum exclusiveMaximum
 * multipleOf strings     minLength maxLength pattern lists       items prefixItems contains
 * minContains maxContains minItems maxItems uniqueItems maps        properties patternProperties
 * additionalProperties propertyNames required minProperties maxProperties dependentRequired
 * dependentSchemas no effect   title description default examples deprecated readOnly writeOnly
 * format $comment $defs $schema $id (the last two at the top only) All others are refused by
 * pk_jsonschema_check(), so that no schema promises what is not checked.
 */
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/json.h"
#include "base/str.h"
#include "catalog/internal.h"
#include "spec/fields.h"
#include "spec/pattern.h"

#define STEPS_MAX   2000000u
#define POINTER_MAX 512u

struct validator {
    const json_t *root; /* schema */
    const struct pk_jsonschema_sink *sink;
    char pointer[POINTER_MAX];
    unsigned depth;
    unsigned long steps;
    unsigned quiet;    /* > 0: inside anyOf, not, ...: faults are not handed over */
    const char *about; /* the closest description around, for hints */
    struct pk_error *err;
};

/* 1 = valid, 0 = not, negative = pk_code. */
static int validate(struct validator *v, const json_t *schema, const json_t *value);

static int fault(struct validator *v, bool at_key, const char *hint, const char *fmt, ...)
    PK_PRINTF(4, 5);
static int fault(struct validator *v, bool at_key, const char *hint, const char *fmt, ...)
{
    if (v->quiet == 0 && v->sink != NULL) {
        char message[400];
        va_list args;
        va_start(args, fmt);
        (void)vsnprintf(message, sizeof(message), fmt, args);
        va_end(args);
        v->sink->fault(v->sink->arg, v->pointer, at_key, message, hint);
    }
    return 0;
}

/* Appends "/part" and returns the old length, for pointer_cut(). Too long a pointer stays as it is:
 * the position is then that of a value around. */
static size_t pointer_add(struct validator *v, const char *part)
{
    size_t old = strlen(v->pointer), at = old;
    char more[POINTER_MAX];
    size_t used = 0;
    more[used++] = '/';
    for (; *part != '\0' && used + 3 < sizeof(more); part++) {
        if (*part == '~' || *part == '/') {
            more[used++] = '~';
            more[used++] = *part == '~' ? '0' : '1';
        } else {
            more[used++] = *part;
        }
    }
    if (*part == '\0' && at + used < sizeof(v->pointer)) {
        memcpy(v->pointer + at, more, used);
        v->pointer[at + used] = '\0';
    }
    return old;
}

static size_t pointer_add_index(struct validator *v, size_t index)
{
    char number[24];
    (void)snprintf(number, sizeof(number), "%zu", index);
    return pointer_add(v, number);
}

static void pointer_cut(struct validator *v, size_t old)
{
    v->pointer[old] = '\0';
}

/* ---- values ---- */

/* A value for a message: short, on one line. */
static const char *shown(const json_t *value, char *out, size_t size)
{
    if (json_is_string(value))
        return pk_quote(json_string_value(value), out, size);
    if (json_is_object(value) || json_is_array(value))
        (void)snprintf(out, size, "a %s", json_is_object(value) ? "map" : "list");
    else if (json_is_integer(value))
        (void)snprintf(out, size, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
    else if (json_is_real(value))
        (void)snprintf(out, size, "%.15g", json_real_value(value));
    else
        (void)snprintf(out, size, "%s",
                       json_is_null(value)   ? "nothing"
                       : json_is_true(value) ? "true"
                                             : "false");
    return out;
}

/* -1, 0, 1; numbers that are not equal as integers are compared as such, not through a double. */
static int compare(const json_t *a, const json_t *b)
{
    if (json_is_integer(a) && json_is_integer(b)) {
        json_int_t x = json_integer_value(a), y = json_integer_value(b);
        return (x > y) - (x < y);
    }
    double x = json_number_value(a), y = json_number_value(b);
    return (x > y) - (x < y);
}

/* As json_equal(), but 1 and 1.0 are one number. Values' depth is bounded by their readers. */
static bool equal(const json_t *a, const json_t *b)
{
    if (json_is_number(a) && json_is_number(b))
        return compare(a, b) == 0;
    if (json_typeof(a) != json_typeof(b))
        return false;
    if (json_is_array(a)) {
        if (json_array_size(a) != json_array_size(b))
            return false;
        for (size_t i = 0; i < json_array_size(a); i++)
            if (!equal(json_array_get(a, i), json_array_get(b, i)))
                return false;
        return true;
    }
    if (json_is_object(a)) {
        const char *key;
        json_t *value;
        if (json_object_size(a) != json_object_size(b))
            return false;
        json_object_foreach((json_t *)(uintptr_t)a, key, value)
        {
            const json_t *other = json_object_get(b, key);
            if (other == NULL || !equal(value, other))
                return false;
        }
        return true;
    }
    return json_equal(a, b) != 0;
}

static bool is_integral(const json_t *value)
{
    if (json_is_integer(value))
        return true;
    double number = json_real_value(value);
    return json_is_real(value) && number >= floor(number) && number <= floor(number);
}

static bool has_type(const json_t *value, const char *type)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return strcmp(type, "object") == 0;
    case JSON_ARRAY:
        return strcmp(type, "array") == 0;
    case JSON_STRING:
        return strcmp(type, "string") == 0;
    case JSON_NULL:
        return strcmp(type, "null") == 0;
    case JSON_TRUE:
    case JSON_FALSE:
        return strcmp(type, "boolean") == 0;
    default:
        return strcmp(type, "number") == 0 || (strcmp(type, "integer") == 0 && is_integral(value));
    }
}

static size_t code_points(const char *text, size_t len)
{
    size_t count = 0;
    for (size_t i = 0; i < len; i++)
        count += ((unsigned char)text[i] & 0xc0) != 0x80;
    return count;
}

/* ---- keywords: check looks at the keyword's own value, apply at a value ---- */

struct keyword {
    const char *name;
    enum pk_keyword_takes takes;
    enum { FOR_ANY, FOR_OBJECT, FOR_ARRAY, FOR_STRING, FOR_NUMBER } applies;
    int (*apply)(struct validator *v, const json_t *schema, const json_t *operand,
                 const json_t *value);
};

static const char *plain_type(const char *type)
{
    static const char *const names[][2] = {
        { "object", "a map" },    { "array", "a list" },
        { "string", "text" },     { "integer", "a whole number" },
        { "number", "a number" }, { "boolean", "true or false" },
        { "null", "nothing" }
    };
    for (size_t i = 0; i < PK_ARRAY_SIZE(names); i++)
        if (strcmp(type, names[i][0]) == 0)
            return names[i][1];
    return type;
}

static int apply_type(struct validator *v, const json_t *schema, const json_t *operand,
                      const json_t *value)
{
    (void)schema;
    char expected[160] = "", got[100], hint[200] = "";
    if (json_is_string(operand)) {
        if (has_type(value, json_string_value(operand)))
            return 1;
        (void)snprintf(expected, sizeof(expected), "%s", plain_type(json_string_value(operand)));
        if (strcmp(json_string_value(operand), "string") == 0 &&
            (json_is_number(value) || json_is_boolean(value)))
            (void)snprintf(hint, sizeof(hint), "put it in quotes to make it text: \"%s\"",
                           shown(value, got, sizeof(got)));
        if (strcmp(json_string_value(operand), "array") == 0)
            (void)snprintf(hint, sizeof(hint), "write \"- \" before each element, or [a, b]");
    }
    for (size_t i = 0; i < json_array_size(operand); i++) {
        const char *type = json_string_value(json_array_get(operand, i));
        if (has_type(value, type))
            return 1;
        size_t used = strlen(expected);
        (void)snprintf(expected + used, sizeof(expected) - used, "%s%s", i > 0 ? " or " : "",
                       plain_type(type));
    }
    if (hint[0] == '\0')
        (void)snprintf(hint, sizeof(hint), "write %s", expected);
    return fault(v, false, hint, "expected %s, found %s", expected, shown(value, got, sizeof(got)));
}

static int apply_enum(struct validator *v, const json_t *schema, const json_t *operand,
                      const json_t *value)
{
    (void)schema;
    const char *texts[64];
    char list[256] = "", one[100], got[100], hint[256];
    size_t count = 0, used = 0;
    for (size_t i = 0; i < json_array_size(operand); i++) {
        const json_t *choice = json_array_get(operand, i);
        if (equal(choice, value))
            return 1;
        if (json_is_string(choice) && count < PK_ARRAY_SIZE(texts))
            texts[count++] = json_string_value(choice);
        if (used < sizeof(list))
            used += (size_t)snprintf(list + used, sizeof(list) - used, "%s%s", i > 0 ? ", " : "",
                                     shown(choice, one, sizeof(one)));
    }
    const char *near =
        json_is_string(value) ? pk_str_closest(json_string_value(value), texts, count) : NULL;
    if (near != NULL)
        (void)snprintf(hint, sizeof(hint), "did you mean \"%s\"?", near);
    else
        (void)snprintf(hint, sizeof(hint), "write one of: %.230s", list);
    return fault(v, false, hint, "%s is not one of: %s", shown(value, got, sizeof(got)), list);
}

static int apply_const(struct validator *v, const json_t *schema, const json_t *operand,
                       const json_t *value)
{
    (void)schema;
    char expected[100], got[100], hint[160];
    if (equal(operand, value))
        return 1;
    (void)snprintf(hint, sizeof(hint), "write %s", shown(operand, expected, sizeof(expected)));
    return fault(v, false, hint, "expected %s, found %s", expected, shown(value, got, sizeof(got)));
}

static int apply_limit(struct validator *v, const json_t *operand, const json_t *value, bool good,
                       const char *words)
{
    char limit[60], got[100], hint[120];
    if (good)
        return 1;
    (void)snprintf(hint, sizeof(hint), "write a number that is %s %s", words,
                   shown(operand, limit, sizeof(limit)));
    return fault(v, false, hint, "%s is not %s %s", shown(value, got, sizeof(got)), words, limit);
}

static int apply_minimum(struct validator *v, const json_t *schema, const json_t *operand,
                         const json_t *value)
{
    (void)schema;
    return apply_limit(v, operand, value, compare(value, operand) >= 0, "at least");
}

static int apply_maximum(struct validator *v, const json_t *schema, const json_t *operand,
                         const json_t *value)
{
    (void)schema;
    return apply_limit(v, operand, value, compare(value, operand) <= 0, "at most");
}

static int apply_above(struct validator *v, const json_t *schema, const json_t *operand,
                       const json_t *value)
{
    (void)schema;
    return apply_limit(v, operand, value, compare(value, operand) > 0, "more than");
}

static int apply_below(struct validator *v, const json_t *schema, const json_t *operand,
                       const json_t *value)
{
    (void)schema;
    return apply_limit(v, operand, value, compare(value, operand) < 0, "less than");
}

static int apply_multiple(struct validator *v, const json_t *schema, const json_t *operand,
                          const json_t *value)
{
    (void)schema;
    bool good;
    if (json_is_integer(operand) && json_is_integer(value)) {
        good = json_integer_value(value) % json_integer_value(operand) == 0;
    } else {
        double quotient = json_number_value(value) / json_number_value(operand);
        /* An infinite quotient has no fraction that a double could tell. */
        good = isinf(quotient)
                   ? fabs(fmod(json_number_value(value), json_number_value(operand))) <= 0
                   : fabs(quotient - round(quotient)) <= 1e-9 * fmax(1, fabs(quotient));
    }
    return apply_limit(v, operand, value, good, "a multiple of");
}

static int apply_size(struct validator *v, const json_t *operand, size_t size, bool minimum,
                      const char *what)
{
    double limit = json_number_value(operand);
    char hint[120];
    bool good = minimum ? (double)size >= limit : (double)size <= limit;
    if (good)
        return 1;
    (void)snprintf(hint, sizeof(hint), "write at %s %.0f", minimum ? "least" : "most", limit);
    return fault(v, false, hint, "%zu %s: %s than %.0f", size, what, minimum ? "less" : "more",
                 limit);
}

#define SIZE_KEYWORD(name, size, minimum, what)                                       \
    static int name(struct validator *v, const json_t *schema, const json_t *operand, \
                    const json_t *value)                                              \
    {                                                                                 \
        (void)schema;                                                                 \
        return apply_size(v, operand, size, minimum, what);                           \
    }
#define TEXT_LENGTH(value) code_points(json_string_value(value), json_string_length(value))
SIZE_KEYWORD(apply_min_length, TEXT_LENGTH(value), true, "characters")
SIZE_KEYWORD(apply_max_length, TEXT_LENGTH(value), false, "characters")
SIZE_KEYWORD(apply_min_items, json_array_size(value), true, "elements")
SIZE_KEYWORD(apply_max_items, json_array_size(value), false, "elements")
SIZE_KEYWORD(apply_min_properties, json_object_size(value), true, "keys")
SIZE_KEYWORD(apply_max_properties, json_object_size(value), false, "keys")

static int apply_pattern(struct validator *v, const json_t *schema, const json_t *operand,
                         const json_t *value)
{
    (void)schema;
    bool match;
    char got[100], hint[256];
    int r = pk_pattern_match(json_string_value(operand), json_string_value(value),
                             json_string_length(value), &match, v->err);
    v->steps += json_string_length(value);
    if (r < 0)
        return r;
    if (match)
        return 1;
    if (v->about != NULL)
        (void)snprintf(hint, sizeof(hint), "it is: %.240s", v->about);
    else
        (void)snprintf(hint, sizeof(hint), "it has to match %.200s", json_string_value(operand));
    return fault(v, false, hint, "%s does not have the form that is asked for",
                 shown(value, got, sizeof(got)));
}

static int apply_items(struct validator *v, const json_t *schema, const json_t *operand,
                       const json_t *value)
{
    int all = 1;
    size_t skip = json_array_size(json_object_get(schema, "prefixItems"));
    for (size_t i = skip; i < json_array_size(value); i++) {
        size_t old = pointer_add_index(v, i);
        int r = validate(v, operand, json_array_get(value, i));
        pointer_cut(v, old);
        if (r < 0)
            return r;
        all &= r;
    }
    return all;
}

static int apply_prefix_items(struct validator *v, const json_t *schema, const json_t *operand,
                              const json_t *value)
{
    (void)schema;
    int all = 1;
    for (size_t i = 0; i < json_array_size(value) && i < json_array_size(operand); i++) {
        size_t old = pointer_add_index(v, i);
        int r = validate(v, json_array_get(operand, i), json_array_get(value, i));
        pointer_cut(v, old);
        if (r < 0)
            return r;
        all &= r;
    }
    return all;
}

static int apply_contains(struct validator *v, const json_t *schema, const json_t *operand,
                          const json_t *value)
{
    const json_t *low = json_object_get(schema, "minContains"),
                 *high = json_object_get(schema, "maxContains");
    size_t count = 0;
    v->quiet++;
    for (size_t i = 0; i < json_array_size(value); i++) {
        int r = validate(v, operand, json_array_get(value, i));
        if (r < 0)
            return r;
        count += (size_t)r;
    }
    v->quiet--;
    double least = low != NULL ? json_number_value(low) : 1;
    if ((double)count < least)
        return fault(v, false, "add such an element",
                     "%zu elements of the needed form, less than %.0f", count, least);
    if (high != NULL && (double)count > json_number_value(high))
        return fault(v, false, "remove one of them", "%zu elements of the form, more than %.0f",
                     count, json_number_value(high));
    return 1;
}

static int apply_unique(struct validator *v, const json_t *schema, const json_t *operand,
                        const json_t *value)
{
    (void)schema;
    if (!json_is_true(operand))
        return 1;
    for (size_t i = 1; i < json_array_size(value); i++)
        for (size_t j = 0; j < i; j++) {
            if (++v->steps > STEPS_MAX)
                return pk_fail(v->err, PK_E_INVALID, "the value is too large to be checked");
            if (!equal(json_array_get(value, i), json_array_get(value, j)))
                continue;
            char got[100];
            size_t old = pointer_add_index(v, i);
            (void)fault(v, false, "remove one of them", "%s is there already, as element %zu",
                        shown(json_array_get(value, i), got, sizeof(got)), j);
            pointer_cut(v, old);
            return 0;
        }
    return 1;
}

static int apply_properties(struct validator *v, const json_t *schema, const json_t *operand,
                            const json_t *value)
{
    (void)schema;
    const char *key;
    json_t *inner;
    int all = 1;
    json_object_foreach((json_t *)(uintptr_t)operand, key, inner)
    {
        const json_t *member = json_object_get(value, key);
        if (member == NULL)
            continue;
        size_t old = pointer_add(v, key);
        int r = validate(v, inner, member);
        pointer_cut(v, old);
        if (r < 0)
            return r;
        all &= r;
    }
    return all;
}

static int match_key(struct validator *v, const char *pattern, const char *key, bool *ret_match)
{
    v->steps += strlen(key);
    return pk_pattern_match(pattern, key, strlen(key), ret_match, v->err);
}

static int apply_pattern_properties(struct validator *v, const json_t *schema,
                                    const json_t *operand, const json_t *value)
{
    (void)schema;
    const char *pattern, *key;
    json_t *inner, *member;
    int all = 1;
    json_object_foreach((json_t *)(uintptr_t)operand, pattern, inner)
    {
        json_object_foreach((json_t *)(uintptr_t)value, key, member)
        {
            bool match;
            int r = match_key(v, pattern, key, &match);
            if (r == 0 && match) {
                size_t old = pointer_add(v, key);
                r = validate(v, inner, member);
                pointer_cut(v, old);
                all &= r;
            }
            if (r < 0)
                return r;
        }
    }
    return all;
}

static int unknown_property(struct validator *v, const json_t *properties, const char *key)
{
    const char *known[256], *name;
    char hint[256] = "", quoted[100];
    size_t count = 0, used = 0;
    json_t *unused;
    json_object_foreach((json_t *)(uintptr_t)properties, name, unused)
    {
        if (count < PK_ARRAY_SIZE(known))
            known[count++] = name;
    }
    const char *near = pk_str_closest(key, known, count);
    if (near != NULL) {
        (void)snprintf(hint, sizeof(hint), "did you mean \"%s\"?", near);
    } else if (count == 0) {
        (void)snprintf(hint, sizeof(hint), "remove it: there are no keys here");
    } else {
        used = (size_t)snprintf(hint, sizeof(hint), "the keys here are:");
        for (size_t i = 0; i < count && used < sizeof(hint); i++)
            used += (size_t)snprintf(hint + used, sizeof(hint) - used, "%s %s", i > 0 ? "," : "",
                                     known[i]);
    }
    return fault(v, true, hint, "unknown key %s", pk_quote(key, quoted, sizeof(quoted)));
}

static int apply_additional(struct validator *v, const json_t *schema, const json_t *operand,
                            const json_t *value)
{
    const json_t *properties = json_object_get(schema, "properties"),
                 *patterns = json_object_get(schema, "patternProperties");
    const char *key, *pattern;
    json_t *member, *unused;
    int all = 1;
    json_object_foreach((json_t *)(uintptr_t)value, key, member)
    {
        bool known = json_object_get(properties, key) != NULL;
        json_object_foreach((json_t *)(uintptr_t)patterns, pattern, unused)
        {
            bool match;
            int r = match_key(v, pattern, key, &match);
            if (r < 0)
                return r;
            known = known || match;
        }
        if (known)
            continue;
        size_t old = pointer_add(v, key);
        int r = json_is_false(operand) ? unknown_property(v, properties, key)
                                       : validate(v, operand, member);
        pointer_cut(v, old);
        if (r < 0)
            return r;
        all &= r;
    }
    return all;
}

static int apply_property_names(struct validator *v, const json_t *schema, const json_t *operand,
                                const json_t *value)
{
    (void)schema;
    const char *key;
    json_t *member;
    int all = 1;
    json_object_foreach((json_t *)(uintptr_t)value, key, member)
    {
        PK_JSON name = json_string(key);
        if (name == NULL)
            return pk_fail(v->err, PK_E_NOMEM, "out of memory");
        size_t old = pointer_add(v, key);
        int r = validate(v, operand, name);
        pointer_cut(v, old);
        if (r < 0)
            return r;
        all &= r;
    }
    return all;
}

static int apply_required(struct validator *v, const json_t *schema, const json_t *operand,
                          const json_t *value)
{
    (void)schema;
    int all = 1;
    for (size_t i = 0; i < json_array_size(operand); i++) {
        const char *key = json_string_value(json_array_get(operand, i));
        char hint[120], quoted[100];
        if (json_object_get(value, key) != NULL)
            continue;
        (void)snprintf(hint, sizeof(hint), "add \"%.80s:\"", key);
        all = fault(v, false, hint, "%s is missing", pk_quote(key, quoted, sizeof(quoted)));
    }
    return all;
}

static int apply_dependent_required(struct validator *v, const json_t *schema,
                                    const json_t *operand, const json_t *value)
{
    const char *key;
    json_t *names;
    int all = 1;
    json_object_foreach((json_t *)(uintptr_t)operand, key, names)
    {
        if (json_object_get(value, key) != NULL)
            all &= apply_required(v, schema, names, value);
    }
    return all;
}

static int apply_dependent_schemas(struct validator *v, const json_t *schema, const json_t *operand,
                                   const json_t *value)
{
    (void)schema;
    const char *key;
    json_t *inner;
    int all = 1;
    json_object_foreach((json_t *)(uintptr_t)operand, key, inner)
    {
        int r = json_object_get(value, key) != NULL ? validate(v, inner, value) : 1;
        if (r < 0)
            return r;
        all &= r;
    }
    return all;
}

static int apply_all_of(struct validator *v, const json_t *schema, const json_t *operand,
                        const json_t *value)
{
    (void)schema;
    int all = 1;
    for (size_t i = 0; i < json_array_size(operand); i++) {
        int r = validate(v, json_array_get(operand, i), value);
        if (r < 0)
            return r;
        all &= r;
    }
    return all;
}

/* How many of the schemas hold; their faults are not handed over. */
static int count_valid(struct validator *v, const json_t *schemas, const json_t *value)
{
    int count = 0;
    v->quiet++;
    for (size_t i = 0; i < json_array_size(schemas); i++) {
        int r = validate(v, json_array_get(schemas, i), value);
        if (r < 0)
            return r;
        count += r;
    }
    v->quiet--;
    return count;
}

static int apply_any_of(struct validator *v, const json_t *schema, const json_t *operand,
                        const json_t *value)
{
    (void)schema;
    int r = count_valid(v, operand, value);
    char got[100];
    if (r != 0)
        return r < 0 ? r : 1;
    return fault(v, false, "see 'picket catalog values' for what is accepted",
                 "%s is none of the accepted forms", shown(value, got, sizeof(got)));
}

static int apply_one_of(struct validator *v, const json_t *schema, const json_t *operand,
                        const json_t *value)
{
    (void)schema;
    int r = count_valid(v, operand, value);
    char got[100];
    if (r < 0 || r == 1)
        return r;
    return fault(v, false, "see 'picket catalog values' for what is accepted",
                 r == 0 ? "%s is none of the accepted forms"
                        : "%s is more than one of the accepted forms",
                 shown(value, got, sizeof(got)));
}

static int apply_not(struct validator *v, const json_t *schema, const json_t *operand,
                     const json_t *value)
{
    (void)schema;
    char got[100];
    v->quiet++;
    int r = validate(v, operand, value);
    if (r < 0)
        return r;
    v->quiet--;
    if (r == 0)
        return 1;
    return fault(v, false, "see 'picket catalog values' for what is accepted",
                 "%s is just what is not accepted", shown(value, got, sizeof(got)));
}

static int apply_if(struct validator *v, const json_t *schema, const json_t *operand,
                    const json_t *value)
{
    v->quiet++;
    int r = validate(v, operand, value);
    if (r < 0)
        return r;
    v->quiet--;
    const json_t *then = json_object_get(schema, r == 1 ? "then" : "else");
    return then != NULL ? validate(v, then, value) : 1;
}

/* "#/$defs/port", also percent-encoded; NULL if there is none. */
const json_t *pk_jsonschema_resolve(const json_t *root, const char *reference)
{
    if (reference[0] != '#' || (reference[1] != '\0' && reference[1] != '/'))
        return NULL;
    const json_t *at = root;
    const char *p = reference + 1;
    while (*p == '/' && at != NULL) {
        char part[128];
        size_t used = 0;
        for (p++; *p != '\0' && *p != '/'; p++) {
            char c = *p;
            uint64_t byte;
            if (c == '%' && pk_parse_hex(p + 1, strnlen(p + 1, 2), &byte, NULL) == 0 &&
                p[2] != '\0') {
                c = (char)byte;
                p += 2;
            } else if (c == '~' && (p[1] == '0' || p[1] == '1')) {
                c = *++p == '0' ? '~' : '/';
            }
            if (used + 1 >= sizeof(part))
                return NULL;
            part[used++] = c;
        }
        part[used] = '\0';
        uint64_t index;
        if (json_is_array(at))
            at = pk_parse_u64(part, &index, NULL) == 0 ? json_array_get(at, (size_t)index) : NULL;
        else
            at = json_object_get(at, part);
    }
    return at;
}

static int apply_ref(struct validator *v, const json_t *schema, const json_t *operand,
                     const json_t *value)
{
    (void)schema;
    const json_t *target = pk_jsonschema_resolve(v->root, json_string_value(operand));
    if (target == NULL)
        return pk_fail(v->err, PK_E_INVALID, "$ref leads nowhere: %.100s",
                       json_string_value(operand));
    return validate(v, target, value);
}

/* clang-format off */
static const struct keyword keywords[] = {
    { "$ref", PK_TAKES_REFERENCE, FOR_ANY, apply_ref },
    { "type", PK_TAKES_TYPES, FOR_ANY, apply_type },
    { "enum", PK_TAKES_LIST, FOR_ANY, apply_enum },
    { "const", PK_TAKES_ANY, FOR_ANY, apply_const },
    { "minimum", PK_TAKES_NUMBER, FOR_NUMBER, apply_minimum },
    { "maximum", PK_TAKES_NUMBER, FOR_NUMBER, apply_maximum },
    { "exclusiveMinimum", PK_TAKES_NUMBER, FOR_NUMBER, apply_above },
    { "exclusiveMaximum", PK_TAKES_NUMBER, FOR_NUMBER, apply_below },
    { "multipleOf", PK_TAKES_NUMBER, FOR_NUMBER, apply_multiple },
    { "minLength", PK_TAKES_COUNT, FOR_STRING, apply_min_length },
    { "maxLength", PK_TAKES_COUNT, FOR_STRING, apply_max_length },
    { "pattern", PK_TAKES_PATTERN, FOR_STRING, apply_pattern },
    { "minItems", PK_TAKES_COUNT, FOR_ARRAY, apply_min_items },
    { "maxItems", PK_TAKES_COUNT, FOR_ARRAY, apply_max_items },
    { "uniqueItems", PK_TAKES_BOOL, FOR_ARRAY, apply_unique },
    { "prefixItems", PK_TAKES_SCHEMAS, FOR_ARRAY, apply_prefix_items },
    { "items", PK_TAKES_SCHEMA, FOR_ARRAY, apply_items },
    { "contains", PK_TAKES_SCHEMA, FOR_ARRAY, apply_contains },
    { "minContains", PK_TAKES_COUNT, FOR_ARRAY, NULL },
    { "maxContains", PK_TAKES_COUNT, FOR_ARRAY, NULL },
    { "required", PK_TAKES_NAMES, FOR_OBJECT, apply_required },
    { "minProperties", PK_TAKES_COUNT, FOR_OBJECT, apply_min_properties },
    { "maxProperties", PK_TAKES_COUNT, FOR_OBJECT, apply_max_properties },
    { "properties", PK_TAKES_SCHEMA_MAP, FOR_OBJECT, apply_properties },
    { "patternProperties", PK_TAKES_SCHEMA_MAP, FOR_OBJECT, apply_pattern_properties },
    { "additionalProperties", PK_TAKES_SCHEMA, FOR_OBJECT, apply_additional },
    { "propertyNames", PK_TAKES_SCHEMA, FOR_OBJECT, apply_property_names },
    { "dependentRequired", PK_TAKES_NAME_MAP, FOR_OBJECT, apply_dependent_required },
    { "dependentSchemas", PK_TAKES_SCHEMA_MAP, FOR_OBJECT, apply_dependent_schemas },
    { "allOf", PK_TAKES_SCHEMAS, FOR_ANY, apply_all_of },
    { "anyOf", PK_TAKES_SCHEMAS, FOR_ANY, apply_any_of },
    { "oneOf", PK_TAKES_SCHEMAS, FOR_ANY, apply_one_of },
    { "not", PK_TAKES_SCHEMA, FOR_ANY, apply_not },
    { "if", PK_TAKES_SCHEMA, FOR_ANY, apply_if },
    { "then", PK_TAKES_SCHEMA, FOR_ANY, NULL },
    { "else", PK_TAKES_SCHEMA, FOR_ANY, NULL },
    { "$defs", PK_TAKES_SCHEMA_MAP, FOR_ANY, NULL },
    { "$schema", PK_TAKES_STRING, FOR_ANY, NULL },
    { "$id", PK_TAKES_STRING, FOR_ANY, NULL },
    { "$comment", PK_TAKES_STRING, FOR_ANY, NULL },
    { "title", PK_TAKES_STRING, FOR_ANY, NULL },
    { "description", PK_TAKES_STRING, FOR_ANY, NULL },
    { "format", PK_TAKES_STRING, FOR_ANY, NULL },
    { "default", PK_TAKES_ANY, FOR_ANY, NULL },
    { "examples", PK_TAKES_LIST, FOR_ANY, NULL },
    { "deprecated", PK_TAKES_BOOL, FOR_ANY, NULL },
    { "readOnly", PK_TAKES_BOOL, FOR_ANY, NULL },
    { "writeOnly", PK_TAKES_BOOL, FOR_ANY, NULL },
};
/* clang-format on */

enum pk_keyword_takes pk_jsonschema_takes(const char *keyword)
{
    for (size_t i = 0; i < PK_ARRAY_SIZE(keywords); i++)
        if (strcmp(keywords[i].name, keyword) == 0)
            return keywords[i].takes;
    return PK_TAKES_UNKNOWN;
}

static bool applies_to(const struct keyword *keyword, const json_t *value)
{
    switch (keyword->applies) {
    case FOR_OBJECT:
        return json_is_object(value);
    case FOR_ARRAY:
        return json_is_array(value);
    case FOR_STRING:
        return json_is_string(value);
    case FOR_NUMBER:
        return json_is_number(value);
    default:
        return true;
    }
}

static int validate(struct validator *v, const json_t *schema, const json_t *value)
{
    int all = 1;
    if (json_is_boolean(schema))
        return json_is_true(schema) ? 1 : fault(v, false, "remove it", "nothing is accepted here");
    if (++v->steps > STEPS_MAX || v->depth == PK_JSONSCHEMA_DEPTH)
        return pk_fail(v->err, PK_E_INVALID, "the value is too %s to be checked",
                       v->depth == PK_JSONSCHEMA_DEPTH ? "deep" : "large");
    const char *about = v->about, *own = json_string_value(json_object_get(schema, "description"));
    v->about = own != NULL ? own : about;
    v->depth++;
    for (size_t i = 0; i < PK_ARRAY_SIZE(keywords) && all >= 0; i++) {
        const struct keyword *keyword = &keywords[i];
        const json_t *operand =
            keyword->apply != NULL ? json_object_get(schema, keyword->name) : NULL;
        if (operand == NULL || !applies_to(keyword, value))
            continue;
        int r = keyword->apply(v, schema, operand, value);
        all = r < 0 ? r : (all & r);
        if (r == 0 && keyword->apply == apply_type)
            break; /* the wrong type alters the meaning of all the rest */
    }
    v->depth--;
    v->about = about;
    return all;
}

int pk_jsonschema_run(const json_t *schema, const json_t *value,
                      const struct pk_jsonschema_sink *sink, struct pk_error *err)
{
    struct validator v = { .root = schema, .sink = sink, .err = err };
    int r = validate(&v, schema, value);
    if (r == 0)
        pk_fail(err, PK_E_INVALID, "the value does not match the schema");
    return r < 0 ? r : r == 1 ? 0 : PK_E_INVALID;
}

struct plain_sink {
    void (*fault)(void *arg, const char *pointer, const char *message, const char *hint);
    void *arg;
};

static void plain_fault(void *arg, const char *pointer, bool at_key, const char *message,
                        const char *hint)
{
    const struct plain_sink *sink = arg;
    (void)at_key;
    if (sink->fault != NULL)
        sink->fault(sink->arg, pointer, message, hint);
}

int pk_jsonschema_validate(const json_t *schema, const json_t *value,
                           void (*on_fault)(void *arg, const char *pointer, const char *message,
                                            const char *hint),
                           void *arg, struct pk_error *err)
{
    struct plain_sink plain = { on_fault, arg };
    struct pk_jsonschema_sink sink = { plain_fault, &plain };
    return pk_jsonschema_run(schema, value, &sink, err);
}
