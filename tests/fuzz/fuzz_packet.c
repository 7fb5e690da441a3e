/* SPDX-License-Identifier: Apache-2.0 */
/* The header parser that the BPF programs share: never reads beyond a frame, the fast path agrees
 * with the whole parser, and a flow does not depend on what comes after the headers. */
#include <string.h>

#include "base/alloc.h"
#include "fuzz.h"
#include "packet/flow.h"
#include "packet/fragment_memory.h"
#include "packet/parse.h"
#include "packet/tunnel.h"

/* A tunnel tap's rules on the same bytes, with the packet's own target as the tunnel's end. */
static void judge_tunnel(const uint8_t *data, size_t size)
{
    static struct pk_parser parser;
    struct pk_tunnel_rules rules = { .types = 1u << size % 4 | 1u << size / 4 % 4, .end_count = 1 };
    memset(parser.window, 0, sizeof parser.window);
    memcpy(parser.window, data, size < PK_PARSE_WINDOW ? size : PK_PARSE_WINDOW);
    for (unsigned look = 0; look < 2; look++) {
        pk_tunnel_begin(&parser, &rules, (__u32)size);
        (void)pk_parse_headers(&parser);
        __u32 verdict = pk_tunnel_judge(&parser, &rules);
        FUZZ_CHECK(look == 1 || verdict == PK_TUNNEL_OTHER); /* no end has family 0 */
        if (verdict == PK_TUNNEL_FRAME) {
            FUZZ_CHECK(parser.offset >= 14 && parser.offset <= PK_PARSE_WINDOW);
            FUZZ_CHECK(parser.offset + 14 <= parser.end && parser.end <= size);
            FUZZ_CHECK(pk_tunnel_is_payload(parser.after));
            (void)pk_tunnel_ethertype(&parser);
        }
        FUZZ_CHECK(verdict == PK_TUNNEL_OTHER || !pk_tunnel_is_other(data, data + size));
        rules.ends[0].family = parser.flow.family;
        rules.ends[0].address[0] = parser.flow.dst[0];
        rules.ends[0].address[1] = parser.flow.dst[1];
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    judge_tunnel(data, size);
    static struct pk_fragment_memory *memory, *other;
    if (memory == NULL) {
        memory = pk_fragment_memory_new();
        other = pk_fragment_memory_new();
        FUZZ_CHECK(memory != NULL && other != NULL);
        memory->time = 1;
    }
    /* Both see one time, or what expires between the two calls would differ. */
    other->time = memory->time += 1000000;
    enum pk_hash_mode mode = (enum pk_hash_mode)(size % 4 == 3 ? PK_HASH_FLOW : size % 4);
    uint32_t hash = 0, slow_hash = 0;
    unsigned reason = pk_flow_decide(memory, data, size, mode, 1, &hash);
    unsigned slow_reason = pk_flow_decide_slow(other, data, size, mode, 1, &slow_hash);
    FUZZ_CHECK(reason == slow_reason && hash == slow_hash);
    FUZZ_CHECK(reason < PK_REASON_COUNT);

    struct pk_flow flow;
    pk_flow_parse(data, size, mode, &flow);
    FUZZ_CHECK(flow.family == 0 || flow.family == 4 || flow.family == 6);
    FUZZ_CHECK(flow.fragments <= PK_PARSE_FRAGMENTS);
    for (unsigned i = 0; i < flow.fragments; i++) {
        FUZZ_CHECK(flow.fragment[i].place == PK_FRAGMENT_FIRST ||
                   flow.fragment[i].place == PK_FRAGMENT_LATER);
        FUZZ_CHECK(flow.fragment[i].place == PK_FRAGMENT_FIRST || i + 1u == flow.fragments);
    }
    if (!pk_reason_is_first_lane(flow.reason)) {
        /* The other direction is the same flow. */
        struct pk_flow back = flow;
        memcpy(back.src, flow.dst, sizeof back.src);
        memcpy(back.dst, flow.src, sizeof back.dst);
        back.src_port = flow.dst_port;
        back.dst_port = flow.src_port;
        FUZZ_CHECK(pk_flow_hash(&flow, mode, 7) == pk_flow_hash(&back, mode, 7));
        FUZZ_CHECK(flow.family != 0);
    }
    return 0;
}
