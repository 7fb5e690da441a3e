/* SPDX-License-Identifier: Apache-2.0 */
/* What the broker needs of the kernel. */
#include "cli/doctor.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/statfs.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <linux/if_link.h>
#include <linux/magic.h>
#include <net/if.h>
#include <netlink/route/link.h>
#include <netlink/route/link/veth.h>
#include <netlink/socket.h>
#include <sys/syscall.h>

#include "base/alloc.h"
#include "base/fs.h"
#include "base/str.h"
#include "engine/podman/service.h"

void pk_doctor_kernel_version(struct pk_doctor *doctor)
{
    struct utsname name;
    unsigned major = 0, minor = 0;
    if (uname(&name) < 0)
        return pk_doctor_report(doctor, PK_VERDICT_FAIL, NULL, "uname: %s", strerrorname_np(errno));
    /* "6.1.0-28-amd64": two numbers and anything. */
    char release[65];
    (void)snprintf(release, sizeof(release), "%s", name.release);
    char *dot = strchr(release, '.');
    if (dot != NULL) {
        *dot = '\0';
        size_t digits = strspn(dot + 1, "0123456789");
        dot[1 + digits] = '\0';
        uint64_t value;
        if (pk_parse_u64(release, &value, NULL) == 0)
            major = (unsigned)value;
        if (pk_parse_u64(dot + 1, &value, NULL) == 0)
            minor = (unsigned)value;
    }
    if (major < 6 || (major == 6 && minor < 1))
        return pk_doctor_report(doctor, PK_VERDICT_FAIL, "install a kernel of 6.1 or later",
                                "Linux %s; 6.1 is the oldest that is supported", name.release);
    pk_doctor_report(doctor, PK_VERDICT_OK, NULL, "Linux %s %s", name.release, name.machine);
}

void pk_doctor_capabilities(struct pk_doctor *doctor)
{
    static const struct {
        unsigned number;
        const char *name, *use;
    } needed[] = {
        { CAP_NET_ADMIN, "CAP_NET_ADMIN", "links, namespaces, XDP" },
        { CAP_SYS_ADMIN, "CAP_SYS_ADMIN", "setns, bpffs" },
        { CAP_BPF, "CAP_BPF", "load programs" },
        { CAP_PERFMON, "CAP_PERFMON", "load programs" },
        { CAP_NET_RAW, "CAP_NET_RAW", "replay" },
    };
    struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
    struct __user_cap_data_struct data[2] = { 0 };
    if (syscall(SYS_capget, &header, data) < 0)
        return pk_doctor_report(doctor, PK_VERDICT_FAIL, NULL, "capget: %s",
                                strerrorname_np(errno));
    char missing[200] = "";
    for (size_t i = 0; i < PK_ARRAY_SIZE(needed); i++) {
        if ((data[needed[i].number / 32].effective >> (needed[i].number % 32) & 1) != 0)
            continue;
        size_t used = strlen(missing);
        (void)snprintf(missing + used, sizeof(missing) - used, "%s%s (%s)", used > 0 ? ", " : "",
                       needed[i].name, needed[i].use);
    }
    if (missing[0] == '\0')
        return pk_doctor_report(doctor, PK_VERDICT_OK, NULL, "all that 'picket node' needs, uid %u",
                                geteuid());
    /* A plain user may well ask the doctor; the agent then runs as root. */
    pk_doctor_report(doctor, geteuid() == 0 ? PK_VERDICT_FAIL : PK_VERDICT_WARN,
                     geteuid() == 0 ? "run where these capabilities are not taken from root"
                                    : "run 'picket node' and 'picket doctor' as root",
                     "missing here: %s", missing);
}

void pk_doctor_cgroups(struct pk_doctor *doctor)
{
    struct pk_podman_host host;
    struct pk_error err;
    if (pk_podman_host_probe(&host, &err) < 0)
        return pk_doctor_report(doctor, PK_VERDICT_FAIL, err.hint, "%s", err.msg);
    if (strcmp(host.cgroups, "v2") == 0)
        return pk_doctor_report(doctor, PK_VERDICT_OK, NULL, "cgroups v2");
    pk_doctor_report(doctor, PK_VERDICT_NOTE,
                     "boot with systemd.unified_cgroup_hierarchy=1 before you upgrade to Podman 5",
                     "cgroups %s: works with runc; Podman 5 drops v1", host.cgroups);
}

/* A program that passes every packet: { r0 = XDP_PASS; exit }. */
static int load_pass(const char **ret_what)
{
    const struct bpf_insn code[] = {
        { .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0, .imm = XDP_PASS },
        { .code = BPF_JMP | BPF_EXIT },
    };
    *ret_what = "load an XDP program";
    return bpf_prog_load(BPF_PROG_TYPE_XDP, "pk_doctor", "GPL", code, PK_ARRAY_SIZE(code), NULL);
}

void pk_doctor_bpf_load(struct pk_doctor *doctor)
{
    const char *what;
    PK_CLEANUP(pk_close_p) int fd = load_pass(&what);
    if (fd >= 0)
        return pk_doctor_report(doctor, PK_VERDICT_OK, NULL, "an XDP program loads");
    pk_doctor_report(doctor, PK_VERDICT_FAIL,
                     errno == EPERM
                         ? "run as root with CAP_BPF and CAP_NET_ADMIN; in a container also "
                           "allow the bpf() call"
                         : "a kernel with CONFIG_BPF_SYSCALL is needed",
                     "%s: %s", what, strerrorname_np(errno));
}

void pk_doctor_bpf_features(struct pk_doctor *doctor)
{
    static const struct {
        enum bpf_map_type type;
        const char *name;
    } maps[] = {
        { BPF_MAP_TYPE_DEVMAP_HASH, "devmap_hash" },     { BPF_MAP_TYPE_DEVMAP, "devmap" },
        { BPF_MAP_TYPE_ARRAY_OF_MAPS, "array_of_maps" }, { BPF_MAP_TYPE_LRU_HASH, "lru_hash" },
        { BPF_MAP_TYPE_PERCPU_ARRAY, "percpu_array" },
    };
    char missing[160] = "";
    for (size_t i = 0; i < PK_ARRAY_SIZE(maps); i++) {
        int there = libbpf_probe_bpf_map_type(maps[i].type, NULL);
        if (there == 1)
            continue;
        if (there == -EPERM)
            return pk_doctor_report(doctor, PK_VERDICT_SKIPPED, "run as root", "no right to ask");
        size_t used = strlen(missing);
        (void)snprintf(missing + used, sizeof(missing) - used, " %s", maps[i].name);
    }
    if (missing[0] != '\0')
        return pk_doctor_report(doctor, PK_VERDICT_FAIL,
                                "a kernel of 6.1 or later with BPF is needed",
                                "map types missing:%s", missing);
    pk_doctor_report(doctor, PK_VERDICT_OK, NULL, "the map types of the broker are there");
}

void pk_doctor_bpf_jit(struct pk_doctor *doctor)
{
    PK_CLEANUP(pk_free_p) char *text = NULL;
    size_t len;
    if (pk_file_read("/proc/sys/net/core/bpf_jit_enable", 64, &text, &len, NULL) < 0)
        /* CONFIG_BPF_JIT_ALWAYS_ON kernels may hide the switch from containers. */
        return pk_doctor_report(doctor, PK_VERDICT_SKIPPED, NULL, "the switch cannot be read here");
    if (text[0] == '0')
        return pk_doctor_report(doctor, PK_VERDICT_WARN, "sysctl net.core.bpf_jit_enable=1",
                                "BPF runs interpreted: several times slower");
    pk_doctor_report(doctor, PK_VERDICT_OK, NULL, "BPF is compiled (bpf_jit_enable = %c)", text[0]);
}

void pk_doctor_bpf_fs(struct pk_doctor *doctor)
{
    PK_CLEANUP(pk_free_p) char *list = NULL;
    size_t len;
    if (pk_file_read("/proc/filesystems", 65536, &list, &len, NULL) < 0 ||
        strstr(list, "\tbpf\n") == NULL)
        return pk_doctor_report(doctor, PK_VERDICT_FAIL,
                                "a kernel with CONFIG_BPF_SYSCALL is needed",
                                "the bpf file system is not there: nothing could be pinned");
    char path[96];
    (void)snprintf(path, sizeof(path), "%s/bpf", doctor->paths.run_dir);
    struct statfs fs;
    if (statfs(path, &fs) == 0 && (unsigned long)fs.f_type == BPF_FS_MAGIC)
        return pk_doctor_report(doctor, PK_VERDICT_OK, NULL, "mounted on %s", path);
    pk_doctor_report(doctor, PK_VERDICT_OK, NULL, "available; 'picket node' mounts it on %s", path);
}

/* In a child in a network namespace of its own, which takes the links along when it ends. Exit
 * status: 0 native works, 10 only generic, else the step that failed. */
static int try_veth(void)
{
    if (unshare(CLONE_NEWNET) < 0)
        return 1;
    struct nl_sock *sock = nl_socket_alloc();
    if (sock == NULL || nl_connect(sock, NETLINK_ROUTE) < 0)
        return 2;
    struct rtnl_link *link = rtnl_link_veth_alloc();
    if (link == NULL)
        return 2;
    rtnl_link_set_name(link, "pkd0");
    rtnl_link_set_name(rtnl_link_veth_get_peer(link), "pkd1");
    if (rtnl_link_add(sock, link, NLM_F_CREATE | NLM_F_EXCL) < 0)
        return 3;
    const char *what;
    int fd = load_pass(&what);
    unsigned index = if_nametoindex("pkd0");
    if (fd < 0 || index == 0)
        return 4;
    if (bpf_xdp_attach((int)index, fd, XDP_FLAGS_DRV_MODE, NULL) == 0)
        return 0;
    return bpf_xdp_attach((int)index, fd, XDP_FLAGS_SKB_MODE, NULL) == 0 ? 10 : 5;
}

void pk_doctor_xdp_veth(struct pk_doctor *doctor)
{
    pid_t child = fork();
    if (child == 0)
        _exit(try_veth());
    int status = 0;
    if (child < 0 || waitpid(child, &status, 0) < 0 || !WIFEXITED(status))
        return pk_doctor_report(doctor, PK_VERDICT_SKIPPED, NULL, "cannot try it: %s",
                                strerrorname_np(errno));
    switch (WEXITSTATUS(status)) {
    case 0:
        return pk_doctor_report(doctor, PK_VERDICT_OK, NULL,
                                "native XDP on a veth works: lanes can be fed");
    case 1:
        return pk_doctor_report(doctor, geteuid() == 0 ? PK_VERDICT_FAIL : PK_VERDICT_SKIPPED,
                                "run as root, with CAP_SYS_ADMIN",
                                "no network namespace can be made");
    case 3:
        return pk_doctor_report(doctor, PK_VERDICT_FAIL, "load the module: modprobe veth",
                                "no veth link can be made");
    case 10:
        return pk_doctor_report(doctor, PK_VERDICT_FAIL, "a kernel of 6.1 or later is needed",
                                "veth takes XDP in generic mode only: redirects would not arrive");
    default:
        return pk_doctor_report(doctor, PK_VERDICT_FAIL, "see the check bpf/load",
                                "XDP on a veth does not work (step %d)", WEXITSTATUS(status));
    }
}
