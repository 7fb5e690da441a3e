/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A unified diff of two texts by lines: common head and tail are cut off, the middle is compared
 * with the longest-common-subsequence table. Fleet files are small; where the table would be too
 * large the middle is shown as replaced as a whole, which is right, only longer.
 */
#include <string.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "cli/client.h"

#define CONTEXT   3u
#define MAX_CELLS (16u << 20)
#define MAX_BYTES (16u << 20)

struct lines {
    const char **start;
    size_t *len;
    size_t count;
    bool newline_at_end;
};

struct edit {
    char kind; /* ' ', '-', '+' */
    size_t a, b;
};

static void lines_done(struct lines *lines)
{
    pk_free(lines->start);
    pk_free(lines->len);
}

static int split(const char *text, struct lines *ret_lines)
{
    size_t count = 0;
    for (const char *p = text; *p != '\0'; count++) {
        const char *end = strchr(p, '\n');
        p = end == NULL ? p + strlen(p) : end + 1;
    }
    struct lines lines = { .start = pk_zalloc_array(count + 1, sizeof(*lines.start)),
                           .len = pk_zalloc_array(count + 1, sizeof(*lines.len)),
                           .newline_at_end = true };
    if (lines.start == NULL || lines.len == NULL) {
        lines_done(&lines);
        return PK_E_NOMEM;
    }
    for (const char *p = text; *p != '\0'; lines.count++) {
        const char *end = strchr(p, '\n');
        lines.newline_at_end = end != NULL;
        lines.start[lines.count] = p;
        lines.len[lines.count] = end == NULL ? strlen(p) : (size_t)(end - p);
        p = end == NULL ? p + strlen(p) : end + 1;
    }
    *ret_lines = lines;
    return 0;
}

static bool same(const struct lines *a, size_t i, const struct lines *b, size_t j)
{
    bool a_ends = i + 1 == a->count && !a->newline_at_end;
    bool b_ends = j + 1 == b->count && !b->newline_at_end;
    return a->len[i] == b->len[j] && a_ends == b_ends &&
           memcmp(a->start[i], b->start[j], a->len[i]) == 0;
}

/* Edits of the middle parts [head, a_end) and [head, b_end); returns how many were written. */
static size_t compare(const struct lines *a, const struct lines *b, size_t head, size_t a_end,
                      size_t b_end, const uint32_t *table, struct edit *edits)
{
    size_t rows = a_end - head, width = b_end - head + 1, count = 0, i = 0, j = 0;
    while (i < rows || j < width - 1) {
        bool both = i < rows && j < width - 1;
        struct edit edit = { .a = head + i, .b = head + j };
        if (table != NULL && both && same(a, head + i, b, head + j)) {
            edit.kind = ' ';
            i++, j++;
        } else if (i < rows && (table == NULL || j == width - 1 ||
                                table[(i + 1) * width + j] >= table[i * width + j + 1])) {
            edit.kind = '-';
            i++;
        } else {
            edit.kind = '+';
            j++;
        }
        edits[count++] = edit;
    }
    return count;
}

static uint32_t *make_table(const struct lines *a, const struct lines *b, size_t head, size_t a_end,
                            size_t b_end)
{
    size_t rows = a_end - head, width = b_end - head + 1;
    if ((rows + 1) > MAX_CELLS / width)
        return NULL;
    uint32_t *table = pk_zalloc_array((rows + 1) * width, sizeof(*table));
    for (size_t i = rows; table != NULL && i-- > 0;)
        for (size_t j = width - 1; j-- > 0;)
            table[i * width + j] =
                same(a, head + i, b, head + j)
                    ? table[(i + 1) * width + j + 1] + 1
                    : PK_MAX(table[(i + 1) * width + j], table[i * width + j + 1]);
    return table;
}

static void print_edit(struct pk_buf *out, const struct edit *edit, const struct lines *a,
                       const struct lines *b)
{
    const struct lines *from = edit->kind == '+' ? b : a;
    size_t index = edit->kind == '+' ? edit->b : edit->a;
    (void)pk_buf_putc(out, edit->kind);
    (void)pk_buf_add(out, from->start[index], from->len[index]);
    (void)pk_buf_putc(out, '\n');
    if (index + 1 == from->count && !from->newline_at_end)
        (void)pk_buf_puts(out, "\\ No newline at end of file\n");
}

/* One hunk: edits [first, last). */
static void print_hunk(struct pk_buf *out, const struct edit *edits, size_t first, size_t last,
                       const struct lines *a, const struct lines *b)
{
    size_t a_count = 0, b_count = 0;
    for (size_t i = first; i < last; i++) {
        a_count += edits[i].kind != '+';
        b_count += edits[i].kind != '-';
    }
    (void)pk_buf_printf(out, "@@ -%zu,%zu +%zu,%zu @@\n", edits[first].a + (a_count > 0), a_count,
                        edits[first].b + (b_count > 0), b_count);
    for (size_t i = first; i < last; i++)
        print_edit(out, &edits[i], a, b);
}

static void print_hunks(struct pk_buf *out, const struct edit *edits, size_t count,
                        const struct lines *a, const struct lines *b)
{
    for (size_t i = 0; i < count;) {
        if (edits[i].kind == ' ') {
            i++;
            continue;
        }
        size_t first = i > CONTEXT ? i - CONTEXT : 0, last = i + 1, quiet = 0;
        for (size_t j = i + 1; j < count && quiet <= 2 * CONTEXT; j++) {
            quiet = edits[j].kind == ' ' ? quiet + 1 : 0;
            if (quiet == 0)
                last = j + 1;
        }
        i = last;
        print_hunk(out, edits, first, PK_MIN(last + CONTEXT, count), a, b);
    }
}

char *pk_text_diff(const char *old_name, const char *old_text, const char *new_name,
                   const char *new_text)
{
    struct pk_buf out = PK_BUF_INIT(MAX_BYTES);
    if (strcmp(old_text, new_text) == 0)
        return pk_strdup("");
    PK_CLEANUP(lines_done) struct lines a = { 0 };
    PK_CLEANUP(lines_done) struct lines b = { 0 };
    if (split(old_text, &a) < 0 || split(new_text, &b) < 0)
        return NULL;
    size_t head = 0, tail = 0;
    while (head < a.count && head < b.count && same(&a, head, &b, head))
        head++;
    while (tail < a.count - head && tail < b.count - head &&
           same(&a, a.count - 1 - tail, &b, b.count - 1 - tail))
        tail++;
    PK_CLEANUP(pk_free_p)
    uint32_t *table = make_table(&a, &b, head, a.count - tail, b.count - tail);
    PK_CLEANUP(pk_free_p)
    struct edit *edits = pk_zalloc_array(a.count + b.count + 1, sizeof(*edits));
    if (edits == NULL)
        return NULL;
    size_t count = 0;
    for (; count < head; count++)
        edits[count] = (struct edit){ ' ', count, count };
    count += compare(&a, &b, head, a.count - tail, b.count - tail, table, edits + count);
    for (size_t i = 0; i < tail; i++)
        edits[count++] = (struct edit){ ' ', a.count - tail + i, b.count - tail + i };
    (void)pk_buf_printf(&out, "--- %s\n+++ %s\n", old_name, new_name);
    print_hunks(&out, edits, count, &a, &b);
    return pk_buf_take(&out);
}
