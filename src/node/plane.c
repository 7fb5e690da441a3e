/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The desired plane: what calls and plane.json may say, and the lists. plane.json is
 * {"version":2,"lanes":[{"fleet","group","index","spec":{..},"drained"}],"groups":[{"fleet","name","spec"}],
 *  "taps":[{"fleet","name","spec","before","leaving"}]}, where spec is the body of the PUT call. In
 * version 1 a tap had "group", one group that got all.
 */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/fs.h"
#include "base/json.h"
#include "base/str.h"
#include "node/internal.h"
#include "node/node.h"
#include "packet/flow.h"

#define PLANE_FILE_MAX (16u << 20)
#define PLANE_VERSION  2 /* what is written; 1 is read */
#define PRIORITY_MAX   1000u
#define PRIORITY_INIT  100u
#define SHARES_MAX     1024u
#define WEIGHT_MAX     10000u
#define DRAIN_INIT_MS  30000u
#define DRAIN_MAX_MS   3600000u
#define LANE_INDEX_MAX 1023u

/* ---- things ---- */

void pk_lane_free(struct pk_lane *lane)
{
    if (lane == NULL)
        return;
    pk_lane_forget_readers(lane);
    pk_netns_done(&lane->netns);
    pk_free(lane->fleet);
    pk_free(lane->group);
    pk_free(lane->key);
    pk_free(lane->netns_path);
    pk_free(lane);
}

int pk_lane_new(const char *tag, const char *fleet, const char *group, unsigned index, unsigned mtu,
                struct pk_lane **ret_lane, struct pk_error *err)
{
    PK_CLEANUP(pk_lane_free_p) struct pk_lane *lane = pk_zalloc(sizeof(*lane));
    if (lane == NULL)
        return pk_no_memory(err);
    lane->netns = PK_NETNS_INIT;
    lane->index = index;
    lane->mtu = mtu;
    lane->fleet = pk_strdup(fleet);
    lane->group = pk_strdup(group);
    lane->key = pk_asprintf("%s/%s/%u", fleet, group, index);
    lane->netns_path = pk_lane_netns_path(tag, fleet, group, index);
    if (lane->fleet == NULL || lane->group == NULL || lane->key == NULL || lane->netns_path == NULL)
        return pk_no_memory(err);
    pk_node_link_name(tag, 'l', lane->key, lane->link_name);
    pk_node_link_name(tag, 'i', lane->key, lane->second.link_name);
    *ret_lane = PK_TAKE(lane);
    return 0;
}

void pk_group_free(struct pk_group *group)
{
    if (group == NULL)
        return;
    pk_free(group->fleet);
    pk_free(group->name);
    pk_free(group->key);
    pk_free(group->tenant);
    pk_free(group->shares);
    pk_free(group->level.loads);
    pk_free(group);
}

int pk_group_new(const char *fleet, const char *name, const struct pk_broker_share *shares,
                 size_t count, struct pk_group **ret_group, struct pk_error *err)
{
    PK_CLEANUP(pk_group_free_p) struct pk_group *group = pk_zalloc(sizeof(*group));
    if (group == NULL)
        return pk_no_memory(err);
    group->fleet = pk_strdup(fleet);
    group->name = pk_strdup(name);
    group->key = pk_asprintf("%s/%s", fleet, name);
    group->shares = pk_memdup(shares, count * sizeof(*shares));
    group->share_count = count;
    group->tenant = pk_strdup("");
    group->priority = PRIORITY_INIT;
    if (group->fleet == NULL || group->name == NULL || group->key == NULL ||
        group->shares == NULL || group->tenant == NULL)
        return pk_no_memory(err);
    *ret_group = PK_TAKE(group);
    return 0;
}

void pk_tap_free(struct pk_tap *tap)
{
    if (tap == NULL)
        return;
    pk_free(tap->fleet);
    pk_free(tap->name);
    pk_free(tap->key);
    pk_targets_done(&tap->targets);
    json_decref(tap->loss);
    pk_free(tap);
}

int pk_tap_new(const char *tag, const char *fleet, const char *name, enum pk_tap_kind kind,
               const char *interface, unsigned mtu, struct pk_tap **ret_tap, struct pk_error *err)
{
    PK_CLEANUP(pk_tap_free_p) struct pk_tap *tap = pk_zalloc(sizeof(*tap));
    if (tap == NULL)
        return pk_no_memory(err);
    tap->kind = kind;
    tap->mtu = mtu;
    tap->state = PK_TAP_DETACHED;
    tap->fleet = pk_strdup(fleet);
    tap->name = pk_strdup(name);
    tap->key = pk_asprintf("%s/%s", fleet, name);
    if (tap->fleet == NULL || tap->name == NULL || tap->key == NULL)
        return pk_no_memory(err);
    if (kind == PK_TAP_REPLAY) {
        pk_node_link_name(tag, 't', tap->key, tap->interface);
        pk_node_link_name(tag, 's', tap->key, tap->send_name);
    } else {
        (void)snprintf(tap->interface, sizeof(tap->interface), "%s", interface);
    }
    *ret_tap = PK_TAKE(tap);
    return 0;
}

/* ---- lists ---- */

/* All three lists are pointers and a count. */
static int list_add(void ***list, size_t *count, size_t max, void *item, const char *what,
                    struct pk_error *err)
{
    if (*count >= max) {
        (void)pk_fail(err, PK_E_NOSPACE, "this machine has %zu %s, the most there can be", max,
                      what);
        return pk_hint(err, "remove some, or spread the fleet over more machines");
    }
    void **grown = pk_realloc_array(*list, *count + 1, sizeof(void *));
    if (grown == NULL)
        return pk_no_memory(err);
    grown[(*count)++] = item;
    *list = grown;
    return 0;
}

static void list_drop(void **list, size_t *count, const void *item)
{
    for (size_t i = 0; i < *count; i++) {
        if (list[i] != item)
            continue;
        memmove(list + i, list + i + 1, (*count - i - 1) * sizeof(void *));
        (*count)--;
        return;
    }
}

void pk_node_plane_done(struct pk_plane *plane)
{
    for (size_t i = 0; i < plane->lane_count; i++)
        pk_lane_free(plane->lanes[i]);
    for (size_t i = 0; i < plane->group_count; i++)
        pk_group_free(plane->groups[i]);
    for (size_t i = 0; i < plane->tap_count; i++)
        pk_tap_free(plane->taps[i]);
    pk_free(plane->lanes);
    pk_free(plane->groups);
    pk_free(plane->taps);
    *plane = (struct pk_plane){ 0 };
}

int pk_node_plane_add_lane_take(struct pk_plane *plane, struct pk_lane *lane, struct pk_error *err)
{
    for (size_t i = 0; i < plane->lane_count; i++) {
        const struct pk_lane *other = plane->lanes[i];
        if (strcmp(other->key, lane->key) == 0)
            return pk_fail(err, PK_E_CONFLICT, "lane %s is there twice", lane->key);
        /* "a-b" + "c" and "a" + "b-c" give one name; a link's name is a hash of 32 bits. */
        if (strcmp(other->netns_path, lane->netns_path) == 0 ||
            strcmp(other->link_name, lane->link_name) == 0) {
            (void)pk_fail(err, PK_E_CONFLICT, "lanes %s and %s would get the same name (%s)",
                          other->key, lane->key, lane->netns_path);
            return pk_hint(err, "rename one of the groups or fleets");
        }
    }
    return list_add((void ***)&plane->lanes, &plane->lane_count, PK_NODE_LANES_MAX, lane, "lanes",
                    err);
}

int pk_node_plane_add_group_take(struct pk_plane *plane, struct pk_group *group,
                                 struct pk_error *err)
{
    if (pk_node_plane_group(plane, group->fleet, group->name) != NULL)
        return pk_fail(err, PK_E_CONFLICT, "group %s is there twice", group->key);
    return list_add((void ***)&plane->groups, &plane->group_count, PK_NODE_GROUPS_MAX, group,
                    "groups", err);
}

/* The interface that two taps both have, or NULL. */
static const char *shared_interface(const struct pk_tap *a, const struct pk_tap *b)
{
    const char *const of_a[] = { a->interface, a->other.interface };
    for (size_t i = 0; i < PK_ARRAY_SIZE(of_a); i++)
        if (of_a[i][0] != '\0' &&
            (strcmp(of_a[i], b->interface) == 0 || strcmp(of_a[i], b->other.interface) == 0))
            return of_a[i];
    return NULL;
}

int pk_node_plane_add_tap_take(struct pk_plane *plane, struct pk_tap *tap, struct pk_error *err)
{
    for (size_t i = 0; i < plane->tap_count; i++) {
        const struct pk_tap *other = plane->taps[i];
        if (strcmp(other->key, tap->key) == 0)
            return pk_fail(err, PK_E_CONFLICT, "tap %s is there twice", tap->key);
        const char *both = shared_interface(tap, other);
        if (both != NULL) {
            (void)pk_fail(err, PK_E_CONFLICT, "interface %s is tap '%s' of fleet '%s' already",
                          both, other->name, other->fleet);
            return pk_hint(err, "an interface feeds one tap: give this tap another interface, or "
                                "remove that tap first");
        }
    }
    return list_add((void ***)&plane->taps, &plane->tap_count, PK_NODE_TAPS_MAX, tap, "taps", err);
}

struct pk_lane *pk_node_plane_lane(const struct pk_plane *plane, const char *key)
{
    for (size_t i = 0; i < plane->lane_count; i++)
        if (strcmp(plane->lanes[i]->key, key) == 0)
            return plane->lanes[i];
    return NULL;
}

struct pk_group *pk_node_plane_group(const struct pk_plane *plane, const char *fleet,
                                     const char *name)
{
    for (size_t i = 0; i < plane->group_count; i++)
        if (strcmp(plane->groups[i]->fleet, fleet) == 0 &&
            strcmp(plane->groups[i]->name, name) == 0)
            return plane->groups[i];
    return NULL;
}

struct pk_tap *pk_node_plane_tap(const struct pk_plane *plane, const char *fleet, const char *name)
{
    for (size_t i = 0; i < plane->tap_count; i++)
        if (strcmp(plane->taps[i]->fleet, fleet) == 0 && strcmp(plane->taps[i]->name, name) == 0)
            return plane->taps[i];
    return NULL;
}

void pk_node_plane_drop_lane(struct pk_plane *plane, const struct pk_lane *lane)
{
    list_drop((void **)plane->lanes, &plane->lane_count, lane);
}

void pk_node_plane_drop_group(struct pk_plane *plane, const struct pk_group *group)
{
    list_drop((void **)plane->groups, &plane->group_count, group);
}

void pk_node_plane_drop_tap(struct pk_plane *plane, const struct pk_tap *tap)
{
    list_drop((void **)plane->taps, &plane->tap_count, tap);
}

/* ---- reading ---- */

int pk_check_name(const char *what, const char *name, struct pk_error *err)
{
    if (pk_str_is_name(name, PK_NODE_NAME_MAX))
        return 0;
    (void)pk_fail(err, PK_E_USAGE, "'%.80s' is no name for a %s", name, what);
    return pk_hint(err, "use small letters, digits and '-' inside, at most %u characters",
                   PK_NODE_NAME_MAX);
}

int pk_check_keys(const char *what, const json_t *object, const char *const *keys, size_t count,
                  struct pk_error *err)
{
    if (!json_is_object(object)) {
        (void)pk_fail(err, PK_E_INVALID, "%s: not an object", what);
        return pk_hint(err, "write it in braces: {\"key\": value}");
    }
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)object, key, value)
    {
        bool known = false;
        for (size_t i = 0; i < count && !known; i++)
            known = strcmp(keys[i], key) == 0;
        if (known)
            continue;
        const char *meant = pk_str_closest(key, keys, count);
        (void)pk_fail(err, PK_E_INVALID, "%s: unknown key '%.80s'", what, key);
        return meant != NULL ? pk_hint(err, "did you mean '%s'?", meant)
                             : pk_hint(err,
                                       "the keys of it begin with '%s'; 'picket help' and "
                                       "docs/ describe them",
                                       count > 0 ? keys[0] : "");
    }
    return 0;
}

int pk_check_uint(const char *what, const json_t *object, const char *key, uint64_t min,
                  uint64_t max, int64_t fallback, uint64_t *ret_value, struct pk_error *err)
{
    const json_t *value = json_object_get(object, key);
    if (value == NULL && fallback >= 0) {
        *ret_value = (uint64_t)fallback;
        return 0;
    }
    json_int_t number = json_is_integer(value) ? json_integer_value(value) : -1;
    if (number < 0 || (uint64_t)number < min || (uint64_t)number > max) {
        (void)pk_fail(err, PK_E_INVALID, "%s: '%s' must be a whole number from %llu to %llu", what,
                      key, (unsigned long long)min, (unsigned long long)max);
        return pk_hint(err, "write it without quotes: \"%s\": %llu", key,
                       (unsigned long long)(fallback > 0 ? (uint64_t)fallback : min));
    }
    *ret_value = (uint64_t)number;
    return 0;
}

/* Borrowed from the object. */
static int check_string(const char *what, const json_t *object, const char *key,
                        const char **ret_text, struct pk_error *err)
{
    const json_t *value = json_object_get(object, key);
    if (!json_is_string(value) || strlen(json_string_value(value)) != json_string_length(value)) {
        (void)pk_fail(err, PK_E_INVALID, "%s: '%s' must be a text", what, key);
        return pk_hint(err, "write it in quotes: \"%s\": \"...\"", key);
    }
    *ret_text = json_string_value(value);
    return 0;
}

static int check_named(const char *what, const json_t *object, const char *key,
                       const char **ret_text, struct pk_error *err)
{
    int r = check_string(what, object, key, ret_text, err);
    if (r == 0 && (r = pk_check_name(key, *ret_text, err)) < 0)
        return pk_wrap(err, "%s", what);
    return r;
}

int pk_lane_parse(const char *tag, const char *fleet, const char *group, unsigned index,
                  const json_t *body, struct pk_lane **ret_lane, struct pk_error *err)
{
    static const char *const keys[] = { "mtu", "inline", "device" };
    const char *device = NULL;
    uint64_t mtu = 0;
    int r = pk_check_name("fleet", fleet, err);
    if (r == 0)
        r = pk_check_name("group", group, err);
    if (r == 0 && index > LANE_INDEX_MAX)
        r = pk_fail(err, PK_E_USAGE, "lane %u: a group has lanes 0 to %u", index, LANE_INDEX_MAX);
    if (r == 0)
        r = pk_check_keys("lane", body, keys, PK_ARRAY_SIZE(keys), err);
    if (r == 0)
        r = pk_check_uint("lane", body, "mtu", 0, PK_NODE_MTU_MAX, 1500, &mtu, err);
    if (r == 0 && mtu != 0) /* 0: as large as its group's taps need */
        r = pk_check_uint("lane", body, "mtu", PK_NODE_MTU_MIN, PK_NODE_MTU_MAX, 0, &mtu, err);
    PK_CLEANUP(pk_lane_free_p) struct pk_lane *lane = NULL;
    if (r == 0)
        r = pk_lane_new(tag, fleet, group, index, (unsigned)mtu, &lane, err);
    if (r == 0)
        r = pk_inline_lane_parse(json_object_get(body, "inline"), lane, err);
    if (r == 0 && json_object_get(body, "device") != NULL) {
        r = check_string("lane", body, "device", &device, err);
        if (r == 0 && (!pk_node_is_interface_name(device) || lane->is_inline)) {
            (void)pk_fail(err, PK_E_INVALID, "lane: '%.40s' is no interface that can feed a lane",
                          device);
            r = pk_hint(err, "name one interface; an inline lane has none");
        }
        if (r == 0)
            (void)snprintf(lane->device.name, sizeof(lane->device.name), "%s", device);
    }
    if (r == 0)
        *ret_lane = PK_TAKE(lane);
    return r;
}

/* {"drain":{"deadlineMs":30000},"rebalance":"auto"} */
static int parse_slots(const json_t *body, uint64_t *ret_drain_ms, bool *ret_rebalance,
                       struct pk_error *err)
{
    static const char *const keys[] = { "deadlineMs" };
    const json_t *drain = json_object_get(body, "drain");
    const json_t *rebalance = json_object_get(body, "rebalance");
    int r = 0;
    if (drain != NULL)
        r = pk_check_keys("group: drain", drain, keys, PK_ARRAY_SIZE(keys), err);
    if (r == 0 && drain != NULL)
        r = pk_check_uint("group: drain", drain, "deadlineMs", 0, DRAIN_MAX_MS, DRAIN_INIT_MS,
                          ret_drain_ms, err);
    if (r < 0 || rebalance == NULL)
        return r;
    const char *text = json_is_string(rebalance) ? json_string_value(rebalance) : "";
    *ret_rebalance = strcmp(text, "auto") == 0;
    if (*ret_rebalance || strcmp(text, "off") == 0)
        return 0;
    (void)pk_fail(err, PK_E_INVALID, "group: 'rebalance' must be \"auto\" or \"off\"");
    return pk_hint(err, "\"off\" leaves each slot with the lane that the shares give it");
}

/* {"everyMs":30000}, 0 = none are sent; NULL = as usual. */
static int parse_canary(const json_t *canary, uint64_t *ret_ms, struct pk_error *err)
{
    static const char *const keys[] = { "everyMs" };
    if (canary == NULL)
        return 0;
    int r = pk_check_keys("group: canary", canary, keys, PK_ARRAY_SIZE(keys), err);
    if (r == 0)
        r = pk_check_uint("group: canary", canary, "everyMs", 0, PK_CANARY_MAX_MS,
                          PK_CANARY_DEFAULT_MS, ret_ms, err);
    if (r < 0 || *ret_ms == 0 || *ret_ms >= PK_CANARY_MIN_MS)
        return r;
    (void)pk_fail(err, PK_E_INVALID, "group: canary: 'everyMs' must be 0 or at least %u",
                  PK_CANARY_MIN_MS);
    return pk_hint(err, "0 sends none");
}

int pk_group_parse(const char *fleet, const char *name, const json_t *body,
                   struct pk_group **ret_group, struct pk_error *err)
{
    static const char *const keys[] = { "lanes",    "hash",  "tenant",    "priority", "shunt",
                                        "overload", "drain", "rebalance", "canary" };
    static const char *const lane_keys[] = { "index", "weight" };
    int r = pk_check_name("fleet", fleet, err);
    if (r == 0)
        r = pk_check_name("group", name, err);
    if (r == 0)
        r = pk_check_keys("group", body, keys, PK_ARRAY_SIZE(keys), err);
    if (r < 0)
        return r;
    const json_t *lanes = json_object_get(body, "lanes");
    size_t count = json_array_size(lanes);
    if (count == 0 || count > SHARES_MAX)
        return pk_fail(err, PK_E_INVALID, "group: 'lanes' must be a list of 1 to %u lanes",
                       SHARES_MAX);
    PK_CLEANUP(pk_free_p) struct pk_broker_share *shares = pk_zalloc_array(count, sizeof(*shares));
    if (shares == NULL)
        return pk_no_memory(err);
    uint64_t weights = 0;
    for (size_t i = 0; i < count; i++) {
        const json_t *lane = json_array_get(lanes, i);
        uint64_t index = 0, weight = 0;
        r = pk_check_keys("group: lane", lane, lane_keys, PK_ARRAY_SIZE(lane_keys), err);
        if (r == 0)
            r = pk_check_uint("group: lane", lane, "index", 0, LANE_INDEX_MAX, -1, &index, err);
        if (r == 0)
            r = pk_check_uint("group: lane", lane, "weight", 0, WEIGHT_MAX, 1, &weight, err);
        if (r < 0)
            return r;
        for (size_t j = 0; j < i; j++)
            if (shares[j].lane == index)
                return pk_fail(err, PK_E_INVALID, "group: lane %u is listed twice",
                               (unsigned)index);
        shares[i] = (struct pk_broker_share){ .lane = (unsigned)index, .weight = (unsigned)weight };
        weights += weight;
    }
    if (weights == 0) {
        (void)pk_fail(err, PK_E_INVALID, "group: no lane has a weight above 0");
        return pk_hint(err, "some lane must take the packets");
    }
    enum pk_hash_mode hash = PK_HASH_OUTER;
    const json_t *named = json_object_get(body, "hash");
    if (named != NULL &&
        (!json_is_string(named) || !pk_hash_mode_parse(json_string_value(named), &hash))) {
        (void)pk_fail(err, PK_E_INVALID, "group: 'hash' is not one of the ways to hash");
        return pk_hint(err, "write \"outer\", \"flow\" or \"addresses\"");
    }
    const char *tenant = "";
    uint64_t priority = PRIORITY_INIT;
    if (json_object_get(body, "tenant") != NULL)
        r = check_named("group", body, "tenant", &tenant, err);
    if (r == 0)
        r = pk_check_uint("group", body, "priority", 1, PRIORITY_MAX, PRIORITY_INIT, &priority,
                          err);
    struct pk_shunt_spec shunt = { 0 };
    if (r == 0)
        r = pk_shunt_spec_parse(json_object_get(body, "shunt"), &shunt, err);
    struct pk_overload_spec overload = { 0 };
    if (r == 0)
        r = pk_overload_parse(json_object_get(body, "overload"), &overload, err);
    uint64_t drain_ms = DRAIN_INIT_MS;
    bool rebalance = true;
    uint64_t canary_ms = PK_CANARY_DEFAULT_MS;
    if (r == 0)
        r = parse_canary(json_object_get(body, "canary"), &canary_ms, err);
    if (r == 0)
        r = parse_slots(body, &drain_ms, &rebalance, err);
    PK_CLEANUP(pk_group_free_p) struct pk_group *group = NULL;
    if (r == 0)
        r = pk_group_new(fleet, name, shares, count, &group, err);
    if (r < 0)
        return r;
    pk_free(group->tenant);
    group->tenant = pk_strdup(tenant);
    group->hash = hash;
    group->shunt = shunt;
    group->overload = overload;
    group->priority = (unsigned)priority;
    group->drain = (pk_nsec)drain_ms * PK_NSEC_PER_MS;
    group->rebalance = rebalance;
    group->canary = (pk_nsec)canary_ms * PK_NSEC_PER_MS;
    if (group->tenant == NULL)
        return pk_no_memory(err);
    *ret_group = PK_TAKE(group);
    return 0;
}

const char *const pk_node_tap_kinds[] = { "interface", "replay", "inline", "tunnel" };

/* What a tap of an interface has besides it. */
static int parse_options(struct pk_tap *tap, const json_t *body, struct pk_error *err)
{
    const json_t *tunnel = json_object_get(body, "tunnel");
    int r = pk_nic_spec_parse(json_object_get(body, "nic"), &tap->nic, err);
    return r == 0 && tap->kind == PK_TAP_TUNNEL ? pk_tunnel_parse(tunnel, &tap->tunnel, err) : r;
}

json_t *pk_tap_options_to_json(const struct pk_tap *tap)
{
    PK_JSON nic = pk_nic_spec_to_json(&tap->nic);
    PK_JSON tunnel = tap->kind == PK_TAP_TUNNEL ? pk_tunnel_to_json(&tap->tunnel) : NULL;
    PK_JSON pair = tap->kind == PK_TAP_INLINE ? pk_inline_tap_options(tap) : NULL;
    return json_pack("{s:O*,s:O*,s:O*}", "tunnel", tunnel, "inline", pair, "nic",
                     json_object_size(nic) > 0 ? nic : NULL);
}

int pk_tap_parse(const char *tag, const char *fleet, const char *name, const json_t *body,
                 struct pk_tap **ret_tap, struct pk_error *err)
{
    /* The last one is the kind's own. */
    static const char *const interface_keys[] = { "kind",   "interface", "nic",   "group",
                                                  "groups", "tenants",   "tunnel" };
    static const char *const replay_keys[] = { "kind", "mtu", "group", "groups", "tenants" };
    static const char *const inline_keys[] = { "kind",   "interface", "nic",   "group",
                                               "groups", "tenants",   "inline" };
    const char *kind = NULL, *interface = NULL;
    struct pk_tap_inline other = { 0 };
    uint64_t mtu = 0;
    int r = pk_check_name("fleet", fleet, err);
    if (r == 0)
        r = pk_check_name("tap", name, err);
    if (r == 0 && !json_is_object(body))
        r = pk_fail(err, PK_E_INVALID, "tap: not an object");
    if (r == 0)
        r = check_string("tap", body, "kind", &kind, err);
    if (r < 0)
        return r;
    unsigned which = 0;
    while (which < PK_ARRAY_SIZE(pk_node_tap_kinds) && strcmp(pk_node_tap_kinds[which], kind) != 0)
        which++;
    bool is_inline = which == PK_TAP_INLINE;
    if (which == PK_TAP_REPLAY) {
        r = pk_check_keys("replay tap", body, replay_keys, PK_ARRAY_SIZE(replay_keys), err);
        if (r == 0)
            r = pk_check_uint("replay tap", body, "mtu", PK_NODE_MTU_MIN, PK_NODE_MTU_MAX, 1500,
                              &mtu, err);
    } else if (which < PK_ARRAY_SIZE(pk_node_tap_kinds)) {
        r = is_inline
                ? pk_check_keys("inline tap", body, inline_keys, PK_ARRAY_SIZE(inline_keys), err)
                : pk_check_keys("interface tap", body, interface_keys,
                                PK_ARRAY_SIZE(interface_keys) - (which != PK_TAP_TUNNEL), err);
        if (r == 0 && is_inline)
            r = pk_inline_tap_parse(json_object_get(body, "inline"), &other, err);
        if (r == 0)
            r = check_string("interface tap", body, "interface", &interface, err);
        if (r == 0 && !pk_node_is_interface_name(interface)) {
            (void)pk_fail(err, PK_E_INVALID, "tap: '%.40s' is no name of an interface", interface);
            r = pk_hint(err, "'ip link' and 'picket doctor' list this machine's interfaces");
        }
    } else {
        r = pk_fail(err, PK_E_INVALID,
                    "tap: 'kind' must be 'interface', 'tunnel', 'inline' or 'replay'");
    }
    PK_CLEANUP(pk_tap_free_p) struct pk_tap *tap = NULL;
    if (r == 0)
        r = pk_tap_new(tag, fleet, name, (enum pk_tap_kind)which, interface, (unsigned)mtu, &tap,
                       err);
    if (r == 0 && which != PK_TAP_REPLAY)
        r = parse_options(tap, body, err);
    if (r == 0)
        r = pk_targets_parse(fleet, body, &tap->targets, err);
    if (r == 0 && is_inline) {
        tap->other = other;
        r = pk_inline_tap_check(tap, err);
    }
    if (r < 0)
        return r;
    *ret_tap = PK_TAKE(tap);
    return 0;
}

static int parse_before(const json_t *json, struct pk_tap_before *ret_before, struct pk_error *err)
{
    static const char *const keys[] = { "ifindex", "promisc", "up", "offloads", "nic" };
    uint64_t ifindex = 0;
    int r = pk_check_keys("tap: before", json, keys, PK_ARRAY_SIZE(keys), err);
    if (r == 0)
        r = pk_check_uint("tap: before", json, "ifindex", 1, INT32_MAX, -1, &ifindex, err);
    if (r < 0)
        return r;
    struct pk_tap_before before = { .ifindex = (unsigned)ifindex,
                                    .promisc = pk_json_bool_or(json, "promisc", false),
                                    .up = pk_json_bool_or(json, "up", true) };
    const json_t *offloads = json_object_get(json, "offloads"), *item;
    size_t i;
    json_array_foreach(offloads, i, item)
    {
        const char *text = json_is_string(item) ? json_string_value(item) : "";
        unsigned bit = 1;
        while (bit <= PK_OFFLOADS_TAP &&
               ((bit & PK_OFFLOADS_TAP) == 0 || strcmp(pk_offload_name(bit), text) != 0))
            bit <<= 1;
        if (bit > PK_OFFLOADS_TAP)
            return pk_fail(err, PK_E_INVALID, "tap: before: '%.40s' is no offload", text);
        before.offloads |= bit;
    }
    const json_t *nic = json_object_get(json, "nic");
    if (nic != NULL && (r = pk_nic_before_parse(nic, &before.nic, err)) < 0)
        return r;
    *ret_before = before;
    return 0;
}

static int parse_lane(const char *tag, const json_t *item, struct pk_plane *plane,
                      struct pk_error *err)
{
    static const char *const keys[] = { "fleet", "group", "index", "spec", "drained", "before" };
    const char *fleet = NULL, *group = NULL;
    uint64_t index = 0;
    int r = pk_check_keys("lane", item, keys, PK_ARRAY_SIZE(keys), err);
    if (r == 0)
        r = check_string("lane", item, "fleet", &fleet, err);
    if (r == 0)
        r = check_string("lane", item, "group", &group, err);
    if (r == 0)
        r = pk_check_uint("lane", item, "index", 0, LANE_INDEX_MAX, -1, &index, err);
    PK_CLEANUP(pk_lane_free_p) struct pk_lane *lane = NULL;
    if (r == 0)
        r = pk_lane_parse(tag, fleet, group, (unsigned)index, json_object_get(item, "spec"), &lane,
                          err);
    if (r == 0)
        lane->drained = pk_json_bool_or(item, "drained", false);
    if (r == 0 && json_object_get(item, "before") != NULL)
        r = parse_before(json_object_get(item, "before"), &lane->device.before, err);
    if (r == 0 && (r = pk_node_plane_add_lane_take(plane, lane, err)) == 0)
        lane = NULL;
    return r;
}

static int parse_group(const char *tag, const json_t *item, struct pk_plane *plane,
                       struct pk_error *err)
{
    static const char *const keys[] = { "fleet", "name", "spec" };
    const char *fleet = NULL, *name = NULL;
    (void)tag;
    int r = pk_check_keys("group", item, keys, PK_ARRAY_SIZE(keys), err);
    if (r == 0)
        r = check_string("group", item, "fleet", &fleet, err);
    if (r == 0)
        r = check_string("group", item, "name", &name, err);
    PK_CLEANUP(pk_group_free_p) struct pk_group *group = NULL;
    if (r == 0)
        r = pk_group_parse(fleet, name, json_object_get(item, "spec"), &group, err);
    if (r == 0 && (r = pk_node_plane_add_group_take(plane, group, err)) == 0)
        group = NULL;
    return r;
}

static int parse_tap(const char *tag, const json_t *item, struct pk_plane *plane,
                     struct pk_error *err)
{
    static const char *const keys[] = {
        "fleet", "name", "spec", "before", "otherBefore", "leaving"
    };
    const char *fleet = NULL, *name = NULL;
    int r = pk_check_keys("tap", item, keys, PK_ARRAY_SIZE(keys), err);
    if (r == 0)
        r = check_string("tap", item, "fleet", &fleet, err);
    if (r == 0)
        r = check_string("tap", item, "name", &name, err);
    PK_CLEANUP(pk_tap_free_p) struct pk_tap *tap = NULL;
    if (r == 0)
        r = pk_tap_parse(tag, fleet, name, json_object_get(item, "spec"), &tap, err);
    if (r == 0 && json_object_get(item, "before") != NULL)
        r = parse_before(json_object_get(item, "before"), &tap->before, err);
    if (r == 0 && json_object_get(item, "otherBefore") != NULL)
        r = parse_before(json_object_get(item, "otherBefore"), &tap->other.before, err);
    if (r == 0)
        tap->leaving = pk_json_bool_or(item, "leaving", false);
    if (r == 0 && (r = pk_node_plane_add_tap_take(plane, tap, err)) == 0)
        tap = NULL;
    return r;
}

static int parse_list(const char *tag, const json_t *root, const char *key, struct pk_plane *plane,
                      int (*parse)(const char *tag, const json_t *item, struct pk_plane *plane,
                                   struct pk_error *err),
                      struct pk_error *err)
{
    const json_t *list = json_object_get(root, key), *item;
    if (!json_is_array(list))
        return pk_fail(err, PK_E_INVALID, "'%s' must be a list", key);
    size_t i;
    json_array_foreach(list, i, item)
    {
        int r = parse(tag, item, plane, err);
        if (r < 0)
            return pk_wrap(err, "%s[%zu]", key, i);
    }
    return 0;
}

static int parse_root(const char *tag, const json_t *root, struct pk_plane *plane,
                      struct pk_error *err)
{
    static const char *const keys[] = { "version", "lanes", "groups", "taps" };
    uint64_t version = 0;
    int r = pk_check_keys("the plane", root, keys, PK_ARRAY_SIZE(keys), err);
    if (r == 0)
        r = pk_check_uint("the plane", root, "version", 1, PLANE_VERSION, -1, &version, err);
    if (r == 0)
        r = parse_list(tag, root, "lanes", plane, parse_lane, err);
    if (r == 0)
        r = parse_list(tag, root, "groups", plane, parse_group, err);
    if (r == 0)
        r = parse_list(tag, root, "taps", plane, parse_tap, err);
    return r;
}

int pk_node_plane_parse(const char *tag, const char *name, const char *text, size_t len,
                        struct pk_plane *ret_plane, struct pk_error *err)
{
    PK_JSON root = NULL;
    int r = pk_json_parse(name, text, len, &root, err);
    if (r < 0)
        return r;
    struct pk_plane plane = { 0 };
    r = parse_root(tag, root, &plane, err);
    if (r < 0) {
        pk_node_plane_done(&plane);
        return pk_wrap(err, "%s", name);
    }
    *ret_plane = plane;
    return 0;
}

int pk_node_plane_load(const char *tag, const char *path, struct pk_plane *ret_plane,
                       struct pk_error *err)
{
    PK_CLEANUP(pk_free_p) char *text = NULL;
    size_t len = 0;
    if (!pk_file_exists(path)) {
        *ret_plane = (struct pk_plane){ 0 };
        return 0;
    }
    int r = pk_file_read(path, PLANE_FILE_MAX, &text, &len, err);
    if (r == 0)
        r = pk_node_plane_parse(tag, path, text, len, ret_plane, err);
    if (r < 0 && r != PK_E_NOMEM)
        /* Going on with an empty plane would take the traffic from tools that run. */
        r = pk_hint(err, "packets still flow as before; put a good copy back, or move the file "
                         "away: then 'picket serve' asks for its lanes and taps anew");
    return r;
}

/* ---- writing ---- */

static json_t *shares_to_json(const struct pk_group *group)
{
    json_t *list = json_array();
    for (size_t i = 0; list != NULL && i < group->share_count; i++)
        if (json_array_append_new(list, json_pack("{s:i,s:i}", "index", (int)group->shares[i].lane,
                                                  "weight", (int)group->shares[i].weight)) < 0) {
            json_decref(list);
            return NULL;
        }
    return list;
}

static json_t *before_to_json(const struct pk_tap_before *before)
{
    json_t *offloads = json_array();
    for (unsigned bit = 1; bit <= PK_OFFLOADS_TAP; bit <<= 1)
        if ((before->offloads & bit) != 0)
            (void)json_array_append_new(offloads, json_string(pk_offload_name(bit)));
    json_t *nic = before->nic.known ? pk_nic_before_to_json(&before->nic) : NULL;
    return json_pack("{s:i,s:b,s:b,s:o,s:o*}", "ifindex", (int)before->ifindex, "promisc",
                     before->promisc, "up", before->up, "offloads", offloads, "nic", nic);
}

static json_t *tap_spec_to_json(const struct pk_tap *tap)
{
    if (tap->kind == PK_TAP_REPLAY)
        return json_pack("{s:s,s:i}", "kind", "replay", "mtu", (int)tap->mtu);
    PK_JSON options = pk_tap_options_to_json(tap);
    PK_JSON json =
        json_pack("{s:s,s:s}", "kind", pk_node_tap_kinds[tap->kind], "interface", tap->interface);
    if (json_object_update(json, options) < 0)
        return NULL;
    return PK_TAKE(json);
}

static json_t *tap_to_json(const struct pk_tap *tap)
{
    bool tenants = json_array_size(tap->targets.tenants) > 0;
    json_t *spec = tap_spec_to_json(tap);
    if (json_object_set(spec, "groups", tap->targets.groups) < 0 ||
        (tenants && json_object_set(spec, "tenants", tap->targets.tenants) < 0)) {
        json_decref(spec);
        return NULL;
    }
    json_t *json = json_pack("{s:s,s:s,s:o}", "fleet", tap->fleet, "name", tap->name, "spec", spec);
    int bad = json == NULL;
    if (tap->leaving)
        bad |= json_object_set_new(json, "leaving", json_true());
    if (tap->before.ifindex != 0)
        bad |= json_object_set_new(json, "before", before_to_json(&tap->before));
    if (tap->other.before.ifindex != 0)
        bad |= json_object_set_new(json, "otherBefore", before_to_json(&tap->other.before));
    if (bad != 0) {
        json_decref(json);
        return NULL;
    }
    return json;
}

static json_t *canary_to_json(pk_nsec every)
{
    return json_pack("{s:I}", "everyMs", (json_int_t)(every / PK_NSEC_PER_MS));
}

json_t *pk_node_plane_to_json(const struct pk_plane *plane)
{
    json_t *lanes = json_array(), *groups = json_array(), *taps = json_array();
    int bad = 0;
    for (size_t i = 0; i < plane->lane_count; i++) {
        const struct pk_lane *lane = plane->lanes[i];
        if (lane->leaving)
            continue;
        bad |= json_array_append_new(
            lanes, json_pack("{s:s,s:s,s:i,s:{s:i,s:o*,s:s*},s:o*,s:o*}", "fleet", lane->fleet,
                             "group", lane->group, "index", (int)lane->index, "spec", "mtu",
                             (int)lane->mtu, "inline", pk_inline_lane_options(lane), "device",
                             pk_lane_has_device(lane) ? lane->device.name : NULL, "drained",
                             lane->drained ? json_true() : NULL, "before",
                             lane->device.before.ifindex != 0 ? before_to_json(&lane->device.before)
                                                              : NULL));
    }
    for (size_t i = 0; i < plane->group_count; i++) {
        const struct pk_group *group = plane->groups[i];
        bad |= json_array_append_new(
            groups,
            json_pack("{s:s,s:s,s:{s:o,s:s*,s:s*,s:o*,s:o*,s:o*,s:{s:I},s:s,s:o*}}", "fleet",
                      group->fleet, "name", group->name, "spec", "lanes", shares_to_json(group),
                      "hash", group->hash != PK_HASH_OUTER ? pk_hash_mode_name(group->hash) : NULL,
                      "tenant", group->tenant[0] != '\0' ? group->tenant : NULL, "priority",
                      group->priority != PRIORITY_INIT ? json_integer(group->priority) : NULL,
                      "shunt", pk_shunt_spec_to_json(&group->shunt), "overload",
                      pk_overload_to_json(&group->overload), "drain", "deadlineMs",
                      (json_int_t)(group->drain / PK_NSEC_PER_MS), "rebalance",
                      group->rebalance ? "auto" : "off", "canary",
                      group->canary != PK_CANARY_DEFAULT_MS * PK_NSEC_PER_MS
                          ? canary_to_json(group->canary)
                          : NULL));
    }
    for (size_t i = 0; i < plane->tap_count; i++)
        bad |= json_array_append_new(taps, tap_to_json(plane->taps[i]));
    json_t *json = json_pack("{s:i,s:o,s:o,s:o}", "version", PLANE_VERSION, "lanes", lanes,
                             "groups", groups, "taps", taps);
    if (bad != 0) {
        json_decref(json);
        return NULL;
    }
    return json;
}

int pk_node_plane_save(const struct pk_plane *plane, const char *path, struct pk_error *err)
{
    PK_JSON json = pk_node_plane_to_json(plane);
    PK_CLEANUP(pk_free_p) char *text = json == NULL ? NULL : pk_json_pretty(json);
    if (text == NULL)
        return pk_no_memory(err);
    int r = pk_file_write(path, text, strlen(text), 0600, err);
    if (r == PK_E_NOSPACE)
        (void)pk_hint(err, "nothing was changed: make room on the file system of %s and try again",
                      path);
    return r;
}
