/* SPDX-License-Identifier: Apache-2.0 */
/* The parser and the hash: which flow a frame belongs to. */
#include "pk_test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "encap.h"
#include "frames.h"
#include "packet/flow.h"
#include "packet/parse.h"

#define SEED 0x1234567890abcdefu

static struct pk_fragment_memory *memory;
static enum pk_hash_mode mode = PK_HASH_FLOW;

static int set_up(void **state)
{
    (void)state;
    memory = pk_fragment_memory_new();
    return memory != NULL ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    pk_fragment_memory_free(memory);
    return 0;
}

static unsigned decide(const uint8_t *frame, size_t len, uint32_t *ret_hash)
{
    /* A copy of its exact size, so that ASan sees every byte read beyond it. */
    PK_CLEANUP(pk_free_p) uint8_t *exact = pk_memdup(frame, len);
    return pk_flow_decide(memory, exact, len, mode, SEED, ret_hash);
}

static void dump(const uint8_t *frame, size_t len)
{
    print_message("# ");
    for (size_t i = 0; i < len; i++)
        print_message("%02x", frame[i]);
    print_message("\n");
}

/* Every packet of a flow, in both directions, in every dress, has the flow's one hash. */
static void flows_stay_whole(void **state)
{
    (void)state;
    enum { FLOWS = 120000 };
    struct frames_rng rng = { 1 };
    uint8_t frame[FRAMES_ROOM];
    for (uint32_t i = 0; i < FLOWS; i++) {
        struct frames_flow flow;
        frames_flow_random(&rng, i % 8 == 0, &flow);
        uint32_t want = 0, got = 0;
        size_t len = frames_make(&rng, &flow, FRAMES_PLAIN, false, 0, frame);
        assert_int_equal(decide(frame, len, &want), PK_REASON_NONE);
        static const enum frames_kind kinds[] = { FRAMES_PLAIN, FRAMES_WHOLE,    FRAMES_FIRST,
                                                  FRAMES_LATER, FRAMES_ICMP_ERR, FRAMES_LATER };
        for (unsigned k = 0; k < PK_ARRAY_SIZE(kinds); k++) {
            for (unsigned reverse = 0; reverse < 2; reverse++) {
                len = frames_make(&rng, &flow, kinds[k], reverse, i, frame);
                unsigned reason = decide(frame, len, &got);
                if (reason != PK_REASON_NONE || got != want) {
                    dump(frame, len);
                    fail_msg("flow %u kind %u reverse %u: %s", i, kinds[k], reverse,
                             pk_reason_name(reason));
                }
            }
        }
    }
}

static unsigned too_deep;

static void must_be(unsigned flow, unsigned kind, unsigned depth, const char *what,
                    const uint8_t *frame, size_t len, uint32_t want)
{
    uint32_t got = 0;
    unsigned reason = decide(frame, len, &got);
    if (reason == PK_REASON_NONE && got == want)
        return;
    /* Three encapsulations may have more headers than are followed. */
    if (depth > 2 && reason == PK_REASON_TUNNEL_DEEP) {
        too_deep++;
        return;
    }
    dump(frame, len);
    fail_msg("flow %u in %u encapsulations, outermost %s, %s: \"%s\"", flow, depth,
             encap_name((enum encap)kind), what, pk_reason_name(reason));
}

/* In every encapsulation, and in others put around it, whole, as fragments and in fragments: both
 * directions go by the innermost flow. PICKET_TEST_FLOWS sets how many flows. */
static void innermost_flows_stay_whole(void **state)
{
    (void)state;
    const char *count = getenv("PICKET_TEST_FLOWS");
    unsigned flows = count != NULL ? (unsigned)strtoul(count, NULL, 10) : 6000;
    struct frames_rng rng = { 7 };
    unsigned done[ENCAP_COUNT] = { 0 };
    uint32_t id = 0;
    for (unsigned i = 0; i < flows; i++) {
        struct frames_flow flow;
        uint8_t bare[FRAMES_ROOM];
        uint32_t want = 0;
        frames_flow_random(&rng, i % 8 == 0, &flow);
        size_t bare_len = frames_make(&rng, &flow, FRAMES_PLAIN, false, 0, bare);
        assert_int_equal(decide(bare, bare_len, &want), PK_REASON_NONE);
        for (unsigned kind = 0; kind < ENCAP_COUNT; kind++) {
            for (unsigned reverse = 0; reverse < 2; reverse++) {
                static uint8_t one[ENCAP_ROOM], other[ENCAP_ROOM], later[ENCAP_ROOM];
                static const enum frames_kind kinds[] = { FRAMES_WHOLE, FRAMES_ICMP_ERR,
                                                          FRAMES_FIRST, FRAMES_LATER };
                struct encap_outer outer = { 0 };
                unsigned inner = frames_below(&rng, 4);
                /* Some encapsulations take no tags, which the others may make. */
                bool plain = frames_below(&rng, 2) != 0;
                if (inner == 3) { /* its first fragment comes by another way */
                    bare_len = frames_make(&rng, &flow, FRAMES_FIRST, reverse, ++id, bare);
                    must_be(i, kind, 0, "first fragment", bare, bare_len, want);
                } else {
                    id++;
                }
                bare_len =
                    frames_make(&rng, &flow, plain && inner == 0 ? FRAMES_PLAIN : kinds[inner],
                                reverse, id, bare);
                /* Something may be between, at times more. */
                memcpy(one, bare, bare_len);
                size_t len = bare_len;
                unsigned depth = 1;
                for (unsigned n = frames_below(&rng, inner == 1 ? 2 : 3); n > 0; n--) {
                    frames_flow_random(&rng, false, &outer.ends);
                    size_t more = encap_wrap(&rng, (enum encap)frames_below(&rng, ENCAP_COUNT),
                                             &outer, one, len, other);
                    if (more == 0)
                        continue;
                    memcpy(one, other, more);
                    len = more;
                    depth++;
                }
                if (len > 350) /* the outermost may make it deeper than the window */
                    continue;
                frames_flow_random(&rng, false, &outer.ends);
                outer.id = ++id;
                outer.fragment =
                    inner < 2 && encap_is_tunnel((enum encap)kind) && frames_below(&rng, 2);
                size_t more = encap_wrap(&rng, (enum encap)kind, &outer, one, len, other);
                if (more == 0)
                    continue;
                must_be(i, kind, depth, outer.fragment ? "in fragments" : "whole", other, more,
                        want);
                done[kind]++;
                if (outer.fragment) {
                    len = encap_later(&rng, &outer, other, later);
                    must_be(i, kind, depth, "later fragment", later, len, want);
                }
            }
        }
    }
    assert_true(too_deep < flows / 100);
    for (unsigned kind = 0; kind < ENCAP_COUNT; kind++)
        if (done[kind] < flows / 8)
            fail_msg("%s was tested only %u times", encap_name((enum encap)kind), done[kind]);
}

/* The fast path says what the whole parser says, on good and on bent frames. */
static void fast_path_agrees(void **state)
{
    (void)state;
    enum { FRAMES = 300000 };
    struct frames_rng rng = { 2 };
    PK_CLEANUP(pk_fragment_memory_free_p)
    struct pk_fragment_memory *other = pk_fragment_memory_new();
    unsigned seen[PK_REASON_COUNT] = { 0 };
    for (unsigned i = 0; i < FRAMES; i++) {
        uint8_t frame[ENCAP_ROOM];
        size_t len = encap_any(&rng, frame);
        uint32_t fast = 0, slow = 0;
        unsigned reason = decide(frame, len, &fast);
        unsigned slow_reason = pk_flow_decide_slow(other, frame, len, mode, SEED, &slow);
        if (reason != slow_reason || fast != slow) {
            dump(frame, len);
            fail_msg("%s, %s", pk_reason_name(reason), pk_reason_name(slow_reason));
        }
        seen[reason]++;
    }
    for (unsigned i = 0; i < PK_REASON_COUNT; i++)
        if (seen[i] == 0 && i != PK_REASON_TOO_DEEP && i != PK_REASON_NO_LANE &&
            i != PK_REASON_NOT_SENT && i <= PK_REASON_TUNNEL_DEEP)
            fail_msg("no frame gave the reason \"%s\"", pk_reason_name(i));
}

/* Uneven inputs - one server, ports in a row; a scan; addresses in a row - still spread evenly. */
static void hash_spreads(void **state)
{
    (void)state;
    enum { FLOWS = 64000, BINS = 64 };
    for (unsigned family = 4; family <= 6; family += 2) {
        for (unsigned kind = 0; kind < 3; kind++) {
            unsigned bins[BINS] = { 0 };
            for (uint32_t i = 0; i < FLOWS; i++) {
                struct pk_flow flow = { .family = (uint8_t)family, .proto = 6 };
                flow.src[0] = 0x0100000a;
                flow.dst[0] = 0x0200000a;
                flow.dst_port = PK_BE16(443);
                if (kind == 0)
                    flow.src_port = PK_BE16(i);
                else if (kind == 1)
                    flow.dst[0] += (uint64_t)__builtin_bswap32(i);
                else
                    flow.src[0] += (uint64_t)i << 8;
                bins[pk_hash_slot(pk_flow_hash(&flow, PK_HASH_FLOW, SEED)) * BINS /
                     PK_HASH_SLOTS]++;
            }
            for (unsigned i = 0; i < BINS; i++)
                if (bins[i] < 850 || bins[i] > 1150) /* 1,000 expected; 5 sigma = 157 */
                    fail_msg("IPv%u kind %u: bin %u has %u of %u", family, kind, i, bins[i], FLOWS);
        }
    }
}

/* The mix before the join: bits swapped between the ends leave their XOR and SUM, not the hash. */
static void hash_cannot_be_lined_up(void **state)
{
    (void)state;
    unsigned same = 0;
    struct pk_flow flow = { .family = 4, .proto = 6, .src[0] = 0x0f0f0f0f, .dst[0] = 0xf0f0f0f0 };
    uint32_t first = pk_flow_hash(&flow, PK_HASH_FLOW, SEED);
    for (uint32_t mask = 1; mask < 256; mask++) {
        struct pk_flow turned = flow;
        turned.src[0] ^= mask;
        turned.dst[0] ^= mask;
        assert_int_equal(turned.src[0] + turned.dst[0], flow.src[0] + flow.dst[0]);
        same += pk_flow_hash(&turned, PK_HASH_FLOW, SEED) == first;
    }
    assert_int_equal(same, 0);
    assert_int_not_equal(pk_flow_hash(&flow, PK_HASH_FLOW, SEED + 1), first);
}

static size_t udp4(uint8_t *frame, uint16_t sport, uint16_t dport)
{
    static const uint8_t head[] = { 2,  0, 0, 0, 0, 1,  2,  0, 0, 0,  0, 2, 8, 0,  0x45, 0, 0,
                                    46, 0, 7, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0,    0, 2 };
    memset(frame, 0, 60);
    memcpy(frame, head, sizeof head);
    frame[34] = (uint8_t)(sport >> 8);
    frame[35] = (uint8_t)sport;
    frame[36] = (uint8_t)(dport >> 8);
    frame[37] = (uint8_t)dport;
    return 60;
}

/* What does not hold what its port or protocol promises goes by its address pair, in both
 * directions and in fragments too. */
static void tunnels_go_by_their_ends(void **state)
{
    (void)state;
    uint8_t frame[FRAMES_ROOM];
    uint32_t pair = 0, got = 0;
    size_t len = udp4(frame, 1000, 2000);
    frame[23] = 89; /* OSPF */
    assert_int_equal(decide(frame, len, &pair), PK_REASON_OTHER_PROTOCOL);
    static const struct {
        uint16_t port;
        unsigned reason;
    } ports[] = { { 4789, PK_REASON_TUNNEL_BAD }, { 8472, PK_REASON_TUNNEL_BAD },
                  { 6081, PK_REASON_TUNNEL },     { 2152, PK_REASON_TUNNEL_BAD },
                  { 3544, PK_REASON_TUNNEL_BAD }, { 4790, PK_REASON_TUNNEL_BAD },
                  { 1701, PK_REASON_TUNNEL },     { 6635, PK_REASON_TUNNEL_BAD } };
    for (size_t i = 0; i < PK_ARRAY_SIZE(ports); i++) {
        unsigned reason = ports[i].reason;
        for (unsigned k = 0; k < 4; k++) {
            len = udp4(frame, (uint16_t)(20000 + i), ports[i].port);
            if (k % 2 != 0)
                len = udp4(frame, ports[i].port, (uint16_t)(20000 + i));
            if (k > 1) { /* a first fragment, then a later one */
                frame[19] = (uint8_t)(i + 100 * (k - 1));
                frame[20] = 0x20;
            }
            assert_int_equal(decide(frame, len, &got), reason);
            assert_int_equal(got, pair);
            if (k > 1) {
                frame[20] = 0;
                frame[21] = 100;
                assert_int_equal(decide(frame, len, &got), PK_REASON_NONE);
                assert_int_equal(got, pair);
            }
        }
        len = udp4(frame, (uint16_t)(20000 + i), ports[i].port);
        frame[23] = 6; /* the port means nothing in TCP */
        assert_int_equal(decide(frame, len, &got), PK_REASON_NONE);
        assert_int_not_equal(got, pair);
    }
    static const struct {
        uint8_t number;
        unsigned reason;
    } protos[] = { { 4, PK_REASON_TUNNEL_BAD }, { 41, PK_REASON_TUNNEL_BAD },
                   { 47, PK_REASON_TUNNEL },    { 94, PK_REASON_TUNNEL },
                   { 97, PK_REASON_TUNNEL },    { 115, PK_REASON_TUNNEL },
                   { 137, PK_REASON_TUNNEL } };
    for (size_t i = 0; i < PK_ARRAY_SIZE(protos); i++) {
        len = udp4(frame, 0, 2000);
        frame[23] = protos[i].number;
        assert_int_equal(decide(frame, len, &got), protos[i].reason);
        assert_int_equal(got, pair);
    }
}

/* ESP has no ports, but an SPI: one security association is one flow. */
static void esp_goes_by_spi(void **state)
{
    (void)state;
    uint8_t frame[FRAMES_ROOM];
    uint32_t one, same, other;
    size_t len = udp4(frame, 0x1234, 0x5678);
    frame[23] = 50;
    assert_int_equal(decide(frame, len, &one), PK_REASON_NONE);
    frame[40] = 9;
    assert_int_equal(decide(frame, len, &same), PK_REASON_NONE);
    assert_int_equal(one, same);
    frame[34] = 9;
    assert_int_equal(decide(frame, len, &other), PK_REASON_NONE);
    assert_int_not_equal(one, other);
}

/* Later fragments before the first: counted, and the datagram still goes whole to one place. */
static void fragments_out_of_order(void **state)
{
    (void)state;
    struct frames_rng rng = { 3 };
    for (uint32_t i = 0; i < 2000; i++) {
        struct frames_flow flow;
        uint8_t frame[FRAMES_ROOM];
        uint32_t late = 0, got = 0;
        frames_flow_random(&rng, false, &flow);
        size_t len = frames_make(&rng, &flow, FRAMES_LATER, false, i, frame);
        assert_int_equal(decide(frame, len, &late), PK_REASON_FRAGMENT_UNKNOWN);
        static const enum frames_kind kinds[] = { FRAMES_LATER, FRAMES_FIRST, FRAMES_LATER };
        for (size_t k = 0; k < PK_ARRAY_SIZE(kinds); k++) {
            len = frames_make(&rng, &flow, kinds[k], false, i, frame);
            assert_int_equal(decide(frame, len, &got), PK_REASON_FRAGMENT_UNKNOWN);
            assert_int_equal(got, late);
        }
        /* Another datagram in order follows its flow. */
        len = frames_make(&rng, &flow, FRAMES_PLAIN, false, 0, frame);
        decide(frame, len, &late);
        len = frames_make(&rng, &flow, FRAMES_FIRST, false, i ^ 0x8000, frame);
        assert_int_equal(decide(frame, len, &got), PK_REASON_NONE);
        assert_int_equal(got, late);
        len = frames_make(&rng, &flow, FRAMES_LATER, false, i ^ 0x8000, frame);
        assert_int_equal(decide(frame, len, &got), PK_REASON_NONE);
        assert_int_equal(got, late);
    }
}

static void reasons(void **state)
{
    (void)state;
    uint8_t frame[FRAMES_ROOM] = { 0 };
    uint32_t hash;
    static const struct {
        uint16_t type;
        unsigned reason;
    } types[] = { { 0x0806, PK_REASON_NON_IP },       { 0x88cc, PK_REASON_NON_IP },
                  { 0x88e5, PK_REASON_ENCAPSULATED }, { 0x8863, PK_REASON_ENCAPSULATED },
                  { 0x8847, PK_REASON_TRUNCATED },    { 0x8864, PK_REASON_BAD_HEADER },
                  { 100, PK_REASON_NON_IP },          { 0x0800, PK_REASON_BAD_HEADER },
                  { 0x86dd, PK_REASON_BAD_HEADER },   { 0x8100, PK_REASON_NON_IP } };
    for (size_t i = 0; i < PK_ARRAY_SIZE(types); i++) {
        frame[12] = (uint8_t)(types[i].type >> 8);
        frame[13] = (uint8_t)types[i].type;
        assert_int_equal(decide(frame, 60, &hash), types[i].reason);
    }
    for (size_t len = 0; len < 14; len++)
        assert_int_equal(decide(frame, len, &hash), PK_REASON_TRUNCATED);
    /* Four tags. */
    memcpy(frame + 12, "\x88\xa8\0\1\x81\0\0\2\x81\0\0\2\x81\0\0\3\x08\0", 18);
    assert_int_equal(decide(frame, 60, &hash), PK_REASON_VLAN_DEPTH);
    /* Cut within headers, and at the last byte that is needed. */
    size_t len = udp4(frame, 1, 2);
    assert_int_equal(decide(frame, 37, &hash), PK_REASON_TRUNCATED);
    assert_int_equal(decide(frame, 38, &hash), PK_REASON_NONE);
    assert_int_equal(decide(frame, 33, &hash), PK_REASON_TRUNCATED);
    /* Ports in the padding are none. */
    frame[17] = 20;
    assert_int_equal(decide(frame, len, &hash), PK_REASON_TRUNCATED);
    frame[17] = 19;
    assert_int_equal(decide(frame, len, &hash), PK_REASON_BAD_HEADER);
    frame[17] = 0; /* left by segmentation offload */
    assert_int_equal(decide(frame, len, &hash), PK_REASON_NONE);
    /* More headers than are followed, and headers beyond the window. */
    uint8_t deep[FRAMES_ROOM] = { 0 };
    deep[12] = 0x86;
    deep[13] = 0xdd;
    deep[14] = 0x60;
    deep[18] = 4;
    deep[20] = 60;
    for (unsigned i = 0; i < PK_PARSE_HEADERS; i++)
        deep[54 + 8 * i] = 60;
    assert_int_equal(decide(deep, 1000, &hash), PK_REASON_TOO_DEEP);
    deep[54] = 6;
    deep[55] = 60; /* 488 bytes: beyond 512 */
    assert_int_equal(decide(deep, 1000, &hash), PK_REASON_TOO_DEEP);
    deep[55] = 40;
    assert_int_equal(decide(deep, 1000, &hash), PK_REASON_NONE);
    /* A first fragment without ports goes as its later ones will. */
    uint32_t late;
    len = udp4(frame, 1, 2);
    frame[19] = 9;
    frame[17] = 22;
    frame[20] = 0x20;
    assert_int_equal(decide(frame, len, &hash), PK_REASON_FRAGMENT_UNKNOWN);
    frame[20] = 0;
    frame[21] = 1;
    assert_int_equal(decide(frame, len, &late), PK_REASON_FRAGMENT_UNKNOWN);
    assert_int_equal(hash, late);
    for (unsigned i = 1; i < PK_REASON_COUNT; i++)
        assert_true(pk_reason_name(i)[0] != '\0' && pk_reason_text(i)[0] != '\0');
    assert_string_equal(pk_reason_name(PK_REASON_COUNT), "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(flows_stay_whole, set_up, tear_down),
        cmocka_unit_test_setup_teardown(innermost_flows_stay_whole, set_up, tear_down),
        cmocka_unit_test_setup_teardown(fast_path_agrees, set_up, tear_down),
        cmocka_unit_test_setup_teardown(hash_spreads, set_up, tear_down),
        cmocka_unit_test_setup_teardown(hash_cannot_be_lined_up, set_up, tear_down),
        cmocka_unit_test_setup_teardown(tunnels_go_by_their_ends, set_up, tear_down),
        cmocka_unit_test_setup_teardown(esp_goes_by_spi, set_up, tear_down),
        cmocka_unit_test_setup_teardown(fragments_out_of_order, set_up, tear_down),
        cmocka_unit_test_setup_teardown(reasons, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
