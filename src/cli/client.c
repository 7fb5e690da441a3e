/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/client.h"

#include <string.h>

#include "base/alloc.h"
#include "base/doc.h"
#include "base/fs.h"
#include "base/json.h"

#define MAX_ANSWER (64u << 20)

json_t *pk_up_state(const struct pk_ctx *ctx)
{
    json_t *state = NULL;
    PK_CLEANUP(pk_free_p) char *path = pk_asprintf("%s/up/state.json", ctx->paths.run_dir);
    if (ctx->server != NULL || path == NULL || pk_json_load(path, &state, NULL) < 0)
        return NULL;
    return state;
}

/* Why the server does not run, where 'picket up' knows it; else "". */
static const char *reason_of_serve(const json_t *state)
{
    size_t i;
    json_t *row;
    json_array_foreach(json_object_get(state, "processes"), i, row)
    {
        if (strcmp(pk_json_string_or(row, "name", ""), "serve") == 0 &&
            strcmp(pk_json_string_or(row, "state", ""), "ready") != 0)
            return pk_json_string_or(row, "reason", "");
    }
    return "";
}

static int explain(const struct pk_ctx *ctx, int r, struct pk_error *err)
{
    /* Only our own connection: the server's answer that its agent is away has a hint of its own. */
    if (r != PK_E_UNREACHABLE || err == NULL || ctx->server != NULL ||
        !pk_str_starts(err->msg, "cannot reach "))
        return r;
    PK_JSON state = pk_up_state(ctx);
    const char *reason = reason_of_serve(state);
    (void)pk_fail(err, PK_E_UNREACHABLE, "no server answers on %s/serve.sock%s%s",
                  ctx->paths.run_dir, reason[0] == '\0' ? "" : ": last end: ", reason);
    if (reason[0] != '\0')
        return pk_hint(err, "%s/up/serve.log says more", ctx->paths.run_dir);
    return pk_hint(err, "start one with 'picket up', or with 'systemctl start picket-serve' where "
                        "systemd runs; or name one with --server");
}

int pk_client_json(const struct pk_ctx *ctx, struct pk_http_client *client, const char *method,
                   const char *path, const json_t *json, json_t **ret_json, struct pk_error *err)
{
    return explain(ctx, pk_http_json(client, method, path, json, ret_json, err), err);
}

int pk_client_fleet(const struct pk_ctx *ctx, struct pk_http_client *client, const char *given,
                    char **ret_fleet, struct pk_error *err)
{
    PK_JSON answer = NULL;
    char *name = NULL;
    if (given != NULL) {
        name = pk_url_escape(given);
    } else {
        int r = pk_client_json(ctx, client, "GET", "/v1/fleets", NULL, &answer, err);
        if (r < 0)
            return r;
        const json_t *names = json_object_get(answer, "fleets");
        size_t count = json_array_size(names);
        if (count == 0) {
            (void)pk_fail(err, PK_E_NOTFOUND, "no fleet runs here");
            return pk_hint(err, "'picket apply FLEET.yaml' starts one");
        }
        if (count > 1) {
            (void)pk_fail(err, PK_E_USAGE, "%zu fleets run here: say which", count);
            return pk_hint(
                err, "name one ('picket COMMAND --help' says how): 'picket status -o name' lists "
                     "them");
        }
        const char *only = json_string_value(json_array_get(names, 0));
        name = pk_strdup(only == NULL ? "" : only);
    }
    if (name == NULL)
        return pk_no_memory(err);
    *ret_fleet = name;
    return 0;
}

int pk_client_status(const struct pk_ctx *ctx, struct pk_http_client *client, const char *fleet,
                     json_t **ret_status, struct pk_error *err)
{
    PK_CLEANUP(pk_free_p) char *path = pk_asprintf("/v1/fleets/%s/status", fleet);
    if (path == NULL)
        return pk_no_memory(err);
    return pk_client_json(ctx, client, "GET", path, NULL, ret_status, err);
}

/* The answer to a bad document: {"error", "errors": [...], "dropped": N}. */
static int read_faults(const json_t *answer, struct pk_errors *errors, struct pk_error *err)
{
    struct pk_error fault;
    size_t i;
    json_t *item;
    json_array_foreach(json_object_get(answer, "errors"), i, item)
    {
        memset(&fault, 0, sizeof(fault));
        pk_json_to_error(item, &fault);
        pk_errors_add(errors, &fault);
    }
    errors->dropped += (size_t)pk_json_int_or(answer, "dropped", 0);
    memset(&fault, 0, sizeof(fault));
    pk_json_to_error(json_object_get(answer, "error"), &fault);
    if (err != NULL)
        *err = fault;
    return fault.code < 0 ? fault.code : PK_E_INTERNAL;
}

int pk_client_plan(const struct pk_ctx *ctx, struct pk_http_client *client, const json_t *body,
                   json_t **ret_plan, struct pk_errors *errors, struct pk_error *err)
{
    const struct pk_http_call call = { .method = "POST", .path = "/v1/plans", .json = body };
    PK_CLEANUP(pk_buf_done) struct pk_buf text = PK_BUF_INIT(MAX_ANSWER);
    unsigned status = 0;
    int r = explain(ctx, pk_http_call(client, &call, &status, &text, err), err);
    if (r < 0)
        return r;
    PK_JSON answer = NULL;
    r = pk_json_parse("the server's answer", text.data == NULL ? "" : text.data, text.len, &answer,
                      err);
    if (r < 0)
        return r;
    if (status >= 400)
        return read_faults(answer, errors, err);
    *ret_plan = PK_TAKE(answer);
    return 0;
}

int pk_client_plan_file(const struct pk_ctx *ctx, struct pk_http_client *client, const char *path,
                        json_t **ret_plan, char **ret_text, struct pk_errors *errors,
                        struct pk_error *err)
{
    PK_CLEANUP(pk_free_p) char *text = NULL;
    size_t len = 0;
    int r = pk_file_read(path, PK_DOC_MAX_BYTES, &text, &len, err);
    if (r < 0) {
        if (r == PK_E_NOTFOUND)
            return pk_hint(err,
                           "name a fleet file; 'picket spec example' prints one to start from");
        return r;
    }
    const char *name = strcmp(path, "-") == 0 ? "stdin" : path;
    json_t *document = json_stringn(text, len);
    if (document == NULL || strlen(text) != len) {
        json_decref(document);
        (void)pk_fail(err, PK_E_INVALID, "it is not UTF-8 text");
        pk_error_at(err, name, 1, 1);
        return pk_hint(err, "save the file as UTF-8");
    }
    PK_JSON body = json_pack("{s:o,s:s}", "document", document, "name", name);
    if (body == NULL)
        return pk_no_memory(err);
    r = pk_client_plan(ctx, client, body, ret_plan, errors, err);
    if (r >= 0 && ret_text != NULL)
        *ret_text = PK_TAKE(text);
    return r;
}

void pk_print_clean(FILE *stream, const char *text)
{
    for (const char *p = text; *p != '\0'; p++)
        (void)fputc((unsigned char)*p < 0x20 || *p == 0x7f ? '?' : *p, stream);
}

const char *pk_color(const struct pk_ctx *ctx, const char *name)
{
    static const struct {
        const char *name, *sequence;
    } colors[] = { { "green", "\033[32m" },
                   { "yellow", "\033[33m" },
                   { "red", "\033[31m" },
                   { "bold", "\033[1m" },
                   { "dim", "\033[2m" } };
    if (!ctx->color)
        return "";
    for (size_t i = 0; name != NULL && i < PK_ARRAY_SIZE(colors); i++)
        if (strcmp(colors[i].name, name) == 0)
            return colors[i].sequence;
    return "\033[0m";
}
