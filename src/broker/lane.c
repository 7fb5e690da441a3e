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

/* The programs of a lane. */
static const struct place {
    const char *name;
    enum pk_plane_program program;
    bool inner;
    bool ingress;
} places[] = {
    { "in", PK_PROGRAM_LANE_IN, true, false },
    { "guard", PK_PROGRAM_LANE_GUARD, false, false },
    { "round-in", PK_PROGRAM_ROUND_IN, true, true }, /* these two from Linux 6.6 on */
    { "round-out", PK_PROGRAM_ROUND_OUT, false, true },
};

static const char *link_name(uint32_t id, const struct place *place, char name[LINK_NAME_SIZE])
{
    snprintf(name, LINK_NAME_SIZE, "lane-%u-%s", id, place->name);
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
    if (!on && end->ingress)
        return pk_link_attach_ingress(end->broker, end->link, end->ifindex, program, err);
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
    for (size_t i = 0; i < PK_ARRAY_SIZE(places) && !pk_inline_is_lane(broker, id); i++) {
        char name[LINK_NAME_SIZE];
        if (!pk_link_is_on(broker, link_name(id, &places[i], name),
                           places[i].inner ? record.inner_ifindex : record.host_ifindex))
            continue;
        PK_CLEANUP(pk_close_p) int program = -1;
        struct pk_plane_numbers numbers = { .lane = id };
        r = pk_plane_load(broker, places[i].program, numbers, &program, err);
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

static int add_place(struct pk_broker *broker, uint32_t id, const struct place *place,
                     unsigned host_ifindex, int netns_fd, const char *inner_name,
                     unsigned *inner_ifindex, struct pk_error *err)
{
    char name[LINK_NAME_SIZE];
    struct pk_lane_end end = { .broker = broker,
                               .link = link_name(id, place, name),
                               .program = place->program,
                               .numbers = { .lane = id },
                               .ifindex = place->inner ? *inner_ifindex : host_ifindex,
                               .inner_name = place->inner ? inner_name : NULL,
                               .netns_fd = netns_fd,
                               .ingress = place->ingress,
                               .renew = broker->lanes[id].build != broker->build };
    int r = pk_lane_end_attach(&end, err);
    if (r >= 0 && place->inner)
        *inner_ifindex = end.ifindex;
    return r;
}

static int remove_places(struct pk_broker *broker, uint32_t id, bool only_round,
                         struct pk_error *err)
{
    int r = 0;
    for (size_t i = 0; i < PK_ARRAY_SIZE(places) && r >= 0; i++) {
        char name[LINK_NAME_SIZE];
        if (places[i].ingress || !only_round)
            r = pk_link_remove(broker, link_name(id, &places[i], name), err);
    }
    return r;
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
    const struct pk_lane_record before = broker->lanes[id];
    unsigned inner_ifindex = 0;
    for (size_t i = 0; i < PK_ARRAY_SIZE(places) && r >= 0; i++) {
        struct pk_error fault = { 0 };
        if (places[i].ingress && broker->round_not)
            continue;
        r = add_place(broker, id, &places[i], host_ifindex, netns_fd, inner_name, &inner_ifindex,
                      &fault);
        if (r == PK_E_UNSUPPORTED && places[i].ingress) {
            broker->round_not = true;
            r = 0;
        } else if (r < 0 && err != NULL) {
            *err = fault;
        }
    }
    if (r < 0)
        return pk_wrap(err, "lane %s", key);
    broker->lanes[id].round = !broker->round_not;
    pk_copier_keep_tags(host_ifindex);
    /* Last, since packets come from here on. */
    uint32_t port = 0;
    if (bpf_map_lookup_elem(broker->maps[PK_MAP_PORTS], &id, &port) < 0 || port != host_ifindex)
        r = pk_map_write(broker, PK_MAP_PORTS, id, &host_ifindex, err);
    bool again = before.host_ifindex != 0 &&
                 (before.host_ifindex != host_ifindex || before.round != broker->lanes[id].round);
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
    if (r >= 0)
        r = remove_places(broker, id, false, err);
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
    for (size_t i = 0; i < PK_ARRAY_SIZE(places); i++) {
        char name[LINK_NAME_SIZE];
        if ((!places[i].ingress || record->round) &&
            !pk_link_is_on(broker, link_name(id, &places[i], name),
                           places[i].inner ? record->inner_ifindex : record->host_ifindex))
            return false;
    }
    return bpf_map_lookup_elem(broker->maps[PK_MAP_PORTS], &id, &port) == 0 &&
           port == record->host_ifindex;
}

int pk_broker_lane_leave_round(struct pk_broker *broker, const char *key, struct pk_error *err)
{
    int r = pk_broker_check_open(broker, err);
    int found = key[0] != '\0' ? PK_FIND(broker->lanes, key) : -1;
    if (r >= 0 && found < 0)
        r = pk_fail(err, PK_E_NOTFOUND, "there is no lane %s", key);
    if (r < 0)
        return r;
    struct pk_lane_record record = broker->lanes[found];
    record.round = 0;
    r = write_record(broker, (uint32_t)found, &record, err);
    if (r >= 0)
        r = pk_taps_follow(broker, err);
    return r < 0 ? r : remove_places(broker, (uint32_t)found, true, err);
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
