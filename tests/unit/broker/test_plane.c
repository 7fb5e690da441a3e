/* SPDX-License-Identifier: Apache-2.0 */
/* The traffic plane in the kernel, with real packets. */
#include "pk_test.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_link.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fs.h"
#include "net.h"

static struct pk_error err;

#define OK(call)                                               \
    do {                                                       \
        int ok_ = (call);                                      \
        if (ok_ < 0)                                           \
            fail_msg("%s: %s (%s)", #call, err.msg, err.hint); \
    } while (0)

#define LANES 4
struct plane {
    struct pk_broker *broker;
    struct net_lane lanes[LANES];
    int readers[LANES];
    int sender; /* frames sent here come in at the tap */
    unsigned tap;
};

static struct pk_broker *open_broker(void)
{
    struct pk_broker *broker = NULL;
    OK(pk_broker_open(&(struct pk_broker_options){ .pin_dir = NET_PIN_DIR }, &broker, &err));
    return broker;
}

static const char *lane_key(unsigned i)
{
    static char key[32];
    snprintf(key, sizeof key, "f/g/%u", i);
    return key;
}

static void set_lanes(struct plane *plane, unsigned count)
{
    struct pk_broker_share shares[LANES];
    for (unsigned i = 0; i < count; i++)
        shares[i] = (struct pk_broker_share){ .lane = i, .weight = 1 };
    OK(pk_broker_group_set(plane->broker, "f/g", shares, count, &err));
}

static void plane_up(struct plane *plane, unsigned lanes, unsigned mtu)
{
    *plane = (struct plane){ .sender = -1 };
    plane->broker = open_broker();
    plane->tap = net_veth("tap", "wire", mtu);
    for (unsigned i = 0; i < lanes; i++) {
        char name[16];
        snprintf(name, sizeof name, "lane%u", i);
        net_lane_make(&plane->lanes[i], name, mtu + 4);
        OK(pk_broker_lane_add(plane->broker, lane_key(i), plane->lanes[i].host_ifindex,
                              plane->lanes[i].netns_fd, "tap0", &err));
        plane->readers[i] = net_packet_socket(plane->lanes[i].netns_fd, "tap0");
        OK(pk_broker_lane_set_reader(plane->broker, lane_key(i), true, &err));
    }
    set_lanes(plane, lanes);
    enum pk_xdp_mode mode = PK_XDP_NONE;
    OK(pk_broker_tap_attach(plane->broker, "f/t", plane->tap, "f/g", &mode, &err));
    assert_int_equal(mode, PK_XDP_NATIVE);
    plane->sender = net_packet_socket(-1, "wire");
}

static void plane_down(struct plane *plane)
{
    OK(pk_broker_remove_all(plane->broker, &err));
    pk_broker_close(plane->broker);
    for (unsigned i = 0; i < LANES; i++) {
        if (plane->lanes[i].host_ifindex == 0)
            continue;
        close(plane->readers[i]);
        net_lane_drop(&plane->lanes[i]);
    }
    close(plane->sender);
    assert_true(net_run("ip", "link", "del", "tap", NULL));
}

/* Every frame arrives once, in the lane that the user-space decision names, and all counters add
 * up. */
static void delivers_and_counts(void **state)
{
    (void)state;
    enum { FRAMES = 2000 };
    struct plane plane;
    plane_up(&plane, 4, 1500);
    unsigned want[LANES] = { 0 };
    uint64_t bytes = 0;
    for (unsigned i = 0; i < FRAMES; i++) {
        uint8_t frame[128];
        size_t len = net_frame(frame, 60 + i % 60, i % 2 ? 6 : 17, 0x0a000000 + i % 50, 0x0a010000,
                               (uint16_t)(20000 + i), 80);
        unsigned lane = 99;
        const char *reason = NULL;
        OK(pk_broker_decide(plane.broker, "f/g", frame, len, &lane, &reason, &err));
        assert_string_equal(reason, "");
        want[lane]++;
        bytes += len;
        assert_int_equal(net_send(plane.sender, frame, len), 0);
    }
    uint64_t sent = 0, arrived = 0;
    for (unsigned i = 0; i < LANES; i++) {
        assert_int_equal(net_receive(plane.readers[i], 100, NULL), want[i]);
        assert_int_equal(net_count(plane.broker, "lanes", lane_key(i), "packets"), want[i]);
        assert_int_equal(net_count(plane.broker, "lanes", lane_key(i), "ringDropped"), 0);
        sent += net_count(plane.broker, "lanes", lane_key(i), "sentBytes");
        arrived += net_count(plane.broker, "lanes", lane_key(i), "bytes");
        assert_true(want[i] > FRAMES / 8);
    }
    assert_int_equal(net_count(plane.broker, "taps", "f/t", "packets"), FRAMES);
    assert_int_equal(net_count(plane.broker, "taps", "f/t", "redirected"), FRAMES);
    assert_int_equal(net_count(plane.broker, "taps", "f/t", "dropped"), 0);
    assert_int_equal(net_count(plane.broker, "taps", "f/t", "bytes"), bytes);
    assert_int_equal(sent, bytes);
    assert_int_equal(arrived, bytes);
    json_t *all = pk_broker_counters(plane.broker, &err);
    uint64_t in_ranges = 0;
    size_t k;
    json_t *range;
    json_array_foreach(json_object_get(json_array_get(json_object_get(all, "groups"), 0), "ranges"),
                       k, range) in_ranges +=
        (uint64_t)json_integer_value(json_object_get(range, "packets"));
    assert_int_equal(k, PK_SLOT_RANGES);
    assert_int_equal(in_ranges, FRAMES);
    json_decref(all);
    plane_down(&plane);
}

int main(void)
{
    if (!net_begin())
        return 0;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(delivers_and_counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
