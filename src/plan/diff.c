/* SPDX-License-Identifier: Apache-2.0 */
/*
 * desired - observed = steps. The order of execution is the order below: what is taken away from
 * the traffic first, then lanes, units, slots, taps, and last what nothing points at any more. So a
 * group's slots change after new lanes' tools are ready and before old lanes go.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/json.h"
#include "base/str.h"
#include "plan/internal.h"
#include "plan/plan.h"

/* A tool's stop and start, as the plan tells the user. An estimate: Suricata with a small ruleset
 * took 3 to 5 s on two cores. */
#define RESTART_SECONDS   5u
#define TRAFFIC_MAX_BYTES 4096u

const char *pk_step_op_name(enum pk_step_op op)
{
    static const char *const names[] = { "add", "change", "remove" };
    return names[op];
}

const char *pk_step_kind_name(enum pk_step_kind kind)
{
    static const char *const names[] = { "lane", "unit", "group", "tap" };
    return names[kind];
}

const char *pk_step_cause_name(enum pk_step_cause cause)
{
    static const char *const names[] = { "new", "changed", "gone", "fault", "stopped" };
    return names[cause];
}

struct diff {
    const struct pk_desired *desired;
    const struct pk_observed *observed;
    struct pk_plan *plan;
    size_t capacity;
    size_t restarts; /* of tools that have traffic */
    size_t drained;  /* of these, in lanes that are drained before */
};

/* "No effect", apart from NULL, which is out of memory. */
static char *none(void)
{
    return pk_strdup("");
}

/* Takes name, reason and traffic, also when it fails. */
static int add_step_take(struct diff *diff, enum pk_step_op op, enum pk_step_kind kind,
                         enum pk_step_cause cause, size_t index, char *name, char *reason,
                         char *traffic)
{
    struct pk_plan *plan = diff->plan;
    if (plan->step_count == diff->capacity && name != NULL && reason != NULL && traffic != NULL) {
        size_t capacity = diff->capacity != 0 ? 2 * diff->capacity : 16;
        struct pk_step *steps = pk_realloc_array(plan->steps, capacity, sizeof(*steps));
        if (steps != NULL) {
            plan->steps = steps;
            diff->capacity = capacity;
        }
    }
    if (name == NULL || reason == NULL || traffic == NULL || plan->step_count == diff->capacity) {
        pk_free(name);
        pk_free(reason);
        pk_free(traffic);
        return PK_E_NOMEM;
    }
    plan->steps[plan->step_count++] = (struct pk_step){
        .op = op,
        .kind = kind,
        .cause = cause,
        .index = index,
        .name = name,
        .reason = reason,
        .traffic = traffic,
    };
    return 0;
}

/* ---- looking things up ---- */

static const struct pk_observed_tap *observed_tap(const struct diff *diff, const char *name)
{
    for (size_t i = 0; i < diff->observed->tap_count; i++)
        if (strcmp(diff->observed->taps[i].name, name) == 0)
            return &diff->observed->taps[i];
    return NULL;
}

static const struct pk_observed_lane *observed_lane(const struct diff *diff, const char *group,
                                                    unsigned index)
{
    for (size_t i = 0; i < diff->observed->lane_count; i++)
        if (diff->observed->lanes[i].index == index &&
            strcmp(diff->observed->lanes[i].group, group) == 0)
            return &diff->observed->lanes[i];
    return NULL;
}

static const struct pk_observed_group *observed_group(const struct diff *diff, const char *name)
{
    for (size_t i = 0; i < diff->observed->group_count; i++)
        if (strcmp(diff->observed->groups[i].name, name) == 0)
            return &diff->observed->groups[i];
    return NULL;
}

static const struct pk_observed_unit *observed_unit(const struct diff *diff, const char *name)
{
    for (size_t i = 0; i < diff->observed->unit_count; i++)
        if (strcmp(diff->observed->units[i].name, name) == 0)
            return &diff->observed->units[i];
    return NULL;
}

static bool wants_tap(const struct diff *diff, const char *name)
{
    for (size_t i = 0; i < diff->desired->tap_count; i++)
        if (strcmp(diff->desired->taps[i].name, name) == 0)
            return true;
    return false;
}

static bool wants_lane(const struct diff *diff, const char *group, unsigned index)
{
    for (size_t i = 0; i < diff->desired->lane_count; i++)
        if (diff->desired->lanes[i].index == index &&
            strcmp(diff->desired->lanes[i].group, group) == 0)
            return true;
    return false;
}

static bool wants_unit(const struct diff *diff, const char *name)
{
    for (size_t i = 0; i < diff->desired->unit_count; i++)
        if (strcmp(diff->desired->units[i].name, name) == 0)
            return true;
    return false;
}

static unsigned desired_lanes(const struct diff *diff, const char *group)
{
    unsigned count = 0;
    for (size_t i = 0; i < diff->desired->lane_count; i++)
        if (strcmp(diff->desired->lanes[i].group, group) == 0)
            count++;
    return count;
}

static size_t tools_of_lane(const struct diff *diff, const char *group, unsigned lane)
{
    size_t count = 0;
    for (size_t i = 0; i < diff->desired->unit_count; i++)
        if (diff->desired->units[i].lane == lane &&
            strcmp(diff->desired->units[i].group, group) == 0)
            count++;
    return count;
}

static unsigned group_size(const struct pk_observed_group *group)
{
    unsigned count = 0;
    for (unsigned i = 0; i < PK_LANES_MAX; i++)
        count += group->lanes[i];
    return count;
}

/* Missing, but it was there once as it is wanted now. */
static bool was_there(const struct diff *diff, enum pk_step_kind kind, const char *name)
{
    char key[256];
    (void)snprintf(key, sizeof(key), "%s %s", pk_step_kind_name(kind), name);
    return pk_strv_contains(&diff->observed->known, key);
}

void pk_group_key(char *key, size_t size, const char *name, unsigned lanes, enum pk_group_hash hash)
{
    const char *between = hash != PK_GROUP_OUTER ? " hash " : "";
    (void)snprintf(key, size, "%s lanes %u%s%s", name, lanes, between,
                   hash != PK_GROUP_OUTER ? pk_group_hash_name(hash) : "");
}

static const struct pk_group_desired *desired_group(const struct diff *diff, const char *name)
{
    for (size_t i = 0; i < diff->desired->group_count; i++)
        if (strcmp(diff->desired->groups[i].name, name) == 0)
            return &diff->desired->groups[i];
    return NULL;
}

/* A group is known by its number of lanes and its hash too: with others it is changed, not broken.
 */
static bool group_was_there(const struct diff *diff, const char *group)
{
    char key[128];
    pk_group_key(key, sizeof(key), group, desired_lanes(diff, group),
                 desired_group(diff, group)->hash);
    return was_there(diff, PK_STEP_GROUP, key);
}

static int add_missing(struct diff *diff, enum pk_step_kind kind, size_t index, char *name,
                       const char *gone, char *traffic)
{
    bool known = name != NULL && (kind == PK_STEP_GROUP ? group_was_there(diff, name)
                                                        : was_there(diff, kind, name));
    return add_step_take(diff, PK_STEP_ADD, kind, known ? PK_CAUSE_GONE : PK_CAUSE_NEW, index, name,
                         pk_strdup(known ? gone : "new"), traffic);
}

/* ---- lanes ---- */

static bool same_device(const char *a, const char *b)
{
    return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

static const char *device_name(const char *device)
{
    return device != NULL ? device : "none";
}

/* What is to be known before an interface leaves the machine's network. */
static char *device_effect(const char *device)
{
    return device == NULL
               ? none()
               : pk_asprintf("interface %s leaves this machine's network for the lane; a "
                             "virtual one would go with the lane's namespace",
                             device);
}

static int plan_lanes(struct diff *diff)
{
    int r = 0;
    for (size_t i = 0; i < diff->desired->lane_count && r >= 0; i++) {
        const struct pk_lane_desired *want = &diff->desired->lanes[i];
        const struct pk_observed_lane *have = observed_lane(diff, want->group, want->index);
        char *name = NULL;
        if (have != NULL && have->fault[0] == '\0' && have->mtu >= want->mtu &&
            have->is_inline == want->is_inline && same_device(have->device, want->device))
            continue;
        name = pk_asprintf("%s/%u", want->group, want->index);
        if (have == NULL)
            r = add_missing(diff, PK_STEP_LANE, i, name, "lane is gone",
                            device_effect(want->device));
        else if (have->fault[0] != '\0')
            r = add_step_take(diff, PK_STEP_CHANGE, PK_STEP_LANE, PK_CAUSE_FAULT, i, name,
                              pk_strdup(have->fault), none());
        else if (!same_device(have->device, want->device))
            r = add_step_take(diff, PK_STEP_CHANGE, PK_STEP_LANE, PK_CAUSE_CHANGED, i, name,
                              pk_asprintf("device %s -> %s", device_name(have->device),
                                          device_name(want->device)),
                              pk_strdup("the lane is made anew: its packets are lost until its "
                                        "tool is back"));
        else if (have->is_inline != want->is_inline)
            r = add_step_take(diff, PK_STEP_CHANGE, PK_STEP_LANE, PK_CAUSE_CHANGED, i, name,
                              pk_strdup(want->is_inline ? "becomes inline" : "is inline no more"),
                              pk_strdup("the lane is made anew: its packets are lost until its "
                                        "tool is back"));
        else
            r = add_step_take(diff, PK_STEP_CHANGE, PK_STEP_LANE, PK_CAUSE_CHANGED, i, name,
                              pk_asprintf("mtu %u -> %u", have->mtu, want->mtu), none());
    }
    return r;
}

static int remove_lanes(struct diff *diff)
{
    int r = 0;
    for (size_t i = 0; i < diff->observed->lane_count && r >= 0; i++) {
        const struct pk_observed_lane *have = &diff->observed->lanes[i];
        if (!wants_lane(diff, have->group, have->index))
            r = add_step_take(diff, PK_STEP_REMOVE, PK_STEP_LANE, PK_CAUSE_NEW, i,
                              pk_asprintf("%s/%u", have->group, have->index),
                              pk_strdup("no longer wanted"), none());
    }
    return r;
}

/* ---- units ---- */

/* For how long the group's flows may stay where they are, in seconds; 0 = it does not drain. */
static unsigned drain_seconds(const struct diff *diff, const char *name)
{
    const struct pk_group_desired *group = desired_group(diff, name);
    const json_t *drain = group != NULL ? json_object_get(group->options, "drain") : NULL;
    return (unsigned)((pk_json_int_or(drain, "deadlineMs", PK_DRAIN_DEFAULT_MS) + 999) / 1000);
}

/* The effect of a restart, if packets reach the tool now. NULL = out of memory, "" = none. */
static char *restart_effect(struct diff *diff, const struct pk_unit *unit, bool drains)
{
    const struct pk_observed_group *group = observed_group(diff, unit->group);
    if (group == NULL || unit->lane >= PK_LANES_MAX || !group->lanes[unit->lane])
        return pk_strdup("");
    diff->restarts++;
    unsigned share = group_size(group);
    if (drains) {
        diff->drained++;
        return pk_asprintf(
            "lane %s/%u drains (%u s at most), then restarts: the other lanes take its "
            "flows, none is cut before that",
            unit->group, unit->lane, drain_seconds(diff, unit->group));
    }
    if (tools_of_lane(diff, unit->group, unit->lane) > 1)
        return pk_asprintf(
            "%s in lane %s/%u restarts: it misses its share (1/%u) of the packets for "
            "about %u s",
            unit->tool, unit->group, unit->lane, share, RESTART_SECONDS);
    return pk_asprintf(
        "lane %s/%u restarts: its share (1/%u) of the packets is lost for about %u s", unit->group,
        unit->lane, share, RESTART_SECONDS);
}

static int change_unit(struct diff *diff, size_t index, const struct pk_observed_unit *have,
                       enum pk_step_cause cause, char *reason)
{
    const struct pk_unit *unit = &diff->desired->units[index];
    /* A tool that does not run loses nothing more by being replaced. */
    const struct pk_observed_group *group = observed_group(diff, unit->group);
    bool drains = cause == PK_CAUSE_CHANGED && have->running && group != NULL &&
                  unit->lane < PK_LANES_MAX && group->lanes[unit->lane] && group_size(group) > 1 &&
                  drain_seconds(diff, unit->group) > 0;
    char *traffic = have->running ? restart_effect(diff, unit, drains) : none();
    int r = add_step_take(diff, PK_STEP_CHANGE, PK_STEP_UNIT, cause, index,
                          pk_asprintf("%s/%u/%s", unit->group, unit->lane, unit->tool), reason,
                          traffic);
    if (r >= 0)
        diff->plan->steps[diff->plan->step_count - 1].drains = drains;
    return r;
}

static int plan_unit(struct diff *diff, size_t index)
{
    const struct pk_unit *unit = &diff->desired->units[index];
    const struct pk_observed_unit *have = observed_unit(diff, unit->name);
    if (have == NULL)
        return add_missing(diff, PK_STEP_UNIT, index,
                           pk_asprintf("%s/%u/%s", unit->group, unit->lane, unit->tool),
                           "container is gone", none());
    if (strcmp(have->hash, unit->hash) != 0) {
        PK_JSON to = pk_unit_to_json(unit);
        return change_unit(diff, index, have, PK_CAUSE_CHANGED,
                           to != NULL ? pk_unit_changes(have->unit, to) : NULL);
    }
    if (have->fault[0] != '\0')
        return change_unit(diff, index, have, PK_CAUSE_FAULT, pk_strdup(have->fault));
    /* A container keeps the namespace that it joined, even when a new one has the same name. */
    const struct pk_observed_lane *lane = observed_lane(diff, unit->group, unit->lane);
    if (lane == NULL || lane->fault[0] != '\0')
        return change_unit(diff, index, have, PK_CAUSE_FAULT, pk_strdup("its lane is made anew"));
    if (!have->running)
        return change_unit(diff, index, have, PK_CAUSE_STOPPED,
                           have->stopped[0] != '\0'
                               ? pk_asprintf("container does not run (%s)", have->stopped)
                               : pk_strdup("container does not run"));
    return 0;
}

static int plan_units(struct diff *diff)
{
    int r = 0;
    for (size_t i = 0; i < diff->desired->unit_count && r >= 0; i++)
        r = plan_unit(diff, i);
    return r;
}

static int remove_units(struct diff *diff)
{
    int r = 0;
    for (size_t i = 0; i < diff->observed->unit_count && r >= 0; i++) {
        const struct pk_observed_unit *have = &diff->observed->units[i];
        if (wants_unit(diff, have->name))
            continue;
        bool seen = have->running && wants_lane(diff, have->group, have->lane);
        char *traffic = seen ? pk_asprintf("%s no longer sees the packets of lane %s/%u",
                                           have->tool, have->group, have->lane)
                             : none();
        r = add_step_take(diff, PK_STEP_REMOVE, PK_STEP_UNIT, PK_CAUSE_NEW, i,
                          pk_asprintf("%s/%u/%s", have->group, have->lane, have->tool),
                          pk_strdup("no longer wanted"), traffic);
    }
    return r;
}

/* ---- groups ---- */

static bool same_lanes(const struct diff *diff, const struct pk_observed_group *group)
{
    for (unsigned i = 0; i < PK_LANES_MAX; i++)
        if (group->lanes[i] != wants_lane(diff, group->name, i))
            return false;
    return true;
}

/* How a change of a group's lanes moves flows: Maglev moves little more than it must. */
static char *slots_effect(unsigned before, unsigned after, unsigned drain)
{
    unsigned moved = before > after ? before - after : after - before;
    unsigned of = PK_MAX(before, after);
    if (before == 0 || moved == 0)
        return pk_strdup("");
    if (drain > 0)
        return pk_asprintf("about %u/%u of the slots move: new flows at once, known ones when they "
                           "end, or after %u s",
                           moved, of, drain);
    return pk_asprintf(
        "about %u/%u of the flows move to other lanes, whose tools see them from the "
        "middle",
        moved, of);
}

static bool same_option(const json_t *want, const json_t *have, const char *key)
{
    const json_t *a = json_object_get(want, key), *b = json_object_get(have, key);
    return a == b || json_equal(a, b) != 0;
}

/* What of the settings that move no flow is another, or "". */
static char *option_change(const struct pk_group_desired *want,
                           const struct pk_observed_group *have)
{
    static const char *const options[] = { "shunt", "overload", "drain", "rebalance", "canary" };
    for (size_t i = 0; i < PK_ARRAY_SIZE(options); i++)
        if (!same_option(want->options, have->options, options[i]))
            return pk_asprintf("settings of %s changed", options[i]);
    return pk_strdup("");
}

static char *tenant_change(const struct pk_group_desired *want, const char *tenant,
                           unsigned priority)
{
    if (strcmp(want->tenant, tenant) == 0)
        return pk_asprintf("priority %u -> %u", priority, want->priority);
    return pk_asprintf("tenant %s -> %s", tenant[0] != '\0' ? tenant : "none",
                       want->tenant[0] != '\0' ? want->tenant : "none");
}

static int plan_groups(struct diff *diff)
{
    int r = 0;
    for (size_t i = 0; i < diff->desired->group_count && r >= 0; i++) {
        const char *name = diff->desired->groups[i].name;
        const struct pk_observed_group *have = observed_group(diff, name);
        if (have == NULL) {
            r = add_missing(diff, PK_STEP_GROUP, i, pk_strdup(name), "slot table is gone", none());
            continue;
        }
        const char *hash = pk_group_hash_name(diff->desired->groups[i].hash);
        const char *had = have->hash != NULL ? have->hash : "outer";
        if (strcmp(hash, had) != 0) {
            bool known = group_was_there(diff, name);
            r = add_step_take(diff, PK_STEP_CHANGE, PK_STEP_GROUP,
                              known ? PK_CAUSE_FAULT : PK_CAUSE_CHANGED, i, pk_strdup(name),
                              pk_asprintf("hash %s -> %s", had, hash),
                              pk_strdup("flows move to other lanes, whose tools see them from the "
                                        "middle"));
            continue;
        }
        const struct pk_group_desired *want = &diff->desired->groups[i];
        const char *tenant = have->tenant != NULL ? have->tenant : "";
        if (same_lanes(diff, have)) {
            /* Where packets go is the taps' matter; this is what is shed first. */
            if (strcmp(want->tenant, tenant) != 0 || want->priority != have->priority)
                r = add_step_take(diff, PK_STEP_CHANGE, PK_STEP_GROUP, PK_CAUSE_CHANGED, i,
                                  pk_strdup(name), tenant_change(want, tenant, have->priority),
                                  none());
            PK_CLEANUP(pk_free_p) char *change = option_change(want, have);
            if (change == NULL)
                return PK_E_NOMEM;
            if (r >= 0 && change[0] != '\0' && strcmp(want->tenant, tenant) == 0 &&
                want->priority == have->priority)
                r = add_step_take(diff, PK_STEP_CHANGE, PK_STEP_GROUP, PK_CAUSE_CHANGED, i,
                                  pk_strdup(name), PK_TAKE(change), none());
            continue;
        }
        unsigned before = group_size(have);
        unsigned after = desired_lanes(diff, name);
        if (before == after || group_was_there(diff, name))
            r = add_step_take(diff, PK_STEP_CHANGE, PK_STEP_GROUP, PK_CAUSE_FAULT, i,
                              pk_strdup(name),
                              pk_asprintf("%u of %u lanes have slots", before, after), none());
        else
            r = add_step_take(diff, PK_STEP_CHANGE, PK_STEP_GROUP, PK_CAUSE_CHANGED, i,
                              pk_strdup(name), pk_asprintf("lanes %u -> %u", before, after),
                              slots_effect(before, after, drain_seconds(diff, name)));
    }
    return r;
}

static int remove_groups(struct diff *diff)
{
    int r = 0;
    for (size_t i = 0; i < diff->observed->group_count && r >= 0; i++) {
        const struct pk_observed_group *have = &diff->observed->groups[i];
        if (desired_group(diff, have->name) == NULL)
            r = add_step_take(diff, PK_STEP_REMOVE, PK_STEP_GROUP, PK_CAUSE_NEW, i,
                              pk_strdup(have->name), pk_strdup("no longer wanted"), none());
    }
    return r;
}

/* ---- taps ---- */

static char *tap_change(const struct pk_tap_desired *want, const struct pk_observed_tap *have)
{
    if (want->kind != have->kind)
        return pk_asprintf("%s -> %s", pk_tap_kind_name(have->kind), pk_tap_kind_name(want->kind));
    if (pk_tap_has_interface(want->kind) && strcmp(want->interface, have->interface) != 0)
        return pk_asprintf("interface %s -> %s", have->interface, want->interface);
    PK_CLEANUP(pk_free_p)
    char *targets = pk_targets_changes(have->groups, want->groups, have->tenants, want->tenants);
    if (targets == NULL || targets[0] != '\0')
        return PK_TAKE(targets);
    /* An interface has the MTU that it has. */
    if (want->kind == PK_TAP_REPLAY && want->mtu != 0 && want->mtu != have->mtu)
        return pk_asprintf("mtu %u -> %u", have->mtu, want->mtu);
    static const char *const options[] = { "tunnel", "inline", "nic" };
    for (size_t i = 0; i < PK_ARRAY_SIZE(options); i++)
        if (!same_option(want->options, have->options, options[i]))
            return pk_asprintf("settings of %s changed", options[i]);
    return pk_strdup("");
}

static char *targets_effect(const struct pk_tap_desired *want, const struct pk_observed_tap *have)
{
    PK_CLEANUP(pk_free_p)
    char *effect = pk_targets_effect(have->groups, want->groups, have->tenants, want->tenants);
    if (effect == NULL || effect[0] == '\0')
        return PK_TAKE(effect);
    return pk_asprintf("tap %s: %s", want->name, effect);
}

/* ---- the set-up of a tap's interface ---- */

static int add_setting(json_t *list, const char *setting, const char *from, const char *to,
                       const char *why)
{
    return json_array_append_new(list,
                                 json_pack("{s:s,s:s,s:s,s:s*}", "setting", setting, "from", from,
                                           "to", to, "why", why[0] != '\0' ? why : NULL));
}

/* Tells, with the step that was added last, what it changes on the interface. */
static int tell_settings(struct diff *diff, const struct pk_tap_desired *want)
{
    const struct pk_observed_nic *nic = NULL;
    for (size_t i = 0; i < diff->observed->nic_count && nic == NULL; i++)
        if (strcmp(diff->observed->nics[i].interface, want->interface) == 0)
            nic = &diff->observed->nics[i];
    struct pk_nic_spec spec;
    if (nic == NULL || !pk_tap_has_interface(want->kind) ||
        pk_nic_spec_parse(json_object_get(want->options, "nic"), &spec, NULL) < 0)
        return 0;
    spec = pk_nic_resolve(&spec, want->kind == PK_TAP_TUNNEL);
    struct pk_nic_change changes[PK_NIC_SETTINGS];
    size_t count = pk_nic_changes(&spec, &nic->facts, changes);
    PK_JSON list = json_array();
    int bad = 0;
    for (size_t i = 0; i < count; i++)
        bad |= add_setting(list, pk_nic_setting_name(changes[i].setting), changes[i].from,
                           changes[i].to, changes[i].why_not);
    if (bad == 0 && count > 0)
        diff->plan->steps[diff->plan->step_count - 1].settings = json_incref(list);
    return bad != 0 ? PK_E_NOMEM : 0;
}

/* What goes back to how it was. */
static int tell_restored(struct diff *diff, const struct pk_observed_tap *have)
{
    PK_JSON list = json_array();
    size_t i;
    json_t *item;
    int bad = 0;
    json_array_foreach(have->set, i, item)
    {
        bad |=
            add_setting(list, pk_json_string_or(item, "setting", ""),
                        pk_json_string_or(item, "to", ""), pk_json_string_or(item, "from", ""), "");
    }
    if (bad == 0 && json_array_size(list) > 0)
        diff->plan->steps[diff->plan->step_count - 1].settings = json_incref(list);
    return bad != 0 ? PK_E_NOMEM : 0;
}

static const char *traffic_words(enum pk_tap_kind kind)
{
    return kind == PK_TAP_TUNNEL ? "what mirrors send to" : "traffic on";
}

static int change_tap(struct diff *diff, size_t index, const struct pk_observed_tap *have,
                      char *reason)
{
    const struct pk_tap_desired *want = &diff->desired->taps[index];
    bool moved = pk_tap_has_interface(want->kind) && pk_tap_has_interface(have->kind) &&
                 strcmp(want->interface, have->interface) != 0;
    char *traffic = NULL;
    if (moved)
        traffic = pk_asprintf("tap %s: traffic on %s is no longer taken, traffic on %s is from now",
                              want->name, have->interface, want->interface);
    else
        traffic = targets_effect(want, have);
    return add_step_take(diff, PK_STEP_CHANGE, PK_STEP_TAP, PK_CAUSE_CHANGED, index,
                         pk_strdup(want->name), reason, traffic);
}

static int plan_taps(struct diff *diff)
{
    int r = 0;
    for (size_t i = 0; i < diff->desired->tap_count && r >= 0; i++) {
        const struct pk_tap_desired *want = &diff->desired->taps[i];
        const struct pk_observed_tap *have = observed_tap(diff, want->name);
        if (have == NULL) {
            bool again = was_there(diff, PK_STEP_TAP, want->name);
            char *traffic = pk_tap_has_interface(want->kind)
                                ? pk_asprintf("%s%s %s is taken %s",
                                              again ? "" : "new tap: ", traffic_words(want->kind),
                                              want->interface, again ? "again" : "from now")
                                : none();
            r = add_missing(diff, PK_STEP_TAP, i, pk_strdup(want->name), "tap is gone", traffic);
            if (r >= 0)
                r = tell_settings(diff, want);
            continue;
        }
        char *reason = tap_change(want, have);
        if (reason == NULL)
            return PK_E_NOMEM;
        if (reason[0] != '\0') {
            r = change_tap(diff, i, have, reason);
            if (r >= 0)
                r = tell_settings(diff, want);
            continue;
        }
        pk_free(reason);
        if (have->fault[0] != '\0')
            r = add_step_take(diff, PK_STEP_CHANGE, PK_STEP_TAP, PK_CAUSE_FAULT, i,
                              pk_strdup(want->name), pk_strdup(have->fault),
                              pk_tap_has_interface(want->kind)
                                  ? pk_asprintf("traffic on %s is taken again", want->interface)
                                  : none());
    }
    return r;
}

static int remove_taps(struct diff *diff)
{
    int r = 0;
    for (size_t i = 0; i < diff->observed->tap_count && r >= 0; i++) {
        const struct pk_observed_tap *have = &diff->observed->taps[i];
        if (wants_tap(diff, have->name))
            continue;
        char *traffic = pk_tap_has_interface(have->kind)
                            ? pk_asprintf("%s %s is no longer taken", traffic_words(have->kind),
                                          have->interface)
                            : pk_asprintf("packets of tap %s are no longer taken", have->name);
        r = add_step_take(diff, PK_STEP_REMOVE, PK_STEP_TAP, PK_CAUSE_NEW, i, pk_strdup(have->name),
                          pk_strdup("no longer wanted"), traffic);
        if (r >= 0)
            r = tell_restored(diff, have);
    }
    return r;
}

/* ---- the whole ---- */

/* One sentence for all steps: restarts are summed up, the rest is listed. */
static char *sum_traffic(const struct diff *diff)
{
    PK_CLEANUP(pk_buf_done) struct pk_buf out = PK_BUF_INIT(TRAFFIC_MAX_BYTES);
    const struct pk_plan *plan = diff->plan;
    if (diff->restarts > 1 && diff->drained == diff->restarts)
        (void)pk_buf_printf(
            &out,
            "%zu tools restart one after another, each when its lane has drained: no "
            "flow is cut before its group's deadline",
            diff->restarts);
    else if (diff->restarts > 1)
        (void)pk_buf_printf(
            &out,
            "%zu tools restart one after another: each misses its lane's share of the "
            "packets for about %u s",
            diff->restarts, RESTART_SECONDS);
    size_t more = 0;
    for (size_t i = 0; i < plan->step_count; i++) {
        const struct pk_step *step = &plan->steps[i];
        bool restart = step->kind == PK_STEP_UNIT && step->op == PK_STEP_CHANGE;
        if (step->traffic[0] == '\0' || (restart && diff->restarts > 1))
            continue;
        if (out.len + strlen(step->traffic) + 64 > TRAFFIC_MAX_BYTES)
            more++;
        else
            (void)pk_buf_printf(&out, "%s%s", out.len > 0 ? "; " : "", step->traffic);
    }
    if (more > 0)
        (void)pk_buf_printf(&out, "; and %zu more", more);
    return out.len == 0 && !out.failed ? pk_strdup("none") : pk_buf_take(&out);
}

static json_t *steps_to_json(const struct pk_plan *plan)
{
    PK_JSON list = json_array();
    for (size_t i = 0; i < plan->step_count && list != NULL; i++) {
        const struct pk_step *step = &plan->steps[i];
        if (json_array_append_new(
                list, json_pack("{s:s,s:s,s:s,s:s,s:s,s:s,s:O*}", "op", pk_step_op_name(step->op),
                                "kind", pk_step_kind_name(step->kind), "name", step->name, "cause",
                                pk_step_cause_name(step->cause), "reason", step->reason, "traffic",
                                step->traffic, "settings", step->settings)) < 0)
            return NULL;
    }
    return PK_TAKE(list);
}

json_t *pk_plan_to_json(const struct pk_plan *plan)
{
    size_t counts[3] = { 0 };
    for (size_t i = 0; i < plan->step_count; i++)
        counts[plan->steps[i].op]++;
    return json_pack("{s:s,s:s,s:s,s:s,s:s,s:{s:I,s:I,s:I},s:o,s:s,s:s}", "apiVersion",
                     PK_API_VERSION, "kind", "Plan", "id", plan->id, "fleet", plan->fleet,
                     "traffic", plan->traffic, "summary", "add", (json_int_t)counts[PK_STEP_ADD],
                     "change", (json_int_t)counts[PK_STEP_CHANGE], "remove",
                     (json_int_t)counts[PK_STEP_REMOVE], "steps", steps_to_json(plan),
                     "observedHash", plan->observed_hash, "desiredHash", plan->desired_hash);
}

int pk_plan_make(const struct pk_desired *desired, const struct pk_observed *observed,
                 struct pk_plan **ret_plan, struct pk_error *err)
{
    PK_CLEANUP(pk_plan_free_p) struct pk_plan *plan = pk_zalloc(sizeof(*plan));
    if (plan == NULL)
        return pk_no_memory(err);
    int r = pk_observed_hash(observed, plan->observed_hash, err);
    if (r >= 0)
        r = pk_desired_hash(desired, plan->desired_hash, err);
    if (r < 0)
        return r;

    struct diff diff = { .desired = desired, .observed = observed, .plan = plan };
    int (*const passes[])(
        struct diff *) = { remove_taps, plan_lanes,    plan_units,   plan_groups,
                           plan_taps,   remove_groups, remove_units, remove_lanes };
    for (size_t i = 0; i < PK_ARRAY_SIZE(passes) && r >= 0; i++)
        r = passes[i](&diff);
    if (r >= 0) {
        plan->fleet = pk_strdup(desired->fleet);
        plan->traffic = sum_traffic(&diff);
    }
    if (r < 0 || plan->fleet == NULL || plan->traffic == NULL)
        return pk_no_memory(err);

    PK_JSON content = pk_plan_to_json(plan);
    char hash[65];
    r = pk_json_hash(content, hash, err);
    if (r < 0)
        return r;
    memcpy(plan->id, hash, sizeof(plan->id) - 1);
    *ret_plan = PK_TAKE(plan);
    return 0;
}

void pk_plan_free(struct pk_plan *plan)
{
    if (plan == NULL)
        return;
    pk_free(plan->fleet);
    pk_free(plan->traffic);
    for (size_t i = 0; i < plan->step_count; i++) {
        pk_free(plan->steps[i].name);
        pk_free(plan->steps[i].reason);
        pk_free(plan->steps[i].traffic);
        json_decref(plan->steps[i].settings);
    }
    pk_free(plan->steps);
    pk_free(plan);
}
