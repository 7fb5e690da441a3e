/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tables and documents on standard output. On a terminal a table fits its width: columns go by
 * priority, and what is still too wide is cut with an ellipsis. Off a terminal nothing is cut.
 */
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <wchar.h>

#include "base/alloc.h"
#include "base/doc.h"
#include "base/json.h"
#include "base/time.h"
#include "cli/client.h"
#include "cli/parse.h"

#define GAP                 2
#define FREE_TEXT_NARROWEST 24u
#define NARROWEST           8
#define CELL_MAX            ((size_t)1 << 20)

unsigned pk_terminal_width(void)
{
    struct winsize size;
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col >= 20)
        return size.ws_col;
    return 80;
}

static unsigned char_width(uint32_t c)
{
    int width = wcwidth((wchar_t)c);
    return width < 0 ? 1 : (unsigned)width;
}

unsigned pk_text_width(const char *text, size_t len)
{
    unsigned width = 0;
    for (const char *p = text, *end = text + len; p < end;)
        width += char_width(pk_utf8_next(&p, end));
    return width;
}

/* ---- cells ---- */

/* One line of printable characters: cells show what came from the network. */
static void clean(struct pk_buf *cell)
{
    for (size_t i = 0; i < cell->len; i++) {
        unsigned char c = (unsigned char)cell->data[i];
        bool c1 = c == 0xc2 && (unsigned char)cell->data[i + 1] < 0xa0; /* U+0080 to U+009F */
        if (c < 0x20 || c == 0x7f || c1)
            cell->data[i] = '?';
        if (c1)
            cell->data[++i] = '?';
    }
}

static void put_number(struct pk_buf *cell, json_int_t value, const char *format)
{
    char text[40];
    if (value >= 0 && pk_str_equal(format, "bytes"))
        (void)pk_buf_puts(cell, pk_human_bytes((uint64_t)value, text, sizeof(text)));
    else if (value >= 0 && pk_str_equal(format, "count"))
        (void)pk_buf_puts(cell, pk_human_count((uint64_t)value, text, sizeof(text)));
    else
        (void)pk_buf_printf(cell, "%lld", (long long)value);
}

static void put_string(struct pk_buf *cell, const char *value, const char *format)
{
    char text[40];
    pk_nsec when;
    bool timed = (pk_str_equal(format, "ago") || pk_str_equal(format, "time")) &&
                 pk_time_parse(value, strlen(value), &when, NULL) == 0;
    if (!timed)
        (void)pk_buf_puts(cell, value);
    else if (pk_str_equal(format, "time"))
        (void)pk_buf_puts(cell, pk_time_format(when, 0, text, sizeof(text)));
    else if (pk_time_now() - when < PK_NSEC_PER_SEC)
        (void)pk_buf_puts(cell, "now");
    else
        (void)pk_buf_printf(cell, "%s ago",
                            pk_human_duration(PK_MAX(pk_time_now() - when, 0), text, sizeof(text)));
}

static void put_value(struct pk_buf *cell, const json_t *value, const char *format)
{
    PK_CLEANUP(pk_free_p) char *text = NULL;
    size_t i;
    json_t *item;
    switch (value == NULL ? JSON_NULL : json_typeof(value)) {
    case JSON_STRING:
        put_string(cell, json_string_value(value), format);
        break;
    case JSON_INTEGER:
        put_number(cell, json_integer_value(value), format);
        break;
    case JSON_REAL:
        if (format != NULL && json_real_value(value) >= 0 && json_real_value(value) < 1e18)
            put_number(cell, (json_int_t)json_real_value(value), format);
        else
            (void)pk_buf_printf(cell, "%.6g", json_real_value(value));
        break;
    case JSON_TRUE:
    case JSON_FALSE:
        (void)pk_buf_puts(cell, json_is_true(value) ? "yes" : "no");
        break;
    case JSON_ARRAY:
        json_array_foreach(value, i, item)
        {
            if (i > 0)
                (void)pk_buf_puts(cell, ",");
            put_value(cell, item, format);
        }
        break;
    case JSON_OBJECT:
        text = pk_json_compact(value);
        if (text == NULL)
            cell->failed = true;
        else
            (void)pk_buf_puts(cell, text);
        break;
    case JSON_NULL:
        break;
    }
}

static const char *state_color(const char *state)
{
    static const struct {
        const char *state, *color;
    } colors[] = {
        { "running", "green" }, { "ready", "green" }, { "converged", "green" },
        { "ok", "green" },      { "up", "green" },    { "applied", "green" },
        { "done", "green" },    { "failed", "red" },  { "fail", "red" },
        { "crashed", "red" },   { "down", "red" },    { "degraded", "red" },
        { "gone", "red" },      { "missing", "red" }, { "error", "red" },
        { "lost", "red" },      { "skipped", "dim" }, { "-", "dim" },
    };
    for (size_t i = 0; i < PK_ARRAY_SIZE(colors); i++)
        if (strcmp(colors[i].state, state) == 0)
            return colors[i].color;
    return "yellow"; /* on its way */
}

/* ---- layout ---- */

struct table {
    const struct pk_ctx *ctx;
    const struct pk_table_column *columns;
    size_t column_count, row_count;
    char **cells;     /* row by row */
    unsigned *widths; /* 0 = not shown */
};

static int fill_cells(struct table *table, const json_t *rows)
{
    for (size_t row = 0; row < table->row_count; row++) {
        for (size_t i = 0; i < table->column_count; i++) {
            const struct pk_table_column *column = &table->columns[i];
            struct pk_buf cell = PK_BUF_INIT(CELL_MAX);
            put_value(&cell, pk_json_at(json_array_get(rows, row), column->path), column->format);
            if (cell.len == 0 && !cell.failed)
                (void)pk_buf_puts(&cell, "-");
            if (!cell.failed)
                clean(&cell);
            char *text = pk_buf_take(&cell);
            if (text == NULL)
                return PK_E_NOMEM;
            table->cells[row * table->column_count + i] = text;
        }
    }
    return 0;
}

static void measure(struct table *table)
{
    bool wide = table->ctx->output == PK_OUT_WIDE;
    for (size_t i = 0; i < table->column_count; i++) {
        const struct pk_table_column *column = &table->columns[i];
        if (column->priority == 0 && !wide)
            continue;
        unsigned width =
            table->ctx->no_headers ? 1 : pk_text_width(column->title, strlen(column->title));
        for (size_t row = 0; row < table->row_count; row++) {
            const char *text = table->cells[row * table->column_count + i];
            width = PK_MAX(width, pk_text_width(text, strlen(text)));
        }
        table->widths[i] = width;
    }
}

static unsigned total_width(const struct table *table)
{
    unsigned total = 0;
    for (size_t i = 0; i < table->column_count; i++)
        if (table->widths[i] > 0)
            total += table->widths[i] + (total > 0 ? GAP : 0);
    return total;
}

/* The column that goes next: of the highest priority number above 1, the last. */
static size_t least_important(const struct table *table)
{
    size_t found = table->column_count;
    for (size_t i = 0; i < table->column_count; i++)
        if (table->widths[i] > 0 && table->columns[i].priority > 1 &&
            (found == table->column_count ||
             table->columns[i].priority >= table->columns[found].priority))
            found = i;
    return found;
}

static size_t widest_text(const struct table *table)
{
    size_t found = table->column_count;
    for (size_t i = 0; i < table->column_count; i++)
        if (table->widths[i] > NARROWEST && !table->columns[i].right &&
            (found == table->column_count || table->widths[i] > table->widths[found]))
            found = i;
    return found;
}

/* Free text is shortened before a column goes, down to where it still says something. */
static void shorten_free_text(struct table *table, unsigned width)
{
    for (size_t i = 0; i < table->column_count; i++) {
        unsigned over = PK_MAX(total_width(table), width) - width;
        if (table->columns[i].free_text && table->widths[i] > FREE_TEXT_NARROWEST)
            table->widths[i] -= PK_MIN(over, table->widths[i] - FREE_TEXT_NARROWEST);
    }
}

/* ... and takes what room the columns that went have left. */
static void lengthen_free_text(struct table *table, unsigned width)
{
    for (size_t i = 0; i < table->column_count; i++)
        if (table->columns[i].free_text && total_width(table) < width)
            table->widths[i] += width - total_width(table);
}

static void fit(struct table *table, unsigned width)
{
    size_t column;
    shorten_free_text(table, width);
    while (total_width(table) > width && (column = least_important(table)) < table->column_count)
        table->widths[column] = 0;
    lengthen_free_text(table, width);
    while (total_width(table) > width && (column = widest_text(table)) < table->column_count) {
        unsigned over = total_width(table) - width;
        table->widths[column] -= PK_MIN(over, table->widths[column] - NARROWEST);
    }
}

static void put_spaces(struct pk_buf *out, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        (void)pk_buf_putc(out, ' ');
}

/* A text in width columns, cut with an ellipsis where it is longer. */
static void put_padded(struct pk_buf *out, const char *text, unsigned width, bool right, bool last)
{
    size_t len = strlen(text);
    unsigned have = pk_text_width(text, len);
    if (have > width) {
        const char *p = text, *end = text + len;
        unsigned used = 0;
        while (p < end) {
            const char *next = p;
            unsigned w = char_width(pk_utf8_next(&next, end));
            if (used + w > width - 1)
                break;
            used += w;
            p = next;
        }
        (void)pk_buf_add(out, text, (size_t)(p - text));
        (void)pk_buf_puts(out, "\xe2\x80\xa6");
        if (!last)
            put_spaces(out, width - used - 1);
        return;
    }
    if (right)
        put_spaces(out, width - have);
    (void)pk_buf_add(out, text, len);
    if (!right && !last)
        put_spaces(out, width - have);
}

/* row: NULL = the titles. */
static void put_row(const struct table *table, char *const *row, struct pk_buf *out)
{
    size_t last = 0;
    for (size_t i = 0; i < table->column_count; i++)
        last = table->widths[i] > 0 ? i : last;
    bool first = true;
    for (size_t i = 0; i < table->column_count; i++) {
        const struct pk_table_column *column = &table->columns[i];
        if (table->widths[i] == 0)
            continue;
        if (!first)
            put_spaces(out, GAP);
        first = false;
        const char *text = row == NULL ? column->title : row[i];
        bool state = row != NULL && pk_str_equal(column->format, "state");
        const char *color = row == NULL ? "bold" : state ? state_color(text) : NULL;
        if (color != NULL)
            (void)pk_buf_puts(out, pk_color(table->ctx, color));
        put_padded(out, text, table->widths[i], column->right, i == last);
        if (color != NULL)
            (void)pk_buf_puts(out, pk_color(table->ctx, NULL));
    }
    (void)pk_buf_putc(out, '\n');
}

static int print_table(const struct pk_ctx *ctx, const json_t *rows,
                       const struct pk_table_column *columns, size_t column_count)
{
    struct table table = { .ctx = ctx,
                           .columns = columns,
                           .column_count = column_count,
                           .row_count = json_array_size(rows) };
    struct pk_buf out = PK_BUF_INIT((size_t)1 << 30);
    table.cells = pk_zalloc_array(table.row_count * column_count, sizeof(*table.cells));
    table.widths = pk_zalloc_array(column_count, sizeof(*table.widths));
    int r = table.cells == NULL || table.widths == NULL ? PK_E_NOMEM : fill_cells(&table, rows);
    if (r == 0) {
        measure(&table);
        if (ctx->tty)
            fit(&table, pk_terminal_width());
        if (!ctx->no_headers)
            put_row(&table, NULL, &out);
        for (size_t row = 0; row < table.row_count; row++)
            put_row(&table, &table.cells[row * column_count], &out);
        r = out.failed ? PK_E_NOMEM : 0;
    }
    if (r == 0 && out.len > 0)
        (void)fwrite(out.data, 1, out.len, stdout);
    for (size_t i = 0; table.cells != NULL && i < table.row_count * column_count; i++)
        pk_free(table.cells[i]);
    pk_free(table.cells);
    pk_free(table.widths);
    pk_buf_done(&out);
    return r;
}

static int print_text(char *text_take, struct pk_error *err)
{
    PK_CLEANUP(pk_free_p) char *text = text_take;
    if (text == NULL)
        return pk_fail(err, PK_E_NOMEM, "cannot print: out of memory");
    (void)fputs(text, stdout);
    size_t len = strlen(text);
    if (len == 0 || text[len - 1] != '\n')
        (void)fputc('\n', stdout);
    return 0;
}

int pk_out_table(const struct pk_ctx *ctx, const json_t *document, const json_t *rows,
                 const struct pk_table_column *columns, size_t column_count, const char *name_path,
                 struct pk_error *err)
{
    if (ctx->output == PK_OUT_JSON || ctx->output == PK_OUT_YAML)
        return pk_out_document(ctx, document != NULL ? document : rows, err);
    if (ctx->output == PK_OUT_NAME) {
        size_t i;
        json_t *row;
        json_array_foreach(rows, i, row)
        {
            pk_print_clean(stdout, pk_json_string_or(row, name_path, "-"));
            (void)fputc('\n', stdout);
        }
        return 0;
    }
    int r = print_table(ctx, rows, columns, column_count);
    return r < 0 ? pk_fail(err, r, "cannot print: out of memory") : 0;
}

int pk_out_document(const struct pk_ctx *ctx, const json_t *document, struct pk_error *err)
{
    if (ctx->output == PK_OUT_JSON)
        return print_text(pk_json_pretty(document), err);
    if (ctx->output == PK_OUT_NAME) {
        pk_print_clean(stdout, pk_json_string_or(document, "name", "-"));
        (void)fputc('\n', stdout);
        return 0;
    }
    return print_text(pk_yaml_of_json(document), err);
}
