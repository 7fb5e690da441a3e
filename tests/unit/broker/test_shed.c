/* SPDX-License-Identifier: Apache-2.0 */
/* What the tap's program leaves out, with real packets: shunted flows and shed slots; whole flows,
 * and sums that are exact. */
#include "pk_test.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <jansson.h>

#include "base/time.h"
#include "broker/broker.h"
#include "broker/shed.h"
#include "broker/shunt.h"
#include "net.h"
#include "shunt_probe.h"

static struct pk_error err;

#define OK(call)                                               \
    do {                                                       \
        int ok_ = (call);                                      \
        if (ok_ < 0)                                           \
            fail_msg("%s: %s (%s)", #call, err.msg, err.hint); \
    } while (0)

/* Two groups of two lanes each, of two tenants by prefix: 10.0.0.0/16 is a's, the rest is
 * b's. */
#define GROUPS 2
#define LANES  2
static struct pk_broker *broker;
static struct net_lane lanes[GROUPS * LANES];
static int readers[GROUPS * LANES], sender;
static unsigned tap;
static const char *const keys[GROUPS] = { "f/a", "f/b" };

static const char *lane_key(unsigned group, unsigned lane)
{
    static char key[32];
    snprintf(key, sizeof key, "%s/%u", keys[group], lane);
    return key;
}

static int setup(void **state)
{
    (void)state;
    OK(pk_broker_open(&(struct pk_broker_options){ .pin_dir = NET_PIN_DIR }, &broker, &err));
    tap = net_veth("tap", "wire", 1500);
    for (unsigned g = 0; g < GROUPS; g++) {
        struct pk_broker_share shares[LANES];
        for (unsigned i = 0; i < LANES; i++) {
            char name[16];
            struct net_lane *lane = &lanes[g * LANES + i];
            snprintf(name, sizeof name, "lane%u", g * LANES + i);
            net_lane_make(lane, name, 1504);
            OK(pk_broker_lane_add(broker, lane_key(g, i), lane->host_ifindex, lane->netns_fd,
                                  "tap0", &err));
            readers[g * LANES + i] = net_packet_socket(lane->netns_fd, "tap0");
            OK(pk_broker_lane_set_reader(broker, lane_key(g, i), true, &err));
            shares[i] = (struct pk_broker_share){ .lane = i, .weight = 1 };
        }
        OK(pk_broker_group_set(broker, keys[g], PK_HASH_FLOW, shares, LANES, &err));
    }
    enum pk_xdp_mode mode;
    const struct pk_broker_prefix prefixes[] = { { .family = 4, .address = { 10 }, .length = 16 } };
    const struct pk_broker_tenant tenant = { .name = "a", .prefixes = prefixes, .prefix_count = 1 };
    const struct pk_broker_target targets[] = { { .group_key = "f/a", .tenant = "a" },
                                                { .group_key = "f/b", .tenant = "" } };
    const struct pk_broker_tap_config config = {
        .tenants = &tenant, .tenant_count = 1, .targets = targets, .target_count = GROUPS
    };
    OK(pk_broker_tap_attach(broker, "f/t", tap, &config, &mode, &err));
    sender = net_packet_socket(-1, "wire");
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    OK(pk_broker_remove_all(broker, &err));
    pk_broker_close(broker);
    for (unsigned i = 0; i < GROUPS * LANES; i++) {
        close(readers[i]);
        net_lane_drop(&lanes[i]);
    }
    close(sender);
    assert_true(net_run("ip", "link", "del", "tap", NULL));
    return 0;
}

static uint64_t count(unsigned group, const char *name)
{
    return net_count(broker, "groups", keys[group], name);
}

/* All of it adds up, in packets and in bytes. */
static void check_sums(void)
{
    for (unsigned g = 0; g < GROUPS; g++) {
        assert_int_equal(count(g, "packets"), count(g, "filtered") + count(g, "shunted") +
                                                  count(g, "shed") + count(g, "yielded") +
                                                  count(g, "noLane") + count(g, "notSent") +
                                                  count(g, "sent"));
        assert_int_equal(count(g, "bytes"), count(g, "filteredBytes") + count(g, "shuntedBytes") +
                                                count(g, "shedBytes") + count(g, "yieldedBytes") +
                                                count(g, "noLaneBytes") + count(g, "notSentBytes") +
                                                count(g, "sentBytes"));
        uint64_t arrived = 0;
        for (unsigned i = 0; i < LANES; i++)
            arrived += net_count(broker, "lanes", lane_key(g, i), "packets");
        assert_int_equal(arrived, count(g, "sent"));
    }
}

#define BASE_A 0x0a000000u
#define BASE_B 0x0a010000u

/* A packet of flow i, in one of its directions. */
static void send_one(uint32_t base, unsigned i, bool back, uint8_t flags, size_t len)
{
    uint8_t frame[1514];
    uint32_t client = base + 1 + i % 200, server = base + 0x100 + i / 200;
    uint16_t port = (uint16_t)(10000 + i);
    if (back)
        net_frame(frame, len, 6, server, client, 443, port);
    else
        net_frame(frame, len, 6, client, server, port, 443);
    frame[46] = 0x50;
    frame[47] = flags;
    assert_int_equal(net_send(sender, frame, len), 0);
}

static unsigned receive(unsigned group)
{
    unsigned got = 0;
    for (unsigned i = 0; i < LANES; i++)
        got += net_receive(readers[group * LANES + i], 100, NULL);
    return got;
}

static void shunted(void **state)
{
    (void)state;
    enum { FLOWS = 20, PACKETS = 40 };
    struct pk_tuple flow = probe_tuple(6, BASE_A + 1 + 3, 10003, BASE_A + 0x100, 443);
    struct pk_shunt_added added = { 0 };
    const struct pk_shunt_request request = {
        .group = (unsigned)pk_broker_group_number(broker, "f/a"),
        .idle_ms = 60000,
        .life_nsec = 3600000000000u,
        .by = "test",
    };
    assert_int_equal(receive(0) + receive(1), 0);
    for (unsigned k = 0; k < PACKETS; k++) {
        if (k == PACKETS / 2)
            OK(pk_broker_shunts_add(broker, &request, &flow, 1, &added, &err));
        for (unsigned i = 0; i < FLOWS; i++) {
            send_one(BASE_A, i, k % 2, ACK, 100 + k);
            send_one(BASE_B, i, k % 2, ACK, 100 + k);
        }
    }
    send_one(BASE_A, 3, false, FIN | ACK, 60);
    assert_int_equal(receive(0), FLOWS * PACKETS - PACKETS / 2 + 1);
    assert_int_equal(receive(1), FLOWS * PACKETS);
    assert_int_equal(count(0, "shunted"), PACKETS / 2);
    assert_int_equal(count(1, "shunted"), 0);
    struct pk_shunt_key key;
    struct pk_shunt shunt;
    bool from_b;
    assert_true(pk_shunt_key_of(&flow, request.group, &key, &from_b));
    assert_true(pk_broker_shunt_get(broker, &key, &shunt));
    assert_int_equal(shunt.packets[0] + shunt.packets[1], count(0, "shunted"));
    assert_int_equal(shunt.bytes[0] + shunt.bytes[1], count(0, "shuntedBytes"));
    assert_int_equal(shunt.passed_packets, 1);
    OK(pk_broker_shunts_delete(broker, &key, 1, &err));
    OK(pk_broker_shunts_used(broker, 0, &err));
    check_sums();
}

/* Group a sheds a fifth of its slots, and b nothing. */
static void shed(void **state)
{
    (void)state;
    enum { FLOWS = 1000, ROUNDS = 4 };
    uint64_t shed_before = count(0, "shed");
    size_t done = 0;
    OK(pk_broker_shed(broker, "f/a", NULL, 0, 0.2, PK_SHED_OWN, &done, &err));
    assert_int_equal(done, PK_SLOT_COUNT / 5);
    assert_int_equal(pk_broker_shed_count(broker, "f/a", PK_SHED_OWN), done);
    unsigned whole = 0;
    for (unsigned i = 0; i < FLOWS; i++) {
        uint64_t before = count(0, "shed");
        for (unsigned k = 0; k < ROUNDS; k++) {
            send_one(BASE_A, i, k % 2, k == 0 ? SYN : ACK, 200);
            send_one(BASE_B, i, k % 2, ACK, 200);
        }
        uint64_t gone = count(0, "shed") - before;
        if (gone != 0 && gone != ROUNDS)
            fail_msg("of flow %u %u of %u packets were shed", i, (unsigned)gone, ROUNDS);
        whole += gone == ROUNDS;
        if (i % 100 == 99) {
            (void)receive(0);
            (void)receive(1);
        }
    }
    print_message("# %u of %u flows were shed\n", whole, FLOWS);
    assert_in_range(whole, FLOWS / 8, FLOWS * 3 / 10);
    assert_int_equal(count(0, "shed") - shed_before, whole * ROUNDS);
    assert_int_equal(count(1, "shed"), 0);
    check_sums();

    /* What is shed outlives the agent, and comes back. */
    pk_broker_close(broker);
    OK(pk_broker_open(&(struct pk_broker_options){ .pin_dir = NET_PIN_DIR }, &broker, &err));
    assert_int_equal(pk_broker_shed_count(broker, "f/a", PK_SHED_OWN), done);
    OK(pk_broker_unshed(broker, "f/a", 100, PK_SHED_OWN, &err));
    assert_int_equal(pk_broker_shed_count(broker, "f/a", PK_SHED_OWN), done - 100);
    OK(pk_broker_unshed(broker, "f/a", SIZE_MAX, PK_SHED_OWN, &err));
    assert_int_equal(pk_broker_shed_count(broker, "f/a", PK_SHED_OWN), 0);
    uint64_t all = count(0, "shed");
    for (unsigned i = 0; i < 100; i++)
        send_one(BASE_A, i, false, ACK, 200);
    assert_int_equal(count(0, "shed"), all);
    (void)receive(0);
    check_sums();
}

/* Only of the lanes that are named. */
static void of_some_lanes(void **state)
{
    (void)state;
    const bool named[LANES] = { false, true };
    size_t done = 0;
    uint64_t first = net_count(broker, "lanes", lane_key(1, 0), "packets");
    uint64_t second = net_count(broker, "lanes", lane_key(1, 1), "packets");
    OK(pk_broker_shed(broker, "f/b", named, LANES, 1, PK_SHED_OWN, &done, &err));
    assert_in_range(done, PK_SLOT_COUNT / 2 - 10, PK_SLOT_COUNT / 2 + 10);
    for (unsigned i = 0; i < 400; i++)
        send_one(BASE_B, i, false, ACK, 200);
    (void)receive(1);
    assert_int_equal(net_count(broker, "lanes", lane_key(1, 1), "packets"), second);
    assert_true(net_count(broker, "lanes", lane_key(1, 0), "packets") > first + 100);
    check_sums();
    OK(pk_broker_unshed(broker, "f/b", SIZE_MAX, PK_SHED_OWN, &err));
    assert_int_equal(pk_broker_shed(broker, "f/none", NULL, 0, 1, PK_SHED_OWN, &done, &err),
                     PK_E_NOTFOUND);
}

/* For another group's sake: counted for itself, and given back for itself. */
static void yielded(void **state)
{
    (void)state;
    enum { FLOWS = 400 };
    size_t own = 0, other = 0, slots = 0;
    uint64_t before = count(0, "shed");
    OK(pk_broker_shed(broker, "f/a", NULL, 0, 0.5, PK_SHED_YIELDED, &other, &err));
    OK(pk_broker_shed(broker, "f/a", NULL, 0, 0.5, PK_SHED_OWN, &own, &err));
    assert_int_equal(other, PK_SLOT_COUNT / 2);
    assert_in_range(own, PK_SLOT_COUNT / 4 - 1, PK_SLOT_COUNT / 4 + 1);
    assert_int_equal(pk_broker_shed_count(broker, "f/a", PK_SHED_YIELDED), other);
    assert_int_equal(pk_broker_shed_count(broker, "f/a", PK_SHED_OWN), own);
    size_t of_lanes = pk_broker_shed_of_lane(broker, "f/a", 0, &slots);
    assert_in_range(slots, PK_SLOT_COUNT / 2 - 10, PK_SLOT_COUNT / 2 + 10);
    of_lanes += pk_broker_shed_of_lane(broker, "f/a", 1, &slots);
    assert_int_equal(of_lanes, own + other);
    for (unsigned i = 0; i < FLOWS; i++)
        send_one(BASE_A, i, false, ACK, 200);
    unsigned got = receive(0);
    uint64_t shed_now = count(0, "shed") - before, yields = count(0, "yielded");
    print_message("# of %u flows %u were shed, %u yielded\n", FLOWS, (unsigned)shed_now,
                  (unsigned)yields);
    assert_int_equal(shed_now + yields + got, FLOWS);
    assert_in_range(shed_now, FLOWS / 6, FLOWS / 3);
    assert_in_range(yields, FLOWS * 2 / 5, FLOWS * 3 / 5);
    OK(pk_broker_unshed(broker, "f/a", SIZE_MAX, PK_SHED_YIELDED, &err));
    assert_int_equal(pk_broker_shed_count(broker, "f/a", PK_SHED_YIELDED), 0);
    assert_int_equal(pk_broker_shed_count(broker, "f/a", PK_SHED_OWN), own);
    OK(pk_broker_unshed(broker, "f/a", SIZE_MAX, PK_SHED_OWN, &err));
    for (unsigned i = 0; i < FLOWS; i++)
        send_one(BASE_A, i, false, ACK, 200);
    assert_int_equal(receive(0), FLOWS);
    assert_int_equal(count(0, "yielded"), yields);
    check_sums();
}

/* As after the time without an agent: until is over. */
static void runs_out(void **state)
{
    (void)state;
    size_t done = 0;
    OK(pk_broker_shed(broker, "f/b", NULL, 0, 1, PK_SHED_OWN, &done, &err));
    assert_int_equal(done, PK_SLOT_COUNT);
    send_one(BASE_B, 1, false, ACK, 200);
    assert_int_equal(receive(1), 0);
    int fd = bpf_obj_get(NET_PIN_DIR "/pk_sheds");
    assert_true(fd >= 0);
    uint32_t group = (uint32_t)pk_broker_group_number(broker, "f/b");
    static struct pk_shed_slots slots;
    assert_int_equal(bpf_map_lookup_elem(fd, &group, &slots), 0);
    assert_true(slots.until > (uint64_t)pk_time_monotonic());
    slots.until = (uint64_t)pk_time_monotonic() - 1;
    assert_int_equal(bpf_map_update_elem(fd, &group, &slots, BPF_ANY), 0);
    close(fd);
    usleep(20000); /* the kernel's coarse clock */
    for (unsigned i = 0; i < 50; i++)
        send_one(BASE_B, i, false, ACK, 200);
    assert_int_equal(receive(1), 50);
    /* An agent that starts now finds nothing shed. */
    pk_broker_close(broker);
    OK(pk_broker_open(&(struct pk_broker_options){ .pin_dir = NET_PIN_DIR }, &broker, &err));
    assert_int_equal(pk_broker_shed_count(broker, "f/b", PK_SHED_OWN), 0);
    OK(pk_broker_shed_renew(broker, "f/b", &err));
    send_one(BASE_B, 1, false, ACK, 200);
    assert_int_equal(receive(1), 1);
    check_sums();
}

int main(void)
{
    if (!net_begin())
        return 0;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shunted), cmocka_unit_test(shed),     cmocka_unit_test(of_some_lanes),
        cmocka_unit_test(yielded), cmocka_unit_test(runs_out),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
