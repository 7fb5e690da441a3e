/* SPDX-License-Identifier: Apache-2.0 */
/* Slots that drain, in the kernel, with numbered packets of many flows: none is cut. */
#include "pk_test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/time.h"
#include "net.h"

static struct pk_error err;

#define OK(call)                                               \
    do {                                                       \
        int ok_ = (call);                                      \
        if (ok_ < 0)                                           \
            fail_msg("%s: %s (%s)", #call, err.msg, err.hint); \
    } while (0)

enum { LANES = 3, FLOWS = 10000, FRAME = 80 };
#define FIN 1
#define SYN 2
#define RST 4
#define ACK 16

static struct pk_broker *broker;
static struct net_lane lanes[LANES];
static int readers[LANES], sender;
static uint64_t sent, received;
/* Per flow: the lane of its packets since its SYN, -1 = none yet; and how often that changed. */
static int lane_of[2 * FLOWS];
static unsigned cuts[2 * FLOWS];

static const char *key_of(unsigned lane)
{
    static char key[16];
    snprintf(key, sizeof key, "f/g/%u", lane);
    return key;
}

/* Packets carry their flow's number; both directions. */
static void send_one(unsigned flow, uint8_t flags, bool back)
{
    uint8_t frame[FRAME];
    uint32_t a = 0x0a000000 + flow % 250, b = 0x0a010000 + flow / 250;
    uint16_t port = (uint16_t)(1024 + flow * 7 % 60000);
    net_frame(frame, sizeof frame, 6, back ? b : a, back ? a : b, back ? 443 : port,
              back ? port : 443);
    frame[14 + 20 + 12] = 5 << 4;
    frame[14 + 20 + 13] = flags;
    memcpy(frame + 60, &flow, sizeof flow);
    assert_int_equal(net_send(sender, frame, sizeof frame), 0);
    sent++;
}

static void take(unsigned lane)
{
    uint8_t frame[256];
    while (recv(readers[lane], frame, sizeof frame, MSG_DONTWAIT) == FRAME) {
        unsigned flow;
        memcpy(&flow, frame + 60, sizeof flow);
        assert_true(flow < 2 * FLOWS);
        received++;
        bool begins = (frame[14 + 20 + 13] & (SYN | ACK)) == SYN;
        if (lane_of[flow] >= 0 && lane_of[flow] != (int)lane && !begins)
            cuts[flow]++;
        lane_of[flow] = (int)lane;
    }
}

static void take_all(void)
{
    for (unsigned tries = 0; tries < 200 && received < sent; tries++) {
        for (unsigned i = 0; i < LANES; i++)
            take(i);
        if (received < sent)
            usleep(1000);
    }
    assert_int_equal(received, sent);
}

/* Some packets of flows [from, to), a few at a time: the lanes' rings hold 256. */
static void send_all(unsigned from, unsigned to, uint8_t flags, bool back)
{
    for (unsigned flow = from; flow < to; flow++) {
        send_one(flow, flags, back);
        if (flow % 128 == 127)
            take_all();
    }
    take_all();
}

static void turn(const enum pk_broker_part parts[LANES], pk_nsec drain)
{
    struct pk_broker_share shares[LANES];
    for (unsigned i = 0; i < LANES; i++)
        shares[i] = (struct pk_broker_share){ .lane = i, .weight = 1, .part = parts[i] };
    OK(pk_broker_group_turn(broker, "f/g", PK_HASH_OUTER, shares, LANES, drain, &err));
}

static const enum pk_broker_part all_in[LANES] = { PK_PART_IN, PK_PART_IN, PK_PART_IN };

static void up(void)
{
    sent = received = 0;
    memset(cuts, 0, sizeof cuts);
    memset(lane_of, 0xff, sizeof lane_of);
    OK(pk_broker_open(&(struct pk_broker_options){ .pin_dir = NET_PIN_DIR }, &broker, &err));
    unsigned tap = net_veth("tap", "wire", 1500);
    for (unsigned i = 0; i < LANES; i++) {
        char name[16];
        snprintf(name, sizeof name, "lane%u", i);
        net_lane_make(&lanes[i], name, 1504);
        OK(pk_broker_lane_add(broker, key_of(i), lanes[i].host_ifindex, lanes[i].netns_fd, "tap0",
                              &err));
        readers[i] = net_packet_socket(lanes[i].netns_fd, "tap0");
        OK(pk_broker_lane_set_reader(broker, key_of(i), true, &err));
    }
    turn(all_in, 0);
    enum pk_xdp_mode mode = PK_XDP_NONE;
    OK(pk_broker_tap_attach(broker, "f/t", tap, ONE_GROUP, &mode, &err));
    sender = net_packet_socket(-1, "wire");
}

static void down(void)
{
    OK(pk_broker_remove_all(broker, &err));
    pk_broker_close(broker);
    for (unsigned i = 0; i < LANES; i++) {
        close(readers[i]);
        net_lane_drop(&lanes[i]);
    }
    close(sender);
    assert_true(net_run("ip", "link", "del", "tap", NULL));
}

static unsigned count_in(unsigned from, unsigned to, int lane)
{
    unsigned count = 0;
    for (unsigned i = from; i < to; i++)
        count += lane_of[i] == lane;
    return count;
}

static unsigned count_cuts(void)
{
    unsigned count = 0;
    for (unsigned i = 0; i < 2 * FLOWS; i++)
        count += cuts[i];
    return count;
}

static size_t step(void)
{
    size_t slots = 0;
    OK(pk_broker_drains_step(broker, &slots, &err));
    return slots;
}

static struct pk_broker_draining draining(unsigned lane)
{
    struct pk_broker_draining draining;
    assert_true(pk_broker_lane_draining(broker, key_of(lane), &draining));
    return draining;
}

/* 10,000 flows run. One lane drains: they stay, new ones go to the others; when they have ended the
 * drain ends by itself, long before its time, and the lane has nothing any more. */
static void no_flow_is_cut(void **state)
{
    (void)state;
    static const enum pk_broker_part parts[LANES] = { PK_PART_IN, PK_PART_LEAVING, PK_PART_IN };
    up();
    send_all(0, FLOWS, SYN, false);
    send_all(0, FLOWS, SYN | ACK, true);
    unsigned before = count_in(0, FLOWS, 1);
    assert_in_range(before, FLOWS / LANES * 8 / 10, FLOWS / LANES * 12 / 10);

    turn(parts, 600 * PK_NSEC_PER_SEC);
    assert_in_range(draining(1).slots, PK_SLOT_COUNT / LANES, PK_SLOT_COUNT / LANES + 1);
    for (unsigned i = 0; i < 3; i++)
        send_all(0, FLOWS, ACK, i % 2 == 1);
    send_all(FLOWS, 2 * FLOWS, SYN, false);
    send_all(FLOWS, 2 * FLOWS, SYN | ACK, true);
    send_all(FLOWS, 2 * FLOWS, ACK, false);
    assert_int_equal(count_in(0, FLOWS, 1), before);
    assert_int_equal(count_in(FLOWS, 2 * FLOWS, 1), 0);
    assert_int_equal(count_cuts(), 0);
    assert_true(step() > 0);
    assert_int_equal(draining(1).flows, before);
    assert_in_range(draining(1).left / PK_NSEC_PER_SEC, 590, 600);

    /* A SYN inside a flow that lives moves nothing; half-closed flows live on. */
    send_all(0, 100, SYN, false);
    send_all(0, FLOWS, FIN | ACK, false);
    send_all(0, FLOWS, ACK, true);
    assert_true(step() > 0);
    assert_int_equal(draining(1).flows, before);
    for (unsigned flow = 0; flow < FLOWS; flow++)
        send_one(flow, flow % 3 == 0 ? RST : FIN | ACK, true), take_all();
    send_all(0, FLOWS, ACK, false); /* the last acknowledgement */
    assert_int_equal(count_in(0, FLOWS, 1), before);
    assert_int_equal(count_cuts(), 0);

    sleep(6);
    assert_int_equal(step(), 0);
    assert_int_equal(draining(1).slots, 0);
    assert_int_equal(net_count(broker, "lanes", "f/g/1", "slots"), 0);

    /* Back, also by draining: the second half runs on where it is. */
    turn(all_in, 2 * PK_NSEC_PER_SEC);
    send_all(FLOWS, 2 * FLOWS, ACK, true);
    assert_int_equal(count_in(FLOWS, 2 * FLOWS, 1), 0);
    send_all(0, FLOWS, SYN, false); /* the first half's ports are used again */
    send_all(0, FLOWS, SYN | ACK, true);
    assert_int_equal(count_in(0, FLOWS, 1), before);
    assert_int_equal(count_cuts(), 0);
    assert_true(step() > 0);
    /* The deadline: from here on all goes by the slot. */
    sleep(3);
    assert_int_equal(step(), 0);
    send_all(FLOWS, 2 * FLOWS, ACK, false);
    assert_true(count_in(FLOWS, 2 * FLOWS, 1) > 0);
    assert_in_range(count_cuts(), FLOWS / LANES * 8 / 10, FLOWS / LANES * 12 / 10);
    assert_int_equal(received, sent);
    down();
}

/* A lane is killed while 10,000 flows run: its slots are elsewhere at once, no other flow moves. */
static void a_dead_lane_is_left_at_once(void **state)
{
    (void)state;
    static const enum pk_broker_part parts[LANES] = { PK_PART_OUT, PK_PART_IN, PK_PART_IN };
    up();
    send_all(0, FLOWS, SYN, false);
    static int before[FLOWS];
    memcpy(before, lane_of, sizeof before);
    pk_nsec begun = pk_time_monotonic();
    turn(parts, 600 * PK_NSEC_PER_SEC);
    pk_nsec took = pk_time_monotonic() - begun;
    send_all(0, FLOWS, ACK, true);
    unsigned moved = 0;
    for (unsigned i = 0; i < FLOWS; i++) {
        assert_true(lane_of[i] != 0);
        assert_true(before[i] == 0 || before[i] == lane_of[i]);
        moved += before[i] != lane_of[i];
    }
    print_message("# %u of %u flows moved, in %.1f ms\n", moved, FLOWS,
                  (double)took / (double)PK_NSEC_PER_MS);
    assert_true(moved <= FLOWS / LANES + FLOWS / 50);
    assert_int_equal(net_count(broker, "lanes", "f/g/0", "slots"), 0);
    assert_int_equal(draining(0).slots, 0);
    down();
}

/* What an agent before this one began is ended by its successor. */
static void a_drain_outlives_the_agent(void **state)
{
    (void)state;
    static const enum pk_broker_part parts[LANES] = { PK_PART_IN, PK_PART_IN, PK_PART_LEAVING };
    up();
    send_all(0, 1000, SYN, false);
    turn(parts, 4 * PK_NSEC_PER_SEC);
    send_all(0, 1000, ACK, true);
    unsigned in_lane = count_in(0, 1000, 2);
    pk_broker_close(broker);
    send_all(0, 1000, ACK, false);
    OK(pk_broker_open(&(struct pk_broker_options){ .pin_dir = NET_PIN_DIR }, &broker, &err));
    assert_true(draining(2).slots > 0);
    turn(parts, 4 * PK_NSEC_PER_SEC);
    assert_true(draining(2).slots > 0);
    send_all(0, 1000, ACK, true);
    assert_int_equal(count_in(0, 1000, 2), in_lane);
    assert_true(step() > 0);
    assert_int_equal(draining(2).flows, in_lane);
    assert_int_equal(count_cuts(), 0);
    sleep(4);
    assert_int_equal(step(), 0);
    down();
}

/* Single slots move by draining, keep their lane when others come and go, and go home. */
static void slots_move(void **state)
{
    (void)state;
    up();
    OK(pk_broker_group_meter(broker, "f/g", true, &err));
    send_all(0, FLOWS, SYN, false);
    static struct pk_broker_slot slots[PK_SLOT_COUNT];
    OK(pk_broker_group_slots(broker, "f/g", slots, &err));
    uint64_t load = 0;
    struct pk_broker_move moves[50];
    size_t count = 0;
    for (uint32_t i = 0; i < PK_SLOT_COUNT; i++) {
        load += slots[i].load;
        assert_int_equal(slots[i].lane, slots[i].home);
        if (slots[i].lane == 0 && slots[i].load > 0 && count < 50)
            moves[count++] = (struct pk_broker_move){ .slot = i, .lane = 1 };
    }
    assert_int_equal(load, FLOWS * (FRAME + 256));
    assert_int_equal(count, 50);
    OK(pk_broker_group_move(broker, "f/g", moves, count, 0, &err));
    turn(all_in, 0);
    OK(pk_broker_group_slots(broker, "f/g", slots, &err));
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(slots[moves[i].slot].lane, 1);
        assert_int_equal(slots[moves[i].slot].home, 0);
    }
    send_all(0, FLOWS, SYN, false);
    OK(pk_broker_group_move(broker, "f/g", NULL, 0, 600 * PK_NSEC_PER_SEC, &err));
    assert_int_equal(draining(1).slots, 50);
    send_all(0, FLOWS, ACK, true);
    assert_int_equal(count_cuts(), 0);
    OK(pk_broker_group_meter(broker, "f/g", false, &err));
    assert_int_equal(draining(1).slots, 50);
    down();
}

int main(void)
{
    if (!net_begin())
        return 0;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_flow_is_cut),
        cmocka_unit_test(a_dead_lane_is_left_at_once),
        cmocka_unit_test(a_drain_outlives_the_agent),
        cmocka_unit_test(slots_move),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
