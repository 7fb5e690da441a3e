/* SPDX-License-Identifier: Apache-2.0 */
/* What a container can see and do is tried, not assumed: names of interfaces, packets that belong
 * to another reader, a frame of its own. */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/json.h"
#include "bench/internal.h"
#include "node/internal.h"

#define PACKETS      2048u
#define QUIET_MS     120
#define OWN_PROTOCOL 0x88b5u /* IEEE 802: local experiments */

/* ---- its interfaces ---- */

struct names {
    const char *host;
    bool seen;
};

static int look_for(void *arg, struct pk_error *err)
{
    struct names *names = arg;
    (void)err;
    names->seen = if_nametoindex(names->host) != 0;
    return 0;
}

static int sees_host(const struct bench_way *way, bool *ret_sees, struct pk_error *err)
{
    struct names names = { .host = way->host };
    int netns = way->places[0].netns;
    int r = netns < 0 ? look_for(&names, err) : pk_netns_run(netns, look_for, &names, err);
    if (r >= 0)
        *ret_sees = names.seen;
    return r;
}

/* ---- others' packets ---- */

static unsigned count_packets(int fd)
{
    uint8_t data[2048];
    unsigned count = 0;
    struct pollfd poll_fd = { .fd = fd, .events = POLLIN };
    while (poll(&poll_fd, 1, QUIET_MS) > 0 && recv(fd, data, sizeof data, MSG_DONTWAIT) >= 0)
        count++;
    return count;
}

/* A socket of its own in the first reader's container: does it get more than that reader's share?
 */
static int sees_others(struct bench_rig *rig, struct bench_way *way,
                       int (*send)(struct bench_rig *rig, struct bench_way *way, unsigned count,
                                   struct pk_error *err),
                       bool *ret_sees, struct pk_error *err)
{
    PK_CLEANUP(pk_close_p) int fd = -1;
    int r =
        bench_packet_socket(way->places[0].netns, way->places[0].interface, ETH_P_ALL, &fd, err);
    if (r >= 0)
        r = send(rig, way, PACKETS, err);
    if (r < 0)
        return r;
    *ret_sees = count_packets(fd) > PACKETS * 9 / 10;
    return 0;
}

/* ---- frames of its own ---- */

struct sending {
    const char *interface;
    int fd;
};

static int send_own(void *arg, struct pk_error *err)
{
    const struct sending *sending = arg;
    uint8_t frame[60] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 7 };
    frame[12] = OWN_PROTOCOL >> 8;
    frame[13] = OWN_PROTOCOL & 0xff;
    struct sockaddr_ll to = { .sll_family = AF_PACKET,
                              .sll_ifindex = (int)if_nametoindex(sending->interface),
                              .sll_halen = 6 };
    PK_CLEANUP(pk_close_p) int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return pk_fail_errno(err, errno, "cannot open a packet socket");
    for (unsigned i = 0; i < 8; i++)
        (void)sendto(fd, frame, sizeof frame, 0, (struct sockaddr *)&to, sizeof to);
    return 0;
}

struct reached {
    bool wire, host, container;
};

/* Which ends do frames come out of that the first container sends? */
static int try_sending(const struct bench_way *way, struct reached *ret_reached,
                       struct pk_error *err)
{
    PK_CLEANUP(pk_close_p) int host = -1;
    PK_CLEANUP(pk_close_p) int other = -1;
    struct sending sending = { .interface = way->places[0].interface };
    int netns = way->places[0].netns;
    int r = bench_packet_socket(-1, NULL, OWN_PROTOCOL, &host, err);
    if (r >= 0 && way->container_count > 1)
        r = bench_packet_socket(way->containers[1].netns, "tap0", OWN_PROTOCOL, &other, err);
    if (r >= 0)
        r = netns < 0 ? send_own(&sending, err) : pk_netns_run(netns, send_own, &sending, err);
    if (r < 0)
        return r;
    struct reached reached = { 0 };
    struct pollfd poll_fd = { .fd = host, .events = POLLIN };
    while (poll(&poll_fd, 1, QUIET_MS) > 0) {
        uint8_t data[256];
        struct sockaddr_ll from;
        socklen_t len = sizeof from;
        if (recvfrom(host, data, sizeof data, MSG_DONTWAIT, (struct sockaddr *)&from, &len) < 0)
            break;
        if ((unsigned)from.sll_ifindex == way->wire_ifindex)
            reached.wire = true;
        else
            reached.host = true;
    }
    if (other >= 0)
        reached.container = count_packets(other) > 0;
    *ret_reached = reached;
    return 0;
}

json_t *bench_isolation(struct bench_rig *rig, struct bench_way *way,
                        int (*send)(struct bench_rig *rig, struct bench_way *way, unsigned count,
                                    struct pk_error *err),
                        struct pk_error *err)
{
    bool host = false, others = false;
    struct reached reached = { 0 };
    bool has_others = rig->groups * rig->lanes > 1;
    int r = sees_host(way, &host, err);
    if (r >= 0 && has_others)
        r = sees_others(rig, way, send, &others, err);
    if (r >= 0)
        r = try_sending(way, &reached, err);
    if (r < 0)
        return NULL;
    char text[200];
    snprintf(text, sizeof text, "%s; %s; %s",
             host ? "sees the host's interfaces" : "sees its own interface",
             !has_others ? "only reader"
             : others    ? "all readers' packets"
                         : "its own packets",
             reached.wire        ? reached.container ? "sends to the network and other containers"
                                                     : "sends to the network"
             : reached.container ? "sends to other containers"
             : reached.host      ? "sends into the host"
                                 : "cannot send");
    json_t *sends = json_array();
    if (reached.wire)
        json_array_append_new(sends, json_string("network"));
    if (reached.host)
        json_array_append_new(sends, json_string("host"));
    if (reached.container)
        json_array_append_new(sends, json_string("containers"));
    json_t *result =
        json_pack("{s:b, s:o, s:o, s:s}", "seesHost", host, "seesOthers",
                  has_others ? json_boolean(others) : json_null(), "sends", sends, "text", text);
    if (result == NULL)
        pk_no_memory(err);
    return result;
}
