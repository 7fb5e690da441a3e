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
static int check_may_take(const struct pk_tap *tap, const struct pk_link *link,
                          struct pk_error *err)
{
    if ((link->flags & IFF_LOOPBACK) != 0) {
        (void)pk_fail(err, PK_E_CONFLICT, "interface %s is the machine's loopback", link->name);
        return pk_hint(err, "a tap takes all packets of its interface away: use an interface that "
                            "only receives mirrored traffic");
    }
    if (tap->kind == PK_TAP_TUNNEL) /* takes what is the mirror's, and leaves all else */
        return 0;
    bool has = false;
    int r = pk_link_has_default_route(link->name, &has, err);
    if (r < 0 || !has)
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
    struct pk_nic_before nic;
    int r = pk_offloads_get(agent->ioctl_fd, link->name, &on, err);
    if (r == 0)
        r = pk_nic_remember(agent->ioctl_fd, link->name, &nic, err);
    if (r < 0)
        return r;
    *before = (struct pk_tap_before){ .ifindex = link->ifindex,
                                      .promisc = (link->flags & IFF_PROMISC) != 0,
                                      .up = (link->flags & IFF_UP) != 0,
                                      .offloads = on & PK_OFFLOADS_TAP,
                                      .nic = nic };
    r = pk_node_plane_save(&agent->plane, agent->plane_path, err);
    if (r < 0)
        *before = old;
    return r;
}

static struct pk_nic_spec wanted_nic(const struct pk_tap *tap)
{
    return pk_nic_resolve(&tap->nic, tap->kind == PK_TAP_TUNNEL);
}

/* All of it once, since rings and queues cost the link a moment; what would change packets is
 * looked at each time. */
static int set_up(struct pk_agent *agent, struct pk_tap *tap, const char *name,
                  struct pk_tap_before *before, struct pk_error *err)
{
    const struct pk_nic_spec spec = wanted_nic(tap);
    unsigned on = 0, off = PK_OFFLOAD_LRO | (spec.vlan == PK_NIC_OFF ? PK_OFFLOAD_RX_VLAN : 0) |
                           (spec.merge == PK_NIC_OFF ? PK_OFFLOAD_GRO : 0);
    int r = 0;
    if (tap->kind == PK_TAP_INLINE) /* packets go on: they leave as they came */
        off |= PK_OFFLOADS_TAP;
    if (!before->applied)
        r = pk_nic_apply(agent->ioctl_fd, name, &spec, before->tried, &before->tried_count, err);
    if (r < 0)
        return r;
    before->applied = true;
    r = pk_offloads_get(agent->ioctl_fd, name, &on, err);
    if (r < 0 || (on & off) == 0)
        return r;
    struct pk_error fault = { 0 };
    r = pk_offloads_set(agent->ioctl_fd, name, on & off, false, &fault);
    /* A driver that cannot is no reason to see nothing; GET /v1/plane tells it. */
    if (r == PK_E_UNSUPPORTED) {
        (void)snprintf(tap->detail, sizeof(tap->detail), "%.199s", fault.msg);
        return 0;
    }
    if (r < 0 && err != NULL)
        *err = fault;
    return r;
}

void pk_tap_give_back_nic(struct pk_agent *agent, struct pk_tap *tap)
{
    const char *const names[] = { tap->interface, tap->other.interface };
    struct pk_tap_before *const was[] = { &tap->before, &tap->other.before };
    for (size_t i = 0; i < PK_ARRAY_SIZE(names); i++) {
        if (names[i][0] != '\0' && was[i]->ifindex != 0)
            (void)pk_nic_restore(agent->ioctl_fd, names[i], &was[i]->nic, NULL);
        was[i]->applied = false;
    }
}

json_t *pk_tap_nic_status(const struct pk_agent *agent, const struct pk_tap *tap)
{
    const struct pk_nic_spec spec = wanted_nic(tap);
    return pk_nic_status(agent->ioctl_fd, tap->interface, &spec, &tap->before.nic,
                         tap->before.tried, tap->before.tried_count);
}

/* The interface is not here: gone, or under another name, or in another namespace. */
static void let_go(struct pk_agent *agent, struct pk_tap *tap, struct pk_tap_before *before)
{
    char name[IF_NAMESIZE];
    before->applied = false;
    tap->state = PK_TAP_MISSING;
    tap->attached = false;
    tap->ifindex = 0;
    tap->mode = PK_XDP_NONE;
    if (tap->kind != PK_TAP_INLINE) /* packets of what it is now are not to be taken */
        (void)pk_broker_tap_suspend(agent->broker, tap->key, NULL);
    if (before->ifindex == 0 || if_indextoname(before->ifindex, name) == NULL)
        return;
    struct pk_error err = { 0 };
    pk_log(PK_LOG_INFO, "node", "tap %s: %s is called %s now: giving it back", tap->key,
           tap->interface, name);
    if (pk_tap_restore_interface(agent, name, before, &err) < 0)
        pk_log_error(PK_LOG_WARN, "node", &err, "tap %s", tap->key);
    *before = (struct pk_tap_before){ 0 };
    if (pk_node_plane_save(&agent->plane, agent->plane_path, &err) < 0)
        pk_log_error(PK_LOG_WARN, "node", &err, "tap %s", tap->key);
}

int pk_tap_take_interface(struct pk_agent *agent, struct pk_tap *tap, const char *name,
                          struct pk_tap_before *before, struct pk_link *ret_link,
                          struct pk_error *err)
{
    int r = pk_link_get(agent->nl, name, ret_link, err);
    if (r == PK_E_NOTFOUND) {
        let_go(agent, tap, before);
        (void)pk_fail(err, PK_E_NOTFOUND, "there is no interface %s on this machine", name);
        return pk_hint(err, "'picket doctor' lists the interfaces; the tap starts by itself when "
                            "the interface appears");
    }
    if (r == 0)
        r = check_may_take(tap, ret_link, err);
    if (r == 0)
        r = remember(agent, before, ret_link, err);
    if (r == 0)
        r = set_up(agent, tap, name, before, err);
    if (r == 0) /* a tunnel's packets are addressed to the interface */
        r = pk_link_set(agent->nl, ret_link, 0,
                        IFF_UP | (tap->kind == PK_TAP_TUNNEL ? 0 : IFF_PROMISC), 0, err);
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
    bool is_tunnel = tap->kind == PK_TAP_TUNNEL;
    struct pk_broker_tunnel tunnel = { 0 };
    size_t left_out = 0;
    int r = tap->kind != PK_TAP_REPLAY
                ? pk_tap_take_interface(agent, tap, tap->interface, &tap->before, &link, err)
                : ensure_replay_pair(agent, tap, &link, err);
    if (r == 0 && is_tunnel)
        r = pk_tunnel_tap_rules(tap, &tunnel, &left_out, err);
    if (r < 0)
        return r;
    if (is_tunnel && tunnel.end_count == 0)
        (void)snprintf(tap->detail, sizeof(tap->detail),
                       "%s has no address that a mirror could send to", tap->interface);
    else if (left_out > 0)
        (void)snprintf(tap->detail, sizeof(tap->detail),
                       "%s has too many addresses: what is sent to %zu of them is not taken; name "
                       "the mirror's in tunnel.addresses, or remove some",
                       tap->interface, left_out);
    if (left_out != tap->left_out && left_out > 0)
        pk_log(PK_LOG_WARN, "node", "tap %s: %s", tap->key, tap->detail);
    tap->left_out = left_out;
    tap->live_mtu = tap->kind == PK_TAP_REPLAY ? tap->mtu : link.mtu;
    pk_lanes_follow(agent, tap);
    if (!tap->attached || tap->ifindex != link.ifindex ||
        (is_tunnel && memcmp(&tunnel, &tap->live_tunnel, sizeof(tunnel)) != 0) ||
        !pk_broker_tap_intact(agent->broker, tap->key, link.ifindex)) {
        const struct pk_broker_tap_config config = {
            .kind = is_tunnel ? PK_BROKER_TAP_TUNNEL : PK_BROKER_TAP_MIRROR,
            .tunnel = is_tunnel ? &tunnel : NULL,
            .tenants = tap->targets.tenant_list,
            .tenant_count = tap->targets.tenant_count,
            .targets = tap->targets.target_list,
            .target_count = tap->targets.target_count,
        };
        r = pk_broker_tap_attach(agent->broker, tap->key, link.ifindex, &config, &tap->mode, err);
        if (r < 0)
            return r;
        tap->attached = true;
        memcpy(&tap->live_tunnel, &tunnel, sizeof(tunnel));
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
    if (r == 0)
        r = pk_nic_restore(agent->ioctl_fd, name, &before->nic, err);
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
    tap->detached = first == 0;
    int r;
    if (tap->kind == PK_TAP_REPLAY)
        r = pk_link_delete(agent->nl, tap->interface, first < 0 ? NULL : err);
    else
        r = pk_tap_restore_interface(agent, tap->interface, &tap->before, first < 0 ? NULL : err);
    tap->attached = false;
    tap->state = PK_TAP_DETACHED;
    return first < 0 ? first : r;
}
