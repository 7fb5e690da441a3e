/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lanes that are fed by a whole interface, a card or a VF that balances by itself: it is moved into
 * the lane's namespace as tap0, and given back under its old name and as it was when the lane goes.
 *
 * Its alias tells whose it is and what it was called. So it is found again wherever the kernel puts
 * it: a physical interface whose namespace dies falls back into the first one, under a name of the
 * kernel's choice. A virtual one goes with its namespace.
 */
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>

#include <netlink/netlink.h>
#include <netlink/route/link.h>

#include "base/fs.h"
#include "base/log.h"
#include "base/str.h"
#include "node/agent.h"

#define AREA       "node"
#define INNER_NAME "tap0"
#define ALIAS      "picket device " /* NAME " of " KEY */

static void alias_of(const struct pk_lane *lane, char out[PK_LINK_ALIAS_SIZE])
{
    (void)snprintf(out, PK_LINK_ALIAS_SIZE, ALIAS "%s of %s", lane->device.name, lane->key);
}

/* ---- moving ---- */

static int move_to(struct nl_sock *nl, unsigned ifindex, const char *name, int netns_fd)
{
    struct rtnl_link *orig = rtnl_link_alloc(), *change = rtnl_link_alloc();
    int r = -1;
    if (orig != NULL && change != NULL) {
        rtnl_link_set_ifindex(orig, (int)ifindex);
        rtnl_link_set_name(change, name);
        rtnl_link_set_ns_fd(change, netns_fd);
        r = rtnl_link_change(nl, orig, change, 0);
    }
    rtnl_link_put(orig);
    rtnl_link_put(change);
    return r;
}

static void set_alias(struct nl_sock *nl, unsigned ifindex, const char *text)
{
    struct rtnl_link *orig = rtnl_link_alloc(), *change = rtnl_link_alloc();
    if (orig != NULL && change != NULL) {
        rtnl_link_set_ifindex(orig, (int)ifindex);
        rtnl_link_set_ifalias(change, text);
        (void)rtnl_link_change(nl, orig, change, 0);
    }
    rtnl_link_put(orig);
    rtnl_link_put(change);
}

struct search {
    const char *alias;
    struct pk_link found;
    bool there;
};

static void compare(void *arg, const struct pk_link *link)
{
    struct search *search = arg;
    if (strcmp(link->alias, search->alias) != 0)
        return;
    search->found = *link;
    search->there = true;
}

/* In the machine's own namespace, under whatever name. */
static bool find_fallen(struct pk_agent *agent, const struct pk_lane *lane,
                        struct pk_link *ret_link)
{
    char alias[PK_LINK_ALIAS_SIZE];
    alias_of(lane, alias);
    struct search search = { .alias = alias };
    if (pk_link_each(agent->nl, compare, &search, NULL) < 0 || !search.there)
        return false;
    *ret_link = search.found;
    return true;
}

/* ---- taking ---- */

static int may_take(struct pk_agent *agent, const struct pk_lane *lane, const struct pk_link *link,
                    struct pk_error *err)
{
    bool has_route = false;
    const char *why = NULL;
    int r = pk_link_has_default_route(link->name, &has_route, err);
    if (r < 0)
        return r;
    if ((link->flags & IFF_LOOPBACK) != 0)
        why = "is the machine's loopback";
    else if (has_route)
        why = "carries the machine's default route";
    for (size_t i = 0; i < agent->plane.tap_count && why == NULL; i++)
        if (strcmp(agent->plane.taps[i]->interface, link->name) == 0 ||
            strcmp(agent->plane.taps[i]->other.interface, link->name) == 0)
            why = "is a tap";
    if (why == NULL)
        return 0;
    (void)pk_fail(err, PK_E_CONFLICT, "lane %s: interface %s %s", lane->key, link->name, why);
    return pk_hint(err,
                   "a lane's device leaves this machine's network: name one that only receives "
                   "mirrored traffic");
}

static int remember(struct pk_agent *agent, struct pk_lane *lane, const struct pk_link *link,
                    struct pk_error *err)
{
    struct pk_lane_device *device = &lane->device;
    unsigned on = 0;
    struct pk_tap_before before = { .ifindex = link->ifindex,
                                    .promisc = (link->flags & IFF_PROMISC) != 0,
                                    .up = (link->flags & IFF_UP) != 0 };
    int r = pk_offloads_get(agent->ioctl_fd, link->name, &on, err);
    if (r == 0)
        r = pk_nic_remember(agent->ioctl_fd, link->name, &before.nic, err);
    if (r < 0)
        return r;
    before.offloads = on & PK_OFFLOADS_TAP;
    device->before = before;
    return pk_node_plane_save(&agent->plane, agent->plane_path, err);
}

static int take(struct pk_agent *agent, struct pk_lane *lane, struct pk_error *err)
{
    struct pk_link link, stranger;
    char alias[PK_LINK_ALIAS_SIZE];
    int r = pk_link_get(agent->nl, lane->device.name, &link, err);
    bool fallen = r == PK_E_NOTFOUND && find_fallen(agent, lane, &link);
    if (fallen)
        r = 0; /* what it was before is known */
    if (r == PK_E_NOTFOUND) {
        (void)pk_fail(err, PK_E_NOTFOUND, "there is no interface %s on this machine",
                      lane->device.name);
        return pk_hint(err,
                       "the lane starts by itself when it appears; a virtual one goes with the "
                       "namespace that it is in");
    }
    if (r == 0)
        r = may_take(agent, lane, &link, err);
    if (r == 0 && !fallen)
        r = remember(agent, lane, &link, err);
    if (r == 0 && pk_link_get(lane->netns.nl, INNER_NAME, &stranger, NULL) == 0)
        r = pk_link_delete(lane->netns.nl, INNER_NAME, err);
    if (r < 0)
        return r;
    alias_of(lane, alias);
    set_alias(agent->nl, link.ifindex, alias);
    int nl = move_to(agent->nl, link.ifindex, INNER_NAME, lane->netns.fd);
    if (nl < 0) {
        set_alias(agent->nl, link.ifindex, "");
        (void)pk_fail(err, PK_E_IO, "lane %s: interface %s cannot be moved into its namespace: %s",
                      lane->key, lane->device.name, nl_geterror(nl));
        return pk_hint(err, "some drivers' interfaces stay in their namespace ('ethtool -k' says "
                            "netns-local); make it a tap instead");
    }
    pk_log(PK_LOG_INFO, AREA, "lane %s: has %s now", lane->key, lane->device.name);
    lane->device.before.applied = false;
    return 0;
}

int pk_device_lane_ensure(struct pk_agent *agent, struct pk_lane *lane, struct pk_error *err)
{
    const struct pk_nic_spec spec = pk_nic_resolve(&(struct pk_nic_spec){ 0 }, false);
    struct pk_lane_device *device = &lane->device;
    struct pk_link link, loopback;
    char alias[PK_LINK_ALIAS_SIZE];
    alias_of(lane, alias);
    int r = pk_link_get(lane->netns.nl, INNER_NAME, &link, err);
    if (r == PK_E_NOTFOUND || (r == 0 && strcmp(link.alias, alias) != 0)) {
        r = take(agent, lane, err);
        if (r == 0)
            r = pk_link_get(lane->netns.nl, INNER_NAME, &link, err);
    }
    if (r == 0 && !device->before.applied) {
        r = pk_nic_apply(lane->netns.ioctl_fd, INNER_NAME, &spec, device->before.tried,
                         &device->before.tried_count, err);
        device->before.applied = r == 0;
    }
    if (r == 0)
        r = pk_link_get(lane->netns.nl, "lo", &loopback, err);
    if (r == 0)
        r = pk_link_set(lane->netns.nl, &loopback, 0, IFF_UP, 0, err);
    if (r == 0)
        r = pk_link_set(lane->netns.nl, &link, 0, IFF_UP | IFF_PROMISC | IFF_NOARP, 0, err);
    if (r < 0)
        return r;
    lane->inner_ifindex = link.ifindex;
    lane->live_mtu = link.mtu;
    return 0;
}

/* ---- giving back ---- */

/* Moves it out of the namespace that nl is of, under its name or, where that is taken, another. */
static int bring_home(struct nl_sock *nl, unsigned ifindex, const char *name, struct pk_error *err)
{
    PK_CLEANUP(pk_close_p) int home = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    if (home < 0)
        return pk_fail_errno(err, errno, "cannot open this network namespace");
    set_alias(nl, ifindex, "");
    int r = move_to(nl, ifindex, name, home);
    if (r == -NLE_EXIST) {
        pk_log(PK_LOG_WARN, AREA, "interface %s comes back under another name: there is one", name);
        r = move_to(nl, ifindex, "dev%d", home);
    }
    return r < 0 ? pk_fail(err, PK_E_IO, "interface %s cannot be given back: %s", name,
                           nl_geterror(r))
                 : 0;
}

static int restore(struct nl_sock *nl, int ioctl_fd, const struct pk_link *link,
                   const struct pk_tap_before *before, struct pk_error *err)
{
    int r = pk_nic_restore(ioctl_fd, link->name, &before->nic, err);
    if (before->offloads != 0 && r == 0)
        r = pk_offloads_set(ioctl_fd, link->name, before->offloads, true, err);
    int flags = pk_link_set(nl, link, 0, 0, (before->promisc ? 0 : IFF_PROMISC) | IFF_NOARP,
                            r < 0 ? NULL : err);
    return r < 0 ? r : flags;
}

int pk_device_lane_release(struct pk_agent *agent, struct pk_lane *lane, struct pk_error *err)
{
    struct pk_lane_device *device = &lane->device;
    struct pk_link link;
    char alias[PK_LINK_ALIAS_SIZE];
    int r = 0;
    alias_of(lane, alias);
    if (lane->netns.fd < 0) {
        int fd = open(lane->netns_path, O_RDONLY | O_CLOEXEC);
        if (fd >= 0 && pk_netns_open_take(fd, &lane->netns, NULL) < 0)
            pk_close_p(&fd);
    }
    if (lane->netns.nl != NULL && pk_link_get(lane->netns.nl, INNER_NAME, &link, NULL) == 0 &&
        strcmp(link.alias, alias) == 0) {
        r = restore(lane->netns.nl, lane->netns.ioctl_fd, &link, &device->before, err);
        int moved = bring_home(lane->netns.nl, link.ifindex, device->name, r < 0 ? NULL : err);
        r = r < 0 ? r : moved;
    } else if (find_fallen(agent, lane, &link)) {
        r = restore(agent->nl, agent->ioctl_fd, &link, &device->before, err);
        (void)pk_link_set(agent->nl, &link, 0, 0, IFF_UP, NULL); /* or it keeps its name */
        int moved = bring_home(agent->nl, link.ifindex, device->name, r < 0 ? NULL : err);
        r = r < 0 ? r : moved;
    }
    /* Moving has put it down. */
    if (device->before.up && pk_link_get(agent->nl, device->name, &link, NULL) == 0)
        (void)pk_link_set(agent->nl, &link, 0, IFF_UP, 0, NULL);
    device->before = (struct pk_tap_before){ 0 };
    return r;
}

struct rescue {
    struct pk_netns netns;
};

static void rescue_one(void *arg, const struct pk_link *link)
{
    struct rescue *rescue = arg;
    char name[16] = "";
    if (!pk_str_starts(link->alias, ALIAS))
        return;
    const char *text = link->alias + strlen(ALIAS);
    size_t len = strcspn(text, " ");
    if (len >= sizeof(name) || !pk_str_starts(text + len, " of "))
        return;
    memcpy(name, text, len);
    if (!pk_node_is_interface_name(name))
        return;
    struct pk_error err = { 0 };
    if (bring_home(rescue->netns.nl, link->ifindex, name, &err) < 0)
        pk_log_error(PK_LOG_WARN, AREA, &err, "a lane's device");
}

void pk_device_rescue(const char *netns_path)
{
    struct rescue rescue = { .netns = PK_NETNS_INIT };
    int fd = open(netns_path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    if (pk_netns_open_take(fd, &rescue.netns, NULL) < 0) {
        pk_close_p(&fd);
        return;
    }
    (void)pk_link_each(rescue.netns.nl, rescue_one, &rescue, NULL);
    pk_netns_done(&rescue.netns);
}

/* ---- counters ---- */

json_t *pk_device_lane_counters(const struct pk_lane *lane)
{
    struct rtnl_link *link = NULL;
    if (lane->netns.nl == NULL || rtnl_link_get_kernel(lane->netns.nl, 0, INNER_NAME, &link) < 0)
        return NULL;
    uint64_t lost = rtnl_link_get_stat(link, RTNL_LINK_RX_DROPPED) +
                    rtnl_link_get_stat(link, RTNL_LINK_RX_MISSED_ERR) +
                    rtnl_link_get_stat(link, RTNL_LINK_RX_FIFO_ERR);
    json_t *json = json_pack("{s:I,s:I,s:I}", "packets",
                             (json_int_t)rtnl_link_get_stat(link, RTNL_LINK_RX_PACKETS), "bytes",
                             (json_int_t)rtnl_link_get_stat(link, RTNL_LINK_RX_BYTES),
                             "ringDropped", (json_int_t)lost);
    rtnl_link_put(link);
    return json;
}
