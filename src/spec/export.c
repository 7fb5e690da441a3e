/* SPDX-License-Identifier: Apache-2.0 */
/* What is made from a table: the canonical document, JSON Schema, the reference, the example. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/str.h"
#include "spec/fields.h"

#define TEXT_MAX (1u << 20)

/* ---- canonical document ---- */

static json_t *scalar_json(const struct pk_field *field, const struct pk_node *node)
{
    char text[64];
    uint64_t bytes;
    pk_nsec span;
    switch (field->type) {
    case PK_FIELD_BYTES:
        if (node->kind == PK_NODE_INT)
            bytes = (uint64_t)node->integer;
        else if (pk_parse_bytes(node->text, &bytes, NULL) < 0)
            return NULL;
        return json_string(pk_format_bytes(bytes, text, sizeof(text)));
    case PK_FIELD_DURATION:
        if (field->choices != NULL && strcmp(node->text, field->choices) == 0)
            return json_string(node->text);
        if (pk_parse_duration(node->text, &span, NULL) < 0)
            return NULL;
        return json_string(pk_format_duration(span, text, sizeof(text)));
    case PK_FIELD_VLAN: /* "110" is 110 */
        if (node->kind == PK_NODE_STRING && pk_parse_i64(node->text, &span, NULL) == 0)
            return json_integer(span);
        return node->kind == PK_NODE_INT ? json_integer(node->integer) : json_string(node->text);
    case PK_FIELD_INT:
        return node->kind == PK_NODE_INT ? json_integer(node->integer) : json_string(node->text);
    case PK_FIELD_BOOL:
        return json_boolean(node->integer != 0);
    default:
        return json_string(node->text);
    }
}

static json_t *default_json(const struct pk_field *field, const struct pk_node *around)
{
    char derived[128];
    struct pk_node node = { .kind = PK_NODE_STRING, .text = field->init };
    if (field->type == PK_FIELD_OBJECT)
        return json_object();
    if (field->derive != NULL && around != NULL)
        node.text = field->derive(around, derived, sizeof(derived));
    if (field->type == PK_FIELD_INT && pk_parse_i64(node.text, &node.integer, NULL) == 0)
        node.kind = PK_NODE_INT;
    if (field->type == PK_FIELD_BOOL)
        node.integer = pk_str_equal(node.text, "true");
    return scalar_json(field, &node);
}

static bool has_default(const struct pk_field *field)
{
    return field->init != NULL || field->derive != NULL ||
           (field->type == PK_FIELD_OBJECT && !(field->flags & PK_FIELD_OR_TEXT));
}

static bool is_inline_list(const struct pk_field *field)
{
    return field->type == PK_FIELD_LIST && field->elem_size == 0 &&
           (field + 1)->type == PK_FIELD_MAP;
}

static json_t *row_json(const struct pk_table *table, size_t row, const struct pk_node *node,
                        bool with_defaults);

/* node may be NULL: all defaults; the result may be empty. */
static json_t *map_json(const struct pk_table *table, size_t row, const struct pk_node *node,
                        bool with_defaults)
{
    json_t *map = json_object();
    bool chosen = node != NULL; /* of keys that exclude each other, the first is the default */
    for (size_t k = pk_field_next_key(table, row, row); k < table->count && map != NULL;
         k = pk_field_next_key(table, row, k)) {
        const struct pk_field *field = &table->fields[k];
        const char *key = pk_field_key(field);
        const struct pk_node *value = node != NULL ? pk_node_get(node, key) : NULL;
        json_t *json = NULL;
        if (value != NULL) {
            json = row_json(table, k, value, with_defaults);
        } else if (!with_defaults || ((field->flags & PK_FIELD_ONE_OF) && chosen)) {
            continue;
        } else if (field->type == PK_FIELD_MAP) {
            json = map_json(table, k, NULL, true);
            if (json != NULL && json_object_size(json) == 0) { /* none of its keys has one */
                json_decref(json);
                continue;
            }
        } else if (is_inline_list(field)) {
            json_t *element = map_json(table, k + 1, NULL, true);
            json = json_array();
            if (json_array_append_new(json, element) < 0) {
                json_decref(json);
                json = NULL;
            }
        } else if (has_default(field)) {
            json = default_json(field, node);
        } else {
            continue;
        }
        chosen = chosen || (field->flags & PK_FIELD_ONE_OF);
        if (json_object_set_new(map, key, json) < 0) {
            json_decref(map);
            map = NULL;
        }
    }
    return map;
}

static json_t *row_json(const struct pk_table *table, size_t row, const struct pk_node *node,
                        bool with_defaults)
{
    const struct pk_field *field = &table->fields[row];
    if (field->type == PK_FIELD_MAP)
        return map_json(table, row, node, with_defaults);
    if (field->type == PK_FIELD_OBJECT)
        return node->kind == PK_NODE_NULL ? json_object() : pk_node_to_json(node);
    if (field->type != PK_FIELD_LIST)
        return scalar_json(field, node);
    json_t *list = json_array();
    for (size_t i = 0; i < node->count && list != NULL; i++)
        if (json_array_append_new(list, row_json(table, row + 1, node->items[i], with_defaults)) <
            0) {
            json_decref(list);
            list = NULL;
        }
    return list;
}

json_t *pk_table_to_json(const struct pk_table *table, const struct pk_node *root,
                         bool with_defaults)
{
    return map_json(table, 0, root, with_defaults);
}

/* ---- JSON Schema ---- */

static int set(json_t *object, const char *key, json_t *value)
{
    return json_object_set_new(object, key, value);
}

static json_t *row_schema(const struct pk_table *table, size_t row);

static json_t *choice_list(const struct pk_field *field)
{
    char choice[64];
    json_t *list = json_array();
    for (unsigned i = 0; pk_field_choice(field, i, choice, sizeof(choice)) != NULL; i++)
        (void)json_array_append_new(list, json_string(choice));
    return list;
}

static void map_schema(const struct pk_table *table, size_t row, json_t *schema)
{
    json_t *properties = json_object(), *required = json_array(), *one_of = json_array();
    for (size_t k = pk_field_next_key(table, row, row); k < table->count;
         k = pk_field_next_key(table, row, k)) {
        const struct pk_field *field = &table->fields[k];
        const char *key = pk_field_key(field);
        (void)set(properties, key, row_schema(table, k));
        if (field->flags & PK_FIELD_REQUIRED)
            (void)json_array_append_new(required, json_string(key));
        if (field->flags & PK_FIELD_ONE_OF)
            (void)json_array_append_new(one_of, json_pack("{s:[s]}", "required", key));
    }
    /* A map without obligatory keys may be left empty: "store:". */
    bool may_be_null = json_array_size(required) == 0 && json_array_size(one_of) == 0;
    (void)set(schema, "type",
              may_be_null ? json_pack("[ss]", "object", "null") : json_string("object"));
    (void)set(schema, "properties", properties);
    if (json_array_size(required) > 0)
        (void)json_object_set(schema, "required", required);
    if (json_array_size(one_of) > 0)
        (void)json_object_set(schema, "oneOf", one_of);
    (void)set(schema, "additionalProperties", json_false());
    json_decref(required);
    json_decref(one_of);
}

static void limits(const struct pk_field *field, json_t *schema, const char *low, const char *high)
{
    if (field->min != 0 || field->max != 0)
        (void)set(schema, low, json_integer(field->min));
    if (field->max != 0)
        (void)set(schema, high, json_integer(field->max));
}

static json_t *row_schema(const struct pk_table *table, size_t row)
{
    const struct pk_field *field = &table->fields[row];
    json_t *schema = json_object();
    (void)set(schema, "description", json_string(field->help));
    switch (field->type) {
    case PK_FIELD_MAP:
        map_schema(table, row, schema);
        break;
    case PK_FIELD_LIST:
        (void)set(schema, "type", json_string("array"));
        limits(field, schema, "minItems", "maxItems");
        if ((field + 1)->unique != NULL)
            (void)set(schema, "uniqueItems", json_true());
        (void)set(schema, "items", row_schema(table, row + 1));
        break;
    case PK_FIELD_STRING:
        (void)set(schema, "type", json_string("string"));
        limits(field, schema, "minLength", "maxLength");
        if (field->pattern != NULL)
            (void)set(schema, "pattern", json_string(field->pattern));
        break;
    case PK_FIELD_INT:
        if (field->choices != NULL) { /* a word, or a number */
            char word[40];
            json_t *list = json_array();
            for (unsigned i = 0; pk_field_choice(field, i, word, sizeof(word)) != NULL; i++)
                (void)json_array_append_new(list, json_pack("{s:s}", "const", word));
            json_t *number = json_pack("{s:s}", "type", "integer");
            limits(field, number, "minimum", "maximum");
            (void)json_array_append_new(list, number);
            (void)set(schema, "anyOf", list);
        } else {
            (void)set(schema, "type", json_string("integer"));
            limits(field, schema, "minimum", "maximum");
        }
        break;
    case PK_FIELD_VLAN: {
        json_t *number = json_pack("{s:s}", "type", "integer");
        limits(field, number, "minimum", "maximum");
        (void)set(schema, "anyOf",
                  json_pack("[o,{s:s,s:s}]", number, "type", "string", "pattern", field->pattern));
        break;
    }
    case PK_FIELD_BOOL:
        (void)set(schema, "type", json_string("boolean"));
        break;
    case PK_FIELD_BYTES:
        (void)set(schema, "type", json_pack("[ss]", "integer", "string"));
        limits(field, schema, "minimum", "maximum");
        (void)set(schema, "pattern", json_string("^[0-9]+(\\.[0-9]+)?([KMGTPE]i?)?B?$"));
        break;
    case PK_FIELD_DURATION:
        (void)set(schema, "type", json_string("string"));
        if (field->choices == NULL) {
            (void)set(schema, "pattern",
                      json_string("^([0-9]+(\\.[0-9]+)?(ns|us|ms|s|m|h|d|w))+$"));
        } else { /* or a word */
            PK_CLEANUP(pk_free_p)
            char *pattern =
                pk_asprintf("^(%s|([0-9]+(\\.[0-9]+)?(ns|us|ms|s|m|h|d|w))+)$", field->choices);
            (void)set(schema, "pattern", pattern != NULL ? json_string(pattern) : NULL);
        }
        break;
    case PK_FIELD_CHOICE:
        (void)set(schema, "enum", choice_list(field));
        break;
    case PK_FIELD_OBJECT:
        (void)set(schema, "type",
                  json_pack("[ss]", "object", field->flags & PK_FIELD_OR_TEXT ? "string" : "null"));
        break;
    }
    if (field->init != NULL && field->type != PK_FIELD_MAP)
        (void)set(schema, "default", default_json(field, NULL));
    return schema;
}

json_t *pk_table_json_schema(const struct pk_table *table)
{
    json_t *schema = json_object(), *body = row_schema(table, 0);
    (void)set(schema, "$schema", json_string("https://json-schema.org/draft/2020-12/schema"));
    (void)set(schema, "$id", json_string(table->schema_id));
    (void)set(schema, "title", json_string(table->title));
    if (schema == NULL || body == NULL || json_object_update(schema, body) < 0) {
        json_decref(schema);
        schema = NULL;
    }
    json_decref(body);
    return schema;
}

/* ---- reference page ---- */

static void default_text(const struct pk_field *field, struct pk_buf *out)
{
    if (field->flags & PK_FIELD_REQUIRED)
        pk_buf_puts(out, "required");
    else if (field->flags & PK_FIELD_ONE_OF)
        pk_buf_puts(out, "one of these");
    else if (field->derived != NULL)
        pk_buf_puts(out, field->derived);
    else if (field->init != NULL)
        pk_buf_printf(out, "`%s`", field->init);
}

/* A cell of a Markdown table. */
static void cell(struct pk_buf *out, const char *text)
{
    for (; *text != '\0'; text++) {
        if (*text == '|')
            pk_buf_putc(out, '\\');
        pk_buf_putc(out, *text);
    }
}

char *pk_table_reference(const struct pk_table *table)
{
    struct pk_buf out = PK_BUF_INIT(TEXT_MAX);
    char expected[256];
    pk_buf_puts(&out, "| key | value | default | meaning |\n|---|---|---|---|\n");
    for (size_t i = 1; i < table->count; i++) {
        const struct pk_field *field = &table->fields[i];
        size_t len = strlen(field->path);
        if (len > 2 && strcmp(field->path + len - 2, "[]") == 0 && field->type == PK_FIELD_STRING)
            continue; /* told by its list */
        pk_buf_printf(&out, "| `%s` | ", field->path);
        cell(&out, pk_field_expects(field, expected, sizeof(expected)));
        if (field->type == PK_FIELD_LIST) {
            char count[64] = "";
            if (field->max != 0)
                (void)snprintf(count, sizeof(count), " of %" PRId64 " to %" PRId64, field->min,
                               field->max);
            cell(&out, count);
        }
        pk_buf_puts(&out, " | ");
        default_text(field, &out);
        pk_buf_puts(&out, " | ");
        cell(&out, field->help);
        pk_buf_puts(&out, " |\n");
    }
    return pk_buf_take(&out);
}

/* ---- example ---- */

struct example {
    const struct pk_table *table;
    struct pk_buf out;
};

/* commented: 0, or the depth at which the comment sign stands. */
static void indent(struct example *example, unsigned depth, unsigned commented)
{
    for (unsigned i = 0; i < depth; i++)
        pk_buf_puts(&example->out, commented != 0 && i == commented ? "#   " : "  ");
    if (commented != 0 && commented == depth)
        pk_buf_puts(&example->out, "# ");
}

/* Writes the keys of a map row. dash: the first key is on the line of its element's dash. Of keys
 * that exclude each other the first is written, the others only as comments. */
static void example_keys(struct example *example, size_t row, unsigned depth, bool dash,
                         unsigned commented)
{
    const struct pk_table *table = example->table;
    bool chosen = false;
    for (size_t k = pk_field_next_key(table, row, row); k < table->count;
         k = pk_field_next_key(table, row, k)) {
        const struct pk_field *field = &table->fields[k];
        bool instead = commented == 0 && (field->flags & PK_FIELD_ONE_OF) && chosen;
        unsigned at = dash ? depth - 1 : depth, sign = instead ? at : commented;
        chosen = chosen || (field->flags & PK_FIELD_ONE_OF);
        indent(example, at, commented);
        pk_buf_printf(&example->out, "# %s%s\n", field->help,
                      instead ? " Instead of the above:" : "");
        indent(example, at, sign);
        pk_buf_printf(&example->out, "%s%s:", dash ? "- " : "", pk_field_key(field));
        dash = false;
        bool list = field->type == PK_FIELD_LIST && (field + 1)->type == PK_FIELD_MAP;
        if (!list && field->type != PK_FIELD_MAP) {
            pk_buf_printf(&example->out, " %s\n", field->example != NULL ? field->example : "[]");
            continue;
        }
        pk_buf_putc(&example->out, '\n');
        example_keys(example, list ? k + 1 : k, list ? depth + 2 : depth + 1, list, sign);
    }
}

char *pk_table_example(const struct pk_table *table)
{
    struct example example = { .table = table, .out = PK_BUF_INIT(TEXT_MAX) };
    example_keys(&example, 0, 0, false, 0);
    return pk_buf_take(&example.out);
}
