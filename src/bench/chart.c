/* SPDX-License-Identifier: Apache-2.0 */
/* The report as SVG: for each number of groups and size a panel, in it a row for each way with its
 * CPU time and its loss; below, what containers can see and do. Colours follow the reader's theme.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/json.h"
#include "bench/bench.h"

#define WIDTH      920
#define MARGIN     28
#define LABELS     232 /* column of the ways' names */
#define BARS       330 /* column of CPU time, without the number behind the bar */
#define NUMBERS    92
#define LOSSES     110 /* column of loss, without its number */
#define ROW        26
#define BAR        15
#define PANEL_HEAD 46
#define PANEL_GAP  22
#define TOP        92
#define ROWS_MAX   256

struct row {
    const char *way, *title, *size;
    unsigned groups;
    double ns, loss;
};

static const char style[] =
    "<style>\n"
    "svg{--page:#fcfcfb;--ink:#1d2329;--quiet:#5d6770;--line:#d9dde1;--bar:#93a1ad;"
    "--own:#1769c2;--loss:#c2410c}\n"
    "@media (prefers-color-scheme:dark){svg{--page:#15191e;--ink:#e8ebee;--quiet:#9ba6b0;"
    "--line:#333b43;--bar:#6d7b88;--own:#5aa5f5;--loss:#fb8a4c}}\n"
    "text{font-family:system-ui,-apple-system,'Segoe UI',Roboto,sans-serif;font-size:13px;"
    "fill:var(--ink)}\n"
    ".page{fill:var(--page)}.h{font-size:19px;font-weight:600}.p{font-size:14px;font-weight:600}\n"
    ".q{fill:var(--quiet);font-size:12px}.n{font-variant-numeric:tabular-nums}\n"
    ".b{fill:var(--bar)}.o{fill:var(--own)}.l{fill:var(--loss)}.ot{font-weight:600}\n"
    ".g{stroke:var(--line);stroke-width:1}.cut{stroke:var(--page);stroke-width:3}\n"
    "</style>\n";

static void put_text(struct pk_buf *out, const char *text)
{
    for (; *text != '\0'; text++) {
        if (*text == '<')
            pk_buf_puts(out, "&lt;");
        else if (*text == '&')
            pk_buf_puts(out, "&amp;");
        else if ((unsigned char)*text >= ' ')
            pk_buf_putc(out, *text);
    }
}

static void say(struct pk_buf *out, double x, double y, const char *class, const char *anchor,
                const char *text)
{
    pk_buf_printf(out, "<text x=\"%.1f\" y=\"%.1f\" class=\"%s\" text-anchor=\"%s\">", x, y, class,
                  anchor);
    put_text(out, text);
    pk_buf_puts(out, "</text>\n");
}

static void bar(struct pk_buf *out, double x, double y, double width, const char *class)
{
    pk_buf_printf(out,
                  "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%d\" rx=\"2\" "
                  "class=\"%s\"/>\n",
                  x, y, PK_MAX(width, 1.0), BAR, class);
}

static const json_t *way_of(const json_t *report, const char *name)
{
    size_t i;
    json_t *way;
    json_array_foreach(json_object_get(report, "ways"), i, way)
    {
        if (strcmp(pk_json_string_or(way, "name", ""), name) == 0)
            return way;
    }
    return NULL;
}

static size_t read_rows(const json_t *report, struct row *rows)
{
    size_t i, count = 0;
    json_t *from;
    json_array_foreach(json_object_get(report, "rows"), i, from)
    {
        if (count == ROWS_MAX)
            break;
        const char *way = pk_json_string_or(from, "way", "");
        rows[count++] = (struct row){
            .way = way,
            .title = pk_json_string_or(way_of(report, way), "title", way),
            .size = pk_json_string_or(from, "size", ""),
            .groups = (unsigned)pk_json_int_or(from, "groups", 0),
            .ns = json_number_value(json_object_get(from, "ns")),
            .loss = json_number_value(json_object_get(from, "loss")),
        };
    }
    return count;
}

/* A round number that the longest bar's value fits under. What is several times as slow as most is
 * cut off, or it would make all others equal. */
static double scale_of(const struct row *rows, size_t count)
{
    static const double steps[] = { 1, 1.5, 2, 3, 4, 5, 6, 8, 10 };
    double values[ROWS_MAX], largest = 0;
    memset(values, 0, sizeof values);
    for (size_t i = 0; i < count; i++) {
        size_t at = i;
        for (; at > 0 && values[at - 1] > rows[i].ns; at--)
            values[at] = values[at - 1];
        values[at] = rows[i].ns;
    }
    double middle = count > 0 ? values[count / 2] : 0;
    for (size_t i = 0; i < count; i++)
        if (values[i] <= 4 * middle)
            largest = values[i];
    double unit = 1;
    while (unit * 10 < largest)
        unit *= 10;
    for (size_t i = 0; i < PK_ARRAY_SIZE(steps); i++)
        if (steps[i] * unit >= largest)
            return steps[i] * unit;
    return PK_MAX(largest, 1.0);
}

static bool is_own(const char *way)
{
    return strncmp(way, "lane", 4) == 0;
}

static void put_row(struct pk_buf *out, const struct row *row, double y, double scale)
{
    char text[32];
    double bars = MARGIN + LABELS, losses = bars + BARS + NUMBERS;
    double width = PK_MAX(row->ns, 0.0) / scale * BARS;
    bool cut = width > BARS;
    say(out, bars - 10, y + 12, is_own(row->way) ? "ot" : "t", "end", row->title);
    bar(out, bars, y, cut ? (double)BARS : width, is_own(row->way) ? "o" : "b");
    if (cut)
        pk_buf_printf(out, "<path d=\"M%.1f %.1f l8 %d M%.1f %.1f l8 %d\" class=\"cut\"/>\n",
                      bars + BARS - 34, y, BAR, bars + BARS - 26, y, BAR);
    snprintf(text, sizeof text, "%.0f ns", row->ns);
    say(out, bars + (cut ? (double)BARS : width) + 7, y + 12, "n", "start", text);
    if (row->loss >= 0.005) {
        width = row->loss / 100 * LOSSES;
        bar(out, losses, y, width, "l");
        snprintf(text, sizeof text, row->loss < 1 ? "%.2f %%" : "%.1f %%", row->loss);
        say(out, losses + width + 7, y + 12, "n", "start", text);
    } else {
        say(out, losses, y + 12, "q", "start", "none");
    }
}

static double put_panel(struct pk_buf *out, const struct row *rows, size_t count, double y)
{
    char text[96];
    double bars = MARGIN + LABELS, losses = bars + BARS + NUMBERS;
    double scale = scale_of(rows, count), bottom = y + PANEL_HEAD + (double)count * ROW;
    bool imix = strcmp(rows[0].size, "imix") == 0;
    snprintf(text, sizeof text, "%s%s, to %u %s", imix ? "IMIX" : rows[0].size,
             imix ? "" : " bytes", rows[0].groups, rows[0].groups == 1 ? "group" : "groups");
    say(out, MARGIN, y + 16, "p", "start", text);
    say(out, losses, y + 34, "q", "start", "loss");
    for (unsigned i = 0; i <= 2; i++) {
        double x = bars + BARS * i / 2.0;
        snprintf(text, sizeof text, "%.0f%s", scale * i / 2, i == 2 ? " ns" : "");
        say(out, x, y + 34, "q n", i == 0 ? "start" : "middle", text);
        pk_buf_printf(out, "<path d=\"M%.1f %.1f V%.1f\" class=\"g\"/>\n", x, y + 39, bottom - 4);
    }
    for (size_t i = 0; i < count; i++)
        put_row(out, &rows[i], y + PANEL_HEAD + (double)i * ROW, scale);
    return bottom + PANEL_GAP;
}

/* What was tried of each way's container, or why there is none. */
static double put_ways(struct pk_buf *out, const json_t *report, double y)
{
    size_t i;
    json_t *way;
    say(out, MARGIN, y + 16, "p", "start", "What the container can see and do");
    y += 30;
    json_array_foreach(json_object_get(report, "ways"), i, way)
    {
        char text[128];
        bool there = pk_json_bool_or(way, "available", false);
        snprintf(text, sizeof text, there ? "%.110s" : "not available: %.94s",
                 pk_json_string_or(way, there ? "isolation.text" : "why", ""));
        say(out, MARGIN + LABELS - 10, y + 12,
            is_own(pk_json_string_or(way, "name", "")) ? "ot" : "t", "end",
            pk_json_string_or(way, "title", ""));
        say(out, MARGIN + LABELS, y + 12, there ? "t" : "q", "start", text);
        y += 22;
    }
    return y;
}

static void put_foot(struct pk_buf *out, const json_t *report, double y)
{
    char text[256];
    snprintf(text, sizeof text,
             "%.60s, %lld CPUs, Linux %.40s, load %.2f; %lld lanes in each "
             "group, medians of %lld rounds",
             pk_json_string_or(report, "machine.processor", ""),
             (long long)pk_json_int_or(report, "machine.cpus", 0),
             pk_json_string_or(report, "machine.kernel", ""),
             json_number_value(pk_json_at(report, "machine.load")),
             (long long)pk_json_int_or(report, "options.lanes", 0),
             (long long)pk_json_int_or(report, "options.rounds", 0));
    say(out, MARGIN, y, "q", "start", text);
}

int pk_bench_chart(const json_t *report, struct pk_buf *out, struct pk_error *err)
{
    PK_CLEANUP(pk_free_p) struct row *rows = pk_zalloc_array(ROWS_MAX, sizeof *rows);
    if (rows == NULL)
        return pk_no_memory(err);
    size_t count = read_rows(report, rows), panels = 0;
    for (size_t i = 0; i < count; i++)
        panels += i == 0 || rows[i].groups != rows[i - 1].groups ||
                  strcmp(rows[i].size, rows[i - 1].size) != 0;
    double height = TOP + (double)panels * (PANEL_HEAD + PANEL_GAP) + (double)count * ROW + 84 +
                    (double)json_array_size(json_object_get(report, "ways")) * 22;
    pk_buf_printf(out,
                  "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %.0f\" width=\"%d\" "
                  "role=\"img\" aria-labelledby=\"t\">\n<title id=\"t\">Bringing packets to "
                  "containers: CPU time per packet, and loss</title>\n",
                  WIDTH, height, WIDTH);
    pk_buf_puts(out, style);
    pk_buf_printf(out, "<rect class=\"page\" width=\"%d\" height=\"%.0f\"/>\n", WIDTH, height);
    say(out, MARGIN, 40, "h", "start", "Bringing packets to containers");
    say(out, MARGIN, 62, "q", "start",
        "CPU time per packet that came to every group, above that of making it; shorter is better");
    double y = TOP;
    for (size_t i = 0; i < count;) {
        size_t end = i + 1;
        while (end < count && rows[end].groups == rows[i].groups &&
               strcmp(rows[end].size, rows[i].size) == 0)
            end++;
        y = put_panel(out, rows + i, end - i, y);
        i = end;
    }
    y = put_ways(out, report, y);
    put_foot(out, report, y + 30);
    pk_buf_puts(out, "</svg>\n");
    return out->failed ? pk_no_memory(err) : 0;
}
