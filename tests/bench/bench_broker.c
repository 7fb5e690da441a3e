/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the broker's decision costs: the tap's whole program on one packet of each kind, by
 * BPF_PROG_TEST_RUN, less a program that does nothing. The redirect itself ends at an empty port
 * map. Caches are warm, as one packet is repeated.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "broker/bpf/abi.h" /* and packet/tunnel.h: constants of the programs */
#include "encap.h"
#include "frames.h"
#include "packet/parse.h"
#include "packet/tunnel.h"

#include "plane.skel.h"

#define ROUNDS 9
#define REPEAT 300000
#define LANES  4u

static int by_value(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static void run(int program, const uint8_t *frame, size_t len, uint32_t *ret_best,
                uint32_t *ret_median)
{
    uint32_t took[ROUNDS];
    for (unsigned i = 0; i < ROUNDS; i++) {
        LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = frame, .data_size_in = (uint32_t)len,
                    .repeat = REPEAT);
        if (bpf_prog_test_run_opts(program, &opts) < 0) {
            perror("BPF_PROG_TEST_RUN");
            exit(1);
        }
        took[i] = opts.duration;
    }
    qsort(took, ROUNDS, sizeof took[0], by_value);
    *ret_best = took[0];
    *ret_median = took[ROUNDS / 2];
}

static void fill_table(struct plane_bpf *plane, uint32_t group)
{
    static struct pk_slots slots;
    for (size_t i = 0; i <= PK_HASH_SLOTS; i++)
        slots.lane[i] = (uint16_t)(group * LANES + i % LANES);
    slots.mode = PK_HASH_FLOW;
    uint32_t zero = 0;
    int fd = bpf_map_create(BPF_MAP_TYPE_ARRAY, "pk_slots", 4, sizeof slots, 1, NULL);
    if (fd < 0 || bpf_map_update_elem(fd, &zero, &slots, BPF_ANY) < 0 ||
        bpf_map_update_elem(bpf_map__fd(plane->maps.pk_tables), &group, &fd, BPF_ANY) < 0) {
        perror("slot table");
        exit(1);
    }
}

/* Puts the encapsulations around a packet of the flow, the first one innermost, at random in each
 * of some tries, and leaves the dearest. */
static size_t costliest(struct plane_bpf *plane, struct frames_rng *rng, const enum encap *kinds,
                        size_t count, const struct frames_flow *flow, size_t body, uint8_t *frame)
{
    static uint8_t room[2][ENCAP_ROOM];
    uint32_t worst = 0;
    size_t worst_len = 0;
    for (unsigned try = 0; try < 12; try++) {
        size_t len = frames_make(rng, flow, FRAMES_PLAIN, false, 1, room[0]);
        memset(room[0] + len, 0, body);
        len += body;
        if (flow->family == 4) { /* as long as its header says */
            room[0][16] = (uint8_t)((len - 14) >> 8);
            room[0][17] = (uint8_t)(len - 14);
        }
        unsigned at = 0;
        for (size_t i = 0; i < count; i++, at ^= 1) {
            struct encap_outer outer = { .ends = *flow };
            outer.ends.family = 4;
            len = encap_wrap(rng, kinds[i], &outer, room[at], len, room[at ^ 1]);
        }
        LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = room[at], .data_size_in = (uint32_t)len,
                    .repeat = REPEAT / 6);
        if (len == 0 || bpf_prog_test_run_opts(bpf_program__fd(plane->progs.pk_probe), &opts) < 0) {
            perror("encapsulation");
            exit(1);
        }
        if (plane->bss->probe_reason != PK_REASON_NONE) {
            fprintf(stderr, "%s: reason %u\n", encap_name(kinds[count - 1]),
                    plane->bss->probe_reason);
            exit(1);
        }
        if (opts.duration <= worst)
            continue;
        worst = opts.duration;
        worst_len = len;
        memcpy(frame, room[at], len);
    }
    return worst_len;
}

static void row(struct plane_bpf *plane, const char *name, const uint8_t *frame, size_t len,
                uint32_t empty)
{
    uint32_t decide, decide_median, tap, tap_median;
    run(bpf_program__fd(plane->progs.pk_probe), frame, len, &decide, &decide_median);
    run(bpf_program__fd(plane->progs.pk_tap), frame, len, &tap, &tap_median);
    printf("%-20s %6d %8d %6d %8d\n", name, (int)(decide - empty), (int)(decide_median - empty),
           (int)(tap - empty), (int)(tap_median - empty));
}

/* An instance of the tap: so many groups of 4 lanes each get all packets; tenants = bits PK_BY_*,
 * the packets are of the only one. */
static struct plane_bpf *load_plane(uint32_t groups, uint32_t tenants)
{
    struct plane_bpf *plane = plane_bpf__open();
    struct bpf_program *each;
    uint32_t combos = 1, channel = tenants != 0 ? 0 : PK_TENANT_NONE;
    if (plane == NULL)
        return NULL;
    bpf_object__for_each_program(each, plane->obj) bpf_program__set_autoload(
        each, each == plane->progs.pk_tap || each == plane->progs.pk_probe ||
                  each == plane->progs.pk_empty);
    plane->rodata->seed = 42;
    struct pk_instance *instance = (struct pk_instance *)&plane->rodata->instance;
    instance->channels[channel].count = (uint8_t)groups;
    instance->has_tenants = tenants != 0;
    instance->tenants = (struct pk_tenants_shape){ 1, tenants, PK_TENANT_NONE, PK_TENANT_NONE };
    if ((tenants & PK_BY_INSIDE) != 0)
        instance->tenants.inside = 0;
    instance->modes = 1u << PK_HASH_FLOW;
    instance->redirects_frags = 1;
    instance->has_several = groups > 1;
    for (uint32_t i = 0; i < groups; i++, combos *= LANES + 1) {
        instance->targets[i] = (struct pk_target){ .group = (uint8_t)i, .mode = PK_HASH_FLOW };
        for (uint32_t k = 0; k < LANES; k++)
            instance->digits[i * LANES + k] = (k + 1) * combos;
    }
    bpf_map__set_max_entries(plane->maps.pk_own_combos, combos);
    bpf_map__set_max_entries(plane->maps.pk_own_vlans, 4096);
    if (plane_bpf__load(plane) < 0)
        return NULL;
    for (uint32_t i = 0; i < groups; i++)
        fill_table(plane, i);
    for (uint32_t i = 0; i < combos && groups > 1; i++) {
        int fd = bpf_map_create(BPF_MAP_TYPE_DEVMAP, "pk_combo", 4, 4, groups, NULL);
        if (fd < 0 || bpf_map_update_elem(bpf_map__fd(plane->maps.pk_own_combos), &i, &fd, 0) < 0) {
            perror("combination");
            exit(1);
        }
        close(fd);
    }
    /* What the packets below have. */
    uint32_t tenant = 0, prefix[5] = { 8, 10 }, vlan = 1;
    if (bpf_map_update_elem(bpf_map__fd(plane->maps.pk_own_vlans), &vlan, &tenant, 0) < 0 ||
        bpf_map_update_elem(bpf_map__fd(plane->maps.pk_own_prefixes4), prefix, &tenant, 0) < 0 ||
        bpf_map_update_elem(bpf_map__fd(plane->maps.pk_own_prefixes6), prefix, &tenant, 0) < 0) {
        perror("tenant");
        exit(1);
    }
    return plane;
}

/* What groups and tenants cost. */
static void several(const uint8_t *vlan, size_t vlan_len, const uint8_t *vxlan, size_t vxlan_len,
                    uint32_t empty)
{
    static const struct {
        const char *name;
        uint32_t groups, tenants;
    } taps[] = { { "1 group", 1, 0 },
                 { "2 groups", 2, 0 },
                 { "3 groups", 3, 0 },
                 { "tenants by VLAN", 1, PK_BY_VLAN },
                 { "tenants by prefix", 1, PK_BY_PREFIX4 | PK_BY_PREFIX6 },
                 { "both, 3 groups", 3, PK_BY_VLAN | PK_BY_PREFIX4 | PK_BY_PREFIX6 } };
    printf("\n%-20s %15s %15s\n", "tap", "VLAN, TCP", "VXLAN");
    for (size_t i = 0; i < sizeof taps / sizeof taps[0]; i++) {
        uint32_t best[2], median[2];
        struct plane_bpf *plane = load_plane(taps[i].groups, taps[i].tenants);
        if (plane == NULL) {
            perror(taps[i].name);
            exit(1);
        }
        run(bpf_program__fd(plane->progs.pk_tap), vlan, vlan_len, &best[0], &median[0]);
        run(bpf_program__fd(plane->progs.pk_tap), vxlan, vxlan_len, &best[1], &median[1]);
        printf("%-20s %6d %8d %6d %8d\n", taps[i].name, (int)(best[0] - empty),
               (int)(median[0] - empty), (int)(best[1] - empty), (int)(median[1] - empty));
        plane_bpf__destroy(plane);
    }
}

int main(void)
{
    struct plane_bpf *plane = load_plane(1, 0);
    if (plane == NULL) {
        printf("skipped: cannot load BPF programs (%s)\n", strerror(errno));
        return 77;
    }
    plane->bss->probe_mode = PK_HASH_FLOW;

    struct frames_rng rng = { 6 };
    struct frames_flow tcp4 = { .family = 4,
                                .proto = 6,
                                .src = { 10, 0, 0, 1 },
                                .dst = { 10, 0, 0, 2 },
                                .sport = 40000,
                                .dport = 80 };
    struct frames_flow udp4 = tcp4, tcp6 = tcp4, sctp4 = tcp4;
    udp4.proto = 17;
    tcp6.family = 6;
    sctp4.proto = 132;
    struct {
        const char *name;
        const struct frames_flow *flow;
        enum frames_kind kind;
        unsigned tags; /* VLAN tags put in before */
        unsigned seed;
    } kinds[] = {
        { "TCP, IPv4", &tcp4, FRAMES_PLAIN, 0, 0 },
        { "UDP, IPv4", &udp4, FRAMES_PLAIN, 0, 0 },
        { "TCP, IPv6", &tcp6, FRAMES_PLAIN, 0, 0 },
        { "VLAN, TCP, IPv4", &tcp4, FRAMES_PLAIN, 1, 0 },
        { "QinQ, TCP, IPv4", &tcp4, FRAMES_PLAIN, 2, 0 },
        { "SCTP, IPv4", &sctp4, FRAMES_PLAIN, 0, 0 },
        { "extension headers", &tcp6, FRAMES_WHOLE, 0, 11 },
        { "later fragment", &udp4, FRAMES_LATER, 0, 0 },
        { "ICMP error", &tcp4, FRAMES_ICMP_ERR, 0, 0 },
        { "ARP", NULL, FRAMES_PLAIN, 0, 0 },
    };
    uint32_t empty = 0, unused;
    static uint8_t frame[ENCAP_ROOM];
    frame[12] = 0x08;
    frame[13] = 0x06;
    run(bpf_program__fd(plane->progs.pk_empty), frame, 60, &empty, &unused);
    printf("ns per packet, best and median of %u runs of %u, less %u for an empty program\n\n",
           ROUNDS, REPEAT, empty);
    printf("%-20s %6s %8s %6s %8s\n", "packet", "decide", "(median)", "tap", "(median)");
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        size_t len = 60;
        rng.state = kinds[i].seed;
        if (kinds[i].flow != NULL)
            len = frames_make(&rng, kinds[i].flow, kinds[i].kind, false, 1, frame);
        for (unsigned k = 0; k < kinds[i].tags; k++) {
            memmove(frame + 16, frame + 12, len - 12);
            memcpy(frame + 12, "\x81\0\0\1", 4);
            len += 4;
        }
        row(plane, kinds[i].name, frame, len, empty);
    }

    /* Around TCP in IPv4 (Teredo: IPv6), the packet of several made that costs most. */
    printf("\n");
    for (unsigned kind = 0; kind < ENCAP_COUNT; kind++)
        row(plane, encap_name((enum encap)kind), frame,
            costliest(plane, &rng, &(enum encap){ (enum encap)kind }, 1,
                      kind == ENCAP_TEREDO ? &tcp6 : &tcp4, 64, frame),
            empty);
    static const enum encap deep[] = { ENCAP_VXLAN, ENCAP_VXLAN, ENCAP_VXLAN };
    static const enum encap mixed[] = { ENCAP_VLAN3, ENCAP_VXLAN, ENCAP_VLAN3 };
    row(plane, "VXLAN x 3", frame, costliest(plane, &rng, deep, 3, &tcp4, 64, frame), empty);
    row(plane, "VLANs, VXLAN, VLANs", frame, costliest(plane, &rng, mixed, 3, &tcp6, 64, frame),
        empty);
    row(plane, "VXLAN, 1,500 bytes", frame, costliest(plane, &rng, deep, 1, &tcp4, 1400, frame),
        empty);

    static uint8_t tagged[FRAMES_ROOM + 4];
    size_t tagged_len = frames_make(&rng, &tcp4, FRAMES_PLAIN, false, 1, tagged);
    memmove(tagged + 16, tagged + 12, tagged_len - 12);
    memcpy(tagged + 12, "\x81\0\0\1", 4);
    several(tagged, tagged_len + 4, frame, costliest(plane, &rng, deep, 1, &tcp4, 64, frame),
            empty);

    struct {
        const char *name;
        struct bpf_program *program;
    } programs[] = { { "tap", plane->progs.pk_tap }, { "decide", plane->progs.pk_probe } };
    printf("\n");
    for (size_t i = 0; i < 2; i++) {
        struct bpf_prog_info info = { 0 };
        uint32_t size = sizeof info;
        if (bpf_obj_get_info_by_fd(bpf_program__fd(programs[i].program), &info, &size) == 0)
            printf("%s: %u instructions, %u bytes of machine code, %u instructions verified\n",
                   programs[i].name, info.xlated_prog_len / 8, info.jited_prog_len,
                   info.verified_insns);
    }
    plane_bpf__destroy(plane);
    return 0;
}
