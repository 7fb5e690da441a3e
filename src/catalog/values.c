/* SPDX-License-Identifier: Apache-2.0 */
/* Checks the values of a fleet's tools against the packages' schemas; faults have the user's
 * positions. */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/json.h"
#include "catalog/internal.h"

struct value_sink {
    const struct pk_package *package;
    const struct pk_doc *doc;
    const struct pk_node *values; /* NULL: the user wrote none */
    struct pk_errors *errors;
};

/* "/rules/suppress/0/sid" -> "values.rules.suppress[0].sid". */
static void dotted(const struct pk_node *values, const char *pointer, char *out, size_t size)
{
    char prefix[512];
    size_t used = (size_t)snprintf(out, size, "values");
    for (const char *at = pointer; *at == '/' && used < size;) {
        size_t len = strcspn(at + 1, "/");
        (void)snprintf(prefix, sizeof(prefix), "%.*s", (int)(at - pointer), pointer);
        bool list = values != NULL && pk_node_resolve(values, prefix)->kind == PK_NODE_LIST;
        used += (size_t)snprintf(out + used, size - used, list ? "[%.*s]" : ".%.*s",
                                 (int)PK_MIN(len, (size_t)80), at + 1);
        at += 1 + len;
    }
}

static void on_fault(void *arg, const char *pointer, bool at_key, const char *message,
                     const char *hint)
{
    struct value_sink *sink = arg;
    const struct pk_node *node =
        sink->values != NULL ? pk_node_resolve(sink->values, pointer) : NULL;
    unsigned line = node != NULL ? node->line : 0, col = node != NULL ? node->col : 0;
    char where[256];
    if (at_key && node != NULL && node->key != NULL) {
        line = node->key_line;
        col = node->key_col;
    }
    dotted(sink->values, pointer, where, sizeof(where));
    /* For a key that is not known its parent is named: the message has the key. */
    char *last = at_key ? strrchr(where, '.') : NULL;
    if (last != NULL)
        *last = '\0';
    pk_fault(sink->errors, sink->doc, line, col, hint, "%s: %s: %s", sink->package->rows.name,
             where, message);
}

int pk_package_check_values(const struct pk_package *package,
                            const struct pk_package_version *version, const struct pk_doc *doc,
                            const struct pk_node *values, json_t **ret_values,
                            struct pk_errors *errors)
{
    (void)version; /* one schema serves all versions of a package */
    struct pk_error err;
    struct value_sink sink = { package, doc, values, errors };
    struct pk_jsonschema_sink schema_sink = { on_fault, &sink };
    size_t before = errors->count + errors->dropped;
    bool empty = values == NULL || values->kind == PK_NODE_NULL;
    PK_JSON json = empty ? json_object() : pk_node_to_json(values);
    int r = json != NULL ? pk_jsonschema_run(package->schema, json, &schema_sink, &err)
                         : pk_fail(&err, PK_E_NOMEM, "out of memory");
    if (r == 0)
        r = pk_jsonschema_fill_defaults(package->schema, json, &err);
    if (r < 0) {
        if (errors->count + errors->dropped == before) { /* no fault of a single value */
            if (values != NULL)
                pk_error_at(&err, pk_doc_name(doc), values->line, values->col);
            (void)pk_wrap(&err, "%s: values", package->rows.name);
            pk_errors_add(errors, &err);
        }
        return r;
    }
    *ret_values = PK_TAKE(json);
    return 0;
}

int pk_package_check_role(const struct pk_package *package, bool is_inline, struct pk_error *err)
{
    if (pk_strv_contains(&package->rows.roles, is_inline ? "inline" : "lane"))
        return 0;
    (void)pk_fail(err, PK_E_INVALID, "package %s %s", pk_package_name(package),
                  is_inline ? "cannot stand inline" : "only works inline");
    return pk_hint(err, is_inline
                            ? "an inline tap needs a tool that sends on what it lets through, such "
                              "as suricata"
                            : "give its group an inline tap");
}

int pk_catalog_check_fleet(const struct pk_catalog *catalog, const struct pk_fleet_spec *fleet,
                           struct pk_errors *errors)
{
    int result = 0;
    for (size_t g = 0; g < fleet->group_count; g++)
        for (size_t t = 0; t < fleet->groups[g].tool_count; t++) {
            const struct pk_tool_spec *tool = &fleet->groups[g].tools[t];
            const struct pk_package *package;
            const struct pk_package_version *version;
            struct pk_error err;
            PK_JSON values = NULL;
            int r =
                pk_catalog_find(catalog, tool->package, tool->version, &package, &version, &err);
            if (r < 0) {
                err.code = PK_E_INVALID; /* the document is at fault */
                pk_error_at(&err, pk_doc_name(fleet->doc), tool->package_pos.line,
                            tool->package_pos.col);
                pk_errors_add(errors, &err);
                result = PK_E_INVALID;
                continue;
            }
            bool is_inline = pk_group_inline_tap(fleet, &fleet->groups[g]) != NULL;
            if (pk_package_check_role(package, is_inline, &err) < 0) {
                pk_error_at(&err, pk_doc_name(fleet->doc), tool->package_pos.line,
                            tool->package_pos.col);
                pk_errors_add(errors, &err);
                result = PK_E_INVALID;
            }
            r = pk_package_check_values(package, version, fleet->doc, tool->values_node, &values,
                                        errors);
            if (r < 0)
                result = r;
        }
    pk_errors_sort(errors);
    return result;
}
