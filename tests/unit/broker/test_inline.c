/* SPDX-License-Identifier: Apache-2.0 */
/* Inline taps in the kernel: two wires, lanes of two ends, and a tool that copies between them. */
#include "pk_test.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_link.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <jansson.h>

#include "base/fs.h"
#include "broker/bpf/abi.h"
#include "broker/inline.h"
#include "broker/internal.h"
#include "net.h"

static struct pk_error err;

#define OK(call)                                               \
    do {                                                       \
        int ok_ = (call);                                      \
        if (ok_ < 0)                                           \
            fail_msg("%s: %s (%s)", #call, err.msg, err.hint); \
    } while (0)

#define FAIL_AFTER 100000000u  /* 100 ms */
#define PATIENCE   2000000000u /* where nothing is to fail, on a slow machine either */

/* ---- the tool: copies between its ends as Suricata does ---- */

enum how { COPY, DROP, STOP };
struct tool {
    struct net_lane lane;
    char host_b[16];
    unsigned host_b_ifindex;
    int fd[PK_SIDES];
    pthread_t thread;
    atomic_int how;
    atomic_bool ending;
    bool plain_tags; /* puts a tag that the kernel took out back as 0x8100, whatever it was */
};

/* Receives with the tag that the kernel took out put back in. */
static ssize_t receive_tagged(int fd, uint8_t *data, size_t room, bool plain)
{
    uint8_t extra[CMSG_SPACE(sizeof(struct tpacket_auxdata))];
    struct iovec part = { data + 4, room - 4 };
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = extra, .msg_controllen = sizeof extra
    };
    ssize_t len = recvmsg(fd, &message, MSG_DONTWAIT);
    if (len < 0)
        return len;
    struct tpacket_auxdata aux = { 0 };
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&message); c != NULL; c = CMSG_NXTHDR(&message, c))
        if (c->cmsg_level == SOL_PACKET && c->cmsg_type == PACKET_AUXDATA)
            memcpy(&aux, CMSG_DATA(c), sizeof aux);
    /* As Suricata: a tag of all zeros is taken for none. */
    if ((aux.tp_status & TP_STATUS_VLAN_VALID) == 0 || aux.tp_vlan_tci == 0) {
        memmove(data, data + 4, (size_t)len);
        return len;
    }
    memmove(data, data + 4, 12);
    uint16_t tag[] = { htons(plain ? 0x8100 : aux.tp_vlan_tpid), htons(aux.tp_vlan_tci) };
    memcpy(data + 12, tag, sizeof tag);
    return len + 4;
}

static void *copy(void *arg)
{
    struct tool *tool = arg;
    static _Thread_local uint8_t data[1 << 16];
    while (!tool->ending) {
        struct pollfd fds[] = { { tool->fd[0], POLLIN, 0 }, { tool->fd[1], POLLIN, 0 } };
        if (tool->how == STOP) {
            usleep(1000);
            continue;
        }
        (void)poll(fds, 2, 20);
        for (unsigned side = 0; side < PK_SIDES && tool->how != STOP; side++) {
            ssize_t len = receive_tagged(tool->fd[side], data, sizeof data, tool->plain_tags);
            if (len <= 0)
                continue;
            bool probe = data[12] == 0x88 && data[13] == 0xb5;
            if (tool->how == COPY || probe)
                assert_int_equal(net_send(tool->fd[!side], data, (size_t)len), 0);
        }
    }
    return NULL;
}

static void open_ends(struct tool *tool)
{
    static const char *const names[] = { "tap0", "tap1" };
    int on = 1;
    for (unsigned side = 0; side < PK_SIDES; side++) {
        tool->fd[side] = net_packet_socket(tool->lane.netns_fd, names[side]);
        setsockopt(tool->fd[side], SOL_PACKET, PACKET_AUXDATA, &on, sizeof on);
    }
    tool->ending = false;
    assert_int_equal(pthread_create(&tool->thread, NULL, copy, tool), 0);
}

static void close_ends(struct tool *tool)
{
    tool->ending = true;
    pthread_join(tool->thread, NULL);
    close(tool->fd[0]);
    close(tool->fd[1]);
}

/* ---- the plane ---- */

#define LANES 2
struct plane {
    struct pk_broker *broker;
    struct tool tools[LANES];
    unsigned lanes;
    unsigned wire[PK_SIDES];
    int end[PK_SIDES]; /* what stands on the far ends of the wires */
    struct pk_broker_inline_config config;
};

static void end_up(void *arg)
{
    (void)arg;
    net_quiet("tap1");
    assert_true(net_run("ip", "link", "set", "tap1", "arp", "off", "up", NULL));
}

static const char *lane_key(unsigned i)
{
    static char key[32];
    snprintf(key, sizeof key, "f/g/%u", i);
    return key;
}

static void add_lane(struct plane *plane, unsigned i)
{
    const struct tool *tool = &plane->tools[i];
    const struct pk_broker_inline_lane lane = {
        .netns_fd = tool->lane.netns_fd,
        .outer = { tool->lane.host_ifindex, tool->host_b_ifindex },
        .inner = { "tap0", "tap1" },
    };
    OK(pk_broker_inline_lane_add(plane->broker, lane_key(i), &lane, &err));
}

static void make_lane(struct plane *plane, unsigned i, unsigned mtu)
{
    struct tool *tool = &plane->tools[i];
    char name[16], text[16], path[64];
    snprintf(name, sizeof name, "lane%u", i);
    net_lane_make(&tool->lane, name, mtu + 8);
    snprintf(tool->host_b, sizeof tool->host_b, "lane%ub", i);
    snprintf(text, sizeof text, "%u", mtu + 8);
    snprintf(path, sizeof path, "/proc/%d/fd/%d", getpid(), tool->lane.netns_fd);
    assert_true(net_run("ip", "link", "add", tool->host_b, "mtu", text, "type", "veth", "peer",
                        "name", "tap1", "mtu", text, "netns", path, NULL));
    net_quiet(tool->host_b);
    assert_true(net_run("ip", "link", "set", tool->host_b, "arp", "off", "up", NULL));
    net_in(tool->lane.netns_fd, end_up, NULL);
    tool->host_b_ifindex = if_nametoindex(tool->host_b);
    add_lane(plane, i);
    tool->how = COPY;
    open_ends(tool);
    OK(pk_broker_lane_set_reader(plane->broker, lane_key(i), true, &err));
}

/* A veth takes redirected frames only with NAPI on at its far end, which any program does. */
static void take_redirects(const char *interface)
{
    struct bpf_insn pass[] = { { .code = 0xb7, .imm = 2 }, { .code = 0x95 } }; /* r0 = PASS; exit */
    LIBBPF_OPTS(bpf_prog_load_opts, opts, .prog_flags = BPF_F_XDP_HAS_FRAGS);
    PK_CLEANUP(pk_close_p) int fd = bpf_prog_load(BPF_PROG_TYPE_XDP, "far", "GPL", pass, 2, &opts);
    assert_true(fd >= 0);
    assert_int_equal(bpf_xdp_attach((int)if_nametoindex(interface), fd, XDP_FLAGS_DRV_MODE, NULL),
                     0);
}

static void set_lanes(struct plane *plane)
{
    struct pk_broker_share shares[LANES];
    for (unsigned i = 0; i < plane->lanes; i++)
        shares[i] = (struct pk_broker_share){ .lane = i, .weight = 1 };
    OK(pk_broker_group_set(plane->broker, "f/g", PK_HASH_OUTER, shares, plane->lanes, &err));
}

static void plane_up(struct plane *plane, unsigned lanes, unsigned mtu)
{
    *plane = (struct plane){ .lanes = lanes };
    OK(pk_broker_open(&(struct pk_broker_options){ .pin_dir = NET_PIN_DIR }, &plane->broker, &err));
    plane->wire[0] = net_veth("wa", "fa", mtu);
    plane->wire[1] = net_veth("wb", "fb", mtu);
    take_redirects("fa");
    take_redirects("fb");
    for (unsigned i = 0; i < lanes; i++)
        make_lane(plane, i, mtu);
    set_lanes(plane);
    plane->config = (struct pk_broker_inline_config){ .ifindex = { plane->wire[0], plane->wire[1] },
                                                      .group_key = "f/g",
                                                      .fail_after = PATIENCE };
    OK(pk_broker_inline_attach(plane->broker, "f/t", &plane->config, &err));
    plane->end[0] = net_packet_socket(-1, "fa");
    plane->end[1] = net_packet_socket(-1, "fb");
    int on = 1;
    for (unsigned side = 0; side < PK_SIDES; side++)
        setsockopt(plane->end[side], SOL_PACKET, PACKET_AUXDATA, &on, sizeof on);
}

static void plane_down(struct plane *plane)
{
    OK(pk_broker_remove_all(plane->broker, &err));
    pk_broker_close(plane->broker);
    for (unsigned i = 0; i < plane->lanes; i++) {
        close_ends(&plane->tools[i]);
        if (if_nametoindex(plane->tools[i].host_b) != 0)
            assert_true(net_run("ip", "link", "del", plane->tools[i].host_b, NULL));
        net_lane_drop(&plane->tools[i].lane);
    }
    close(plane->end[0]);
    close(plane->end[1]);
    assert_true(net_run("ip", "link", "del", "wa", NULL));
    assert_true(net_run("ip", "link", "del", "wb", NULL));
}

/* A number of a list's entry, by direction. */
static int64_t count(struct plane *plane, const char *list, const char *key, unsigned side,
                     const char *name)
{
    json_t *all = pk_broker_counters(plane->broker, &err), *item;
    assert_non_null(all);
    int64_t value = -1;
    size_t i;
    json_array_foreach(json_object_get(all, list), i, item)
    {
        if (strcmp(json_string_value(json_object_get(item, "key")), key) != 0)
            continue;
        const json_t *number =
            json_object_get(json_array_get(json_object_get(item, "directions"), side), name);
        assert_true(json_is_integer(number));
        value = json_integer_value(number);
    }
    json_decref(all);
    return value;
}
#define TAP(side, name)        count(&plane, "inline", "f/t", (side), (name))
#define LANE(lane, side, name) count(&plane, "inlineLanes", lane_key(lane), (side), (name))

static void send_flows(struct plane *plane, unsigned side, unsigned packets)
{
    for (unsigned i = 0; i < packets; i++) {
        uint8_t frame[128];
        uint32_t a = 0x0a000000 + i % 50, b = 0x0a010000;
        uint16_t port = (uint16_t)(20000 + i);
        size_t len = net_frame(frame, 60 + i % 60, 17, side ? b : a, side ? a : b, side ? 80 : port,
                               side ? port : 80);
        assert_int_equal(net_send(plane->end[side], frame, len), 0);
        if (i % 32 == 31) /* a veth's ring has room for 256, and takes no more on a slow machine */
            usleep(5000);
    }
}

static void fail_soon(struct plane *plane)
{
    plane->config.fail_after = FAIL_AFTER;
    OK(pk_broker_inline_attach(plane->broker, "f/t", &plane->config, &err));
}

/* ---- tests ---- */

/* Both directions of a flow go through one lane and come out on the other wire; all counters agree.
 */
static void goes_through(void **state)
{
    (void)state;
    struct plane plane;
    plane_up(&plane, 2, 1500);
    for (unsigned side = 0; side < PK_SIDES; side++) {
        send_flows(&plane, side, 1000);
        assert_int_equal(net_receive(plane.end[!side], 300, NULL), 1000);
        assert_int_equal(net_receive(plane.end[side], 10, NULL), 0); /* nothing comes back */
        assert_int_equal(TAP(side, "packets"), 1000);
        assert_int_equal(TAP(side, "sent"), 1000);
        assert_int_equal(TAP(side, "bypassed"), 0);
        assert_int_equal(TAP(side, "blocked"), 0);
        int64_t lanes[LANES];
        for (unsigned i = 0; i < LANES; i++) {
            lanes[i] = LANE(i, side, "sent");
            assert_true(lanes[i] > 300);
            assert_int_equal(LANE(i, side, "arrived"), lanes[i]);
            assert_int_equal(LANE(i, side, "returned"), lanes[i]);
            assert_int_equal(LANE(i, side, "toolDropped"), 0);
            assert_int_equal(net_count(plane.broker, "lanes", lane_key(i), "sent"),
                             lanes[i] * (side + 1));
            if (side == 1) /* the same flows */
                assert_int_equal(LANE(i, 0, "sent"), lanes[i]);
        }
        assert_int_equal(lanes[0] + lanes[1], 1000);
    }
    plane_down(&plane);
}

/* What a tool drops is the difference, and a lane without a tool is passed by. */
static void drops_and_absence(void **state)
{
    (void)state;
    struct plane plane;
    plane_up(&plane, 1, 1500);
    plane.tools[0].how = DROP;
    send_flows(&plane, 0, 20);
    assert_int_equal(net_receive(plane.end[1], 60, NULL), 0);
    assert_int_equal(LANE(0, 0, "toolDropped"), 20);

    OK(pk_broker_lane_set_reader(plane.broker, lane_key(0), false, &err));
    send_flows(&plane, 0, 500);
    assert_int_equal(net_receive(plane.end[1], 100, NULL), 500);
    assert_int_equal(TAP(0, "bypassed"), 500);
    assert_int_equal(TAP(0, "noLane"), 500);
    assert_int_equal(TAP(0, "packets"), 520);

    plane.config.closed = true;
    OK(pk_broker_inline_attach(plane.broker, "f/t", &plane.config, &err));
    send_flows(&plane, 1, 500);
    assert_int_equal(net_receive(plane.end[0], 60, NULL), 0);
    assert_int_equal(TAP(1, "blocked"), 500);
    assert_int_equal(TAP(1, "bypassed"), 0);
    plane_down(&plane);
}

static void wait_ms(unsigned ms)
{
    usleep(ms * 1000);
}

static void probe(struct plane *plane, unsigned lane)
{
    for (unsigned side = 0; side < PK_SIDES; side++) {
        uint8_t frame[PK_PROBE_SIZE];
        pk_broker_probe_frame(pk_broker_probe_token(plane->broker), side, frame);
        const char *name = side == 0 ? plane->tools[lane].lane.host : plane->tools[lane].host_b;
        PK_CLEANUP(pk_close_p) int fd = net_packet_socket(-1, name);
        assert_int_equal(net_send(fd, frame, sizeof frame), 0);
    }
}

/* No answer for fail_after, and packets go past, with nobody's help; a probe brings the lane back,
 * and nothing else does. */
static void fails_open_and_comes_back(void **state)
{
    (void)state;
    struct plane plane;
    struct pk_broker_inline_health health;
    plane_up(&plane, 1, 1500);
    fail_soon(&plane);
    send_flows(&plane, 0, 10);
    assert_int_equal(net_receive(plane.end[1], 100, NULL), 10);
    plane.tools[0].how = STOP;
    wait_ms(50);
    send_flows(&plane, 0, 7); /* lost to it: the question */
    wait_ms(150);
    OK(pk_broker_inline_lane_health(plane.broker, lane_key(0), &health, &err));
    assert_false(health.answers);
    assert_true(health.since >= FAIL_AFTER);
    for (unsigned side = 0; side < PK_SIDES; side++) {
        send_flows(&plane, side, 100); /* in both directions, though only one was asked */
        assert_int_equal(net_receive(plane.end[!side], 100, NULL), 100);
        assert_int_equal(TAP(side, "bypassed"), 100);
        assert_int_equal(TAP(side, "unanswered"), 100);
    }
    assert_int_equal(TAP(0, "sent"), 17);

    /* What it had in its buffer comes out late, which is an answer. */
    plane.tools[0].how = COPY;
    assert_int_equal(net_receive(plane.end[1], 100, NULL), 7);
    OK(pk_broker_inline_lane_health(plane.broker, lane_key(0), &health, &err));
    assert_true(health.answers);

    /* Died with nothing left: only a probe can tell that another tool is there. */
    close_ends(&plane.tools[0]);
    send_flows(&plane, 1, 1);
    wait_ms(150);
    open_ends(&plane.tools[0]);
    wait_ms(50);
    send_flows(&plane, 0, 50);
    assert_int_equal(net_receive(plane.end[1], 100, NULL), 50);
    assert_int_equal(TAP(0, "bypassed"), 150);
    probe(&plane, 0);
    wait_ms(50);
    OK(pk_broker_inline_lane_health(plane.broker, lane_key(0), &health, &err));
    assert_true(health.answers);
    assert_int_equal(health.answered[0], 1);
    assert_int_equal(health.answered[1], 1);
    send_flows(&plane, 0, 50);
    assert_int_equal(net_receive(plane.end[1], 100, NULL), 50);
    assert_int_equal(TAP(0, "bypassed"), 150);
    assert_int_equal(LANE(0, 0, "arrived"), 67);
    assert_int_equal(LANE(0, 0, "probes"), 1);
    plane_down(&plane);
}

/* A tool that drops all is alive while probes come back, and a probe that does not is enough to
 * know that it died. */
static void probes(void **state)
{
    (void)state;
    struct plane plane;
    struct pk_broker_inline_health health;
    plane_up(&plane, 1, 1500);
    fail_soon(&plane);
    plane.tools[0].how = DROP;
    for (unsigned i = 0; i < 12; i++) {
        send_flows(&plane, 0, 10);
        probe(&plane, 0);
        wait_ms(30);
    }
    assert_int_equal(LANE(0, 0, "toolDropped"), 120);
    assert_int_equal(TAP(0, "bypassed"), 0);
    assert_int_equal(net_receive(plane.end[1], 10, NULL), 0); /* no probe gets out */
    assert_int_equal(net_receive(plane.end[0], 10, NULL), 0);

    plane.tools[0].how = STOP;
    wait_ms(30);
    probe(&plane, 0);
    wait_ms(150);
    OK(pk_broker_inline_lane_health(plane.broker, lane_key(0), &health, &err));
    assert_false(health.answers);

    /* Without the token it is a frame as any other. */
    plane.tools[0].how = COPY;
    wait_ms(50);
    uint8_t frame[PK_PROBE_SIZE];
    pk_broker_probe_frame(pk_broker_probe_token(plane.broker) + 1, 0, frame);
    assert_int_equal(net_send(plane.end[0], frame, sizeof frame), 0);
    assert_int_equal(net_receive(plane.end[1], 100, NULL), 1);
    plane_down(&plane);
}

/* Every frame comes out as it went in: tags of all types, ARP, LLDP, the largest of the MTU. */
static void frames_stay_as_they_are(void **state)
{
    (void)state;
    static const struct {
        uint16_t words[6]; /* after the addresses */
        size_t words_count, len;
        bool through; /* the tool */
    } frames[] = {
        { { 0x0800 }, 1, 60, true },
        { { 0x8100, 0x2064, 0x0800 }, 3, 64, true },
        { { 0x8100, 0x0000, 0x0800 }, 3, 64, true }, /* a priority tag of nothing */
        { { 0x88a8, 0x0064, 0x8100, 0x0065, 0x0800 }, 5, 68, true },
        { { 0x8100, 0x0064, 0x8100, 0x0065, 0x0800 }, 5, 1522, true },
        { { 0x9100, 0x0064, 0x8100, 0x0065, 0x0800 }, 5, 68, true },
        { { 0x88a8, 0x0064, 0x0800 }, 3, 1518, true },
        { { 0x88a8, 0x0000, 0x0800 }, 3, 64, false },
        { { 0x9200, 0x0064, 0x0800 }, 3, 64, false },
        { { 0x0806, 0x0001, 0x0800, 0x0604, 0x0001 }, 5, 60, true }, /* ARP */
        { { 0x88cc, 0x0207 }, 2, 60, true },                         /* LLDP */
        { { 0x0026, 0x4242, 0x0300 }, 3, 60, true },                 /* spanning tree */
        { { 0x88b5, 0x0001 }, 2, 60, true },
        { { 0x0800, 0x4500 }, 2, 1514, true },
    };
    for (unsigned plain = 0; plain < 2; plain++) {
        struct plane plane;
        plane_up(&plane, 1, 1504); /* for a second tag */
        plane.tools[0].plain_tags = plain;
        for (size_t i = 0; i < PK_ARRAY_SIZE(frames); i++) {
            uint8_t frame[2048], back[2048];
            for (size_t k = 0; k < sizeof frame; k++)
                frame[k] = (uint8_t)(k * 7 + i);
            memcpy(frame, "\x01\x80\xc2\0\0\x0e\x02\0\0\0\0\1", 12);
            for (size_t k = 0; k < frames[i].words_count; k++) {
                uint16_t word = htons(frames[i].words[k]);
                memcpy(frame + 12 + 2 * k, &word, 2);
            }
            unsigned side = i % 2;
            int64_t before = TAP(side, "sent");
            assert_int_equal(net_send(plane.end[side], frame, frames[i].len), 0);
            struct pollfd fd = { plane.end[!side], POLLIN, 0 };
            if (poll(&fd, 1, 2000) != 1)
                fail_msg("frame %zu is lost", i);
            ssize_t len = receive_tagged(plane.end[!side], back, sizeof back, false);
            /* The far end's kernel takes a tag out as well; one of all zeros is not put back. */
            bool zero = frames[i].words_count > 2 && frames[i].words[1] == 0 &&
                        frames[i].words[0] != 0x9200;
            if (zero) {
                assert_int_equal(len, frames[i].len - 4);
                assert_memory_equal(back + 12, frame + 16, (size_t)len - 12);
            } else {
                assert_int_equal(len, frames[i].len);
                assert_memory_equal(back, frame, (size_t)len);
            }
            assert_int_equal(TAP(side, "sent") - before, frames[i].through);
        }
        assert_int_equal(TAP(0, "oddTag") + TAP(1, "oddTag"), 2);
        plane_down(&plane);
    }
}

/* Frames of several buffers. */
static void jumbo(void **state)
{
    (void)state;
    struct plane plane;
    plane_up(&plane, 1, 9000);
    uint8_t frame[9018];
    int64_t lost[PK_SIDES] = { 0 };
    static const size_t sizes[] = { 1514, 3000, 4000, 5000, 8999, 9014 };
    for (size_t i = 0; i < PK_ARRAY_SIZE(sizes); i++) {
        size_t largest = 0, len = net_frame(frame, sizes[i], 17, 1, 2, (uint16_t)i, 4);
        assert_int_equal(net_send(plane.end[i % 2], frame, len), 0);
        if (len > 3498 && !pk_plane_redirects_frags()) { /* lost, but not silently */
            assert_int_equal(net_receive(plane.end[(i + 1) % 2], 100, NULL), 0);
            lost[i % 2]++;
            assert_int_equal(TAP(i % 2, "notSent"), lost[i % 2]);
            continue;
        }
        if (net_receive(plane.end[(i + 1) % 2], 200, &largest) != 1)
            fail_msg("%zu bytes are lost", len);
        assert_int_equal(largest, len);
        assert_int_equal(TAP(i % 2, "bypassed"), 0);
    }
    OK(pk_broker_lane_set_reader(plane.broker, lane_key(0), false, &err));
    size_t most = pk_plane_redirects_frags() ? 9014 : 3000;
    size_t largest = 0, len = net_frame(frame, most, 17, 1, 2, 3, 4);
    assert_int_equal(net_send(plane.end[0], frame, len), 0);
    assert_int_equal(net_receive(plane.end[1], 200, &largest), 1);
    assert_int_equal(largest, len);
    plane_down(&plane);
}

/* A broker that comes later, of the same or of another build, takes over without a packet lost. */
static void is_taken_over(void **state)
{
    (void)state;
    struct plane plane;
    plane_up(&plane, 2, 1500);
    send_flows(&plane, 0, 100);
    assert_int_equal(net_receive(plane.end[1], 100, NULL), 100);
    pk_broker_close(plane.broker);
    send_flows(&plane, 1, 100); /* with no broker at all */
    assert_int_equal(net_receive(plane.end[0], 100, NULL), 100);

    OK(pk_broker_open(&(struct pk_broker_options){ .pin_dir = NET_PIN_DIR }, &plane.broker, &err));
    assert_int_equal(TAP(1, "sent"), 100);
    assert_true(pk_broker_inline_intact(plane.broker, "f/t", plane.config.ifindex));
    for (unsigned i = 0; i < LANES; i++) {
        assert_true(pk_broker_lane_intact(plane.broker, lane_key(i)));
        add_lane(&plane, i);
    }
    OK(pk_broker_inline_attach(plane.broker, "f/t", &plane.config, &err));
    /* An older build's. */
    PK_CLEANUP(pk_close_p) int map = bpf_obj_get(NET_PIN_DIR "/pk_inline_taps");
    struct pk_inline_tap_record record;
    uint32_t zero = 0;
    assert_int_equal(bpf_map_lookup_elem(map, &zero, &record), 0);
    record.build++;
    assert_int_equal(bpf_map_update_elem(map, &zero, &record, 0), 0);
    PK_CLEANUP(pk_close_p) int lanes = bpf_obj_get(NET_PIN_DIR "/pk_lanes");
    struct pk_lane_record lane;
    assert_int_equal(bpf_map_lookup_elem(lanes, &zero, &lane), 0);
    lane.build++;
    assert_int_equal(bpf_map_update_elem(lanes, &zero, &lane, 0), 0);
    pk_broker_close(plane.broker);
    OK(pk_broker_open(&(struct pk_broker_options){ .pin_dir = NET_PIN_DIR }, &plane.broker, &err));
    assert_int_equal(bpf_map_lookup_elem(map, &zero, &record), 0);
    assert_int_equal(bpf_map_lookup_elem(lanes, &zero, &lane), 0);
    assert_int_equal(record.build, lane.build);
    send_flows(&plane, 0, 100);
    assert_int_equal(net_receive(plane.end[1], 100, NULL), 100);
    assert_int_equal(TAP(0, "bypassed"), 0);
    plane_down(&plane);
}

/* Lanes and taps go; what is not there is passed by; a number that is used again is clean. */
static void things_go(void **state)
{
    (void)state;
    struct plane plane;
    plane_up(&plane, 2, 1500);
    assert_int_equal(pk_broker_group_remove(plane.broker, "f/g", &err), PK_E_CONFLICT);
    assert_true(err.hint[0] != '\0');
    OK(pk_broker_lane_remove(plane.broker, lane_key(1), &err));
    assert_false(pk_broker_lane_intact(plane.broker, lane_key(1)));
    send_flows(&plane, 0, 200);
    assert_int_equal(net_receive(plane.end[1], 100, NULL), 200);
    int64_t past = TAP(0, "bypassed");
    assert_true(past > 60 && past < 140);
    plane.lanes = 1;
    set_lanes(&plane);
    send_flows(&plane, 0, 200);
    assert_int_equal(net_receive(plane.end[1], 100, NULL), 200);
    assert_int_equal(TAP(0, "bypassed"), past);

    plane.lanes = 2;
    add_lane(&plane, 1);
    assert_int_equal(LANE(1, 0, "sent"), 0);
    OK(pk_broker_lane_set_reader(plane.broker, lane_key(1), true, &err));
    set_lanes(&plane);
    send_flows(&plane, 0, 200);
    assert_int_equal(net_receive(plane.end[1], 100, NULL), 200);
    assert_true(LANE(1, 0, "returned") > 60);
    assert_int_equal(TAP(0, "bypassed"), past);

    /* The same lane is not two things. */
    assert_int_equal(pk_broker_lane_add(plane.broker, lane_key(1), 1, -1, "tap0", &err),
                     PK_E_CONFLICT);
    struct pk_broker_inline_config other = plane.config;
    assert_int_equal(pk_broker_inline_attach(plane.broker, "f/u", &other, &err), PK_E_CONFLICT);
    other.group_key = "f/none";
    assert_int_equal(pk_broker_inline_attach(plane.broker, "f/u", &other, &err), PK_E_NOTFOUND);
    assert_true(err.hint[0] != '\0');

    OK(pk_broker_inline_detach(plane.broker, "f/t", &err));
    OK(pk_broker_inline_detach(plane.broker, "f/t", &err));
    assert_false(pk_broker_inline_intact(plane.broker, "f/t", plane.config.ifindex));
    send_flows(&plane, 0, 10);
    assert_int_equal(net_receive(plane.end[1], 50, NULL), 0);
    OK(pk_broker_inline_attach(plane.broker, "f/t", &plane.config, &err));
    assert_int_equal(TAP(0, "packets"), 0);
    OK(pk_broker_inline_detach(plane.broker, "f/t", &err));
    OK(pk_broker_group_remove(plane.broker, "f/g", &err));
    plane_down(&plane);
}

int main(void)
{
    if (!net_begin())
        return 0;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(goes_through),
        cmocka_unit_test(drops_and_absence),
        cmocka_unit_test(fails_open_and_comes_back),
        cmocka_unit_test(probes),
        cmocka_unit_test(frames_stay_as_they_are),
        cmocka_unit_test(jumbo),
        cmocka_unit_test(is_taken_over),
        cmocka_unit_test(things_go),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
