/* SPDX-License-Identifier: Apache-2.0 */
/* picket plan, apply, rollback, delete: the commands that change what runs. */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/fs.h"
#include "base/json.h"
#include "cli/client.h"
#include "cli/commands.h"

static void done_errors(struct pk_errors *errors)
{
    pk_errors_done(errors);
}

/* All faults of a document at once, then the command has said its error. */
static int report(struct pk_ctx *ctx, int r, const struct pk_errors *errors)
{
    if (r < 0 && errors->count > 0) {
        pk_report_errors(ctx, errors);
        ctx->error_reported = true;
    }
    return r;
}

static bool is_machine(const struct pk_ctx *ctx)
{
    return ctx->output == PK_OUT_JSON || ctx->output == PK_OUT_YAML;
}

/* ---- plan ---- */

struct plan_args {
    bool exit_code;
};
static const struct pk_opt plan_opts[] = {
    { "exit-code", 0, PK_OPT_FLAG, NULL, offsetof(struct plan_args, exit_code),
      "exit with 10 when there is something to do", NULL },
};

static int run_plan(struct pk_ctx *ctx, const void *args, int argc, char **argv,
                    struct pk_error *err)
{
    const struct plan_args *options = args;
    (void)argc;
    PK_CLEANUP(pk_http_client_free_p) struct pk_http_client *client = NULL;
    PK_CLEANUP(done_errors) struct pk_errors errors = { 0 };
    PK_JSON plan = NULL;
    int r = pk_ctx_client(ctx, &client, err);
    if (r >= 0)
        r = pk_client_plan_file(ctx, client, argv[0], &plan, NULL, &errors, err);
    if (r < 0)
        return report(ctx, r, &errors);
    size_t steps = pk_plan_step_count(plan);
    const char *id = pk_json_string_or(plan, "id", "");
    if (ctx->output == PK_OUT_NAME) {
        printf("%s\n", id);
    } else if (is_machine(ctx)) {
        r = pk_out_document(ctx, plan, err);
    } else {
        pk_print_plan(ctx, plan);
        if (steps > 0)
            printf("Saved as plan %s. Run 'picket apply %s' (valid until the state changes).\n", id,
                   id);
    }
    return r < 0 ? r : options->exit_code && steps > 0 ? 10 : 0;
}

static const struct pk_arg plan_pos[] = {
    { "FLEET", "the fleet file; - is standard input", "file", false, false },
};
static const char *const plan_examples[] = { "picket plan border.yaml",
                                             "picket plan --exit-code -o json border.yaml", NULL };
const struct pk_cmd pk_cmd_plan = {
    .name = "plan",
    .group = "Change",
    .summary = "show what an apply of a fleet file would do, and save it as a plan",
    .details = "Prints the effect on traffic first, then each step: + adds, ~ changes, - removes, "
               "with its reason. Nothing is changed. The plan is saved under an id; 'picket apply "
               "ID' carries out exactly this plan, and refuses when the state has moved since.",
    .examples = plan_examples,
    .opts = plan_opts,
    .opt_count = PK_ARRAY_SIZE(plan_opts),
    .args = plan_pos,
    .arg_count = PK_ARRAY_SIZE(plan_pos),
    .args_size = sizeof(struct plan_args),
    .flags = PK_CMD_OUTPUT,
    .run = run_plan,
};

/* ---- apply ---- */

struct apply_args {
    const char *reason;
};
static const struct pk_opt apply_opts[] = {
    { "reason", 'r', PK_OPT_STRING, "TEXT", offsetof(struct apply_args, reason),
      "why, kept with the revision", NULL },
};

/* A plan's id rather than a file: hex digits, and no such file is there. */
static bool is_plan_id(const char *text)
{
    size_t len = strlen(text);
    return len >= 4 && len <= 12 && strspn(text, "0123456789abcdef") == len &&
           !pk_file_exists(text);
}

static int get_plan(const struct pk_ctx *ctx, struct pk_http_client *client, const char *id,
                    json_t **ret_plan, struct pk_error *err)
{
    PK_CLEANUP(pk_free_p) char *path = pk_asprintf("/v1/plans/%s", id);
    if (path == NULL)
        return pk_no_memory(err);
    int r = pk_client_json(ctx, client, "GET", path, NULL, ret_plan, err);
    if (r == PK_E_NOTFOUND && err != NULL && err->hint[0] == '\0')
        return pk_hint(err, "'picket plan FLEET' makes and saves a new plan");
    return r;
}

/* The plan that takes a fleet back to one of its revisions. */
static int plan_revision(const struct pk_ctx *ctx, struct pk_http_client *client, const char *fleet,
                         json_int_t revision, json_t **ret_plan, struct pk_errors *errors,
                         struct pk_error *err)
{
    PK_JSON body = json_pack("{s:s,s:I}", "fleet", fleet, "revision", revision);
    if (body == NULL)
        return pk_no_memory(err);
    return pk_client_plan(ctx, client, body, ret_plan, errors, err);
}

/* No argument: what the only fleet's newest revision says, for instance after a failed apply. */
static int plan_current(const struct pk_ctx *ctx, struct pk_http_client *client, json_t **ret_plan,
                        struct pk_errors *errors, struct pk_error *err)
{
    PK_CLEANUP(pk_free_p) char *fleet = NULL;
    PK_JSON status = NULL;
    int r = pk_client_fleet(ctx, client, NULL, &fleet, err);
    if (r >= 0)
        r = pk_client_status(ctx, client, fleet, &status, err);
    if (r < 0)
        return r;
    return plan_revision(ctx, client, fleet, pk_json_int_or(status, "revision", 0), ret_plan,
                         errors, err);
}

static int run_apply(struct pk_ctx *ctx, const void *args, int argc, char **argv,
                     struct pk_error *err)
{
    const struct apply_args *options = args;
    const char *what = argc > 0 ? argv[0] : NULL;
    struct pk_change change = { .reason = options->reason };
    PK_CLEANUP(pk_http_client_free_p) struct pk_http_client *client = NULL;
    PK_CLEANUP(done_errors) struct pk_errors errors = { 0 };
    PK_JSON plan = NULL;
    int r = pk_ctx_client(ctx, &client, err);
    if (r < 0)
        return r;
    if (what != NULL && is_plan_id(what)) {
        r = get_plan(ctx, client, what, &plan, err); /* it was shown when it was made */
    } else {
        change.show = true;
        change.question = "Apply this plan?";
        r = what == NULL ? plan_current(ctx, client, &plan, &errors, err)
                         : pk_client_plan_file(ctx, client, what, &plan, NULL, &errors, err);
    }
    if (r < 0)
        return report(ctx, r, &errors);
    return pk_carry_out(ctx, client, plan, &change, err);
}

static const struct pk_arg apply_pos[] = {
    { "PLAN|FLEET",
      "a saved plan's id or a fleet file; without it the only fleet's newest revision", "file",
      true, false },
};
static const char *const apply_examples[] = { "picket apply border.yaml",
                                              "picket apply 7f3a01bc22de --reason 'new rules'",
                                              NULL };
const struct pk_cmd pk_cmd_apply = {
    .name = "apply",
    .group = "Change",
    .summary = "carry out a plan, or plan and carry out a fleet file",
    .details =
        "A file is planned, shown and, on a terminal, asked about; elsewhere --yes is needed. A "
        "plan that was made before the state moved is refused with exit status 5. Applying again "
        "what runs already does nothing. Ctrl-C only stops watching: the server goes on.",
    .examples = apply_examples,
    .opts = apply_opts,
    .opt_count = PK_ARRAY_SIZE(apply_opts),
    .args = apply_pos,
    .arg_count = PK_ARRAY_SIZE(apply_pos),
    .args_size = sizeof(struct apply_args),
    .flags = PK_CMD_OUTPUT | PK_CMD_CONFIRM,
    .run = run_apply,
};

int pk_apply_file(struct pk_ctx *ctx, const char *path, struct pk_error *err)
{
    const struct apply_args args = { 0 };
    char *argv[] = { pk_strdup(path), NULL };
    if (argv[0] == NULL)
        return pk_no_memory(err);
    int r = run_apply(ctx, &args, 1, argv, err);
    pk_free(argv[0]);
    return r;
}

/* ---- rollback ---- */

struct rollback_args {
    const char *reason, *fleet;
};
static const struct pk_opt rollback_opts[] = {
    { "reason", 'r', PK_OPT_STRING, "TEXT", offsetof(struct rollback_args, reason),
      "why, kept with the revision; needed", NULL },
    { "fleet", 'f', PK_OPT_STRING, "FLEET", offsetof(struct rollback_args, fleet),
      "which fleet, where several run", "fleet" },
};

static int run_rollback(struct pk_ctx *ctx, const void *args, int argc, char **argv,
                        struct pk_error *err)
{
    const struct rollback_args *options = args;
    uint64_t revision = 0;
    (void)argc;
    int r = pk_parse_u64(argv[0], &revision, NULL);
    if (r < 0 || revision < 1 || revision > INT64_MAX) {
        (void)pk_fail(err, PK_E_USAGE, "'%.40s' is not a revision's number", argv[0]);
        return pk_hint(err, "'picket history' lists the revisions");
    }
    if (options->reason == NULL || options->reason[0] == '\0') {
        (void)pk_fail(err, PK_E_USAGE, "a rollback needs a reason");
        return pk_hint(err, "add --reason TEXT; it is kept in the history");
    }
    PK_CLEANUP(pk_http_client_free_p) struct pk_http_client *client = NULL;
    PK_CLEANUP(done_errors) struct pk_errors errors = { 0 };
    PK_CLEANUP(pk_free_p) char *fleet = NULL;
    PK_JSON plan = NULL;
    r = pk_ctx_client(ctx, &client, err);
    if (r >= 0)
        r = pk_client_fleet(ctx, client, options->fleet, &fleet, err);
    if (r >= 0)
        r = plan_revision(ctx, client, fleet, (json_int_t)revision, &plan, &errors, err);
    if (r < 0)
        return report(ctx, r, &errors);
    const struct pk_change change = { .reason = options->reason,
                                      .question = "Go back with this plan?",
                                      .show = true };
    return pk_carry_out(ctx, client, plan, &change, err);
}

static const struct pk_arg rollback_pos[] = {
    { "REV", "number of the revision to go back to", "revision", false, false },
};
static const char *const rollback_examples[] = {
    "picket rollback 3 --reason 'too many false alerts'", NULL
};
const struct pk_cmd pk_cmd_rollback = {
    .name = "rollback",
    .group = "Change",
    .summary = "go back to what an earlier revision said",
    .details = "The earlier document is planned and applied like any other, as a new revision.",
    .examples = rollback_examples,
    .opts = rollback_opts,
    .opt_count = PK_ARRAY_SIZE(rollback_opts),
    .args = rollback_pos,
    .arg_count = PK_ARRAY_SIZE(rollback_pos),
    .args_size = sizeof(struct rollback_args),
    .flags = PK_CMD_OUTPUT | PK_CMD_CONFIRM,
    .run = run_rollback,
};

/* ---- delete ---- */

struct delete_args {
    const char *reason;
};
static const struct pk_opt delete_opts[] = {
    { "reason", 'r', PK_OPT_STRING, "TEXT", offsetof(struct delete_args, reason),
      "why, kept with the revision", NULL },
};

static int run_delete(struct pk_ctx *ctx, const void *args, int argc, char **argv,
                      struct pk_error *err)
{
    const struct delete_args *options = args;
    PK_CLEANUP(pk_http_client_free_p) struct pk_http_client *client = NULL;
    PK_CLEANUP(done_errors) struct pk_errors errors = { 0 };
    PK_CLEANUP(pk_free_p) char *fleet = NULL;
    PK_JSON plan = NULL;
    int r = pk_ctx_client(ctx, &client, err);
    if (r >= 0)
        r = pk_client_fleet(ctx, client, argc > 0 ? argv[0] : NULL, &fleet, err);
    PK_JSON body = r < 0 ? NULL : json_pack("{s:s,s:b}", "fleet", fleet, "remove", 1);
    if (r >= 0 && body == NULL)
        r = pk_no_memory(err);
    if (r >= 0)
        r = pk_client_plan(ctx, client, body, &plan, &errors, err);
    if (r < 0)
        return report(ctx, r, &errors);
    PK_CLEANUP(pk_free_p)
    char *question =
        pk_asprintf("Stop and remove everything of fleet %s? Its events and history stay.", fleet);
    if (question == NULL)
        return pk_no_memory(err);
    const struct pk_change change = { .reason = options->reason,
                                      .question = question,
                                      .show = true };
    return pk_carry_out(ctx, client, plan, &change, err);
}

static const struct pk_arg delete_pos[] = {
    { "FLEET", "which fleet, where several run", "fleet", true, false },
};
static const char *const delete_examples[] = { "picket delete border", NULL };
const struct pk_cmd pk_cmd_delete = {
    .name = "delete",
    .group = "Change",
    .summary = "stop a fleet and remove its taps, lanes and units",
    .details = "Events that are stored and the fleet's history stay; 'picket rollback REV --fleet "
               "FLEET' brings it back.",
    .examples = delete_examples,
    .opts = delete_opts,
    .opt_count = PK_ARRAY_SIZE(delete_opts),
    .args = delete_pos,
    .arg_count = PK_ARRAY_SIZE(delete_pos),
    .args_size = sizeof(struct delete_args),
    .flags = PK_CMD_OUTPUT | PK_CMD_CONFIRM,
    .run = run_delete,
};
