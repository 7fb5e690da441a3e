/* SPDX-License-Identifier: Apache-2.0 */
#include "broker/shed.h"

#include <errno.h>
#include <string.h>

#include <bpf/bpf.h>

#include "base/alloc.h"
#include "base/time.h"
#include "broker/bpf/shunt_abi.h"
#include "broker/internal.h"

/* Slots are taken in steps of this, which has no factor in common with their number (a prime): a
 * flow's neighbours are not shed with it, and any number of slots is spread over all of them. */
#define STRIDE 40503u /* about PK_HASH_SLOTS / golden ratio */

static bool has(const __u64 *bits, size_t slot)
{
    return (bits[slot / 64] >> (slot % 64) & 1) != 0;
}

/* The copy of what is in force, read when it is asked for first. What has run out while no agent
 * was there is over. */
static struct pk_shed_slots *shed_of(struct pk_broker *broker, uint32_t group, struct pk_error *err)
{
    if (broker->sheds[group] != NULL)
        return broker->sheds[group];
    struct pk_shed_slots *shed = pk_zalloc(sizeof *shed);
    if (shed == NULL) {
        (void)pk_no_memory(err);
        return NULL;
    }
    if (bpf_map_lookup_elem(broker->maps[PK_MAP_SHEDS], &group, shed) < 0) {
        (void)pk_fail_errno(err, errno, "cannot read what is shed");
        (void)pk_hint(err, "see 'picket doctor'");
        pk_free(shed);
        return NULL;
    }
    if (shed->until <= (uint64_t)pk_time_monotonic())
        memset(shed, 0, sizeof *shed);
    broker->sheds[group] = shed;
    return shed;
}

static int find(struct pk_broker *broker, const char *key, uint32_t *ret_group,
                struct pk_shed_slots **ret_shed, struct pk_error *err)
{
    int r = pk_broker_check_open(broker, err);
    if (r < 0)
        return r;
    int group = key[0] != '\0' ? PK_FIND(broker->groups, key) : -1;
    if (group < 0) {
        (void)pk_fail(err, PK_E_NOTFOUND, "there is no group %s", key);
        return pk_hint(err, "set the group first");
    }
    *ret_group = (uint32_t)group;
    *ret_shed = shed_of(broker, (uint32_t)group, err);
    return *ret_shed != NULL ? 0 : err != NULL && err->code < 0 ? err->code : PK_E_IO;
}

static int write_back(struct pk_broker *broker, uint32_t group, struct pk_error *err)
{
    broker->sheds[group]->until = (uint64_t)(pk_time_monotonic() + PK_SHED_LIFE);
    int r = pk_map_write(broker, PK_MAP_SHEDS, group, broker->sheds[group], err);
    if (r < 0) { /* what is in force is read again */
        pk_free(broker->sheds[group]);
        broker->sheds[group] = NULL;
    }
    return r;
}

/* A slot that still gets its packets, to one of the lanes. */
static bool is_open(const struct pk_broker *broker, uint32_t group,
                    const struct pk_shed_slots *shed, size_t slot, const bool *lanes,
                    size_t lane_count)
{
    uint16_t lane = broker->tables[group]->lane[slot];
    if (lane >= PK_LANES_MAX || has(shed->bits, slot))
        return false;
    uint32_t index = broker->lanes[lane].index;
    return lanes == NULL || (index < lane_count && lanes[index]);
}

int pk_broker_shed(struct pk_broker *broker, const char *key, const bool *lanes, size_t lane_count,
                   double share, enum pk_shed_reason reason, size_t *ret_done, struct pk_error *err)
{
    uint32_t group = 0;
    struct pk_shed_slots *shed = NULL;
    int r = find(broker, key, &group, &shed, err);
    if (r < 0)
        return r;
    size_t open = 0, done = 0, slot = 0;
    for (size_t i = 0; broker->tables[group] != NULL && i < PK_HASH_SLOTS; i++)
        open += is_open(broker, group, shed, i, lanes, lane_count);
    double wanted = (double)open * PK_MIN(PK_MAX(share, 0), 1);
    size_t count = PK_MIN(PK_MAX((size_t)wanted, 1u), open);
    for (size_t i = 0; i < PK_HASH_SLOTS && done < count; i++) {
        slot = (slot + STRIDE) % PK_HASH_SLOTS;
        if (!is_open(broker, group, shed, slot, lanes, lane_count))
            continue;
        shed->bits[slot / 64] |= 1ull << (slot % 64);
        if (reason == PK_SHED_YIELDED)
            shed->yields[slot / 64] |= 1ull << (slot % 64);
        done++;
    }
    shed->count += (uint32_t)done;
    shed->yielded += reason == PK_SHED_YIELDED ? (uint32_t)done : 0;
    if (done > 0)
        r = write_back(broker, group, err);
    if (r == 0)
        *ret_done = done;
    return r;
}

int pk_broker_unshed(struct pk_broker *broker, const char *key, size_t count,
                     enum pk_shed_reason reason, struct pk_error *err)
{
    uint32_t group = 0;
    struct pk_shed_slots *shed = NULL;
    int r = find(broker, key, &group, &shed, err);
    if (r < 0 || shed->count == 0)
        return r;
    size_t slot = 0;
    for (size_t i = 0; i < PK_HASH_SLOTS && count > 0; i++) {
        slot = (slot + STRIDE) % PK_HASH_SLOTS;
        bool yielded = has(shed->yields, slot);
        if (!has(shed->bits, slot) || yielded != (reason == PK_SHED_YIELDED))
            continue;
        shed->bits[slot / 64] &= ~(1ull << (slot % 64));
        shed->yields[slot / 64] &= ~(1ull << (slot % 64));
        shed->count--;
        shed->yielded -= yielded;
        count--;
    }
    return write_back(broker, group, err);
}

size_t pk_broker_shed_count(struct pk_broker *broker, const char *key, enum pk_shed_reason reason)
{
    uint32_t group = 0;
    struct pk_shed_slots *shed = NULL;
    if (find(broker, key, &group, &shed, NULL) < 0)
        return 0;
    return reason == PK_SHED_YIELDED ? shed->yielded : shed->count - shed->yielded;
}

int pk_broker_shed_renew(struct pk_broker *broker, const char *key, struct pk_error *err)
{
    uint32_t group = 0;
    struct pk_shed_slots *shed = NULL;
    int r = find(broker, key, &group, &shed, err);
    if (r < 0 || shed->count == 0)
        return r;
    uint64_t now = (uint64_t)pk_time_monotonic();
    if (shed->until <= now) /* the agent was stopped for so long: it ended by itself */
        memset(shed, 0, sizeof *shed);
    return shed->until > now + PK_SHED_LIFE * 3 / 4 ? 0 : write_back(broker, group, err);
}

size_t pk_broker_shed_of_lane(struct pk_broker *broker, const char *key, unsigned index,
                              size_t *ret_slots)
{
    uint32_t group = 0;
    struct pk_shed_slots *shed = NULL;
    size_t count = 0;
    *ret_slots = 0;
    if (find(broker, key, &group, &shed, NULL) < 0 || broker->tables[group] == NULL)
        return 0;
    for (size_t i = 0; shed->count > 0 && i < PK_HASH_SLOTS; i++) {
        uint16_t lane = broker->tables[group]->lane[i];
        if (lane >= PK_LANES_MAX || broker->lanes[lane].index != index)
            continue;
        (*ret_slots)++;
        count += has(shed->bits, i);
    }
    return count;
}

int pk_shed_forget_group(struct pk_broker *broker, uint32_t group, struct pk_error *err)
{
    struct pk_shed_slots *none = pk_zalloc(sizeof *none);
    if (none == NULL)
        return pk_no_memory(err);
    pk_free(broker->sheds[group]);
    broker->sheds[group] = none;
    return write_back(broker, group, err);
}
