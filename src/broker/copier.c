/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pk_tap_copy at the ingress of a tap's interface: a filter of the clsact queueing discipline,
 * which Linux 6.1 has too. The kernel keeps it without a pin; the pin of the program is there for
 * us: its name tells the next agent, of whatever version, on which interface it is and whether the
 * queueing discipline is ours. Since both outlive an agent that is killed, the program is pinned
 * before, beside the pin of the one that it replaces: what we put there always has a pin.
 */
#include "broker/instance.h"

#include <dirent.h>
#include <errno.h>
#include <linux/ethtool.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "base/alloc.h"
#include "base/fs.h"
#include "base/str.h"
#include "broker/internal.h"

#define HANDLE    0x706bu /* "pk" */
#define PRIORITY  1u
#define NAME_SIZE 64

/* "copy-TAP-INTERFACE", "-made" where the queueing discipline is ours, and "-next" while it takes
 * the place of another one. */
static const char *pin_name(uint32_t tap, unsigned ifindex, bool made, bool next,
                            char name[NAME_SIZE])
{
    snprintf(name, NAME_SIZE, "copy-%u-%u%s%s", tap, ifindex, made ? "-made" : "",
             next ? "-next" : "");
    return name;
}

struct place {
    uint32_t tap;
    unsigned ifindex;
    bool made, next;
};

static bool read_name(const char *name, struct place *ret_place)
{
    uint64_t tap, ifindex;
    if (strncmp(name, "copy-", 5) != 0)
        return false;
    name += 5;
    if (!pk_take_u64(&name, &tap) || tap >= PK_TAPS_MAX || *name++ != '-' ||
        !pk_take_u64(&name, &ifindex) || ifindex > INT32_MAX)
        return false;
    *ret_place = (struct place){ .tap = (uint32_t)tap,
                                 .ifindex = (unsigned)ifindex,
                                 .made = pk_str_starts(name, "-made") };
    if (ret_place->made)
        name += strlen("-made");
    ret_place->next = strcmp(name, "-next") == 0;
    return *name == '\0' || ret_place->next;
}

bool pk_copier_is_pin(const char *name)
{
    struct place place;
    return read_name(name, &place);
}

/* The program that runs there, 0 = none. */
static uint32_t running(unsigned ifindex)
{
    LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = (int)ifindex, .attach_point = BPF_TC_INGRESS);
    LIBBPF_OPTS(bpf_tc_opts, opts, .handle = HANDLE, .priority = PRIORITY);
    return bpf_tc_query(&hook, &opts) == 0 ? opts.prog_id : 0;
}

static uint32_t id_of(int program)
{
    struct bpf_prog_info info = { 0 };
    uint32_t len = sizeof info;
    return program >= 0 && bpf_obj_get_info_by_fd(program, &info, &len) == 0 ? info.id : 0;
}

/* Is the program with this number one that we have pinned for the place? */
static bool is_pinned(struct pk_broker *broker, uint32_t tap, unsigned ifindex, bool made,
                      uint32_t id)
{
    bool found = false;
    for (unsigned next = 0; next < 2 && !found; next++) {
        char name[NAME_SIZE];
        PK_CLEANUP(pk_free_p)
        char *path = pk_path_join(broker->pin_dir, pin_name(tap, ifindex, made, next != 0, name));
        PK_CLEANUP(pk_close_p) int fd = path != NULL ? bpf_obj_get(path) : -1;
        found = id != 0 && id_of(fd) == id;
    }
    return found;
}

bool pk_copier_is_on(struct pk_broker *broker, uint32_t tap, unsigned ifindex)
{
    uint32_t id = ifindex != 0 ? running(ifindex) : 0;
    if (id == 0 || broker->taps[tap].build != broker->build)
        return false;
    return is_pinned(broker, tap, ifindex, false, id) || is_pinned(broker, tap, ifindex, true, id);
}

static int fail(int sys, unsigned ifindex, const char *what, struct pk_error *err)
{
    char name[IF_NAMESIZE];
    if (if_indextoname(ifindex, name) == NULL)
        snprintf(name, sizeof name, "#%u", ifindex);
    if (sys == ENODEV || sys == ENXIO) {
        pk_fail(err, PK_E_NOTFOUND, "the interface %s is gone", name);
        return pk_hint(err, "'ip link' lists those of this namespace");
    }
    if (sys == ENOENT || sys == EOPNOTSUPP || sys == EAFNOSUPPORT) {
        pk_fail(err, PK_E_UNSUPPORTED, "the kernel has no %s", what);
        return pk_hint(err,
                       "CONFIG_NET_SCH_INGRESS and CONFIG_NET_CLS_BPF are needed for frames of "
                       "more than 3,000 bytes to reach several groups");
    }
    pk_fail_errno(err, sys, "cannot put a program at the ingress of %s (%s)", name, what);
    return pk_hint(err, "'tc filter show dev %s ingress' lists what is there", name);
}

static int pin_error(int sys, const char *path, struct pk_error *err)
{
    pk_fail_errno(err, sys, "cannot keep a program as %s", path);
    return pk_hint(err, "see 'picket doctor'");
}

/* ---- the queueing discipline ---- */

/* Calls each() for all that the dump tells, until it says true. In doubt: true. */
static bool any_answer(const struct tcmsg *what, uint16_t type, uint16_t answer_type,
                       bool (*each)(const struct tcmsg *tc))
{
    static const struct timeval patience = { .tv_sec = 2 };
    struct {
        struct nlmsghdr header;
        struct tcmsg tc;
    } ask = { .header = { .nlmsg_len = sizeof ask,
                          .nlmsg_type = type,
                          .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP },
              .tc = *what };
    _Alignas(struct nlmsghdr) char answer[32768];
    PK_CLEANUP(pk_close_p) int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) < 0 ||
        send(fd, &ask, sizeof ask, 0) != (ssize_t)sizeof ask)
        return true;
    for (;;) {
        ssize_t got = recv(fd, answer, sizeof answer, 0);
        if (got < 0)
            return true;
        size_t left = (size_t)got;
        for (struct nlmsghdr *at = (struct nlmsghdr *)answer; NLMSG_OK(at, left);
             at = NLMSG_NEXT(at, left)) {
            if (at->nlmsg_type == NLMSG_DONE || at->nlmsg_type == NLMSG_ERROR)
                return false;
            const struct tcmsg *tc = NLMSG_DATA(at);
            /* The kernel tells the queueing disciplines of all interfaces. */
            if (at->nlmsg_type == answer_type && at->nlmsg_len >= NLMSG_LENGTH(sizeof *tc) &&
                tc->tcm_ifindex == what->tcm_ifindex && each(tc))
                return true; /* the rest of the answer goes with the socket */
        }
    }
}

static bool is_any(const struct tcmsg *tc)
{
    (void)tc;
    return true;
}

/* clsact, or the older ingress: an interface has one of them at most. */
static bool is_ingress(const struct tcmsg *tc)
{
    return tc->tcm_handle == TC_H_MAKE(TC_H_CLSACT, 0);
}

static bool has_ingress(unsigned ifindex)
{
    const struct tcmsg what = { .tcm_family = AF_UNSPEC, .tcm_ifindex = (int)ifindex };
    return any_answer(&what, RTM_GETQDISC, RTM_NEWQDISC, is_ingress);
}

/* Others may have put something into the queueing discipline since we made it. In doubt it stays.
 */
static bool others_use_it(unsigned ifindex)
{
    static const uint32_t parents[] = { TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS),
                                        TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_EGRESS) };
    bool found = false;
    for (size_t i = 0; i < PK_ARRAY_SIZE(parents) && !found; i++) {
        const struct tcmsg what = { .tcm_family = AF_UNSPEC,
                                    .tcm_ifindex = (int)ifindex,
                                    .tcm_parent = parents[i] };
        found = any_answer(&what, RTM_GETTFILTER, RTM_NEWTFILTER, is_any);
    }
    return found;
}

static void destroy_ingress(unsigned ifindex)
{
    LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = (int)ifindex,
                .attach_point = BPF_TC_INGRESS | BPF_TC_EGRESS);
    if (!others_use_it(ifindex))
        (void)bpf_tc_hook_destroy(&hook);
}

/* Pinned by an agent that was killed before the filter was there. */
static bool has_begun(struct pk_broker *broker, uint32_t tap, unsigned ifindex)
{
    char name[NAME_SIZE];
    PK_CLEANUP(pk_free_p)
    char *path = pk_path_join(broker->pin_dir, pin_name(tap, ifindex, true, true, name));
    return path != NULL && pk_file_exists(path) && !others_use_it(ifindex);
}

/* ---- putting it there ---- */

static int put_filter(unsigned ifindex, bool replace, int program, struct pk_error *err)
{
    LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = (int)ifindex, .attach_point = BPF_TC_INGRESS);
    LIBBPF_OPTS(bpf_tc_opts, opts, .handle = HANDLE, .priority = PRIORITY, .prog_fd = program,
                .flags = replace ? BPF_TC_F_REPLACE : 0);
    int r = replace ? 0 : bpf_tc_hook_create(&hook);
    if (r < 0 && r != -EEXIST)
        return fail(-r, ifindex, "clsact queueing discipline", err);
    r = bpf_tc_attach(&hook, &opts);
    return r < 0 ? fail(-r, ifindex, "BPF filter", err) : 0;
}

/* Pins the program, puts it in its place, and lets its pin take that of the one before. */
static int put_in_place(struct pk_broker *broker, uint32_t tap, unsigned ifindex, bool made,
                        bool replace, int program, struct pk_error *err)
{
    char name[NAME_SIZE];
    PK_CLEANUP(pk_free_p)
    char *path = pk_path_join(broker->pin_dir, pin_name(tap, ifindex, made, false, name));
    PK_CLEANUP(pk_free_p)
    char *next = pk_path_join(broker->pin_dir, pin_name(tap, ifindex, made, true, name));
    if (path == NULL || next == NULL)
        return pk_no_memory(err);
    /* One that an agent was killed with may be what runs. */
    PK_CLEANUP(pk_close_p) int left = bpf_obj_get(next);
    bool runs = left >= 0 && id_of(left) == running(ifindex);
    if (left >= 0 && (runs ? rename(next, path) : unlink(next)) < 0)
        return pin_error(errno, next, err);
    if (bpf_obj_pin(program, next) < 0)
        return pin_error(errno, next, err);
    int r = put_filter(ifindex, replace, program, err);
    if (r < 0) {
        if (made && !replace)
            destroy_ingress(ifindex);
        (void)unlink(next);
        return r;
    }
    return rename(next, path) < 0 ? pin_error(errno, next, err) : 0;
}

int pk_copier_attach(struct pk_broker *broker, uint32_t tap, unsigned ifindex, struct pk_error *err)
{
    struct pk_plane_numbers numbers = { .tap = tap };
    PK_CLEANUP(pk_close_p) int program = -1;
    int r = pk_plane_load(broker, PK_PROGRAM_TAP_COPY, numbers, &program, err);
    if (r < 0)
        return r;
    uint32_t there = running(ifindex);
    bool made = is_pinned(broker, tap, ifindex, true, there);
    bool ours = made || is_pinned(broker, tap, ifindex, false, there);
    if (there != 0 && !ours) {
        pk_fail(err, PK_E_CONFLICT,
                "another program has picket's place at the interface's ingress");
        return pk_hint(err, "'bpftool prog show id %u' tells whose it is", there);
    }
    if (!ours)
        made = !has_ingress(ifindex) || has_begun(broker, tap, ifindex);
    return put_in_place(broker, tap, ifindex, made, ours, program, err);
}

/* ---- what interfaces are set to ---- */

#define FEATURES_MAX 256u

static int ethtool(int fd, unsigned ifindex, void *command)
{
    struct ifreq ask = { 0 };
    if (if_indextoname(ifindex, ask.ifr_name) == NULL)
        return -1;
    ask.ifr_data = command;
    return ioctl(fd, SIOCETHTOOL, &ask);
}

/* The kernel takes the outermost tag out of a packet that goes up, and a veth end that says it can
 * put it back passes it on beside the packet instead. */
void pk_copier_keep_tags(unsigned ifindex)
{
    struct {
        struct ethtool_gstrings head;
        char names[FEATURES_MAX][ETH_GSTRING_LEN];
    } strings = { .head = { .cmd = ETHTOOL_GSTRINGS, .string_set = ETH_SS_FEATURES } };
    struct {
        struct ethtool_sset_info head;
        uint32_t count;
    } size = { .head = { .cmd = ETHTOOL_GSSET_INFO, .sset_mask = 1ull << ETH_SS_FEATURES } };
    struct {
        struct ethtool_sfeatures head;
        struct ethtool_set_features_block blocks[FEATURES_MAX / 32];
    } off = { .head = { .cmd = ETHTOOL_SFEATURES } };
    struct ethtool_drvinfo driver = { .cmd = ETHTOOL_GDRVINFO };
    PK_CLEANUP(pk_close_p) int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || ethtool(fd, ifindex, &driver) < 0 || strcmp(driver.driver, "veth") != 0 ||
        ethtool(fd, ifindex, &size) < 0 || size.count > FEATURES_MAX)
        return; /* a NIC puts the tag where it belongs */
    strings.head.len = size.count;
    if (ethtool(fd, ifindex, &strings) < 0)
        return;
    off.head.size = (size.count + 31) / 32;
    for (uint32_t i = 0; i < size.count; i++)
        if (strcmp(strings.names[i], "tx-vlan-hw-insert") == 0 ||
            strcmp(strings.names[i], "tx-vlan-stag-hw-insert") == 0)
            off.blocks[i / 32].valid |= 1u << i % 32;
    (void)ethtool(fd, ifindex, &off);
}

bool pk_copier_is_merging(unsigned ifindex)
{
    struct ethtool_value gro = { .cmd = ETHTOOL_GGRO };
    PK_CLEANUP(pk_close_p) int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    return fd < 0 || ethtool(fd, ifindex, &gro) < 0 || gro.data != 0;
}

/* ---- and away ---- */

int pk_copier_drop(const char *pin_dir, const char *name, struct pk_error *err)
{
    struct place place;
    if (!read_name(name, &place))
        return 0;
    PK_CLEANUP(pk_free_p) char *path = pk_path_join(pin_dir, name);
    if (path == NULL)
        return pk_no_memory(err);
    PK_CLEANUP(pk_close_p) int fd = bpf_obj_get(path);
    uint32_t id = id_of(fd);
    bool runs = id != 0 && id == running(place.ifindex);
    if (runs) {
        LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = (int)place.ifindex,
                    .attach_point = BPF_TC_INGRESS);
        LIBBPF_OPTS(bpf_tc_opts, opts, .handle = HANDLE, .priority = PRIORITY);
        int r = bpf_tc_detach(&hook, &opts);
        if (r < 0 && r != -ENOENT && r != -ENODEV)
            return fail(-r, place.ifindex, "BPF filter", err);
    }
    /* Of a kill before the filter was there nothing runs yet. */
    if (place.made && (runs || place.next))
        destroy_ingress(place.ifindex);
    if (unlink(path) < 0 && errno != ENOENT)
        return pk_fail_errno(err, errno, "cannot remove %s", path);
    return 0;
}

/* From all interfaces but one; 0 = from all. */
int pk_copier_remove(struct pk_broker *broker, uint32_t tap, unsigned but, struct pk_error *err)
{
    DIR *dir = opendir(broker->pin_dir);
    if (dir == NULL)
        return errno == ENOENT ? 0 : pk_fail_errno(err, errno, "cannot read %s", broker->pin_dir);
    int r = 0;
    struct dirent *entry;
    while (r >= 0 && (entry = readdir(dir)) != NULL) {
        struct place place;
        if (read_name(entry->d_name, &place) && place.tap == tap &&
            (but == 0 || place.ifindex != but))
            r = pk_copier_drop(broker->pin_dir, entry->d_name, err);
    }
    closedir(dir);
    return r;
}
