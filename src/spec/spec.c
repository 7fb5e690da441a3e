/* SPDX-License-Identifier: Apache-2.0 */
/* The typed fleet, from the document by its table, and back. */
#include "spec/spec.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/map.h"
#include "spec/schema.h"

const char *pk_group_hash_name(enum pk_group_hash hash)
{
    static const char *const names[PK_GROUP_HASHES] = { "outer", "flow", "addresses" };
    return names[hash];
}

void pk_spec_free(struct pk_fleet_spec *fleet)
{
    if (fleet == NULL)
        return;
    for (size_t g = 0; g < fleet->group_count; g++)
        for (size_t t = 0; t < fleet->groups[g].tool_count; t++)
            pk_free(fleet->groups[g].tools[t].version);
    pk_table_done(&pk_fleet_table, fleet);
    pk_doc_free(fleet->doc);
    pk_free(fleet);
}

/* "suricata@7" -> "suricata" and "7". */
static int split_package(struct pk_tool_spec *tool)
{
    if (tool->package == NULL)
        return 0;
    char *at = strchr(tool->package, '@');
    tool->version = pk_strdup(at != NULL ? at + 1 : "");
    if (at != NULL)
        *at = '\0';
    return tool->version != NULL ? 0 : PK_E_NOMEM;
}

/* A tool's name may follow from its package, so that the table's own check does not see it. */
static bool check_tool_names(const struct pk_fleet_spec *fleet, struct pk_errors *errors)
{
    bool good = true;
    for (size_t g = 0; g < fleet->group_count; g++) {
        const struct pk_group_spec *group = &fleet->groups[g];
        for (size_t t = 0; t < group->tool_count; t++)
            for (size_t before = 0; before < t; before++) {
                const struct pk_tool_spec *tool = &group->tools[t], *first = &group->tools[before];
                if (tool->name == NULL || first->name == NULL ||
                    strcmp(tool->name, first->name) != 0)
                    continue;
                char hint[160];
                (void)snprintf(hint, sizeof(hint), "give this one a name of its own: name: %.30s-2",
                               tool->name);
                pk_fault(errors, fleet->doc, tool->pos.line, tool->pos.col, hint,
                         "spec.groups[%zu].tools[%zu]: the group has a tool \"%s\" already, on "
                         "line %u",
                         g, t, tool->name, first->pos.line);
                good = false;
                break;
            }
    }
    return good;
}

static int out_of_memory(const char *name, struct pk_errors *errors)
{
    struct pk_error err;
    pk_fail(&err, PK_E_NOMEM, "%s: out of memory", name);
    pk_errors_add(errors, &err);
    return PK_E_NOMEM;
}

static int from_doc(struct pk_doc *doc_take, struct pk_fleet_spec **ret_fleet,
                    struct pk_errors *errors)
{
    PK_CLEANUP(pk_spec_free_p) struct pk_fleet_spec *fleet = pk_zalloc(sizeof(*fleet));
    if (fleet == NULL) {
        int r = out_of_memory(pk_doc_name(doc_take), errors);
        pk_doc_free(doc_take);
        return r;
    }
    fleet->doc = doc_take;
    int r = pk_table_read(&pk_fleet_table, fleet->doc, fleet, errors);
    if (r == PK_E_NOMEM)
        return r;
    for (size_t g = 0; g < fleet->group_count; g++)
        for (size_t t = 0; t < fleet->groups[g].tool_count; t++)
            if (split_package(&fleet->groups[g].tools[t]) < 0)
                return out_of_memory(pk_doc_name(fleet->doc), errors);
    bool good = pk_spec_check_taps(fleet, errors);
    if (r == 0)
        good = pk_spec_check_devices(fleet, errors) && good;
    int tenants = pk_spec_check_tenants(fleet, r == 0, errors);
    int filters = pk_spec_check_filters(fleet, errors);
    int groups = r == 0 ? pk_spec_check_groups(fleet, errors) : 0;
    if (tenants == PK_E_NOMEM || filters == PK_E_NOMEM)
        return out_of_memory(pk_doc_name(fleet->doc), errors);
    if (!check_tool_names(fleet, errors) || tenants < 0 || filters < 0 || groups < 0 || !good) {
        r = PK_E_INVALID;
        pk_errors_sort(errors);
    }
    if (r < 0)
        return r;
    *ret_fleet = PK_TAKE(fleet);
    return 0;
}

int pk_spec_parse(const char *name, const char *text, size_t len, struct pk_fleet_spec **ret_fleet,
                  struct pk_errors *errors)
{
    struct pk_doc *doc;
    struct pk_error err;
    int r = pk_doc_parse(name, text, len, &doc, &err);
    if (r < 0) {
        pk_errors_add(errors, &err);
        return r;
    }
    return from_doc(doc, ret_fleet, errors);
}

int pk_spec_load(const char *path, struct pk_fleet_spec **ret_fleet, struct pk_errors *errors)
{
    struct pk_doc *doc;
    struct pk_error err;
    int r = pk_doc_load(path, &doc, &err);
    if (r < 0) {
        if (err.hint[0] == '\0')
            (void)pk_hint(&err,
                          "name a fleet file; 'picket spec example' prints one to begin with");
        pk_errors_add(errors, &err);
        return r;
    }
    return from_doc(doc, ret_fleet, errors);
}

json_t *pk_spec_to_json(const struct pk_fleet_spec *fleet, bool with_defaults)
{
    return pk_table_to_json(&pk_fleet_table, pk_doc_root(fleet->doc), with_defaults);
}

char *pk_spec_to_yaml(const struct pk_fleet_spec *fleet, bool with_defaults)
{
    json_t *json = pk_spec_to_json(fleet, with_defaults);
    char *text = json != NULL ? pk_yaml_of_json(json) : NULL;
    json_decref(json);
    return text;
}

json_t *pk_spec_json_schema(void)
{
    return pk_table_json_schema(&pk_fleet_table);
}

static char *example_text;

static void make_example(void)
{
    example_text = pk_table_example(&pk_fleet_table);
}

const char *pk_spec_example(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    (void)pthread_once(&once, make_example);
    return example_text != NULL ? example_text : "";
}
