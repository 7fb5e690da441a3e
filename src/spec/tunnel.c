/* SPDX-License-Identifier: Apache-2.0 */
#include "spec/tunnel.h"

#include <arpa/inet.h>
#include <string.h>

#include "base/json.h"
#include "base/str.h"

static const struct {
    unsigned bit;
    const char *name;
} types[] = {
    { PK_TUNNEL_VXLAN, "vxlan" },
    { PK_TUNNEL_GENEVE, "geneve" },
    { PK_TUNNEL_GRE, "gre" },
    { PK_TUNNEL_ERSPAN, "erspan" },
};

const char *pk_tunnel_type_name(unsigned bit)
{
    for (size_t i = 0; i < PK_ARRAY_SIZE(types); i++)
        if (types[i].bit == bit)
            return types[i].name;
    return "?";
}

unsigned pk_tunnel_type_parse(const char *text)
{
    for (size_t i = 0; i < PK_ARRAY_SIZE(types); i++)
        if (strcmp(types[i].name, text) == 0)
            return types[i].bit;
    return 0;
}

int pk_tunnel_address_parse(const char *text, struct pk_tunnel_address *ret_address,
                            struct pk_error *err)
{
    struct pk_tunnel_address address = { .family = 4 };
    if (inet_pton(AF_INET, text, address.bytes) != 1) {
        address.family = 6;
        if (inet_pton(AF_INET6, text, address.bytes) != 1) {
            (void)pk_fail(err, PK_E_INVALID, "tunnel: '%.60s' is no address", text);
            return pk_hint(err, "write an IPv4 or IPv6 address without a prefix length, for "
                                "example 10.0.0.5");
        }
    }
    *ret_address = address;
    return 0;
}

json_t *pk_tunnel_to_json(const struct pk_tunnel_config *config)
{
    PK_JSON json = json_object();
    json_t *names = json_array(), *addresses = json_array();
    for (unsigned bit = 1; bit <= PK_TUNNEL_TYPES; bit <<= 1)
        if ((config->types & bit) != 0)
            (void)json_array_append_new(names, json_string(pk_tunnel_type_name(bit)));
    for (size_t i = 0; i < config->address_count; i++) {
        char text[INET6_ADDRSTRLEN] = "";
        (void)inet_ntop(config->addresses[i].family == 4 ? AF_INET : AF_INET6,
                        config->addresses[i].bytes, text, sizeof(text));
        (void)json_array_append_new(addresses, json_string(text));
    }
    int bad = json_object_set_new(json, "types", names);
    if (config->port != 0)
        bad |= json_object_set_new(json, "port", json_integer(config->port));
    bad |= json_object_set_new(json, "decapsulate", json_boolean(!config->keep));
    if (json_array_size(addresses) > 0)
        bad |= json_object_set(json, "addresses", addresses);
    json_decref(addresses);
    return bad != 0 ? NULL : PK_TAKE(json);
}

static int parse_types(const json_t *list, unsigned *ret_types, struct pk_error *err)
{
    unsigned found = 0;
    size_t i;
    json_t *item;
    json_array_foreach(list, i, item)
    {
        unsigned bit = json_is_string(item) ? pk_tunnel_type_parse(json_string_value(item)) : 0;
        if (bit == 0) {
            (void)pk_fail(err, PK_E_INVALID, "tunnel: 'types' names an unknown tunnel");
            return pk_hint(err, "write \"vxlan\", \"geneve\", \"gre\" or \"erspan\"");
        }
        found |= bit;
    }
    if (found == 0)
        return pk_fail(err, PK_E_INVALID, "tunnel: 'types' must be a list of tunnels");
    *ret_types = found;
    return 0;
}

static int parse_addresses(const json_t *list, struct pk_tunnel_config *config,
                           struct pk_error *err)
{
    if (list != NULL && (!json_is_array(list) || json_array_size(list) > PK_TUNNEL_ADDRESSES_MAX))
        return pk_fail(err, PK_E_INVALID, "tunnel: 'addresses' must be a list of at most %u",
                       PK_TUNNEL_ADDRESSES_MAX);
    size_t i;
    json_t *item;
    json_array_foreach(list, i, item)
    {
        int r = pk_tunnel_address_parse(json_is_string(item) ? json_string_value(item) : "",
                                        &config->addresses[config->address_count], err);
        if (r < 0)
            return r;
        config->address_count++;
    }
    return 0;
}

int pk_tunnel_parse(const json_t *json, struct pk_tunnel_config *ret_config, struct pk_error *err)
{
    static const char *const keys[] = { "types", "port", "decapsulate", "addresses" };
    struct pk_tunnel_config config = { 0 };
    const char *key;
    json_t *item;
    if (!json_is_object(json))
        return pk_fail(err, PK_E_INVALID, "tunnel: not an object");
    json_object_foreach((json_t *)(uintptr_t)json, key, item)
    {
        size_t i = 0;
        while (i < PK_ARRAY_SIZE(keys) && strcmp(keys[i], key) != 0)
            i++;
        if (i < PK_ARRAY_SIZE(keys))
            continue;
        const char *meant = pk_str_closest(key, keys, PK_ARRAY_SIZE(keys));
        (void)pk_fail(err, PK_E_INVALID, "tunnel: unknown key '%.40s'", key);
        return pk_hint(err, "did you mean '%s'?", meant != NULL ? meant : "types");
    }
    int r = parse_types(json_object_get(json, "types"), &config.types, err);
    if (r == 0)
        r = parse_addresses(json_object_get(json, "addresses"), &config, err);
    if (r < 0)
        return r;
    const json_t *port = json_object_get(json, "port");
    const json_t *decapsulate = json_object_get(json, "decapsulate");
    if (port != NULL && (!json_is_integer(port) || json_integer_value(port) < 1 ||
                         json_integer_value(port) > 65535))
        return pk_fail(err, PK_E_INVALID, "tunnel: 'port' must be a whole number from 1 to 65535");
    unsigned by_port = config.types & (PK_TUNNEL_VXLAN | PK_TUNNEL_GENEVE);
    if (port != NULL && by_port != PK_TUNNEL_VXLAN && by_port != PK_TUNNEL_GENEVE) {
        (void)pk_fail(err, PK_E_INVALID, "tunnel: 'port' says nothing for these types");
        return pk_hint(err, "a port belongs to one of vxlan and geneve; gre and erspan have none");
    }
    if (decapsulate != NULL && !json_is_boolean(decapsulate))
        return pk_fail(err, PK_E_INVALID, "tunnel: 'decapsulate' must be true or false");
    config.port = port != NULL ? (unsigned)json_integer_value(port) : 0;
    config.keep = json_is_false(decapsulate);
    *ret_config = config;
    return 0;
}
