/* SPDX-License-Identifier: Apache-2.0 */
/* Taps: what the table cannot tell, and what the agent is told of them. */
#include <string.h>

#include "base/json.h"
#include "spec/schema.h"

static const char *const kind_names[] = {
    [PK_TAP_INTERFACE] = "interface",
    [PK_TAP_REPLAY] = "replay",
    [PK_TAP_TUNNEL] = "tunnel",
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

bool pk_spec_check_taps(struct pk_fleet_spec *fleet, struct pk_errors *errors)
{
    bool good = true;
    for (size_t i = 0; i < fleet->tap_count; i++) {
        struct pk_tap_spec *tap = &fleet->taps[i];
        if (tap->tunnel.interface != NULL && tap->interface == NULL)
            tap->interface = PK_TAKE(tap->tunnel.interface);
        tap->kind = tap->tunnel.node != NULL ? PK_TAP_TUNNEL
                    : tap->interface != NULL ? PK_TAP_INTERFACE
                                             : PK_TAP_REPLAY;
        if (tap->kind == PK_TAP_TUNNEL && !check_tunnel(fleet, tap, errors))
            good = false;
        if (tap->nic_node != NULL && !pk_tap_has_interface(tap->kind)) {
            fault_at(errors, fleet, tap->nic_node, tap->pos, "remove it, or make it an interface",
                     "nic: this tap has no network interface");
            good = false;
        }
        for (size_t j = 0; j < i; j++) { /* the table compares those of one kind */
            const struct pk_tap_spec *other = &fleet->taps[j];
            if (tap->interface == NULL || other->interface == NULL || tap->kind == other->kind ||
                strcmp(tap->interface, other->interface) != 0)
                continue;
            fault_at(errors, fleet, NULL, tap->pos,
                     "an interface belongs to one tap: remove one of the two",
                     "the interface is that of another tap already");
            good = false;
        }
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
    if (json_object_size(nic) > 0)
        bad |= json_object_set(json, "nic", nic);
    return bad != 0 ? NULL : PK_TAKE(json);
}
