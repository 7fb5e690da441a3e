/* SPDX-License-Identifier: Apache-2.0 */
#include "store/query.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/alloc.h"
#include "base/str.h"
#include "base/time.h"

#define WHERE_MAX (256u << 10)

enum op { OP_IS, OP_GE, OP_LE, OP_GT, OP_LT };

struct parser {
    const char *text, *at;
    pk_nsec now;
    unsigned depth;
    struct pk_query *query;
    struct pk_buf where;
    struct pk_error *err;
};

struct value {
    char *text; /* with \ before a literal * or \ when it came from a phrase */
    size_t len;
    size_t col;
};

static int parse_or(struct parser *p);

static int fail_at(struct parser *p, const char *at, const char *hint, const char *fmt, ...)
    PK_PRINTF(4, 5);

static int fail_at(struct parser *p, const char *at, const char *hint, const char *fmt, ...)
{
    char message[300];
    va_list args;

    va_start(args, fmt);
    (void)vsnprintf(message, sizeof(message), fmt, args);
    va_end(args);
    (void)pk_fail(p->err, PK_E_USAGE, "%s", message);
    pk_error_at(p->err, "query", 1, (unsigned)(at - p->text) + 1);
    return pk_hint(p->err, "%s", hint);
}

static int nomem(struct parser *p)
{
    return pk_fail(p->err, PK_E_NOMEM, "out of memory");
}

/* ---- parameters ---- */

static int param_add(struct pk_query *query, const struct pk_param *param, size_t *ret_index,
                     struct pk_error *err)
{
    if (query->param_count >= PK_QUERY_PARAM_MAX) {
        (void)pk_fail(err, PK_E_USAGE, "the query has too many terms");
        return pk_hint(err, "use at most %u terms", PK_QUERY_PARAM_MAX / 2);
    }
    struct pk_param *grown =
        pk_realloc_array(query->params, query->param_count + 1, sizeof(*query->params));
    if (grown == NULL)
        return pk_no_memory(err);
    query->params = grown;
    grown[query->param_count++] = *param;
    *ret_index = query->param_count;
    return 0;
}

int pk_query_param_number(struct pk_query *query, int64_t number, size_t *ret_index,
                          struct pk_error *err)
{
    return param_add(query, &(struct pk_param){ .number = number }, ret_index, err);
}

static int param_text(struct parser *p, const char *text, size_t len, size_t *ret_index)
{
    struct pk_param param = { .is_text = true, .text = pk_memdup(text, len), .len = len };

    if (param.text == NULL)
        return nomem(p);
    int r = param_add(p->query, &param, ret_index, p->err);
    if (r < 0)
        pk_free(param.text);
    return r;
}

void pk_query_done(struct pk_query *query)
{
    for (size_t i = 0; i < query->param_count; i++)
        pk_free(query->params[i].text);
    pk_free(query->params);
    pk_free(query->where);
    *query = (struct pk_query){ 0 };
}

/* ---- words ---- */

static void skip_space(struct parser *p)
{
    while (*p->at == ' ' || *p->at == '\t' || *p->at == '\n' || *p->at == '\r')
        p->at++;
}

static bool is_end(char c)
{
    return c == '\0' || c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '(' || c == ')';
}

/* AND, OR and NOT are words of the language only where they stand alone. */
static bool keyword(struct parser *p, const char *word)
{
    size_t len = strlen(word);

    skip_space(p);
    if (strncmp(p->at, word, len) != 0 || !is_end(p->at[len]))
        return false;
    p->at += len;
    return true;
}

static int parse_value(struct parser *p, struct value *ret_value)
{
    const char *start = p->at;
    struct pk_buf buf = PK_BUF_INIT(2 * PK_QUERY_MAX);

    if (*p->at == '"') {
        for (p->at++; *p->at != '"'; p->at++) {
            if (*p->at == '\\' && (p->at[1] == '"' || p->at[1] == '\\'))
                p->at++;
            if (*p->at == '\0') {
                pk_buf_done(&buf);
                return fail_at(p, start, "end it with another \"", "the quote is never closed");
            }
            if (*p->at == '*' || *p->at == '\\')
                (void)pk_buf_putc(&buf, '\\');
            (void)pk_buf_putc(&buf, *p->at);
        }
        p->at++;
    } else {
        for (; !is_end(*p->at) && *p->at != '"'; p->at++) {
            if (*p->at == '\\')
                (void)pk_buf_putc(&buf, '\\');
            (void)pk_buf_putc(&buf, *p->at);
        }
    }
    size_t len = buf.len;
    char *text = pk_buf_take(&buf);
    if (text == NULL)
        return nomem(p);
    if (len == 0) {
        pk_free(text);
        return fail_at(p, start, "write something like dst_port:53, \"two words\" or (a OR b)",
                       "a value is missing here");
    }
    *ret_value = (struct value){ .text = text, .len = len, .col = (size_t)(start - p->text) };
    return 0;
}

/* Takes the backslashes away again. */
static void unescape(struct value *value)
{
    size_t to = 0;

    for (size_t i = 0; i < value->len; i++) {
        if (value->text[i] == '\\' && i + 1 < value->len)
            i++;
        value->text[to++] = value->text[i];
    }
    value->text[to] = '\0';
    value->len = to;
}

static bool has_wildcard(const struct value *value)
{
    for (size_t i = 0; i < value->len; i++) {
        if (value->text[i] == '\\')
            i++;
        else if (value->text[i] == '*')
            return true;
    }
    return false;
}

/* ---- terms ---- */

int pk_query_unknown_field(const char *name, unsigned col, struct pk_error *err)
{
    size_t count, n = 0;
    const struct pk_column *columns = pk_event_columns(&count);
    const char *names[PK_EVENT_COLUMNS_MAX + 2];

    for (size_t i = 0; i < count; i++)
        names[n++] = columns[i].name;
    names[n++] = "ip";
    names[n++] = "port";
    const char *closest = pk_str_closest(name, names, n);
    (void)pk_fail(err, PK_E_USAGE, "there is no field \"%.60s\"", name);
    if (col > 0)
        pk_error_at(err, "query", 1, col);
    if (closest != NULL)
        return pk_hint(err, "did you mean %s?", closest);
    return pk_hint(err, "fields: type, src_ip, dst_ip, dst_port, ip, port, host, signature, ...; "
                        "text to look for that has a colon goes in quotes");
}

static const char *op_sql(enum op op)
{
    static const char *const sql[] = { "=", ">=", "<=", ">", "<" };

    return sql[op];
}

static int term_text(struct parser *p, const struct pk_column *column, enum op op,
                     struct value *value)
{
    bool lower = (column->flags & PK_COLUMN_LOWER) != 0;
    size_t index;
    int r;

    if (op == OP_IS && has_wildcard(value)) {
        struct pk_buf like = PK_BUF_INIT(4 * PK_QUERY_MAX);
        for (size_t i = 0; i < value->len; i++) {
            char c = value->text[i];
            if (c == '*') {
                (void)pk_buf_putc(&like, '%');
                continue;
            }
            if (c == '\\' && i + 1 < value->len)
                c = value->text[++i];
            if (c == '%' || c == '_' || c == '\\')
                (void)pk_buf_putc(&like, '\\');
            (void)pk_buf_putc(&like, c);
        }
        r = like.failed ? nomem(p) : param_text(p, like.data, like.len, &index);
        pk_buf_done(&like);
        if (r < 0)
            return r;
        p->query->heavy = true;
        (void)pk_buf_printf(&p->where, "\"%s\" ILIKE $%zu ESCAPE '\\'", column->name, index);
        return 0;
    }
    unescape(value);
    r = param_text(p, value->text, value->len, &index);
    if (r < 0)
        return r;
    /* A column in lower case is compared as it is, which Parquet's statistics can answer. */
    (void)pk_buf_printf(&p->where, lower ? "\"%s\" %s lower($%zu)" : "lower(\"%s\") %s lower($%zu)",
                        column->name, op_sql(op), index);
    return 0;
}

static int term_number(struct parser *p, const struct pk_column *column, enum op op,
                       struct value *value)
{
    uint64_t number;
    size_t index;
    struct pk_error ignored;

    unescape(value);
    if (pk_parse_u64(value->text, &number, &ignored) < 0 || number > INT64_MAX)
        return fail_at(p, p->text + value->col, "write a whole number, or * for any",
                       "%s is a number, \"%.60s\" is none", column->name, value->text);
    int r = pk_query_param_number(p->query, (int64_t)number, &index, p->err);
    if (r < 0)
        return r;
    (void)pk_buf_printf(&p->where, "\"%s\" %s $%zu", column->name, op_sql(op), index);
    return 0;
}

static int term_time(struct parser *p, const struct pk_column *column, enum op op,
                     struct value *value)
{
    pk_nsec when;
    size_t index;
    struct pk_error ignored;

    unescape(value);
    if (pk_time_parse_user(value->text, p->now, &when, &ignored) < 0)
        return fail_at(p, p->text + value->col,
                       "write 1h (an hour ago), today or 2026-01-31T12:00:00Z",
                       "%s is a time, \"%.60s\" is none", column->name, value->text);
    int r = pk_query_param_number(p->query, when, &index, p->err);
    if (r < 0)
        return r;
    (void)pk_buf_printf(&p->where, "\"%s\" %s make_timestamp_ns($%zu)", column->name, op_sql(op),
                        index);
    return 0;
}

bool pk_query_net(const char *text, size_t len, uint8_t ret_net[16], unsigned *ret_bits)
{
    char address[INET6_ADDRSTRLEN + 1];
    uint8_t net[16] = { 0 };
    unsigned bits = 128, base;
    const char *slash = memchr(text, '/', len);
    size_t address_len = slash != NULL ? (size_t)(slash - text) : len;

    if (address_len == 0 || address_len >= sizeof(address))
        return false;
    memcpy(address, text, address_len);
    address[address_len] = '\0';
    if (inet_pton(AF_INET6, address, net) == 1) {
        base = 0;
    } else if (inet_pton(AF_INET, address, net + 12) == 1) {
        memset(net, 0, 10);
        net[10] = net[11] = 0xff;
        base = 96;
    } else {
        return false;
    }
    if (slash != NULL) {
        size_t left = len - address_len - 1;
        unsigned prefix = 0;
        if (left == 0 || left > 3)
            return false;
        for (size_t i = 1; i <= left; i++) {
            if (slash[i] < '0' || slash[i] > '9')
                return false;
            prefix = prefix * 10 + (unsigned)(slash[i] - '0');
        }
        if (prefix > 128 - base)
            return false;
        bits = base + prefix;
    }
    memcpy(ret_net, net, sizeof(net));
    *ret_bits = bits;
    return true;
}

static int term_ip(struct parser *p, const struct pk_column *column, enum op op,
                   struct value *value)
{
    uint8_t net[16];
    unsigned bits;
    size_t index;
    char text[INET6_ADDRSTRLEN];
    bool whole;

    if (op != OP_IS)
        return fail_at(p, p->text + value->col, "write a network: src_ip:10.0.0.0/8",
                       "addresses are not compared with < and >");
    if (has_wildcard(value))
        return term_text(p, column, op, value);
    unescape(value);
    if (!pk_query_net(value->text, value->len, net, &bits))
        return fail_at(p, p->text + value->col,
                       "write 10.1.2.3, 2001:db8::1 or a network like 10.0.0.0/8",
                       "%s is an address, \"%.60s\" is none", column->name, value->text);
    whole = bits == 128;
    if (whole) { /* in the form that the events have */
        static const uint8_t mapped[12] = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff };
        bool v4 = memcmp(net, mapped, 12) == 0 && strchr(value->text, ':') == NULL;
        (void)inet_ntop(v4 ? AF_INET : AF_INET6, v4 ? net + 12 : net, text, sizeof(text));
    }
    int r = whole ? param_text(p, text, strlen(text), &index)
                  : param_text(p, value->text, value->len, &index);
    if (r < 0)
        return r;
    p->query->heavy = p->query->heavy || !whole;
    (void)pk_buf_printf(&p->where, whole ? "\"%s\" = $%zu" : "picket_in_net(\"%s\", $%zu)",
                        column->name, index);
    return 0;
}

static int term_column(struct parser *p, const struct pk_column *column, enum op op,
                       const struct value *original)
{
    struct value value = *original;
    int r;

    if (op == OP_IS && value.len == 1 && value.text[0] == '*') {
        (void)pk_buf_printf(&p->where, "\"%s\" IS NOT NULL", column->name);
        return 0;
    }
    value.text = pk_strndup(original->text, original->len);
    if (value.text == NULL)
        return nomem(p);
    switch (column->type) {
    case PK_COL_TEXT:
        r = term_text(p, column, op, &value);
        break;
    case PK_COL_U64:
        r = term_number(p, column, op, &value);
        break;
    case PK_COL_TIME:
        r = term_time(p, column, op, &value);
        break;
    default:
        r = term_ip(p, column, op, &value);
        break;
    }
    pk_free(value.text);
    return r;
}

static int term_fulltext(struct parser *p, struct value *value)
{
    size_t index;

    unescape(value);
    int r = param_text(p, value->text, value->len, &index);
    if (r < 0)
        return r;
    p->query->heavy = true;
    bool ascii = true;
    for (size_t i = 0; i < value->len; i++)
        ascii = ascii && (unsigned char)value->text[i] < 0x80;
    (void)pk_buf_printf(&p->where,
                        ascii ? "picket_contains(raw, $%zu)" : "contains(lower(raw), lower($%zu))",
                        index);
    return 0;
}

static bool is_field_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '.' || c == '@';
}

/* The operator at `at`, its length in *ret_len; 0 = none. */
static enum op find_op(const char *at, size_t *ret_len)
{
    size_t colon = *at == ':' ? 1 : 0;

    if (at[colon] == '>' || at[colon] == '<') {
        bool equal = at[colon + 1] == '=';
        *ret_len = colon + (equal ? 2 : 1);
        return at[colon] == '>' ? (equal ? OP_GE : OP_GT) : (equal ? OP_LE : OP_LT);
    }
    *ret_len = colon != 0 ? 1 : *at == '=' ? 1 : 0;
    return OP_IS;
}

/* Both columns that a pair's name stands for, or the one of a plain name. */
static bool find_columns(const char *name, int ret_columns[2])
{
    static const struct {
        const char *name;
        int columns[2];
    } pairs[] = { { "ip", { PK_EV_SRC_IP, PK_EV_DST_IP } },
                  { "port", { PK_EV_SRC_PORT, PK_EV_DST_PORT } } };

    for (size_t i = 0; i < PK_ARRAY_SIZE(pairs); i++)
        if (strcmp(pairs[i].name, name) == 0) {
            memcpy(ret_columns, pairs[i].columns, sizeof(pairs[i].columns));
            return true;
        }
    ret_columns[0] = pk_event_column(name);
    ret_columns[1] = -1;
    return ret_columns[0] >= 0;
}

static int parse_term(struct parser *p)
{
    const char *start = p->at;
    struct value value;
    char name[64];
    size_t name_len = 0, op_len = 0, count;
    int pair[2], r;

    while (is_field_char(start[name_len]))
        name_len++;
    enum op op = find_op(start + name_len, &op_len);
    if (name_len == 0 || op_len == 0) {
        r = parse_value(p, &value);
        if (r < 0)
            return r;
        r = term_fulltext(p, &value);
        pk_free(value.text);
        return r;
    }
    (void)snprintf(name, sizeof(name), "%.*s", (int)PK_MIN(name_len, sizeof(name) - 1), start);
    if (!find_columns(name, pair))
        return pk_query_unknown_field(name, (unsigned)(start - p->text) + 1, p->err);
    p->at += name_len + op_len;
    r = parse_value(p, &value);
    if (r < 0)
        return r;

    const struct pk_column *columns = pk_event_columns(&count);
    (void)pk_buf_putc(&p->where, '(');
    r = term_column(p, &columns[pair[0]], op, &value);
    if (r == 0 && pair[1] >= 0) {
        (void)pk_buf_puts(&p->where, " OR ");
        r = term_column(p, &columns[pair[1]], op, &value);
    }
    (void)pk_buf_putc(&p->where, ')');
    /* type:x at the top, not below OR or NOT, lets the store leave out the other types' files. */
    if (r == 0 && pair[0] == PK_EV_TYPE && op == OP_IS && p->depth == 0 && !has_wildcard(&value) &&
        value.len < sizeof(p->query->type)) {
        unescape(&value);
        for (size_t i = 0; i <= value.len; i++) {
            char c = value.text[i];
            p->query->type[i] = (char)(c >= 'A' && c <= 'Z' ? c + 32 : c);
        }
    }
    pk_free(value.text);
    return r;
}

static int parse_primary(struct parser *p)
{
    skip_space(p);
    if (*p->at == '(') {
        const char *start = p->at++;
        if (++p->depth > PK_QUERY_DEPTH_MAX)
            return fail_at(p, start, "write it flatter", "the parentheses are nested too deep");
        (void)pk_buf_putc(&p->where, '(');
        int r = parse_or(p);
        if (r < 0)
            return r;
        skip_space(p);
        if (*p->at != ')')
            return fail_at(p, start, "close it with )", "the parenthesis is never closed");
        p->at++;
        p->depth--;
        (void)pk_buf_putc(&p->where, ')');
        return 0;
    }
    if (*p->at == ')')
        return fail_at(p, p->at, "remove it or open one with (", "nothing is open here");
    return parse_term(p);
}

static int parse_not(struct parser *p)
{
    bool negate = keyword(p, "NOT");

    if (!negate && *p->at == '-' && !is_end(p->at[1])) {
        negate = true;
        p->at++;
    }
    if (!negate)
        return parse_primary(p);
    if (++p->depth > PK_QUERY_DEPTH_MAX)
        return fail_at(p, p->at, "write it flatter", "too many NOTs");
    /* What lacks the field does not match it either. */
    (void)pk_buf_puts(&p->where, "NOT coalesce(");
    skip_space(p);
    int r = *p->at == '-' || strncmp(p->at, "NOT", 3) == 0 ? parse_not(p) : parse_primary(p);
    if (r < 0)
        return r;
    (void)pk_buf_puts(&p->where, ", false)");
    p->depth--;
    return 0;
}

static bool at_operand(struct parser *p)
{
    skip_space(p);
    return *p->at != '\0' && *p->at != ')' && !(strncmp(p->at, "OR", 2) == 0 && is_end(p->at[2]));
}

static int parse_and(struct parser *p)
{
    int r = parse_not(p);

    while (r == 0 && at_operand(p)) {
        (void)keyword(p, "AND");
        (void)pk_buf_puts(&p->where, " AND ");
        r = parse_not(p);
    }
    return r;
}

static int parse_or(struct parser *p)
{
    char before[sizeof(p->query->type)];
    memcpy(before, p->query->type, sizeof(before));
    int r = parse_and(p);

    while (r == 0 && keyword(p, "OR")) {
        memcpy(p->query->type, before, sizeof(before)); /* one side of an OR narrows nothing */
        (void)pk_buf_puts(&p->where, " OR ");
        p->depth++;
        r = parse_and(p);
        p->depth--;
    }
    return r;
}

int pk_query_parse(const char *text, pk_nsec now, struct pk_query *ret_query, struct pk_error *err)
{
    struct pk_query query = { 0 };
    struct parser p = { .text = text != NULL ? text : "",
                        .now = now,
                        .query = &query,
                        .where = PK_BUF_INIT(WHERE_MAX),
                        .err = err };
    size_t len = strlen(p.text);
    int r = 0;

    p.at = p.text;
    if (len > PK_QUERY_MAX)
        r = fail_at(&p, p.text, "make it shorter", "the query has %zu bytes, at most %u are read",
                    len, PK_QUERY_MAX);
    else if (pk_utf8_prefix(p.text, len) != len)
        r = fail_at(&p, p.text + pk_utf8_prefix(p.text, len), "write UTF-8 text",
                    "the query is not UTF-8 here");
    skip_space(&p);
    if (r == 0 && *p.at == '\0')
        (void)pk_buf_puts(&p.where, "true");
    else if (r == 0)
        r = parse_or(&p);
    if (r == 0 && *p.at != '\0')
        r = fail_at(&p, p.at, "remove it or open one with (", "nothing is open here");
    if (r == 0 && p.where.failed)
        r = nomem(&p);
    if (r < 0) {
        pk_buf_done(&p.where);
        pk_query_done(&query);
        return r;
    }
    query.where = pk_buf_take(&p.where);
    *ret_query = query;
    return 0;
}
