/* SPDX-License-Identifier: Apache-2.0 */
/* Inline taps and their lanes; inline.h says what they are. */
#include "broker/inline.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <bpf/bpf.h>

#include "base/fs.h"
#include "base/time.h"
#include "broker/internal.h"

#define LINK_NAME_SIZE 32

_Static_assert(sizeof(((struct pk_inline_tap_record *)NULL)->key) == PK_KEY_SIZE, "one size");

/* ---- probes ---- */

uint64_t pk_broker_probe_token(const struct pk_broker *broker)
{
    /* splitmix64 (Vigna, public domain): what a tool sees does not tell the seed of the hash. */
    uint64_t x = broker->seed + 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

void pk_broker_probe_frame(uint64_t token, unsigned side, uint8_t ret_frame[PK_PROBE_SIZE])
{
    /* Addresses of local meaning, which no switch has learnt and none is asked for. */
    struct pk_probe_frame probe = { .target = { 2, 'p', 'k', 'p', 0, (uint8_t)!side },
                                    .source = { 2, 'p', 'k', 'p', 0, (uint8_t)side },
                                    .type = htons(PK_PROBE_TYPE),
                                    .side = htons((uint16_t)side),
                                    .token = token };
    memcpy(ret_frame, &probe, sizeof probe);
}

/* ---- records ---- */

int pk_inline_load_records(struct pk_broker *broker, struct pk_error *err)
{
    for (uint32_t i = 0; i < PK_TAPS_MAX; i++) {
        if (bpf_map_lookup_elem(broker->maps[PK_MAP_INLINE_TAPS], &i, &broker->inline_taps[i]) < 0)
            return pk_fail_errno(err, errno, "cannot read the pinned state");
        broker->inline_taps[i].key[PK_KEY_SIZE - 1] = '\0';
    }
    for (uint32_t i = 0; i < PK_LANES_MAX; i++)
        if (bpf_map_lookup_elem(broker->maps[PK_MAP_INLINE_LANES], &i, &broker->inline_lanes[i]) <
            0)
            return pk_fail_errno(err, errno, "cannot read the pinned state");
    return 0;
}

static int write_tap(struct pk_broker *broker, uint32_t id,
                     const struct pk_inline_tap_record *record, struct pk_error *err)
{
    int r = pk_map_write(broker, PK_MAP_INLINE_TAPS, id, record, err);
    if (r >= 0)
        broker->inline_taps[id] = *record;
    return r;
}

static int write_lane(struct pk_broker *broker, uint32_t id,
                      const struct pk_inline_lane_record *record, struct pk_error *err)
{
    int r = pk_map_write(broker, PK_MAP_INLINE_LANES, id, record, err);
    if (r >= 0)
        broker->inline_lanes[id] = *record;
    return r;
}

bool pk_inline_is_lane(struct pk_broker *broker, uint32_t id)
{
    return broker->inline_lanes[id].outer[0] != 0;
}

/* A devmap's element; 0 = none. */
static int set_port(struct pk_broker *broker, enum pk_plane_map map, uint32_t index,
                    uint32_t ifindex, struct pk_error *err)
{
    uint32_t now = 0;
    bool is = bpf_map_lookup_elem(broker->maps[map], &index, &now) == 0;
    if (is ? now == ifindex : ifindex == 0)
        return 0;
    if (ifindex != 0)
        return pk_map_write(broker, map, index, &ifindex, err);
    if (bpf_map_delete_elem(broker->maps[map], &index) < 0 && errno != ENOENT)
        return pk_fail_errno(err, errno, "cannot take an interface out of the traffic plane");
    return 0;
}

static bool has_port(struct pk_broker *broker, enum pk_plane_map map, uint32_t index,
                     uint32_t ifindex)
{
    uint32_t now = 0;
    return bpf_map_lookup_elem(broker->maps[map], &index, &now) == 0 && now == ifindex;
}

/* ---- which lane belongs to which tap ---- */

static bool is_of_group(const char *lane_key, const char *group_key)
{
    size_t len = strlen(group_key);
    return strncmp(lane_key, group_key, len) == 0 && lane_key[len] == '/' &&
           strchr(lane_key + len + 1, '/') == NULL;
}

static int tap_of_lane(struct pk_broker *broker, uint32_t lane)
{
    for (uint32_t i = 0; i < PK_TAPS_MAX; i++) {
        const struct pk_inline_tap_record *tap = &broker->inline_taps[i];
        if (tap->key[0] != '\0' && tap->group < PK_GROUPS_MAX &&
            is_of_group(broker->lanes[lane].key, broker->groups[tap->group].key))
            return (int)i;
    }
    return -1;
}

const char *pk_inline_tap_of_group(struct pk_broker *broker, uint32_t group)
{
    for (uint32_t i = 0; i < PK_TAPS_MAX; i++)
        if (broker->inline_taps[i].key[0] != '\0' && broker->inline_taps[i].group == group)
            return broker->inline_taps[i].key;
    return NULL;
}

/* Where what leaves the lane goes to: the interfaces of its tap, or nowhere. */
static int bind_lane(struct pk_broker *broker, uint32_t lane, struct pk_error *err)
{
    int tap = tap_of_lane(broker, lane), r = 0;
    for (uint32_t side = 0; side < PK_SIDES && r >= 0; side++)
        r = set_port(broker, PK_MAP_INLINE_EXITS, lane * PK_SIDES + side,
                     tap >= 0 ? broker->inline_taps[tap].ifindex[side] : 0, err);
    return r;
}

static int bind_lanes(struct pk_broker *broker, struct pk_error *err)
{
    int r = 0;
    for (uint32_t i = 0; i < PK_LANES_MAX && r >= 0; i++)
        if (pk_inline_is_lane(broker, i))
            r = bind_lane(broker, i, err);
    return r;
}

/* ---- taps ---- */

static const char *wire_link(uint32_t id, uint32_t side, char name[LINK_NAME_SIZE])
{
    snprintf(name, LINK_NAME_SIZE, "tap-inline-%u-%c", id, "ab"[side]);
    return name;
}

static int load_wire(struct pk_broker *broker, uint32_t id, uint32_t side,
                     const struct pk_inline_tap_record *record, int *ret_fd, struct pk_error *err)
{
    struct pk_plane_numbers numbers = { .tap = id,
                                        .group = record->group,
                                        .side = side,
                                        .closed = record->closed != 0,
                                        .fail_after = record->fail_after };
    return pk_plane_load(broker, PK_PROGRAM_INLINE_WIRE, numbers, ret_fd, err);
}

int pk_inline_taps_renew(struct pk_broker *broker, struct pk_error *err)
{
    for (uint32_t id = 0; id < PK_TAPS_MAX; id++) {
        struct pk_inline_tap_record record = broker->inline_taps[id];
        if (record.key[0] == '\0' || record.build == broker->build)
            continue;
        for (uint32_t side = 0; side < PK_SIDES; side++) {
            char name[LINK_NAME_SIZE];
            if (!pk_link_is_on(broker, wire_link(id, side, name), record.ifindex[side]))
                continue; /* for the caller's attach to see */
            PK_CLEANUP(pk_close_p) int program = -1;
            int r = load_wire(broker, id, side, &record, &program, err);
            if (r >= 0)
                r = pk_link_renew(broker, name, program, err);
            if (r < 0)
                return pk_wrap(err, "tap %s", record.key);
        }
        record.build = broker->build;
        int r = write_tap(broker, id, &record, err);
        if (r < 0)
            return r;
    }
    return 0;
}

static int attach_wire(struct pk_broker *broker, uint32_t id, uint32_t side, bool renew,
                       struct pk_error *err)
{
    const struct pk_inline_tap_record *record = &broker->inline_taps[id];
    char name[LINK_NAME_SIZE];
    bool on = pk_link_is_on(broker, wire_link(id, side, name), record->ifindex[side]);
    if (on && !renew)
        return 0;
    PK_CLEANUP(pk_close_p) int program = -1;
    int r = load_wire(broker, id, side, record, &program, err);
    if (r < 0)
        return r;
    /* Native only: packets also have to go out by XDP, which only the driver can. */
    return on ? pk_link_renew(broker, name, program, err)
              : pk_link_attach(broker, name, record->ifindex[side], program, true, NULL, err);
}

static int detach(struct pk_broker *broker, uint32_t id, struct pk_error *err)
{
    struct pk_inline_tap_record none = { 0 };
    int r = 0;
    for (uint32_t side = 0; side < PK_SIDES && r >= 0; side++) {
        char name[LINK_NAME_SIZE];
        r = pk_link_remove(broker, wire_link(id, side, name), err);
        if (r >= 0)
            r = set_port(broker, PK_MAP_INLINE_WIRES, id * PK_SIDES + side, 0, err);
    }
    if (r >= 0)
        r = write_tap(broker, id, &none, err);
    return r < 0 ? r : bind_lanes(broker, err);
}

int pk_broker_inline_attach(struct pk_broker *broker, const char *key,
                            const struct pk_broker_inline_config *config, struct pk_error *err)
{
    int r = pk_broker_check_open(broker, err);
    if (r < 0)
        return r;
    const char *group_key = config->group_key;
    int group = group_key[0] != '\0' ? PK_FIND(broker->groups, group_key) : -1;
    if (group < 0) {
        pk_fail(err, PK_E_NOTFOUND, "tap %s: there is no group %s", key, group_key);
        return pk_hint(err, "a group's lanes are set before its taps are attached");
    }
    const char *other = pk_inline_tap_of_group(broker, (uint32_t)group);
    if (other != NULL && strcmp(other, key) != 0) {
        pk_fail(err, PK_E_CONFLICT, "tap %s: group %s is inline in tap %s already", key, group_key,
                other);
        return pk_hint(err, "give each inline tap a group of its own");
    }
    uint32_t id;
    bool is_new;
    r = PK_RECORD_TAKE(broker->inline_taps, key, "inline tap", &id, &is_new, err);
    if (r < 0)
        return r;
    for (uint32_t side = 0; side < PK_SIDES && is_new && r >= 0; side++)
        r = pk_map_zero(broker, PK_MAP_INLINE_COUNTS, id * PK_SIDES + side,
                        sizeof(struct pk_inline_counters), err);
    if (r < 0)
        return r;

    const struct pk_inline_tap_record before = broker->inline_taps[id];
    struct pk_inline_tap_record record = { .build = broker->build,
                                           .began = is_new ? (uint64_t)pk_time_now() : before.began,
                                           .fail_after = config->fail_after,
                                           .ifindex = { config->ifindex[0], config->ifindex[1] },
                                           .mode = { PK_XDP_NATIVE, PK_XDP_NATIVE },
                                           .group = (uint32_t)group,
                                           .closed = config->closed };
    memcpy(record.key, key, strlen(key)); /* its length is checked */
    bool renew = is_new || before.build != record.build || before.fail_after != record.fail_after ||
                 before.group != record.group || before.closed != record.closed;
    /* The record comes before the links: an agent that is killed between leaves no link that its
     * successor does not know of. Ways out come before ways in. */
    r = write_tap(broker, id, &record, err);
    for (uint32_t side = 0; side < PK_SIDES && r >= 0; side++)
        r = set_port(broker, PK_MAP_INLINE_WIRES, id * PK_SIDES + side, record.ifindex[side], err);
    if (r >= 0)
        r = bind_lanes(broker, err);
    for (uint32_t side = 0; side < PK_SIDES && r >= 0; side++)
        r = attach_wire(broker, id, side, renew, err);
    if (r >= 0)
        return 0;
    if (is_new)
        (void)detach(broker, id, NULL);
    else
        (void)write_tap(broker, id, &before, NULL);
    return pk_wrap(err, "tap %s", key);
}

int pk_broker_inline_detach(struct pk_broker *broker, const char *key, struct pk_error *err)
{
    int r = pk_broker_check_open(broker, err);
    if (r < 0)
        return r;
    int id = key[0] != '\0' ? PK_FIND(broker->inline_taps, key) : -1;
    if (id < 0)
        return 0;
    r = detach(broker, (uint32_t)id, err);
    return r < 0 ? pk_wrap(err, "tap %s", key) : 0;
}

bool pk_broker_inline_intact(struct pk_broker *broker, const char *key,
                             const unsigned ifindex[PK_SIDES])
{
    int found = key[0] != '\0' ? PK_FIND(broker->inline_taps, key) : -1;
    if (found < 0 || broker->removed)
        return false;
    uint32_t id = (uint32_t)found;
    for (uint32_t side = 0; side < PK_SIDES; side++) {
        char name[LINK_NAME_SIZE];
        if (!pk_link_is_on(broker, wire_link(id, side, name), ifindex[side]) ||
            !has_port(broker, PK_MAP_INLINE_WIRES, id * PK_SIDES + side, ifindex[side]))
            return false;
    }
    return true;
}

/* ---- lanes ---- */

static const char *end_link(uint32_t id, bool inner, uint32_t side, char name[LINK_NAME_SIZE])
{
    snprintf(name, LINK_NAME_SIZE, "lane-inline-%u-%s-%c", id, inner ? "in" : "out", "ab"[side]);
    return name;
}

static bool end_is_on(struct pk_broker *broker, uint32_t id, bool inner, uint32_t side)
{
    char name[LINK_NAME_SIZE];
    const struct pk_inline_lane_record *record = &broker->inline_lanes[id];
    return pk_link_is_on(broker, end_link(id, inner, side, name),
                         inner ? record->inner[side] : record->outer[side]);
}

int pk_inline_lane_renew(struct pk_broker *broker, uint32_t id, struct pk_error *err)
{
    for (uint32_t i = 0; i < 2 * PK_SIDES; i++) {
        bool inner = i < PK_SIDES;
        uint32_t side = i % PK_SIDES;
        char name[LINK_NAME_SIZE];
        if (!end_is_on(broker, id, inner, side))
            continue;
        PK_CLEANUP(pk_close_p) int program = -1;
        struct pk_plane_numbers numbers = { .lane = id, .side = side };
        int r = pk_plane_load(broker, inner ? PK_PROGRAM_INLINE_IN : PK_PROGRAM_INLINE_OUT, numbers,
                              &program, err);
        if (r >= 0)
            r = pk_link_renew(broker, end_link(id, inner, side, name), program, err);
        if (r < 0)
            return r;
    }
    return 0;
}

bool pk_inline_lane_intact(struct pk_broker *broker, uint32_t id)
{
    for (uint32_t side = 0; side < PK_SIDES; side++)
        if (!end_is_on(broker, id, true, side) || !end_is_on(broker, id, false, side) ||
            !has_port(broker, PK_MAP_INLINE_PORTS, id * PK_SIDES + side,
                      broker->inline_lanes[id].outer[side]))
            return false;
    return true;
}

int pk_inline_lane_remove(struct pk_broker *broker, uint32_t id, struct pk_error *err)
{
    int r = 0;
    for (uint32_t side = 0; side < PK_SIDES && r >= 0; side++)
        r = set_port(broker, PK_MAP_INLINE_PORTS, id * PK_SIDES + side, 0, err);
    for (uint32_t i = 0; i < 2 * PK_SIDES && r >= 0; i++) {
        char name[LINK_NAME_SIZE];
        r = pk_link_remove(broker, end_link(id, i < PK_SIDES, i % PK_SIDES, name), err);
    }
    for (uint32_t side = 0; side < PK_SIDES && r >= 0; side++)
        r = set_port(broker, PK_MAP_INLINE_EXITS, id * PK_SIDES + side, 0, err);
    const struct pk_inline_lane_record none = { 0 };
    return r < 0 ? r : write_lane(broker, id, &none, err);
}

/* A number that another lane may have had. */
static int begin(struct pk_broker *broker, uint32_t id, struct pk_error *err)
{
    const struct pk_inline_state none = { 0 };
    int r = pk_map_write(broker, PK_MAP_INLINE_STATES, id, &none, err);
    for (uint32_t side = 0; side < PK_SIDES && r >= 0; side++)
        r = pk_map_zero(broker, PK_MAP_INLINE_LANE_COUNTS, id * PK_SIDES + side,
                        sizeof(struct pk_inline_lane_counters), err);
    return r;
}

static int add_lane(struct pk_broker *broker, uint32_t id, const struct pk_broker_inline_lane *lane,
                    struct pk_error *err)
{
    struct pk_inline_lane_record record = { .outer = { lane->outer[0], lane->outer[1] } };
    int r = 0;
    if (!pk_inline_is_lane(broker, id))
        r = begin(broker, id, err);
    record.inner[0] = broker->inline_lanes[id].inner[0];
    record.inner[1] = broker->inline_lanes[id].inner[1];
    if (r >= 0)
        r = write_lane(broker, id, &record, err); /* before the links, as of taps */
    bool renew = broker->lanes[id].build != broker->build;
    for (uint32_t i = 0; i < 2 * PK_SIDES && r >= 0; i++) {
        bool inner = i < PK_SIDES;
        uint32_t side = i % PK_SIDES;
        char name[LINK_NAME_SIZE];
        struct pk_lane_end end = { .broker = broker,
                                   .link = end_link(id, inner, side, name),
                                   .program = inner ? PK_PROGRAM_INLINE_IN : PK_PROGRAM_INLINE_OUT,
                                   .numbers = { .lane = id, .side = side },
                                   .ifindex = inner ? 0 : lane->outer[side],
                                   .inner_name = inner ? lane->inner[side] : NULL,
                                   .netns_fd = lane->netns_fd,
                                   .renew = renew };
        r = pk_lane_end_attach(&end, err);
        if (inner)
            record.inner[side] = end.ifindex;
    }
    if (r >= 0)
        r = write_lane(broker, id, &record, err);
    if (r >= 0)
        r = bind_lane(broker, id, err);
    /* Last, since packets come from here on. */
    for (uint32_t side = 0; side < PK_SIDES && r >= 0; side++)
        r = set_port(broker, PK_MAP_INLINE_PORTS, id * PK_SIDES + side, lane->outer[side], err);
    return r < 0 ? r : pk_lane_done(broker, id, lane->outer[0], record.inner[0], err);
}

int pk_broker_inline_lane_add(struct pk_broker *broker, const char *key,
                              const struct pk_broker_inline_lane *lane, struct pk_error *err)
{
    uint32_t id;
    int r = pk_lane_take(broker, key, &id, err);
    if (r < 0)
        return r;
    if (broker->lanes[id].host_ifindex != 0 && !pk_inline_is_lane(broker, id))
        return pk_fail(err, PK_E_CONFLICT, "lane %s is not inline", key);
    r = add_lane(broker, id, lane, err);
    return r < 0 ? pk_wrap(err, "lane %s", key) : 0;
}

/* ---- health and counters ---- */

static int read_health(struct pk_broker *broker, uint32_t id,
                       struct pk_broker_inline_health *ret_health, struct pk_error *err)
{
    struct pk_inline_state state;
    struct timespec clock;
    struct pk_broker_inline_health health = { .answers = true };
    uint64_t after = 0;
    int tap = tap_of_lane(broker, id);
    if (tap >= 0)
        after = broker->inline_taps[tap].fail_after;
    if (bpf_map_lookup_elem(broker->maps[PK_MAP_INLINE_STATES], &id, &state) < 0)
        return pk_fail_errno(err, errno, "cannot read an inline lane's state");
    clock_gettime(CLOCK_MONOTONIC_COARSE, &clock);
    int64_t now = (int64_t)clock.tv_sec * 1000000000 + clock.tv_nsec;
    for (uint32_t side = 0; side < PK_SIDES; side++) {
        struct pk_inline_lane_counters count;
        int r =
            PK_COUNTERS_SUM(broker, PK_MAP_INLINE_LANE_COUNTS, id * PK_SIDES + side, &count, err);
        if (r < 0)
            return r;
        health.answered[side] = count.answered;
        if (state.asked[side] <= state.alive[side])
            continue;
        int64_t open = now - (int64_t)state.asked[side];
        if (open > (int64_t)after) {
            health.answers = false;
            health.since = PK_MAX(health.since, open);
        }
    }
    *ret_health = health;
    return 0;
}

int pk_broker_inline_lane_health(struct pk_broker *broker, const char *key,
                                 struct pk_broker_inline_health *ret_health, struct pk_error *err)
{
    int id = key[0] != '\0' ? PK_FIND(broker->lanes, key) : -1;
    if (id < 0 || !pk_inline_is_lane(broker, (uint32_t)id))
        return pk_fail(err, PK_E_NOTFOUND, "there is no inline lane %s", key);
    return read_health(broker, (uint32_t)id, ret_health, err);
}

#define NUMBER(json, name, value) \
    json_object_set_new((json), (name), json_integer((json_int_t)(value)))

static int add_tap_counters(struct pk_broker *broker, uint32_t id, json_t *list,
                            struct pk_error *err)
{
    json_t *directions = json_array();
    json_array_append_new(list, json_pack("{s:s, s:I, s:o}", "key", broker->inline_taps[id].key,
                                          "began", (json_int_t)broker->inline_taps[id].began,
                                          "directions", directions));
    for (uint32_t side = 0; side < PK_SIDES; side++) {
        struct pk_inline_counters count;
        int r = PK_COUNTERS_SUM(broker, PK_MAP_INLINE_COUNTS, id * PK_SIDES + side, &count, err);
        if (r < 0)
            return r;
        json_t *one = json_object();
        NUMBER(one, "packets", count.packets);
        NUMBER(one, "bytes", count.bytes);
        NUMBER(one, "sent", count.sent);
        NUMBER(one, "sentBytes", count.sent_bytes);
        NUMBER(one, "bypassed", count.bypassed);
        NUMBER(one, "bypassedBytes", count.bypassed_bytes);
        NUMBER(one, "blocked", count.blocked);
        NUMBER(one, "blockedBytes", count.blocked_bytes);
        NUMBER(one, "notSent", count.not_sent);
        NUMBER(one, "noLane", count.no_lane);
        NUMBER(one, "unanswered", count.unanswered);
        NUMBER(one, "oddTag", count.odd_tag);
        json_array_append_new(directions, one);
    }
    return 0;
}

static int add_lane_counters(struct pk_broker *broker, uint32_t id, json_t *list,
                             struct pk_error *err)
{
    json_t *directions = json_array();
    json_array_append_new(
        list, json_pack("{s:s, s:o}", "key", broker->lanes[id].key, "directions", directions));
    for (uint32_t side = 0; side < PK_SIDES; side++) {
        /* From the end of the way to its start: a packet under way counts as not arrived yet, and
         * never as returned without having arrived. */
        struct pk_inline_lane_counters back, in, sent;
        struct pk_inline_lane_counters *const reads[] = { &back, &in, &sent };
        for (size_t i = 0; i < PK_ARRAY_SIZE(reads); i++) {
            int r = PK_COUNTERS_SUM(broker, PK_MAP_INLINE_LANE_COUNTS, id * PK_SIDES + side,
                                    reads[i], err);
            if (r < 0)
                return r;
        }
        uint64_t ended = in.unread + back.returned + back.not_sent;
        json_t *one = json_object();
        NUMBER(one, "sent", sent.sent);
        NUMBER(one, "sentBytes", sent.sent_bytes);
        NUMBER(one, "arrived", in.arrived);
        NUMBER(one, "ringDropped", sent.sent > in.arrived ? sent.sent - in.arrived : 0);
        NUMBER(one, "unread", in.unread);
        NUMBER(one, "returned", back.returned);
        NUMBER(one, "returnedBytes", back.returned_bytes);
        NUMBER(one, "notSent", back.not_sent);
        NUMBER(one, "probes", in.probes);
        NUMBER(one, "answered", back.answered);
        NUMBER(one, "toolDropped", in.arrived > ended ? in.arrived - ended : 0);
        json_array_append_new(directions, one);
    }
    return 0;
}

int pk_inline_add_counters(struct pk_broker *broker, json_t *all, struct pk_error *err)
{
    json_t *taps = json_array(), *lanes = json_array();
    json_object_set_new(all, "inline", taps);
    json_object_set_new(all, "inlineLanes", lanes);
    int r = 0;
    for (uint32_t i = 0; i < PK_TAPS_MAX && r >= 0; i++)
        if (broker->inline_taps[i].key[0] != '\0')
            r = add_tap_counters(broker, i, taps, err);
    for (uint32_t i = 0; i < PK_LANES_MAX && r >= 0; i++)
        if (broker->lanes[i].key[0] != '\0' && pk_inline_is_lane(broker, i))
            r = add_lane_counters(broker, i, lanes, err);
    return r;
}
