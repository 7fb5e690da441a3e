/* SPDX-License-Identifier: Apache-2.0 */
/* Taps: what the table cannot tell, and what the agent is told of them. */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/json.h"
#include "spec/schema.h"

static const char *const kind_names[] = {
    [PK_TAP_INTERFACE] = "interface",
    [PK_TAP_REPLAY] = "replay",
    [PK_TAP_TUNNEL] = "tunnel",
    [PK_TAP_INLINE] = "inline",
};

const char *pk_tap_kind_name(enum pk_tap_kind kind)
{
    return kind_names[kind];
}

enum pk_tap_kind pk_tap_kind_parse(const char *name)
{
    for (size_t i = 0; i < PK_ARRAY_SIZE(kind_names); i++)
        if (strcmp(kind_names[i], name) == 0)
            return (enum pk_tap_kind)i;
    return PK_TAP_INTERFACE;
}

static void fault_at(struct pk_errors *errors, const struct pk_fleet_spec *fleet,
                     const struct pk_node *node, struct pk_pos pos, const char *hint,
                     const char *text)
{
    pk_fault(errors, fleet->doc, node != NULL ? node->line : pos.line,
             node != NULL ? node->col : pos.col, hint, "%s", text);
}

static bool check_tunnel(const struct pk_fleet_spec *fleet, const struct pk_tap_spec *tap,
                         struct pk_errors *errors)
{
    const struct pk_tunnel_spec *tunnel = &tap->tunnel;
    bool vxlan = pk_strv_contains(&tunnel->types, "vxlan") ||
                 (tunnel->type != NULL && strcmp(tunnel->type, "vxlan") == 0);
    bool geneve = pk_strv_contains(&tunnel->types, "geneve") ||
                  (tunnel->type != NULL && strcmp(tunnel->type, "geneve") == 0);
    bool good = true;
    if (tunnel->port != 0 && vxlan == geneve) {
        fault_at(errors, fleet, tunnel->port_node, tap->pos,
                 vxlan ? "remove it: each type then has its own, 4789 and 6081"
                       : "remove it: GRE and ERSPAN have no ports",
                 vxlan ? "tunnel.port: of which type, VXLAN or GENEVE?"
                       : "tunnel.port: these types have none");
        good = false;
    }
    for (size_t i = 0; i < tunnel->addresses.count; i++) {
        struct pk_tunnel_address address;
        struct pk_error err = { 0 };
        if (pk_tunnel_address_parse(tunnel->addresses.list[i], &address, &err) == 0)
            continue;
        fault_at(errors, fleet,
                 tunnel->addresses_node != NULL ? tunnel->addresses_node->items[i] : NULL, tap->pos,
                 err.hint, err.msg);
        good = false;
    }
    return good;
}

/* The interface that two taps both have, or NULL. Those of one kind are compared by the table. */
static const char *shared_interface(const struct pk_tap_spec *a, const struct pk_tap_spec *b)
{
    for (size_t i = 0; i < PK_MAX(a->pair.interfaces.count, 1u); i++)
        for (size_t j = 0; j < PK_MAX(b->pair.interfaces.count, 1u); j++) {
            const char *of_a = a->kind == PK_TAP_INLINE ? a->pair.interfaces.list[i] : a->interface;
            const char *of_b = b->kind == PK_TAP_INLINE ? b->pair.interfaces.list[j] : b->interface;
            if (of_a != NULL && of_b != NULL && strcmp(of_a, of_b) == 0 &&
                (a->kind != b->kind || a->kind == PK_TAP_INLINE))
                return of_a;
        }
    return NULL;
}

const struct pk_tap_spec *pk_group_inline_tap(const struct pk_fleet_spec *fleet,
                                              const struct pk_group_spec *group)
{
    for (size_t i = 0; i < fleet->tap_count; i++)
        if (fleet->taps[i].kind == PK_TAP_INLINE &&
            pk_strv_contains(&group->taps, fleet->taps[i].name))
            return &fleet->taps[i];
    return NULL;
}

/* A packet can go through one tool: one lane of one group, whole. */
static bool check_inline_group(const struct pk_fleet_spec *fleet, const struct pk_tap_spec *tap,
                               const struct pk_group_spec *group, struct pk_errors *errors)
{
    char text[160];
    const char *hint = NULL;
    const struct pk_node *node = NULL;
    struct pk_pos pos = group->pos;
    if (group->taps.count > 1) {
        (void)snprintf(text, sizeof(text), "tap %s is inline: its group can have no other tap",
                       tap->name);
        hint = "give the other taps a group of their own";
        node = group->taps_node;
    } else if (group->tenant != NULL) {
        (void)snprintf(text, sizeof(text), "tap %s is inline: its group can be of no tenant",
                       tap->name);
        hint = "remove 'tenant': all packets go through the group";
        pos = group->tenant_pos;
    } else if (group->filter != NULL) {
        (void)snprintf(text, sizeof(text), "tap %s is inline: its group can have no filter",
                       tap->name);
        hint = "remove 'filter': the tool's rules say what is dropped";
        node = group->filter_node;
    } else if (group->tool_count > 1) {
        (void)snprintf(text, sizeof(text), "tap %s is inline: its group can have one tool only",
                       tap->name);
        hint =
            "a second tool would send each packet once more: give it a tap and a group of its own";
        pos = group->tools[1].pos;
    }
    if (hint != NULL)
        fault_at(errors, fleet, node, pos, hint, text);
    return hint == NULL;
}

static bool check_inline(const struct pk_fleet_spec *fleet, const struct pk_tap_spec *tap,
                         struct pk_errors *errors)
{
    bool good = true;
    unsigned groups = 0;
    for (size_t i = 0; i < fleet->group_count; i++) {
        const struct pk_group_spec *group = &fleet->groups[i];
        if (!pk_strv_contains(&group->taps, tap->name))
            continue;
        if (groups++ > 0) {
            fault_at(errors, fleet, group->taps_node, group->pos,
                     "let the second group read a tap of its own, with a mirror of the traffic",
                     "an inline tap has one group, which its packets go through");
            good = false;
        }
        good = check_inline_group(fleet, tap, group, errors) && good;
    }
    for (size_t i = 0; i < fleet->tenant_count; i++) {
        const struct pk_tenant_spec *tenant = &fleet->tenants[i];
        if (!pk_strv_contains(&tenant->taps, tap->name))
            continue;
        fault_at(errors, fleet, tenant->match_node, tenant->pos, "remove the tap from its list",
                 "an inline tap has no tenants");
        good = false;
    }
    return good;
}

bool pk_spec_check_taps(struct pk_fleet_spec *fleet, struct pk_errors *errors)
{
    bool good = true;
    for (size_t i = 0; i < fleet->tap_count; i++) {
        struct pk_tap_spec *tap = &fleet->taps[i];
        if (tap->tunnel.interface != NULL && tap->interface == NULL)
            tap->interface = PK_TAKE(tap->tunnel.interface);
        if (tap->pair.node != NULL && tap->pair.interfaces.count == 2 && tap->interface == NULL) {
            tap->interface = pk_strdup(tap->pair.interfaces.list[0]);
            if (tap->interface == NULL)
                fault_at(errors, fleet, NULL, tap->pos, NULL, "out of memory");
            good = good && tap->interface != NULL;
        }
        tap->kind = tap->pair.interfaces.count == 2 ? PK_TAP_INLINE
                    : tap->tunnel.node != NULL      ? PK_TAP_TUNNEL
                    : tap->interface != NULL        ? PK_TAP_INTERFACE
                                                    : PK_TAP_REPLAY;
        if (tap->kind == PK_TAP_TUNNEL && !check_tunnel(fleet, tap, errors))
            good = false;
        if (tap->kind == PK_TAP_INLINE && !check_inline(fleet, tap, errors))
            good = false;
        if (tap->nic_node != NULL && !pk_tap_has_interface(tap->kind)) {
            fault_at(errors, fleet, tap->nic_node, tap->pos, "remove it, or make it an interface",
                     "nic: this tap has no network interface");
            good = false;
        }
        for (size_t j = 0; j < i; j++) { /* the table compares those of one kind */
            const struct pk_tap_spec *other = &fleet->taps[j];
            if (shared_interface(tap, other) == NULL)
                continue;
            fault_at(errors, fleet, NULL, tap->pos,
                     "an interface belongs to one tap: remove one of the two",
                     "the interface is that of another tap already");
            good = false;
        }
    }
    return good;
}

static const char *device_fault(const struct pk_fleet_spec *fleet,
                                const struct pk_group_spec *group, const char **ret_hint)
{
    size_t devices = group->devices.count;
    if (devices == 0)
        return NULL;
    *ret_hint = "remove lanes: there is one for each device";
    if (group->lanes != 0 && group->lanes != devices)
        return "the group's number of lanes is not that of its devices";
    *ret_hint = "remove them, or make the interfaces taps";
    if (group->tenant != NULL || group->filter != NULL)
        return "tenant and filter say nothing where devices feed the lanes";
    *ret_hint = "an interface is one of both: remove the tap, or the device";
    for (size_t t = 0; t < fleet->tap_count; t++)
        if (fleet->taps[t].interface != NULL &&
            pk_strv_contains(&group->devices, fleet->taps[t].interface))
            return "a device of the group is a tap's interface";
    return NULL;
}

bool pk_spec_check_devices(struct pk_fleet_spec *fleet, struct pk_errors *errors)
{
    bool good = true;
    for (size_t i = 0; i < fleet->group_count; i++) {
        struct pk_group_spec *group = &fleet->groups[i];
        const char *hint = NULL;
        if (group->device != NULL && group->devices.count == 0 &&
            pk_strv_add(&group->devices, group->device) < 0)
            return false;
        const char *text = device_fault(fleet, group, &hint);
        if (text == NULL)
            continue;
        fault_at(errors, fleet, group->lane_node, group->pos, hint, text);
        good = false;
    }
    return good;
}

/* What check_tunnel() has seen to be good. */
static void tunnel_config(const struct pk_tunnel_spec *tunnel, struct pk_tunnel_config *config)
{
    *config = (struct pk_tunnel_config){ .port = tunnel->port, .keep = !tunnel->decapsulate };
    if (tunnel->type != NULL)
        config->types = pk_tunnel_type_parse(tunnel->type);
    for (size_t i = 0; i < tunnel->types.count; i++)
        config->types |= pk_tunnel_type_parse(tunnel->types.list[i]);
    for (size_t i = 0; i < tunnel->addresses.count && i < PK_TUNNEL_ADDRESSES_MAX; i++)
        (void)pk_tunnel_address_parse(tunnel->addresses.list[i],
                                      &config->addresses[config->address_count++], NULL);
}

json_t *pk_tap_options(const struct pk_tap_spec *tap)
{
    PK_JSON json = json_object();
    PK_JSON nic = pk_nic_spec_to_json(&tap->nic);
    struct pk_tunnel_config config;
    int bad = json == NULL || nic == NULL;
    if (tap->kind == PK_TAP_TUNNEL) {
        tunnel_config(&tap->tunnel, &config);
        bad |= json_object_set_new(json, "tunnel", pk_tunnel_to_json(&config));
    }
    if (tap->kind == PK_TAP_INLINE)
        bad |= json_object_set_new(json, "inline",
                                   json_pack("{s:s,s:s,s:I}", "interface",
                                             tap->pair.interfaces.list[1], "failure",
                                             tap->pair.closed ? "closed" : "open", "failAfterMs",
                                             (json_int_t)(tap->pair.fail_after / PK_NSEC_PER_MS)));
    if (json_object_size(nic) > 0)
        bad |= json_object_set(json, "nic", nic);
    return bad != 0 ? NULL : PK_TAKE(json);
}
