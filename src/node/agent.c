/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The desired plane and how it changes. A change is written to plane.json first: when that fails
 * nothing was done, and when the agent dies afterwards its next start finishes the work.
 */
#include "node/agent.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/fs.h"
#include "base/json.h"
#include "base/log.h"
#include "base/time.h"
#include "node/loss.h"
#include "node/metrics.h"
#include "node/probe.h"
#include "node/replay.h"
#include "packet/flow.h"

#define AREA "node"
/* Bounds the time that hundreds of lanes take; few lanes are looked at each time. */
#define READERS_AT_ONCE 16u

static int lock(struct pk_agent *agent)
{
    return pthread_mutex_lock(&agent->lock);
}

static void unlock_p(struct pk_agent **agent)
{
    (void)pthread_mutex_unlock(&(*agent)->lock);
}
#define PK_LOCKED(agent)                                               \
    PK_CLEANUP(unlock_p) PK_UNUSED struct pk_agent *locked_ = (agent); \
    (void)lock(agent)

int pk_agent_open(const struct pk_paths *paths, struct pk_agent **ret_agent, struct pk_error *err)
{
    PK_CLEANUP(pk_agent_close_p) struct pk_agent *agent = pk_zalloc(sizeof(*agent));
    if (agent == NULL)
        return pk_no_memory(err);
    agent->paths = *paths;
    agent->started_at = pk_time_now();
    agent->ioctl_fd = agent->ends_fd = agent->canary_fd = -1;
    int sys = pthread_mutex_init(&agent->lock, NULL);
    if (sys != 0)
        return pk_fail_errno(err, sys, "cannot make a lock");
    char pin_dir[sizeof(agent->bpf_path) + 8];
    (void)snprintf(agent->bpf_path, sizeof(agent->bpf_path), "%s/bpf", paths->run_dir);
    (void)snprintf(pin_dir, sizeof(pin_dir), "%s/plane", agent->bpf_path);
    char dir[sizeof(agent->plane_path) - 16];
    (void)snprintf(dir, sizeof(dir), "%s/node", paths->state_dir);
    (void)snprintf(agent->plane_path, sizeof(agent->plane_path), "%s/plane.json", dir);

    int r = pk_mkdir_p(dir, 0700, err);
    if (r == 0)
        r = pk_node_plane_load(paths->tag, agent->plane_path, &agent->plane, err);
    if (r == 0)
        r = pk_nl_open(&agent->nl, err);
    if (r < 0)
        return r;
    agent->ioctl_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (agent->ioctl_fd < 0)
        return pk_fail_errno(err, errno, "cannot open a socket");
    agent->ends_fd = epoll_create1(EPOLL_CLOEXEC);
    if (agent->ends_fd < 0)
        return pk_fail_errno(err, errno, "cannot make an epoll");
    r = pk_bpffs_mount(agent->bpf_path, err);
    const struct pk_broker_options options = { .pin_dir = pin_dir };
    if (r == 0)
        r = pk_broker_open(&options, &agent->broker, err);
    if (r == 0)
        r = pk_prober_start(pk_broker_probe_token(agent->broker), &agent->prober, err);
    if (r == 0)
        r = pk_shunts_new(agent->broker, paths, &agent->shunts, err);
    if (r == 0)
        r = pk_canary_socket(&agent->canary_fd, err);
    if (r < 0)
        return r;
    for (size_t i = 0; i < agent->plane.lane_count; i++)
        pk_lane_adopt(agent, agent->plane.lanes[i]);
    for (size_t i = 0; i < agent->plane.group_count; i++)
        agent->plane.groups[i]->traffic_at = pk_time_monotonic(); /* for all that is known */
    *ret_agent = PK_TAKE(agent);
    return 0;
}

void pk_agent_close(struct pk_agent *agent)
{
    if (agent == NULL)
        return;
    for (size_t i = 0; i < agent->plane.tap_count; i++) {
        pk_replay_free(agent->plane.taps[i]->replay);
        agent->plane.taps[i]->replay = NULL;
    }
    pk_prober_free(agent->prober);
    pk_node_plane_done(&agent->plane);
    pk_shunts_free(agent->shunts);
    pk_broker_close(agent->broker);
    pk_nl_close(agent->nl);
    pk_close_p(&agent->ioctl_fd);
    pk_close_p(&agent->ends_fd);
    pk_close_p(&agent->canary_fd);
    (void)pthread_mutex_destroy(&agent->lock);
    pk_free(agent);
}

/* ---- as it should be ---- */

/* One line when a fault comes, changes or goes, not two a second. */
static void tell(const char *what, const char *key, const char *before, const char *after,
                 const struct pk_error *err)
{
    if (strcmp(before, after) == 0)
        return;
    if (err->code < 0)
        pk_log_error(PK_LOG_WARN, AREA, err, "%s %s", what, key);
    else if (after[0] != '\0')
        pk_log(PK_LOG_INFO, AREA, "%s %s: %s", what, key, after);
    else
        pk_log(PK_LOG_INFO, AREA, "%s %s works again", what, key);
}

/* The records of its shunts come first: their entries name the group by a number, which the next
 * group may get. */
static int group_remove(struct pk_agent *agent, const char *key, struct pk_error *err)
{
    int r = pk_shunts_group_forget(agent->shunts, key, err);
    return r < 0 ? r : pk_broker_group_remove(agent->broker, key, err);
}

void pk_agent_sweep(struct pk_agent *agent)
{
    PK_LOCKED(agent);
    pk_nsec begun = pk_time_monotonic();
    char before[200];
    for (size_t i = 0; i < agent->plane.lane_count; i++) {
        struct pk_lane *lane = agent->plane.lanes[i];
        struct pk_error err = { 0 };
        (void)snprintf(before, sizeof(before), "%s", lane->detail);
        (void)pk_lane_ensure(agent, lane, &err);
        tell("lane", lane->key, before, lane->detail, &err);
    }
    for (size_t i = 0; i < agent->plane.group_count; i++) {
        struct pk_group *group = agent->plane.groups[i];
        struct pk_error err = { 0 };
        (void)snprintf(before, sizeof(before), "%s", group->detail);
        (void)pk_group_ensure(agent, group, &err);
        tell("group", group->key, before, group->detail, &err);
    }
    for (size_t i = 0; i < agent->plane.tap_count; i++) {
        struct pk_tap *tap = agent->plane.taps[i];
        struct pk_error err = { 0 };
        (void)snprintf(before, sizeof(before), "%s", tap->detail);
        (void)pk_tap_ensure(agent, tap, &err);
        tell("tap", tap->key, before, tap->detail, &err);
    }
    agent->sweeps++;
    agent->sweep_time += pk_time_monotonic() - begun;
}

void pk_agent_poll_readers(struct pk_agent *agent)
{
    PK_LOCKED(agent);
    size_t count = agent->plane.lane_count;
    for (size_t i = 0; i < PK_MIN(count, READERS_AT_ONCE); i++) {
        agent->poll_next = (agent->poll_next + 1) % count;
        pk_lane_poll_reader(agent, agent->plane.lanes[agent->poll_next]);
    }
    pk_inline_refresh_probes(agent);
}

static int save(struct pk_agent *agent, struct pk_error *err)
{
    return pk_node_plane_save(&agent->plane, agent->plane_path, err);
}

/* After a change that did not work: the file as it was. A failure leaves the thing in the file; the
 * next start tries it again and the next call replaces it. */
static void save_back(struct pk_agent *agent)
{
    struct pk_error err = { 0 };
    if (save(agent, &err) < 0)
        pk_log_error(PK_LOG_WARN, AREA, &err, "cannot take a failed change out of plane.json");
}

static bool keeps_netns(void *arg, const char *name)
{
    const struct pk_plane *plane = arg;
    for (size_t i = 0; i < plane->lane_count; i++) {
        const char *slash = strrchr(plane->lanes[i]->netns_path, '/');
        if (strcmp(slash + 1, name) == 0)
            return true;
    }
    return false;
}

static bool keeps_link(void *arg, const char *name)
{
    const struct pk_plane *plane = arg;
    for (size_t i = 0; i < plane->lane_count; i++)
        if (strcmp(plane->lanes[i]->link_name, name) == 0 ||
            (plane->lanes[i]->is_inline && strcmp(plane->lanes[i]->second.link_name, name) == 0))
            return true;
    for (size_t i = 0; i < plane->tap_count; i++)
        if (strcmp(plane->taps[i]->interface, name) == 0 ||
            strcmp(plane->taps[i]->send_name, name) == 0)
            return true;
    return false;
}

static void remove_stray_keys(struct pk_agent *agent)
{
    struct pk_error err = { 0 };
    json_t *counters = pk_broker_counters(agent->broker, &err), *item;
    size_t i;
    json_array_foreach(json_object_get(counters, "taps"), i, item)
    {
        const char *key = json_string_value(json_object_get(item, "key"));
        bool wanted = false;
        for (size_t j = 0; key != NULL && j < agent->plane.tap_count; j++)
            wanted |= strcmp(agent->plane.taps[j]->key, key) == 0;
        if (key != NULL && !wanted)
            (void)pk_broker_tap_detach(agent->broker, key, NULL);
    }
    json_array_foreach(json_object_get(counters, "inline"), i, item)
    {
        const char *key = json_string_value(json_object_get(item, "key"));
        bool wanted = false;
        for (size_t j = 0; key != NULL && j < agent->plane.tap_count; j++)
            wanted |= agent->plane.taps[j]->kind == PK_TAP_INLINE &&
                      strcmp(agent->plane.taps[j]->key, key) == 0;
        if (key != NULL && !wanted)
            (void)pk_broker_inline_detach(agent->broker, key, NULL);
    }
    json_array_foreach(json_object_get(counters, "groups"), i, item)
    {
        const char *key = json_string_value(json_object_get(item, "key"));
        bool wanted = false;
        for (size_t j = 0; key != NULL && j < agent->plane.group_count; j++)
            wanted |= strcmp(agent->plane.groups[j]->key, key) == 0;
        if (key != NULL && !wanted)
            (void)group_remove(agent, key, NULL);
    }
    json_array_foreach(json_object_get(counters, "lanes"), i, item)
    {
        const char *key = json_string_value(json_object_get(item, "key"));
        if (key != NULL && pk_node_plane_lane(&agent->plane, key) == NULL)
            (void)pk_broker_lane_remove(agent->broker, key, NULL);
    }
    json_decref(counters);
}

static void remove_strays(struct pk_agent *agent)
{
    struct pk_error err = { 0 };
    remove_stray_keys(agent);
    int r = pk_link_delete_all(agent->nl, agent->paths.tag, keeps_link, &agent->plane, &err);
    char prefix[16];
    (void)snprintf(prefix, sizeof(prefix), "%s-", agent->paths.tag);
    if (r == 0)
        r = pk_netns_remove_all(prefix, keeps_netns, &agent->plane, &err);
    if (r < 0)
        pk_log_error(PK_LOG_WARN, AREA, &err, "cannot clear away what an earlier agent left");
}

/* Taps whose removal an earlier agent did not end: their interfaces still have to be put back. */
static void end_removals(struct pk_agent *agent)
{
    bool any = false;
    for (size_t i = agent->plane.tap_count; i-- > 0;) {
        struct pk_tap *tap = agent->plane.taps[i];
        if (!tap->leaving)
            continue;
        struct pk_error err = { 0 };
        if (pk_tap_remove(agent, tap, &err) < 0)
            pk_log_error(PK_LOG_WARN, AREA, &err, "tap %s", tap->key);
        pk_node_plane_drop_tap(&agent->plane, tap);
        pk_tap_free(tap);
        any = true;
    }
    if (any)
        save_back(agent);
}

void pk_agent_remove_strays(struct pk_agent *agent)
{
    PK_LOCKED(agent);
    end_removals(agent);
    remove_strays(agent);
}

/* ---- changes ---- */

static int put_new_lane(struct pk_agent *agent, struct pk_lane *lane, struct pk_error *err)
{
    int r = pk_node_plane_add_lane_take(&agent->plane, lane, err);
    if (r < 0) {
        pk_lane_free(lane);
        return r;
    }
    r = save(agent, err);
    if (r == 0 && (r = pk_lane_ensure(agent, lane, err)) < 0)
        (void)pk_lane_remove(agent, lane, NULL);
    else if (r == 0)
        return 0;
    pk_node_plane_drop_lane(&agent->plane, lane);
    save_back(agent);
    pk_lane_free(lane);
    return r;
}

static int put_old_lane(struct pk_agent *agent, struct pk_lane *lane, unsigned mtu,
                        struct pk_error *err)
{
    unsigned old_mtu = lane->mtu;
    int r = 0;
    if (mtu != old_mtu) {
        lane->mtu = mtu;
        r = save(agent, err);
        if (r < 0) {
            lane->mtu = old_mtu;
            return r;
        }
    }
    r = pk_lane_ensure(agent, lane, err);
    if (r < 0 && mtu != old_mtu) {
        lane->mtu = old_mtu;
        save_back(agent);
        (void)pk_lane_ensure(agent, lane, NULL);
    }
    return r;
}

/* A lane of the other kind comes in its place: its group is set again once that is there. */
static int take_out_lane(struct pk_agent *agent, struct pk_lane *lane, struct pk_error *err)
{
    struct pk_group *group = pk_node_plane_group(&agent->plane, lane->fleet, lane->group);
    int r = pk_lane_remove(agent, lane, err);
    if (r < 0)
        return r;
    if (group != NULL)
        group->working = false;
    pk_node_plane_drop_lane(&agent->plane, lane);
    pk_lane_free(lane);
    return 0;
}

int pk_agent_put_lane_take(struct pk_agent *agent, struct pk_lane *lane, json_t **ret_json,
                           struct pk_error *err)
{
    PK_LOCKED(agent);
    struct pk_lane *old = pk_node_plane_lane(&agent->plane, lane->key);
    int r;
    if (old != NULL &&
        (old->is_inline != lane->is_inline || strcmp(old->device.name, lane->device.name) != 0)) {
        r = take_out_lane(agent, old, err);
        if (r < 0) {
            pk_lane_free(lane);
            return r;
        }
        old = NULL;
    }
    if (old == NULL) {
        r = put_new_lane(agent, lane, err);
        old = lane;
    } else {
        memcpy(old->fits, lane->fits, sizeof(old->fits)); /* saved with the next change */
        r = put_old_lane(agent, old, lane->mtu, err);
        pk_lane_free(lane);
    }
    if (r < 0)
        return r;
    pk_lane_poll_reader(agent, old);
    *ret_json = json_pack("{s:s,s:s}", "netns", old->netns_path, "interface", "tap0");
    return 0;
}

int pk_agent_put_group_take(struct pk_agent *agent, struct pk_group *group, struct pk_error *err)
{
    PK_CLEANUP(pk_group_free_p) struct pk_group *owned = group;
    size_t devices = 0;
    PK_LOCKED(agent);
    for (size_t i = 0; i < group->share_count; i++) {
        char key[2 * PK_NODE_NAME_MAX + 16];
        (void)snprintf(key, sizeof(key), "%s/%u", group->key, group->shares[i].lane);
        const struct pk_lane *lane = pk_node_plane_lane(&agent->plane, key);
        devices += lane != NULL && pk_lane_has_device(lane);
        if (lane == NULL) {
            (void)pk_fail(err, PK_E_NOTFOUND, "group %s: there is no lane %u", group->key,
                          group->shares[i].lane);
            return pk_hint(err, "make the lane first: PUT /v1/fleets/%s/lanes/%s/%u", group->fleet,
                           group->name, group->shares[i].lane);
        }
    }
    if (devices != 0 && devices != group->share_count) {
        (void)pk_fail(err, PK_E_CONFLICT, "group %s: %zu of %zu lanes have a device of their own",
                      group->key, devices, group->share_count);
        return pk_hint(err, "give each lane a device, or none");
    }
    struct pk_group *old = pk_node_plane_group(&agent->plane, group->fleet, group->name);
    if (old != NULL && old->working && old->hash == group->hash && old->drain == group->drain &&
        old->rebalance == group->rebalance && old->canary == group->canary &&
        old->priority == group->priority && strcmp(old->tenant, group->tenant) == 0 &&
        pk_shunt_spec_equal(&old->shunt, &group->shunt) &&
        memcmp(&old->overload, &group->overload, sizeof group->overload) == 0 &&
        old->share_count == group->share_count &&
        memcmp(old->shares, group->shares, group->share_count * sizeof(*group->shares)) == 0)
        return 0;
    if (old != NULL) {
        pk_node_plane_drop_group(&agent->plane, old);
        group->sent = old->sent;
        group->traffic_at = old->traffic_at;
        group->level.moved = old->level.moved;
        group->over = old->over;
        group->over_known = old->over_known;
    }
    int r = pk_node_plane_add_group_take(&agent->plane, group, err);
    if (r == 0) {
        owned = NULL;
        r = save(agent, err);
        bool saved = r == 0;
        if (r == 0)
            r = pk_group_ensure(agent, group, err);
        if (r == 0) {
            pk_group_free(old);
            return 0;
        }
        pk_node_plane_drop_group(&agent->plane, group);
        if (saved && old == NULL)
            (void)group_remove(agent, group->key, NULL);
        owned = group;
    }
    if (old != NULL && pk_node_plane_add_group_take(&agent->plane, old, NULL) == 0) {
        old->working = old->ruled = false; /* set again, now and by the sweep */
        struct pk_error ignored = { 0 };
        (void)pk_group_ensure(agent, old, &ignored);
    }
    save_back(agent);
    return r;
}

/* Can one follow the other without the interfaces being given back between? */
static bool same_interfaces(const struct pk_tap *a, const struct pk_tap *b)
{
    return a->kind == b->kind && strcmp(a->interface, b->interface) == 0 &&
           strcmp(a->other.interface, b->other.interface) == 0;
}

static bool same_nic(const struct pk_tap *a, const struct pk_tap *b)
{
    return memcmp(&a->nic, &b->nic, sizeof(a->nic)) == 0; /* unsigned members only */
}

static bool same_options(const struct pk_tap *a, const struct pk_tap *b)
{
    PK_JSON of_a = pk_tap_options_to_json(a);
    PK_JSON of_b = pk_tap_options_to_json(b);
    return json_equal(of_a, of_b) != 0;
}

static bool same_tap(const struct pk_tap *a, const struct pk_tap *b)
{
    return a->mtu == b->mtu && same_interfaces(a, b) && same_options(a, b) &&
           a->other.closed == b->other.closed && a->other.fail_after_ms == b->other.fail_after_ms &&
           pk_targets_equal(&a->targets, &b->targets);
}

static void free_tap_and_replay(struct pk_tap *tap)
{
    if (tap == NULL)
        return;
    pk_replay_free(tap->replay);
    pk_tap_free(tap);
}

/* The tap is in the list, the file has it. Is it the same interface as old's, packets flow on while
 * groups and tenants change. */
static int switch_tap(struct pk_agent *agent, struct pk_tap *tap, struct pk_tap *old,
                      struct pk_error *err)
{
    if (old != NULL && same_interfaces(old, tap)) {
        tap->before = old->before;
        tap->ifindex = old->ifindex;
        tap->other.before = old->other.before;
        tap->other.ifindex = old->other.ifindex;
        if (!same_nic(old, tap))
            pk_tap_give_back_nic(agent, tap);
    } else if (old != NULL) {
        int r = pk_tap_remove(agent, old, err);
        if (r < 0)
            return r;
    }
    int r = pk_tap_ensure(agent, tap, err);
    if (r < 0 && (old == NULL || !same_interfaces(old, tap)))
        (void)pk_tap_remove(agent, tap, NULL);
    return r;
}

int pk_agent_put_tap_take(struct pk_agent *agent, struct pk_tap *tap, struct pk_error *err)
{
    PK_LOCKED(agent);
    struct pk_tap *old = pk_node_plane_tap(&agent->plane, tap->fleet, tap->name);
    for (size_t i = 0; i < json_array_size(tap->targets.groups); i++) {
        const char *group = pk_json_string_or(json_array_get(tap->targets.groups, i), "name", "");
        if (pk_node_plane_group(&agent->plane, tap->fleet, group) != NULL)
            continue;
        (void)pk_fail(err, PK_E_NOTFOUND, "tap %s: there is no group '%s'", tap->key, group);
        (void)pk_hint(err, "make the group first: PUT /v1/fleets/%s/groups/%s", tap->fleet, group);
        pk_tap_free(tap);
        return PK_E_NOTFOUND;
    }
    if (old != NULL && same_tap(old, tap)) {
        pk_tap_free(tap);
        return pk_tap_ensure(agent, old, err);
    }
    if (old != NULL)
        pk_node_plane_drop_tap(&agent->plane, old);
    int r = pk_node_plane_add_tap_take(&agent->plane, tap, err);
    bool added = r == 0;
    if (r == 0)
        r = save(agent, err);
    bool saved = r == 0;
    if (r == 0)
        r = switch_tap(agent, tap, old, err);
    if (r == 0) {
        free_tap_and_replay(old);
        /* switch_tap() remembered the interface's settings after the first save */
        return save(agent, err);
    }
    if (added)
        pk_node_plane_drop_tap(&agent->plane, tap);
    pk_tap_free(tap);
    if (old != NULL && pk_node_plane_add_tap_take(&agent->plane, old, NULL) == 0 && saved) {
        old->attached = false;
        struct pk_error ignored = { 0 };
        (void)pk_tap_ensure(agent, old, &ignored);
    }
    save_back(agent);
    return r;
}

static int not_there(struct pk_error *err, const char *what, const char *name)
{
    return pk_fail(err, PK_E_NOTFOUND, "there is no %s %s on this machine", what, name);
}

int pk_agent_delete_lane(struct pk_agent *agent, const char *key, struct pk_error *err)
{
    PK_LOCKED(agent);
    struct pk_lane *lane = pk_node_plane_lane(&agent->plane, key);
    if (lane == NULL)
        return 0; /* gone is what was asked */
    const struct pk_group *group = pk_node_plane_group(&agent->plane, lane->fleet, lane->group);
    for (size_t i = 0; group != NULL && i < group->share_count; i++) {
        if (group->shares[i].lane != lane->index)
            continue;
        (void)pk_fail(err, PK_E_CONFLICT, "lane %s still gets packets of its group", key);
        return pk_hint(err,
                       "take it out of the group first: PUT or DELETE "
                       "/v1/fleets/%s/groups/%s",
                       lane->fleet, lane->group);
    }
    pk_node_plane_drop_lane(&agent->plane, lane);
    int r = save(agent, err);
    if (r < 0) {
        (void)pk_node_plane_add_lane_take(&agent->plane, lane, NULL);
        return r;
    }
    r = pk_lane_remove(agent, lane, err);
    pk_lane_free(lane);
    return r;
}

int pk_agent_delete_group(struct pk_agent *agent, const char *fleet, const char *name,
                          struct pk_error *err)
{
    PK_LOCKED(agent);
    struct pk_group *group = pk_node_plane_group(&agent->plane, fleet, name);
    if (group == NULL)
        return 0;
    for (size_t i = 0; i < agent->plane.tap_count; i++) {
        const struct pk_tap *tap = agent->plane.taps[i];
        if (strcmp(tap->fleet, fleet) != 0 || !pk_targets_have(&tap->targets, name))
            continue;
        (void)pk_fail(err, PK_E_CONFLICT, "tap %s still sends to group %s", tap->key, group->key);
        return pk_hint(err,
                       "remove the tap first, or give it other groups: DELETE or PUT "
                       "/v1/fleets/%s/taps/%s",
                       fleet, tap->name);
    }
    pk_node_plane_drop_group(&agent->plane, group);
    int r = save(agent, err);
    if (r < 0) {
        (void)pk_node_plane_add_group_take(&agent->plane, group, NULL);
        return r;
    }
    r = group_remove(agent, group->key, err);
    pk_group_free(group);
    return r == PK_E_NOTFOUND ? 0 : r;
}

int pk_agent_delete_tap(struct pk_agent *agent, const char *fleet, const char *name,
                        struct pk_error *err)
{
    PK_LOCKED(agent);
    struct pk_tap *tap = pk_node_plane_tap(&agent->plane, fleet, name);
    if (tap == NULL)
        return 0;
    tap->leaving = true;
    int r = save(agent, err);
    if (r < 0) {
        tap->leaving = false;
        return r;
    }
    pk_replay_free(tap->replay);
    tap->replay = NULL;
    r = pk_tap_remove(agent, tap, err);
    pk_node_plane_drop_tap(&agent->plane, tap);
    pk_tap_free(tap);
    save_back(agent);
    return r;
}

int pk_agent_delete_all(struct pk_agent *agent, struct pk_error *err)
{
    PK_LOCKED(agent);
    struct pk_plane plane = agent->plane;
    const struct pk_plane leaving = { .taps = plane.taps, .tap_count = plane.tap_count };
    for (size_t i = 0; i < plane.tap_count; i++)
        plane.taps[i]->leaving = true;
    int first = pk_node_plane_save(&leaving, agent->plane_path, err);
    if (first < 0) {
        for (size_t i = 0; i < plane.tap_count; i++)
            plane.taps[i]->leaving = false;
        return first;
    }
    agent->plane = (struct pk_plane){ 0 };
    for (size_t i = 0; i < plane.tap_count; i++) {
        struct pk_tap *tap = plane.taps[i];
        pk_replay_free(tap->replay);
        tap->replay = NULL;
        int r = pk_tap_remove(agent, tap, first < 0 ? NULL : err);
        first = first < 0 ? first : r;
    }
    for (size_t i = 0; i < plane.group_count; i++) {
        int r = group_remove(agent, plane.groups[i]->key, first < 0 ? NULL : err);
        first = first < 0 || r == PK_E_NOTFOUND ? first : r;
    }
    for (size_t i = 0; i < plane.lane_count; i++) {
        int r = pk_lane_remove(agent, plane.lanes[i], first < 0 ? NULL : err);
        first = first < 0 ? first : r;
    }
    pk_node_plane_done(&plane);
    remove_strays(agent);
    save_back(agent);
    return first;
}

/* ---- replay ---- */

static int replay_tap(struct pk_agent *agent, const char *fleet, const char *name,
                      struct pk_tap **ret_tap, struct pk_error *err)
{
    char key[2 * PK_NODE_NAME_MAX + 2];
    struct pk_tap *tap = pk_node_plane_tap(&agent->plane, fleet, name);
    if (tap == NULL) {
        (void)snprintf(key, sizeof(key), "%.63s/%.63s", fleet, name);
        (void)not_there(err, "tap", key);
        return pk_hint(err, "'picket status' lists the taps of a fleet");
    }
    if (tap->kind != PK_TAP_REPLAY) {
        (void)pk_fail(err, PK_E_CONFLICT, "tap %s is the interface %s", tap->key, tap->interface);
        return pk_hint(err, "files are replayed into a tap that the fleet declares with 'replay'");
    }
    *ret_tap = tap;
    return 0;
}

/* A file that is there while a replay runs, so that the next agent can tell what became of it. */
static void marker_path(const struct pk_agent *agent, const struct pk_tap *tap, char out[256])
{
    (void)snprintf(out, 256, "%s/replay.%s", agent->paths.run_dir, tap->interface);
}

int pk_agent_replay_start(struct pk_agent *agent, const char *fleet, const char *name,
                          const json_t *body, json_t **ret_json, struct pk_error *err)
{
    struct pk_replay_options options = { 0 };
    int r = pk_replay_options_parse(body, &options, err);
    if (r < 0)
        return r;
    PK_LOCKED(agent);
    struct pk_tap *tap = NULL;
    r = replay_tap(agent, fleet, name, &tap, err);
    if (r == 0 && pk_replay_running(tap->replay)) {
        (void)pk_fail(err, PK_E_CONFLICT, "a replay into tap %s is running", tap->key);
        r = pk_hint(err, "wait for its end, or stop it: picket replay --tap %s --stop", tap->key);
    }
    if (r == 0)
        r = pk_tap_ensure(agent, tap, err);
    struct pk_link send;
    if (r == 0)
        r = pk_link_get(agent->nl, tap->send_name, &send, err);
    struct pk_replay *replay = NULL;
    if (r == 0)
        r = pk_replay_start(&options, tap->send_name, send.ifindex, tap->mtu, &replay, err);
    pk_replay_options_done(&options);
    if (r < 0)
        return r;
    pk_replay_free(tap->replay);
    tap->replay = replay;
    char marker[256];
    marker_path(agent, tap, marker);
    (void)pk_file_write(marker, "", 0, 0600, NULL);
    *ret_json = pk_replay_status(replay);
    return 0;
}

/* Called by whoever looks at a tap. */
static json_t *replay_status(const struct pk_agent *agent, struct pk_tap *tap)
{
    char marker[256];
    marker_path(agent, tap, marker);
    if (tap->replay == NULL && pk_file_exists(marker))
        tap->replay = pk_replay_lost("the agent was restarted during the replay");
    json_t *status = pk_replay_status(tap->replay);
    if (tap->replay != NULL && !pk_replay_running(tap->replay))
        (void)unlink(marker);
    return status;
}

int pk_agent_replay_status(struct pk_agent *agent, const char *fleet, const char *name,
                           json_t **ret_json, struct pk_error *err)
{
    PK_LOCKED(agent);
    struct pk_tap *tap = NULL;
    int r = replay_tap(agent, fleet, name, &tap, err);
    if (r == 0)
        *ret_json = replay_status(agent, tap);
    return r;
}

int pk_agent_replay_stop(struct pk_agent *agent, const char *fleet, const char *name,
                         json_t **ret_json, struct pk_error *err)
{
    PK_LOCKED(agent);
    struct pk_tap *tap = NULL;
    int r = replay_tap(agent, fleet, name, &tap, err);
    if (r < 0)
        return r;
    if (tap->replay != NULL)
        pk_replay_stop(tap->replay);
    *ret_json = replay_status(agent, tap);
    return 0;
}

/* ---- what there is ---- */

static const json_t *counters_of(const json_t *counters, const char *list, const char *key)
{
    const json_t *item;
    size_t i;
    json_array_foreach(json_object_get(counters, list), i, item)
    {
        const char *name = json_string_value(json_object_get(item, "key"));
        if (name != NULL && strcmp(name, key) == 0)
            return item;
    }
    return NULL;
}

static json_int_t number(const json_t *counters, const char *name)
{
    return json_integer_value(json_object_get(counters, name));
}

/* Adds what the broker counts and the row does not have. Takes the row; NULL = out of memory. */
static json_t *with_counters_take(json_t *row, const json_t *counters)
{
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)counters, name, value)
    {
        if (row != NULL && strcmp(name, "key") != 0 && json_object_get(row, name) == NULL &&
            json_object_set(row, name, value) < 0) {
            json_decref(row);
            return NULL;
        }
    }
    return row;
}

static const json_t *named(const json_t *list, const char *name)
{
    size_t i;
    json_t *row;
    json_array_foreach(list, i, row)
    {
        if (strcmp(pk_json_string_or(row, "name", ""), name) == 0)
            return row;
    }
    return NULL;
}

/* The tap's tenants with what was counted of each; last "", what none of them claims. NULL = out of
 * memory. */
static json_t *tenants_status(const struct pk_tap *tap, const json_t *counters)
{
    const json_t *counted = json_object_get(counters, "tenants");
    json_t *list = json_array();
    size_t i;
    json_t *row;
    json_array_foreach(tap->targets.tenants, i, row)
    {
        json_t *copy = json_copy(row);
        const json_t *count = named(counted, pk_json_string_or(row, "name", ""));
        if (count != NULL && copy != NULL)
            (void)json_object_update_missing(copy, (json_t *)(uintptr_t)count);
        (void)json_array_append_new(list, copy);
    }
    const json_t *rest = named(counted, "");
    if (rest != NULL)
        (void)json_array_append(list, (json_t *)(uintptr_t)rest);
    return list;
}

static json_t *tap_status(const struct pk_agent *agent, struct pk_tap *tap, const json_t *all)
{
    static const char *const modes[] = { "none", "native", "generic" };
    static const char *const states[] = { "up", "missing", "detached" };
    PK_JSON through = NULL;
    const json_t *counters = counters_of(all, "taps", tap->key);
    if (tap->kind == PK_TAP_INLINE)
        counters = through = pk_inline_tap_status(agent, tap, all);
    json_t *reasons = json_object_get(counters, "reasons");
    bool is_replay = tap->kind == PK_TAP_REPLAY;
    bool up = tap->state == PK_TAP_UP;
    json_t *row = json_pack(
        "{s:s,s:s,s:s,s:s,s:O,s:o,s:i,s:s,s:s,s:s,s:I,s:I,s:I,s:o,s:o}", "fleet", tap->fleet,
        "name", tap->name, "kind", pk_node_tap_kinds[tap->kind], "interface", tap->interface,
        "groups", tap->targets.groups, "tenants", tenants_status(tap, counters), "mtu",
        (int)tap->live_mtu, "mode", modes[up ? tap->mode : PK_XDP_NONE], "state",
        states[tap->state], "detail", tap->detail, "packets", number(counters, "packets"), "bytes",
        number(counters, "bytes"), "dropped", number(counters, "dropped"), "reasons",
        reasons != NULL ? json_incref(reasons) : json_object(), "replay",
        is_replay ? replay_status(agent, tap) : json_null());
    if (!is_replay && (json_object_set_new(row, "options", pk_tap_options_to_json(tap)) < 0 ||
                       json_object_set_new(row, "setup", pk_tap_nic_status(agent, tap)) < 0)) {
        json_decref(row);
        return NULL;
    }
    if (row != NULL)
        (void)json_object_set_new(row, "nic", pk_loss_of_tap(agent->nl, agent->ioctl_fd, tap));
    return with_counters_take(row, counters);
}

static json_t *group_status(const struct pk_group *group, const json_t *counters)
{
    json_t *ranges = json_object_get(counters, "ranges");
    json_t *row = json_pack(
        "{s:s,s:s,s:s,s:s,s:s,s:I,s:I,s:o,s:{s:o*,s:o*}}", "fleet", group->fleet, "name",
        group->name, "detail", group->detail, "hash", pk_hash_mode_name(group->hash), "tenant",
        group->tenant, "priority", (json_int_t)group->priority, "generation",
        number(counters, "generation"), "ranges",
        ranges != NULL ? json_incref(ranges) : json_array(), "options", "shunt",
        pk_shunt_spec_to_json(&group->shunt), "overload", pk_overload_to_json(&group->overload));
    if (row != NULL) {
        pk_group_describe(group, row);
        (void)json_object_set_new(row, "overload", pk_overload_describe(&group->over));
    }
    return with_counters_take(row, counters);
}

static json_t *lane_status(const struct pk_agent *agent, const struct pk_lane *lane,
                           const json_t *counters)
{
    PK_JSON own = pk_lane_has_device(lane) ? pk_device_lane_counters(lane) : NULL;
    if (own != NULL)
        counters = own;
    json_int_t unread = number(counters, "unread");
    json_int_t ring = number(counters, "ringDropped");
    const char *state = !lane->working ? "broken" : lane->reader ? "ready" : "unread";
    json_t *row = json_pack(
        "{s:s,s:s,s:i,s:s,s:s,s:i,s:s,s:s,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I}", "fleet", lane->fleet,
        "group", lane->group, "index", (int)lane->index, "netns", lane->netns_path, "interface",
        "tap0", "mtu", (int)lane->live_mtu, "state", state, "detail", lane->detail, "slots",
        number(counters, "slots"), "sent", number(counters, "sent"), "packets",
        number(counters, "packets"), "bytes", number(counters, "bytes"), "dropped", unread + ring,
        "unread", unread, "ringDropped", ring, "blocked", number(counters, "blocked"));
    if (row != NULL && pk_lane_has_device(lane))
        (void)json_object_set_new(row, "device", json_string(lane->device.name));
    if (row != NULL)
        pk_lane_describe(agent, lane, row);
    return with_counters_take(row, counters);
}

static json_t *inline_lane_status_take(const struct pk_lane *lane, const json_t *counters,
                                       json_t *row)
{
    if (row == NULL || !lane->is_inline ||
        json_object_set_new(row, "inline", pk_inline_lane_status(lane, counters)) == 0)
        return row;
    json_decref(row);
    return NULL;
}

int pk_agent_plane(struct pk_agent *agent, json_t **ret_json, struct pk_error *err)
{
    PK_LOCKED(agent);
    json_t *counters = pk_broker_counters(agent->broker, err);
    if (counters == NULL)
        return err != NULL && err->code < 0 ? err->code : pk_no_memory(err);
    json_t *taps = json_array(), *groups = json_array(), *lanes = json_array();
    const struct pk_plane *plane = &agent->plane;
    int bad = 0;
    for (size_t i = 0; i < plane->tap_count; i++)
        bad |= json_array_append_new(taps, tap_status(agent, plane->taps[i], counters));
    for (size_t i = 0; i < plane->group_count; i++)
        bad |= json_array_append_new(
            groups,
            group_status(plane->groups[i], counters_of(counters, "groups", plane->groups[i]->key)));
    for (size_t i = 0; i < plane->lane_count; i++)
        bad |= json_array_append_new(
            lanes, inline_lane_status_take(
                       plane->lanes[i], counters,
                       lane_status(agent, plane->lanes[i],
                                   counters_of(counters, "lanes", plane->lanes[i]->key))));
    json_decref(counters);
    json_t *json = json_pack("{s:o,s:o,s:o}", "taps", taps, "groups", groups, "lanes", lanes);
    if (bad != 0 || json == NULL) {
        json_decref(json);
        return pk_no_memory(err);
    }
    *ret_json = json;
    return 0;
}

int pk_agent_inventory(struct pk_agent *agent, json_t **ret_json, struct pk_error *err)
{
    PK_LOCKED(agent);
    return pk_node_inventory(agent->nl, agent->ioctl_fd, agent->paths.tag, ret_json, err);
}

int pk_agent_metrics(struct pk_agent *agent, struct pk_buf *buf, struct pk_error *err)
{
    PK_JSON plane = NULL;
    int r = pk_agent_plane(agent, &plane, err);
    if (r < 0)
        return r;
    struct pk_metrics_agent facts;
    {
        PK_LOCKED(agent);
        facts = (struct pk_metrics_agent){
            .start_time = (double)agent->started_at / (double)PK_NSEC_PER_SEC,
            .sweep_seconds = (double)agent->sweep_time / (double)PK_NSEC_PER_SEC,
            .sweeps = agent->sweeps,
        };
    }
    r = pk_metrics_write(plane, &facts, buf);
    return r < 0 ? pk_fail(err, r, "the metrics do not fit") : 0;
}
