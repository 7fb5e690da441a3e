/* SPDX-License-Identifier: Apache-2.0 */
/* picket ledger: where packets went, what was lost, where, why, and what to do about it. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/json.h"
#include "base/str.h"
#include "base/time.h"
#include "cli/client.h"
#include "cli/commands.h"
#include "cli/parse.h"

struct ledger_args {
    const char *tap, *group, *lane, *since;
    bool exit_code;
};
static const struct pk_opt opts[] = {
    { "tap", 0, PK_OPT_STRING, "TAP", offsetof(struct ledger_args, tap), "only this tap", "tap" },
    { "group", 0, PK_OPT_STRING, "GROUP", offsetof(struct ledger_args, group), "only this group",
      NULL },
    { "lane", 0, PK_OPT_STRING, "GROUP/N", offsetof(struct ledger_args, lane), "only this lane",
      NULL },
    { "since", 0, PK_OPT_STRING, "TIME", offsetof(struct ledger_args, since),
      "from then on: a time, or a span ago (1h, 2d)", NULL },
    { "exit-code", 0, PK_OPT_FLAG, NULL, offsetof(struct ledger_args, exit_code),
      "exit with 10 when packets were lost, or the sums do not add up", NULL },
};

static const struct pk_table_column way_columns[] = {
    { "WAY OF THE PACKETS", "name", 1, false, NULL },
    { "STATE", "state", 2, false, "state" },
    { "IN", "in", 1, true, "exact" },
    { "LEFT OUT", "leftOut", 2, true, "exact" },
    { "LOST", "lost", 1, true, "exact" },
    { "LOST %", "share", 2, true, NULL },
    { "DELIVERED", "delivered", 1, true, "exact" },
};

/* ---- what is asked for ---- */

static bool is_lane_of(const char *lane, const char *group)
{
    size_t len = strlen(group);
    return strncmp(lane, group, len) == 0 && lane[len] == '/';
}

/* "tap uplink", "group analysis", "lane analysis/0", "tool analysis/0/suricata" */
static bool is_wanted(const struct ledger_args *given, const char *where)
{
    const char *name = strchr(where, ' ');
    name = name != NULL ? name + 1 : where;
    bool is_tap = pk_str_starts(where, "tap "), is_group = pk_str_starts(where, "group ");
    if (given->tap != NULL)
        return is_tap && strcmp(name, given->tap) == 0;
    if (given->lane != NULL)
        return !is_tap && !is_group &&
               (strcmp(name, given->lane) == 0 || is_lane_of(name, given->lane));
    if (given->group != NULL)
        return !is_tap && (strcmp(name, given->group) == 0 || is_lane_of(name, given->group));
    return true;
}

/* Takes out of a list what was not asked for. Counts what stays. */
static size_t filter(const struct ledger_args *given, json_t *list, const char *kind,
                     const char *member)
{
    for (size_t i = json_array_size(list); i-- > 0;) {
        const char *name = pk_json_string_or(json_array_get(list, i), member, "");
        PK_CLEANUP(pk_free_p) char *where = pk_asprintf("%s%s", kind, name);
        if (where != NULL && !is_wanted(given, where))
            (void)json_array_remove(list, i);
    }
    return json_array_size(list);
}

static int apply_filters(const struct ledger_args *given, json_t *ledger, struct pk_error *err)
{
    size_t found = filter(given, json_object_get(ledger, "taps"), "tap ", "name");
    json_t *groups = json_object_get(ledger, "groups");
    for (size_t i = json_array_size(groups); i-- > 0;) {
        json_t *group = json_array_get(groups, i);
        size_t lanes = filter(given, json_object_get(group, "lanes"), "lane ", "name");
        const char *name = pk_json_string_or(group, "name", "");
        bool wanted =
            given->tap == NULL && (given->group == NULL || strcmp(name, given->group) == 0);
        if (!wanted || (given->lane != NULL && lanes == 0))
            (void)json_array_remove(groups, i);
        else
            found++;
    }
    (void)filter(given, json_object_get(ledger, "losses"), "", "where");
    if (found > 0 || (given->tap == NULL && given->group == NULL && given->lane == NULL))
        return 0;
    const char *what = given->tap != NULL ? "tap" : given->lane != NULL ? "lane" : "group";
    const char *name = given->tap != NULL    ? given->tap
                       : given->lane != NULL ? given->lane
                                             : given->group;
    (void)pk_fail(err, PK_E_NOTFOUND, "the ledger has no %s %s", what, name);
    return pk_hint(err, "'picket ledger' without it shows all; a lane is written GROUP/NUMBER");
}

/* ---- as people see it ---- */

/* 1234567 -> "1,234,567"; returns out. */
static const char *exact(int64_t number, char out[32])
{
    char digits[24];
    int len = snprintf(digits, sizeof(digits), "%" PRId64, number < 0 ? -number : number);
    size_t at = 0;
    if (number < 0)
        out[at++] = '-';
    for (int i = 0; i < len; i++) {
        if (i > 0 && (len - i) % 3 == 0)
            out[at++] = ',';
        out[at++] = digits[i];
    }
    out[at] = '\0';
    return out;
}

static void set_exact(json_t *row, const char *key, int64_t number)
{
    char text[32];
    (void)json_object_set_new(row, key, json_string(number == 0 ? "0" : exact(number, text)));
}

static void add_way(json_t *rows, unsigned depth, const char *kind, const json_t *thing,
                    const char *name, int64_t in, int64_t left_out, int64_t lost, int64_t delivered)
{
    PK_CLEANUP(pk_free_p) char *shown = pk_asprintf("%*s%s%s", (int)depth * 2, "", kind, name);
    json_t *row = json_object();
    if (row == NULL || shown == NULL) {
        json_decref(row);
        return;
    }
    (void)json_object_set_new(row, "name", json_string(shown));
    const char *state = pk_json_string_or(thing, "state", "");
    if (state[0] != '\0')
        (void)json_object_set_new(row, "state", json_string(state));
    set_exact(row, "in", in);
    if (left_out != 0)
        set_exact(row, "leftOut", left_out);
    set_exact(row, "lost", lost);
    set_exact(row, "delivered", delivered);
    char share[24];
    double part = in > 0 ? 100.0 * (double)lost / (double)in : 0;
    /* What is lost is not rounded away. */
    (void)snprintf(share, sizeof(share), lost > 0 && part < 0.001 ? "<0.001" : "%.3f", part);
    if (lost != 0)
        (void)json_object_set_new(row, "share", json_string(share));
    (void)json_array_append_new(rows, row);
}

static int64_t number(const json_t *row, const char *key)
{
    return pk_json_int_or(row, key, 0);
}

static void add_group(json_t *rows, const json_t *group)
{
    size_t i, j;
    const json_t *balance, *lane, *tool;
    json_array_foreach(json_object_get(group, "balances"), i, balance)
    {
        const char *for_tool = pk_json_string_or(balance, "tool", "");
        bool several = json_array_size(json_object_get(group, "balances")) > 1;
        PK_CLEANUP(pk_free_p)
        char *name = pk_asprintf("%s%s%s", pk_json_string_or(group, "name", ""),
                                 several ? " for " : "", several ? for_tool : "");
        add_way(rows, 0, "group ", group, name != NULL ? name : "", number(balance, "in"),
                number(balance, "leftOut"),
                number(balance, "lost") + number(balance, "unconfirmed"),
                number(balance, "delivered"));
    }
    json_array_foreach(json_object_get(group, "lanes"), i, lane)
    {
        add_way(rows, 1, "lane ", lane, pk_json_string_or(lane, "name", ""), number(lane, "sent"),
                0, number(lane, "lost"), number(lane, "handed"));
        json_array_foreach(json_object_get(lane, "tools"), j, tool)
        {
            add_way(rows, 2, "", tool, pk_json_string_or(tool, "name", ""), number(tool, "handed"),
                    0, number(tool, "dropped") + number(tool, "unconfirmed"),
                    number(tool, "delivered"));
        }
    }
}

static int print_way(const struct pk_ctx *ctx, const json_t *ledger, struct pk_error *err)
{
    PK_JSON rows = json_array();
    size_t i;
    const json_t *thing;
    json_array_foreach(json_object_get(ledger, "taps"), i, thing)
    {
        add_way(rows, 0, "tap ", thing, pk_json_string_or(thing, "name", ""), number(thing, "in"),
                number(json_object_get(thing, "balance"), "leftOut"),
                number(json_object_get(thing, "balance"), "lost"),
                number(json_object_get(thing, "balance"), "delivered"));
    }
    json_array_foreach(json_object_get(ledger, "groups"), i, thing)
    {
        add_group(rows, thing);
    }
    return pk_out_table(ctx, NULL, rows, way_columns, PK_ARRAY_SIZE(way_columns), "name", err);
}

/* Words filled into the terminal's width, every line indented. */
static void print_filled(const char *first, const char *text)
{
    unsigned indent = pk_text_width(first, strlen(first));
    unsigned width = PK_MAX(PK_MIN(pk_terminal_width(), 100u), indent + 20), at = indent;
    printf("%s", first);
    while (*text != '\0') {
        size_t len = strcspn(text, " ");
        unsigned word = pk_text_width(text, len);
        if (at > indent && at + 1 + word > width) {
            printf("\n%*s", (int)indent, "");
            at = indent;
        }
        printf("%s%.*s", at > indent ? " " : "", (int)len, text);
        at += word + (at > indent);
        text += len + strspn(text + len, " ");
    }
    printf("\n");
}

static void print_losses(const struct pk_ctx *ctx, const json_t *ledger)
{
    static const struct {
        const char *kind, *title, *color;
    } parts[] = {
        { "lost", "Lost", "red" },
        { "unconfirmed", "Unconfirmed (lost at most)", "yellow" },
        { "left-out", "Left out on purpose", "bold" },
        { "note", "Worth knowing (in no sum)", "bold" },
    };
    for (size_t part = 0; part < PK_ARRAY_SIZE(parts); part++) {
        bool titled = false;
        size_t i;
        const json_t *loss;
        json_array_foreach(json_object_get(ledger, "losses"), i, loss)
        {
            char text[32], share[32] = "";
            if (strcmp(pk_json_string_or(loss, "kind", ""), parts[part].kind) != 0)
                continue;
            if (!titled)
                printf("\n%s%s%s\n", pk_color(ctx, parts[part].color), parts[part].title,
                       pk_color(ctx, NULL));
            titled = true;
            double of = json_real_value(json_object_get(loss, "share"));
            if (of > 0)
                (void)snprintf(share, sizeof(share), of < 0.00001 ? " (<0.001 %%)" : " (%.3f %%)",
                               of * 100);
            const char *tenant = pk_json_string_or(loss, "tenant", "");
            printf("%s%14s%s  %s%s%s, %s%s: %s%s%s\n", pk_color(ctx, "bold"),
                   exact(number(loss, "packets"), text), pk_color(ctx, NULL),
                   pk_json_string_or(loss, "where", ""), tenant[0] != '\0' ? " of tenant " : "",
                   tenant, pk_json_string_or(loss, "place", ""), share, pk_color(ctx, "dim"),
                   pk_json_string_or(loss, "cause", ""), pk_color(ctx, NULL));
            print_filled("                ", pk_json_string_or(loss, "text", ""));
            print_filled("             -> ", pk_json_string_or(loss, "remedy", ""));
        }
    }
}

static void print_term(const char *sign, const char *what, int64_t packets, bool always)
{
    char text[32];
    if (packets != 0 || always)
        printf("%s%s %s", sign, exact(packets, text), what);
}

static void print_sum(const struct pk_ctx *ctx, const char *kind, const char *name,
                      const json_t *balance, bool several)
{
    bool adds_up = json_is_true(json_object_get(balance, "addsUp"));
    printf("%s%s %s%s%s%s: ", pk_color(ctx, adds_up ? "green" : "red"), kind, name,
           several ? " for " : "", several ? pk_json_string_or(balance, "tool", "") : "",
           pk_color(ctx, NULL));
    print_term("", "in = ", number(balance, "in"), true);
    print_term("", "delivered", number(balance, "delivered"), true);
    print_term(" + ", "left out", number(balance, "leftOut"), false);
    print_term(" + ", "lost", number(balance, "lost"), true);
    print_term(" + ", "unconfirmed", number(balance, "unconfirmed"), false);
    print_term(" + ", "under way", number(balance, "underWay"), false);
    print_term(" + ", "unexplained", number(balance, "unexplained"), !adds_up);
    printf("%s\n", adds_up ? "  adds up" : "");
    size_t i;
    const json_t *gap;
    char text[32];
    json_array_foreach(json_object_get(balance, "gaps"), i, gap)
    {
        printf("  %sunexplained: %s%s between %s\n", pk_color(ctx, "red"),
               exact(number(gap, "packets"), text), pk_color(ctx, NULL),
               pk_json_string_or(gap, "between", ""));
    }
}

static void print_sums(const struct pk_ctx *ctx, const struct ledger_args *given,
                       const json_t *ledger)
{
    if (given->lane != NULL) /* what adds up are taps and groups */
        return;
    size_t i, j;
    const json_t *row, *balance;
    printf("\n");
    json_array_foreach(json_object_get(ledger, "taps"), i, row)
    {
        print_sum(ctx, "tap", pk_json_string_or(row, "name", ""), json_object_get(row, "balance"),
                  false);
    }
    json_array_foreach(json_object_get(ledger, "groups"), i, row)
    {
        const json_t *balances = json_object_get(row, "balances");
        json_array_foreach(balances, j, balance)
        {
            print_sum(ctx, "group", pk_json_string_or(row, "name", ""), balance,
                      json_array_size(balances) > 1);
        }
    }
}

static int print_ledger(const struct pk_ctx *ctx, const struct ledger_args *given,
                        const json_t *ledger, struct pk_error *err)
{
    const char *since = pk_json_string_or(ledger, "since", "");
    const char *at = pk_json_string_or(ledger, "at", "");
    char span[40];
    pk_nsec from = 0, to = 0;
    (void)pk_time_parse(since, strlen(since), &from, NULL);
    (void)pk_time_parse(at, strlen(at), &to, NULL);
    printf("%sfleet %s%s  since %.19sZ (%s)\n\n", pk_color(ctx, "bold"),
           pk_json_string_or(ledger, "fleet", ""), pk_color(ctx, NULL), since,
           pk_human_duration(PK_MAX(to - from, 0), span, sizeof(span)));
    int r = print_way(ctx, ledger, err);
    if (r < 0)
        return r;
    print_losses(ctx, ledger);
    print_sums(ctx, given, ledger);
    return 0;
}

static bool has_losses(const json_t *ledger)
{
    size_t i;
    const json_t *loss;
    bool any = !json_is_true(json_object_get(ledger, "addsUp"));
    json_array_foreach(json_object_get(ledger, "losses"), i, loss)
    {
        const char *kind = pk_json_string_or(loss, "kind", "");
        any |= strcmp(kind, "lost") == 0 || strcmp(kind, "unconfirmed") == 0;
    }
    return any;
}

static int run(struct pk_ctx *ctx, const void *args, int argc, char **argv, struct pk_error *err)
{
    const struct ledger_args *given = args;
    PK_CLEANUP(pk_http_client_free_p) struct pk_http_client *client = NULL;
    PK_CLEANUP(pk_free_p) char *fleet = NULL;
    PK_CLEANUP(pk_free_p)
    char *since = pk_url_escape(given->since != NULL ? given->since : "");
    PK_JSON ledger = NULL;
    if (since == NULL)
        return pk_no_memory(err);
    if ((given->tap != NULL) + (given->group != NULL) + (given->lane != NULL) > 1) {
        (void)pk_fail(err, PK_E_USAGE, "--tap, --group and --lane exclude each other");
        return pk_hint(err, "give one of them");
    }
    int r = pk_ctx_client(ctx, &client, err);
    if (r >= 0)
        r = pk_client_fleet(ctx, client, argc > 0 ? argv[0] : NULL, &fleet, err);
    if (r < 0)
        return r;
    PK_CLEANUP(pk_free_p)
    char *path =
        pk_asprintf("/v1/fleets/%s/ledger%s%s", fleet, since[0] != '\0' ? "?since=" : "", since);
    if (path == NULL)
        return pk_no_memory(err);
    r = pk_client_json(ctx, client, "GET", path, NULL, &ledger, err);
    if (r >= 0)
        r = apply_filters(given, ledger, err);
    if (r < 0)
        return r;
    if (ctx->output == PK_OUT_JSON || ctx->output == PK_OUT_YAML)
        r = pk_out_document(ctx, ledger, err);
    else
        r = print_ledger(ctx, given, ledger, err);
    return r >= 0 && given->exit_code && has_losses(ledger) ? 10 : r;
}

static const struct pk_arg fleet_pos[] = {
    { "FLEET", "which fleet; may be left out when there is one", "fleet", true, false },
};
static const char *const examples[] = { "picket ledger", "picket ledger border --since 1h",
                                        "picket ledger --group analysis -o json", NULL };
const struct pk_cmd pk_cmd_ledger = {
    .name = "ledger",
    .group = "Look",
    .summary = "show where packets went: what was lost, where, why, and what to do",
    .details = "Joins the counters of interface, driver, tap, group, lane and tool into one table, "
               "tells each loss with its place, its cause and a remedy, and says for each tap and "
               "group whether what came in is what was delivered, left out and lost. What does "
               "not add up is told as unexplained. Samples are kept for each of the last 360 "
               "minutes and for each ten minutes of the last seven days.",
    .examples = examples,
    .opts = opts,
    .opt_count = PK_ARRAY_SIZE(opts),
    .args = fleet_pos,
    .arg_count = PK_ARRAY_SIZE(fleet_pos),
    .args_size = sizeof(struct ledger_args),
    .flags = PK_CMD_OUTPUT,
    .run = run,
};
