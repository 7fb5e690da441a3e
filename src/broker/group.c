/* SPDX-License-Identifier: Apache-2.0 */
/* Groups: the slot tables, and the decision made in user space. */
#include "broker/broker.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <bpf/bpf.h>

#include "base/alloc.h"
#include "base/fs.h"
#include "base/time.h"
#include "broker/internal.h"

int pk_group_load_tables(struct pk_broker *broker, struct pk_error *err)
{
    for (uint32_t i = 0; i < PK_GROUPS_MAX; i++) {
        uint32_t map_id, zero = 0;
        if (broker->groups[i].key[0] == '\0' ||
            bpf_map_lookup_elem(broker->maps[PK_MAP_TABLES], &i, &map_id) < 0)
            continue;
        PK_CLEANUP(pk_close_p) int fd = bpf_map_get_fd_by_id(map_id);
        PK_CLEANUP(pk_free_p) struct pk_slots *slots = pk_zalloc(sizeof *slots);
        if (slots == NULL)
            return pk_no_memory(err);
        if (fd < 0 || bpf_map_lookup_elem(fd, &zero, slots) < 0)
            return pk_fail_errno(err, errno, "cannot read the slots of group %s",
                                 broker->groups[i].key);
        broker->tables[i] = PK_TAKE(slots);
    }
    return 0;
}

int pk_group_swap_table_take(struct pk_broker *broker, uint32_t group, struct pk_slots *slots,
                             struct pk_error *err)
{
    uint32_t zero = 0;
    PK_CLEANUP(pk_close_p)
    int fd = bpf_map_create(BPF_MAP_TYPE_ARRAY, "pk_slots", sizeof zero, sizeof *slots, 1, NULL);
    if (fd < 0 || bpf_map_update_elem(fd, &zero, slots, BPF_ANY) < 0) {
        pk_fail_errno(err, errno, "cannot make a slot table");
        return pk_hint(err, "see 'picket doctor'");
    }
    int r = pk_map_write(broker, PK_MAP_TABLES, group, &fd, err);
    if (r < 0)
        return r;
    struct pk_group_record record = broker->groups[group];
    record.generation++;
    r = pk_map_write(broker, PK_MAP_GROUPS, group, &record, err);
    if (r < 0)
        return r;
    broker->groups[group] = record;
    pk_free(broker->tables[group]);
    broker->tables[group] = slots;
    return 0;
}

int pk_group_lane(struct pk_broker *broker, const char *group_key, unsigned index)
{
    char key[PK_KEY_SIZE + 16];
    snprintf(key, sizeof key, "%s/%u", group_key, index);
    return PK_FIND(broker->lanes, key);
}

static int check_shares(struct pk_broker *broker, const char *key,
                        const struct pk_broker_share *shares, size_t count, struct pk_error *err)
{
    if (count > PK_LANES_MAX)
        return pk_fail(err, PK_E_NOSPACE, "group %s: %zu lanes, %u are the most", key, count,
                       PK_LANES_MAX);
    for (size_t i = 0; i < count; i++) {
        if (pk_group_lane(broker, key, shares[i].lane) < 0) {
            pk_fail(err, PK_E_NOTFOUND, "group %s: there is no lane %u", key, shares[i].lane);
            return pk_hint(err, "add the lane first");
        }
        for (size_t k = 0; k < i; k++)
            if (shares[k].lane == shares[i].lane)
                return pk_fail(err, PK_E_USAGE, "group %s: lane %u has two shares", key,
                               shares[i].lane);
    }
    return 0;
}

/* The record of a group that comes; what it counts begins at zero. */
static int begin(struct pk_broker *broker, uint32_t id, const char *key, struct pk_error *err)
{
    struct pk_group_record record = { .began = (uint64_t)pk_time_now() };
    memcpy(record.key, key, strlen(key)); /* its length is checked */
    int r = pk_map_zero(broker, PK_MAP_GROUP_COUNTS, id, sizeof(struct pk_group_counters), err);
    if (r >= 0)
        broker->groups[id] = record;
    return r;
}

int pk_broker_group_turn(struct pk_broker *broker, const char *key, enum pk_hash_mode mode,
                         const struct pk_broker_share *shares, size_t count, pk_nsec drain,
                         struct pk_error *err)
{
    uint32_t id;
    bool is_new;
    int r = pk_broker_check_open(broker, err);
    if (r >= 0)
        r = PK_RECORD_TAKE(broker->groups, key, "group", &id, &is_new, err);
    if (r >= 0)
        r = check_shares(broker, key, shares, count, err);
    if (r < 0)
        return r;
    struct pk_broker_share *copy = pk_zalloc_array(count + 1, sizeof *copy);
    if (copy == NULL)
        return pk_no_memory(err);
    if (count > 0)
        memcpy(copy, shares, count * sizeof *copy);
    struct pk_group_wish *wish = &broker->wishes[id];
    const struct pk_group_wish before = *wish;
    wish->shares = copy;
    wish->count = count;
    wish->drain = drain;
    if (is_new)
        r = begin(broker, id, key, err);
    /* Programs know a lane before packets go to it, and the mode after it has come. */
    if (r >= 0)
        r = pk_taps_follow(broker, err);
    if (r >= 0)
        r = pk_group_step(broker, id, mode, err);
    if (r >= 0)
        r = pk_taps_follow(broker, err);
    if (r < 0) {
        wish->shares = before.shares; /* what else it has may have come since */
        wish->count = before.count;
        wish->drain = before.drain;
        if (is_new)
            broker->groups[id] = (struct pk_group_record){ 0 };
        pk_free(copy);
        return pk_wrap(err, "group %s", key);
    }
    pk_free(before.shares);
    return 0;
}

int pk_broker_group_set(struct pk_broker *broker, const char *key, enum pk_hash_mode mode,
                        const struct pk_broker_share *shares, size_t count, struct pk_error *err)
{
    return pk_broker_group_turn(broker, key, mode, shares, count, 0, err);
}

int pk_broker_group_remove(struct pk_broker *broker, const char *key, struct pk_error *err)
{
    int r = pk_broker_check_open(broker, err);
    if (r < 0)
        return r;
    int found = key[0] != '\0' ? PK_FIND(broker->groups, key) : -1;
    if (found < 0)
        return 0;
    uint32_t id = (uint32_t)found;
    /* A tap's program has the group's number in it, which another group may get. */
    for (size_t i = 0; i < PK_TAPS_MAX; i++) {
        if (broker->taps[i].key[0] != '\0' && (broker->taps[i].groups >> id & 1) != 0) {
            pk_fail(err, PK_E_CONFLICT, "the tap %s sends to group %s", broker->taps[i].key, key);
            return pk_hint(err, "detach the tap first");
        }
    }
    const char *user = pk_inline_tap_of_group(broker, id);
    if (user != NULL) {
        pk_fail(err, PK_E_CONFLICT, "the inline tap %s sends through group %s", user, key);
        return pk_hint(err, "detach the tap first");
    }
    if (bpf_map_delete_elem(broker->maps[PK_MAP_TABLES], &id) < 0 && errno != ENOENT)
        return pk_fail_errno(err, errno, "group %s: cannot take its slots out", key);
    pk_free(broker->tables[id]);
    broker->tables[id] = NULL;
    pk_group_wish_done(&broker->wishes[id]);
    r = pk_shed_forget_group(broker, id, err);
    if (r < 0)
        return r;
    struct pk_group_record none = { 0 };
    r = pk_map_write(broker, PK_MAP_GROUPS, id, &none, err);
    if (r >= 0)
        broker->groups[id] = none;
    return r;
}

int pk_group_forget_lane(struct pk_broker *broker, uint32_t lane, struct pk_error *err)
{
    for (uint32_t group = 0; group < PK_GROUPS_MAX; group++) {
        if (broker->tables[group] == NULL)
            continue;
        PK_CLEANUP(pk_free_p)
        struct pk_slots *slots = pk_memdup(broker->tables[group], sizeof *slots);
        if (slots == NULL)
            return pk_no_memory(err);
        bool changed = false;
        for (size_t i = 0; i <= PK_HASH_SLOTS; i++) {
            if (slots->lane[i] == lane) {
                slots->lane[i] = PK_NO_LANE;
                changed = true;
            }
            if (slots->old[i] == lane) {
                slots->old[i] = PK_NO_LANE;
                slots->draining--;
                changed = true;
            }
        }
        pk_group_forget_moves(broker, group, lane);
        if (!changed)
            continue;
        int r = pk_group_swap_table_take(broker, group, slots, err);
        if (r < 0)
            return r;
        (void)PK_TAKE(slots);
    }
    return 0;
}
