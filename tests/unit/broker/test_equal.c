/* SPDX-License-Identifier: Apache-2.0 */
/* The kernel decides as user space does: the BPF program run on the same frames. */
#include "pk_test.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "plane.skel.h"

#include "encap.h"
#include "frames.h"
#include "packet/flow.h"

#define SEED 0xfeedfacecafebeefu

static struct plane_bpf *plane;

static int compare(struct pk_fragment_memory *memory, const uint8_t *frame, size_t len,
                   enum pk_hash_mode mode)
{
    uint32_t hash = 0;
    unsigned reason = pk_flow_decide(memory, frame, len, mode, SEED, &hash);
    plane->bss->probe_mode = mode;
    uint8_t out[16384];
    LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = frame, .data_size_in = (uint32_t)len,
                .data_out = out, .data_size_out = sizeof out, .repeat = 1);
    int r = bpf_prog_test_run_opts(bpf_program__fd(plane->progs.pk_probe), &opts);
    if (r < 0)
        fail_msg("%zu bytes: %s", len, strerror(errno));
    if (plane->bss->probe_reason == reason && plane->bss->probe_hash == hash)
        return (int)reason;
    print_message("# ");
    for (size_t i = 0; i < PK_MIN(len, 200); i++)
        print_message("%02x", frame[i]);
    fail_msg("\nkernel: \"%s\" %08x, user space: \"%s\" %08x (%zu bytes)",
             pk_reason_name(plane->bss->probe_reason), plane->bss->probe_hash,
             pk_reason_name(reason), hash, len);
    return -1;
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
        seen[compare(memory, frame, len,
                     (enum pk_hash_mode)(i % 5 < 3   ? PK_HASH_FLOW
                                         : i % 5 - 3 ? PK_HASH_OUTER
                                                     : PK_HASH_ADDRESSES))]++;
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
        bpf_object__for_each_program(program, plane->obj)
            bpf_program__set_autoload(program, program == plane->progs.pk_probe);
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
