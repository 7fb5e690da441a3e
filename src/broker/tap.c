/* SPDX-License-Identifier: Apache-2.0 */
/* Taps: where packets come in, and the decision about one made in user space. */
#include "broker/broker.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include <bpf/bpf.h>

#include "base/alloc.h"
#include "base/fs.h"
#include "base/log.h"
#include "base/time.h"
#include "broker/internal.h"
#include "packet/filter.h"
#include "packet/flow.h"
#include "packet/parse.h"

#define LINK_NAME_SIZE 32

static const char *link_name(uint32_t id, char name[LINK_NAME_SIZE])
{
    snprintf(name, LINK_NAME_SIZE, "tap-%u", id);
    return name;
}

static int write_record(struct pk_broker *broker, uint32_t id, const struct pk_tap_record *record,
                        struct pk_error *err)
{
    int r = pk_map_write(broker, PK_MAP_TAPS, id, record, err);
    if (r >= 0)
        broker->taps[id] = *record;
    return r;
}

/* ---- whose counters are where ---- */

/* Place PK_TENANT_NONE is of what no tenant claims; the others go by name, so that a tenant's
 * counters stay when the order changes. */
uint32_t pk_tap_tenant_counter(struct pk_broker *broker, uint32_t tap, const char *name)
{
    const struct pk_tenant_record *records = broker->tenants[tap];
    for (uint32_t i = 0; name[0] != '\0' && records != NULL && i < PK_TENANT_NONE; i++)
        if (strcmp(records[i].name, name) == 0)
            return i;
    return PK_TENANT_NONE;
}

static int name_counter(struct pk_broker *broker, uint32_t tap, uint32_t place, const char *name,
                        struct pk_error *err)
{
    struct pk_tenant_record record = { .began = (uint64_t)pk_time_now() };
    memcpy(record.name, name, strlen(name)); /* checked with the tenants */
    uint32_t index = tap * PK_CHANNELS + place;
    int r =
        pk_map_zero(broker, PK_MAP_TENANT_COUNTS, index, sizeof(struct pk_tenant_counters), err);
    if (r >= 0)
        r = pk_map_write(broker, PK_MAP_TENANTS, index, &record, err);
    if (r >= 0)
        broker->tenants[tap][place] = record;
    return r;
}

/* A free place. There is none while most of 255 tenants are replaced at once: then one of a tenant
 * that goes, whose last packets are counted for another one. */
static uint32_t place_for_counter(const struct pk_tenant_record *records,
                                  const struct pk_tenants *tenants)
{
    for (uint32_t i = 0; i < PK_TENANT_NONE; i++)
        if (records[i].name[0] == '\0')
            return i;
    for (uint32_t i = 0; i < PK_TENANT_NONE; i++)
        if (pk_tenants_find(tenants, records[i].name) < 0)
            return i;
    return PK_TENANT_NONE - 1; /* cannot be: there are no more tenants than places */
}

/* Before the program that counts for new tenants runs. Those that go keep their places until it
 * does: the one before counts in them. */
static int name_counters(struct pk_broker *broker, uint32_t tap, const struct pk_tenants *tenants,
                         struct pk_error *err)
{
    int r = 0;
    for (size_t i = 0; i < tenants->count && r >= 0; i++)
        if (pk_tap_tenant_counter(broker, tap, tenants->names[i]) == PK_TENANT_NONE)
            r = name_counter(broker, tap, place_for_counter(broker->tenants[tap], tenants),
                             tenants->names[i], err);
    return r;
}

/* Once no program counts for others any more. */
static int forget_counters(struct pk_broker *broker, uint32_t tap, const struct pk_tenants *tenants,
                           struct pk_error *err)
{
    const struct pk_tenant_record *records = broker->tenants[tap];
    int r = 0;
    for (uint32_t i = 0; i < PK_TENANT_NONE && r >= 0; i++)
        if (records[i].name[0] != '\0' && pk_tenants_find(tenants, records[i].name) < 0)
            r = name_counter(broker, tap, i, "", err);
    return r;
}

/* The new program does not run: whose places these were, they stay. */
static void restore_counters(struct pk_broker *broker, uint32_t tap,
                             const struct pk_tenant_record before[])
{
    for (uint32_t i = 0; i < PK_TENANT_NONE; i++)
        if (strcmp(broker->tenants[tap][i].name, before[i].name) != 0)
            (void)name_counter(broker, tap, i, before[i].name, NULL);
}

int pk_tap_load_tenants(struct pk_broker *broker, uint32_t tap, struct pk_error *err)
{
    if (broker->tenants[tap] != NULL)
        return 0;
    struct pk_tenant_record *records = pk_zalloc_array(PK_CHANNELS, sizeof *records);
    if (records == NULL)
        return pk_no_memory(err);
    broker->tenants[tap] = records;
    for (uint32_t i = 0; i < PK_CHANNELS; i++) {
        uint32_t index = tap * PK_CHANNELS + i;
        if (bpf_map_lookup_elem(broker->maps[PK_MAP_TENANTS], &index, &records[i]) < 0)
            return pk_fail_errno(err, errno, "cannot read the pinned state");
        records[i].name[sizeof records[i].name - 1] = '\0';
    }
    return 0;
}

/* ---- attaching ---- */

/* The copier is there before a program that counts on it. */
static int ensure_copier(struct pk_broker *broker, uint32_t id, unsigned ifindex,
                         struct pk_instance_plan *plan, struct pk_error *err)
{
    struct pk_error fault = { 0 };
    if (!plan->needs_copier || pk_copier_is_on(broker, id, ifindex))
        return 0;
    int r = pk_copier_attach(broker, id, ifindex, &fault);
    if (r == PK_E_UNSUPPORTED) {
        /* A kernel without it: what would have gone that way is counted as not sent. */
        pk_log_error(PK_LOG_WARN, "broker", &fault, "large packets reach no second group");
        plan->constants.copies = 0;
        broker->copies_not = true;
        return 0;
    }
    if (r < 0 && err != NULL)
        *err = fault;
    return r;
}

static int renew(struct pk_broker *broker, uint32_t id, const struct pk_tap_setup *setup,
                 struct pk_instance_plan *plan, struct pk_error *err)
{
    char name[LINK_NAME_SIZE];
    PK_CLEANUP(pk_close_p) int program = -1;
    struct pk_tap_record record = broker->taps[id];
    int r = ensure_copier(broker, id, record.ifindex, plan, err);
    if (r >= 0)
        r = pk_instance_load(broker, id, setup, plan, PK_PROGRAM_TAP, &program, err);
    if (r >= 0)
        r = pk_link_renew(broker, link_name(id, name), program, err);
    if (r < 0)
        return r;
    record.build = broker->build;
    record.digest = plan->digest;
    record.groups = plan->groups;
    return write_record(broker, id, &record, err);
}

/* Keeps the program of an interface that has gone, since the kernel takes its time to verify one.
 */
static void park(struct pk_broker *broker, uint32_t id)
{
    char name[LINK_NAME_SIZE];
    if (broker->parked[id] < 0 && broker->taps[id].key[0] != '\0')
        broker->parked[id] = pk_link_program(broker, link_name(id, name));
}

static int load(struct pk_broker *broker, uint32_t id, const struct pk_tap_setup *setup,
                struct pk_instance_plan *plan, int *ret_program, struct pk_error *err)
{
    const struct pk_tap_record *record = &broker->taps[id];
    if (broker->parked[id] < 0 || record->build != broker->build || record->digest != plan->digest)
        return pk_instance_load(broker, id, setup, plan, PK_PROGRAM_TAP, ret_program, err);
    *ret_program = fcntl(broker->parked[id], F_DUPFD_CLOEXEC, 3);
    return *ret_program < 0 ? pk_fail_errno(err, errno, "cannot keep an XDP program") : 0;
}

static int attach(struct pk_broker *broker, uint32_t id, const char *key, unsigned ifindex,
                  const struct pk_tap_setup *setup, struct pk_instance_plan *plan,
                  struct pk_error *err)
{
    char name[LINK_NAME_SIZE];
    PK_CLEANUP(pk_close_p) int program = -1;
    const struct pk_tap_record before = broker->taps[id];
    struct pk_tap_record record = { .build = broker->build,
                                    .digest = plan->digest,
                                    .groups = plan->groups,
                                    .began = before.began,
                                    .ifindex = ifindex,
                                    .mode = PK_XDP_NATIVE };
    if (before.key[0] == '\0')
        record.began = (uint64_t)pk_time_now();
    memcpy(record.key, key, strlen(key)); /* its length is checked */
    park(broker, id);
    int r = ensure_copier(broker, id, ifindex, plan, err);
    if (r >= 0)
        r = load(broker, id, setup, plan, &program, err);
    /* The record comes before the link: an agent that is killed between leaves no link that its
     * successor does not know of. */
    if (r >= 0)
        r = write_record(broker, id, &record, err);
    /* Off an interface that went, or another one: first the program that hands packets over, then
     * the copier that takes them. */
    if (r >= 0)
        r = pk_link_remove(broker, link_name(id, name), err);
    if (r >= 0)
        r = pk_copier_remove(broker, id, ifindex, err);
    enum pk_xdp_mode mode = PK_XDP_NATIVE;
    if (r >= 0)
        r = pk_link_attach(broker, link_name(id, name), ifindex, program, false, &mode, err);
    if (r < 0) {
        bool as_before = pk_link_is_on(broker, link_name(id, name), before.ifindex);
        (void)pk_copier_remove(broker, id, as_before ? before.ifindex : 0, NULL);
        (void)write_record(broker, id, &before, NULL);
        return r;
    }
    pk_close_p(&broker->parked[id]);
    if (mode == PK_XDP_NATIVE)
        return 0;
    record.mode = (uint32_t)mode;
    return write_record(broker, id, &record, err);
}

/* What a tap counts begins at zero. */
static int begin(struct pk_broker *broker, uint32_t id, struct pk_error *err)
{
    const struct pk_handover none = { 0 };
    int r = pk_map_zero(broker, PK_MAP_TAP_COUNTS, id, sizeof(struct pk_tap_counters), err);
    if (r >= 0)
        r = pk_map_zero(broker, PK_MAP_TENANT_COUNTS, id * PK_CHANNELS + PK_TENANT_NONE,
                        sizeof(struct pk_tenant_counters), err);
    return r < 0 ? r : pk_map_write(broker, PK_MAP_HANDOVERS, id, &none, err);
}

/* Its program, in the place of the one before. */
static int put_on(struct pk_broker *broker, uint32_t id, bool is_new, const char *key,
                  unsigned ifindex, struct pk_tap_setup *setup, struct pk_instance_plan *plan,
                  struct pk_error *err)
{
    char name[LINK_NAME_SIZE];
    pk_instance_plan(broker, id, setup, plan);
    bool on = !is_new && pk_link_is_on(broker, link_name(id, name), ifindex);
    if (on && broker->taps[id].build == broker->build && broker->taps[id].digest == plan->digest &&
        (!plan->needs_copier || pk_copier_is_on(broker, id, ifindex)))
        return 0;
    return on ? renew(broker, id, setup, plan, err)
              : attach(broker, id, key, ifindex, setup, plan, err);
}

static int attach_setup(struct pk_broker *broker, uint32_t id, bool is_new, const char *key,
                        unsigned ifindex, struct pk_tap_setup **setup, struct pk_error *err)
{
    int r = pk_tap_load_tenants(broker, id, err);
    if (r >= 0 && is_new)
        r = begin(broker, id, err);
    if (r < 0)
        return r;
    PK_CLEANUP(pk_free_p) struct pk_instance_plan *plan = pk_zalloc(sizeof *plan);
    PK_CLEANUP(pk_free_p)
    struct pk_tenant_record *before =
        pk_memdup(broker->tenants[id], PK_CHANNELS * sizeof *broker->tenants[id]);
    if (plan == NULL || before == NULL)
        return pk_no_memory(err);
    pk_tenants_set_tap((*setup)->tenants, id);
    r = name_counters(broker, id, (*setup)->tenants, err);
    if (r >= 0)
        r = put_on(broker, id, is_new, key, ifindex, *setup, plan, err);
    if (r < 0) {
        restore_counters(broker, id, before);
        return r;
    }
    (*setup)->is_copied = plan->needs_copier && !broker->copies_not;
    pk_tap_setup_free(broker->setups[id]);
    broker->setups[id] = PK_TAKE(*setup);
    r = forget_counters(broker, id, broker->setups[id]->tenants, err);
    if (r >= 0 && !plan->needs_copier)
        r = pk_copier_remove(broker, id, 0, err);
    return r;
}

int pk_broker_tap_attach(struct pk_broker *broker, const char *key, unsigned ifindex,
                         const struct pk_broker_tap_config *config, enum pk_xdp_mode *ret_mode,
                         struct pk_error *err)
{
    PK_CLEANUP(pk_tap_setup_free_p) struct pk_tap_setup *setup = NULL;
    uint32_t id = 0;
    bool is_new = false;
    int r = pk_broker_check_open(broker, err);
    if (r >= 0)
        r = PK_RECORD_TAKE(broker->taps, key, "tap", &id, &is_new, err);
    if (r < 0)
        return r;
    r = pk_tap_setup_new(broker, config, &setup, err);
    if (r >= 0)
        setup->ifindex = ifindex;
    if (r >= 0)
        r = attach_setup(broker, id, is_new, key, ifindex, &setup, err);
    if (r < 0)
        return pk_wrap(err, "tap %s", key);
    *ret_mode = (enum pk_xdp_mode)broker->taps[id].mode;
    return 0;
}

int pk_taps_follow(struct pk_broker *broker, struct pk_error *err)
{
    PK_CLEANUP(pk_free_p) struct pk_instance_plan *plan = pk_zalloc(sizeof *plan);
    if (plan == NULL)
        return pk_no_memory(err);
    for (uint32_t i = 0; i < PK_TAPS_MAX; i++) {
        char name[LINK_NAME_SIZE];
        if (broker->setups[i] == NULL)
            continue;
        pk_instance_plan(broker, i, broker->setups[i], plan);
        if (broker->taps[i].digest == plan->digest ||
            !pk_link_is_on(broker, link_name(i, name), broker->taps[i].ifindex))
            continue;
        int r = renew(broker, i, broker->setups[i], plan, err);
        if (r < 0)
            return pk_wrap(err, "tap %s", broker->taps[i].key);
    }
    return 0;
}

int pk_broker_tap_suspend(struct pk_broker *broker, const char *key, struct pk_error *err)
{
    int r = pk_broker_check_open(broker, err);
    int id = r >= 0 && key[0] != '\0' ? PK_FIND(broker->taps, key) : -1;
    char name[LINK_NAME_SIZE];
    if (id < 0)
        return r;
    park(broker, (uint32_t)id);
    r = pk_link_remove(broker, link_name((uint32_t)id, name), err);
    return r < 0 ? r : pk_copier_remove(broker, (uint32_t)id, 0, err);
}

int pk_broker_tap_detach(struct pk_broker *broker, const char *key, struct pk_error *err)
{
    int r = pk_broker_check_open(broker, err);
    if (r < 0)
        return r;
    int found = key[0] != '\0' ? PK_FIND(broker->taps, key) : -1;
    if (found < 0)
        return 0;
    uint32_t id = (uint32_t)found;
    char name[LINK_NAME_SIZE];
    pk_close_p(&broker->parked[id]);
    r = pk_link_remove(broker, link_name(id, name), err);
    if (r >= 0)
        r = pk_copier_remove(broker, id, 0, err);
    if (r >= 0)
        r = pk_tap_load_tenants(broker, id, err);
    for (uint32_t i = 0; i < PK_TENANT_NONE && r >= 0; i++)
        if (broker->tenants[id][i].name[0] != '\0')
            r = name_counter(broker, id, i, "", err);
    if (r < 0)
        return r;
    pk_tap_setup_free(broker->setups[id]);
    broker->setups[id] = NULL;
    struct pk_tap_record none = { 0 };
    return write_record(broker, id, &none, err);
}

bool pk_broker_tap_intact(struct pk_broker *broker, const char *key, unsigned ifindex)
{
    int id = key[0] != '\0' ? PK_FIND(broker->taps, key) : -1;
    char name[LINK_NAME_SIZE];
    return id >= 0 && !broker->removed &&
           pk_link_is_on(broker, link_name((uint32_t)id, name), ifindex) &&
           (broker->setups[id] == NULL || !broker->setups[id]->is_copied ||
            pk_copier_is_on(broker, (uint32_t)id, ifindex));
}

/* ---- the decision in user space ---- */

struct hashes {
    uint32_t hash[PK_HASH_MODES];
    unsigned reason[PK_HASH_MODES];
    bool known[PK_HASH_MODES];
};

/* Once per mode, since the memory of fragments takes part. */
static void decide_all(struct pk_broker *broker, const struct pk_tap_setup *setup,
                       const void *frame, size_t len, struct hashes *ret_hashes)
{
    for (size_t i = 0; i < setup->target_count; i++) {
        const struct pk_slots *table = broker->tables[setup->targets[i].group];
        enum pk_hash_mode mode = table != NULL ? (enum pk_hash_mode)table->mode : PK_HASH_OUTER;
        if (ret_hashes->known[mode])
            continue;
        ret_hashes->known[mode] = true;
        ret_hashes->reason[mode] = pk_flow_decide(broker->fragments, frame, len, mode, broker->seed,
                                                  &ret_hashes->hash[mode]);
    }
}

static void decide_target(struct pk_broker *broker, const struct pk_tap_target *target,
                          const struct hashes *hashes, bool passes,
                          struct pk_broker_decision *ret_decision)
{
    const struct pk_slots *table = broker->tables[target->group];
    enum pk_hash_mode mode = table != NULL ? (enum pk_hash_mode)table->mode : PK_HASH_OUTER;
    uint32_t slot = pk_reason_is_first_lane(hashes->reason[mode])
                        ? PK_HASH_SLOTS
                        : pk_hash_slot(hashes->hash[mode]);
    uint16_t lane = table != NULL ? table->lane[slot] : PK_NO_LANE;
    ret_decision->targets[ret_decision->count++] = (struct pk_broker_choice){
        .group_key = broker->groups[target->group].key,
        .lane = passes && lane < PK_LANES_MAX ? (int)broker->lanes[lane].index : -1,
        .filtered = !passes,
        .reason = pk_reason_name(hashes->reason[mode]),
    };
}

int pk_broker_decide(struct pk_broker *broker, const char *tap_key, const void *frame, size_t len,
                     struct pk_broker_decision *ret_decision, struct pk_error *err)
{
    int id = tap_key[0] != '\0' ? PK_FIND(broker->taps, tap_key) : -1;
    if (id < 0 || broker->setups[id] == NULL) {
        pk_fail(err, PK_E_NOTFOUND, "there is no tap %s", tap_key);
        return pk_hint(err, "attach it first");
    }
    const struct pk_tap_setup *setup = broker->setups[id];
    struct hashes hashes = { 0 };
    struct pk_flow flow;
    pk_flow_parse(frame, len, PK_HASH_FLOW, &flow);
    unsigned tenant = PK_TENANT_NONE;
    if (setup->tenants->count > 0)
        tenant = pk_tenants_of(setup->tenants, broker->fragments, &flow);
    decide_all(broker, setup, frame, len, &hashes);
    *ret_decision = (struct pk_broker_decision){ .tenant = tenant == PK_TENANT_UNKNOWN ? NULL
                                                           : tenant == PK_TENANT_NONE
                                                               ? ""
                                                               : setup->tenants->names[tenant] };
    for (size_t i = 0; i < setup->target_count; i++) {
        const struct pk_tap_target *target = &setup->targets[i];
        if (target->tenant == tenant)
            decide_target(broker, target, &hashes,
                          target->filter == NULL ||
                              pk_filter_match(target->filter, frame, len, &flow),
                          ret_decision);
    }
    return 0;
}
