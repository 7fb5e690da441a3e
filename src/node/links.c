/* SPDX-License-Identifier: Apache-2.0 */
/* Links through rtnetlink (libnl), offloads through the ethtool ioctl. */
#include <errno.h>
#include <fcntl.h>
#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <netlink/errno.h>
#include <netlink/netlink.h>
#include <netlink/route/link.h>
#include <netlink/route/link/veth.h>

#include "base/alloc.h"
#include "base/fs.h"
#include "base/str.h"
#include "node/internal.h"

static void link_put_p(struct rtnl_link **link)
{
    if (*link != NULL)
        rtnl_link_put(*link);
}
#define PK_NL_LINK PK_CLEANUP(link_put_p) struct rtnl_link *

/* libnl folds errno into codes of its own. */
static int fail_nl(struct pk_error *err, int nl_code, const char *what, const char *name)
{
    int code;
    switch (nl_code < 0 ? -nl_code : nl_code) {
    case NLE_NODEV:
    case NLE_OBJ_NOTFOUND:
        code = PK_E_NOTFOUND;
        break;
    case NLE_EXIST:
    case NLE_BUSY:
        code = PK_E_CONFLICT;
        break;
    case NLE_PERM:
    case NLE_NOACCESS:
        (void)pk_fail(err, PK_E_DENIED, "%s %s: %s", what, name, nl_geterror(nl_code));
        return pk_hint(err, "the agent needs CAP_NET_ADMIN: start it as root");
    case NLE_NOMEM:
        code = PK_E_NOMEM;
        break;
    case NLE_OPNOTSUPP:
        (void)pk_fail(err, PK_E_UNSUPPORTED, "%s %s: %s", what, name, nl_geterror(nl_code));
        return pk_hint(err, "the kernel needs the veth driver: 'modprobe veth', or "
                            "CONFIG_VETH in a kernel of your own");
    default:
        code = PK_E_IO;
        break;
    }
    return pk_fail(err, code, "%s %s: %s", what, name, nl_geterror(nl_code));
}

int pk_nl_open(struct nl_sock **ret_nl, struct pk_error *err)
{
    struct nl_sock *nl = nl_socket_alloc();
    if (nl == NULL)
        return pk_no_memory(err);
    int r = nl_connect(nl, NETLINK_ROUTE);
    if (r < 0) {
        nl_socket_free(nl);
        return fail_nl(err, r, "cannot open", "an rtnetlink socket");
    }
    /* The sender's own copy of each message is not wanted, and answers may be long. */
    (void)nl_socket_set_msg_buf_size(nl, 32u << 10);
    *ret_nl = nl;
    return 0;
}

void pk_nl_close(struct nl_sock *nl)
{
    if (nl != NULL)
        nl_socket_free(nl);
}

static void describe(struct rtnl_link *link, struct pk_link *ret_link)
{
    const char *type = rtnl_link_get_type(link);
    *ret_link = (struct pk_link){
        .ifindex = (unsigned)rtnl_link_get_ifindex(link),
        .mtu = rtnl_link_get_mtu(link),
        .flags = rtnl_link_get_flags(link),
        .queues = rtnl_link_get_num_rx_queues(link),
        .is_veth = type != NULL && strcmp(type, "veth") == 0,
    };
    if (ret_link->is_veth && rtnl_link_get_link(link) > 0)
        ret_link->peer_ifindex = (unsigned)rtnl_link_get_link(link);
    const char *name = rtnl_link_get_name(link);
    (void)snprintf(ret_link->name, sizeof(ret_link->name), "%s", name != NULL ? name : "");
    const char *alias = rtnl_link_get_ifalias(link);
    (void)snprintf(ret_link->alias, sizeof(ret_link->alias), "%s", alias != NULL ? alias : "");
}

int pk_link_get(struct nl_sock *nl, const char *name, struct pk_link *ret_link,
                struct pk_error *err)
{
    PK_NL_LINK link = NULL;
    int r = rtnl_link_get_kernel(nl, 0, name, &link);
    if (r < 0)
        return fail_nl(err, r, "interface", name);
    describe(link, ret_link);
    return 0;
}

int pk_link_add_veth(struct nl_sock *nl, const struct pk_veth *veth, struct pk_error *err)
{
    PK_NL_LINK link = rtnl_link_veth_alloc();
    if (link == NULL)
        return pk_no_memory(err);
    struct rtnl_link *peer = rtnl_link_veth_get_peer(link); /* a reference of its own */
    rtnl_link_set_name(link, veth->name);
    rtnl_link_set_name(peer, veth->peer_name);
    if (veth->peer_netns_fd >= 0)
        rtnl_link_set_ns_fd(peer, veth->peer_netns_fd);
    struct rtnl_link *const ends[] = { link, peer };
    for (size_t i = 0; i < PK_ARRAY_SIZE(ends); i++) {
        rtnl_link_set_mtu(ends[i], veth->mtu);
        rtnl_link_set_flags(ends[i], IFF_NOARP);
        /* One queue keeps both directions of a flow in order. */
        rtnl_link_set_num_rx_queues(ends[i], 1);
        rtnl_link_set_num_tx_queues(ends[i], 1);
    }
    int r = rtnl_link_add(nl, link, NLM_F_CREATE | NLM_F_EXCL);
    rtnl_link_put(peer);
    if (r < 0)
        return fail_nl(err, r, "cannot make the link", veth->name);
    if (veth->alias != NULL) { /* only a help for people: not having it is no failure */
        PK_NL_LINK change = rtnl_link_alloc();
        PK_NL_LINK made = NULL;
        if (change != NULL && rtnl_link_get_kernel(nl, 0, veth->name, &made) == 0) {
            rtnl_link_set_ifalias(change, veth->alias);
            (void)rtnl_link_change(nl, made, change, 0);
        }
    }
    return 0;
}

int pk_link_delete(struct nl_sock *nl, const char *name, struct pk_error *err)
{
    PK_NL_LINK link = rtnl_link_alloc();
    if (link == NULL)
        return pk_no_memory(err);
    rtnl_link_set_name(link, name);
    int r = rtnl_link_delete(nl, link);
    if (r == -NLE_NODEV || r == -NLE_OBJ_NOTFOUND)
        return 0;
    return r < 0 ? fail_nl(err, r, "cannot remove the link", name) : 0;
}

int pk_link_set(struct nl_sock *nl, const struct pk_link *link, unsigned mtu, unsigned flags_on,
                unsigned flags_off, struct pk_error *err)
{
    bool mtu_differs = mtu != 0 && link->mtu != mtu;
    if (!mtu_differs && (link->flags & flags_on) == flags_on && (link->flags & flags_off) == 0)
        return 0;
    PK_NL_LINK orig = rtnl_link_alloc();
    PK_NL_LINK change = rtnl_link_alloc();
    if (orig == NULL || change == NULL)
        return pk_no_memory(err);
    rtnl_link_set_ifindex(orig, (int)link->ifindex);
    if (mtu_differs)
        rtnl_link_set_mtu(change, mtu);
    if (flags_on != 0)
        rtnl_link_set_flags(change, flags_on);
    if (flags_off != 0)
        rtnl_link_unset_flags(change, flags_off);
    int r = rtnl_link_change(nl, orig, change, 0);
    return r < 0 ? fail_nl(err, r, "cannot change the link", link->name) : 0;
}

int pk_link_each(struct nl_sock *nl, void (*each)(void *arg, const struct pk_link *link), void *arg,
                 struct pk_error *err)
{
    struct nl_cache *cache = NULL;
    int r = rtnl_link_alloc_cache(nl, AF_UNSPEC, &cache);
    if (r < 0)
        return fail_nl(err, r, "cannot list", "the links");
    for (struct nl_object *object = nl_cache_get_first(cache); object != NULL;
         object = nl_cache_get_next(object)) {
        struct pk_link link;
        describe((struct rtnl_link *)object, &link);
        each(arg, &link);
    }
    nl_cache_free(cache);
    return 0;
}

struct strays {
    const char *tag;
    bool (*keep)(void *arg, const char *name);
    void *arg;
    char (*names)[16];
    size_t count;
    bool failed;
};

static void collect_stray(void *arg, const struct pk_link *link)
{
    struct strays *strays = arg;
    size_t len = strlen(strays->tag);
    if (strncmp(link->name, strays->tag, len) != 0 || link->name[len] == '\0' ||
        strchr("slit", link->name[len]) == NULL ||
        (strays->keep != NULL && strays->keep(strays->arg, link->name)))
        return;
    void *grown = pk_realloc_array(strays->names, strays->count + 1, sizeof(*strays->names));
    if (grown == NULL) {
        strays->failed = true;
        return;
    }
    strays->names = grown;
    memcpy(strays->names[strays->count++], link->name, sizeof(link->name));
}

int pk_link_delete_all(struct nl_sock *nl, const char *tag,
                       bool (*keep)(void *arg, const char *name), void *arg, struct pk_error *err)
{
    struct strays strays = { .tag = tag, .keep = keep, .arg = arg };
    int r = pk_link_each(nl, collect_stray, &strays, err);
    for (size_t i = 0; i < strays.count && r == 0; i++)
        r = pk_link_delete(nl, strays.names[i], err);
    pk_free(strays.names);
    return r == 0 && strays.failed ? pk_no_memory(err) : r;
}

int pk_link_ipv6_off(const char *name, struct pk_error *err)
{
    char path[96];
    (void)snprintf(path, sizeof(path), "/proc/sys/net/ipv6/conf/%s/disable_ipv6", name);
    PK_CLEANUP(pk_close_p) int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0) /* a kernel without IPv6 */
        return errno == ENOENT ? 0 : pk_fail_errno(err, errno, "cannot open %s", path);
    char now = '0';
    if (pread(fd, &now, 1, 0) == 1 && now == '1')
        return 0;
    if (pwrite(fd, "1", 1, 0) < 0)
        return pk_fail_errno(err, errno, "cannot switch IPv6 off on %s", name);
    return 0;
}

/* The thread's own tables; one that is too long to read, or not there, holds nothing. */
static int read_routes(const char *path, char **ret_text, struct pk_error *err)
{
    size_t len = 0;
    int r = pk_file_read(path, 1u << 20, ret_text, &len, err);
    return r == PK_E_NOTFOUND || r == PK_E_NOSPACE ? 0 : r;
}

int pk_link_has_default_route(const char *name, bool *ret_has, struct pk_error *err)
{
    PK_CLEANUP(pk_free_p) char *four = NULL;
    PK_CLEANUP(pk_free_p) char *six = NULL;
    *ret_has = false;
    int r = read_routes("/proc/thread-self/net/route", &four, err);
    if (r >= 0)
        r = read_routes("/proc/thread-self/net/ipv6_route", &six, err);
    if (r < 0)
        return r;
    /* A line of titles, then "Iface Destination Gateway Flags RefCnt Use Metric Mask ..." */
    for (const char *line = four != NULL ? strchr(four, '\n') : NULL; line != NULL;
         line = strchr(line + 1, '\n')) {
        char device[16] = "", destination[9] = "", mask[9] = "";
        if (sscanf(line + 1, "%15s %8s %*s %*s %*s %*s %*s %8s", device, destination, mask) == 3 &&
            strcmp(destination, "00000000") == 0 && strcmp(mask, "00000000") == 0 &&
            strcmp(device, name) == 0)
            *ret_has = true;
    }
    /* "Destination Length Source Length NextHop Metric RefCnt Use Flags Iface" */
    for (const char *line = six; line != NULL && *line != '\0';) {
        char device[16] = "", destination[33] = "", length[3] = "";
        if (sscanf(line, "%32s %2s %*s %*s %*s %*s %*s %*s %*s %15s", destination, length,
                   device) == 3 &&
            strspn(destination, "0") == 32 && strcmp(length, "00") == 0 &&
            strcmp(device, name) == 0)
            *ret_has = true;
        line = strchr(line, '\n');
        line = line != NULL ? line + 1 : NULL;
    }
    return 0;
}

/* ---- offloads ---- */

static const struct offload {
    unsigned bit;
    const char *name;  /* as 'ethtool -k' calls it */
    uint32_t get, set; /* 0 = a bit of ETHTOOL_GFLAGS: */
    uint32_t flag;
} offloads[] = {
    { PK_OFFLOAD_GRO, "gro", ETHTOOL_GGRO, ETHTOOL_SGRO, 0 },
    { PK_OFFLOAD_GSO, "gso", ETHTOOL_GGSO, ETHTOOL_SGSO, 0 },
    { PK_OFFLOAD_TSO, "tso", ETHTOOL_GTSO, ETHTOOL_STSO, 0 },
    { PK_OFFLOAD_RX_CSUM, "rx-checksumming", ETHTOOL_GRXCSUM, ETHTOOL_SRXCSUM, 0 },
    { PK_OFFLOAD_TX_CSUM, "tx-checksumming", ETHTOOL_GTXCSUM, ETHTOOL_STXCSUM, 0 },
    { PK_OFFLOAD_LRO, "lro", 0, 0, ETH_FLAG_LRO },
    { PK_OFFLOAD_RX_VLAN, "rx-vlan-offload", 0, 0, ETH_FLAG_RXVLAN },
};

static int ethtool(int fd, const char *name, uint32_t cmd, uint32_t *value)
{
    struct ethtool_value data = { .cmd = cmd, .data = *value };
    struct ifreq request = { 0 };
    (void)snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", name);
    request.ifr_data = (char *)&data;
    if (ioctl(fd, SIOCETHTOOL, &request) < 0)
        return -errno;
    *value = data.data;
    return 0;
}

int pk_offloads_get(int ioctl_fd, const char *name, unsigned *ret_on, struct pk_error *err)
{
    uint32_t flags = 0;
    int r = ethtool(ioctl_fd, name, ETHTOOL_GFLAGS, &flags);
    if (r == -ENODEV)
        return pk_fail(err, PK_E_NOTFOUND, "there is no interface %s", name);
    unsigned on = 0;
    for (size_t i = 0; i < PK_ARRAY_SIZE(offloads); i++) {
        uint32_t value = 0;
        if (offloads[i].get == 0)
            value = flags & offloads[i].flag;
        else if (ethtool(ioctl_fd, name, offloads[i].get, &value) < 0)
            continue; /* a driver without it */
        if (value != 0)
            on |= offloads[i].bit;
    }
    *ret_on = on;
    return 0;
}

int pk_offloads_set(int ioctl_fd, const char *name, unsigned bits, bool on, struct pk_error *err)
{
    for (size_t i = 0; i < PK_ARRAY_SIZE(offloads); i++) {
        const struct offload *offload = &offloads[i];
        if ((bits & offload->bit) == 0)
            continue;
        uint32_t value = on;
        int r;
        if (offload->set != 0) {
            r = ethtool(ioctl_fd, name, offload->set, &value);
        } else {
            uint32_t flags = 0;
            r = ethtool(ioctl_fd, name, ETHTOOL_GFLAGS, &flags);
            flags = on ? flags | offload->flag : flags & ~offload->flag;
            if (r == 0)
                r = ethtool(ioctl_fd, name, ETHTOOL_SFLAGS, &flags);
        }
        if (r == -ENODEV)
            return pk_fail(err, PK_E_NOTFOUND, "there is no interface %s", name);
        if (r == -EPERM) {
            (void)pk_fail(err, PK_E_DENIED, "cannot change %s of %s", offload->name, name);
            return pk_hint(err, "the agent needs CAP_NET_ADMIN: start it as root");
        }
    }
    unsigned now = 0;
    int r = pk_offloads_get(ioctl_fd, name, &now, err);
    if (r < 0)
        return r;
    if (!on && (now & bits) != 0) {
        unsigned stuck = now & bits & ~((now & bits) - 1);
        return pk_fail(err, PK_E_UNSUPPORTED, "%s: the driver cannot switch %s off", name,
                       pk_offload_name(stuck));
    }
    return 0;
}

const char *pk_offload_name(unsigned bit)
{
    for (size_t i = 0; i < PK_ARRAY_SIZE(offloads); i++)
        if (offloads[i].bit == bit)
            return offloads[i].name;
    return "?";
}
