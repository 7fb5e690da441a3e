/* SPDX-License-Identifier: Apache-2.0 */
/* Several groups and tenants of one tap, with real packets. */
#include "pk_test.h"

#include <errno.h>
#include <net/if.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <jansson.h>

#include "base/alloc.h"
#include "encap.h"
#include "net.h"
#include "plane.h"
#include "tenancy.h"

/* ---- each group gets each packet once ---- */

static void every_size_reaches_every_group(void **state)
{
    (void)state;
    static struct plane plane;
    plane_up(&plane, 3, 2, 9000);
    const char *names[] = { "g0", "g1", "g2" };
    plane_attach(&plane, NULL, 0, names, NULL, 3);
    unsigned sent = 0;
    uint64_t bytes = 0;
    static uint8_t frame[16384];
    for (size_t len = 60; len <= 9014; len += len > 2900 && len < 4200 ? 1 : 13) {
        plane_frame(frame, len, (uint16_t)len, sent);
        assert_int_equal(net_send(plane.sender, frame, len), 0);
        bytes += len;
        sent++;
        if (sent % 50 == 0)
            plane_receive_all(&plane, 150);
    }
    plane_receive_all(&plane, 3 * (sent % 50));
    for (unsigned group = 0; group < 3; group++) {
        for (unsigned i = 0; i < sent; i++)
            if (plane_got(&plane, group, i) != 1)
                fail_msg("group %u has packet %u %u times", group, i, plane_got(&plane, group, i));
        plane_sums(&plane, group, sent, bytes);
        assert_int_equal(plane_count(&plane, group, "sent"), sent);
        assert_true(plane_count(&plane, group, "copied") > 400);
    }
    assert_int_equal(net_count(plane.broker, "taps", "f/t", "redirected") +
                         net_count(plane.broker, "taps", "f/t", "passed"),
                     sent);
    plane_down(&plane);
}

/* Whose length takes more than 16 bits. */
static void the_largest_are_counted_whole(void **state)
{
    (void)state;
    static struct plane plane;
    static const char *const names[] = { "g0", "g1" };
    static uint8_t frame[65541];
    static const size_t sizes[] = { 65535, 65536, 65541 };
    uint64_t bytes = 0;
    plane_up(&plane, 2, 1, 65527);
    plane_attach(&plane, NULL, 0, names, NULL, 2);
    for (uint32_t i = 0; i < PK_ARRAY_SIZE(sizes); i++) {
        plane_frame(frame, sizes[i], (uint16_t)i, i);
        assert_int_equal(net_send(plane.sender, frame, sizes[i]), 0);
        bytes += sizes[i];
    }
    plane_receive(&plane);
    for (unsigned group = 0; group < 2; group++) {
        plane_sums(&plane, group, PK_ARRAY_SIZE(sizes), bytes);
        assert_int_equal(plane_count(&plane, group, "copied"), PK_ARRAY_SIZE(sizes));
        assert_int_equal(plane_count(&plane, group, "copiedBytes"), bytes);
    }
    plane_down(&plane);
}

/* What is in the packet, and its tags, are the same whichever way it came. */
static void tags_arrive_as_they_were(void **state)
{
    (void)state;
    static struct plane plane;
    plane_up(&plane, 2, 1, 9000);
    const char *names[] = { "g0", "g1" };
    plane_attach(&plane, NULL, 0, names, NULL, 2);
    static const uint8_t tags[][12] = { "\x81\x00\x20\x6e", "\x88\xa8\x00\x07\x81\x00\x00\x08",
                                        "\x91\x00\x00\x09", "\x81\x00\x00\x00",
                                        "\x88\xa8\x10\x01\x88\xa8\x10\x02\x81\x00\x10\x03" };
    static const size_t sizes[] = { 4, 8, 4, 4, 12 };
    static const size_t lens[] = { 200, 2990, 3001, 5000, 8990 };
    unsigned sent = 0;
    static uint8_t frame[16384];
    for (size_t i = 0; i < PK_ARRAY_SIZE(tags); i++) {
        for (size_t k = 0; k < PK_ARRAY_SIZE(lens); k++) {
            plane_frame(frame, lens[k], 7, sent);
            memmove(frame + 12 + sizes[i], frame + 12, lens[k] - 12);
            memcpy(frame + 12, tags[i], sizes[i]);
            assert_int_equal(net_send(plane.sender, frame, lens[k] + sizes[i]), 0);
            plane_receive_one(&plane, 0, frame, lens[k] + sizes[i]);
            plane_receive_one(&plane, 1, frame, lens[k] + sizes[i]);
            sent++;
        }
    }
    plane_sums(&plane, 0, sent, UINT64_MAX);
    assert_int_equal(net_count(plane.broker, "lanes", "f/g0/0", "sentBytes"),
                     net_count(plane.broker, "lanes", "f/g0/0", "bytes"));
    plane_down(&plane);
}

/* ---- tenants ---- */

static void dump(const struct tenancy_packet *packet)
{
    print_message("# ");
    for (size_t i = 0; i < packet->len; i++)
        print_message("%02x", packet->frame[i]);
    print_message("\n");
}

/* What user space says goes to the lanes that really got it. */
static void check_decision(struct plane *plane, const struct tenancy *tenancy, uint32_t number,
                           const struct tenancy_packet *packet,
                           const struct pk_broker_decision *decision)
{
    const char *name = packet->tenant == TENANCY_NONE ? "" : tenancy->names[packet->tenant];
    bool known = decision->tenant != NULL;
    if ((known && strcmp(decision->tenant, name) != 0) || (!known && !packet->may_be_lost)) {
        dump(packet);
        fail_msg("packet %u is tenant \"%s\"'s, user space says \"%s\"", number, name,
                 known ? decision->tenant : "(unknown)");
    }
    for (unsigned group = 0; group < plane->groups; group++) {
        unsigned got = plane_got(plane, group, number);
        unsigned want = known && tenancy->tenant_of[group] == packet->tenant;
        if (got != want) {
            dump(packet);
            fail_msg("packet %u of tenant \"%s\" came to group %u %u times", number, name, group,
                     got);
        }
        for (size_t i = 0; i < decision->count; i++) {
            char key[24];
            snprintf(key, sizeof key, "f/g%u", group);
            if (strcmp(decision->targets[i].group_key, key) == 0)
                assert_int_equal(decision->targets[i].lane, plane->in_lane[group][number]);
        }
    }
}

/* Random tenants, random packets in all encapsulations, whole and in fragments, quoted by ICMP
 * errors: each comes once to each group of its tenant, and to no other group. */
static void tenants_stay_apart(void **state)
{
    (void)state;
    enum { ROUNDS = 16, PACKETS = 1500, AT_ONCE = 40 };
    static struct plane plane;
    static struct tenancy tenancy;
    static struct tenancy_packet packets[AT_ONCE + TENANCY_PARTS];
    static struct pk_broker_decision decisions[AT_ONCE + TENANCY_PARTS];
    const char *rounds = getenv("PICKET_TEST_ROUNDS"), *seed = getenv("PICKET_TEST_SEED");
    tenancy.rng.state = seed != NULL ? strtoull(seed, NULL, 10) : 11;
    plane_up(&plane, PLANE_GROUPS, 2, 9000);
    uint64_t in_group[PLANE_GROUPS] = { 0 }, lost = 0, all = 0;
    unsigned delivered = 0;
    for (unsigned round = rounds != NULL ? (unsigned)strtoul(rounds, NULL, 10) : ROUNDS; round > 0;
         round--) {
        tenancy_random(&tenancy, plane.groups);
        tenancy_attach(&tenancy, &plane);
        for (uint32_t sent = 0; sent < PACKETS;) {
            uint32_t first = sent, count = 0;
            unsigned want = 0;
            while (count < AT_ONCE)
                count += (uint32_t)tenancy_packets(&tenancy, &packets[count]);
            for (uint32_t i = 0; i < count; i++, sent++) {
                struct pk_error err = { 0 };
                plane_number(packets[i].frame, packets[i].len, sent);
                assert_int_equal(pk_broker_decide(plane.broker, "f/t", packets[i].frame,
                                                  packets[i].len, &decisions[i], &err),
                                 0);
                assert_int_equal(net_send(plane.sender, packets[i].frame, packets[i].len), 0);
                want += (unsigned)decisions[i].count;
            }
            plane_receive_all(&plane, want);
            for (uint32_t i = 0; i < count; i++) {
                check_decision(&plane, &tenancy, first + i, &packets[i], &decisions[i]);
                lost += decisions[i].tenant == NULL;
                for (unsigned group = 0; group < plane.groups; group++) {
                    in_group[group] += plane_got(&plane, group, first + i);
                    delivered += plane_got(&plane, group, first + i);
                }
            }
            all += count;
        }
        plane_forget(&plane);
    }
    assert_int_equal(plane.foreign, 0);
    for (unsigned group = 0; group < plane.groups; group++)
        plane_sums(&plane, group, in_group[group], UINT64_MAX);
    assert_int_equal(net_count(plane.broker, "taps", "f/t", "packets"), all);
    assert_int_equal(net_count(plane.broker, "taps", "f/t", "tenant-unknown"), lost);
    assert_int_equal(net_count(plane.broker, "taps", "f/t", "dropped"),
                     lost + net_count(plane.broker, "taps", "f/t", "unclaimed"));
    print_message("# %llu packets, %u deliveries, %llu fragments of nobody known\n",
                  (unsigned long long)all, delivered, (unsigned long long)lost);
    plane_down(&plane);
}

/* ---- while traffic runs ---- */

struct traffic {
    struct plane *plane;
    atomic_bool stop;
    uint32_t sent;
};

/* Numbered packets of 500 flows; some too large to be broadcast. */
static void *send_traffic(void *arg)
{
    struct traffic *traffic = arg;
    static uint8_t frame[16384];
    while (!atomic_load(&traffic->stop) && traffic->sent + 16 <= PLANE_PACKETS) {
        for (unsigned i = 0; i < 16; i++, traffic->sent++) {
            size_t len = traffic->sent % 16 == 3 ? 5000 : 100;
            plane_frame(frame, len, (uint16_t)(traffic->sent % 500), traffic->sent);
            if (net_send(traffic->plane->sender, frame, len) != 0)
                return arg;
        }
        usleep(3000);
    }
    return NULL;
}

static void *read_lanes(void *arg)
{
    struct traffic *traffic = arg;
    while (!atomic_load(&traffic->stop))
        plane_receive(traffic->plane);
    return NULL;
}

/* The agent comes and goes, tenants and groups change, lanes come and go: what is there all the
 * time gets every packet once, and every group's sums are exact. */
static void nothing_is_lost_by_changes(void **state)
{
    (void)state;
    static struct plane plane;
    static const char *const names[] = { "g0", "g1", "g2" };
    const struct pk_broker_prefix prefix = { .family = 4, .length = 8, .address = { 99 } };
    const struct pk_broker_tenant other = { .name = "other",
                                            .prefixes = &prefix,
                                            .prefix_count = 1 };
    plane_up(&plane, 3, 2, 9000);
    plane_attach(&plane, NULL, 0, names, NULL, 1);
    struct traffic traffic = { .plane = &plane };
    pthread_t sender, reader;
    assert_int_equal(pthread_create(&reader, NULL, read_lanes, &traffic), 0);
    assert_int_equal(pthread_create(&sender, NULL, send_traffic, &traffic), 0);
    for (unsigned i = 0; i < 12; i++) {
        pk_broker_close(plane.broker);
        usleep(20000);
        plane_open(&plane);
        plane_attach(&plane, NULL, 0, names, NULL, 1 + i % 3); /* as it was, once in three */
        plane_lanes(&plane, 0, 1 + i % 2, PK_HASH_FLOW);
        plane_attach(&plane, &other, 1, names, NULL, 1 + (i + 1) % 3);
        plane_lanes(&plane, 0, 2, PK_HASH_FLOW);
        plane_attach(&plane, NULL, 0, names, NULL, 1 + (i + 1) % 3);
    }
    void *failed = NULL;
    atomic_store(&traffic.stop, true);
    assert_int_equal(pthread_join(sender, &failed), 0);
    assert_int_equal(pthread_join(reader, NULL), 0);
    assert_null(failed);
    plane_receive(&plane);
    print_message("# %u packets\n", traffic.sent);
    for (uint32_t i = 0; i < traffic.sent; i++) {
        assert_int_equal(plane_got(&plane, 0, i), 1);
        assert_true(plane_got(&plane, 1, i) <= 1 && plane_got(&plane, 2, i) <= 1);
    }
    plane_sums(&plane, 0, traffic.sent, UINT64_MAX);
    assert_int_equal(plane_count(&plane, 0, "sent"), traffic.sent);
    for (unsigned group = 1; group < 3; group++) {
        uint64_t got = 0;
        for (uint32_t i = 0; i < traffic.sent; i++)
            got += plane_got(&plane, group, i);
        plane_sums(&plane, group, got, UINT64_MAX);
    }
    assert_int_equal(net_count(plane.broker, "taps", "f/t", "packets"), traffic.sent);
    assert_int_equal(net_count(plane.broker, "taps", "f/t", "dropped"), 0);
    plane_down(&plane);
}

/* A lane that is made anew has another interface: the combinations of lanes follow. */
static void lanes_are_made_anew(void **state)
{
    (void)state;
    static struct plane plane;
    static const char *const names[] = { "g0", "g1" };
    struct pk_error err = { 0 };
    static uint8_t frame[4096];
    plane_up(&plane, 2, 2, 1500);
    plane_attach(&plane, NULL, 0, names, NULL, 2);
    for (uint32_t i = 0; i < 400; i++) {
        if (i == 200) {
            struct net_lane *lane = &plane.lane[1][0];
            plane_receive(&plane);
            close(plane.readers[1][0]);
            net_lane_drop(lane);
            net_lane_make(lane, "again", 1508);
            assert_int_equal(pk_broker_lane_add(plane.broker, "f/g1/0", lane->host_ifindex,
                                                lane->netns_fd, "tap0", &err),
                             0);
            plane.readers[1][0] = net_packet_socket(lane->netns_fd, "tap0");
        }
        plane_frame(frame, 100, (uint16_t)i, i);
        assert_int_equal(net_send(plane.sender, frame, 100), 0);
    }
    plane_receive(&plane);
    for (uint32_t i = 0; i < 400; i++)
        for (unsigned group = 0; group < 2; group++)
            assert_int_equal(plane_got(&plane, group, i), 1);
    plane_down(&plane);
}

/* What is put at the interface's ingress goes with the tap, and only that. */
static void the_ingress_is_left_as_it_was(void **state)
{
    (void)state;
    static struct plane plane;
    static const char *const names[] = { "g0", "g1" };
    struct pk_error err = { 0 };
    plane_up(&plane, 2, 1, 1500);
    for (unsigned round = 0; round < 3; round++) {
        if (round == 1) /* somebody's queueing discipline */
            assert_true(net_run("tc", "qdisc", "add", "dev", "tap", "clsact", NULL));
        plane_attach(&plane, NULL, 0, names, NULL, 2);
        assert_true(
            net_run("sh", "-c", "tc filter show dev tap ingress | grep -q pk_tap_copy", NULL));
        assert_true(pk_broker_tap_intact(plane.broker, "f/t", plane.tap));
        if (round == 1) { /* somebody's slip, seen and repaired */
            assert_true(net_run("tc", "qdisc", "del", "dev", "tap", "clsact", NULL));
            assert_false(pk_broker_tap_intact(plane.broker, "f/t", plane.tap));
            assert_true(net_run("tc", "qdisc", "add", "dev", "tap", "clsact", NULL));
            plane_attach(&plane, NULL, 0, names, NULL, 2);
            assert_true(pk_broker_tap_intact(plane.broker, "f/t", plane.tap));
        }
        if (round == 2) { /* another agent finds it */
            pk_broker_close(plane.broker);
            plane_open(&plane);
            plane_attach(&plane, NULL, 0, names, NULL, 2);
        }
        if (round == 2) { /* one that was killed when its filter was there, and no more */
            assert_true(net_run(
                "sh", "-c", "cd " NET_PIN_DIR " && for i in copy-*; do mv $i $i-next; done", NULL));
            pk_broker_close(plane.broker);
            plane_open(&plane);
            assert_true(pk_broker_tap_intact(plane.broker, "f/t", plane.tap));
            plane_attach(&plane, NULL, 0, names, NULL, 2);
        }
        bool is_removed = round == 2;
        if (is_removed)
            assert_int_equal(pk_broker_remove_pins(NET_PIN_DIR, &err), 0);
        else
            assert_int_equal(pk_broker_tap_detach(plane.broker, "f/t", &err), 0);
        assert_true(
            net_run("sh", "-c", "! tc filter show dev tap ingress | grep -q pk_tap_copy", NULL));
        assert_true(net_run("sh", "-c",
                            round == 0 ? "! tc qdisc show dev tap | grep -q clsact"
                                       : "tc qdisc show dev tap | grep -q clsact",
                            NULL));
    }
    plane_down(&plane);
}

static bool has_clsact(const char *interface)
{
    char command[80];
    snprintf(command, sizeof command, "tc qdisc show dev %s | grep -q clsact", interface);
    return net_run("sh", "-c", command, NULL);
}

/* An agent was killed when the queueing discipline was there, and no filter yet. */
static void a_kill_before_the_filter_leaves_nothing(void **state)
{
    (void)state;
    static struct plane plane;
    static const char *const names[] = { "g0", "g1" };
    struct pk_error err = { 0 };
    for (unsigned round = 0; round < 4; round++) {
        plane_up(&plane, 2, 1, 1500);
        plane_attach(&plane, NULL, 0, names, NULL, 2);
        pk_broker_close(plane.broker);
        assert_true(net_run("tc", "filter", "del", "dev", "tap", "ingress", NULL));
        assert_true(net_run("sh", "-c",
                            "cd " NET_PIN_DIR " && for i in copy-*-made; do mv $i $i-next; done",
                            NULL));
        bool is_used = round >= 2;
        if (is_used) /* somebody uses it by now */
            assert_true(net_run("sh", "-c",
                                "tc filter add dev tap egress bpf direct-action "
                                "object-pinned " NET_PIN_DIR "/copy-*",
                                NULL));
        plane_open(&plane);
        if (round % 2 == 0) { /* the next agent goes on */
            plane_attach(&plane, NULL, 0, names, NULL, 2);
            assert_true(pk_broker_tap_intact(plane.broker, "f/t", plane.tap));
            assert_int_equal(pk_broker_tap_detach(plane.broker, "f/t", &err), 0);
        } else { /* or there is none: 'picket down' */
            assert_int_equal(pk_broker_remove_pins(NET_PIN_DIR, &err), 0);
            pk_broker_close(plane.broker);
            plane_open(&plane);
        }
        assert_int_equal(has_clsact("tap"), is_used);
        plane_down(&plane);
    }
}

/* The tap moves: nothing of it stays behind, and where it cannot move it works on. */
static void a_tap_moves_with_its_copier(void **state)
{
    (void)state;
    static struct plane plane;
    static const char *const names[] = { "g0", "g1" };
    struct pk_error err = { 0 };
    uint8_t frame[1500];
    plane_up(&plane, 2, 1, 1500);
    unsigned first = plane.tap, second = net_veth("tap2", "wire2", 1500);
    plane_attach(&plane, NULL, 0, names, NULL, 2);
    plane.tap = second;
    plane_attach(&plane, NULL, 0, names, NULL, 2);
    assert_true(pk_broker_tap_intact(plane.broker, "f/t", second));
    assert_true(has_clsact("tap2") && !has_clsact("tap"));
    plane.tap = first;
    plane_attach(&plane, NULL, 0, names, NULL, 2);
    assert_true(has_clsact("tap") && !has_clsact("tap2"));

    const struct pk_broker_target targets[] = { { .group_key = "f/g0" }, { .group_key = "f/g1" } };
    const struct pk_broker_tap_config config = { .targets = targets, .target_count = 2 };
    enum pk_xdp_mode mode;
    assert_int_equal(pk_broker_tap_attach(plane.broker, "f/t", 0x7ffffff0, &config, &mode, &err),
                     PK_E_NOTFOUND);
    assert_false(has_clsact("tap2"));
    plane_attach(&plane, NULL, 0, names, NULL, 2);
    assert_true(pk_broker_tap_intact(plane.broker, "f/t", first));
    plane_frame(frame, 100, 7, 0);
    assert_int_equal(net_send(plane.sender, frame, 100), 0);
    plane_receive_all(&plane, 2);
    assert_true(net_run("ip", "link", "del", "tap2", NULL));
    plane_down(&plane);
}

/* ---- tenants' counters ---- */

/* A tenant's packets as the tap counts them; -1 = it has no such tenant. */
static int64_t tenant_count(struct plane *plane, const char *name)
{
    struct pk_error err = { 0 };
    json_t *counters = pk_broker_counters(plane->broker, &err), *row;
    int64_t packets = -1;
    size_t i;
    assert_non_null(counters);
    json_array_foreach(
        json_object_get(json_array_get(json_object_get(counters, "taps"), 0), "tenants"), i,
        row) if (strcmp(json_string_value(json_object_get(row, "name")), name) == 0) packets =
        json_integer_value(json_object_get(row, "packets"));
    json_decref(counters);
    return packets;
}

static void send_some(struct plane *plane, unsigned count)
{
    uint8_t frame[100];
    for (unsigned i = 0; i < count; i++) {
        plane_frame(frame, sizeof frame, 7, i);
        assert_int_equal(net_send(plane->sender, frame, sizeof frame), 0);
    }
    plane_receive_all(plane, count);
}

/* A change that fails leaves them as they were, one that works begins with nothing of others. */
static void counters_stay_with_their_tenant(void **state)
{
    (void)state;
    static struct plane plane;
    static const char *const groups[] = { "g0" };
    const struct pk_broker_prefix rest = { .family = 4, .length = 8, .address = { 99 } };
    const struct pk_broker_tenant a = { .name = "a" }, b = { .name = "b" },
                                  c = { .name = "c", .prefixes = &rest, .prefix_count = 1 };
    const struct pk_broker_tenant before[] = { c, a }, after[] = { b };
    const struct pk_broker_target target = { .group_key = "f/g0", .tenant = "b" };
    const struct pk_broker_tap_config config = {
        .tenants = after, .tenant_count = 1, .targets = &target, .target_count = 1
    };
    enum pk_xdp_mode mode;
    struct pk_error err = { 0 };
    unsigned sent = 20, failed = 0;
    plane_up(&plane, 1, 1, 1500);
    plane_attach(&plane, before, 2, groups, (const char *const[]){ "a" }, 1);
    send_some(&plane, 20);
    for (unsigned long nth = 1;; nth++) {
        pk_alloc_fail_nth(nth);
        int r = pk_broker_tap_attach(plane.broker, "f/t", plane.tap, &config, &mode, &err);
        bool reached = pk_alloc_count() >= nth;
        pk_alloc_fail_nth(0);
        if (!reached)
            break;
        bool runs = tenant_count(&plane, "b") >= 0;
        if (runs) { /* it could do without, or had only to forget the old ones */
            send_some(&plane, 3);
            assert_int_equal(tenant_count(&plane, "b"), 3);
            plane_attach(&plane, before, 2, groups, (const char *const[]){ "a" }, 1);
            sent = 0;
            continue;
        }
        assert_true(r < 0);
        if (failed++ % 4 == 0) {
            send_some(&plane, 3);
            sent += 3;
        }
        assert_int_equal(tenant_count(&plane, "a"), sent);
        assert_int_equal(tenant_count(&plane, "c"), 0);
    }
    assert_true(failed > 8);
    assert_int_equal(tenant_count(&plane, "a"), -1);
    assert_int_equal(tenant_count(&plane, "b"), 0);
    send_some(&plane, 5);
    assert_int_equal(tenant_count(&plane, "b"), 5);
    plane_attach(&plane, before, 2, groups, (const char *const[]){ "a" }, 1);
    assert_int_equal(tenant_count(&plane, "a"), 0);
    assert_int_equal(tenant_count(&plane, "b"), -1);
    plane_down(&plane);
}

/* More combinations of lanes than are kept: the kernel's way, to the same lanes. */
static void too_many_combinations(void **state)
{
    (void)state;
    static struct plane plane;
    static const char *const names[] = { "g0", "g1", "g2", "g3", "g4", "g5", "g6" };
    static uint8_t frame[4096];
    plane_up(&plane, 7, 4, 1500); /* 5 to the power of 7 */
    plane_attach(&plane, NULL, 0, names, NULL, 7);
    for (uint32_t i = 0; i < 300; i++) {
        plane_frame(frame, 100, (uint16_t)i, i);
        assert_int_equal(net_send(plane.sender, frame, 100), 0);
        if (i % 50 == 49)
            plane_receive_all(&plane, 350);
    }
    for (unsigned group = 0; group < 7; group++) {
        for (uint32_t i = 0; i < 300; i++)
            assert_int_equal(plane_got(&plane, group, i), 1);
        plane_sums(&plane, group, 300, UINT64_MAX);
        assert_int_equal(plane_count(&plane, group, "copied"), 300);
    }
    plane_down(&plane);
}

int main(void)
{
    if (!net_begin())
        return 0;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_size_reaches_every_group),
        cmocka_unit_test(tags_arrive_as_they_were),
        cmocka_unit_test(nothing_is_lost_by_changes),
        cmocka_unit_test(lanes_are_made_anew),
        cmocka_unit_test(the_ingress_is_left_as_it_was),
        cmocka_unit_test(a_kill_before_the_filter_leaves_nothing),
        cmocka_unit_test(a_tap_moves_with_its_copier),
        cmocka_unit_test(counters_stay_with_their_tenant),
        cmocka_unit_test(the_largest_are_counted_whole),
        cmocka_unit_test(too_many_combinations),
        cmocka_unit_test(tenants_stay_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
