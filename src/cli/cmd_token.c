/* SPDX-License-Identifier: Apache-2.0 */
/* picket token: who may use the API over TLS. */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/json.h"
#include "cli/client.h"
#include "cli/commands.h"

struct create_args {
    const char *role;
};
static const struct create_args create_defaults = { .role = "read" };
static const struct pk_opt create_opts[] = {
    { "role", 0, PK_OPT_CHOICE, "read|admin", offsetof(struct create_args, role),
      "read: look only; admin: everything (read)", NULL },
};

static int run_create(struct pk_ctx *ctx, const void *args, int argc, char **argv,
                      struct pk_error *err)
{
    const struct create_args *options = args;
    (void)argc;
    PK_CLEANUP(pk_http_client_free_p) struct pk_http_client *client = NULL;
    PK_JSON body = json_pack("{s:s,s:s}", "name", argv[0], "role", options->role);
    if (body == NULL) {
        (void)pk_fail(err, PK_E_USAGE, "the name is not text");
        return pk_hint(err, "use lower-case letters, digits and '-'");
    }
    PK_JSON answer = NULL;
    int r = pk_ctx_client(ctx, &client, err);
    if (r >= 0)
        r = pk_client_json(ctx, client, "POST", "/v1/tokens", body, &answer, err);
    if (r < 0)
        return r;
    if (ctx->output == PK_OUT_JSON || ctx->output == PK_OUT_YAML)
        return pk_out_document(ctx, answer, err);
    /* The token alone on standard output, so that it can go into a file. */
    printf("%s\n", pk_json_string_or(answer, "token", ""));
    if (!ctx->quiet)
        fprintf(
            stderr,
            "Token '%s' (%s). It is shown only now: keep it in a file that only you can read.\n",
            argv[0], options->role);
    return 0;
}

static const struct pk_arg name_pos[] = {
    { "NAME", "of the token", NULL, false, false },
};
static const char *const create_examples[] = { "picket token create dashboard > token",
                                               "picket token create ci --role admin", NULL };
const struct pk_cmd pk_cmd_token_create = {
    .name = "token create",
    .group = "Run",
    .summary = "make a token for clients that come over TLS",
    .details = "The server keeps only the token's hash.",
    .examples = create_examples,
    .opts = create_opts,
    .opt_count = PK_ARRAY_SIZE(create_opts),
    .args = name_pos,
    .arg_count = PK_ARRAY_SIZE(name_pos),
    .args_size = sizeof(struct create_args),
    .defaults = &create_defaults,
    .flags = PK_CMD_OUTPUT,
    .run = run_create,
};

static const struct pk_table_column token_columns[] = {
    { "NAME", "name", 1, false, NULL },          { "ROLE", "role", 1, false, NULL },
    { "CREATED", "createdAt", 2, false, "ago" }, { "BY", "createdBy", 3, false, NULL },
    { "USED", "lastUsedAt", 2, false, "ago" },
};

static int run_list(struct pk_ctx *ctx, const void *args, int argc, char **argv,
                    struct pk_error *err)
{
    (void)args;
    (void)argc;
    (void)argv;
    PK_CLEANUP(pk_http_client_free_p) struct pk_http_client *client = NULL;
    PK_JSON answer = NULL;
    int r = pk_ctx_client(ctx, &client, err);
    if (r >= 0)
        r = pk_client_json(ctx, client, "GET", "/v1/tokens", NULL, &answer, err);
    if (r < 0)
        return r;
    return pk_out_table(ctx, answer, json_object_get(answer, "tokens"), token_columns,
                        PK_ARRAY_SIZE(token_columns), "name", err);
}

static const char *const list_examples[] = { "picket token list", NULL };
const struct pk_cmd pk_cmd_token_list = {
    .name = "token list",
    .group = "Run",
    .summary = "list the tokens that hold: names and roles, never the tokens",
    .examples = list_examples,
    .flags = PK_CMD_OUTPUT,
    .run = run_list,
};

static int run_revoke(struct pk_ctx *ctx, const void *args, int argc, char **argv,
                      struct pk_error *err)
{
    (void)args;
    (void)argc;
    PK_CLEANUP(pk_http_client_free_p) struct pk_http_client *client = NULL;
    PK_CLEANUP(pk_free_p) char *name = pk_url_escape(argv[0]);
    PK_CLEANUP(pk_free_p) char *path = name == NULL ? NULL : pk_asprintf("/v1/tokens/%s", name);
    if (path == NULL)
        return pk_no_memory(err);
    int r = pk_ctx_client(ctx, &client, err);
    if (r >= 0)
        r = pk_client_json(ctx, client, "DELETE", path, NULL, NULL, err);
    if (r >= 0 && !ctx->quiet)
        printf("Token '%s' no longer holds.\n", argv[0]);
    return r;
}

static const char *const revoke_examples[] = { "picket token revoke ci", NULL };
const struct pk_cmd pk_cmd_token_revoke = {
    .name = "token revoke",
    .group = "Run",
    .summary = "make a token hold no longer, at once",
    .examples = revoke_examples,
    .args = name_pos,
    .arg_count = PK_ARRAY_SIZE(name_pos),
    .run = run_revoke,
};
