/* SPDX-License-Identifier: Apache-2.0 */
/* 'picket events': search, count and follow events. A client of serve. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/event.h"
#include "base/json.h"
#include "cli/commands.h"

#define PAGE_SIZE 1000u
#define MAX_QUERY 4096u
#define MAX_LINE  (4u << 20) /* of a followed stream */
#define MAX_TABLE 100000u    /* rows that a table holds in memory */

struct args {
    const char *since, *until, *type, *fleet, *group, *tool, *page, *count_by;
    uint64_t limit;
    bool follow, count;
};

static const struct pk_opt options[] = {
    { "since", 0, PK_OPT_STRING, "TIME", offsetof(struct args, since),
      "from this time on: 1h, 2d, today, 2026-01-02T03:04:05Z (default 1h)", NULL },
    { "until", 0, PK_OPT_STRING, "TIME", offsetof(struct args, until),
      "up to this time (default now)", NULL },
    { "type", 't', PK_OPT_STRING, "TYPES", offsetof(struct args, type),
      "only these types, with commas: alert,http", NULL },
    { "fleet", 0, PK_OPT_STRING, "FLEET", offsetof(struct args, fleet), "only of this fleet",
      "fleet" },
    { "group", 0, PK_OPT_STRING, "GROUP", offsetof(struct args, group), "only of this group",
      NULL },
    { "tool", 0, PK_OPT_STRING, "TOOL", offsetof(struct args, tool), "only of this tool", NULL },
    { "limit", 'n', PK_OPT_UINT, "N", offsetof(struct args, limit),
      "at most so many, the newest first (default 100, 0 = all)", NULL },
    { "page", 0, PK_OPT_STRING, "TOKEN", offsetof(struct args, page), "go on where a page ended",
      NULL },
    { "follow", 'f', PK_OPT_FLAG, NULL, offsetof(struct args, follow), "print events as they come",
      NULL },
    { "count", 0, PK_OPT_FLAG, NULL, offsetof(struct args, count),
      "with 'by FIELD': count by a field", NULL },
    { "count-by", 0, PK_OPT_STRING, "FIELD", offsetof(struct args, count_by),
      "count by a field, most first", "field" },
};

static const struct pk_arg positional[] = {
    { "QUERY", "field:value, ranges, AND, OR, NOT; see 'picket help query'", NULL, true, true },
};

static const struct args defaults = { .since = "1h", .limit = 100 };

/* ---- the query ---- */

/* field:"value", the value quoted so that nothing in it is grammar. */
static void add_term(struct pk_buf *query, const char *field, const char *value, size_t len)
{
    (void)pk_buf_printf(query, "%s:\"", field);
    for (size_t i = 0; i < len; i++) {
        if (value[i] == '"' || value[i] == '\\')
            (void)pk_buf_putc(query, '\\');
        (void)pk_buf_putc(query, value[i]);
    }
    (void)pk_buf_putc(query, '"');
}

/* One of a list with commas: (field:"a" OR field:"b"). */
static void add_filter(struct pk_buf *query, const char *field, const char *list)
{
    if (list == NULL || list[0] == '\0')
        return;
    (void)pk_buf_puts(query, query->len > 0 ? " (" : "(");
    for (const char *at = list;;) {
        size_t len = strcspn(at, ",");
        add_term(query, field, at, len);
        if (at[len] == '\0')
            break;
        (void)pk_buf_puts(query, " OR ");
        at += len + 1;
    }
    (void)pk_buf_putc(query, ')');
}

static char *make_query(const struct args *args, int argc, char **argv)
{
    struct pk_buf query = PK_BUF_INIT(MAX_QUERY);
    if (argc > 0) {
        (void)pk_buf_putc(&query, '(');
        for (int i = 0; i < argc; i++)
            (void)pk_buf_printf(&query, "%s%s", i > 0 ? " " : "", argv[i]);
        (void)pk_buf_putc(&query, ')');
    }
    add_filter(&query, "type", args->type);
    add_filter(&query, "fleet", args->fleet);
    add_filter(&query, "group", args->group);
    add_filter(&query, "tool", args->tool);
    return pk_buf_take(&query);
}

static void add_parameter(struct pk_buf *path, const char *name, const char *value)
{
    if (value == NULL || value[0] == '\0')
        return;
    PK_CLEANUP(pk_free_p) char *escaped = pk_url_escape(value);
    if (escaped == NULL) {
        path->failed = true;
        return;
    }
    (void)pk_buf_printf(path, "%c%s=%s", strchr(path->data, '?') == NULL ? '?' : '&', name,
                        escaped);
}

static char *make_path(const char *route, const struct args *args, const char *query,
                       const char *page, uint64_t limit, const char *by)
{
    struct pk_buf path = PK_BUF_INIT(4 * MAX_QUERY);
    (void)pk_buf_puts(&path, route);
    add_parameter(&path, "q", query);
    if (args != NULL) {
        add_parameter(&path, "since", args->since);
        add_parameter(&path, "until", args->until);
    }
    add_parameter(&path, "page", page);
    add_parameter(&path, "by", by);
    if (limit > 0) {
        char number[24];
        (void)snprintf(number, sizeof(number), "%llu", (unsigned long long)limit);
        add_parameter(&path, "limit", number);
    }
    return pk_buf_take(&path);
}

/* ---- for people: what an event says in one line ---- */

static void add_end(json_t *row, const json_t *event, const char *name, const char *ip,
                    const char *port)
{
    const char *address = pk_json_string_or(event, ip, "");
    int64_t number = pk_json_int_or(event, port, 0);
    char text[80];
    if (number == 0)
        (void)snprintf(text, sizeof(text), "%s", address);
    else
        (void)snprintf(text, sizeof(text), strchr(address, ':') != NULL ? "[%s]:%lld" : "%s:%lld",
                       address, (long long)number);
    (void)json_object_set_new(row, name, json_string(text));
}

static json_t *row_of(const json_t *event)
{
    json_t *row = json_object();
    if (row == NULL)
        return NULL;
    const char *signature = pk_json_string_or(event, "signature", "");
    const char *host = pk_json_string_or(event, "host", "");
    const char *url = pk_json_string_or(event, "url", "");
    const char *app = pk_json_string_or(event, "app_proto", "");
    uint64_t bytes = (uint64_t)(pk_json_int_or(event, "bytes_toserver", 0) +
                                pk_json_int_or(event, "bytes_toclient", 0));
    char what[300], amount[32] = "";
    if (bytes > 0)
        (void)pk_human_bytes(bytes, amount, sizeof(amount));
    if (signature[0] != '\0')
        (void)snprintf(what, sizeof(what), "%.200s", signature);
    else if (host[0] != '\0' || url[0] != '\0')
        (void)snprintf(what, sizeof(what), "%.120s%.150s", host, url);
    else if (strcmp(pk_json_string_or(event, "type", ""), "shunt") == 0)
        (void)snprintf(what, sizeof(what), "%s not delivered", bytes > 0 ? amount : "nothing");
    else
        (void)snprintf(what, sizeof(what), "%s%s%s", app,
                       app[0] != '\0' && amount[0] != '\0' ? " " : "", amount);
    char lane[64];
    (void)snprintf(lane, sizeof(lane), "%.40s/%lld", pk_json_string_or(event, "group", ""),
                   (long long)pk_json_int_or(event, "lane", 0));
    (void)json_object_set(row, "time", json_object_get(event, "time"));
    (void)json_object_set(row, "type", json_object_get(event, "type"));
    (void)json_object_set(row, "proto", json_object_get(event, "proto"));
    (void)json_object_set(row, "fleet", json_object_get(event, "fleet"));
    (void)json_object_set(row, "tool", json_object_get(event, "tool"));
    (void)json_object_set(row, "community_id", json_object_get(event, "community_id"));
    (void)json_object_set_new(row, "lane", json_string(lane));
    (void)json_object_set_new(row, "what", json_string(what));
    add_end(row, event, "source", "src_ip", "src_port");
    add_end(row, event, "destination", "dst_ip", "dst_port");
    return row;
}

static const struct pk_table_column columns[] = {
    { "TIME", "time", 1, false, "time" },     { "TYPE", "type", 1, false, NULL },
    { "FLEET", "fleet", 0, false, NULL },     { "LANE", "lane", 3, false, NULL },
    { "TOOL", "tool", 0, false, NULL },       { "PROTO", "proto", 4, false, NULL },
    { "SOURCE", "source", 2, false, NULL },   { "DESTINATION", "destination", 2, false, NULL },
    { "WHAT", "what", 1, false, NULL, true }, { "COMMUNITY ID", "community_id", 0, false, NULL },
};

static int print_line(const json_t *event, struct pk_error *err)
{
    PK_CLEANUP(pk_free_p) char *line = pk_json_compact(event);
    if (line == NULL)
        return pk_no_memory(err);
    /* A reader that goes away (head, less) ends us quietly: SIGPIPE. */
    return puts(line) < 0 ? pk_fail(err, PK_E_IO, "standard output: cannot write") : 0;
}

static bool wants_lines(const struct pk_ctx *ctx)
{
    return ctx->output == PK_OUT_JSON;
}

/* ---- search ---- */

static int take_page(const struct pk_ctx *ctx, const json_t *events, json_t *rows,
                     struct pk_error *err)
{
    size_t i;
    json_t *event;
    json_array_foreach(events, i, event)
    {
        int r = 0;
        if (wants_lines(ctx))
            r = print_line(event, err);
        else if (ctx->output == PK_OUT_YAML)
            r = json_array_append(rows, event) < 0 ? pk_no_memory(err) : 0;
        else if (json_array_append_new(rows, row_of(event)) < 0)
            r = pk_no_memory(err);
        if (r < 0)
            return r;
    }
    if (json_array_size(rows) <= MAX_TABLE)
        return 0;
    (void)pk_fail(err, PK_E_NOSPACE, "more than %u events are too many for a table", MAX_TABLE);
    return pk_hint(err, "use -o json, a shorter time, or --limit");
}

static int search(struct pk_ctx *ctx, const struct args *args, const char *query,
                  struct pk_error *err)
{
    PK_CLEANUP(pk_http_client_free_p) struct pk_http_client *client = NULL;
    int r = pk_ctx_client(ctx, &client, err);
    if (r < 0)
        return r;
    PK_JSON rows = json_array();
    PK_CLEANUP(pk_free_p) char *page = pk_strdup(args->page);
    uint64_t left = args->limit == 0 ? UINT64_MAX : args->limit;
    bool more = false;
    do {
        PK_CLEANUP(pk_free_p)
        char *path =
            make_path("/v1/events", args, query, page, PK_MIN(left, (uint64_t)PAGE_SIZE), NULL);
        PK_JSON answer = NULL;
        if (path == NULL || rows == NULL)
            return pk_fail(err, PK_E_USAGE, "the query is too long");
        r = pk_http_json(client, "GET", path, NULL, &answer, err);
        if (r < 0)
            return r;
        const json_t *events = pk_json_at(answer, "events");
        r = take_page(ctx, events, rows, err);
        if (r < 0)
            return r;
        left -= PK_MIN(left, (uint64_t)json_array_size(events));
        pk_free(page);
        page = pk_strdup(pk_json_string_or(answer, "page", NULL));
        more = page != NULL && json_array_size(events) > 0;
    } while (more && left > 0);

    if (!wants_lines(ctx)) {
        if (json_array_size(rows) == 0 && ctx->output != PK_OUT_YAML) {
            if (!ctx->quiet)
                (void)fprintf(stderr, "No events since %s%s.\n", args->since,
                              query[0] != '\0' ? " match" : "");
            return 0;
        }
        r = pk_out_table(ctx, NULL, rows, columns, PK_ARRAY_SIZE(columns), "community_id", err);
    }
    if (r >= 0 && more && page != NULL && !ctx->quiet)
        (void)fprintf(stderr, "There are more: --page %s, or --limit 0 for all.\n", page);
    return r;
}

/* ---- count ---- */

static int count(struct pk_ctx *ctx, const struct args *args, const char *query, const char *field,
                 struct pk_error *err)
{
    PK_CLEANUP(pk_http_client_free_p) struct pk_http_client *client = NULL;
    int r = pk_ctx_client(ctx, &client, err);
    if (r < 0)
        return r;
    PK_CLEANUP(pk_free_p)
    char *path = make_path("/v1/events/count", args, query, NULL,
                           args->limit == 0 ? 10000 : args->limit, field);
    PK_JSON answer = NULL;
    if (path == NULL)
        return pk_fail(err, PK_E_USAGE, "the query is too long");
    r = pk_http_json(client, "GET", path, NULL, &answer, err);
    if (r < 0)
        return r;
    char title[48];
    size_t len =
        (size_t)snprintf(title, sizeof(title), "%.40s", pk_json_string_or(answer, "by", field));
    for (size_t i = 0; i < len && i < sizeof(title); i++)
        if (title[i] >= 'a' && title[i] <= 'z')
            title[i] = (char)(title[i] - 'a' + 'A');
    const struct pk_table_column count_columns[] = {
        { "COUNT", "count", 1, true, NULL },
        { title, "value", 1, false, NULL, true },
    };
    return pk_out_table(ctx, answer, pk_json_at(answer, "counts"), count_columns,
                        PK_ARRAY_SIZE(count_columns), "value", err);
}

/* ---- follow ---- */

struct follow {
    const struct pk_ctx *ctx;
    struct pk_buf line;
    bool headed;
    struct pk_error *err;
};

static int follow_line(struct follow *follow, const char *text, size_t len)
{
    PK_JSON event = NULL;
    int r = pk_json_parse("event", text, len, &event, follow->err);
    if (r < 0)
        return r;
    const json_t *error = json_object_get(event, "error");
    if (json_is_object(error)) {
        pk_json_to_error(error, follow->err);
        return follow->err->code;
    }
    if (wants_lines(follow->ctx)) {
        r = print_line(event, follow->err);
    } else {
        PK_JSON rows = json_pack("[o]", row_of(event));
        struct pk_ctx ctx = *follow->ctx;
        ctx.no_headers = ctx.no_headers || follow->headed;
        follow->headed = true;
        r = pk_out_table(&ctx, event, rows, columns, PK_ARRAY_SIZE(columns), "community_id",
                         follow->err);
    }
    (void)fflush(stdout);
    return r;
}

static int follow_data(void *arg, const char *data, size_t len)
{
    struct follow *follow = arg;
    while (len > 0) {
        const char *end = memchr(data, '\n', len);
        size_t part = end != NULL ? (size_t)(end - data) : len;
        if (pk_buf_add(&follow->line, data, part) < 0)
            return pk_fail(follow->err, PK_E_NOSPACE, "an event longer than %u bytes", MAX_LINE);
        if (end == NULL)
            return 0;
        int r = follow->line.len > 0 ? follow_line(follow, follow->line.data, follow->line.len) : 0;
        if (r < 0)
            return r;
        pk_buf_clear(&follow->line);
        data += part + 1;
        len -= part + 1;
    }
    return 0;
}

static int follow(struct pk_ctx *ctx, const char *query, struct pk_error *err)
{
    PK_CLEANUP(pk_http_client_free_p) struct pk_http_client *client = NULL;
    int r = pk_ctx_client(ctx, &client, err);
    if (r < 0)
        return r;
    PK_CLEANUP(pk_free_p) char *path = make_path("/v1/events/follow", NULL, query, NULL, 0, NULL);
    if (path == NULL)
        return pk_fail(err, PK_E_USAGE, "the query is too long");
    struct pk_error inner = { 0 };
    struct follow state = { .ctx = ctx, .line = PK_BUF_INIT(MAX_LINE), .err = &inner };
    struct pk_http_call call = {
        .method = "GET", .path = path, .on_data = follow_data, .on_data_arg = &state
    };
    unsigned status = 0;
    r = pk_http_call(client, &call, &status, NULL, err);
    if (inner.code < 0) {
        *err = inner;
        r = inner.code;
    } else if (r >= 0 && status >= 400) {
        r = pk_fail(err, PK_E_USAGE, "the server answered %u", status);
    }
    pk_buf_done(&state.line);
    return r;
}

static int run(struct pk_ctx *ctx, const void *raw_args, int argc, char **argv,
               struct pk_error *err)
{
    const struct args *args = raw_args;
    const char *field = args->count_by;
    if (args->count) {
        /* "--count by FIELD [QUERY]" */
        if (argc < 2 || strcmp(argv[0], "by") != 0) {
            (void)pk_fail(err, PK_E_USAGE, "--count: 'by FIELD' is missing");
            return pk_hint(err, "picket events --count by signature --type alert");
        }
        field = argv[1];
        argc -= 2;
        argv += 2;
    }
    PK_CLEANUP(pk_free_p) char *query = make_query(args, argc, argv);
    if (query == NULL) {
        (void)pk_fail(err, PK_E_USAGE, "the query is longer than %u bytes", MAX_QUERY);
        return pk_hint(err, "search for less at a time");
    }
    if (args->follow)
        return follow(ctx, query, err);
    if (field != NULL)
        return count(ctx, args, query, field, err);
    return search(ctx, args, query, err);
}

static const char *const examples[] = {
    "picket events --type alert --since 2d",
    "picket events 'src_ip:10.0.0.0/8 dst_port:>=1024 NOT type:flow'",
    "picket events --count by signature --type alert",
    "picket events --follow --type alert -o json",
    NULL,
};

const struct pk_cmd pk_cmd_events = {
    .name = "events",
    .group = "Look",
    .summary = "search, count and follow events",
    .details =
        "Prints the newest events first. With -o json each line is one event; its 'raw' is the record as the tool "
        "wrote it. 'picket help query' describes the query language.",
    .examples = examples,
    .opts = options,
    .opt_count = PK_ARRAY_SIZE(options),
    .args = positional,
    .arg_count = PK_ARRAY_SIZE(positional),
    .args_size = sizeof(struct args),
    .defaults = &defaults,
    .flags = PK_CMD_OUTPUT,
    .run = run,
};
