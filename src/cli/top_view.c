/* SPDX-License-Identifier: Apache-2.0 */
/* Rows as lines of a terminal. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/json.h"
#include "base/str.h"
#include "cli/parse.h"
#include "cli/top.h"

#define NAME_MIN    14u
#define NAME_MAX    36u
#define HISTORY_MIN 8u
#define HISTORY_MAX 60u
#define FIXED_LINES 5u /* title, sums, titles of columns, keys, and one blank */

struct screen {
    const struct pk_top_view *view;
    struct pk_buf *out;
    unsigned column; /* where the next character goes */
};

static void paint(struct screen *screen, const char *sequence)
{
    if (screen->view->color)
        (void)pk_buf_puts(screen->out, sequence);
}
#define BOLD    "\033[1m"
#define DIM     "\033[2m"
#define INVERSE "\033[7m"
#define RED     "\033[31m"
#define GREEN   "\033[32m"
#define YELLOW  "\033[33m"
#define CYAN    "\033[36m"
#define PLAIN   "\033[0m"

static void spaces(struct screen *screen, unsigned count)
{
    for (unsigned i = 0; i < count && screen->column < screen->view->width; i++) {
        (void)pk_buf_putc(screen->out, ' ');
        screen->column++;
    }
}

/* As much of the text as fits into width columns and the screen; what does not fit ends with '~'.
 * Control characters become '?'. Returns the columns taken. */
static unsigned put(struct screen *screen, const char *text, unsigned width)
{
    unsigned room = PK_MIN(width, screen->view->width - screen->column), taken = 0;
    size_t len = strlen(text);
    bool cut = pk_text_width(text, len) > room;
    const char *at = text, *end = text + len;
    while (at < end && taken < room) {
        const char *from = at;
        uint32_t c = pk_utf8_next(&at, end);
        unsigned wide = c < 0x20 ? 1 : pk_text_width(from, (size_t)(at - from));
        if (cut && taken + wide > room - 1) {
            (void)pk_buf_putc(screen->out, '~');
            taken++;
            break;
        }
        if (c < 0x20 || c == 0x7f || (c >= 0x80 && c < 0xa0))
            (void)pk_buf_putc(screen->out, '?');
        else
            (void)pk_buf_add(screen->out, from, (size_t)(at - from));
        taken += wide;
    }
    screen->column += taken;
    return taken;
}

static void put_left(struct screen *screen, const char *text, unsigned width)
{
    unsigned taken = put(screen, text, width);
    spaces(screen, width - PK_MIN(taken, width));
}

static void put_right(struct screen *screen, const char *text, unsigned width)
{
    unsigned wide = pk_text_width(text, strlen(text));
    spaces(screen, width > wide ? width - wide : 0);
    (void)put(screen, text, width);
}

static void end_line(struct screen *screen)
{
    paint(screen, PLAIN);
    if (screen->view->color || screen->column < screen->view->width)
        (void)pk_buf_puts(screen->out, "\033[K");
    (void)pk_buf_puts(screen->out, "\r\n");
    screen->column = 0;
}

char *pk_top_number(double value, char out[16])
{
    static const char units[] = { ' ', 'k', 'M', 'G', 'T', 'P' };
    size_t unit = 0;
    if (value < 0) {
        (void)snprintf(out, 16, "-");
        return out;
    }
    while (value >= 999.5 && unit + 1 < sizeof(units)) {
        value /= 1000;
        unit++;
    }
    if (unit == 0)
        (void)snprintf(out, 16, value > 0 && value < 9.95 ? "%.1f" : "%.0f", value);
    else
        (void)snprintf(out, 16, value < 99.95 ? "%.1f%c" : "%.0f%c", PK_MIN(value, 999999.0),
                       units[unit]);
    return out;
}

static double real_or(const json_t *row, const char *name, double other)
{
    const json_t *value = json_object_get(row, name);
    return json_is_real(value) ? json_real_value(value) : other;
}

/* ---- the list's columns ---- */

struct columns {
    unsigned name, state, slots, history; /* 0 = not shown */
    bool fleets; /* of several fleets: taps and groups are told with theirs */
};
#define STATE_WIDTH  8u
#define SLOTS_WIDTH  6u
#define NUMBER_WIDTH 7u

static char *name_of(const json_t *row, bool fleets)
{
    const char *kind = pk_json_string_or(row, "kind", ""),
               *name = pk_json_string_or(row, "name", "");
    const char *slash = strrchr(name, '/');
    bool is_tool = strcmp(kind, "tool") == 0;
    int depth = (int)pk_json_int_or(row, "depth", 0);
    if (depth == 0 && fleets)
        return pk_asprintf("%s %s/%s", kind, pk_json_string_or(row, "fleet", ""), name);
    return pk_asprintf("%*s%s%s%s", depth * 2, "", is_tool ? "" : kind, is_tool ? "" : " ",
                       slash != NULL ? slash + 1 : name);
}

static struct columns columns_of(unsigned width, const json_t *rows)
{
    struct columns columns = { .name = NAME_MIN, .state = STATE_WIDTH };
    unsigned numbers = 4 * (NUMBER_WIDTH + 1), name = NAME_MIN;
    size_t i;
    const json_t *row;
    json_array_foreach(rows, i, row)
    {
        const char *fleet = pk_json_string_or(row, "fleet", "");
        columns.fleets |=
            strcmp(fleet, pk_json_string_or(json_array_get(rows, 0), "fleet", "")) != 0;
    }
    json_array_foreach(rows, i, row)
    {
        PK_CLEANUP(pk_free_p) char *text = name_of(row, columns.fleets);
        if (text != NULL)
            name = PK_MAX(name, pk_text_width(text, strlen(text)));
    }
    name = PK_MIN(name, NAME_MAX);
    if (width < NAME_MIN + STATE_WIDTH + 1 + numbers)
        columns.state = 0;
    unsigned taken = numbers + (columns.state > 0 ? columns.state + 1 : 0);
    unsigned left = width > taken + NAME_MIN ? width - taken : NAME_MIN;
    columns.name = PK_MIN(name, left);
    left -= columns.name;
    if (left >= SLOTS_WIDTH + 1 + HISTORY_MIN + 9) {
        columns.slots = SLOTS_WIDTH;
        left -= SLOTS_WIDTH + 1;
    }
    if (left > HISTORY_MIN)
        columns.history = PK_MIN(left - 1, HISTORY_MAX);
    return columns;
}

static void put_history(struct screen *screen, const json_t *history, unsigned width)
{
    static const char *const blocks[] = { " ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█" };
    static const char *const plain[] = { " ", ".", ".", ":", ":", "+", "+", "#", "#" };
    size_t count = json_array_size(history), first = count > width ? count - width : 0;
    double most = 0;
    for (size_t i = first; i < count; i++)
        most = PK_MAX(most, json_real_value(json_array_get(history, i)));
    spaces(screen, width - (unsigned)(count - first));
    for (size_t i = first; i < count; i++) {
        double rate = json_real_value(json_array_get(history, i));
        /* Anything at all is seen. */
        size_t step = rate > 0 ? (size_t)PK_MIN(ceil(rate / most * 8), 8.0) : 0;
        (void)put(screen, screen->view->utf8 ? blocks[step] : plain[step], 1);
    }
}

static const char *state_paint(const char *state)
{
    static const struct {
        const char *state, *paint;
    } known[] = { { "up", GREEN },     { "ready", GREEN }, { "running", GREEN }, { "gone", DIM },
                  { "missing", RED },  { "broken", RED },  { "detached", RED },  { "away", RED },
                  { "blocking", RED }, { "", PLAIN } };
    for (size_t i = 0; i < PK_ARRAY_SIZE(known); i++)
        if (strcmp(known[i].state, state) == 0)
            return known[i].paint;
    return YELLOW;
}

static void put_share(const json_t *row, char out[16])
{
    double share = real_or(row, "lostShare", -1) * 100;
    if (share < 0)
        (void)snprintf(out, 16, "-");
    else if (share > 0 && share < 0.01)
        (void)snprintf(out, 16, "<0.01");
    else
        (void)snprintf(out, 16, share <= 0 ? "0" : "%.2f", share);
}

static void put_row(struct screen *screen, const struct columns *columns, const json_t *row,
                    const json_t *histories)
{
    char text[16];
    PK_CLEANUP(pk_free_p) char *name = name_of(row, columns->fleets);
    bool top = pk_json_int_or(row, "depth", 0) == 0;
    double packets = real_or(row, "packetsPerSecond", -1);
    double lost = real_or(row, "lostPerSecond", -1);
    const char *state = pk_json_string_or(row, "state", "");
    paint(screen, top ? BOLD : "");
    put_left(screen, name != NULL ? name : "", columns->name);
    paint(screen, PLAIN);
    if (columns->state > 0) {
        spaces(screen, 1);
        paint(screen, state_paint(state));
        put_left(screen, state, columns->state);
        paint(screen, PLAIN);
    }
    if (columns->slots > 0) {
        const json_t *slots = json_object_get(row, "slots");
        (void)snprintf(text, sizeof(text), "%lld", (long long)json_integer_value(slots));
        spaces(screen, 1);
        put_right(screen, slots != NULL ? text : "", columns->slots);
    }
    spaces(screen, 1);
    paint(screen, packets > 0 ? "" : DIM);
    put_right(screen, pk_top_number(packets, text), NUMBER_WIDTH);
    spaces(screen, 1);
    put_right(screen, pk_top_number(real_or(row, "bitsPerSecond", -1), text), NUMBER_WIDTH);
    spaces(screen, 1);
    paint(screen, lost > 0 ? PLAIN RED BOLD : DIM);
    put_right(screen, pk_top_number(lost, text), NUMBER_WIDTH);
    spaces(screen, 1);
    put_share(row, text);
    put_right(screen, text, NUMBER_WIDTH);
    paint(screen, PLAIN);
    if (columns->history > 0) {
        spaces(screen, 1);
        paint(screen, lost > 0 ? RED : CYAN);
        put_history(screen, json_object_get(histories, pk_json_string_or(row, "key", "")),
                    columns->history);
    }
    end_line(screen);
}

static void put_titles(struct screen *screen, const struct columns *columns)
{
    paint(screen, DIM);
    put_left(screen, "NAME", columns->name);
    if (columns->state > 0) {
        spaces(screen, 1);
        put_left(screen, "STATE", columns->state);
    }
    if (columns->slots > 0) {
        spaces(screen, 1);
        put_right(screen, "SLOTS", columns->slots);
    }
    static const char *const numbers[] = { "PKT/S", "BIT/S", "LOST/S", "LOST %" };
    for (size_t i = 0; i < PK_ARRAY_SIZE(numbers); i++) {
        spaces(screen, 1);
        put_right(screen, numbers[i], NUMBER_WIDTH);
    }
    if (columns->history > 0) {
        spaces(screen, 1);
        put_right(screen, columns->history < 24 ? "LATELY" : "PKT/S, NEWEST RIGHT",
                  columns->history);
    }
    end_line(screen);
}

/* ---- the rest of the screen ---- */

static void put_title(struct screen *screen)
{
    const struct pk_top_view *view = screen->view;
    char text[160];
    (void)snprintf(text, sizeof(text), " picket top  %.80s", view->title);
    paint(screen, INVERSE BOLD);
    put_left(screen, text, view->width);
    screen->column = 0;
    (void)pk_buf_puts(screen->out, "\r");
    (void)snprintf(text, sizeof(text), "%s%s ", view->busy_only ? "busy only  " : "",
                   view->paused ? "PAUSED" : "");
    unsigned len = (unsigned)strlen(text);
    if (len > 1 && len < view->width) {
        (void)pk_buf_printf(screen->out, "\033[%uC", view->width - len);
        screen->column = view->width - len;
        (void)put(screen, text, len);
    }
    paint(screen, PLAIN);
    (void)pk_buf_puts(screen->out, "\r\n");
    screen->column = 0;
}

static void put_sums(struct screen *screen, const json_t *rows)
{
    double packets = 0, bits = 0, lost = 0;
    size_t taps = 0, groups = 0, lanes = 0, i;
    const json_t *row;
    json_array_foreach(rows, i, row)
    {
        const char *kind = pk_json_string_or(row, "kind", "");
        bool is_tap = strcmp(kind, "tap") == 0, is_group = strcmp(kind, "group") == 0;
        taps += is_tap;
        groups += is_group;
        lanes += strcmp(kind, "lane") == 0;
        packets += is_tap ? real_or(row, "packetsPerSecond", 0) : 0;
        bits += is_tap ? real_or(row, "bitsPerSecond", 0) : 0;
        lost += is_tap || is_group ? real_or(row, "lostPerSecond", 0) : 0;
    }
    char text[160], in[16], speed[16], gone[16];
    (void)snprintf(text, sizeof(text),
                   " %zu tap%s  %zu group%s  %zu lane%s   in %s pkt/s  %s bit/s   ", taps,
                   taps == 1 ? "" : "s", groups, groups == 1 ? "" : "s", lanes,
                   lanes == 1 ? "" : "s", pk_top_number(packets, in), pk_top_number(bits, speed));
    (void)put(screen, text, screen->view->width);
    paint(screen, lost > 0 ? RED BOLD : GREEN);
    (void)snprintf(text, sizeof(text), "lost %s/s", pk_top_number(lost, gone));
    (void)put(screen, text, screen->view->width);
    end_line(screen);
}

static void put_keys(struct screen *screen)
{
    const struct pk_top_view *view = screen->view;
    char text[200];
    if (view->trouble[0] != '\0') {
        paint(screen, RED BOLD);
        (void)put(screen, view->trouble, view->width);
    } else {
        paint(screen, DIM);
        (void)snprintf(text, sizeof(text),
                       " q quit  h help  space %s  w p b l order (by %s)  i idle  arrows",
                       view->paused ? "go on" : "pause", pk_top_sort_name(view->sort));
        (void)put(screen, text, view->width);
    }
    paint(screen, PLAIN);
    (void)pk_buf_puts(screen->out, "\033[K");
}

static void put_help(struct screen *screen, unsigned lines)
{
    static const char *const help[] = {
        "  q, Ctrl-C   quit",
        "  space       pause; the counters go on",
        "  w p b l     order: of the way, by packets, by bits, by losses",
        "  i           leave out what has no packets",
        "  up, down    scroll; also j k, PgUp PgDn, Home End",
        "  h, ?        this help",
        "",
        "  PKT/S       tap: came in      tenant: its part of that",
        "              group: for it     lane: sent to it     tool: told by it",
        "  BIT/S       of these packets; tools tell none",
        "  LOST/S      at the interface, in the lane, in the tool; of a group: all",
        "  LOST %      of the packets of that row",
        "",
        "  What was lost, and why:  picket ledger",
    };
    for (unsigned i = 0; i < lines; i++) {
        if (i < PK_ARRAY_SIZE(help))
            (void)put(screen, help[i], screen->view->width);
        end_line(screen);
    }
}

static json_t *shown_rows(const struct pk_top_view *view, const json_t *rows)
{
    json_t *shown = json_array();
    size_t i;
    json_t *row;
    json_array_foreach(rows, i, row)
    {
        if (!view->busy_only || real_or(row, "packetsPerSecond", 0) > 0)
            (void)json_array_append(shown, row);
    }
    return shown;
}

int pk_top_draw(struct pk_top_view *view, const json_t *rows, const json_t *histories,
                struct pk_buf *out)
{
    struct screen screen = { .view = view, .out = out };
    unsigned lines = view->height > FIXED_LINES ? view->height - FIXED_LINES : 1;
    PK_JSON shown = shown_rows(view, rows);
    struct columns columns = columns_of(view->width, shown);
    size_t count = json_array_size(shown);
    view->first = PK_MIN(view->first, count > lines ? count - lines : 0);
    put_title(&screen);
    put_sums(&screen, rows);
    end_line(&screen);
    if (view->help) {
        put_help(&screen, lines + 1);
    } else {
        put_titles(&screen, &columns);
        for (size_t i = view->first; i < view->first + lines; i++) {
            if (i < count)
                put_row(&screen, &columns, json_array_get(shown, i), histories);
            else
                end_line(&screen);
        }
    }
    put_keys(&screen);
    return out->failed ? PK_E_NOMEM : 0;
}
