/* SPDX-License-Identifier: Apache-2.0 */
/* picket catalog: the packages that fleets can use, and their values. */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/json.h"
#include "catalog/catalog.h"
#include "cli/commands.h"
#include "cli/parse.h"
#include "spec/spec.h"

#define SCHEMA_DEPTH 16u

/* Broken packages are told of on standard error; the others are still of use. */
static int open_catalog(struct pk_ctx *ctx, struct pk_catalog **ret_catalog, struct pk_error *err)
{
    PK_CLEANUP(pk_errors_done) struct pk_errors errors = { 0 };
    int r = pk_catalog_open(NULL, ret_catalog, &errors);
    if (r < 0 && errors.count > 0) {
        *err = errors.list[errors.count - 1];
        return r;
    }
    if (errors.count > 0)
        pk_report_errors(ctx, &errors);
    return r;
}

/* "suricata" or "suricata@7". */
static int find_package(const struct pk_catalog *catalog, const char *text,
                        const struct pk_package **ret_package,
                        const struct pk_package_version **ret_version, struct pk_error *err)
{
    const char *at = strchr(text, '@');
    PK_CLEANUP(pk_free_p)
    char *name = pk_strndup(text, at != NULL ? (size_t)(at - text) : strlen(text));
    if (name == NULL)
        return pk_no_memory(err);
    return pk_catalog_find(catalog, name, at != NULL ? at + 1 : "", ret_package, ret_version, err);
}

static const struct pk_arg package_args[] = {
    { "PACKAGE", "name of a package", "package", false, false },
};

/* ---- list ---- */

static int run_list(struct pk_ctx *ctx, const void *args, int argc, char **argv,
                    struct pk_error *err)
{
    (void)args;
    (void)argc;
    (void)argv;
    static const struct pk_table_column columns[] = {
        { "NAME", "name", 1, false, NULL },
        { "VERSIONS", "versions", 1, false, NULL },
        { "DEFAULT", "defaultVersion", 2, false, NULL },
        { "SUMMARY", "summary", 3, false, NULL },
        { "FOLDER", "folder", 0, false, NULL },
    };
    PK_CLEANUP(pk_catalog_free_p) struct pk_catalog *catalog = NULL;
    int r = open_catalog(ctx, &catalog, err);
    if (r < 0)
        return r;
    PK_JSON rows = json_array();
    for (size_t i = 0; i < pk_catalog_count(catalog); i++) {
        const struct pk_package *package = pk_catalog_at(catalog, i);
        size_t count;
        const struct pk_package_version *versions = pk_package_versions(package, &count);
        char list[200] = "";
        for (size_t k = 0; k < count; k++) {
            size_t used = strlen(list);
            (void)snprintf(list + used, sizeof(list) - used, "%s%s", k > 0 ? ", " : "",
                           versions[k].version);
        }
        (void)json_array_append_new(
            rows,
            json_pack("{s:s,s:s,s:s,s:s,s:s}", "name", pk_package_name(package), "versions", list,
                      "defaultVersion",
                      pk_json_string_or(pk_package_manifest(package), "defaultVersion", ""),
                      "summary", pk_package_summary(package), "folder", pk_package_dir(package)));
    }
    return pk_out_table(ctx, NULL, rows, columns, PK_ARRAY_SIZE(columns), "name", err);
}

static const char *const list_examples[] = { "picket catalog list", NULL };
const struct pk_cmd pk_cmd_catalog_list = {
    .name = "catalog list",
    .group = "Packages",
    .summary = "list the packages that fleets can use",
    .examples = list_examples,
    .flags = PK_CMD_OUTPUT,
    .run = run_list,
};

/* ---- show ---- */

#define TITLE_WIDTH 16u /* with the indent */

/* Prose is read best in lines that are not too long, and fits the terminal. */
static unsigned prose_width(void)
{
    return PK_MIN(pk_terminal_width(), 100u);
}

static void print_wrapped(const char *title, const char *text)
{
    PK_CLEANUP(pk_buf_done) struct pk_buf out = PK_BUF_INIT(1u << 20);
    if (title != NULL)
        (void)pk_buf_printf(&out, "  %-*s", (int)(TITLE_WIDTH - 2), title);
    unsigned indent = title != NULL ? TITLE_WIDTH : 0;
    pk_text_wrap(&out, text, indent, indent, prose_width());
    if (out.data != NULL)
        (void)fputs(out.data, stdout);
}

static void print_list(const char *title, const struct pk_strv *list)
{
    PK_CLEANUP(pk_buf_done) struct pk_buf words = PK_BUF_INIT(1u << 16);
    for (size_t i = 0; i < list->count; i++)
        (void)pk_buf_printf(&words, "%s ", list->list[i]);
    print_wrapped(title, words.data != NULL ? words.data : "none");
}

static void print_version(const struct pk_package *package,
                          const struct pk_package_version *version)
{
    char number[32], text[400];
    printf("\n%s@%s\n", pk_package_name(package), version->version);
    if (version->known.count > 0)
        print_list("Tried with:", &version->known);
    print_wrapped("Image:", version->image);
    print_list("Command:", &version->argv);
    print_list("Capabilities:", &version->capabilities);
    print_wrapped("Config:", version->config_dir);
    print_wrapped("Logs:", version->log_dir);
    for (size_t i = 0; i < version->log_count; i++) {
        (void)snprintf(text, sizeof(text), "%s (%s)", version->logs[i].glob,
                       version->logs[i].format);
        print_wrapped("", text);
    }
    print_wrapped("Sockets:", version->run_dir);
    (void)snprintf(text, sizeof(text), "asked over %s", version->probe_socket);
    print_wrapped("Health:", version->probe == PK_PROBE_SURICATA ? text : "running is ready");
    (void)snprintf(text, sizeof(text), "%u processes, %u open files, %s in /tmp, %u s to stop",
                   version->pids_max, version->nofile,
                   pk_human_bytes(version->tmpfs_bytes, number, sizeof(number)),
                   version->stop_timeout_ms / 1000);
    print_wrapped("Limits:", text);
}

static void print_named(const json_t *manifest, const char *key, const char *title)
{
    const json_t *list = json_object_get(manifest, key);
    size_t i;
    json_t *row;
    if (json_array_size(list) > 0)
        printf("\n%s\n", title);
    json_array_foreach(list, i, row)
    {
        const json_t *port = json_object_get(row, "port");
        printf("  %s", pk_json_string_or(row, "name", ""));
        if (port != NULL)
            printf(" %s/%" JSON_INTEGER_FORMAT, pk_json_string_or(row, "protocol", "tcp"),
                   json_integer_value(port));
        printf("  %s\n", pk_json_string_or(row, "help", ""));
    }
}

static int run_show(struct pk_ctx *ctx, const void *args, int argc, char **argv,
                    struct pk_error *err)
{
    (void)args;
    (void)argc;
    PK_CLEANUP(pk_catalog_free_p) struct pk_catalog *catalog = NULL;
    const struct pk_package *package;
    const struct pk_package_version *version;
    int r = open_catalog(ctx, &catalog, err);
    if (r < 0 || (r = find_package(catalog, argv[0], &package, &version, err)) < 0)
        return r;
    const json_t *manifest = pk_package_manifest(package);
    if (ctx->output == PK_OUT_JSON || ctx->output == PK_OUT_YAML)
        return pk_out_document(ctx, manifest, err);
    if (ctx->output == PK_OUT_NAME) {
        puts(pk_package_name(package));
        return 0;
    }
    printf("%s: %s\n\n", pk_package_name(package), pk_package_summary(package));
    print_wrapped(NULL, pk_json_string_or(manifest, "description", ""));
    printf("\nHomepage: %s\nLicence:  %s\nFolder:   %s\n",
           pk_json_string_or(manifest, "homepage", "-"),
           pk_json_string_or(manifest, "license", "-"), pk_package_dir(package));
    size_t count;
    const struct pk_package_version *versions = pk_package_versions(package, &count);
    bool one = strchr(argv[0], '@') != NULL;
    for (size_t i = 0; i < count; i++)
        if (!one || &versions[i] == version)
            print_version(package, &versions[i]);
    print_named(manifest, "ports", "Ports");
    print_named(manifest, "metrics", "Metrics");
    printf("\nValues: picket catalog values %s\n", pk_package_name(package));
    return 0;
}

static const char *const show_examples[] = { "picket catalog show suricata",
                                             "picket catalog show suricata@7 -o yaml", NULL };
const struct pk_cmd pk_cmd_catalog_show = {
    .name = "catalog show",
    .group = "Packages",
    .summary = "show a package: versions, image, logs, limits",
    .examples = show_examples,
    .args = package_args,
    .arg_count = PK_ARRAY_SIZE(package_args),
    .flags = PK_CMD_OUTPUT,
    .run = run_show,
};

/* ---- values ---- */

static void type_text(const json_t *schema, char *out, size_t size)
{
    const json_t *type = json_object_get(schema, "type"),
                 *choices = json_object_get(schema, "enum");
    const json_t *low = json_object_get(schema, "minimum"),
                 *high = json_object_get(schema, "maximum");
    size_t used = 0, i;
    json_t *one;
    out[0] = '\0';
    if (json_is_string(type))
        used += (size_t)snprintf(out, size, "%s", json_string_value(type));
    json_array_foreach(type, i, one)
    {
        if (used < size)
            used += (size_t)snprintf(out + used, size - used, "%s%s", i > 0 ? " or " : "",
                                     json_string_value(one));
    }
    const char *items = pk_json_string_or(schema, "items.type", NULL);
    if (items != NULL && used < size)
        used += (size_t)snprintf(out + used, size - used, " of %s", items);
    if (low != NULL && high != NULL && used < size)
        used += (size_t)snprintf(out + used, size - used, " %.15g..%.15g", json_number_value(low),
                                 json_number_value(high));
    else if (low != NULL && used < size)
        used += (size_t)snprintf(out + used, size - used, " >= %.15g", json_number_value(low));
    else if (high != NULL && used < size)
        used += (size_t)snprintf(out + used, size - used, " <= %.15g", json_number_value(high));
    json_array_foreach(choices, i, one)
    {
        PK_CLEANUP(pk_free_p)
        char *text = json_is_string(one) ? NULL : pk_json_compact(one);
        if (used < size)
            used += (size_t)snprintf(out + used, size - used, "%s%s", i > 0 ? "|" : ": ",
                                     text != NULL ? text
                                     : json_is_string(one) && json_string_length(one) > 0
                                         ? json_string_value(one)
                                         : "\"\"");
    }
}

/* One row for each key below the schema, in the schema's order. */
static void add_rows(json_t *rows, const json_t *schema, const char *prefix, unsigned depth)
{
    const char *key;
    json_t *inner;
    if (depth == SCHEMA_DEPTH)
        return;
    json_object_foreach(json_object_get(schema, "properties"), key, inner)
    {
        char path[256], type[400];
        const json_t *initial = json_object_get(inner, "default");
        const json_t *items = json_object_get(inner, "items");
        bool map = json_object_size(json_object_get(inner, "properties")) > 0;
        (void)snprintf(path, sizeof(path), "%s%s%s", prefix, prefix[0] != '\0' ? "." : "", key);
        type_text(inner, type, sizeof(type));
        PK_CLEANUP(pk_free_p)
        char *text = initial == NULL || map ? NULL : pk_json_compact(initial);
        json_t *row = json_pack("{s:s,s:s,s:s,s:s}", "key", path, "type", type, "default",
                                text != NULL ? text : "", "description",
                                pk_json_string_or(inner, "description", ""));
        (void)json_array_append_new(rows, row);
        add_rows(rows, inner, path, depth + 1);
        if (json_object_size(json_object_get(items, "properties")) > 0) {
            size_t used = strlen(path);
            (void)snprintf(path + used, sizeof(path) - used, "[]");
            add_rows(rows, items, path, depth + 1);
        }
    }
}

/* For reading: a key with its type and default, below it what it means. */
static void print_values(const json_t *rows)
{
    size_t i;
    json_t *row;
    json_array_foreach(rows, i, row)
    {
        const char *initial = pk_json_string_or(row, "default", "");
        printf("%s  (%s%s%s)\n", pk_json_string_or(row, "key", ""),
               pk_json_string_or(row, "type", ""), initial[0] != '\0' ? "; default " : "", initial);
        printf("    %s\n", pk_json_string_or(row, "description", ""));
    }
}

static int run_values(struct pk_ctx *ctx, const void *args, int argc, char **argv,
                      struct pk_error *err)
{
    (void)args;
    (void)argc;
    static const struct pk_table_column columns[] = {
        { "KEY", "key", 1, false, NULL },
        { "TYPE", "type", 2, false, NULL },
        { "DEFAULT", "default", 2, false, NULL },
        { "MEANING", "description", 3, false, NULL },
    };
    PK_CLEANUP(pk_catalog_free_p) struct pk_catalog *catalog = NULL;
    const struct pk_package *package;
    const struct pk_package_version *version;
    int r = open_catalog(ctx, &catalog, err);
    if (r < 0 || (r = find_package(catalog, argv[0], &package, &version, err)) < 0)
        return r;
    PK_JSON rows = json_array();
    add_rows(rows, pk_package_schema(package), "", 0);
    if (rows == NULL)
        return pk_no_memory(err);
    if (ctx->output == PK_OUT_TABLE) {
        print_values(rows);
        return 0;
    }
    return pk_out_table(ctx, pk_package_schema(package), rows, columns, PK_ARRAY_SIZE(columns),
                        "key", err);
}

static const char *const values_examples[] = { "picket catalog values suricata",
                                               "picket catalog values suricata -o json", NULL };
const struct pk_cmd pk_cmd_catalog_values = {
    .name = "catalog values",
    .group = "Packages",
    .summary = "explain the values that a tool of this package takes",
    .details = "What may be written under 'values' of a tool in the fleet file. -o wide prints a "
               "table, -o json the package's JSON Schema.",
    .examples = values_examples,
    .args = package_args,
    .arg_count = PK_ARRAY_SIZE(package_args),
    .flags = PK_CMD_OUTPUT,
    .run = run_values,
};
