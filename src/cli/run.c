/* SPDX-License-Identifier: Apache-2.0 */
/* From the words of the command line to the exit status. */
#include <errno.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/fs.h"
#include "base/json.h"
#include "cli/parse.h"

#define TOKEN_MAX 4096

static enum pk_output output_of(const char *name)
{
    static const char *const names[] = {
        [PK_OUT_TABLE] = "table", [PK_OUT_WIDE] = "wide", [PK_OUT_JSON] = "json",
        [PK_OUT_YAML] = "yaml",   [PK_OUT_NAME] = "name",
    };
    for (size_t i = 0; i < PK_ARRAY_SIZE(names); i++)
        if (strcmp(names[i], name) == 0)
            return (enum pk_output)i;
    return PK_OUT_TABLE;
}

static bool is_set(const char *variable)
{
    const char *value = getenv(variable);
    return value != NULL && value[0] != '\0';
}

static void fill_context(struct pk_ctx *ctx, const struct pk_globals *globals)
{
    const char *terminal = getenv("TERM");
    ctx->server = globals->server != NULL ? globals->server : getenv("PICKET_SERVER");
    ctx->token_file =
        globals->token_file != NULL ? globals->token_file : getenv("PICKET_TOKEN_FILE");
    if (globals->output != NULL)
        ctx->output = output_of(globals->output);
    ctx->no_headers = globals->no_headers;
    ctx->quiet = globals->quiet;
    ctx->verbose = globals->verbose;
    ctx->yes = globals->yes;
    ctx->tty = isatty(STDOUT_FILENO) == 1;
    ctx->color =
        ctx->tty && !is_set("NO_COLOR") && terminal != NULL && strcmp(terminal, "dumb") != 0;
}

static int print_help(const struct pk_parsed *parsed, struct pk_error *err)
{
    PK_CLEANUP(pk_buf_done) struct pk_buf out = PK_BUF_INIT((size_t)1 << 20);
    if (parsed->cmd != NULL)
        pk_help_command(parsed->cmd, pk_terminal_width(), &out);
    else if (parsed->group != NULL)
        pk_help_group(parsed->group, pk_terminal_width(), &out);
    else
        pk_help_overview(pk_terminal_width(), &out);
    if (out.failed)
        return pk_no_memory(err);
    (void)fputs(out.data, stdout);
    return 0;
}

static int run(struct pk_ctx *ctx, struct pk_parsed *parsed, struct pk_error *err)
{
    if (parsed->globals.version) {
        printf("picket %s\n", PICKET_VERSION);
        return 0;
    }
    if (parsed->globals.help || parsed->cmd == NULL)
        return print_help(parsed, err);
    int r = pk_paths_init(parsed->globals.state_dir, parsed->globals.run_dir, &ctx->paths, err);
    if (r < 0)
        return r;
    return parsed->cmd->run(ctx, parsed->args, parsed->rest_count, parsed->rest, err);
}

/* Results that did not reach their file (a full disk) must not look like success. */
static int flush_output(struct pk_error *err)
{
    if (fflush(stdout) == 0 && ferror(stdout) == 0)
        return 0;
    if (errno == EPIPE)
        return PK_E_IO;
    return pk_fail_errno(err, errno, "cannot write the output");
}

int pk_cli_main(int argc, char **argv)
{
    /* Only for the width of characters; numbers keep their form. No thread runs yet. */
    (void)setlocale(LC_CTYPE, "C.UTF-8"); /* NOLINT(concurrency-mt-unsafe) */
    struct pk_ctx ctx = { .output = output_of(pk_scan_output(argc, argv)) };
    struct pk_error err = { 0 };
    PK_CLEANUP(pk_parsed_done) struct pk_parsed parsed = { 0 };
    int r = pk_parse(argc, argv, &parsed, &err);
    if (r >= 0) {
        fill_context(&ctx, &parsed.globals);
        r = run(&ctx, &parsed, &err);
    }
    int flushed = flush_output(&err);
    if (r >= 0 && flushed < 0)
        r = flushed;
    if (r >= 0)
        return r;
    if (err.code == PK_OK)
        pk_fail(&err, r, "%s", pk_code_info(r)->meaning);
    if (!ctx.error_reported)
        pk_report_error(&ctx, &err);
    return pk_code_info(r)->exit_status;
}

int pk_ctx_client(const struct pk_ctx *ctx, struct pk_http_client **ret_client,
                  struct pk_error *err)
{
    char local[128];
    (void)snprintf(local, sizeof(local), "unix:%s/serve.sock", ctx->paths.run_dir);
    bool elsewhere = ctx->server != NULL && ctx->server[0] != '\0';
    struct pk_http_client_options options = { .base_url = elsewhere ? ctx->server : local };
    PK_CLEANUP(pk_free_p) char *token = NULL;
    if (elsewhere && ctx->token_file != NULL) {
        int r = pk_file_read(ctx->token_file, TOKEN_MAX, &token, NULL, err);
        if (r < 0)
            return pk_wrap(err, "token file");
        token[strcspn(token, "\r\n")] = '\0';
        options.token = token;
    }
    const char *ca_file = getenv("PICKET_CA_FILE");
    options.ca_file = ca_file != NULL && ca_file[0] != '\0' ? ca_file : NULL;
    return pk_http_client_new(&options, ret_client, err);
}
