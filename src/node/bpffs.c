/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <linux/magic.h>
#include <sys/mount.h>
#include <sys/statfs.h>
#include <unistd.h>

#include "base/fs.h"
#include "node/internal.h"

bool pk_bpffs_mounted(const char *path)
{
    struct statfs fs;
    return statfs(path, &fs) == 0 && fs.f_type == BPF_FS_MAGIC;
}

int pk_bpffs_mount(const char *path, struct pk_error *err)
{
    if (pk_bpffs_mounted(path))
        return 0;
    int r = pk_mkdir_p(path, 0700, err);
    if (r < 0)
        return r;
    if (mount("bpf", path, "bpf", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=0700") == 0)
        return 0;
    int sys = errno;
    (void)pk_fail_errno(err, sys, "cannot mount a bpf file system at %s", path);
    if (sys == ENODEV)
        return pk_hint(err, "this kernel has no BPF (CONFIG_BPF_SYSCALL): picket needs Linux 6.1 "
                            "or newer with it");
    return pk_hint(err, "the agent needs CAP_SYS_ADMIN in the machine's own mount namespace: start "
                        "it as root, not in a container");
}

int pk_bpffs_unmount(const char *path, struct pk_error *err)
{
    while (pk_bpffs_mounted(path))
        if (umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW) < 0)
            return pk_fail_errno(err, errno, "cannot unmount %s", path);
    if (rmdir(path) < 0 && errno != ENOENT && errno != ENOTEMPTY)
        return pk_fail_errno(err, errno, "cannot remove %s", path);
    return 0;
}
