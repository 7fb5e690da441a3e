/* SPDX-License-Identifier: Apache-2.0 */
/* Taps: where packets come in. */
#include "broker/broker.h"

#include <stdio.h>
#include <string.h>

#include "base/fs.h"
#include "broker/internal.h"

#define LINK_NAME_SIZE 32

static const char *link_name(uint32_t id, char name[LINK_NAME_SIZE])
{
    snprintf(name, LINK_NAME_SIZE, "tap-%u", id);
    return name;
}

static int load(struct pk_broker *broker, uint32_t id, uint32_t group,
                const struct pk_broker_tunnel *tunnel, int *ret_fd, struct pk_error *err)
{
    struct pk_tunnel_rules rules;
    if (tunnel != NULL)
        pk_tunnel_rules_make(tunnel, &rules);
    struct pk_plane_numbers numbers = { .tap = id,
                                        .group = group,
                                        .tunnel = tunnel != NULL ? &rules : NULL };
    return pk_plane_load(broker, PK_PROGRAM_TAP, numbers, ret_fd, err);
}

static int write_record(struct pk_broker *broker, uint32_t id, const struct pk_tap_record *record,
                        struct pk_error *err)
{
    int r = pk_map_write(broker, PK_MAP_TAPS, id, record, err);
    if (r >= 0)
        broker->taps[id] = *record;
    return r;
}

int pk_tap_renew(struct pk_broker *broker, uint32_t id, struct pk_error *err)
{
    char name[LINK_NAME_SIZE];
    struct pk_tap_record record = broker->taps[id];
    if (record.reserved != 0) /* a tunnel tap, which only the caller can describe */
        return 0;
    if (!pk_link_is_on(broker, link_name(id, name), record.ifindex))
        return 0; /* for the caller's tap_attach() to see */
    PK_CLEANUP(pk_close_p) int program = -1;
    int r = load(broker, id, record.group, NULL, &program, err);
    if (r >= 0)
        r = pk_link_renew(broker, name, program, err);
    if (r < 0)
        return pk_wrap(err, "tap %s", record.key);
    record.build = broker->build;
    return write_record(broker, id, &record, err);
}

int pk_broker_tap_attach(struct pk_broker *broker, const char *key, unsigned ifindex,
                         const struct pk_broker_tap_config *config, enum pk_xdp_mode *ret_mode,
                         struct pk_error *err)
{
    int r = pk_broker_check_open(broker, err);
    if (r < 0)
        return r;
    if (config->tenant_count > 0 || config->target_count != 1)
        return pk_fail(err, PK_E_UNSUPPORTED, "tap %s: one group and no tenants", key);
    const char *group_key = config->targets[0].group_key;
    int group = PK_FIND(broker->groups, group_key);
    if (group_key[0] == '\0' || group < 0) {
        pk_fail(err, PK_E_NOTFOUND, "tap %s: there is no group %s", key, group_key);
        return pk_hint(err, "a group's lanes are set before its taps are attached");
    }
    uint32_t id;
    bool is_new;
    r = PK_RECORD_TAKE(broker->taps, key, "tap", &id, &is_new, err);
    if (r < 0)
        return r;

    char name[LINK_NAME_SIZE];
    struct pk_tap_record record = broker->taps[id];
    bool on = !is_new && pk_link_is_on(broker, link_name(id, name), ifindex);
    uint32_t digest = config->tunnel != NULL ? pk_tunnel_digest(config->tunnel) : 0;
    if (on && record.group == (uint32_t)group && record.build == broker->build &&
        record.reserved == digest) {
        *ret_mode = (enum pk_xdp_mode)record.mode;
        return 0;
    }
    PK_CLEANUP(pk_close_p) int program = -1;
    r = load(broker, id, (uint32_t)group, config->tunnel, &program, err);
    if (r < 0)
        return pk_wrap(err, "tap %s", key);
    if (is_new)
        r = pk_map_zero(broker, PK_MAP_TAP_COUNTS, id, sizeof(struct pk_tap_counters), err);
    /* The record comes before the link: an agent that is killed between leaves no link that its
     * successor does not know of. */
    struct pk_tap_record before = record;
    memset(record.key, 0, sizeof record.key);
    memcpy(record.key, key, strlen(key)); /* its length is checked */
    record.build = broker->build;
    record.ifindex = ifindex;
    record.group = (uint32_t)group;
    record.reserved = digest;
    if (!on)
        record.mode = PK_XDP_NATIVE;
    if (r >= 0 && !on)
        r = write_record(broker, id, &record, err);
    if (r < 0)
        return pk_wrap(err, "tap %s", key);

    enum pk_xdp_mode mode = (enum pk_xdp_mode)record.mode;
    if (on)
        r = pk_link_renew(broker, name, program, err);
    else
        r = pk_link_attach(broker, link_name(id, name), ifindex, program, false, &mode, err);
    if (r < 0) {
        (void)write_record(broker, id, &before, NULL);
        return pk_wrap(err, "tap %s", key);
    }
    if (on || mode != (enum pk_xdp_mode)record.mode) {
        record.mode = (uint32_t)mode;
        r = write_record(broker, id, &record, err);
        if (r < 0)
            return r;
    }
    *ret_mode = mode;
    return 0;
}

int pk_broker_tap_suspend(struct pk_broker *broker, const char *key, struct pk_error *err)
{
    int r = pk_broker_check_open(broker, err);
    int id = r >= 0 && key[0] != '\0' ? PK_FIND(broker->taps, key) : -1;
    char name[LINK_NAME_SIZE];
    return id < 0 ? r : pk_link_remove(broker, link_name((uint32_t)id, name), err);
}

int pk_broker_tap_detach(struct pk_broker *broker, const char *key, struct pk_error *err)
{
    int r = pk_broker_check_open(broker, err);
    if (r < 0)
        return r;
    int id = key[0] != '\0' ? PK_FIND(broker->taps, key) : -1;
    if (id < 0)
        return 0;
    char name[LINK_NAME_SIZE];
    r = pk_link_remove(broker, link_name((uint32_t)id, name), err);
    if (r < 0)
        return r;
    struct pk_tap_record none = { 0 };
    return write_record(broker, (uint32_t)id, &none, err);
}

bool pk_broker_tap_intact(struct pk_broker *broker, const char *key, unsigned ifindex)
{
    int id = key[0] != '\0' ? PK_FIND(broker->taps, key) : -1;
    char name[LINK_NAME_SIZE];
    return id >= 0 && !broker->removed &&
           pk_link_is_on(broker, link_name((uint32_t)id, name), ifindex);
}
