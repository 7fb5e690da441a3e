/* SPDX-License-Identifier: Apache-2.0 */
/* Packet sockets and their processes. */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_ether.h>
#include <linux/netlink.h>
#include <linux/packet_diag.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/str.h"
#include "node/health.h"

/* The kernel answers at once; this only bounds what a fault could cost. */
#define ANSWER_TIMEOUT_MS 1000
#define ANSWERS_MAX       256u
#define PROCESSES_MAX     100000u
#define FILES_MAX         65536u

int pk_sockets_open(void)
{
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
    const struct timeval timeout = { .tv_sec = ANSWER_TIMEOUT_MS / 1000 };
    if (fd >= 0)
        (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
    return fd;
}

static const void *payload(const struct rtattr *attribute, size_t need)
{
    return RTA_PAYLOAD(attribute) >= need ? RTA_DATA(attribute) : NULL;
}

static void take_socket(const struct nlmsghdr *header, unsigned ifindex,
                        struct pk_packet_socket sockets[PK_SOCKETS_MAX], size_t *count)
{
    const struct packet_diag_msg *message = NLMSG_DATA(header);
    size_t left = NLMSG_PAYLOAD(header, sizeof *message);
    if (NLMSG_PAYLOAD(header, 0) < sizeof *message || *count >= PK_SOCKETS_MAX)
        return;
    struct pk_packet_socket found = { .inode = message->pdiag_ino };
    struct packet_diag_info info = { 0 };
    const struct rtattr *attribute =
        (const struct rtattr *)((const char *)message + NLMSG_ALIGN(sizeof *message));
    for (; RTA_OK(attribute, left); attribute = RTA_NEXT(attribute, left)) {
        const void *data = NULL;
        switch (attribute->rta_type & NLA_TYPE_MASK) {
        case PACKET_DIAG_INFO:
            if ((data = payload(attribute, sizeof info)) != NULL)
                memcpy(&info, data, sizeof info);
            found.version = info.pdi_version;
            break;
        case PACKET_DIAG_RX_RING: {
            struct packet_diag_ring ring;
            if ((data = payload(attribute, sizeof ring)) != NULL) {
                memcpy(&ring, data, sizeof ring);
                found.ring = ring.pdr_block_nr > 0;
                found.block_size = ring.pdr_block_size;
                found.blocks = ring.pdr_block_nr;
                found.frame_size = ring.pdr_frame_size;
                found.frames = ring.pdr_frame_nr;
            }
            break;
        }
        case PACKET_DIAG_MEMINFO: {
            uint32_t memory[SK_MEMINFO_VARS];
            if ((data = payload(attribute, sizeof memory)) != NULL) {
                memcpy(memory, data, sizeof memory);
                found.queued = memory[SK_MEMINFO_RMEM_ALLOC];
                found.room = memory[SK_MEMINFO_RCVBUF];
                found.dropped = memory[SK_MEMINFO_DROPS];
            }
            break;
        }
        default:
            break;
        }
    }
    bool all = message->pdiag_num == ETH_P_ALL;
    bool here = info.pdi_index == 0 || info.pdi_index == ifindex;
    if (all && here && (info.pdi_flags & PDI_RUNNING) != 0)
        sockets[(*count)++] = found;
}

int pk_sockets_parse(const void *data, size_t len, unsigned ifindex,
                     struct pk_packet_socket sockets[PK_SOCKETS_MAX], size_t *count, bool *ret_done,
                     struct pk_error *err)
{
    size_t left = len;
    const struct nlmsghdr *header = data;
    for (; NLMSG_OK(header, left); header = NLMSG_NEXT(header, left)) {
        if (header->nlmsg_type == NLMSG_DONE) {
            *ret_done = true;
            return 0;
        }
        if (header->nlmsg_type == NLMSG_ERROR) {
            const struct nlmsgerr *error = NLMSG_DATA(header);
            int sys = NLMSG_PAYLOAD(header, 0) >= sizeof *error ? -error->error : EIO;
            if (sys == ENOENT || sys == EINVAL)
                return pk_fail(err, PK_E_UNSUPPORTED, "the kernel cannot list packet sockets");
            return pk_fail_errno(err, sys, "cannot list the lane's packet sockets");
        }
        if (header->nlmsg_type == SOCK_DIAG_BY_FAMILY)
            take_socket(header, ifindex, sockets, count);
    }
    return 0;
}

int pk_sockets_list(int fd, unsigned ifindex, struct pk_packet_socket sockets[PK_SOCKETS_MAX],
                    size_t *ret_count, struct pk_error *err)
{
    static unsigned sequence;
    const struct {
        struct nlmsghdr header;
        struct packet_diag_req request;
    } ask = { .header = { .nlmsg_len = sizeof ask,
                          .nlmsg_type = SOCK_DIAG_BY_FAMILY,
                          .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP,
                          .nlmsg_seq = __atomic_add_fetch(&sequence, 1, __ATOMIC_RELAXED) },
              .request = { .sdiag_family = AF_PACKET,
                           .pdiag_show =
                               PACKET_SHOW_INFO | PACKET_SHOW_RING_CFG | PACKET_SHOW_MEMINFO } };
    *ret_count = 0;
    if (send(fd, &ask, sizeof ask, 0) != (ssize_t)sizeof ask)
        return pk_fail_errno(err, errno, "cannot ask for the lane's packet sockets");
    _Alignas(struct nlmsghdr) char answer[16384];
    bool done = false;
    for (unsigned i = 0; i < ANSWERS_MAX && !done; i++) {
        ssize_t n = recv(fd, answer, sizeof answer, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return pk_fail_errno(err, n < 0 ? errno : EIO, "cannot list the lane's packet sockets");
        if (((const struct nlmsghdr *)answer)->nlmsg_seq != ask.header.nlmsg_seq)
            continue; /* of a question whose answer was not waited for */
        int r = pk_sockets_parse(answer, (size_t)n, ifindex, sockets, ret_count, &done, err);
        if (r < 0)
            return r;
    }
    return 0;
}

/* ---- processes ---- */

static bool is_number(const char *text)
{
    return isdigit((unsigned char)text[0]) != 0;
}

static bool holds_one(int files_fd, const struct pk_packet_socket *sockets, size_t count)
{
    DIR *dir = fdopendir(files_fd);
    if (dir == NULL) {
        (void)close(files_fd);
        return false;
    }
    bool found = false;
    const struct dirent *entry;
    for (unsigned seen = 0; !found && seen < FILES_MAX && (entry = readdir(dir)) != NULL; seen++) {
        char target[64];
        ssize_t n = is_number(entry->d_name)
                        ? readlinkat(dirfd(dir), entry->d_name, target, sizeof target - 1)
                        : -1;
        if (n <= 0)
            continue;
        target[n] = '\0';
        if (strncmp(target, "socket:[", 8) != 0)
            continue;
        target[strcspn(target, "]")] = '\0';
        uint64_t inode = 0;
        if (pk_parse_u64(target + 8, &inode, NULL) < 0)
            continue;
        for (size_t i = 0; i < count && !found; i++)
            found = sockets[i].inode == inode;
    }
    (void)closedir(dir);
    return found;
}

static bool is_reader(int proc_fd, const char *pid, const struct stat *netns,
                      const struct pk_packet_socket *sockets, size_t count)
{
    char path[300];
    struct stat st;
    (void)snprintf(path, sizeof path, "%s/ns/net", pid);
    if (fstatat(proc_fd, path, &st, 0) < 0 || st.st_ino != netns->st_ino ||
        st.st_dev != netns->st_dev)
        return false;
    (void)snprintf(path, sizeof path, "%s/fd", pid);
    int files_fd = openat(proc_fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return files_fd >= 0 && holds_one(files_fd, sockets, count);
}

size_t pk_readers_find(int netns_fd, const struct pk_packet_socket *sockets, size_t count,
                       struct pk_reader *readers, size_t max)
{
    struct stat netns;
    DIR *dir = opendir("/proc");
    size_t found = 0;
    if (dir == NULL || fstat(netns_fd, &netns) < 0) {
        if (dir != NULL)
            (void)closedir(dir);
        return 0;
    }
    const struct dirent *entry;
    for (unsigned seen = 0; found < max && seen < PROCESSES_MAX && (entry = readdir(dir)) != NULL;
         seen++) {
        uint64_t number = 0;
        if (!is_number(entry->d_name) || pk_parse_u64(entry->d_name, &number, NULL) < 0)
            continue;
        pid_t pid = (pid_t)number;
        if (!is_reader(dirfd(dir), entry->d_name, &netns, sockets, count))
            continue;
        int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
        if (pidfd < 0)
            continue;
        if (!is_reader(dirfd(dir), entry->d_name, &netns, sockets, count)) {
            (void)close(pidfd);
            continue;
        }
        readers[found++] = (struct pk_reader){ .pidfd = pidfd, .pid = pid };
    }
    (void)closedir(dir);
    return found;
}

char pk_reader_look(pid_t pid, uint64_t *ret_ticks)
{
    char path[48], text[1024];
    *ret_ticks = 0;
    (void)snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    PK_CLEANUP(pk_close_p) int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, text, sizeof text - 1) : -1;
    if (n <= 0)
        return 0;
    text[n] = '\0';
    /* The name before may hold anything, also brackets; after it, fields 3, 14 and 15 count. */
    char *rest = strrchr(text, ')'), *field = NULL, *left = NULL;
    char state = 0;
    if (rest == NULL)
        return 0;
    field = strtok_r(rest + 1, " ", &left);
    for (unsigned at = 3; field != NULL && at <= 15; at++, field = strtok_r(NULL, " ", &left)) {
        uint64_t ticks = 0;
        if (at == 3)
            state = field[0];
        else if (at >= 14 && pk_parse_u64(field, &ticks, NULL) == 0)
            *ret_ticks += ticks;
    }
    return state;
}
