/* SPDX-License-Identifier: Apache-2.0 */
/* Namespaces and links to measure in. */
#include <errno.h>
#include <fcntl.h>
#include <linux/if_link.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <netlink/errno.h>
#include <netlink/netlink.h>
#include <netlink/route/link.h>
#include <netlink/route/link/bridge.h>
#include <netlink/route/link/macvlan.h>

#include "base/fs.h"
#include "bench/internal.h"
#include "node/internal.h"

static int simple_program(int action, const char *name, int *ret_fd, struct pk_error *err)
{
    const struct bpf_insn insns[] = { { .code = BPF_ALU64 | BPF_MOV | BPF_K, .imm = action },
                                      { .code = BPF_JMP | BPF_EXIT } };
    int fd = bpf_prog_load(BPF_PROG_TYPE_XDP, name, "GPL", insns, 2, NULL);
    if (fd < 0) {
        pk_fail_errno(err, errno, "cannot load a BPF program");
        return pk_hint(err, "see 'picket doctor --only bpf'");
    }
    *ret_fd = fd;
    return 0;
}

static int quiet(struct pk_error *err)
{
    /* No interface made from now on speaks IPv6 by itself. */
    int r = pk_link_ipv6_off("default", err);
    return r < 0 ? r : pk_link_ipv6_off("all", err);
}

int bench_rig_begin(struct bench_rig *rig, struct pk_error *err)
{
    rig->host = rig->pass = rig->drop = -1;
    if (geteuid() != 0) {
        pk_fail(err, PK_E_DENIED, "network namespaces and BPF need root");
        return pk_hint(err, "run it with sudo; all that it makes goes with it");
    }
    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) {
        pk_fail_errno(err, errno, "cannot make a mount namespace");
        return pk_hint(err, "run it as root and not in a container: it needs CAP_SYS_ADMIN");
    }
    if (mount("tmpfs", BENCH_DIR, "tmpfs", 0, "size=64m") < 0 ||
        mkdir(BENCH_DIR "/bpf", 0700) < 0 || mount("bpf", BENCH_DIR "/bpf", "bpf", 0, NULL) < 0) {
        pk_fail_errno(err, errno, "cannot mount a BPF file system");
        return pk_hint(err, "the kernel needs CONFIG_BPF_SYSCALL; see 'picket doctor --only bpf'");
    }
    bench_cpus_find(&rig->cpus);
    int r = simple_program(XDP_PASS, "pass", &rig->pass, err);
    return r < 0 ? r : simple_program(XDP_DROP, "drop", &rig->drop, err);
}

int bench_rig_renew(struct bench_rig *rig, unsigned groups, struct pk_error *err)
{
    char dir[64];
    if (rig->broker != NULL)
        (void)pk_broker_remove_all(rig->broker, NULL);
    pk_broker_close(rig->broker);
    rig->broker = NULL;
    pk_nl_close(rig->nl);
    rig->nl = NULL;
    pk_close_p(&rig->host);
    rig->groups = groups;
    rig->link_count = 0;
    /* The last one goes when nothing is open in it any more. */
    if (unshare(CLONE_NEWNET) < 0) {
        pk_fail_errno(err, errno, "cannot make a network namespace");
        return pk_hint(err, "run it as root and not in a container: it needs CAP_SYS_ADMIN");
    }
    rig->host = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    int r =
        rig->host < 0 ? pk_fail_errno(err, errno, "cannot open a network namespace") : quiet(err);
    if (r >= 0)
        r = pk_nl_open(&rig->nl, err);
    snprintf(dir, sizeof dir, BENCH_DIR "/bpf/%u", groups);
    if (r >= 0)
        r = pk_broker_open(&(struct pk_broker_options){ .pin_dir = dir }, &rig->broker, err);
    return r;
}

void bench_rig_done(struct bench_rig *rig)
{
    if (rig->broker != NULL)
        (void)pk_broker_remove_all(rig->broker, NULL);
    pk_broker_close(rig->broker);
    pk_nl_close(rig->nl);
    pk_close_p(&rig->host);
    pk_close_p(&rig->pass);
    pk_close_p(&rig->drop);
}

static int open_own(void *arg, struct pk_error *err)
{
    int *fd = arg;
    *fd = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    return *fd < 0 ? pk_fail_errno(err, errno, "cannot open a network namespace") : quiet(err);
}

int bench_netns_new(int *ret_fd, struct pk_error *err)
{
    return pk_netns_run(-1, open_own, ret_fd, err);
}

static int raise_link(void *arg, struct pk_error *err)
{
    PK_CLEANUP(pk_nl_close_p) struct nl_sock *nl = NULL;
    struct pk_link link;
    int r = pk_nl_open(&nl, err);
    if (r >= 0)
        r = pk_link_get(nl, arg, &link, err);
    return r < 0 ? r : pk_link_set(nl, &link, 0, IFF_UP, 0, err);
}

int bench_link_up(int netns, const char *name, struct pk_error *err)
{
    char copy[16];
    snprintf(copy, sizeof copy, "%s", name);
    return netns < 0 ? raise_link(copy, err) : pk_netns_run(netns, raise_link, copy, err);
}

int bench_veth(struct bench_rig *rig, const char *a, const char *b, int netns, unsigned *ret_a,
               struct pk_error *err)
{
    struct pk_veth veth = { .name = a, .peer_name = b, .peer_netns_fd = netns, .mtu = BENCH_MTU };
    int r = pk_link_add_veth(rig->nl, &veth, err);
    if (r >= 0)
        r = bench_link_up(-1, a, err);
    if (r >= 0)
        r = bench_link_up(netns, b, err);
    if (r >= 0)
        *ret_a = if_nametoindex(a);
    return r;
}

int bench_container_new(struct bench_rig *rig, struct bench_container *container,
                        struct pk_error *err)
{
    *container = (struct bench_container){ .netns = -1 };
    snprintf(container->outer, sizeof container->outer, "out%u", rig->link_count++);
    int r = bench_netns_new(&container->netns, err);
    return r < 0 ? r
                 : bench_veth(rig, container->outer, "tap0", container->netns,
                              &container->outer_ifindex, err);
}

void bench_container_done(struct bench_container *container)
{
    pk_close_p(&container->netns); /* its veth goes with it */
    *container = (struct bench_container){ .netns = -1 };
}

struct attaching {
    const char *interface;
    int program;
};

static int attach(void *arg, struct pk_error *err)
{
    const struct attaching *attaching = arg;
    int r = bpf_xdp_attach((int)if_nametoindex(attaching->interface), attaching->program,
                           XDP_FLAGS_DRV_MODE, NULL);
    return r < 0 ? pk_fail_errno(err, -r, "cannot attach XDP to %s", attaching->interface) : 0;
}

int bench_xdp(struct bench_rig *rig, int netns, const char *interface, int program,
              struct pk_error *err)
{
    (void)rig;
    struct attaching attaching = { interface, program };
    return netns < 0 ? attach(&attaching, err) : pk_netns_run(netns, attach, &attaching, err);
}

static int fail_link(int r, const char *what, struct pk_error *err)
{
    if (r == -NLE_OPNOTSUPP || r == -NLE_OBJ_NOTFOUND) {
        pk_fail(err, PK_E_UNSUPPORTED, "this kernel has no %s", what);
        return pk_hint(err, "'modprobe %s', or a kernel that has it", what);
    }
    return pk_fail(err, PK_E_IO, "cannot make a %s: %s", what, nl_geterror(r));
}

int bench_macvlan(struct bench_rig *rig, unsigned below, int netns, struct pk_error *err)
{
    struct rtnl_link *link = rtnl_link_macvlan_alloc();
    if (link == NULL)
        return pk_no_memory(err);
    rtnl_link_set_name(link, "tap0");
    rtnl_link_set_link(link, (int)below);
    rtnl_link_set_ns_fd(link, netns);
    int r = rtnl_link_macvlan_set_mode(link, rtnl_link_macvlan_str2mode("passthru"));
    if (r == 0)
        r = rtnl_link_add(rig->nl, link, NLM_F_CREATE | NLM_F_EXCL);
    rtnl_link_put(link);
    return r < 0 ? fail_link(r, "macvlan", err) : bench_link_up(netns, "tap0", err);
}

int bench_bridge(struct bench_rig *rig, const char *name, unsigned *ret_ifindex,
                 struct pk_error *err)
{
    int r = rtnl_link_bridge_add(rig->nl, name);
    if (r < 0)
        return fail_link(r, "bridge", err);
    *ret_ifindex = if_nametoindex(name);
    return bench_link_up(-1, name, err);
}

int bench_enslave(struct bench_rig *rig, unsigned bridge, unsigned port, struct pk_error *err)
{
    int r = rtnl_link_enslave_ifindex(rig->nl, (int)bridge, (int)port);
    return r < 0 ? pk_fail(err, PK_E_IO, "cannot put a port into a bridge: %s", nl_geterror(r)) : 0;
}
