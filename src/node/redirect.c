/* SPDX-License-Identifier: Apache-2.0 */
/* Whether XDP can send packets out of an interface: asked of the kernel's netdev family (Linux 6.3;
 * Documentation/netlink/specs/netdev.yaml), whose numbers are written here, as older headers lack
 * them. */
#include <errno.h>
#include <linux/genetlink.h>
#include <linux/netlink.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fs.h"
#include "node/internal.h"

#define NETDEV_FAMILY          "netdev"
#define NETDEV_VERSION         1
#define NETDEV_DEV_GET         1
#define NETDEV_DEV_IFINDEX     1
#define NETDEV_DEV_FEATURES    3
#define NETDEV_FEATURE_XMIT    4u  /* ndo_xdp_xmit */
#define NETDEV_FEATURE_XMIT_SG 64u /* of frames in several buffers */

struct request {
    struct nlmsghdr head;
    struct genlmsghdr genl;
    struct nlattr attr;
    char value[16];
};

/* Asks with one attribute and gives the answer's attribute of a type. 0 = it has none such; < 0 =
 * -errno. */
static ssize_t ask(int fd, uint16_t family, uint8_t command, uint16_t with, const void *value,
                   uint16_t len, uint16_t wanted, void *ret_value, size_t room)
{
    struct request request = {
        .head = { .nlmsg_type = family, .nlmsg_flags = NLM_F_REQUEST },
        .genl = { .cmd = command, .version = NETDEV_VERSION },
        .attr = { .nla_type = with, .nla_len = (uint16_t)(NLA_HDRLEN + len) },
    };
    memcpy(request.value, value, len);
    request.head.nlmsg_len = (uint32_t)(offsetof(struct request, value) + NLA_ALIGN(len));
    if (send(fd, &request, request.head.nlmsg_len, 0) < 0)
        return -errno;
    _Alignas(struct nlmsghdr) char answer[8192];
    ssize_t got = recv(fd, answer, sizeof(answer), 0);
    if (got < 0)
        return -errno;
    const struct nlmsghdr *head = (const struct nlmsghdr *)(const void *)answer;
    if (!NLMSG_OK(head, (size_t)got))
        return -EBADMSG;
    if (head->nlmsg_type == NLMSG_ERROR) {
        struct nlmsgerr failure = { .error = -EBADMSG };
        if (head->nlmsg_len >= NLMSG_LENGTH(sizeof(failure.error)))
            memcpy(&failure.error, NLMSG_DATA(head), sizeof(failure.error));
        return failure.error < 0 ? failure.error : -EBADMSG;
    }
    size_t at = NLMSG_HDRLEN + GENL_HDRLEN, end = head->nlmsg_len;
    while (at + NLA_HDRLEN <= end) {
        struct nlattr attr;
        memcpy(&attr, answer + at, sizeof(attr));
        if (attr.nla_len < NLA_HDRLEN || attr.nla_len > end - at)
            return -EBADMSG;
        size_t size = attr.nla_len - (size_t)NLA_HDRLEN;
        if ((attr.nla_type & NLA_TYPE_MASK) == wanted && size <= room) {
            memcpy(ret_value, answer + at + NLA_HDRLEN, size);
            return (ssize_t)size;
        }
        at += NLA_ALIGN(attr.nla_len);
    }
    return 0;
}

enum pk_redirect pk_link_redirect(unsigned ifindex)
{
    PK_CLEANUP(pk_close_p) int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_GENERIC);
    const struct timeval patience = { .tv_sec = 1 };
    uint16_t family = 0;
    uint32_t index = ifindex;
    uint64_t features = 0;
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) < 0 ||
        ask(fd, GENL_ID_CTRL, CTRL_CMD_GETFAMILY, CTRL_ATTR_FAMILY_NAME, NETDEV_FAMILY,
            sizeof(NETDEV_FAMILY), CTRL_ATTR_FAMILY_ID, &family,
            sizeof(family)) != sizeof(family) ||
        ask(fd, family, NETDEV_DEV_GET, NETDEV_DEV_IFINDEX, &index, sizeof(index),
            NETDEV_DEV_FEATURES, &features, sizeof(features)) != sizeof(features))
        return PK_REDIRECT_UNKNOWN;
    if ((features & NETDEV_FEATURE_XMIT) == 0)
        return PK_REDIRECT_NONE;
    return (features & NETDEV_FEATURE_XMIT_SG) != 0 ? PK_REDIRECT_ALL : PK_REDIRECT_SMALL;
}
