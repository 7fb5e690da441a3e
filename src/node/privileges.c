/* SPDX-License-Identifier: Apache-2.0 */
/* The agent starts as root and keeps only what its work needs. */
#include <errno.h>
#include <linux/capability.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/str.h"
#include "node/internal.h"

static const struct right {
    unsigned number;
    const char *name;
    bool needed;
} rights[] = {
    { CAP_NET_ADMIN, "CAP_NET_ADMIN", true },        /* links, XDP */
    { CAP_NET_RAW, "CAP_NET_RAW", true },            /* replay */
    { CAP_SYS_ADMIN, "CAP_SYS_ADMIN", true },        /* namespaces, mounts */
    { CAP_BPF, "CAP_BPF", true },                    /* maps, programs */
    { CAP_PERFMON, "CAP_PERFMON", true },            /* pointer arithmetic in programs */
    { CAP_DAC_OVERRIDE, "CAP_DAC_OVERRIDE", false }, /* capture files of other users */
    { CAP_CHOWN, "CAP_CHOWN", false },               /* the group of the socket */
    { CAP_SYS_PTRACE, "CAP_SYS_PTRACE", false },     /* which process reads a lane */
};

struct caps {
    struct __user_cap_header_struct header;
    struct __user_cap_data_struct data[2];
};

static int read_caps(struct caps *caps)
{
    *caps = (struct caps){ .header = { .version = _LINUX_CAPABILITY_VERSION_3 } };
    return syscall(SYS_capget, &caps->header, caps->data) < 0 ? -errno : 0;
}

static bool has(const struct caps *caps, unsigned number)
{
    return (caps->data[number / 32].effective & (1u << (number % 32))) != 0;
}

int pk_node_check_rights(struct pk_error *err)
{
    struct caps caps;
    int r = read_caps(&caps);
    if (r < 0)
        return pk_fail_errno(err, -r, "cannot read the process's capabilities");
    for (size_t i = 0; i < PK_ARRAY_SIZE(rights); i++) {
        if (!rights[i].needed || has(&caps, rights[i].number))
            continue;
        (void)pk_fail(err, PK_E_DENIED, "the agent has no %s", rights[i].name);
        return pk_hint(err, "start it as root ('sudo picket node') or by its systemd unit; in a "
                            "container this capability must be granted");
    }
    return 0;
}

/* Of the calling thread and those it starts later: call it before any other thread is there. */
int pk_node_drop_rights(struct pk_error *err)
{
    struct caps caps;
    int r = read_caps(&caps);
    if (r < 0)
        return pk_fail_errno(err, -r, "cannot read the process's capabilities");
    uint32_t keep[2] = { 0, 0 };
    for (size_t i = 0; i < PK_ARRAY_SIZE(rights); i++)
        keep[rights[i].number / 32] |= 1u << (rights[i].number % 32);

    /* Bounding set first: it needs CAP_SETPCAP, which goes with the second step. */
    for (unsigned number = 0; number <= CAP_LAST_CAP; number++) {
        bool kept = (keep[number / 32] & (1u << (number % 32))) != 0;
        if (!kept && prctl(PR_CAPBSET_READ, number, 0, 0, 0) == 1 &&
            prctl(PR_CAPBSET_DROP, number, 0, 0, 0) < 0 && errno != EPERM)
            return pk_fail_errno(err, errno, "cannot drop a capability");
    }
    for (size_t i = 0; i < PK_ARRAY_SIZE(caps.data); i++) {
        caps.data[i].permitted &= keep[i];
        caps.data[i].effective = caps.data[i].permitted;
        caps.data[i].inheritable = 0;
    }
    if (syscall(SYS_capset, &caps.header, caps.data) < 0)
        return pk_fail_errno(err, errno, "cannot drop capabilities");
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return pk_fail_errno(err, errno, "cannot set no_new_privs");
    return 0;
}
