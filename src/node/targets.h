/* SPDX-License-Identifier: Apache-2.0 */
/* Where a tap's packets go: its groups, and the tenants that divide its traffic. */
#ifndef PICKET_NODE_TARGETS_H
#define PICKET_NODE_TARGETS_H

#include <jansson.h>

#include "base/common.h"
#include "base/error.h"
#include "broker/broker.h"

#define PK_NODE_SELECTORS_MAX 4096u /* of all tenants of a tap */

struct pk_targets {
    /* As the API has them (node.h), in canonical notation; arrays. */
    json_t *groups, *tenants;
    /* The same for the broker; names are borrowed from the JSON. */
    struct pk_broker_target *target_list;
    struct pk_broker_tenant *tenant_list;
    size_t target_count, tenant_count;
};

/* Reads "groups" and "tenants" of a tap, or "group", one group that gets all. All of it is checked:
 * keys, types, ranges, that a group's tenant is there, and the broker's limits. On failure nothing
 * is kept. */
int pk_targets_parse(const char *fleet, const json_t *body, struct pk_targets *ret_targets,
                     struct pk_error *err);
void pk_targets_done(struct pk_targets *targets);
bool pk_targets_equal(const struct pk_targets *a, const struct pk_targets *b);
/* Does the tap feed the group? */
bool pk_targets_have(const struct pk_targets *targets, const char *group);

#endif
