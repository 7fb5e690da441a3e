/* SPDX-License-Identifier: Apache-2.0 */
/* picket status: what runs, what it counts, and what is wrong with it. */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/json.h"
#include "base/str.h"
#include "base/time.h"
#include "cli/client.h"
#include "cli/commands.h"
#include "cli/supervisor.h"

#define GROUP_NAMES_MAX 4096u

struct status_args {
    bool watch;
    pk_nsec interval;
};
static const struct status_args defaults = { .interval = 2 * PK_NSEC_PER_SEC };
static const struct pk_opt opts[] = {
    { "watch", 'w', PK_OPT_FLAG, NULL, offsetof(struct status_args, watch),
      "print again and again, with rates", NULL },
    { "interval", 0, PK_OPT_DURATION, "SPAN", offsetof(struct status_args, interval),
      "how often, with --watch (2s)", NULL },
};

static const struct pk_table_column tap_columns[] = {
    { "TAP", "name", 1, false, NULL },
    { "KIND", "kind", 3, false, NULL },
    { "INTERFACE", "interface", 1, false, NULL },
    { "STATE", "state", 1, false, "state" },
    { "MODE", "mode", 0, false, NULL },
    { "GROUPS", "groupNames", 3, false, NULL, .free_text = true },
    { "PACKETS", "packets", 1, true, NULL },
    { "BYTES", "bytes", 2, true, "bytes" },
    { "LOST", "lost", 1, true, NULL },
    { "UNCLAIMED", "counters.unclaimed", 0, true, NULL },
    { "PACKETS/S", "rate", 2, true, "count" },
};
/* Of inline taps: one row for each direction. */
static const struct pk_table_column inline_columns[] = {
    { "INLINE", "name", 1, false, NULL },
    { "STATE", "state", 1, false, NULL },
    { "SINCE", "since", 3, false, NULL },
    { "FROM", "from", 1, false, NULL },
    { "TO", "to", 1, false, NULL },
    { "PACKETS", "packets", 1, true, NULL },
    { "THROUGH", "returned", 1, true, NULL },
    { "TOOL DROPPED", "toolDropped", 1, true, NULL },
    { "BYPASSED", "bypassed", 1, true, NULL },
    { "BLOCKED", "blocked", 2, true, NULL },
    { "LOST", "lost", 1, true, NULL },
    { "PACKETS/S", "rate", 2, true, "count" },
};
static const struct pk_table_column tenant_columns[] = {
    { "TENANT", "name", 1, false, NULL },
    { "TAP", "tap", 1, false, NULL },
    { "GROUPS", "groupNames", 1, false, NULL, .free_text = true },
    { "PACKETS", "packets", 1, true, NULL },
    { "BYTES", "bytes", 2, true, "bytes" },
    { "PACKETS/S", "rate", 2, true, "count" },
};
static const struct pk_table_column group_columns[] = {
    { "GROUP", "name", 1, false, NULL },
    { "TENANT", "tenant", 1, false, NULL },
    { "PACKETS", "counters.packets", 1, true, NULL },
    { "FILTERED", "counters.filtered", 2, true, NULL },
    { "SHUNTED", "counters.shunted", 3, true, NULL },
    { "SHED", "counters.shed", 2, true, NULL },
    { "YIELDED", "counters.yielded", 3, true, NULL },
    { "OVERLOAD", "overloadNow", 2, false, NULL },
    { "SENT", "counters.sent", 1, true, NULL },
    { "NOT SENT", "lost", 1, true, NULL },
    { "PRIORITY", "priority", 0, true, NULL },
    { "PACKETS/S", "rate", 2, true, "count" },
};
static const struct pk_table_column lane_columns[] = {
    { "LANE / TOOL", "name", 1, false, NULL }, { "VERSION", "version", 3, false, NULL },
    { "STATE", "state", 1, false, "state" },   { "SLOTS", "slots", 3, true, NULL },
    { "PACKETS", "packets", 1, true, NULL },   { "BYTES", "bytes", 2, true, "bytes" },
    { "DROPPED", "dropped", 1, true, NULL },   { "RESTARTS", "restarts", 2, true, NULL },
    { "PACKETS/S", "rate", 2, true, "count" },
};

/* Counters of the last round by name, for the rates of --watch. */
struct watch {
    bool on;
    json_t *last; /* {"tap/x": packets, ...} */
    pk_nsec last_at, now;
};

static void add_rate(struct watch *watch, json_t *counters, const char *kind, const char *name,
                     json_t *row)
{
    const json_t *packets = json_object_get(row, "packets");
    if (!watch->on || !json_is_integer(packets))
        return;
    PK_CLEANUP(pk_free_p) char *key = pk_asprintf("%s %s", kind, name);
    if (key == NULL)
        return;
    json_int_t now = json_integer_value(packets);
    (void)json_object_set_new(counters, key, json_integer(now));
    const json_t *last = json_object_get(watch->last, key);
    double seconds = (double)(watch->now - watch->last_at) / (double)PK_NSEC_PER_SEC;
    /* A counter that went back belongs to a tool that was restarted. */
    if (last == NULL || seconds <= 0 || now < json_integer_value(last))
        return;
    double rate = (double)(now - json_integer_value(last)) / seconds;
    (void)json_object_set_new(row, "rate", json_integer((json_int_t)(rate + 0.5)));
}

/* The names of the groups that get what the tenant ("" = none) sends on the tap; tenant NULL: all
 * groups of the tap. pk_free(). */
static char *group_names(const json_t *tap, const char *tenant)
{
    PK_CLEANUP(pk_buf_done) struct pk_buf out = PK_BUF_INIT(GROUP_NAMES_MAX);
    size_t i;
    json_t *group;
    json_array_foreach(json_object_get(tap, "groups"), i, group)
    {
        if (tenant == NULL || strcmp(pk_json_string_or(group, "tenant", ""), tenant) == 0)
            (void)pk_buf_printf(&out, "%s%s", out.len > 0 ? ", " : "",
                                pk_json_string_or(group, "name", ""));
    }
    return out.len > 0 ? pk_buf_take(&out) : pk_strdup("nobody");
}

static void set_group_names(json_t *row, const json_t *tap, const char *tenant)
{
    PK_CLEANUP(pk_free_p) char *names = group_names(tap, tenant);
    if (names != NULL)
        (void)json_object_set_new(row, "groupNames", json_string(names));
}

/* One row for each tenant of each tap; none when the fleet has no tenants. */
static json_t *tenant_rows(struct watch *watch, json_t *counters, const json_t *status)
{
    json_t *rows = json_array();
    size_t t, i;
    json_t *tap, *tenant;
    json_array_foreach(json_object_get(status, "taps"), t, tap)
    {
        const char *tap_name = pk_json_string_or(tap, "name", "");
        const json_t *tenants = json_object_get(tap, "tenants");
        json_array_foreach(tenants, i, tenant)
        {
            const char *name = pk_json_string_or(tenant, "name", "");
            PK_CLEANUP(pk_free_p) char *key = pk_asprintf("%s %s", tap_name, name);
            json_t *row =
                name[0] == '\0' && json_array_size(tenants) == 1 ? NULL : json_copy(tenant);
            if (row == NULL || key == NULL) {
                json_decref(row);
                continue;
            }
            (void)json_object_set_new(row, "tap", json_string(tap_name));
            set_group_names(row, tap, name);
            add_rate(watch, counters, "tenant", key, row);
            if (name[0] == '\0')
                (void)json_object_set_new(row, "name", json_string("(none)"));
            (void)json_array_append_new(rows, row);
        }
    }
    return rows;
}

/* What is done now because its lanes cannot take all; false: nothing. */
static bool set_overload(json_t *row, const json_t *overload)
{
    const char *state = pk_json_string_or(overload, "state", "none");
    double share = json_number_value(json_object_get(overload, "shedShare"));
    if (strcmp(state, "none") == 0)
        return false;
    PK_CLEANUP(pk_free_p)
    char *text = share > 0 ? pk_asprintf("sheds %.1f %%", 100 * share) : pk_strdup("shunts");
    if (text != NULL)
        (void)json_object_set_new(row, "overloadNow", json_string(text));
    return true;
}

/* One row for each group, where there is more to tell than its lanes do: several groups, tenants,
 * packets that do not go to its lanes. */
static json_t *group_rows(struct watch *watch, json_t *counters, const json_t *status)
{
    const json_t *groups = json_object_get(status, "groups");
    bool told = json_array_size(groups) > 1;
    json_t *rows = json_array();
    size_t i;
    json_t *group;
    json_array_foreach(groups, i, group)
    {
        json_t *row = json_copy(group);
        const json_t *count = json_object_get(group, "counters");
        if (row == NULL)
            continue;
        (void)json_object_del(row, "lanes");
        json_int_t lost = pk_json_int_or(count, "noLane", 0) + pk_json_int_or(count, "notSent", 0);
        (void)json_object_set_new(row, "lost", json_integer(lost));
        (void)json_object_set(row, "packets", json_object_get(count, "packets"));
        add_rate(watch, counters, "group", pk_json_string_or(group, "name", ""), row);
        told = told || pk_json_string_or(group, "tenant", "")[0] != '\0' || lost > 0 ||
               pk_json_int_or(count, "filtered", 0) > 0 ||
               pk_json_int_or(count, "shunted", 0) > 0 || pk_json_int_or(count, "shed", 0) > 0 ||
               pk_json_int_or(count, "yielded", 0) > 0;
        told |= set_overload(row, json_object_get(group, "overload"));
        (void)json_array_append_new(rows, row);
    }
    if (!told)
        (void)json_array_clear(rows);
    return rows;
}

static json_t *tap_rows(struct watch *watch, json_t *counters, const json_t *status)
{
    json_t *rows = json_array();
    size_t i;
    json_t *tap;
    json_array_foreach(json_object_get(status, "taps"), i, tap)
    {
        json_t *row = json_copy(tap);
        if (row == NULL)
            continue;
        set_group_names(row, tap, NULL);
        json_int_t left_out = pk_json_int_or(tap, "counters.unclaimed", 0) +
                              pk_json_int_or(tap, "reasons.unwanted", 0);
        json_int_t lost = pk_json_int_or(tap, "dropped", 0) - left_out;
        (void)json_object_set_new(row, "lost", json_integer(PK_MAX(lost, 0)));
        add_rate(watch, counters, "tap", pk_json_string_or(row, "name", ""), row);
        (void)json_array_append_new(rows, row);
    }
    return rows;
}

/* One word for how a lane fares: what is wrong with it, else what is done with it. */
static void set_lane_state(json_t *row)
{
    const json_t *drain = json_object_get(row, "drain");
    const char *health = pk_json_string_or(row, "health", "");
    if (strcmp(pk_json_string_or(row, "state", ""), "ready") != 0)
        return;
    if (strcmp(health, "slow") == 0 || strcmp(health, "silent") == 0 ||
        strcmp(health, "stalled") == 0)
        (void)json_object_set_new(row, "state", json_string(health));
    else if (pk_json_bool_or(drain, "leaving", false))
        (void)json_object_set(row, "state", json_object_get(drain, "state"));
}

static json_t *inline_rows(struct watch *watch, json_t *counters, const json_t *status)
{
    static const char *const losses[] = { "ringDropped", "unread", "notSent" };
    json_t *rows = json_array();
    size_t t, i;
    json_t *tap, *way;
    json_array_foreach(json_object_get(status, "taps"), t, tap)
    {
        const json_t *through = json_object_get(tap, "inline");
        const char *name = pk_json_string_or(tap, "name", "");
        json_array_foreach(json_object_get(through, "directions"), i, way)
        {
            PK_CLEANUP(pk_free_p) char *key = pk_asprintf("%s %zu", name, i);
            json_t *row = json_copy(way);
            if (row == NULL || key == NULL) {
                json_decref(row);
                continue;
            }
            int64_t lost = 0;
            for (size_t k = 0; k < PK_ARRAY_SIZE(losses); k++)
                lost += pk_json_int_or(way, losses[k], 0);
            add_rate(watch, counters, "inline", key, row);
            (void)json_object_set_new(row, "name", json_string(name));
            (void)json_object_set_new(row, "lost", json_integer(lost));
            (void)json_object_set(row, "state", json_object_get(through, "state"));
            (void)json_object_set(row, "since", json_object_get(through, "since"));
            (void)json_array_append_new(rows, row);
        }
    }
    return rows;
}

static json_t *lane_rows(struct watch *watch, json_t *counters, const json_t *status)
{
    json_t *rows = json_array();
    size_t g, l, t;
    json_t *group, *lane, *tool;
    json_array_foreach(json_object_get(status, "groups"), g, group)
        json_array_foreach(json_object_get(group, "lanes"), l, lane)
    {
        const char *name = pk_json_string_or(lane, "name", "");
        json_t *row = json_copy(lane);
        set_lane_state(row);
        if (row == NULL)
            continue;
        (void)json_object_del(row, "tools");
        add_rate(watch, counters, "lane", name, row);
        (void)json_array_append_new(rows, row);
        json_array_foreach(json_object_get(lane, "tools"), t, tool)
        {
            const char *tool_name = pk_json_string_or(tool, "name", "");
            PK_CLEANUP(pk_free_p) char *full = pk_asprintf("%s/%s", name, tool_name);
            PK_CLEANUP(pk_free_p) char *shown = pk_asprintf("  %s", tool_name);
            row = json_copy(tool);
            if (full == NULL || shown == NULL || row == NULL) {
                json_decref(row);
                continue;
            }
            (void)json_object_set_new(row, "name", json_string(shown));
            add_rate(watch, counters, "tool", full, row);
            (void)json_array_append_new(rows, row);
        }
    }
    return rows;
}

static void print_line(const char *before, const char *text)
{
    printf("%s", before);
    pk_print_clean(stdout, text);
    printf("\n");
}

/* Under the taps: how their interfaces are set up, and what they cannot do. */
static void print_setups(const struct pk_ctx *ctx, const json_t *status)
{
    static const char *const lists[] = { "setup.set", "setup.cannot" };
    size_t i;
    json_t *tap;
    json_array_foreach(json_object_get(status, "taps"), i, tap)
    {
        for (size_t l = 0; l < PK_ARRAY_SIZE(lists); l++) {
            const json_t *settings = pk_json_at(tap, lists[l]);
            if (json_array_size(settings) == 0)
                continue;
            printf("\n");
            pk_print_clean(stdout, pk_json_string_or(tap, "name", ""));
            printf(l == 0 ? ": set up until it goes\n" : ": cannot be set up\n");
            pk_print_settings(ctx, settings, 2);
        }
    }
}

/* The reasons in words; then what was tried about them and failed, with what to do. */
static void print_troubles(const struct pk_ctx *ctx, const json_t *status)
{
    const json_t *reasons = json_object_get(status, "reasons");
    size_t i;
    json_t *row;
    if (json_array_size(reasons) == 0)
        return;
    printf("\n%sWhy it is not converged%s\n", pk_color(ctx, "red"), pk_color(ctx, NULL));
    json_array_foreach(reasons, i, row)
    {
        print_line("  ", json_string_value(row) == NULL ? "" : json_string_value(row));
    }
    static const char *const peers[] = { "engine", "agent" };
    for (i = 0; i < PK_ARRAY_SIZE(peers); i++) {
        const char *hint = pk_json_string_or(json_object_get(status, peers[i]), "error.hint", "");
        if (hint[0] != '\0')
            print_line("  hint: ", hint);
    }
    json_array_foreach(json_object_get(status, "drift"), i, row)
    {
        const char *hint = pk_json_string_or(row, "error.hint", "");
        if (json_object_get(row, "error") == NULL)
            continue;
        printf("  tried %lld times, next in %.1f s: ", (long long)pk_json_int_or(row, "tries", 0),
               (double)pk_json_int_or(row, "nextTryInMs", 0) / 1000.0);
        print_line("", pk_json_string_or(row, "error.message", ""));
        if (hint[0] != '\0')
            print_line("    hint: ", hint);
    }
}

/* The supervisor looks now and then, so its file may be behind. */
static bool is_ready_by_now(const struct pk_ctx *ctx, const char *engine, const json_t *row)
{
    struct pk_service services[PK_SERVICES_MAX];
    size_t count = pk_services(engine, services);
    for (size_t i = 0; i < count; i++)
        if (strcmp(services[i].name, pk_json_string_or(row, "name", "")) == 0)
            return services[i].socket != NULL && pk_service_ready(&ctx->paths, &services[i]);
    return false;
}

/* Processes that 'picket up' looks after and that do not answer. */
static void print_processes(const struct pk_ctx *ctx)
{
    PK_JSON state = pk_up_state(ctx);
    size_t i;
    json_t *row;
    json_array_foreach(json_object_get(state, "processes"), i, row)
    {
        const char *reason = pk_json_string_or(row, "reason", "");
        if (strcmp(pk_json_string_or(row, "state", ""), "ready") == 0 ||
            is_ready_by_now(ctx, pk_json_string_or(state, "engine", ""), row))
            continue;
        printf("\n%sprocess ", pk_color(ctx, "red"));
        pk_print_clean(stdout, pk_json_string_or(row, "name", ""));
        printf("%s does not answer (%lld restarts)%s", pk_color(ctx, NULL),
               (long long)pk_json_int_or(row, "restarts", 0), reason[0] != '\0' ? ": " : "");
        pk_print_clean(stdout, reason);
        printf("\n  hint: ");
        pk_print_clean(stdout, pk_json_string_or(row, "log", ""));
        printf(" says more\n");
    }
}

/* A table that is left out, with the line before it, when it is empty. */
static int print_part(const struct pk_ctx *ctx, const json_t *rows,
                      const struct pk_table_column *columns, size_t count, struct pk_error *err)
{
    if (json_array_size(rows) == 0)
        return 0;
    printf("\n");
    return pk_out_table(ctx, NULL, rows, columns, count, "name", err);
}

static int print_status(const struct pk_ctx *ctx, struct watch *watch, json_t *counters,
                        const json_t *status, struct pk_error *err)
{
    const char *state = pk_json_string_or(status, "state", "");
    const char *color = strcmp(state, "converged") == 0  ? "green"
                        : strcmp(state, "applying") == 0 ? "yellow"
                                                         : "red";
    printf("%sfleet ", pk_color(ctx, "bold"));
    pk_print_clean(stdout, pk_json_string_or(status, "fleet", ""));
    printf("%s  revision %lld  %s", pk_color(ctx, NULL),
           (long long)pk_json_int_or(status, "revision", 0), pk_color(ctx, color));
    pk_print_clean(stdout, state);
    printf("%s\n", pk_color(ctx, NULL));
    PK_JSON taps = tap_rows(watch, counters, status);
    PK_JSON pairs = inline_rows(watch, counters, status);
    PK_JSON tenants = tenant_rows(watch, counters, status);
    PK_JSON groups = group_rows(watch, counters, status);
    PK_JSON lanes = lane_rows(watch, counters, status);
    /* The rate's column is the last: it only comes with --watch. */
    size_t hidden = watch->on ? 0 : 1;
    int r = print_part(ctx, taps, tap_columns, PK_ARRAY_SIZE(tap_columns) - hidden, err);
    if (r >= 0)
        print_setups(ctx, status);
    if (r >= 0)
        r = print_part(ctx, pairs, inline_columns, PK_ARRAY_SIZE(inline_columns) - hidden, err);
    if (r >= 0)
        r = print_part(ctx, tenants, tenant_columns, PK_ARRAY_SIZE(tenant_columns) - hidden, err);
    if (r >= 0)
        r = print_part(ctx, groups, group_columns, PK_ARRAY_SIZE(group_columns) - hidden, err);
    printf("\n");
    if (r >= 0)
        r = pk_out_table(ctx, NULL, lanes, lane_columns, PK_ARRAY_SIZE(lane_columns) - hidden,
                         "name", err);
    if (r < 0)
        return r;
    printf("\nevents  %lld received, %lld stored, %lld lost\n",
           (long long)pk_json_int_or(status, "events.received", 0),
           (long long)pk_json_int_or(status, "events.stored", 0),
           (long long)pk_json_int_or(status, "events.lost", 0));
    print_troubles(ctx, status);
    return 0;
}

/* One status, or the list of all. */
static int get_all(const struct pk_ctx *ctx, struct pk_http_client *client, const char *given,
                   json_t **ret_list, struct pk_error *err)
{
    PK_JSON list = json_array();
    PK_JSON answer = NULL;
    PK_JSON names = NULL;
    int r = 0;
    if (given != NULL) {
        names = json_pack("[s]", given);
    } else {
        r = pk_client_json(ctx, client, "GET", "/v1/fleets", NULL, &answer, err);
        names = json_incref(json_object_get(answer, "fleets"));
    }
    size_t i;
    json_t *name;
    json_array_foreach(names, i, name)
    {
        if (r < 0)
            break;
        PK_CLEANUP(pk_free_p) char *escaped = pk_url_escape(json_string_value(name));
        json_t *status = NULL;
        if (escaped == NULL)
            return pk_no_memory(err);
        r = pk_client_status(ctx, client, escaped, &status, err);
        if (r >= 0 && json_array_append_new(list, status) < 0)
            r = pk_no_memory(err);
        else if (r == PK_E_NOTFOUND && given == NULL)
            r = 0; /* deleted since the list was made */
    }
    if (r < 0)
        return r;
    *ret_list = PK_TAKE(list);
    return 0;
}

static int print_all(const struct pk_ctx *ctx, struct watch *watch, const json_t *list,
                     struct pk_error *err)
{
    size_t count = json_array_size(list), i;
    json_t *status;
    if (ctx->output == PK_OUT_JSON || ctx->output == PK_OUT_YAML) {
        if (count == 1)
            return pk_out_document(ctx, json_array_get(list, 0), err);
        PK_JSON document = json_pack("{s:s,s:s,s:O}", "apiVersion", "picket.dev/v1alpha1", "kind",
                                     "StatusList", "items", list);
        return pk_out_document(ctx, document, err);
    }
    if (ctx->output == PK_OUT_NAME) {
        json_array_foreach(list, i, status)
        {
            printf("%s\n", pk_json_string_or(status, "fleet", ""));
        }
        return 0;
    }
    if (count == 0)
        printf("No fleet runs here. 'picket apply FLEET.yaml' starts one.\n");
    PK_JSON counters = json_object();
    int r = 0;
    json_array_foreach(list, i, status)
    {
        if (i > 0)
            printf("\n");
        if (r >= 0)
            r = print_status(ctx, watch, counters, status, err);
    }
    print_processes(ctx);
    json_decref(watch->last);
    watch->last = PK_TAKE(counters);
    watch->last_at = watch->now;
    return r;
}

static volatile sig_atomic_t interrupted;

static void on_interrupt(int signo)
{
    (void)signo;
    interrupted = 1;
}

static int run(struct pk_ctx *ctx, const void *args, int argc, char **argv, struct pk_error *err)
{
    const struct status_args *options = args;
    struct watch watch = { .on = options->watch };
    PK_CLEANUP(pk_http_client_free_p) struct pk_http_client *client = NULL;
    int r = pk_ctx_client(ctx, &client, err);
    if (r < 0)
        return r;
    if (options->watch) {
        struct sigaction action = { .sa_handler = on_interrupt };
        action.sa_flags = (int)SA_RESETHAND;
        (void)sigaction(SIGINT, &action, NULL);
    }
    do {
        PK_JSON list = NULL;
        watch.now = pk_time_monotonic();
        r = get_all(ctx, client, argc > 0 ? argv[0] : NULL, &list, err);
        if (r < 0 || interrupted)
            break;
        bool clear = options->watch && ctx->tty && ctx->output <= PK_OUT_WIDE;
        if (clear)
            printf("\033[H\033[J");
        r = print_all(ctx, &watch, list, err);
        if (options->watch && ctx->output <= PK_OUT_WIDE && !clear)
            printf("\n");
        (void)fflush(stdout);
        for (pk_nsec slept = 0; options->watch && !interrupted && slept < options->interval;
             slept += 100 * PK_NSEC_PER_MS)
            pk_sleep_ms(100);
    } while (r >= 0 && options->watch && !interrupted);
    json_decref(watch.last);
    return interrupted ? 0 : r; /* Ctrl-C is how a watch ends */
}

static const struct pk_arg fleet_pos[] = {
    { "FLEET", "only this one", "fleet", true, false },
};
static const char *const examples[] = { "picket status", "picket status --watch",
                                        "picket status border -o json", NULL };
const struct pk_cmd pk_cmd_status = {
    .name = "status",
    .group = "Look",
    .summary = "show taps, lanes and tools with their counters, and what is wrong",
    .details = "The state is 'converged' when what runs is what the newest revision says, "
               "'applying' while a change is carried out, else 'degraded', and then the reasons "
               "are given. -o json prints the document that scripts rely on.",
    .examples = examples,
    .opts = opts,
    .opt_count = PK_ARRAY_SIZE(opts),
    .args = fleet_pos,
    .arg_count = PK_ARRAY_SIZE(fleet_pos),
    .args_size = sizeof(struct status_args),
    .defaults = &defaults,
    .flags = PK_CMD_OUTPUT,
    .run = run,
};
