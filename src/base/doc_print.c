/* SPDX-License-Identifier: Apache-2.0 */
/* Plain scalars, both ways: how the reader understands them and where the printer must quote. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/doc_internal.h"
#include "base/str.h"

#define PRINT_MAX_BYTES ((size_t)256 << 20)
/* YAML 1.2.2, section 7.4.2: a key on one line with its value has at most 1024 characters. */
#define SIMPLE_KEY_MAX 1000

static bool one_of(const char *text, const char *const *words, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(text, words[i]) == 0)
            return true;
    return false;
}
#define ONE_OF(text, ...)                              \
    one_of(text, (const char *const[]){ __VA_ARGS__ }, \
           PK_ARRAY_SIZE(((const char *const[]){ __VA_ARGS__ })))

/* 0o17 and 0x1F. */
static bool read_radix(const char *text, int64_t *ret_value, bool *ret_matches)
{
    *ret_matches = false;
    bool hex = text[1] == 'x';
    if (text[0] != '0' || (text[1] != 'x' && text[1] != 'o') || text[2] == '\0')
        return false;
    const char *digits = "0123456789abcdef";
    unsigned shift = hex ? 4 : 3;
    int64_t value = 0;
    bool fits = true;
    for (const char *p = text + 2; *p != '\0'; p++) {
        char lower = *p >= 'A' && *p <= 'F' ? (char)(*p + 32) : *p;
        const char *digit = strchr(digits, lower);
        if (digit == NULL || digit - digits >= 1 << shift)
            return false;
        fits = fits && value <= INT64_MAX >> shift;
        if (fits)
            value = value << shift | (digit - digits);
    }
    *ret_matches = true;
    *ret_value = value;
    return fits;
}

static bool is_whole(const char *text)
{
    const char *p = text + (*text == '-' || *text == '+' ? 1 : 0);
    return *p != '\0' && strspn(p, "0123456789") == strlen(p);
}

/* [-+]? ( \. [0-9]+ | [0-9]+ ( \. [0-9]* )? ) ( [eE] [-+]? [0-9]+ )? */
static bool is_float(const char *text)
{
    static const char digits[] = "0123456789";
    const char *p = text + (*text == '-' || *text == '+' ? 1 : 0);
    size_t whole = strspn(p, digits), fraction = 0;
    p += whole;
    if (*p == '.') {
        fraction = strspn(++p, digits);
        p += fraction;
    }
    if (whole + fraction == 0)
        return false;
    if (*p == 'e' || *p == 'E') {
        p += p[1] == '-' || p[1] == '+' ? 2 : 1;
        size_t exponent = strspn(p, digits);
        if (exponent == 0)
            return false;
        p += exponent;
    }
    return *p == '\0';
}

bool pk_doc_resolve_plain(struct pk_node *node)
{
    const char *text = node->text;
    bool truth = ONE_OF(text, "true", "True", "TRUE");
    bool radix = false;
    if (ONE_OF(text, "", "~", "null", "Null", "NULL")) {
        node->kind = PK_NODE_NULL;
    } else if (truth || ONE_OF(text, "false", "False", "FALSE")) {
        node->kind = PK_NODE_BOOL;
        node->integer = truth ? 1 : 0;
    } else if (is_whole(text)) {
        if (pk_parse_i64(text, &node->integer, NULL) < 0)
            return false;
        node->kind = PK_NODE_INT;
        node->number = (double)node->integer;
    } else if (read_radix(text, &node->integer, &radix)) {
        node->kind = PK_NODE_INT;
        node->number = (double)node->integer;
    } else if (radix) {
        return false;
    } else if (is_float(text)) {
        if (pk_parse_double(text, &node->number, NULL) < 0)
            return false;
        node->kind = PK_NODE_FLOAT;
    } else {
        const char *p = text + (*text == '-' || *text == '+' ? 1 : 0);
        if (ONE_OF(p, ".inf", ".Inf", ".INF") || ONE_OF(text, ".nan", ".NaN", ".NAN"))
            return false;
        node->kind = PK_NODE_STRING;
    }
    return true;
}

/* ---- printing ---- */

static bool is_plain_safe(const char *text, size_t len)
{
    struct pk_node probe = { .text = text };
    if (len == 0 || strlen(text) != len || !pk_doc_resolve_plain(&probe) ||
        probe.kind != PK_NODE_STRING)
        return false;
    /* Other YAML tools, of version 1.1, take these for booleans. */
    if (ONE_OF(text, "y", "Y", "n", "N", "yes", "Yes", "YES", "no", "No", "NO", "on", "On", "ON",
               "off", "Off", "OFF"))
        return false;
    bool indicator = strchr(",[]{}#&*!|>'\"%@`", text[0]) != NULL;
    bool maybe = strchr("-?:", text[0]) != NULL; /* an indicator only before a blank */
    if (indicator || text[0] == ' ' || text[len - 1] == ' ' || text[len - 1] == ':' ||
        (maybe && (len == 1 || text[1] == ' ')) || strncmp(text, "---", 3) == 0 ||
        strncmp(text, "...", 3) == 0)
        return false;
    if (strstr(text, ": ") != NULL || strstr(text, " #") != NULL)
        return false;
    for (const char *p = text; *p != '\0';
         p++) /* beyond ASCII there are line ends and blanks too */
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            return false;
    const char *end = text + len;
    for (const char *p = text; p < end;) {
        uint32_t c = pk_utf8_next(&p, end);
        if ((c >= 0x80 && c < 0xa0) || c == 0x2028 || c == 0x2029 || c == 0xfeff || c == 0xfffd ||
            (c & 0xfffe) == 0xfffe)
            return false;
    }
    return true;
}

static void put_quoted(struct pk_buf *out, const char *text, size_t len)
{
    (void)pk_buf_putc(out, '"');
    const char *end = text + len;
    for (const char *p = text; p < end;) {
        const char *start = p;
        uint32_t c = pk_utf8_next(&p, end);
        if (c == '"' || c == '\\')
            (void)pk_buf_printf(out, "\\%c", (int)c);
        else if (c == '\n')
            (void)pk_buf_puts(out, "\\n");
        else if (c == '\t')
            (void)pk_buf_puts(out, "\\t");
        else if (c < 0x20 || c == 0x7f)
            (void)pk_buf_printf(out, "\\x%02x", c);
        else if ((c >= 0x80 && c < 0xa0) || c == 0x2028 || c == 0x2029 || c == 0xfeff ||
                 (c <= 0xffff && c >= 0xfffd))
            (void)pk_buf_printf(out, "\\u%04x", c);
        else if ((c & 0xfffe) == 0xfffe)
            (void)pk_buf_printf(out, "\\U%08x", c);
        else
            (void)pk_buf_add(out, start, (size_t)(p - start));
    }
    (void)pk_buf_putc(out, '"');
}

/* Several lines read best as a literal block, where nothing in them needs an escape: printable
 * ASCII and accents, no line of blanks only, at most one line feed at the end. */
static bool is_literal_safe(const char *text, size_t len)
{
    if (memchr(text, '\n', len) == NULL || strlen(text) != len)
        return false;
    bool line_start = true;
    for (const char *p = text, *end = text + len; p < end;) {
        uint32_t c = pk_utf8_next(&p, end);
        if (line_start && (c == ' ' || c == '\t' || c == '\n' || c == '#'))
            return false;
        line_start = c == '\n';
        if ((c < 0x20 && c != '\n') || (c >= 0x7f && c < 0xa0) || c >= 0x2000)
            return false;
    }
    return true;
}

static void put_indent(struct pk_buf *out, unsigned depth)
{
    for (unsigned i = 0; i < depth; i++)
        (void)pk_buf_puts(out, "  ");
}

static void put_literal(struct pk_buf *out, const char *text, size_t len, unsigned depth)
{
    bool ends = text[len - 1] == '\n';
    (void)pk_buf_puts(out, ends ? "|\n" : "|-\n");
    for (const char *p = text; *p != '\0';) {
        size_t line = strcspn(p, "\n");
        put_indent(out, depth);
        (void)pk_buf_add(out, p, line);
        p += line;
        if (*p == '\n')
            p++;
        if (*p != '\0')
            (void)pk_buf_putc(out, '\n');
    }
}

/* The shortest decimal form that reads back as the same double, and as a float. */
static void put_real(struct pk_buf *out, double value)
{
    char text[40];
    for (int digits = 15; digits <= 17; digits++) {
        double again;
        (void)snprintf(text, sizeof(text), "%.*g", digits, value);
        if (pk_parse_double(text, &again, NULL) == 0 && memcmp(&again, &value, sizeof(value)) == 0)
            break;
    }
    (void)pk_buf_puts(out, text);
    if (strpbrk(text, ".e") == NULL)
        (void)pk_buf_puts(out, ".0");
}

static void put_text(struct pk_buf *out, const char *text, size_t len)
{
    if (is_plain_safe(text, len))
        (void)pk_buf_add(out, text, len);
    else
        put_quoted(out, text, len);
}

static void put_scalar(struct pk_buf *out, const json_t *json, unsigned depth)
{
    const char *text;
    size_t len;
    switch (json_typeof(json)) {
    case JSON_STRING:
        text = json_string_value(json);
        len = json_string_length(json);
        if (is_literal_safe(text, len))
            put_literal(out, text, len, PK_MAX(depth, 1u));
        else
            put_text(out, text, len);
        return;
    case JSON_INTEGER:
        (void)pk_buf_printf(out, "%lld", (long long)json_integer_value(json));
        return;
    case JSON_REAL:
        put_real(out, json_real_value(json));
        return;
    case JSON_ARRAY:
        (void)pk_buf_puts(out, "[]");
        return;
    case JSON_OBJECT:
        (void)pk_buf_puts(out, "{}");
        return;
    default:
        (void)pk_buf_puts(out, json_is_true(json)    ? "true"
                               : json_is_false(json) ? "false"
                                                     : "null");
        return;
    }
}

static void put_value(struct pk_buf *out, const json_t *json, unsigned depth);

static void put_list(struct pk_buf *out, const json_t *list, unsigned depth)
{
    size_t i;
    json_t *item;
    json_array_foreach(list, i, item)
    {
        if (i > 0)
            put_indent(out, depth);
        (void)pk_buf_puts(out, "- ");
        put_value(out, item, depth + 1);
    }
}

static void put_map(struct pk_buf *out, const json_t *map, unsigned depth)
{
    bool first = true;
    const char *key;
    json_t *value;
    /* Iterating does not change the map: jansson's macro wants it without const. */
    json_object_foreach((json_t *)(uintptr_t)map, key, value)
    {
        if (!first)
            put_indent(out, depth);
        first = false;
        size_t len = strlen(key);
        if (len > SIMPLE_KEY_MAX) {
            (void)pk_buf_puts(out, "? ");
            put_quoted(out, key, len);
            (void)pk_buf_putc(out, '\n');
            put_indent(out, depth);
        } else {
            put_text(out, key, len);
        }
        (void)pk_buf_putc(out, ':');
        bool block = json_array_size(value) > 0 || json_object_size(value) > 0;
        (void)pk_buf_putc(out, block ? '\n' : ' ');
        if (block)
            put_indent(out, depth + 1);
        put_value(out, value, depth + 1);
    }
}

/* The cursor stands where the value begins; depth is the indentation of its further lines. */
static void put_value(struct pk_buf *out, const json_t *json, unsigned depth)
{
    if (out->failed)
        return;
    if (json_array_size(json) > 0) {
        put_list(out, json, depth);
    } else if (json_object_size(json) > 0) {
        put_map(out, json, depth);
    } else {
        put_scalar(out, json, depth);
        (void)pk_buf_putc(out, '\n');
    }
}

char *pk_yaml_of_json(const json_t *json)
{
    struct pk_buf out = PK_BUF_INIT(PRINT_MAX_BYTES);
    put_value(&out, json, 0);
    return pk_buf_take(&out);
}
