/* SPDX-License-Identifier: Apache-2.0 */
/* What the table cannot tell of groups, and what the agent is told of them. */
#include "base/json.h"
#include "spec/schema.h"

int pk_spec_check_groups(const struct pk_fleet_spec *fleet, struct pk_errors *errors)
{
    int result = 0;
    for (size_t i = 0; i < fleet->group_count; i++) {
        const struct pk_group_spec *group = &fleet->groups[i];
        if (group->shunt_node == NULL || group->shunt.after > 0 || group->shunt.port_count > 0)
            continue;
        pk_fault(errors, fleet->doc, group->shunt_node->line, group->shunt_node->col,
                 "write after: 4MiB, or ports: [873], or both",
                 "spec.groups[%zu].shunt: neither 'after' nor 'ports' says what is shunted", i);
        result = PK_E_INVALID;
    }
    return result;
}

static json_t *shunt_to_json(const struct pk_shunt_rule_spec *shunt)
{
    PK_JSON json = json_pack("{s:I}", "after", (json_int_t)shunt->after);
    PK_JSON ports = json_array();
    int bad = json == NULL || ports == NULL;
    for (size_t i = 0; i < shunt->port_count; i++)
        bad |= json_array_append_new(ports, json_integer(shunt->ports[i]));
    if (shunt->port_count > 0)
        bad |= json_object_set(json, "ports", ports);
    if (shunt->idle > 0 && shunt->idle != PK_SHUNT_IDLE_DEFAULT_S * PK_NSEC_PER_SEC)
        bad |=
            json_object_set_new(json, "idleSeconds", json_integer(shunt->idle / PK_NSEC_PER_SEC));
    return bad != 0 ? NULL : PK_TAKE(json);
}

json_t *pk_group_options(const struct pk_group_spec *group)
{
    PK_JSON json = json_object();
    int bad = json == NULL;
    if (group->shunt.after > 0 || group->shunt.port_count > 0)
        bad |= json_object_set_new(json, "shunt", shunt_to_json(&group->shunt));
    bool both = group->overload == PK_OVERLOAD_MODE_AUTO;
    bool shunt = both || group->overload == PK_OVERLOAD_MODE_SHUNT;
    bool shed = both || group->overload == PK_OVERLOAD_MODE_SHED;
    if (shunt || shed)
        bad |= json_object_set_new(json, "overload",
                                   json_pack("{s:b,s:b}", "shunt", shunt, "shed", shed));
    if (group->drain != PK_DRAIN_DEFAULT_MS * PK_NSEC_PER_MS)
        bad |= json_object_set_new(
            json, "drain",
            json_pack("{s:I}", "deadlineMs", (json_int_t)(group->drain / PK_NSEC_PER_MS)));
    if (group->rebalance == PK_REBALANCE_OFF)
        bad |= json_object_set_new(json, "rebalance", json_string("off"));
    if (group->canary != PK_CANARY_DEFAULT_MS * PK_NSEC_PER_MS)
        bad |= json_object_set_new(
            json, "canary",
            json_pack("{s:I}", "everyMs", (json_int_t)(group->canary / PK_NSEC_PER_MS)));
    return bad != 0 ? NULL : PK_TAKE(json);
}
