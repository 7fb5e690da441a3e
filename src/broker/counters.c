/* SPDX-License-Identifier: Apache-2.0 */
/* The kernel's counters as JSON. */
#include "broker/broker.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "base/alloc.h"
#include "broker/internal.h"
#include "packet/flow.h"

int pk_counters_sum(struct pk_broker *broker, enum pk_plane_map map, uint32_t index,
                    uint64_t *ret_sums, size_t values, struct pk_error *err)
{
    int cpus = libbpf_num_possible_cpus();
    if (cpus < 1)
        return pk_fail(err, PK_E_INTERNAL, "cannot tell the number of CPUs");
    PK_CLEANUP(pk_free_p)
    uint64_t *each = pk_zalloc_array((size_t)cpus, values * sizeof *each);
    if (each == NULL)
        return pk_no_memory(err);
    if (bpf_map_lookup_elem(broker->maps[map], &index, each) < 0)
        return pk_fail_errno(err, errno, "cannot read the counters");
    memset(ret_sums, 0, values * sizeof *ret_sums);
    for (size_t i = 0; i < (size_t)cpus * values; i++)
        ret_sums[i % values] += each[i];
    return 0;
}

static int add_tenants(struct pk_broker *broker, uint32_t tap, json_t *list, struct pk_error *err)
{
    const struct pk_tenant_record *records = broker->tenants[tap];
    bool any = false;
    for (uint32_t i = 0; i < PK_CHANNELS && records != NULL; i++) {
        struct pk_tenant_counters count;
        uint32_t index = tap * PK_CHANNELS + i;
        any |= records[i].name[0] != '\0';
        if (records[i].name[0] == '\0' && (i != PK_TENANT_NONE || !any))
            continue;
        int r = PK_COUNTERS_SUM(broker, PK_MAP_TENANT_COUNTS, index, &count, err);
        if (r < 0)
            return r;
        uint64_t began = i != PK_TENANT_NONE ? records[i].began : broker->taps[tap].began;
        json_array_append_new(list, json_pack("{s:s, s:I, s:I, s:I}", "name", records[i].name,
                                              "packets", (json_int_t)count.packets, "bytes",
                                              (json_int_t)count.bytes, "began", (json_int_t)began));
    }
    return 0;
}

static int add_tap(struct pk_broker *broker, uint32_t id, json_t *list, struct pk_error *err)
{
    struct pk_tap_counters count;
    int r = PK_COUNTERS_SUM(broker, PK_MAP_TAP_COUNTS, id, &count, err);
    if (r < 0)
        return r;
    json_t *reasons = json_object();
    for (unsigned i = 1; i < PK_REASON_COUNT; i++)
        if (count.reasons[i] != 0)
            json_object_set_new(reasons, pk_reason_name(i),
                                json_integer((json_int_t)count.reasons[i]));
    struct pk_handover over = { 0 };
    if (bpf_map_lookup_elem(broker->maps[PK_MAP_HANDOVERS], &id, &over) < 0) {
        json_decref(reasons);
        return pk_fail_errno(err, errno, "cannot read the counters");
    }
    json_t *tenants = json_array();
    json_array_append_new(
        list,
        json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:o, s:o}", "key",
                  broker->taps[id].key, "began", (json_int_t)broker->taps[id].began, "packets",
                  (json_int_t)count.packets, "bytes", (json_int_t)count.bytes, "redirected",
                  (json_int_t)count.redirected, "passed", (json_int_t)count.passed, "dropped",
                  (json_int_t)count.dropped, "unclaimed", (json_int_t)count.unclaimed, "copiesLost",
                  (json_int_t)over.lost, "reasons", reasons, "tenants", tenants));
    return add_tenants(broker, id, tenants, err);
}

/* A count and its bytes, by the outcome's name. */
static void set_count(json_t *to, const char *name, uint64_t packets, uint64_t bytes)
{
    char key[32];
    (void)snprintf(key, sizeof key, "%sBytes", name);
    json_object_set_new(to, name, json_integer((json_int_t)packets));
    json_object_set_new(to, key, json_integer((json_int_t)bytes));
}

static int add_group(struct pk_broker *broker, uint32_t id, json_t *list, struct pk_error *err)
{
    static const char *const names[PK_OUTCOMES] = {
        [PK_OUTCOME_FILTERED] = "filtered", [PK_OUTCOME_SHUNTED] = "shunted",
        [PK_OUTCOME_SHED] = "shed",         [PK_OUTCOME_YIELDED] = "yielded",
        [PK_OUTCOME_NO_LANE] = "noLane",    [PK_OUTCOME_COPIED] = "copied",
    };
    struct pk_group_counters count;
    int r = PK_COUNTERS_SUM(broker, PK_MAP_GROUP_COUNTS, id, &count, err);
    if (r < 0)
        return r;
    const struct pk_count *of = count.outcomes, *copied = &of[PK_OUTCOME_COPIED];
    const struct pk_count *handed = &of[PK_OUTCOME_HANDED];
    json_t *group = json_pack("{s:s, s:I, s:I, s:I, s:I}", "key", broker->groups[id].key, "began",
                              (json_int_t)broker->groups[id].began, "generation",
                              (json_int_t)broker->groups[id].generation, "packets",
                              (json_int_t)of[PK_OUTCOME_ALL].packets, "bytes",
                              (json_int_t)of[PK_OUTCOME_ALL].bytes);
    for (size_t i = 0; i < PK_OUTCOMES; i++)
        if (names[i] != NULL)
            set_count(group, names[i], of[i].packets, of[i].bytes);
    set_count(group, "sent", of[PK_OUTCOME_SENT].packets + copied->packets,
              of[PK_OUTCOME_SENT].bytes + copied->bytes);
    /* What was handed over and not copied was lost on that way. */
    set_count(group, "notSent",
              of[PK_OUTCOME_NOT_SENT].packets + handed->packets -
                  PK_MIN(copied->packets, handed->packets),
              of[PK_OUTCOME_NOT_SENT].bytes + handed->bytes - PK_MIN(copied->bytes, handed->bytes));
    json_t *ranges = json_array();
    for (uint32_t i = 0; i < PK_RANGES; i++)
        json_array_append_new(ranges, json_pack("{s:I, s:I}", "packets",
                                                (json_int_t)count.ranges[i].packets, "bytes",
                                                (json_int_t)count.ranges[i].bytes));
    json_object_set_new(group, "ranges", ranges);
    json_array_append_new(list, group);
    return 0;
}

int pk_broker_lane_count(struct pk_broker *broker, const char *key,
                         struct pk_broker_lane_count *ret_count, struct pk_error *err)
{
    int lane = key[0] != '\0' ? PK_FIND(broker->lanes, key) : -1;
    struct pk_lane_counters arrived, sent;
    int r = pk_broker_check_open(broker, err);
    if (r >= 0 && lane < 0)
        r = pk_fail(err, PK_E_NOTFOUND, "there is no lane %s", key);
    if (r >= 0)
        r = PK_COUNTERS_SUM(broker, PK_MAP_LANE_COUNTS, (uint32_t)lane, &arrived,
                            err); /* first, as below */
    if (r >= 0)
        r = PK_COUNTERS_SUM(broker, PK_MAP_LANE_COUNTS, (uint32_t)lane, &sent, err);
    if (r < 0)
        return r;
    *ret_count = (struct pk_broker_lane_count){ .sent = sent.sent,
                                                .sent_bytes = sent.sent_bytes,
                                                .arrived = arrived.packets,
                                                .arrived_bytes = arrived.bytes,
                                                .unread = arrived.unread,
                                                .canaries = arrived.canaries };
    return 0;
}

/* How many slots each lane has. Once for all lanes: a group has 65,537 of them. */
static void count_slots(const struct pk_broker *broker, uint32_t ret_slots[PK_LANES_MAX])
{
    memset(ret_slots, 0, PK_LANES_MAX * sizeof *ret_slots);
    for (size_t group = 0; group < PK_GROUPS_MAX; group++) {
        const struct pk_slots *table = broker->tables[group];
        for (size_t i = 0; table != NULL && i < PK_HASH_SLOTS; i++)
            if (table->lane[i] < PK_LANES_MAX)
                ret_slots[table->lane[i]]++;
    }
}

static int add_lane(struct pk_broker *broker, uint32_t id, uint32_t slots, json_t *list,
                    struct pk_error *err)
{
    /* What arrived is read before what was sent: what comes between counts as under way, and never
     * as arrived without having been sent. */
    struct pk_lane_counters arrived, sent;
    int r = PK_COUNTERS_SUM(broker, PK_MAP_LANE_COUNTS, id, &arrived, err);
    if (r >= 0)
        r = PK_COUNTERS_SUM(broker, PK_MAP_LANE_COUNTS, id, &sent, err);
    if (r < 0)
        return r;
    uint64_t lost = sent.sent > arrived.packets ? sent.sent - arrived.packets : 0;
    json_array_append_new(
        list, json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "key",
                        broker->lanes[id].key, "began", (json_int_t)broker->lanes[id].began,
                        "slots", (json_int_t)slots, "sent", (json_int_t)sent.sent, "sentBytes",
                        (json_int_t)sent.sent_bytes, "packets", (json_int_t)arrived.packets,
                        "bytes", (json_int_t)arrived.bytes, "ringDropped", (json_int_t)lost,
                        "unread", (json_int_t)arrived.unread, "blocked",
                        (json_int_t)arrived.blocked, "canaries", (json_int_t)arrived.canaries));
    return 0;
}

json_t *pk_broker_counters(struct pk_broker *broker, struct pk_error *err)
{
    if (pk_broker_check_open(broker, err) < 0)
        return NULL;
    json_t *taps = json_array(), *groups = json_array(), *lanes = json_array();
    json_t *all = json_pack("{s:o, s:o, s:o}", "taps", taps, "groups", groups, "lanes", lanes);
    int r = all != NULL ? 0 : pk_no_memory(err);
    for (uint32_t i = 0; i < PK_TAPS_MAX && r >= 0; i++)
        if (broker->taps[i].key[0] != '\0')
            r = add_tap(broker, i, taps, err);
    for (uint32_t i = 0; i < PK_GROUPS_MAX && r >= 0; i++)
        if (broker->groups[i].key[0] != '\0')
            r = add_group(broker, i, groups, err);
    uint32_t slots[PK_LANES_MAX];
    count_slots(broker, slots);
    for (uint32_t i = 0; i < PK_LANES_MAX && r >= 0; i++)
        if (broker->lanes[i].key[0] != '\0')
            r = add_lane(broker, i, slots[i], lanes, err);
    if (r >= 0)
        r = pk_inline_add_counters(broker, all, err);
    if (r < 0) {
        json_decref(all);
        return NULL;
    }
    return all;
}
