/* SPDX-License-Identifier: Apache-2.0 */
/* The traffic plane in the kernel, with real packets. */
#include "pk_test.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <linux/if_link.h>
#include <net/if.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <jansson.h>

#include "broker/bpf/abi.h"
#include "encap.h"
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
    OK(pk_broker_group_set(plane->broker, "f/g", PK_HASH_OUTER, shares, count, &err));
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
    OK(pk_broker_tap_attach(plane->broker, "f/t", plane->tap, ONE_GROUP, &mode, &err));
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

/* The lane that user space finds. */
static unsigned decide(struct plane *plane, const uint8_t *frame, size_t len)
{
    struct pk_broker_decision decision;
    OK(pk_broker_decide(plane->broker, "f/t", frame, len, &decision, &err));
    assert_int_equal(decision.count, 1);
    assert_string_equal(decision.targets[0].group_key, "f/g");
    assert_true(decision.targets[0].lane >= 0);
    return (unsigned)decision.targets[0].lane;
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
        want[decide(&plane, frame, len)]++;
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

static unsigned send_flows(struct plane *plane, unsigned count, size_t len)
{
    static uint8_t frame[16384];
    for (unsigned i = 0; i < count; i++) {
        net_frame(frame, len, 6, 0x0a000000 + i % 250, 0x0a010000, (uint16_t)(20000 + i), 80);
        assert_int_equal(net_send(plane->sender, frame, len), 0);
    }
    return count;
}

static unsigned receive_all(struct plane *plane, size_t *ret_largest)
{
    unsigned got = 0;
    size_t largest = 0;
    for (unsigned i = 0; i < LANES; i++) {
        size_t one = 0;
        if (plane->lanes[i].host_ifindex != 0)
            got += net_receive(plane->readers[i], 100, &one);
        largest = PK_MAX(largest, one);
    }
    if (ret_largest != NULL)
        *ret_largest = largest;
    return got;
}

static uint64_t lanes_count(struct plane *plane, const char *name)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < LANES; i++)
        if (plane->lanes[i].host_ifindex != 0)
            sum += net_count(plane->broker, "lanes", lane_key(i), name);
    return sum;
}

/* Without its inner program a lane swallows all packets unseen (no NAPI): the loss is counted,
 * seen, and repaired by adding the lane again. */
static void a_broken_lane_is_seen_and_repaired(void **state)
{
    (void)state;
    struct plane plane;
    plane_up(&plane, 1, 1500);
    assert_true(pk_broker_lane_intact(plane.broker, "f/g/0"));
    assert_int_equal(unlink(NET_PIN_DIR "/lane-0-in"), 0);
    usleep(50000); /* the kernel lets a link go a little later */
    assert_false(pk_broker_lane_intact(plane.broker, "f/g/0"));
    send_flows(&plane, 100, 60);
    assert_int_equal(receive_all(&plane, NULL), 0);
    assert_int_equal(lanes_count(&plane, "ringDropped"), 100);
    OK(pk_broker_lane_add(plane.broker, "f/g/0", plane.lanes[0].host_ifindex,
                          plane.lanes[0].netns_fd, "tap0", &err));
    assert_true(pk_broker_lane_intact(plane.broker, "f/g/0"));
    send_flows(&plane, 100, 60);
    assert_int_equal(receive_all(&plane, NULL), 100);
    assert_int_equal(lanes_count(&plane, "ringDropped"), 100);
    /* The outer end goes, and with it the inner one: a new pair takes its place. */
    close(plane.readers[0]);
    net_lane_drop(&plane.lanes[0]);
    usleep(50000);
    assert_false(pk_broker_lane_intact(plane.broker, "f/g/0"));
    net_lane_make(&plane.lanes[0], "lane0", 1504);
    OK(pk_broker_lane_add(plane.broker, "f/g/0", plane.lanes[0].host_ifindex,
                          plane.lanes[0].netns_fd, "tap0", &err));
    plane.readers[0] = net_packet_socket(plane.lanes[0].netns_fd, "tap0");
    send_flows(&plane, 100, 60);
    assert_int_equal(receive_all(&plane, NULL), 100);
    plane_down(&plane);
}

/* Frames larger than a page, in several buffers, arrive whole. */
static void jumbo_frames(void **state)
{
    (void)state;
    struct plane plane;
    plane_up(&plane, 2, 9000);
    static const size_t sizes[] = { 3000, 3500, 3600, 4096, 5000, 8000, 9014 };
    for (size_t i = 0; i < PK_ARRAY_SIZE(sizes); i++) {
        size_t largest = 0;
        send_flows(&plane, 64, sizes[i]);
        assert_int_equal(receive_all(&plane, &largest), 64);
        assert_int_equal(largest, sizes[i]);
    }
    assert_int_equal(lanes_count(&plane, "ringDropped"), 0);
    plane_down(&plane);
}

/* A veth drops what is longer than its MTU and one VLAN tag: with room for two, full-size QinQ
 * frames get through; without, the loss is counted. Nothing of a frame is changed on the way. */
static void full_size_tags(void **state)
{
    (void)state;
    struct plane plane;
    plane_up(&plane, 1, 1508); /* the sender's end may not be the narrow one */
    uint8_t frame[1522], got[2048];
    net_frame(frame, sizeof frame, 17, 1, 2, 20000, 53);
    memmove(frame + 22, frame + 14, sizeof frame - 22);
    memcpy(frame + 12, "\x88\xa8\0\1\x81\0\0\2\x08\0", 10);
    frame[1521] = 0x5a;
    static const unsigned mtus[] = { 1504, 1500 };
    for (unsigned i = 0; i < 2; i++) {
        struct net_lane *lane = &plane.lanes[0];
        close(plane.readers[0]);
        net_lane_drop(lane);
        net_lane_make(lane, "lane0", mtus[i]);
        OK(pk_broker_lane_add(plane.broker, "f/g/0", lane->host_ifindex, lane->netns_fd, "tap0",
                              &err));
        plane.readers[0] = net_packet_socket(lane->netns_fd, "tap0");
        assert_int_equal(net_send(plane.sender, frame, sizeof frame), 0);
        if (mtus[i] == 1500) {
            assert_int_equal(net_receive(plane.readers[0], 100, NULL), 0);
            assert_int_equal(lanes_count(&plane, "ringDropped"), 1);
            continue;
        }
        usleep(100000);
        /* A packet socket gives the outer tag beside the data. */
        ssize_t len = recv(plane.readers[0], got, sizeof got, 0);
        assert_int_equal(len, sizeof frame - 4);
        assert_memory_equal(got, frame, 12);
        assert_memory_equal(got + 12, frame + 16, sizeof frame - 16);
        assert_int_equal(lanes_count(&plane, "ringDropped"), 0);
    }
    plane_down(&plane);
}

static uint16_t tcp_checksum(const uint8_t *ip, size_t len)
{
    uint32_t sum = 6 + (uint32_t)len - 20;
    for (size_t i = 12; i < len; i += 2)
        sum += (uint32_t)ip[i] << 8 | (i + 1 < len ? ip[i + 1] : 0);
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)~sum;
}

/* Segments in a row are not merged: tools see what was on the wire. */
static void no_merged_segments(void **state)
{
    (void)state;
    enum { SEGMENTS = 400, LEN = 1054 };
    struct plane plane;
    plane_up(&plane, 1, 1500);
    for (uint32_t i = 0; i < SEGMENTS; i++) {
        uint8_t frame[LEN];
        net_frame(frame, LEN, 6, 0x0a000001, 0x0a000002, 20000, 80);
        uint32_t seq = 1000 + i * (LEN - 54);
        for (unsigned k = 0; k < 4; k++)
            frame[38 + k] = (uint8_t)(seq >> (24 - 8 * k));
        frame[46] = 0x50;
        frame[47] = 0x10; /* ACK */
        frame[48] = 0xff;
        uint32_t sum = 0;
        for (unsigned k = 14; k < 34; k += 2)
            sum += (uint32_t)frame[k] << 8 | frame[k + 1];
        sum = ~((sum & 0xffff) + (sum >> 16)) & 0xffff;
        frame[24] = (uint8_t)(sum >> 8);
        frame[25] = (uint8_t)sum;
        uint16_t check = tcp_checksum(frame + 14, LEN - 14);
        frame[50] = (uint8_t)(check >> 8);
        frame[51] = (uint8_t)check;
        assert_int_equal(net_send(plane.sender, frame, LEN), 0);
    }
    size_t largest = 0;
    assert_int_equal(receive_all(&plane, &largest), SEGMENTS);
    assert_int_equal(largest, LEN);
    plane_down(&plane);
}

/* What a lane sends goes nowhere, and is counted. */
static void lanes_never_send(void **state)
{
    (void)state;
    struct plane plane;
    plane_up(&plane, 2, 1500);
    int host = net_packet_socket(-1, "lane0"), wire = net_packet_socket(-1, "wire");
    uint8_t frame[100];
    net_frame(frame, sizeof frame, 17, 1, 2, 3, 4);
    for (unsigned i = 0; i < 50; i++)
        assert_int_equal(net_send(plane.readers[0], frame, sizeof frame), 0);
    assert_int_equal(net_receive(host, 100, NULL), 0);
    assert_int_equal(net_receive(wire, 10, NULL), 0);
    assert_int_equal(net_receive(plane.readers[1], 10, NULL), 0);
    assert_int_equal(net_count(plane.broker, "lanes", "f/g/0", "blocked"), 50);
    assert_int_equal(net_count(plane.broker, "lanes", "f/g/1", "blocked"), 0);
    close(host);
    close(wire);
    plane_down(&plane);
}

/* An inner end's number is that of its own namespace: nothing else of that number gets a program.
 */
static void programs_sit_where_they_should(void **state)
{
    (void)state;
    struct plane plane;
    plane_up(&plane, 3, 1500);
    for (unsigned ifindex = 1; ifindex < 64; ifindex++) {
        char name[IF_NAMESIZE];
        if (if_indextoname(ifindex, name) == NULL)
            continue;
        bool ours = strcmp(name, "tap") == 0 || strncmp(name, "lane", 4) == 0;
        uint32_t id = 0;
        bpf_xdp_query_id((int)ifindex, 0, &id);
        if (ours != (id != 0))
            fail_msg("%s: program %u", name, id);
    }
    plane_down(&plane);
}

static void unread_lanes(void **state)
{
    (void)state;
    struct plane plane;
    plane_up(&plane, 2, 1500);
    OK(pk_broker_lane_set_reader(plane.broker, "f/g/1", false, &err));
    send_flows(&plane, 1000, 100);
    uint64_t first = net_receive(plane.readers[0], 100, NULL);
    assert_int_equal(net_receive(plane.readers[1], 10, NULL), 0);
    assert_int_equal(net_count(plane.broker, "lanes", "f/g/0", "unread"), 0);
    assert_int_equal(net_count(plane.broker, "lanes", "f/g/1", "unread"), 1000 - first);
    assert_int_equal(net_count(plane.broker, "lanes", "f/g/1", "packets"), 1000 - first);
    assert_true(first > 100 && first < 900);
    assert_int_equal(pk_broker_lane_set_reader(plane.broker, "f/g/9", true, &err), PK_E_NOTFOUND);
    plane_down(&plane);
}

static void what_has_no_flow_goes_to_the_first_lane(void **state)
{
    (void)state;
    struct plane plane;
    plane_up(&plane, 4, 1500);
    uint8_t arp[60] = { 2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x08, 0x06 };
    uint8_t macsec[60] = { 2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x88, 0xe5 };
    for (unsigned i = 0; i < 10; i++) {
        assert_int_equal(net_send(plane.sender, arp, sizeof arp), 0);
        assert_int_equal(net_send(plane.sender, macsec, sizeof macsec), 0);
    }
    assert_int_equal(net_receive(plane.readers[0], 100, NULL), 20);
    assert_int_equal(net_count(plane.broker, "taps", "f/t", "non-ip"), 10);
    assert_int_equal(net_count(plane.broker, "taps", "f/t", "encapsulated"), 10);
    /* Lane 0 is emptied: the lowest of the others takes them. */
    const struct pk_broker_share shares[] = { { 0, 0 }, { 2, 1 }, { 1, 1 } };
    OK(pk_broker_group_set(plane.broker, "f/g", PK_HASH_OUTER, shares, 3, &err));
    assert_int_equal(net_send(plane.sender, arp, sizeof arp), 0);
    assert_int_equal(net_receive(plane.readers[1], 100, NULL), 1);
    assert_int_equal(net_count(plane.broker, "lanes", "f/g/0", "slots"), 0);
    plane_down(&plane);
}

/* One tunnel's inner flows: in one lane by default, spread and each whole by flow, together per
 * pair of machines by addresses. The way is changed under traffic, and a new agent finds it. */
static void hash_modes(void **state)
{
    (void)state;
    enum { HOSTS = 40, PORTS = 10 };
    static const enum pk_hash_mode modes[] = { PK_HASH_OUTER, PK_HASH_FLOW, PK_HASH_ADDRESSES };
    struct plane plane;
    plane_up(&plane, 4, 1500);
    const struct pk_broker_share shares[] = { { 0, 1 }, { 1, 1 }, { 2, 1 }, { 3, 1 } };
    for (size_t m = 0; m < PK_ARRAY_SIZE(modes); m++) {
        OK(pk_broker_group_set(plane.broker, "f/g", modes[m], shares, 4, &err));
        pk_broker_close(plane.broker);
        plane.broker = open_broker();
        enum pk_xdp_mode mode;
        OK(pk_broker_tap_attach(plane.broker, "f/t", plane.tap, ONE_GROUP, &mode, &err));
        struct frames_rng rng = { 9 };
        unsigned spread = 0, lanes_used = 0, sent[4] = { 0 };
        struct encap_outer outer = { 0 };
        frames_flow_random(&rng, false, &outer.ends);
        for (unsigned host = 0; host < HOSTS; host++) {
            struct frames_flow flow;
            unsigned lanes_of_host = 0;
            frames_flow_random(&rng, false, &flow);
            for (unsigned port = 0; port < PORTS; port++) {
                unsigned lane = 0, lane_before = 0;
                flow.sport = (uint16_t)(20000 + port);
                for (unsigned reverse = 0; reverse < 2; reverse++) {
                    uint8_t bare[FRAMES_ROOM], frame[ENCAP_ROOM];
                    size_t len = frames_make(&rng, &flow, FRAMES_PLAIN, reverse, 0, bare);
                    len = encap_wrap(&rng, ENCAP_VXLAN, &outer, bare, len, frame);
                    lane = decide(&plane, frame, len);
                    assert_true(reverse == 0 || lane == lane_before);
                    lane_before = lane;
                    assert_int_equal(net_send(plane.sender, frame, len), 0);
                    sent[lane]++;
                }
                lanes_of_host |= 1u << lane;
            }
            lanes_used |= lanes_of_host;
            spread += __builtin_popcount(lanes_of_host) > 1;
            for (unsigned i = 0; i < 4 && host % 8 == 7; i++) { /* before a ring is full */
                assert_int_equal(net_receive(plane.readers[i], 20, NULL), sent[i]);
                sent[i] = 0;
            }
        }
        assert_int_equal(__builtin_popcount(lanes_used), modes[m] == PK_HASH_OUTER ? 1 : 4);
        assert_int_equal(spread > 0, modes[m] == PK_HASH_FLOW);
    }
    plane_down(&plane);
}

/* A lane that goes takes no other's packets with it, and its number is not in any table. */
static void lanes_go(void **state)
{
    (void)state;
    struct plane plane;
    plane_up(&plane, 3, 1500);
    assert_int_equal(pk_broker_group_remove(plane.broker, "f/g", &err), PK_E_CONFLICT);
    OK(pk_broker_lane_remove(plane.broker, "f/g/1", &err));
    OK(pk_broker_lane_remove(plane.broker, "f/g/1", &err));
    assert_false(pk_broker_lane_intact(plane.broker, "f/g/1"));
    send_flows(&plane, 900, 60);
    unsigned got = receive_all(&plane, NULL);
    uint64_t dropped = net_count(plane.broker, "taps", "f/t", "dropped");
    assert_true(dropped > 200 && dropped < 400);
    assert_int_equal(got + dropped, 900);
    assert_int_equal(net_count(plane.broker, "taps", "f/t", "no-lane"), dropped);
    const struct pk_broker_share shares[] = { { 0, 1 }, { 2, 1 } };
    OK(pk_broker_group_set(plane.broker, "f/g", PK_HASH_OUTER, shares, 2, &err));
    send_flows(&plane, 900, 60);
    assert_int_equal(receive_all(&plane, NULL), 900);
    const struct pk_broker_share missing[] = { { 0, 1 }, { 1, 1 } };
    assert_int_equal(pk_broker_group_set(plane.broker, "f/g", PK_HASH_OUTER, missing, 2, &err),
                     PK_E_NOTFOUND);
    const struct pk_broker_share twice[] = { { 0, 1 }, { 0, 1 } };
    assert_int_equal(pk_broker_group_set(plane.broker, "f/g", PK_HASH_OUTER, twice, 2, &err),
                     PK_E_USAGE);
    OK(pk_broker_tap_detach(plane.broker, "f/t", &err));
    assert_false(pk_broker_tap_intact(plane.broker, "f/t", plane.tap));
    OK(pk_broker_group_remove(plane.broker, "f/g", &err));
    plane_down(&plane);
}

/* The slots move to other lanes and back while packets flow: each packet goes to one of them. */
static void tables_swap_under_traffic(void **state)
{
    (void)state;
    struct plane plane;
    plane_up(&plane, 4, 1500);
    unsigned sent = 0, got = 0;
    for (unsigned round = 0; round < 60; round++) {
        sent += send_flows(&plane, 50, 60);
        set_lanes(&plane, 1 + round % 4);
        sent += send_flows(&plane, 50, 60);
        if (round % 20 == 19)
            got += receive_all(&plane, NULL);
    }
    assert_int_equal(got, sent);
    assert_int_equal(net_count(plane.broker, "taps", "f/t", "redirected"), sent);
    plane_down(&plane);
}

/* A process that holds the broker is killed while packets flow, again and again: none is lost, and
 * the next one finds everything in place. */
static void killed_holders(void **state)
{
    (void)state;
    struct plane plane;
    plane_up(&plane, 2, 1500);
    unsigned sent = 0, got = 0;
    for (unsigned round = 0; round < 10; round++) {
        pk_broker_close(plane.broker);
        int ready[2];
        assert_int_equal(pipe(ready), 0);
        pid_t child = fork();
        if (child == 0) {
            struct pk_broker *broker = NULL;
            if (pk_broker_open(&(struct pk_broker_options){ .pin_dir = NET_PIN_DIR }, &broker,
                               NULL) < 0 ||
                write(ready[1], "x", 1) != 1)
                _exit(1);
            /* Busy with all that an agent does when the signal comes. */
            for (unsigned n = 0;; n++) {
                const struct pk_broker_share shares[] = { { 0, 1 }, { 1, 1 + n % 2 } };
                json_decref(pk_broker_counters(broker, NULL));
                pk_broker_group_set(broker, "f/g", PK_HASH_OUTER, shares, 2, NULL);
                pk_broker_lane_add(broker, "f/g/0", plane.lanes[0].host_ifindex,
                                   plane.lanes[0].netns_fd, "tap0", NULL);
            }
        }
        char byte;
        close(ready[1]);
        assert_int_equal(read(ready[0], &byte, 1), 1);
        close(ready[0]);
        sent += send_flows(&plane, 500, 60);
        kill(child, SIGKILL);
        sent += send_flows(&plane, 500, 60);
        waitpid(child, NULL, 0);
        sent += send_flows(&plane, 500, 60);
        plane.broker = open_broker();
        sent += send_flows(&plane, 500, 60);
        assert_true(pk_broker_tap_intact(plane.broker, "f/t", plane.tap));
        assert_true(pk_broker_lane_intact(plane.broker, "f/g/0"));
        assert_true(pk_broker_lane_intact(plane.broker, "f/g/1"));
        got += receive_all(&plane, NULL);
        assert_int_equal(got, sent);
        assert_int_equal(net_count(plane.broker, "taps", "f/t", "packets"), sent);
        assert_int_equal(lanes_count(&plane, "packets"), sent);
    }
    plane_down(&plane);
}

static int open_pinned(const char *name)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", NET_PIN_DIR, name);
    int fd = bpf_obj_get(path);
    assert_true(fd >= 0);
    return fd;
}

static uint32_t program_on(unsigned ifindex)
{
    uint32_t id = 0;
    assert_int_equal(bpf_xdp_query_id((int)ifindex, 0, &id), 0);
    return id;
}

/* Programs of another build are replaced in place. */
static void another_build_is_renewed(void **state)
{
    (void)state;
    struct plane plane;
    plane_up(&plane, 2, 1500);
    uint32_t tap_before = program_on(plane.tap),
             guard_before = program_on(plane.lanes[1].host_ifindex), zero = 0;
    pk_broker_close(plane.broker);
    struct pk_tap_record tap;
    struct pk_lane_record lane;
    int fd = open_pinned("pk_taps");
    assert_int_equal(bpf_map_lookup_elem(fd, &zero, &tap), 0);
    tap.build ^= 1;
    assert_int_equal(bpf_map_update_elem(fd, &zero, &tap, 0), 0);
    close(fd);
    fd = open_pinned("pk_lanes");
    for (uint32_t i = 0; i < 2; i++) {
        assert_int_equal(bpf_map_lookup_elem(fd, &i, &lane), 0);
        lane.build ^= 1;
        assert_int_equal(bpf_map_update_elem(fd, &i, &lane, 0), 0);
    }
    close(fd);
    send_flows(&plane, 100, 60);
    plane.broker = open_broker();
    send_flows(&plane, 100, 60);
    enum pk_xdp_mode mode;
    OK(pk_broker_tap_attach(plane.broker, "f/t", plane.tap, ONE_GROUP, &mode, &err));
    send_flows(&plane, 100, 60);
    assert_int_equal(receive_all(&plane, NULL), 300);
    assert_int_equal(net_count(plane.broker, "taps", "f/t", "packets"), 300);
    assert_int_not_equal(program_on(plane.tap), tap_before);
    assert_int_not_equal(program_on(plane.lanes[1].host_ifindex), guard_before);
    plane_down(&plane);
}

/* State of another layout is cleared away, and all can be made again. */
static void another_layout_starts_anew(void **state)
{
    (void)state;
    struct plane plane;
    plane_up(&plane, 2, 1500);
    for (unsigned how = 0; how < 2; how++) {
        pk_broker_close(plane.broker);
        if (how == 0) {
            uint32_t zero = 0;
            struct pk_meta meta;
            int fd = open_pinned("pk_meta");
            assert_int_equal(bpf_map_lookup_elem(fd, &zero, &meta), 0);
            meta.abi++;
            assert_int_equal(bpf_map_update_elem(fd, &zero, &meta, 0), 0);
            close(fd);
        } else {
            assert_int_equal(unlink(NET_PIN_DIR "/pk_lanes"), 0); /* killed while beginning */
        }
        plane.broker = open_broker();
        usleep(50000);
        assert_false(pk_broker_tap_intact(plane.broker, "f/t", plane.tap));
        assert_int_equal(program_on(plane.tap), 0);
        for (unsigned i = 0; i < 2; i++)
            OK(pk_broker_lane_add(plane.broker, lane_key(i), plane.lanes[i].host_ifindex,
                                  plane.lanes[i].netns_fd, "tap0", &err));
        OK(pk_broker_lane_set_reader(plane.broker, "f/g/0", true, &err));
        OK(pk_broker_lane_set_reader(plane.broker, "f/g/1", true, &err));
        set_lanes(&plane, 2);
        enum pk_xdp_mode mode;
        OK(pk_broker_tap_attach(plane.broker, "f/t", plane.tap, ONE_GROUP, &mode, &err));
        send_flows(&plane, 100, 60);
        assert_int_equal(receive_all(&plane, NULL), 100);
    }
    plane_down(&plane);
}

/* An interface that is let go can be taken at once, and a failed attach leaves nothing. */
static void taps_change_hands(void **state)
{
    (void)state;
    struct plane plane;
    plane_up(&plane, 2, 1500);
    enum pk_xdp_mode mode;
    for (unsigned i = 0; i < 20; i++) {
        const char *from = i % 2 ? "f/u" : "f/t", *to = i % 2 ? "f/t" : "f/u";
        assert_int_equal(pk_broker_tap_attach(plane.broker, to, plane.tap, ONE_GROUP, &mode, &err),
                         PK_E_CONFLICT);
        assert_int_equal(net_count(plane.broker, "taps", to, "packets"), UINT64_MAX);
        OK(pk_broker_tap_detach(plane.broker, from, &err));
        OK(pk_broker_tap_attach(plane.broker, to, plane.tap, ONE_GROUP, &mode, &err));
        send_flows(&plane, 10, 60);
        assert_int_equal(receive_all(&plane, NULL), 10);
        assert_int_equal(net_count(plane.broker, "taps", to, "packets"), 10);
    }
    plane_down(&plane);
}

/* Someone else's program is reported and left alone. */
static void foreign_programs(void **state)
{
    (void)state;
    struct pk_broker *broker = open_broker();
    OK(pk_broker_group_set(broker, "f/g", PK_HASH_OUTER, NULL, 0, &err));
    unsigned ifindex = net_veth("tap", "wire", 1500);
    struct bpf_insn pass[] = { { .code = 0xb7, .imm = 2 }, { .code = 0x95 } }; /* r0 = PASS; exit */
    int fd = bpf_prog_load(BPF_PROG_TYPE_XDP, "foreign", "GPL", pass, 2, NULL);
    assert_true(fd >= 0);
    static const uint32_t modes[] = { XDP_FLAGS_DRV_MODE, XDP_FLAGS_SKB_MODE };
    for (size_t i = 0; i < PK_ARRAY_SIZE(modes); i++) {
        assert_int_equal(bpf_xdp_attach((int)ifindex, fd, modes[i], NULL), 0);
        uint32_t before = program_on(ifindex);
        enum pk_xdp_mode mode = PK_XDP_NONE;
        assert_int_equal(pk_broker_tap_attach(broker, "f/t", ifindex, ONE_GROUP, &mode, &err),
                         PK_E_CONFLICT);
        assert_non_null(strstr(err.msg, "foreign"));
        assert_true(err.hint[0] != '\0');
        assert_int_equal(mode, PK_XDP_NONE);
        assert_int_equal(program_on(ifindex), before);
        assert_int_equal(bpf_xdp_detach((int)ifindex, modes[i], NULL), 0);
    }
    close(fd);
    OK(pk_broker_remove_all(broker, &err));
    assert_int_equal(pk_broker_group_set(broker, "f/g", PK_HASH_OUTER, NULL, 0, &err), PK_E_USAGE);
    pk_broker_close(broker);
    assert_true(net_run("ip", "link", "del", "tap", NULL));
}

/* A driver without XDP: the generic way, with the same result. */
static void generic_mode(void **state)
{
    (void)state;
    struct plane plane;
    plane_up(&plane, 2, 1500);
    enum pk_xdp_mode mode = PK_XDP_NONE;
    OK(pk_broker_tap_attach(plane.broker, "f/lo", if_nametoindex("lo"), ONE_GROUP, &mode, &err));
    assert_int_equal(mode, PK_XDP_GENERIC);
    close(plane.sender);
    plane.sender = net_packet_socket(-1, "lo");
    send_flows(&plane, 200, 100);
    assert_int_equal(receive_all(&plane, NULL), 200);
    assert_int_equal(net_count(plane.broker, "taps", "f/lo", "redirected"), 200);
    OK(pk_broker_tap_detach(plane.broker, "f/lo", &err));
    plane_down(&plane);
}

static void errors_say_what_to_do(void **state)
{
    (void)state;
    struct pk_broker *broker = NULL;
    assert_int_equal(
        pk_broker_open(&(struct pk_broker_options){ .pin_dir = "/tmp" }, &broker, &err),
        PK_E_UNSUPPORTED);
    assert_non_null(strstr(err.hint, "mount"));
    broker = open_broker();
    enum pk_xdp_mode mode;
    assert_int_equal(pk_broker_tap_attach(broker, "f/t", 9999, ONE_GROUP, &mode, &err),
                     PK_E_NOTFOUND);
    OK(pk_broker_group_set(broker, "f/g", PK_HASH_OUTER, NULL, 0, &err));
    assert_int_equal(pk_broker_tap_attach(broker, "f/t", 9999, ONE_GROUP, &mode, &err),
                     PK_E_NOTFOUND);
    assert_non_null(strstr(err.msg, "gone"));
    assert_true(err.hint[0] != '\0');
    int here = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    assert_int_equal(pk_broker_lane_add(broker, "f/g/0", 1, here, "nowhere", &err), PK_E_NOTFOUND);
    assert_non_null(strstr(err.msg, "nowhere"));
    assert_int_equal(pk_broker_lane_add(broker, "f/g/x", 1, here, "lo", &err), PK_E_USAGE);
    close(here);
    char long_key[300];
    memset(long_key, 'k', sizeof long_key - 1);
    long_key[sizeof long_key - 1] = '\0';
    assert_int_equal(pk_broker_group_set(broker, long_key, PK_HASH_OUTER, NULL, 0, &err),
                     PK_E_USAGE);
    for (unsigned i = 0; i < PK_BROKER_GROUPS_MAX; i++) {
        char key[32];
        snprintf(key, sizeof key, "f/g%u", i);
        int r = pk_broker_group_set(broker, key, PK_HASH_OUTER, NULL, 0, &err);
        assert_int_equal(r, i < PK_BROKER_GROUPS_MAX - 1 ? 0 : PK_E_NOSPACE);
    }
    OK(pk_broker_remove_all(broker, &err));
    pk_broker_close(broker);

    pid_t child = fork();
    if (child == 0) {
        struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
        struct __user_cap_data_struct none[2] = { 0 };
        syscall(SYS_capset, &head, none);
        int r =
            pk_broker_open(&(struct pk_broker_options){ .pin_dir = NET_PIN_DIR }, &broker, &err);
        _exit(r == PK_E_DENIED && strstr(err.hint, "CAP_BPF") != NULL ? 0 : 1);
    }
    int status = 1;
    waitpid(child, &status, 0);
    assert_int_equal(status, 0);
}

int main(void)
{
    if (!net_begin())
        return 0;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(delivers_and_counts),
        cmocka_unit_test(a_broken_lane_is_seen_and_repaired),
        cmocka_unit_test(jumbo_frames),
        cmocka_unit_test(full_size_tags),
        cmocka_unit_test(no_merged_segments),
        cmocka_unit_test(lanes_never_send),
        cmocka_unit_test(programs_sit_where_they_should),
        cmocka_unit_test(unread_lanes),
        cmocka_unit_test(what_has_no_flow_goes_to_the_first_lane),
        cmocka_unit_test(hash_modes),
        cmocka_unit_test(lanes_go),
        cmocka_unit_test(tables_swap_under_traffic),
        cmocka_unit_test(killed_holders),
        cmocka_unit_test(another_build_is_renewed),
        cmocka_unit_test(another_layout_starts_anew),
        cmocka_unit_test(taps_change_hands),
        cmocka_unit_test(foreign_programs),
        cmocka_unit_test(generic_mode),
        cmocka_unit_test(errors_say_what_to_do),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
