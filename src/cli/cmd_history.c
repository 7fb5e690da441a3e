/* SPDX-License-Identifier: Apache-2.0 */
/* picket history, diff, logs: what was, what differs, what a unit says. */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/json.h"
#include "base/time.h"
#include "cli/client.h"
#include "cli/commands.h"

/* ---- history ---- */

struct history_args {
    uint64_t limit;
};
static const struct history_args history_defaults = { .limit = 20 };
static const struct pk_opt history_opts[] = {
    { "limit", 'n', PK_OPT_UINT, "N", offsetof(struct history_args, limit),
      "how many revisions, newest first (20)", NULL },
};
static const struct pk_table_column history_columns[] = {
    { "REV", "number", 1, true, NULL },     { "WHEN", "createdAt", 1, false, "ago" },
    { "WHO", "user", 2, false, NULL },      { "OUTCOME", "outcome", 1, false, "state" },
    { "REASON", "reason", 2, false, NULL }, { "DETAIL", "detail", 3, false, NULL },
    { "PLAN", "plan", 0, false, NULL },
};

static int run_history(struct pk_ctx *ctx, const void *args, int argc, char **argv,
                       struct pk_error *err)
{
    const struct history_args *options = args;
    PK_CLEANUP(pk_http_client_free_p) struct pk_http_client *client = NULL;
    PK_CLEANUP(pk_free_p) char *fleet = NULL;
    int r = pk_ctx_client(ctx, &client, err);
    if (r >= 0)
        r = pk_client_fleet(ctx, client, argc > 0 ? argv[0] : NULL, &fleet, err);
    if (r < 0)
        return r;
    PK_CLEANUP(pk_free_p)
    char *path = pk_asprintf("/v1/fleets/%s/revisions?limit=%llu", fleet,
                             (unsigned long long)options->limit);
    if (path == NULL)
        return pk_no_memory(err);
    PK_JSON history = NULL;
    r = pk_client_json(ctx, client, "GET", path, NULL, &history, err);
    if (r < 0)
        return r;
    return pk_out_table(ctx, history, json_object_get(history, "revisions"), history_columns,
                        PK_ARRAY_SIZE(history_columns), "number", err);
}

static const struct pk_arg fleet_pos[] = {
    { "FLEET", "which fleet, where several run", "fleet", true, false },
};
static const char *const history_examples[] = { "picket history", "picket history border -n 5",
                                                NULL };
const struct pk_cmd pk_cmd_history = {
    .name = "history",
    .group = "Look",
    .summary = "list a fleet's revisions: who applied what, when, why, and how it ended",
    .examples = history_examples,
    .opts = history_opts,
    .opt_count = PK_ARRAY_SIZE(history_opts),
    .args = fleet_pos,
    .arg_count = PK_ARRAY_SIZE(fleet_pos),
    .args_size = sizeof(struct history_args),
    .defaults = &history_defaults,
    .flags = PK_CMD_OUTPUT,
    .run = run_history,
};

/* ---- diff ---- */

struct diff_args {
    bool exit_code;
    const char *fleet;
};
static const struct pk_opt diff_opts[] = {
    { "exit-code", 0, PK_OPT_FLAG, NULL, offsetof(struct diff_args, exit_code),
      "exit with 10 when there is a difference", NULL },
    { "fleet", 'f', PK_OPT_STRING, "FLEET", offsetof(struct diff_args, fleet),
      "with REV: which fleet, where several run", "fleet" },
};

static void done_errors(struct pk_errors *errors)
{
    pk_errors_done(errors);
}

/* The document of a revision; "" when the fleet does not run. */
static int document_of(const struct pk_ctx *ctx, struct pk_http_client *client, const char *fleet,
                       json_int_t revision, char **ret_text, struct pk_error *err)
{
    PK_CLEANUP(pk_free_p)
    char *path = pk_asprintf("/v1/fleets/%s/revisions/%lld", fleet, (long long)revision);
    if (path == NULL)
        return pk_no_memory(err);
    PK_JSON document = NULL;
    int r = pk_client_json(ctx, client, "GET", path, NULL, &document, err);
    if (r < 0)
        return r;
    *ret_text = pk_strdup(pk_json_string_or(document, "document", ""));
    return *ret_text == NULL ? pk_no_memory(err) : 0;
}

static void print_diff(const struct pk_ctx *ctx, const char *diff)
{
    for (const char *line = diff; *line != '\0';) {
        size_t len = strcspn(line, "\n");
        PK_CLEANUP(pk_free_p) char *text = pk_strndup(line, len);
        const char *color = line[0] == '+' ? "green" : line[0] == '-' ? "red" : NULL;
        if (color != NULL)
            (void)fputs(pk_color(ctx, color), stdout);
        pk_print_clean(stdout, text == NULL ? "" : text);
        printf("%s\n", color == NULL ? "" : pk_color(ctx, NULL));
        line += len + (line[len] == '\n');
    }
}

static int run_diff(struct pk_ctx *ctx, const void *args, int argc, char **argv,
                    struct pk_error *err)
{
    const struct diff_args *options = args;
    (void)argc;
    uint64_t revision = 0;
    bool is_revision = pk_parse_u64(argv[0], &revision, NULL) == 0;
    PK_CLEANUP(pk_http_client_free_p) struct pk_http_client *client = NULL;
    PK_CLEANUP(done_errors) struct pk_errors errors = { 0 };
    PK_CLEANUP(pk_free_p) char *fleet = NULL;
    PK_CLEANUP(pk_free_p) char *old_text = NULL;
    PK_CLEANUP(pk_free_p) char *new_text = NULL;
    PK_JSON plan = NULL;
    PK_JSON status = NULL;
    int r = pk_ctx_client(ctx, &client, err);
    if (r >= 0 && is_revision) {
        r = pk_client_fleet(ctx, client, options->fleet, &fleet, err);
        if (r >= 0)
            r = document_of(ctx, client, fleet, (json_int_t)revision, &new_text, err);
        PK_JSON body =
            r < 0 ? NULL : json_pack("{s:s,s:I}", "fleet", fleet, "revision", (json_int_t)revision);
        if (r >= 0)
            r = pk_client_plan(ctx, client, body, &plan, &errors, err);
    } else if (r >= 0) {
        r = pk_client_plan_file(ctx, client, argv[0], &plan, &new_text, &errors, err);
        fleet = r < 0 ? NULL : pk_strdup(pk_json_string_or(plan, "fleet", ""));
    }
    if (r < 0) {
        if (errors.count > 0) {
            pk_report_errors(ctx, &errors);
            ctx->error_reported = true;
        }
        return r;
    }
    json_int_t running = 0;
    if (fleet == NULL)
        return pk_no_memory(err);
    r = pk_client_status(ctx, client, fleet, &status, err);
    if (r >= 0) {
        running = pk_json_int_or(status, "revision", 0);
        r = document_of(ctx, client, fleet, running, &old_text, err);
    } else if (r == PK_E_NOTFOUND) {
        old_text = pk_strdup("");
        r = old_text == NULL ? pk_no_memory(err) : 0;
    }
    if (r < 0)
        return r;
    char old_name[96], new_name[96];
    (void)snprintf(old_name, sizeof(old_name), "%s revision %lld", fleet, (long long)running);
    (void)snprintf(new_name, sizeof(new_name), "%s revision %llu", fleet,
                   (unsigned long long)revision);
    PK_CLEANUP(pk_free_p)
    char *diff = pk_text_diff(running == 0 ? "(not running)" : old_name, old_text,
                              is_revision ? new_name : argv[0], new_text);
    if (diff == NULL)
        return pk_no_memory(err);
    bool differs = diff[0] != '\0' || pk_plan_step_count(plan) > 0;
    if (ctx->output == PK_OUT_JSON || ctx->output == PK_OUT_YAML) {
        PK_JSON answer = json_pack("{s:s,s:s,s:s,s:O}", "kind", "Diff", "fleet", fleet, "documents",
                                   diff, "plan", plan);
        r = pk_out_document(ctx, answer, err);
    } else {
        print_diff(ctx, diff);
        if (diff[0] != '\0')
            printf("\n");
        pk_print_plan(ctx, plan);
    }
    return r < 0 ? r : options->exit_code && differs ? 10 : 0;
}

static const struct pk_arg diff_pos[] = {
    { "FLEET|REV", "a fleet file, or the number of a revision", "file", false, false },
};
static const char *const diff_examples[] = { "picket diff border.yaml", "picket diff 3", NULL };
const struct pk_cmd pk_cmd_diff = {
    .name = "diff",
    .group = "Look",
    .summary = "compare a fleet file or a revision with what runs",
    .details = "First the documents as a unified diff, then the steps that an apply would take.",
    .examples = diff_examples,
    .opts = diff_opts,
    .opt_count = PK_ARRAY_SIZE(diff_opts),
    .args = diff_pos,
    .arg_count = PK_ARRAY_SIZE(diff_pos),
    .args_size = sizeof(struct diff_args),
    .flags = PK_CMD_OUTPUT,
    .run = run_diff,
};

/* ---- logs ---- */

struct logs_args {
    bool follow;
    uint64_t lines;
    const char *fleet;
};
static const struct logs_args logs_defaults = { .lines = 50 };
static const struct pk_opt logs_opts[] = {
    { "follow", 'f', PK_OPT_FLAG, NULL, offsetof(struct logs_args, follow),
      "go on printing what comes", NULL },
    { "lines", 'n', PK_OPT_UINT, "N", offsetof(struct logs_args, lines),
      "how many of the last lines (50)", NULL },
    { "fleet", 0, PK_OPT_STRING, "FLEET", offsetof(struct logs_args, fleet),
      "which fleet, where several run", "fleet" },
};
#define FOLLOW_LINES 2000u

static int get_logs(const struct pk_ctx *ctx, struct pk_http_client *client, const char *fleet,
                    const char *unit, uint64_t lines, struct pk_buf *ret_text, struct pk_error *err)
{
    PK_CLEANUP(pk_free_p)
    char *path = pk_asprintf("/v1/fleets/%s/units/%s/logs?lines=%llu", fleet, unit,
                             (unsigned long long)lines);
    if (path == NULL)
        return pk_no_memory(err);
    const struct pk_http_call call = { .method = "GET", .path = path };
    unsigned status = 0;
    pk_buf_clear(ret_text);
    int r = pk_http_call(client, &call, &status, ret_text, err);
    if (r < 0)
        /* For the one hint about servers that are away. */
        return r == PK_E_UNREACHABLE ? pk_client_json(ctx, client, "GET", path, NULL, NULL, err)
                                     : r;
    if (status < 400)
        return 0;
    PK_JSON answer = NULL;
    r = pk_json_parse("the server's answer", ret_text->data == NULL ? "" : ret_text->data,
                      ret_text->len, &answer, err);
    if (r < 0)
        return r;
    struct pk_error fault = { 0 };
    pk_json_to_error(json_object_get(answer, "error"), &fault);
    if (err != NULL)
        *err = fault;
    return fault.code < 0 ? fault.code : PK_E_INTERNAL;
}

/* Lines may have control characters in them; tabs and line ends pass. */
static void print_lines(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text[i];
        (void)putchar((c < 0x20 && c != '\n' && c != '\t') || c == 0x7f ? '?' : c);
    }
    (void)fflush(stdout);
}

/* What of next comes after what was seen: the longest end of seen that next begins with, at a
 * line's start. The server keeps no cursor for logs, the tail is matched instead. */
static size_t overlap(const struct pk_buf *seen, const struct pk_buf *next)
{
    for (size_t start = 0; start < seen->len; start++) {
        if (start > 0 && seen->data[start - 1] != '\n')
            continue;
        size_t rest = seen->len - start;
        if (rest <= next->len && memcmp(seen->data + start, next->data, rest) == 0)
            return rest;
    }
    return 0;
}

static int run_logs(struct pk_ctx *ctx, const void *args, int argc, char **argv,
                    struct pk_error *err)
{
    const struct logs_args *options = args;
    (void)argc;
    size_t slashes = 0;
    for (const char *p = argv[0]; *p != '\0'; p++)
        slashes += *p == '/';
    size_t allowed = strspn(argv[0], "abcdefghijklmnopqrstuvwxyz0123456789-/");
    if (slashes != 2 || argv[0][allowed] != '\0') {
        (void)pk_fail(err, PK_E_USAGE, "'%.80s' is not a unit", argv[0]);
        return pk_hint(err, "a unit is GROUP/LANE/TOOL, as 'picket status' shows them: "
                            "analysis/0/suricata");
    }
    PK_CLEANUP(pk_http_client_free_p) struct pk_http_client *client = NULL;
    PK_CLEANUP(pk_free_p) char *fleet = NULL;
    PK_CLEANUP(pk_buf_done) struct pk_buf seen = PK_BUF_INIT(16u << 20);
    PK_CLEANUP(pk_buf_done) struct pk_buf next = PK_BUF_INIT(16u << 20);
    int r = pk_ctx_client(ctx, &client, err);
    if (r >= 0)
        r = pk_client_fleet(ctx, client, options->fleet, &fleet, err);
    if (r >= 0)
        r = get_logs(ctx, client, fleet, argv[0], options->lines, &seen, err);
    if (r < 0)
        return r;
    print_lines(seen.data, seen.len);
    while (options->follow) {
        pk_sleep_ms(500);
        r = get_logs(ctx, client, fleet, argv[0], FOLLOW_LINES, &next, err);
        if (r < 0)
            return r;
        size_t old = overlap(&seen, &next);
        /* The first, shorter answer may sit anywhere in the longer one. */
        if (old == 0 && seen.len > 0 && next.len > seen.len) {
            const char *at = memmem(next.data, next.len, seen.data, seen.len);
            old = at == NULL ? 0 : (size_t)(at - next.data) + seen.len;
        }
        print_lines(next.data == NULL ? "" : next.data + old, next.len - old);
        if (next.len > 0) {
            struct pk_buf swap = seen;
            seen = next;
            next = swap;
        }
    }
    return 0;
}

static const struct pk_arg logs_pos[] = {
    { "UNIT", "GROUP/LANE/TOOL, as status shows it", "unit", false, false },
};
static const char *const logs_examples[] = { "picket logs analysis/0/suricata",
                                             "picket logs -f analysis/0/suricata", NULL };
const struct pk_cmd pk_cmd_logs = {
    .name = "logs",
    .group = "Look",
    .summary = "print the last lines that a unit wrote on its standard output and error",
    .examples = logs_examples,
    .opts = logs_opts,
    .opt_count = PK_ARRAY_SIZE(logs_opts),
    .args = logs_pos,
    .arg_count = PK_ARRAY_SIZE(logs_pos),
    .args_size = sizeof(struct logs_args),
    .defaults = &logs_defaults,
    .run = run_logs,
};
