/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The desired plane, how it is kept as it should be, and how things come and change (removal.c: how
 * they go). A change is written to plane.json first: when that fails nothing was done, and when the
 * agent dies afterwards its next start finishes the work. A removal alone does not wait for that.
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
#include "node/probe.h"
#include "node/replay.h"

#define AREA "node"
/* Bounds the time that hundreds of lanes take; few lanes are looked at each time. */
#define READERS_AT_ONCE 16u

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

void pk_agent_sweep(struct pk_agent *agent)
{
    PK_AGENT_LOCKED(agent);
    pk_nsec begun = pk_time_monotonic();
    char before[200];
    for (size_t i = 0; i < agent->plane.lane_count; i++) {
        struct pk_lane *lane = agent->plane.lanes[i];
        struct pk_error err = { 0 };
        if (lane->leaving)
            continue;
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
        if (tap->leaving)
            continue;
        (void)snprintf(before, sizeof(before), "%s", tap->detail);
        (void)pk_tap_ensure(agent, tap, &err);
        tell("tap", tap->key, before, tap->detail, &err);
    }
    pk_agent_end_removals(agent);
    agent->sweeps++;
    agent->sweep_time += pk_time_monotonic() - begun;
}

void pk_agent_poll_readers(struct pk_agent *agent)
{
    PK_AGENT_LOCKED(agent);
    size_t count = agent->plane.lane_count;
    for (size_t i = 0; i < PK_MIN(count, READERS_AT_ONCE); i++) {
        agent->poll_next = (agent->poll_next + 1) % count;
        pk_lane_poll_reader(agent, agent->plane.lanes[agent->poll_next]);
    }
    pk_inline_refresh_probes(agent);
}

/* ---- changes ---- */

int pk_agent_save(struct pk_agent *agent, struct pk_error *err)
{
    return pk_node_plane_save(&agent->plane, agent->plane_path, err);
}

void pk_agent_save_later(struct pk_agent *agent)
{
    struct pk_error err = { 0 };
    bool before = agent->unsaved;
    agent->unsaved = pk_agent_save(agent, &err) < 0;
    if (agent->unsaved && !before)
        pk_log_error(PK_LOG_WARN, AREA, &err, "plane.json is behind what there is: tried again");
    else if (before && !agent->unsaved)
        pk_log(PK_LOG_INFO, AREA, "plane.json says what there is again");
}

static int put_new_lane(struct pk_agent *agent, struct pk_lane *lane, struct pk_error *err)
{
    int r = pk_node_plane_add_lane_take(&agent->plane, lane, err);
    if (r < 0) {
        pk_lane_free(lane);
        return r;
    }
    r = pk_agent_save(agent, err);
    if (r == 0 && (r = pk_lane_ensure(agent, lane, err)) < 0)
        (void)pk_lane_remove(agent, lane, NULL);
    else if (r == 0)
        return 0;
    pk_node_plane_drop_lane(&agent->plane, lane);
    pk_agent_save_later(agent);
    pk_lane_free(lane);
    return r;
}

static int put_old_lane(struct pk_agent *agent, struct pk_lane *lane, unsigned mtu,
                        struct pk_error *err)
{
    unsigned old_mtu = lane->mtu;
    bool leaving = lane->leaving; /* what of it went already is made again */
    int r = 0;
    if (mtu != old_mtu || leaving) {
        lane->mtu = mtu;
        lane->leaving = false;
        r = pk_agent_save(agent, err);
        if (r < 0) {
            lane->mtu = old_mtu;
            lane->leaving = leaving;
            return r;
        }
        lane->left_tries = 0;
    }
    r = pk_lane_ensure(agent, lane, err);
    if (r < 0 && mtu != old_mtu) {
        lane->mtu = old_mtu;
        pk_agent_save_later(agent);
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
    PK_AGENT_LOCKED(agent);
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
    PK_AGENT_LOCKED(agent);
    for (size_t i = 0; i < group->share_count; i++) {
        char key[2 * PK_NODE_NAME_MAX + 16];
        (void)snprintf(key, sizeof(key), "%s/%u", group->key, group->shares[i].lane);
        const struct pk_lane *lane = pk_node_plane_lane(&agent->plane, key);
        devices += lane != NULL && pk_lane_has_device(lane);
        if (lane == NULL || lane->leaving) {
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
        r = pk_agent_save(agent, err);
        bool saved = r == 0;
        if (r == 0) {
            pk_agent_group_stay(agent, group->key);
            r = pk_group_ensure(agent, group, err);
        }
        if (r == 0) {
            pk_group_free(old);
            return 0;
        }
        pk_node_plane_drop_group(&agent->plane, group);
        if (saved && old == NULL)
            pk_agent_group_leave(agent, group->key);
        owned = group;
    }
    if (old != NULL && pk_node_plane_add_group_take(&agent->plane, old, NULL) == 0) {
        old->working = old->ruled = false; /* set again, now and by the sweep */
        struct pk_error ignored = { 0 };
        (void)pk_group_ensure(agent, old, &ignored);
    }
    pk_agent_save_later(agent);
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
    PK_AGENT_LOCKED(agent);
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
    if (old != NULL && !old->leaving && same_tap(old, tap)) {
        pk_tap_free(tap);
        return pk_tap_ensure(agent, old, err);
    }
    if (old != NULL)
        pk_node_plane_drop_tap(&agent->plane, old);
    int r = pk_node_plane_add_tap_take(&agent->plane, tap, err);
    bool added = r == 0;
    if (r == 0)
        r = pk_agent_save(agent, err);
    bool saved = r == 0;
    if (r == 0)
        r = switch_tap(agent, tap, old, err);
    if (r == 0) {
        free_tap_and_replay(old);
        /* switch_tap() remembered the interface's settings after the first save */
        return pk_agent_save(agent, err);
    }
    if (added)
        pk_node_plane_drop_tap(&agent->plane, tap);
    pk_tap_free(tap);
    if (old != NULL && pk_node_plane_add_tap_take(&agent->plane, old, NULL) == 0 && saved &&
        !old->leaving) {
        old->attached = false;
        struct pk_error ignored = { 0 };
        (void)pk_tap_ensure(agent, old, &ignored);
    }
    pk_agent_save_later(agent);
    return r;
}
