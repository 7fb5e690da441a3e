/* SPDX-License-Identifier: Apache-2.0 */
/* Tunnel taps: what is taken, what comes out of it, and what stays the machine's. Each frame goes
 * through the tap's program in the kernel, which hands back what it made of it. */
#include "pk_test.h"

#include <arpa/inet.h>
#include <linux/bpf.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "base/fs.h"
#include "broker/internal.h"
#include "net.h"

static struct pk_error err;

#define OK(call)                                               \
    do {                                                       \
        int ok_ = (call);                                      \
        if (ok_ < 0)                                           \
            fail_msg("%s: %s (%s)", #call, err.msg, err.hint); \
    } while (0)

static struct pk_broker *broker;
static struct net_lane lane;
static unsigned tap_ifindex;

/* ---- frames ---- */

struct bytes {
    uint8_t data[2048];
    size_t len;
};

static void put(struct bytes *out, const void *data, size_t len)
{
    assert_true(out->len + len <= sizeof(out->data));
    memcpy(out->data + out->len, data, len);
    out->len += len;
}
#define PUT(out, ...)                             \
    do {                                          \
        const uint8_t bytes_[] = { __VA_ARGS__ }; \
        put((out), bytes_, sizeof(bytes_));       \
    } while (0)

/* The outer Ethernet and IPv4 headers around what follows: to 10.0.0.2. */
static void outer(struct bytes *out, uint8_t protocol, uint16_t fragment, bool vlan)
{
    PUT(out, 2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2);
    if (vlan)
        PUT(out, 0x81, 0, 0, 77);
    PUT(out, 8, 0);
    PUT(out, 0x45, 0, 0, 0, 0x12, 0x34, (uint8_t)(fragment >> 8), (uint8_t)fragment, 64, protocol,
        0, 0, 10, 0, 0, 9, 10, 0, 0, 2);
}

static void outer6(struct bytes *out, uint8_t protocol)
{
    PUT(out, 2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x86, 0xdd);
    PUT(out, 0x60, 0, 0, 0, 0, 0, protocol, 64, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9,
        0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2);
}

static void udp(struct bytes *out, uint16_t port)
{
    PUT(out, 0xc0, 1, (uint8_t)(port >> 8), (uint8_t)port, 0, 0, 0, 0);
}

/* The lengths of the outer IP header. */
static void end(struct bytes *out)
{
    size_t at = out->data[12] == 0x81 ? 18 : 14;
    if (out->data[at] >> 4 == 4) {
        out->data[at + 2] = (uint8_t)((out->len - at) >> 8);
        out->data[at + 3] = (uint8_t)(out->len - at);
    } else {
        out->data[at + 4] = (uint8_t)((out->len - at - 40) >> 8);
        out->data[at + 5] = (uint8_t)(out->len - at - 40);
    }
}

static size_t inner_frame(uint8_t out[200], uint16_t port)
{
    return net_frame(out, 120, 6, 0x0a010101, 0x0a010102, port, 80);
}

static void put_inner(struct bytes *out, uint16_t port)
{
    uint8_t frame[200];
    put(out, frame, inner_frame(frame, port));
}

/* ---- the program ---- */

static int load(const struct pk_broker_tunnel *tunnel)
{
    const struct pk_broker_target target = { .group_key = "f/g" };
    const struct pk_broker_tap_config config = {
        .kind = PK_BROKER_TAP_TUNNEL, .targets = &target, .target_count = 1, .tunnel = tunnel
    };
    enum pk_xdp_mode mode;
    OK(pk_broker_tap_attach(broker, "f/t", tap_ifindex, &config, &mode, &err));
    assert_int_equal(mode, PK_XDP_NATIVE);
    char path[] = NET_PIN_DIR "/tap-0";
    PK_CLEANUP(pk_close_p) int link = bpf_obj_get(path);
    assert_true(link >= 0);
    struct bpf_link_info info = { 0 };
    uint32_t len = sizeof(info);
    assert_int_equal(bpf_obj_get_info_by_fd(link, &info, &len), 0);
    int program = bpf_prog_get_fd_by_id(info.prog_id);
    assert_true(program >= 0);
    return program;
}

/* What becomes of a frame. */
static uint32_t run(int program, const struct bytes *in, struct bytes *out)
{
    LIBBPF_OPTS(bpf_test_run_opts, options, .data_in = in->data, .data_size_in = (uint32_t)in->len,
                .data_out = out->data, .data_size_out = sizeof(out->data));
    assert_int_equal(bpf_prog_test_run_opts(program, &options), 0);
    out->len = options.data_size_out;
    return options.retval;
}

static uint64_t reason(const char *name)
{
    return net_count(broker, "taps", "f/t", name);
}

static void assert_same(const struct bytes *out, const void *data, size_t len)
{
    assert_int_equal(out->len, len);
    assert_memory_equal(out->data, data, len);
}

/* Stays the machine's, untouched. */
static void assert_left(int program, const struct bytes *in)
{
    struct bytes out;
    uint64_t passed = net_count(broker, "taps", "f/t", "passed");
    uint64_t packets = net_count(broker, "taps", "f/t", "packets");
    assert_int_equal(run(program, in, &out), XDP_PASS);
    assert_same(&out, in->data, in->len);
    assert_int_equal(net_count(broker, "taps", "f/t", "passed"), passed + 1);
    assert_int_equal(net_count(broker, "taps", "f/t", "packets"), packets);
}

/* Goes to the group as this. */
static void assert_taken(int program, const struct bytes *in, const void *data, size_t len)
{
    struct bytes out;
    uint64_t packets = net_count(broker, "taps", "f/t", "packets");
    uint64_t bytes = net_count(broker, "taps", "f/t", "bytes");
    assert_int_equal(run(program, in, &out), XDP_REDIRECT);
    assert_same(&out, data, len);
    assert_int_equal(net_count(broker, "taps", "f/t", "packets"), packets + 1);
    assert_int_equal(net_count(broker, "taps", "f/t", "bytes"), bytes + len);
}

#define HERE                                                               \
    .end_count = 2, .ends = { { .family = 4, .address = { 10, 0, 0, 2 } }, \
                              { .family = 6, .address = { [0] = 0xfd, [15] = 2 } } }

static void vxlan(struct bytes *out, uint32_t vni)
{
    PUT(out, 8, 0, 0, 0, (uint8_t)(vni >> 16), (uint8_t)(vni >> 8), (uint8_t)vni, 0);
}

static void test_vxlan_is_opened(void **state)
{
    (void)state;
    uint8_t frame[200];
    size_t len = inner_frame(frame, 1000);
    PK_CLEANUP(pk_close_p) int program = load(&(struct pk_broker_tunnel){ .vxlan = true, HERE });
    for (unsigned form = 0; form < 3; form++) {
        struct bytes in = { .len = 0 };
        if (form == 2)
            outer6(&in, 17);
        else
            outer(&in, 17, 0, form == 1);
        udp(&in, 4789);
        vxlan(&in, 5001);
        put(&in, frame, len);
        end(&in);
        assert_taken(program, &in, frame, len);
        PUT(&in, 0, 0, 0, 0); /* padding, or a check sum, behind the outer packet */
        assert_taken(program, &in, frame, len);
    }
}

static void test_geneve_with_options(void **state)
{
    (void)state;
    uint8_t frame[200];
    size_t len = inner_frame(frame, 1001);
    PK_CLEANUP(pk_close_p) int program = load(&(struct pk_broker_tunnel){ .geneve = true, HERE });
    for (unsigned words = 0; words < 64; words += 21) {
        struct bytes in = { .len = 0 };
        outer(&in, 17, 0, false);
        udp(&in, 6081);
        PUT(&in, (uint8_t)words, 0, 0x65, 0x58, 0, 0, 9, 0);
        for (unsigned i = 0; i < words; i++)
            PUT(&in, 1, 2, 3, 4);
        put(&in, frame, len);
        end(&in);
        assert_taken(program, &in, frame, len);
    }
}

static const uint8_t made_up[12] = { 2, 0x70, 0x6b, 0, 0, 1, 2, 0x70, 0x6b, 0, 0, 2 };

static void test_gre(void **state)
{
    (void)state;
    uint8_t frame[200], plain[200];
    size_t len = inner_frame(frame, 1002);
    memcpy(plain, frame, len);
    memcpy(plain, made_up, sizeof(made_up));
    PK_CLEANUP(pk_close_p) int program = load(&(struct pk_broker_tunnel){ .gre = true, HERE });
    for (uint8_t flags = 0; flags < 16; flags++) {
        if ((flags & 4) != 0) /* source routes */
            continue;
        for (unsigned ip = 0; ip < 2; ip++) {
            struct bytes in = { .len = 0 };
            outer(&in, 47, 0, false);
            if (ip)
                PUT(&in, (uint8_t)(flags << 4), 0, 8, 0);
            else
                PUT(&in, (uint8_t)(flags << 4), 0, 0x65, 0x58);
            for (uint8_t bit = 1; bit < 16;
                 bit = (uint8_t)(bit << 1)) /* check sum, key, sequence */
                if ((flags & bit) != 0)
                    PUT(&in, 0, 0, 0, 7);
            put(&in, frame + (ip ? 14 : 0), len - (ip ? 14 : 0));
            end(&in);
            assert_taken(program, &in, ip ? plain : frame, len);
        }
    }
    /* What routers say to each other, and what is not GRE as we know it. */
    struct bytes keepalive = { .len = 0 };
    outer(&keepalive, 47, 0, false);
    PUT(&keepalive, 0, 0, 0, 0);
    end(&keepalive);
    assert_left(program, &keepalive);
    struct bytes pptp = { .len = 0 };
    outer(&pptp, 47, 0, false);
    PUT(&pptp, 0x30, 1, 0x88, 0x0b, 0, 4, 0, 0, 0, 0, 0, 1, 0, 0x21, 0x45, 0);
    end(&pptp);
    assert_left(program, &pptp);
    /* ERSPAN is another type. */
    struct bytes erspan = { .len = 0 };
    outer(&erspan, 47, 0, false);
    PUT(&erspan, 0, 0, 0x88, 0xbe);
    put_inner(&erspan, 1002);
    end(&erspan);
    assert_left(program, &erspan);
}

static void test_erspan(void **state)
{
    (void)state;
    uint8_t frame[200];
    size_t len = inner_frame(frame, 1003);
    PK_CLEANUP(pk_close_p) int program = load(&(struct pk_broker_tunnel){ .erspan = true, HERE });
    for (unsigned form = 1; form < 5; form++) {
        struct bytes in = { .len = 0 };
        outer(&in, 47, 0, false);
        if (form == 1) /* ERSPAN I */
            PUT(&in, 0, 0, 0x88, 0xbe);
        if (form == 2)
            PUT(&in, 0x10, 0, 0x88, 0xbe, 0, 0, 0, 1, 0x10, 0, 0, 5, 0, 0, 0, 1);
        if (form == 3)
            PUT(&in, 0x10, 0, 0x22, 0xeb, 0, 0, 0, 1, 0x20, 0, 0, 5, 0, 0, 0, 1, 0, 0, 0, 0);
        if (form == 4) /* with the platform's own 8 bytes */
            PUT(&in, 0x10, 0, 0x22, 0xeb, 0, 0, 0, 1, 0x20, 0, 0, 5, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0,
                0, 0, 0, 0, 0, 0);
        put(&in, frame, len);
        end(&in);
        assert_taken(program, &in, frame, len);
    }
    struct bytes gre = { .len = 0 };
    outer(&gre, 47, 0, false);
    PUT(&gre, 0, 0, 0x65, 0x58);
    put_inner(&gre, 1003);
    end(&gre);
    assert_left(program, &gre);
}

static void test_a_port_of_the_users(void **state)
{
    (void)state;
    uint8_t frame[200];
    size_t len = inner_frame(frame, 1004);
    PK_CLEANUP(pk_close_p)
    int program = load(&(struct pk_broker_tunnel){ .vxlan = true, .port = 14789, HERE });
    static const uint16_t ports[] = { 14789, 4789, 8472, 6081 };
    for (size_t i = 0; i < PK_ARRAY_SIZE(ports); i++) {
        struct bytes in = { .len = 0 };
        outer(&in, 17, 0, false);
        udp(&in, ports[i]);
        vxlan(&in, 5001);
        put(&in, frame, len);
        end(&in);
        if (i == 0)
            assert_taken(program, &in, frame, len);
        else
            assert_left(program, &in);
    }
    PK_CLEANUP(pk_close_p)
    int geneve = load(&(struct pk_broker_tunnel){ .geneve = true, .port = 4789, HERE });
    struct bytes in = { .len = 0 };
    outer(&in, 17, 0, false);
    udp(&in, 4789);
    PUT(&in, 0, 0, 0x65, 0x58, 0, 0, 9, 0);
    put(&in, frame, len);
    end(&in);
    assert_taken(geneve, &in, frame, len);
}

static void test_outer_headers_may_stay(void **state)
{
    (void)state;
    PK_CLEANUP(pk_close_p)
    int program = load(&(struct pk_broker_tunnel){ .vxlan = true, .keep = true, HERE });
    struct bytes in = { .len = 0 };
    outer(&in, 17, 0, false);
    udp(&in, 4789);
    vxlan(&in, 5001);
    put_inner(&in, 1005);
    end(&in);
    assert_taken(program, &in, in.data, in.len);
    in.data[33] = 3; /* to another machine */
    assert_left(program, &in);
}

static void test_the_machines_own_traffic_is_left(void **state)
{
    (void)state;
    PK_CLEANUP(pk_close_p)
    int program = load(&(struct pk_broker_tunnel){
        .vxlan = true, .geneve = true, .gre = true, .erspan = true, HERE });
    uint8_t frame[200];
    static const uint8_t protocols[] = { 1, 6, 17, 50, 132 };
    for (size_t i = 0; i < PK_ARRAY_SIZE(protocols); i++) {
        struct bytes in = { .len = 0 };
        in.len = net_frame(in.data, 150, protocols[i], 0x0a000009, 0x0a000002, 4789, 22);
        assert_left(program, &in); /* also: answers of a tunnel's other end */
    }
    struct bytes arp = { .len = 0 };
    PUT(&arp, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 2, 8, 6);
    for (unsigned i = 0; i < 46; i++)
        PUT(&arp, 0);
    assert_left(program, &arp);
    struct bytes other = { .len = 0 }; /* mirrored to somebody else */
    outer(&other, 17, 0, false);
    udp(&other, 4789);
    vxlan(&other, 1);
    put_inner(&other, 1006);
    end(&other);
    other.data[33] = 1;
    assert_left(program, &other);
    /* Other tunnels of the machine's own. */
    struct bytes ipip = { .len = 0 };
    outer(&ipip, 4, 0, false);
    (void)inner_frame(frame, 1006);
    put(&ipip, frame + 14, 100);
    end(&ipip);
    assert_left(program, &ipip);
    struct bytes gtp = { .len = 0 };
    outer(&gtp, 17, 0, false);
    udp(&gtp, 2152);
    PUT(&gtp, 0x30, 0xff, 0, 80, 0, 0, 0, 1);
    put(&gtp, frame + 14, 80);
    end(&gtp);
    assert_left(program, &gtp);
    /* An ICMP error about a packet of a tunnel. */
    struct bytes icmp = { .len = 0 };
    outer(&icmp, 1, 0, false);
    PUT(&icmp, 3, 3, 0, 0, 0, 0, 0, 0);
    put(&icmp, other.data + 14, 60);
    end(&icmp);
    assert_left(program, &icmp);
}

static void test_what_contradicts_itself_is_counted_and_left(void **state)
{
    (void)state;
    PK_CLEANUP(pk_close_p)
    int program =
        load(&(struct pk_broker_tunnel){ .vxlan = true, .geneve = true, .gre = true, HERE });
    uint64_t bad = reason("mirror-malformed");
    struct bytes in = { .len = 0 };
    outer(&in, 17, 0, false);
    udp(&in, 4789);
    PUT(&in, 0, 0, 0, 0, 0, 0, 1, 0); /* without the flag that there is a VNI */
    put_inner(&in, 1007);
    end(&in);
    assert_left(program, &in);
    struct bytes cut = { .len = 0 };
    outer(&cut, 17, 0, false);
    udp(&cut, 4789);
    vxlan(&cut, 7);
    PUT(&cut, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13); /* less than an Ethernet header */
    end(&cut);
    assert_left(program, &cut);
    struct bytes geneve = { .len = 0 };
    outer(&geneve, 17, 0, false);
    udp(&geneve, 6081);
    PUT(&geneve, 0x40, 0, 0x65, 0x58, 0, 0, 9, 0); /* a version that does not exist */
    put_inner(&geneve, 1007);
    end(&geneve);
    assert_left(program, &geneve);
    struct bytes gre = { .len = 0 };
    outer(&gre, 47, 0, false);
    PUT(&gre, 0, 5, 0x65, 0x58);
    put_inner(&gre, 1007);
    end(&gre);
    assert_left(program, &gre);
    assert_int_equal(reason("mirror-malformed"), bad + 4);
}

static void test_fragments_of_the_mirror_come_whole_others_are_left(void **state)
{
    (void)state;
    PK_CLEANUP(pk_close_p) int program = load(&(struct pk_broker_tunnel){ .vxlan = true, HERE });
    uint64_t before = reason("mirror-fragment");
    struct bytes later = { .len = 0 }, first = { .len = 0 }, others = { .len = 0 };
    outer(&later, 17, 10, false);
    put_inner(&later, 1008);
    end(&later);
    assert_left(program, &later); /* its first one was not seen: whose is it? */

    outer(&first, 17, 0x2000, false);
    udp(&first, 4789);
    vxlan(&first, 5);
    put_inner(&first, 1008);
    end(&first);
    assert_taken(program, &first, first.data, first.len);
    assert_taken(program, &later, later.data, later.len);
    assert_int_equal(reason("mirror-fragment"), before + 2);

    outer(&others, 17, 0x2000, false);
    others.data[19] = 0x77; /* another datagram, of another port */
    udp(&others, 53);
    put_inner(&others, 1008);
    end(&others);
    assert_left(program, &others);
    others.data[20] = 0;
    others.data[21] = 10;
    assert_left(program, &others);
}

/* ---- together ---- */

static int group_setup(void **state)
{
    (void)state;
    OK(pk_broker_open(&(struct pk_broker_options){ .pin_dir = NET_PIN_DIR }, &broker, &err));
    tap_ifindex = net_veth("tap", "wire", 2000);
    net_quiet("tap");
    net_quiet("wire");
    net_lane_make(&lane, "lane0", 2004);
    OK(pk_broker_lane_add(broker, "f/g/0", lane.host_ifindex, lane.netns_fd, "tap0", &err));
    const struct pk_broker_share share = { .lane = 0, .weight = 1 };
    OK(pk_broker_group_set(broker, "f/g", PK_HASH_OUTER, &share, 1, &err));
    return 0;
}

static int group_teardown(void **state)
{
    (void)state;
    OK(pk_broker_remove_all(broker, &err));
    pk_broker_close(broker);
    net_lane_drop(&lane);
    return 0;
}

int main(void)
{
    if (!net_begin())
        return 0;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vxlan_is_opened),
        cmocka_unit_test(test_geneve_with_options),
        cmocka_unit_test(test_gre),
        cmocka_unit_test(test_erspan),
        cmocka_unit_test(test_a_port_of_the_users),
        cmocka_unit_test(test_outer_headers_may_stay),
        cmocka_unit_test(test_the_machines_own_traffic_is_left),
        cmocka_unit_test(test_what_contradicts_itself_is_counted_and_left),
        cmocka_unit_test(test_fragments_of_the_mirror_come_whole_others_are_left),
    };
    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
