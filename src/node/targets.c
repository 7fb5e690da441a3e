/* SPDX-License-Identifier: Apache-2.0 */
/* Reads where a tap's packets go, from a call or from plane.json. */
#include "node/targets.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/json.h"
#include "base/prefix.h"
#include "base/str.h"
#include "node/internal.h"
#include "packet/filter.h"

void pk_targets_done(struct pk_targets *targets)
{
    for (size_t i = 0; i < targets->target_count; i++) {
        pk_free((char *)(uintptr_t)targets->target_list[i].group_key);
        pk_filter_free((struct pk_filter *)(uintptr_t)targets->target_list[i].filter);
    }
    for (size_t i = 0; i < targets->tenant_count; i++) {
        const struct pk_broker_tenant *tenant = &targets->tenant_list[i];
        pk_free((void *)(uintptr_t)tenant->vlans);
        pk_free((void *)(uintptr_t)tenant->vnis);
        pk_free((void *)(uintptr_t)tenant->gre_keys);
        pk_free((void *)(uintptr_t)tenant->erspan_sessions);
        pk_free((void *)(uintptr_t)tenant->prefixes);
    }
    pk_free(targets->target_list);
    pk_free(targets->tenant_list);
    json_decref(targets->groups);
    json_decref(targets->tenants);
    *targets = (struct pk_targets){ 0 };
}

bool pk_targets_equal(const struct pk_targets *a, const struct pk_targets *b)
{
    return json_equal(a->groups, b->groups) && json_equal(a->tenants, b->tenants);
}

bool pk_targets_have(const struct pk_targets *targets, const char *group)
{
    size_t i;
    json_t *row;
    json_array_foreach(targets->groups, i, row)
    {
        if (strcmp(pk_json_string_or(row, "name", ""), group) == 0)
            return true;
    }
    return false;
}

/* ---- selectors ---- */

/* The list at key, which may be absent; each selector is one of a bounded number. */
static int get_list(const json_t *tenant, const char *key, size_t *left, const json_t **ret_list,
                    struct pk_error *err)
{
    const json_t *list = json_object_get(tenant, key);
    if (list != NULL && !json_is_array(list)) {
        (void)pk_fail(err, PK_E_INVALID, "'%s' must be a list", key);
        return pk_hint(err, "write it in brackets, also where it has one entry: \"%s\": [...]",
                       key);
    }
    if (json_array_size(list) > *left) {
        (void)pk_fail(err, PK_E_INVALID, "more than %u selectors", PK_NODE_SELECTORS_MAX);
        return pk_hint(err, "select by larger prefixes, by outer VLANs or by taps");
    }
    *left -= json_array_size(list);
    *ret_list = list;
    return 0;
}

/* Takes over a canonical list, unless it is empty. */
static int put_list(json_t *tenant, const char *key, json_t *list_take, struct pk_error *err)
{
    if (json_array_size(list_take) > 0 && json_object_set(tenant, key, list_take) < 0) {
        json_decref(list_take);
        return pk_no_memory(err);
    }
    json_decref(list_take);
    return 0;
}

static int bad_number(const char *key, uint32_t max, struct pk_error *err)
{
    (void)pk_fail(err, PK_E_INVALID, "'%s': write whole numbers from 0 to %u", key, max);
    return pk_hint(err, "write them without quotes: \"%s\": [17, 18]", key);
}

static int parse_numbers(const json_t *from, json_t *to, const char *key, uint32_t max,
                         size_t *left, const uint32_t **ret_list, size_t *ret_count,
                         struct pk_error *err)
{
    const json_t *list = NULL;
    int r = get_list(from, key, left, &list, err);
    if (r < 0 || json_array_size(list) == 0)
        return r;
    PK_CLEANUP(pk_free_p)
    uint32_t *numbers = pk_zalloc_array(json_array_size(list), sizeof(*numbers));
    json_t *canonical = json_array();
    size_t i;
    json_t *item;
    json_array_foreach(list, i, item)
    {
        json_int_t number = json_is_integer(item) ? json_integer_value(item) : -1;
        if (number < 0 || number > max)
            r = bad_number(key, max, err);
        else if (numbers == NULL || json_array_append(canonical, item) < 0)
            r = pk_no_memory(err);
        else
            numbers[i] = (uint32_t)number;
        if (r < 0) {
            json_decref(canonical);
            return r;
        }
    }
    *ret_count = json_array_size(list);
    *ret_list = PK_TAKE(numbers);
    return put_list(to, key, canonical, err);
}

static int parse_sessions(const json_t *from, json_t *to, size_t *left,
                          struct pk_broker_tenant *tenant, struct pk_error *err)
{
    const uint32_t *numbers = NULL;
    size_t count = 0;
    int r = parse_numbers(from, to, "erspanSessions", 1023, left, &numbers, &count, err);
    PK_CLEANUP(pk_free_p) void *owned = (void *)(uintptr_t)numbers;
    if (r < 0 || count == 0)
        return r;
    uint16_t *sessions = pk_zalloc_array(count, sizeof(*sessions));
    if (sessions == NULL)
        return pk_no_memory(err);
    for (size_t i = 0; i < count; i++)
        sessions[i] = (uint16_t)numbers[i];
    tenant->erspan_sessions = sessions;
    tenant->erspan_session_count = count;
    return 0;
}

static bool vlan_id(const char *text, size_t len, int *ret_id)
{
    char digits[5] = "";
    uint64_t id = 0;
    if (len == 0 || len >= sizeof(digits))
        return false;
    memcpy(digits, text, len);
    if (pk_parse_u64(digits, &id, NULL) < 0 || id < 1 || id > 4094)
        return false;
    *ret_id = (int)id;
    return true;
}

/* 110, or "100.200"; gives the canonical item. */
static json_t *parse_vlan(const json_t *item, struct pk_broker_vlan *ret_vlan)
{
    json_int_t number = json_is_integer(item) ? json_integer_value(item) : 0;
    if (number >= 1 && number <= 4094) {
        *ret_vlan = (struct pk_broker_vlan){ .outer = (uint16_t)number, .inner = -1 };
        return json_integer(number);
    }
    const char *text = json_is_string(item) ? json_string_value(item) : "";
    const char *dot = strchr(text, '.');
    int outer = 0, inner = 0;
    if (dot == NULL || !vlan_id(text, (size_t)(dot - text), &outer) ||
        !vlan_id(dot + 1, strlen(dot + 1), &inner))
        return NULL;
    *ret_vlan = (struct pk_broker_vlan){ .outer = (uint16_t)outer, .inner = inner };
    return json_sprintf("%d.%d", outer, inner);
}

static int parse_vlans(const json_t *from, json_t *to, size_t *left,
                       struct pk_broker_tenant *tenant, struct pk_error *err)
{
    const json_t *list = NULL;
    int r = get_list(from, "vlans", left, &list, err);
    if (r < 0 || json_array_size(list) == 0)
        return r;
    PK_CLEANUP(pk_free_p)
    struct pk_broker_vlan *vlans = pk_zalloc_array(json_array_size(list), sizeof(*vlans));
    json_t *canonical = json_array();
    if (vlans == NULL || canonical == NULL) {
        json_decref(canonical);
        return pk_no_memory(err);
    }
    size_t i;
    json_t *item;
    json_array_foreach(list, i, item)
    {
        json_t *one = parse_vlan(item, &vlans[i]);
        if (json_array_append_new(canonical, one) == 0)
            continue;
        json_decref(canonical);
        if (vlans[i].outer != 0)
            return pk_no_memory(err);
        (void)pk_fail(err, PK_E_INVALID,
                      "'vlans': write numbers from 1 to 4094, or two of them: \"100.200\"");
        return pk_hint(err, "entry %zu is neither a VLAN nor an outer and an inner one", i + 1);
    }
    tenant->vlan_count = json_array_size(list);
    tenant->vlans = PK_TAKE(vlans);
    return put_list(to, "vlans", canonical, err);
}

static int parse_prefixes(const json_t *from, json_t *to, size_t *left,
                          struct pk_broker_tenant *tenant, struct pk_error *err)
{
    const json_t *list = NULL;
    int r = get_list(from, "prefixes", left, &list, err);
    if (r < 0 || json_array_size(list) == 0)
        return r;
    PK_CLEANUP(pk_free_p)
    struct pk_broker_prefix *prefixes = pk_zalloc_array(json_array_size(list), sizeof(*prefixes));
    json_t *canonical = json_array();
    if (prefixes == NULL || canonical == NULL)
        r = pk_no_memory(err);
    for (size_t i = 0; i < json_array_size(list) && r == 0; i++) {
        const json_t *item = json_array_get(list, i);
        char text[PK_PREFIX_TEXT];
        struct pk_prefix prefix;
        r = pk_prefix_parse(json_is_string(item) ? json_string_value(item) : "", &prefix, err);
        if (r < 0) {
            (void)pk_wrap(err, "'prefixes'");
            break;
        }
        prefixes[i].family = prefix.v6 ? 6 : 4;
        prefixes[i].length = prefix.bits;
        memcpy(prefixes[i].address, prefix.addr, sizeof(prefix.addr));
        if (json_array_append_new(canonical,
                                  json_string(pk_prefix_format(&prefix, text, sizeof(text)))) < 0)
            r = pk_no_memory(err);
    }
    if (r < 0) {
        json_decref(canonical);
        return r;
    }
    tenant->prefix_count = json_array_size(list);
    tenant->prefixes = PK_TAKE(prefixes);
    return put_list(to, "prefixes", canonical, err);
}

/* ---- tenants and groups ---- */

static const json_t *find(const json_t *list, const char *name)
{
    size_t i;
    json_t *row;
    json_array_foreach(list, i, row)
    {
        if (strcmp(pk_json_string_or(row, "name", ""), name) == 0)
            return row;
    }
    return NULL;
}

/* A name that no row before has. */
static int get_name(const json_t *row, const json_t *before, const char *what,
                    const char **ret_name, struct pk_error *err)
{
    const char *name = pk_json_string_or(row, "name", "");
    int r = pk_check_name(what, name, err);
    if (r == 0 && find(before, name) != NULL) {
        (void)pk_fail(err, PK_E_INVALID, "%s '%s' is there twice", what, name);
        r = pk_hint(err, "give each %s a name of its own, or leave one of them out", what);
    }
    *ret_name = name;
    return r;
}

static int parse_tenant(const json_t *from, size_t *left, struct pk_targets *targets,
                        struct pk_error *err)
{
    static const char *const keys[] = { "name",    "vlans",          "vnis",
                                        "greKeys", "erspanSessions", "prefixes" };
    const char *name = NULL;
    int r = pk_check_keys("tenant", from, keys, PK_ARRAY_SIZE(keys), err);
    if (r == 0)
        r = get_name(from, targets->tenants, "tenant", &name, err);
    if (r < 0)
        return r;
    json_t *to = json_pack("{s:s}", "name", name);
    if (json_array_append_new(targets->tenants, to) < 0)
        return pk_no_memory(err);
    struct pk_broker_tenant *tenant = &targets->tenant_list[targets->tenant_count++];
    tenant->name = json_string_value(json_object_get(to, "name"));
    r = parse_vlans(from, to, left, tenant, err);
    if (r == 0)
        r = parse_numbers(from, to, "vnis", 0xffffff, left, &tenant->vnis, &tenant->vni_count, err);
    if (r == 0)
        r = parse_numbers(from, to, "greKeys", UINT32_MAX, left, &tenant->gre_keys,
                          &tenant->gre_key_count, err);
    if (r == 0)
        r = parse_sessions(from, to, left, tenant, err);
    if (r == 0)
        r = parse_prefixes(from, to, left, tenant, err);
    return r < 0 ? pk_wrap(err, "tenant %s", name) : 0;
}

static int parse_tenants(const json_t *list, struct pk_targets *targets, struct pk_error *err)
{
    size_t left = PK_NODE_SELECTORS_MAX;
    if (list != NULL && !json_is_array(list)) {
        (void)pk_fail(err, PK_E_INVALID, "'tenants' must be a list");
        return pk_hint(err, "write \"tenants\": [{\"name\": \"lab\", \"vlans\": [110]}]");
    }
    if (json_array_size(list) > PK_BROKER_TENANTS_MAX) {
        (void)pk_fail(err, PK_E_INVALID, "more than %u tenants", PK_BROKER_TENANTS_MAX);
        return pk_hint(err, "let some of them share a tenant, or spread them over several taps");
    }
    targets->tenant_list =
        pk_zalloc_array(json_array_size(list) + 1, sizeof(*targets->tenant_list));
    if (targets->tenant_list == NULL)
        return pk_no_memory(err);
    int r = 0;
    for (size_t i = 0; i < json_array_size(list) && r == 0; i++)
        r = parse_tenant(json_array_get(list, i), &left, targets, err);
    return r;
}

/* An optional text; NULL when it is absent. */
static int get_text(const json_t *row, const char *key, size_t max, const char **ret_text,
                    struct pk_error *err)
{
    const json_t *value = json_object_get(row, key);
    const char *text = json_string_value(value);
    if (value != NULL && (text == NULL || text[0] == '\0' || strlen(text) > max ||
                          strlen(text) != json_string_length(value))) {
        (void)pk_fail(err, PK_E_INVALID, "'%s' must be a text of 1 to %zu bytes", key, max);
        return pk_hint(err, "write it in quotes: \"%s\": \"...\", or leave it out", key);
    }
    *ret_text = text;
    return 0;
}

static int parse_group(const char *fleet, const json_t *from, struct pk_targets *targets,
                       struct pk_error *err)
{
    static const char *const keys[] = { "name", "tenant", "filter" };
    const char *name = NULL, *tenant = NULL;
    int r = pk_check_keys("group", from, keys, PK_ARRAY_SIZE(keys), err);
    if (r == 0)
        r = get_name(from, targets->groups, "group", &name, err);
    if (r == 0)
        r = get_text(from, "tenant", PK_NODE_NAME_MAX, &tenant, err);
    if (r < 0)
        return r;
    if (tenant != NULL && find(targets->tenants, tenant) == NULL) {
        (void)pk_fail(err, PK_E_INVALID, "group %s: the tap has no tenant '%.63s'", name, tenant);
        return pk_hint(
            err,
            "add it to the tap's 'tenants', or leave the group's tenant out: it gets what none claims");
    }
    unsigned same = 0;
    for (size_t i = 0; i < targets->target_count; i++)
        same += pk_str_equal(targets->target_list[i].tenant, tenant);
    if (same >= PK_BROKER_TARGETS_MAX) {
        (void)pk_fail(err, PK_E_INVALID, "more than %u groups of one tenant",
                      PK_BROKER_TARGETS_MAX);
        return pk_hint(err, "leave some out, or let one group's lanes run several tools");
    }
    const json_t *filter = json_object_get(from, "filter");
    json_t *to = json_pack("{s:s,s:s*,s:O*}", "name", name, "tenant", tenant, "filter", filter);
    if (json_array_append_new(targets->groups, to) < 0)
        return pk_no_memory(err);
    struct pk_broker_target *target = &targets->target_list[targets->target_count++];
    target->tenant = json_string_value(json_object_get(to, "tenant"));
    target->group_key = pk_asprintf("%s/%s", fleet, name);
    if (target->group_key == NULL)
        return pk_no_memory(err);
    struct pk_filter *compiled = NULL;
    if (filter != NULL && (r = pk_filter_compile(filter, &compiled, NULL, err)) < 0)
        return pk_wrap(err, "group %s", name);
    target->filter = compiled;
    return 0;
}

static int parse_groups(const char *fleet, const json_t *body, struct pk_targets *targets,
                        struct pk_error *err)
{
    const json_t *list = json_object_get(body, "groups"), *one = json_object_get(body, "group");
    if ((list == NULL) == (one == NULL)) {
        (void)pk_fail(err, PK_E_INVALID, "'groups' is missing");
        return pk_hint(err, "write \"groups\": [{\"name\": \"analysis\"}]");
    }
    PK_JSON single = one != NULL ? json_pack("[{s:O}]", "name", one) : NULL;
    if (one != NULL && !json_is_string(one)) {
        (void)pk_fail(err, PK_E_INVALID, "'group' must be a text");
        return pk_hint(err, "write \"groups\": [{\"name\": \"analysis\"}]");
    }
    list = one != NULL ? single : list;
    size_t count = json_array_size(list);
    if (count == 0 || count > PK_NODE_GROUPS_MAX) {
        (void)pk_fail(err, PK_E_INVALID, "'groups' must be a list of 1 to %u groups",
                      PK_NODE_GROUPS_MAX);
        return pk_hint(err, "write \"groups\": [{\"name\": \"analysis\"}]");
    }
    targets->target_list = pk_zalloc_array(count, sizeof(*targets->target_list));
    if (targets->target_list == NULL)
        return pk_no_memory(err);
    int r = 0;
    for (size_t i = 0; i < count && r == 0; i++)
        r = parse_group(fleet, json_array_get(list, i), targets, err);
    return r;
}

int pk_targets_parse(const char *fleet, const json_t *body, struct pk_targets *ret_targets,
                     struct pk_error *err)
{
    struct pk_targets targets = { .groups = json_array(), .tenants = json_array() };
    int r = targets.groups != NULL && targets.tenants != NULL ? 0 : pk_no_memory(err);
    if (r == 0)
        r = parse_tenants(json_object_get(body, "tenants"), &targets, err);
    if (r == 0)
        r = parse_groups(fleet, body, &targets, err);
    if (r < 0) {
        pk_targets_done(&targets);
        return pk_wrap(err, "tap");
    }
    *ret_targets = targets;
    return 0;
}
