/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tenants: what the table cannot tell. A packet belongs to the first tenant that claims it, so what
 * an earlier tenant claims on the same tap is nobody else's; a selector that could never take a
 * packet is a fault, not a surprise.
 */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/prefix.h"
#include "base/str.h"
#include "spec/schema.h"

const struct pk_tenant_spec *pk_spec_tenant(const struct pk_fleet_spec *fleet, const char *name)
{
    for (size_t i = 0; i < fleet->tenant_count; i++)
        if (pk_str_equal(fleet->tenants[i].name, name))
            return &fleet->tenants[i];
    return NULL;
}

bool pk_tenant_has_tap(const struct pk_tenant_spec *tenant, const char *tap)
{
    return tenant->taps.count == 0 || pk_strv_contains(&tenant->taps, tap);
}

/* ---- as JSON ---- */

static int add_list(json_t *tenant, const char *key, json_t *list)
{
    if (list != NULL && json_array_size(list) == 0) {
        json_decref(list);
        return 0;
    }
    return json_object_set_new(tenant, key, list);
}

static json_t *numbers_json(const unsigned *numbers, size_t count)
{
    json_t *list = json_array();
    for (size_t i = 0; i < count && list != NULL; i++)
        if (json_array_append_new(list, json_integer(numbers[i])) < 0) {
            json_decref(list);
            return NULL;
        }
    return list;
}

static json_t *vlans_json(const struct pk_strv *vlans)
{
    json_t *list = json_array();
    for (size_t i = 0; i < vlans->count && list != NULL; i++) {
        const char *text = vlans->list[i];
        int64_t number;
        json_t *item =
            pk_parse_i64(text, &number, NULL) == 0 ? json_integer(number) : json_string(text);
        if (json_array_append_new(list, item) < 0) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}

static json_t *prefixes_json(const struct pk_strv *prefixes)
{
    json_t *list = json_array();
    for (size_t i = 0; i < prefixes->count && list != NULL; i++) {
        char text[PK_PREFIX_TEXT];
        struct pk_prefix prefix;
        if (pk_prefix_parse(prefixes->list[i], &prefix, NULL) < 0 ||
            json_array_append_new(list,
                                  json_string(pk_prefix_format(&prefix, text, sizeof(text)))) < 0) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}

json_t *pk_tenant_to_json(const struct pk_tenant_spec *tenant)
{
    json_t *json = json_pack("{s:s}", "name", tenant->name);
    if (add_list(json, "vlans", vlans_json(&tenant->vlans)) < 0 ||
        add_list(json, "vnis", numbers_json(tenant->vnis, tenant->vni_count)) < 0 ||
        add_list(json, "greKeys", numbers_json(tenant->gre_keys, tenant->gre_key_count)) < 0 ||
        add_list(json, "erspanSessions",
                 numbers_json(tenant->erspan_sessions, tenant->erspan_session_count)) < 0 ||
        add_list(json, "prefixes", prefixes_json(&tenant->prefixes)) < 0) {
        json_decref(json);
        return NULL;
    }
    return json;
}

/* ---- checks ---- */

static const char *const kind_keys[] = { "vlans", "vnis", "greKeys", "erspanSessions", "prefixes" };
static const char *const kind_words[] = { "VLAN", "VNI", "GRE key", "ERSPAN session", "prefix" };
enum kind { KIND_VLAN, KIND_VNI, KIND_GRE_KEY, KIND_ERSPAN, KIND_PREFIX, KIND_ALL };

/* One selector of one tenant, or of a tenant that takes its taps' packets whatever they are. */
struct selector {
    const struct pk_tenant_spec *tenant;
    size_t tenant_index, index;
    enum kind kind;
    const struct pk_node *node;
    uint64_t number; /* a VLAN: the outer one */
    uint64_t inner;  /* a VLAN: 0 = any */
    struct pk_prefix prefix;
};

static bool check_prefixes(const struct pk_fleet_spec *fleet, struct pk_errors *errors)
{
    bool good = true;
    for (size_t t = 0; t < fleet->tenant_count; t++) {
        const struct pk_node *match = fleet->tenants[t].match_node;
        const struct pk_node *list = match != NULL ? pk_node_get(match, "prefixes") : NULL;
        for (size_t i = 0; list != NULL && list->kind == PK_NODE_LIST && i < list->count; i++) {
            const struct pk_node *node = list->items[i];
            struct pk_prefix prefix;
            struct pk_error err = { 0 };
            if (node->kind != PK_NODE_STRING || node->text[0] == '\0' ||
                pk_prefix_parse(node->text, &prefix, &err) == 0)
                continue; /* what is no text or none at all, the table told */
            char quoted[100];
            const char *why = strrchr(err.msg, '"');
            pk_fault(errors, fleet->doc, node->line, node->col, err.hint,
                     "spec.tenants[%zu].match.prefixes[%zu]: %s%s", t, i,
                     pk_quote(node->text, quoted, sizeof(quoted)), why != NULL ? why + 1 : "");
            good = false;
        }
    }
    return good;
}

static bool check_matches(const struct pk_fleet_spec *fleet, struct pk_errors *errors)
{
    bool good = true;
    for (size_t t = 0; t < fleet->tenant_count; t++) {
        const struct pk_tenant_spec *tenant = &fleet->tenants[t];
        const struct pk_node *match = tenant->match_node;
        if (match->count > 0)
            continue;
        bool nothing = match->kind == PK_NODE_NULL;
        pk_fault(errors, fleet->doc, nothing ? match->key_line : match->line,
                 nothing ? match->key_col : match->col,
                 "write which packets are the tenant's, for example vlans: [110]; taps: [NAME] "
                 "alone: all packets of this tap",
                 "spec.tenants[%zu].match: it says nothing", t);
        good = false;
    }
    return good;
}

static void fill(struct selector *selector, enum kind kind, const struct pk_node *node)
{
    struct pk_error ignored;
    selector->kind = kind;
    selector->node = node;
    if (kind == KIND_PREFIX) {
        (void)pk_prefix_parse(node->text, &selector->prefix, &ignored);
    } else if (node->kind == PK_NODE_INT) {
        selector->number = (uint64_t)node->integer;
    } else { /* the table's pattern took it: "110" or "100.200" */
        char outer[8];
        size_t len = strcspn(node->text, ".");
        (void)snprintf(outer, sizeof(outer), "%.*s", (int)PK_MIN(len, 7u), node->text);
        (void)pk_parse_u64(outer, &selector->number, NULL);
        if (node->text[len] == '.')
            (void)pk_parse_u64(node->text + len + 1, &selector->inner, NULL);
    }
}

/* In the order of the file. *ret_count is what there would be, also beyond max. */
static void collect(const struct pk_fleet_spec *fleet, struct selector *list, size_t max,
                    size_t *ret_count)
{
    size_t count = 0;
    for (size_t t = 0; t < fleet->tenant_count; t++) {
        const struct pk_tenant_spec *tenant = &fleet->tenants[t];
        struct selector selector = { .tenant = tenant, .tenant_index = t };
        size_t before = count;
        for (unsigned k = 0; k < KIND_ALL; k++) {
            const struct pk_node *items = pk_node_get(tenant->match_node, kind_keys[k]);
            for (size_t i = 0; items != NULL && i < items->count; i++) {
                selector.index = i;
                if (count < max) {
                    list[count] = selector;
                    fill(&list[count], (enum kind)k, items->items[i]);
                }
                count++;
            }
        }
        if (count == before) {
            selector.kind = KIND_ALL;
            selector.node = tenant->match_node;
            if (count < max)
                list[count] = selector;
            count++;
        }
    }
    *ret_count = count;
}

static bool covers(const struct selector *a, const struct selector *b)
{
    if (a->kind == KIND_ALL)
        return true;
    if (a->kind != b->kind)
        return false;
    if (a->kind == KIND_PREFIX)
        return pk_prefix_covers(&a->prefix, &b->prefix);
    return a->number == b->number && (a->inner == 0 || a->inner == b->inner);
}

/* A tap of both; NULL when there is none. */
static const char *common_tap(const struct pk_fleet_spec *fleet, const struct selector *a,
                              const struct selector *b)
{
    for (size_t i = 0; i < fleet->tap_count; i++)
        if (pk_tenant_has_tap(a->tenant, fleet->taps[i].name) &&
            pk_tenant_has_tap(b->tenant, fleet->taps[i].name))
            return fleet->taps[i].name;
    return NULL;
}

static void tell_claimed(const struct pk_fleet_spec *fleet, const struct selector *first,
                         const struct selector *second, const char *tap, struct pk_errors *errors)
{
    char what[160] = "all packets", where[64] = "", hint[256], quoted[100];
    bool same = covers(second, first);
    if (second->kind != KIND_ALL) {
        (void)snprintf(what, sizeof(what), "%s %s", kind_words[second->kind],
                       pk_quote(second->node->text, quoted, sizeof(quoted)));
        (void)snprintf(where, sizeof(where), ".%s[%zu]", kind_keys[second->kind], second->index);
    }
    if (same)
        (void)snprintf(hint, sizeof(hint),
                       "remove one of the two, or give the tenants different "
                       "taps (match.taps)");
    else
        (void)snprintf(hint, sizeof(hint),
                       "a packet belongs to the first tenant that claims it: put tenant %s before "
                       "tenant %s",
                       second->tenant->name, first->tenant->name);
    pk_fault(errors, fleet->doc, second->node->line, second->node->col, hint,
             "spec.tenants[%zu].match%s: %s of tap %s: tenant %s has %s already, on line %u",
             second->tenant_index, where, what, tap, first->tenant->name,
             same ? "it" : "more than that", first->node->line);
}

static int check_claims(const struct pk_fleet_spec *fleet, struct pk_errors *errors)
{
    size_t count = 0;
    PK_CLEANUP(pk_free_p)
    struct selector *list = pk_zalloc_array(PK_FLEET_SELECTORS_MAX, sizeof(*list));
    if (list == NULL)
        return PK_E_NOMEM;
    collect(fleet, list, PK_FLEET_SELECTORS_MAX, &count);
    if (count > PK_FLEET_SELECTORS_MAX) { /* bounds the comparisons below, and the kernel's maps */
        const struct pk_pos *pos = &fleet->tenants[fleet->tenant_count - 1].pos;
        pk_fault(errors, fleet->doc, pos->line, pos->col,
                 "select by larger prefixes, by outer VLANs or by taps",
                 "spec.tenants: the tenants have %zu selectors, the limit is %u", count,
                 PK_FLEET_SELECTORS_MAX);
        return PK_E_INVALID;
    }
    int r = 0;
    for (size_t i = 0; i < count; i++)
        for (size_t before = 0; before < i; before++) {
            const char *tap;
            if (list[before].tenant == list[i].tenant || !covers(&list[before], &list[i]) ||
                (tap = common_tap(fleet, &list[before], &list[i])) == NULL)
                continue;
            tell_claimed(fleet, &list[before], &list[i], tap, errors);
            r = PK_E_INVALID;
            break;
        }
    return r;
}

/* The tenant that takes all packets of the tap; NULL when none does. */
static const struct pk_tenant_spec *owner_of(const struct pk_fleet_spec *fleet, const char *tap)
{
    for (size_t i = 0; i < fleet->tenant_count; i++) {
        const struct pk_tenant_spec *tenant = &fleet->tenants[i];
        if (pk_node_get(tenant->match_node, "taps") != NULL && tenant->match_node->count == 1 &&
            pk_tenant_has_tap(tenant, tap))
            return tenant;
    }
    return NULL;
}

/* Groups before this one that get the same packets of the tap. */
static unsigned groups_before(const struct pk_fleet_spec *fleet, size_t group, const char *tap)
{
    unsigned count = 0;
    for (size_t i = 0; i < group; i++)
        count += pk_str_equal(fleet->groups[i].tenant, fleet->groups[group].tenant) &&
                 pk_strv_contains(&fleet->groups[i].taps, tap);
    return count;
}

static bool check_tap_of_group(const struct pk_fleet_spec *fleet, size_t g, size_t t,
                               struct pk_errors *errors)
{
    const struct pk_group_spec *group = &fleet->groups[g];
    const struct pk_node *node = group->taps_node->items[t];
    const struct pk_tenant_spec *tenant = pk_spec_tenant(fleet, group->tenant);
    const struct pk_tenant_spec *owner = owner_of(fleet, node->text);
    char hint[256];
    if (group->tenant != NULL && !pk_tenant_has_tap(tenant, node->text)) {
        (void)snprintf(hint, sizeof(hint),
                       "remove it here, or add it to match.taps of tenant %s, on line %u",
                       tenant->name, tenant->match_node->line);
        pk_fault(errors, fleet->doc, node->line, node->col, hint,
                 "spec.groups[%zu].taps[%zu]: tenant %s has no traffic on tap %s", g, t,
                 tenant->name, node->text);
        return false;
    }
    if (group->tenant == NULL && owner != NULL) {
        (void)snprintf(hint, sizeof(hint), "write tenant: %s, or remove the tap here", owner->name);
        pk_fault(errors, fleet->doc, node->line, node->col, hint,
                 "spec.groups[%zu].taps[%zu]: all packets of tap %s are tenant %s's: none is left "
                 "for a group without a tenant",
                 g, t, node->text, owner->name);
        return false;
    }
    if (groups_before(fleet, g, node->text) >= PK_GROUPS_PER_TENANT_MAX) {
        pk_fault(errors, fleet->doc, node->line, node->col,
                 "put the tools of two groups into one: tools of a group share its lanes",
                 "spec.groups[%zu].taps[%zu]: tap %s feeds %u groups of %s%s already, the most "
                 "there can be",
                 g, t, node->text, PK_GROUPS_PER_TENANT_MAX,
                 tenant != NULL ? "tenant " : "no tenant", tenant != NULL ? tenant->name : "");
        return false;
    }
    return true;
}

int pk_spec_check_tenants(const struct pk_fleet_spec *fleet, bool whole, struct pk_errors *errors)
{
    if (!check_prefixes(fleet, errors))
        return PK_E_INVALID;
    if (!whole)
        return 0;
    int r = check_matches(fleet, errors) ? 0 : PK_E_INVALID;
    if (r == 0 && fleet->tenant_count > 0)
        r = check_claims(fleet, errors);
    for (size_t g = 0; g < fleet->group_count && r != PK_E_NOMEM; g++)
        for (size_t t = 0; t < fleet->groups[g].taps.count; t++)
            if (!check_tap_of_group(fleet, g, t, errors))
                r = PK_E_INVALID;
    return r;
}
