/* SPDX-License-Identifier: Apache-2.0 */
/* Whose a packet is and to which lanes it goes: the kernel decides as user space does, with random
 * tenants, groups that are balanced in different ways, and packets that are bent at random. */
#include "pk_test.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "base/fs.h"
#include "broker/internal.h"
#include "packet/tunnel.h" /* a constant of the programs */
#include "tenancy.h"

#include "plane.skel.h"

typedef __typeof__(*((struct plane_bpf *)NULL)->bss) probe_values;

struct probe {
    int program;
    probe_values *values;
    struct pk_tap_setup *setup;
};

/* The map of the program's variables, which only the program knows. */
static probe_values *map_values(int program)
{
    uint32_t ids[128];
    struct bpf_prog_info info = { .nr_map_ids = PK_ARRAY_SIZE(ids), .map_ids = (uintptr_t)ids };
    uint32_t len = sizeof info;
    assert_int_equal(bpf_obj_get_info_by_fd(program, &info, &len), 0);
    for (uint32_t i = 0; i < info.nr_map_ids; i++) {
        struct bpf_map_info map = { 0 };
        PK_CLEANUP(pk_close_p) int fd = bpf_map_get_fd_by_id(ids[i]);
        len = sizeof map;
        assert_int_equal(bpf_obj_get_info_by_fd(fd, &map, &len), 0);
        if (strstr(map.name, ".bss") == NULL)
            continue;
        void *values = mmap(NULL, sizeof(probe_values), PROT_READ, MAP_SHARED, fd, 0);
        assert_true(values != MAP_FAILED);
        return values;
    }
    fail_msg("the program has no variables");
    return NULL;
}

static void probe_load(struct plane *plane, uint32_t tap, struct probe *probe)
{
    struct pk_error err = { 0 };
    struct pk_instance_plan *plan = calloc(1, sizeof *plan);
    const struct pk_tap_setup *setup = plane->broker->setups[tap];
    pk_instance_plan(plane->broker, tap, setup, plan);
    if (pk_instance_load(plane->broker, tap, setup, plan, PK_PROGRAM_TAP_PROBE, &probe->program,
                         &err) < 0)
        fail_msg("%s", err.msg);
    probe->values = map_values(probe->program);
    free(plan);
}

static void probe_unload(struct probe *probe)
{
    munmap(probe->values, sizeof *probe->values);
    close(probe->program);
}

static void differ(const uint8_t *frame, size_t len, const char *what)
{
    print_message("# ");
    for (size_t i = 0; i < PK_MIN(len, 300); i++)
        print_message("%02x", frame[i]);
    fail_msg("\n%s", what);
}

static void ask(struct probe *probe, const uint8_t *frame, size_t len)
{
    static uint8_t out[16384];
    LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = frame, .data_size_in = (uint32_t)len,
                .data_out = out, .data_size_out = sizeof out, .repeat = 1);
    if (bpf_prog_test_run_opts(probe->program, &opts) < 0)
        fail_msg("%zu bytes: %s", len, strerror(errno));
}

static unsigned compare(struct plane *plane, struct probe *probe, const uint8_t *frame, size_t len)
{
    struct pk_error err = { 0 };
    struct pk_broker_decision decision;
    assert_int_equal(pk_broker_decide(plane->broker, "f/t", frame, len, &decision, &err), 0);
    ask(probe, frame, len);
    const struct pk_tap_setup *setup = plane->broker->setups[0];
    uint32_t channel = probe->values->probe_channel;
    if ((decision.tenant == NULL) != (channel >= PK_CHANNELS))
        differ(frame, len, "one knows whose it is, the other does not");
    if (decision.tenant == NULL)
        return 0;
    if (pk_tenants_find(setup->tenants, decision.tenant) != (int)channel)
        differ(frame, len, "another tenant");
    for (size_t i = 0; i < PK_TARGETS_MAX; i++) {
        uint32_t lane = probe->values->probe_lanes[i];
        if (i >= decision.count ? lane != PK_NO_LANE
                                : lane >= PK_LANES_MAX || decision.targets[i].lane !=
                                                              (int)plane->broker->lanes[lane].index)
            differ(frame, len, "another lane");
    }
    return (unsigned)decision.count;
}

static void kernel_equals_user_space(void **state)
{
    (void)state;
    enum { PACKETS = 1000000, ROUNDS = 25 };
    static struct plane plane;
    static struct tenancy tenancy;
    static struct tenancy_packet packets[TENANCY_PARTS];
    unsigned nobody = 0, several = 0, all = 0;
    tenancy.rng.state = 5;
    plane_up(&plane, PLANE_GROUPS, 2, 1500);
    for (unsigned round = 0; round < ROUNDS; round++) {
        struct probe probe;
        struct pk_error err = { 0 };
        tenancy_random(&tenancy, plane.groups);
        assert_int_equal(pk_broker_tap_detach(plane.broker, "f/t", &err), 0);
        for (unsigned i = 0; i < plane.groups; i++)
            plane_lanes(&plane, i, 1 + frames_below(&tenancy.rng, 2),
                        (enum pk_hash_mode)frames_below(&tenancy.rng, PK_HASH_MODES));
        tenancy_attach(&tenancy, &plane);
        probe_load(&plane, 0, &probe);
        for (unsigned done = 0; done < PACKETS / ROUNDS;) {
            size_t count = tenancy_packets(&tenancy, packets);
            for (size_t i = 0; i < count; i++, done++, all++) {
                if (frames_below(&tenancy.rng, 2) != 0)
                    packets[i].len = frames_mutate(&tenancy.rng, packets[i].frame, packets[i].len);
                unsigned to = compare(&plane, &probe, packets[i].frame, packets[i].len);
                nobody += to == 0;
                several += to > 1;
            }
        }
        probe_unload(&probe);
    }
    print_message("# %u packets, %u to several groups, %u to none\n", all, several, nobody);
    assert_true(several > all / 10 && nobody > all / 100);
    plane_down(&plane);
}

/* A part of a VXLAN packet between two addresses, always the same ones. */
static size_t mirror_part(uint8_t frame[128], uint32_t vni, bool first)
{
    const uint8_t ethernet[14] = { 2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0 };
    const uint8_t ip[20] = { 0x45, 0, 0,  86, 0x12, 0x34, 0x20, 0, 64, 17,
                             0,    0, 10, 0,  0,    1,    10,   0, 0,  2 };
    const uint8_t udp_vxlan[16] = { 0xc0, 1, 4789 >> 8, 4789 & 255, 2, 0, 0, 0, 8 };
    const uint8_t tcp[20] = { 0x9c, 0x40, 0, 80, [12] = 0x50, 0x10 };
    memset(frame, 0, 128);
    memcpy(frame, ethernet, sizeof ethernet);
    memcpy(frame + 14, ip, sizeof ip);
    if (!first) {
        frame[20] = 0; /* the last one, from byte 72 on */
        frame[21] = 9;
        frame[17] = 20 + 40;
        return 14 + 20 + 40;
    }
    frame[17] = 20 + 72;
    memcpy(frame + 34, udp_vxlan, sizeof udp_vxlan);
    frame[47] = (uint8_t)vni; /* the second byte of three is enough */
    memcpy(frame + 50, ethernet, sizeof ethernet);
    memcpy(frame + 64, ip, sizeof ip);
    frame[67] = 42;
    frame[70] = 0; /* whole */
    memcpy(frame + 84, tcp, sizeof tcp);
    return 14 + 20 + 72;
}

/* Two taps whose mirrors use the same addresses, and the same numbers of datagrams. */
static void taps_have_fragments_of_their_own(void **state)
{
    (void)state;
    static struct plane plane;
    const char *const keys[2] = { "f/t", "f/u" };
    uint32_t vnis[2] = { 1u << 8, 2u << 8 };
    struct pk_broker_tenant tenants[2] = { { .name = "a", .vnis = &vnis[0], .vni_count = 1 },
                                           { .name = "b", .vnis = &vnis[1], .vni_count = 1 } };
    struct pk_error err = { 0 };
    struct probe probes[2];
    plane_up(&plane, 2, 2, 1500);
    const unsigned interfaces[2] = { plane.tap, net_veth("tap1", "wire1", 1500) };
    struct pk_broker_target targets[2] = { { .group_key = "f/g0", .tenant = "a" },
                                           { .group_key = "f/g1", .tenant = "b" } };
    struct pk_broker_tap_config config = {
        .tenants = tenants, .tenant_count = 2, .targets = targets, .target_count = 2
    };
    assert_int_equal(pk_broker_tap_detach(plane.broker, "f/t", &err), 0);
    for (uint32_t tap = 0; tap < 2; tap++) {
        enum pk_xdp_mode mode;
        if (pk_broker_tap_attach(plane.broker, keys[tap], interfaces[tap], &config, &mode, &err) <
            0)
            fail_msg("%s", err.msg);
        probe_load(&plane, tap, &probes[tap]);
    }
    for (unsigned part = 0; part < 2; part++)
        for (uint32_t tap = 0; tap < 2; tap++) {
            uint8_t frame[128];
            size_t len = mirror_part(frame, tap + 1, part == 0);
            struct pk_broker_decision decision;
            assert_int_equal(pk_broker_decide(plane.broker, keys[tap], frame, len, &decision, &err),
                             0);
            assert_non_null(decision.tenant);
            assert_string_equal(decision.tenant, tenants[tap].name);
            ask(&probes[tap], frame, len);
            assert_int_equal(probes[tap].values->probe_channel, tap);
        }
    for (uint32_t tap = 0; tap < 2; tap++) {
        probe_unload(&probes[tap]);
        assert_int_equal(pk_broker_tap_detach(plane.broker, keys[tap], &err), 0);
    }
    net_run("ip", "link", "del", "tap1", NULL);
    plane_down(&plane);
}

int main(void)
{
    if (!net_begin())
        return 0;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(taps_have_fragments_of_their_own),
        cmocka_unit_test(kernel_equals_user_space),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
