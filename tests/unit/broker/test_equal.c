/* SPDX-License-Identifier: Apache-2.0 */
/* The kernel decides as user space does: the BPF program run on the same frames. */
#include "pk_test.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "broker/bpf/abi.h" /* and packet/tunnel.h: constants of the programs */
#include "encap.h"
#include "frames.h"
#include "packet/flow.h"
#include "packet/step.h"
#include "packet/tunnel.h"

#include "plane.skel.h"

#define SEED 0xfeedfacecafebeefu

static struct plane_bpf *plane;

static void run(struct bpf_program *program, const uint8_t *frame, size_t len,
                enum pk_hash_mode mode)
{
    static uint8_t out[16384];
    plane->bss->probe_mode = mode;
    LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = frame, .data_size_in = (uint32_t)len,
                .data_out = out, .data_size_out = sizeof out, .repeat = 1);
    if (bpf_prog_test_run_opts(bpf_program__fd(program), &opts) < 0)
        fail_msg("%zu bytes: %s", len, strerror(errno));
}

static void dump(const uint8_t *frame, size_t len)
{
    print_message("# ");
    for (size_t i = 0; i < PK_MIN(len, 200); i++)
        print_message("%02x", frame[i]);
    print_message("\n");
}

static int compare(struct pk_fragment_memory *memory, const uint8_t *frame, size_t len,
                   enum pk_hash_mode mode)
{
    uint32_t hash = 0;
    unsigned reason = pk_flow_decide(memory, frame, len, mode, SEED, &hash);
    run(plane->progs.pk_probe, frame, len, mode);
    if (plane->bss->probe_reason == reason && plane->bss->probe_hash == hash)
        return (int)reason;
    dump(frame, len);
    fail_msg("kernel: \"%s\" %08x, user space: \"%s\" %08x (%zu bytes)",
             pk_reason_name(plane->bss->probe_reason), plane->bss->probe_hash,
             pk_reason_name(reason), hash, len);
    return -1;
}

/* All that the parser tells about a frame. */
static void compare_flows(const uint8_t *frame, size_t len, enum pk_hash_mode mode)
{
    struct pk_flow want;
    pk_flow_parse(frame, len, mode, &want);
    run(plane->progs.pk_probe_flow, frame, len, mode);
    struct pk_flow got;
    memcpy(&got, &plane->bss->probe_flow, sizeof got);
    if (want.family == 0)
        memset(&got, 0, offsetof(struct pk_flow, src_port)); /* means nothing */
    for (size_t i = want.fragments; i < PK_PARSE_FRAGMENTS; i++)
        got.fragment[i] = want.fragment[i];
    if (memcmp(&want, &got, sizeof want) == 0)
        return;
    dump(frame, len);
    for (size_t i = 0; i < sizeof want; i++)
        if (((uint8_t *)&want)[i] != ((uint8_t *)&got)[i])
            print_message("# byte %zu of the flow: kernel %02x, user space %02x\n", i,
                          ((uint8_t *)&got)[i], ((uint8_t *)&want)[i]);
    fail_msg("the kernel's parser sees another flow (%zu bytes)", len);
}

static void kernel_equals_user_space(void **state)
{
    (void)state;
    enum { FRAMES = 1000000 };
    struct frames_rng rng = { 4 };
    PK_CLEANUP(pk_fragment_memory_free_p)
    struct pk_fragment_memory *memory = pk_fragment_memory_new();
    unsigned seen[PK_REASON_COUNT] = { 0 };
    for (unsigned i = 0; i < FRAMES; i++) {
        uint8_t frame[ENCAP_ROOM];
        size_t len = encap_any(&rng, frame);
        enum pk_hash_mode mode = i % 5 < 3    ? PK_HASH_FLOW
                                 : i % 5 == 3 ? PK_HASH_ADDRESSES
                                              : PK_HASH_OUTER;
        seen[compare(memory, frame, len, mode)]++;
        if (i % 4 == 0)
            compare_flows(frame, len, mode);
    }
    for (unsigned i = 0; i < PK_REASON_COUNT; i++)
        if (seen[i] > 0)
            print_message("# %s: %u\n", i == 0 ? "whole" : pk_reason_name(i), seen[i]);
}

/* Frames in several buffers, up to 9,000 bytes, and headers that reach far into them. */
static void large_frames(void **state)
{
    (void)state;
    struct frames_rng rng = { 5 };
    PK_CLEANUP(pk_fragment_memory_free_p)
    struct pk_fragment_memory *memory = pk_fragment_memory_new();
    static uint8_t large[9018];
    for (unsigned i = 0; i < 2000; i++) {
        struct frames_flow flow;
        frames_flow_random(&rng, false, &flow);
        memset(large, 0, sizeof large);
        frames_make(&rng, &flow, (enum frames_kind)frames_below(&rng, 5), false, i % 50, large);
        compare(memory, large, 1000 + frames_below(&rng, 8018),
                (enum pk_hash_mode)(i % PK_HASH_MODES));
    }
}

int main(void)
{
    plane = plane_bpf__open();
    struct bpf_program *program;
    if (plane != NULL) {
        bpf_object__for_each_program(program, plane->obj) bpf_program__set_autoload(
            program, program == plane->progs.pk_probe || program == plane->progs.pk_probe_flow);
        plane->rodata->seed = SEED;
    }
    if (plane == NULL || plane_bpf__load(plane) < 0) {
        printf("1..0 # SKIP cannot load BPF programs (%s)\n", strerror(errno));
        return 0;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kernel_equals_user_space),
        cmocka_unit_test(large_frames),
    };
    int r = cmocka_run_group_tests(tests, NULL, NULL);
    plane_bpf__destroy(plane);
    return r;
}
