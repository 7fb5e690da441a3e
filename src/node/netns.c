/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lanes' network namespaces, kept by bind mounts below /run/netns as iproute2 does it, so that
 * 'ip netns' and Podman find them. Nothing here changes the namespace of a thread that lives on.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/nsfs.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/statfs.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/fs.h"
#include "base/str.h"
#include "node/internal.h"

#define NETNS_DIR        "/run/netns"
#define PACKET_TABLE_MAX (64u << 10)
#define ETH_P_ALL_HEX    "0003"
#define MOUNT_STACK_MAX  16

struct run {
    int netns_fd; /* -1 = a new one */
    int (*fn)(void *arg, struct pk_error *err);
    void *arg;
    struct pk_error err;
    int result;
};

static void *run_there(void *arg)
{
    struct run *run = arg;
    int r = run->netns_fd >= 0 ? setns(run->netns_fd, CLONE_NEWNET) : unshare(CLONE_NEWNET);
    if (r < 0) {
        int sys = errno;
        run->result = pk_fail_errno(&run->err, sys, "cannot %s a network namespace",
                                    run->netns_fd >= 0 ? "enter" : "make");
        if (sys == EPERM)
            run->result = pk_hint(&run->err, "the agent needs CAP_SYS_ADMIN: start it as root");
        return NULL;
    }
    run->result = run->fn(run->arg, &run->err);
    return NULL;
}

static int run_on_thread(struct run *run, struct pk_error *err)
{
    pthread_t thread;
    int sys = pthread_create(&thread, NULL, run_there, run);
    if (sys != 0)
        return pk_fail_errno(err, sys, "cannot start a thread for a network namespace");
    (void)pthread_join(thread, NULL);
    if (run->result < 0 && err != NULL)
        *err = run->err;
    return run->result;
}

int pk_netns_run(int netns_fd, int (*fn)(void *arg, struct pk_error *err), void *arg,
                 struct pk_error *err)
{
    struct run run = { .netns_fd = netns_fd, .fn = fn, .arg = arg };
    return run_on_thread(&run, err);
}

/* Makes /run/netns a shared mount of its own, under the lock that iproute2 takes too, so that
 * namespaces made here are seen in other mount namespaces and the other way round. */
static int prepare_dir(struct pk_error *err)
{
    int r = pk_mkdir_p(NETNS_DIR, 0755, err);
    if (r < 0)
        return r;
    PK_CLEANUP(pk_close_p) int lock = open(NETNS_DIR, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (lock < 0)
        return pk_fail_errno(err, errno, "cannot open " NETNS_DIR);
    while (flock(lock, LOCK_EX) < 0)
        if (errno != EINTR)
            return pk_fail_errno(err, errno, "cannot lock " NETNS_DIR);
    for (int tries = 0; mount("", NETNS_DIR, "none", MS_SHARED | MS_REC, NULL) < 0; tries++) {
        /* EINVAL: not a mount point yet */
        if ((errno != EINVAL || tries > 0) ||
            mount(NETNS_DIR, NETNS_DIR, "none", MS_BIND | MS_REC, NULL) < 0) {
            (void)pk_fail_errno(err, errno, "cannot make " NETNS_DIR " a shared mount");
            return pk_hint(err, "the agent needs CAP_SYS_ADMIN in the machine's own mount "
                                "namespace: not in a container, no PrivateMounts= in its unit");
        }
    }
    return 0;
}

static bool is_netns(int fd)
{
    struct statfs fs;
    return fstatfs(fd, &fs) == 0 && fs.f_type == NSFS_MAGIC &&
           ioctl(fd, NS_GET_NSTYPE) == CLONE_NEWNET;
}

static int write_sysctl(const char *path, const char *value)
{
    PK_CLEANUP(pk_close_p) int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    return write(fd, value, strlen(value)) < 0 ? -errno : 0;
}

/* On the thread that is in the new namespace. */
static int bind_new(void *arg, struct pk_error *err)
{
    const char *path = arg;
    /* No interface that is made here ever speaks IPv6 by itself (router solicitations, MLD). A
     * kernel without IPv6 has no such files. */
    int r = write_sysctl("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
    if (r == 0)
        r = write_sysctl("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1");
    if (r < 0 && r != -ENOENT)
        return pk_fail_errno(err, -r, "cannot switch IPv6 off in the lane's namespace");
    if (mount("/proc/thread-self/ns/net", path, "none", MS_BIND, NULL) < 0) {
        (void)pk_fail_errno(err, errno, "cannot mount a network namespace at %s", path);
        return pk_hint(err, "the agent needs CAP_SYS_ADMIN and may not be confined by a "
                            "mandatory access profile that refuses mounts");
    }
    return 0;
}

int pk_netns_ensure(const char *path, int *ret_fd, bool *ret_made, struct pk_error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0 && is_netns(fd)) {
        *ret_fd = fd;
        *ret_made = false;
        return 0;
    }
    pk_close_p(&fd);

    int r = prepare_dir(err);
    if (r < 0)
        return r;
    /* A file without a mount is what a reboot or an unmount by hand leaves. */
    fd = open(path, O_RDONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0444);
    if (fd < 0)
        return pk_fail_errno(err, errno, "cannot create %s", path);
    pk_close_p(&fd);
    char *copy = pk_strdup(path);
    if (copy == NULL)
        return pk_no_memory(err);
    struct run run = { .netns_fd = -1, .fn = bind_new, .arg = copy };
    r = run_on_thread(&run, err);
    pk_free(copy);
    if (r < 0) {
        (void)unlink(path);
        return r;
    }
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return pk_fail_errno(err, errno, "cannot open %s", path);
    *ret_fd = fd;
    *ret_made = true;
    return 0;
}

int pk_netns_remove(const char *path, struct pk_error *err)
{
    for (int i = 0; i < MOUNT_STACK_MAX && umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW) == 0; i++)
        ;
    if (unlink(path) < 0 && errno != ENOENT && errno != ENOTDIR)
        return pk_fail_errno(err, errno, "cannot remove the network namespace %s", path);
    return 0;
}

bool pk_netns_is_at(const char *path, int netns_fd)
{
    struct stat there, ours;
    return stat(path, &there) == 0 && fstat(netns_fd, &ours) == 0 && there.st_dev == ours.st_dev &&
           there.st_ino == ours.st_ino;
}

int pk_netns_remove_all(const char *prefix, bool (*keep)(void *arg, const char *name), void *arg,
                        struct pk_error *err)
{
    DIR *dir = opendir(NETNS_DIR);
    if (dir == NULL)
        return errno == ENOENT ? 0 : pk_fail_errno(err, errno, "cannot read " NETNS_DIR);
    int r = 0;
    for (struct dirent *entry = readdir(dir); entry != NULL; entry = readdir(dir)) {
        if (!pk_str_starts(entry->d_name, prefix) || (keep != NULL && keep(arg, entry->d_name)))
            continue;
        char path[sizeof(NETNS_DIR) + 1 + sizeof(entry->d_name)];
        (void)snprintf(path, sizeof(path), NETNS_DIR "/%s", entry->d_name);
        pk_device_rescue(path);
        int one = pk_netns_remove(path, r < 0 ? NULL : err);
        r = r < 0 ? r : one;
    }
    (void)closedir(dir);
    return r;
}

static int open_there(void *arg, struct pk_error *err)
{
    struct pk_netns *netns = arg;
    int r = pk_nl_open(&netns->nl, err);
    if (r < 0)
        return r;
    netns->ioctl_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (netns->ioctl_fd < 0)
        return pk_fail_errno(err, errno, "cannot open a socket in the lane's namespace");
    netns->packet_fd = open("/proc/thread-self/net/packet", O_RDONLY | O_CLOEXEC);
    if (netns->packet_fd < 0)
        return pk_fail_errno(err, errno, "cannot open the lane's table of packet sockets");
    netns->diag_fd = pk_sockets_open();
    return 0;
}

int pk_netns_open_take(int fd, struct pk_netns *ret_netns, struct pk_error *err)
{
    struct pk_netns netns = PK_NETNS_INIT;
    int r = pk_netns_run(fd, open_there, &netns, err);
    if (r < 0) {
        pk_netns_done(&netns);
        return r;
    }
    netns.fd = fd;
    *ret_netns = netns;
    return 0;
}

void pk_netns_done(struct pk_netns *netns)
{
    pk_nl_close(netns->nl);
    pk_close_p(&netns->diag_fd);
    pk_close_p(&netns->packet_fd);
    pk_close_p(&netns->ioctl_fd);
    pk_close_p(&netns->fd);
    *netns = PK_NETNS_INIT;
}

/* Columns: sk RefCnt Type Proto Iface R Rmem User Inode; Iface 0 = all, R 1 = bound and running. */
static bool line_is_reader(const char *line, unsigned ifindex)
{
    char proto[8] = "";
    unsigned iface = 0, running = 0;
    /* NOLINTNEXTLINE(cert-err34-c): the kernel's own text, unsigned 32-bit columns */
    if (sscanf(line, "%*s %*s %*s %7s %u %u", proto, &iface, &running) != 3)
        return false;
    return running == 1 && strcmp(proto, ETH_P_ALL_HEX) == 0 && (iface == 0 || iface == ifindex);
}

bool pk_packet_table_has_reader(const char *text, unsigned ifindex)
{
    const char *line = strchr(text, '\n'); /* after the titles */
    while (line != NULL && line[1] != '\0') {
        if (line_is_reader(line + 1, ifindex))
            return true;
        line = strchr(line + 1, '\n');
    }
    return false;
}

int pk_netns_has_reader(const struct pk_netns *netns, unsigned ifindex, bool *ret_reader,
                        struct pk_error *err)
{
    /* One page is what the file gives at once. Readers come first: the kernel lists the newest
     * sockets first, and a lane has a handful. */
    char text[4096];
    size_t len = 0;
    off_t offset = 0;
    bool reader = false;
    while (!reader && offset < (off_t)PACKET_TABLE_MAX) {
        ssize_t n = pread(netns->packet_fd, text + len, sizeof(text) - 1 - len, offset);
        if (n < 0)
            return pk_fail_errno(err, errno, "cannot read the lane's table of packet sockets");
        if (n == 0)
            break;
        offset += n;
        len += (size_t)n;
        text[len] = '\0';
        const char *last = strrchr(text, '\n');
        if (last == NULL)
            break;
        reader = pk_packet_table_has_reader(text, ifindex);
        /* The rest of a cut line goes on in the next piece; the newline before it is kept, as the
         * table's reader skips a first line. */
        len = (size_t)(text + len - last);
        memmove(text, last, len);
    }
    *ret_reader = reader;
    return 0;
}
