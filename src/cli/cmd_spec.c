/* SPDX-License-Identifier: Apache-2.0 */
/* picket spec: work on fleet files without a server. */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/fs.h"
#include "base/json.h"
#include "catalog/catalog.h"
#include "cli/commands.h"
#include "spec/spec.h"

static const struct pk_arg file_args[] = {
    { "FILE", "fleet file; - is standard input", "file", false, true },
};

/* ---- check ---- */

struct check_args {
    bool no_catalog;
};
static const struct pk_opt check_opts[] = {
    { "no-catalog", 0, PK_OPT_FLAG, NULL, offsetof(struct check_args, no_catalog),
      "do not look up packages and their values", NULL },
};

/* One file. Faults go to errors; *ret_fleet may be NULL when there are any. */
static int check_file(const struct pk_catalog *catalog, const char *path, json_t *result,
                      struct pk_fleet_spec **ret_fleet, struct pk_errors *errors)
{
    int r = pk_spec_load(path, ret_fleet, errors);
    if (r >= 0 && catalog != NULL)
        r = pk_catalog_check_fleet(catalog, *ret_fleet, errors);
    json_t *list = json_array();
    for (size_t i = 0; i < errors->count; i++)
        (void)json_array_append_new(list, pk_json_of_error(&errors->list[i]));
    (void)json_object_set_new(result, "file", json_string(path));
    (void)json_object_set_new(result, "valid", json_boolean(r >= 0));
    (void)json_object_set_new(result, "errors", list);
    if (errors->dropped > 0)
        (void)json_object_set_new(result, "moreErrors", json_integer((json_int_t)errors->dropped));
    return r;
}

static int run_check(struct pk_ctx *ctx, const void *args, int argc, char **argv,
                     struct pk_error *err)
{
    const struct check_args *options = args;
    PK_CLEANUP(pk_catalog_free_p) struct pk_catalog *catalog = NULL;
    PK_JSON files = json_array();
    bool structured = ctx->output == PK_OUT_JSON || ctx->output == PK_OUT_YAML;
    int result = 0;
    if (!options->no_catalog) {
        struct pk_errors errors = { 0 };
        int r = pk_catalog_open(NULL, &catalog, &errors);
        if (errors.count > 0)
            pk_report_errors(ctx, &errors);
        pk_errors_done(&errors);
        if (r < 0) {
            ctx->error_reported = true;
            return pk_fail(err, r, "the catalog of packages cannot be read");
        }
    }
    for (int i = 0; i < argc; i++) {
        PK_CLEANUP(pk_spec_free_p) struct pk_fleet_spec *fleet = NULL;
        PK_CLEANUP(pk_errors_done) struct pk_errors errors = { 0 };
        json_t *one = json_object();
        int r = check_file(catalog, argv[i], one, &fleet, &errors);
        (void)json_array_append_new(files, one);
        if (r < 0)
            result = pk_fail(err, r, "%s is not valid", argv[i]);
        if (structured)
            continue;
        if (r < 0)
            pk_report_errors(ctx, &errors);
        else if (!ctx->quiet)
            printf("%s: fleet %s is valid (%zu tap%s, %zu group%s)\n", argv[i], fleet->name,
                   fleet->tap_count, fleet->tap_count == 1 ? "" : "s", fleet->group_count,
                   fleet->group_count == 1 ? "" : "s");
    }
    if (structured) {
        PK_JSON document = json_pack("{s:s,s:s,s:O}", "apiVersion", PK_API_VERSION, "kind",
                                     "SpecCheck", "files", files);
        int r = document != NULL ? pk_out_document(ctx, document, err) : pk_no_memory(err);
        if (r < 0)
            return r;
    }
    ctx->error_reported = result < 0;
    return result;
}

static const char *const check_examples[] = { "picket spec check fleet.yaml",
                                              "picket spec check -o json fleets/*.yaml", NULL };
const struct pk_cmd pk_cmd_spec_check = {
    .name = "spec check",
    .group = "Look",
    .summary = "check fleet files",
    .details =
        "Finds unknown keys, wrong types and ranges, names that are not there, packages and versions "
        "that the catalog does not have, and values that a package does not take. All faults "
        "of a file are shown, each with its line and column. Needs no server.",
    .examples = check_examples,
    .opts = check_opts,
    .opt_count = PK_ARRAY_SIZE(check_opts),
    .args = file_args,
    .arg_count = PK_ARRAY_SIZE(file_args),
    .args_size = sizeof(struct check_args),
    .flags = PK_CMD_OUTPUT,
    .run = run_check,
};

/* ---- fmt ---- */

struct fmt_args {
    bool write, defaults, drop_comments;
};
static const struct pk_opt fmt_opts[] = {
    { "write", 'w', PK_OPT_FLAG, NULL, offsetof(struct fmt_args, write),
      "write the result to the file instead of printing it", NULL },
    { "defaults", 0, PK_OPT_FLAG, NULL, offsetof(struct fmt_args, defaults),
      "fill in the defaults of what is left out", NULL },
    { "drop-comments", 0, PK_OPT_FLAG, NULL, offsetof(struct fmt_args, drop_comments),
      "with --write: also when the file has comments, which are lost", NULL },
};

/* Line of the first comment, 0 = none. A '#' in a block of text is taken for one too: that only
 * makes
 * --write ask for leave. */
static unsigned comment_line(const char *text, size_t len)
{
    unsigned line = 1;
    char quote = '\0';
    for (size_t i = 0; i < len; i++) {
        char c = text[i], before = i > 0 ? text[i - 1] : '\n';
        bool word_start = strchr(" \t\n[{,:", before) != NULL;
        line += c == '\n';
        if (quote != '\0') {
            if (c == '\\' && quote == '"')
                i++;
            else if (c == quote)
                quote = '\0';
        } else if ((c == '"' || c == '\'') && word_start) {
            quote = c;
        } else if (c == '#' && (before == ' ' || before == '\t' || before == '\n')) {
            return line;
        }
    }
    return 0;
}

static int format_file(const struct fmt_args *options, const char *path, struct pk_errors *errors,
                       struct pk_error *err)
{
    PK_CLEANUP(pk_free_p) char *text = NULL;
    PK_CLEANUP(pk_free_p) char *formatted = NULL;
    PK_CLEANUP(pk_spec_free_p) struct pk_fleet_spec *fleet = NULL;
    size_t len;
    int r = pk_file_read(path, PK_DOC_MAX_BYTES, &text, &len, err);
    if (r < 0)
        return r;
    r = pk_spec_parse(path, text, len, &fleet, errors);
    if (r < 0)
        return pk_fail(err, r, "%s is not valid", path);
    formatted = pk_spec_to_yaml(fleet, options->defaults);
    if (formatted == NULL)
        return pk_no_memory(err);
    if (!options->write) {
        (void)fputs(formatted, stdout);
        return 0;
    }
    if (strlen(formatted) == len && memcmp(formatted, text, len) == 0)
        return 0;
    unsigned comment = comment_line(text, len);
    if (comment != 0 && !options->drop_comments) {
        pk_fail(err, PK_E_USAGE, "the file has comments, which --write would lose");
        pk_error_at(err, path, comment, 1);
        return pk_hint(err, "add --drop-comments, or leave out --write to look at the result");
    }
    return pk_file_write(path, formatted, strlen(formatted), 0644, err);
}

static int run_fmt(struct pk_ctx *ctx, const void *args, int argc, char **argv,
                   struct pk_error *err)
{
    int result = 0;
    for (int i = 0; i < argc && result == 0; i++) {
        PK_CLEANUP(pk_errors_done) struct pk_errors errors = { 0 };
        if (((const struct fmt_args *)args)->write && strcmp(argv[i], "-") == 0) {
            pk_fail(err, PK_E_USAGE, "standard input cannot be written to");
            return pk_hint(err, "leave out --write");
        }
        result = format_file(args, argv[i], &errors, err);
        if (errors.count > 0) {
            pk_report_errors(ctx, &errors);
            ctx->error_reported = true;
        }
    }
    return result;
}

static const char *const fmt_examples[] = { "picket spec fmt fleet.yaml",
                                            "picket spec fmt --write fleet.yaml",
                                            "picket spec fmt --defaults fleet.yaml", NULL };
const struct pk_cmd pk_cmd_spec_fmt = {
    .name = "spec fmt",
    .group = "Look",
    .summary = "print fleet files in their canonical form",
    .details = "Keys come in the order of the reference, sizes and times in their shortest form. "
               "Comments are not kept.",
    .examples = fmt_examples,
    .opts = fmt_opts,
    .opt_count = PK_ARRAY_SIZE(fmt_opts),
    .args = file_args,
    .arg_count = PK_ARRAY_SIZE(file_args),
    .args_size = sizeof(struct fmt_args),
    .run = run_fmt,
};

/* ---- schema, example ---- */

static int run_schema(struct pk_ctx *ctx, const void *args, int argc, char **argv,
                      struct pk_error *err)
{
    (void)ctx;
    (void)args;
    (void)argc;
    (void)argv;
    PK_JSON schema = pk_spec_json_schema();
    PK_CLEANUP(pk_free_p) char *text = schema != NULL ? pk_json_pretty(schema) : NULL;
    if (text == NULL)
        return pk_no_memory(err);
    puts(text);
    return 0;
}

static const char *const schema_examples[] = { "picket spec schema > fleet.schema.json", NULL };
const struct pk_cmd pk_cmd_spec_schema = {
    .name = "spec schema",
    .group = "Look",
    .summary = "print the JSON Schema of fleet files, for editors",
    .examples = schema_examples,
    .run = run_schema,
};

static int run_example(struct pk_ctx *ctx, const void *args, int argc, char **argv,
                       struct pk_error *err)
{
    (void)ctx;
    (void)args;
    (void)argc;
    (void)argv;
    (void)err;
    (void)fputs(pk_spec_example(), stdout);
    return 0;
}

static const char *const example_examples[] = { "picket spec example > fleet.yaml", NULL };
const struct pk_cmd pk_cmd_spec_example = {
    .name = "spec example",
    .group = "Look",
    .summary = "print a fleet file with every key explained",
    .examples = example_examples,
    .run = run_example,
};
