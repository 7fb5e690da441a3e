/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A tap: an interface of the machine, or a veth pair into which capture files are replayed. What is
 * changed on an interface of the user's is remembered in plane.json before, and put back.
 */
#include <net/if.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/str.h"
#include "node/agent.h"

/* The machine must not be cut off by a slip in a fleet. */
static int check_may_take(const struct pk_link *link, struct pk_error *err)
{
    if ((link->flags & IFF_LOOPBACK) != 0) {
        (void)pk_fail(err, PK_E_CONFLICT, "interface %s is the machine's loopback", link->name);
        return pk_hint(err, "a tap takes all packets of its interface away: use an interface that "
                            "only receives mirrored traffic");
    }
    char route[16];
    int r = pk_link_default_route(route, err);
    if (r < 0 || !pk_str_equal(route, link->name))
        return r;
    (void)pk_fail(err, PK_E_CONFLICT, "interface %s carries the machine's default route",
                  link->name);
    return pk_hint(err, "a tap takes all packets of its interface away and would cut this machine "
                        "off: use an interface that only receives mirrored traffic");
}

/* Remembers how it is, once per appearance of the interface. */
static int remember(struct pk_agent *agent, struct pk_tap_before *before,
                    const struct pk_link *link, struct pk_error *err)
{
    if (before->ifindex == link->ifindex)
        return 0;
    const struct pk_tap_before old = *before;
    unsigned on = 0;
    int r = pk_offloads_get(agent->ioctl_fd, link->name, &on, err);
    if (r < 0)
        return r;
    *before = (struct pk_tap_before){ .ifindex = link->ifindex,
                                      .promisc = (link->flags & IFF_PROMISC) != 0,
                                      .up = (link->flags & IFF_UP) != 0,
                                      .offloads = on & PK_OFFLOADS_TAP };
    r = pk_node_plane_save(&agent->plane, agent->plane_path, err);
    if (r < 0)
        *before = old;
    return r;
}

int pk_tap_take_interface(struct pk_agent *agent, struct pk_tap *tap, const char *name,
                          struct pk_tap_before *before, struct pk_link *ret_link,
                          struct pk_error *err)
{
    int r = pk_link_get(agent->nl, name, ret_link, err);
    if (r == PK_E_NOTFOUND) {
        tap->state = PK_TAP_MISSING;
        tap->attached = false;
        tap->ifindex = 0;
        tap->mode = PK_XDP_NONE;
        (void)pk_fail(err, PK_E_NOTFOUND, "there is no interface %s on this machine", name);
        return pk_hint(err, "'picket doctor' lists the interfaces; the tap starts by itself when "
                            "the interface appears");
    }
    if (r == 0)
        r = check_may_take(ret_link, err);
    if (r == 0)
        r = remember(agent, before, ret_link, err);
    unsigned on = 0;
    if (r == 0)
        r = pk_offloads_get(agent->ioctl_fd, name, &on, err);
    if (r == 0 && (on & PK_OFFLOADS_TAP) != 0) {
        struct pk_error fault = { 0 };
        r = pk_offloads_set(agent->ioctl_fd, name, on & PK_OFFLOADS_TAP, false, &fault);
        /* A driver that cannot is no reason to see nothing; GET /v1/plane tells it. */
        if (r == PK_E_UNSUPPORTED) {
            (void)snprintf(tap->detail, sizeof(tap->detail), "%.199s", fault.msg);
            r = 0;
        } else if (r < 0 && err != NULL) {
            *err = fault;
        }
    }
    if (r == 0)
        r = pk_link_set(agent->nl, ret_link, 0, IFF_UP | IFF_PROMISC, 0, err);
    return r;
}

static int ensure_replay_pair(struct pk_agent *agent, struct pk_tap *tap, struct pk_link *ret_link,
                              struct pk_error *err)
{
    unsigned mtu = tap->mtu + PK_NODE_MTU_ROOM;
    struct pk_link send;
    int r = pk_link_get(agent->nl, tap->interface, ret_link, err);
    int send_r = pk_link_get(agent->nl, tap->send_name, &send, err);
    bool paired = r == 0 && send_r == 0 && ret_link->peer_ifindex == send.ifindex &&
                  send.peer_ifindex == ret_link->ifindex;
    if (!paired) {
        r = pk_link_delete(agent->nl, tap->interface, err);
        if (r == 0)
            r = pk_link_delete(agent->nl, tap->send_name, err);
        if (r < 0)
            return r;
        char alias[160];
        (void)snprintf(alias, sizeof(alias), "picket tap %s", tap->key);
        const struct pk_veth veth = { .name = tap->interface,
                                      .alias = alias,
                                      .peer_name = tap->send_name,
                                      .peer_netns_fd = -1,
                                      .mtu = mtu };
        r = pk_link_add_veth(agent->nl, &veth, err);
        if (r == 0)
            r = pk_link_get(agent->nl, tap->interface, ret_link, err);
        if (r == 0)
            r = pk_link_get(agent->nl, tap->send_name, &send, err);
        if (r < 0)
            return r;
    }
    const struct pk_link *const ends[] = { ret_link, &send };
    for (size_t i = 0; r == 0 && i < PK_ARRAY_SIZE(ends); i++) {
        unsigned on = 0;
        r = pk_link_ipv6_off(ends[i]->name, err);
        if (r == 0)
            r = pk_link_set(agent->nl, ends[i], mtu, IFF_UP | IFF_NOARP, 0, err);
        if (r == 0)
            r = pk_offloads_get(agent->ioctl_fd, ends[i]->name, &on, err);
        if (r == 0 && (on & PK_OFFLOADS_VETH) != 0)
            r = pk_offloads_set(agent->ioctl_fd, ends[i]->name, on & PK_OFFLOADS_VETH, false, err);
    }
    return r;
}

static int ensure(struct pk_agent *agent, struct pk_tap *tap, struct pk_error *err)
{
    struct pk_link link;
    if (tap->kind == PK_TAP_INLINE)
        return pk_inline_tap_ensure(agent, tap, err);
    int r = tap->kind == PK_TAP_INTERFACE
                ? pk_tap_take_interface(agent, tap, tap->interface, &tap->before, &link, err)
                : ensure_replay_pair(agent, tap, &link, err);
    if (r < 0)
        return r;
    tap->live_mtu = tap->kind == PK_TAP_REPLAY ? tap->mtu : link.mtu;
    pk_lanes_follow(agent, tap);
    if (!tap->attached || tap->ifindex != link.ifindex ||
        !pk_broker_tap_intact(agent->broker, tap->key, link.ifindex)) {
        const struct pk_broker_tap_config config = {
            .tenants = tap->targets.tenant_list,
            .tenant_count = tap->targets.tenant_count,
            .targets = tap->targets.target_list,
            .target_count = tap->targets.target_count,
        };
        r = pk_broker_tap_attach(agent->broker, tap->key, link.ifindex, &config, &tap->mode, err);
        if (r < 0)
            return r;
        tap->attached = true;
    }
    tap->ifindex = link.ifindex;
    if (tap->kind == PK_TAP_REPLAY) /* see lane.c: XDP may have switched GRO on */
        return pk_offloads_set(agent->ioctl_fd, tap->interface, PK_OFFLOAD_GRO, false, err);
    return 0;
}

int pk_tap_ensure(struct pk_agent *agent, struct pk_tap *tap, struct pk_error *err)
{
    tap->state = PK_TAP_DETACHED;
    tap->detail[0] = '\0';
    int r = ensure(agent, tap, err);
    if (r == 0) {
        tap->state = PK_TAP_UP;
        return 0;
    }
    (void)pk_wrap(err, "tap %s", tap->key);
    if (err != NULL)
        (void)snprintf(tap->detail, sizeof(tap->detail), "%.199s", err->msg);
    return r;
}

int pk_tap_restore_interface(struct pk_agent *agent, const char *name,
                             const struct pk_tap_before *before, struct pk_error *err)
{
    struct pk_link link;
    if (before->ifindex == 0)
        return 0;
    int r = pk_link_get(agent->nl, name, &link, err);
    if (r == PK_E_NOTFOUND)
        return 0;
    if (r == 0 && before->offloads != 0)
        r = pk_offloads_set(agent->ioctl_fd, name, before->offloads, true, err);
    if (r == 0)
        r = pk_link_set(agent->nl, &link, 0, 0,
                        (before->promisc ? 0 : IFF_PROMISC) | (before->up ? 0 : IFF_UP), err);
    return r;
}

int pk_tap_remove(struct pk_agent *agent, struct pk_tap *tap, struct pk_error *err)
{
    if (tap->kind == PK_TAP_INLINE)
        return pk_inline_tap_remove(agent, tap, err);
    int first = pk_broker_tap_detach(agent->broker, tap->key, err);
    if (first == PK_E_NOTFOUND)
        first = 0;
    int r;
    if (tap->kind == PK_TAP_REPLAY)
        r = pk_link_delete(agent->nl, tap->interface, first < 0 ? NULL : err);
    else
        r = pk_tap_restore_interface(agent, tap->interface, &tap->before, first < 0 ? NULL : err);
    tap->attached = false;
    tap->state = PK_TAP_DETACHED;
    return first < 0 ? first : r;
}
