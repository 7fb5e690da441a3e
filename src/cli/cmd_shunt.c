/* SPDX-License-Identifier: Apache-2.0 */
/* picket shunt: flows of which a group is to see no more. */
#include <arpa/inet.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/json.h"
#include "cli/client.h"
#include "cli/commands.h"

#define PAGE      4096u
#define LIST_MOST 100000u /* what a list may ask for: it is held in memory */

struct shunt_args {
    const char *fleet, *group, *proto, *by;
    uint64_t keep, limit, top;
    pk_nsec ttl, idle;
    bool all;
};
#define FLEET_OPT                                                                 \
    {                                                                             \
        "fleet", 'f', PK_OPT_STRING, "FLEET", offsetof(struct shunt_args, fleet), \
            "the fleet (the only one there is)", "fleet"                          \
    }
#define GROUP_OPT(help_text)                                                                   \
    {                                                                                          \
        "group", 'g', PK_OPT_STRING, "GROUP", offsetof(struct shunt_args, group), (help_text), \
            NULL                                                                               \
    }
#define PROTO_OPT                                                                        \
    {                                                                                    \
        "proto", 'p', PK_OPT_CHOICE, "tcp|udp|sctp", offsetof(struct shunt_args, proto), \
            "the flow's protocol (tcp)", NULL                                            \
    }

/* The path of the fleet's shunts with what, a client and the fleet's name. */
static int begin(struct pk_ctx *ctx, const struct shunt_args *args, const char *what,
                 struct pk_http_client **ret_client, char **ret_path, struct pk_error *err)
{
    PK_CLEANUP(pk_http_client_free_p) struct pk_http_client *client = NULL;
    PK_CLEANUP(pk_free_p) char *fleet = NULL;
    int r = pk_ctx_client(ctx, &client, err);
    if (r == 0)
        r = pk_client_fleet(ctx, client, args->fleet, &fleet, err);
    if (r < 0)
        return r;
    PK_CLEANUP(pk_free_p) char *name = pk_url_escape(fleet);
    *ret_path = name != NULL ? pk_asprintf("/v1/fleets/%s/shunts%s", name, what) : NULL;
    if (*ret_path == NULL)
        return pk_no_memory(err);
    *ret_client = PK_TAKE(client);
    return 0;
}

/* ---- ends of flows ---- */

/* "192.0.2.1:443" or "[2001:db8::1]:443" -> address and port of the flow. */
static int add_end(json_t *flow, const char *text, const char *address_key, const char *port_key,
                   struct pk_error *err)
{
    const char *colon = strrchr(text, ':'), *end = colon;
    const char *start = text;
    uint64_t port = 0;
    if (colon != NULL && text[0] == '[' && colon[-1] == ']') {
        start = text + 1;
        end = colon - 1;
    }
    char address[INET6_ADDRSTRLEN];
    uint8_t bytes[16];
    bool good = colon != NULL && end > start && (size_t)(end - start) < sizeof address;
    if (good) {
        memcpy(address, start, (size_t)(end - start));
        address[end - start] = '\0';
        good = inet_pton(start == text ? AF_INET : AF_INET6, address, bytes) == 1 &&
               pk_parse_u64(colon + 1, &port, NULL) == 0 && port <= 65535;
    }
    if (!good) {
        (void)pk_fail(err, PK_E_USAGE, "'%.80s' is no end of a flow", text);
        return pk_hint(err, "write ADDRESS:PORT: 192.0.2.1:443, or [2001:db8::1]:443");
    }
    (void)json_object_set_new(flow, address_key, json_string(address));
    (void)json_object_set_new(flow, port_key, json_integer((json_int_t)port));
    return 0;
}

static int make_flows(const struct shunt_args *args, char **argv, json_t **ret_flows,
                      struct pk_error *err)
{
    PK_JSON flow = json_pack("{s:s}", "proto", args->proto);
    int r = flow == NULL ? pk_no_memory(err) : add_end(flow, argv[0], "src", "srcPort", err);
    if (r == 0)
        r = add_end(flow, argv[1], "dst", "dstPort", err);
    if (r == 0)
        *ret_flows = json_pack("[O]", flow);
    return r;
}

static int add_groups(const struct shunt_args *args, json_t *body, struct pk_error *err)
{
    if (args->group == NULL)
        return 0;
    json_t *groups = json_pack("[s]", args->group);
    if (groups != NULL && json_object_set_new(body, "groups", groups) == 0)
        return 0;
    return pk_fail(err, PK_E_USAGE, "the group's name is not text");
}

static const struct pk_arg ends_pos[] = {
    { "SRC", "one end of the flow: ADDRESS:PORT", NULL, false, false },
    { "DST", "its other end", NULL, false, false },
};

/* ---- add ---- */

static const struct shunt_args add_defaults = { .proto = "tcp", .by = "user" };
static const struct pk_opt add_opts[] = {
    FLEET_OPT,
    GROUP_OPT("the group that is to see no more of it (all of the fleet)"),
    PROTO_OPT,
    { "keep", 'k', PK_OPT_BYTES, "SIZE", offsetof(struct shunt_args, keep),
      "so much of the flow is delivered yet (0)", NULL },
    { "ttl", 0, PK_OPT_DURATION, "SPAN", offsetof(struct shunt_args, ttl),
      "ends at the latest then (1d)", NULL },
    { "idle", 0, PK_OPT_DURATION, "SPAN", offsetof(struct shunt_args, idle),
      "ends when no packet came for so long (60s)", NULL },
    { "by", 0, PK_OPT_STRING, "NAME", offsetof(struct shunt_args, by),
      "who asks, for the record (user)", NULL },
};

static int add_seconds(json_t *body, const char *key, const char *option, pk_nsec span,
                       struct pk_error *err)
{
    if (span == 0)
        return 0;
    if (span < PK_NSEC_PER_SEC)
        return pk_fail(err, PK_E_USAGE, "--%s: less than a second", option);
    return json_object_set_new(body, key, json_integer(span / PK_NSEC_PER_SEC)) == 0
               ? 0
               : pk_no_memory(err);
}

static int run_add(struct pk_ctx *ctx, const void *arguments, int argc, char **argv,
                   struct pk_error *err)
{
    const struct shunt_args *args = arguments;
    (void)argc;
    PK_CLEANUP(pk_http_client_free_p) struct pk_http_client *client = NULL;
    PK_CLEANUP(pk_free_p) char *path = NULL;
    PK_JSON flows = NULL;
    PK_JSON answer = NULL;
    int r = make_flows(args, argv, &flows, err);
    if (r < 0)
        return r;
    PK_JSON body = json_pack("{s:O,s:s,s:I}", "flows", flows, "by", args->by, "keepBytes",
                             (json_int_t)PK_MIN(args->keep, INT64_MAX));
    if (body == NULL)
        return pk_fail(err, PK_E_USAGE, "--by is not text");
    r = add_groups(args, body, err);
    if (r == 0)
        r = add_seconds(body, "ttlSeconds", "ttl", args->ttl, err);
    if (r == 0)
        r = add_seconds(body, "idleSeconds", "idle", args->idle, err);
    if (r == 0)
        r = begin(ctx, args, "", &client, &path, err);
    if (r == 0)
        r = pk_client_json(ctx, client, "POST", path, body, &answer, err);
    if (r < 0)
        return r;
    if (ctx->output == PK_OUT_JSON || ctx->output == PK_OUT_YAML)
        return pk_out_document(ctx, answer, err);
    int64_t added = pk_json_int_or(answer, "added", 0), known = pk_json_int_or(answer, "known", 0);
    if (ctx->quiet)
        return 0;
    if (added > 0)
        printf("Shunted in %" PRId64 " group%s.\n", added, added == 1 ? "" : "s");
    if (known > 0)
        printf("It was shunted already in %" PRId64 " group%s, which stays as it was.\n", known,
               known == 1 ? "" : "s");
    return 0;
}

static const char *const add_examples[] = {
    "picket shunt add 192.0.2.10:40112 198.51.100.7:443",
    "picket shunt add 192.0.2.10:40112 198.51.100.7:443 --group capture --keep 1MiB --ttl 1h",
    "picket shunt add '[2001:db8::10]:5000' '[2001:db8::7]:5001' --proto udp", NULL
};
const struct pk_cmd pk_cmd_shunt_add = {
    .name = "shunt add",
    .group = "Run",
    .summary = "a group sees no more of a flow",
    .details =
        "The flow's packets are counted in the kernel and go no further; both directions are "
        "meant. What says how a connection goes on (SYN, FIN, RST, ICMP errors) is delivered "
        "as before. At the end, which is when the flow ends, is idle, or after --ttl, an event "
        "of type shunt says what was left out: 'picket events type:shunt'.",
    .examples = add_examples,
    .opts = add_opts,
    .opt_count = PK_ARRAY_SIZE(add_opts),
    .args = ends_pos,
    .arg_count = PK_ARRAY_SIZE(ends_pos),
    .args_size = sizeof(struct shunt_args),
    .defaults = &add_defaults,
    .flags = PK_CMD_OUTPUT,
    .run = run_add,
};

/* ---- remove ---- */

static const struct shunt_args remove_defaults = { .proto = "tcp" };
static const struct pk_opt remove_opts[] = {
    FLEET_OPT,
    GROUP_OPT("in this group alone (all of the fleet)"),
    PROTO_OPT,
    { "all", 'a', PK_OPT_FLAG, NULL, offsetof(struct shunt_args, all), "all flows", NULL },
};
static const struct pk_arg remove_pos[] = {
    { "SRC", "one end of the flow: ADDRESS:PORT", NULL, true, false },
    { "DST", "its other end", NULL, true, false },
};

static int run_remove(struct pk_ctx *ctx, const void *arguments, int argc, char **argv,
                      struct pk_error *err)
{
    const struct shunt_args *args = arguments;
    if (args->all ? argc != 0 : argc != 2) {
        (void)pk_fail(err, PK_E_USAGE,
                      args->all ? "--all takes no flow" : "say which flow, by its two ends");
        return pk_hint(err, "picket shunt remove SRC DST, or picket shunt remove --all");
    }
    PK_CLEANUP(pk_http_client_free_p) struct pk_http_client *client = NULL;
    PK_CLEANUP(pk_free_p) char *path = NULL;
    PK_JSON body = json_object();
    PK_JSON answer = NULL;
    json_t *flows = NULL;
    int r = args->all ? 0 : make_flows(args, argv, &flows, err);
    if (r == 0 && flows != NULL)
        (void)json_object_set_new(body, "flows", flows);
    else if (r == 0)
        (void)json_object_set_new(body, "all", json_true());
    if (r == 0)
        r = add_groups(args, body, err);
    if (r == 0)
        r = begin(ctx, args, "", &client, &path, err);
    if (r == 0)
        r = pk_client_json(ctx, client, "DELETE", path, body, &answer, err);
    if (r < 0)
        return r;
    if (ctx->output == PK_OUT_JSON || ctx->output == PK_OUT_YAML)
        return pk_out_document(ctx, answer, err);
    int64_t removed = pk_json_int_or(answer, "removed", 0);
    if (removed == 0 && !args->all) {
        (void)pk_fail(err, PK_E_NOTFOUND, "the flow is not shunted");
        return pk_hint(err, "'picket shunt list' shows what is");
    }
    if (!ctx->quiet)
        printf("%" PRId64 " shunt%s removed: the tools see the packets again.\n", removed,
               removed == 1 ? "" : "s");
    return 0;
}

static const char *const remove_examples[] = {
    "picket shunt remove 192.0.2.10:40112 198.51.100.7:443",
    "picket shunt remove --all --group analysis", NULL
};
const struct pk_cmd pk_cmd_shunt_remove = {
    .name = "shunt remove",
    .group = "Run",
    .summary = "a group sees a flow again",
    .details = "A rule of the fleet file (groups[].shunt) may take it away again with its next "
               "packets.",
    .examples = remove_examples,
    .opts = remove_opts,
    .opt_count = PK_ARRAY_SIZE(remove_opts),
    .args = remove_pos,
    .arg_count = PK_ARRAY_SIZE(remove_pos),
    .args_size = sizeof(struct shunt_args),
    .defaults = &remove_defaults,
    .flags = PK_CMD_OUTPUT,
    .run = run_remove,
};

/* ---- what tables show ---- */

static void set_end(json_t *row, const char *key, const json_t *shunt, const char *address_key,
                    const char *port_key)
{
    const char *address = pk_json_string_or(shunt, address_key, "");
    bool is_6 = strchr(address, ':') != NULL;
    char text[INET6_ADDRSTRLEN + 16];
    (void)snprintf(text, sizeof text, is_6 ? "[%.45s]:%u" : "%.45s:%u", address,
                   (unsigned)pk_json_int_or(shunt, port_key, 0));
    (void)json_object_set_new(row, key, json_string(text));
}

/* For each shunt a row with what is made of several members. */
static json_t *rows_of(const json_t *shunts)
{
    json_t *rows = json_array();
    const json_t *shunt;
    size_t i;
    json_array_foreach(shunts, i, shunt)
    {
        json_t *row = json_copy((json_t *)(uintptr_t)shunt); /* its reference count alone changes */
        if (row == NULL)
            continue;
        set_end(row, "from", shunt, "src", "srcPort");
        set_end(row, "to", shunt, "dst", "dstPort");
        (void)json_object_set_new(row, "packets",
                                  json_integer(pk_json_int_or(shunt, "packetsFromSrc", 0) +
                                               pk_json_int_or(shunt, "packetsFromDst", 0)));
        (void)json_object_set_new(row, "bytes",
                                  json_integer(pk_json_int_or(shunt, "bytesFromSrc", 0) +
                                               pk_json_int_or(shunt, "bytesFromDst", 0)));
        (void)json_array_append_new(rows, row);
    }
    return rows;
}

static const struct pk_table_column shunt_columns[] = {
    { "GROUP", "group", 1, false, NULL },
    { "PROTO", "proto", 2, false, NULL },
    { "FROM", "from", 1, false, NULL },
    { "TO", "to", 1, false, NULL },
    { "REASON", "reason", 2, false, NULL },
    { "BY", "by", 3, false, NULL },
    { "PACKETS", "packets", 2, true, "count" },
    { "BYTES", "bytes", 1, true, "bytes" },
    { "PASSED", "passedBytes", 3, true, "bytes" },
    { "STATE", "state", 3, false, NULL },
};

/* ---- list ---- */

static const struct shunt_args list_defaults = { .limit = 1000 };
static const struct pk_opt list_opts[] = {
    FLEET_OPT,
    GROUP_OPT("of this group alone"),
    { "limit", 'n', PK_OPT_UINT, "N", offsetof(struct shunt_args, limit),
      "at most so many (1000, and 100000 at most)", NULL },
};

static int run_list(struct pk_ctx *ctx, const void *arguments, int argc, char **argv,
                    struct pk_error *err)
{
    const struct shunt_args *args = arguments;
    (void)argc;
    (void)argv;
    PK_CLEANUP(pk_http_client_free_p) struct pk_http_client *client = NULL;
    PK_CLEANUP(pk_free_p) char *path = NULL;
    PK_CLEANUP(pk_free_p) char *group = args->group != NULL ? pk_url_escape(args->group) : NULL;
    PK_JSON all = json_array();
    PK_JSON page = NULL;
    if (args->limit == 0 || args->limit > LIST_MOST)
        return pk_fail(err, PK_E_USAGE, "--limit: 1 to %u", LIST_MOST);
    int r = begin(ctx, args, "", &client, &path, err);
    bool more = true;
    while (r == 0 && more && json_array_size(all) < args->limit) {
        const char *next = pk_json_string_or(page, "page", NULL);
        PK_CLEANUP(pk_free_p)
        char *query = pk_asprintf("%s?limit=%u%s%s%s%s", path, PAGE, next != NULL ? "&page=" : "",
                                  next != NULL ? next : "", group != NULL ? "&group=" : "",
                                  group != NULL ? group : "");
        json_t *answer = NULL;
        if (query == NULL)
            return pk_no_memory(err);
        r = pk_client_json(ctx, client, "GET", query, NULL, &answer, err);
        if (r < 0)
            break;
        json_decref(page);
        page = answer;
        (void)json_array_extend(all, json_object_get(page, "shunts"));
        more = pk_json_string_or(page, "page", NULL) != NULL;
    }
    if (r < 0)
        return r;
    bool cut = more || json_array_size(all) > args->limit;
    while (json_array_size(all) > args->limit)
        (void)json_array_remove(all, json_array_size(all) - 1);
    PK_JSON document = json_pack("{s:O,s:b}", "shunts", all, "more", cut);
    PK_JSON rows = rows_of(all);
    r = pk_out_table(ctx, document, rows, shunt_columns, PK_ARRAY_SIZE(shunt_columns), "from", err);
    if (r == 0 && cut && ctx->output == PK_OUT_TABLE && !ctx->quiet)
        fprintf(stderr, "There are more; see --limit, and 'picket shunt stats' for sums.\n");
    return r;
}

static const char *const list_examples[] = { "picket shunt list",
                                             "picket shunt list --group analysis -o json", NULL };
const struct pk_cmd pk_cmd_shunt_list = {
    .name = "shunt list",
    .group = "Look",
    .summary = "list the flows that are shunted",
    .details = "BYTES is what the group's tools did not get, since the shunt began; PASSED what "
               "they did.",
    .examples = list_examples,
    .opts = list_opts,
    .opt_count = PK_ARRAY_SIZE(list_opts),
    .args_size = sizeof(struct shunt_args),
    .defaults = &list_defaults,
    .flags = PK_CMD_OUTPUT,
    .run = run_list,
};

/* ---- stats ---- */

static const struct shunt_args stats_defaults = { .top = 10 };
static const struct pk_opt stats_opts[] = {
    FLEET_OPT,
    { "top", 'n', PK_OPT_UINT, "N", offsetof(struct shunt_args, top),
      "list so many of the largest (10, 100 at most)", NULL },
};
static const struct pk_table_column stats_columns[] = {
    { "GROUP", "name", 1, false, NULL },           { "SHUNTS", "entries", 1, true, "count" },
    { "PACKETS", "packets", 1, true, "count" },    { "BYTES", "bytes", 1, true, "bytes" },
    { "PASSED", "passedBytes", 2, true, "bytes" },
};

static int run_stats(struct pk_ctx *ctx, const void *arguments, int argc, char **argv,
                     struct pk_error *err)
{
    const struct shunt_args *args = arguments;
    (void)argc;
    (void)argv;
    PK_CLEANUP(pk_http_client_free_p) struct pk_http_client *client = NULL;
    PK_CLEANUP(pk_free_p) char *path = NULL;
    PK_JSON stats = NULL;
    char what[40];
    if (args->top < 1 || args->top > 100)
        return pk_fail(err, PK_E_USAGE, "--top: 1 to 100");
    (void)snprintf(what, sizeof what, "/stats?top=%u", (unsigned)args->top);
    int r = begin(ctx, args, what, &client, &path, err);
    if (r == 0)
        r = pk_client_json(ctx, client, "GET", path, NULL, &stats, err);
    if (r < 0)
        return r;
    bool people = ctx->output == PK_OUT_TABLE || ctx->output == PK_OUT_WIDE;
    if (people && !ctx->quiet)
        printf("%" PRId64 " shunts, %" PRId64 " are the most; %" PRId64
               " of rules had no room. Live shunts of each group:\n\n",
               pk_json_int_or(stats, "entries", 0), pk_json_int_or(stats, "most", 0),
               pk_json_int_or(stats, "refused", 0));
    if (people && pk_json_int_or(stats, "unrecorded", 0) > 0)
        printf("%" PRId64
               " shunts of groups that were removed have no record: there was no room for "
               "it.\n\n",
               pk_json_int_or(stats, "unrecorded", 0));
    r = pk_out_table(ctx, stats, json_object_get(stats, "groups"), stats_columns,
                     PK_ARRAY_SIZE(stats_columns), "name", err);
    const json_t *top = json_object_get(stats, "top");
    if (r < 0 || !people || json_array_size(top) == 0)
        return r;
    PK_JSON rows = rows_of(top);
    printf("\nThe largest:\n\n");
    return pk_out_table(ctx, NULL, rows, shunt_columns, PK_ARRAY_SIZE(shunt_columns), "from", err);
}

static const char *const stats_examples[] = { "picket shunt stats", "picket shunt stats --top 50",
                                              NULL };
const struct pk_cmd pk_cmd_shunt_stats = {
    .name = "shunt stats",
    .group = "Look",
    .summary = "what the shunts keep from the tools: sums per group, the largest flows",
    .details = "These are the shunts that stand. What a group was spared since it began is in "
               "'picket ledger'; shunts that ended are events: 'picket events type:shunt'.",
    .examples = stats_examples,
    .opts = stats_opts,
    .opt_count = PK_ARRAY_SIZE(stats_opts),
    .args_size = sizeof(struct shunt_args),
    .defaults = &stats_defaults,
    .flags = PK_CMD_OUTPUT,
    .run = run_stats,
};
