/* SPDX-License-Identifier: Apache-2.0 */
/* What goes to standard error: faults, and questions before changes. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/json.h"
#include "cli/client.h"
#include "cli/parse.h"

static void print_error(const struct pk_error *err)
{
    (void)fputs("picket: ", stderr);
    if (err->file[0] != '\0') {
        pk_print_clean(stderr, err->file);
        if (err->line > 0)
            (void)fprintf(stderr, ":%u:%u", err->line, err->col);
        (void)fputs(": ", stderr);
    }
    pk_print_clean(stderr, err->msg);
    (void)fputc('\n', stderr);
    if (err->hint[0] != '\0') {
        (void)fputs("hint: ", stderr);
        pk_print_clean(stderr, err->hint);
        (void)fputc('\n', stderr);
    }
}

static void print_json(const char *key, json_t *json_take)
{
    PK_JSON document = json_pack("{s:o}", key, json_take);
    PK_CLEANUP(pk_free_p) char *text = document == NULL ? NULL : pk_json_compact(document);
    (void)fprintf(stderr, "%s\n", text == NULL ? "{\"error\":{\"code\":\"no-memory\"}}" : text);
}

void pk_report_error(const struct pk_ctx *ctx, const struct pk_error *err)
{
    (void)fflush(stdout);
    if (ctx->output == PK_OUT_JSON)
        print_json("error", pk_json_of_error(err));
    else
        print_error(err);
}

void pk_report_errors(const struct pk_ctx *ctx, const struct pk_errors *errors)
{
    (void)fflush(stdout);
    if (ctx->output == PK_OUT_JSON) {
        json_t *list = json_array();
        for (size_t i = 0; i < errors->count; i++)
            (void)json_array_append_new(list, pk_json_of_error(&errors->list[i]));
        print_json("errors", list);
        return;
    }
    for (size_t i = 0; i < errors->count; i++)
        print_error(&errors->list[i]);
    if (errors->dropped > 0)
        (void)fprintf(stderr, "picket: and %zu more\n", errors->dropped);
}

int pk_confirm(const struct pk_ctx *ctx, const char *question, struct pk_error *err)
{
    if (ctx->yes)
        return 0;
    if (isatty(STDIN_FILENO) != 1 || isatty(STDERR_FILENO) != 1) {
        pk_fail(err, PK_E_USAGE, "this changes something and there is no terminal to ask on");
        pk_hint(err, "add --yes");
        return PK_E_USAGE;
    }
    (void)fflush(stdout);
    pk_print_clean(stderr, question);
    (void)fputs(" [y/N] ", stderr);
    char answer[16];
    if (fgets(answer, sizeof(answer), stdin) == NULL)
        answer[0] = '\0';
    answer[strcspn(answer, "\r\n")] = '\0';
    if (strcmp(answer, "y") == 0 || strcmp(answer, "Y") == 0 || strcmp(answer, "yes") == 0)
        return 0;
    return pk_fail(err, PK_E_INTERRUPTED, "not confirmed: nothing was changed");
}
