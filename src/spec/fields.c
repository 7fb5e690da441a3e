/* SPDX-License-Identifier: Apache-2.0 */
/* Reads a document by its table: one walk over table and tree side by side, which goes on after a
 * fault. */
#include "spec/fields.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/map.h"
#include "base/str.h"
#include "spec/pattern.h"
#include "spec/spec.h"

#define CHOICE_MAX 40u

const char *pk_field_key(const struct pk_field *field)
{
    const char *dot = strrchr(field->path, '.');
    return dot != NULL ? dot + 1 : field->path;
}

size_t pk_field_next_key(const struct pk_table *table, size_t parent, size_t index)
{
    const char *path = table->fields[parent].path;
    size_t len = strlen(path);
    for (size_t i = index + 1; i < table->count; i++) {
        const char *rest = table->fields[i].path;
        if (strncmp(rest, path, len) != 0)
            return table->count; /* a parent's rows are together */
        rest += len;
        if (len > 0 && *rest++ != '.')
            continue;
        if (strpbrk(rest, ".[") == NULL)
            return i;
    }
    return table->count;
}

const char *pk_field_choice(const struct pk_field *field, unsigned index, char *out, size_t size)
{
    const char *at = field->choices;
    while (at != NULL && index > 0) {
        at = strchr(at, '|');
        at = at != NULL ? at + 1 : NULL;
        index--;
    }
    if (at == NULL)
        return NULL;
    (void)snprintf(out, size, "%.*s", (int)strcspn(at, "|"), at);
    return out;
}

char *pk_quote(const char *text, char *out, size_t size)
{
    const size_t keep = size < 80 ? size : 80;
    size_t used = 0;
    out[used++] = '"';
    for (const unsigned char *p = (const unsigned char *)text; *p != '\0'; p++) {
        if (used + 9 > keep) {
            while (used > 1 && ((unsigned char)out[used - 1] & 0xc0) == 0x80)
                used--; /* cut a character that is not whole */
            if (used > 1 && ((unsigned char)out[used - 1] & 0xc0) == 0xc0)
                used--;
            memcpy(out + used, "...", 3);
            used += 3;
            break;
        }
        /* C1 controls are U+0080..9f: c2 80 .. c2 9f */
        bool c1 = p[0] == 0xc2 && p[1] >= 0x80 && p[1] <= 0x9f;
        if (*p < 0x20 || *p == 0x7f || c1) {
            used += (size_t)snprintf(out + used, size - used, "\\x%02x", c1 ? p[1] : *p);
            p += c1;
        } else {
            out[used++] = (char)*p;
        }
    }
    out[used++] = '"';
    out[used] = '\0';
    return out;
}

static char *shown_i64(const struct pk_field *field, int64_t value, char *out, size_t size)
{
    if (field->type == PK_FIELD_BYTES)
        return pk_format_bytes((uint64_t)value, out, size);
    if (field->type == PK_FIELD_DURATION)
        return pk_format_duration(value, out, size);
    (void)snprintf(out, size, "%" PRId64, value);
    return out;
}

static void add_range(const struct pk_field *field, char *out, size_t size)
{
    char low[48], high[48];
    size_t used = strlen(out);
    if (field->max != 0)
        (void)snprintf(out + used, size - used, " from %s to %s",
                       shown_i64(field, field->min, low, sizeof(low)),
                       shown_i64(field, field->max, high, sizeof(high)));
    else if (field->min != 0)
        (void)snprintf(out + used, size - used, " of at least %s",
                       shown_i64(field, field->min, low, sizeof(low)));
}

char *pk_field_expects(const struct pk_field *field, char *out, size_t size)
{
    char choice[CHOICE_MAX];
    switch (field->type) {
    case PK_FIELD_MAP:
    case PK_FIELD_OBJECT:
        (void)snprintf(out, size, "%sa map (keys and values)",
                       field->flags & PK_FIELD_OR_TEXT ? "text or " : "");
        break;
    case PK_FIELD_LIST:
        (void)snprintf(out, size, "a list");
        break;
    case PK_FIELD_STRING:
    case PK_FIELD_VLAN:
        (void)snprintf(out, size, "%s", field->what != NULL ? field->what : "text");
        break;
    case PK_FIELD_INT:
        (void)snprintf(out, size, "a whole number");
        add_range(field, out, size);
        for (unsigned i = 0; pk_field_choice(field, i, choice, sizeof(choice)) != NULL; i++) {
            size_t used = strlen(out);
            (void)snprintf(out + used, size - used, " or \"%s\"", choice);
        }
        break;
    case PK_FIELD_BOOL:
        (void)snprintf(out, size, "true or false");
        break;
    case PK_FIELD_BYTES:
        (void)snprintf(out, size, "a size in bytes (such as 512MiB)");
        add_range(field, out, size);
        break;
    case PK_FIELD_DURATION:
        (void)snprintf(out, size, "a span of time (such as 30d, 12h or 10s)");
        add_range(field, out, size);
        if (pk_field_choice(field, 0, choice, sizeof(choice)) != NULL) {
            size_t used = strlen(out);
            (void)snprintf(out + used, size - used, " or \"%s\"", choice);
        }
        break;
    case PK_FIELD_CHOICE: {
        size_t used = 0;
        for (unsigned i = 0; pk_field_choice(field, i, choice, sizeof(choice)) != NULL; i++)
            if (used < size)
                used +=
                    (size_t)snprintf(out + used, size - used, "%s%s", i > 0 ? " or " : "", choice);
        break;
    }
    }
    return out;
}

void pk_fault(struct pk_errors *errors, const struct pk_doc *doc, unsigned line, unsigned col,
              const char *hint, const char *fmt, ...)
{
    struct pk_error err = { .code = PK_E_INVALID };
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(err.msg, sizeof(err.msg), fmt, args);
    va_end(args);
    if (hint != NULL)
        (void)snprintf(err.hint, sizeof(err.hint), "%s", hint);
    pk_error_at(&err, pk_doc_name(doc), line, col);
    pk_errors_add(errors, &err);
}

void pk_errors_sort(struct pk_errors *errors)
{
    /* Insertion sort: at most PK_ERRORS_MAX, and it is stable. */
    for (size_t i = 1; i < errors->count; i++) {
        struct pk_error moved = errors->list[i];
        size_t j = i;
        for (; j > 0 &&
               (errors->list[j - 1].line > moved.line ||
                (errors->list[j - 1].line == moved.line && errors->list[j - 1].col > moved.col));
             j--)
            errors->list[j] = errors->list[j - 1];
        errors->list[j] = moved;
    }
}

/* ---- reading ---- */

struct reader {
    const struct pk_table *table;
    const struct pk_doc *doc;
    struct pk_errors *errors;
    struct pk_map **seen; /* per row with 'unique': value -> struct pk_node * */
    struct pending {
        size_t row;
        const struct pk_node *node;
        char where[160];
    } * references;
    size_t reference_count;
    bool faulty, no_memory;
};

/* The node's place in words of the file: "spec.taps[1].name". */
struct where {
    char text[160];
};

static struct where where_key(const struct where *where, const char *key)
{
    struct where inner;
    (void)snprintf(inner.text, sizeof(inner.text), "%.100s%s%.40s", where->text,
                   where->text[0] != '\0' ? "." : "", key);
    return inner;
}

static struct where where_item(const struct where *where, size_t index)
{
    struct where inner;
    (void)snprintf(inner.text, sizeof(inner.text), "%.130s[%zu]", where->text, index);
    return inner;
}

static void fault(struct reader *reader, const struct pk_node *node, const char *hint,
                  const char *fmt, ...) PK_PRINTF(4, 5);
static void fault(struct reader *reader, const struct pk_node *node, const char *hint,
                  const char *fmt, ...)
{
    char text[400];
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    reader->faulty = true;
    /* "taps:" with nothing after it: YAML's place of the nothing is the next line. */
    bool nothing = node->kind == PK_NODE_NULL && node->key != NULL;
    pk_fault(reader->errors, reader->doc, nothing ? node->key_line : node->line,
             nothing ? node->key_col : node->col, hint, "%s", text);
}

static void *slot(void *base, size_t at)
{
    return at == 0 ? NULL : (char *)base + at - 1;
}

static const char *found(const struct pk_node *node, char *out, size_t size)
{
    char quoted[100];
    if (node->kind == PK_NODE_LIST || node->kind == PK_NODE_MAP)
        (void)snprintf(out, size, "a %s", pk_node_kind_name(node->kind));
    else if (node->kind == PK_NODE_NULL)
        (void)snprintf(out, size, "nothing");
    else
        (void)snprintf(out, size, "%s", pk_quote(node->text, quoted, sizeof(quoted)));
    return out;
}

static void wrong_type(struct reader *reader, const struct pk_field *field,
                       const struct pk_node *node, const struct where *where)
{
    char expected[200], got[120], hint[256], quoted[100];
    const char *key = pk_field_key(field);
    bool item = strchr(key, '[') != NULL;
    bool scalar =
        node->kind == PK_NODE_INT || node->kind == PK_NODE_FLOAT || node->kind == PK_NODE_BOOL;
    if ((field->type == PK_FIELD_STRING || field->type == PK_FIELD_VLAN) && scalar)
        (void)snprintf(hint, sizeof(hint), "put it in quotes to make it text: %s",
                       pk_quote(node->text, quoted, sizeof(quoted)));
    else if (field->type == PK_FIELD_DURATION && node->kind == PK_NODE_INT)
        (void)snprintf(hint, sizeof(hint), "add a unit: %.30ss, %.30sm, %.30sh or %.30sd",
                       node->text, node->text, node->text, node->text);
    else if ((field->type == PK_FIELD_INT || field->type == PK_FIELD_BOOL) && node->quoted)
        (void)snprintf(hint, sizeof(hint), "write it without the quotes");
    else if (field->type == PK_FIELD_LIST)
        (void)snprintf(hint, sizeof(hint), "write \"- \" before each element, or [a, b]");
    else if (field->example != NULL)
        (void)snprintf(hint, sizeof(hint), "write for example: %s%s%s", item ? "- " : key,
                       item ? "" : ": ", field->example);
    else
        (void)snprintf(hint, sizeof(hint), "write its keys below it, indented by two spaces");
    fault(reader, node, hint, "%s: expected %s, found %s", where->text,
          pk_field_expects(field, expected, sizeof(expected)), found(node, got, sizeof(got)));
}

/* As a list of strings keeps it; NULL = it is not kept. The number is written one way only: 0x6e is
 * 110. */
static const char *element_text(const struct pk_field *field, const struct pk_node *node,
                                char *number, size_t size)
{
    if (node->kind == PK_NODE_STRING)
        return node->text;
    if (field->type != PK_FIELD_VLAN || node->kind != PK_NODE_INT)
        return NULL;
    (void)snprintf(number, size, "%" PRId64, node->integer);
    return number;
}

/* INT, VLAN, BYTES and DURATION after parsing. */
static bool in_range(struct reader *reader, const struct pk_field *field,
                     const struct pk_node *node, const struct where *where, int64_t value)
{
    bool low = value < field->min, high = field->max != 0 && value > field->max;
    if (!low && !high)
        return true;
    char quoted[100], limit[48], expected[200], hint[256];
    (void)snprintf(hint, sizeof(hint), "write %s",
                   pk_field_expects(field, expected, sizeof(expected)));
    fault(reader, node, hint, "%s: %s is %s than %s", where->text,
          pk_quote(node->text, quoted, sizeof(quoted)), low ? "less" : "more",
          shown_i64(field, low ? field->min : field->max, limit, sizeof(limit)));
    return false;
}

static bool read_number(struct reader *reader, const struct pk_field *field,
                        const struct pk_node *node, const struct where *where, int64_t *ret_value)
{
    struct pk_error err;
    bool text = node->kind == PK_NODE_STRING;
    int64_t value = node->integer;
    char names[4][CHOICE_MAX];
    const char *words[4];
    unsigned word_count = 0;
    bool has_words = field->type == PK_FIELD_INT || field->type == PK_FIELD_DURATION;
    while (has_words && text && word_count < PK_ARRAY_SIZE(words) &&
           pk_field_choice(field, word_count, names[word_count], CHOICE_MAX) != NULL) {
        words[word_count] = names[word_count];
        if (strcmp(node->text, names[word_count]) == 0) {
            *ret_value = PK_FIELD_WORD(word_count);
            return true;
        }
        word_count++;
    }
    if (field->type == PK_FIELD_BYTES && text) {
        uint64_t bytes;
        if (pk_parse_bytes(node->text, &bytes, &err) < 0 || bytes > INT64_MAX) {
            wrong_type(reader, field, node, where);
            return false;
        }
        value = (int64_t)bytes;
    } else if (field->type == PK_FIELD_DURATION && text) {
        if (pk_parse_duration(node->text, &value, &err) < 0) {
            wrong_type(reader, field, node, where);
            return false;
        }
    } else if (node->kind != PK_NODE_INT || field->type == PK_FIELD_DURATION) {
        const char *word = word_count > 0 ? pk_str_closest(node->text, words, word_count) : NULL;
        if (word != NULL) {
            char quoted[100], hint[120];
            (void)snprintf(hint, sizeof(hint), "did you mean \"%s\"?", word);
            fault(reader, node, hint, "%s: unknown word %s", where->text,
                  pk_quote(node->text, quoted, sizeof(quoted)));
        } else {
            wrong_type(reader, field, node, where);
        }
        return false;
    }
    *ret_value = value;
    return in_range(reader, field, node, where, value);
}

static bool read_choice(struct reader *reader, const struct pk_field *field,
                        const struct pk_node *node, const struct where *where, unsigned *ret_index)
{
    char names[16][CHOICE_MAX], quoted[100], expected[200], hint[256];
    const char *list[16];
    unsigned count = 0;
    for (; count < 16 && pk_field_choice(field, count, names[count], CHOICE_MAX) != NULL; count++) {
        list[count] = names[count];
        if (strcmp(names[count], node->text) == 0) {
            *ret_index = count;
            return true;
        }
    }
    const char *near = pk_str_closest(node->text, list, count);
    if (near != NULL)
        (void)snprintf(hint, sizeof(hint), "did you mean \"%s\"?", near);
    else
        (void)snprintf(hint, sizeof(hint), "write %s",
                       pk_field_expects(field, expected, sizeof(expected)));
    fault(reader, node, hint, "%s: %s is not %s", where->text,
          pk_quote(node->text, quoted, sizeof(quoted)),
          pk_field_expects(field, expected, sizeof(expected)));
    return false;
}

static bool read_string(struct reader *reader, const struct pk_field *field,
                        const struct pk_node *node, const struct where *where)
{
    size_t len = strlen(node->text);
    char quoted[100], expected[200], hint[256];
    bool match = true;
    struct pk_error err;
    if (field->pattern != NULL &&
        pk_pattern_match(field->pattern, node->text, len, &match, &err) < 0) {
        reader->no_memory = true; /* the table's patterns are right: a test compiles each */
        return false;
    }
    if (len >= (size_t)field->min && (field->max == 0 || len <= (size_t)field->max) && match)
        return true;
    if (field->max != 0 && len > (size_t)field->max)
        (void)snprintf(hint, sizeof(hint), "shorten it to %" PRId64 " characters", field->max);
    else
        (void)snprintf(hint, sizeof(hint), "write %s%s%s",
                       pk_field_expects(field, expected, sizeof(expected)),
                       field->example != NULL ? ", for example " : "",
                       field->example != NULL ? field->example : "");
    fault(reader, node, hint, "%s: %s is not %s", where->text,
          pk_quote(node->text, quoted, sizeof(quoted)),
          pk_field_expects(field, expected, sizeof(expected)));
    return false;
}

static void check_unique(struct reader *reader, size_t row, const struct pk_node *node,
                         const struct where *where)
{
    const struct pk_field *field = &reader->table->fields[row];
    if (reader->seen[row] == NULL)
        reader->seen[row] = pk_map_new(NULL);
    if (reader->seen[row] == NULL) {
        reader->no_memory = true;
        return;
    }
    char quoted[100], number[24];
    const char *value = node->text;
    if (node->kind == PK_NODE_INT) { /* 0x6e is 110 */
        (void)snprintf(number, sizeof(number), "%" PRId64, node->integer);
        value = number;
    }
    const struct pk_node *first = pk_map_get(reader->seen[row], value);
    if (first != NULL)
        fault(reader, node, field->unique_hint != NULL ? field->unique_hint : "choose another",
              "%s: %s is there already, on line %u", where->text,
              pk_quote(node->text, quoted, sizeof(quoted)), first->line);
    else if (pk_map_set_take(reader->seen[row], value, (void *)(uintptr_t)node) < 0)
        reader->no_memory = true;
}

static void note_reference(struct reader *reader, size_t row, const struct pk_node *node,
                           const struct where *where)
{
    struct pending *grown =
        pk_realloc_array(reader->references, reader->reference_count + 1, sizeof(*grown));
    if (grown == NULL) {
        reader->no_memory = true;
        return;
    }
    reader->references = grown;
    grown[reader->reference_count] = (struct pending){ .row = row, .node = node };
    memcpy(grown[reader->reference_count++].where, where->text, sizeof(where->text));
}

static void read_scalar(struct reader *reader, size_t row, const struct pk_node *node, void *base,
                        const struct where *where)
{
    const struct pk_field *field = &reader->table->fields[row];
    void *to = slot(base, field->at);
    int64_t value = 0;
    unsigned index = 0;
    bool is_text = node->kind == PK_NODE_STRING;
    if (((field->type == PK_FIELD_STRING || field->type == PK_FIELD_CHOICE) && !is_text) ||
        (field->type == PK_FIELD_VLAN && !is_text && node->kind != PK_NODE_INT) ||
        (field->type == PK_FIELD_BOOL && node->kind != PK_NODE_BOOL)) {
        wrong_type(reader, field, node, where);
        return;
    }
    switch (field->type) {
    case PK_FIELD_VLAN:
        if (node->kind == PK_NODE_INT && !in_range(reader, field, node, where, node->integer))
            return;
        if (is_text && !read_string(reader, field, node, where))
            return;
        break;
    case PK_FIELD_STRING:
        if (!read_string(reader, field, node, where))
            return;
        if (to != NULL && (*(char **)to = pk_strdup(node->text)) == NULL)
            reader->no_memory = true;
        break;
    case PK_FIELD_CHOICE:
        if (!read_choice(reader, field, node, where, &index))
            return;
        if (to != NULL)
            *(unsigned *)to = index;
        break;
    case PK_FIELD_BOOL:
        if (to != NULL)
            *(bool *)to = node->integer != 0;
        break;
    default:
        if (!read_number(reader, field, node, where, &value))
            return;
        if (to == NULL)
            break;
        if (field->type == PK_FIELD_INT)
            *(unsigned *)to = (unsigned)value;
        else
            *(int64_t *)to = value; /* uint64_t and pk_nsec are as wide, and it is not negative */
        break;
    }
    if (field->unique != NULL)
        check_unique(reader, row, node, where);
    if (field->refers != NULL)
        note_reference(reader, row, node, where);
}

static void read_node(struct reader *reader, size_t row, const struct pk_node *node,
                      const struct pk_node *around, void *base, const struct where *where);

static void unknown_key(struct reader *reader, size_t row, const struct pk_node *item,
                        const struct where *where)
{
    const struct pk_table *table = reader->table;
    const char *keys[32], *near;
    char hint[256] = "", quoted[100];
    size_t count = 0, used;
    for (size_t i = pk_field_next_key(table, row, row); i < table->count && count < 32;
         i = pk_field_next_key(table, row, i))
        keys[count++] = pk_field_key(&table->fields[i]);
    near = pk_str_closest(item->key, keys, count);
    if (near != NULL) {
        (void)snprintf(hint, sizeof(hint), "did you mean \"%s\"?", near);
    } else {
        for (size_t i = 1; i < table->count && hint[0] == '\0'; i++)
            if (strcmp(pk_field_key(&table->fields[i]), item->key) == 0)
                (void)snprintf(hint, sizeof(hint), "its place is %s", table->fields[i].path);
        if (hint[0] == '\0') {
            used = (size_t)snprintf(hint, sizeof(hint), "the keys here are:");
            for (size_t i = 0; i < count && used < sizeof(hint); i++)
                used += (size_t)snprintf(hint + used, sizeof(hint) - used, "%s %s",
                                         i > 0 ? "," : "", keys[i]);
        }
    }
    reader->faulty = true;
    pk_fault(reader->errors, reader->doc, item->key_line, item->key_col, hint,
             "unknown key %s in %s", pk_quote(item->key, quoted, sizeof(quoted)),
             where->text[0] != '\0' ? where->text : "the document");
}

static void read_map(struct reader *reader, size_t row, const struct pk_node *node, void *base,
                     const struct where *where)
{
    const struct pk_table *table = reader->table;
    const struct pk_node *one = NULL, *at = node;
    char alternatives[160] = "";
    for (size_t i = 0; node != NULL && i < node->count; i++) {
        size_t k = pk_field_next_key(table, row, row);
        while (k < table->count &&
               strcmp(pk_field_key(&table->fields[k]), node->items[i]->key) != 0)
            k = pk_field_next_key(table, row, k);
        if (k == table->count)
            unknown_key(reader, row, node->items[i], where);
    }
    for (size_t k = pk_field_next_key(table, row, row); k < table->count;
         k = pk_field_next_key(table, row, k)) {
        const struct pk_field *field = &table->fields[k];
        const char *key = pk_field_key(field);
        const struct pk_node *value = node != NULL ? pk_node_get(node, key) : NULL;
        struct where inner = where_key(where, key);
        char hint[256];
        if (field->flags & PK_FIELD_ONE_OF) {
            size_t used = strlen(alternatives);
            (void)snprintf(alternatives + used, sizeof(alternatives) - used, "%s%s",
                           used > 0 ? " or " : "", key);
            if (value != NULL && one != NULL) {
                (void)snprintf(hint, sizeof(hint), "remove \"%s\" or \"%s\"", one->key, key);
                reader->faulty = true;
                pk_fault(reader->errors, reader->doc, value->key_line, value->key_col, hint,
                         "%s: \"%s\" and \"%s\" exclude each other", where->text, one->key, key);
                continue;
            }
            one = value != NULL ? value : one;
            /* All absent: the defaults are those of the first alternative. */
            if (value == NULL && (node != NULL || strcmp(alternatives, key) != 0))
                continue;
        } else if (value == NULL && (field->flags & PK_FIELD_REQUIRED) && node != NULL) {
            const char *example = field->example;
            bool list = field->type == PK_FIELD_LIST && example == NULL;
            if (list)
                example = (field + 1)->example;
            (void)snprintf(hint, sizeof(hint), "add %s:%s%s%s%s", key, example != NULL ? " " : "",
                           list ? "[" : "", example != NULL ? example : "", list ? "]" : "");
            fault(reader, at, hint, "%s is missing", inner.text);
            continue;
        }
        read_node(reader, k, value, node, base, &inner);
    }
    if (alternatives[0] != '\0' && one == NULL && node != NULL) {
        char hint[256];
        (void)snprintf(hint, sizeof(hint), "add %s", alternatives);
        fault(reader, at, hint, "%s: %s is missing", where->text, alternatives);
    }
}

static void read_list(struct reader *reader, size_t row, const struct pk_node *node, void *base,
                      const struct where *where)
{
    const struct pk_field *field = &reader->table->fields[row], *element = field + 1;
    size_t count = node->count;
    char hint[256], example[120] = "";
    if (element->example != NULL)
        (void)snprintf(example, sizeof(example), ", for example: - %s", element->example);
    if (count < (size_t)field->min) {
        (void)snprintf(hint, sizeof(hint), "write at least %" PRId64 " element%s%s", field->min,
                       field->min == 1 ? "" : "s", example);
        fault(reader, node, hint, "%s: the list is too short (%zu)", where->text, count);
    }
    if (field->max != 0 && count > (size_t)field->max) {
        (void)snprintf(hint, sizeof(hint), "write at most %" PRId64, field->max);
        fault(reader, node, hint, "%s: too many elements (%zu)", where->text, count);
        count = (size_t)field->max;
    }
    struct pk_strv *strings = NULL;
    char *elements = NULL;
    if (field->elem_size > 0 && count > 0) {
        elements = pk_zalloc_array(count, field->elem_size);
        if (elements == NULL) {
            reader->no_memory = true;
            return;
        }
        *(void **)slot(base, field->at) = elements;
        *(size_t *)slot(base, field->at_count) = count;
    } else if (element->type == PK_FIELD_STRING || element->type == PK_FIELD_VLAN) {
        strings = slot(base, field->at);
    }
    for (size_t i = 0; i < count; i++) {
        struct where inner = where_item(where, i);
        const struct pk_node *item = node->items[i];
        read_node(reader, row + 1, item, node,
                  elements != NULL ? elements + i * field->elem_size : base, &inner);
        char number[24];
        const char *text = element_text(element, item, number, sizeof(number));
        if (strings != NULL && text != NULL && pk_strv_add(strings, text) < 0)
            reader->no_memory = true;
    }
}

static void read_default(struct reader *reader, size_t row, const struct pk_node *around,
                         void *base, const struct where *where)
{
    const struct pk_field *field = &reader->table->fields[row];
    char derived[128];
    struct pk_node node = { .kind = PK_NODE_STRING, .text = field->init };
    if (around != NULL) {
        node.line = around->line;
        node.col = around->col;
    }
    if (field->derive != NULL && around != NULL)
        node.text = field->derive(around, derived, sizeof(derived));
    if (field->type == PK_FIELD_MAP) {
        read_map(reader, row, NULL, base, where);
    } else if (field->type == PK_FIELD_LIST && field->elem_size == 0 &&
               (field + 1)->type == PK_FIELD_MAP) {
        read_map(reader, row + 1, NULL, base, where);
    } else if (field->type == PK_FIELD_OBJECT) {
        json_t **to = field->flags & PK_FIELD_OR_TEXT ? NULL : slot(base, field->at);
        if (to != NULL && (*to = json_object()) == NULL)
            reader->no_memory = true;
    } else if (node.text != NULL) {
        struct pk_error err;
        if (field->type == PK_FIELD_INT && pk_parse_i64(node.text, &node.integer, &err) == 0)
            node.kind = PK_NODE_INT;
        if (field->type == PK_FIELD_BOOL) {
            node.kind = PK_NODE_BOOL;
            node.integer = strcmp(node.text, "true") == 0;
        }
        /* A derived value is kept by nobody but the scalar's slot: 'seen' must not point at it. */
        if (field->derive != NULL && field->type == PK_FIELD_STRING) {
            char **to = slot(base, field->at);
            if (to != NULL && (*to = pk_strdup(node.text)) == NULL)
                reader->no_memory = true;
        } else {
            read_scalar(reader, row, &node, base, where);
        }
    }
}

static void read_node(struct reader *reader, size_t row, const struct pk_node *node,
                      const struct pk_node *around, void *base, const struct where *where)
{
    const struct pk_table *table = reader->table;
    const struct pk_field *field = &table->fields[row];
    /* Values are unique below this row: a new instance of it starts anew. */
    for (size_t i = row; i < table->count; i++)
        if (table->fields[i].unique != NULL && strcmp(table->fields[i].unique, field->path) == 0) {
            pk_map_free(reader->seen[i]);
            reader->seen[i] = NULL;
        }
    if (node != NULL && field->at_pos != 0)
        *(struct pk_pos *)slot(base, field->at_pos) = (struct pk_pos){ node->line, node->col };
    if (node == NULL) {
        read_default(reader, row, around, base, where);
        return;
    }
    if (field->at_node != 0)
        *(const struct pk_node **)slot(base, field->at_node) = node;
    switch (field->type) {
    case PK_FIELD_MAP:
        /* "store:" with nothing after it is an empty map. */
        if (node->kind == PK_NODE_MAP || node->kind == PK_NODE_NULL)
            read_map(reader, row, node, base, where);
        else
            wrong_type(reader, field, node, where);
        break;
    case PK_FIELD_LIST:
        if (node->kind == PK_NODE_LIST)
            read_list(reader, row, node, base, where);
        else
            wrong_type(reader, field, node, where);
        break;
    case PK_FIELD_OBJECT:
        if (node->kind == PK_NODE_MAP ||
            (node->kind == PK_NODE_STRING && (field->flags & PK_FIELD_OR_TEXT))) {
            json_t **to = slot(base, field->at);
            if (to != NULL && (*to = pk_node_to_json(node)) == NULL)
                reader->no_memory = true;
        } else if (node->kind == PK_NODE_NULL && !(field->flags & PK_FIELD_OR_TEXT)) {
            read_default(reader, row, around, base, where);
        } else {
            wrong_type(reader, field, node, where);
        }
        break;
    default:
        if (node->kind == PK_NODE_LIST || node->kind == PK_NODE_MAP || node->kind == PK_NODE_NULL)
            wrong_type(reader, field, node, where);
        else
            read_scalar(reader, row, node, base, where);
        break;
    }
}

static void check_references(struct reader *reader)
{
    const struct pk_table *table = reader->table;
    for (size_t i = 0; i < reader->reference_count; i++) {
        const struct pending *pending = &reader->references[i];
        const struct pk_field *field = &table->fields[pending->row];
        const struct pk_map *values = NULL;
        for (size_t k = 0; k < table->count; k++)
            if (strcmp(table->fields[k].path, field->refers) == 0)
                values = reader->seen[k];
        if (values != NULL && pk_map_get(values, pending->node->text) != NULL)
            continue;
        const char *names[64];
        void *unused;
        size_t count = values != NULL ? pk_map_count(values) : 0, kept = 0;
        char hint[256] = "", quoted[100];
        for (; kept < count && kept < 64; kept++)
            pk_map_at(values, kept, &names[kept], &unused);
        const char *near = pk_str_closest(pending->node->text, names, kept);
        if (near != NULL)
            (void)snprintf(hint, sizeof(hint), "did you mean \"%s\"?", near);
        else if (kept == 0)
            (void)snprintf(hint, sizeof(hint), "define it as a %s first", field->refers);
        else
            (void)snprintf(hint, sizeof(hint), "write one of:");
        for (size_t k = 0; near == NULL && k < kept; k++) {
            size_t used = strlen(hint);
            (void)snprintf(hint + used, sizeof(hint) - used, "%s %s", k > 0 ? "," : "", names[k]);
        }
        fault(reader, pending->node, hint, "%s: there is no %s in %.*s", pending->where,
              pk_quote(pending->node->text, quoted, sizeof(quoted)),
              (int)strcspn(field->refers, "["), field->refers);
    }
}

int pk_table_read(const struct pk_table *table, const struct pk_doc *doc, void *out,
                  struct pk_errors *errors)
{
    struct pk_errors local = { 0 };
    struct reader reader = { .table = table, .doc = doc, .errors = &local };
    reader.seen = pk_zalloc_array(table->count, sizeof(*reader.seen));
    if (reader.seen != NULL) {
        struct where top = { "" };
        const struct pk_node *root = pk_doc_root(doc);
        if (root->kind == PK_NODE_NULL) {
            char hint[160];
            (void)snprintf(hint, sizeof(hint), "begin with: apiVersion: %s", PK_API_VERSION);
            fault(&reader, root, hint, "the document is empty");
        } else if (root->kind != PK_NODE_MAP) {
            char hint[160];
            (void)snprintf(hint, sizeof(hint), "begin with: apiVersion: %s", PK_API_VERSION);
            fault(&reader, root, hint, "expected a %s (keys and values), found a %s", table->title,
                  pk_node_kind_name(root->kind));
        } else {
            read_node(&reader, 0, root, NULL, out, &top);
            check_references(&reader);
        }
        for (size_t i = 0; i < table->count; i++)
            pk_map_free(reader.seen[i]);
    }
    bool no_memory = reader.seen == NULL || reader.no_memory;
    pk_free(reader.seen);
    pk_free(reader.references);
    pk_errors_sort(&local);
    for (size_t i = 0; i < local.count; i++)
        pk_errors_add(errors, &local.list[i]);
    errors->dropped += local.dropped;
    pk_errors_done(&local);
    if (no_memory) {
        struct pk_error err;
        pk_fail(&err, PK_E_NOMEM, "%s: out of memory", pk_doc_name(doc));
        pk_errors_add(errors, &err);
        return PK_E_NOMEM;
    }
    return reader.faulty ? PK_E_INVALID : 0;
}

static void done_row(const struct pk_table *table, size_t row, void *base);

static void done_keys(const struct pk_table *table, size_t row, void *base)
{
    for (size_t k = pk_field_next_key(table, row, row); k < table->count;
         k = pk_field_next_key(table, row, k))
        done_row(table, k, base);
}

static void done_row(const struct pk_table *table, size_t row, void *base)
{
    const struct pk_field *field = &table->fields[row];
    void *to = slot(base, field->at);
    size_t *count = slot(base, field->at_count);
    if (field->type == PK_FIELD_MAP) {
        done_keys(table, row, base);
    } else if (field->type == PK_FIELD_LIST && field->elem_size == 0 &&
               (field + 1)->type == PK_FIELD_MAP) {
        done_keys(table, row + 1, base);
    } else if (to == NULL) {
        return; /* checked, not kept */
    } else if (field->type == PK_FIELD_LIST && field->elem_size > 0 && count != NULL) {
        char *elements = *(char **)to;
        for (size_t i = 0; i < *count; i++)
            done_keys(table, row + 1, elements + i * field->elem_size);
        pk_free(elements);
        *(void **)to = NULL;
        *count = 0;
    } else if (field->type == PK_FIELD_LIST) {
        pk_strv_done(to);
    } else if (field->type == PK_FIELD_STRING) {
        pk_free(*(char **)to);
        *(char **)to = NULL;
    } else if (field->type == PK_FIELD_OBJECT) {
        json_decref(*(json_t **)to);
        *(json_t **)to = NULL;
    }
}

void pk_table_done(const struct pk_table *table, void *out)
{
    done_row(table, 0, out);
}
