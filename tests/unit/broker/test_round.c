/* SPDX-License-Identifier: Apache-2.0 */
/* The round: packets for several groups, which come to their lanes without a copy. Skipped where
 * the kernel has none (before Linux 6.6). */
#include "pk_test.h"

#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "net.h"
#include "plane.h"

static const char *const names[] = { "g0", "g1", "g2" };
static struct plane plane;
static uint8_t frame[16384];

static const char *lane_key(unsigned group, unsigned lane)
{
    static char key[24];
    snprintf(key, sizeof key, "f/g%u/%u", group, lane);
    return key;
}

static uint64_t lane_count(unsigned group, unsigned lane, const char *name)
{
    return net_count(plane.broker, "lanes", lane_key(group, lane), name);
}

/* Packets first to first + count - 1, of all sizes, each of one of 50 flows. */
static void send_packets(uint32_t first, unsigned count, unsigned copies)
{
    for (uint32_t i = first; i < first + count; i++) {
        size_t len = i % 10 == 3 ? 5000 : 60 + i * 7 % 1400;
        plane_frame(frame, len, (uint16_t)(i % 50), i);
        assert_int_equal(net_send(plane.sender, frame, len), 0);
        if (i % 50 == 49)
            plane_receive_all(&plane, 50 * copies);
    }
}

static void up(unsigned groups, unsigned lanes)
{
    plane_up(&plane, groups, lanes, 9000);
    plane_attach(&plane, NULL, 0, names, NULL, groups);
}

static bool kernel_has_round(void)
{
    struct utsname kernel;
    unsigned major = 0, minor = 0;
    assert_int_equal(uname(&kernel), 0);
    assert_int_equal(sscanf(kernel.release, "%u.%u", &major, &minor), 2);
    return major > 6 || (major == 6 && minor >= 6);
}

/* By the round and by a broadcast the same packets come to the same lanes, and all of it counts. */
static void both_ways_agree(void **state)
{
    (void)state;
    struct pk_error err = { 0 };
    up(3, 2);
    send_packets(0, 300, 3);
    for (unsigned group = 0; group < 3; group++)
        assert_int_equal(plane_count(&plane, group, "copied"), 300);
    for (unsigned lane = 0; lane < 2; lane++)
        assert_int_equal(pk_broker_lane_leave_round(plane.broker, lane_key(1, lane), &err), 0);
    send_packets(300, 300, 3);
    for (unsigned group = 0; group < 3; group++) {
        for (uint32_t i = 0; i < 600; i++)
            assert_int_equal(plane_got(&plane, group, i), 1);
        for (uint32_t i = 0; i < 300; i++)
            assert_int_equal(plane.in_lane[group][i], plane.in_lane[group][300 + i]);
        assert_int_equal(plane_count(&plane, group, "copied"), 330); /* large ones alone */
        plane_sums(&plane, group, 600, UINT64_MAX);
    }
    /* Added again it is one of the round again. */
    for (unsigned lane = 0; lane < 2; lane++) {
        const struct net_lane *of = &plane.lane[1][lane];
        assert_int_equal(pk_broker_lane_add(plane.broker, lane_key(1, lane), of->host_ifindex,
                                            of->netns_fd, "tap0", &err),
                         0);
    }
    send_packets(600, 100, 3);
    for (unsigned group = 0; group < 3; group++) {
        assert_int_equal(plane_count(&plane, group, "copied"), 430);
        plane_sums(&plane, group, 700, UINT64_MAX);
    }
    assert_int_equal(plane.foreign, 0);
    plane_down(&plane);
}

/* A flow's packets keep their order, whatever their sizes and however many groups get each. */
static void order_stays(void **state)
{
    (void)state;
    static uint8_t data[16384];
    up(3, 1);
    for (uint32_t i = 0; i < 400; i++) {
        size_t len = i % 3 == 0 ? 8000 : i % 3 == 1 ? 60 : 1400;
        plane_frame(frame, len, 7, i);
        assert_int_equal(net_send(plane.sender, frame, len), 0);
        if (i % 20 != 19)
            continue;
        usleep(20000);
        for (unsigned group = 0; group < 3; group++) {
            for (uint32_t want = i - 19; want <= i; want++) {
                uint32_t number = 0;
                ssize_t got = recv(plane.readers[group][0], data, sizeof data, 0);
                assert_true(got >= (ssize_t)PLANE_TRAILER);
                memcpy(&number, data + got - 4, 4);
                assert_int_equal(number, want);
            }
        }
    }
    plane_down(&plane);
}

/* A lane that no tool reads is passed over, and its packets count as unread, once. */
static void unread_lanes_are_passed_over(void **state)
{
    (void)state;
    struct pk_error err = { 0 };
    up(3, 1);
    for (unsigned round = 0; round < 8; round++) { /* each set of readers */
        for (unsigned group = 0; group < 3; group++)
            assert_int_equal(pk_broker_lane_set_reader(plane.broker, lane_key(group, 0),
                                                       round >> group & 1, &err),
                             0);
        send_packets(round * 50, 50, (unsigned)__builtin_popcount(round));
    }
    for (unsigned group = 0; group < 3; group++) {
        for (uint32_t i = 0; i < 400; i++)
            assert_int_equal(plane_got(&plane, group, i), i / 50 >> group & 1);
        assert_int_equal(lane_count(group, 0, "unread"), 200);
        assert_int_equal(lane_count(group, 0, "sent"), 400);
        plane_sums(&plane, group, 400, UINT64_MAX);
    }
    plane_down(&plane);
}

/* An interface that goes takes nothing from the others. */
static void a_lane_goes(void **state)
{
    (void)state;
    for (unsigned gone = 0; gone < 3; gone++) {
        up(3, 1);
        send_packets(0, 50, 3);
        close(plane.readers[gone][0]);
        net_lane_drop(&plane.lane[gone][0]);
        plane.readers[gone][0] = net_packet_socket(-1, "lo");
        send_packets(50, 50, 2);
        for (unsigned group = 0; group < 3; group++) {
            for (uint32_t i = 0; i < 100; i++)
                assert_int_equal(plane_got(&plane, group, i), group == gone ? i < 50 : 1);
            assert_int_equal(plane_count(&plane, group, "packets"), 100);
            assert_int_equal(plane_count(&plane, group, "sent"), group == gone ? 50 : 100);
            assert_int_equal(plane_count(&plane, group, "notSent"), group == gone ? 50 : 0);
        }
        plane.lane[gone][0].netns_fd = -1;
        net_lane_make(&plane.lane[gone][0], "again", 1500); /* for the end */
        plane_down(&plane);
    }
}

/* What somebody takes off is seen and put back. */
static void programs_are_put_back(void **state)
{
    (void)state;
    struct pk_error err = { 0 };
    static const char *const pins[] = { "lane-0-round-in", "lane-1-round-out" };
    up(2, 1);
    for (unsigned group = 0; group < 2; group++) {
        const struct net_lane *lane = &plane.lane[group][0];
        char path[128];
        snprintf(path, sizeof path, NET_PIN_DIR "/%s", pins[group]);
        assert_true(pk_broker_lane_intact(plane.broker, lane_key(group, 0)));
        assert_int_equal(unlink(path), 0);
        assert_false(pk_broker_lane_intact(plane.broker, lane_key(group, 0)));
        assert_int_equal(pk_broker_lane_add(plane.broker, lane_key(group, 0), lane->host_ifindex,
                                            lane->netns_fd, "tap0", &err),
                         0);
        assert_true(pk_broker_lane_intact(plane.broker, lane_key(group, 0)));
    }
    send_packets(0, 50, 2);
    for (unsigned group = 0; group < 2; group++)
        plane_sums(&plane, group, 50, UINT64_MAX);
    assert_int_equal(plane_count(&plane, 0, "sent"), 50);
    plane_down(&plane);
}

/* An interface that keeps packets back to merge them would let others overtake them. */
static void not_where_packets_are_merged(void **state)
{
    (void)state;
    plane_up(&plane, 2, 1, 9000);
    assert_true(net_run("ethtool", "-K", "tap", "gro", "on", NULL));
    plane_attach(&plane, NULL, 0, names, NULL, 2);
    send_packets(0, 100, 2);
    for (unsigned group = 0; group < 2; group++) {
        for (uint32_t i = 0; i < 100; i++)
            assert_int_equal(plane_got(&plane, group, i), 1);
        assert_int_equal(plane_count(&plane, group, "copied"), 10);
        plane_sums(&plane, group, 100, UINT64_MAX);
    }
    plane_down(&plane);
}

static void open_protocol_socket(void *arg)
{
    int *fd = arg;
    *fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, htons(ETH_P_IP));
}

/* Nothing goes up to the protocols of the host, nor to those of a lane, until the tap is given
 * back. A packet socket for one protocol is in their place. */
static void protocols_see_nothing(void **state)
{
    (void)state;
    struct pk_error err = { 0 };
    up(2, 1);
    int host = -1, lane = -1;
    open_protocol_socket(&host);
    net_in(plane.lane[1][0].netns_fd, open_protocol_socket, &lane);
    assert_true(host >= 0 && lane >= 0);
    send_packets(0, 50, 2);
    assert_int_equal(net_receive(host, 200, NULL), 0);
    assert_int_equal(net_receive(lane, 200, NULL), 0);
    for (unsigned group = 0; group < 2; group++)
        plane_sums(&plane, group, 50, UINT64_MAX);
    assert_int_equal(pk_broker_tap_detach(plane.broker, "f/t", &err), 0);
    plane_frame(frame, 100, 1, 50);
    assert_int_equal(net_send(plane.sender, frame, 100), 0);
    assert_int_equal(net_receive(host, 200, NULL), 1);
    close(host);
    close(lane);
    plane_down(&plane);
}

int main(void)
{
    if (!net_begin())
        return 0;
    if (!kernel_has_round()) {
        printf("1..0 # SKIP the kernel has no programs at an ingress by link (tcx)\n");
        return 0;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_ways_agree),
        cmocka_unit_test(order_stays),
        cmocka_unit_test(unread_lanes_are_passed_over),
        cmocka_unit_test(a_lane_goes),
        cmocka_unit_test(programs_are_put_back),
        cmocka_unit_test(not_where_packets_are_merged),
        cmocka_unit_test(protocols_see_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
