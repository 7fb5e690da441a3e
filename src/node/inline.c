/* SPDX-License-Identifier: Apache-2.0 */
/* Inline lanes and taps: a tool between two interfaces (broker/inline.h). */
#include <net/if.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "base/log.h"
#include "base/str.h"
#include "base/time.h"
#include "node/agent.h"
#include "node/probe.h"

/* Several in the shortest time that a tool may take to answer. */
#define PROBE_PERIOD_MAX (50 * PK_NSEC_PER_MS)
#define PROBES_TO_FAIL   4
/* So many must have come back each way before a tool gets packets. */
#define PROBES_TO_TRUST 2u
#define FAIL_AFTER_MIN  50u /* ms; several ticks of the kernel's coarse clock */
#define FAIL_AFTER_MAX  60000u
#define FAIL_AFTER_INIT 200u

/* ---- lanes ---- */

int pk_inline_lane_parse(const json_t *json, struct pk_lane *lane, struct pk_error *err)
{
    static const char *const keys[] = { "interfaces" };
    lane->is_inline = json != NULL && !json_is_false(json);
    if (json == NULL || json_is_boolean(json))
        return 0;
    int r = pk_check_keys("lane: inline", json, keys, PK_ARRAY_SIZE(keys), err);
    const json_t *list = json_object_get(json, "interfaces");
    if (r == 0 && json_array_size(list) != PK_SIDES)
        r = pk_fail(err, PK_E_INVALID, "lane: inline: 'interfaces' must be a list of two");
    for (size_t i = 0; r == 0 && i < PK_SIDES; i++) {
        const json_t *item = json_array_get(list, i);
        const char *name = json_is_string(item) ? json_string_value(item) : "";
        if (!pk_node_is_interface_name(name))
            r = pk_fail(err, PK_E_INVALID, "lane: inline: '%.40s' is no name of an interface",
                        name);
        else
            (void)snprintf(lane->fits[i], sizeof(lane->fits[i]), "%s", name);
    }
    return r;
}

json_t *pk_inline_lane_options(const struct pk_lane *lane)
{
    if (lane->fits[0][0] != '\0')
        return json_pack("{s:[s,s]}", "interfaces", lane->fits[0], lane->fits[1]);
    return lane->is_inline ? json_true() : NULL;
}

unsigned pk_inline_lane_mtu(const struct pk_agent *agent, const struct pk_lane *lane)
{
    unsigned mtu = 0;
    for (size_t i = 0; i < PK_SIDES; i++) {
        struct pk_link link;
        if (lane->fits[i][0] != '\0' && pk_link_get(agent->nl, lane->fits[i], &link, NULL) == 0)
            mtu = PK_MAX(mtu, PK_MIN(link.mtu, PK_NODE_MTU_MAX));
    }
    return mtu;
}

int pk_inline_lane_attach(struct pk_agent *agent, struct pk_lane *lane, struct pk_error *err)
{
    const struct pk_broker_inline_lane ends = {
        .netns_fd = lane->netns.fd,
        .outer = { lane->outer_ifindex, lane->second.outer_ifindex },
        .inner = { "tap0", "tap1" },
    };
    return pk_broker_inline_lane_add(agent->broker, lane->key, &ends, err);
}

void pk_inline_lane_mark(struct pk_agent *agent, struct pk_lane *lane)
{
    struct pk_broker_inline_health health = { 0 };
    if (!lane->is_inline)
        return;
    (void)pk_broker_inline_lane_health(agent->broker, lane->key, &health, NULL);
    memcpy(lane->second.answered, health.answered, sizeof(health.answered));
}

int pk_inline_lane_answers(struct pk_agent *agent, struct pk_lane *lane, bool *ret_answers,
                           struct pk_error *err)
{
    struct pk_broker_inline_health health = { 0 };
    int r = pk_broker_inline_lane_health(agent->broker, lane->key, &health, err);
    if (r < 0)
        return r;
    *ret_answers = true;
    for (unsigned side = 0; side < PK_SIDES; side++)
        if (health.answered[side] < lane->second.answered[side] + PROBES_TO_TRUST)
            *ret_answers = false;
    return 0;
}

/* The inline tap that the lane works for, or NULL. */
static const struct pk_tap *tap_of(const struct pk_agent *agent, const struct pk_lane *lane)
{
    for (size_t i = 0; i < agent->plane.tap_count; i++) {
        const struct pk_tap *tap = agent->plane.taps[i];
        if (tap->kind == PK_TAP_INLINE && strcmp(tap->fleet, lane->fleet) == 0 &&
            pk_targets_have(&tap->targets, lane->group))
            return tap;
    }
    return NULL;
}

void pk_inline_refresh_probes(struct pk_agent *agent)
{
    struct pk_probe_target targets[PK_NODE_LANES_MAX];
    size_t count = 0;
    pk_nsec period = PROBE_PERIOD_MAX;
    for (size_t i = 0; i < agent->plane.lane_count; i++) {
        const struct pk_lane *lane = agent->plane.lanes[i];
        if (!lane->is_inline || !lane->working)
            continue;
        targets[count++] = (struct pk_probe_target){ .outer = { lane->outer_ifindex,
                                                                lane->second.outer_ifindex } };
        const struct pk_tap *tap = tap_of(agent, lane);
        if (tap != NULL)
            period = PK_MIN(period, tap->other.fail_after_ms * PK_NSEC_PER_MS / PROBES_TO_FAIL);
    }
    struct pk_error err = { 0 };
    if (pk_prober_set(agent->prober, targets, count, period, &err) < 0)
        pk_log_error(PK_LOG_WARN, "node", &err, "cannot send probes");
}

void pk_inline_lane_watch(struct pk_agent *agent, struct pk_lane *lane)
{
    struct pk_broker_inline_health health = { 0 };
    struct pk_error err = { 0 };
    if (pk_broker_inline_lane_health(agent->broker, lane->key, &health, &err) < 0)
        return; /* the next sweep repairs it */
    bool through = lane->working && lane->reader && health.answers;
    if (lane->second.since != 0 && through == lane->second.through)
        return;
    const struct pk_tap *tap = tap_of(agent, lane);
    bool told = tap != NULL && (lane->second.since != 0 || !through);
    lane->second.through = through;
    /* A tool that died while there was no agent has been dead since then. */
    lane->second.since = pk_time_now() - (lane->reader && !health.answers ? health.since : 0);
    if (told)
        pk_log(PK_LOG_INFO, "node", "lane %s: %s%s", lane->key,
               through             ? "packets go through its tool"
               : tap->other.closed ? "packets are dropped"
                                   : "packets go past its tool",
               through         ? ""
               : !lane->reader ? ": it does not read"
                               : ": it does not answer");
}

/* ---- taps ---- */

int pk_inline_tap_parse(const json_t *body, struct pk_tap_inline *ret_inline, struct pk_error *err)
{
    static const char *const keys[] = { "interface", "failure", "failAfterMs" };
    struct pk_tap_inline parsed = { 0 };
    uint64_t after = 0;
    int r = pk_check_keys("inline tap: inline", body, keys, PK_ARRAY_SIZE(keys), err);
    if (r == 0)
        r = pk_check_uint("inline tap", body, "failAfterMs", FAIL_AFTER_MIN, FAIL_AFTER_MAX,
                          FAIL_AFTER_INIT, &after, err);
    if (r < 0)
        return r;
    const char *interface = pk_json_string_or(body, "interface", "");
    if (!pk_node_is_interface_name(interface)) {
        (void)pk_fail(err, PK_E_INVALID, "inline tap: '%.40s' is no name of an interface",
                      interface);
        return pk_hint(err, "'ip link' and 'picket doctor' list this machine's interfaces");
    }
    const json_t *failure = json_object_get(body, "failure");
    const char *word = failure == NULL ? "open" : json_string_value(failure);
    if (word == NULL || (strcmp(word, "open") != 0 && strcmp(word, "closed") != 0)) {
        (void)pk_fail(err, PK_E_INVALID, "inline tap: 'failure' is neither open nor closed");
        return pk_hint(err, "write \"open\" to let packets past a tool that failed, \"closed\" to "
                            "drop them");
    }
    parsed.closed = strcmp(word, "closed") == 0;
    parsed.fail_after_ms = (unsigned)after;
    (void)snprintf(parsed.interface, sizeof(parsed.interface), "%s", interface);
    *ret_inline = parsed;
    return 0;
}

json_t *pk_inline_tap_options(const struct pk_tap *tap)
{
    return json_pack("{s:s,s:s,s:i}", "interface", tap->other.interface, "failure",
                     tap->other.closed ? "closed" : "open", "failAfterMs",
                     (int)tap->other.fail_after_ms);
}

int pk_inline_tap_check(const struct pk_tap *tap, struct pk_error *err)
{
    if (strcmp(tap->interface, tap->other.interface) == 0) {
        (void)pk_fail(err, PK_E_INVALID, "inline tap: both sides are the interface %s",
                      tap->interface);
        return pk_hint(err, "name the two interfaces that the traffic comes in at and goes out by");
    }
    if (tap->targets.target_count != 1 || tap->targets.target_list[0].tenant != NULL) {
        (void)pk_fail(err, PK_E_INVALID, "inline tap: its packets go through one group");
        return pk_hint(err, "name one group; others can read a mirror of the traffic");
    }
    if (tap->targets.tenant_count != 0) {
        (void)pk_fail(err, PK_E_INVALID, "inline tap: it has tenants");
        return pk_hint(err, "leave 'tenants' empty: all packets go through one group");
    }
    if (json_object_get(json_array_get(tap->targets.groups, 0), "filter") != NULL) {
        (void)pk_fail(err, PK_E_INVALID, "inline tap: its group has a filter");
        return pk_hint(err, "remove it: what no rule of the tool's names goes through anyway");
    }
    return 0;
}

static int check_lanes(const struct pk_agent *agent, const struct pk_tap *tap, struct pk_error *err)
{
    for (size_t i = 0; i < agent->plane.lane_count; i++) {
        const struct pk_lane *lane = agent->plane.lanes[i];
        if (lane->is_inline || strcmp(lane->fleet, tap->fleet) != 0 ||
            !pk_targets_have(&tap->targets, lane->group))
            continue;
        (void)pk_fail(err, PK_E_CONFLICT, "lane %s has no way back", lane->key);
        return pk_hint(err, "lanes of an inline tap are made with \"inline\":true");
    }
    return 0;
}

/* Packets that XDP sends where it cannot vanish without a trace. Looked at each time: of a veth it
 * depends on the other end. */
static int check_can_send(struct pk_tap *tap, const struct pk_link *link, struct pk_error *err)
{
    enum pk_redirect can = pk_link_redirect(link->ifindex);
    if (can == PK_REDIRECT_NONE && link->is_veth) {
        (void)pk_fail(err, PK_E_UNSUPPORTED,
                      "%s takes no packets: the other end of the veth has "
                      "no NAPI",
                      link->name);
        return pk_hint(err, "switch it on there: 'ethtool -K IF gro on' while the link is up");
    }
    if (can == PK_REDIRECT_NONE && tap->attached) {
        (void)pk_fail(err, PK_E_UNSUPPORTED, "the driver of %s cannot send packets for XDP",
                      link->name);
        return pk_hint(err, "use an interface whose driver has XDP_REDIRECT as a target "
                            "(ndo_xdp_xmit)");
    }
    /* A kernel that does not tell (before 6.3) cannot either. */
    if ((can == PK_REDIRECT_SMALL || can == PK_REDIRECT_UNKNOWN) &&
        link->mtu > PK_NODE_MTU_ONE_PAGE)
        (void)snprintf(tap->detail, sizeof(tap->detail),
                       "%s cannot send packets above %u bytes for XDP", link->name,
                       PK_NODE_MTU_ONE_PAGE);
    return 0;
}

int pk_inline_tap_ensure(struct pk_agent *agent, struct pk_tap *tap, struct pk_error *err)
{
    struct pk_link a, b;
    int r = check_lanes(agent, tap, err);
    if (r == 0)
        r = pk_tap_take_interface(agent, tap, tap->interface, &tap->before, &a, err);
    if (r == 0)
        r = pk_tap_take_interface(agent, tap, tap->other.interface, &tap->other.before, &b, err);
    if (r < 0)
        return r;
    r = check_can_send(tap, &a, err);
    if (r == 0)
        r = check_can_send(tap, &b, err);
    if (r < 0)
        return r;
    tap->live_mtu = PK_MAX(a.mtu, b.mtu);
    if (a.mtu != b.mtu)
        (void)snprintf(tap->detail, sizeof(tap->detail),
                       "%s has MTU %u, %s %u: larger packets do not get across", a.name, a.mtu,
                       b.name, b.mtu);
    pk_lanes_follow(agent, tap);
    const unsigned ifindex[PK_SIDES] = { a.ifindex, b.ifindex };
    if (!tap->attached || tap->ifindex != a.ifindex || tap->other.ifindex != b.ifindex ||
        !pk_broker_inline_intact(agent->broker, tap->key, ifindex)) {
        const struct pk_broker_inline_config config = {
            .ifindex = { a.ifindex, b.ifindex },
            .group_key = tap->targets.target_list[0].group_key,
            .fail_after = tap->other.fail_after_ms * (uint64_t)PK_NSEC_PER_MS,
            .closed = tap->other.closed,
        };
        r = pk_broker_inline_attach(agent->broker, tap->key, &config, err);
        if (r < 0)
            return r;
        tap->attached = true;
    }
    tap->mode = PK_XDP_NATIVE;
    tap->ifindex = a.ifindex;
    tap->other.ifindex = b.ifindex;
    return 0;
}

int pk_inline_tap_remove(struct pk_agent *agent, struct pk_tap *tap, struct pk_error *err)
{
    int first = pk_broker_inline_detach(agent->broker, tap->key, err);
    tap->detached = first == 0;
    int r = pk_tap_restore_interface(agent, tap->interface, &tap->before, first < 0 ? NULL : err);
    first = first < 0 ? first : r;
    r = pk_tap_restore_interface(agent, tap->other.interface, &tap->other.before,
                                 first < 0 ? NULL : err);
    first = first < 0 ? first : r;
    tap->attached = false;
    tap->state = PK_TAP_DETACHED;
    return first;
}

/* ---- what is told of them ---- */

static json_int_t began_of(const json_t *counters, const char *key)
{
    size_t i;
    const json_t *item;
    json_array_foreach(json_object_get(counters, "inline"), i, item)
    {
        if (pk_str_equal(json_string_value(json_object_get(item, "key")), key))
            return json_integer_value(json_object_get(item, "began"));
    }
    return 0;
}

static json_t *directions_of(const json_t *counters, const char *list, const char *key)
{
    size_t i;
    const json_t *item;
    json_array_foreach(json_object_get(counters, list), i, item)
    {
        if (pk_str_equal(json_string_value(json_object_get(item, "key")), key))
            return json_object_get(item, "directions");
    }
    return NULL;
}

static json_int_t number(const json_t *object, const char *key)
{
    return json_integer_value(json_object_get(object, key));
}

static json_t *state_json(const char *state, pk_nsec since)
{
    char when[40] = "";
    if (since != 0)
        (void)pk_time_format(since, 3, when, sizeof(when));
    return json_pack("{s:s,s:s}", "state", state, "since", when);
}

json_t *pk_inline_lane_status(const struct pk_lane *lane, const json_t *counters)
{
    json_t *json = state_json(lane->second.through ? "inline" : "bypassed", lane->second.since);
    json_t *directions = directions_of(counters, "inlineLanes", lane->key);
    if (directions != NULL && json_object_set(json, "directions", directions) < 0) {
        json_decref(json);
        return NULL;
    }
    return json;
}

/* One direction: what the tap counts, and of its lanes what became of what they were sent. */
static json_t *direction(const struct pk_agent *agent, const struct pk_tap *tap,
                         const json_t *counters, unsigned side)
{
    static const char *const of_lanes[] = { "ringDropped",   "unread", "toolDropped", "returned",
                                            "returnedBytes", "probes", "answered" };
    const char *const ends[] = { tap->interface, tap->other.interface };
    json_t *json = json_pack("{s:s,s:s}", "from", ends[side], "to", ends[!side]);
    const json_t *own = json_array_get(directions_of(counters, "inline", tap->key), side);
    int bad = json_object_update(json, (json_t *)(uintptr_t)own);
    json_int_t not_sent = number(own, "notSent");
    for (size_t i = 0; i < agent->plane.lane_count; i++) {
        const struct pk_lane *lane = agent->plane.lanes[i];
        if (!lane->is_inline || tap_of(agent, lane) != tap)
            continue;
        const json_t *of = json_array_get(directions_of(counters, "inlineLanes", lane->key), side);
        for (size_t k = 0; k < PK_ARRAY_SIZE(of_lanes); k++)
            bad |= json_object_set_new(
                json, of_lanes[k],
                json_integer(number(json, of_lanes[k]) + number(of, of_lanes[k])));
        not_sent += number(of, "notSent");
    }
    bad |= json_object_set_new(json, "notSent", json_integer(not_sent));
    if (bad != 0) {
        json_decref(json);
        return NULL;
    }
    return json;
}

json_t *pk_inline_tap_status(const struct pk_agent *agent, const struct pk_tap *tap,
                             const json_t *counters)
{
    pk_nsec since = 0;
    unsigned lanes = 0, through = 0;
    for (size_t i = 0; i < agent->plane.lane_count; i++) {
        const struct pk_lane *lane = agent->plane.lanes[i];
        if (!lane->is_inline || tap_of(agent, lane) != tap)
            continue;
        lanes++;
        through += lane->second.through;
        since = PK_MAX(since, lane->second.since);
    }
    const char *state = lanes > 0 && through == lanes ? "inline"
                        : tap->other.closed           ? "blocking"
                                                      : "bypassing";
    json_t *directions = json_array(), *json = state_json(state, since);
    json_int_t packets = 0, bytes = 0, dropped = 0, sent = 0, sent_bytes = 0, bypassed = 0;
    json_int_t blocked = 0, not_sent = 0;
    int bad = 0;
    for (unsigned side = 0; side < PK_SIDES; side++) {
        json_t *one = direction(agent, tap, counters, side);
        packets += number(one, "packets");
        bytes += number(one, "bytes");
        sent += number(one, "sent");
        sent_bytes += number(one, "sentBytes");
        bypassed += number(one, "bypassed");
        blocked += number(one, "blocked");
        not_sent += number(one, "packets") - number(one, "sent") - number(one, "bypassed") -
                    number(one, "blocked");
        dropped += number(one, "blocked") + number(one, "notSent") + number(one, "ringDropped") +
                   number(one, "unread");
        bad |= json_array_append_new(directions, one);
    }
    bad |= json_object_set_new(json, "lanes", json_integer(lanes));
    bad |= json_object_set_new(json, "lanesThrough", json_integer(through));
    bad |= json_object_set_new(json, "failure", json_string(tap->other.closed ? "closed" : "open"));
    bad |= json_object_set_new(json, "failAfterMs", json_integer(tap->other.fail_after_ms));
    bad |= json_object_set(json, "directions", directions);
    json_decref(directions);
    if (bad != 0) {
        json_decref(json);
        return NULL;
    }
    /* What went into the group's lanes is one tenant's, so that taps of all kinds add up alike. */
    json_int_t began = began_of(counters, tap->key);
    return json_pack("{s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:[{s:s,s:I,s:I,s:I}],s:o}", "began", began,
                     "packets", packets, "bytes", bytes, "dropped", dropped, "bypassed", bypassed,
                     "withheld", blocked, "notSent", not_sent, "tenants", "name", "", "began",
                     began, "packets", sent, "bytes", sent_bytes, "inline", json);
}
