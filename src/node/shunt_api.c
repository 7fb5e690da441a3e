/* SPDX-License-Identifier: Apache-2.0 */
/* What requests about shunts say; all of it is checked before anything is done. */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/json.h"
#include "base/str.h"
#include "node/internal.h"
#include "node/shunt.h"

static int check_ports(const json_t *list, struct pk_shunt_spec *spec, struct pk_error *err)
{
    size_t count = json_array_size(list);
    if (!json_is_array(list) || count > PK_SHUNT_PORTS) {
        (void)pk_fail(err, PK_E_INVALID, "shunt: 'ports' must be a list of at most %u ports",
                      PK_SHUNT_PORTS);
        return pk_hint(err, "write \"ports\": [443]; a rule without ports is for all");
    }
    for (size_t i = 0; i < count; i++) {
        const json_t *item = json_array_get(list, i);
        json_int_t port = json_is_integer(item) ? json_integer_value(item) : 0;
        if (port < 1 || port > 65535) {
            (void)pk_fail(err, PK_E_INVALID, "shunt: ports[%zu] must be a port, 1 to 65535", i);
            return pk_hint(err, "write numbers, not names: 443");
        }
        spec->ports[i] = (uint16_t)port;
    }
    spec->port_count = count;
    return 0;
}

int pk_shunt_spec_parse(const json_t *json, struct pk_shunt_spec *ret_spec, struct pk_error *err)
{
    static const char *const keys[] = { "after", "ports", "idleSeconds" };
    struct pk_shunt_spec spec = { 0 };
    uint64_t idle_s = 0;
    if (json == NULL || json_is_null(json)) {
        *ret_spec = spec;
        return 0;
    }
    int r = pk_check_keys("shunt", json, keys, PK_ARRAY_SIZE(keys), err);
    if (r == 0)
        r = pk_check_uint("shunt", json, "after", 0, INT64_MAX, 0, &spec.after, err);
    if (r == 0)
        r = pk_check_uint("shunt", json, "idleSeconds", 1, PK_SHUNT_IDLE_MAX_S,
                          PK_SHUNT_IDLE_DEFAULT_S, &idle_s, err);
    if (r == 0 && json_object_get(json, "ports") != NULL)
        r = check_ports(json_object_get(json, "ports"), &spec, err);
    if (r < 0)
        return r;
    if (spec.after == 0 && spec.port_count == 0) {
        (void)pk_fail(err, PK_E_INVALID, "shunt: neither 'after' nor 'ports' says what is shunted");
        return pk_hint(err, "with neither the group would get no packets at all");
    }
    spec.on = true;
    spec.idle_ms = (unsigned)idle_s * 1000;
    *ret_spec = spec;
    return 0;
}

json_t *pk_shunt_spec_to_json(const struct pk_shunt_spec *spec)
{
    if (!spec->on)
        return NULL;
    PK_JSON ports = spec->port_count > 0 ? json_array() : NULL;
    for (size_t i = 0; i < spec->port_count; i++)
        (void)json_array_append_new(ports, json_integer(spec->ports[i]));
    unsigned idle_s = spec->idle_ms / 1000;
    return json_pack("{s:I,s:O*,s:o*}", "after", (json_int_t)spec->after, "ports", ports,
                     "idleSeconds",
                     idle_s != PK_SHUNT_IDLE_DEFAULT_S ? json_integer(idle_s) : NULL);
}

static int bad_switch(const char *key, struct pk_error *err)
{
    (void)pk_fail(err, PK_E_INVALID, "overload: '%s' must be true or false", key);
    return pk_hint(err, "write it without quotes: \"%s\": true", key);
}

int pk_overload_parse(const json_t *json, struct pk_overload_spec *ret_spec, struct pk_error *err)
{
    static const char *const keys[] = { "shunt", "shed" };
    struct pk_overload_spec spec = { 0 };
    int r = json == NULL || json_is_null(json)
                ? 0
                : pk_check_keys("overload", json, keys, PK_ARRAY_SIZE(keys), err);
    for (size_t i = 0; i < PK_ARRAY_SIZE(keys) && r == 0; i++) {
        const json_t *value = json_object_get(json, keys[i]);
        if (value != NULL && !json_is_boolean(value))
            r = bad_switch(keys[i], err);
        *(i == 0 ? &spec.shunt : &spec.shed) = json_is_true(value);
    }
    if (r == 0)
        *ret_spec = spec;
    return r;
}

json_t *pk_overload_to_json(const struct pk_overload_spec *spec)
{
    return spec->shunt || spec->shed
               ? json_pack("{s:b,s:b}", "shunt", spec->shunt, "shed", spec->shed)
               : NULL;
}

bool pk_shunt_spec_equal(const struct pk_shunt_spec *a, const struct pk_shunt_spec *b)
{
    return a->on == b->on && a->after == b->after && a->idle_ms == b->idle_ms &&
           a->port_count == b->port_count &&
           memcmp(a->ports, b->ports, a->port_count * sizeof a->ports[0]) == 0;
}

/* ---- requests ---- */

static const char *text_of(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    return json_is_string(value) && strlen(json_string_value(value)) == json_string_length(value)
               ? json_string_value(value)
               : NULL;
}

static int parse_flow(const json_t *item, struct pk_tuple *ret_flow, struct pk_error *err)
{
    static const char *const keys[] = { "src", "srcPort", "dst", "dstPort", "proto" };
    struct pk_tuple flow = { 0 };
    uint64_t src_port = 0, dst_port = 0;
    int r = pk_check_keys("a flow", item, keys, PK_ARRAY_SIZE(keys), err);
    if (r == 0)
        r = pk_check_uint("a flow", item, "srcPort", 0, 65535, -1, &src_port, err);
    if (r == 0)
        r = pk_check_uint("a flow", item, "dstPort", 0, 65535, -1, &dst_port, err);
    if (r < 0)
        return r;
    const char *src = text_of(item, "src"), *dst = text_of(item, "dst");
    if (src == NULL || dst == NULL || !pk_tuple_set_addresses(&flow, src, dst)) {
        (void)pk_fail(err, PK_E_INVALID, "'src' and 'dst' are not two addresses of one family");
        return pk_hint(err, "for example \"src\":\"192.0.2.1\",\"dst\":\"192.0.2.2\"");
    }
    const char *proto = text_of(item, "proto");
    int number = proto != NULL ? pk_ip_proto_by_name(proto) : -1;
    if (number != 6 && number != 17 && number != 132) {
        (void)pk_fail(err, PK_E_INVALID, "'proto' is none of which flows can be shunted");
        return pk_hint(err, "write \"tcp\", \"udp\" or \"sctp\"");
    }
    flow.src_port = (uint16_t)src_port;
    flow.dst_port = (uint16_t)dst_port;
    flow.proto = (uint8_t)number;
    *ret_flow = flow;
    return 0;
}

static int parse_flows(const json_t *list, struct pk_shunt_order *order, struct pk_error *err)
{
    size_t count = json_array_size(list);
    if (!json_is_array(list) || count == 0 || count > PK_SHUNT_FLOWS_AT_ONCE) {
        (void)pk_fail(err, PK_E_INVALID, "shunts: 'flows' must be a list of 1 to %u flows",
                      PK_SHUNT_FLOWS_AT_ONCE);
        return pk_hint(
            err,
            "write \"flows\": [{\"src\",\"srcPort\",\"dst\",\"dstPort\",\"proto\"}]; more than that in "
            "several requests");
    }
    order->flows = pk_zalloc_array(count, sizeof *order->flows);
    if (order->flows == NULL)
        return pk_no_memory(err);
    for (size_t i = 0; i < count; i++) {
        int r = parse_flow(json_array_get(list, i), &order->flows[i], err);
        if (r < 0)
            return pk_wrap(err, "shunts: flows[%zu]", i);
    }
    order->flow_count = count;
    return 0;
}

static int check_groups(const json_t *groups, struct pk_error *err)
{
    if (groups == NULL)
        return 0;
    size_t count = json_array_size(groups);
    if (!json_is_array(groups) || count == 0 || count > PK_NODE_GROUPS_MAX) {
        (void)pk_fail(err, PK_E_INVALID, "shunts: 'groups' must be a list of groups");
        return pk_hint(
            err,
            "write \"groups\": [\"analysis\"], or leave it out: then all groups of the fleet are "
            "meant");
    }
    for (size_t i = 0; i < count; i++) {
        const json_t *item = json_array_get(groups, i);
        if (!json_is_string(item)) {
            (void)pk_fail(err, PK_E_INVALID, "shunts: groups[%zu] must be a text", i);
            return pk_hint(err, "write its name in quotes: \"analysis\"");
        }
        int r = pk_check_name("group", json_string_value(item), err);
        if (r < 0)
            return r;
    }
    return 0;
}

/* It goes into JSON and logs as it is. */
static int check_by(const json_t *body, struct pk_shunt_order *order, struct pk_error *err)
{
    const json_t *value = json_object_get(body, "by");
    const char *text = value != NULL ? text_of(body, "by") : "";
    size_t len = text != NULL ? strlen(text) : 0;
    bool good = text != NULL && len < sizeof order->by;
    for (size_t i = 0; good && i < len; i++)
        good = text[i] > ' ' && text[i] < 127 && text[i] != '"' && text[i] != '\\';
    if (!good) {
        (void)pk_fail(err, PK_E_INVALID, "shunts: 'by' must be a text of at most %zu signs",
                      sizeof order->by - 1);
        return pk_hint(err, "name the tool that asks, without spaces, quotes and backslashes");
    }
    memcpy(order->by, text, len);
    return 0;
}

static int parse_order(const json_t *body, bool is_delete, struct pk_shunt_order *order,
                       struct pk_error *err)
{
    static const char *const keys[] = { "flows",       "groups",     "keepBytes",
                                        "idleSeconds", "ttlSeconds", "by" };
    static const char *const delete_keys[] = { "flows", "groups", "all" };
    int r = is_delete ? pk_check_keys("shunts", body, delete_keys, PK_ARRAY_SIZE(delete_keys), err)
                      : pk_check_keys("shunts", body, keys, PK_ARRAY_SIZE(keys), err);
    if (r == 0)
        r = check_groups(json_object_get(body, "groups"), err);
    if (r < 0)
        return r;
    order->groups = json_object_get(body, "groups");
    if (is_delete) {
        const json_t *flows = json_object_get(body, "flows");
        order->all = json_is_true(json_object_get(body, "all"));
        if ((flows != NULL) != order->all)
            return flows != NULL ? parse_flows(flows, order, err) : 0;
        (void)pk_fail(err, PK_E_INVALID, "shunts: what is to be removed?");
        return pk_hint(err, "either list 'flows', or write \"all\":true");
    }
    r = parse_flows(json_object_get(body, "flows"), order, err);
    if (r == 0)
        r = pk_check_uint("shunts", body, "keepBytes", 0, INT64_MAX, 0, &order->keep, err);
    if (r == 0)
        r = pk_check_uint("shunts", body, "idleSeconds", 1, PK_SHUNT_IDLE_MAX_S,
                          PK_SHUNT_IDLE_DEFAULT_S, &order->idle_s, err);
    if (r == 0)
        r = pk_check_uint("shunts", body, "ttlSeconds", 1, PK_SHUNT_LIFE_MAX_S,
                          PK_SHUNT_LIFE_DEFAULT_S, &order->life_s, err);
    return r < 0 ? r : check_by(body, order, err);
}

int pk_shunt_order_parse(const json_t *body, bool is_delete, struct pk_shunt_order *ret_order,
                         struct pk_error *err)
{
    struct pk_shunt_order order = { 0 };
    int r = parse_order(body, is_delete, &order, err);
    if (r < 0) {
        pk_shunt_order_done(&order);
        return r;
    }
    *ret_order = order;
    return 0;
}

void pk_shunt_order_done(struct pk_shunt_order *order)
{
    pk_free(order->flows);
    *order = (struct pk_shunt_order){ 0 };
}
