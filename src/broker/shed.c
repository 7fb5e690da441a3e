/* SPDX-License-Identifier: Apache-2.0 */
#include "broker/shed.h"

#include <errno.h>
#include <string.h>

#include <bpf/bpf.h>

#include "base/alloc.h"
#include "broker/bpf/shunt_abi.h"
#include "broker/internal.h"

/* Slots are taken in steps of this, which has no factor in common with their number (a prime): a
 * flow's neighbours are not shed with it, and any number of slots is spread over all of them. */
#define STRIDE 40503u /* about PK_HASH_SLOTS / golden ratio */

static bool is_shed(const struct pk_shed_slots *shed, size_t slot)
{
    return (shed->bits[slot / 64] >> (slot % 64) & 1) != 0;
}

/* The copy of what is in force, read when it is asked for first. */
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
        pk_free(shed);
        return NULL;
    }
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
    if (group < 0)
        return pk_fail(err, PK_E_NOTFOUND, "there is no group %s", key);
    *ret_group = (uint32_t)group;
    *ret_shed = shed_of(broker, (uint32_t)group, err);
    return *ret_shed != NULL ? 0 : err != NULL && err->code < 0 ? err->code : PK_E_IO;
}

static int write_back(struct pk_broker *broker, uint32_t group, struct pk_error *err)
{
    int r = pk_map_write(broker, PK_MAP_SHEDS, group, broker->sheds[group], err);
    if (r < 0) { /* what is in force is read again */
        pk_free(broker->sheds[group]);
        broker->sheds[group] = NULL;
    }
    return r;
}

int pk_broker_shed(struct pk_broker *broker, const char *key, const bool *lanes, size_t lane_count,
                   size_t count, size_t *ret_done, struct pk_error *err)
{
    uint32_t group = 0;
    struct pk_shed_slots *shed = NULL;
    int r = find(broker, key, &group, &shed, err);
    if (r < 0)
        return r;
    const struct pk_slots *table = broker->tables[group];
    size_t done = 0, slot = 0;
    for (size_t i = 0; table != NULL && i < PK_HASH_SLOTS && done < count; i++) {
        slot = (slot + STRIDE) % PK_HASH_SLOTS;
        uint16_t lane = table->lane[slot];
        if (lane >= PK_LANES_MAX || is_shed(shed, slot))
            continue;
        uint32_t index = broker->lanes[lane].index;
        if (lanes != NULL && (index >= lane_count || !lanes[index]))
            continue;
        shed->bits[slot / 64] |= 1ull << (slot % 64);
        done++;
    }
    shed->count += (uint32_t)done;
    if (done > 0)
        r = write_back(broker, group, err);
    if (r == 0)
        *ret_done = done;
    return r;
}

int pk_broker_unshed(struct pk_broker *broker, const char *key, size_t count, struct pk_error *err)
{
    uint32_t group = 0;
    struct pk_shed_slots *shed = NULL;
    int r = find(broker, key, &group, &shed, err);
    if (r < 0 || shed->count == 0)
        return r;
    size_t slot = 0;
    for (size_t i = 0; i < PK_HASH_SLOTS && count > 0 && shed->count > 0; i++) {
        slot = (slot + STRIDE) % PK_HASH_SLOTS;
        if (!is_shed(shed, slot))
            continue;
        shed->bits[slot / 64] &= ~(1ull << (slot % 64));
        shed->count--;
        count--;
    }
    return write_back(broker, group, err);
}

size_t pk_broker_shed_count(struct pk_broker *broker, const char *key)
{
    uint32_t group = 0;
    struct pk_shed_slots *shed = NULL;
    return find(broker, key, &group, &shed, NULL) == 0 ? shed->count : 0;
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
