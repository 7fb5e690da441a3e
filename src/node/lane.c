/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A lane: a namespace, a veth pair whose inner end is tap0 there, and the broker's programs on both
 * ends. One function makes and repairs: it looks at each part and changes only what is not as it
 * should be, so it can run twice a second.
 */
#include <net/if.h>
#include <stdio.h>
#include <string.h>

#include "base/fs.h"
#include "base/log.h"
#include "node/agent.h"

#define INNER_NAME  "tap0"
#define SECOND_NAME "tap1" /* of an inline lane */
#define MTU_LEAST   1500u  /* of a lane that follows its taps */

static int ensure_netns(struct pk_lane *lane, struct pk_error *err)
{
    if (lane->netns.fd >= 0) {
        if (pk_netns_is_at(lane->netns_path, lane->netns.fd))
            return 0;
        pk_log(PK_LOG_INFO, "node", "lane %s: its namespace is gone; making it again", lane->key);
        pk_lane_forget_readers(lane);
        pk_netns_done(&lane->netns);
        lane->attached = false;
    }
    int fd = -1;
    bool made = false;
    int r = pk_netns_ensure(lane->netns_path, &fd, &made, err);
    if (r < 0)
        return r;
    r = pk_netns_open_take(fd, &lane->netns, err);
    if (r < 0)
        pk_close_p(&fd);
    return r;
}

/* Both ends there, and each the other's? */
static bool is_our_pair(const struct pk_link *outer, const struct pk_link *inner)
{
    return outer->is_veth && inner->is_veth && outer->peer_ifindex == inner->ifindex &&
           inner->peer_ifindex == outer->ifindex;
}

/* A lane that follows its taps never gets smaller: an agent that has just started does not know yet
 * what its taps need, and packets flow. */
static unsigned wanted_mtu(const struct pk_agent *agent, const struct pk_lane *lane)
{
    unsigned mtu = PK_MAX(lane->live_mtu, MTU_LEAST);
    if (lane->mtu != 0)
        return lane->mtu;
    if (lane->is_inline)
        mtu = PK_MAX(mtu, pk_inline_lane_mtu(agent, lane));
    for (size_t i = 0; i < agent->plane.tap_count; i++) {
        const struct pk_tap *tap = agent->plane.taps[i];
        if (strcmp(tap->fleet, lane->fleet) == 0 && pk_targets_have(&tap->targets, lane->group))
            mtu = PK_MAX(mtu, PK_MIN(tap->live_mtu, PK_NODE_MTU_MAX));
    }
    return mtu;
}

void pk_lanes_follow(struct pk_agent *agent, const struct pk_tap *tap)
{
    for (size_t i = 0; i < agent->plane.lane_count; i++) {
        struct pk_lane *lane = agent->plane.lanes[i];
        if (lane->mtu == 0 && lane->live_mtu < tap->live_mtu &&
            strcmp(tap->fleet, lane->fleet) == 0 && pk_targets_have(&tap->targets, lane->group))
            (void)pk_lane_ensure(agent, lane, NULL); /* the next sweep tells of a failure */
    }
}

static int ensure_pair(struct pk_agent *agent, struct pk_lane *lane, const char *outer_name,
                       const char *inner_name, struct pk_link *ret_outer, struct pk_link *ret_inner,
                       struct pk_error *err)
{
    unsigned mtu = wanted_mtu(agent, lane) + PK_NODE_MTU_ROOM;
    int outer_r = pk_link_get(agent->nl, outer_name, ret_outer, err);
    if (outer_r < 0 && outer_r != PK_E_NOTFOUND)
        return outer_r;
    int inner_r = pk_link_get(lane->netns.nl, inner_name, ret_inner, err);
    if (inner_r < 0 && inner_r != PK_E_NOTFOUND)
        return inner_r;
    if (outer_r == 0 && inner_r == 0 && is_our_pair(ret_outer, ret_inner))
        return 0;

    /* Half a pair, or a link that somebody put in its place. */
    lane->attached = false;
    int r = pk_link_delete(agent->nl, outer_name, err);
    if (r == 0)
        r = pk_link_delete(lane->netns.nl, inner_name, err);
    if (r < 0)
        return r;
    char alias[160];
    (void)snprintf(alias, sizeof(alias), "picket lane %s", lane->key);
    const struct pk_veth veth = { .name = outer_name,
                                  .alias = alias,
                                  .peer_name = inner_name,
                                  .peer_netns_fd = lane->netns.fd,
                                  .mtu = mtu };
    r = pk_link_add_veth(agent->nl, &veth, err);
    if (r == 0)
        r = pk_link_get(agent->nl, outer_name, ret_outer, err);
    if (r == 0)
        r = pk_link_get(lane->netns.nl, inner_name, ret_inner, err);
    return r;
}

static int ensure_settings(struct pk_agent *agent, struct pk_lane *lane,
                           const struct pk_link *outer, const struct pk_link *inner,
                           struct pk_error *err)
{
    unsigned smaller = PK_MIN(outer->mtu, inner->mtu);
    if (lane->live_mtu == 0 && smaller > PK_NODE_MTU_ROOM) /* made by an agent before this one */
        lane->live_mtu = PK_MIN(smaller - PK_NODE_MTU_ROOM, PK_NODE_MTU_MAX);
    lane->live_mtu = wanted_mtu(agent, lane);
    unsigned mtu = lane->live_mtu + PK_NODE_MTU_ROOM;
    struct pk_link loopback;
    int r = pk_link_ipv6_off(outer->name, err);
    if (r == 0)
        r = pk_link_get(lane->netns.nl, "lo", &loopback, err);
    if (r == 0) /* some tools talk to themselves */
        r = pk_link_set(lane->netns.nl, &loopback, 0, IFF_UP, 0, err);
    if (r == 0)
        r = pk_link_set(lane->netns.nl, inner, mtu, IFF_UP | IFF_NOARP, 0, err);
    if (r == 0)
        r = pk_link_set(agent->nl, outer, mtu, IFF_UP | IFF_NOARP, 0, err);
    return r;
}

/* After the programs: some kernels (5.13 to 6.2) switch GRO on when XDP comes to a veth. */
static int ensure_offloads(int ioctl_fd, const char *name, struct pk_error *err)
{
    unsigned on = 0;
    int r = pk_offloads_get(ioctl_fd, name, &on, err);
    if (r < 0 || (on & PK_OFFLOADS_VETH) == 0)
        return r;
    return pk_offloads_set(ioctl_fd, name, on & PK_OFFLOADS_VETH, false, err);
}

static int attach(struct pk_agent *agent, struct pk_lane *lane, struct pk_error *err)
{
    return lane->is_inline ? pk_inline_lane_attach(agent, lane, err)
                           : pk_broker_lane_add(agent->broker, lane->key, lane->outer_ifindex,
                                                lane->netns.fd, INNER_NAME, err);
}

static int ensure(struct pk_agent *agent, struct pk_lane *lane, struct pk_error *err)
{
    const struct {
        const char *outer, *inner;
        unsigned *outer_ifindex, *inner_ifindex;
    } pairs[] = {
        { lane->link_name, INNER_NAME, &lane->outer_ifindex, &lane->inner_ifindex },
        { lane->second.link_name, SECOND_NAME, &lane->second.outer_ifindex,
          &lane->second.inner_ifindex },
    };
    size_t count = lane->is_inline ? 2 : 1;
    int r = ensure_netns(lane, err);
    if (r == 0 && pk_lane_has_device(lane))
        return pk_device_lane_ensure(agent, lane, err);
    bool moved = false;
    for (size_t i = 0; i < count && r == 0; i++) {
        struct pk_link outer, inner;
        r = ensure_pair(agent, lane, pairs[i].outer, pairs[i].inner, &outer, &inner, err);
        if (r == 0)
            r = ensure_settings(agent, lane, &outer, &inner, err);
        if (r < 0)
            break;
        moved |=
            *pairs[i].outer_ifindex != outer.ifindex || *pairs[i].inner_ifindex != inner.ifindex;
        *pairs[i].outer_ifindex = outer.ifindex;
        *pairs[i].inner_ifindex = inner.ifindex;
    }
    if (r == 0 && (!lane->attached || moved || !pk_broker_lane_intact(agent->broker, lane->key))) {
        lane->attached = false;
        r = attach(agent, lane, err);
        lane->attached = r == 0;
    }
    for (size_t i = 0; i < count && r == 0; i++) {
        r = ensure_offloads(lane->netns.ioctl_fd, pairs[i].inner, err);
        if (r == 0)
            r = ensure_offloads(agent->ioctl_fd, pairs[i].outer, err);
    }
    return r;
}

int pk_lane_ensure(struct pk_agent *agent, struct pk_lane *lane, struct pk_error *err)
{
    int r = ensure(agent, lane, err);
    lane->working = r == 0;
    if (r == 0) {
        lane->detail[0] = '\0';
        return 0;
    }
    (void)pk_wrap(err, "lane %s", lane->key);
    if (err != NULL)
        (void)snprintf(lane->detail, sizeof(lane->detail), "%.199s", err->msg);
    return r;
}

int pk_lane_remove(struct pk_agent *agent, struct pk_lane *lane, struct pk_error *err)
{
    /* All of it, even when one part does not go; the first fault is told. */
    int first = pk_broker_lane_remove(agent->broker, lane->key, err);
    if (first == PK_E_NOTFOUND)
        first = 0;
    int r = pk_link_delete(agent->nl, lane->link_name, first < 0 ? NULL : err);
    first = first < 0 ? first : r;
    if (pk_lane_has_device(lane))
        r = pk_device_lane_release(agent, lane, first < 0 ? NULL : err);
    first = first < 0 ? first : r;
    if (lane->is_inline)
        r = pk_link_delete(agent->nl, lane->second.link_name, first < 0 ? NULL : err);
    first = first < 0 ? first : r;
    pk_lane_forget_readers(lane);
    pk_netns_done(&lane->netns);
    r = pk_netns_remove(lane->netns_path, first < 0 ? NULL : err);
    lane->attached = lane->working = false;
    return first < 0 ? first : r;
}
