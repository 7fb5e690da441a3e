/* SPDX-License-Identifier: Apache-2.0 */
/* picket top: live rates of taps, tenants, groups, lanes and tools. */
#include <errno.h>
#include <langinfo.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/json.h"
#include "base/str.h"
#include "base/time.h"
#include "cli/client.h"
#include "cli/commands.h"
#include "cli/top.h"

#define SCREEN_MAX   (1u << 20)
#define RETRY_MS     100u
#define INTERVAL_MIN (200 * PK_NSEC_PER_MS)

struct top_args {
    pk_nsec interval;
    uint64_t count;
    const char *sort;
};
static const struct top_args defaults = { .interval = PK_NSEC_PER_SEC, .sort = "way" };
static const struct pk_opt opts[] = {
    { "interval", 0, PK_OPT_DURATION, "SPAN", offsetof(struct top_args, interval), "how often (1s)",
      NULL },
    { "count", 'n', PK_OPT_UINT, "N", offsetof(struct top_args, count),
      "end after so many (0 = never)", NULL },
    { "sort", 0, PK_OPT_CHOICE, "way|packets|bits|loss", offsetof(struct top_args, sort),
      "order within each tap and group (way)", NULL },
};

struct top {
    struct pk_ctx *ctx;
    struct pk_http_client *client;
    const char *fleet;    /* as given, or NULL = all */
    json_t *before, *now; /* fleet -> ledger */
    json_t *histories;
    json_t *rows;
    struct pk_top_view view;
    char title[128];
    char trouble[256];
};

/* ---- what there is to show ---- */

static int get_ledger(struct top *top, const char *name, json_t **ret_ledger, struct pk_error *err)
{
    PK_CLEANUP(pk_free_p) char *escaped = pk_url_escape(name);
    PK_CLEANUP(pk_free_p)
    char *path = escaped != NULL ? pk_asprintf("/v1/fleets/%s/ledger", escaped) : NULL;
    if (path == NULL)
        return pk_no_memory(err);
    return pk_client_json(top->ctx, top->client, "GET", path, NULL, ret_ledger, err);
}

static int get_all(struct top *top, json_t **ret_ledgers, struct pk_error *err)
{
    PK_JSON answer = NULL;
    PK_JSON names = NULL;
    PK_JSON ledgers = json_object();
    int r = 0;
    if (top->fleet != NULL) {
        names = json_pack("[s]", top->fleet);
    } else {
        r = pk_client_json(top->ctx, top->client, "GET", "/v1/fleets", NULL, &answer, err);
        names = json_incref(json_object_get(answer, "fleets"));
    }
    size_t i;
    const json_t *name;
    json_array_foreach(names, i, name)
    {
        json_t *ledger = NULL;
        if (r < 0 || !json_is_string(name))
            break;
        r = get_ledger(top, json_string_value(name), &ledger, err);
        if (r == PK_E_NOTFOUND && top->fleet == NULL)
            r = 0; /* removed since, or nothing of it is counted yet */
        else if (r >= 0 && json_object_set_new(ledgers, json_string_value(name), ledger) < 0)
            r = pk_no_memory(err);
    }
    if (r < 0)
        return r;
    *ret_ledgers = PK_TAKE(ledgers);
    return 0;
}

static bool is_newer(const json_t *before, const json_t *now)
{
    const char *fleet;
    json_t *ledger;
    json_object_foreach((json_t *)(uintptr_t)now, fleet, ledger)
    {
        const json_t *old = json_object_get(before, fleet);
        if (old == NULL ||
            strcmp(pk_json_string_or(old, "at", ""), pk_json_string_or(ledger, "at", "")) != 0)
            return true;
    }
    return json_object_size(now) != json_object_size(before);
}

static int make_rows(struct top *top, struct pk_error *err)
{
    PK_JSON rows = json_array();
    const char *fleet;
    json_t *ledger;
    json_object_foreach(top->now, fleet, ledger)
    {
        PK_JSON part = pk_top_rows(json_object_get(top->before, fleet), ledger, top->view.sort);
        if (part == NULL || json_array_extend(rows, part) < 0)
            return pk_no_memory(err);
    }
    json_decref(top->rows);
    top->rows = PK_TAKE(rows);
    return 0;
}

/* Takes what is newer than what is shown. 1 = there was something. */
static int refresh(struct top *top, struct pk_error *err)
{
    json_t *ledgers = NULL;
    int r = get_all(top, &ledgers, err);
    if (r < 0)
        return r;
    if (!is_newer(top->now, ledgers)) {
        json_decref(ledgers);
        return 0;
    }
    json_decref(top->before);
    top->before = top->now;
    top->now = ledgers;
    r = make_rows(top, err);
    if (r == 0 && pk_top_remember(top->histories, top->rows) < 0)
        r = pk_no_memory(err);
    return r < 0 ? r : 1;
}

static void set_title(struct top *top)
{
    const char *fleet, *name = "", *at = "";
    json_t *ledger;
    size_t count = json_object_size(top->now);
    json_object_foreach(top->now, fleet, ledger)
    {
        name = fleet;
        at = pk_json_string_or(ledger, "at", "");
    }
    if (count > 1)
        (void)snprintf(top->title, sizeof(top->title), "%zu fleets  %.8sZ", count,
                       strlen(at) > 19 ? at + 11 : "");
    else if (count == 1)
        (void)snprintf(top->title, sizeof(top->title), "%.63s  %.8sZ", name,
                       strlen(at) > 19 ? at + 11 : "");
    else
        (void)snprintf(top->title, sizeof(top->title), "no fleet runs here");
    top->view.title = top->title;
    top->view.trouble = top->trouble;
}

/* ---- without a terminal: one table, or one JSON line, each time ---- */

static const struct pk_table_column columns[] = {
    { "FLEET", "fleet", 2, false, NULL },
    { "NAME", "shown", 1, false, NULL },
    { "STATE", "state", 1, false, "state" },
    { "SLOTS", "slots", 3, true, NULL },
    { "PACKETS/S", "packetsPerSecond", 1, true, "count" },
    { "BITS/S", "bitsPerSecond", 1, true, "count" },
    { "LOST/S", "lostPerSecond", 1, true, "count" },
    { "LOST %", "percent", 2, true, NULL },
    { "PACKETS", "packets", 0, true, NULL },
    { "LOST", "lost", 0, true, NULL },
};

static int print_json(struct top *top, struct pk_error *err)
{
    const char *at = "", *fleet;
    json_t *ledger;
    json_object_foreach(top->now, fleet, ledger)
    {
        at = pk_json_string_or(ledger, "at", "");
    }
    PK_JSON line = json_pack("{s:s,s:s,s:s,s:O}", "apiVersion", "picket.dev/v1alpha1", "kind",
                             "Rates", "at", at, "rows", top->rows);
    PK_CLEANUP(pk_free_p) char *text = line != NULL ? pk_json_compact(line) : NULL;
    if (text == NULL)
        return pk_no_memory(err);
    printf("%s\n", text);
    return 0;
}

static int print_once(struct top *top, struct pk_error *err)
{
    if (top->ctx->output == PK_OUT_JSON)
        return print_json(top, err);
    size_t i;
    json_t *row;
    json_array_foreach(top->rows, i, row)
    {
        const char *kind = pk_json_string_or(row, "kind", "");
        bool is_tool = strcmp(kind, "tool") == 0;
        PK_CLEANUP(pk_free_p)
        char *shown = pk_asprintf("%*s%s%s%s", (int)pk_json_int_or(row, "depth", 0) * 2, "",
                                  is_tool ? "" : kind, is_tool ? "" : " ",
                                  pk_json_string_or(row, "name", ""));
        if (shown == NULL)
            return pk_no_memory(err);
        (void)json_object_set_new(row, "shown", json_string(shown));
        const json_t *share = json_object_get(row, "lostShare");
        if (share != NULL)
            (void)json_object_set_new(row, "percent", json_real(100 * json_real_value(share)));
    }
    return pk_out_table(top->ctx, NULL, top->rows, columns, PK_ARRAY_SIZE(columns), "key", err);
}

static volatile sig_atomic_t ended, resized, continued, stopped;

static void on_signal(int signo)
{
    if (signo == SIGWINCH)
        resized = 1;
    else if (signo == SIGCONT)
        continued = 1;
    else if (signo == SIGTSTP)
        stopped = 1;
    else
        ended = signo;
}

static void catch_signals(bool terminal)
{
    static const int ends[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT };
    struct sigaction action = { .sa_handler = on_signal };
    for (size_t i = 0; i < PK_ARRAY_SIZE(ends); i++)
        (void)sigaction(ends[i], &action, NULL);
    if (!terminal)
        return;
    (void)sigaction(SIGWINCH, &action, NULL);
    (void)sigaction(SIGCONT, &action, NULL);
    (void)sigaction(SIGTSTP, &action, NULL);
}

static int run_plain(struct top *top, const struct top_args *given, struct pk_error *err)
{
    uint64_t printed = 0;
    pk_nsec next = pk_time_monotonic();
    int r = 0;
    while (r >= 0 && !ended && (given->count == 0 || printed < given->count)) {
        r = refresh(top, err);
        /* Rates need two looks; the server's own come once a second. */
        if (r > 0 && top->before != NULL) {
            if (printed++ > 0 && top->ctx->output != PK_OUT_JSON)
                printf("\n");
            r = print_once(top, err);
            (void)fflush(stdout);
            next = PK_MAX(next + given->interval, pk_time_monotonic());
        }
        while (r >= 0 && !ended && pk_time_monotonic() < next && printed > 0)
            pk_sleep_ms(RETRY_MS / 2);
        if (r == 0)
            pk_sleep_ms(RETRY_MS);
    }
    return r < 0 ? r : 0;
}

/* ---- on a terminal ---- */

static struct termios before_us;
static bool entered;

static void leave(void)
{
    static const char text[] = "\033[?25h\033[?1049l\033[0m";
    if (!entered)
        return;
    entered = false;
    (void)tcsetattr(STDIN_FILENO, TCSAFLUSH, &before_us);
    if (write(STDOUT_FILENO, text, sizeof(text) - 1) < 0)
        return;
}

static int enter(struct pk_error *err)
{
    if (tcgetattr(STDIN_FILENO, &before_us) < 0)
        return pk_fail_errno(err, errno, "the terminal");
    struct termios raw = before_us;
    raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
    raw.c_cc[VMIN] = 0;
    raw.c_cc[VTIME] = 0;
    if (tcsetattr(STDIN_FILENO, TCSAFLUSH, &raw) < 0)
        return pk_fail_errno(err, errno, "the terminal");
    entered = true;
    printf("\033[?1049h\033[?25l\033[2J");
    (void)fflush(stdout);
    return 0;
}

/* Ctrl-Z: the terminal as it was, until we are brought back. */
static void stop_for_a_while(void)
{
    leave();
    (void)signal(SIGTSTP, SIG_DFL);
    (void)raise(SIGTSTP);
    catch_signals(true);
    (void)enter(NULL);
    stopped = continued = 0;
}

static void measure(struct top *top)
{
    struct winsize size;
    top->view.width = 80;
    top->view.height = 24;
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 && size.ws_row > 0) {
        top->view.width = PK_MAX(size.ws_col, 20u);
        top->view.height = PK_MAX(size.ws_row, 6u);
    }
}

static int draw(struct top *top, struct pk_error *err)
{
    PK_CLEANUP(pk_buf_done) struct pk_buf out = PK_BUF_INIT(SCREEN_MAX);
    set_title(top);
    (void)pk_buf_puts(&out, "\033[H");
    if (pk_top_draw(&top->view, top->rows, top->histories, &out) < 0)
        return pk_no_memory(err);
    (void)fwrite(out.data, 1, out.len, stdout);
    (void)fflush(stdout);
    return 0;
}

/* 0 = go on, 1 = quit. */
static int on_key(struct top *top, const char *keys, size_t len, struct pk_error *err)
{
    struct pk_top_view *view = &top->view;
    static const struct {
        const char *keys;
        long rows; /* to scroll; +-1000: a page, +-100000: to the end */
    } scrolls[] = {
        { "\033[A", -1 },       { "\033[B", 1 },      { "\033[5~", -1000 }, { "\033[6~", 1000 },
        { "\033[H", -100000 },  { "\033[F", 100000 }, { "k", -1 },          { "j", 1 },
        { "\033[1~", -100000 }, { "\033[4~", 100000 }
    };
    for (size_t at = 0; at < len;) {
        size_t used = 1;
        for (size_t i = 0; i < PK_ARRAY_SIZE(scrolls); i++) {
            size_t size = strlen(scrolls[i].keys);
            if (len - at < size || strncmp(keys + at, scrolls[i].keys, size) != 0)
                continue;
            long rows = scrolls[i].rows;
            if (rows == 1000 || rows == -1000)
                rows = rows / 1000 * (long)PK_MAX(view->height, 10u) / 2;
            long first = (long)view->first + rows;
            view->first = first > 0 ? (size_t)first : 0;
            used = size;
        }
        static const char orders[] = "wpbl";
        const char *order = keys[at] != '\0' ? strchr(orders, keys[at]) : NULL;
        if (keys[at] == 'q')
            return 1;
        if (keys[at] == ' ')
            view->paused = !view->paused;
        if (keys[at] == 'h' || keys[at] == '?')
            view->help = !view->help;
        if (keys[at] == 'i')
            view->busy_only = !view->busy_only;
        if (order != NULL && used == 1) {
            view->sort = (enum pk_top_sort)(order - orders);
            int r = make_rows(top, err);
            if (r < 0)
                return r;
        }
        at += used;
    }
    return 0;
}

/* Waits for a key or the deadline. 1 = quit. */
static int wait_for_key(struct top *top, pk_nsec until, struct pk_error *err)
{
    pk_nsec left = until - pk_time_monotonic();
    struct pollfd fd = { .fd = STDIN_FILENO, .events = POLLIN };
    char keys[64];
    if (poll(&fd, 1, (int)PK_MAX(left / PK_NSEC_PER_MS, 0)) <= 0)
        return 0;
    ssize_t len = read(STDIN_FILENO, keys, sizeof(keys));
    if (len <= 0)
        return (fd.revents & (POLLHUP | POLLERR | POLLNVAL)) != 0 || len == 0;
    int r = on_key(top, keys, (size_t)len, err);
    return r != 0 ? r : draw(top, err);
}

static int run_screen(struct top *top, const struct top_args *given, struct pk_error *err)
{
    uint64_t drawn = 0;
    int r = enter(err);
    if (r < 0)
        return r;
    (void)atexit(leave);
    pk_nsec next = pk_time_monotonic();
    measure(top);
    while (r == 0 && !ended && (given->count == 0 || drawn < given->count)) {
        if (stopped)
            stop_for_a_while();
        if (resized || continued) {
            resized = continued = 0;
            measure(top);
            printf("\033[2J");
            r = draw(top, err);
        }
        if (r == 0 && pk_time_monotonic() >= next) {
            struct pk_error trouble = { 0 };
            int got = top->view.paused ? 0 : refresh(top, &trouble);
            (void)snprintf(top->trouble, sizeof(top->trouble), "%s%.200s", got < 0 ? " " : "",
                           got < 0 ? trouble.msg : "");
            /* Nothing newer yet: the server looks once a second, so it comes soon. */
            pk_nsec pause =
                got == 0 && !top->view.paused ? RETRY_MS * PK_NSEC_PER_MS : given->interval;
            next = pk_time_monotonic() + pause;
            drawn += got > 0 && top->before != NULL;
            if (got != 0)
                r = draw(top, err);
        }
        if (r == 0)
            r = wait_for_key(top, next, err);
    }
    leave();
    return r < 0 ? r : 0;
}

static int run(struct pk_ctx *ctx, const void *args, int argc, char **argv, struct pk_error *err)
{
    const struct top_args *given = args;
    struct top top = { .ctx = ctx, .fleet = argc > 0 ? argv[0] : NULL };
    if (given->interval < INTERVAL_MIN) {
        (void)pk_fail(err, PK_E_USAGE, "--interval is at least 200ms");
        return pk_hint(err, "the counters are read once a second");
    }
    if (ctx->output == PK_OUT_YAML || ctx->output == PK_OUT_NAME) {
        (void)pk_fail(err, PK_E_USAGE, "top prints tables or JSON lines");
        return pk_hint(err, "use -o json, or 'picket ledger -o yaml' for one look");
    }
    PK_CLEANUP(pk_http_client_free_p) struct pk_http_client *client = NULL;
    int r = pk_ctx_client(ctx, &client, err);
    if (r < 0)
        return r;
    top.client = client;
    top.histories = json_object();
    top.rows = json_array();
    top.now = NULL;
    top.view.color = ctx->color;
    top.view.utf8 = strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
    for (enum pk_top_sort sort = PK_TOP_BY_WAY; sort <= PK_TOP_BY_LOSS; sort++)
        if (strcmp(given->sort, pk_top_sort_name(sort)) == 0)
            top.view.sort = sort;
    bool terminal = ctx->tty && isatty(STDIN_FILENO) && ctx->output <= PK_OUT_WIDE &&
                    !pk_str_equal(getenv("TERM"), "dumb");
    /* What is wrong from the start is told as of any command. */
    r = refresh(&top, err);
    if (r >= 0) {
        catch_signals(terminal);
        r = terminal ? run_screen(&top, given, err) : run_plain(&top, given, err);
    }
    json_decref(top.before);
    json_decref(top.now);
    json_decref(top.histories);
    json_decref(top.rows);
    return r;
}

static const struct pk_arg fleet_pos[] = {
    { "FLEET", "only this one", "fleet", true, false },
};
static const char *const examples[] = { "picket top", "picket top border --sort loss",
                                        "picket top -o json --count 10", NULL };
const struct pk_cmd pk_cmd_top = {
    .name = "top",
    .group = "Look",
    .summary = "show live rates of taps, tenants, groups, lanes and tools",
    .details =
        "On a terminal the screen is drawn anew each second: packets and bits per second, what is "
        "lost, and the last minute as a small curve. Keys: q quit, space pause, w p b l order (of "
        "the way, by packets, bits, losses), i leave out what is idle, arrows scroll, h help. Off "
        "a terminal a table is printed each time; -o json prints one document per line. What was "
        "lost, and why, is told by 'picket ledger'.",
    .examples = examples,
    .opts = opts,
    .opt_count = PK_ARRAY_SIZE(opts),
    .args = fleet_pos,
    .arg_count = PK_ARRAY_SIZE(fleet_pos),
    .args_size = sizeof(struct top_args),
    .defaults = &defaults,
    .flags = PK_CMD_OUTPUT,
    .run = run,
};
