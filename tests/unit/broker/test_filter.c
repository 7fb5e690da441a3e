/* SPDX-License-Identifier: Apache-2.0 */
/* Filters in the BPF path say what pk_filter_match() says. */
#include "pk_test.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "filter_probe.skel.h"

#include "broker/bpf/filter.h"
#include "broker/filter.h"
#include "ebpf.h"
#include "expressions.h"
#include "packet/flow.h"
#include "packet/parse.h"

/* As the kernel has it when pk_filter_mask() is called: the window with what an earlier packet left
 * behind this one's end. */
static void parse(struct pk_parser *parser, const uint8_t *frame, size_t len)
{
    memset(parser->window, 0xa5, sizeof parser->window);
    memcpy(parser->window, frame, PK_MIN(len, PK_PARSE_WINDOW));
    pk_parse(parser, (uint32_t)len, PK_HASH_FLOW);
}

static void check(const struct pk_filter *filter, const char *text, const uint8_t *frame,
                  size_t len)
{
    static struct pk_parser parser;
    struct pk_error err = { 0 };
    struct pk_filter_code code;
    struct pk_filter_use use = { .filter = filter, .name = "f/g", .channel = 3, .bit = 40 };
    if (pk_filter_emit(&use, 1, PK_FILTER_ROOM, &code, &err) < 0)
        fail_msg("%s: %s", text, err.msg);
    parse(&parser, frame, len);
    bool want = pk_filter_match(filter, frame, len, &parser.flow);
    uint64_t mask = 0;
    const char *why = "";
    if (!ebpf_all_reached(code.insns, code.count))
        fail_msg("%s: an instruction is not reached", text);
    if (!ebpf_run(code.insns, code.count, &parser, sizeof parser, len, 3, &mask, &why))
        fail_msg("%s: %s", text, why);
    if (mask != (want ? ~0ull : ~(1ull << 40)))
        fail_msg("%s: %016llx where %d was meant, frame of %zu bytes", text,
                 (unsigned long long)mask, want, len);
    /* The filter of another channel. */
    assert_true(ebpf_run(code.insns, code.count, &parser, sizeof parser, len, 4, &mask, &why));
    assert_true(mask == ~0ull);
    pk_filter_code_done(&code);
}

static struct pk_filter *compile(const char *text, bool is_json)
{
    struct pk_error err = { 0 };
    struct pk_filter *filter = NULL;
    json_t *value = is_json ? json_loads(text, 0, NULL) : json_string(text);
    assert_non_null(value);
    int r = pk_filter_compile(value, &filter, NULL, &err);
    json_decref(value);
    if (r < 0 && is_json)
        fail_msg("%s: %s", text, err.msg);
    return r < 0 ? NULL : filter;
}

/* A frame that may be longer than the window. */
static size_t any_frame(struct frames_rng *rng, uint8_t frame[ENCAP_ROOM])
{
    size_t len = expression_frame(rng, frame);
    if (frames_below(rng, 8) == 0) {
        size_t more = len + frames_below(rng, 800);
        memset(frame + len, (int)frames_below(rng, 256), more - len);
        len = more;
    }
    return len;
}

static void expressions(void **state)
{
    (void)state;
    struct frames_rng rng = { 21 };
    unsigned compiled = 0;
    for (unsigned i = 0; i < 4000; i++) {
        char text[EXPRESSION_ROOM];
        uint8_t frame[ENCAP_ROOM];
        expression_random(&rng, text);
        PK_CLEANUP(pk_filter_free_p) struct pk_filter *filter = compile(text, false);
        for (unsigned k = 0; filter != NULL && k < 25; k++)
            check(filter, text, frame, any_frame(&rng, frame));
        compiled += filter != NULL;
    }
    print_message("# %u expressions\n", compiled);
    assert_true(compiled > 2000);
}

static void fields(void **state)
{
    (void)state;
    struct frames_rng rng = { 22 };
    for (unsigned i = 0; i < 4000; i++) {
        char text[EXPRESSION_ROOM];
        uint8_t frame[ENCAP_ROOM];
        expression_fields(&rng, text);
        PK_CLEANUP(pk_filter_free_p) struct pk_filter *filter = compile(text, true);
        for (unsigned k = 0; k < 25; k++)
            check(filter, text, frame, any_frame(&rng, frame));
    }
}

static void instructions(void **state)
{
    (void)state;
    struct frames_rng rng = { 23 };
    unsigned passed = 0, all = 0;
    for (unsigned i = 0; i < 40000; i++) {
        struct pk_filter_op ops[60];
        uint8_t frame[ENCAP_ROOM];
        struct pk_error err = { 0 };
        PK_CLEANUP(pk_filter_free_p) struct pk_filter *filter = NULL;
        size_t count = expression_ops(&rng, ops, PK_ARRAY_SIZE(ops));
        if (pk_filter_compile_ops(ops, count, "x", &filter, &err) < 0)
            fail_msg("program %u: %s", i, err.msg);
        for (unsigned k = 0; k < 4; k++) {
            size_t len = any_frame(&rng, frame);
            check(filter, "instructions", frame, len);
            passed += pk_filter_match(filter, frame, len, NULL);
            all++;
        }
    }
    assert_true(passed > all / 10 && passed < all * 9 / 10);
}

/* Several channels with several targets each. */
static void channels(void **state)
{
    (void)state;
    PK_CLEANUP(pk_filter_free_p) struct pk_filter *tcp = compile("tcp", false);
    PK_CLEANUP(pk_filter_free_p) struct pk_filter *udp = compile("{\"protocols\":[17]}", true);
    PK_CLEANUP(pk_filter_free_p) struct pk_filter *none = compile("greater 9000", false);
    const struct pk_filter_use uses[] = {
        { tcp, "a", 0, 0 },   { NULL, "b", 0, 1 }, { udp, "c", 0, 2 },    { none, "d", 255, 3 },
        { udp, "e", 255, 4 }, { NULL, "f", 7, 5 }, { udp, "g", 255, 63 },
    };
    struct pk_filter_code code;
    struct pk_error err = { 0 };
    static struct pk_parser parser;
    uint8_t frame[FRAMES_ROOM];
    struct frames_rng rng = { 1 };
    struct frames_flow flow = { .family = 4, .proto = 17, .sport = 7000, .dport = 7001 };
    size_t len = frames_make(&rng, &flow, FRAMES_PLAIN, false, 1, frame);
    parse(&parser, frame, len);
    assert_int_equal(pk_filter_emit(uses, PK_ARRAY_SIZE(uses), PK_FILTER_ROOM, &code, &err), 0);
    assert_true(ebpf_all_reached(code.insns, code.count));
    static const struct {
        unsigned channel;
        uint64_t mask;
    } want[] = { { 0, ~1ull }, { 255, ~8ull }, { 7, ~0ull }, { 1, ~0ull } };
    for (size_t i = 0; i < PK_ARRAY_SIZE(want); i++) {
        uint64_t mask;
        const char *why;
        assert_true(ebpf_run(code.insns, code.count, &parser, sizeof parser, len, want[i].channel,
                             &mask, &why));
        assert_true(mask == want[i].mask);
    }
    pk_filter_code_done(&code);

    /* No filter at all is code, too. */
    assert_int_equal(pk_filter_emit(NULL, 0, PK_FILTER_ROOM, &code, &err), 0);
    assert_true(ebpf_all_reached(code.insns, code.count));
    pk_filter_code_done(&code);

    int r;
    PK_TEST_EACH_ALLOC_FAILS(r, r = pk_filter_emit(uses, PK_ARRAY_SIZE(uses), 4096, &code, &err);
                             if (r >= 0) pk_filter_code_done(&code));
}

static void too_large(void **state)
{
    (void)state;
    json_t *list = json_array(), *value = json_pack("{s:o}", "prefixes", list);
    for (unsigned i = 0; i < PK_FILTER_LIST_MAX; i++) {
        char text[64];
        snprintf(text, sizeof text, "2001:db8:%x::/48", i);
        json_array_append_new(list, json_string(text));
    }
    struct pk_error err = { 0 };
    PK_CLEANUP(pk_filter_free_p) struct pk_filter *filter = NULL;
    assert_int_equal(pk_filter_compile(value, &filter, NULL, &err), 0);
    json_decref(value);
    const struct pk_filter_use uses[] = {
        { filter, "f/one", 0, 0 },
        { filter, "f/two", 0, 1 },
        { filter, "f/three", 0, 2 },
        { filter, "f/four", 1, 3 },
    };
    struct pk_filter_code code;
    assert_int_equal(pk_filter_emit(uses, 2, PK_FILTER_ROOM, &code, &err), 0);
    pk_filter_code_done(&code);
    assert_int_equal(pk_filter_emit(uses, 4, PK_FILTER_ROOM, &code, &err), PK_E_NOSPACE);
    assert_non_null(strstr(err.msg, "f/"));
    assert_true(err.hint[0] != '\0');
}

/* ---- in the kernel ---- */

static bool has_bpf;

static struct filter_probe *load(const struct pk_filter_code *code)
{
    assert_int_equal(pk_filter_install(code), 0);
    struct filter_probe *probe = filter_probe__open();
    assert_non_null(probe);
    int r = filter_probe__load(probe);
    (void)pk_filter_install(NULL);
    if (r < 0)
        fail_msg("the kernel refuses the filters: %s", strerror(-r));
    return probe;
}

static void in_the_kernel(void **state)
{
    (void)state;
    enum { ROUNDS = 24, CHANNELS = 8, TARGETS = 8, FRAMES = 150 };
    if (!has_bpf)
        PK_SKIP("needs BPF");
    struct frames_rng rng = { 24 };
    unsigned filters = 0, largest = 0;
    uint32_t verified = 0;
    for (unsigned round = 0; round < ROUNDS; round++) {
        static char texts[CHANNELS * TARGETS][EXPRESSION_ROOM];
        struct pk_filter_use uses[CHANNELS * TARGETS];
        size_t count = 0;
        struct pk_filter_code code;
        struct pk_error err = { 0 };
        while (count < CHANNELS * TARGETS) {
            struct pk_filter *filter = NULL;
            char *text = texts[count];
            struct pk_filter_op ops[60];
            switch (frames_below(&rng, 4)) {
            case 0:
                expression_fields(&rng, text);
                filter = compile(text, true);
                break;
            case 1:
                snprintf(text, EXPRESSION_ROOM, "instructions");
                pk_filter_compile_ops(ops, expression_ops(&rng, ops, PK_ARRAY_SIZE(ops)), text,
                                      &filter, &err);
                break;
            default:
                expression_random(&rng, text);
                filter = compile(text, false);
            }
            if (filter == NULL)
                continue;
            uses[count] =
                (struct pk_filter_use){ filter, text, (uint32_t)count / TARGETS, (uint8_t)count };
            count++;
        }
        assert_int_equal(pk_filter_emit(uses, count, PK_FILTER_ROOM, &code, &err), 0);
        largest = PK_MAX(largest, (unsigned)code.count);
        struct filter_probe *probe = load(&code);
        int fd = bpf_program__fd(probe->progs.filter_probe);
        struct bpf_prog_info info = { 0 };
        uint32_t size = sizeof info;
        assert_int_equal(bpf_obj_get_info_by_fd(fd, &info, &size), 0);
        verified = PK_MAX(verified, info.verified_insns);
        for (unsigned i = 0; i < FRAMES; i++) {
            static uint8_t frame[ENCAP_ROOM];
            struct pk_flow flow;
            size_t len = any_frame(&rng, frame);
            pk_flow_parse(frame, len, PK_HASH_FLOW, &flow);
            unsigned channel = frames_below(&rng, CHANNELS);
            uint64_t want = ~0ull;
            for (size_t k = channel * TARGETS; k < (channel + 1) * TARGETS; k++)
                if (!pk_filter_match(uses[k].filter, frame, len, &flow))
                    want &= ~(1ull << k);
            probe->bss->channel = channel;
            probe->bss->mask = 0;
            LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = frame, .data_size_in = (uint32_t)len,
                        .repeat = 1);
            assert_int_equal(bpf_prog_test_run_opts(fd, &opts), 0);
            if (probe->bss->mask == want)
                continue;
            for (size_t k = channel * TARGETS; k < (channel + 1) * TARGETS; k++)
                if ((probe->bss->mask ^ want) >> k & 1)
                    print_message("# %s\n", texts[k]);
            fail_msg("round %u: kernel %016llx, user space %016llx", round,
                     (unsigned long long)probe->bss->mask, (unsigned long long)want);
        }
        filter_probe__destroy(probe);
        pk_filter_code_done(&code);
        for (size_t k = 0; k < count; k++) {
            pk_filter_free((struct pk_filter *)(uintptr_t)uses[k].filter);
            filters++;
        }
    }
    print_message("# %u filters; at most %u instructions in a program, %u verified\n", filters,
                  largest, verified);
}

/* As large as the room is. */
static void the_largest(void **state)
{
    (void)state;
    if (!has_bpf)
        PK_SKIP("needs BPF");
    struct pk_filter_use uses[64];
    struct pk_filter_code code;
    struct pk_error err = { 0 };
    char text[PK_FILTER_TEXT_MAX] = "ip";
    for (unsigned i = 0; i < 30; i++)
        snprintf(text + strlen(text), 64, " or (vlan and port %u)", 7 * i);
    PK_CLEANUP(pk_filter_free_p) struct pk_filter *filter = compile(text, false);
    assert_non_null(filter);
    unsigned count = 0;
    for (; count < 64; count++) {
        uses[count] = (struct pk_filter_use){ filter, "f/g", 0, (uint8_t)count };
        if (pk_filter_emit(uses, count + 1, PK_FILTER_ROOM, &code, &err) < 0)
            break;
        pk_filter_code_done(&code);
    }
    assert_int_equal(pk_filter_emit(uses, count, PK_FILTER_ROOM, &code, &err), 0);
    assert_true(code.count > PK_FILTER_ROOM / 2);
    struct filter_probe *probe = load(&code);
    struct bpf_prog_info info = { 0 };
    uint32_t size = sizeof info;
    assert_int_equal(
        bpf_obj_get_info_by_fd(bpf_program__fd(probe->progs.filter_probe), &info, &size), 0);
    print_message("# %zu instructions, %u verified\n", code.count, info.verified_insns);
    filter_probe__destroy(probe);
    pk_filter_code_done(&code);

    /* Without filters: loads, and lets everything pass. */
    probe = load(NULL);
    uint8_t frame[60] = { 0 };
    LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = frame, .data_size_in = sizeof frame,
                .repeat = 1);
    assert_int_equal(bpf_prog_test_run_opts(bpf_program__fd(probe->progs.filter_probe), &opts), 0);
    assert_true(probe->bss->mask == ~0ull);
    filter_probe__destroy(probe);
}

int main(void)
{
    struct filter_probe *probe = geteuid() == 0 ? filter_probe__open_and_load() : NULL;
    has_bpf = probe != NULL;
    filter_probe__destroy(probe);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(expressions), cmocka_unit_test(fields),    cmocka_unit_test(instructions),
        cmocka_unit_test(channels),    cmocka_unit_test(too_large), cmocka_unit_test(in_the_kernel),
        cmocka_unit_test(the_largest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
