/* SPDX-License-Identifier: Apache-2.0 */
/* From what is wished of a group's slots to what is in force: drains, moves, meters. */
#include "broker/broker.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

#include <bpf/bpf.h>

#include "base/alloc.h"
#include "base/fs.h"
#include "base/time.h"
#include "broker/internal.h"
#include "broker/slots.h"

/* Flows that say nothing for so long have ended, unless they are TCP and were seen during the
 * drain. A drain lasts at least as long (or what it may last, if that is less): flows show
 * themselves by their packets. */
#define QUIET    (5 * PK_NSEC_PER_SEC)
#define BATCH    4096u
#define MAP_ROOM 16u /* entries that a batch may get more of than it asked for, in one bucket */

void pk_group_wish_done(struct pk_group_wish *wish)
{
    pk_free(wish->shares);
    pk_free(wish->moves);
    pk_free(wish->until);
    pk_free(wish->began);
    pk_free(wish->slots);
    pk_free(wish->flows);
    pk_free(wish->deadline);
    *wish = (struct pk_group_wish){ 0 };
}

void pk_group_forget_moves(struct pk_broker *broker, uint32_t group, uint32_t lane)
{
    uint16_t *moves = broker->wishes[group].moves;
    for (size_t i = 0; moves != NULL && i < PK_HASH_SLOTS; i++)
        if (moves[i] == lane)
            moves[i] = PK_NO_LANE;
}

/* ---- one group ---- */

static int need_until(struct pk_broker *broker, uint32_t group, struct pk_error *err)
{
    struct pk_group_wish *wish = &broker->wishes[group];
    const struct pk_slots *slots = broker->tables[group];
    if (wish->until != NULL)
        return 0;
    wish->began = pk_zalloc_array(PK_HASH_SLOTS, sizeof *wish->began);
    wish->until = pk_zalloc_array(PK_HASH_SLOTS, sizeof *wish->until);
    if (wish->until == NULL || wish->began == NULL)
        return pk_no_memory(err);
    pk_nsec now = pk_time_monotonic();
    /* What an agent before this one began ends when its last slot was to. */
    for (size_t i = 0; slots != NULL && i < PK_HASH_SLOTS; i++) {
        wish->until[i] = slots->old[i] != PK_NO_LANE ? (pk_nsec)slots->drain_until : 0;
        wish->began[i] = now;
    }
    return 0;
}

static void find_usable(struct pk_broker *broker, const struct pk_group_wish *wish,
                        const uint16_t *numbers, bool usable[PK_LANES_MAX])
{
    for (size_t i = 0; i < PK_LANES_MAX; i++)
        usable[i] = broker->lanes[i].key[0] != '\0' && broker->lanes[i].host_ifindex != 0;
    for (size_t i = 0; i < wish->count; i++)
        if (wish->shares[i].part == PK_PART_OUT)
            usable[numbers[i]] = false;
}

static int find_target(struct pk_broker *broker, uint32_t group, bool with_moves,
                       uint16_t numbers[PK_LANES_MAX], uint16_t *target, struct pk_error *err)
{
    const struct pk_group_wish *wish = &broker->wishes[group];
    for (size_t i = 0; i < wish->count; i++) {
        int lane = pk_group_lane(broker, broker->groups[group].key, wish->shares[i].lane);
        if (lane < 0)
            return pk_fail(err, PK_E_NOTFOUND, "there is no lane %u", wish->shares[i].lane);
        numbers[i] = (uint16_t)lane;
    }
    const struct pk_slots_wish slots_wish = { .shares = wish->shares,
                                              .numbers = numbers,
                                              .count = wish->count,
                                              .moves = with_moves ? wish->moves : NULL };
    pk_slots_target(&slots_wish, target);
    return 0;
}

int pk_group_step(struct pk_broker *broker, uint32_t group, enum pk_hash_mode mode,
                  struct pk_error *err)
{
    struct pk_group_wish *wish = &broker->wishes[group];
    const struct pk_slots *have = broker->tables[group];
    uint16_t numbers[PK_LANES_MAX];
    bool usable[PK_LANES_MAX];
    PK_CLEANUP(pk_free_p) uint16_t *target = pk_zalloc_array(PK_HASH_SLOTS + 1, sizeof *target);
    PK_CLEANUP(pk_free_p) struct pk_slots *slots = pk_zalloc(sizeof *slots);
    if (target == NULL || slots == NULL)
        return pk_no_memory(err);
    int r = need_until(broker, group, err);
    if (r >= 0)
        r = find_target(broker, group, true, numbers, target, err);
    if (r < 0)
        return r;
    find_usable(broker, wish, numbers, usable);

    bool anew = have == NULL || have->mode != (uint32_t)mode;
    if (have != NULL)
        *slots = *have;
    memset(slots->load, 0, sizeof slots->load);
    slots->mode = mode;
    if (anew) {
        memset(slots->old, 0xff, sizeof slots->old);   /* PK_NO_LANE */
        memset(slots->lane, 0xff, sizeof slots->lane); /* whatever was there: at once */
    }
    const struct pk_slots_way way = {
        .target = target, .usable = usable, .now = pk_time_monotonic(), .drain = wish->drain
    };
    bool changed = pk_slots_step(slots, wish->until, &way);
    if (!changed && !anew)
        return 0;
    for (size_t i = 0; i < PK_HASH_SLOTS; i++)
        if (have == NULL || have->old[i] == PK_NO_LANE)
            wish->began[i] = way.now;
    r = pk_group_swap_table_take(broker, group, slots, err);
    if (r >= 0)
        (void)PK_TAKE(slots);
    return r;
}

/* ---- flows of slots that drain ---- */

struct look {
    struct pk_broker *broker;
    pk_nsec now;
    uint8_t *alive[PK_GROUPS_MAX]; /* per slot: has flows that are alive in the old lane */
    int r;
};

static bool is_alive(const struct pk_drain_flow *flow, pk_nsec now)
{
    if (flow->is_tcp && flow->ended != 3)
        return true;
    return now - (pk_nsec)flow->seen < (flow->is_tcp ? PK_NSEC_PER_SEC : QUIET);
}

/* What is remembered of slots that drain no more must go: when they drain again it would be read as
 * of then. */
static void look_at(struct look *look, const struct pk_drain_key *key,
                    const struct pk_drain_flow *flow)
{
    struct pk_broker *broker = look->broker;
    const struct pk_slots *slots = key->group < PK_GROUPS_MAX ? broker->tables[key->group] : NULL;
    if (slots == NULL || key->slot >= PK_HASH_SLOTS || slots->old[key->slot] == PK_NO_LANE) {
        (void)bpf_map_delete_elem(broker->maps[PK_MAP_DRAINS], key);
        return;
    }
    if (flow->lane != slots->old[key->slot] || !is_alive(flow, look->now))
        return;
    broker->wishes[key->group].flows[flow->lane]++;
    look->alive[key->group][key->slot] = 1;
}

static int look_at_all(struct look *look, struct pk_error *err)
{
    PK_CLEANUP(pk_free_p)
    struct pk_drain_key *keys = pk_zalloc_array(BATCH + MAP_ROOM, sizeof *keys);
    PK_CLEANUP(pk_free_p)
    struct pk_drain_flow *flows = pk_zalloc_array(BATCH + MAP_ROOM, sizeof *flows);
    if (keys == NULL || flows == NULL)
        return pk_no_memory(err);
    uint64_t at = 0, next = 0;
    bool first = true;
    int map = look->broker->maps[PK_MAP_DRAINS];
    LIBBPF_OPTS(bpf_map_batch_opts, opts);
    for (;;) {
        uint32_t count = BATCH;
        int r = bpf_map_lookup_batch(map, first ? NULL : &at, &next, keys, flows, &count, &opts);
        if (r < 0 && errno != ENOENT)
            return pk_fail_errno(err, errno, "cannot read the flows that drain");
        for (uint32_t i = 0; i < count; i++)
            look_at(look, &keys[i], &flows[i]);
        if (r < 0)
            return 0;
        at = next;
        first = false;
    }
}

/* Where no flow is alive any more the drain ends before its time. */
static void end_early(struct pk_broker *broker, uint32_t group, const uint8_t *alive, pk_nsec now)
{
    struct pk_group_wish *wish = &broker->wishes[group];
    const struct pk_slots *slots = broker->tables[group];
    for (size_t i = 0; i < PK_HASH_SLOTS; i++)
        if (slots->old[i] != PK_NO_LANE && !alive[i] && now - wish->began[i] >= QUIET)
            wish->until[i] = now;
}

static void count_slots(struct pk_broker *broker, uint32_t group)
{
    struct pk_group_wish *wish = &broker->wishes[group];
    const struct pk_slots *slots = broker->tables[group];
    memset(wish->slots, 0, PK_LANES_MAX * sizeof *wish->slots);
    memset(wish->deadline, 0, PK_LANES_MAX * sizeof *wish->deadline);
    for (size_t i = 0; slots->draining > 0 && i < PK_HASH_SLOTS; i++) {
        uint16_t old = slots->old[i];
        if (old >= PK_LANES_MAX)
            continue;
        wish->slots[old]++;
        wish->deadline[old] = PK_MAX(wish->deadline[old], wish->until[i]);
    }
}

static int need_counts(struct pk_group_wish *wish, struct pk_error *err)
{
    if (wish->slots == NULL)
        wish->slots = pk_zalloc_array(PK_LANES_MAX, sizeof *wish->slots);
    if (wish->flows == NULL)
        wish->flows = pk_zalloc_array(PK_LANES_MAX, sizeof *wish->flows);
    if (wish->deadline == NULL)
        wish->deadline = pk_zalloc_array(PK_LANES_MAX, sizeof *wish->deadline);
    if (wish->slots == NULL || wish->flows == NULL || wish->deadline == NULL)
        return pk_no_memory(err);
    memset(wish->flows, 0, PK_LANES_MAX * sizeof *wish->flows);
    return 0;
}

static bool drains(const struct pk_broker *broker, uint32_t group)
{
    return broker->tables[group] != NULL && broker->tables[group]->draining > 0 &&
           broker->wishes[group].shares != NULL;
}

int pk_broker_drains_step(struct pk_broker *broker, size_t *ret_slots, struct pk_error *err)
{
    *ret_slots = 0;
    int r = pk_broker_check_open(broker, err);
    struct look look = { .broker = broker, .now = pk_time_monotonic() };
    bool any = false;
    for (uint32_t i = 0; i < PK_GROUPS_MAX && r >= 0; i++) {
        if (!drains(broker, i))
            continue;
        any = true;
        r = need_counts(&broker->wishes[i], err);
        if (r >= 0)
            r = need_until(broker, i, err);
        look.alive[i] = pk_zalloc(PK_HASH_SLOTS);
        if (r >= 0 && look.alive[i] == NULL)
            r = pk_no_memory(err);
    }
    /* Once more after the last drain: what it left is forgotten. */
    if (r >= 0 && (any || broker->drained))
        r = look_at_all(&look, err);
    broker->drained = any;
    for (uint32_t i = 0; i < PK_GROUPS_MAX; i++) {
        if (look.alive[i] == NULL)
            continue;
        if (r >= 0) {
            end_early(broker, i, look.alive[i], look.now);
            r = pk_group_step(broker, i, (enum pk_hash_mode)broker->tables[i]->mode, err);
            count_slots(broker, i);
            *ret_slots += broker->tables[i]->draining;
        }
        pk_free(look.alive[i]);
    }
    return r;
}

static int group_of_lane(struct pk_broker *broker, uint32_t lane)
{
    char key[PK_KEY_SIZE];
    memcpy(key, broker->lanes[lane].key, sizeof key);
    char *slash = strrchr(key, '/');
    if (slash == NULL)
        return -1;
    *slash = '\0';
    return key[0] != '\0' ? PK_FIND(broker->groups, key) : -1;
}

bool pk_broker_lane_draining(struct pk_broker *broker, const char *key,
                             struct pk_broker_draining *ret_draining)
{
    *ret_draining = (struct pk_broker_draining){ 0 };
    int lane = key[0] != '\0' ? PK_FIND(broker->lanes, key) : -1;
    int group = lane >= 0 ? group_of_lane(broker, (uint32_t)lane) : -1;
    if (group < 0)
        return lane >= 0;
    const struct pk_slots *slots = broker->tables[group];
    const struct pk_group_wish *wish = &broker->wishes[group];
    if (slots == NULL || slots->draining == 0)
        return true;
    pk_nsec deadline = (pk_nsec)slots->drain_until;
    for (size_t i = 0; i < PK_HASH_SLOTS; i++)
        ret_draining->slots += slots->old[i] == lane;
    if (ret_draining->slots == 0)
        return true;
    if (wish->deadline != NULL && wish->deadline[lane] != 0)
        deadline = wish->deadline[lane];
    ret_draining->flows = wish->flows != NULL ? wish->flows[lane] : 0;
    ret_draining->left = PK_MAX(deadline - pk_time_monotonic(), 0);
    return true;
}

bool pk_broker_lane_is_bare(struct pk_broker *broker, const char *key)
{
    int lane = key[0] != '\0' ? PK_FIND(broker->lanes, key) : -1;
    int group = lane >= 0 ? group_of_lane(broker, (uint32_t)lane) : -1;
    const struct pk_slots *slots = group >= 0 ? broker->tables[group] : NULL;
    for (size_t i = 0; slots != NULL && i < PK_HASH_SLOTS; i++)
        if (slots->lane[i] == lane)
            return false;
    return slots != NULL;
}

/* ---- single slots ---- */

static int find_group(struct pk_broker *broker, const char *key, struct pk_error *err)
{
    int r = pk_broker_check_open(broker, err);
    if (r < 0)
        return r;
    int group = key[0] != '\0' ? PK_FIND(broker->groups, key) : -1;
    if (group >= 0 && broker->tables[group] != NULL && broker->wishes[group].shares != NULL)
        return group;
    pk_fail(err, PK_E_NOTFOUND, "there is no group %s", key);
    return pk_hint(err, "set its lanes first");
}

int pk_broker_group_move(struct pk_broker *broker, const char *key,
                         const struct pk_broker_move *moves, size_t count, pk_nsec drain,
                         struct pk_error *err)
{
    int group = find_group(broker, key, err);
    if (group < 0)
        return group;
    struct pk_group_wish *wish = &broker->wishes[group];
    if (count == 0) {
        pk_free(wish->moves);
        wish->moves = NULL;
    } else if (wish->moves == NULL) {
        wish->moves = pk_zalloc_array(PK_HASH_SLOTS, sizeof *wish->moves);
        if (wish->moves == NULL)
            return pk_no_memory(err);
        memset(wish->moves, 0xff, PK_HASH_SLOTS * sizeof *wish->moves); /* PK_NO_LANE */
    }
    for (size_t i = 0; i < count; i++) {
        int lane = pk_group_lane(broker, key, moves[i].lane);
        if (lane < 0 || moves[i].slot >= PK_HASH_SLOTS)
            return pk_fail(err, PK_E_USAGE, "group %s: no slot %u or no lane %u", key,
                           moves[i].slot, moves[i].lane);
        wish->moves[moves[i].slot] = (uint16_t)lane;
    }
    wish->drain = drain;
    return pk_group_step(broker, (uint32_t)group, (enum pk_hash_mode)broker->tables[group]->mode,
                         err);
}

int pk_broker_group_meter(struct pk_broker *broker, const char *key, bool on, struct pk_error *err)
{
    int group = find_group(broker, key, err);
    if (group < 0)
        return group;
    if (broker->tables[group]->metered == on)
        return 0;
    PK_CLEANUP(pk_free_p)
    struct pk_slots *slots = pk_memdup(broker->tables[group], sizeof *slots);
    if (slots == NULL)
        return pk_no_memory(err);
    slots->metered = on;
    memset(slots->load, 0, sizeof slots->load);
    int r = pk_group_swap_table_take(broker, (uint32_t)group, slots, err);
    if (r >= 0)
        (void)PK_TAKE(slots);
    return r;
}

/* The table that is in force, with what the kernel has counted in it. */
static int read_table(struct pk_broker *broker, uint32_t group, struct pk_slots *ret_slots,
                      struct pk_error *err)
{
    uint32_t id = 0, zero = 0;
    if (bpf_map_lookup_elem(broker->maps[PK_MAP_TABLES], &group, &id) < 0)
        return pk_fail_errno(err, errno, "cannot find the slots of group %s",
                             broker->groups[group].key);
    PK_CLEANUP(pk_close_p) int fd = bpf_map_get_fd_by_id(id);
    if (fd < 0 || bpf_map_lookup_elem(fd, &zero, ret_slots) < 0)
        return pk_fail_errno(err, errno, "cannot read the slots of group %s",
                             broker->groups[group].key);
    return 0;
}

int pk_broker_group_slots(struct pk_broker *broker, const char *key,
                          struct pk_broker_slot slots[PK_SLOT_COUNT], struct pk_error *err)
{
    uint16_t numbers[PK_LANES_MAX];
    int group = find_group(broker, key, err);
    if (group < 0)
        return group;
    PK_CLEANUP(pk_free_p) struct pk_slots *table = pk_zalloc(sizeof *table);
    PK_CLEANUP(pk_free_p) uint16_t *home = pk_zalloc_array(PK_HASH_SLOTS + 1, sizeof *home);
    if (table == NULL || home == NULL)
        return pk_no_memory(err);
    int r = read_table(broker, (uint32_t)group, table, err);
    if (r >= 0)
        r = find_target(broker, (uint32_t)group, false, numbers, home, err);
    if (r < 0)
        return r;
    for (size_t i = 0; i < PK_HASH_SLOTS; i++) {
        uint16_t lane = table->lane[i];
        slots[i] = (struct pk_broker_slot){
            .lane = lane < PK_LANES_MAX ? broker->lanes[lane].index : UINT_MAX,
            .home = home[i] < PK_LANES_MAX ? broker->lanes[home[i]].index : UINT_MAX,
            .load = table->load[i],
        };
    }
    return 0;
}
