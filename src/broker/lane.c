/* SPDX-License-Identifier: Apache-2.0 */
/* Lanes: a veth pair each, whose outer end gets packets and whose inner end a tool reads. */
#include "broker/broker.h"

#include <errno.h>
#include <net/if.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>

#include <bpf/bpf.h>

#include "base/fs.h"
#include "base/str.h"
#include "base/time.h"
#include "broker/internal.h"

#define LINK_NAME_SIZE 32

static const char *link_name(uint32_t id, bool inner, char name[LINK_NAME_SIZE])
{
    snprintf(name, LINK_NAME_SIZE, inner ? "lane-%u-in" : "lane-%u-guard", id);
    return name;
}

static int write_record(struct pk_broker *broker, uint32_t id, const struct pk_lane_record *record,
                        struct pk_error *err)
{
    int r = pk_map_write(broker, PK_MAP_LANES, id, record, err);
    if (r >= 0)
        broker->lanes[id] = *record;
    return r;
}

/* ---- one end ---- */

static int attach_here(struct pk_lane_end *end, struct pk_error *err)
{
    if (end->ifindex == 0) {
        end->ifindex = if_nametoindex(end->inner_name);
        if (end->ifindex == 0) {
            pk_fail(err, PK_E_NOTFOUND, "there is no interface %s in the lane's namespace",
                    end->inner_name);
            return pk_hint(err, "remove the lane and make it again");
        }
    }
    bool on = pk_link_is_on(end->broker, end->link, end->ifindex);
    if (on && !end->renew)
        return 0;
    PK_CLEANUP(pk_close_p) int program = -1;
    int r = pk_plane_load(end->broker, end->program, end->numbers, &program, err);
    if (r < 0)
        return r;
    return on ? pk_link_renew(end->broker, end->link, program, err)
              : pk_link_attach(end->broker, end->link, end->ifindex, program, true, NULL, err);
}

struct entry {
    struct pk_lane_end *end;
    struct pk_error *err;
    int r;
};

/* An interface's number means something only in its own namespace, for XDP links as for all else. A
 * thread of its own goes there, so that the caller's namespace is never in doubt. */
static void *attach_in_namespace(void *arg)
{
    struct entry *entry = arg;
    if (setns(entry->end->netns_fd, CLONE_NEWNET) < 0) {
        entry->r = pk_fail_errno(entry->err, errno, "cannot enter the lane's network namespace");
        if (errno == EPERM)
            pk_hint(entry->err, "run as root, or with CAP_SYS_ADMIN");
        return NULL;
    }
    entry->r = attach_here(entry->end, entry->err);
    return NULL;
}

int pk_lane_end_attach(struct pk_lane_end *end, struct pk_error *err)
{
    if (end->inner_name == NULL)
        return attach_here(end, err);
    pthread_t thread;
    struct entry entry = { .end = end, .err = err };
    int r = pthread_create(&thread, NULL, attach_in_namespace, &entry);
    if (r != 0)
        return pk_fail_errno(err, r, "cannot start a thread");
    pthread_join(thread, NULL);
    return entry.r;
}

/* ---- lanes ---- */

int pk_lane_renew(struct pk_broker *broker, uint32_t id, struct pk_error *err)
{
    struct pk_lane_record record = broker->lanes[id];
    int r = 0;
    /* Renewing needs no namespace: the link knows its interface. */
    if (pk_inline_is_lane(broker, id))
        r = pk_inline_lane_renew(broker, id, err);
    if (r < 0)
        return pk_wrap(err, "lane %s", record.key);
    for (unsigned inner = 0; inner < 2 && !pk_inline_is_lane(broker, id); inner++) {
        char name[LINK_NAME_SIZE];
        if (!pk_link_is_on(broker, link_name(id, inner, name),
                           inner ? record.inner_ifindex : record.host_ifindex))
            continue;
        PK_CLEANUP(pk_close_p) int program = -1;
        struct pk_plane_numbers numbers = { .lane = id };
        r = pk_plane_load(broker, inner ? PK_PROGRAM_LANE_IN : PK_PROGRAM_LANE_GUARD, numbers,
                          &program, err);
        if (r >= 0)
            r = pk_link_renew(broker, name, program, err);
        if (r < 0)
            return pk_wrap(err, "lane %s", record.key);
    }
    record.build = broker->build;
    return write_record(broker, id, &record, err);
}

static int parse_index(const char *key, uint32_t *ret_index, struct pk_error *err)
{
    const char *slash = strrchr(key, '/');
    uint64_t index = 0;
    if (slash == NULL || pk_parse_u64(slash + 1, &index, NULL) < 0 || index > UINT32_MAX)
        return pk_fail(err, PK_E_USAGE, "a lane's key is fleet/group/number: \"%.60s\"", key);
    *ret_index = (uint32_t)index;
    return 0;
}

/* The number's counters begin at zero, and no tool reads it yet. */
static int begin(struct pk_broker *broker, uint32_t id, const char *key, uint32_t index,
                 struct pk_error *err)
{
    uint32_t no = 0;
    struct pk_lane_record record = { .index = index,
                                     .build = broker->build,
                                     .began = (uint64_t)pk_time_now() };
    memcpy(record.key, key, strlen(key)); /* its length is checked */
    int r = pk_map_zero(broker, PK_MAP_LANE_COUNTS, id, sizeof(struct pk_lane_counters), err);
    if (r >= 0)
        r = pk_map_write(broker, PK_MAP_READERS, id, &no, err);
    return r < 0 ? r : write_record(broker, id, &record, err);
}

int pk_lane_take(struct pk_broker *broker, const char *key, uint32_t *ret_id, struct pk_error *err)
{
    uint32_t index = 0;
    bool is_new;
    int r = pk_broker_check_open(broker, err);
    if (r >= 0)
        r = parse_index(key, &index, err);
    if (r >= 0)
        r = PK_RECORD_TAKE(broker->lanes, key, "lane", ret_id, &is_new, err);
    if (r >= 0 && is_new)
        r = begin(broker, *ret_id, key, index, err);
    return r;
}

int pk_lane_done(struct pk_broker *broker, uint32_t id, unsigned host_ifindex,
                 unsigned inner_ifindex, struct pk_error *err)
{
    struct pk_lane_record record = broker->lanes[id];
    record.host_ifindex = host_ifindex;
    record.inner_ifindex = inner_ifindex;
    record.build = broker->build;
    return write_record(broker, id, &record, err);
}

int pk_broker_lane_add(struct pk_broker *broker, const char *key, unsigned host_ifindex,
                       int netns_fd, const char *inner_name, struct pk_error *err)
{
    uint32_t id;
    int r = pk_lane_take(broker, key, &id, err);
    if (r < 0)
        return r;
    if (pk_inline_is_lane(broker, id))
        return pk_fail(err, PK_E_CONFLICT, "lane %s is inline", key);
    char name[LINK_NAME_SIZE];
    struct pk_lane_end end = { .broker = broker,
                               .link = link_name(id, true, name),
                               .program = PK_PROGRAM_LANE_IN,
                               .numbers = { .lane = id },
                               .inner_name = inner_name,
                               .netns_fd = netns_fd,
                               .renew = broker->lanes[id].build != broker->build };
    r = pk_lane_end_attach(&end, err);
    if (r < 0)
        return pk_wrap(err, "lane %s", key);
    unsigned inner_ifindex = end.ifindex;
    end.link = link_name(id, false, name);
    end.program = PK_PROGRAM_LANE_GUARD;
    end.inner_name = NULL;
    end.ifindex = host_ifindex;
    r = pk_lane_end_attach(&end, err);
    if (r < 0)
        return pk_wrap(err, "lane %s", key);
    pk_copier_keep_tags(host_ifindex);
    /* Last, since packets come from here on. */
    uint32_t port = 0;
    if (bpf_map_lookup_elem(broker->maps[PK_MAP_PORTS], &id, &port) < 0 || port != host_ifindex)
        r = pk_map_write(broker, PK_MAP_PORTS, id, &host_ifindex, err);
    bool again =
        broker->lanes[id].host_ifindex != 0 && broker->lanes[id].host_ifindex != host_ifindex;
    if (r >= 0)
        r = pk_lane_done(broker, id, host_ifindex, inner_ifindex, err);
    /* Where several groups get a packet, the tap's program knows the interface itself. */
    if (r >= 0 && again)
        r = pk_taps_follow(broker, err);
    return r < 0 ? pk_wrap(err, "lane %s", key) : 0;
}

int pk_broker_lane_remove(struct pk_broker *broker, const char *key, struct pk_error *err)
{
    int r = pk_broker_check_open(broker, err);
    if (r < 0)
        return r;
    int found = key[0] != '\0' ? PK_FIND(broker->lanes, key) : -1;
    if (found < 0)
        return 0;
    uint32_t id = (uint32_t)found;
    /* No table may name a number that another lane can get. */
    r = pk_group_forget_lane(broker, id, err);
    if (r < 0)
        return r;
    if (bpf_map_delete_elem(broker->maps[PK_MAP_PORTS], &id) < 0 && errno != ENOENT)
        return pk_fail_errno(err, errno, "lane %s: cannot take its port out", key);
    if (pk_inline_is_lane(broker, id))
        r = pk_inline_lane_remove(broker, id, err);
    for (unsigned inner = 0; inner < 2 && r >= 0; inner++) {
        char name[LINK_NAME_SIZE];
        r = pk_link_remove(broker, link_name(id, inner, name), err);
    }
    if (r < 0)
        return r;
    struct pk_lane_record none = { 0 };
    return write_record(broker, id, &none, err);
}

uint64_t pk_broker_canary_mark(const struct pk_broker *broker)
{
    /* splitmix64 (Vigna, public domain), two steps from the seed: a tool that is shown frames of
     * one kind of ours does not learn of the other, nor of the seed. */
    uint64_t x = broker->seed + 2 * 0x9e3779b97f4a7c15u, mark;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    x ^= x >> 31;
    uint8_t bytes[sizeof mark];
    memcpy(bytes, &x, sizeof bytes);
    bytes[0] = bytes[6] = 2; /* unicast, of local meaning: target, and the source's start */
    memcpy(&mark, bytes, sizeof mark);
    return mark;
}

bool pk_broker_lane_intact(struct pk_broker *broker, const char *key)
{
    int found = key[0] != '\0' ? PK_FIND(broker->lanes, key) : -1;
    if (found < 0 || broker->removed)
        return false;
    uint32_t id = (uint32_t)found, port = 0;
    const struct pk_lane_record *record = &broker->lanes[id];
    if (pk_inline_is_lane(broker, id))
        return pk_inline_lane_intact(broker, id);
    char name[LINK_NAME_SIZE];
    return pk_link_is_on(broker, link_name(id, true, name), record->inner_ifindex) &&
           pk_link_is_on(broker, link_name(id, false, name), record->host_ifindex) &&
           bpf_map_lookup_elem(broker->maps[PK_MAP_PORTS], &id, &port) == 0 &&
           port == record->host_ifindex;
}

int pk_broker_lane_set_reader(struct pk_broker *broker, const char *key, bool present,
                              struct pk_error *err)
{
    int r = pk_broker_check_open(broker, err);
    if (r < 0)
        return r;
    int found = key[0] != '\0' ? PK_FIND(broker->lanes, key) : -1;
    if (found < 0)
        return pk_fail(err, PK_E_NOTFOUND, "there is no lane %s", key);
    uint32_t value = present;
    return pk_map_write(broker, PK_MAP_READERS, (uint32_t)found, &value, err);
}

bool pk_broker_lane_reader(struct pk_broker *broker, const char *key)
{
    int found = key[0] != '\0' ? PK_FIND(broker->lanes, key) : -1;
    if (found < 0 || broker->removed)
        return false;
    uint32_t id = (uint32_t)found, value = 0;
    return bpf_map_lookup_elem(broker->maps[PK_MAP_READERS], &id, &value) == 0 && value != 0;
}
