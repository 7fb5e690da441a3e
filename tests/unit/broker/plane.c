/* SPDX-License-Identifier: Apache-2.0 */
#include "pk_test.h"

#include "plane.h"

#include <errno.h>
#include <linux/if_packet.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static struct pk_error err;

#define OK(call)                                               \
    do {                                                       \
        int ok_ = (call);                                      \
        if (ok_ < 0)                                           \
            fail_msg("%s: %s (%s)", #call, err.msg, err.hint); \
    } while (0)

static const char *key_of(unsigned group, int lane)
{
    static char key[32];
    if (lane < 0)
        snprintf(key, sizeof key, "f/g%u", group);
    else
        snprintf(key, sizeof key, "f/g%u/%d", group, lane);
    return key;
}

void plane_open(struct plane *plane)
{
    OK(pk_broker_open(&(struct pk_broker_options){ .pin_dir = NET_PIN_DIR }, &plane->broker, &err));
}

void plane_lanes(struct plane *plane, unsigned group, unsigned count, enum pk_hash_mode mode)
{
    struct pk_broker_share shares[PLANE_LANES];
    for (unsigned i = 0; i < count; i++)
        shares[i] = (struct pk_broker_share){ .lane = i, .weight = 1 };
    OK(pk_broker_group_set(plane->broker, key_of(group, -1), mode, shares, count, &err));
}

void plane_up(struct plane *plane, unsigned groups, unsigned lanes, unsigned mtu)
{
    memset(plane, 0, sizeof *plane);
    plane->groups = groups;
    plane->lanes = lanes;
    plane->mtu = mtu;
    plane_open(plane);
    plane->tap = net_veth("tap", "wire", mtu);
    for (unsigned i = 0; i < groups; i++) {
        for (unsigned k = 0; k < lanes; k++) {
            char name[32];
            struct net_lane *lane = &plane->lane[i][k];
            snprintf(name, sizeof name, "l%u-%u", i, k);
            net_lane_make(lane, name, mtu + 8);
            OK(pk_broker_lane_add(plane->broker, key_of(i, (int)k), lane->host_ifindex,
                                  lane->netns_fd, "tap0", &err));
            OK(pk_broker_lane_set_reader(plane->broker, key_of(i, (int)k), true, &err));
            plane->readers[i][k] = net_packet_socket(lane->netns_fd, "tap0");
            int on = 1;
            assert_int_equal(
                setsockopt(plane->readers[i][k], SOL_PACKET, PACKET_AUXDATA, &on, sizeof on), 0);
        }
        plane_lanes(plane, i, lanes, PK_HASH_FLOW);
    }
    plane->sender = net_packet_socket(-1, "wire");
}

void plane_down(struct plane *plane)
{
    OK(pk_broker_remove_all(plane->broker, &err));
    pk_broker_close(plane->broker);
    for (unsigned i = 0; i < plane->groups; i++) {
        for (unsigned k = 0; k < plane->lanes; k++) {
            close(plane->readers[i][k]);
            net_lane_drop(&plane->lane[i][k]);
        }
    }
    close(plane->sender);
    assert_true(net_run("ip", "link", "del", "tap", NULL));
}

void plane_attach(struct plane *plane, const struct pk_broker_tenant *tenants, size_t tenant_count,
                  const char *const groups[], const char *const tenant_names[], size_t count)
{
    struct pk_broker_target targets[PLANE_GROUPS];
    char keys[PLANE_GROUPS][32];
    for (size_t i = 0; i < count; i++) {
        snprintf(keys[i], sizeof keys[i], "f/%s", groups[i]);
        targets[i] = (struct pk_broker_target){ .group_key = keys[i],
                                                .tenant = tenant_names ? tenant_names[i] : NULL };
    }
    const struct pk_broker_tap_config config = {
        .tenants = tenants, .tenant_count = tenant_count, .targets = targets, .target_count = count
    };
    enum pk_xdp_mode mode;
    OK(pk_broker_tap_attach(plane->broker, "f/t", plane->tap, &config, &mode, &err));
}

void plane_number(uint8_t *frame, size_t len, uint32_t number)
{
    uint8_t *end = frame + len - PLANE_TRAILER;
    memcpy(end, "pk#", 4);
    memcpy(end + 4, &number, 4);
}

void plane_frame(uint8_t *out, size_t len, uint16_t flow, uint32_t number)
{
    net_frame(out, len, 6, 0x0a000000u + flow % 250u, 0x0a010000u, (uint16_t)(20000 + flow), 80);
    for (size_t i = 54; i + PLANE_TRAILER < len; i++)
        out[i] = (uint8_t)(i * 7 + number);
    plane_number(out, len, number);
}

/* One packet as it was on the wire: the kernel gives the outermost tag apart. 0 = none is there. */
static size_t receive(int fd, uint8_t *out, size_t room)
{
    char control[256];
    struct iovec part = { out, room };
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control
    };
    ssize_t len = recvmsg(fd, &message, MSG_DONTWAIT);
    if (len <= 0)
        return 0;
    for (struct cmsghdr *at = CMSG_FIRSTHDR(&message); at != NULL; at = CMSG_NXTHDR(&message, at)) {
        struct tpacket_auxdata aux;
        if (at->cmsg_level != SOL_PACKET || at->cmsg_type != PACKET_AUXDATA)
            continue;
        memcpy(&aux, CMSG_DATA(at), sizeof aux);
        if ((aux.tp_status & TP_STATUS_VLAN_VALID) == 0)
            continue;
        memmove(out + 16, out + 12, (size_t)len - 12);
        out[12] = (uint8_t)(aux.tp_vlan_tpid >> 8);
        out[13] = (uint8_t)aux.tp_vlan_tpid;
        out[14] = (uint8_t)(aux.tp_vlan_tci >> 8);
        out[15] = (uint8_t)aux.tp_vlan_tci;
        len += 4;
    }
    return (size_t)len;
}

unsigned plane_receive(struct plane *plane)
{
    static uint8_t data[1 << 17];
    unsigned all = 0;
    for (unsigned quiet = 0; quiet < 2;) {
        unsigned count = 0;
        for (unsigned i = 0; i < plane->groups * plane->lanes; i++) {
            unsigned group = i / plane->lanes, lane = i % plane->lanes;
            size_t len;
            while ((len = receive(plane->readers[group][lane], data, sizeof data - 4)) > 0) {
                uint32_t number = 0;
                count++;
                if (len >= PLANE_TRAILER)
                    memcpy(&number, data + len - 4, 4);
                if (len < PLANE_TRAILER || memcmp(data + len - 8, "pk#", 4) != 0 ||
                    number >= PLANE_PACKETS) {
                    plane->foreign++;
                    continue;
                }
                plane->got[group][number]++;
                plane->in_lane[group][number] = (uint8_t)lane;
            }
        }
        all += count;
        quiet = count > 0 ? 0 : quiet + 1;
        if (count == 0)
            usleep(10000);
    }
    return all;
}

void plane_receive_all(struct plane *plane, unsigned count)
{
    unsigned got = plane_receive(plane);
    for (unsigned tries = 0; got < count && tries < 200; tries++)
        got += plane_receive(plane);
}

void plane_forget(struct plane *plane)
{
    memset(plane->got, 0, sizeof plane->got);
}

unsigned plane_got(const struct plane *plane, unsigned group, uint32_t number)
{
    return plane->got[group][number];
}

void plane_receive_one(struct plane *plane, unsigned group, const uint8_t *frame, size_t len)
{
    static uint8_t data[1 << 17];
    struct pollfd ready = { .fd = plane->readers[group][0], .events = POLLIN };
    assert_int_equal(poll(&ready, 1, 2000), 1);
    assert_int_equal(receive(ready.fd, data, sizeof data - 4), len);
    assert_memory_equal(data, frame, len);
}

uint64_t plane_count(struct plane *plane, unsigned group, const char *name)
{
    return net_count(plane->broker, "groups", key_of(group, -1), name);
}

void plane_sums(struct plane *plane, unsigned group, uint64_t packets, uint64_t bytes)
{
    static const char *const parts[] = { "filtered", "shunted", "shed", "yielded",
                                         "noLane",   "notSent", "sent" };
    uint64_t sum = 0, sum_bytes = 0, lanes = 0, lanes_bytes = 0, arrived = 0;
    for (size_t i = 0; i < PK_ARRAY_SIZE(parts); i++) {
        char name[32];
        snprintf(name, sizeof name, "%sBytes", parts[i]);
        sum += plane_count(plane, group, parts[i]);
        sum_bytes += plane_count(plane, group, name);
    }
    assert_int_equal(plane_count(plane, group, "packets"), packets);
    assert_int_equal(sum, packets);
    if (bytes == UINT64_MAX)
        bytes = plane_count(plane, group, "bytes");
    assert_int_equal(plane_count(plane, group, "bytes"), bytes);
    assert_int_equal(sum_bytes, bytes);
    for (unsigned i = 0; i < plane->lanes; i++) {
        lanes += net_count(plane->broker, "lanes", key_of(group, (int)i), "sent");
        lanes_bytes += net_count(plane->broker, "lanes", key_of(group, (int)i), "sentBytes");
        arrived += net_count(plane->broker, "lanes", key_of(group, (int)i), "packets");
        assert_int_equal(net_count(plane->broker, "lanes", key_of(group, (int)i), "ringDropped"),
                         0);
    }
    assert_int_equal(lanes, plane_count(plane, group, "sent"));
    assert_int_equal(lanes_bytes, plane_count(plane, group, "sentBytes"));
    assert_int_equal(arrived, lanes);
}
