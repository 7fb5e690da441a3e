/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What changes between where a tap's packets go and where they are to go, and what that does to the
 * traffic. The agent swaps a tap's program whole, so no packet is lost by any of it; what tools see
 * does change, and is said.
 */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/json.h"
#include "plan/internal.h"

#define TEXT_MAX_BYTES 2048u
#define NAMES_MAX      6u /* listed by name; the rest is counted */

/* "a, b and 3 more" after a beginning; nothing when nothing was named. */
struct names {
    struct pk_buf *out;
    const char *between, *begin, *end;
    size_t count;
};

static void name_one(struct names *names, const char *name)
{
    if (names->count == 0)
        (void)pk_buf_printf(names->out, "%s%s", names->out->len > 0 ? names->between : "",
                            names->begin);
    if (names->count < NAMES_MAX)
        (void)pk_buf_printf(names->out, "%s%s", names->count > 0 ? ", " : "", name);
    names->count++;
}

static void names_end(struct names *names)
{
    if (names->count > NAMES_MAX)
        (void)pk_buf_printf(names->out, " and %zu more", names->count - NAMES_MAX);
    if (names->count > 0)
        (void)pk_buf_puts(names->out, names->end);
}

static const char *name_of(const json_t *row)
{
    return pk_json_string_or(row, "name", "");
}

static const json_t *find(const json_t *list, const char *name)
{
    size_t i;
    json_t *row;
    json_array_foreach(list, i, row)
    {
        if (strcmp(name_of(row), name) == 0)
            return row;
    }
    return NULL;
}

static const char *tenant_of(const json_t *group)
{
    return pk_json_string_or(group, "tenant", "");
}

static bool same_member(const json_t *a, const json_t *b, const char *key)
{
    const json_t *before = json_object_get(a, key), *after = json_object_get(b, key);
    return before == after || (before != NULL && after != NULL && json_equal(before, after));
}

/* Names those of one list that the other has not. */
static void list_missing(struct names *names, const json_t *of, const json_t *in)
{
    size_t i;
    json_t *row;
    json_array_foreach(of, i, row)
    {
        if (find(in, name_of(row)) == NULL)
            name_one(names, name_of(row));
    }
    names_end(names);
}

/* Names groups of both lists of which the member differs. */
static void list_differing(struct names *names, const json_t *before, const json_t *after,
                           const char *key)
{
    size_t i;
    json_t *row;
    json_array_foreach(after, i, row)
    {
        const json_t *old = find(before, name_of(row));
        if (old != NULL && !same_member(old, row, key))
            name_one(names, name_of(row));
    }
    names_end(names);
}

/* Tenants that came, went, select otherwise, or stand elsewhere in the order. */
static void list_tenants(struct names *names, const json_t *before, const json_t *after)
{
    size_t i;
    json_t *row;
    json_array_foreach(after, i, row)
    {
        const json_t *old = find(before, name_of(row));
        if (old == NULL || !json_equal(old, row))
            name_one(names, name_of(row));
    }
    json_array_foreach(before, i, row)
    {
        if (find(after, name_of(row)) == NULL)
            name_one(names, name_of(row));
    }
    for (i = 0; names->count == 0 && i < json_array_size(after); i++)
        if (!json_equal(json_array_get(before, i), json_array_get(after, i)))
            name_one(names, name_of(json_array_get(after, i)));
    names_end(names);
}

char *pk_targets_changes(const json_t *groups_from, const json_t *groups_to,
                         const json_t *tenants_from, const json_t *tenants_to)
{
    PK_CLEANUP(pk_buf_done) struct pk_buf out = PK_BUF_INIT(TEXT_MAX_BYTES);
    struct names added = { &out, "; ", "group added: ", "", 0 };
    struct names removed = { &out, "; ", "group removed: ", "", 0 };
    struct names filters = { &out, "; ", "filter changed: ", "", 0 };
    struct names tenants = { &out, "; ", "tenants changed: ", "", 0 };
    list_missing(&added, groups_to, groups_from);
    list_missing(&removed, groups_from, groups_to);
    size_t i;
    json_t *row;
    json_array_foreach(groups_to, i, row)
    {
        const json_t *old = find(groups_from, name_of(row));
        const char *before = tenant_of(old), *after = tenant_of(row);
        if (old != NULL && strcmp(before, after) != 0)
            (void)pk_buf_printf(&out, "%sgroup %s: tenant %s -> %s", out.len > 0 ? "; " : "",
                                name_of(row), before[0] != '\0' ? before : "none",
                                after[0] != '\0' ? after : "none");
    }
    list_differing(&filters, groups_from, groups_to, "filter");
    list_tenants(&tenants, tenants_from, tenants_to);
    if (out.failed && out.data != NULL) /* too long to list: still true */
        return pk_strdup("groups and tenants change");
    return out.len == 0 && !out.failed ? pk_strdup("") : pk_buf_take(&out);
}

char *pk_targets_effect(const json_t *groups_from, const json_t *groups_to,
                        const json_t *tenants_from, const json_t *tenants_to)
{
    PK_CLEANUP(pk_buf_done) struct pk_buf out = PK_BUF_INIT(TEXT_MAX_BYTES);
    struct names added = { &out, ", ", "its packets go to ", " from now", 0 };
    struct names removed = { &out, ", ", "they no longer go to ", "", 0 };
    struct names others = { &out, ", ", "flows of other tenants go to ", "", 0 };
    struct names filters = { &out, ", ", "by its filter other packets go to ", "", 0 };
    for (size_t i = 0; i < json_array_size(groups_to); i++)
        if (find(groups_from, name_of(json_array_get(groups_to, i))) != NULL)
            added.end = " as well from now";
    list_missing(&added, groups_to, groups_from);
    if (added.count == 0)
        removed.begin = "its packets no longer go to ";
    list_missing(&removed, groups_from, groups_to);
    list_differing(&others, groups_from, groups_to, "tenant");
    list_differing(&filters, groups_from, groups_to, "filter");
    if (!json_equal(tenants_from, tenants_to))
        (void)pk_buf_printf(&out,
                            "%sflows that change their tenant move to its lanes, whose tools see "
                            "them from the middle",
                            out.len > 0 ? ", " : "");
    if (out.len > 0)
        (void)pk_buf_puts(&out, "; the change is at once, no packet is lost by it");
    if (out.failed && out.data != NULL)
        return pk_strdup("its packets go to other groups from now");
    return out.len == 0 && !out.failed ? pk_strdup("") : pk_buf_take(&out);
}
