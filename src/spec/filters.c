/* SPDX-License-Identifier: Apache-2.0 */
/* A group's filter is compiled as the agent will do it: what cannot be is told with its place. */
#include <stdio.h>
#include <string.h>

#include "packet/filter.h"
#include "spec/schema.h"

/* The value that the fault is about, and its name below "filter". */
static const struct pk_node *faulty_node(const struct pk_node *filter,
                                         const struct pk_filter_fault *fault, char *where,
                                         size_t size)
{
    const struct pk_node *node = filter;
    where[0] = '\0';
    if (filter->kind != PK_NODE_MAP || fault->key == NULL)
        return node;
    const struct pk_node *member = pk_node_get(filter, fault->key);
    if (member == NULL)
        return node;
    (void)snprintf(where, size, ".%s", fault->key);
    if (member->kind != PK_NODE_LIST || fault->index >= member->count)
        return member;
    (void)snprintf(where, size, ".%s[%zu]", fault->key, fault->index);
    return member->items[fault->index];
}

int pk_spec_check_filters(const struct pk_fleet_spec *fleet, struct pk_errors *errors)
{
    int result = 0;
    for (size_t i = 0; i < fleet->group_count; i++) {
        const struct pk_group_spec *group = &fleet->groups[i];
        struct pk_filter_fault fault = { 0 };
        struct pk_error err = { 0 };
        struct pk_filter *filter = NULL;
        int r = group->filter == NULL ? 0 : pk_filter_compile(group->filter, &filter, &fault, &err);
        pk_filter_free(filter);
        if (r == PK_E_NOMEM)
            return r;
        if (r >= 0)
            continue;
        char where[64];
        const struct pk_node *node = faulty_node(group->filter_node, &fault, where, sizeof(where));
        unsigned col = node->col;
        /* In a text of one line the place is known to the letter. */
        if (fault.column > 1 && node->kind == PK_NODE_STRING && strchr(node->text, '\n') == NULL)
            col += fault.column - 1 + node->quoted;
        pk_fault(errors, fleet->doc, node->line, col, err.hint, "spec.groups[%zu].filter%s: %s", i,
                 where, err.msg);
        result = PK_E_INVALID;
    }
    return result;
}
